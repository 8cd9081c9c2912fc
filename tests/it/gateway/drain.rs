//! A drain that comes to its limit: who is late is named, and nothing of it is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::kit::{Answer, Gateway, Receiver, SOON, endpoint, eventually, now, send};

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
    let fields = json!({"timeoutMs": 20_000, "maxConcurrency": 50});
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", fields).await;
    let mut sent = BTreeSet::new();
    for n in 0..25 {
        sent.insert(send(&gateway, "acme", n).await);
    }
    eventually("all attempts are under way", SOON, async || {
        (receiver.count() == 25).then_some(())
    })
    .await;
    let mut stuck = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    let own = stuck.local_addr().unwrap();
    let key = gateway.key();
    let head = format!(
        "POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
         content-length: 100\r\n\r\n{{"
    );
    stuck.write_all(head.as_bytes()).await.unwrap();
    // Answered behind it: what was written before has come in.
    gateway.api().get("/ready").await.expect(200);

    let began = now();
    gateway.signal("TERM");
    let status = gateway.wait_end(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() >= Duration::from_millis(1_900), "it waited");
    let log = gateway.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let with = |text: &str| {
        let found = lines.iter().filter(|line| line.to_string().contains(text));
        found.cloned().collect::<Vec<_>>()
    };
    let named = with("cut off while sending");
    assert_eq!(named.len(), 20, "the first twenty: {log}");
    for line in &named {
        let line = line.to_string();
        assert!(sent.iter().any(|id| line.contains(id.as_str())), "{line}");
        assert!(
            line.contains(&hook.id) && line.contains("\"since\":\"20"),
            "{line}"
        );
    }
    let summary = with("the time to drain is over");
    assert_eq!(summary.len(), 1, "{log}");
    assert!(
        summary[0].to_string().contains("\"attempts\":25"),
        "{summary:?}"
    );
    assert!(summary[0].to_string().contains("schedule"), "{summary:?}");
    let connections = with("a connection is cut off");
    let is_stuck = |line: &serde_json::Value| line.to_string().contains(&own.to_string());
    let found = connections.iter().find(|line| is_stuck(line));
    let found = found.unwrap_or_else(|| panic!("{own} is not named: {log}"));
    assert!(
        found.to_string().contains("its request is not complete"),
        "{found}"
    );

    let gateway = gateway.kill().start().await;
    eventually("everything is sent again", SOON, async || {
        (receiver.count() == 50).then_some(())
    })
    .await;
    let again: BTreeSet<_> = receiver
        .at("/hook")
        .into_iter()
        .filter(|received| received.nth == 2)
        .map(|received| received.id)
        .collect();
    assert_eq!(again, sent, "the same messages under the same ids");
    eventually("the start says who may outlast a drain", SOON, async || {
        let said = gateway
            .log()
            .contains("endpoints may take longer than server.drain_timeout");
        said.then_some(())
    })
    .await;
}
