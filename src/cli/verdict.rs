//! What a receiver thinks of a delivery's signature, and why.
//!
//! Standard Webhooks `v1` (HMAC-SHA256) and `v1a` (Ed25519). A signature that does not fit has no
//! reason written on it, so the reason is found by evidence: if the signature fits a usual rewriting
//! of the body, or if one of the secrets has verified an earlier request at the same path, the body
//! was changed on the way; otherwise the secret is the wrong one. Written apart from `policy::sign`
//! on purpose: a test receiver that shares the sender's code would share its faults.
//!
//! Pure: the time comes in as an argument. Invariant: no secret in any message.

use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

use crate::base::Timestamp;

/// Seconds by which `webhook-timestamp` may differ, both ways (SW15).
const TOLERANCE: u64 = 300;
/// Entries of a signature header that are looked at (SW9).
const MAX_SIGNATURES: usize = 10;
/// Paths whose proof is remembered; beyond it everything is forgotten, which costs the distinction
/// between a wrong secret and a changed body only.
const MAX_PROVEN: usize = 10_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No secret was given: nothing to check against.
    Unchecked,
    /// Signed with one of the secrets, in time.
    Good,
    /// Not to be trusted.
    Bad(Reason),
}

/// Why a delivery is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// These headers are absent or no text.
    MissingHeaders(Vec<&'static str>),
    /// No entry of `webhook-signature` has a version that the secrets can check.
    NoUsableSignature,
    /// Signed with another secret.
    WrongSecret,
    /// Signed with the text of the secret instead of the bytes behind `whsec_`.
    SecretAsText,
    /// The right secret signed another body; says how it is known.
    BodyChanged(&'static str),
    /// The signature fits, and its time is off by so many seconds; negative = in the past.
    Clock(i64),
    /// `webhook-timestamp` is no whole number of seconds.
    BadTimestamp,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchecked => f.write_str("not checked (no --secret)"),
            Self::Good => f.write_str("signature ok"),
            Self::Bad(reason) => write!(f, "BAD SIGNATURE: {reason}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingHeaders(names) => write!(f, "missing headers: {}", names.join(", ")),
            Self::NoUsableSignature => f.write_str("no signature of a known version (v1, v1a)"),
            Self::WrongSecret => f.write_str("wrong secret"),
            Self::SecretAsText => {
                f.write_str("wrong secret: signed with its text instead of the bytes behind whsec_")
            }
            Self::BodyChanged(how) => write!(f, "body changed: {how}"),
            Self::Clock(off) if *off < 0 => write!(f, "clock: signed {} s ago", off.unsigned_abs()),
            Self::Clock(off) => write!(f, "clock: signed {off} s in the future"),
            Self::BadTimestamp => f.write_str("webhook-timestamp is no number of seconds"),
        }
    }
}

/// The text is no secret that verifies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Unknown prefix.
    #[error("a secret begins with whsec_, whsk_ or whpk_")]
    Prefix,
    /// What stands behind the prefix is no key.
    #[error("what stands behind the prefix is not the base64 of a key")]
    Key,
}

/// Checks signatures against some secrets, and remembers where they have fitted.
pub struct Judge {
    keys: Vec<Key>,
    /// Paths at which a signature has been good.
    proven: HashSet<String>,
}

enum Key {
    Symmetric {
        mac: Hmac<Sha256>,
        /// Keyed with the whole text, to recognise a usual mistake.
        as_text: Hmac<Sha256>,
    },
    Ed25519(VerifyingKey),
}

/// One request as the receiver has it.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// Path of the URL.
    pub path: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The bytes received.
    pub body: &'a [u8],
}

impl Judge {
    /// Without secrets every verdict is [`Verdict::Unchecked`].
    ///
    /// # Errors
    /// One of the texts is no secret.
    pub fn new(secrets: &[String]) -> Result<Self, BadSecret> {
        let keys = secrets
            .iter()
            .map(|text| Key::parse(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            keys,
            proven: HashSet::new(),
        })
    }

    /// Judges one delivery that came in at `now`.
    pub fn judge(&mut self, delivery: Delivery<'_>, now: Timestamp) -> Verdict {
        if self.keys.is_empty() {
            return Verdict::Unchecked;
        }
        match self.check(delivery, now) {
            Ok(()) => Verdict::Good,
            Err(reason) => Verdict::Bad(reason),
        }
    }

    fn check(&mut self, delivery: Delivery<'_>, now: Timestamp) -> Result<(), Reason> {
        let signed = Signed::read(delivery.headers)?;
        if !self.fits(&signed, delivery.body)? {
            return Err(self.why_not(&signed, delivery));
        }
        if self.proven.len() >= MAX_PROVEN {
            self.proven.clear();
        }
        self.proven.insert(delivery.path.to_owned());
        let at: u64 = signed.timestamp.parse().map_err(|_| Reason::BadTimestamp)?;
        if at.abs_diff(now.seconds()) > TOLERANCE {
            let off = i64::try_from(at.abs_diff(now.seconds())).unwrap_or(i64::MAX);
            let is_past = at < now.seconds();
            return Err(Reason::Clock(if is_past { -off } else { off }));
        }
        Ok(())
    }

    /// Whether any signature fits any secret.
    fn fits(&self, signed: &Signed<'_>, body: &[u8]) -> Result<bool, Reason> {
        let mut usable = false;
        for entry in signed.signatures.split(' ').take(MAX_SIGNATURES) {
            let Some((version, text)) = entry.split_once(',') else {
                continue;
            };
            let Ok(bytes) = STANDARD.decode(text) else {
                continue;
            };
            for key in &self.keys {
                match (version, key) {
                    ("v1", Key::Symmetric { mac, .. }) => {
                        usable = true;
                        if verifies(mac, signed, body, &bytes) {
                            return Ok(true);
                        }
                    }
                    ("v1a", Key::Ed25519(key)) => {
                        usable = true;
                        let content = signed.content(body);
                        let signature = Signature::from_slice(&bytes);
                        if signature.is_ok_and(|one| key.verify_strict(&content, &one).is_ok()) {
                            return Ok(true);
                        }
                    }
                    _ => {}
                }
            }
        }
        if usable {
            Ok(false)
        } else {
            Err(Reason::NoUsableSignature)
        }
    }

    fn why_not(&self, signed: &Signed<'_>, delivery: Delivery<'_>) -> Reason {
        for (how, body) in rewritings(delivery.body) {
            if self.fits(signed, &body) == Ok(true) {
                return Reason::BodyChanged(how);
            }
        }
        let as_text = self.keys.iter().any(|key| match key {
            Key::Symmetric { as_text, .. } => signed
                .symmetric()
                .any(|bytes| verifies(as_text, signed, delivery.body, &bytes)),
            Key::Ed25519(_) => false,
        });
        if as_text {
            Reason::SecretAsText
        } else if self.proven.contains(delivery.path) {
            Reason::BodyChanged("this secret has verified earlier requests at this path")
        } else {
            Reason::WrongSecret
        }
    }
}

impl Key {
    fn parse(text: &str) -> Result<Self, BadSecret> {
        let decode = |base64: &str| STANDARD.decode(base64).map_err(|_| BadSecret::Key);
        let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).map_err(|_| BadSecret::Key);
        if let Some(base64) = text.strip_prefix("whsec_") {
            return Ok(Self::Symmetric {
                mac: keyed(&decode(base64)?)?,
                as_text: keyed(text.as_bytes())?,
            });
        }
        if let Some(base64) = text.strip_prefix("whpk_") {
            let bytes = decode(base64)?.try_into().map_err(|_| BadSecret::Key)?;
            let key = VerifyingKey::from_bytes(&bytes).map_err(|_| BadSecret::Key)?;
            return Ok(Self::Ed25519(key));
        }
        if let Some(base64) = text.strip_prefix("whsk_") {
            let bytes = decode(base64)?;
            // 32 bytes of seed, or the seed followed by the public key.
            let seed = bytes.first_chunk().ok_or(BadSecret::Key)?;
            return Ok(Self::Ed25519(SigningKey::from_bytes(seed).verifying_key()));
        }
        Err(BadSecret::Prefix)
    }
}

/// The three headers.
struct Signed<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: &'a str,
}

impl<'a> Signed<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Reason> {
        let mut missing = Vec::new();
        let mut text = |name: &'static str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            if value.is_none() {
                missing.push(name);
            }
            value.unwrap_or_default()
        };
        let signed = Self {
            id: text("webhook-id"),
            timestamp: text("webhook-timestamp"),
            signatures: text("webhook-signature"),
        };
        if missing.is_empty() {
            Ok(signed)
        } else {
            Err(Reason::MissingHeaders(missing))
        }
    }

    fn content(&self, body: &[u8]) -> Vec<u8> {
        [
            self.id.as_bytes(),
            b".",
            self.timestamp.as_bytes(),
            b".",
            body,
        ]
        .concat()
    }

    /// The decoded `v1` entries.
    fn symmetric(&self) -> impl Iterator<Item = Vec<u8>> {
        self.signatures
            .split(' ')
            .take(MAX_SIGNATURES)
            .filter_map(|entry| entry.strip_prefix("v1,"))
            .filter_map(|text| STANDARD.decode(text).ok())
    }
}

/// In constant time (`Mac::verify_slice`).
fn verifies(mac: &Hmac<Sha256>, signed: &Signed<'_>, body: &[u8], signature: &[u8]) -> bool {
    let mut mac = mac.clone();
    for part in [signed.id, ".", signed.timestamp, "."] {
        mac.update(part.as_bytes());
    }
    mac.update(body);
    mac.verify_slice(signature).is_ok()
}

/// What proxies and frameworks do to a body, undone.
fn rewritings(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        (
            "white space was added around it",
            body.trim_ascii().to_vec(),
        ),
        ("its last line feed is gone", [body, b"\n"].concat()),
    ];
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        let how = "it was parsed and written again as JSON";
        all.extend(serde_json::to_vec(&value).ok().map(|text| (how, text)));
        all.extend(
            serde_json::to_vec_pretty(&value)
                .ok()
                .map(|text| (how, text)),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PUBLIC: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const V1: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    const V1A: &str = "v1a,CnkujwXFUOk59gNZFCCzmJ2MkkC0yKa+OmyYFXFtPnxkRhEkUBAd4PGNNNjLh4huOXNuqy+Eyxud5+wHP2ezBA==";
    const SIGNED_AT: u64 = 1_649_367_553;

    fn judge(secrets: &[&str]) -> Judge {
        let secrets: Vec<_> = secrets.iter().map(|text| (*text).to_owned()).collect();
        Judge::new(&secrets).expect("good secrets")
    }

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            "webhook-id",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".parse().expect("value"),
        );
        headers.insert("webhook-timestamp", SIGNED_AT.into());
        headers.insert("webhook-signature", signature.parse().expect("value"));
        headers
    }

    fn ask(judge: &mut Judge, headers: &HeaderMap, body: &[u8], seconds: u64) -> Verdict {
        let delivery = Delivery {
            path: "/hook",
            headers,
            body,
        };
        judge.judge(delivery, Timestamp::from_millis(seconds * 1000))
    }

    #[test]
    fn the_published_vectors_are_good_with_any_of_several_secrets() {
        for (secrets, signature) in [
            (vec![SECRET], V1.to_owned()),
            (vec![OTHER, SECRET], V1.to_owned()),
            (vec![SECRET], format!("v9,zzzz v1,AAAA {V1}")),
            (vec![PUBLIC], V1A.to_owned()),
            (vec![OTHER, PUBLIC], format!("{V1} {V1A}")),
            (
                vec!["whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="],
                V1A.to_owned(),
            ),
        ] {
            let verdict = ask(&mut judge(&secrets), &headers(&signature), BODY, SIGNED_AT);
            assert_eq!(verdict, Verdict::Good, "{signature}");
        }
    }

    #[test]
    fn without_a_secret_nothing_is_claimed() {
        let verdict = ask(&mut judge(&[]), &HeaderMap::new(), BODY, SIGNED_AT);
        assert_eq!(verdict, Verdict::Unchecked);
    }

    #[test]
    fn another_secret_is_named_as_the_reason() {
        let verdict = ask(&mut judge(&[OTHER]), &headers(V1), BODY, SIGNED_AT);
        assert_eq!(verdict, Verdict::Bad(Reason::WrongSecret));
    }

    #[test]
    fn a_changed_body_is_recognised_once_the_secret_is_proven() {
        let mut judge = judge(&[SECRET]);
        let changed = br#"{"email":"evil@example.com"}"#;
        let first = ask(&mut judge, &headers(V1), changed, SIGNED_AT);
        assert_eq!(first, Verdict::Bad(Reason::WrongSecret), "no evidence yet");
        assert_eq!(
            ask(&mut judge, &headers(V1), BODY, SIGNED_AT),
            Verdict::Good
        );
        let then = ask(&mut judge, &headers(V1), changed, SIGNED_AT);
        assert!(
            matches!(then, Verdict::Bad(Reason::BodyChanged(_))),
            "{then:?}"
        );
    }

    #[test]
    fn a_rewritten_body_is_recognised_at_once() {
        let pretty = b"{\n  \"email\": \"test@example.com\",\n  \"username\": \"test_user\"\n}";
        for body in [&pretty[..], &[BODY, b"\n"].concat()] {
            let verdict = ask(&mut judge(&[SECRET]), &headers(V1), body, SIGNED_AT);
            assert!(
                matches!(verdict, Verdict::Bad(Reason::BodyChanged(_))),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn the_clock_is_judged_after_the_signature_and_exactly_at_the_edge() {
        let mut judge = judge(&[SECRET]);
        for (now, verdict) in [
            (SIGNED_AT + 300, Verdict::Good),
            (SIGNED_AT - 300, Verdict::Good),
            (SIGNED_AT + 301, Verdict::Bad(Reason::Clock(-301))),
            (SIGNED_AT - 301, Verdict::Bad(Reason::Clock(301))),
        ] {
            assert_eq!(ask(&mut judge, &headers(V1), BODY, now), verdict);
        }
    }

    #[test]
    fn a_signature_with_the_text_of_the_secret_is_explained() {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(&[b"msg_27UH4WbU6Z5A5EzD8u03UvzRbpk.1649367553.", BODY].concat());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let verdict = ask(&mut judge(&[SECRET]), &headers(&signature), BODY, SIGNED_AT);
        assert_eq!(verdict, Verdict::Bad(Reason::SecretAsText));
    }

    #[test]
    fn missing_headers_and_unknown_versions_are_named() {
        let mut headers = headers("v7,AAAA");
        let verdict = ask(&mut judge(&[SECRET]), &headers, BODY, SIGNED_AT);
        assert_eq!(verdict, Verdict::Bad(Reason::NoUsableSignature));
        headers.remove("webhook-signature");
        headers.remove("webhook-id");
        let verdict = ask(&mut judge(&[SECRET]), &headers, BODY, SIGNED_AT);
        let names = vec!["webhook-id", "webhook-signature"];
        assert_eq!(verdict, Verdict::Bad(Reason::MissingHeaders(names)));
    }

    #[test]
    fn texts_that_are_no_secrets_are_refused_without_repeating_them() {
        for (text, error) in [
            ("plain-text", BadSecret::Prefix),
            ("whsec_%%%", BadSecret::Key),
            ("whpk_AAAA", BadSecret::Key),
        ] {
            let refused = Judge::new(&[text.to_owned()]).err().expect("refused");
            assert_eq!(refused, error);
            assert!(!refused.to_string().contains("plain-text"));
        }
    }
}
