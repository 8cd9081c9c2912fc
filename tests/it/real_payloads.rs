//! Real webhook bodies through the gateway to receivers that verify with the official libraries.
//!
//! Bodies: every example of npm's `@octokit/webhooks-examples`, in the bytes in which the package
//! ships them, white space included. Receivers: one Node process with npm's `standardwebhooks`, one
//! Python process with PyPI's. Each reports a line per request; the test compares hashes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::kit::{Gateway, dependency, eventually, hash, repository, say};

const SECRET: &str = "whsec_cmVhbC1wYXlsb2Fkcy10aHJvdWdoLXRoZS1nYXRld2F5";
const EXAMPLES: &str =
    "tests/node/node_modules/@octokit/webhooks-examples/api.github.com/index.json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_real_payload_arrives_byte_for_byte_and_verifies_with_the_official_libraries() {
    let examples = Example::all();
    assert!(examples.len() > 200, "only {} examples", examples.len());
    let dir = tempfile::tempdir().unwrap();
    let verifiers = [Verifier::node(dir.path()), Verifier::python(dir.path())];
    let gateway = Gateway::start(&[]).await;
    let api = gateway.api();
    let app = json!({"name": "GitHub", "uid": "github"});
    api.post("/api/v1/app", &app).await.expect(201);
    for verifier in &verifiers {
        let endpoint = json!({"url": verifier.url, "secret": SECRET});
        let made = api.post("/api/v1/app/github/endpoint", &endpoint).await;
        made.expect(201);
    }

    let mut sent = HashMap::new();
    for example in &examples {
        let reply = api
            .send(
                Method::POST,
                "/api/v1/app/github/msg",
                &[],
                example.message(),
            )
            .await
            .unwrap();
        let id = reply.expect(202)["id"].as_str().unwrap().to_owned();
        sent.insert(id, hash(example.payload.as_bytes()));
    }
    for verifier in &verifiers {
        let what = format!("all {} payloads at {}", sent.len(), verifier.name);
        let reports = eventually(&what, Duration::from_secs(20), async || {
            let reports = verifier.reports();
            (reports.len() >= sent.len()).then_some(reports)
        })
        .await;
        let mut received = HashMap::new();
        for report in reports {
            assert!(
                report.verified,
                "{}: {} {:?}",
                verifier.name, report.id, report.error
            );
            received.insert(report.id, report.sha256);
        }
        assert_eq!(received, sent, "{}", verifier.name);
    }
    say(&format!(
        "{} payloads, {} bytes, verified by {} and {}",
        examples.len(),
        examples.iter().map(|one| one.payload.len()).sum::<usize>(),
        verifiers[0].name,
        verifiers[1].name
    ));
}

#[tokio::test]
async fn the_official_libraries_refuse_what_was_tampered_with() {
    // Without this, a verifier that accepts everything would let the test above pass.
    let dir = tempfile::tempdir().unwrap();
    for verifier in [Verifier::node(dir.path()), Verifier::python(dir.path())] {
        let address = verifier
            .url
            .trim_start_matches("http://")
            .trim_end_matches("/hook")
            .parse()
            .unwrap();
        let headers = [
            ("webhook-id", "msg_tampered"),
            ("webhook-timestamp", "1649367553"),
            (
                "webhook-signature",
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ];
        let client = crate::kit::Client::new(address, None);
        let reply = client
            .send(Method::POST, "/hook", &headers, Bytes::from_static(b"{}"))
            .await
            .unwrap();
        assert_eq!(reply.status, 401, "{}", verifier.name);
        let reports = verifier.reports();
        assert!(!reports[0].verified && reports[0].error.is_some());
    }
}

/// One body of the package.
struct Example {
    event: String,
    payload: String,
}

impl Example {
    fn all() -> Vec<Self> {
        #[derive(Deserialize)]
        struct Group {
            name: String,
            examples: Vec<Box<RawValue>>,
        }
        let text = std::fs::read(dependency(repository(EXAMPLES))).unwrap();
        let groups: Vec<Group> = serde_json::from_slice(&text).unwrap();
        groups
            .into_iter()
            .flat_map(|group| {
                let event = format!("github.{}", group.name);
                group.examples.into_iter().map(move |payload| Self {
                    event: event.clone(),
                    payload: payload.get().to_owned(),
                })
            })
            .collect()
    }

    /// The request body, with the payload's own bytes in it.
    fn message(&self) -> Bytes {
        let (event, payload) = (&self.event, &self.payload);
        Bytes::from(format!(r#"{{"eventType":"{event}","payload":{payload}}}"#))
    }
}

/// A receiver in another language, as a child process.
struct Verifier {
    name: &'static str,
    child: Child,
    url: String,
    report: PathBuf,
}

/// What it writes for each request.
#[derive(Deserialize)]
struct Report {
    id: String,
    sha256: String,
    verified: bool,
    error: Option<String>,
}

impl Verifier {
    fn node(dir: &Path) -> Self {
        dependency(repository("tests/node/node_modules/standardwebhooks"));
        let mut command = Command::new("node");
        command.arg(repository("tests/node/receiver.mjs"));
        Self::start("node", command, dir)
    }

    fn python(dir: &Path) -> Self {
        let python = dependency(repository("target/test-venv/bin/python"));
        let mut command = Command::new(python);
        command
            .arg("-u")
            .arg(repository("tests/python/receiver.py"));
        Self::start("python", command, dir)
    }

    /// Its first line of output is the port.
    fn start(name: &'static str, mut command: Command, dir: &Path) -> Self {
        let report = dir.join(format!("{name}.jsonl"));
        let mut child = command
            .arg(SECRET)
            .arg(&report)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port: u16 = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{name} says no port: run scripts/install-test-deps"));
        Self {
            name,
            child,
            url: format!("http://127.0.0.1:{port}/hook"),
            report,
        }
    }

    fn reports(&self) -> Vec<Report> {
        let text = std::fs::read_to_string(&self.report).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_err() {}
    }
}
