//! Deliveries in order, per endpoint and per key, also across failures and crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{EndpointNo, Order, Position};
use rand::RngExt;

use super::{Answer, DAY, HOUR, MINUTE, Sim, plan, seeds};

/// Positions in the order of their first 2xx at an endpoint.
fn first_successes(sim: &Sim, endpoint: EndpointNo) -> Vec<Position> {
    let mut order = Vec::new();
    for seen in sim
        .seen
        .iter()
        .filter(|s| s.endpoint == endpoint && s.status == 200)
    {
        if !order.contains(&seen.at) {
            order.push(seen.at);
        }
    }
    order
}

fn quick(order: Order) -> posthaste::schedule::core::Plan {
    let mut plan = plan(1, 1);
    plan.order = order;
    Arc::make_mut(&mut plan.failing).retry.delays = vec![Duration::from_secs(20); 50].into();
    Arc::make_mut(&mut plan.failing).disable = posthaste::model::DisablePolicy::Never;
    plan
}

#[test]
fn an_ordered_endpoint_never_starts_the_next_before_the_one_before_is_done() {
    let mut sim = Sim::new(30);
    let ep = sim.endpoint(quick(Order::Endpoint), Answer::Status(200));
    for i in 0..40 {
        sim.peer(ep).script.push_back(if i % 3 == 0 {
            Answer::Status(400)
        } else {
            Answer::Status(200)
        });
    }
    let sent: Vec<Position> = (0..60)
        .map(|_| {
            sim.advance(Duration::from_millis(200));
            sim.publish(&[ep])
        })
        .collect();
    sim.advance(DAY);
    assert_eq!(first_successes(&sim, ep), sent);
    assert_eq!(sim.peer(ep).most_under_way, 1);
    sim.census();
}

#[test]
fn a_dead_head_lets_the_next_go() {
    let mut sim = Sim::new(31);
    let mut plan = quick(Order::Endpoint);
    Arc::make_mut(&mut plan.failing).retry.delays = vec![Duration::from_secs(5)].into();
    let ep = sim.endpoint(plan, Answer::Status(200));
    sim.peer(ep)
        .script
        .extend([Answer::Status(400), Answer::Status(400)]);
    sim.publish(&[ep]);
    let second = sim.publish(&[ep]);
    sim.advance(HOUR);
    assert_eq!(first_successes(&sim, ep), [second]);
}

#[test]
fn a_failing_key_holds_up_its_own_messages_only() {
    let mut sim = Sim::new(32);
    let ep = sim.endpoint(quick(Order::Key), Answer::Status(200));
    sim.peer(ep).script.push_back(Answer::Status(400));
    let a1 = sim.publish_keyed(&[ep], Some("a"));
    sim.advance(Duration::from_secs(1));
    let a2 = sim.publish_keyed(&[ep], Some("a"));
    let b1 = sim.publish_keyed(&[ep], Some("b"));
    let free = sim.publish(&[ep]);
    sim.advance(Duration::from_secs(1));
    assert_eq!(first_successes(&sim, ep), [b1, free]);
    sim.advance(MINUTE * 2);
    assert_eq!(first_successes(&sim, ep), [b1, free, a1, a2]);
    sim.census();
}

/// Random failures, bursts, crashes and `steps` of the clock: per key the first success follows the order of acceptance.
fn keeps_order(order: Order, steps: bool, seed: u64) {
    let mut sim = Sim::new(seed);
    let ep = sim.endpoint(quick(order), Answer::Status(200));
    let mut sent: BTreeMap<Option<String>, Vec<Position>> = BTreeMap::new();
    for _ in 0..200 {
        let key = (order == Order::Key).then(|| format!("k{}", sim.random.random_range(0..4)));
        let at = sim.publish_keyed(&[ep], key.as_deref());
        sent.entry(key).or_default().push(at);
        if sim.random.random_bool(0.25) {
            sim.peer(ep).script.push_back(Answer::Status(400));
        }
        if sim.random.random_bool(0.05) {
            let power = sim.random.random_bool(0.5);
            sim.crash(power);
        }
        if steps && sim.random.random_bool(0.1) {
            let by = sim.random.random_range(-60_000..60_000);
            sim.step_clock(by);
        }
        if sim.random.random_bool(0.3) {
            let pause = Duration::from_millis(sim.random.random_range(1..8000));
            sim.advance(pause);
        }
    }
    sim.peer(ep).script.clear();
    sim.advance(DAY * 2);
    let order = first_successes(&sim, ep);
    for (key, sent) in sent {
        let mine: Vec<Position> = order
            .iter()
            .copied()
            .filter(|at| sent.contains(at))
            .collect();
        assert_eq!(mine, sent, "key {key:?}, seed {seed}");
    }
    sim.census();
    assert_eq!(sim.open, 0);
}

#[test]
fn order_per_endpoint_survives_failures_and_crashes() {
    for seed in seeds() {
        keeps_order(Order::Endpoint, false, seed);
    }
}

#[test]
fn order_per_key_survives_failures_and_crashes() {
    for seed in seeds() {
        keeps_order(Order::Key, false, seed);
    }
}

#[test]
fn order_survives_steps_of_the_clock() {
    for seed in seeds() {
        keeps_order(Order::Key, true, seed);
        keeps_order(Order::Endpoint, true, seed);
    }
}
