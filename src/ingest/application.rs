//! An application as it is sent (ApplicationIn of `api.md` 4): by its own route, or inside a message.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, Given, Item, sized};
use crate::base::Timestamp;
use crate::directory::{self, Draft};
use crate::model::{AppId, Application};

/// What a caller says about an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationIn {
    /// A title for people.
    pub name: String,
    /// The caller's own name for it.
    pub uid: Given<String>,
    /// Messages per second; `None` = no limit.
    pub throttle_rate: Option<u16>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
}

impl ApplicationIn {
    /// Reads the object that stands at `loc`.
    pub fn read(value: Value, loc: &[&'static str]) -> Result<Self, Vec<Item>> {
        let mut fields = Fields::of(value, loc)?;
        fields.alias("rateLimit", "throttleRate");
        let name = fields.required("name", sized(1, 1024));
        let uid = fields.uid();
        let rate = fields
            .number("throttleRate", 1..=u64::from(u16::MAX))
            .value();
        let metadata = fields.metadata();
        for later in ["defaults", "quotas"] {
            fields.unsupported(later);
        }
        fields.finish()?;
        Ok(Self {
            name: name.unwrap_or_default(),
            uid,
            throttle_rate: rate.and_then(|rate| u16::try_from(rate).ok()),
            metadata,
        })
    }

    /// Puts a new application into `draft`. `uid` is free (the caller has looked).
    pub fn create(
        self,
        draft: &mut Draft,
        uid: Option<String>,
        random: [u8; 14],
        now: Timestamp,
    ) -> Result<Application, directory::Error> {
        let app = Application {
            no: draft.next_app(),
            id: AppId::new(now, random),
            uid,
            name: self.name,
            throttle_rate: self.throttle_rate,
            metadata: self.metadata,
            created: now,
            updated: now,
            portal_cuts: Vec::new(),
            deleted: None,
        };
        draft.put_app(app.clone())?;
        Ok(app)
    }
}
