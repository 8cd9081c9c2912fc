//! The description: what the router answers stands in it, and the reverse; every route keeps foreign
//! objects and limits as the document says.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::collections::BTreeSet;

use posthaste::api::openapi::{self, Operation};
use serde_json::{Value, json};

use super::kit::Gateway;

fn filled(path: &str) -> String {
    path.replace(['{', '}'], "x")
}

#[tokio::test]
async fn every_route_stands_in_the_document_and_the_reverse() {
    let gateway = Gateway::start().await;
    let described: BTreeSet<(String, String)> = openapi::operations()
        .iter()
        .map(|one| (one.method.to_owned(), one.path.to_owned()))
        .collect();
    let mut routed = BTreeSet::new();
    for path in posthaste::api::paths() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = gateway.call(method, &filled(path)).anonymous().send().await;
            // 405: no such method; 501: described elsewhere and not built.
            if !matches!(answer.status.as_u16(), 405 | 501) {
                routed.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    assert_eq!(routed, described);
}

#[tokio::test]
async fn the_document_is_served_as_it_is_kept() {
    let gateway = Gateway::start().await;
    #[expect(clippy::disallowed_methods, reason = "how the file is written anew")]
    let anew = std::env::var("POSTHASTE_WRITE_OPENAPI").is_ok();
    if anew {
        std::fs::write("docs/openapi.json", openapi::text()).unwrap();
    }
    let kept = std::fs::read("docs/openapi.json").unwrap_or_default();
    for path in ["/openapi.json", "//openapi.json"] {
        let served = gateway.get(path).anonymous().expect(200).await;
        assert_eq!(served.header("content-type"), Some("application/json"));
        assert!(
            served.bytes == kept,
            "docs/openapi.json is not what is served; write it with POSTHASTE_WRITE_OPENAPI=1"
        );
    }
    let page = gateway.get("//docs").anonymous().expect(200).await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
}

/// `whsec_` and 24 bytes.
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn source() -> Value {
    let secrets = json!({ "secret": SECRET });
    json!({"name": "x", "provider": "standard_webhooks", "appId": "acme", "secrets": secrets})
}

/// Calls with a body that is good enough to reach the object.
fn body(operation: &Operation) -> Value {
    match operation.body.map(|(name, _)| name) {
        Some("ApplicationIn") => json!({"name": "x"}),
        Some("EndpointIn" | "EndpointUpsertIn") => json!({"url": "https://x.example/"}),
        Some("EndpointHeadersIn" | "EndpointHeadersPatchIn") => json!({"headers": {}}),
        Some("RecoverIn" | "BulkReplayIn" | "ReplayIn") => json!({"since": "2026-01-05T00:00:00Z"}),
        Some("EventExampleIn" | "MessagePrecheckIn") => json!({"eventType": "a"}),
        Some("MessageIn") => json!({"eventType": "a", "payload": {}}),
        Some("ConsumerCommitIn" | "ConsumerSeekIn") => json!({"offset": "x"}),
        Some("FilterTestIn") => json!({"filter": "true", "payload": {}}),
        Some("BulkExpungeIn") => json!({"ids": ["x"]}),
        Some("SourceIn") => source(),
        Some("SourceUpdate") => json!({"name": "x"}),
        Some("SourceSecretRotateIn") => json!({"name": "secret", "secret": SECRET}),
        Some("WebhookChange") => json!({"description": "x"}),
        _ => json!({}),
    }
}

/// Everything an application of another tenant has, for the parameters of a path.
struct Foreign {
    app: String,
    endpoint: String,
    message: String,
    key: String,
    webhook: String,
    source: String,
}

impl Foreign {
    async fn make(gateway: &Gateway) -> Self {
        let app = gateway.app("theirs").await;
        let key = gateway.make_key(&["app:theirs:*"], None).await;
        let made = json!({"url": "https://hook.example/", "events": ["a"]});
        let made = gateway
            .post("/webhooks", &made)
            .key(&key)
            .expect(201)
            .await
            .json();
        let made_key = json!({"name": "theirs", "scopes": ["msg:read"], "appId": "theirs"});
        let made_key = gateway
            .post("/api-keys", &made_key)
            .expect(201)
            .await
            .json();
        let mut wanted = source();
        wanted["appId"] = json!("theirs");
        let source = gateway.post("/source", &wanted).expect(201).await.json();
        Self {
            source: source["id"].as_str().unwrap().to_owned(),
            endpoint: gateway.endpoint("theirs", "one").await,
            message: gateway.message("theirs", "a").await,
            key: made_key["apiKey"]["id"].as_str().unwrap().to_owned(),
            webhook: made["webhook"]["id"].as_str().unwrap().to_owned(),
            app,
        }
    }

    fn fill(&self, path: &str, app: &str) -> String {
        let attempt = "atmpt_2mZ5mU7iXvJ0hWmJcLcV2Vq7RdB";
        let task = "qtask_2mZ5mU7iXvJ0hWmJcLcV2Vq7RdB";
        path.replace("{app_id}", app)
            .replace("{endpoint_id}", &self.endpoint)
            .replace("{subscription_id}", &self.endpoint)
            .replace("{msg_id}", &self.message)
            .replace("{attempt_id}", attempt)
            .replace("{task_id}", task)
            .replace("{key_id}", &self.key)
            .replace("{source_id}", &self.source)
            .replace("{bucket}", &format!("{}.status_5xx", self.endpoint))
            .replace("{id}", &self.webhook)
    }
}

/// Event types belong to the instance: everybody reads them, and no key of an application changes them.
fn is_of_the_instance(operation: &Operation) -> bool {
    operation.path.starts_with("/event-type")
}

#[tokio::test]
async fn no_route_reaches_an_object_of_another_tenant() {
    let gateway = Gateway::start().await;
    gateway.app("mine").await;
    let theirs = Foreign::make(&gateway).await;
    let mine = gateway.make_key(&["app:mine:*", "keys:write"], None).await;
    let before = gateway.directory.snapshot().revision();
    let handed = gateway.handed_on(1).await.len();
    let mut tried = 0;
    for operation in openapi::operations() {
        if !operation.path.contains('{') || is_of_the_instance(&operation) {
            continue;
        }
        // Their application, and (where there is more in the path) their objects under mine.
        // A consumer of any name can be made in one's own application.
        let makes = operation.id == "consumer.put";
        let apps: &[&str] = if operation.path.matches('{').count() > 1 && !makes {
            &[theirs.app.as_str(), "theirs", "mine"]
        } else {
            &[theirs.app.as_str(), "theirs"]
        };
        for app in apps {
            let path = theirs.fill(operation.path, app);
            let call = gateway.call(operation.method, &path).key(&mine);
            let answer = call.json(&body(&operation)).send().await;
            let what = format!("{} {path}: {}", operation.method, answer.text());
            assert_eq!(answer.problem(), (404, "not_found".to_owned()), "{what}");
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} were tried");
    assert_eq!(
        gateway.directory.snapshot().revision(),
        before,
        "something was changed"
    );
    assert_eq!(
        gateway.handed.lock().len(),
        handed,
        "something was accepted"
    );
    assert_eq!(*gateway.asked.lock(), [], "something was set in motion");
}

#[tokio::test]
async fn an_iterator_of_another_tenant_shows_nothing_of_it() {
    let gateway = Gateway::start().await;
    gateway.app("mine").await;
    gateway.endpoint("mine", "one").await;
    let theirs = Foreign::make(&gateway).await;
    let mine = gateway.make_key(&["app:mine:*"], None).await;
    for (path, iterator) in [
        ("/app", &theirs.app),
        ("/app/mine/endpoint", &theirs.endpoint),
        ("/app/mine/msg", &theirs.message),
        ("/app/mine/events", &theirs.message),
        ("/app/mine/endpoint/one/msg", &theirs.message),
    ] {
        for sign in ["", "-"] {
            let path = format!("{path}?iterator={sign}{iterator}");
            let page = gateway.get(&path).key(&mine).expect(200).await;
            for their in [&theirs.app, &theirs.endpoint] {
                let shown = page.json()["data"].to_string();
                assert!(!shown.contains(their.as_str()), "{path}: {shown}");
            }
            assert!(
                !page.json()["data"].to_string().contains(&theirs.message),
                "{path}"
            );
        }
    }
}

/// A text of `n` characters that fits `schema` in everything but its length.
fn text_of(schema: &Value, n: usize) -> Value {
    if schema["format"] == "uri" {
        let head = "https://x.example/";
        return json!(format!(
            "{head}{}",
            "a".repeat(n.saturating_sub(head.len()))
        ));
    }
    if schema["pattern"]
        .as_str()
        .is_some_and(|form| form.ends_with("_$"))
    {
        return json!(format!("{}_", "a".repeat(n.saturating_sub(1))));
    }
    json!("a".repeat(n))
}

/// For each limit of a field the values at it and one beyond it.
fn edges(schema: &Value) -> Vec<(Value, Value)> {
    let number = |name: &str| schema[name].as_u64().and_then(|n| usize::try_from(n).ok());
    let mut out = Vec::new();
    let takes = |kind: &str| {
        let given = &schema["type"];
        given == kind
            || given
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == kind))
    };
    if takes("string") {
        out.extend(number("maxLength").map(|n| (text_of(schema, n), text_of(schema, n + 1))));
    }
    if takes("integer") {
        let small = number("maximum").filter(|n| *n < 1 << 32);
        out.extend(small.map(|n| (json!(n), json!(n + 1))));
        let least = number("minimum").filter(|n| *n > 0);
        out.extend(least.map(|n| (json!(n), json!(n - 1))));
    }
    if takes("array") && schema["items"]["type"] == "string" {
        let list = |n: usize| {
            let all: Vec<String> = (0..n).map(|n| format!("a{n}")).collect();
            json!(all)
        };
        out.extend(number("maxItems").map(|n| (list(n), list(n + 1))));
        out.extend(
            number("minItems")
                .filter(|n| *n > 0)
                .map(|n| (list(n), list(n - 1))),
        );
    }
    out
}

/// Fields whose limit has another reason to be refused at it, tested by hand elsewhere.
const BY_HAND: &[(&str, &str)] = &[
    // Scopes that nobody has, capabilities with names.
    ("POST /api-keys", "scopes"),
    // The body of a request has 1 MiB, of a message less.
    ("POST /stats/usage/app", "appIds"),
    // A secret must decode to 24 to 64 bytes as well.
    ("POST /app/{app_id}/endpoint", "secret"),
    // They must name a provider, or be addresses.
    ("POST /source", "provider"),
    ("POST /api-keys", "allowedIps"),
    ("POST /source", "allowedIps"),
    ("PUT /source/{source_id}", "allowedIps"),
    ("PATCH /source/{source_id}", "allowedIps"),
    // A name is also the name of a folder.
    ("POST /admin/backup", "name"),
    // They must exist.
    ("POST /app/{app_id}/replay", "endpointIds"),
];

#[tokio::test]
async fn every_limit_of_the_document_is_exact() {
    let gateway = Gateway::start().await;
    let app = gateway.app("acme").await;
    let endpoint = gateway.endpoint("acme", "one").await;
    let made = gateway.post("/source", &source()).expect(201).await.json();
    let source_id = made["id"].as_str().unwrap().to_owned();
    let kind = json!({"name": "kind", "description": ""});
    gateway.post("/event-type", &kind).expect(201).await;
    let document: Value = serde_json::from_slice(openapi::text()).unwrap();
    let tenant = gateway.make_key(&["app:acme:*"], None).await;
    let mut tried = 0;
    let mut wrong = Vec::new();
    for operation in openapi::operations() {
        let Some((name, _)) = operation.body else {
            continue;
        };
        let schema = &document["components"]["schemas"][name];
        let Some(fields) = schema["properties"].as_object() else {
            continue;
        };
        for (field, limits) in fields {
            let call = format!("{} {}", operation.method, operation.path);
            if BY_HAND.contains(&(call.as_str(), field.as_str())) {
                continue;
            }
            for (inside, beyond) in edges(limits) {
                for (value, fits) in [(&inside, true), (&beyond, false)] {
                    let mut sent = body(&operation);
                    sent[field] = value.clone();
                    let path = operation
                        .path
                        .replace("{app_id}", &app)
                        .replace("{endpoint_id}", &endpoint)
                        .replace("{source_id}", &source_id)
                        .replace("{event_type_name}", "kind");
                    let request = gateway.call(operation.method, &path).json(&sent);
                    let is_tenant = path.starts_with("/webhooks") || path.starts_with("/crm");
                    let answer = if is_tenant {
                        request.key(&tenant)
                    } else {
                        request
                    };
                    let answer = answer.send().await;
                    let named = match field.as_str() {
                        "rateLimit" => "throttleRate",
                        "filterTypes" => "eventTypes",
                        "is_active" => "isActive",
                        own => own,
                    };
                    let complains = answer.status == 422
                        && answer.mistakes().iter().any(|(loc, _)| {
                            loc == &format!("body.{named}")
                                || loc.starts_with(&format!("body.{named}."))
                        });
                    let short: String = value.to_string().chars().take(60).collect();
                    if complains == fits || answer.status.as_u16() >= 500 {
                        let told = String::from_utf8_lossy(&answer.bytes);
                        let told: String = told.chars().take(300).collect();
                        wrong.push(format!(
                            "{call}: {field} = {short}: {} {told}",
                            answer.status
                        ));
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 100, "only {tried} were tried");
}
