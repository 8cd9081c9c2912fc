//! API keys: who may call what.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AppNo, KeyId};
use crate::base::Timestamp;

/// An API key as it is stored: its hash, never its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKey {
    /// Public id, also part of the key's text so that it is found without a scan.
    pub id: KeyId,
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
