//! Tails and pull consumers: messages that are read instead of delivered.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::kit::Gateway;
use crate::kit::SOON;

/// The body of a tail, read frame by frame.
struct Reader(Body);

impl Reader {
    async fn open(gateway: &Gateway, path: &str, last: Option<&str>) -> Self {
        let mut call = gateway.get(path);
        if let Some(last) = last {
            call = call.header("last-event-id", last);
        }
        let response = call.open().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body())
    }

    /// What comes until `wanted` is in it.
    async fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            text.push_str(&self.next().await.expect("the stream goes on"));
        }
        text
    }

    async fn next(&mut self) -> Option<String> {
        let frame = tokio::time::timeout(SOON, self.0.frame()).await.unwrap();
        let bytes: Option<Bytes> = frame.map(|frame| frame.unwrap().into_data().unwrap());
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn rest(&mut self) -> String {
        let mut text = String::new();
        while let Some(more) = self.next().await {
            text.push_str(&more);
        }
        text
    }
}

#[tokio::test]
async fn a_tail_shows_what_is_accepted_from_now_on() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("other").await;
    let before = gateway.message("acme", "a").await;
    let mut tail = Reader::open(&gateway, "/app/acme/tail", None).await;
    assert!(tail.until("retry: 2000\n\n").await.starts_with("retry"));
    gateway.message("other", "a").await;
    let body = "{\"eventType\":\"a\",\"payload\":{\n\"n\" :\r\n1}}";
    let made = gateway
        .call("POST", "/app/acme/msg")
        .body(body)
        .expect(202)
        .await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let text = tail.until("\n\n").await;
    assert!(!text.contains(&before), "{text}");
    assert!(text.starts_with(&format!("id: {id}\ndata: ")), "{text}");
    let data: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .collect();
    assert_eq!(data.len(), 3, "line ends of a payload split the data");
    let message: Value = serde_json::from_str(&data.join("\n")).unwrap();
    assert_eq!(
        (&message["id"], &message["payload"]),
        (&json!(id), &json!({"n": 1}))
    );
}

#[tokio::test]
async fn a_tail_goes_on_behind_the_last_event_and_filters() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut ids = Vec::new();
    for n in 0..250 {
        ids.push(
            gateway
                .message("acme", if n % 2 == 0 { "even" } else { "odd" })
                .await,
        );
    }
    let path = "/app/acme/tail?event_types=even";
    let mut tail = Reader::open(&gateway, path, Some(&ids[9])).await;
    let text = tail.until(&ids[248]).await;
    let seen: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("id: "))
        .collect();
    let want: Vec<&str> = ids[10..].iter().step_by(2).map(String::as_str).collect();
    assert_eq!(seen, want);
    let bad = gateway.get("/app/acme/tail").header("last-event-id", "x");
    assert_eq!(bad.send().await.status, 422);
}

#[tokio::test]
async fn a_quiet_tail_has_a_heartbeat() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut tail = Reader::open(&gateway, "/app/acme/tail", None).await;
    tail.until("retry").await;
    gateway.clock.advance(Duration::from_secs(16));
    gateway.app("other").await;
    gateway.message("other", "a").await; // wakes it
    assert_eq!(tail.next().await.unwrap(), ": still here\n\n");
}

#[tokio::test]
async fn tails_end_with_a_reason() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("other").await;
    let mut deleted = Reader::open(&gateway, "/app/other/tail", None).await;
    deleted.until("retry").await;
    gateway.call("DELETE", "/app/other").expect(204).await;
    gateway.message("acme", "a").await; // wakes it
    assert!(
        deleted
            .rest()
            .await
            .ends_with("event: end\ndata: {\"reason\":\"deleted\"}\n\n")
    );
    let mut stopped = Reader::open(&gateway, "/app/acme/tail", None).await;
    stopped.until("retry").await;
    gateway.state.end_tails();
    assert!(
        stopped
            .rest()
            .await
            .ends_with("event: end\ndata: {\"reason\":\"stopping\"}\n\n")
    );
}

#[tokio::test]
async fn so_many_tails_are_open_and_no_more() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(Reader::open(&gateway, "/app/acme/tail", None).await);
    }
    let refused = gateway.get("/app/acme/tail").send().await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert!(refused.header("retry-after").is_some());
    open.pop();
    gateway.message("acme", "a").await; // wakes it: nobody reads it any more
    crate::kit::eventually("a place is free", SOON, async || {
        let response = gateway.get("/app/acme/tail").open().await;
        (response.status() == 200).then_some(())
    })
    .await;
    gateway.app("other").await;
    let other = gateway.make_key(&["app:other:*"], None).await;
    let hidden = gateway.get("/app/acme/tail").key(&other).send().await;
    assert_eq!(hidden.status, 404);
}

async fn consumer(gateway: &Gateway, body: Value) {
    let put = gateway.call("PUT", "/app/acme/consumer/c").json(&body);
    put.expect(201).await;
}

async fn lease(gateway: &Gateway, query: &str) -> (Vec<String>, Value, bool) {
    let path = format!("/app/acme/consumer/c?{query}");
    let read = gateway.get(&path).expect(200).await.json();
    let ids = read["data"].as_array().unwrap().iter();
    let ids = ids.map(|m| m["id"].as_str().unwrap().to_owned()).collect();
    (ids, read["offset"].clone(), read["done"].as_bool().unwrap())
}

async fn post(gateway: &Gateway, verb: &str, body: Value) {
    let path = format!("/app/acme/consumer/c/{verb}");
    gateway.post(&path, &body).expect(204).await;
}

#[tokio::test]
async fn a_consumer_leases_commits_and_goes_on() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(gateway.message("acme", "a").await);
    }
    consumer(&gateway, json!({"startingPosition": "earliest"})).await;
    let (first, offset, done) = lease(&gateway, "limit=2").await;
    assert_eq!((first.as_slice(), done), (&ids[..2], false));
    assert_eq!(offset, json!(ids[1]));
    let taken = gateway.get("/app/acme/consumer/c").send().await;
    assert_eq!(taken.problem(), (409, "conflict".to_owned()));
    assert!(taken.header("retry-after").is_some());
    post(&gateway, "commit", json!({ "offset": offset })).await;
    let (rest, offset, done) = lease(&gateway, "limit=250").await;
    assert_eq!((rest.as_slice(), done), (&ids[2..], true));
    post(&gateway, "commit", json!({ "offset": offset })).await;
    let (nothing, same, done) = lease(&gateway, "").await;
    assert_eq!((nothing.len(), same, done), (0, offset, true));
    // What lies before changes nothing.
    post(&gateway, "commit", json!({"offset": ids[0]})).await;
    assert!(lease(&gateway, "").await.0.is_empty());
}

#[tokio::test]
async fn a_lost_lease_is_leased_again_and_a_part_may_be_committed() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(gateway.message("acme", "a").await);
    }
    consumer(&gateway, json!({"startingPosition": "earliest"})).await;
    assert_eq!(lease(&gateway, "leaseMs=5000").await.0, ids);
    post(&gateway, "commit", json!({"offset": ids[0]})).await;
    let held = gateway.get("/app/acme/consumer/c").send().await;
    assert_eq!(held.status, 409, "the rest is leased");
    gateway.clock.advance(Duration::from_millis(5001));
    assert_eq!(lease(&gateway, "").await.0, ids[1..]);
}

#[tokio::test]
async fn a_reader_waits_for_what_comes() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.message("acme", "before").await;
    consumer(&gateway, json!({"eventTypes": ["wanted"]})).await;
    let (waiting, sent) = tokio::join!(lease(&gateway, "waitMs=10000"), async {
        gateway.message("acme", "other").await;
        gateway.message("acme", "wanted").await
    });
    assert_eq!(waiting.0, [sent]);
}

#[tokio::test]
async fn seeking_goes_back_and_forward_and_frees_the_lease() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(gateway.message("acme", "a").await);
        gateway.clock.advance(Duration::from_secs(10));
    }
    consumer(&gateway, json!({})).await;
    assert!(lease(&gateway, "").await.0.is_empty(), "from now on");
    post(&gateway, "seek", json!({"offset": ids[0]})).await;
    assert_eq!(lease(&gateway, "").await.0, ids[1..]);
    let read = gateway
        .get(&format!("/app/acme/msg/{}", ids[1]))
        .expect(200)
        .await;
    post(&gateway, "seek", json!({"after": read.json()["timestamp"]})).await;
    assert_eq!(lease(&gateway, "").await.0, ids[2..]);
    for bad in [
        json!({}),
        json!({"offset": "x"}),
        json!({"offset": ids[0], "after": "2026-01-05T00:00:00Z"}),
    ] {
        let refused = gateway.post("/app/acme/consumer/c/seek", &bad).send().await;
        assert_eq!(refused.mistakes().len(), 1, "{bad}");
    }
}

#[tokio::test]
async fn a_consumer_keeps_its_offset_and_its_filters_and_can_be_deleted() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let first = gateway.message("acme", "a").await;
    gateway.message("acme", "b").await;
    consumer(
        &gateway,
        json!({"startingPosition": "earliest", "eventTypes": ["a"]}),
    )
    .await;
    let (ids, offset, _) = lease(&gateway, "").await;
    assert_eq!(ids, [first.as_str()]);
    post(&gateway, "commit", json!({ "offset": offset })).await;
    let put = gateway
        .call("PUT", "/app/acme/consumer/c")
        .json(&json!({"channels": ["eu"]}));
    let changed = put.expect(200).await.json();
    assert_eq!(changed["channels"], json!(["eu"]));
    assert!(changed.get("eventTypes").is_none());
    assert_ne!(changed["offset"], Value::Null, "its place stays");
    gateway
        .call("DELETE", "/app/acme/consumer/c")
        .expect(204)
        .await;
    assert_eq!(gateway.get("/app/acme/consumer/c").send().await.status, 404);
    gateway.app("other").await;
    let foreign = gateway.message("other", "a").await;
    consumer(&gateway, json!({})).await;
    let body = json!({ "offset": foreign });
    let refused = gateway
        .post("/app/acme/consumer/c/commit", &body)
        .send()
        .await;
    let wrong = ("body.offset".to_owned(), "value_error".to_owned());
    assert_eq!(refused.mistakes(), [wrong]);
}
