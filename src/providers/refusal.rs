//! Why a provider's request is refused: a closed list, fit for metric labels and receipts.

/// Why a request is not trusted. No variant carries anything of the request or of the source, so it
/// can be shown, counted and stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The header or field with the signature is not there, or holds no candidate.
    #[error("the signature is missing")]
    MissingSignature,
    /// No candidate matches under any secret of the source.
    #[error("the signature does not match")]
    BadSignature,
    /// No candidate can be decoded.
    #[error("the signature is not encoded as this provider encodes it")]
    BadEncoding,
    /// The signature names an algorithm that the manifest does not allow.
    #[error("the signature's algorithm is not allowed")]
    BadAlgorithm,
    /// The timestamp is not there.
    #[error("the timestamp is missing")]
    MissingTimestamp,
    /// The timestamp cannot be read.
    #[error("the timestamp cannot be read")]
    BadTimestamp,
    /// The timestamp is too far from now, in either direction.
    #[error("the timestamp lies outside the tolerance")]
    StaleTimestamp,
    /// A header that counts for the check occurs more than once.
    #[error("a header that may stand once is repeated")]
    DuplicateHeader,
    /// A header or field that is signed is not there.
    #[error("a signed header or field is missing")]
    MissingField,
    /// The token, or the Basic credential, is not there.
    #[error("the token is missing")]
    MissingToken,
    /// The token, or the Basic credential, is another one or cannot be read.
    #[error("the token does not match")]
    BadToken,
    /// The token's time has passed, or has not come.
    #[error("the token is not valid at this time")]
    ExpiredToken,
    /// The token is signed with a key that the key set does not hold.
    #[error("the token's key is not known")]
    UnknownKey,
    /// Issuer, audience or another claim is not what the manifest wants.
    #[error("a claim of the token does not match")]
    BadClaim,
    /// The body is not what the check has to read, or is not bound by the signature.
    #[error("the body cannot be read, or is not covered by the signature")]
    BadBody,
    /// The challenge of a handshake has characters or a length that are not answered.
    #[error("the challenge is not one that is answered")]
    BadChallenge,
    /// The handshake would replace the secret that the source holds.
    #[error("the source has its secret already")]
    HandshakeClosed,
    /// The source lacks a secret or a setting that the check needs.
    #[error("the source holds no usable secret or setting for this check")]
    NotConfigured,
    /// The provider's manifest receives nothing.
    #[error("this provider sends no webhooks")]
    NotReceivable,
}

impl Refusal {
    /// Every refusal, in the order of the list.
    pub const ALL: &[Self] = &[
        Self::MissingSignature,
        Self::BadSignature,
        Self::BadEncoding,
        Self::BadAlgorithm,
        Self::MissingTimestamp,
        Self::BadTimestamp,
        Self::StaleTimestamp,
        Self::DuplicateHeader,
        Self::MissingField,
        Self::MissingToken,
        Self::BadToken,
        Self::ExpiredToken,
        Self::UnknownKey,
        Self::BadClaim,
        Self::BadBody,
        Self::BadChallenge,
        Self::HandshakeClosed,
        Self::NotConfigured,
        Self::NotReceivable,
    ];

    /// The stable name: metric label, receipt, API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::MissingSignature => "missing_signature",
            Self::BadSignature => "bad_signature",
            Self::BadEncoding => "bad_encoding",
            Self::BadAlgorithm => "bad_algorithm",
            Self::MissingTimestamp => "missing_timestamp",
            Self::BadTimestamp => "bad_timestamp",
            Self::StaleTimestamp => "stale_timestamp",
            Self::DuplicateHeader => "duplicate_header",
            Self::MissingField => "missing_field",
            Self::MissingToken => "missing_token",
            Self::BadToken => "bad_token",
            Self::ExpiredToken => "expired_token",
            Self::UnknownKey => "unknown_key",
            Self::BadClaim => "bad_claim",
            Self::BadBody => "bad_body",
            Self::BadChallenge => "bad_challenge",
            Self::HandshakeClosed => "handshake_closed",
            Self::NotConfigured => "not_configured",
            Self::NotReceivable => "not_receivable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        let plain = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(codes.iter().all(|code| plain(code)), "{codes:?}");
    }
}
