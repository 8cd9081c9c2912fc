//! An application as it is sent (ApplicationIn of `api.md` 4): by its own route, or inside a message.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, Given, Item, ItemKind, Wrong, sized};
use crate::base::Timestamp;
use crate::directory::{self, Draft};
use crate::model::{AppId, Application, KeyPrefix, Quotas};
use crate::policy::quota;

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
    /// One of the plans.
    pub plan: Option<String>,
    /// What is allowed to it.
    pub quotas: Quotas,
    /// What its new keys begin with.
    pub key_prefix: Option<KeyPrefix>,
}

fn known_plan(name: &str) -> Result<(), Wrong> {
    if quota::plan(name).is_some() {
        return Ok(());
    }
    let names = quota::PLANS.map(|(name, _)| name).join(", ");
    Err((
        ItemKind::ValueError,
        format!("one of {names} is wanted").into(),
    ))
}

fn prefix_of_keys(text: &str) -> Result<(), Wrong> {
    let checked = KeyPrefix::parse(text).map(drop);
    checked.map_err(|error| (ItemKind::ValueError, error.to_string().into()))
}

/// `{endpoints?, eventTypesPerEndpoint?, deliveriesPerMonth?, concurrency?}`
fn quotas(value: Value) -> Result<Quotas, Wrong> {
    let quotas: Quotas = serde_json::from_value(value)
        .map_err(|error| (ItemKind::ValueError, error.to_string().into()))?;
    if quotas.concurrency == Some(0) {
        let msg = "`concurrency` is 1 to 65535; to send nothing, disable the endpoints";
        return Err((ItemKind::ValueError, msg.into()));
    }
    Ok(quotas)
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
        let plan = fields.text("plan", known_plan).value();
        let quotas = fields.read("quotas", quotas).value().unwrap_or_default();
        let key_prefix = fields.text("keyPrefix", prefix_of_keys).value();
        fields.unsupported("defaults");
        fields.finish()?;
        Ok(Self {
            name: name.unwrap_or_default(),
            uid,
            throttle_rate: rate.and_then(|rate| u16::try_from(rate).ok()),
            metadata,
            plan,
            quotas,
            key_prefix: key_prefix.and_then(|text| KeyPrefix::parse(&text).ok()),
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
            plan: self.plan,
            quotas: self.quotas,
            key_prefix: self.key_prefix,
            deleted: None,
        };
        draft.put_app(app.clone())?;
        Ok(app)
    }
}
