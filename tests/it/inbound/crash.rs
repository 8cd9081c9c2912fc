//! What a provider was answered 200 for is on stable storage: the gateway is killed again and again under a
//! provider's load, and every event that was answered is there, once.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use posthaste::base::{Clock, SystemClock};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::kit::{SECRET, signed_at};
use crate::kit::{Client, Gateway, Stall, Thread, eventually, now, pause, say, seed};

const KILLS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_event_of_a_provider_is_there_once_although_the_gateway_is_killed() {
    let mut random = ChaCha8Rng::seed_from_u64(seed("POSTHASTE_CRASH_SEED"));
    let settings = [("log.level", "warn"), ("inbound.rate_per_second", "5000")];
    let mut gateway = Gateway::start(&settings).await;
    let api = gateway.api();
    api.post("/api/v1/app", &json!({"name": "Acme", "uid": "acme"}))
        .await
        .expect(201);
    let source = json!({
        "name": "s", "provider": "standard_webhooks", "appId": "acme", "secrets": {"secret": SECRET},
    });
    let made = api.post("/api/v1/source", &source).await.expect(201);
    let path = made["path"].as_str().unwrap().to_owned();
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let mut providers = tokio::task::JoinSet::new();
    for provider in 0..4 {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        let (client, path) = (Client::new(gateway.address, None), path.clone());
        providers.spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                // As providers do: the same event again until it is answered.
                while !send(&client, &path, &format!("p{provider}-{n}")).await {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    pause(Duration::from_millis(20)).await;
                }
                answered
                    .lock()
                    .push(format!("standard_webhooks-p{provider}-{n}"));
            }
        });
    }
    for _ in 0..KILLS {
        pause(Duration::from_millis(random.random_range(150..500))).await;
        gateway = gateway.kill().start().await;
    }
    let enough = || answered.lock().len() > 20 * KILLS;
    eventually("there was load", crate::kit::SOON, async || {
        enough().then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    while providers.join_next().await.is_some() {}
    gateway = gateway.kill().start().await;
    let found = gateway.list("/api/v1/app/acme/msg").await;
    let ids: Vec<_> = found
        .iter()
        .map(|one| one["eventId"].as_str().unwrap().to_owned())
        .collect();
    let there: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(there.len(), ids.len(), "no event is there twice");
    let answered = answered.lock().clone();
    let lost: Vec<_> = answered.iter().filter(|id| !there.contains(id)).collect();
    say(&format!(
        "{KILLS} kills: {} answered, {} stored",
        answered.len(),
        ids.len()
    ));
    assert_eq!(lost, Vec::<&String>::new());
    gateway.stop().await;
}

async fn send(client: &Client, path: &str, event: &str) -> bool {
    let body = format!(r#"{{"type":"a.b","data":{{"e":"{event}"}}}}"#);
    let now = SystemClock::start().now().millis() / 1000;
    let headers = signed_at(SECRET, event, now, &body);
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let answer = client
        .send(Method::POST, path, &headers, Bytes::from(body))
        .await;
    answer.is_ok_and(|answer| answer.status.as_u16() == 200)
}

/// The page cache survives a kill, so this shows what a kill cannot: no answer before the sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_not_answered_before_the_sync_has_returned() {
    const SLOW: Duration = Duration::from_secs(2);
    let gateway = Gateway::start(&[]).await;
    let api = gateway.api();
    api.post("/api/v1/app", &json!({"name": "Acme", "uid": "acme"}))
        .await
        .expect(201);
    let source = json!({
        "name": "s", "provider": "standard_webhooks", "appId": "acme", "secrets": {"secret": SECRET},
    });
    let made = api.post("/api/v1/source", &source).await.expect(201);
    let path = made["path"].as_str().unwrap();
    let client = Client::new(gateway.address, None);
    assert!(send(&client, path, "before").await);
    let stall = Stall::begin(&gateway, Thread::Commit, SLOW).await;
    let begun = now();
    assert!(send(&client, path, "slow").await);
    let took = begun.elapsed();
    stall.end();
    assert!(
        took >= SLOW,
        "answered after {took:?}, before a sync of {SLOW:?} had returned"
    );
    // A refusal waits for no disk.
    let stall = Stall::begin(&gateway, Thread::Commit, SLOW * 10).await;
    let begun = now();
    let forged = client
        .send(Method::POST, path, &[], Bytes::from("{}"))
        .await
        .unwrap();
    assert_eq!(forged.status.as_u16(), 401);
    assert!(
        begun.elapsed() < SLOW,
        "a refusal took {:?}",
        begun.elapsed()
    );
    stall.end();
    gateway.stop().await;
}
