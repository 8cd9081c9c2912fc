//! An application: one tenant with its endpoints and messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AppId, AppNo, KeyPrefix};
use crate::base::Timestamp;

/// A tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Application {
    /// Its number in this store.
    pub no: AppNo,
    /// Its public id.
    pub id: AppId,
    /// The caller's own name for it, unique in the instance.
    pub uid: Option<String>,
    /// A title for people.
    pub name: String,
    /// Messages per second it may send in; more is answered 429.
    pub throttle_rate: Option<u16>,
    /// The caller's own notes, at most 4,096 bytes as JSON.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Portal tokens that were ended before their time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portal_cuts: Vec<PortalCut>,
    /// Its plan, one of `policy::quota::PLANS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What is allowed to it; wins over its plan.
    #[serde(default, skip_serializing_if = "Quotas::is_empty")]
    pub quotas: Quotas,
    /// What new keys of it begin with; `None` = [`KeyPrefix::of_applications`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<KeyPrefix>,
    /// When it was deleted; a deleted application is in no list and takes nothing in.
    pub deleted: Option<Timestamp>,
}

impl Application {
    /// What new keys of it begin with.
    pub fn new_key_prefix(&self) -> KeyPrefix {
        self.key_prefix
            .clone()
            .unwrap_or_else(KeyPrefix::of_applications)
    }
}

/// Quotas of an application; what is `None` is as the plan says, or without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Quotas {
    /// Endpoints at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
    /// Event types of one endpoint at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_types_per_endpoint: Option<u32>,
    /// Deliveries accepted in one calendar month (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_month: Option<u64>,
    /// Attempts under way at the same time, all endpoints together; never 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
}

impl Quotas {
    /// Whether nothing is limited.
    pub const fn is_empty(&self) -> bool {
        self.endpoints.is_none()
            && self.event_types_per_endpoint.is_none()
            && self.deliveries_per_month.is_none()
            && self.concurrency.is_none()
    }
}

/// Ends portal tokens of an application: they are not stored, so what is stored is which of them are
/// refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortalCut {
    /// The one session that is meant; `None` = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The one token that is meant (logout); `None` = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Tokens issued up to then are meant.
    pub issued_until: Timestamp,
    /// From then on they are refused.
    pub dead_from: Timestamp,
}
