//! HTTP/2 by hand (T47): floods end their connection, slow bodies end alone, and nobody else notices.
//!
//! Prior knowledge over plain TCP, frames written byte by byte: no client library would send these.
#![expect(
    clippy::unwrap_used,
    reason = "a failure outside the test functions is one too"
)]

use std::time::Duration;

use posthaste::server::Settings;

use super::stage::{Client, PATIENT, Stage};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method: GET`, `:scheme: http`, `:path: /x`, `:authority: a`.
const GET: &[u8] = b"\x82\x86\x04\x02/x\x41\x01a";
/// The same with `/wait`, where the service stands still.
const WAIT: &[u8] = b"\x82\x86\x04\x05/wait\x41\x01a";
/// `:method: POST`, the rest as above.
const POST: &[u8] = b"\x83\x86\x04\x02/x\x41\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn get(stream: u32, head: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, head)
}

async fn connect(stage: &Stage) -> Client {
    let mut client = stage.connect().await;
    client.say(opening()).await;
    client
}

/// Odd numbers from 1: what a client numbers its streams with.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn a_request_in_frames_is_answered() {
    let stage = Stage::open(PATIENT);
    let mut client = connect(&stage).await;
    client.say(get(1, GET)).await;
    client.answer("0 bytes").await;
    assert_eq!(stage.seen(), ["/x"]);
}

/// Floods by name: everything a client says behind its preface and settings.
pub(crate) fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let post = frame(HEADERS, END_HEADERS, 1, POST);
    let reset = |stream| {
        let mut both = get(stream, GET);
        both.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        both
    };
    let wait = |stream| get(stream, WAIT);
    let many = |bytes: &[u8], count: usize| bytes.repeat(count);
    let ping = frame(PING, 0, 0, b"12345678");
    vec![
        ("rapid reset", streams(10_000).flat_map(reset).collect()),
        ("10,000 streams", streams(10_000).flat_map(wait).collect()),
        (
            "endless head",
            [
                frame(HEADERS, 0, 1, POST),
                many(&frame(CONTINUATION, 0, 1, &[0; 1000]), 10_000),
            ]
            .concat(),
        ),
        (
            "empty continuations",
            [
                frame(HEADERS, 0, 1, POST),
                many(&frame(CONTINUATION, 0, 1, &[]), 100_000),
            ]
            .concat(),
        ),
        (
            "empty data",
            [post, many(&frame(DATA, 0, 1, &[]), 100_000)].concat(),
        ),
        ("settings", many(&frame(SETTINGS, 0, 0, &[]), 10_000)),
        ("pings", many(&ping, 10_000)),
        (
            "priorities",
            many(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), 10_000),
        ),
        ("unknown frames", many(&frame(0x77, 0, 0, b"x"), 10_000)),
    ]
}

/// What a client says first.
pub(crate) fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_and_nobody_else_notices() {
    for (what, bytes) in floods() {
        let stage = Stage::open(PATIENT);
        let mut other = connect(&stage).await;
        other.say(get(1, GET)).await;
        other.answer("0 bytes").await;
        let mut client = connect(&stage).await;
        client.say(bytes).await;
        client.rest().await; // ends: the connection was closed
        let executed = stage.seen().len();
        assert!(executed < 1200, "{what}: {executed} requests were executed");
        other.say(get(3, GET)).await;
        other.answer("0 bytes").await;
        stage.shows("posthaste_connections_in 1").await;
    }
}

#[tokio::test]
async fn frames_that_a_client_needs_do_not_end_its_connection() {
    let stage = Stage::open(PATIENT);
    let mut client = connect(&stage).await;
    let ping = frame(PING, 0, 0, b"12345678").repeat(900);
    // What reading a long answer takes.
    let windows = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(5000);
    for stream in streams(5) {
        client.say(&ping).await;
        client.say(&windows).await;
        client.say(get(stream, GET)).await;
        client.answer("0 bytes").await;
    }
    assert_eq!(stage.seen().len(), 5);
}

#[tokio::test]
async fn a_body_that_drips_ends_its_own_request_and_no_other() {
    let stage = Stage::open(Settings {
        body_timeout: Duration::from_millis(300),
        ..PATIENT
    });
    let mut client = connect(&stage).await;
    client.say(frame(HEADERS, END_HEADERS, 1, POST)).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    // Far longer than the time for a body, and never still for as long as that.
    for n in 0..20 {
        ticks.tick().await;
        client.say(frame(DATA, 0, 1, b"x")).await;
        if n == 2 {
            client.say(get(3, GET)).await;
        }
    }
    client.answer("broken body").await;
    client.say(get(5, GET)).await;
    client.answer("0 bytes").await;
    assert_eq!(stage.seen(), ["/x"; 3]);
}

#[tokio::test]
async fn a_body_that_stands_still_ends_in_spite_of_pings() {
    let stage = Stage::open(Settings {
        body_timeout: Duration::from_millis(300),
        ..PATIENT
    });
    let mut client = connect(&stage).await;
    client.say(frame(HEADERS, END_HEADERS, 1, POST)).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..20 {
        ticks.tick().await;
        client.say(frame(PING, 0, 0, b"12345678")).await;
    }
    client.answer("broken body").await;
}

#[tokio::test]
async fn pings_do_not_keep_a_connection_from_being_idle() {
    let stage = Stage::open(Settings {
        idle_timeout: Duration::from_millis(300),
        ..PATIENT
    });
    let mut client = connect(&stage).await;
    client.say(get(1, GET)).await;
    client.answer("0 bytes").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..20 {
        ticks.tick().await;
        client.say(frame(PING, 0, 0, b"12345678")).await;
    }
    stage.shows("posthaste_connections_in 0").await;
}
