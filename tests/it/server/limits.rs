//! Limits and deadlines of connections: head size, slow and silent ones, the cap.

use std::time::Duration;

use posthaste::server::Settings;

use super::stage::{PATIENT, Stage};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const SHORT: Duration = Duration::from_millis(300);

/// A request with this many header lines besides `Host`.
fn with_headers(count: usize) -> String {
    let lines: String = (0..count).map(|n| format!("X-{n}: v\r\n")).collect();
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[tokio::test]
async fn sixty_four_header_lines_pass_and_one_more_does_not() {
    let stage = Stage::open(PATIENT);
    let mut client = stage.connect().await;
    client.say(with_headers(63)).await;
    client.answer("0 bytes").await;
    for count in [64, 99, 100, 1000] {
        let mut client = stage.connect().await;
        client.say(with_headers(count)).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{count}: {answer}");
    }
    assert_eq!(stage.seen().len(), 1);
}

#[tokio::test]
async fn heads_end_at_sixteen_kibibytes() {
    let stage = Stage::open(PATIENT);
    let head = |length: usize| {
        let rest = length - "GET /x HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "v".repeat(rest)
        )
    };
    let mut client = stage.connect().await;
    client.say(head(15 * 1024)).await;
    client.answer("0 bytes").await;
    for length in [16 * 1024 + 1, 400_000] {
        let mut client = stage.connect().await;
        client.say(head(length)).await;
        let answer = client.rest().await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 431");
        assert!(refused, "{length}: {answer}");
    }
    assert_eq!(stage.seen().len(), 1);
}

#[tokio::test]
async fn a_large_body_passes_in_spite_of_the_head_limit() {
    let stage = Stage::open(PATIENT);
    let mut client = stage.connect().await;
    client
        .say("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n")
        .await;
    client.say(vec![b'x'; 500_000]).await;
    client.answer("500000 bytes").await;
}

#[tokio::test]
async fn silent_and_slow_heads_are_closed_by_their_deadline() {
    let stage = Stage::open(Settings {
        header_timeout: SHORT,
        ..PATIENT
    });
    for beginning in ["", "GET /x HT", "GET /x HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = stage.connect().await;
        client.say(beginning).await;
        assert_eq!(client.rest().await, "", "{beginning:?}");
    }
    let mut client = stage.connect().await;
    client.say(GET).await;
    client.answer("0 bytes").await;
    client.say("GET /second").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(stage.seen(), ["/x"]);
}

#[tokio::test]
async fn a_slow_body_is_closed_by_its_deadline() {
    let stage = Stage::open(Settings {
        body_timeout: SHORT,
        ..PATIENT
    });
    let mut client = stage.connect().await;
    client
        .say("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let stage = Stage::open(Settings {
        idle_timeout: SHORT,
        header_timeout: Duration::from_secs(5),
        ..PATIENT
    });
    let mut waiting = stage.connect().await;
    waiting.say("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stage.arrival().await;
    let mut idle = stage.connect().await;
    idle.say(GET).await;
    idle.answer("0 bytes").await;
    assert_eq!(idle.rest().await, "");
    // The other one has waited longer by now and is still there.
    stage.let_through();
    waiting.answer("0 bytes").await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_with_its_connection() {
    let stage = Stage::open(Settings {
        idle_timeout: SHORT,
        ..PATIENT
    });
    let mut client = stage.connect().await;
    client.say("GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer("200 OK").await;
    stage.shows("posthaste_connections_in 0").await;
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_one_to_close() {
    let stage = Stage::open(Settings {
        max_connections: 2,
        ..PATIENT
    });
    let mut first = stage.connect().await;
    first.say("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stage.arrival().await;
    let mut second = stage.connect().await;
    second.say(GET).await;
    second.answer("0 bytes").await;
    stage.shows("posthaste_connections_in 2").await;
    let mut third = stage.connect().await;
    third.say("GET /third HTTP/1.1\r\nHost: a\r\n\r\n").await;
    second.say(GET).await;
    second.answer("0 bytes").await;
    assert_eq!(stage.seen(), ["/wait", "/x", "/x"]);
    drop(second);
    third.answer("0 bytes").await;
    stage.let_through();
    first.answer("0 bytes").await;
    drop((first, third));
    stage.shows("posthaste_connections_in 0").await;
}
