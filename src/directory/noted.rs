//! What a change did, for the audit log.
//!
//! Owns: the entry that is written in the same commit as the change, so there is no change without it and
//! no entry without one. Shown of an object is what the API shows of it too; of every other field only
//! that it changed, so that no secret of today or tomorrow gets into the log.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Draft, Error, name};
use crate::base::Timestamp;
use crate::model::{AppNo, AuditId};
use crate::store::{ConfigKind, ConfigRow};

/// Bytes of `before` and of `after` at most; longer ones are not kept.
const MAX_SIDE: usize = 4096;
/// Objects that one entry names.
const MAX_NAMED: usize = 10;
/// Stands for a value that is nobody's business.
const WITHHELD: &str = "[withheld]";

/// Who does what, as far as it is known before it is done.
#[derive(Debug, Clone)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// Who: a key's id, `operator`, `portal` with the session.
    pub actor: String,
    /// The operation, as the description of the API names it.
    pub action: String,
    /// What it is done to, unless the change says so itself.
    pub object: String,
    /// The application it is done in.
    pub app: Option<AppNo>,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what; several objects stand one after the other, ten at most.
    pub object: String,
    /// In which application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppNo>,
    /// Fields that changed, as they were. None if several objects did, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The same fields as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// One object that a draft put.
pub(super) struct Touched {
    object: String,
    kind: ConfigKind,
    app: Option<AppNo>,
    before: Value,
    after: Value,
}

/// Fields that the log shows, by kind. A field that is not here is named and its value withheld.
const fn shown(kind: ConfigKind) -> &'static [&'static str] {
    match kind {
        ConfigKind::Application => &[
            "uid",
            "name",
            "throttle_rate",
            "metadata",
            "quotas",
            "plan",
            "key_prefix",
            "deleted",
        ],
        ConfigKind::Endpoint => &[
            "uid",
            "url",
            "description",
            "disabled",
            "paused",
            "event_types",
            "channels",
            "throttle_rate",
            "max_concurrency",
            "timeout_ms",
            "retry_schedule",
            "disable_policy",
            "envelope",
            "order",
            "exclude_pii",
            "metadata",
            "deleted",
        ],
        ConfigKind::EventType => &[
            "description",
            "archived",
            "deprecated",
            "group_name",
            "feature_flags",
            "deleted",
        ],
        ConfigKind::ApiKey => &[
            "name",
            "prefix",
            "scopes",
            "app",
            "expires",
            "revoked",
            "allowed_ips",
        ],
        ConfigKind::Source => &[
            "name",
            "provider",
            "disabled",
            "allowed_ips",
            "rate_per_second",
            "is_shared",
            "deleted",
        ],
        ConfigKind::Instance | ConfigKind::DataKey | ConfigKind::Audit => &[],
    }
}

/// Fields that change with everything and say nothing.
const SILENT: [&str; 4] = ["updated", "created", "no", "id"];

impl Touched {
    pub(super) fn new(
        (kind, object): (ConfigKind, String),
        app: Option<AppNo>,
        before: Option<Value>,
        after: Value,
    ) -> Self {
        let object = match kind {
            ConfigKind::Instance | ConfigKind::DataKey => format!("{} {object}", name(kind)),
            ConfigKind::Application
            | ConfigKind::Endpoint
            | ConfigKind::EventType
            | ConfigKind::ApiKey
            | ConfigKind::Source
            | ConfigKind::Audit => object,
        };
        Self {
            object,
            kind,
            app,
            before: before.unwrap_or(Value::Null),
            after,
        }
    }

    /// The fields that differ, on both sides.
    fn differences(&self) -> (Option<Value>, Option<Value>) {
        let none = Map::new();
        let before = self.before.as_object().unwrap_or(&none);
        let after = self.after.as_object().unwrap_or(&none);
        let mut sides = (Map::new(), Map::new());
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for field in names {
            let (was, is) = (before.get(field), after.get(field));
            if was == is || SILENT.contains(&field.as_str()) {
                continue;
            }
            let is_shown = shown(self.kind).contains(&field.as_str());
            let of = |value: Option<&Value>| {
                let value = value.filter(|value| !value.is_null())?;
                Some(if is_shown {
                    value.clone()
                } else {
                    Value::from(WITHHELD)
                })
            };
            sides.0.extend(of(was).map(|value| (field.clone(), value)));
            sides.1.extend(of(is).map(|value| (field.clone(), value)));
        }
        let keep = |fields: Map<String, Value>| {
            let is_some = !fields.is_empty();
            let side = Value::Object(fields);
            (is_some && side.to_string().len() <= MAX_SIDE).then_some(side)
        };
        (keep(sides.0), keep(sides.1))
    }
}

impl Draft {
    /// Notes that an object is put; `before` is what it was.
    pub(super) fn touch(
        &mut self,
        of: (ConfigKind, String),
        app: Option<AppNo>,
        before: Option<&impl Serialize>,
        after: &impl Serialize,
    ) {
        let Some(touched) = &mut self.touched else {
            return; // nobody asks
        };
        let value = |object: Option<Value>| object.unwrap_or(Value::Null);
        let before = before.map(|before| value(serde_json::to_value(before).ok()));
        let after = value(serde_json::to_value(after).ok());
        let new = Touched::new(of, app, before, after);
        match touched.iter_mut().find(|known| known.object == new.object) {
            Some(known) => known.after = new.after,
            None => touched.push(new),
        }
    }

    /// Writes the entry of a change into it. Its id is the time and the revision the change is made at,
    /// so entries of one millisecond stand in the order of their changes.
    pub(super) fn enter(&mut self, note: Note) -> Result<(), Error> {
        let mut unique = [0; 14];
        let (head, _) = unique.split_at_mut(8);
        head.copy_from_slice(&self.next.revision.to_be_bytes());
        let id = AuditId::new(note.at, unique);
        let touched = self.touched.take().unwrap_or_default();
        let entry = note.entry(&touched);
        let what = name(ConfigKind::Audit);
        let value = serde_json::to_vec(&entry).map_err(|cause| Error::Encode { what, cause })?;
        self.rows.push(ConfigRow {
            kind: ConfigKind::Audit,
            key: id.0.0.to_vec(),
            value: value.into(),
        });
        Ok(())
    }
}

impl Note {
    fn entry(&self, touched: &[Touched]) -> AuditEntry {
        let named = touched
            .iter()
            .take(MAX_NAMED)
            .map(|one| one.object.as_str());
        let mut object = named.collect::<Vec<_>>().join(" ");
        if touched.len() > MAX_NAMED {
            object.push_str(&format!(" and {} more", touched.len() - MAX_NAMED));
        }
        let (before, after) = match touched {
            [one] => one.differences(),
            _ => (None, None),
        };
        AuditEntry {
            at: self.at,
            actor: self.actor.clone(),
            action: self.action.clone(),
            object: if object.is_empty() {
                self.object.clone()
            } else {
                object
            },
            app: self.app.or_else(|| touched.iter().find_map(|one| one.app)),
            before,
            after,
            ip: self.ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn touched(before: Value, after: Value) -> Touched {
        Touched::new(
            (ConfigKind::Endpoint, "ep_1".into()),
            None,
            Some(before),
            after,
        )
    }

    #[test]
    fn only_fields_that_changed_are_shown_and_secrets_never() {
        let one = touched(
            json!({"url": "a", "secret": "s1", "updated": 1, "paused": false}),
            json!({"url": "b", "secret": "s2", "updated": 2, "paused": false, "new_field": {"k": 1}}),
        );
        let (before, after) = one.differences();
        assert_eq!(before, Some(json!({"url": "a", "secret": "[withheld]"})));
        let want = json!({"url": "b", "secret": "[withheld]", "new_field": "[withheld]"});
        assert_eq!(after, Some(want));
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let long = "x".repeat(MAX_SIDE);
        let one = touched(json!({"description": ""}), json!({"description": long}));
        let (before, after) = one.differences();
        assert_eq!((before, after), (Some(json!({"description": ""})), None));
    }
}
