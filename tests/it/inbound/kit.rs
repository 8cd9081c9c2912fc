//! A gateway whose clock is set by hand behind a real listener, and a client that sends exact bytes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test kit: a failure is a failed test"
)]

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use posthaste::base::task::{Stopper, detach};
use posthaste::base::{Clock, Timestamp};
use posthaste::config::Config;
use posthaste::metrics::ServerMetrics;
use posthaste::model::{Message, Position};
use posthaste::server::{Bound, Server, Settings};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::kit::Gateway;

const DEADLINE: Duration = Duration::from_secs(10);

/// The secret of [`Stage::standard`]: `whsec_` and 32 bytes.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    _stopper: Stopper,
}

/// An answer, its head in lower case.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{}:", name.to_ascii_lowercase());
        let mut lines = self.head.lines();
        let value = lines.find_map(|line| line.strip_prefix(&start));
        value.map(str::trim)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A source that was made.
#[derive(Debug, Clone)]
pub(crate) struct SourceRef {
    pub(crate) id: String,
    pub(crate) path: String,
}

/// What tells whether anything was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    messages: usize,
    last: Vec<u64>,
    revision: u64,
    rows: usize,
}

impl Counts {
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }
}

impl Stage {
    pub(crate) async fn open() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut Config)) -> Self {
        let gateway = Gateway::with(set).await;
        let app = json!({"name": "Acme", "uid": "acme"});
        gateway.call("POST", "/app").json(&app).expect(201).await;
        let bound = Bound::to(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let settings = Settings {
            max_connections: 100,
            header_timeout: DEADLINE,
            body_timeout: DEADLINE,
            idle_timeout: DEADLINE,
        };
        let server = Server::new(bound, None, settings, ServerMetrics::register());
        let address = server.address();
        let (stopper, stop) = Stopper::new();
        let front = gateway.front.clone();
        detach(async move {
            server.run(front, stop, DEADLINE).await.unwrap();
        });
        Self {
            gateway,
            address,
            _stopper: stopper,
        }
    }

    /// Makes a source with `fields` on top of name and application.
    pub(crate) async fn source(&self, provider: &str, fields: Value) -> SourceRef {
        let mut body = json!({"name": provider, "provider": provider, "appId": "acme"});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = self.gateway.call("POST", "/source").json(&body);
        let made = made.expect(201).await.json();
        SourceRef {
            id: made["id"].as_str().unwrap().to_owned(),
            path: made["path"].as_str().unwrap().to_owned(),
        }
    }

    /// A source for Standard Webhooks with [`SECRET`].
    pub(crate) async fn standard(&self, fields: Value) -> SourceRef {
        let mut fields = fields;
        fields["secrets"] = json!({"secret": SECRET});
        self.source("standard_webhooks", fields).await
    }

    /// A signed request of Standard Webhooks.
    pub(crate) async fn send(&self, path: &str, id: &str, body: &str) -> Answer {
        let headers = self.signed(SECRET, id, body);
        self.raw("POST", path, &headers, body.as_bytes()).await
    }

    /// Headers of Standard Webhooks for `body`, at the gateway's time.
    pub(crate) fn signed(&self, secret: &str, id: &str, body: &str) -> Vec<(String, String)> {
        let now = self.gateway.clock.now().millis() / 1000;
        signed_at(secret, id, now, body)
    }

    /// One request on a connection of its own.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Answer {
        let mut wire = format!("{method} {path} HTTP/1.1\r\nhost: attacker.example\r\n");
        for (name, value) in headers {
            wire.push_str(&format!("{name}: {value}\r\n"));
        }
        wire.push_str(&format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        ));
        let mut bytes = wire.into_bytes();
        bytes.extend_from_slice(body);
        self.exchange(&bytes).await
    }

    /// Sends bytes as they are and reads to the end.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // An answer may come before all was sent, and the rest is not read then.
            drop(stream.write_all(bytes).await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            answer
        };
        let answer = tokio::time::timeout(DEADLINE, exchange).await;
        parse(&answer.expect("the gateway answers"))
    }

    /// Everything that a request could have left in the store.
    pub(crate) fn counts(&self) -> Counts {
        let lanes = self.gateway.reader.lanes().unwrap();
        let (revision, rows) = self.gateway.reader.config().unwrap();
        let last: Vec<u64> = lanes.iter().map(|lane| lane.last).collect();
        Counts {
            messages: usize::try_from(last.iter().sum::<u64>()).unwrap(),
            last,
            revision,
            rows: rows.len(),
        }
    }

    /// The messages as they are stored, oldest first.
    pub(crate) fn stored(&self) -> Vec<Message> {
        let lanes = self.gateway.reader.lanes().unwrap();
        let all = lanes.iter().flat_map(|lane| {
            let start = Position {
                lane: lane.id,
                seq: 0,
            };
            self.gateway.reader.fetch(start, 10_000).unwrap()
        });
        all.collect()
    }

    /// The messages of the application, oldest first.
    pub(crate) async fn messages(&self) -> Vec<Value> {
        let page = self
            .gateway
            .get("/app/acme/msg?limit=250")
            .expect(200)
            .await;
        let mut found = page.json()["data"].as_array().unwrap().clone();
        found.reverse();
        found
    }

    /// What the source received, newest first.
    pub(crate) async fn receipts(&self, source: &SourceRef) -> Vec<Value> {
        let path = format!("/source/{}/receipts", source.id);
        let page = self.gateway.get(&path).expect(200).await.json();
        page["data"].as_array().unwrap().clone()
    }

    pub(crate) fn set_time(&self, unix: u64) {
        self.gateway.clock.set(Timestamp::from_millis(unix * 1000));
    }
}

pub(crate) fn signed_at(secret: &str, id: &str, now: u64, body: &str) -> Vec<(String, String)> {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{now}.{body}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", &now.to_string()),
        ("webhook-signature", &format!("v1,{signature}")),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    headers.into()
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(answer)));
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer[end + 4..].to_vec();
    Answer { status, head, body }
}
