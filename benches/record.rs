//! What it costs to write and read the record of a message.
#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use posthaste::base::Timestamp;
use posthaste::model::{AppNo, ContentType, EndpointNo, LaneId, Message, Position};
use posthaste::store::fjall::message;

fn sample(size: usize) -> Message {
    Message {
        at: Position {
            lane: LaneId(1),
            seq: 7,
        },
        accepted: Timestamp::from_millis(1_767_600_000_000),
        app: AppNo(1),
        event_type: "invoice.paid".into(),
        content_type: ContentType::Json,
        payload: Bytes::from(vec![b'x'; size]),
        targets: vec![EndpointNo(1), EndpointNo(2)],
        labels: None,
    }
}

fn records(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("record");
    for size in [256, 1024, 16 * 1024] {
        let message = sample(size);
        group.throughput(Throughput::Bytes(u64::try_from(size).unwrap_or(0)));
        group.bench_function(BenchmarkId::new("encode", size), |bench| {
            let mut out = BytesMut::with_capacity(message::size(&message));
            bench.iter(|| {
                out.clear();
                message::encode(black_box(&message), &mut out).expect("it fits")
            });
        });
        let mut out = BytesMut::new();
        message::encode(&message, &mut out).expect("it fits");
        let (key, value) = (message.at.bytes(), out.freeze());
        group.bench_function(BenchmarkId::new("decode", size), |bench| {
            bench
                .iter(|| message::decode(black_box(&key), black_box(&value)).expect("it is whole"));
        });
    }
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
