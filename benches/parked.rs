//! What it costs to take parked deliveries up again: pages of rows with the messages of those that are
//! due, out of a store of 200,000 messages of 1 KiB that was closed and opened again.
//!
//! `parked_page/N` reads N rows and their messages, each page behind the one before, as a backlog
//! drains; `parked_rows/N` reads the rows alone.
#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use posthaste::base::Timestamp;
use posthaste::config::{Retention, Storage};
use posthaste::model::{
    AppNo, ContentType, EndpointNo, Message, ParkReason, Parked, ParkedKey, Position, Trigger,
};
use posthaste::schedule::core::{Input, Kind, Read};
use posthaste::schedule::read_page;
use posthaste::store::fjall::{Opened, Store};
use posthaste::store::{Accept, Settlement, Writer};

const GROUP: u64 = 1000;
const ENDPOINT: EndpointNo = EndpointNo(1);
const NOW: Timestamp = Timestamp::from_millis(1_767_600_000_000);

fn open(dir: &Path) -> Opened {
    let options = Storage {
        dir: dir.to_owned(),
        ..Storage::default()
    };
    Store::open(&options, &Retention::default()).expect("the directory can be opened")
}

fn accept(number: u64) -> Accept {
    let mut payload = format!("{{\"number\":{number},\"filling\":\"").into_bytes();
    let filling = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while payload.len() < 1000 {
        payload.extend_from_slice(format!("{:x} ", filling.rotate_left(7)).as_bytes());
    }
    payload.extend_from_slice(b"\"}");
    Accept {
        message: Message {
            at: Position::START,
            accepted: NOW,
            app: AppNo(1),
            event_type: "invoice.paid".into(),
            content_type: ContentType::Json,
            payload: Bytes::from(payload),
            targets: vec![ENDPOINT],
            labels: None,
        },
        idempotency: None,
    }
}

/// 200,000; a few to see whether it works (`-- --test`).
fn messages() -> u64 {
    let is_test = std::env::args().any(|argument| argument == "--test");
    if is_test { 2 * GROUP } else { 200 * GROUP }
}

fn fill(dir: &Path) {
    let mut writer = open(dir).writer;
    for start in (0..messages()).step_by(1000) {
        let mut group: Vec<_> = (start..start + GROUP).map(accept).collect();
        writer.append(&mut group).expect("the disk takes it");
        let park = group.iter().map(|one| Parked {
            key: ParkedKey {
                endpoint: ENDPOINT,
                due: Timestamp::ZERO,
                at: one.message.at,
            },
            attempts: 0,
            base: 0,
            reason: ParkReason::Backlog,
            trigger: Trigger::Scheduled,
            bytes: 1024,
            order_key: 0,
        });
        let settlement = Settlement {
            park: park.collect(),
            ..Settlement::default()
        };
        writer.settle(&settlement).expect("the disk takes it");
    }
    writer.close().expect("it closes");
}

fn pages(bench: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fill(dir.path());
    let opened = open(dir.path());
    for (name, walk) in [("parked_page", false), ("parked_rows", true)] {
        let mut group = bench.benchmark_group(name);
        group.measurement_time(Duration::from_secs(3));
        for limit in [16, 64, 256] {
            let rows = u64::try_from(limit).unwrap_or(1);
            group.throughput(Throughput::Elements(rows));
            group.bench_function(BenchmarkId::from_parameter(limit), |bench| {
                let mut after = None;
                bench.iter(|| {
                    let read = Read {
                        endpoint: ENDPOINT,
                        kind: Kind::Backlog,
                        after,
                        limit,
                        settled: 0,
                        walk,
                        no: 0,
                    };
                    let Input::Page { rows, .. } = read_page(opened.reader.as_ref(), read, NOW)
                    else {
                        return;
                    };
                    assert!(after.is_some() || rows.len() == limit);
                    // From the beginning again, once the end is reached.
                    after = rows
                        .last()
                        .map(|(row, _)| row.key)
                        .filter(|_| rows.len() == limit);
                    black_box(rows);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pages);
criterion_main!(benches);
