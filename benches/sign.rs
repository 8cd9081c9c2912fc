//! Signing a body of 1 KiB: once per attempt, on the path of every delivery.

#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use posthaste::base::Timestamp;
use posthaste::model::{HexKey, HexProfile, Profile, Secret};
use posthaste::policy::sign::{Signer, generate};

fn sign(criterion: &mut Criterion) {
    let body = vec![b'x'; 1024];
    let now = Timestamp::from_millis(1_767_600_930_120);
    let hex = Profile::Hex(HexProfile {
        header: String::from("X-Webhook-Signature"),
        prefix: String::from("sha256="),
        type_header: None,
        id_header: None,
        timestamp_header: None,
        key: HexKey::Text,
        also_standard: false,
    });
    let seed = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let mut group = criterion.benchmark_group("sign");
    group.throughput(Throughput::Bytes(1024));
    for (name, profile, secret) in [
        ("v1", Profile::Standard, generate([7; 32])),
        ("v1a", Profile::Standard, Secret::new(seed.to_owned())),
        ("hex", hex, generate([7; 32])),
    ] {
        let signer = Signer::new(&profile, &secret, &[]).expect("the secret fits the profile");
        let mut out = Vec::with_capacity(6);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                signer.headers(
                    "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                    "invoice.paid",
                    now,
                    black_box(&body),
                    &mut out,
                );
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sign);
criterion_main!(benches);
