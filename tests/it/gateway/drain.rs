//! A drain that comes to its limit: who is late is named, and nothing of it is lost.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "outside the test functions a failure is a failed test too; a raw request needs a socket"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kit::{Answer, Gateway, Received, Receiver, SOON, endpoint, eventually, now, send};

#[tokio::test]
async fn a_drain_names_what_is_late_and_sends_it_again_after_the_start() {
    let settings = [
        ("delivery.timeout", "1s"),
        ("delivery.connect_timeout", "500ms"),
        ("server.drain_timeout", "2s"),
        ("log.format", "json"),
    ];
    let mut gateway = Gateway::start(&settings).await;
    let receiver = Receiver::scripted(|received| {
        // The first attempts outlast the drain, those after the start do not.
        let takes = if received.nth == 1 { 12 } else { 0 };
        Answer::ok().after(Duration::from_secs(takes))
    })
    .await;
    let mut hooks = BTreeSet::new();
    for n in 0..25 {
        let (path, fields) = (format!("/hook/{n}"), json!({"timeoutMs": 20_000}));
        let hook = endpoint(&gateway, "acme", &receiver, &path, fields).await;
        hooks.insert(hook.id);
    }
    let id = send(&gateway, "acme", 1).await;
    eventually("all attempts are under way", SOON, async || {
        (receiver.count() == 25).then_some(())
    })
    .await;
    let stuck = half_a_request(&gateway).await;
    let own = stuck.local_addr().unwrap().to_string();

    let began = now();
    gateway.signal("TERM");
    let status = gateway.wait_end(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() >= Duration::from_millis(1_900), "it waited");
    let log = gateway.log();
    let named = lines(&log, "cut off while sending");
    assert_eq!(named.len(), 20, "the first twenty: {log}");
    for line in named {
        assert!(line.contains(&id), "{line}");
        let known = |hook: &String| line.contains(hook.as_str());
        assert!(hooks.iter().any(known), "{line}");
        assert!(line.contains("\"since\":\"20"), "{line}");
    }
    let [summary] = lines(&log, "the time to drain is over")[..] else {
        panic!("one summary: {log}");
    };
    assert!(summary.contains("\"attempts\":25"), "{summary}");
    assert!(summary.contains("schedule"), "{summary}");
    let connections = lines(&log, "a connection is cut off");
    let found = connections.iter().find(|line| line.contains(&own));
    let found = found.unwrap_or_else(|| panic!("{own} is not named: {log}"));
    assert!(found.contains("its request is not complete"), "{found}");

    let gateway = gateway.kill().start().await;
    eventually("everything is sent again", SOON, async || {
        (receiver.count() == 50).then_some(())
    })
    .await;
    let (first, again): (Vec<_>, Vec<_>) = receiver.all().into_iter().partition(|r| r.nth == 1);
    let paths = |of: Vec<Received>| -> BTreeSet<String> {
        assert!(of.iter().all(|received| received.id == id), "the same id");
        of.into_iter().map(|received| received.path).collect()
    };
    assert_eq!(paths(again), paths(first), "each of them once more");
    eventually("the start says who may outlast a drain", SOON, async || {
        let said = gateway
            .log()
            .contains("endpoints may take longer than server.drain_timeout");
        said.then_some(())
    })
    .await;
}

fn lines<'a>(log: &'a str, with: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(with)).collect()
}

/// A connection whose request has a head and the first byte of its body.
async fn half_a_request(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let key = gateway.key();
    let head = format!(
        "POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
         content-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}
