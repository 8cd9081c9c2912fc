//! From an accepted request to events: type, id, payload.
//!
//! A payload that is JSON is a slice of the body, byte for byte, also when a batch is split. What is
//! no JSON object is put into one, and the body is kept beside it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::form;
use super::json::{self, Path};
use super::key;
use super::manifest::Manifest;
use super::place::{self, Content, Where};
use super::reader::Table;
use super::received::{Payload, Received};
use super::refusal::Refusal;
use super::scheme::Scheme;

/// Characters of an event type and of an event id at most (`api.md` 2.1).
const MAX_NAME: usize = 256;

/// Events of one request at most; HubSpot sends up to 100, SendGrid up to a few thousand.
pub const MAX_EVENTS: usize = 10_000;

/// One event of a provider, ready to become a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `stripe.invoice.paid`: the provider, then the provider's name for it, in the characters of an
    /// event type. `stripe.event` if the request names no type.
    pub event_type: String,
    /// `stripe-evt_1`: fit as `eventId`. An id with other characters is replaced by its hash. `None`
    /// if the request has none: then the digest of [`super::Verified`] tells repetitions.
    pub id: Option<String>,
    /// The account at the provider, if the request names one.
    pub account: Option<String>,
    /// A JSON object.
    pub payload: Bytes,
    /// The body, where the payload is not a slice of it; of a list of events only the first has it.
    pub raw: Option<Bytes>,
    /// The headers that the manifest lists, by lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// The events of a request that was verified. None is a good answer: some providers send empty
/// batches as heart-beat.
///
/// # Errors
/// [`Refusal::NotReceivable`], or [`Refusal::BadBody`]: more than [`MAX_EVENTS`] events, or a payload
/// that the manifest wants in a form is not there.
pub fn events(manifest: &Manifest, request: &Received<'_>) -> Result<Vec<Event>, Refusal> {
    let plan = manifest.events_plan().ok_or(Refusal::NotReceivable)?;
    let payload = match manifest.scheme() {
        Some(Scheme::Signed(signed)) => &signed.payload,
        _ => &Payload::Raw,
    };
    let reading = Reading {
        manifest,
        plan,
        request,
        headers: plan.listed(request.headers),
    };
    if *payload != Payload::Raw {
        let field = payload.of(request)?.ok_or(Refusal::BadBody)?;
        let bytes = reading.slice(&field);
        return reading.of_json(&bytes, true);
    }
    if let Some(body) = json::whole(request.body) {
        let bytes = request.body.slice_ref(body.get().as_bytes());
        return reading.of_json(&bytes, false);
    }
    reading.of_other().map(|event| vec![event])
}

/// The checked form of `[webhook.events]`.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    batch: Batch,
    event_type: Where,
    id: Option<Where>,
    account: Option<Where>,
    headers: Vec<HeaderName>,
}

#[derive(Debug, Clone)]
enum Batch {
    /// The body is one event.
    One,
    /// The body is a list of events.
    Array,
    /// A list within the body.
    At(Path),
}

impl Plan {
    /// Reads `[webhook.events]`. What is wrong is noted in the table's source.
    pub(super) fn read(table: Table<'_, '_>) -> Option<Self> {
        let batch = table.parsed("batch", |text| match text.split_once(':') {
            None if text == "array" => Ok(Batch::Array),
            Some(("json", path)) => Path::parse(path).map(Batch::At),
            _ => Err(String::from("want array or json:PATH")),
        });
        let event_type = table.parsed_needed("type", Where::parse);
        let id = table.parsed("id", Where::parse);
        let account = table.parsed("account", Where::parse);
        let mut headers = Vec::new();
        for name in table.texts("headers") {
            match place::header_name(&name.value) {
                Ok(header) => headers.push(header),
                Err(why) => table.wrong_at(name.at, format!("events.headers: {why}")),
            }
        }
        table.finish();
        Some(Self {
            batch: batch.unwrap_or(Batch::One),
            event_type: event_type?,
            id,
            account: account.filter(|account| !account.is_path()),
            headers,
        })
    }

    /// The listed headers of a request. One that is repeated or no text is left out.
    pub(super) fn listed(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        let one = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            let (first, second) = (values.next()?, values.next());
            let text = first.to_str().ok()?;
            second
                .is_none()
                .then(|| (name.to_string(), text.to_owned()))
        };
        self.headers.iter().filter_map(one).collect()
    }
}

struct Reading<'a> {
    manifest: &'a Manifest,
    plan: &'a Plan,
    request: &'a Received<'a>,
    headers: BTreeMap<String, String>,
}

impl Reading<'_> {
    /// A slice of the body where it is one, otherwise a copy.
    fn slice(&self, bytes: &[u8]) -> Bytes {
        let body = self.request.body.as_ptr_range();
        let part = bytes.as_ptr_range();
        if !bytes.is_empty() && body.start <= part.start && part.end <= body.end {
            return self.request.body.slice_ref(bytes);
        }
        Bytes::copy_from_slice(bytes)
    }

    fn of_json(&self, document: &Bytes, in_form: bool) -> Result<Vec<Event>, Refusal> {
        let whole = json::whole(document).ok_or(Refusal::BadBody)?;
        let listed = match &self.plan.batch {
            Batch::One => None,
            Batch::Array if whole.get().starts_with('[') => Some(whole),
            Batch::Array => None,
            Batch::At(path) => match path
                .find(document)
                .map_err(|_| Refusal::BadBody)?
                .as_slice()
            {
                [list] if list.get().starts_with('[') => Some(*list),
                _ => None,
            },
        };
        let Some(list) = listed else {
            return Ok(vec![self.event(document, whole, in_form)]);
        };
        let elements = json::elements(list).map_err(|_| Refusal::BadBody)?;
        if elements.len() > MAX_EVENTS {
            return Err(Refusal::BadBody);
        }
        // The body once, with the first event: with each of them it would grow by their number.
        let event = |(place, element): (usize, &&RawValue)| {
            let mut event = self.event(document, element, in_form);
            event.raw = event.raw.filter(|_| place == 0);
            event
        };
        Ok(elements.iter().enumerate().map(event).collect())
    }

    /// One event within `document`.
    fn event(&self, document: &Bytes, value: &RawValue, in_form: bool) -> Event {
        let text = value.get();
        let is_object = text.starts_with('{');
        let payload = if is_object {
            document.slice_ref(text.as_bytes())
        } else {
            Bytes::from(format!("{{\"payload\":{text}}}"))
        };
        let content = Content {
            headers: self.request.headers,
            json: Some(text.as_bytes()),
            form: &[],
            xml: None,
        };
        self.make(content, payload, in_form || !is_object)
    }

    /// A body that is no JSON: form, XML, text, anything.
    fn of_other(&self) -> Result<Event, Refusal> {
        let body = self.request.body;
        let text = std::str::from_utf8(body).ok();
        let media = form::media_type(self.request.headers);
        let mut content = Content {
            headers: self.request.headers,
            json: None,
            form: &[],
            xml: None,
        };
        if body.is_empty() {
            let payload = object(json!({ "headers": self.headers }));
            return Ok(self.make(content, payload, false));
        }
        if form::is_urlencoded(self.request.headers) {
            let fields: Vec<_> = form::fields(body)
                .map(|(key, value)| (lossy(&key), lossy(&value)))
                .collect();
            content.form = &fields;
            let payload = object(form_object(&fields));
            return Ok(self.make(content, payload, true));
        }
        if media.ends_with("/xml") || media.ends_with("+xml") {
            content.xml = text;
        }
        let payload = match text {
            Some(text) => json!({ "content_type": media, "body": text }),
            None => json!({
                "content_type": media,
                "body_base64": key::Encoding::Base64.encode(body),
            }),
        };
        Ok(self.make(content, object(payload), true))
    }

    fn make(&self, content: Content<'_>, payload: Bytes, keep_raw: bool) -> Event {
        let provider = self.manifest.id();
        let named = self.plan.event_type.find(content, false);
        let id = self.plan.id.as_ref().and_then(|id| id.find(content, true));
        let account = self.plan.account.as_ref();
        Event {
            event_type: event_type(provider, named.as_deref().unwrap_or_default()),
            id: id.map(|id| event_id(provider, &id)),
            account: account.and_then(|account| account.find(content, false)),
            payload,
            raw: keep_raw.then(|| self.request.body.clone()),
            headers: self.headers.clone(),
        }
    }
}

fn object(value: Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// The fields by name; a name that stands several times has a list.
fn form_object(fields: &[(String, String)]) -> Value {
    let mut object = Map::new();
    for (name, value) in fields {
        let value = Value::from(value.as_str());
        match object.get_mut(name) {
            None => {
                object.insert(name.clone(), value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    Value::Object(object)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `provider.name` in `[A-Za-z0-9_.-]`: runs of other characters become one dot, empty parts vanish.
fn event_type(provider: &str, name: &str) -> String {
    let mut text = provider.to_owned();
    for part in name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')) {
        if !part.is_empty() {
            text.push('.');
            text.push_str(part);
        }
    }
    if text == provider {
        text.push_str(".event");
    }
    text.truncate(MAX_NAME); // all ASCII here
    text
}

/// `provider-id`, or with the hash of the id where the id's own characters or length do not fit.
fn event_id(provider: &str, id: &str) -> String {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let whole = format!("{provider}-{id}");
    if whole.len() <= MAX_NAME && id.bytes().all(good) {
        return whole;
    }
    format!("{provider}-sha256.{}", key::sha256_hex(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_cleaned_to_the_characters_of_an_event_type() {
        assert_eq!(
            event_type("shopify", "orders/create"),
            "shopify.orders.create"
        );
        assert_eq!(event_type("x", "//a  b..c"), "x.a.b.c");
        assert_eq!(event_type("x", ""), "x.event");
        assert_eq!(event_type("x", "é"), "x.event");
        assert_eq!(event_type("x", &"a".repeat(500)).len(), MAX_NAME);
    }

    #[test]
    fn ids_with_other_characters_are_hashed_and_never_collide_with_plain_ones() {
        assert_eq!(event_id("stripe", "evt_1"), "stripe-evt_1");
        let url = event_id("calendly", "https://api/1");
        assert!(url.starts_with("calendly-sha256.") && url.len() <= MAX_NAME);
        assert_ne!(url, event_id("calendly", "https://api/2"));
        assert!(event_id("x", &"a".repeat(300)).len() <= MAX_NAME);
    }

    #[test]
    fn a_form_becomes_an_object_with_lists_for_repeated_names() {
        let field = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let fields = [
            field("a", "1"),
            field("b", "2"),
            field("a", "3"),
            field("a", "4"),
        ];
        assert_eq!(
            form_object(&fields),
            json!({"a": ["1", "3", "4"], "b": "2"})
        );
    }
}
