//! What accepting a message costs, without a disk and without a socket.
//!
//! `parse/N` reads a body with an N-byte payload, nesting bound included.
//! `request/1KiB` is a whole request: front, key, body, routing to 3 of 100 endpoints, commit thread
//! over the in-memory store, answer. One request at a time, so it holds two thread hand-overs.
#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::sync::Arc;

use axum::body::Body;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::Request;
use posthaste::api::{self, ApiState, Front};
use posthaste::auth::{self, Auth, Entropy};
use posthaste::base::{Clock, SystemClock, task};
use posthaste::config::Config;
use posthaste::directory::Directory;
use posthaste::inbound::{self, FetchKeys, Fetching, Inbound};
use posthaste::ingest::parse::{self, Limits};
use posthaste::ingest::{self, Ingest};
use posthaste::lane::{Lane, Options};
use posthaste::policy::target::TargetRules;
use posthaste::providers::Catalogue;
use posthaste::schedule::{self, Status};
use posthaste::store::model::Model;
use posthaste::vault::{MasterKey, Masters, Vault};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

const KEY: &str = "a-key-for-benchmarks-with-32-characters";

/// A message whose payload has about `size` bytes in items of some 60 bytes.
/// Nobody is asked for keys here.
struct NoKeys;

impl FetchKeys for NoKeys {
    fn fetch<'a>(&'a self, _url: &'a str) -> Fetching<'a> {
        Box::pin(async { Err(String::from("there are none")) })
    }
}

fn body(size: usize) -> String {
    let mut payload = String::from("{\"items\":[");
    let mut n = 0;
    while payload.len() + 70 < size {
        payload.push_str(&format!(
            "{{\"id\":{n},\"name\":\"item number {n}\",\"price\":1{n}.50,\"tags\":[\"a\"]}},"
        ));
        n += 1;
    }
    payload.push_str("{}]}");
    format!("{{\"eventType\":\"invoice.paid\",\"payload\":{payload}}}")
}

fn parsing(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("parse");
    let limits = Limits {
        max_payload: 1 << 20,
        max_depth: 64,
    };
    for size in [1 << 10, 64 << 10] {
        let body = body(size);
        group.throughput(Throughput::Bytes(u64::try_from(body.len()).expect("fits")));
        let id = BenchmarkId::from_parameter(size);
        group.bench_with_input(id, body.as_bytes(), |bench, body| {
            bench.iter(|| parse::message(black_box(body), &limits).expect("a good body"));
        });
    }
    group.finish();
}

/// The API over the in-memory store; what is committed is thrown away.
fn gateway() -> Front {
    let config = Config::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let (writer, reader) = Model::new().open();
    let (committed, mut messages) = mpsc::channel(64);
    task::detach(async move { while messages.recv().await.is_some() {} });
    let options = Options {
        queue: config.ingest.queue,
        queue_bytes: config.ingest.queue_bytes.get(),
        max_group: config.ingest.max_group,
    };
    let lane = Lane::start(Box::new(writer), Arc::clone(&clock), options, committed)
        .expect("a thread can be started");
    let (changed, mut changes) = mpsc::channel(64);
    task::detach(async move { while changes.recv().await.is_some() {} });
    let masters = Masters::one(MasterKey::new([7; 32]));
    let vault = Arc::new(Vault::new(masters, [7; 32]));
    let directory = Directory::load(reader.as_ref(), lane.clone(), changed, vault);
    let directory = Arc::new(directory.expect("an empty store can be read"));
    let (requests, _) = mpsc::channel(1);
    let (_, status) = watch::channel(Status::default());
    let entropy = Arc::new(Entropy::from_seed([7; 32]));
    let ingest = Arc::new(Ingest::new(ingest::Parts {
        config: config.ingest,
        remember_for: config.retention.idempotency,
        directory: Arc::clone(&directory),
        lane: lane.clone(),
        reader: Arc::clone(&reader),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
    }));
    let inbound = Inbound::new(inbound::Parts {
        config: config.inbound,
        ids_kept: config.retention.messages,
        base: None,
        trusted: Vec::new(),
        catalogue: Arc::new(Catalogue::builtin().expect("the manifests are good")),
        directory: Arc::clone(&directory),
        ingest: Arc::clone(&ingest),
        clock: Arc::clone(&clock),
        news: None,
        keys: Arc::new(NoKeys),
    });
    let auth = Auth::new(Arc::clone(&directory), Some(auth::hash(KEY)));
    let schedule = schedule::Handle::new(
        requests,
        status,
        Arc::clone(&reader),
        Arc::clone(&directory),
    );
    api::front(Arc::new(ApiState::new(api::Parts {
        auth,
        ingest,
        inbound,
        directory,
        lane,
        reader,
        schedule,
        clock,
        entropy,
        delivery: config.delivery,
        retention: config.retention,
        targets: TargetRules::default(),
        catalogs: Arc::default(),
        handshake: None,
        elsewhere: None,
        reserve: 0,
        backups: None,
        metrics: Box::new(String::new),
    })))
}

async fn post(front: &Front, path: &str, body: String) -> u16 {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(Body::from(body))
        .expect("a good request");
    let answer = front.clone().oneshot(request).await;
    answer.expect("the front never fails").status().as_u16()
}

fn request(bench: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let front = runtime.block_on(async {
        let front = gateway();
        post(
            &front,
            "/api/v1/app",
            r#"{"name":"a","uid":"a"}"#.to_owned(),
        )
        .await;
        for n in 0..100 {
            let types = if n % 33 == 0 {
                "invoice.*"
            } else {
                "user.made"
            };
            let body = format!(r#"{{"url":"https://e{n}.example/","eventTypes":["{types}"]}}"#);
            assert_eq!(post(&front, "/api/v1/app/a/endpoint", body).await, 201);
        }
        front
    });
    let body = body(1 << 10);
    let mut group = bench.benchmark_group("request");
    group.sample_size(20);
    group.bench_function("1KiB", |bench| {
        bench.iter(|| {
            let sent = post(&front, "/api/v1/app/a/msg", body.clone());
            assert_eq!(runtime.block_on(sent), 202);
        });
    });
    group.finish();
}

criterion_group!(benches, parsing, request);
criterion_main!(benches);
