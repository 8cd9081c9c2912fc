//! Tails and pull consumers over real sockets and over a crash.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::kit::{Gateway, SOON, eventually, message, send};

/// More than the ten seconds that a reader may take nothing.
const CUT_OFF: Duration = Duration::from_secs(30);

/// A tail over a connection of its own, its bytes taken only when asked for.
struct Tail(TcpStream);

impl Tail {
    /// Sends the request. The window is small: what is not read soon stays with the gateway.
    async fn open(gateway: &Gateway, query: &str, last: Option<&str>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8192).unwrap();
        let mut stream = socket.connect(gateway.address).await.unwrap();
        let last = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!(
            "GET /api/v1/app/acme/tail{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{last}\r\n",
            gateway.key()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Takes bytes until `wanted` has come or the connection ends; answers all of them as text.
    async fn until(&mut self, wanted: &str) -> String {
        let mut seen = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = timeout(SOON, self.0.read(&mut chunk)).await.unwrap();
            let n = read.unwrap();
            let from = seen.len().saturating_sub(wanted.len());
            seen.extend_from_slice(&chunk[..n]);
            let fresh = seen[from..].windows(wanted.len());
            if n == 0 || fresh.into_iter().any(|part| part == wanted.as_bytes()) {
                return String::from_utf8(seen).unwrap();
            }
        }
    }
}

/// A tail as soon as there is a place for it, and what of it was read already.
async fn admitted(gateway: &Gateway, last: Option<&str>) -> (Tail, String) {
    eventually("there is a place for a tail", CUT_OFF, async || {
        let mut tail = Tail::open(gateway, "", last).await;
        let begun = tail.until("retry: 2000\n").await;
        begun.starts_with("HTTP/1.1 200").then_some((tail, begun))
    })
    .await
}

/// A gateway with the application `acme`.
async fn with_application() -> Gateway {
    let gateway = Gateway::start(&[]).await;
    let acme = json!({"name": "acme", "uid": "acme"});
    gateway.api().post("/api/v1/app", &acme).await.expect(201);
    gateway
}

/// The ids of whole events.
fn ids(text: &str) -> Vec<String> {
    let events = text
        .split("\n\n")
        .filter(|event| event.contains("\ndata: "));
    let lines = events.flat_map(str::lines);
    let ids = lines.filter_map(|line| line.split_once("id: ").map(|(_, id)| id.to_owned()));
    ids.filter(|id| id.starts_with("msg_")).collect()
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off_and_told_and_misses_nothing_when_it_comes_again() {
    let gateway = with_application().await;
    let mut slow = Tail::open(&gateway, "", None).await;
    assert!(slow.until("retry: 2000").await.starts_with("HTTP/1.1 200"));
    let mut others = Vec::new();
    for _ in 0..9 {
        let mut tail = Tail::open(&gateway, "?event_types=other", None).await;
        tail.until("retry: 2000").await;
        others.push(tail);
    }
    // More than the sockets' buffers and the chunks that wait can hold.
    let filling = "x".repeat(200_000);
    let mut sent = Vec::new();
    for n in 0..60 {
        let body = message(json!({"n": n, "filling": filling}));
        let made = gateway.api().post("/api/v1/app/acme/msg", &body).await;
        sent.push(made.expect(202)["id"].as_str().unwrap().to_owned());
    }
    // Its place is free only once it is cut off.
    let full = gateway.api().get("/api/v1/app/acme/tail").await;
    assert_eq!(full.status, 429, "{}", full.text());
    drop(admitted(&gateway, None).await);
    let text = slow.until("\"reason\":\"slow_reader\"").await;
    assert!(text.contains("event: end"), "{} bytes", text.len());
    let mut seen = ids(&text);
    assert!(
        !seen.is_empty() && seen.len() < sent.len(),
        "{}",
        seen.len()
    );
    // Nothing is lost to it.
    let last = send(&gateway, "acme", 60).await;
    let (mut again, begun) = admitted(&gateway, seen.last().map(String::as_str)).await;
    seen.extend(ids(&(begun + &again.until("\"n\":60").await)));
    sent.push(last);
    assert_eq!(seen, sent);
}

async fn lease(gateway: &Gateway, query: &str) -> (Vec<String>, Value) {
    let path = format!("/api/v1/app/acme/consumer/c?{query}");
    let read = gateway.api().get(&path).await.expect(200);
    let messages = read["data"].as_array().unwrap().iter();
    let ids = messages.map(|one| one["id"].as_str().unwrap().to_owned());
    (ids.collect(), read["offset"].clone())
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_committed_after_a_sigkill() {
    let gateway = with_application().await;
    let made = gateway.api().send(
        Method::PUT,
        "/api/v1/app/acme/consumer/c",
        &[],
        json!({"startingPosition": "earliest"}).to_string().into(),
    );
    made.await.unwrap().expect(201);
    let mut sent = Vec::new();
    for n in 0..6 {
        sent.push(send(&gateway, "acme", n).await);
    }
    let (first, offset) = lease(&gateway, "limit=2").await;
    assert_eq!(first, sent[..2]);
    let commit = json!({ "offset": offset });
    gateway
        .api()
        .post("/api/v1/app/acme/consumer/c/commit", &commit)
        .await
        .expect(204);
    // Leased and not committed: the reader died with the gateway.
    let (second, _) = lease(&gateway, "limit=2&leaseMs=5000").await;
    assert_eq!(second, sent[2..4]);
    let gateway = gateway.kill().start().await;
    let rest = eventually("the lost lease is leased again", SOON, async || {
        let taken = gateway.api().get("/api/v1/app/acme/consumer/c").await;
        (taken.status == 200).then(|| taken.json())
    })
    .await;
    let rest = rest["data"].as_array().unwrap().iter();
    let rest: Vec<_> = rest.map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(rest, sent[2..]);
}
