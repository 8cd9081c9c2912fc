//! The paths that every message takes, run a given number of times: `scripts/instructions` counts
//! their instructions under valgrind, which shows a regression without a quiet machine.
//!
//! `instructions NAME COUNT` runs one; without arguments each runs once, so that `cargo bench -- --test`
//! sees that they work.
#![expect(clippy::expect_used, reason = "a benchmark may stop")]
#![expect(clippy::print_stdout, reason = "the list of names is what it says")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use posthaste::base::{Id20, Timestamp};
use posthaste::ingest::parse::{self, Limits};
use posthaste::model::{
    AppNo, ContentType, EndpointNo, LaneId, Message, MessageId, Position, Profile, Secret,
};
use posthaste::policy::sign::Signer;

const NAMES: [&str; 5] = ["parse-1k", "parse-64k", "sign-1k", "id-text", "id-parse"];

fn body(size: usize) -> Vec<u8> {
    let mut payload = String::from("{\"items\":[");
    let mut n = 0;
    while payload.len() + 70 < size {
        payload.push_str(&format!(
            "{{\"id\":{n},\"name\":\"item number {n}\",\"price\":1{n}.50,\"tags\":[\"a\"]}},"
        ));
        n += 1;
    }
    payload.push_str("{}]}");
    format!("{{\"eventType\":\"invoice.paid\",\"payload\":{payload}}}").into_bytes()
}

fn parse(size: usize, count: u64) {
    let body = body(size);
    let limits = Limits {
        max_payload: 1 << 20,
        max_depth: 64,
    };
    for _ in 0..count {
        let read = parse::message(black_box(&body), &limits);
        black_box(read.expect("a good body"));
    }
}

fn message() -> Message {
    Message {
        at: Position {
            lane: LaneId(1),
            seq: 7,
        },
        accepted: Timestamp::from_millis(1_767_600_000_000),
        app: AppNo(1),
        event_type: Arc::from("invoice.paid"),
        content_type: ContentType::Json,
        payload: Bytes::from_static(&[b'x'; 1024]),
        targets: vec![EndpointNo(1)],
        labels: None,
    }
}

fn sign(count: u64) {
    let secret = Secret::new(String::from(
        "whsec_bG9hZHRlc3QtbG9hZHRlc3QtbG9hZHRlc3QtMDE=",
    ));
    let signer = Signer::new(&Profile::Standard, &secret, &[]).expect("a good secret");
    let message = message();
    let id = message.id().to_string();
    for _ in 0..count {
        let mut headers = Vec::with_capacity(6);
        let payload = black_box(&message.payload);
        signer.headers(
            &id,
            &message.event_type,
            message.accepted,
            payload,
            &mut headers,
        );
        black_box(headers);
    }
}

fn run(name: &str, count: u64) {
    match name {
        "parse-1k" => parse(1 << 10, count),
        "parse-64k" => parse(64 << 10, count),
        "sign-1k" => sign(count),
        "id-text" => {
            for n in 0..count {
                let mut unique = [0; 14];
                unique[6..].copy_from_slice(&n.to_be_bytes());
                black_box(Id20::new(Timestamp::from_millis(n), unique).text("msg_"));
            }
        }
        "id-parse" => {
            let text = message().id().to_string();
            for _ in 0..count {
                black_box(MessageId::parse(black_box(&text)).expect("an id"));
            }
        }
        _ => {} // `main` asks for those of the list only
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [only] if only == "--list" => println!("{}", NAMES.join("\n")),
        [name, count] if NAMES.contains(&name.as_str()) => {
            run(name, count.parse().expect("a number of rounds"));
        }
        _ => NAMES.iter().for_each(|name| run(name, 1)),
    }
}
