//! Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`. The receiver verifies what is delivered, and
//! the generator signs what goes to sources.
//!
//! Own code, so that a fault in the gateway's is not mirrored here.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

/// Signs as a provider does that follows Standard Webhooks.
#[derive(Clone)]
pub(crate) struct Signer(Verifier);

impl Signer {
    /// `secret` is `whsec_` and base64.
    pub(crate) fn new(secret: &str) -> anyhow::Result<Self> {
        Verifier::new(secret).map(Self)
    }

    /// Sets the three headers for a body sent at `now`, unix seconds. An `id` that cannot stand in a
    /// header leaves the request unsigned, and refused.
    pub(crate) fn sign(&self, headers: &mut HeaderMap, id: &str, now: u64, body: &[u8]) {
        let now = now.to_string();
        let mac = self.0.mac(id, &now, body).finalize().into_bytes();
        let signature = format!("v1,{}", STANDARD.encode(mac));
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", &now),
            ("webhook-signature", &signature),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// Holds the keyed state, so that a check hashes the message only.
#[derive(Clone)]
pub(crate) struct Verifier {
    keyed: Hmac<Sha256>,
}

impl Verifier {
    /// `secret` is `whsec_` and base64.
    pub(crate) fn new(secret: &str) -> anyhow::Result<Self> {
        let text = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(text).context("the secret is not base64")?;
        let keyed = Hmac::new_from_slice(&key).context("the secret cannot be a key")?;
        Ok(Self { keyed })
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }

    /// Says what is wrong, if anything is.
    pub(crate) fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text("webhook-id").ok_or("no webhook-id")?;
        let timestamp = text("webhook-timestamp").ok_or("no webhook-timestamp")?;
        let signatures = text("webhook-signature").ok_or("no webhook-signature")?;
        let mac = self.mac(id, timestamp, body);
        let good = signatures
            .split(' ')
            .filter_map(|one| one.strip_prefix("v1,"))
            .filter_map(|one| STANDARD.decode(one).ok())
            .any(|one| mac.clone().verify_slice(&one).is_ok());
        if good {
            Ok(())
        } else {
            Err("no signature fits")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answer of `reliability.md` section 2.
    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
            ("webhook-timestamp", "1649367553"),
            (
                "webhook-signature",
                "v1,AAAA v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn accepts_the_known_answer_and_refuses_a_changed_body() {
        let verifier = Verifier::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(verifier.check(&headers(), body), Ok(()));
        assert!(verifier.check(&headers(), b"{}").is_err());
        let other = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert!(other.check(&headers(), body).is_err());
    }

    #[test]
    fn signs_the_known_answer() {
        let signer = Signer::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let mut signed = HeaderMap::new();
        signer.sign(
            &mut signed,
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            body,
        );
        let known = headers();
        let known = known["webhook-signature"].to_str().unwrap();
        assert!(known.ends_with(signed["webhook-signature"].to_str().unwrap()));
    }
}
