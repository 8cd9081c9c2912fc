//! What a group commit costs: messages of 1 KiB, as many as wait while the last fsync runs.
//!
//! `append/N` is one durable group of N on the disk of the temporary directory; `append_cpu/N` and
//! `settle_delivered/N` are the same on memory (`/dev/shm`), where a sync costs nothing.
#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use posthaste::base::Timestamp;
use posthaste::config::{Retention, Storage};
use posthaste::model::{
    AppNo, Attempt, ContentType, EndpointNo, Message, Outcome, ParkReason, Parked, ParkedKey,
    Position, Trigger, Verdict,
};
use posthaste::store::fjall::Store;
use posthaste::store::{Accept, Settlement, Writer};

const GROUPS: [usize; 5] = [1, 16, 64, 256, 1024];

fn accept(app: u32, ms: u64) -> Accept {
    Accept {
        message: Message {
            at: Position::START,
            accepted: Timestamp::from_millis(ms),
            app: AppNo(app),
            event_type: "invoice.paid".into(),
            content_type: ContentType::Json,
            payload: Bytes::from(payload()),
            targets: vec![EndpointNo(app)],
            labels: None,
        },
        idempotency: None,
    }
}

/// 1 KiB that looks like JSON to a compressor.
fn payload() -> Vec<u8> {
    let mut text = String::from("{\"items\":[");
    for n in 0..40 {
        text.push_str(&format!("{{\"id\":{},\"name\":\"n{n}\"}},", n * 7919));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(1024, b' ');
    bytes
}

fn open(dir: &Path) -> impl Writer {
    let options = Storage {
        dir: dir.to_owned(),
        ..Storage::default()
    };
    let opened = Store::open(&options, &Retention::default());
    opened.expect("an empty directory can be opened").writer
}

fn append(bench: &mut Criterion, name: &str, dir: &Path) {
    let mut writer = open(dir);
    let mut ms = 1_767_600_000_000;
    let mut group = bench.benchmark_group(name);
    group.measurement_time(Duration::from_secs(3));
    for waiting in GROUPS {
        group.throughput(Throughput::Elements(u64::try_from(waiting).unwrap_or(1)));
        group.bench_function(BenchmarkId::from_parameter(waiting), |bench| {
            let prepare = || -> Vec<Accept> {
                ms += 1;
                (0..waiting)
                    .map(|n| accept(u32::try_from(n % 8).unwrap_or(0), ms))
                    .collect()
            };
            let commit = |batch: &mut Vec<Accept>| {
                writer.append(batch).expect("the disk takes it");
                black_box(batch.len())
            };
            bench.iter_batched_ref(prepare, commit, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn settle(bench: &mut Criterion, dir: &Path) {
    let mut writer = open(dir);
    let lane = writer.lane();
    let mut seq = 0;
    let mut group = bench.benchmark_group("settle_delivered");
    group.measurement_time(Duration::from_secs(3));
    for attempts in [64_u64, 512] {
        group.throughput(Throughput::Elements(attempts));
        group.bench_function(BenchmarkId::from_parameter(attempts), |bench| {
            let prepare = || {
                let first = seq + 1;
                seq += attempts;
                let attempts = (first..=seq).map(|seq| attempt(Position { lane, seq }));
                Settlement {
                    attempts: attempts.collect(),
                    checkpoint: vec![(lane, seq)],
                    ..Settlement::default()
                }
            };
            let apply = |one: &mut Settlement| writer.settle(one).expect("the disk takes it");
            bench.iter_batched_ref(prepare, apply, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Opening a store in which a million deliveries are parked.
fn open_backlog(bench: &mut Criterion, dir: &Path) {
    let mut writer = open(dir);
    let lane = writer.lane();
    for start in (0..1_000_000_u64).step_by(20_000) {
        let park = (start..start + 20_000).map(|seq| parked(Position { lane, seq }));
        let settlement = Settlement {
            park: park.collect(),
            ..Settlement::default()
        };
        writer.settle(&settlement).expect("the disk takes it");
    }
    drop(writer);
    let mut group = bench.benchmark_group("open_backlog");
    group.sample_size(10);
    group.bench_function("1000000", |bench| {
        bench.iter_with_large_drop(|| open(dir).lane())
    });
    group.finish();
}

fn parked(at: Position) -> Parked {
    Parked {
        key: ParkedKey {
            endpoint: EndpointNo(1),
            due: Timestamp::ZERO,
            at,
        },
        attempts: 3,
        base: 0,
        reason: ParkReason::Retry,
        trigger: Trigger::Scheduled,
        bytes: 1024,
        order_key: 0,
    }
}

fn attempt(at: Position) -> Attempt {
    Attempt {
        at,
        accepted: Some(Timestamp::from_millis(1_767_600_000_000 + at.seq / 20)),
        endpoint: EndpointNo(u32::try_from(at.seq % 16).unwrap_or(0)),
        app: AppNo(1),
        no: 1,
        ended: Timestamp::from_millis(1_767_600_000_000 + at.seq / 20),
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

fn all(bench: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    append(bench, "append", dir.path());
    let backlog = tempfile::tempdir().expect("a temporary directory");
    open_backlog(bench, backlog.path());
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let dir = tempfile::tempdir_in(memory).expect("a temporary directory");
        append(bench, "append_cpu", dir.path());
        let dir = tempfile::tempdir_in(memory).expect("a temporary directory");
        settle(bench, dir.path());
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
