//! SIGHUP with a configuration file: what takes over, what does not, and what a mistake changes.

#![expect(
    clippy::disallowed_methods,
    reason = "a client of the gateway under test"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::kit::{Answer, Gateway, Launch, Receiver, SOON, endpoint, eventually, now, send};

const FILE: &str = r#"
[server]
max_connections = 500
[delivery]
allow_networks = ["127.0.0.0/8"]
timeout = "15s"
retry_schedule = ["1h"]
jitter = 0.0
[log]
level = "info"
"#;

/// Another file, and what the log says of it (since the last one).
async fn reload(gateway: &Gateway, text: &str) -> String {
    gateway.launch().write("posthaste.toml", text);
    hup(gateway).await
}

/// SIGHUP, and what the log says of it.
async fn hup(gateway: &Gateway) -> String {
    let before = gateway.log().len();
    gateway.signal("HUP");
    eventually("the reload is over", SOON, async || {
        let log = gateway.log();
        let said = log.get(before..)?;
        let over = said.contains("read again") || said.contains("not reloaded");
        (over && said.ends_with('\n')).then(|| said.to_owned())
    })
    .await
}

#[tokio::test]
async fn what_can_change_does_without_a_restart_and_the_rest_is_named() {
    let gateway = Launch::with_file(FILE, &[]).start().await;
    let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_secs(3))).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    send(&gateway, "acme", 1).await;
    receiver.delivered("/hook", 1, SOON).await; // 3 s are within the time-out
    assert!(!gateway.log().contains("DEBUG"), "{}", gateway.log());

    let new = FILE
        .replace("\"15s\"", "\"1s\"\nconnect_timeout = \"500ms\"")
        .replace("\"info\"", "\"debug\"")
        .replace("500\n", "400\n");
    let said = reload(&gateway, &new).await;
    assert!(said.contains("delivery.timeout"), "{said}");
    assert!(said.contains("log.level"), "{said}");
    let restart = eventually("the rest is named", SOON, async || {
        let log = gateway.log();
        let mut lines = log.lines();
        lines
            .find(|line| line.contains("only after a restart"))
            .map(str::to_owned)
    })
    .await;
    assert!(restart.contains("server.max_connections"), "{restart}");
    assert!(!restart.contains("delivery.timeout"), "{restart}");

    let begun = now();
    let id = send(&gateway, "acme", 2).await;
    let path = format!("/api/v1/app/acme/attempt/msg/{id}");
    let attempt = eventually("the attempt is over", SOON, async || {
        let listed = gateway.list(&path).await;
        listed.into_iter().next()
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_millis(2_900),
        "cut off after 1 s"
    );
    assert_eq!(attempt["failure"], "timeout.total", "{attempt}");
    assert!(gateway.log().contains("DEBUG"), "the new level is in force");
}

#[tokio::test]
async fn a_new_retry_schedule_and_limit_hold_from_the_next_attempt_on() {
    let gateway = Launch::with_file(FILE, &[]).start().await;
    let receiver = Receiver::scripted(|request| {
        let answer = if request.nth == 1 {
            Answer::status(500)
        } else {
            Answer::ok()
        };
        answer.after(Duration::from_millis(200))
    })
    .await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let waits = send(&gateway, "acme", 0).await;
    receiver.finished("/hook", 1, SOON).await;

    let new = FILE.replace("[\"1h\"]", "[\"1s\"]\nendpoint_concurrency = 2");
    let said = reload(&gateway, &new).await;
    assert!(said.contains("delivery.retry_schedule"), "{said}");
    assert!(said.contains("delivery.endpoint_concurrency"), "{said}");
    for n in 1..=8 {
        send(&gateway, "acme", n).await;
    }
    let done = receiver.delivered("/hook", 8, SOON).await;
    assert!(
        done.iter().all(|one| one.id != waits),
        "a retry that has its time keeps it"
    );
    let most = receiver.all().iter().map(|one| one.concurrent).max();
    assert_eq!(most, Some(2), "the new limit is in force");
}

#[tokio::test]
async fn a_mistake_in_the_file_changes_nothing_and_is_said() {
    let gateway = Launch::with_file(FILE, &[]).start().await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    // A good change beside two bad ones: none of the three is taken over.
    let wrong = FILE
        .replace("\"127.0.0.0/8\"", "")
        .replace("jitter = 0.0", "jitter = 7\nspeed = 3");
    let said = reload(&gateway, &wrong).await;
    assert!(said.contains("the old configuration stays"), "{said}");
    assert!(
        said.contains("delivery.jitter") && said.contains("delivery.speed"),
        "{said}"
    );
    send(&gateway, "acme", 1).await;
    receiver.delivered("/hook", 1, SOON).await;

    // A file that is gone is a mistake as well.
    std::fs::remove_file(gateway.launch().dir().join("posthaste.toml")).unwrap();
    let said = hup(&gateway).await;
    assert!(said.contains("the old configuration stays"), "{said}");
    assert!(said.contains("posthaste.toml"), "{said}");
    send(&gateway, "acme", 2).await;
    receiver.delivered("/hook", 2, SOON).await;
}

/// Writes a fresh certificate for `localhost` and its key; answers it.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// A connection that trusts `certificate` alone.
async fn connect(
    gateway: &Gateway,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Asks for `/health` and leaves the connection open.
async fn health(stream: &mut TlsStream<TcpStream>) -> String {
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn new_connections_see_the_new_certificate_and_open_ones_stay() {
    let files = tempfile::tempdir().unwrap();
    let old = certificate(files.path());
    let path = |name: &str| files.path().join(name).display().to_string();
    let tls = format!(
        "[server]\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
        path("cert.pem"),
        path("key.pem")
    );
    let gateway = Launch::with_file(&tls, &[]).spawn();
    eventually("it is ready", SOON, async || {
        gateway.log().contains("posthaste is ready").then_some(())
    })
    .await;
    let mut open = connect(&gateway, &old).await.unwrap();
    assert!(health(&mut open).await.starts_with("HTTP/1.1 200"));

    let new = certificate(files.path());
    assert!(
        connect(&gateway, &new).await.is_err(),
        "not before it is told"
    );
    let said = hup(&gateway).await;
    assert!(said.contains("read again"), "{said}");
    let mut fresh = connect(&gateway, &new).await.unwrap();
    assert!(health(&mut fresh).await.starts_with("HTTP/1.1 200"));
    assert!(
        connect(&gateway, &old).await.is_err(),
        "the old one is gone"
    );
    assert!(
        health(&mut open).await.starts_with("HTTP/1.1 200"),
        "open connections stay"
    );

    // A certificate and the key of another: the pair in force stays.
    let kept = std::fs::read_to_string(files.path().join("cert.pem")).unwrap();
    certificate(files.path());
    std::fs::write(files.path().join("cert.pem"), kept).unwrap();
    let said = hup(&gateway).await;
    assert!(said.contains("the old configuration stays"), "{said}");
    connect(&gateway, &new).await.unwrap();
}
