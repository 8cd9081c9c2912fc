//! Nobody can write a line of their own into the log (T52).

#![expect(
    clippy::disallowed_methods,
    reason = "a client of the gateway under test"
)]

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{Answer, Gateway, Launch, Receiver, SOON, eventually};

/// Ends a line, an object and a terminal's colour, in every way there is.
const HOSTILE: &str = "x\r\n{\"level\":\"FORGED\"}\u{1b}[31m\u{0}\u{7f}\u{85}\u{2028}\u{2029}\"}\\";

const FILE: &str = r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
retry_schedule = ["1s"]
[log]
format = "json"
level = "trace"
"#;

/// Every field of the API that takes text, with a hostile value each; most are refused, which is
/// as likely to be logged.
async fn fill(gateway: &Gateway, receiver: &Receiver) {
    let api = gateway.api();
    let app = json!({"name": HOSTILE, "uid": "acme", "metadata": {HOSTILE: HOSTILE}});
    api.post("/api/v1/app", &app).await;
    api.post(
        "/api/v1/app?get_if_exists=true",
        &json!({"name": "acme", "uid": "acme"}),
    )
    .await;
    api.post("/api/v1/app", &json!({"name": "other", "uid": HOSTILE}))
        .await;
    let url = receiver.url("/hook");
    let fields = [
        json!({"description": HOSTILE}),
        json!({"uid": HOSTILE}),
        json!({"url": format!("{url}/{HOSTILE}?{HOSTILE}#{HOSTILE}")}),
        json!({"filterTypes": [HOSTILE]}),
        json!({"channels": [HOSTILE]}),
        json!({"metadata": {HOSTILE: HOSTILE}}),
        json!({"headers": {"x-hostile": HOSTILE}}),
        json!({"headers": {HOSTILE: "x"}}),
        json!({"secret": HOSTILE}),
        json!({"signature": {"profile": HOSTILE}}),
        json!({"retrySchedule": HOSTILE}),
    ];
    for mut body in fields {
        if body.get("url").is_none() {
            body["url"] = json!(url);
        }
        api.post("/api/v1/app/acme/endpoint", &body).await;
    }
    let plain = json!({"url": url, "description": HOSTILE});
    api.post("/api/v1/app/acme/endpoint", &plain)
        .await
        .expect(201);
    api.post(
        "/api/v1/event-type",
        &json!({"name": HOSTILE, "description": HOSTILE}),
    )
    .await;
    for body in [
        json!({"eventType": HOSTILE, "payload": {}}),
        json!({"eventType": "a.b", "eventId": HOSTILE, "payload": {}}),
        json!({"eventType": "a.b", "payload": {HOSTILE: HOSTILE}, "tags": [HOSTILE]}),
        json!({"eventType": "a.b", "payload": {HOSTILE: HOSTILE}}),
    ] {
        api.post("/api/v1/app/acme/msg", &body).await;
    }
    let escaped = "x%0d%0a%7b%22level%22%3a%22FORGED%22%7d%1b%00%e2%80%a8";
    for path in [
        format!("/api/v1/app/{escaped}"),
        format!("/{escaped}?{escaped}={escaped}"),
        format!("/api/v1/app?iterator={escaped}&limit={escaped}"),
        format!("/problems/{escaped}"),
    ] {
        let headers = [
            ("idempotency-key", "k\u{ff}"),
            ("user-agent", "\t{\"level\":\"FORGED\"}"),
        ];
        let sent = api.send(Method::GET, &path, &headers, Bytes::new()).await;
        assert!(sent.is_ok(), "{path}: {sent:?}");
    }
}

/// Bytes that are no HTTP, and some that almost are.
async fn garbage(gateway: &Gateway) {
    for bytes in [
        &b"\r\n{\"level\":\"FORGED\"}\r\n\r\n"[..],
        b"GET /\x1b[31m HTTP/1.1\r\nHost: a\x00\r\n\r\n",
        b"\x16\x03\x01{\"level\":\"FORGED\"}\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \n{\"level\":\"FORGED\"}\n\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(gateway.address)
            .await
            .unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        if stream.read_to_end(&mut rest).await.is_err() {} // reset is an answer too
    }
}

#[tokio::test]
async fn with_json_logs_every_line_is_one_object_whatever_users_write() {
    let gateway = Launch::with_file(FILE, &[]).start().await;
    let receiver =
        Receiver::scripted(|_| Answer::status(500).header("server", "\t{\"a\":1}")).await;
    fill(&gateway, &receiver).await;
    garbage(&gateway).await;
    receiver.finished("/hook", 2, SOON).await;

    // Text that is certain to be logged: the mistake in a configuration file.
    let wrong = FILE.replace(
        "\"trace\"",
        &json!(HOSTILE).to_string().replace("\\u007f", "\x7f"),
    );
    let wrong = wrong.replace('\u{7f}', "\\u007F");
    gateway.launch().write("posthaste.toml", &wrong);
    gateway.signal("HUP");
    eventually("the mistake is logged", SOON, async || {
        gateway.log().contains("not reloaded").then_some(())
    })
    .await;

    let log = gateway.log();
    let (said, lines): (Vec<_>, Vec<_>) = log
        .split_terminator('\n')
        .partition(|line| line.starts_with("posthaste listens on"));
    assert_eq!(said.len(), 1, "standard output holds one line");
    let mut quoted = 0;
    for line in &lines {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line:?}");
        });
        let level = value["level"].as_str();
        assert!(
            matches!(level, Some("TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR")),
            "{line:?}"
        );
        assert!(
            value["timestamp"].is_string() && value["target"].is_string(),
            "{line:?}"
        );
        assert!(!line.bytes().any(|byte| byte < 0x20), "{line:?}");
        quoted += usize::from(value.to_string().contains("FORGED"));
    }
    assert!(lines.len() > 5, "{} lines", lines.len());
    assert!(
        quoted > 0,
        "no hostile text was logged at all, so nothing is proven"
    );
}
