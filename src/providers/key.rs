//! Keys, codes and comparisons: everything that touches key material.
//!
//! Primitives are those of `ring`, which TLS uses already. All comparisons of secrets and codes go
//! through [`same`], whose time does not depend on where two texts differ (SW14, T49).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::{digest, hmac, signature};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::url::hex_digit;

/// Hash functions of an HMAC. The manifest names one; a request never can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alg {
    /// For providers that know nothing better (Twilio, Indeed); a MAC with it is not broken.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// The words of `alg`.
pub(super) const ALGS: &[(&str, Alg)] = &[
    ("sha1", Alg::Sha1),
    ("sha256", Alg::Sha256),
    ("sha384", Alg::Sha384),
    ("sha512", Alg::Sha512),
];

impl Alg {
    const fn ring(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// The name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }
}

/// How a code is written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Digits of either case.
    Hex,
    /// Padded, as RFC 4648 section 4 has it; nothing else is read.
    Base64,
    /// Without padding, RFC 4648 section 5.
    Base64Url,
}

/// The words of `encoding`.
pub(super) const ENCODINGS: &[(&str, Encoding)] = &[
    ("hex", Encoding::Hex),
    ("base64", Encoding::Base64),
    ("base64url", Encoding::Base64Url),
];

impl Encoding {
    /// The bytes; `None` if the text is not of this encoding.
    pub(super) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => unhex(text),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Url => URL_SAFE_NO_PAD.decode(text).ok(),
        }
    }

    /// The text; hex digits are lower case.
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// How a secret's text becomes key bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum SecretEncoding {
    /// The text as it stands, a prefix such as `whsec_` included.
    #[default]
    Utf8,
    /// `whsec_` dropped, the rest is base64, its padding may be missing (Standard Webhooks).
    Whsec,
    /// Base64.
    Base64,
    /// Hex digits.
    Hex,
}

/// The words of `secret_encoding` for MACs.
pub(super) const SECRET_ENCODINGS: &[(&str, SecretEncoding)] = &[
    ("utf8", SecretEncoding::Utf8),
    ("whsec", SecretEncoding::Whsec),
    ("base64", SecretEncoding::Base64),
    ("hex", SecretEncoding::Hex),
];

/// The key of a MAC.
pub(super) struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// Reads a secret; the error says what is wanted and holds nothing of it.
    pub(super) fn decode(text: &str, encoding: SecretEncoding) -> Result<Self, &'static str> {
        let bytes = Zeroizing::new(match encoding {
            SecretEncoding::Utf8 => text.as_bytes().to_vec(),
            SecretEncoding::Whsec => {
                let text = text.strip_prefix("whsec_").unwrap_or(text);
                let text = text.trim_end_matches('=');
                STANDARD_NO_PAD
                    .decode(text)
                    .map_err(|_| "want whsec_ and base64")?
            }
            SecretEncoding::Base64 => STANDARD.decode(text).map_err(|_| "want base64")?,
            SecretEncoding::Hex => unhex(text).ok_or("want hex digits")?,
        });
        if bytes.is_empty() {
            return Err("an empty secret protects nothing");
        }
        Ok(Self(bytes))
    }

    /// The code over the parts, one after the other.
    pub(super) fn mac<'p>(&self, alg: Alg, parts: impl IntoIterator<Item = &'p [u8]>) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(alg.ring(), &self.0));
        for part in parts {
            mac.update(part);
        }
        mac.sign()
    }
}

/// A public key on the curve P-256.
pub(super) struct Point(Vec<u8>);

/// DER of a `SubjectPublicKeyInfo` with an uncompressed point on P-256, up to the point (RFC 5480).
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl Point {
    /// Reads `spki_base64`.
    pub(super) fn decode(text: &str) -> Result<Self, &'static str> {
        let der = STANDARD
            .decode(text.trim())
            .map_err(|_| "want the public key as base64")?;
        match der.strip_prefix(SPKI_P256) {
            Some(point @ [0x04, ..]) if point.len() == 65 => Ok(Self(point.to_vec())),
            _ => Err("want a public key (SubjectPublicKeyInfo) on P-256"),
        }
    }

    /// Whether `sign` (DER) is a signature with SHA-256 over `message`.
    pub(super) fn verifies(&self, message: &[u8], sign: &[u8]) -> bool {
        let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, &self.0);
        key.verify(message, sign).is_ok()
    }
}

/// Whether two secrets or codes are equal. Both are hashed first, so the time tells neither where
/// they differ nor how long the secret is.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let hash = |bytes| digest::digest(&digest::SHA256, bytes);
    hash(a).as_ref().ct_eq(hash(b).as_ref()).into()
}

/// Whether a code equals the right one, in a time that does not depend on where they differ.
pub(super) fn same_code(right: &[u8], given: &[u8]) -> bool {
    right.ct_eq(given).into()
}

/// SHA-256 over parts, each with its length before it, so that no two lists of parts are alike.
pub(super) fn fingerprint<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// SHA-256 as lower-case hex digits.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |[high, low]: &[u8; 2]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?);
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_their_encoding_says() {
        let key = |text, encoding| Key::decode(text, encoding).map(|key| key.0.to_vec());
        assert_eq!(
            key("whsec_x", SecretEncoding::Utf8),
            Ok(b"whsec_x".to_vec())
        );
        assert_eq!(key("whsec_YWI=", SecretEncoding::Whsec), Ok(b"ab".to_vec()));
        assert_eq!(key("YWI", SecretEncoding::Whsec), Ok(b"ab".to_vec()));
        assert_eq!(key("6A6b", SecretEncoding::Hex), Ok(b"jk".to_vec()));
        for (text, encoding) in [
            ("", SecretEncoding::Utf8),
            ("whsec_", SecretEncoding::Whsec),
            ("whsec_!", SecretEncoding::Whsec),
            ("YWI", SecretEncoding::Base64),
            ("abc", SecretEncoding::Hex),
        ] {
            assert!(key(text, encoding).is_err(), "{text:?} as {encoding:?}");
        }
    }

    #[test]
    fn codes_are_read_strictly() {
        assert_eq!(Encoding::Hex.decode("0aF"), None);
        assert_eq!(Encoding::Hex.decode("0aFf"), Some(vec![10, 255]));
        assert_eq!(Encoding::Base64.decode("YWI"), None);
        assert_eq!(Encoding::Base64.decode("YWJ="), None);
        assert_eq!(Encoding::Base64.decode(" YWI="), None);
        assert_eq!(Encoding::Base64Url.decode("YWI="), None);
        assert_eq!(Encoding::Base64Url.decode("YWI"), Some(b"ab".to_vec()));
    }

    #[test]
    fn parts_have_borders_in_a_fingerprint() {
        let joined = |parts: &[&[u8]]| fingerprint(parts.iter().copied());
        assert_ne!(joined(&[b"ab", b"c"]), joined(&[b"a", b"bc"]));
    }
}
