//! The description of the API as an OpenAPI 3.1 document, and a page to read it.
//!
//! Owns: one line for each operation (`operations.txt`) and the schemas (`components.json`), both
//! compiled in; what they share (errors, credentials, lists, path parameters) is put in here. Tests
//! compare the lines with the router in both directions, and the answers of a running gateway with
//! the schemas (`scripts/schemathesis`), so the description cannot fall behind the code (ADR 0324).

mod page;

use std::sync::LazyLock;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::error::Code;
use super::reply::Reply;

const OPERATIONS: &str = include_str!("operations.txt");
const COMPONENTS: &str = include_str!("components.json");

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The heading it stands under.
    pub group: &'static str,
    /// `GET`, `POST` …
    pub method: &'static str,
    /// Below `/api/v1`.
    pub path: &'static str,
    /// `resource.call`, as the client SDKs name it.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Keys of query parameters.
    pub query: Vec<&'static str>,
    /// Schema of the body, and whether there must be one.
    pub body: Option<(&'static str, bool)>,
    /// Statuses of success, each with the schema of its body, if it has one.
    pub answers: Vec<(u16, Option<&'static str>)>,
}

/// All operations in the order of the document. A line that cannot be read is left out (and a test
/// fails).
pub fn operations() -> Vec<Operation> {
    let mut group = "";
    let mut all = Vec::new();
    for line in OPERATIONS.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            group = name;
        } else if !line.starts_with('#') {
            all.extend(operation(group, line));
        }
    }
    all
}

/// How many lines the table has.
#[cfg(test)]
fn lines() -> usize {
    OPERATIONS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count()
}

fn operation(group: &'static str, line: &'static str) -> Option<Operation> {
    let mut parts = line.split('|').map(str::trim);
    let (method, path) = parts.next()?.split_once(' ')?;
    let (id, summary) = (parts.next()?, parts.next()?);
    let query = parts.next()?.split_whitespace().collect();
    let body = parts.next().filter(|body| !body.is_empty());
    let answer = |one: &'static str| {
        let mut parts = one.split_whitespace();
        Some((parts.next()?.parse().ok()?, parts.next()))
    };
    let answers: Option<Vec<_>> = parts.next()?.split(',').map(answer).collect();
    Some(Operation {
        group,
        method,
        path,
        id,
        summary,
        query,
        body: body.map(|body| match body.strip_prefix('?') {
            Some(name) => (name, false),
            None => (body, true),
        }),
        answers: answers?,
    })
}

/// The document, made once.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut out = serde_json::to_vec_pretty(&document()).unwrap_or_default();
    out.push(b'\n');
    out.into()
});

/// The page, made once.
static PAGE: LazyLock<String> = LazyLock::new(|| page::render(&document()));

/// The document as it is served.
pub fn text() -> &'static [u8] {
    &DOCUMENT
}

/// GET `/openapi.json`, no credential: the content type is exactly `application/json`.
pub(super) async fn read() -> Response {
    Reply::raw(http::StatusCode::OK, DOCUMENT.clone()).response()
}

/// GET `/docs`, no credential.
pub(super) async fn docs() -> Response {
    let mut response = Response::new(PAGE.as_str().into());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn document() -> Value {
    let components: Value = serde_json::from_str(COMPONENTS).unwrap_or_default();
    let mut paths = Map::new();
    for operation in operations() {
        let path = format!("/api/v1{}", operation.path);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            let method = operation.method.to_ascii_lowercase();
            item.insert(method, described(&operation, &components));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Posthaste",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Webhook delivery gateway: events in over HTTP, durable in a log, delivered signed and at least once.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": components["schemas"],
            "responses": errors(),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn described(operation: &Operation, components: &Value) -> Value {
    let mut out = json!({
        "operationId": format!("v1.{}", operation.id),
        "tags": [operation.group],
        "summary": operation.summary,
        "responses": answers(operation),
    });
    let mut parameters = path_parameters(operation.path);
    let named = operation
        .query
        .iter()
        .map(|key| &components["parameters"][*key]);
    parameters.extend(named.cloned());
    let Some(fields) = out.as_object_mut() else {
        return out;
    };
    if !parameters.is_empty() {
        fields.insert(String::from("parameters"), Value::Array(parameters));
    }
    if let Some((name, required)) = operation.body {
        let body = json!({ "required": required, "content": content(name) });
        fields.insert(String::from("requestBody"), body);
    }
    if is_open(operation) {
        fields.insert(String::from("security"), json!([]));
    }
    out
}

/// Whether it wants no credential.
fn is_open(operation: &Operation) -> bool {
    matches!(operation.path, "/health" | "/openapi.json")
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| {
        let inner = part.strip_prefix('{')?;
        inner.strip_suffix('}')
    });
    let parameter = |name: &str| {
        json!({
            "name": name, "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1 },
        })
    };
    names.map(parameter).collect()
}

fn content(name: &str) -> Value {
    if name == "ndjson" {
        return json!({ "application/x-ndjson": { "schema": { "type": "string" } } });
    }
    json!({ "application/json": { "schema": schema(name) } })
}

fn schema(name: &str) -> Value {
    let of = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let Some(item) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) else {
        return of(name);
    };
    json!({
        "type": "object",
        "required": ["data", "iterator", "prevIterator", "done"],
        "properties": {
            "data": { "type": "array", "items": of(item) },
            "iterator": { "type": ["string", "null"] },
            "prevIterator": { "type": ["string", "null"] },
            "done": { "type": "boolean" },
        },
    })
}

fn answers(operation: &Operation) -> Value {
    let mut out = Map::new();
    for (status, name) in &operation.answers {
        let mut answer = json!({ "description": "Done." });
        if let (Some(name), Some(fields)) = (name, answer.as_object_mut()) {
            fields.insert(String::from("content"), content(name));
        }
        out.insert(status.to_string(), answer);
    }
    if !is_open(operation) {
        for status in statuses() {
            let reference = json!({ "$ref": format!("#/components/responses/{status}") });
            out.entry(status.to_string()).or_insert(reference);
        }
    }
    Value::Object(out)
}

/// Statuses of all problem codes but the one of routes that are not built.
fn statuses() -> Vec<u16> {
    let codes = Code::ALL
        .iter()
        .filter(|code| **code != Code::NotImplemented);
    let mut all: Vec<u16> = codes.map(|code| code.status()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn errors() -> Value {
    let mut out = Map::new();
    for status in statuses() {
        let codes = Code::ALL.iter().filter(|code| code.status() == status);
        let names: Vec<String> = codes.map(|code| format!("`{}`", code.name())).collect();
        let (kind, name) = if status == Code::Validation.status() {
            ("application/json", "ValidationProblem")
        } else {
            ("application/problem+json", "Problem")
        };
        let answer = json!({
            "description": names.join(", "),
            "content": { kind: { "schema": schema(name) } },
        });
        out.insert(status.to_string(), answer);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_of_the_table_can_be_read() {
        assert_eq!(operations().len(), lines());
        let ids: BTreeSet<&str> = operations().iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), operations().len(), "ids are unique");
    }

    /// All values of `key` anywhere in `value`.
    fn collect<'a>(value: &'a Value, key: &str, into: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                into.extend(fields.get(key).and_then(Value::as_str));
                fields.values().for_each(|value| collect(value, key, into));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, key, into)),
            _ => {}
        }
    }

    #[test]
    fn every_name_leads_somewhere_and_every_schema_is_used() {
        let document = document();
        let mut names = Vec::new();
        collect(&document, "$ref", &mut names);
        let mut used = BTreeSet::new();
        for name in names {
            let place = name.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{name}");
            used.extend(name.strip_prefix("#/components/schemas/"));
        }
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let all: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
        assert_eq!(used, all);
        for operation in operations() {
            let path = format!("/api/v1{}", operation.path);
            let method = operation.method.to_ascii_lowercase();
            let described = &document["paths"][&path][&method];
            let named = described["parameters"].as_array();
            for parameter in named.into_iter().flatten() {
                assert!(parameter["name"].is_string(), "{path}: {parameter}");
            }
        }
    }

    #[test]
    fn the_page_shows_every_operation() {
        let page = page::render(&document());
        for operation in operations() {
            assert!(page.contains(operation.id), "{}", operation.id);
        }
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "nothing is loaded"
        );
    }
}
