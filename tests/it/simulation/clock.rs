//! Steps of the wall clock (T30): no storm, nothing lost, nothing that waits for ever.

use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{DisablePolicy, EndpointNo, Order};

use super::{Answer, DAY, HOUR, MINUTE, Sim, plan};

const HOUR_MS: i64 = 3_600_000;
const DECADE_MS: i64 = 3652 * 24 * HOUR_MS;

/// An endpoint of each order that failed for a while, with a backlog, waiting retries, an open
/// breaker and a pause.
fn in_trouble(seed: u64) -> (Sim, Vec<EndpointNo>) {
    let mut sim = Sim::new(seed);
    let mut endpoints = Vec::new();
    for (no, order) in [(1, Order::None), (2, Order::Endpoint), (3, Order::Key)] {
        let mut plan = plan(no, no);
        plan.order = order;
        Arc::make_mut(&mut plan.failing).disable = DisablePolicy::Never;
        endpoints.push(sim.endpoint(plan, Answer::RetryAfter(503, 1200)));
    }
    for round in 0..60 {
        for endpoint in &endpoints {
            let key = format!("k{}", round % 3);
            sim.publish_keyed(&[*endpoint], Some(&key));
        }
        sim.advance(Duration::from_secs(2));
    }
    (sim, endpoints)
}

fn heal(sim: &mut Sim, endpoints: &[EndpointNo]) {
    for endpoint in endpoints {
        sim.peer(*endpoint).then = Answer::Status(200);
    }
}

fn assert_done(sim: &mut Sim, what: &str) {
    sim.census();
    assert_eq!(sim.open, 0, "{what}: deliveries wait for ever");
    for (endpoint, peer) in &sim.peers {
        let limit = usize::from(peer.plan.concurrency);
        assert!(
            peer.most_under_way <= limit,
            "{what}: {endpoint:?} over its limit"
        );
    }
}

#[test]
fn a_clock_that_is_stepped_loses_nothing_and_holds_nothing_up_for_ever() {
    for by in [HOUR_MS, -HOUR_MS, DECADE_MS, -DECADE_MS] {
        for restart in [false, true] {
            let (mut sim, endpoints) = in_trouble(40);
            sim.step_clock(by);
            if restart {
                sim.crash(false);
            }
            heal(&mut sim, &endpoints);
            sim.advance(DAY * 12);
            assert_done(&mut sim, &format!("step of {by} ms, restart {restart}"));
        }
    }
}

#[test]
fn a_clock_that_was_ahead_and_comes_back_lets_the_retries_of_that_time_go() {
    for restart in [false, true] {
        let (mut sim, endpoints) = in_trouble(41);
        sim.step_clock(DECADE_MS);
        for endpoint in &endpoints {
            sim.publish_keyed(&[*endpoint], Some("k1"));
        }
        sim.advance(MINUTE * 10);
        sim.step_clock(-DECADE_MS);
        if restart {
            sim.crash(true);
        }
        heal(&mut sim, &endpoints);
        sim.advance(HOUR);
        let waiting: usize = endpoints.iter().map(|ep| sim.rows(*ep).len()).sum();
        sim.advance(DAY * 12);
        assert_done(
            &mut sim,
            &format!("restart {restart}, {waiting} waited after an hour"),
        );
    }
}

#[test]
fn an_hour_back_holds_nothing_up_longer_than_that_hour() {
    let (mut sim, endpoints) = in_trouble(42);
    sim.step_clock(-HOUR_MS);
    heal(&mut sim, &endpoints);
    let fresh = sim.publish(&[EndpointNo(1)]);
    // The pause of twenty minutes was under way: it neither grows by the hour nor is it forgotten.
    sim.advance(MINUTE * 21);
    assert_eq!(sim.attempts(fresh, EndpointNo(1)).len(), 1);
    sim.advance(HOUR * 3);
    assert_done(&mut sim, "an hour back");
}

#[test]
fn a_thousand_small_steps_change_nothing_but_the_time() {
    let (mut sim, endpoints) = in_trouble(43);
    heal(&mut sim, &endpoints);
    for step in 0..1000_i64 {
        let by = (step * 7919) % 4001 - 2000;
        sim.step_clock(by);
        sim.advance(Duration::from_millis(500));
    }
    sim.advance(HOUR * 8);
    assert_done(&mut sim, "small steps");
}

#[test]
fn a_step_forward_releases_no_more_than_the_limits_allow() {
    let mut sim = Sim::new(44);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(404));
    sim.publish_many(ep, 2000);
    sim.advance(MINUTE * 2);
    sim.peer(ep).then = Answer::Status(200);
    let before = sim.seen.len();
    sim.step_clock(DECADE_MS);
    let stepped = sim.now;
    sim.advance(Duration::from_secs(1));
    // Ten at a time, 20 ms each, are 500 in a second.
    let within = sim.times(ep, stepped).len() - before;
    assert!(
        within <= 510,
        "{within} attempts in the second after the step"
    );
    sim.advance(HOUR * 2);
    assert_done(&mut sim, "forward");
}
