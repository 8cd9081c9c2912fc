//! The first page of a list against the number of messages behind it: the embedded store on a disk.
//!
//! `list/messages/N` reads the newest 50 messages of an application that has N, payloads included, as
//! `GET /app/{app_id}/msg` does; `list/attempts/N` the newest 50 attempts at its endpoint. Both must cost
//! the same at every N. `-- --test` makes small stores only.
#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::path::Path;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use posthaste::base::Timestamp;
use posthaste::config::{Retention, Storage};
use posthaste::model::{
    AppNo, Attempt, ContentType, EndpointNo, LaneId, Message, Outcome, Position, Trigger, Verdict,
};
use posthaste::store::fjall::{Opened, Store};
use posthaste::store::{Accept, Page, Reader, Settlement, Writer};

/// 2026-01-05T08:15:30Z
const START: u64 = 1_767_600_930_000;
const APP: AppNo = AppNo(1);
const ENDPOINT: EndpointNo = EndpointNo(1);
/// Messages of one commit.
const GROUP: u64 = 1000;

const FIRST: Page = Page {
    from: None,
    until: None,
    newest_first: true,
    limit: 50,
};

fn message(n: u64) -> Accept {
    let payload = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(200));
    let message = Message {
        at: Position {
            lane: LaneId(0),
            seq: 0,
        },
        // A hundred a second: a million takes some three hours.
        accepted: Timestamp::from_millis(START + n / GROUP * GROUP * 10),
        app: APP,
        event_type: "invoice.paid".into(),
        content_type: ContentType::Json,
        payload: Bytes::from(payload),
        targets: vec![ENDPOINT],
        labels: None,
    };
    Accept {
        message,
        idempotency: None,
    }
}

fn attempt(accepted: &Message) -> Attempt {
    Attempt {
        at: accepted.at,
        endpoint: ENDPOINT,
        app: APP,
        no: 1,
        accepted: Some(accepted.accepted),
        ended: accepted.accepted,
        duration_ms: 12,
        outcome: Outcome {
            status: 200,
            failure: None,
            retry_after_secs: None,
        },
        trigger: Trigger::Scheduled,
        verdict: Verdict::Delivered,
        response: Bytes::from_static(b"ok"),
    }
}

/// A store with `count` messages, each delivered once.
fn filled(dir: &Path, count: u64) -> Opened {
    let storage = Storage {
        dir: dir.to_path_buf(),
        ..Storage::default()
    };
    let mut opened = Store::open(&storage, &Retention::default()).expect("a new store opens");
    let writer = &mut opened.writer;
    for group in 0..count / GROUP {
        let mut batch: Vec<Accept> = (0..GROUP).map(|n| message(group * GROUP + n)).collect();
        writer.append(&mut batch).expect("the disk takes it");
        let last = batch.last().map_or(0, |accept| accept.message.at.seq);
        let settlement = Settlement {
            attempts: batch
                .iter()
                .map(|accept| attempt(&accept.message))
                .collect(),
            checkpoint: vec![(writer.lane(), last)],
            ..Settlement::default()
        };
        writer.settle(&settlement).expect("the disk takes it");
    }
    opened
}

fn first_page(bench: &mut Criterion) {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let sizes: &[u64] = if is_test {
        &[1_000, 3_000]
    } else {
        &[1_000, 10_000, 100_000, 1_000_000]
    };
    let mut group = bench.benchmark_group("list");
    for &count in sizes {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let opened = filled(dir.path(), count);
        let reader = &opened.reader;
        group.bench_function(BenchmarkId::new("messages", count), |bench| {
            bench.iter(|| {
                let listed = reader
                    .app_messages(APP, &FIRST)
                    .expect("the list can be read");
                assert_eq!(listed.len(), FIRST.limit);
                for entry in &listed {
                    let found = reader
                        .message(entry.key.at)
                        .expect("the message can be read");
                    black_box(found.expect("the message is there"));
                }
            });
        });
        group.bench_function(BenchmarkId::new("attempts", count), |bench| {
            bench.iter(|| {
                let listed = reader.endpoint_attempts(ENDPOINT, &FIRST);
                let listed = listed.expect("the list can be read");
                assert_eq!(listed.len(), FIRST.limit);
                for entry in &listed {
                    let found = reader.attempts(entry.key.at, Some(ENDPOINT));
                    black_box(found.expect("the attempts can be read"));
                }
            });
        });
        drop(opened);
    }
    group.finish();
}

criterion_group!(benches, first_page);
criterion_main!(benches);
