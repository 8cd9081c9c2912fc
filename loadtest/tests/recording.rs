//! The record outlives its recorder: SIGKILL of the harness, and everything that had happened is
//! found in the files.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: a failure is a failed test"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Bodies that the recorder's producer sent, and ids that its receiver answered.
#[derive(Default)]
struct Seen {
    sent: BTreeSet<String>,
    answered: BTreeSet<String>,
}

#[test]
fn a_killed_recorder_has_everything_on_record_that_was_sent_or_answered() {
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["record", "--key", "any", "--app", "acme", "--pause-ms", "0"])
        .args(["--address", &gateway.local_addr().unwrap().to_string()])
        .args(["--endpoint", "well=ep_well=whsec_bG9hZHRlc3Q="])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(recorder.stdout.take().unwrap()).lines();
    let receiver = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(address) = line.strip_prefix("receiver on http://") {
            break address.to_owned();
        }
    };
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let serving = Arc::clone(&seen);
    std::thread::spawn(move || serve(&gateway, &receiver, &serving));

    let deadline = Instant::now() + Duration::from_secs(20);
    while seen.lock().unwrap().answered.len() < 200 {
        assert!(Instant::now() < deadline, "the recorder makes no progress");
        std::thread::yield_now();
    }
    recorder.kill().unwrap(); // SIGKILL, amid everything
    recorder.wait().unwrap();

    let begun = field(&entries(dir.path().join("producer.jsonl")), "hash");
    let arrived = field(&entries(dir.path().join("receiver.jsonl")), "id");
    let seen = seen.lock().unwrap();
    let unrecorded: Vec<_> = seen.sent.difference(&begun).collect();
    assert!(
        unrecorded.is_empty(),
        "sent and not on record: {unrecorded:?}"
    );
    let unrecorded: Vec<_> = seen.answered.difference(&arrived).collect();
    assert!(
        unrecorded.is_empty(),
        "answered and not on record: {unrecorded:?}"
    );

    // And the checker reads it: a torn last line at most, no error.
    let judged = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("check")
        .arg(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(judged.stdout).unwrap();
    assert!(
        text.contains("acknowledged (") && !text.contains("FAULT"),
        "{text}"
    );
}

/// Complete lines of a file of a history.
fn entries(path: std::path::PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn field(entries: &[Value], name: &str) -> BTreeSet<String> {
    let values = entries.iter().filter_map(|entry| entry[name].as_str());
    values.map(str::to_owned).collect()
}

/// Takes messages like a gateway and hands each to the receiver, one after another.
fn serve(listener: &TcpListener, receiver: &str, seen: &Mutex<Seen>) {
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            scope.spawn(move || {
                let mut number = 0;
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(body) = request(&mut reader) {
                    number += 1;
                    let message: Value = serde_json::from_slice(&body).unwrap();
                    let payload = message["payload"].to_string();
                    let id = format!("msg_{:?}_{number}", std::thread::current().id());
                    seen.lock().unwrap().sent.insert(hash(&payload));
                    let answer = format!(r#"{{"id":"{id}","endpoints":["ep_well"]}}"#);
                    if write!(
                        &stream,
                        "HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n{answer}",
                        answer.len()
                    )
                    .is_err()
                    {
                        return;
                    }
                    if deliver(receiver, &id, &payload).is_some() {
                        seen.lock().unwrap().answered.insert(id);
                    }
                }
            });
        }
    });
}

/// The body of the next request.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// One delivery; something if it was answered 2xx.
fn deliver(receiver: &str, id: &str, payload: &str) -> Option<()> {
    let mut stream = TcpStream::connect(receiver).ok()?;
    write!(
        stream,
        "POST /well HTTP/1.1\r\nhost: {receiver}\r\nconnection: close\r\nwebhook-id: {id}\r\nwebhook-timestamp: 1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{payload}",
        payload.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 204").then_some(())
}

fn hash(payload: &str) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(payload.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
