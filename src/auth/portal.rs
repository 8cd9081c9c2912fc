//! Portal tokens: signed, not stored, so a page view costs no write (ADR 0323).
//!
//! `pt_` and base64url of: version, application number, capabilities, issued, expires, a random number,
//! the session's name, and 16 bytes of HMAC-SHA256 over all of it under a key of the instance. There is
//! no dot in it, since the SDKs read what follows one as a region.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::base::Timestamp;
use crate::model::{AppNo, PortalCut, Scope};

const PREFIX: &str = "pt_";
const VERSION: u8 = 1;
const MAC: usize = 16;

/// What a portal token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalToken {
    /// The only application it opens.
    pub app: AppNo,
    /// One bit for each of [`CAPABILITIES`].
    pub capabilities: u8,
    /// When it was made.
    pub issued: Timestamp,
    /// From here on it is refused.
    pub expires: Timestamp,
    /// Tells it from others of the same session.
    pub number: u64,
    /// The caller's own name for the session, up to 64 bytes.
    pub session: Option<String>,
}

/// Capabilities in the words of the SDKs, and what each opens. The place is the bit: append only.
pub const CAPABILITIES: [(&str, &[Scope]); 6] = [
    ("ViewBase", &[Scope::WebhooksRead, Scope::MessageRead]),
    ("ViewEndpointSecret", &[Scope::SecretsRead]),
    ("ManageEndpointSecret", &[Scope::SecretsWrite]),
    // There is nothing to manage yet.
    ("ManageTransformations", &[]),
    ("CreateAttempts", &[Scope::AttemptsWrite]),
    ("ManageEndpoint", &[Scope::EndpointsWrite]),
];

impl PortalToken {
    /// Its text, signed with the instance's key.
    pub fn sign(&self, key: &[u8]) -> String {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.app.0.to_be_bytes());
        out.push(self.capabilities);
        for number in [self.issued.millis(), self.expires.millis(), self.number] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(self.session.as_deref().unwrap_or_default().as_bytes());
        let mac = mac(key, &out);
        out.extend_from_slice(&mac);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(out))
    }

    /// Reads a text that [`PortalToken::sign`] made with the same key; whether it is still good is
    /// another matter.
    pub fn read(text: &str, key: &[u8]) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (signed, given) = bytes.split_last_chunk::<MAC>()?;
        if !bool::from(mac(key, signed).ct_eq(given)) {
            return None;
        }
        let ([version], rest) = signed.split_first_chunk::<1>()?;
        let (app, rest) = rest.split_first_chunk::<4>()?;
        let ([capabilities], rest) = rest.split_first_chunk::<1>()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (number, session) = rest.split_first_chunk::<8>()?;
        let session = String::from_utf8(session.to_vec()).ok()?;
        (*version == VERSION).then(|| Self {
            app: AppNo(u32::from_be_bytes(*app)),
            capabilities: *capabilities,
            issued: Timestamp::from_millis(u64::from_be_bytes(*issued)),
            expires: Timestamp::from_millis(u64::from_be_bytes(*expires)),
            number: u64::from_be_bytes(*number),
            session: Some(session).filter(|name| !name.is_empty()),
        })
    }

    /// Whether a text has the form of a portal token at all.
    pub(super) fn is_one(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Neither expired nor ended by one of `cuts`.
    pub fn is_alive(&self, cuts: &[PortalCut], now: Timestamp) -> bool {
        let ends = |cut: &PortalCut| {
            self.issued <= cut.issued_until
                && now >= cut.dead_from
                && cut.token.is_none_or(|token| token == self.number)
                && (cut.session.is_none() || cut.session == self.session)
        };
        now < self.expires && !cuts.iter().any(ends)
    }

    /// What it opens.
    pub fn scopes(&self) -> Vec<Scope> {
        let own = CAPABILITIES.iter().enumerate();
        let own = own.filter(|(bit, _)| self.capabilities >> bit & 1 == 1);
        own.flat_map(|(_, (_, scopes))| scopes.iter().cloned())
            .collect()
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(key: &[u8], of: &[u8]) -> [u8; MAC] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key length is valid");
    mac.update(of);
    let whole = mac.finalize().into_bytes();
    let mut out = [0; MAC];
    out.copy_from_slice(whole.split_at(MAC).0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> PortalToken {
        PortalToken {
            app: AppNo(7),
            capabilities: 0b10_0001,
            issued: Timestamp::from_millis(1000),
            expires: Timestamp::from_millis(5000),
            number: 42,
            session: Some(String::from("user@1")),
        }
    }

    #[test]
    fn a_token_reads_back_under_its_own_key_only() {
        let text = token().sign(b"key");
        assert_eq!(PortalToken::read(&text, b"key"), Some(token()));
        assert_eq!(PortalToken::read(&text, b"other"), None);
        assert!(!text.contains('.') && text.len() < 200);
        let bare = PortalToken {
            session: None,
            ..token()
        };
        assert_eq!(PortalToken::read(&bare.sign(b"key"), b"key"), Some(bare));
    }

    #[test]
    fn a_changed_character_makes_it_worthless() {
        let text = token().sign(b"key");
        for at in 3..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(PortalToken::read(&changed, b"key"), None, "{at}");
        }
        for text in ["", "pt_", "pt_AAAA", "sk_x"] {
            assert_eq!(PortalToken::read(text, b"key"), None);
        }
    }

    #[test]
    fn cuts_end_what_they_mean_and_nothing_else() {
        let at = Timestamp::from_millis;
        let cut = |session: Option<&str>, token, until, from| PortalCut {
            session: session.map(str::to_owned),
            token,
            issued_until: at(until),
            dead_from: at(from),
        };
        let alive = |cut: PortalCut| token().is_alive(&[cut], at(3000));
        assert!(token().is_alive(&[], at(4999)) && !token().is_alive(&[], at(5000)));
        assert!(!alive(cut(None, None, 1000, 3000)));
        assert!(alive(cut(None, None, 999, 3000)), "issued later");
        assert!(alive(cut(None, None, 1000, 3001)), "the grace lasts");
        assert!(alive(cut(Some("user@2"), None, 1000, 3000)));
        assert!(!alive(cut(Some("user@1"), None, 1000, 3000)));
        assert!(alive(cut(None, Some(41), 1000, 3000)));
        assert!(!alive(cut(None, Some(42), 1000, 3000)));
    }

    #[test]
    fn no_capability_opens_more_than_endpoints() {
        let all = PortalToken {
            capabilities: u8::MAX,
            ..token()
        };
        for scope in [
            Scope::Admin,
            Scope::MessageWrite,
            Scope::WebhooksWrite,
            Scope::KeysWrite,
        ] {
            assert!(!all.scopes().contains(&scope), "{scope:?}");
        }
        assert_eq!(all.scopes().len(), 6);
        assert_eq!(token().scopes().len(), 3);
    }
}
