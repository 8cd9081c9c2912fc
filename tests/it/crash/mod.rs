//! SIGKILL under load, twenty times: every acknowledged event arrives, and after each restart
//! deliveries go on.
//!
//! The proof rests on two records on disk: the producer's (a line per 202, written after it came)
//! and the receiver's (a line per 2xx, written before it is sent). The judge reads both and is
//! itself tested with records that it must reject. SIGKILL proves recovery of the process only:
//! the page cache survives it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

mod judge;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::kit::{
    Answer, Client, Gateway, Received, Receiver, endpoint, eventually, hash, message, pause, say,
    seed,
};

const KILLS: usize = 20;
const PRODUCERS: u64 = 6;
const MESSAGES: &str = "/api/v1/app/acme/msg";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_arrives_although_the_gateway_is_killed_twenty_times() {
    let mut random = ChaCha8Rng::seed_from_u64(seed("POSTHASTE_CRASH_SEED"));
    let records = tempfile::tempdir().unwrap();
    let (produced, consumed) = (
        records.path().join("acked"),
        records.path().join("received"),
    );
    let receiver = Receiver::scripted(flaky).await;
    receiver.record_to(&consumed);

    let settings = [
        (
            "delivery.retry_schedule",
            "100ms,200ms,500ms,1s,1s,2s,2s,2s",
        ),
        ("log.level", "warn"),
    ];
    let mut gateway = Gateway::start(&settings).await;
    endpoint(
        &gateway,
        "acme",
        &receiver,
        "/hook",
        json!({"maxConcurrency": 32}),
    )
    .await;
    let load = Load::start(gateway.api(), &produced);
    let mut busy_kills = 0;
    for kill in 0..KILLS {
        pause(Duration::from_millis(random.random_range(100..600))).await;
        let open = judge::judge(&read(&produced), &read(&consumed), &[]).lost;
        busy_kills += usize::from(!open.is_empty());
        gateway = gateway.kill().start().await;
        goes_on(&gateway, &receiver, kill).await;
    }
    let invoked = load.stop().await;
    let missing = || judge::judge(&read(&produced), &read(&consumed), &invoked).lost;
    eventually(
        "all acknowledged events have arrived",
        Duration::from_secs(30),
        async || missing().is_empty().then_some(()),
    )
    .await;

    let verdict = judge::judge(&read(&produced), &read(&consumed), &invoked);
    say(&format!(
        "{KILLS} kills, {busy_kills} with open deliveries: {} acknowledged, {} deliveries, {} of them repeated",
        verdict.acknowledged, verdict.deliveries, verdict.repeated
    ));
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert_eq!(verdict.forged, Vec::<String>::new());
    assert_eq!(verdict.changed, Vec::<String>::new());
    assert!(
        busy_kills >= KILLS / 2,
        "the kills must hit open deliveries: {busy_kills}"
    );
    assert!(
        verdict.acknowledged > 20 * KILLS,
        "too little load to prove anything"
    );
    let (status, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
}

/// One in sixteen first attempts fails, the rest take a few milliseconds.
fn flaky(request: &Received) -> Answer {
    let digit = hash(&request.body).as_bytes()[0];
    if request.nth == 1 && digit == b'0' {
        return Answer::status(500);
    }
    Answer::ok().after(Duration::from_millis(5))
}

/// A fresh event arrives soon after the restart (liveness).
async fn goes_on(gateway: &Gateway, receiver: &Receiver, kill: usize) {
    let body = message(json!({"probe": kill}));
    let made = gateway.api().post(MESSAGES, &body).await.expect(202);
    let id = made["id"].as_str().unwrap().to_owned();
    let what = format!("the probe after kill {kill}");
    eventually(&what, Duration::from_secs(10), async || {
        let all = receiver.all();
        all.iter()
            .any(|one| one.id == id && one.is_success())
            .then_some(())
    })
    .await;
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Producers that never stop: what fails is sent again under the same idempotency key.
struct Load {
    stop: Arc<AtomicBool>,
    /// Hashes of all payloads ever sent, acknowledged or not.
    invoked: Arc<Mutex<Vec<String>>>,
    producers: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(api: &Client, record: &Path) -> Self {
        let file = std::fs::File::create(record).unwrap();
        let record = Arc::new(Mutex::new(file));
        let mut load = Self {
            stop: Arc::default(),
            invoked: Arc::default(),
            producers: tokio::task::JoinSet::new(),
        };
        for producer in 0..PRODUCERS {
            let stop = Arc::clone(&load.stop);
            let (invoked, record) = (Arc::clone(&load.invoked), Arc::clone(&record));
            let api = api.clone();
            load.producers.spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let payload = json!({"producer": producer, "n": n, "pad": "x".repeat(200)});
                    let sum = hash(payload.to_string().as_bytes());
                    invoked.lock().push(sum.clone());
                    let key = format!("producer-{producer}-{n}");
                    let body = Bytes::from(message(payload).to_string());
                    if let Some(id) = publish(&api, &key, body, &stop).await {
                        writeln!(record.lock(), "{id} {sum}").unwrap();
                    }
                    // Below what one endpoint takes: a growing backlog would prove nothing more.
                    pause(Duration::from_millis(10)).await;
                }
            });
        }
        load
    }

    /// Ends the load; answers what was ever sent.
    async fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.invoked.lock())
    }
}

/// Sends until there is an answer that settles it; `None` if the load is stopped before.
async fn publish(api: &Client, key: &str, body: Bytes, stop: &AtomicBool) -> Option<String> {
    let headers = [("idempotency-key", key)];
    while !stop.load(Ordering::Relaxed) {
        match api
            .send(Method::POST, MESSAGES, &headers, body.clone())
            .await
        {
            Ok(reply) if reply.status == 202 => {
                return reply.json()["id"].as_str().map(str::to_owned);
            }
            Ok(reply) => {
                let retriable = reply.status == 409 || reply.status.is_server_error();
                assert!(retriable, "{}: {}", reply.status, reply.text());
            }
            Err(_) => {} // down, or it died before it answered
        }
        pause(Duration::from_millis(20)).await;
    }
    None
}
