//! The audit log: every call that changes something has its entry, and no secret is in it.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use posthaste::api::openapi;
use posthaste::store::model::Model;
use serde_json::{Value, json};

use super::kit::{Call, Gateway};

async fn entries(gateway: &Gateway, query: &str) -> Vec<Value> {
    let page = gateway
        .get(&format!("/audit?limit=250&{query}"))
        .expect(200)
        .await;
    page.json()["data"].as_array().unwrap().clone()
}

async fn newest(gateway: &Gateway) -> Value {
    entries(gateway, "").await.remove(0)
}

#[tokio::test]
async fn a_change_is_entered_with_who_what_where_and_what_differs() {
    let gateway = Gateway::with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let app = gateway.app("acme").await;
    let made = newest(&gateway).await;
    assert_eq!(made["action"], "application.create");
    assert_eq!(
        (&made["actor"], &made["object"]),
        (&json!("operator"), &json!(app))
    );
    assert_eq!(made["after"]["uid"], "acme");
    assert!(made.get("before").is_none() && made["ip"] == "127.0.0.1");

    let key = gateway.make_key(&["app:acme:*"], None).await;
    let listed = gateway.get("/api-keys").expect(200).await.json();
    let id = gateway.endpoint("acme", "one").await;
    gateway.clock.advance(Duration::from_millis(5));
    let change = gateway.call("PATCH", "/app/acme/endpoint/one");
    let change = change.json(&json!({"description": "new", "throttleRate": 9}));
    let change = change.key(&key).header("x-forwarded-for", "203.0.113.9");
    change.expect(200).await;
    let entry = newest(&gateway).await;
    assert_eq!(entry["action"], "endpoint.patch");
    assert_eq!(entry["actor"], listed["apiKeys"][0]["id"]);
    assert_eq!(
        (&entry["object"], &entry["appId"]),
        (&json!(id), &json!(app))
    );
    assert_eq!(entry["ip"], "203.0.113.9");
    assert_eq!(entry["before"], json!({"description": ""}));
    assert_eq!(
        entry["after"],
        json!({"description": "new", "throttle_rate": 9})
    );
    assert_eq!(entry["at"], "2026-01-05T08:15:30.125Z");
}

#[tokio::test]
async fn no_secret_and_no_key_gets_into_the_log() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    let key = gateway.make_key(&["read"], None).await;
    let headers = json!({"headers": {"authorization": "a-secret-value"}});
    let path = "/app/acme/endpoint/one";
    gateway
        .call("PUT", &format!("{path}/headers"))
        .json(&headers)
        .expect(204)
        .await;
    gateway
        .post(&format!("{path}/secret/rotate"), &json!({}))
        .expect(200)
        .await;
    let secret = gateway
        .get(&format!("{path}/secret"))
        .expect(200)
        .await
        .json();
    let all = entries(&gateway, "").await;
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(
        all[0]["after"]["secret"], "[withheld]",
        "that it changed is shown"
    );
    for secret in [secret["key"].as_str().unwrap(), "a-secret-value", &key] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!text.contains("hash\":["), "{text}");
}

/// Calls that answer 2xx for an application `acme` with an endpoint `one` and a message `event`.
fn good(id: &str) -> Option<(&'static str, Value)> {
    let since = json!({"since": "2026-01-05T00:00:00Z"});
    let endpoint = "/app/acme/endpoint/one";
    let of = |path: &'static str, body: Value| Some((path, body));
    match id {
        "endpoint.pause" => of("/app/acme/endpoint/one/pause", json!({})),
        "endpoint.recover" => of("/app/acme/endpoint/one/recover", since),
        "endpoint.cancel_pending" => of("/app/acme/endpoint/one/cancel-pending", json!({})),
        "endpoint.update_headers" => of("/app/acme/endpoint/one/headers", json!({"headers": {}})),
        "endpoint.update" => of(endpoint, json!({"url": "https://b.example/"})),
        "message.expunge_content" => of("/app/acme/msg/event/content", json!({})),
        "message.bulk_expunge_content" => {
            of("/app/acme/msg/bulk-expunge", json!({"ids": ["event"]}))
        }
        "message_attempt.cancel" => of("/app/acme/msg/event/endpoint/one/cancel", json!({})),
        "event_type.create" => of("/event-type", json!({"name": "a", "description": ""})),
        "event_type.import_catalogue" => {
            of("/event-type/import/catalogue", json!({"name": "phone"}))
        }
        "authentication.app_portal_access" => of("/auth/app-portal-access/acme", json!({})),
        "api_key.create" => of("/api-keys", json!({"name": "k", "scopes": ["read"]})),
        "vault.rotate" => of("/admin/vault/rotate", json!({})),
        _ => None,
    }
}

#[tokio::test]
async fn acts_that_change_no_configuration_are_entered_too() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    let message = json!({"eventType": "a", "payload": {}, "eventId": "event"});
    gateway.post("/app/acme/msg", &message).expect(202).await;
    let before = entries(&gateway, "").await.len();
    assert_eq!(before, 2, "messages are not entered");
    let mut wanted = BTreeSet::new();
    for operation in openapi::operations() {
        if let Some((path, body)) = good(operation.id) {
            let answer = gateway
                .call(operation.method, path)
                .json(&body)
                .send()
                .await;
            assert!(answer.status.is_success(), "{path}: {}", answer.text());
            wanted.insert(operation.id.to_owned());
        }
    }
    assert!(wanted.len() >= 12, "{wanted:?}");
    let after = entries(&gateway, "").await;
    let known = &after[..after.len() - before];
    let found: Vec<String> = known
        .iter()
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found.len(), wanted.len(), "one entry each: {found:?}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    let cancel = entries(&gateway, "action=message_attempt.cancel").await;
    assert_eq!(cancel[0]["object"], "event/one");
    assert_eq!(entries(&gateway, "object=one").await.len(), 3);
}

#[tokio::test]
async fn what_is_refused_or_repeated_leaves_no_further_entry() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway
        .post("/app", &json!({"name": "x", "uid": "acme"}))
        .expect(409)
        .await;
    gateway.post("/app", &json!({})).expect(422).await;
    gateway.call("DELETE", "/app/none").expect(404).await;
    assert_eq!(entries(&gateway, "").await.len(), 1);
    for _ in 0..3 {
        let again = gateway.post("/app", &json!({"name": "once"}));
        again.header("idempotency-key", "k").expect(201).await;
    }
    assert_eq!(entries(&gateway, "").await.len(), 2);
}

#[tokio::test]
async fn the_log_is_paged_filtered_and_survives_a_restart() {
    let store = Model::new();
    let gateway = Gateway::over(&store, |_| ());
    for n in 0..7 {
        gateway.app(&format!("app-{n}")).await;
        gateway.clock.advance(Duration::from_secs(1));
    }
    drop(gateway);
    let gateway = Gateway::over(&store, |_| ());
    gateway.clock.advance(Duration::from_secs(60));
    let mut names = Vec::new();
    let mut iterator = String::new();
    loop {
        let path = format!("/audit?limit=3&iterator={iterator}");
        let page = gateway.get(&path).expect(200).await.json();
        let data = page["data"].as_array().unwrap();
        names.extend(
            data.iter()
                .map(|one| one["after"]["uid"].as_str().unwrap().to_owned()),
        );
        if page["done"] == true {
            break;
        }
        page["iterator"].as_str().unwrap().clone_into(&mut iterator);
    }
    let want: Vec<String> = (0..7).rev().map(|n| format!("app-{n}")).collect();
    assert_eq!(names, want);
    let within = "after=2026-01-05T08:15:31.120Z&before=2026-01-05T08:15:34.120Z";
    assert_eq!(entries(&gateway, within).await.len(), 2);
    assert_eq!(
        entries(&gateway, "order=ascending").await[0]["after"]["uid"],
        "app-0"
    );
    let page = gateway.get("/audit?limit=2").expect(200).await.json();
    let back = page["iterator"].as_str().unwrap().to_owned();
    let back = gateway.get(&format!("/audit?limit=2&iterator=-{back}"));
    let back = back.expect(200).await.json();
    assert_eq!(back["data"][0]["after"]["uid"], "app-6", "the page before");
    for bad in ["iterator=x", "after=x", "limit=0"] {
        gateway.get(&format!("/audit?{bad}")).expect(422).await;
    }
}

#[tokio::test]
async fn a_key_of_one_application_sees_its_own_and_wants_the_scope() {
    let gateway = Gateway::start().await;
    let acme = gateway.app("acme").await;
    gateway.app("other").await;
    gateway.endpoint("other", "one").await;
    let whole = gateway.make_key(&["app:acme:*"], None).await;
    let seen = gateway.get("/audit").key(&whole).expect(200).await.json();
    let seen = seen["data"].as_array().unwrap();
    assert!(
        !seen.is_empty() && seen.iter().all(|one| one["appId"] == *acme),
        "{seen:?}"
    );
    let foreign = gateway.get("/audit?app_id=other").key(&whole);
    foreign.expect(404).await;
    for (scopes, status) in [(&["audit:read"], 200), (&["read"], 403)] {
        let key = gateway.make_key(scopes, None).await;
        gateway.get("/audit").key(&key).expect(status).await;
    }
}

#[tokio::test]
async fn entries_out_of_retention_are_not_shown() {
    let gateway = Gateway::with(|config| {
        config.retention.messages = Duration::from_secs(3600);
    })
    .await;
    gateway.app("acme").await;
    gateway.clock.advance(Duration::from_secs(3601));
    assert!(entries(&gateway, "").await.is_empty());
    gateway.app("other").await;
    assert_eq!(entries(&gateway, "").await.len(), 1);
}

#[tokio::test]
async fn a_key_is_good_from_its_addresses_only() {
    let gateway = Gateway::with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let body = json!({
        "name": "k", "scopes": ["read", "keys:write"], "allowedIps": ["203.0.113.0/24", "2001:db8::1"],
    });
    let made = gateway.post("/api-keys", &body).expect(201).await.json();
    let key = made["apiKey"]["key"].as_str().unwrap();
    assert_eq!(
        made["apiKey"]["allowedIps"],
        json!(["203.0.113.0/24", "2001:db8::1/128"])
    );
    for (from, status) in [
        ("203.0.113.9", 200),
        ("2001:db8::1", 200),
        ("198.51.100.1, 203.0.113.9", 200),
        ("203.0.113.9, 198.51.100.1", 403),
        ("", 403),
    ] {
        for path in ["/app", "//metrics"] {
            let call = gateway.get(path).key(key).header("x-forwarded-for", from);
            let answer = call.send().await;
            assert_eq!(answer.status, status, "{path} from {from}");
            if status == 403 {
                assert_eq!(answer.problem().1, "ip_not_allowed");
            }
        }
    }
    // What it gives away is bound as well, and so is what it is rotated to.
    fn from<'a>(call: Call<'a>, key: &str) -> Call<'a> {
        call.key(key).header("x-forwarded-for", "203.0.113.9")
    }
    let wanted = |ips: Value| json!({"name": "b", "scopes": ["read"], "allowedIps": ips});
    let inherited = from(gateway.post("/api-keys", &wanted(json!(null))), key)
        .send()
        .await;
    assert_eq!(
        inherited.json()["apiKey"]["allowedIps"],
        made["apiKey"]["allowedIps"]
    );
    from(
        gateway.post("/api-keys", &wanted(json!(["203.0.113.7"]))),
        key,
    )
    .expect(201)
    .await;
    let wider = from(
        gateway.post("/api-keys", &wanted(json!(["0.0.0.0/0"]))),
        key,
    )
    .send()
    .await;
    assert_eq!(
        wider.mistakes(),
        [("body.allowedIps".into(), "value_error".into())]
    );
    let id = made["apiKey"]["id"].as_str().unwrap();
    let rotated = gateway.post(&format!("/api-keys/{id}/rotate"), &json!({}));
    let rotated = rotated.expect(201).await.json();
    assert_eq!(
        rotated["apiKey"]["allowedIps"],
        made["apiKey"]["allowedIps"]
    );
    for (bad, kind) in [
        (json!(["nonsense"]), "value_error"),
        (json!("x"), "type_error"),
    ] {
        let refused = gateway.post("/api-keys", &wanted(bad)).send().await;
        assert_eq!(refused.mistakes()[0].1, kind);
    }
}
