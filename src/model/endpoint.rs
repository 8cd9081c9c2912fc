//! An endpoint: one URL of an application, with its filters, limits, secrets and order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AppNo, EndpointId, EndpointNo, KeyId, OldSecret, Secret};
use crate::base::Timestamp;
use crate::expression::Expression;

/// Where messages go. Every `Option` that is `None` means "as the instance says".
///
/// There are a hundred thousand of them: what is large and few have stands in a box.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its number in this store.
    pub no: EndpointNo,
    /// Its public id.
    pub id: EndpointId,
    /// The application it belongs to.
    pub app: AppNo,
    /// The caller's own name for it, unique in the application.
    pub uid: Option<String>,
    /// Absolute http or https URL, checked by `policy::target` when it was set.
    pub url: String,
    /// For people.
    pub description: String,
    /// Switched off: its deliveries are held.
    pub disabled: Option<DisableReason>,
    /// Collects without sending until resumed.
    pub paused: bool,
    /// Event type names, `*`, or prefixes such as `invoice.*`; `None` = all.
    pub event_types: Option<Vec<String>>,
    /// Channels, at least one of which the message must name; `None` = all.
    pub channels: Option<Vec<String>>,
    /// What the payload must be like; `None` = anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Box<Expression>>,
    /// Attempts per second.
    pub throttle_rate: Option<u16>,
    /// Attempts at the same time, 1 to 1000.
    pub max_concurrency: Option<u16>,
    /// Milliseconds for one attempt, 1000 to 30000.
    pub timeout_ms: Option<u32>,
    /// Delays in seconds after the first, second … failed attempt.
    pub retry_schedule: Option<Vec<u32>>,
    /// When it is switched off.
    pub disable_policy: Option<DisablePolicy>,
    /// How requests are signed.
    pub signature: Option<Box<Profile>>,
    /// What the request body is.
    pub envelope: Envelope,
    /// Whether deliveries keep the order of acceptance.
    pub order: Order,
    /// Headers added to each request.
    pub headers: BTreeMap<String, String>,
    /// Names of headers whose value is shown to nobody.
    pub sensitive_headers: Vec<String>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// The secret that signs.
    pub secret: Secret,
    /// Rotated secrets that sign along until they expire, newest first.
    pub old_secrets: Vec<OldSecret>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Set if it was made by a tenant route (`api.md` 7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Box<TenantMark>>,
    /// What is left out of payloads before they are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_pii: Option<Box<ExcludePii>>,
    /// When it was deleted: what is open then counts as cancelled.
    pub deleted: Option<Timestamp>,
}

/// Personal data that a subscription does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExcludePii {
    /// What the schema of the event type marks with `"x-pii": true`.
    Marked,
    /// What these JSON Pointers name, checked by `policy::exclude` when they were set.
    Fields(Vec<String>),
}

/// Which keys made and last changed an endpoint of the tenant routes; `None` = the operator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantMark {
    /// Made it.
    pub created_by: Option<KeyId>,
    /// Changed it last.
    pub updated_by: Option<KeyId>,
}

impl Endpoint {
    /// Whether attempts may start now.
    pub const fn is_sending(&self) -> bool {
        self.disabled.is_none() && !self.paused && self.deleted.is_none()
    }
}

/// Who switched an endpoint off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisableReason {
    /// Its owner, by the API.
    Manual,
    /// It answered `410 Gone`.
    Gone,
    /// It failed too long (the disable policy).
    Failing,
}

/// The rule by which a failing endpoint is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum DisablePolicy {
    /// No success for `failing_secs`, with at least `span_secs` between first and last failure.
    Duration {
        /// Seconds without a success.
        failing_secs: u64,
        /// Seconds between the first and the last failure.
        span_secs: u64,
    },
    /// So many failed attempts in a row.
    Consecutive {
        /// Failed attempts.
        failures: u32,
    },
    /// Never; only `410 Gone` disables.
    Never,
}

/// Order of deliveries to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// None promised.
    #[default]
    None,
    /// Strict: the next starts when the one before is delivered, dead or cancelled.
    Endpoint,
    /// Strict among messages with the same `orderingKey`.
    Key,
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Envelope {
    /// The very bytes the producer sent as `payload`.
    #[default]
    Raw,
    /// `{type, timestamp, data}` (Standard Webhooks).
    Standard,
    /// `{id, type, timestamp, organizationId, data}`.
    IdType,
    /// `{event, timestamp, organizationId, data}`.
    Event,
}

/// How a request is signed (`api.md` section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "profile", deny_unknown_fields)]
pub enum Profile {
    /// Standard Webhooks headers.
    Standard,
    /// Standard Webhooks headers, and the same values as `svix-*`.
    Dual,
    /// One header with the hex HMAC of the body.
    Hex(HexProfile),
    /// One header `t=<unix s>,v1=<hex>`.
    Timestamped {
        /// Name of the header.
        header: String,
    },
}

/// The fields of a `hex` profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HexProfile {
    /// Name of the signature header.
    pub header: String,
    /// Stands before the hex digits.
    #[serde(default)]
    pub prefix: String,
    /// Header that carries the event type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_header: Option<String>,
    /// Header that carries the message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_header: Option<String>,
    /// Header that carries the unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// What the HMAC key is.
    #[serde(default)]
    pub key: HexKey,
    /// Whether the Standard Webhooks headers are sent beside it.
    #[serde(default = "yes")]
    pub also_standard: bool,
}

const fn yes() -> bool {
    true
}

/// What the key of a `hex` signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HexKey {
    /// The whole secret text as UTF-8.
    #[default]
    Text,
    /// The bytes behind `whsec_`, base64-decoded.
    Decoded,
}
