//! Statistics, feeds, examples, transformations, imports.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use posthaste::model::{Delivery, Verdict};
use posthaste::store::Settlement;
use serde_json::json;

use super::history::{DEAD, Past, finished, position, retry, settle};

#[tokio::test]
async fn stats_count_each_delivery_once() {
    let past = Past::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(past.gateway.message("acme", "a").await);
    }
    past.attempt(&ids[0], "one", 1, 200, Verdict::Delivered)
        .await;
    past.attempt(&ids[0], "one", 2, 200, Verdict::Delivered)
        .await; // a resend
    past.attempt(&ids[1], "one", 1, 500, retry()).await;
    past.attempt(&ids[1], "one", 2, 200, Verdict::Delivered)
        .await;
    past.attempt(&ids[2], "one", 1, 500, DEAD).await;
    past.attempt(&ids[2], "one", 2, 200, Verdict::Delivered)
        .await; // recovered
    past.attempt(&ids[3], "one", 1, 500, DEAD).await;
    let cancelled = Settlement {
        cancelled: vec![Delivery {
            at: position(&ids[4]),
            endpoint: past.endpoint("one"),
        }],
        ..Settlement::default()
    };
    settle(&past.gateway, cancelled).await;
    let stats = past.list("/endpoint/one/stats").await;
    let want = json!({"success": 3, "pending": 3, "sending": 1, "fail": 1, "canceled": 1});
    assert_eq!(stats, want);
    past.gateway.endpoint("acme", "two").await;
    assert_eq!(past.list("/endpoint/two/stats").await["success"], 0);
    past.gateway.clock.advance(Duration::from_secs(86_400));
    let later = past
        .list("/endpoint/one/stats?since=2026-01-06T00:00:00Z")
        .await;
    assert_eq!(
        (&later["success"], &later["canceled"]),
        (&json!(0), &json!(0))
    );
    for query in [
        "until=2027-01-01T00:00:00Z",
        "since=2025-12-01T00:00:00Z",
        "since=2026-01-05T10:00:00Z&until=2026-01-05T09:00:00Z",
    ] {
        let path = format!("/app/acme/endpoint/one/stats?{query}");
        let refused = past.gateway.get(&path).send().await;
        assert_eq!(
            refused.problem(),
            (400, "invalid_range".to_owned()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn usage_is_counted_in_the_background() {
    let past = Past::start().await;
    past.gateway.app("beta").await;
    for app in ["acme", "acme", "beta"] {
        past.gateway.message(app, "a").await;
    }
    past.gateway.message("beta", "b").await;
    let body = json!({
        "since": "2026-01-05T00:00:00Z", "until": "2026-01-06T00:00:00Z",
        "appIds": ["acme", "none"],
    });
    let begun = past
        .gateway
        .post("/stats/usage/app", &body)
        .expect(202)
        .await
        .json();
    assert_eq!(
        (&begun["task"], &begun["unresolvedAppIds"]),
        (&json!("application.stats"), &json!(["none"]))
    );
    let task = finished(&past.gateway, &begun).await;
    let stats = &task["data"]["appStats"];
    assert_eq!(stats.as_array().unwrap().len(), 1);
    assert_eq!(
        (&stats[0]["appUid"], &stats[0]["messageDestinations"]),
        (&json!("acme"), &json!(2))
    );
    let begun = past
        .gateway
        .call("PUT", "/stats/usage/event-types")
        .expect(202)
        .await
        .json();
    assert_eq!(begun["task"], "event-type.aggregate");
    let task = finished(&past.gateway, &begun).await;
    assert_eq!(
        task["data"]["eventTypes"],
        json!([{"name": "a", "messages": 3}, {"name": "b", "messages": 1}])
    );
    let bound = past.gateway.make_key(&["app:acme:*"], None).await;
    past.gateway
        .post("/stats/usage/app", &body)
        .key(&bound)
        .expect(403)
        .await;
}

async fn poll(past: &Past, path: &str, seen: &mut Vec<String>) -> String {
    let page = past.list(path).await;
    for one in page["data"].as_array().unwrap() {
        seen.push(one["id"].as_str().unwrap().to_owned());
    }
    page["iterator"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_feed_is_polled_without_loss_and_without_repeats() {
    let past = Past::start().await;
    let mut seen = Vec::new();
    let mut at = poll(&past, "/events?limit=2", &mut seen).await;
    let mut sent = Vec::new();
    for round in 0..4 {
        for _ in 0..round {
            past.gateway.clock.advance(Duration::from_millis(1));
            sent.push(past.gateway.message("acme", "a").await);
        }
        at = poll(&past, &format!("/events?limit=2&iterator={at}"), &mut seen).await;
    }
    at = poll(&past, &format!("/events?limit=50&iterator={at}"), &mut seen).await;
    poll(&past, &format!("/events?iterator={at}"), &mut seen).await;
    assert_eq!(seen, sent, "oldest first");
    let body = json!({"url": "https://b.example/", "uid": "only-b", "eventTypes": ["b"]});
    past.gateway
        .post("/app/acme/endpoint", &body)
        .expect(201)
        .await;
    let b = past.gateway.message("acme", "b").await;
    for path in ["/events/subscription/only-b?", "/events?event_types=b"] {
        let mut seen = Vec::new();
        poll(&past, path, &mut seen).await;
        assert_eq!(seen, std::slice::from_ref(&b), "{path}");
    }
    past.gateway
        .get("/app/acme/events/subscription/none")
        .expect(404)
        .await;
}

#[tokio::test]
async fn an_example_goes_to_the_one_endpoint_and_nowhere_else() {
    let past = Past::start().await;
    past.gateway.endpoint("acme", "two").await;
    let schema = json!({"type": "object", "properties": {"email": {"type": "string", "format": "email"}},
                        "examples": [{"email": "first@example.com"}]});
    let body = json!({"name": "user.new", "description": "", "schemas": {"1": schema}});
    past.gateway.post("/event-type", &body).expect(201).await;
    let path = "/app/acme/endpoint/one/send-example";
    let sent = past
        .gateway
        .post(path, &json!({"eventType": "user.new"}))
        .expect(202)
        .await
        .json();
    assert_eq!(sent["payload"], json!({"email": "first@example.com"}));
    let handed = past.gateway.handed_on(1).await;
    let targets: Vec<_> = handed.iter().flat_map(|m| m.targets.clone()).collect();
    assert_eq!(targets, [past.endpoint("one")]);
    let second = json!({"eventType": "user.new", "exampleIndex": 1});
    let sent = past.gateway.post(path, &second).expect(202).await.json();
    assert_eq!(sent["payload"], json!({"email": "first@example.com"}));
    let body = json!({"name": "bare", "description": ""});
    past.gateway.post("/event-type", &body).expect(201).await;
    let refused = past
        .gateway
        .post(path, &json!({"eventType": "bare"}))
        .send()
        .await;
    assert_eq!(refused.problem(), (400, "invalid_scheme".to_owned()));
    past.gateway
        .post(path, &json!({"eventType": "none"}))
        .expect(404)
        .await;
}

#[tokio::test]
async fn there_are_no_transformations_and_none_can_be_set() {
    let past = Past::start().await;
    let path = "/app/acme/endpoint/one/transformation";
    assert_eq!(
        past.list("/endpoint/one/transformation").await,
        json!({"enabled": false})
    );
    past.gateway
        .call("PATCH", path)
        .json(&json!({"enabled": false, "code": null}))
        .expect(204)
        .await;
    for (body, field) in [
        (json!({"code": "function handler() {}"}), "body.code"),
        (json!({"enabled": true}), "body.enabled"),
        (json!({"variables": {"a": "b"}}), "body.variables"),
    ] {
        let refused = past.gateway.call("PATCH", path).json(&body).send().await;
        assert_eq!(
            refused.mistakes(),
            [(field.to_owned(), "unsupported_field".to_owned())]
        );
    }
}
