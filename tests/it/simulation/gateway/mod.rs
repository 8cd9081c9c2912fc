//! The whole gateway but its sockets, in virtual time: API, ingest, lane, scheduler, recovery,
//! signing, over the reference store, with faults and crashes that one seed decides.
//!
//! A run has several lives of the process. Each ends in a kill at some instant or between two polls
//! of its tasks, in a power cut that loses a part of what was not synced, in a store that fails at
//! some call, or in an orderly drain; the last one heals everything and waits until all deliveries
//! have come to rest. Then the rules of [`check`] judge everything that clients and endpoints saw.
//! [`SOMETIMES`] says what a set of seeds must have seen, or its success means nothing.
//!
//! `POSTHASTE_SEEDS` sets how many seeds are run, `POSTHASTE_SEED` runs one.

mod check;
mod client;
mod ending;
mod history;
mod net;
mod process;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use posthaste::store::faults::Fault;
use posthaste::store::model::Crash;

use history::Death;
use net::Mood;
use process::Process;
use world::World;

/// What must have happened in some run of every set of a hundred seeds or more.
const SOMETIMES: &[&str] = &[
    "a 2xx that the gateway never saw",
    "a 503 instead of a message",
    "a cancellation",
    "a clock stepped back",
    "a clock stepped forward",
    "a commit that stalled",
    "a crash between two polls",
    "a crash with attempts under way",
    "a delayed message",
    "a delivery that died",
    "a delivery that is held",
    "a delivery that was cancelled",
    "a delivery that was delivered",
    "a delivery that was superseded",
    "a delayed message that kept its time",
    "a drain",
    "a drain that was cut off",
    "a duplicate",
    "a power cut that lost something",
    "a recovery of what was dead",
    "a recovery that found open deliveries",
    "a request signed with an old secret too",
    "a resend",
    "a retry that kept its time",
    "a schedule used up",
    "a write in doubt that had happened",
    "a write in doubt that had not happened",
    "an application deleted",
    "an endpoint at its limit",
    "an endpoint deleted",
    "an endpoint switched off",
    "an event stored without an answer",
    "an idempotency key that brought the first answer",
    "an ordered pair",
    "a Retry-After longer than the schedule",
];

/// Too rare to be demanded of fewer than a thousand seeds.
const RARE: &[&str] = &[
    "a drain that was cut off",
    "an event stored without an answer",
];

/// How a life is meant to end.
#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    Polls(u64),
    Fault(u64, Fault),
    Drain,
    /// Everything is healed; the run is judged.
    Rest,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Killed,
    Failed,
    Drained { late: bool },
    Rested,
}

/// One run; what it saw. Without what is `newer`, old seeds replay the runs in which they found a defect.
fn run(seed: u64, newer: bool) -> BTreeMap<&'static str, u64> {
    let world = World::new(seed, newer);
    for _ in 0..world.roll(2..5) {
        let end = match world.roll(0..10) {
            0..=3 => End::Kill,
            4 | 5 => End::Polls(world.roll(50..6000)),
            6 => End::Drain,
            _ => {
                let fault = if world.chance(50) {
                    Fault::DoubtfulApplied
                } else {
                    Fault::DoubtfulLost
                };
                End::Fault(world.roll(0..400), fault)
            }
        };
        let ended = live(&world, end);
        assert_ne!(ended, Ended::Rested);
    }
    // A fault that was planned and not met yet may still end a life.
    while live(&world, End::Rest) != Ended::Rested {}
    let broken = world.broken.lock();
    assert!(broken.is_empty(), "{broken:#?}");
    world.counts.lock().clone()
}

fn live(world: &Arc<World>, end: End) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    world.dead.store(false, Ordering::SeqCst);
    let polls = match end {
        End::Polls(polls) => polls,
        _ => u64::MAX,
    };
    world.polls_left.store(polls, Ordering::SeqCst);
    if matches!(end, End::Rest) {
        for peer in world.peers.lock().iter_mut() {
            peer.mood = Mood::Answers(200);
            peer.takes = (1, 50);
        }
    }
    let ended = runtime.block_on(async {
        world.clock.begin();
        let ended = life(world, end).await;
        world.dead.store(true, Ordering::SeqCst);
        bury(world, end, ended);
        ended
    });
    drop(runtime);
    let lost = world.model.unsynced();
    let keep = world.roll(0..=lost);
    match ended {
        Ended::Rested => {}
        // What was closed in order is on stable storage.
        Ended::Drained { late: false } => world.model.crash(Crash::Power { keep: 0 }),
        _ if world.chance(50) => {
            if keep < lost {
                world.saw("a power cut that lost something");
            }
            world.model.crash(Crash::Power { keep });
        }
        _ => world.model.crash(Crash::Process),
    }
    ended
}

/// The process is gone: what was under way is cut off.
fn bury(world: &World, end: End, ended: Ended) {
    let at = world.clock.passed();
    let mut history = world.history.lock();
    if ended != (Ended::Drained { late: false }) {
        history.deaths.push(Death { at });
    }
    for received in history.received.iter_mut().filter(|r| r.end.is_none()) {
        received.end = Some(at);
        received.cut = true;
    }
    drop(history);
    let mut under_way = 0;
    for peer in world.peers.lock().iter_mut() {
        under_way += std::mem::take(&mut peer.under_way);
    }
    if under_way > 0 && ended == Ended::Killed {
        world.saw("a crash with attempts under way");
    }
    match (ended, end) {
        (Ended::Killed, End::Polls(_)) => world.saw("a crash between two polls"),
        (Ended::Failed, End::Fault(_, Fault::DoubtfulApplied)) => {
            world.saw("a write in doubt that had happened");
        }
        (Ended::Failed, End::Fault(..)) => world.saw("a write in doubt that had not happened"),
        (Ended::Drained { late }, _) => world.saw(if late {
            "a drain that was cut off"
        } else {
            "a drain"
        }),
        _ => {}
    }
    world.clock.end(world.roll(50..20_000));
}

async fn life(world: &Arc<World>, end: End) -> Ended {
    let mut process = Process::start(world).await;
    client::resync(world, &process);
    if let End::Fault(ahead, fault) = end {
        world.model.faults().plan(ahead, fault);
    }
    let killed = Arc::clone(&process.killed);
    let lane = process.lane.clone();
    let failed = async {
        lane.failed().await;
        // The process has a second to notice and end; nothing may be acknowledged meanwhile.
        let late = world.roll(0..1000);
        tokio::time::sleep(Duration::from_millis(late)).await;
    };
    tokio::select! {
        biased;
        () = killed.notified() => Ended::Killed,
        () = failed => Ended::Failed,
        ended = plot(world, &mut process, end) => ended,
    }
}

/// What is done to the process while it lives.
async fn plot(world: &Arc<World>, process: &mut Process, end: End) -> Ended {
    client::prepare(world, process).await;
    client::resync(world, process);
    if matches!(end, End::Rest) {
        rest(world, process).await;
        return Ended::Rested;
    }
    let until = world.clock.passed() + world.roll(3_000..60_000);
    while world.clock.passed() < until {
        client::act(world, process).await;
    }
    if !matches!(end, End::Drain) {
        return Ended::Killed;
    }
    process.stopper.stop();
    let limit = Duration::from_secs(world.roll(1..25));
    let late = tokio::time::timeout(limit, &mut process.ended)
        .await
        .is_err();
    if late || process.lane.close().await.is_err() {
        return Ended::Drained { late: true };
    }
    Ended::Drained { late: false }
}

/// Endpoints are well, most of them are switched on; everything comes to rest.
async fn rest(world: &Arc<World>, process: &Process) {
    let all = world.peers.lock().len();
    for no in 0..all {
        let it = world.peers.lock()[no].clone();
        if it.off.is_some() && it.deleted.is_none() && world.chance(80) {
            let path = format!("/app/{}/endpoint/ep-{no}", client::app_uid(it.app));
            world.peers.lock()[no].off = None;
            let on = ("PATCH", path.as_str(), "{\"disabled\":false}");
            let resume = format!("{path}/resume");
            for (method, path, body) in [on, ("POST", resume.as_str(), "")] {
                loop {
                    let what = (method, path);
                    let answer = client::call(world, &process.front, what, None, body.into());
                    match answer.await {
                        Some((200..=204, _)) => break,
                        Some((500 | 503, _)) => tokio::time::sleep(Duration::from_millis(50)).await,
                        other => return world.broke("API", format!("{path}: {other:?}")),
                    }
                }
            }
        }
    }
    // Requests of the last life are answered, and whoever waits longest has had its turn.
    let begun = world.clock.passed();
    let mut quiet = 0;
    let back: i64 = world
        .history
        .lock()
        .steps
        .iter()
        .filter(|by| **by < 0)
        .sum();
    let limit = begun + 900_000 + back.unsigned_abs();
    while world.clock.passed() < limit && quiet < 3 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let status = process.schedule.status();
        let (pending, _) = process.directory.total().pending();
        let resting = status.in_flight == 0 && status.in_memory == 0 && pending == held(process);
        quiet = if resting { quiet + 1 } else { 0 };
    }
    fresh(world, process).await;
    check::judge(world, process).await;
}

/// Rows of endpoints that are off.
fn held(process: &Process) -> u64 {
    let snapshot = process.directory.snapshot();
    let states = process.reader.endpoint_states().unwrap();
    let off = states.iter().filter(|(no, _)| {
        snapshot
            .endpoint(*no)
            .is_some_and(|endpoint| !endpoint.is_sending())
    });
    off.map(|(_, state)| state.parked).sum()
}

/// C10: what is sent now arrives within ten seconds.
async fn fresh(world: &Arc<World>, process: &Process) {
    let before = world.history.lock().publishes.len();
    for app in 1..client::APPS {
        client::publish(world, process, app, false);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let peers = world.peers.lock().clone();
    let history = world.history.lock();
    for publish in &history.publishes[before..] {
        let Some((id, targets)) = publish.accepted.first_key_value() else {
            if !publish.refused {
                world.broke("C10 liveness", "a fresh event has no answer after 10 s");
            }
            continue;
        };
        for (no, peer) in peers.iter().enumerate() {
            let wants = peer.id.as_ref().is_some_and(|id| targets.contains(id));
            if !wants || peer.off.is_some() {
                continue;
            }
            let mut received = history.received.iter();
            if !received.any(|r| r.peer == no && r.id == *id && r.sent == 200) {
                world.broke(
                    "C10 liveness",
                    format!("a fresh event is not at endpoint {no} after 10 s"),
                );
            }
        }
    }
}

/// Runs seeds on all cores; answers what they saw together. The first failure ends it.
fn campaign(seeds: &[u64], newer: bool) -> BTreeMap<&'static str, u64> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let seen: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match catch_unwind(AssertUnwindSafe(|| run(*seed, newer))) {
                        Ok(counts) => {
                            let mut seen = seen.lock();
                            for (what, count) in counts {
                                *seen.entry(what).or_default() += count;
                            }
                        }
                        Err(_) => failed.lock().push(*seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let again = "cargo nextest run -E 'test(every_acknowledged_event_comes_to_its_end)'";
    for seed in &failed {
        println!("failed: POSTHASTE_SEED={seed} {again}");
    }
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {failed:?}",
        failed.len(),
        seeds.len()
    );
    seen.into_inner()
}

#[test]
fn every_acknowledged_event_comes_to_its_end_whatever_happens_to_the_process() {
    let seeds = super::seeds();
    let seen = campaign(&seeds, true);
    println!("{} seeds saw:", seeds.len());
    for (what, count) in &seen {
        println!("{count:8}  {what}");
    }
    if seeds.len() >= 100 {
        let vacuous: Vec<_> = SOMETIMES
            .iter()
            .filter(|what| !seen.contains_key(*what))
            .filter(|what| seeds.len() >= 1000 || !RARE.contains(*what))
            .collect();
        assert!(vacuous.is_empty(), "C11: never seen: {vacuous:?}");
    }
}

/// Each has found a defect that the first hundred do not: rows of a key due before older ones after
/// the clock went back (65, 310), a page that overtook rows put back while it was read (759, 1264,
/// 1882, 3280, 4878).
#[test]
fn seeds_that_found_a_defect_find_none_any_more() {
    campaign(&[65, 310, 759, 1264, 1882, 3280, 4878], false);
}

#[test]
fn a_seed_replays_its_run_to_the_last_request() {
    let trace = |seed| {
        let world = World::new(seed, true);
        assert_eq!(live(&world, End::Kill), Ended::Killed);
        assert_eq!(live(&world, End::Rest), Ended::Rested);
        format!("{:?}", world.history.lock().received)
    };
    assert_eq!(trace(7), trace(7));
}
