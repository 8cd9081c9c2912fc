//! Hostile answers against the real binary: slots come back, memory stays (T10, T11).
#![expect(
    clippy::unwrap_used,
    reason = "a failure outside the test functions is one too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::kit::{Gateway, SOON, eventually, message, say};
use crate::wire::kit::{Receiver, Reply};

/// An application with `count` endpoints at `receiver`.
async fn endpoints(gateway: &Gateway, receiver: &Receiver, count: usize) {
    let app = json!({"name": "acme", "uid": "acme"});
    gateway.api().post("/api/v1/app", &app).await.expect(201);
    for n in 0..count {
        let body = json!({"url": receiver.url(), "uid": format!("e{n}")});
        let made = gateway.api().post("/api/v1/app/acme/endpoint", &body).await;
        made.expect(201);
    }
}

async fn send(gateway: &Gateway, count: usize) {
    let line = message(json!({"n": 1})).to_string() + "\n";
    let reply = gateway.api().send(
        http::Method::POST,
        "/api/v1/app/acme/msg/batch",
        &[("content-type", "application/x-ndjson")],
        line.repeat(count).into(),
    );
    let text = reply.await.unwrap().expect_text(202);
    assert_eq!(text.matches("\"status\":202").count(), count);
}

/// Returns once so many deliveries have come to their end since the start, and none is left.
async fn at_rest(gateway: &Gateway, ended: usize, within: Duration) {
    let ended = ended.to_string().parse::<f64>().unwrap();
    eventually("all deliveries have ended", within, async || {
        let finished = gateway.metric("posthaste_deliveries_finished_total").await;
        let pending = gateway.metric("posthaste_deliveries_pending").await;
        let in_flight = gateway.metric("posthaste_deliveries_in_flight").await;
        assert!(finished <= ended, "{finished} of {ended}");
        (finished == ended && pending == 0.0 && in_flight == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_hostile_answers_leave_no_slot_taken_and_nothing_panics() {
    /// None of them asks for less.
    const HEADS: &[&[u8]] = &[
        b"HTTP/1.1 400 x\r\nretry-after: inf\r\n\r\n",
        b"HTTP/1.1 400 x\r\nretry-after: NaN\r\n\r\n",
        b"HTTP/1.1 400 x\r\nretry-after: 1e300\r\n\r\n",
        b"HTTP/1.1 404 x\r\nretry-after: -1\r\n\r\n",
        b"HTTP/1.1 400 x\r\nretry-after: 1000000000000000000000000000000\r\n\r\n",
        b"HTTP/1.1 400 x\r\nretry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
        b"HTTP/1.1 400 x\r\nretry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
        b"HTTP/1.1 000 x\r\n\r\n",
        b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 103 x\r\n\r\n",
        b"HTTP/1.1 400 x\r\nx: \x80\xff\xc0\r\n\r\n\xff\xfe",
        b"HTTP/1.1 400 x\r\na: b\r\n c\r\n\r\n",
        b"HTTP/1.1 400 \xff\xff\r\ncontent-length: 2\r\n\r\n\x00\x1b",
        b"HTTP/1.1 404 x\r\ncontent-length: 18446744073709551615\r\n\r\nx",
        b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"\x00\x00\x00\x04\x00",
        b"",
    ];
    /// These do: what follows them is sent later, one at a time.
    const PAUSES: &[&[u8]] = &[
        b"HTTP/1.1 503 x\r\nretry-after: 1e300\r\n\r\n",
        b"HTTP/1.1 429 x\r\nretry-after: 1000000000000000000000000000000\r\n\r\n",
        b"HTTP/1.1 500 x\r\nretry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 101 x\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ];
    let gateway = Gateway::start(&[
        ("delivery.retry_schedule", ""),
        ("delivery.disable", "never"),
    ])
    .await;
    let pausing = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&pausing);
    let receiver = Receiver::start(move |n| {
        let heads = if now.load(Ordering::SeqCst) {
            PAUSES
        } else {
            HEADS
        };
        // Every second answer is a good one, or the endpoints would be taken for dead and be paced.
        if n % 2 == 0 {
            return Reply::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec());
        }
        Reply::Close(heads[n / 2 % heads.len()].to_vec())
    })
    .await;
    endpoints(&gateway, &receiver, 20).await;
    send(&gateway, 100).await;
    at_rest(&gateway, 2000, Duration::from_secs(25)).await;
    let attempts = gateway.metric("posthaste_attempts_total").await;
    assert!(attempts >= 2000.0, "{attempts} attempts");
    // It is as able as before: what is sent next is attempted at once.
    pausing.store(true, Ordering::SeqCst);
    let before = receiver.requests().len();
    send(&gateway, 1).await;
    at_rest(&gateway, 2020, SOON).await;
    assert!(receiver.requests().len() >= before + 20);
    assert_eq!(gateway.metric("posthaste_panics_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_at_a_hundred_endpoints_cost_bounded_memory_and_end_in_time() {
    const ENDPOINTS: usize = 100;
    let long = "x".repeat(1000);
    let endless = |head: &str, again: &str| Reply::Endless(head.into(), again.into());
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let bombs = vec![
        endless("HTTP/1.1 200 OK\r\n\r\n", &long),
        endless(
            "HTTP/1.1 200 OK\r\ncontent-length: 10000000000000\r\n\r\n",
            &long,
        ),
        endless("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", &long),
        endless(chunked, "1\r\nx\r\n"),
        endless(&format!("{chunked}1;a="), "bbbbbbbbbb"),
        endless(&format!("{chunked}1\r\nx\r\n0\r\n"), "a: b\r\n"),
        endless("HTTP/1.1 200 OK\r\nx: ", &long),
        endless("HTTP/1.1 200 OK\r\n", "a: b\r\n"),
        endless("", "HTTP/1.1 103 x\r\nlink: x\r\n\r\n"),
        Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'y'; 100]),
    ];
    let settings = [
        ("delivery.retry_schedule", ""),
        ("delivery.disable", "never"),
        ("delivery.timeout", "2s"),
        ("delivery.connect_timeout", "1s"),
    ];
    let gateway = Gateway::start(&settings).await;
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 65000\r\n\r\n".to_owned() + &"x".repeat(65_000);
    let receiver = Receiver::start(move |n| match n / ENDPOINTS {
        // What ordinary answers of the same number cost at once is the measure.
        0..3 => Reply::Keep(good.clone().into_bytes()),
        _ => bombs[n % bombs.len()].clone(),
    })
    .await;
    endpoints(&gateway, &receiver, ENDPOINTS).await;
    for round in 1..=3 {
        send(&gateway, 1).await;
        at_rest(&gateway, round * ENDPOINTS, SOON).await;
    }
    let before = gateway.memory_kib("VmHWM");
    for round in 4..=7 {
        let begun = crate::kit::now();
        send(&gateway, 1).await;
        at_rest(&gateway, round * ENDPOINTS, SOON).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "deadline 2 s, took {took:?}");
    }
    let grown = gateway.memory_kib("VmHWM").saturating_sub(before);
    say(&format!("memory: {before} KiB before, {grown} KiB more"));
    let most = 96 * u64::try_from(ENDPOINTS).unwrap();
    assert!(
        grown <= most,
        "{grown} KiB more than before, at most {most}"
    );
    // Once each: a 2xx stays a success whatever follows, and there is no second attempt otherwise.
    let requests = receiver.requests().len();
    assert_eq!(requests, 7 * ENDPOINTS);
    let delivered = "posthaste_deliveries_finished_total{state=\"delivered\"}";
    let delivered = gateway.metric(delivered).await;
    // 300 ordinary ones and seven of ten bombs; on a slow machine the deadline may come before a head.
    assert!(
        (540.0..=580.0).contains(&delivered),
        "{delivered} delivered"
    );
}
