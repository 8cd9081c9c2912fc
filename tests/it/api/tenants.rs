//! The tenant routes: envelopes, limits, defaults, statistics.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use posthaste::model::Verdict;
use serde_json::{Value, json};

use super::history::{DEAD, Past, retry};
use super::kit::{Answer, Gateway};

/// A gateway and the key of its one tenant.
async fn tenant() -> (Past, String) {
    let past = Past::start().await;
    let key = past.gateway.make_key(&["app:acme:*"], None).await;
    (past, key)
}

async fn subscribe(gateway: &Gateway, key: &str, url: &str) -> Answer {
    let body = json!({"url": url, "events": ["lead.captured"], "description": "mine"});
    gateway.post("/api/webhooks", &body).key(key).send().await
}

fn refused(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!(
        (answer.status.as_u16(), body["code"].as_str()),
        (status, Some(code)),
        "{body}"
    );
    assert_eq!(body["success"], false);
    assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
}

#[tokio::test]
async fn a_webhook_is_made_with_the_defaults_of_these_routes_and_shown_with_its_secret() {
    let (past, key) = tenant().await;
    let made = subscribe(&past.gateway, &key, "https://a.example/").await;
    assert_eq!(made.status, 201);
    let body = made.json();
    let webhook = &body["webhook"];
    assert_eq!(body["success"], true);
    assert!(webhook["secret"].as_str().unwrap().starts_with("whsec_"));
    for (field, want) in [
        ("url", json!("https://a.example/")),
        ("events", json!(["lead.captured"])),
        ("is_active", json!(true)),
        ("organization_id", json!("acme")),
        ("max_retries", json!(3)),
        ("retry_delay_seconds", json!(60)),
        ("deleted_at", Value::Null),
        ("total_deliveries", json!(0)),
        ("last_delivery_at", Value::Null),
    ] {
        assert_eq!(webhook[field], want, "{field}");
    }
    let id = webhook["id"].as_str().unwrap();
    let shown = past.list(&format!("/endpoint/{id}")).await;
    assert_eq!(shown["signature"]["header"], "X-Webhook-Signature");
    assert_eq!(shown["signature"]["alsoStandard"], true);
    for (field, want) in [
        ("envelope", json!("id-type")),
        ("retrySchedule", json!([60, 180, 540])),
        ("timeoutMs", json!(10_000)),
        (
            "disablePolicy",
            json!({"policy": "consecutive", "failures": 10}),
        ),
    ] {
        assert_eq!(shown[field], want, "{field}");
    }
    let again = subscribe(&past.gateway, &key, "https://a.example/").await;
    assert_eq!(again.status, 200, "the same again is the same webhook");
    assert_eq!(again.json()["webhook"]["secret"], webhook["secret"]);
    let other = past.gateway.make_key(&["app:acme:*"], None).await;
    let other = subscribe(&past.gateway, &other, "https://a.example/").await;
    assert_eq!(other.status, 201, "another key makes its own");
    let list = past
        .gateway
        .get("/api/webhooks")
        .key(&key)
        .expect(200)
        .await
        .json();
    assert_eq!(
        (&list["count"], &list["success"]),
        (&json!(2), &json!(true))
    );
    assert!(
        list["webhooks"][0].get("secret").is_none(),
        "rows have no secret"
    );
}

#[tokio::test]
async fn readers_see_no_secret_and_instance_keys_have_no_tenant() {
    let (past, key) = tenant().await;
    let made = subscribe(&past.gateway, &key, "https://a.example/")
        .await
        .json();
    let path = format!("/api/webhooks/{}", made["webhook"]["id"].as_str().unwrap());
    let reader = past
        .gateway
        .make_key(&["webhooks:read"], Some("acme"))
        .await;
    let seen = past
        .gateway
        .get(&path)
        .key(&reader)
        .expect(200)
        .await
        .json();
    assert_eq!(seen["webhook"]["secret"], Value::Null);
    refused(
        &past.gateway.call("DELETE", &path).key(&reader).send().await,
        403,
        "insufficient access",
    );
    refused(
        &past.gateway.get("/api/webhooks").send().await,
        403,
        "insufficient access",
    );
    refused(
        &past.gateway.get("/api/webhooks").anonymous().send().await,
        401,
        "authentication_failed",
    );
    refused(
        &past
            .gateway
            .get("/api/webhooks/none")
            .key(&key)
            .send()
            .await,
        404,
        "not_found",
    );
    // Endpoints made elsewhere are not webhooks of these routes.
    refused(
        &past.gateway.get("/api/webhooks/one").key(&key).send().await,
        404,
        "not_found",
    );
}

#[tokio::test]
async fn limits_are_told_in_the_form_of_these_routes() {
    let (past, key) = tenant().await;
    let types: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
    for (body, field, kind) in [
        (
            json!({"url": "https://a.example/", "events": types}),
            "body.events",
            "limit",
        ),
        (
            json!({"url": "https://a.example/", "events": []}),
            "body.events",
            "limit",
        ),
        (
            json!({"url": "https://a.example/"}),
            "body.events",
            "missing",
        ),
        (json!({"events": ["a"]}), "body.url", "missing"),
        (
            json!({"url": "ftp://a.example/", "events": ["a"]}),
            "body.url",
            "value_error",
        ),
        (
            json!({"url": "https://a.example/", "events": ["a"], "description": "d".repeat(501)}),
            "body.description",
            "limit",
        ),
    ] {
        let answer = past
            .gateway
            .post("/api/webhooks", &body)
            .key(&key)
            .send()
            .await;
        assert_eq!(answer.mistakes(), [(field.to_owned(), kind.to_owned())]);
        refused(&answer, 422, "validation");
    }
    for n in 0..50 {
        let made = subscribe(&past.gateway, &key, &format!("https://{n}.example/")).await;
        assert_eq!(made.status, 201, "{n}");
    }
    refused(
        &subscribe(&past.gateway, &key, "https://51.example/").await,
        403,
        "quota_exceeded",
    );
    let again = subscribe(&past.gateway, &key, "https://7.example/").await;
    assert_eq!(again.status, 200, "what is there is still answered");
}

#[tokio::test]
async fn a_webhook_is_changed_paused_and_deleted() {
    let (past, key) = tenant().await;
    let made = subscribe(&past.gateway, &key, "https://a.example/")
        .await
        .json();
    let path = format!("/api/webhooks/{}", made["webhook"]["id"].as_str().unwrap());
    let put = async |body: Value| {
        past.gateway
            .call("PUT", &path)
            .json(&body)
            .key(&key)
            .send()
            .await
    };
    for (body, field, want) in [
        (json!({"isActive": false}), "is_active", json!(false)),
        (json!({"is_active": true}), "is_active", json!(true)),
        (json!({"events": ["*"]}), "events", json!(["*"])),
        (
            json!({"url": "https://b.example/"}),
            "url",
            json!("https://b.example/"),
        ),
        (
            json!({"description": "other"}),
            "description",
            json!("other"),
        ),
    ] {
        let changed = put(body).await;
        assert_eq!(
            (changed.status.as_u16(), &changed.json()["webhook"][field]),
            (200, &want)
        );
        assert_eq!(
            changed.json()["webhook"]["secret"],
            made["webhook"]["secret"]
        );
    }
    refused(&put(json!({})).await, 422, "validation");
    let gone = past
        .gateway
        .call("DELETE", &path)
        .key(&key)
        .expect(200)
        .await
        .json();
    assert_eq!(gone["success"], true);
    refused(
        &past.gateway.call("DELETE", &path).key(&key).send().await,
        404,
        "not_found",
    );
}

#[tokio::test]
async fn figures_and_events_say_what_happened() {
    let (past, key) = tenant().await;
    let made = subscribe(&past.gateway, &key, "https://a.example/")
        .await
        .json();
    let id = made["webhook"]["id"].as_str().unwrap().to_owned();
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(past.gateway.message("acme", "lead.captured").await);
    }
    past.attempt(&messages[0], &id, 1, 200, Verdict::Delivered)
        .await;
    past.attempt(&messages[1], &id, 1, 500, DEAD).await;
    past.attempt(&messages[2], &id, 1, 503, retry()).await;
    let path = format!("/api/webhooks/{id}");
    let seen = past.gateway.get(&path).key(&key).expect(200).await.json();
    for (field, want) in [
        ("total_deliveries", json!(2)),
        ("successful_deliveries", json!(1)),
        ("failed_deliveries", json!(1)),
        ("consecutive_failures", json!(2)),
        ("last_success_at", json!("2026-01-05T08:15:31.120Z")),
        ("last_failure_at", json!("2026-01-05T08:15:33.120Z")),
    ] {
        assert_eq!(seen["webhook"][field], want, "{field}");
    }
    let events = past
        .gateway
        .get(&format!("{path}/events"))
        .key(&key)
        .expect(200)
        .await
        .json();
    let statuses: Vec<&Value> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["status"])
        .collect();
    assert_eq!(statuses, ["failed", "failed", "delivered"]);
    assert_eq!(
        events["events"][0]["next_retry_at"],
        "2026-01-05T09:15:30.120Z"
    );
    assert_eq!(events["events"][0]["error_message"], "status_5xx");
    assert_eq!(
        events["events"][2]["delivered_at"],
        "2026-01-05T08:15:31.120Z"
    );
    let mut seen = Vec::new();
    let mut query = String::from("limit=2");
    loop {
        let page = past
            .gateway
            .get(&format!("{path}/events?{query}"))
            .key(&key)
            .expect(200)
            .await
            .json();
        for event in page["events"].as_array().unwrap() {
            seen.push(event["id"].as_str().unwrap().to_owned());
        }
        match page["iterator"].as_str() {
            Some(at) => query = format!("limit=2&iterator={at}"),
            None => break,
        }
    }
    messages.reverse();
    assert_eq!(seen, messages);
}

#[tokio::test(start_paused = true)]
async fn a_test_goes_to_the_one_webhook_and_says_when_it_is_not_over() {
    let (past, key) = tenant().await;
    let made = subscribe(&past.gateway, &key, "https://a.example/")
        .await
        .json();
    let path = format!(
        "/api/webhooks/{}/test",
        made["webhook"]["id"].as_str().unwrap()
    );
    let told = past
        .gateway
        .call("POST", &path)
        .key(&key)
        .expect(200)
        .await
        .json();
    assert_eq!(
        (&told["success"], &told["event"]["status"]),
        (&json!(true), &json!("pending"))
    );
    let handed = past.gateway.handed_on(1).await;
    assert_eq!((handed.len(), handed[0].targets.len()), (1, 1));
    assert_eq!(&*handed[0].event_type, "webhook.test");
}

#[tokio::test]
async fn the_crm_webhook_is_one_and_keeps_its_secret() {
    let (past, key) = tenant().await;
    let path = "/api/crm/webhook";
    let send = async |body: &Value| past.gateway.post(path, body).key(&key).send().await;
    refused(
        &past.gateway.get(path).key(&key).send().await,
        404,
        "not_found",
    );
    let body = json!({"webhookUrl": "https://crm.example/", "events": ["lead.captured"]});
    let made = send(&body).await;
    assert_eq!(made.status, 201);
    let secret = made.json()["webhook"]["secret"].clone();
    let again = send(&body).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["webhook"]["secret"]),
        (200, &secret)
    );
    let own = json!({"webhookUrl": "https://crm.example/", "events": ["*"], "secret": "sixteen-letters!", "enabled": false});
    let own = send(&own).await.json();
    assert_eq!(
        (&own["webhook"]["secret"], &own["webhook"]["status"]),
        (&json!("sixteen-letters!"), &json!("disabled"))
    );
    let seen = past.gateway.get(path).key(&key).expect(200).await.json();
    assert_eq!(seen["webhook"]["secret"], Value::Null);
    let shown = past.list("/endpoint/crm-webhook").await;
    assert_eq!(
        (&shown["signature"]["header"], &shown["envelope"]),
        (&json!("X-HEKAX-Signature"), &json!("event"))
    );
    assert_eq!(shown["retrySchedule"], json!([30, 120, 600, 1800]));
    let list = past
        .gateway
        .get("/api/webhooks")
        .key(&key)
        .expect(200)
        .await
        .json();
    assert_eq!(list["count"], 0, "it is in no list of webhooks");
    for (body, field) in [
        (
            json!({"webhookUrl": "ftp://x/", "events": ["a"]}),
            "body.webhookUrl",
        ),
        (
            json!({"webhookUrl": "https://a.example/", "events": ["a"], "secret": "fifteen-letters"}),
            "body.secret",
        ),
    ] {
        let answer = send(&body).await;
        assert_eq!(answer.mistakes()[0].0, field);
        refused(&answer, 422, "validation");
    }
    past.gateway
        .call("DELETE", path)
        .key(&key)
        .expect(200)
        .await;
    refused(
        &past.gateway.call("DELETE", path).key(&key).send().await,
        404,
        "not_found",
    );
}
