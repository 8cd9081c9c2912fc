//! `posthaste sink` and `posthaste demo`, as a user runs them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::path::Path;
use std::process::{Child, Command};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::kit::{Client, Gateway, SOON, eventually, run_to_end, spawn_logged};

const SECRET: &str = "whsec_c2luay10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5";
const BIN: &str = env!("CARGO_BIN_EXE_posthaste");

#[tokio::test]
async fn a_delivery_of_the_gateway_is_verified_and_fails_as_scripted() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start(
        dir.path(),
        &["--secret", SECRET, "--fail", "1", "--status", "502"],
    )
    .await;
    let gateway = Gateway::start(&[("delivery.retry_schedule", "100ms,100ms")]).await;
    let api = gateway.api();
    let app = json!({"name": "acme", "uid": "acme"});
    api.post("/api/v1/app", &app).await.expect(201);
    let endpoint = json!({"url": format!("http://{}/hook", sink.address), "secret": SECRET});
    api.post("/api/v1/app/acme/endpoint", &endpoint)
        .await
        .expect(201);
    let message = json!({"eventType": "test.event", "payload": {"n": 1}});
    api.post("/api/v1/app/acme/msg", &message).await.expect(202);

    let record = sink.recorded(2).await;
    let statuses: Vec<_> = record.iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, [502, 204]);
    assert!(
        record.iter().all(|line| line["verified"] == true),
        "{record:?}"
    );
    assert_eq!(record[1]["attempt"], "2/3");
    let printed = std::fs::read_to_string(dir.path().join("sink.log")).unwrap();
    assert!(
        printed.contains("POST /hook") && printed.contains("signature ok"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_forged_delivery_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start(dir.path(), &["--secret", SECRET]).await;
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1649367553"),
        (
            "webhook-signature",
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ];
    let client = Client::new(sink.address, None);
    let send = client.send(Method::POST, "/hook", &headers, Bytes::from_static(b"{}"));
    assert_eq!(send.await.unwrap().status, 401);
    let record = sink.recorded(1).await;
    assert_eq!(record[0]["verdict"], "BAD SIGNATURE: wrong secret");
}

#[tokio::test]
async fn the_record_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = Sink::start(dir.path(), &["--quiet"]).await;
    let client = Client::new(sink.address, None);
    for n in 0..20 {
        let body = Bytes::from(n.to_string());
        let reply = client.send(Method::POST, "/hook", &[], body).await.unwrap();
        assert_eq!(reply.status, 204);
    }
    sink.child.kill().unwrap();
    assert_eq!(sink.recorded(20).await.len(), 20);
}

#[tokio::test]
async fn the_demo_ends_by_itself_and_says_where_its_data_lies() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    let mut demo = Command::new(BIN);
    demo.args(["demo", "--events", "80", "--rate", "80", "--dir"])
        .arg(&data);
    let output = tokio::task::spawn_blocking(move || run_to_end(&mut demo, b""));
    let output = output.await.unwrap();
    assert!(output.success, "{}", output.text);
    assert!(
        output.text.contains("disabled by the gateway"),
        "{}",
        output.text
    );
    assert!(output.text.contains(&data.display().to_string()));
    assert!(data.join("data").is_dir());
}

struct Sink {
    child: Child,
    address: std::net::SocketAddr,
    record: std::path::PathBuf,
}

impl Sink {
    async fn start(dir: &Path, arguments: &[&str]) -> Self {
        let (record, log) = (dir.join("record"), dir.join("sink.log"));
        let mut command = Command::new(BIN);
        command
            .args(["sink", "--listen", "127.0.0.1:0", "--record"])
            .arg(&record)
            .args(arguments);
        let child = spawn_logged(&mut command, &log);
        let address = eventually("the sink says where it listens", SOON, async || {
            let text = std::fs::read_to_string(&log).ok()?;
            let (line, _) = text.split_once('\n')?;
            line.strip_prefix("listening on http://")?.parse().ok()
        })
        .await;
        Self {
            child,
            address,
            record,
        }
    }

    /// Waits for so many lines of the record.
    async fn recorded(&self, count: usize) -> Vec<Value> {
        eventually("the record has its lines", SOON, async || {
            let text = std::fs::read_to_string(&self.record).unwrap_or_default();
            let lines: Vec<_> = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_err() {}
    }
}
