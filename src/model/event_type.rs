//! A registered event type.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;

/// A name such as `invoice.paid` with its documentation. Instance-wide.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventType {
    /// `[a-zA-Z0-9\-_.]+`, at most 256.
    pub name: String,
    /// For people.
    pub description: String,
    /// Archived types are hidden from lists and can be revived.
    pub archived: bool,
    /// Shown as on its way out.
    pub deprecated: bool,
    /// JSON Schemas by version.
    pub schemas: Option<serde_json::Value>,
    /// Group in lists.
    pub group_name: Option<String>,
    /// Flags that a consumer needs to see it.
    pub feature_flags: Option<Vec<String>>,
    /// What becomes of messages whose payload is not what the newest schema says.
    #[serde(default)]
    pub payload_validation: PayloadValidation,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// True once expunged; the row stays until it is overwritten.
    pub deleted: bool,
}

/// Whether payloads are held against the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadValidation {
    /// They are not looked at.
    #[default]
    Off,
    /// What does not fit is accepted and counted.
    Warn,
    /// What does not fit is refused.
    Reject,
}

impl EventType {
    /// The schema of the highest version: by number where the names are numbers.
    pub fn newest_schema(&self) -> Option<&serde_json::Value> {
        let versions = self.schemas.as_ref()?.as_object()?;
        let newest = versions
            .iter()
            .max_by_key(|(name, _)| (name.parse::<u64>().unwrap_or(0), name.as_str()));
        newest.map(|(_, schema)| schema)
    }
}
