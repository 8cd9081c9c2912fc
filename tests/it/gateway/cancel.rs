//! Cancelling on the real thing: a whole endpoint, and a delivery whose attempt is under way.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{
    Answer, EndpointRef, Gateway, Receiver, SOON, endpoint, eventually, message, send,
};

/// Cancels what is pending at an endpoint; answers what its task came to.
async fn cancel_pending(gateway: &Gateway, hook: &EndpointRef) -> Value {
    let path = format!("{}/cancel-pending", hook.path());
    let begun = gateway.api().post(&path, &json!({})).await.expect(202);
    let path = format!("/api/v1/background-task/{}", begun["id"].as_str().unwrap());
    eventually("the task ends", SOON, async || {
        let task = gateway.api().get(&path).await.expect(200);
        (task["status"] != "running").then_some(task)
    })
    .await
}

#[tokio::test]
async fn cancel_pending_empties_an_endpoint_for_good() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    endpoint(&gateway, "acme", &receiver, "/other", json!({})).await;
    let off = json!({"disabled": true});
    gateway.api().patch(&hook.path(), &off).await.expect(200);
    let line = message(json!({"n": 1})).to_string();
    let lines = vec![line; 700].join("\n");
    let batch = gateway
        .api()
        .send(
            http::Method::POST,
            "/api/v1/app/acme/msg/batch",
            &[("content-type", "application/x-ndjson")],
            lines.into(),
        )
        .await
        .unwrap();
    assert_eq!(batch.status, 202);
    receiver.delivered("/other", 700, SOON).await;

    let task = cancel_pending(&gateway, &hook).await;
    assert_eq!(task["status"], "finished", "{task}");
    assert_eq!(task["data"], json!({"deliveries": 700, "sending": 0}));
    let states = format!(
        "/api/v1/app/acme/endpoint/{}/msg?expanded_statuses=true",
        hook.id
    );
    let states = gateway.list(&states).await;
    assert_eq!(states.len(), 700);
    assert!(
        states.iter().all(|one| one["status"] == 4),
        "{:?}",
        states[0]
    );

    let gateway = gateway.kill().start().await;
    let on = json!({"disabled": false});
    gateway.api().patch(&hook.path(), &on).await.expect(200);
    let id = send(&gateway, "acme", 2).await;
    let got = receiver.delivered("/hook", 1, SOON).await;
    assert_eq!(got[0].id, id);
    receiver.delivered("/other", 701, SOON).await;
    assert_eq!(receiver.at("/hook").len(), 1, "what was cancelled stays so");
    let again = cancel_pending(&gateway, &hook).await;
    assert_eq!(again["data"]["deliveries"], 0);
}

/// Found while cancelling was extended: the request was passed over while an attempt was under way,
/// and the retries went on.
#[tokio::test]
async fn a_delivery_that_is_cancelled_during_its_attempt_is_not_tried_again() {
    let gateway = Gateway::start(&[]).await;
    let receiver =
        Receiver::scripted(|_| Answer::status(500).after(Duration::from_millis(700))).await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;
    eventually("the attempt is under way", SOON, async || {
        (receiver.count() == 1).then_some(())
    })
    .await;
    let path = format!("/api/v1/app/acme/msg/{id}/endpoint/{}/cancel", hook.id);
    gateway.api().post(&path, &json!({})).await.expect(202);
    let states = format!("/api/v1/app/acme/msg/{id}/endpoint?expanded_statuses=true");
    eventually("the delivery is cancelled", SOON, async || {
        let shown = gateway.api().get(&states).await.expect(200);
        (shown["data"][0]["status"] == 4).then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 1);
}
