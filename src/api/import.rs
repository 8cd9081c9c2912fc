//! Event types out of the `webhooks` of an OpenAPI 3.1 document (also `x-webhooks` of older ones), or
//! out of a catalogue. `specRaw` may be JSON or YAML.
//!
//! The name of a webhook is the name of the type; the JSON schema of its request body becomes version 1
//! of the schema, with local references put in place. A dry run says what would change and changes
//! nothing; otherwise all of it is one change.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::error::{Code, Problem};
use super::event_type::put_usable;
use super::reply::Reply;
use super::request::{Answer, Cx, MAX_BODY};
use crate::base::{Timestamp, task, yaml};
use crate::catalogs::Listed;
use crate::ingest::fields::{self, any};
use crate::ingest::{Item, ItemKind};
use crate::model::EventType;

/// Types of one document at most.
const MAX_TYPES: usize = 2000;
/// References within references; deeper ones are left as `true`.
const DEPTH: usize = 16;
/// Values that putting references in place may make of one schema.
const MAX_NODES: usize = 20_000;

/// What is read of YAML: as deep as JSON, and with aliases in place no larger than a body may be.
const YAML: yaml::Limits = yaml::Limits {
    bytes: MAX_BODY,
    values: 100_000,
    depth: 127,
};

/// One type as the document describes it.
struct Described {
    name: String,
    description: String,
    schemas: Option<Value>,
    deprecated: bool,
    group_name: Option<String>,
}

/// POST `/event-type/import/openapi`
pub(super) async fn openapi(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let mut fields = cx.fields().await?;
    let spec = fields.read("spec", Ok).value();
    let raw = fields.text("specRaw", any).value();
    let dry_run = fields.flag("dryRun").value().unwrap_or(false);
    let replace = fields.flag("replaceAll").value().unwrap_or(false);
    fields.finish()?;
    let spec = match (spec, raw) {
        (Some(spec), None) => spec,
        (None, Some(raw)) => match task::blocking(move || parse(&raw)).await {
            Some(read) => read?,
            None => return Err(Problem::new(Code::Server, "The document was not read.")),
        },
        _ => {
            let detail = "Exactly one of `spec` and `specRaw` is wanted.";
            return Err(Problem::new(Code::Generic, detail));
        }
    };
    let described = read(&spec)?;
    let now = cx.now;
    let modified: Vec<String> = described.iter().map(|one| one.name.clone()).collect();
    if dry_run {
        let shown: Vec<Value> = described.iter().map(shown).collect();
        let data = json!({ "modified": modified, "to_modify": shown });
        return Ok(Reply::ok(&json!({ "data": data })));
    }
    cx.carry_out(move |draft| {
        let names: BTreeSet<&str> = described.iter().map(|one| one.name.as_str()).collect();
        if replace {
            let others = draft.event_types().values();
            let others = others.filter(|t| !t.archived && !names.contains(t.name.as_str()));
            let others: Vec<EventType> = others.map(|t| EventType::clone(t)).collect();
            for mut other in others {
                other.archived = true;
                other.updated = now;
                draft.put_event_type(other)?;
            }
        }
        for one in described {
            let known = draft.event_type(&one.name).cloned();
            put_usable(draft, one.into_type(known.as_deref(), now))?;
        }
        Ok::<_, Problem>(())
    })
    .await?;
    Ok(Reply::ok(&json!({ "data": { "modified": modified } })))
}

/// POST `/event-type/import/catalogue`
pub(super) async fn catalogue(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let mut fields = cx.fields().await?;
    let name = fields.required("name", any);
    let dry_run = fields.flag("dryRun").value().unwrap_or(false);
    fields.finish()?;
    let catalogs = &cx.state.catalogs;
    let listed = catalogs.get(&name.unwrap_or_default()).cloned();
    let listed = listed.ok_or_else(|| {
        let names: Vec<&str> = catalogs.names().collect();
        let detail = format!(
            "No catalogue with this name; there are {}.",
            names.join(", ")
        );
        Problem::new(Code::NotFound, detail)
    })?;
    let (now, modified) = (cx.now, listed.iter().map(|one| one.name.clone()));
    let modified: Vec<String> = modified.collect();
    if dry_run {
        let shown = |one: &Listed| {
            json!({
                "name": one.name, "description": one.description, "deprecated": false,
                "schemas": { "1": one.schema }, "groupName": one.group,
            })
        };
        let shown: Vec<Value> = listed.iter().map(shown).collect();
        let data = json!({ "modified": modified, "to_modify": shown });
        return Ok(Reply::ok(&json!({ "data": data })));
    }
    cx.carry_out(move |draft| {
        for one in listed.iter() {
            let known = draft.event_type(&one.name).cloned();
            put_usable(draft, one.event_type(known.as_deref(), now))?;
        }
        Ok::<_, Problem>(())
    })
    .await?;
    Ok(Reply::ok(&json!({ "data": { "modified": modified } })))
}

/// A document as it is written: JSON, or YAML 1.2. What begins like JSON and is neither is told why it is
/// no JSON.
fn parse(raw: &str) -> Result<Value, Problem> {
    let raw = raw.strip_prefix('\u{feff}').unwrap_or(raw);
    let no_json = match serde_json::from_str(raw) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let (kind, msg) = match yaml::read(raw, YAML) {
        Ok(value) => return Ok(value),
        Err(error) if error.beyond => (ItemKind::Limit, error.to_string()),
        Err(_) if raw.trim_start().starts_with(['{', '[']) => (
            ItemKind::ValueError,
            format!("not a JSON document: {no_json}"),
        ),
        Err(error) => {
            let msg = format!("neither JSON nor YAML that JSON can say: {error}");
            (ItemKind::ValueError, msg)
        }
    };
    Err(Item::body("specRaw", kind, msg).into())
}

fn read(spec: &Value) -> Result<Vec<Described>, Problem> {
    let wrong = |msg: String| -> Problem { Item::body("spec", ItemKind::ValueError, msg).into() };
    let hooks = spec.get("webhooks").or_else(|| spec.get("x-webhooks"));
    let Some(hooks) = hooks.and_then(Value::as_object) else {
        return Err(wrong(String::from("the document has no `webhooks`")));
    };
    if hooks.len() > MAX_TYPES {
        return Err(wrong(format!("at most {MAX_TYPES} webhooks")));
    }
    let mut found = Vec::with_capacity(hooks.len());
    for (name, item) in hooks {
        if let Err((_, why)) = fields::event_type(name) {
            return Err(wrong(format!("webhook `{name}`: {why}")));
        }
        let operation = ["post", "put", "patch"].iter().find_map(|m| item.get(*m));
        let Some(operation) = operation else {
            return Err(wrong(format!("webhook `{name}` has no POST")));
        };
        found.push(describe(spec, name, operation));
    }
    Ok(found)
}

fn describe(spec: &Value, name: &str, operation: &Value) -> Described {
    let text = |field| operation.get(field).and_then(Value::as_str);
    let body = operation.pointer("/requestBody/content");
    let body = body.and_then(Value::as_object);
    let schema = body.and_then(|kinds| {
        let json = kinds.get("application/json");
        json.or_else(|| kinds.values().next())?.get("schema")
    });
    let group =
        text("x-svix-group-name").or_else(|| operation.pointer("/tags/0").and_then(Value::as_str));
    Described {
        name: name.to_owned(),
        description: text("description")
            .or_else(|| text("summary"))
            .unwrap_or_default()
            .to_owned(),
        schemas: schema.map(|schema| {
            let mut left = MAX_NODES;
            json!({ "1": inline(spec, schema, DEPTH, &mut left) })
        }),
        deprecated: operation
            .get("deprecated")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        group_name: group
            .filter(|name| fields::event_type(name).is_ok())
            .map(str::to_owned),
    }
}

/// The schema with local references put in place. What lies too deep, or goes round in circles until
/// `left` is used up, lets everything through.
fn inline(spec: &Value, schema: &Value, depth: usize, left: &mut usize) -> Value {
    let Some(rest) = left.checked_sub(1) else {
        return Value::Bool(true);
    };
    *left = rest;
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                let target = name.strip_prefix('#').and_then(|place| spec.pointer(place));
                return match (target, depth.checked_sub(1)) {
                    (Some(target), Some(depth)) => inline(spec, target, depth, left),
                    _ => Value::Bool(true),
                };
            }
            let made: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), inline(spec, value, depth, left)))
                .collect();
            Value::Object(made)
        }
        Value::Array(values) => {
            let made = values.iter().map(|value| inline(spec, value, depth, left));
            Value::Array(made.collect())
        }
        other => other.clone(),
    }
}

fn shown(one: &Described) -> Value {
    let mut shown = json!({
        "name": one.name, "description": one.description, "deprecated": one.deprecated,
    });
    if let Some(fields) = shown.as_object_mut() {
        if let Some(schemas) = &one.schemas {
            fields.insert(String::from("schemas"), schemas.clone());
        }
        if let Some(group) = &one.group_name {
            fields.insert(String::from("groupName"), json!(group));
        }
    }
    shown
}

impl Described {
    fn into_type(self, known: Option<&EventType>, now: Timestamp) -> EventType {
        EventType {
            name: self.name,
            description: self.description,
            archived: false,
            deprecated: self.deprecated,
            schemas: self.schemas,
            group_name: self.group_name,
            payload_validation: known
                .map_or_else(Default::default, |known| known.payload_validation),
            feature_flags: known.and_then(|known| known.feature_flags.clone()),
            created: known.map_or(now, |known| known.created),
            updated: now,
            deleted: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_put_in_place_and_circles_end() {
        let spec = json!({"components": {"schemas": {
            "A": {"type": "object", "properties": {"b": {"$ref": "#/components/schemas/B"}}},
            "B": {"enum": [1]},
            "Round": {"properties": {"a": {"$ref": "#/components/schemas/Round"},
                                     "b": {"$ref": "#/components/schemas/Round"}}},
        }}});
        let of = |name: &str| {
            let mut left = MAX_NODES;
            inline(
                &spec,
                &json!({"$ref": format!("#/components/schemas/{name}")}),
                DEPTH,
                &mut left,
            )
        };
        assert_eq!(
            of("A"),
            json!({"type": "object", "properties": {"b": {"enum": [1]}}})
        );
        assert!(of("Round").to_string().len() < MAX_NODES * 20);
        assert_eq!(of("None"), json!(true));
    }

    #[test]
    fn webhooks_become_types() {
        let spec = json!({"webhooks": {"pet.new": {"post": {
            "summary": "A pet", "tags": ["pets"],
            "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
        }}}});
        let found = read(&spec).unwrap();
        let one = shown(found.first().unwrap());
        assert_eq!(
            one,
            json!({
                "name": "pet.new", "description": "A pet", "deprecated": false,
                "schemas": {"1": {"type": "object"}}, "groupName": "pets",
            })
        );
        for bad in [
            json!({}),
            json!({"webhooks": {"a b": {"post": {}}}}),
            json!({"webhooks": {"a": {}}}),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
