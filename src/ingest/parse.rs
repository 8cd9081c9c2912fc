//! A request body becomes a message: read once, the payload left as the bytes that came.
//!
//! The body is walked one time by the JSON reader, which cuts it into the raw text of each field and
//! proves that all of it is JSON. The payload stays such a cut: white space, number forms and
//! duplicate keys inside it are the producer's. All mistakes are collected.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::{self, Item, ItemKind, Wrong};
use super::{ApplicationIn, Refused, scan};
use crate::base::Timestamp;
use crate::expression::Facts;
use crate::model::Labels;

/// Channels of one message at most.
const MAX_CHANNELS: usize = 10;
/// Tags of one message at most.
const MAX_TAGS: usize = 5;
/// Characters of an ordering key at most.
const MAX_ORDERING_KEY: usize = 256;
/// Characters of a collapse key at most.
const MAX_COLLAPSE_KEY: usize = 256;
/// For how long a message can have its payload kept.
const PAYLOAD_DAYS: std::ops::RangeInclusive<u64> = 1..=90;
const PAYLOAD_HOURS: std::ops::RangeInclusive<u64> = 1..=2160;

/// A message as it was sent (MessageIn of `api.md` 4).
#[derive(Debug)]
pub struct MessageIn<'a> {
    /// Its type.
    pub event_type: Cow<'a, str>,
    /// The payload as it stands in the body; an object.
    pub payload: &'a str,
    /// The rarely used rest.
    pub labels: Option<Box<Labels>>,
    /// The application that is to be made if the path names none.
    pub application: Option<ApplicationIn>,
}

impl MessageIn<'_> {
    /// What expressions can ask of it.
    pub fn facts(&self) -> Facts<'_> {
        let labels = self.labels.as_deref();
        Facts::new(
            &self.event_type,
            labels.map_or(&[], |labels| &labels.channels),
            labels.map_or(&[], |labels| &labels.tags),
            self.payload.as_bytes(),
        )
    }
}

/// Limits of one message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest payload, bytes.
    pub max_payload: usize,
    /// Deepest nesting of the whole body.
    pub max_depth: usize,
}

/// Reads a body. Refusals are `BadJson`, `Invalid` and `TooLarge`.
pub fn message<'a>(body: &'a [u8], limits: &Limits) -> Result<MessageIn<'a>, Refused> {
    if scan::is_deeper_than(body, limits.max_depth) {
        let msg = format!("at most {} levels of nesting", limits.max_depth);
        return Err(Refused::Invalid(vec![Item {
            loc: vec![Cow::Borrowed("body")],
            msg: Cow::Owned(msg),
            kind: ItemKind::Limit,
        }]));
    }
    let cuts: Cuts<'a> = serde_json::from_slice(body).map_err(|error| not_an_object(&error))?;
    let (payload, event_type) = (cuts.payload, cuts.event_type);
    let mut items = Vec::new();
    let event_type = named("eventType", event_type, &mut items, event_type_of);
    let payload = named("payload", payload, &mut items, object_of);
    let rest = match cuts.rest {
        None => Rest::default(),
        Some(rest) => Rest::read(*rest, &mut items),
    };
    let (Some(event_type), Some(payload), true) = (event_type, payload, items.is_empty()) else {
        return Err(Refused::Invalid(items));
    };
    if payload.len() > limits.max_payload {
        return Err(Refused::TooLarge {
            limit: limits.max_payload,
        });
    }
    Ok(MessageIn {
        event_type,
        payload,
        labels: rest.labels,
        application: rest.application,
    })
}

/// Text that is no JSON is `bad_json`; JSON that is no object is a mistake in the body.
pub(super) fn not_an_object(error: &serde_json::Error) -> Refused {
    if error.is_data() {
        return Refused::Invalid(vec![Item {
            loc: vec![Cow::Borrowed("body")],
            msg: Cow::Borrowed("an object is wanted"),
            kind: ItemKind::TypeError,
        }]);
    }
    Refused::BadJson(error.to_string())
}

/// The raw text of each field.
#[derive(Default)]
struct Cuts<'a> {
    event_type: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    /// Everything else: most messages have nothing of it.
    rest: Option<Box<RawRest<'a>>>,
}

#[derive(Default)]
struct RawRest<'a> {
    event_id: Option<&'a RawValue>,
    channels: Option<&'a RawValue>,
    tags: Option<&'a RawValue>,
    ordering_key: Option<&'a RawValue>,
    collapse_key: Option<&'a RawValue>,
    deliver_at: Option<&'a RawValue>,
    payload_days: Option<&'a RawValue>,
    payload_hours: Option<&'a RawValue>,
    application: Option<&'a RawValue>,
    /// Fields that are not built, unknown, or named twice.
    wrong: Vec<Item>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Cuts<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Cuts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Cuts<'de>, M::Error> {
                let mut cuts = Cuts::default();
                while let Some(Name(name)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    cuts.put(&name, value);
                }
                Ok(cuts)
            }
        }
        from.deserialize_map(Reader)
    }
}

impl<'a> Cuts<'a> {
    fn put(&mut self, name: &str, value: &'a RawValue) {
        let slot = match name {
            "eventType" => &mut self.event_type,
            "payload" => &mut self.payload,
            _ => return self.rest.get_or_insert_default().put(name, value),
        };
        if slot.replace(value).is_some() {
            self.rest.get_or_insert_default().twice(name);
        }
    }
}

impl<'a> RawRest<'a> {
    fn put(&mut self, name: &str, value: &'a RawValue) {
        let slot = match name {
            "eventId" => &mut self.event_id,
            "channels" => &mut self.channels,
            "tags" => &mut self.tags,
            "orderingKey" => &mut self.ordering_key,
            "application" => &mut self.application,
            "collapseKey" => &mut self.collapse_key,
            "deliverAt" => &mut self.deliver_at,
            "payloadRetentionPeriod" => &mut self.payload_days,
            "payloadRetentionHours" => &mut self.payload_hours,
            "transformationsParams" => {
                if value.get() != "null" {
                    let msg = "this field is not supported yet";
                    self.wrong(name, ItemKind::UnsupportedField, msg);
                }
                return;
            }
            _ => return self.wrong(name, ItemKind::UnknownField, "no such field"),
        };
        if slot.replace(value).is_some() {
            self.twice(name);
        }
    }

    fn twice(&mut self, name: &str) {
        self.wrong(name, ItemKind::UnknownField, "this field is named twice");
    }

    fn wrong(&mut self, name: &str, kind: ItemKind, msg: &'static str) {
        self.wrong.push(Item::body(name, kind, msg));
    }
}

/// A field's name, without a copy unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        from.deserialize_str(Reader).map(Self)
    }
}

/// What the rare fields hold.
#[derive(Default)]
struct Rest {
    labels: Option<Box<Labels>>,
    application: Option<ApplicationIn>,
}

impl Rest {
    fn read(raw: RawRest<'_>, items: &mut Vec<Item>) -> Self {
        items.extend(raw.wrong);
        let event_id = optional("eventId", raw.event_id, items, |raw| {
            checked(raw, fields::uid)
        });
        let ordering_key = optional("orderingKey", raw.ordering_key, items, |raw| {
            checked(raw, fields::sized(1, MAX_ORDERING_KEY))
        });
        let collapse_key = optional("collapseKey", raw.collapse_key, items, |raw| {
            checked(raw, fields::sized(1, MAX_COLLAPSE_KEY))
        });
        let deliver_at = optional("deliverAt", raw.deliver_at, items, |raw| {
            let time = Timestamp::parse_rfc3339(&text_of(raw)?);
            time.ok_or_else(|| {
                let msg = "not an RFC 3339 time after 1970";
                (ItemKind::ValueError, Cow::Borrowed(msg))
            })
        });
        let payload_hours = payload_hours((raw.payload_days, raw.payload_hours), items);
        let channels = list(
            "channels",
            raw.channels,
            1..=MAX_CHANNELS,
            items,
            fields::channel,
        );
        let tags = list("tags", raw.tags, 0..=MAX_TAGS, items, fields::tag);
        let application = raw.application.filter(|raw| raw.get() != "null");
        let application = application.and_then(|raw| {
            let value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
            match ApplicationIn::read(value, &["body", "application"]) {
                Ok(read) => Some(read),
                Err(more) => {
                    items.extend(more);
                    None
                }
            }
        });
        let labels = Labels {
            event_id,
            channels,
            tags,
            ordering_key,
            collapse_key,
            deliver_at,
            payload_hours,
            hops: 0,                   // comes with the request, not with the body
            metadata: BTreeMap::new(), // of sources only
        };
        Self {
            labels: (labels != Labels::default()).then(|| Box::new(labels)),
            application,
        }
    }
}

fn named<'a, T>(
    name: &str,
    raw: Option<&'a RawValue>,
    items: &mut Vec<Item>,
    read: impl FnOnce(&'a RawValue) -> Result<T, Wrong>,
) -> Option<T> {
    let Some(raw) = raw else {
        items.push(Item::body(
            name,
            ItemKind::Missing,
            "this field is required",
        ));
        return None;
    };
    match read(raw) {
        Ok(value) => Some(value),
        Err((kind, msg)) => {
            items.push(Item::body(name, kind, msg));
            None
        }
    }
}

fn optional<T>(
    name: &str,
    raw: Option<&RawValue>,
    items: &mut Vec<Item>,
    read: impl FnOnce(&RawValue) -> Result<T, Wrong>,
) -> Option<T> {
    let raw = raw.filter(|raw| raw.get() != "null")?;
    named(name, Some(raw), items, read)
}

fn list(
    name: &str,
    raw: Option<&RawValue>,
    count: std::ops::RangeInclusive<usize>,
    items: &mut Vec<Item>,
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> Vec<String> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
        return Vec::new();
    };
    let value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
    match fields::strings(value, &count, check) {
        Ok(list) => list,
        Err(wrongs) => {
            items.extend(wrongs.into_iter().map(|(place, (kind, msg))| {
                let item = Item::body(name, kind, msg);
                match place {
                    Some(place) => item.under(place.to_string()),
                    None => item,
                }
            }));
            Vec::new()
        }
    }
}

/// Hours after which the payload ends; 0 = the sender says nothing of it.
fn payload_hours(
    (days, hours): (Option<&RawValue>, Option<&RawValue>),
    items: &mut Vec<Item>,
) -> u16 {
    let within = |raw: &RawValue, range| {
        let value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        fields::whole(&value, range)
    };
    let hours = hours.filter(|raw| raw.get() != "null");
    let days = days.filter(|raw| raw.get() != "null");
    if let (Some(_), Some(_)) = (days, hours) {
        let msg = "`payloadRetentionPeriod` or `payloadRetentionHours`, not both";
        items.push(Item::body(
            "payloadRetentionHours",
            ItemKind::ValueError,
            msg,
        ));
        return 0;
    }
    let days = optional("payloadRetentionPeriod", days, items, |raw| {
        within(raw, &PAYLOAD_DAYS)
    });
    let hours = optional("payloadRetentionHours", hours, items, |raw| {
        within(raw, &PAYLOAD_HOURS)
    });
    let hours = hours.or_else(|| days.map(|days| days * 24)).unwrap_or(0);
    u16::try_from(hours).unwrap_or(u16::MAX)
}

fn event_type_of(raw: &RawValue) -> Result<Cow<'_, str>, Wrong> {
    let text = text_of(raw)?;
    fields::event_type(&text)?;
    Ok(text)
}

fn object_of(raw: &RawValue) -> Result<&str, Wrong> {
    if raw.get().starts_with('{') {
        return Ok(raw.get());
    }
    Err((ItemKind::TypeError, Cow::Borrowed("an object is wanted")))
}

fn checked(raw: &RawValue, check: impl FnOnce(&str) -> Result<(), Wrong>) -> Result<String, Wrong> {
    let text = text_of(raw)?;
    check(&text)?;
    Ok(text.into_owned())
}

/// The text of a JSON string, borrowed unless it has escapes.
fn text_of(raw: &RawValue) -> Result<Cow<'_, str>, Wrong> {
    let text = raw.get();
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        Some(_) => serde_json::from_str(text).map(Cow::Owned).map_err(|_| {
            let msg = "not a string of Unicode characters";
            (ItemKind::ValueError, Cow::Borrowed(msg))
        }),
        None => Err((ItemKind::TypeError, Cow::Borrowed("a string is wanted"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        max_payload: 1000,
        max_depth: 8,
    };

    fn items(body: &str) -> Vec<(String, &'static str)> {
        match message(body.as_bytes(), &LIMITS) {
            Err(Refused::Invalid(items)) => items
                .iter()
                .map(|item| (item.loc.join("."), item.kind.name()))
                .collect(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn reads_every_field_in_any_order() {
        let body = r#"{"tags":["a/b"],"payload": {"n": 1e400 } ,"eventId":"e-1","channels":["x","x"],
            "orderingKey":"k","collapseKey":"c","deliverAt":"2026-01-05T08:00:00+01:00","payloadRetentionHours":7,"event\u0054ype":"invoice.\u0070aid"}"#;
        let read = message(body.as_bytes(), &LIMITS).unwrap();
        assert_eq!(read.event_type, "invoice.paid");
        assert_eq!(read.payload, r#"{"n": 1e400 }"#);
        let labels = read.labels.unwrap();
        assert_eq!(labels.event_id.as_deref(), Some("e-1"));
        assert_eq!(labels.channels, ["x"]);
        assert_eq!(labels.tags, ["a/b"]);
        assert_eq!(labels.ordering_key.as_deref(), Some("k"));
        assert_eq!(labels.collapse_key.as_deref(), Some("c"));
        assert_eq!(labels.payload_hours, 7);
        let at = labels.deliver_at.unwrap().rfc3339();
        assert!(at.starts_with("2026-01-05T07:00:00"), "{at}");
    }

    #[test]
    fn a_plain_message_borrows_everything() {
        let body = br#"{"eventType":"a","payload":{}}"#;
        let read = message(body, &LIMITS).unwrap();
        assert!(matches!(read.event_type, Cow::Borrowed("a")) && read.labels.is_none());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        assert_eq!(
            items(
                r#"{"eventType":"a b","payload":[],"eventId":5,"channels":[],"tags":["a b"],
                "transformationsParams":{},"deliverAt":"soon","colour":1,"payloadRetentionPeriod":null}"#
            ),
            [
                ("body.eventType".to_owned(), "value_error"),
                ("body.payload".to_owned(), "type_error"),
                ("body.transformationsParams".to_owned(), "unsupported_field"),
                ("body.colour".to_owned(), "unknown_field"),
                ("body.eventId".to_owned(), "type_error"),
                ("body.deliverAt".to_owned(), "value_error"),
                ("body.channels".to_owned(), "limit"),
                ("body.tags.0".to_owned(), "value_error"),
            ]
        );
        assert_eq!(
            items("{}"),
            [
                ("body.eventType".to_owned(), "missing"),
                ("body.payload".to_owned(), "missing"),
            ]
        );
    }

    /// Hours of the payload that these fields ask for, or what is wrong with them.
    fn retention(fields: &str) -> Result<u16, Vec<(String, &'static str)>> {
        let body = format!(r#"{{"eventType":"a","payload":{{}},{fields}}}"#);
        match message(body.as_bytes(), &LIMITS) {
            Ok(read) => Ok(read.labels.map_or(0, |labels| labels.payload_hours)),
            Err(_) => Err(items(&body)),
        }
    }

    #[test]
    fn a_payload_is_kept_for_1_to_90_days_or_1_to_2160_hours() {
        let (days, hours) = ("payloadRetentionPeriod", "payloadRetentionHours");
        for (name, value, kept) in [
            (days, "1", 24),
            (days, "90", 2160),
            (days, "null", 0),
            (hours, "1", 1),
            (hours, "2160", 2160),
            (hours, "null", 0),
        ] {
            let field = format!(r#""{name}":{value}"#);
            assert_eq!(retention(&field), Ok(kept), "{field}");
        }
        for (name, value, kind) in [
            (days, "0", "value_error"),
            (days, "91", "value_error"),
            (days, "1.5", "value_error"),
            (days, "-1", "value_error"),
            (days, "1e400", "type_error"),
            (days, "\"7\"", "type_error"),
            (days, "[7]", "type_error"),
            (days, "true", "type_error"),
            (hours, "0", "value_error"),
            (hours, "2161", "value_error"),
            (hours, "{}", "type_error"),
        ] {
            let field = format!(r#""{name}":{value}"#);
            let wrong = (format!("body.{name}"), kind);
            assert_eq!(retention(&field), Err(vec![wrong]), "{field}");
        }
        let plain = message(
            br#"{"eventType":"a","payload":{},"payloadRetentionHours":null}"#,
            &LIMITS,
        );
        assert!(plain.unwrap().labels.is_none(), "null is as if absent");
    }

    #[test]
    fn a_payload_has_one_retention_and_not_two() {
        let wrong = ("body.payloadRetentionHours".to_owned(), "value_error");
        let both = r#""payloadRetentionPeriod":1,"payloadRetentionHours":24"#;
        assert_eq!(retention(both), Err(vec![wrong.clone()]));
        let both = r#""payloadRetentionPeriod":91,"payloadRetentionHours":"x""#;
        assert_eq!(retention(both), Err(vec![wrong]));
        let one = r#""payloadRetentionPeriod":null,"payloadRetentionHours":5"#;
        assert_eq!(retention(one), Ok(5));
        let twice = ("body.payloadRetentionPeriod".to_owned(), "unknown_field");
        let named_twice = r#""payloadRetentionPeriod":1,"payloadRetentionPeriod":1"#;
        assert_eq!(retention(named_twice), Err(vec![twice]));
    }

    #[test]
    fn a_field_named_twice_is_refused() {
        assert_eq!(
            items(r#"{"eventType":"a","eventType":"b","payload":{}}"#),
            [("body.eventType".to_owned(), "unknown_field")]
        );
    }

    #[test]
    fn what_is_no_json_and_what_is_no_object_differ() {
        for bad in ["", "{", "{\"a\":}", "\u{feff}{}", "{} {}", "{\"a\":\"\n\"}"] {
            let refused = message(bad.as_bytes(), &LIMITS);
            assert!(
                matches!(refused, Err(Refused::BadJson(_))),
                "{bad}: {refused:?}"
            );
        }
        assert_eq!(items("[]"), [("body".to_owned(), "type_error")]);
        let not_utf8 = b"{\"eventType\":\"a\",\"payload\":{\"a\":\"\xff\"}}";
        assert!(matches!(
            message(not_utf8, &LIMITS),
            Err(Refused::BadJson(_))
        ));
    }

    #[test]
    fn size_and_depth_are_exact() {
        let sized = |n: usize| {
            let pad = "x".repeat(n - r#"{"a":""}"#.len());
            format!(r#"{{"eventType":"a","payload":{{"a":"{pad}"}}}}"#)
        };
        assert!(message(sized(999).as_bytes(), &LIMITS).is_ok());
        assert!(message(sized(1000).as_bytes(), &LIMITS).is_ok());
        let body = sized(1001);
        let over = message(body.as_bytes(), &LIMITS);
        assert!(matches!(over, Err(Refused::TooLarge { limit: 1000 })));
        let deep = |n: usize| {
            let nested = "[".repeat(n - 2) + &"]".repeat(n - 2);
            format!(r#"{{"eventType":"a","payload":{{"a":{nested}}}}}"#)
        };
        assert!(message(deep(7).as_bytes(), &LIMITS).is_ok());
        assert!(message(deep(8).as_bytes(), &LIMITS).is_ok());
        assert_eq!(items(&deep(9)), [("body".to_owned(), "limit")]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            if message(&body, &LIMITS).is_ok() {}
        }
    }
}
