//! Each limit at n - 1, n and n + 1 (T50), and what overload looks like.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::base::{ByteSize, Clock, SystemClock, Timestamp};
use posthaste::lane::{Error, Lane, Options};
use posthaste::model::{AppNo, ContentType, LaneId, Message, Position};
use posthaste::store::faults::Fault;
use posthaste::store::model::Model;
use posthaste::store::{Accept, Settlement};
use serde_json::json;
use tokio::sync::mpsc;

use super::kit::Gateway;
use crate::kit::eventually;

#[tokio::test]
async fn the_payload_limit_is_exact() {
    let gateway = Gateway::with(|config| config.ingest.max_body = ByteSize::bytes(1000)).await;
    gateway.app("acme").await;
    let body = |n: usize| {
        let pad = "x".repeat(n - r#"{"a":""}"#.len());
        format!(r#"{{"eventType":"a","payload":{{"a":"{pad}"}}}}"#)
    };
    for n in [999, 1000] {
        gateway
            .call("POST", "/app/acme/msg")
            .body(body(n))
            .expect(202)
            .await;
    }
    let over = gateway
        .call("POST", "/app/acme/msg")
        .body(body(1001))
        .send()
        .await;
    assert_eq!(over.problem(), (413, "payload_too_large".to_owned()));
    let huge = gateway
        .call("POST", "/app/acme/msg")
        .body(body(100_000))
        .send()
        .await;
    assert_eq!(huge.problem(), (413, "payload_too_large".to_owned()));
}

#[tokio::test]
async fn other_bodies_end_at_one_mebibyte() {
    let gateway = Gateway::start().await;
    let body = |n: usize| {
        let pad = " ".repeat(n - r#"{"name":"a"}"#.len());
        format!(r#"{{"name":"a"{pad}}}"#)
    };
    gateway
        .call("POST", "/app")
        .body(body(1 << 20))
        .expect(201)
        .await;
    let over = gateway
        .call("POST", "/app")
        .body(body((1 << 20) + 1))
        .send()
        .await;
    assert_eq!(over.problem(), (413, "payload_too_large".to_owned()));
}

#[tokio::test]
async fn nesting_ends_at_64_levels() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = |n: usize| {
        let (open, close) = ("[".repeat(n - 2), "]".repeat(n - 2));
        format!(r#"{{"eventType":"a","payload":{{"a":{open}{close}}}}}"#)
    };
    gateway
        .call("POST", "/app/acme/msg")
        .body(body(63))
        .expect(202)
        .await;
    gateway
        .call("POST", "/app/acme/msg")
        .body(body(64))
        .expect(202)
        .await;
    let over = gateway
        .call("POST", "/app/acme/msg")
        .body(body(65))
        .send()
        .await;
    assert_eq!(over.mistakes(), [("body".to_owned(), "limit".to_owned())]);
}

#[tokio::test]
async fn batches_end_at_their_lines_and_bytes() {
    let gateway = Gateway::with(|config| {
        config.ingest.max_batch_lines = 3;
        config.ingest.max_batch_body = ByteSize::bytes(200);
    })
    .await;
    gateway.app("acme").await;
    let line = "{\"eventType\":\"a\",\"payload\":{}}\n";
    let send = |n: usize| {
        let call = gateway
            .call("POST", "/app/acme/msg/batch")
            .kind("application/x-ndjson");
        call.body(line.repeat(n))
    };
    send(2).expect(202).await;
    send(3).expect(202).await;
    assert_eq!(
        send(4).send().await.problem(),
        (413, "payload_too_large".to_owned())
    );
    assert_eq!(
        send(40).send().await.problem(),
        (413, "payload_too_large".to_owned())
    );
}

#[tokio::test]
async fn pending_deliveries_of_an_application_have_an_end() {
    let gateway = Gateway::with(|config| {
        config.ingest.max_pending_per_app = 10;
        config.ingest.soft_watermark = 0.5;
    })
    .await;
    gateway.app("acme").await;
    gateway.app("other").await;
    gateway.endpoint("acme", "one").await;
    gateway.endpoint("acme", "two").await;
    let body = json!({"eventType": "a", "payload": {}});
    let mut warned = Vec::new();
    for _ in 0..5 {
        let made = gateway.post("/app/acme/msg", &body).expect(202).await;
        warned.push(made.header("x-posthaste-warning").is_some());
    }
    assert_eq!(warned, [false, false, false, true, true], "from 5 of 10 on");
    let refused = gateway.post("/app/acme/msg", &body).send().await;
    assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("5"));
    gateway.post("/app/other/msg", &body).expect(202).await;
    let snapshot = gateway.directory.snapshot();
    assert_eq!(snapshot.total().pending().0, 10);
    snapshot.app("acme").unwrap().load.remove(2, 4);
    gateway.post("/app/acme/msg", &body).expect(202).await;
}

#[tokio::test]
async fn a_batch_stops_at_the_pending_limit_line_by_line() {
    let gateway = Gateway::with(|config| config.ingest.max_pending = 3).await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    let line = "{\"eventType\":\"a\",\"payload\":{}}\n";
    let call = gateway
        .call("POST", "/app/acme/msg/batch")
        .kind("application/x-ndjson");
    let answer = call.body(line.repeat(5)).expect(202).await;
    let count = |status: &str| answer.text().matches(status).count();
    assert_eq!((count("\"status\":202"), count("\"status\":503")), (3, 2));
    let ready = gateway.get("//ready").anonymous().send().await;
    assert_eq!(ready.status, 503);
}

#[tokio::test]
async fn a_throttled_application_gets_429_with_a_time() {
    let gateway = Gateway::start().await;
    let app = json!({"name": "slow", "uid": "slow", "rateLimit": 2});
    gateway.post("/app", &app).expect(201).await;
    gateway.message("slow", "a").await;
    gateway.message("slow", "a").await;
    let body = json!({"eventType": "a", "payload": {}});
    let refused = gateway.post("/app/slow/msg", &body).send().await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    gateway.clock.advance(Duration::from_millis(500));
    gateway.message("slow", "a").await;
}

#[tokio::test]
async fn a_short_disk_is_507_and_nothing_is_accepted() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    gateway.lane.refuse_messages(true);
    let body = json!({"eventType": "a", "payload": {}});
    let refused = gateway.post("/app/acme/msg", &body).send().await;
    assert_eq!(refused.problem(), (507, "storage_low".to_owned()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(gateway.directory.snapshot().total().pending(), (0, 0));
    let ready = gateway.get("//ready").anonymous().send().await;
    assert_eq!(ready.status, 503);
    let reasons = json!(["the disk has less space left than the reserve"]);
    assert_eq!(ready.json()["reasons"], reasons);
    gateway.lane.refuse_messages(false);
    gateway.get("//ready").anonymous().expect(200).await;
    gateway.message("acme", "a").await;
}

#[tokio::test]
async fn what_a_deleted_application_had_pending_leaves_the_sum() {
    let gateway = Gateway::over(&Model::new(), |_| ());
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    gateway.message("acme", "a").await;
    assert_eq!(gateway.directory.snapshot().total().pending().0, 1);
    gateway.call("DELETE", "/app/acme").expect(204).await;
    assert_eq!(gateway.directory.snapshot().total().pending(), (0, 0));
}

fn accept(payload: &Bytes) -> Accept {
    let at = Position {
        lane: LaneId(0),
        seq: 0,
    };
    let message = Message {
        at,
        accepted: Timestamp::ZERO,
        app: AppNo(1),
        event_type: Arc::from("a"),
        content_type: ContentType::Json,
        payload: payload.clone(),
        targets: Vec::new(),
        labels: None,
    };
    Accept {
        message,
        idempotency: None,
    }
}

#[tokio::test]
async fn while_the_commit_thread_stands_still_new_messages_are_refused_at_once() {
    let gateway = Gateway::start().await;
    // Nobody takes committed groups: the second one keeps the thread as a stalled disk would.
    let (sender, mut committed) = mpsc::channel(1);
    let options = Options {
        queue: 100_000,
        queue_bytes: 1 << 30,
        max_group: 1,
    };
    let (writer, _reader) = Model::new().open();
    let lane = Lane::start(Box::new(writer), gateway.clock.clone(), options, sender).unwrap();
    let one = || vec![accept(&Bytes::from_static(b"{}"))];
    lane.append(one()).unwrap().committed().await.unwrap();
    let mut waiting = vec![lane.append(one()).unwrap()];
    let refused = async || {
        match lane.append(one()) {
            Ok(ticket) => waiting.push(ticket),
            Err(error) => return Some(error),
        }
        None
    };
    let error = eventually("it is refused", Duration::from_secs(5), refused).await;
    assert_eq!(error, Error::Busy);
    assert!(
        waiting.len() < 50_000,
        "for the stall, not for a full queue"
    );
    assert_eq!(lane.waiting(), waiting.len(), "it takes no room");
    posthaste::base::task::detach(async move { while committed.recv().await.is_some() {} });
    for ticket in waiting {
        ticket.committed().await.unwrap();
    }
    let accepted = async || lane.append(one()).ok();
    eventually("it goes on", Duration::from_secs(5), accepted).await;
}

/// The scheduler ends when a settlement fails. It once could be seen to end before the store was
/// seen to have failed, and the exit code was 70 instead of 74.
#[tokio::test]
async fn whoever_hears_of_a_failed_write_finds_the_store_failed() {
    for _ in 0..200 {
        let model = Model::new();
        let (writer, _reader) = model.open();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let options = Options {
            queue: 10,
            queue_bytes: 1 << 20,
            max_group: 1,
        };
        let (sender, _committed) = mpsc::channel(1);
        let lane = Lane::start(Box::new(writer), clock, options, sender).unwrap();
        model.faults().plan(0, Fault::DoubtfulLost);
        let Ok(mut done) = lane.settle(Settlement::default(), false) else {
            panic!("the queue is empty");
        };
        let answer = loop {
            // Not awaited: the look must come as soon as the answer is there.
            match done.try_recv() {
                Ok(answer) => break answer,
                Err(_) => std::hint::spin_loop(),
            }
        };
        assert_eq!(answer, Err(Error::Failed));
        assert!(lane.has_failed());
    }
}

#[tokio::test]
async fn a_flood_of_batches_that_are_too_large_takes_no_room_from_small_ones() {
    const SMALL: usize = 2000;
    let gateway = Gateway::start().await;
    // Nobody takes committed groups, so after the first one the commit thread stands still.
    let (sender, mut committed) = mpsc::channel(1);
    let options = Options {
        queue: SMALL + 2,
        queue_bytes: 1 << 20,
        max_group: 1,
    };
    let (writer, _reader) = Model::new().open();
    let lane = Lane::start(Box::new(writer), gateway.clock.clone(), options, sender).unwrap();
    let small = Bytes::from_static(b"{}");
    lane.append(vec![accept(&small)])
        .unwrap()
        .committed()
        .await
        .unwrap();
    let mut tickets = vec![lane.append(vec![accept(&small)]).unwrap()];
    let large = accept(&Bytes::from(vec![b' '; 1 << 20]));
    let mut most_waiting = 0;
    let appended: Vec<_> = std::thread::scope(|scope| {
        let flood = || {
            for _ in 0..100_000 {
                let answer = lane.append(vec![large.clone()]).map(drop);
                assert_eq!(answer, Err(Error::Busy));
            }
        };
        let floods = [scope.spawn(flood), scope.spawn(flood), scope.spawn(flood)];
        while !floods[0].is_finished() {
            most_waiting = lane.waiting().max(most_waiting);
        }
        let small = (0..SMALL).map(|_| lane.append(vec![accept(&small)]));
        small.collect()
    });
    assert_eq!(most_waiting, 1, "not even for a moment");
    tickets.extend(appended.into_iter().map(Result::unwrap));
    assert_eq!(lane.waiting(), SMALL + 1);
    posthaste::base::task::detach(async move { while committed.recv().await.is_some() {} });
    for ticket in tickets {
        ticket.committed().await.unwrap();
    }
    lane.append(vec![large]).unwrap().committed().await.unwrap();
}
