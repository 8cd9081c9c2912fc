//! `Idempotency-Key`: one event, one answer, also at the same time and across restarts (T13).
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use serde_json::{Value, json};

use super::kit::Gateway;
use posthaste::base::task;
use posthaste::store::model::{Crash, Model};

fn body() -> Value {
    json!({"eventType": "a", "payload": {"n": 1}})
}

async fn count(gateway: &Gateway) -> usize {
    let list = gateway
        .get("/app/acme/msg?limit=250")
        .expect(200)
        .await
        .json();
    list["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "all").await;
    let send = |path: &str, key: &str| gateway.post(path, &body()).header("idempotency-key", key);
    let first = send("/app/acme/msg", "k-1").expect(202).await;
    let again = send("/app/acme/msg", "k-1").expect(202).await;
    assert_eq!(first.bytes, again.bytes);
    let alias = send("/api/app/acme/msg/", "k-1").expect(202).await;
    assert_eq!(first.bytes, alias.bytes, "the same path, written otherwise");
    let other = send("/app/acme/msg", "k-2").expect(202).await;
    assert_ne!(first.json()["id"], other.json()["id"]);
    assert_eq!(count(&gateway).await, 2);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let send = |body: Value| {
        gateway
            .post("/app/acme/msg", &body)
            .header("idempotency-key", "k")
    };
    send(body()).expect(202).await;
    let refused = send(json!({"eventType": "b", "payload": {}})).send().await;
    let want = (
        "header.idempotency-key".to_owned(),
        "idempotency_mismatch".to_owned(),
    );
    assert_eq!(refused.mistakes(), [want]);
    assert_eq!(count(&gateway).await, 1);
}

#[tokio::test]
async fn callers_and_applications_do_not_share_keys() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("other").await;
    let caller = gateway.make_key(&["msg:write"], None).await;
    let send = |path: &str| gateway.post(path, &body()).header("idempotency-key", "k");
    let mut ids = vec![
        send("/app/acme/msg").expect(202).await.json()["id"].clone(),
        send("/app/other/msg").expect(202).await.json()["id"].clone(),
        send("/app/acme/msg").key(&caller).expect(202).await.json()["id"].clone(),
    ];
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_equal_requests_at_once_make_one_event() {
    let gateway = std::sync::Arc::new(Gateway::start().await);
    gateway.app("acme").await;
    let (sender, mut answers) = tokio::sync::mpsc::channel(64);
    for n in 0..64 {
        let (gateway, sender) = (std::sync::Arc::clone(&gateway), sender.clone());
        task::detach(async move {
            // Half of them with a key, half of them with an event id.
            let answer = if n % 2 == 0 {
                let call = gateway.post("/app/acme/msg", &body());
                call.header("idempotency-key", "same").expect(202).await
            } else {
                let body = json!({"eventType": "a", "payload": {}, "eventId": "same"});
                let path = "/app/acme/msg?on_duplicate=return";
                gateway.post(path, &body).expect(202).await
            };
            sender
                .send((n % 2, answer.json()["id"].clone()))
                .await
                .unwrap();
        });
    }
    drop(sender);
    let mut ids = [Vec::new(), Vec::new()];
    while let Some((kind, id)) = answers.recv().await {
        ids[kind].push(id);
    }
    for mut ids in ids {
        assert_eq!(ids.len(), 32);
        ids.dedup();
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(count(&gateway).await, 2);
}

#[tokio::test]
async fn answers_hold_across_a_restart_and_for_a_day() {
    let store = Model::new();
    let gateway = Gateway::over(&store, |_| ());
    gateway.app("acme").await;
    let first = gateway
        .post("/app/acme/msg", &body())
        .header("idempotency-key", "k");
    let first = first.expect(202).await;
    drop(gateway);
    store.crash(Crash::Power { keep: 0 });
    let gateway = Gateway::over(&store, |_| ());
    let send = || {
        gateway
            .post("/app/acme/msg", &body())
            .header("idempotency-key", "k")
    };
    assert_eq!(send().expect(202).await.bytes, first.bytes);
    gateway.clock.advance(Duration::from_secs(86_400));
    assert_eq!(send().expect(202).await.json()["id"], first.json()["id"]);
    gateway.clock.advance(Duration::from_millis(1));
    assert_ne!(send().expect(202).await.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn other_posts_remember_their_answer_too() {
    let gateway = Gateway::start().await;
    let send = |body: Value| gateway.post("/app", &body).header("idempotency-key", "k");
    let first = send(json!({"name": "Acme"})).expect(201).await;
    let again = send(json!({"name": "Acme"})).expect(201).await;
    assert_eq!(first.bytes, again.bytes);
    let refused = send(json!({"name": "Other"})).send().await;
    assert_eq!(refused.mistakes()[0].1, "idempotency_mismatch");
    let apps = gateway.get("/app").expect(200).await.json();
    assert_eq!(apps["data"].as_array().unwrap().len(), 1);
    let bad = gateway
        .post("/app", &json!({"name": "x"}))
        .header("idempotency-key", "");
    assert_eq!(bad.send().await.mistakes()[0].0, "header.idempotency-key");
}

#[tokio::test]
async fn a_refused_request_may_be_repeated_under_its_key() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let send = |body: Value| {
        gateway
            .post("/app/acme/msg", &body)
            .header("idempotency-key", "k")
    };
    send(json!({"eventType": "a"})).expect(422).await;
    send(body()).expect(202).await;
}

#[tokio::test]
async fn a_repeated_batch_accepts_nothing_twice() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let send = || {
        let lines = "{\"eventType\":\"a\",\"payload\":{}}\n{\"eventType\":\"b\",\"payload\":{}}\n";
        let call = gateway
            .call("POST", "/app/acme/msg/batch")
            .kind("application/x-ndjson");
        call.header("idempotency-key", "k").body(lines)
    };
    let first = send().expect(202).await;
    let again = send().expect(202).await;
    assert_eq!(first.text(), again.text());
    assert_eq!(count(&gateway).await, 2);
}

/// Found by the state machine of `machine`: the key belonged to the path, not to the application.
#[tokio::test]
async fn a_key_used_for_a_deleted_application_is_new_for_the_one_that_takes_its_uid() {
    let gateway = Gateway::start().await;
    let post = |path: &str, body: &Value| gateway.post(path, body).header("idempotency-key", "k");
    let endpoint = json!({"url": "https://one.example/in", "uid": "one"});
    let mut ids = Vec::new();
    for _ in 0..2 {
        gateway.app("acme").await;
        let made = post("/app/acme/endpoint", &endpoint).expect(201).await;
        let sent = post("/app/acme/msg", &body()).expect(202).await;
        let line = serde_json::to_vec(&body()).unwrap();
        let batch = gateway
            .call("POST", "/app/acme/msg/batch")
            .body(line)
            .kind("application/x-ndjson")
            .header("idempotency-key", "k")
            .expect(202)
            .await;
        assert_eq!(count(&gateway).await, 2, "both are this application's own");
        let lines: Value = serde_json::from_slice(&batch.bytes).unwrap();
        ids.push([
            made.json()["id"].clone(),
            sent.json()["id"].clone(),
            lines["id"].clone(),
        ]);
        gateway.call("DELETE", "/app/acme").expect(204).await;
    }
    let [first, second] = [&ids[0], &ids[1]];
    assert!(first.iter().zip(second).all(|(a, b)| a != b), "{ids:?}");
}
