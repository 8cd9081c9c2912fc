//! Keys, scopes, and applications that do not see each other.
#![expect(clippy::string_slice, reason = "keys are ASCII")]

use std::time::Duration;

use clap::Parser;
use posthaste::base::Clock;
use posthaste::cli::keys;
use serde_json::json;

use super::kit::{ADMIN, Gateway};

#[tokio::test]
async fn wrong_keys_of_every_kind_get_the_same_answer() {
    let gateway = Gateway::start().await;
    let key = gateway.make_key(&["read"], None).await;
    let flipped = format!(
        "{}{}",
        &key[..key.len() - 1],
        if key.ends_with('a') { "b" } else { "a" }
    );
    let unknown = format!("sk_{}_{}", "0".repeat(27), "a".repeat(43));
    let mut bodies = Vec::new();
    for wrong in [flipped.as_str(), unknown.as_str(), "", "x", &ADMIN[1..]] {
        let answer = gateway.get("/app").key(wrong).send().await;
        assert_eq!(
            answer.problem(),
            (401, "authentication_failed".to_owned()),
            "{wrong}"
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        bodies.push(answer.bytes);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    let none = gateway.get("/app").anonymous().send().await;
    assert_eq!(none.status, 401);
    let basic = gateway
        .get("/app")
        .anonymous()
        .header("authorization", "Basic eDp5")
        .send()
        .await;
    assert_eq!(basic.status, 401);
    gateway.get("/app").key(&key).expect(200).await;
}

#[tokio::test]
async fn a_revoked_or_expired_key_is_refused_at_once() {
    let gateway = Gateway::start().await;
    let body = json!({"name": "k", "scopes": ["read"], "expiresAt": "2026-01-05T08:15:40.120Z"});
    let made = gateway.post("/api-keys", &body).expect(201).await.json();
    let key = made["apiKey"]["key"].as_str().unwrap().to_owned();
    gateway.clock.advance(Duration::from_millis(9999));
    gateway.get("/app").key(&key).expect(200).await;
    gateway.clock.advance(Duration::from_millis(1));
    gateway.get("/app").key(&key).expect(401).await;

    let key = gateway.make_key(&["read"], None).await;
    let list = gateway.get("/api-keys").expect(200).await.json();
    assert_eq!(list["count"], 2);
    assert!(
        !list.to_string().contains(&key),
        "the text of a key is shown once"
    );
    let id = list["apiKeys"][1]["id"].as_str().unwrap().to_owned();
    gateway.get("/app").key(&key).expect(200).await;
    gateway
        .call("DELETE", &format!("/api-keys/{id}"))
        .expect(200)
        .await;
    gateway.get("/app").key(&key).expect(401).await;
    gateway
        .call("DELETE", &format!("/api-keys/{id}"))
        .expect(404)
        .await;
}

#[tokio::test]
async fn keys_are_stored_as_hashes_only() {
    let gateway = Gateway::start().await;
    let key = gateway.make_key(&["read"], None).await;
    let secret = key.rsplit('_').next().unwrap();
    let (_, rows) = gateway.reader.config().unwrap();
    for row in rows {
        let text = String::from_utf8_lossy(&row.value).into_owned();
        assert!(!text.contains(secret) && !text.contains(ADMIN));
    }
}

#[tokio::test]
async fn a_missing_scope_is_403() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let message = json!({"eventType": "a", "payload": {}});
    let reader = gateway.make_key(&["read"], None).await;
    let sender = gateway.make_key(&["msg:write"], None).await;
    let refused = gateway
        .post("/app/acme/msg", &message)
        .key(&reader)
        .send()
        .await;
    assert_eq!(refused.problem(), (403, "insufficient access".to_owned()));
    gateway
        .post("/app/acme/msg", &message)
        .key(&sender)
        .expect(202)
        .await;
    gateway.get("/app/acme/msg").key(&sender).expect(403).await;
    gateway.get("/app/acme/msg").key(&reader).expect(200).await;
    gateway
        .post("/app", &json!({"name": "x"}))
        .key(&reader)
        .expect(403)
        .await;
    gateway.get("/api-keys").key(&reader).expect(403).await;
    gateway.get("//metrics").key(&sender).expect(403).await;
    gateway.get("//metrics").key(&reader).expect(200).await;
}

#[tokio::test]
async fn a_key_cannot_give_more_than_it_has() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("other").await;
    let maker = gateway
        .make_key(&["keys:write", "read"], Some("acme"))
        .await;
    let ask = |scopes: serde_json::Value| json!({"name": "k", "scopes": scopes});
    let made = gateway
        .post("/api-keys", &ask(json!(["read", "jobs:read"])))
        .key(&maker);
    let made = made.expect(201).await.json();
    assert!(made["apiKey"]["expiresAt"].is_null());
    let key = made["apiKey"]["key"].as_str().unwrap();
    gateway.get("/app/other").key(key).expect(404).await;
    gateway.get("/app/acme").key(key).expect(200).await;
    gateway
        .post("/api-keys", &ask(json!(["admin"])))
        .key(&maker)
        .expect(403)
        .await;
    gateway
        .post("/api-keys", &ask(json!(["msg:write"])))
        .key(&maker)
        .expect(403)
        .await;
    gateway
        .post("/api-keys", &ask(json!(["app:other:*"])))
        .key(&maker)
        .expect(422)
        .await;
    let whole = gateway
        .post("/api-keys", &ask(json!(["app:acme:*"])))
        .expect(201)
        .await
        .json();
    let whole = whole["apiKey"]["key"].as_str().unwrap().to_owned();
    gateway.get("/app/acme/msg").key(&whole).expect(200).await;
    gateway.get("/app/other/msg").key(&whole).expect(404).await;
    gateway.get("/api-keys").key(&whole).expect(403).await;
}

#[tokio::test]
async fn another_applications_objects_are_not_found_on_every_route() {
    let gateway = Gateway::start().await;
    let mine = gateway.app("mine").await;
    let theirs = gateway.app("theirs").await;
    let endpoint = gateway.endpoint("theirs", "ep").await;
    let message = gateway.message("theirs", "a").await;
    let key = gateway.make_key(&["app:mine:*"], None).await;
    let my_endpoint = gateway.endpoint("mine", "ep").await;
    let body = json!({
        "name": "x", "url": "https://x.example/", "headers": {}, "eventType": "a", "payload": {},
        "since": "2026-01-05T00:00:00Z",
    });
    let before = gateway.directory.snapshot().revision();
    for (method, path) in routes(&mine, &theirs, &endpoint, &my_endpoint, &message) {
        let body = match method {
            "GET" | "DELETE" => json!(null),
            "PUT" | "PATCH" => json!({"name": "stolen"}),
            _ => json!({}),
        };
        let answer = gateway
            .call(method, &path)
            .json(&body)
            .key(&key)
            .send()
            .await;
        assert_eq!(
            answer.problem(),
            (404, "not_found".to_owned()),
            "{method} {path}"
        );
    }
    let sent = gateway.post("/app/theirs/msg", &json!({"eventType": "a", "payload": {}}));
    assert_eq!(sent.key(&key).send().await.status, 404);
    let unknown = gateway
        .post("/app/nobody/msg", &body)
        .key(&key)
        .send()
        .await;
    assert_eq!(unknown.status, 404);
    let since = json!({"since": "2026-01-05T00:00:00Z"});
    let path = format!("/app/mine/endpoint/{endpoint}/recover");
    assert_eq!(
        gateway.post(&path, &since).key(&key).send().await.status,
        404
    );
    assert_eq!(
        gateway.directory.snapshot().revision(),
        before,
        "nothing changed"
    );
    assert!(gateway.asked.lock().is_empty());
    let list = gateway.get("/app").key(&key).expect(200).await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    gateway
        .post("/app", &json!({"name": "new"}))
        .key(&key)
        .expect(403)
        .await;
    let event_type = json!({"name": "a", "description": ""});
    gateway
        .post("/event-type", &event_type)
        .key(&key)
        .expect(403)
        .await;
}

#[derive(clap::Parser)]
struct Keys {
    #[command(flatten)]
    args: keys::KeysArgs,
}

#[tokio::test]
async fn keys_of_a_stopped_gateway_are_made_listed_and_revoked() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let run = async |line: &str| {
        let line = std::iter::once("keys").chain(line.split(' '));
        let args = Keys::try_parse_from(line).unwrap().args;
        keys::run(args, &gateway.directory, gateway.clock.now(), [7; 46]).await
    };
    assert_eq!(run("list").await.unwrap(), "there are no keys");
    let made = run("create --name ci --scope read --app acme --expires 2030-01-01T00:00:00Z");
    let made = made.await.unwrap();
    let (key, rest) = made.split_once('\n').unwrap();
    gateway.get("/app/acme").key(key).expect(200).await;
    let id = rest.trim_start_matches('(').split(';').next().unwrap();
    let listed = run("list").await.unwrap();
    assert!(listed.starts_with(id) && listed.contains("read") && !listed.contains(key));
    assert!(run("create --name x --app nobody").await.is_err());
    assert!(
        run("create --name x --expires 2020-01-01T00:00:00Z")
            .await
            .is_err()
    );
    run(&format!("revoke {id}")).await.unwrap();
    gateway.get("/app/acme").key(key).expect(401).await;
    assert!(run(&format!("revoke {id}")).await.is_err());
}

/// Every route that names an object, with foreign ids in all places.
fn routes(
    mine: &str,
    theirs: &str,
    endpoint: &str,
    my_endpoint: &str,
    message: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("GET", format!("/app/{theirs}")),
        ("PUT", format!("/app/{theirs}")),
        ("PATCH", "/app/theirs".to_owned()),
        ("DELETE", format!("/app/{theirs}")),
        ("GET", "/app/theirs/endpoint".to_owned()),
        ("GET", format!("/app/theirs/endpoint/{endpoint}")),
        ("GET", format!("/app/{mine}/endpoint/{endpoint}")),
        ("DELETE", format!("/app/{mine}/endpoint/{endpoint}")),
        ("GET", format!("/app/mine/endpoint/{endpoint}/secret")),
        (
            "POST",
            format!("/app/mine/endpoint/{endpoint}/secret/rotate"),
        ),
        ("GET", format!("/app/mine/endpoint/{endpoint}/headers")),
        ("POST", format!("/app/mine/endpoint/{endpoint}/pause")),
        ("GET", "/app/theirs/msg".to_owned()),
        ("GET", format!("/app/mine/msg/{message}")),
        ("GET", format!("/app/mine/msg/{message}/explain")),
        ("GET", format!("/app/mine/msg/{message}/endpoint")),
        ("GET", format!("/app/mine/attempt/msg/{message}")),
        ("GET", format!("/app/mine/attempt/endpoint/{endpoint}")),
        ("GET", format!("/app/mine/endpoint/{endpoint}/msg")),
        (
            "POST",
            format!("/app/mine/msg/{message}/endpoint/{my_endpoint}/resend"),
        ),
        (
            "POST",
            format!("/app/theirs/msg/{message}/endpoint/{endpoint}/resend"),
        ),
        (
            "POST",
            format!("/app/mine/msg/{message}/endpoint/{my_endpoint}/cancel"),
        ),
    ]
}
