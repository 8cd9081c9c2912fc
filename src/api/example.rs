//! An example payload out of a JSON Schema, and sending one to an endpoint.
//!
//! Owns: the choice of a value for each kind of schema. What the author of the schema gave (`const`,
//! `default`, `examples`, `example`, `enum`) comes before what is made up; no keyword is checked, so an
//! example may miss a `pattern`. Local references are followed, 16 deep.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::body::write_message;
use super::error::{Code, Problem};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::ingest::fields;
use crate::model::EventType;

/// Schemas within schemas.
const DEPTH: usize = 16;
/// Examples that may be asked for.
const MAX_INDEX: u64 = 1000;

/// POST `…/endpoint/{endpoint_id}/send-example`: a message for this endpoint alone.
pub(super) async fn send(mut cx: Cx) -> Answer {
    let admission = cx.state.ingest.admit(cx.param("app_id"), &cx.principal)?;
    let mut fields = cx.fields().await?;
    let name = fields.required("eventType", fields::event_type);
    let index = fields.number("exampleIndex", 0..=MAX_INDEX).value();
    fields.finish()?;
    let (app, endpoint) = cx.endpoint()?;
    let name = name.unwrap_or_default();
    let known = cx.state.directory.peek().event_type(&name).cloned();
    let known =
        known.ok_or_else(|| Problem::new(Code::NotFound, "No event type with this name."))?;
    let index = usize::try_from(index.unwrap_or(0)).unwrap_or(usize::MAX);
    let payload = of_type(&known, index).ok_or_else(|| {
        let detail = "The event type has no schema that gives an object as example.";
        Problem::new(Code::InvalidScheme, detail)
    })?;
    let bytes = serde_json::to_vec(&payload).unwrap_or_default().into();
    drop(admission);
    let ingest = &cx.state.ingest;
    let message = ingest.accept_for(&app, &name, bytes, endpoint.no).await?;
    let mut out = Vec::with_capacity(message.payload.len() + 256);
    write_message(&mut out, &message, true);
    out.push(b'}');
    Ok(Reply::raw(StatusCode::ACCEPTED, out))
}

/// The example with this number out of the newest schema of a type; `None` unless it is an object.
pub(super) fn of_type(event_type: &EventType, index: usize) -> Option<Value> {
    of_schema(event_type.newest_schema()?, index).filter(Value::is_object)
}

/// The example with this number; beyond what the schema lists, the one that is made up.
pub(super) fn of_schema(schema: &Value, index: usize) -> Option<Value> {
    let listed = schema.get("examples").and_then(Value::as_array);
    if let Some(found) = listed.and_then(|listed| listed.get(index)) {
        return Some(found.clone());
    }
    Maker { root: schema }.make(schema, DEPTH)
}

struct Maker<'a> {
    root: &'a Value,
}

impl Maker<'_> {
    fn make(&self, schema: &Value, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        let Value::Object(fields) = schema else {
            // `true` lets everything through.
            return (*schema == Value::Bool(true)).then(|| json!({}));
        };
        if let Some(given) = given(fields) {
            return Some(given);
        }
        if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
            let place = name.strip_prefix('#')?;
            return self.make(self.root.pointer(place)?, depth);
        }
        if let Some(parts) = fields.get("allOf").and_then(Value::as_array) {
            return self.all(fields, parts, depth);
        }
        for name in ["oneOf", "anyOf"] {
            let choices = fields.get(name).and_then(Value::as_array);
            if let Some(made) = choices
                .into_iter()
                .flatten()
                .find_map(|choice| self.make(choice, depth))
            {
                return Some(made);
            }
        }
        self.of_kind(fields, depth)
    }

    /// The fields of all parts together.
    fn all(&self, fields: &Map<String, Value>, parts: &[Value], depth: usize) -> Option<Value> {
        let mut whole = match self.of_kind(fields, depth) {
            Some(Value::Object(own)) => own,
            _ => Map::new(),
        };
        for part in parts {
            match self.make(part, depth)? {
                Value::Object(more) => whole.extend(more),
                other => return Some(other),
            }
        }
        Some(Value::Object(whole))
    }

    fn of_kind(&self, fields: &Map<String, Value>, depth: usize) -> Option<Value> {
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                let mut kinds = kinds.iter().filter_map(Value::as_str);
                kinds
                    .clone()
                    .find(|kind| *kind != "null")
                    .or_else(|| kinds.next())?
            }
            _ if fields.contains_key("items") => "array",
            _ => "object",
        };
        let number = |name| fields.get(name).filter(|value| value.is_number()).cloned();
        Some(match kind {
            "object" => self.object(fields, depth),
            "array" => {
                let item = fields.get("items");
                json!(
                    item.and_then(|item| self.make(item, depth))
                        .into_iter()
                        .collect::<Vec<_>>()
                )
            }
            "string" => json!(text(fields)),
            "integer" | "number" => number("minimum")
                .or_else(|| number("maximum"))
                .unwrap_or_else(|| json!(1)),
            "boolean" => json!(true),
            "null" => Value::Null,
            _ => return None,
        })
    }

    fn object(&self, fields: &Map<String, Value>, depth: usize) -> Value {
        let named = fields.get("properties").and_then(Value::as_object);
        let made = named
            .into_iter()
            .flatten()
            .filter_map(|(name, schema)| Some((name.clone(), self.make(schema, depth)?)));
        Value::Object(made.collect())
    }
}

/// What the author of the schema gave.
fn given(fields: &Map<String, Value>) -> Option<Value> {
    let first = |name| fields.get(name).and_then(Value::as_array)?.first();
    let given = fields.get("const").or_else(|| fields.get("example"));
    let given = given.or_else(|| first("examples"));
    let given = given.or_else(|| fields.get("default"));
    given.or_else(|| first("enum")).cloned()
}

fn text(fields: &Map<String, Value>) -> String {
    let format = fields
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = match format {
        "date-time" => "2026-01-05T08:15:30Z",
        "date" => "2026-01-05",
        "time" => "08:15:30Z",
        "email" => "user@example.com",
        "uri" | "url" => "https://example.com/",
        "hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uuid" => "3f6c1f0e-5a7b-4c8d-9e21-7b8a9c0d1e2f",
        _ => "string",
    };
    let least = fields.get("minLength").and_then(Value::as_u64).unwrap_or(0);
    let least = usize::try_from(least).unwrap_or(0).min(10_000);
    let mut text = text.to_owned();
    while text.chars().count() < least {
        text.push('x');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_come_from_what_the_schema_says() {
        for (schema, want) in [
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}}}),
                json!({"a": "string"}),
            ),
            (
                json!({"properties": {"n": {"type": "integer", "minimum": 5}}}),
                json!({"n": 5}),
            ),
            (json!({"examples": [{"a": 1}, {"a": 2}]}), json!({"a": 1})),
            (
                json!({"properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"enum": ["u", "v"]}}}),
                json!({"x": "u"}),
            ),
            (
                json!({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"default": 2}}}]}),
                json!({"a": 1, "b": 2}),
            ),
            (
                json!({"properties": {"l": {"type": "array", "items": {"type": ["null", "boolean"]}}}}),
                json!({"l": [true]}),
            ),
            (
                json!({"oneOf": [{"type": "unknown"}, {"properties": {}}]}),
                json!({}),
            ),
        ] {
            assert_eq!(of_schema(&schema, 0), Some(want), "{schema}");
        }
        assert_eq!(
            of_schema(&json!({"examples": [{"a": 1}, {"a": 2}]}), 1),
            Some(json!({"a": 2}))
        );
    }

    #[test]
    fn a_schema_that_holds_itself_comes_to_an_end() {
        let round = json!({"properties": {"next": {"$ref": "#"}}, "type": "object"});
        assert!(of_schema(&round, 0).is_some());
        assert_eq!(of_schema(&json!({"$ref": "#"}), 0), None);
        assert_eq!(
            of_schema(&json!({"$ref": "https://example.com/x"}), 0),
            None
        );
        assert_eq!(of_schema(&json!(5), 0), None);
    }
}
