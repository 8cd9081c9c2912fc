//! Query strings: last one wins, lists comma-separated or repeated, empty means "not given".

use url::form_urlencoded;

use super::error::Problem;
use crate::base::Timestamp;
use crate::ingest::{Item, ItemKind};

/// A decoded query string. Names that no route asks for are ignored.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// All values of a list; empty = all.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let bracketed = format!("{name}[]");
        let values = self
            .0
            .iter()
            .filter(|(key, _)| key == name || *key == bracketed);
        let parts = values.flat_map(|(_, value)| value.split(','));
        parts
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect()
    }

    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(wrong(name, ItemKind::TypeError, "true or false is wanted")),
        }
    }

    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // A plus sign that was not encoded has become a blank.
        let text = text.replace(' ', "+");
        let read = Timestamp::parse_rfc3339(&text);
        let bad = || {
            wrong(
                name,
                ItemKind::ValueError,
                "not an RFC 3339 time after 1970",
            )
        };
        read.ok_or_else(bad).map(Some)
    }

    /// A whole number from `range`.
    pub(super) fn within(
        &self,
        name: &'static str,
        range: &std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let read = text.parse().ok().filter(|n| range.contains(n));
        let bad = || {
            let msg = format!("{} to {} is wanted", range.start(), range.end());
            wrong(name, ItemKind::ValueError, msg)
        };
        read.ok_or_else(bad).map(Some)
    }

    pub(super) fn number(
        &self,
        name: &'static str,
        allowed: &[u16],
    ) -> Result<Option<u16>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let read = text.parse().ok().filter(|n| allowed.contains(n));
        let bad = || {
            wrong(
                name,
                ItemKind::ValueError,
                format!("one of {allowed:?} is wanted"),
            )
        };
        read.ok_or_else(bad).map(Some)
    }
}

pub(super) fn wrong(
    name: &'static str,
    kind: ItemKind,
    msg: impl Into<std::borrow::Cow<'static, str>>,
) -> Problem {
    Item::at("query", name, kind, msg).into()
}
