//! Random operation of everything at once: nothing is lost, nothing is in two states.
//!
//! Seeds: see [`super::seeds`].

use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{Delivery, FailureKind, Order, Verdict};
use posthaste::schedule::core::Settings;
use rand::RngExt;

use super::{Answer, DAY, Sim, plan, seeds};

const ANSWERS: [Answer; 7] = [
    Answer::Status(200),
    Answer::Status(500),
    Answer::Status(404),
    Answer::Status(410),
    Answer::RetryAfter(429, 30),
    Answer::Fails(FailureKind::TimeoutTotal),
    Answer::Fails(FailureKind::Reset),
];

fn world(seed: u64) -> Sim {
    let settings = Settings {
        max_in_flight: 12,
        max_in_memory: 60,
        max_queue: 25,
        ..Settings::default()
    };
    let mut sim = Sim::with(seed, settings);
    for no in 1..=6 {
        let mut plan = plan(no, no % 3);
        plan.order = match no {
            5 => Order::Endpoint,
            6 => Order::Key,
            _ => Order::None,
        };
        plan.concurrency = sim.random.random_range(1..6);
        Arc::make_mut(&mut plan.failing).retry.delays = vec![Duration::from_secs(10); 40].into();
        sim.endpoint(plan, Answer::Status(200));
    }
    sim
}

fn act(sim: &mut Sim) {
    let endpoints: Vec<_> = sim.peers.keys().copied().collect();
    let ep = endpoints[sim.random.random_range(0..endpoints.len())];
    match sim.random.random_range(0..100) {
        0..=54 => {
            let app = sim.peers[&ep].plan.app;
            let same: Vec<_> = endpoints
                .iter()
                .copied()
                .filter(|e| sim.peers[e].plan.app == app)
                .collect();
            let key = format!("k{}", sim.random.random_range(0..3));
            for _ in 0..sim.random.random_range(1..6) {
                sim.publish_keyed(&same, Some(&key));
            }
        }
        55..=69 => {
            let answer = ANSWERS[sim.random.random_range(0..ANSWERS.len())];
            let times = sim.random.random_range(1..15);
            sim.peer(ep)
                .script
                .extend(std::iter::repeat_n(answer, times));
        }
        70..=84 => {
            let pause = Duration::from_millis(sim.random.random_range(1..20_000));
            sim.advance(pause);
        }
        85..=89 => {
            let sending = sim.random.random_bool(0.6);
            sim.change(ep, |plan| plan.sending = sending && !plan.deleted);
        }
        90..=92 => {
            let power = sim.random.random_bool(0.5);
            sim.crash(power);
        }
        93..=96 => {
            let some = any_delivery(sim);
            let fresh = sim.random.random_bool(0.5);
            sim.retry(&some, fresh);
        }
        98 if ep.0 <= 3 && sim.random.random_bool(0.2) => sim.change(ep, |plan| {
            plan.deleted = true;
            plan.sending = false;
        }),
        97 => {
            let some = any_delivery(sim);
            sim.cancel(&some);
        }
        98 => sim.cancel_pending(ep),
        _ => {
            let takes = Duration::from_millis(sim.random.random_range(5..16_000));
            sim.peer(ep).takes = takes;
        }
    }
}

fn any_delivery(sim: &mut Sim) -> Vec<Delivery> {
    if sim.messages.is_empty() {
        return Vec::new();
    }
    let place = sim.random.random_range(0..sim.messages.len());
    let message = &sim.messages[place];
    message
        .targets
        .iter()
        .map(|&endpoint| Delivery {
            at: message.at,
            endpoint,
        })
        .collect()
}

fn run(seed: u64) {
    let mut sim = world(seed);
    for step in 0..120 {
        act(&mut sim);
        if step % 20 == 0 {
            sim.census();
        }
        for (no, peer) in &sim.peers {
            let limit = usize::from(peer.plan.concurrency);
            assert!(
                peer.most_under_way <= limit,
                "endpoint {no:?} over its limit, seed {seed}"
            );
        }
        assert!(sim.core.in_memory() <= 60 + 6 * 16, "memory, seed {seed}");
    }
    let endpoints: Vec<_> = sim.peers.keys().copied().collect();
    for ep in endpoints {
        let peer = sim.peer(ep);
        peer.script.clear();
        peer.then = Answer::Status(200);
        peer.takes = Duration::from_millis(20);
        sim.change(ep, |plan| plan.sending = !plan.deleted);
    }
    sim.advance(DAY * 2);
    sim.census();
    assert_eq!(sim.open, 0, "everything comes to its end, seed {seed}");
    for message in sim.messages.clone() {
        for &endpoint in &message.targets {
            let delivery = Delivery {
                at: message.at,
                endpoint,
            };
            if sim.peers[&endpoint].plan.deleted {
                assert!(
                    sim.rows(endpoint).is_empty(),
                    "rows of a deleted endpoint, seed {seed}"
                );
                continue;
            }
            let attempts = sim.attempts(message.at, endpoint);
            let done = attempts
                .iter()
                .any(|a| matches!(a.verdict, Verdict::Delivered | Verdict::Dead(_)))
                || sim.reader.is_cancelled(delivery).unwrap();
            assert!(done, "{delivery:?} has no end, seed {seed}");
        }
    }
}

#[test]
fn whatever_happens_every_delivery_is_in_exactly_one_state_and_comes_to_its_end() {
    for seed in seeds() {
        run(seed);
    }
}
