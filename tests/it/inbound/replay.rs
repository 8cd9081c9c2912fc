//! What comes twice is one message and the same answer; what is refused leaves nothing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::time::Duration;

use posthaste::base::Clock;
use serde_json::json;

use super::kit::{SECRET, Stage, signed_at};

const BODY: &str = r#"{"type":"invoice.paid","data":{"n": 1.0}}"#;

#[tokio::test]
async fn a_replay_inside_the_tolerance_is_answered_200_and_makes_no_second_message() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({})).await;
    let headers = stage.signed(SECRET, "evt_1", BODY);
    for _ in 0..3 {
        let answer = stage
            .raw("POST", &source.path, &headers, BODY.as_bytes())
            .await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    }
    let messages = stage.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["eventId"], "standard_webhooks-evt_1");
    assert_eq!(messages[0]["tags"], json!([source.id]));
    let receipts = stage.receipts(&source).await;
    let verdicts: Vec<_> = receipts.iter().map(|one| one["verdict"].clone()).collect();
    assert_eq!(verdicts, ["duplicate", "duplicate", "accepted"]);
    assert_eq!(receipts[0]["messages"], json!([messages[0]["id"]]));
}

#[tokio::test]
async fn replays_at_the_same_time_are_one_message() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({})).await;
    let headers = stage.signed(SECRET, "evt_1", BODY);
    let sent = (0..8).map(|_| stage.raw("POST", &source.path, &headers, BODY.as_bytes()));
    let mut sent: Vec<_> = sent.map(Box::pin).collect();
    let all = std::future::poll_fn(|cx| {
        use std::future::Future;
        sent.retain_mut(|one| match one.as_mut().poll(cx) {
            std::task::Poll::Ready(answer) => {
                assert_eq!(answer.status, 200);
                false
            }
            std::task::Poll::Pending => true,
        });
        if sent.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    all.await;
    assert_eq!(stage.messages().await.len(), 1);
}

#[tokio::test]
async fn a_replay_with_another_unsigned_event_id_is_found_out_by_what_was_signed() {
    let stage = Stage::open().await;
    let fields = json!({"secrets": {"webhook_secret": "It's a Secret to Everybody"}});
    let source = stage.source("github", fields).await;
    let body = b"Hello, World!";
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    for delivery in ["first", "second"] {
        let headers = [
            ("x-hub-signature-256", signature),
            ("x-github-event", "push"),
            ("x-github-delivery", delivery),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let answer = stage.raw("POST", &source.path, &headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(stage.messages().await.len(), 1);
}

#[tokio::test]
async fn a_stale_replay_is_refused_and_the_tolerance_is_the_sources() {
    let stage = Stage::open().await;
    let narrow = stage.standard(json!({"toleranceSeconds": 30})).await;
    let wide = stage.standard(json!({"toleranceSeconds": 900})).await;
    let now = stage.gateway.clock.now().millis() / 1000;
    let before = stage.counts();
    for off in [-31_i64, 31] {
        let then = now.checked_add_signed(off).unwrap();
        let headers = signed_at(SECRET, "evt_1", then, BODY);
        let answer = stage
            .raw("POST", &narrow.path, &headers, BODY.as_bytes())
            .await;
        assert_eq!(answer.status, 401);
    }
    assert_eq!(stage.counts(), before);
    let reason = stage.receipts(&narrow).await[0]["reason"].clone();
    assert_eq!(reason, "stale_timestamp");
    for (n, off) in [-30_i64, 30].into_iter().enumerate() {
        let then = now.checked_add_signed(off).unwrap();
        let headers = signed_at(SECRET, &format!("evt_n{n}"), then, BODY);
        let answer = stage
            .raw("POST", &narrow.path, &headers, BODY.as_bytes())
            .await;
        assert_eq!(answer.status, 200);
    }
    let headers = signed_at(SECRET, "evt_w", now - 900, BODY);
    let answer = stage
        .raw("POST", &wide.path, &headers, BODY.as_bytes())
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_payload_is_the_very_bytes_and_the_metadata_says_where_it_comes_from() {
    let stage = Stage::open().await;
    let renamed = json!({"eventTypes": {"standard_webhooks.invoice.paid": "billing.paid"}});
    let source = stage.standard(renamed).await;
    let answer = stage.send(&source.path, "evt_1", BODY).await;
    assert_eq!(answer.status, 200);
    let message = stage.stored().remove(0);
    assert_eq!(message.event_type.as_ref(), "billing.paid");
    assert_eq!(message.payload, BODY.as_bytes(), "1.0 stays 1.0");
    let labels = message.labels.as_ref().unwrap();
    assert_eq!(labels.metadata["source"], source.id);
    assert_eq!(labels.metadata["provider"], "standard_webhooks");
    assert_eq!(labels.metadata["integrity"], "body");
    assert_eq!(labels.metadata["header.content-type"], "application/json");
    let shown = stage.messages().await.remove(0);
    assert_eq!(shown["metadata"]["source"], source.id);
    let text = format!("{:?}", labels.metadata);
    assert!(!text.contains("v1,"), "no signature is kept: {text}");
}

#[tokio::test]
async fn the_events_of_a_batch_are_one_commit_and_each_of_them_one_message() {
    let stage = Stage::open().await;
    let source = stage
        .source(
            "sendgrid",
            json!({"secrets": {"public_key": sendgrid_key()}}),
        )
        .await;
    let fixture = sendgrid();
    stage.set_time(fixture["now"].as_u64().unwrap());
    let headers = fixture["headers"].as_object().unwrap();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let body = fixture["body"].as_str().unwrap();
    let events: Vec<serde_json::Value> = serde_json::from_str(body.trim()).unwrap();
    let before = stage.counts();
    for _ in 0..2 {
        let answer = stage
            .raw("POST", &source.path, &headers, body.as_bytes())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(stage.counts().messages() - before.messages(), events.len());
    let times: Vec<_> = stage.stored().iter().map(|one| one.accepted).collect();
    assert!(times.iter().all(|time| *time == times[0]), "one commit");
}

/// The first good vector of SendGrid whose body is a list.
fn sendgrid() -> serde_json::Value {
    let path = crate::kit::repository("tests/fixtures/providers/vectors.json");
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut good = all.into_iter().filter(|one| {
        one["provider"] == "sendgrid"
            && one["valid"] == true
            && one["body"].as_str().unwrap().starts_with('[')
    });
    good.next().expect("there is one")
}

fn sendgrid_key() -> String {
    sendgrid()["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_unknown_key_of_a_token_asks_for_the_key_set_once_a_minute() {
    let stage = Stage::open().await;
    let path = crate::kit::repository("tests/fixtures/providers/vectors.json");
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let good = all
        .iter()
        .find(|one| one["provider"] == "gmail" && one["valid"] == true);
    let good = good.expect("there is one");
    let url = good["url"].as_str().unwrap();
    let mut body = json!({"config": good.get("config").cloned().unwrap_or_else(|| json!({}))});
    body["publicUrl"] = json!(url.split('?').next().unwrap());
    let source = stage.source("gmail", body).await;
    stage.set_time(good["now"].as_u64().unwrap());
    let headers = good["headers"].as_object().unwrap().iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let bytes = good["body"].as_str().unwrap().as_bytes();
    let asked = || {
        stage
            .gateway
            .key_set
            .asked
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    // The set cannot be had: refused, and asked once for many requests.
    for _ in 0..5 {
        assert_eq!(
            stage
                .raw("POST", &source.path, &headers, bytes)
                .await
                .status,
            401
        );
    }
    assert_eq!(asked(), 1);
    good["secret"]
        .as_str()
        .unwrap()
        .clone_into(&mut stage.gateway.key_set.document.lock());
    assert_eq!(
        stage
            .raw("POST", &source.path, &headers, bytes)
            .await
            .status,
        401
    );
    stage.gateway.clock.advance(Duration::from_secs(61));
    stage.set_time(good["now"].as_u64().unwrap());
    for _ in 0..3 {
        let answer = stage.raw("POST", &source.path, &headers, bytes).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(asked(), 2);
}
