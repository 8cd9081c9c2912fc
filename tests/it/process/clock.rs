//! The wall clock is moved under the running binary, and between two runs (T30).
//!
//! libfaketime shifts the wall clock only; monotonic time goes on, as it does when a clock is set.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::kit::{
    Answer, Gateway, Launch, Received, Receiver, dependency, endpoint, eventually, send,
};

const HOUR: i64 = 3_600;
const DECADE: i64 = 3_652 * 86_400;
/// Longer than it takes to notice a step, so that what is pending lives through one.
const RETRY: Duration = Duration::from_secs(4);
const MESSAGES: usize = 10;
const CONCURRENCY: usize = 3;

/// The library, wherever the distribution puts it.
fn library() -> PathBuf {
    let machine = std::env::consts::ARCH;
    dependency(format!(
        "/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"
    ))
}

/// A gateway whose wall clock is `offset` seconds off; `turn` moves it.
fn faked(offset: i64) -> Launch {
    let retries = ["4s"; 8].join(",");
    let launch = Launch::new(&[
        ("delivery.retry_schedule", &retries),
        ("delivery.jitter", "0"),
        ("delivery.disable", "never"),
    ]);
    turn(&launch, offset);
    let file = launch.dir().join("clock").display().to_string();
    launch
        .variable("LD_PRELOAD", library().display().to_string())
        .variable("FAKETIME_TIMESTAMP_FILE", file)
        .variable("FAKETIME_CACHE_DURATION", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// Sets the clock of a launch, running or not, to `offset` seconds from now.
fn turn(launch: &Launch, offset: i64) {
    launch.write("clock.new", &format!("{offset:+}\n"));
    std::fs::rename(launch.dir().join("clock.new"), launch.dir().join("clock")).unwrap();
}

/// Fails what it has not seen; whatever comes again succeeds. Nothing else while `down`.
struct World {
    receiver: Receiver,
    down: Arc<AtomicBool>,
}

impl World {
    async fn start(gateway: &Gateway) -> Self {
        let down = Arc::new(AtomicBool::new(true));
        let switch = Arc::clone(&down);
        let receiver = Receiver::scripted(move |request| {
            if switch.load(Ordering::Relaxed) && request.path == "/hook" {
                Answer::status(500)
            } else {
                Answer::ok().after(Duration::from_millis(20))
            }
        })
        .await;
        let fields = json!({"maxConcurrency": CONCURRENCY});
        endpoint(gateway, "acme", &receiver, "/hook", fields.clone()).await;
        endpoint(gateway, "fresh", &receiver, "/fresh", fields).await;
        Self { receiver, down }
    }

    /// Messages that have failed once and wait for their second attempt.
    async fn pending(&self, gateway: &Gateway) -> Vec<String> {
        self.down.store(true, Ordering::Relaxed);
        let mut ids = Vec::new();
        for n in 0..MESSAGES {
            ids.push(send(gateway, "acme", n).await);
        }
        eventually("all have failed once", RETRY, async || {
            let tried = self.tries();
            ids.iter().all(|id| tried.contains_key(id)).then_some(())
        })
        .await;
        self.down.store(false, Ordering::Relaxed);
        ids
    }

    fn tries(&self) -> HashMap<String, Vec<Received>> {
        let mut tries: HashMap<String, Vec<Received>> = HashMap::new();
        for one in self.receiver.at("/hook") {
            if one.end.is_some() {
                tries.entry(one.id.clone()).or_default().push(one);
            }
        }
        tries
    }

    /// Everything pending arrives, once, within the limits; and so does something new, with the time
    /// that the clock shows now.
    async fn goes_on(&self, gateway: &Gateway, ids: &[String], offset: i64) {
        let within = RETRY + Duration::from_secs(6);
        eventually(
            &format!("what was pending arrives, at {offset} s"),
            within,
            async || {
                let tries = self.tries();
                ids.iter()
                    .all(|id| tries[id].iter().any(Received::is_success))
                    .then_some(())
            },
        )
        .await;
        let tries = self.tries();
        for id in ids {
            assert_eq!(tries[id].len(), 2, "{id}: no storm");
        }
        let most = self
            .receiver
            .all()
            .iter()
            .map(|one| one.concurrent)
            .max()
            .unwrap();
        assert!(most <= CONCURRENCY, "{most} at a time");
        let fresh = send(gateway, "fresh", 0).await;
        let got = eventually(
            "something new arrives",
            Duration::from_secs(5),
            async || {
                let all = self.receiver.at("/fresh");
                all.into_iter().find(|one| one.id == fresh)
            },
        )
        .await;
        let stamp: i64 = got.header("webhook-timestamp").parse().unwrap();
        let off = stamp - wall(offset);
        assert!(
            off.abs() <= 4,
            "webhook-timestamp is {off} s off at {offset} s"
        );
    }
}

fn wall(offset: i64) -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    i64::try_from(since).unwrap() + offset
}

/// Moves the clock of a running gateway with something pending, there and back again.
async fn step_there_and_back(by: i64) {
    let gateway = faked(0).start().await;
    let world = World::start(&gateway).await;
    for (steps, offset) in [(1, by), (2, 0)] {
        let ids = world.pending(&gateway).await;
        turn(gateway.launch(), offset);
        eventually("the step is noticed", Duration::from_secs(6), async || {
            let noticed = gateway.log().matches("clock was stepped").count();
            (noticed >= steps).then_some(())
        })
        .await;
        world.goes_on(&gateway, &ids, offset).await;
    }
    let (status, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn an_hour_forward_and_back_delays_and_hurries_nothing() {
    step_there_and_back(HOUR).await;
}

#[tokio::test]
async fn ten_years_forward_and_back_lose_nothing() {
    step_there_and_back(DECADE).await;
}

#[tokio::test]
async fn ten_years_back_and_forward_lose_nothing() {
    step_there_and_back(-DECADE).await;
}

#[tokio::test]
async fn a_clock_that_was_set_while_it_was_down_keeps_nothing_waiting() {
    let mut gateway = faked(0).start().await;
    let world = World::start(&gateway).await;
    for offset in [DECADE, 0] {
        let ids = world.pending(&gateway).await;
        let stopped = gateway.kill();
        turn(&stopped.launch, offset);
        gateway = stopped.start().await;
        world.goes_on(&gateway, &ids, offset).await;
    }
}
