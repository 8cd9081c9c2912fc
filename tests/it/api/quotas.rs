//! Plans and quotas: counted, refused, shown, kept across restarts.

use std::time::Duration;

use posthaste::base::Timestamp;
use posthaste::store::model::Model;
use serde_json::{Value, json};

use super::kit::Gateway;

/// An application with two endpoints for everything and this quota.
async fn limited(gateway: &Gateway, deliveries: u64) {
    let wanted = json!({"name": "a", "uid": "acme", "quotas": {"deliveriesPerMonth": deliveries}});
    gateway.post("/app", &wanted).expect(201).await;
    gateway.endpoint("acme", "one").await;
    gateway.endpoint("acme", "two").await;
}

async fn used(gateway: &Gateway) -> (Value, Value) {
    let usage = gateway.get("/app/acme/usage").expect(200).await.json();
    (
        usage["deliveries"].clone(),
        usage["deliveriesPerMonth"].clone(),
    )
}

async fn send(gateway: &Gateway, status: u16) {
    let body = json!({"eventType": "a", "payload": {}});
    let answer = gateway.post("/app/acme/msg", &body).expect(status).await;
    if status == 403 {
        assert_eq!(answer.problem().1, "quota_exceeded");
    }
}

#[tokio::test]
async fn exactly_the_quota_is_delivered_and_the_next_month_begins_anew() {
    let gateway = Gateway::start().await;
    limited(&gateway, 5).await;
    send(&gateway, 202).await;
    send(&gateway, 202).await;
    assert_eq!(used(&gateway).await, (json!(4), json!(5)));
    // Two deliveries do not fit into the one that is left.
    send(&gateway, 403).await;
    assert_eq!(
        used(&gateway).await,
        (json!(4), json!(5)),
        "nothing was counted"
    );
    gateway
        .call("DELETE", "/app/acme/endpoint/two")
        .expect(204)
        .await;
    send(&gateway, 202).await;
    send(&gateway, 403).await;
    let lines = "{\"eventType\":\"a\",\"payload\":{}}\n{\"eventType\":\"a\",\"payload\":{}}\n";
    let batch = gateway
        .call("POST", "/app/acme/msg/batch")
        .kind("application/x-ndjson");
    let refused = batch.body(lines).send().await;
    assert_eq!(refused.problem(), (403, "quota_exceeded".to_owned()));
    let usage = gateway.get("/app/acme/usage").expect(200).await.json();
    assert_eq!(usage["month"], "2026-01");
    assert_eq!(usage["resetsAt"], "2026-02-01T00:00:00.000Z");
    gateway
        .clock
        .set(Timestamp::parse_rfc3339("2026-02-01T00:00:00Z").unwrap());
    send(&gateway, 202).await;
    assert_eq!(used(&gateway).await, (json!(1), json!(5)));
}

#[tokio::test]
async fn a_batch_is_taken_line_by_line_until_the_quota_is_used_up() {
    let gateway = Gateway::start().await;
    limited(&gateway, 4).await;
    let line = "{\"eventType\":\"a\",\"payload\":{}}\n";
    let batch = gateway
        .call("POST", "/app/acme/msg/batch")
        .kind("application/x-ndjson");
    let answer = batch.body(line.repeat(3)).expect(202).await;
    let statuses: Vec<u64> = answer
        .text()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["status"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(statuses, [202, 202, 403]);
    assert_eq!(used(&gateway).await.0, 4);
}

#[tokio::test]
async fn plans_have_the_deliveries_of_the_origin_and_quotas_win_over_them() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    assert_eq!(
        used(&gateway).await,
        (Value::Null, Value::Null),
        "without a plan"
    );
    for (change, limit) in [
        (json!({"plan": "free"}), json!(100)),
        (json!({"plan": "professional"}), json!(10_000)),
        (json!({"quotas": {"deliveriesPerMonth": 7}}), json!(7)),
        (json!({"quotas": null}), json!(10_000)),
        (json!({"plan": "enterprise"}), Value::Null),
    ] {
        let patch = gateway.call("PATCH", "/app/acme").json(&change);
        let shown = patch.expect(200).await.json();
        assert_eq!(used(&gateway).await.1, limit, "{change}");
        assert_eq!(shown.get("quotas").is_some(), change["quotas"].is_object());
    }
    for (wrong, field, kind) in [
        (json!({"plan": "gold"}), "body.plan", "value_error"),
        (
            json!({"quotas": {"concurrency": 0}}),
            "body.quotas",
            "value_error",
        ),
        (
            json!({"quotas": {"concurrency": 65_536}}),
            "body.quotas",
            "value_error",
        ),
        (json!({"quotas": {"none": 5}}), "body.quotas", "value_error"),
        (
            json!({"quotas": {"endpoints": -1}}),
            "body.quotas",
            "value_error",
        ),
    ] {
        let refused = gateway.call("PATCH", "/app/acme").json(&wrong).send().await;
        assert_eq!(refused.mistakes(), [(field.into(), kind.into())], "{wrong}");
    }
}

#[tokio::test]
async fn a_tenant_cannot_raise_its_own_quota_and_loses_none_by_a_put() {
    let gateway = Gateway::start().await;
    limited(&gateway, 5).await;
    let key = gateway.make_key(&["app:acme:*"], None).await;
    for change in [
        json!({"plan": "enterprise"}),
        json!({"quotas": {"deliveriesPerMonth": 1000}}),
    ] {
        let patch = gateway.call("PATCH", "/app/acme").json(&change).key(&key);
        patch.expect(403).await;
    }
    let put = gateway.call("PUT", "/app/acme").json(&json!({"name": "b"}));
    put.key(&key).expect(200).await;
    assert_eq!(used(&gateway).await.1, 5);
}

#[tokio::test]
async fn endpoints_and_their_event_types_are_limited_by_the_quota() {
    let gateway = Gateway::start().await;
    let quotas = json!({"endpoints": 2, "eventTypesPerEndpoint": 2});
    let wanted = json!({"name": "a", "uid": "acme", "quotas": quotas});
    gateway.post("/app", &wanted).expect(201).await;
    gateway.endpoint("acme", "one").await;
    gateway.endpoint("acme", "two").await;
    let third = json!({"url": "https://c.example/"});
    let refused = gateway.post("/app/acme/endpoint", &third).send().await;
    assert_eq!(refused.problem(), (403, "quota_exceeded".to_owned()));
    let path = "/app/acme/endpoint/one";
    let types = |types: &[&str]| json!({"eventTypes": types});
    let fits = gateway.call("PATCH", path).json(&types(&["a", "b"]));
    fits.expect(200).await;
    let beyond = gateway
        .call("PATCH", path)
        .json(&types(&["a", "b", "c"]))
        .send()
        .await;
    assert_eq!(
        beyond.mistakes(),
        [("body.eventTypes".into(), "limit".into())]
    );
}

#[tokio::test]
async fn the_counter_is_whole_after_a_crash_and_after_an_orderly_stop() {
    let store = Model::new();
    let gateway = Gateway::over(&store, |_| ());
    limited(&gateway, 100).await;
    gateway.clock.advance(Duration::from_secs(1));
    send(&gateway, 202).await;
    gateway.clock.advance(Duration::from_secs(1));
    gateway.state.store_last_use().await;
    gateway.clock.advance(Duration::from_secs(1));
    send(&gateway, 202).await;
    // Nothing was stored since: what was accepted says it.
    let now = gateway.clock.as_ref();
    let now = posthaste::base::Clock::now(now);
    drop(gateway);
    let gateway = Gateway::over(&store, |_| ());
    gateway.clock.set(now);
    assert_eq!(used(&gateway).await.0, 4);
    gateway.clock.advance(Duration::from_secs(1));
    gateway.state.store_last_use().await;
    drop(gateway);
    let gateway = Gateway::over(&store, |_| ());
    gateway.clock.set(now);
    assert_eq!(used(&gateway).await.0, 4, "and nothing twice");
}

#[tokio::test]
async fn capacity_is_for_instance_keys_and_says_what_is_known() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.clock.advance(Duration::from_secs(100));
    let shown = gateway.get("/capacity").expect(200).await.json();
    assert_eq!(shown["windowSeconds"], 100.0);
    assert_eq!(
        shown["disk"]["daysLeft"],
        Value::Null,
        "nothing to compare with"
    );
    gateway.state.sample_capacity().await;
    gateway.clock.advance(Duration::from_secs(60));
    let shown = gateway.get("/capacity").expect(200).await.json();
    assert_eq!(shown["windowSeconds"], 60.0);
    assert!(shown["disk"]["growthBytesPerDay"].is_number(), "{shown}");
    let key = gateway.make_key(&["app:acme:*"], None).await;
    gateway.get("/capacity").key(&key).expect(403).await;
}
