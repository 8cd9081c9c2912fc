//! Reading JSON objects field by field, collecting everything that is wrong.
//!
//! All mistakes of a body are reported at once; a field that nobody asked for is a mistake, not
//! ignored (`api.md` 2.1). Used for everything but the message route's hot fields.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::base::{Id20, Timestamp};

/// Largest metadata bag, as compact JSON, bytes (`api.md` 2.1).
const MAX_METADATA: usize = 4096;

/// One thing that is wrong with a request (`api.md` 2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where: `body`, `query`, `header` or `path`, then names and places.
    pub loc: Vec<Cow<'static, str>>,
    /// For people.
    pub msg: Cow<'static, str>,
    /// What kind of mistake.
    pub kind: ItemKind,
}

/// Kinds of mistakes: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// A required field is absent.
    Missing,
    /// Another JSON type is wanted.
    TypeError,
    /// The right type with a value that is not allowed.
    ValueError,
    /// Too long, too many, too deep.
    Limit,
    /// No such field.
    UnknownField,
    /// A field that is not built yet.
    UnsupportedField,
    /// The address guard will not call it.
    BlockedAddress,
    /// Plain http is not allowed.
    HttpsRequired,
    /// The idempotency key came with another body before.
    IdempotencyMismatch,
}

impl ItemKind {
    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TypeError => "type_error",
            Self::ValueError => "value_error",
            Self::Limit => "limit",
            Self::UnknownField => "unknown_field",
            Self::UnsupportedField => "unsupported_field",
            Self::BlockedAddress => "blocked_address",
            Self::HttpsRequired => "https_required",
            Self::IdempotencyMismatch => "idempotency_mismatch",
        }
    }
}

impl Item {
    /// A mistake in the body's field `name`.
    pub fn body(name: &str, kind: ItemKind, msg: impl Into<Cow<'static, str>>) -> Self {
        Self {
            loc: vec![Cow::Borrowed("body"), Cow::Owned(name.to_owned())],
            msg: msg.into(),
            kind,
        }
    }

    /// A mistake elsewhere: `part` is `query`, `header` or `path`.
    pub fn at(
        part: &'static str,
        name: &'static str,
        kind: ItemKind,
        msg: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            loc: vec![Cow::Borrowed(part), Cow::Borrowed(name)],
            msg: msg.into(),
            kind,
        }
    }

    /// The same mistake one place deeper.
    #[must_use]
    pub fn under(mut self, place: impl Into<Cow<'static, str>>) -> Self {
        self.loc.push(place.into());
        self
    }
}

/// Why a value is refused: kind and text.
pub type Wrong = (ItemKind, Cow<'static, str>);

/// A field: absent, null, or there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<T> {
    /// Not named.
    Absent,
    /// Named as null.
    Null,
    /// Named with a value.
    Value(T),
}

impl<T> Given<T> {
    /// The value; absent and null are the same.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// The value, or `current` if the field is not named; null clears.
    pub fn or_keep(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Absent => current,
            Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }
}

/// A JSON object that is being read.
pub struct Fields {
    map: Map<String, Value>,
    loc: Vec<Cow<'static, str>>,
    items: Vec<Item>,
}

impl Fields {
    /// Begins to read `value`, which stands at `loc`.
    pub fn of(value: Value, loc: &[&'static str]) -> Result<Self, Vec<Item>> {
        let loc: Vec<_> = loc.iter().map(|&part| Cow::Borrowed(part)).collect();
        match value {
            Value::Object(map) => Ok(Self {
                map,
                loc,
                items: Vec::new(),
            }),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(vec![Item {
                loc,
                msg: Cow::Borrowed("an object is wanted"),
                kind: ItemKind::TypeError,
            }]),
        }
    }

    /// Begins to read a whole body.
    pub fn body(value: Value) -> Result<Self, Vec<Item>> {
        Self::of(value, &["body"])
    }

    /// Gives the field `old` the name `new`, unless that is there as well.
    pub fn alias(&mut self, old: &str, new: &str) {
        if let Some(value) = self.map.remove(old) {
            self.map.entry(new).or_insert(value);
        }
    }

    /// Notes a mistake in the field `name`.
    pub fn wrong(&mut self, name: &str, (kind, msg): Wrong) {
        let mut loc = self.loc.clone();
        loc.push(Cow::Owned(name.to_owned()));
        self.items.push(Item { loc, msg, kind });
    }

    /// Takes the field as it is.
    pub fn raw(&mut self, name: &str) -> Given<Value> {
        match self.map.remove(name) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Value(value),
        }
    }

    /// Takes the field and reads it with `read`.
    pub fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Result<T, Wrong>,
    ) -> Given<T> {
        match self.raw(name) {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            Given::Value(value) => match read(value) {
                Ok(read) => Given::Value(read),
                Err(wrong) => {
                    self.wrong(name, wrong);
                    Given::Absent
                }
            },
        }
    }

    /// A text that passes `check`.
    pub fn text(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<(), Wrong>,
    ) -> Given<String> {
        self.read(name, |value| {
            let text = string(value)?;
            check(&text)?;
            Ok(text)
        })
    }

    /// A text that must be there.
    pub fn required(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<(), Wrong>,
    ) -> Option<String> {
        let before = self.items.len();
        let given = self.text(name, check);
        if !matches!(given, Given::Value(_)) && self.items.len() == before {
            self.wrong(
                name,
                (ItemKind::Missing, Cow::Borrowed("this field is required")),
            );
        }
        given.value()
    }

    /// A truth value.
    pub fn flag(&mut self, name: &str) -> Given<bool> {
        self.read(name, |value| {
            value.as_bool().ok_or((
                ItemKind::TypeError,
                Cow::Borrowed("true or false is wanted"),
            ))
        })
    }

    /// A whole number from `range`.
    pub fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Given<u64> {
        self.read(name, |value| whole(&value, &range))
    }

    /// A time in RFC 3339.
    pub fn time(&mut self, name: &str) -> Given<Timestamp> {
        self.read(name, |value| {
            Timestamp::parse_rfc3339(&string(value)?).ok_or((
                ItemKind::ValueError,
                Cow::Borrowed("not an RFC 3339 time after 1970"),
            ))
        })
    }

    /// A list of texts that each pass `check`, duplicates merged, `count` of them.
    pub fn set(
        &mut self,
        name: &str,
        count: std::ops::RangeInclusive<usize>,
        check: impl Fn(&str) -> Result<(), Wrong>,
    ) -> Given<Vec<String>> {
        let value = match self.raw(name) {
            Given::Absent => return Given::Absent,
            Given::Null => return Given::Null,
            Given::Value(value) => value,
        };
        match strings(value, &count, check) {
            Ok(list) => Given::Value(list),
            Err(wrongs) => {
                for (place, (kind, msg)) in wrongs {
                    self.wrong(name, (kind, msg));
                    if let (Some(place), Some(item)) = (place, self.items.last_mut()) {
                        item.loc.push(Cow::Owned(place.to_string()));
                    }
                }
                Given::Absent
            }
        }
    }

    /// An object of texts.
    pub fn texts(&mut self, name: &str) -> Given<BTreeMap<String, String>> {
        self.read(name, |value| {
            serde_json::from_value(value).map_err(|_| {
                let msg = "an object whose values are strings is wanted";
                (ItemKind::TypeError, Cow::Borrowed(msg))
            })
        })
    }

    /// The caller's own notes: texts, at most 4,096 bytes in all.
    pub fn metadata(&mut self) -> BTreeMap<String, String> {
        let bag = self.texts("metadata").value().unwrap_or_default();
        let size: usize = bag.iter().map(|(k, v)| k.len() + v.len() + 6).sum();
        if size > MAX_METADATA {
            let msg = format!("at most {MAX_METADATA} bytes in all");
            self.wrong("metadata", (ItemKind::Limit, Cow::Owned(msg)));
        }
        bag
    }

    /// The caller's own name for the object.
    pub fn uid(&mut self) -> Given<String> {
        self.text("uid", uid)
    }

    /// Notes the field as not built yet if it is there with a value.
    pub fn unsupported(&mut self, name: &str) {
        if matches!(self.raw(name), Given::Value(_)) {
            let msg = Cow::Borrowed("this field is not supported yet");
            self.wrong(name, (ItemKind::UnsupportedField, msg));
        }
    }

    /// Whether a mistake in the field `name` was noted.
    pub fn has_mistake(&self, name: &str) -> bool {
        let place = self.loc.len();
        let of_field = |item: &Item| item.loc.get(place).is_some_and(|part| part == name);
        self.items.iter().any(of_field)
    }

    /// Ends reading: whatever is left is unknown.
    pub fn finish(mut self) -> Result<(), Vec<Item>> {
        let left: Vec<_> = self.map.keys().cloned().collect();
        for name in left {
            self.wrong(
                &name,
                (ItemKind::UnknownField, Cow::Borrowed("no such field")),
            );
        }
        if self.items.is_empty() {
            Ok(())
        } else {
            Err(self.items)
        }
    }
}

fn string(value: Value) -> Result<String, Wrong> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err((ItemKind::TypeError, Cow::Borrowed("a string is wanted")))
        }
    }
}

/// A whole number within `range`.
pub fn whole(value: &Value, range: &std::ops::RangeInclusive<u64>) -> Result<u64, Wrong> {
    let Some(number) = value.as_number() else {
        return Err((
            ItemKind::TypeError,
            Cow::Borrowed("a whole number is wanted"),
        ));
    };
    number
        .as_u64()
        .filter(|n| range.contains(n))
        .ok_or_else(|| {
            let msg = format!(
                "a whole number from {} to {} is wanted",
                range.start(),
                range.end()
            );
            (ItemKind::ValueError, Cow::Owned(msg))
        })
}

type Places = Vec<(Option<usize>, Wrong)>;

/// A list of texts that each pass `check`, duplicates merged; else what is wrong and where.
pub(super) fn strings(
    value: Value,
    count: &std::ops::RangeInclusive<usize>,
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> Result<Vec<String>, Places> {
    let Value::Array(values) = value else {
        let msg = Cow::Borrowed("a list of strings is wanted");
        return Err(vec![(None, (ItemKind::TypeError, msg))]);
    };
    let mut wrongs = Vec::new();
    let mut list: Vec<String> = Vec::with_capacity(values.len().min(*count.end()));
    let mut seen = hashbrown::HashSet::new();
    for (place, value) in values.into_iter().enumerate() {
        match string(value).and_then(|text| check(&text).map(|()| text)) {
            Ok(text) => {
                if seen.insert(text.clone()) {
                    list.push(text);
                }
            }
            Err(wrong) => wrongs.push((Some(place), wrong)),
        }
    }
    if wrongs.is_empty() && !count.contains(&list.len()) {
        let msg = format!("{} to {} entries are wanted", count.start(), count.end());
        wrongs.push((None, (ItemKind::Limit, Cow::Owned(msg))));
    }
    if wrongs.is_empty() {
        Ok(list)
    } else {
        Err(wrongs)
    }
}

/// Any text.
pub fn any(_: &str) -> Result<(), Wrong> {
    Ok(())
}

/// A text of `min` to `max` characters.
pub fn sized(min: usize, max: usize) -> impl Fn(&str) -> Result<(), Wrong> {
    move |text| {
        let length = text.chars().count();
        if (min..=max).contains(&length) {
            return Ok(());
        }
        let msg = format!("{min} to {max} characters are wanted");
        Err((ItemKind::Limit, Cow::Owned(msg)))
    }
}

/// `[a-zA-Z0-9\-_.]`, 1 to 256, and not in the form of one of our ids.
pub fn uid(text: &str) -> Result<(), Wrong> {
    charset(text, 256, b"-_.", "a uid")?;
    let looks_like_id = ["app_", "ep_", "msg_", "atmpt_", "key_", "qtask_", "src_"]
        .iter()
        .any(|prefix| Id20::parse(prefix, text).is_ok());
    if looks_like_id {
        let msg = "a uid must not have the form of an id";
        return Err((ItemKind::ValueError, Cow::Borrowed(msg)));
    }
    Ok(())
}

/// `[a-zA-Z0-9\-_.]`, 1 to 256.
pub fn event_type(text: &str) -> Result<(), Wrong> {
    charset(text, 256, b"-_.", "an event type name")
}

/// An event type name, `*`, or a prefix such as `invoice.*`.
pub fn event_filter(text: &str) -> Result<(), Wrong> {
    if text == "*" {
        return Ok(());
    }
    event_type(text.strip_suffix(".*").unwrap_or(text))
}

/// `[a-zA-Z0-9\-_.:+]`, 1 to 128.
pub fn channel(text: &str) -> Result<(), Wrong> {
    charset(text, 128, b"-_.:+", "a channel name")
}

/// `[a-zA-Z0-9\-_./\\#]`, 1 to 128.
pub fn tag(text: &str) -> Result<(), Wrong> {
    charset(text, 128, b"-_./\\#", "a tag")
}

fn charset(text: &str, max: usize, extra: &[u8], what: &str) -> Result<(), Wrong> {
    if text.is_empty() || text.len() > max {
        let msg = format!("{what} has 1 to {max} characters");
        return Err((ItemKind::Limit, Cow::Owned(msg)));
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || extra.contains(&b);
    if text.bytes().all(good) {
        return Ok(());
    }
    let allowed = String::from_utf8_lossy(extra);
    let msg = format!("{what} has letters, digits and {allowed} only");
    Err((ItemKind::ValueError, Cow::Owned(msg)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_all_mistakes_at_once() {
        let body = json!({"uid": "a b", "name": 5, "metadata": {"a": 1}, "extra": null, "n": 9});
        let mut fields = Fields::body(body).unwrap();
        assert_eq!(fields.required("name", any), None);
        assert_eq!(fields.uid(), Given::Absent);
        assert!(fields.metadata().is_empty());
        assert_eq!(fields.number("n", 1..=8), Given::Absent);
        assert_eq!(fields.required("url", any), None);
        let items = fields.finish().unwrap_err();
        let kinds: Vec<_> = items
            .iter()
            .map(|i| (i.loc[1].as_ref(), i.kind.name()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("name", "type_error"),
                ("uid", "value_error"),
                ("metadata", "type_error"),
                ("n", "value_error"),
                ("url", "missing"),
                ("extra", "unknown_field"),
            ]
        );
    }

    #[test]
    fn lists_are_sets_with_limits() {
        let read = |value: Value| {
            let mut fields = Fields::body(json!({ "channels": value })).unwrap();
            let list = fields.set("channels", 1..=3, channel);
            (list.value(), fields.finish().err())
        };
        assert_eq!(
            read(json!(["a", "b", "a"])).0,
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(read(json!(["a", "b", "c"])).1, None);
        for (value, kind) in [
            (json!([]), ItemKind::Limit),
            (json!(["a", "b", "c", "d"]), ItemKind::Limit),
            (json!("a"), ItemKind::TypeError),
            (json!(["a", 1]), ItemKind::TypeError),
            (json!(["a b"]), ItemKind::ValueError),
        ] {
            assert_eq!(read(value.clone()).1.unwrap()[0].kind, kind, "{value}");
        }
    }

    #[test]
    fn names_keep_to_their_character_sets_and_lengths() {
        assert!(uid(&"a".repeat(256)).is_ok() && uid(&"a".repeat(257)).is_err());
        assert!(uid("").is_err() && uid("a/b").is_err() && uid("A-z_0.9").is_ok());
        assert!(uid(&Id20([1; 20]).text("app_")).is_err());
        assert!(channel("a:+.b").is_ok() && channel(&"c".repeat(129)).is_err());
        assert!(tag("a/b\\#c").is_ok() && tag("a b").is_err());
        for (filter, good) in [("*", true), ("a.*", true), ("a*", false), (".*", false)] {
            assert_eq!(event_filter(filter).is_ok(), good, "{filter}");
        }
    }
}
