//! Clients that keep connections busy, against the real binary: others are served as before (T21,
//! T47, T50).
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "raw sockets and tasks of a test; a failure anywhere is a failed test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{Gateway, SOON, endpoint, eventually, message, now, say};
use crate::server::frames;

/// Quicker than this nothing is judged: it is the noise of a machine with other tests beside this one.
/// Who waits behind a crowd waits for seconds.
const FLOOR: Duration = Duration::from_millis(250);

/// Publishes `count` messages one after the other; the 99th percentile of the times until the 202.
async fn publish(gateway: &Gateway, count: usize) -> Duration {
    let mut times = Vec::new();
    for n in 0..count {
        let begun = now();
        let path = "/api/v1/app/acme/msg";
        let sent = gateway.api().post(path, &message(json!({"n": n}))).await;
        sent.expect(202);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

async fn app(gateway: &Gateway) {
    let app = json!({"name": "acme", "uid": "acme"});
    gateway.api().post("/api/v1/app", &app).await.expect(201);
}

fn judge(what: &str, before: Duration, during: Duration) {
    say(&format!(
        "{what}: p99 {before:?} alone, {during:?} beside it"
    ));
    let most = (before * 2).max(FLOOR);
    assert!(during <= most, "{what}: p99 {during:?}, at most {most:?}");
}

/// How a slow client behaves.
#[derive(Clone, Copy)]
enum Slow {
    Mute,
    HalfHead,
    DrippingHead,
    DrippingBody,
}

impl Slow {
    async fn run(self, gateway: &Gateway) -> TcpStream {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let key = gateway.key();
        let post = format!(
            "POST /api/v1/app/acme/msg HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
        );
        let first = match self {
            Self::Mute => String::new(),
            Self::HalfHead => String::from("GET /api/v1/app HTTP/1.1\r\nHost: a\r\nX-"),
            Self::DrippingHead => String::from("GET /api/v1/app HTTP/1.1\r\nHost: a\r\nX: "),
            Self::DrippingBody => post,
        };
        stream.write_all(first.as_bytes()).await.unwrap();
        stream
    }

    const fn drips(self) -> bool {
        matches!(self, Self::DrippingHead | Self::DrippingBody)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_connections_are_closed_in_time_and_slow_nobody_down() {
    const EACH: usize = 250;
    let gateway = Gateway::start(&[
        ("server.header_timeout", "3s"),
        ("server.body_timeout", "4s"),
        ("server.idle_timeout", "4s"),
    ])
    .await;
    app(&gateway).await;
    publish(&gateway, 50).await;
    let before = publish(&gateway, 200).await;
    let memory = gateway.memory_kib("VmRSS");

    let mut streams = Vec::new();
    let begun = now();
    for slow in [
        Slow::Mute,
        Slow::HalfHead,
        Slow::DrippingHead,
        Slow::DrippingBody,
    ] {
        for _ in 0..EACH {
            streams.push((slow, slow.run(&gateway).await));
        }
    }
    // Accepted one after the other; the first are not late before the last is in.
    eventually("all are open", Duration::from_secs(3), async || {
        let open = gateway.metric("posthaste_connections_in").await;
        (open >= 900.0).then_some(())
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let dripping = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        while !stopped.load(Ordering::Relaxed) {
            ticks.tick().await;
            for (slow, stream) in &mut streams {
                if slow.drips() {
                    // The other side has closed it by now, or will.
                    drop(stream.try_write(b"x"));
                }
            }
        }
        streams
    });
    let during = publish(&gateway, 200).await;
    let grown = gateway.memory_kib("VmRSS").saturating_sub(memory);
    judge("slow connections", before, during);
    say(&format!("memory: {memory} KiB before, {grown} KiB more"));
    // Of each a buffer for its head, its task, and what the system says it has in use.
    assert!(grown < 64 * 1024, "{grown} KiB for a thousand connections");
    eventually("slow connections are closed", SOON, async || {
        let open = gateway.metric("posthaste_connections_in").await;
        (open <= 1.0).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "closed only after {took:?}");
    stop.store(true, Ordering::Relaxed);
    let streams = dripping.await.unwrap();
    assert_eq!(streams.len(), 4 * EACH, "we closed none of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_cost_others_little_time_and_us_little_memory() {
    let gateway = Gateway::start(&[]).await;
    app(&gateway).await;
    publish(&gateway, 50).await;
    let before = publish(&gateway, 150).await;
    let memory = gateway.memory_kib("VmHWM");
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (Arc::clone(&stop), gateway.address);
    let flooding = tokio::spawn(async move {
        let floods = frames::floods();
        let mut rounds = 0;
        while !stopped.load(Ordering::Relaxed) || rounds < floods.len() {
            let (what, bytes) = &floods[rounds % floods.len()];
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&frames::opening()).await.unwrap();
            let (mut read, mut write) = stream.split();
            let mut answer = Vec::new();
            // It is closed from the other side, in the middle of a word as a rule.
            let said = async { drop(write.write_all(bytes).await) };
            let heard = async { drop(read.read_to_end(&mut answer).await) };
            let both = async { tokio::join!(said, heard) };
            let ended = tokio::time::timeout(SOON, both).await;
            assert!(ended.is_ok(), "{what}: the connection stays open");
            rounds += 1;
        }
        rounds
    });
    let during = publish(&gateway, 300).await;
    stop.store(true, Ordering::Relaxed);
    let rounds = flooding.await.unwrap();
    judge(&format!("{rounds} floods"), before, during);
    let grown = gateway.memory_kib("VmHWM").saturating_sub(memory);
    say(&format!("memory: {memory} KiB before, {grown} KiB more"));
    assert!(grown < 32 * 1024, "{grown} KiB more");
    eventually("all are closed", SOON, async || {
        let open = gateway.metric("posthaste_connections_in").await;
        (open <= 1.0).then_some(())
    })
    .await;
    assert!(gateway.metric("posthaste_connections_refused_total").await >= 1.0);
    assert_eq!(gateway.metric("posthaste_panics_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_beyond_the_limit_is_refused_without_being_read() {
    let gateway = Gateway::start(&[]).await;
    let receiver = crate::kit::Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let memory = gateway.memory_kib("VmHWM");
    for path in ["app/acme/msg", "app/acme/msg/batch", "app"] {
        let head = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\n",
            gateway.key()
        );
        // Said beforehand: answered before a byte of it has come.
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let said = format!("{head}Content-Length: 10000000000\r\n\r\n");
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
        assert!(answer.contains("payload_too_large"), "{path}: {answer}");
        // Not said: it ends soon after the limit.
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let said = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        stream.write_all(said.as_bytes()).await.unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let flood = async {
            let mut sent = 0;
            while stream.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
                assert!(sent < 1 << 30, "{path}: read without end");
            }
            sent
        };
        let sent = tokio::time::timeout(SOON, flood).await.unwrap();
        say(&format!("{path}: {sent} bytes were taken from the wire"));
        // The limit, and what the system holds for two sockets.
        assert!(sent < 64 << 20, "{path}: {sent} bytes");
    }
    let grown = gateway.memory_kib("VmHWM").saturating_sub(memory);
    say(&format!("memory: {memory} KiB before, {grown} KiB more"));
    assert!(grown < 48 * 1024, "{grown} KiB more");
}

#[tokio::test]
async fn whoever_still_sends_a_body_that_is_too_long_reads_the_answer() {
    let gateway = Gateway::start(&[("ingest.max_body", "4KiB")]).await;
    let receiver = crate::kit::Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let head = format!(
        "Host: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
        gateway.key()
    );
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let end = b"0\r\n\r\n".to_vec();
    // Announced: known to be too long before a byte is there. In chunks: once a part is there; such a
    // connection is closed after its request.
    for (framing, first, rest, goes_on) in [
        (
            "Content-Length: 3000000",
            vec![],
            vec![b' '; 3_000_000],
            true,
        ),
        (
            "Transfer-Encoding: chunked",
            chunk.repeat(8),
            [chunk.repeat(8), end].concat(),
            false,
        ),
    ] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let begin = format!("POST /api/v1/app/acme/msg HTTP/1.1\r\n{head}{framing}\r\n\r\n");
        stream.write_all(begin.as_bytes()).await.unwrap();
        stream.write_all(&first).await.unwrap();
        let answer = answered(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("payload_too_large"), "{answer}");
        stream.write_all(&rest).await.unwrap();
        if goes_on {
            let next = format!("GET /api/v1/app HTTP/1.1\r\n{head}\r\n");
            stream.write_all(next.as_bytes()).await.unwrap();
            let answer = answered(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        } else {
            // An end, not a reset.
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        }
    }
}

/// One answer whose body is JSON that ends in a brace.
async fn answered(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let whole = async {
        while !answer.ends_with(b"}") {
            let read = stream.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
        }
    };
    tokio::time::timeout(SOON, whole).await.unwrap();
    String::from_utf8(answer).unwrap()
}
