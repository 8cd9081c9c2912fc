//! API keys: who may call what.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AppNo, KeyId};
use crate::base::Timestamp;

/// An API key as it is stored: its hash, never its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKey {
    /// Public id, also part of the key's text so that it is found without a scan.
    pub id: KeyId,
    /// What its text begins with, before the id.
    #[serde(default)]
    pub prefix: KeyPrefix,
    /// For people.
    pub name: String,
    /// SHA-256 of the whole key text. Keys have 256 random bits, so no slow hash is needed.
    pub hash: [u8; 32],
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// The only application it opens, if bound.
    pub app: Option<AppNo>,
    /// When it was made.
    pub created: Timestamp,
    /// From here on it is refused.
    pub expires: Option<Timestamp>,
    /// Set when revoked; refused from then on.
    pub revoked: Option<Timestamp>,
    /// Where it may be used from; empty = anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<IpNet>,
    /// When it was last used, to the minute, as far as that was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// What the text of a key begins with, so that people and scanners of leaked secrets know whose it is: 3
/// to 20 lower-case letters, digits and `_`, a letter first and a `_` last. Some beginnings are taken by
/// other credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPrefix(String);

/// The text is no prefix of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Its form is another one.
    #[error(
        "3 to 20 lower-case letters, digits and `_` are wanted, with a letter first and a `_` last"
    )]
    Form,
    /// Other credentials begin so.
    #[error(
        "`sk_` is for instance keys; `pt_`, `whsec_`, `whsk_` and `whpk_` begin other credentials"
    )]
    Taken,
}

impl KeyPrefix {
    /// Longest, in bytes.
    pub const MAX: usize = 20;

    /// Checks the text of a prefix for the keys of an application.
    ///
    /// # Errors
    /// It has another form, or belongs to other credentials.
    pub fn parse(text: &str) -> Result<Self, BadPrefix> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let ends =
            text.ends_with('_') && text.starts_with(|first: char| first.is_ascii_lowercase());
        if !(3..=Self::MAX).contains(&text.len()) || !ends || !text.bytes().all(plain) {
            return Err(BadPrefix::Form);
        }
        let taken = ["pt_", "whsec_", "whsk_", "whpk_"];
        if text == "sk_" || taken.iter().any(|taken| text.starts_with(taken)) {
            return Err(BadPrefix::Taken);
        }
        Ok(Self(text.to_owned()))
    }

    /// That of the keys of an application that names none (`api.md` 2.2).
    pub fn of_applications() -> Self {
        Self(String::from("sk_app_"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `sk_`: instance keys, and all keys of before there were others.
impl Default for KeyPrefix {
    fn default() -> Self {
        Self(String::from("sk_"))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = BadPrefix;

    fn try_from(text: String) -> Result<Self, BadPrefix> {
        if text == "sk_" {
            return Ok(Self::default());
        }
        Self::parse(&text)
    }
}

impl From<KeyPrefix> for String {
    fn from(prefix: KeyPrefix) -> Self {
        prefix.0
    }
}

/// What a key opens (`api.md` 2.2). Scopes of the caller's own product are kept as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Every GET.
    Read,
    /// Messages and attempts, reading.
    MessageRead,
    /// Messages, sending and resending.
    MessageWrite,
    /// Applications, endpoints, event types, reading.
    WebhooksRead,
    /// Applications, endpoints, event types, changing.
    WebhooksWrite,
    /// Endpoints alone, changing.
    EndpointsWrite,
    /// Secrets of endpoints, reading.
    SecretsRead,
    /// Secrets of endpoints, rotating.
    SecretsWrite,
    /// Sending again what was accepted.
    AttemptsWrite,
    /// Making and revoking keys.
    KeysWrite,
    /// Sources, changing.
    InboundWrite,
    /// The audit log.
    AuditRead,
    /// A scope that opens nothing here.
    Other(String),
}

impl From<String> for Scope {
    fn from(text: String) -> Self {
        match text.as_str() {
            "admin" => Self::Admin,
            "read" => Self::Read,
            "msg:read" => Self::MessageRead,
            "msg:write" => Self::MessageWrite,
            "webhooks:read" => Self::WebhooksRead,
            "webhooks:write" => Self::WebhooksWrite,
            "endpoints:write" => Self::EndpointsWrite,
            "secrets:read" => Self::SecretsRead,
            "secrets:write" => Self::SecretsWrite,
            "attempts:write" => Self::AttemptsWrite,
            "keys:write" => Self::KeysWrite,
            "inbound:write" => Self::InboundWrite,
            "audit:read" => Self::AuditRead,
            _ => Self::Other(text),
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Admin => "admin",
            Scope::Read => "read",
            Scope::MessageRead => "msg:read",
            Scope::MessageWrite => "msg:write",
            Scope::WebhooksRead => "webhooks:read",
            Scope::WebhooksWrite => "webhooks:write",
            Scope::EndpointsWrite => "endpoints:write",
            Scope::SecretsRead => "secrets:read",
            Scope::SecretsWrite => "secrets:write",
            Scope::AttemptsWrite => "attempts:write",
            Scope::KeysWrite => "keys:write",
            Scope::InboundWrite => "inbound:write",
            Scope::AuditRead => "audit:read",
            Scope::Other(text) => return text,
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_in_an_underscore_and_meet_no_other_credential() {
        for good in [
            "riq_live_",
            "sk_app_",
            "a1_",
            "sk_live_",
            "abcdefghijklmnopqrs_",
        ] {
            assert_eq!(KeyPrefix::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a_",
            "_a_",
            "1a_",
            "Riq_",
            "riq",
            "riq-live_",
            "riq.live_",
            "riq live_",
            "ä1_",
            "abcdefghijklmnopqrst_",
        ] {
            assert_eq!(KeyPrefix::parse(bad), Err(BadPrefix::Form), "{bad}");
        }
        for taken in ["sk_", "pt_", "pt_live_", "whsec_", "whsk_x_", "whpk_"] {
            assert_eq!(KeyPrefix::parse(taken), Err(BadPrefix::Taken), "{taken}");
        }
    }

    #[test]
    fn a_key_stored_before_there_were_prefixes_has_that_of_then() {
        let old = serde_json::json!({
            "id": "key_3GmvqcLQXmqZ0000000000000mQ", "name": "old", "hash": vec![7; 32],
            "scopes": ["admin"], "app": null, "created": 0, "expires": null, "revoked": null,
        });
        let mut old: serde_json::Map<_, _> = old.as_object().unwrap().clone();
        let made = ApiKey {
            id: KeyId::new(Timestamp::ZERO, [1; 14]),
            prefix: KeyPrefix::parse("riq_live_").unwrap(),
            name: String::from("new"),
            hash: [7; 32],
            scopes: vec![Scope::Admin],
            app: None,
            created: Timestamp::ZERO,
            expires: None,
            revoked: None,
            allowed_ips: Vec::new(),
            last_used: None,
        };
        let stored = serde_json::to_value(&made).unwrap();
        assert_eq!(stored["prefix"], "riq_live_");
        for field in ["id", "created"] {
            old.insert(field.to_owned(), stored[field].clone());
        }
        let read: ApiKey = serde_json::from_value(old.into()).unwrap();
        assert_eq!(read.prefix, KeyPrefix::default());
        assert_eq!(read.prefix.as_str(), "sk_");
        let back: ApiKey = serde_json::from_value(stored).unwrap();
        assert_eq!(back.prefix, made.prefix);
    }
}
