//! An application: one tenant with its endpoints and messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AppId, AppNo};
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
    /// When it was deleted; a deleted application is in no list and takes nothing in.
    pub deleted: Option<Timestamp>,
}
