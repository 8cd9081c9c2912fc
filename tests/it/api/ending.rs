//! Payloads that end at a time their sender named: hidden by the clock, taken away by housekeeping.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use posthaste::base::task::Stopper;
use posthaste::base::{Clock, Timestamp};
use posthaste::model::{Delivery, Verdict};
use posthaste::store::Settlement;
use posthaste::store::model::Model;
use serde_json::{Value, json};

use super::history::{DEAD, Past, finished, position, retry, settle};
use super::kit::{Asked, Gateway, START};
use super::metrics::page;

const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);
const SINCE: &str = "2026-01-05T00:00:00Z";

/// A message whose payload is kept for so many hours; answers its id.
async fn kept(gateway: &Gateway, hours: u64, more: Value) -> String {
    let mut body = json!({"eventType": "a", "payload": {"n": 7}, "payloadRetentionHours": hours});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let sent = gateway.post("/app/acme/msg", &body).expect(202).await;
    let sent = sent.json();
    assert_eq!(sent["payload"], json!({"n": 7}));
    sent["id"].as_str().unwrap().to_owned()
}

/// Lets time pass until it is `at` after the start.
fn until(gateway: &Gateway, at: Duration) {
    let at = Timestamp::from_millis(START).plus(at);
    gateway.clock.advance(at.since(gateway.clock.now()));
}

/// What housekeeping does now and then.
async fn housekeeping(gateway: &Gateway) {
    let (_stopper, stop) = Stopper::new();
    gateway.state.end_payloads(&stop).await;
}

/// The bytes that the store has of the payload.
fn stored(gateway: &Gateway, message: &str) -> bytes::Bytes {
    let found = gateway.reader.message(position(message)).unwrap();
    found.unwrap().payload
}

/// How many ends of payloads are still to be dealt with.
fn ends(gateway: &Gateway) -> usize {
    let all = gateway.reader.payload_ends(None, Timestamp::MAX, 99);
    all.unwrap().len()
}

#[tokio::test]
async fn a_payload_retention_lies_within_its_limits_in_messages_and_batches() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let (days, hours) = ("payloadRetentionPeriod", "payloadRetentionHours");
    let both = json!({(days): 1, (hours): 24});
    for (fields, wrong) in [
        (json!({(days): 0}), Some((days, "value_error"))),
        (json!({(days): 1}), None),
        (json!({(days): 90}), None),
        (json!({(days): 91}), Some((days, "value_error"))),
        (json!({(hours): 0}), Some((hours, "value_error"))),
        (json!({(hours): 1}), None),
        (json!({(hours): 2160}), None),
        (json!({(hours): 2161}), Some((hours, "value_error"))),
        (both, Some((hours, "value_error"))),
        (json!({(days): "7"}), Some((days, "type_error"))),
        (json!({(hours): [1]}), Some((hours, "type_error"))),
        (json!({(days): null, (hours): null}), None),
        (json!({(days): null, (hours): 5}), None),
    ] {
        let mut body = json!({"eventType": "a", "payload": {}});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let sent = gateway.post("/app/acme/msg", &body).send().await;
        let batch = gateway.call("POST", "/app/acme/msg/batch");
        let batch = batch.body(format!("{body}\n")).expect(202).await;
        let line: Value = serde_json::from_str(batch.text().trim_end()).unwrap();
        match wrong {
            None => {
                assert_eq!((sent.status.as_u16(), &line["status"]), (202, &json!(202)));
            }
            Some((name, kind)) => {
                let item = (format!("body.{name}"), kind.to_owned());
                assert_eq!(sent.mistakes(), [item], "{fields}");
                assert_eq!(line["status"], 422, "{fields}");
            }
        }
    }
    assert_eq!(ends(&gateway), 10, "five of them, each sent in two ways");
    let made = json!({"eventType": "a", "payload": {}, (days): 1, "application": {"name": "made"}});
    gateway.post("/app/made/msg", &made).expect(202).await;
    assert_eq!(ends(&gateway), 11, "and of an application made on the fly");
}

/// Every route that shows the payload of the one message there is.
async fn payloads(past: &Past, message: &str) -> BTreeMap<&'static str, Value> {
    let first = |list: Value| list["data"][0]["payload"].clone();
    let mut seen = BTreeMap::new();
    let one = past.list(&format!("/msg/{message}")).await;
    seen.insert("message", one["payload"].clone());
    for (name, path) in [
        ("list", "/msg"),
        ("list of an endpoint", "/endpoint/one/msg"),
        ("feed", "/events"),
        ("feed of an endpoint", "/events/subscription/one"),
        ("consumer", "/consumer/c"),
    ] {
        seen.insert(name, first(past.list(path).await));
    }
    // Nothing is committed: the next one leases it again.
    past.gateway.clock.advance(31 * Duration::from_secs(1));
    let sample = past.gateway.get("/event-type/a/sample?app_id=acme");
    let sample = sample.expect(200).await.json();
    let shown = match sample["data"][0]["from"].as_str() {
        Some("message") => sample["data"][0]["payload"].clone(),
        _ => json!({}),
    };
    seen.insert("sample", shown);
    seen
}

#[tokio::test]
async fn a_payload_is_hidden_from_every_reader_at_its_time_and_not_before() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let types = json!({"name": "a", "description": ""});
    gateway.post("/event-type", &types).expect(201).await;
    let begins = json!({"startingPosition": "earliest"});
    let consumer = gateway.call("PUT", "/app/acme/consumer/c");
    consumer.json(&begins).expect(201).await;
    let body = json!({"eventType": "a", "payload": {"n": 7}, "payloadRetentionHours": 1});
    let send = async || {
        let call = gateway.post("/app/acme/msg", &body);
        let call = call.header("idempotency-key", "k");
        call.expect(202).await.json()
    };
    let message = send().await["id"].as_str().unwrap().to_owned();
    until(gateway, HOUR - 60 * Duration::from_secs(1));
    for (name, payload) in payloads(&past, &message).await {
        assert_eq!(payload, json!({"n": 7}), "{name}");
    }
    until(gateway, HOUR - MS);
    let one = past.list(&format!("/msg/{message}")).await;
    assert_eq!(one["payload"], json!({"n": 7}), "a millisecond before");
    gateway.clock.advance(MS);
    let one = past.list(&format!("/msg/{message}")).await;
    assert_eq!(one["payload"], json!({}), "at its time");
    assert_eq!(one["eventType"], "a", "the rest stays");
    assert!(!stored(gateway, &message).is_empty(), "by the clock alone");
    for (name, payload) in payloads(&past, &message).await {
        assert_eq!(payload, json!({}), "{name}");
    }
    let again = send().await;
    assert_eq!(
        (&again["id"], &again["payload"]),
        (&json!(message), &json!({}))
    );
}

#[tokio::test]
async fn what_is_over_is_neither_sent_again_nor_recovered_nor_replayed() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let (gone, there) = (
        kept(gateway, 1, json!({})).await,
        kept(gateway, 3, json!({})).await,
    );
    for message in [&gone, &there] {
        past.attempt(message, "one", 1, 500, DEAD).await;
    }
    until(gateway, HOUR);
    let resend = |message: &str| format!("/app/acme/msg/{message}/endpoint/one/resend");
    let refused = gateway.call("POST", &resend(&gone)).send().await;
    assert_eq!(refused.problem(), (400, "missing_payload".to_owned()));
    gateway.call("POST", &resend(&there)).expect(202).await;
    let groups = past.list("/quarantine").await;
    let bucket = groups["data"][0]["id"].as_str().unwrap();
    let rows = past.list(&format!("/quarantine/{bucket}")).await;
    let rows: Vec<_> = rows["data"].as_array().unwrap().iter().collect();
    let has: Vec<_> = rows.iter().map(|row| &row["hasPayload"]).collect();
    assert_eq!(has, [&json!(true), &json!(false)], "newest first");
    gateway.asked.lock().clear();
    let retry = format!("/quarantine/{bucket}/retry");
    for (path, body) in [
        ("/endpoint/one/recover", json!({"since": SINCE})),
        ("/endpoint/one/bulk-replay", json!({"since": SINCE})),
        ("/replay", json!({"since": SINCE})),
        (retry.as_str(), json!({})),
    ] {
        let path = format!("/app/acme{path}");
        let started = gateway.post(&path, &body).expect(202).await.json();
        assert_eq!(finished(gateway, &started).await["status"], "finished");
    }
    let want = Asked::Recover(vec![Delivery {
        at: position(&there),
        endpoint: past.endpoint("one"),
    }]);
    assert_eq!(*gateway.asked.lock(), vec![want; 4]);
    let elsewhere = json!({"since": SINCE, "target": {"url": "https://other.example/in"}});
    let started = gateway
        .post("/app/acme/replay", &elsewhere)
        .expect(202)
        .await;
    finished(gateway, &started.json()).await;
    let sent: Vec<_> = gateway
        .elsewhere
        .0
        .lock()
        .iter()
        .map(|one| one.1.clone())
        .collect();
    assert_eq!(sent, [there]);
}

#[tokio::test]
async fn housekeeping_takes_away_what_is_over_and_finished_and_keeps_what_is_not() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let mut ids = Vec::new();
    for hours in [1, 1, 1, 2] {
        ids.push(kept(gateway, hours, json!({"payload": {"n": 7}})).await);
    }
    let [delivered, dead, open, later] = ids.try_into().unwrap();
    past.attempt(&delivered, "one", 1, 200, Verdict::Delivered)
        .await;
    past.attempt(&dead, "one", 1, 500, DEAD).await;
    past.attempt(&open, "one", 1, 500, retry()).await;
    past.attempt(&later, "one", 1, 200, Verdict::Delivered)
        .await;
    let plain = gateway.message("acme", "a").await;
    past.attempt(&plain, "one", 1, 200, Verdict::Delivered)
        .await;
    until(gateway, HOUR + 30 * Duration::from_secs(1));
    housekeeping(gateway).await;
    assert_eq!(
        ends(gateway),
        4,
        "a request of before the end may be under way"
    );
    until(gateway, HOUR + 90 * Duration::from_secs(1));
    housekeeping(gateway).await;
    let has = |message: &String| !stored(gateway, message).is_empty();
    let all = [&delivered, &dead, &open, &later, &plain];
    assert_eq!(all.map(has), [false, false, true, true, true]);
    assert_eq!(ends(gateway), 2);
    // Hidden it is all the same.
    let shown = past.list(&format!("/msg/{open}")).await;
    assert_eq!(shown["payload"], json!({}));

    past.attempt(&open, "one", 2, 200, Verdict::Delivered).await;
    until(gateway, HOUR * 2);
    housekeeping(gateway).await;
    assert!(has(&open), "it is looked at after an hour");
    until(gateway, HOUR * 2 + 5 * 60 * Duration::from_secs(1));
    housekeeping(gateway).await;
    assert_eq!(all.map(has), [false, false, false, false, true]);
    assert_eq!(ends(gateway), 0);
}

#[tokio::test]
async fn a_delivery_beside_the_targets_keeps_the_payload_too() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let message = kept(gateway, 1, json!({})).await;
    past.attempt(&message, "one", 1, 200, Verdict::Delivered)
        .await;
    // An endpoint that was made later, and asked for what it missed.
    gateway.endpoint("acme", "late").await;
    let delivery = Delivery {
        at: position(&message),
        endpoint: past.endpoint("late"),
    };
    let ended = Timestamp::from_millis(START).plus(HOUR);
    let asked = Settlement {
        further: vec![(delivery, ended)],
        ..Settlement::default()
    };
    settle(gateway, asked).await;
    until(gateway, HOUR * 2);
    housekeeping(gateway).await;
    assert!(!stored(gateway, &message).is_empty());
    past.attempt(&message, "late", 1, 200, Verdict::Delivered)
        .await;
    until(gateway, HOUR * 4);
    housekeeping(gateway).await;
    assert!(stored(gateway, &message).is_empty());
    assert_eq!(ends(gateway), 0);
}

#[tokio::test]
async fn more_ends_than_one_page_are_worked_off_in_one_go() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let paused = gateway.call("DELETE", "/app/acme/endpoint/one");
    paused.expect(204).await;
    let line = json!({"eventType": "a", "payload": {}, "payloadRetentionHours": 1});
    let lines = format!("{line}\n").repeat(250);
    let batch = gateway.call("POST", "/app/acme/msg/batch").body(lines);
    batch.expect(202).await;
    until(gateway, HOUR * 2);
    housekeeping(gateway).await;
    assert_eq!(ends(gateway), 0);
    let all = past.list("/msg?limit=250").await;
    assert_eq!(all["data"].as_array().unwrap().len(), 250, "they are there");
}

#[tokio::test]
async fn a_payload_that_waits_unseen_can_be_expunged() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let (one, two) = (
        kept(gateway, 1, json!({})).await,
        kept(gateway, 1, json!({})).await,
    );
    until(gateway, HOUR * 2);
    housekeeping(gateway).await;
    let path = format!("/app/acme/msg/{one}/content");
    gateway.call("DELETE", &path).expect(204).await;
    assert!(stored(gateway, &one).is_empty());
    assert!(!stored(gateway, &two).is_empty());
    let purge = gateway.call("POST", "/app/acme/msg/expunge-all-contents");
    let started = purge.expect(202).await.json();
    let task = finished(gateway, &started).await;
    assert_eq!(task["data"], json!({"messages": 1}));
    assert!(stored(gateway, &two).is_empty());
    until(gateway, HOUR * 4);
    housekeeping(gateway).await;
    assert_eq!(ends(gateway), 0, "nothing is left to be looked at");
}

#[tokio::test]
async fn the_end_of_a_payload_is_not_forgotten_by_a_restart() {
    let store = Model::new();
    let past = Past::over(Gateway::over(&store, |_| ())).await;
    let message = kept(&past.gateway, 1, json!({})).await;
    past.attempt(&message, "one", 1, 200, Verdict::Delivered)
        .await;
    drop(past);
    let gateway = Gateway::over(&store, |_| ());
    assert!(!stored(&gateway, &message).is_empty());
    until(&gateway, HOUR * 2);
    housekeeping(&gateway).await;
    assert!(stored(&gateway, &message).is_empty());
}

#[tokio::test]
async fn what_ended_by_its_time_asks_for_a_scrub_once_a_day() {
    let past = Past::start().await;
    let gateway = &past.gateway;
    let wanted = || gateway.directory.snapshot().instance("scrub").cloned();
    let end_one = async |at: Duration| {
        let message = kept(gateway, 1, json!({})).await;
        past.attempt(&message, "one", 1, 200, Verdict::Delivered)
            .await;
        until(gateway, at);
        housekeeping(gateway).await;
        assert!(stored(gateway, &message).is_empty());
    };
    end_one(HOUR * 2).await;
    let first = json!({"wanted": 0, "done": 0, "ended": 1});
    assert_eq!(wanted(), Some(first));
    gateway.state.scrub().await;
    let rewritten = |at: Duration| Timestamp::from_millis(START).plus(at).rfc3339();
    let scrubbed = |n: u64, at: Duration| json!({"wanted": 0, "done": 0, "ended": n, "endedDone": n, "rewritten": rewritten(at)});
    assert_eq!(wanted(), Some(scrubbed(1, HOUR * 2)));

    end_one(HOUR * 4).await;
    let mut waits = scrubbed(1, HOUR * 2);
    waits["ended"] = json!(2);
    for hours in [4, 25] {
        until(gateway, HOUR * hours);
        gateway.state.scrub().await;
        assert_eq!(wanted(), Some(waits.clone()), "{hours}");
    }
    until(gateway, HOUR * 26);
    gateway.state.scrub().await;
    assert_eq!(wanted(), Some(scrubbed(2, HOUR * 26)));

    // What somebody asked for does not wait, and takes the rest along.
    end_one(HOUR * 28).await;
    let message = gateway.message("acme", "a").await;
    let path = format!("/app/acme/msg/{message}/content");
    gateway.call("DELETE", &path).expect(204).await;
    gateway.state.scrub().await;
    let mut all = scrubbed(3, HOUR * 28);
    (all["wanted"], all["done"]) = (json!(1), json!(1));
    assert_eq!(wanted(), Some(all));
}

#[test]
fn ends_of_payloads_are_counted() {
    let page = page(async || {
        let past = Past::start().await;
        let done = kept(&past.gateway, 1, json!({})).await;
        kept(&past.gateway, 1, json!({})).await;
        past.attempt(&done, "one", 1, 200, Verdict::Delivered).await;
        until(&past.gateway, HOUR * 2);
        housekeeping(&past.gateway).await;
    });
    for result in ["taken_away", "put_off"] {
        let line = format!("posthaste_payloads_ended_total{{result=\"{result}\"}} 1");
        assert!(page.contains(&line), "{page}");
    }
}
