//! Signatures of outgoing requests: Standard Webhooks `v1` and `v1a`, and the profiles of `api.md` 6.
//!
//! A [`Signer`] is prepared once per endpoint configuration (keys decoded, HMAC states set up, header
//! names parsed) and used for each attempt. During a rotation every secret that has not expired signs
//! along, the new one first (SW9, SW13). The signed bytes are the bytes sent, whatever they are.
//!
//! Elsewhere: what a secret is ([`crate::model::Secret`]), which header names are taken
//! ([`super::header`]).

use std::fmt::Write as _;

use ed25519_dalek::Signer as _;
use http::{HeaderName, HeaderValue};

use super::header::{self, BadHeader};
use super::key::{Key, Mac};
use crate::base::Timestamp;
use crate::model::{HexKey, HexProfile, OldSecret, Profile, Secret};

pub use super::key::{BadSecret, check_secret, generate, public_key};

/// Old secrets that sign along at most (`api.md` 6).
pub const OLD_SECRETS_MAX: usize = 10;

/// Why no signer can be made. Never says the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSigner {
    /// The current secret makes no key for this profile.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// The profile names headers that cannot be sent.
    #[error("the signature profile cannot be used: {0}")]
    Profile(#[from] BadHeader),
}

/// Everything needed to sign the requests of one endpoint. Prints no key.
pub struct Signer {
    scheme: Scheme,
    /// The newest first; the first one never expires.
    keys: Vec<Dated>,
}

/// Header fields about to be sent.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

struct Dated {
    /// For the Standard Webhooks headers; a text secret has none.
    standard: Option<Key>,
    /// For hex digits; most endpoints have none.
    hex: Option<Box<Mac>>,
    expires: Option<Timestamp>,
}

enum Scheme {
    Standard { dual: bool },
    Hex(Box<HexHeaders>),
    Timestamped(HeaderName),
}

struct HexHeaders {
    header: HeaderName,
    prefix: String,
    type_header: Option<HeaderName>,
    id_header: Option<HeaderName>,
    timestamp_header: Option<HeaderName>,
    also_standard: bool,
}

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const DUAL_ID: HeaderName = HeaderName::from_static("svix-id");
const DUAL_TIMESTAMP: HeaderName = HeaderName::from_static("svix-timestamp");
const DUAL_SIGNATURE: HeaderName = HeaderName::from_static("svix-signature");

impl Signer {
    /// Prepares the keys. The current secret must fit the profile; old ones that do not (the profile
    /// was changed meanwhile) are left out.
    pub fn new(profile: &Profile, current: &Secret, old: &[OldSecret]) -> Result<Self, BadSigner> {
        header::check_profile(profile)?;
        check_secret(current, profile)?;
        let keys = std::iter::once((current, None))
            .chain(old.iter().map(|old| (&old.secret, Some(old.expires))))
            .take(1 + OLD_SECRETS_MAX)
            .map(|(secret, expires)| Dated::new(secret, expires, profile))
            .collect();
        let scheme = Scheme::of(profile)?;
        Ok(Self { scheme, keys })
    }

    /// Appends the signature headers of one attempt.
    ///
    /// `id` is the message id, the same in every attempt (SW3); `now` is the time of this attempt
    /// (SW5); `body` the very bytes that are sent.
    pub fn headers(
        &self,
        id: &str,
        event_type: &str,
        now: Timestamp,
        body: &[u8],
        out: &mut Headers,
    ) {
        let seconds = now.seconds();
        match &self.scheme {
            Scheme::Standard { dual } => self.standard(id, now, body, *dual, out),
            Scheme::Hex(hex) => {
                self.hex(hex, body, out);
                let mut push = |name: &Option<HeaderName>, text: &str| {
                    if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(text)) {
                        out.push((name.clone(), value));
                    }
                };
                push(&hex.type_header, event_type);
                push(&hex.id_header, id);
                push(&hex.timestamp_header, &seconds.to_string());
                if hex.also_standard {
                    self.standard(id, now, body, false, out);
                }
            }
            Scheme::Timestamped(name) => self.timestamped(name, now, body, out),
        }
    }

    fn live(&self, now: Timestamp) -> impl Iterator<Item = &Dated> {
        self.keys
            .iter()
            .filter(move |key| key.expires.is_none_or(|expires| now < expires))
    }

    fn standard(&self, id: &str, now: Timestamp, body: &[u8], dual: bool, out: &mut Headers) {
        // Without a key for these headers they are off: a text secret signs hex digits only.
        if self.keys.first().is_none_or(|key| key.standard.is_none()) {
            return;
        }
        let seconds = now.seconds().to_string();
        let parts = [id.as_bytes(), b".", seconds.as_bytes(), b".", body];
        let mut list = String::with_capacity(64);
        for key in self.live(now).filter_map(|key| key.standard.as_ref()) {
            if !list.is_empty() {
                list.push(' ');
            }
            match key {
                Key::Symmetric(mac) => {
                    list.push_str("v1,");
                    base64(&mac.sign(&parts), &mut list);
                }
                Key::Ed25519(key) => {
                    list.push_str("v1a,");
                    base64(&key.sign(&parts.concat()).to_bytes(), &mut list);
                }
            }
        }
        for (name, dual_name, text) in [
            (ID, DUAL_ID, id.to_owned()),
            (TIMESTAMP, DUAL_TIMESTAMP, seconds),
            (SIGNATURE, DUAL_SIGNATURE, list),
        ] {
            let Ok(value) = HeaderValue::try_from(text) else {
                continue; // ids are base62: cannot happen
            };
            if dual {
                out.push((dual_name, value.clone()));
            }
            out.push((name, value));
        }
    }

    /// One value only, so the new secret alone signs (`api.md` 6).
    fn hex(&self, names: &HexHeaders, body: &[u8], out: &mut Headers) {
        let Some(mac) = self.keys.first().and_then(|key| key.hex.as_ref()) else {
            return;
        };
        let mut text = String::with_capacity(names.prefix.len() + 64);
        text.push_str(&names.prefix);
        hex(&mac.sign(&[body]), &mut text);
        if let Ok(value) = HeaderValue::try_from(text) {
            out.push((names.header.clone(), value));
        }
    }

    fn timestamped(&self, name: &HeaderName, now: Timestamp, body: &[u8], out: &mut Headers) {
        let seconds = now.seconds().to_string();
        let mut text = format!("t={seconds}");
        for mac in self.live(now).filter_map(|key| key.hex.as_ref()) {
            text.push_str(",v1=");
            hex(&mac.sign(&[seconds.as_bytes(), b".", body]), &mut text);
        }
        if let Ok(value) = HeaderValue::try_from(text) {
            out.push((name.clone(), value));
        }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer with {} keys", self.keys.len())
    }
}

impl Dated {
    fn new(secret: &Secret, expires: Option<Timestamp>, profile: &Profile) -> Self {
        let standard = Key::of(secret).ok();
        let text = || Some(Box::new(Mac::new(secret.reveal().as_bytes())));
        let hex = match profile {
            Profile::Standard | Profile::Dual => None,
            Profile::Timestamped { .. } => text(),
            Profile::Hex(hex) => match (hex.key, &standard) {
                (HexKey::Text, _) => text(),
                (HexKey::Decoded, Some(Key::Symmetric(mac))) => Some(Box::new(mac.clone())),
                (HexKey::Decoded, Some(Key::Ed25519(_)) | None) => None,
            },
        };
        Self {
            standard,
            hex,
            expires,
        }
    }
}

impl Scheme {
    fn of(profile: &Profile) -> Result<Self, BadHeader> {
        let name =
            |text: &str| HeaderName::try_from(text).map_err(|_| BadHeader::Name(text.to_owned()));
        let optional = |text: &Option<String>| text.as_deref().map(name).transpose();
        Ok(match profile {
            Profile::Standard => Self::Standard { dual: false },
            Profile::Dual => Self::Standard { dual: true },
            Profile::Timestamped { header } => Self::Timestamped(name(header)?),
            Profile::Hex(HexProfile {
                header,
                prefix,
                type_header,
                id_header,
                timestamp_header,
                key: _,
                also_standard,
            }) => Self::Hex(Box::new(HexHeaders {
                header: name(header)?,
                prefix: prefix.clone(),
                type_header: optional(type_header)?,
                id_header: optional(id_header)?,
                timestamp_header: optional(timestamp_header)?,
                also_standard: *also_standard,
            })),
        })
    }
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        if write!(out, "{byte:02x}").is_err() {} // a String takes everything
    }
}

fn base64(bytes: &[u8], out: &mut String) {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode_string(bytes, out);
}

#[cfg(test)]
mod tests;
