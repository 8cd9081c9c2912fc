//! Payloads with a time of their own, through the whole gateway: what is not delivered keeps its payload over
//! that time and over a restart, and loses it when it is delivered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use posthaste::base::task::Stopper;
use posthaste::model::{Delivery, MessageId, Order};
use posthaste::store::model::Crash;
use serde_json::{Value, json};

use super::client::{call, secret};
use super::net::{Mood, Peer};
use super::process::Process;
use super::world::World;

const PAYLOAD: &str = "{ \"kept\" :1e2,\"as\": \"it  came\" }";
const HOUR: i64 = 3_600_000;

/// One life of the process; it ends without a goodbye.
fn live<T>(world: &Arc<World>, body: impl AsyncFnOnce(&Process) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    world.dead.store(false, Ordering::SeqCst);
    let out = runtime.block_on(async {
        world.clock.begin();
        let process = Process::start(world).await;
        let out = body(&process).await;
        world.dead.store(true, Ordering::SeqCst);
        out
    });
    drop(runtime);
    world.model.crash(Crash::Process);
    world.clock.end(1000);
    out
}

async fn ask(world: &World, process: &Process, what: (&str, &str), body: Value) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    call(world, &process.front, what, None, body).await.unwrap()
}

/// The endpoint `ep-N` of the application `solo`.
async fn endpoint(world: &Arc<World>, process: &Process, mood: Mood) {
    let no = world.peers.lock().len();
    let secret = secret(world);
    world.peers.lock().push(Peer {
        app: 0,
        id: None,
        no: None,
        order: Order::None,
        schedule: vec![7200],
        mood,
        takes: (1, 80),
        under_way: 0,
        limits: vec![(0, 4)],
        secrets: vec![(secret.clone(), 0, u64::MAX)],
        off: None,
        deleted: None,
        unsure: false,
    });
    let body = json!({
        "url": format!("https://ep{no}.example/in"), "uid": format!("ep-{no}"), "secret": secret,
        "retrySchedule": [7200], "maxConcurrency": 4, "disablePolicy": {"policy": "never"},
    });
    let made = ask(world, process, ("POST", "/app/solo/endpoint"), body).await;
    assert_eq!(made.0, 201, "{}", made.1);
}

/// A message whose payload is kept for an hour.
async fn send(world: &World, process: &Process) -> MessageId {
    let body = format!("{{\"eventType\":\"a\",\"payload\":{PAYLOAD},\"payloadRetentionHours\":1}}");
    let path = ("POST", "/app/solo/msg");
    let sent = call(world, &process.front, path, None, body).await.unwrap();
    assert_eq!(sent.0, 202, "{}", sent.1);
    MessageId::parse(sent.1["id"].as_str().unwrap()).unwrap()
}

/// So much time passes; what is due then gets its turn, and housekeeping comes round.
async fn wait(world: &World, process: &Process, ms: i64) {
    world.clock.step(ms);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (_stopper, stop) = Stopper::new();
    process.state.end_payloads(&stop).await;
}

/// The payload as the store has it, and as it is shown.
async fn payloads(world: &World, process: &Process, id: MessageId) -> (bytes::Bytes, Value) {
    let stored = process.reader.message(id.place().1).unwrap().unwrap();
    let path = format!("/app/solo/msg/{id}");
    let shown = ask(world, process, ("GET", &path), Value::Null).await;
    (stored.payload, shown.1["payload"].clone())
}

fn bodies(world: &World, peer: usize) -> Vec<bytes::Bytes> {
    let history = world.history.lock();
    let received = history.received.iter().filter(|one| one.peer == peer);
    received.map(|one| one.body.clone()).collect()
}

#[test]
fn an_undelivered_message_keeps_its_payload_over_its_time_and_over_a_restart() {
    let world = World::new(1, false);
    let id = live(&world, async |process| {
        let app = json!({"name": "solo", "uid": "solo"});
        ask(&world, process, ("POST", "/app"), app).await;
        endpoint(&world, process, Mood::Answers(500)).await;
        let id = send(&world, process).await;
        wait(&world, process, 0).await;
        wait(&world, process, HOUR + 300_000).await;
        let (stored, shown) = payloads(&world, process, id).await;
        assert_eq!((&stored[..], shown), (PAYLOAD.as_bytes(), json!({})));
        // A request that was checked before the end and comes late begins nothing.
        let snapshot = process.directory.snapshot();
        let endpoint = snapshot.endpoints().find(|ep| ep.url.contains("ep0"));
        let late = Delivery {
            at: id.place().1,
            endpoint: endpoint.unwrap().no,
        };
        for done in [
            process.schedule.resend(late).await,
            process.schedule.recover(vec![late]).await,
        ] {
            assert_eq!(done.unwrap(), 0);
        }
        id
    });
    assert_eq!(bodies(&world, 0), [PAYLOAD], "it failed once, and waits");
    world.peers.lock()[0].mood = Mood::Answers(200);
    live(&world, async |process| {
        let (stored, _) = payloads(&world, process, id).await;
        assert_eq!(stored, PAYLOAD);
        wait(&world, process, HOUR * 2).await;
        assert_eq!(bodies(&world, 0), [PAYLOAD, PAYLOAD], "byte for byte");
        // It was put off, and is looked at again.
        wait(&world, process, HOUR * 2).await;
        assert!(payloads(&world, process, id).await.0.is_empty());
        let path = format!("/app/solo/msg/{id}/endpoint/ep-0/resend");
        let refused = ask(&world, process, ("POST", &path), Value::Null).await;
        assert_eq!(
            (refused.0, &refused.1["code"]),
            (400, &json!("missing_payload"))
        );
        wait(&world, process, HOUR * 9).await;
    });
    assert_eq!(bodies(&world, 0).len(), 2, "finished stays finished");
    assert_eq!(*world.broken.lock(), [] as [String; 0]);
}

/// Nothing in the store but the row of its end says that the message goes to an endpoint that was made later.
#[test]
fn what_was_replayed_to_a_paused_endpoint_keeps_its_payload_until_that_goes_on() {
    let world = World::new(2, false);
    let id = live(&world, async |process| {
        let app = json!({"name": "solo", "uid": "solo"});
        ask(&world, process, ("POST", "/app"), app).await;
        endpoint(&world, process, Mood::Answers(200)).await;
        let id = send(&world, process).await;
        wait(&world, process, 0).await;
        endpoint(&world, process, Mood::Answers(200)).await;
        let path = "/app/solo/endpoint/ep-1";
        let pause = format!("{path}/pause");
        ask(&world, process, ("POST", &pause), Value::Null).await;
        let replay = format!("{path}/replay-missing");
        let since = json!({"since": "2026-01-05T00:00:00Z"});
        let begun = ask(&world, process, ("POST", &replay), since).await;
        assert_eq!(begun.0, 202, "{}", begun.1);
        wait(&world, process, HOUR * 2).await;
        id
    });
    assert_eq!(bodies(&world, 0), [PAYLOAD]);
    live(&world, async |process| {
        wait(&world, process, HOUR * 5).await;
        assert_eq!(payloads(&world, process, id).await.0, PAYLOAD);
        let resume = "/app/solo/endpoint/ep-1/resume";
        ask(&world, process, ("POST", resume), Value::Null).await;
        wait(&world, process, 0).await;
        assert_eq!(bodies(&world, 1), [PAYLOAD]);
        wait(&world, process, HOUR * 2).await;
        assert!(payloads(&world, process, id).await.0.is_empty());
    });
    assert_eq!(*world.broken.lock(), [] as [String; 0]);
}
