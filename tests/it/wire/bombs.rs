//! Answers meant to do harm (T10, T11): each attempt ends in time, keeps little, and says the truth.

use std::time::Duration;

use posthaste::model::{FailureKind, Outcome};

use super::kit::{Bench, Receiver, Reply, request};

const LOCAL: &[&str] = &["127.0.0.0/8"];
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// One request with a deadline of half a second: its outcome and how much of the body was kept.
async fn explode(reply: Reply) -> (Outcome, usize) {
    let receiver = Receiver::start(move |_| reply.clone()).await;
    let bench = Bench::allowing(LOCAL);
    let mut request = request(&receiver.url());
    request.timeout = Duration::from_millis(500);
    let exchange = bench.client.send(request).await;
    assert!(exchange.duration_ms < 1500, "{exchange:?}");
    assert_eq!(bench.client.pooled(), 0, "such a connection is used again");
    (exchange.outcome, exchange.response.len())
}

fn endless(head: &str, again: &str) -> Reply {
    Reply::Endless(head.into(), again.into())
}

#[tokio::test]
async fn a_2xx_is_a_success_whatever_its_body_does() {
    let long = "x".repeat(1000);
    for (what, reply, kept) in [
        ("no end", endless("HTTP/1.1 200 OK\r\n\r\n", &long), 16_384),
        (
            "ten trillion bytes",
            endless(
                "HTTP/1.1 200 OK\r\ncontent-length: 10000000000000\r\n\r\n",
                &long,
            ),
            16_384,
        ),
        ("no end of chunks", endless(CHUNKED, "1\r\nx\r\n"), 16_384),
        (
            "chunk extension",
            endless(&format!("{CHUNKED}1;a="), "bbbbbbbbbb"),
            0,
        ),
        (
            "trailers",
            endless(&format!("{CHUNKED}1\r\nx\r\n0\r\n"), "a: b\r\n"),
            1,
        ),
        (
            "drip",
            Reply::Drip(
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx".to_vec(),
                vec![b'y'; 99],
            ),
            1,
        ),
    ] {
        let (outcome, length) = explode(reply).await;
        assert_eq!((outcome.status, outcome.failure), (200, None), "{what}");
        let most = if kept == 1 { 8 } else { kept };
        assert!((kept..=most).contains(&length), "{what}: kept {length}");
    }
}

#[tokio::test]
async fn a_head_without_measure_is_too_large() {
    let long = "x".repeat(1000);
    for (what, reply) in [
        ("one line", endless("HTTP/1.1 200 OK\r\nx: ", &long)),
        ("many lines", endless("HTTP/1.1 200 OK\r\n", "a: b\r\n")),
        (
            "interim answers",
            endless("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
        ),
    ] {
        let (outcome, kept) = explode(reply).await;
        assert_eq!(
            outcome.failure,
            Some(FailureKind::ResponseTooLarge),
            "{what}"
        );
        assert_eq!((outcome.status, kept), (0, 0), "{what}");
    }
}

#[tokio::test]
async fn a_head_that_drips_runs_into_the_deadline() {
    for head in ["", "HTTP/1.1 200 OK\r\nx: "] {
        let (outcome, _) = explode(Reply::Drip(head.into(), vec![b'H'; 100])).await;
        assert_eq!(outcome.failure, Some(FailureKind::TimeoutTotal));
    }
}

#[tokio::test]
async fn nothing_is_decompressed_since_nothing_compressed_is_asked_for() {
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut answer =
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n".to_vec();
    answer.extend(bomb);
    let receiver = Receiver::start(move |_| Reply::Keep(answer.clone())).await;
    let bench = Bench::allowing(LOCAL);
    let exchange = bench.client.send(request(&receiver.url())).await;
    assert_eq!(exchange.response, bomb.as_slice());
    let sent = String::from_utf8(receiver.requests().remove(0)).unwrap();
    assert!(!sent.to_lowercase().contains("accept-encoding"), "{sent}");
}

#[tokio::test]
async fn exactly_as_much_as_is_read_is_no_reason_to_drop_the_connection() {
    let receiver = Receiver::start(|n| {
        let length = 64 * 1024 + n;
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        Reply::Keep(answer)
    })
    .await;
    let bench = Bench::allowing(LOCAL);
    bench.client.send(request(&receiver.url())).await;
    assert_eq!(bench.client.pooled(), 1);
    let over = bench.client.send(request(&receiver.url())).await;
    assert_eq!((over.outcome.status, over.response.len()), (200, 16 * 1024));
    assert_eq!(bench.client.pooled(), 0);
}

#[tokio::test]
async fn hostile_values_neither_panic_nor_stick() {
    const YEARS_10: u32 = 315_576_000;
    let answers: &[(&str, Option<u16>, Option<u32>)] = &[
        ("503 x\r\nretry-after: inf", Some(503), None),
        ("503 x\r\nretry-after: NaN", Some(503), None),
        ("503 x\r\nretry-after: 1e300", Some(503), None),
        ("503 x\r\nretry-after: -1", Some(503), None),
        (
            "503 x\r\nretry-after: 1000000000000000000000000000000",
            Some(503),
            Some(YEARS_10),
        ),
        (
            "503 x\r\nretry-after: Fri, 31 Dec 9999 23:59:59 GMT",
            Some(503),
            Some(YEARS_10),
        ),
        (
            "429 x\r\nretry-after: Thu, 01 Jan 1970 00:00:00 GMT",
            Some(429),
            Some(0),
        ),
        (
            "429 x\r\nretry-after: 5\r\nretry-after: 9",
            Some(429),
            Some(9),
        ),
        ("999 x", Some(999), None),
        ("600 x", Some(600), None),
        (
            "101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade",
            Some(101),
            None,
        ),
        ("500 x\r\nx: \u{fffd}\u{0}", None, None),
        ("000 x", None, None),
        ("99 x", None, None),
        ("500 x\r\na: b\r\n c", None, None),
        (
            "500 x\r\ncontent-length: 1\r\ncontent-length: 2",
            None,
            None,
        ),
        ("500 x\r\ncontent-length: +5", None, None),
    ];
    let receiver = Receiver::start(move |n| {
        let (head, _, _) = answers[n % answers.len()];
        let head = head.replace('\u{fffd}', "\u{80}\u{ff}");
        Reply::Close(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes())
    })
    .await;
    let bench = Bench::allowing(LOCAL);
    for n in 0..(answers.len() * 600) {
        let (head, status, hint) = answers[n % answers.len()];
        let mut request = request(&receiver.url());
        request.fresh = true;
        let outcome = bench.client.send(request).await.outcome;
        assert!(outcome.failure.is_some(), "{head}");
        assert_eq!(outcome.status, status.unwrap_or(0), "{head}");
        let close = |a: Option<u32>, b: Option<u32>| {
            a.unwrap_or(0).abs_diff(b.unwrap_or(0)) <= 1 && a.is_some() == b.is_some()
        };
        assert!(close(outcome.retry_after_secs, hint), "{head}: {outcome:?}");
    }
    assert_eq!(bench.client.pooled(), 0);
}
