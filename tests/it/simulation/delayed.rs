//! Messages with a time of delivery: not before it, across crashes, in order, and as their owner wishes.

use std::time::Duration;

use posthaste::model::{Delivery, EndpointNo, Order, Position};

use super::{Answer, DAY, HOUR, MINUTE, Sim, plan};

const SECOND: Duration = Duration::from_secs(1);

fn delivery(at: Position, endpoint: EndpointNo) -> Delivery {
    Delivery { at, endpoint }
}

#[test]
fn a_delayed_message_waits_in_the_store_and_starts_at_its_time() {
    let mut sim = Sim::new(1);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let start = sim.now;
    let at = sim.publish_at(&[ep], None, start.plus(MINUTE * 10));
    sim.publish(&[ep]);
    sim.advance(MINUTE * 10 - SECOND);
    assert_eq!(sim.times(ep, start), [0.0], "the other one is not held up");
    assert_eq!(sim.core.in_memory(), 0);
    assert_eq!(sim.rows(ep).len(), 1);
    sim.advance(SECOND * 2);
    assert_eq!(sim.times(ep, start), [0.0, 600.0]);
    let attempts = sim.attempts(at, ep);
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].no, 1, "waiting is no attempt");
    sim.census();
}

#[test]
fn a_delayed_message_that_fails_has_its_whole_schedule_left() {
    let mut sim = Sim::new(2);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(400));
    let start = sim.now;
    let at = sim.publish_at(&[ep], None, start.plus(HOUR));
    sim.advance(DAY * 6);
    assert_eq!(sim.attempts(at, ep).len(), 10);
    assert!((sim.times(ep, start)[0] - 3600.0).abs() < 0.01);
    sim.census();
}

#[test]
fn a_restart_neither_loses_nor_doubles_nor_hastens_it() {
    for (seed, power) in (0..40).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut sim = Sim::new(seed);
        let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
        // A delivery under way holds the checkpoint back, so recovery looks at the delayed one.
        sim.peer(ep).takes = MINUTE;
        sim.publish(&[ep]);
        let start = sim.now;
        let at = sim.publish_at(&[ep], None, start.plus(MINUTE * 5));
        sim.advance(Duration::from_millis(seed * 13));
        sim.crash(power);
        sim.advance(MINUTE * 5 - SECOND - Duration::from_millis(seed * 13));
        let seen = |sim: &Sim| sim.seen.iter().filter(|seen| seen.at == at).count();
        assert_eq!(seen(&sim), 0, "seed {seed}: before its time");
        sim.crash(power);
        sim.advance(MINUTE * 10);
        assert_eq!(seen(&sim), 1, "seed {seed}");
        sim.census();
    }
}

#[test]
fn at_an_ordered_endpoint_what_is_later_waits_and_what_is_earlier_does_not() {
    let mut sim = Sim::new(3);
    let mut ordered = plan(1, 1);
    ordered.order = Order::Endpoint;
    let ep = sim.endpoint(ordered, Answer::Status(200));
    sim.peer(ep).takes = SECOND * 20;
    let start = sim.now;
    let sent: Vec<_> = [
        sim.publish(&[ep]),
        sim.publish(&[ep]),
        sim.publish_at(&[ep], None, start.plus(MINUTE * 10)),
        sim.publish(&[ep]),
    ]
    .into();
    sim.advance(HOUR);
    let order: Vec<_> = sim.seen.iter().map(|seen| seen.at).collect();
    assert_eq!(order, sent);
    assert_eq!(sim.times(ep, start), [0.0, 20.0, 600.0, 620.0]);
    sim.census();
}

#[test]
fn at_an_endpoint_ordered_by_key_only_its_own_key_waits() {
    let mut sim = Sim::new(4);
    let mut ordered = plan(1, 1);
    ordered.order = Order::Key;
    let ep = sim.endpoint(ordered, Answer::Status(200));
    let start = sim.now;
    let first = sim.publish_keyed(&[ep], Some("a"));
    let delayed = sim.publish_at(&[ep], Some("a"), start.plus(MINUTE * 10));
    let behind = sim.publish_keyed(&[ep], Some("a"));
    let other = sim.publish_keyed(&[ep], Some("b"));
    sim.advance(MINUTE * 9);
    let late = sim.publish_keyed(&[ep], Some("a"));
    sim.crash(false);
    sim.advance(HOUR);
    let order: Vec<_> = sim.seen.iter().map(|seen| seen.at).collect();
    assert_eq!(order, [first, other, delayed, behind, late]);
    sim.census();
}

/// Its row behind the one that failed had an earlier time, and that counted as having waited (gateway
/// simulation, seeds 1, 5, 7).
#[test]
fn a_delayed_message_behind_a_failing_one_of_its_key_still_waits_for_its_time() {
    let mut sim = Sim::new(7);
    let mut ordered = plan(1, 1);
    ordered.order = Order::Key;
    let ep = sim.endpoint(ordered, Answer::Status(200));
    sim.peer(ep).script.push_back(Answer::Status(400));
    let start = sim.now;
    let first = sim.publish_keyed(&[ep], Some("a"));
    sim.advance(Duration::from_millis(100));
    let delayed = sim.publish_at(&[ep], Some("a"), start.plus(MINUTE * 10));
    let behind = sim.publish_keyed(&[ep], Some("a"));
    sim.advance(MINUTE * 9);
    let order = |sim: &Sim| sim.seen.iter().map(|seen| seen.at).collect::<Vec<_>>();
    assert_eq!(order(&sim), [first, first]);
    sim.advance(MINUTE * 2);
    assert_eq!(order(&sim), [first, first, delayed, behind]);
    sim.census();
}

#[test]
fn a_delayed_message_is_cancelled_like_others_and_a_resend_sends_it_at_once() {
    let mut sim = Sim::new(5);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let start = sim.now;
    let dropped = sim.publish_at(&[ep], None, start.plus(HOUR));
    let hurried = sim.publish_at(&[ep], None, start.plus(HOUR));
    sim.advance(MINUTE);
    sim.cancel(&[delivery(dropped, ep)]);
    sim.retry(&[delivery(hurried, ep)], false);
    sim.advance(SECOND);
    assert_eq!(sim.times(ep, start), [60.0]);
    sim.advance(DAY);
    assert_eq!(sim.seen.len(), 1);
    assert_eq!(sim.seen[0].at, hurried);
    assert!(sim.rows(ep).is_empty());
    sim.census();
}

#[test]
fn a_clock_set_back_delays_it_and_one_set_forward_hastens_it() {
    let mut sim = Sim::new(6);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let start = sim.now;
    sim.publish_at(&[ep], None, start.plus(HOUR));
    sim.advance(MINUTE);
    sim.step_clock(-20 * 60_000);
    sim.advance(HOUR);
    assert!(sim.seen.is_empty(), "its time is the wall clock's");
    sim.step_clock(25 * 60_000);
    sim.advance(SECOND);
    assert_eq!(sim.seen.len(), 1);
    sim.census();
}
