//! Collapse keys: the latest wins while the others wait, in memory, in the store and across crashes.

use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{Delivery, EndpointNo, Order, Position};
use rand::RngExt;

use super::{Answer, DAY, HOUR, MINUTE, Settings, Sim, plan, seeds};

const SECOND: Duration = Duration::from_secs(1);

fn seen(sim: &Sim) -> Vec<Position> {
    sim.seen.iter().map(|seen| seen.at).collect()
}

fn by(sim: &Sim, at: Position, endpoint: EndpointNo) -> Option<Position> {
    let delivery = Delivery { at, endpoint };
    sim.reader.superseded_by(delivery).unwrap()
}

#[test]
fn what_waits_in_memory_is_superseded_at_once() {
    let mut sim = Sim::new(1);
    let mut slow = plan(1, 1);
    slow.concurrency = 1;
    let ep = sim.endpoint(slow, Answer::Status(200));
    sim.peer(ep).takes = SECOND;
    let sent: Vec<_> = (0..5).map(|_| sim.publish_collapsing(&[ep], "a")).collect();
    let other = sim.publish_collapsing(&[ep], "b");
    let plain = sim.publish(&[ep]);
    assert_eq!(sim.core.in_memory(), 4, "one is under way, three wait");
    sim.advance(HOUR);
    assert_eq!(seen(&sim), [sent[0], sent[4], other, plain]);
    for (at, next) in [(1, 2), (2, 3), (3, 4)] {
        assert_eq!(by(&sim, sent[at], ep), Some(sent[next]));
    }
    assert_eq!(by(&sim, sent[0], ep), None, "it was delivered");
    sim.census();
}

#[test]
fn an_attempt_under_way_is_the_last_one() {
    let mut sim = Sim::new(2);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    sim.peer(ep).script.push_back(Answer::Status(500));
    sim.peer(ep).takes = SECOND;
    let first = sim.publish_collapsing(&[ep], "a");
    let second = sim.publish_collapsing(&[ep], "a");
    sim.advance(DAY);
    assert_eq!(seen(&sim), [first, second]);
    assert_eq!(by(&sim, first, ep), Some(second));
    sim.census();
}

#[test]
fn a_retry_that_waits_in_the_store_is_superseded_when_its_turn_comes() {
    for crash in [false, true] {
        let mut sim = Sim::new(3);
        let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
        sim.peer(ep).script.push_back(Answer::Status(400));
        let first = sim.publish_collapsing(&[ep], "a");
        sim.advance(SECOND);
        let second = sim.publish_collapsing(&[ep], "a");
        sim.advance(SECOND);
        if crash {
            sim.crash(false);
        }
        sim.advance(DAY);
        assert_eq!(seen(&sim), [first, second]);
        assert_eq!(by(&sim, first, ep), Some(second));
        assert!(sim.rows(ep).is_empty());
        sim.census();
    }
}

#[test]
fn of_a_paused_endpoints_backlog_only_the_latest_is_sent() {
    let mut sim = Sim::new(4);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let other = sim.endpoint(plan(2, 1), Answer::Status(200));
    sim.change(ep, |plan| plan.sending = false);
    let mut last = Vec::new();
    for round in 0..300 {
        for key in ["a", "b", "c"] {
            let at = sim.publish_collapsing(&[ep, other], key);
            if round == 299 {
                last.push(at);
            }
        }
        if round == 150 {
            sim.crash(false);
            sim.change(ep, |plan| plan.sending = false);
        }
    }
    sim.advance(MINUTE);
    sim.change(ep, |plan| plan.sending = true);
    sim.advance(MINUTE);
    let at_ep: Vec<_> = sim.seen.iter().filter(|s| s.endpoint == ep).collect();
    assert_eq!(at_ep.iter().map(|s| s.at).collect::<Vec<_>>(), last);
    sim.census();
}

#[test]
fn a_page_under_way_does_not_bring_back_what_was_superseded_meanwhile() {
    let mut sim = Sim::new(5);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    sim.change(ep, |plan| plan.sending = false);
    let first = sim.publish_collapsing(&[ep], "a");
    sim.advance(SECOND);
    sim.reads_wait = true;
    sim.change(ep, |plan| plan.sending = true);
    let second = sim.publish_collapsing(&[ep], "a");
    sim.advance(SECOND);
    sim.reads_wait = false;
    sim.advance(MINUTE);
    sim.settle();
    assert_eq!(seen(&sim), [second]);
    assert_eq!(by(&sim, first, ep), Some(second));
    sim.census();
}

#[test]
fn what_somebody_wants_tried_again_is_not_superseded() {
    let mut sim = Sim::new(6);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let first = sim.publish_collapsing(&[ep], "a");
    sim.advance(SECOND);
    let second = sim.publish_collapsing(&[ep], "a");
    sim.advance(SECOND);
    let delivery = Delivery {
        at: first,
        endpoint: ep,
    };
    sim.retry(&[delivery], false);
    sim.advance(SECOND);
    assert_eq!(seen(&sim), [first, second, first]);
    sim.census();
}

#[test]
fn the_later_message_keeps_its_own_place_in_order() {
    for order in [Order::Endpoint, Order::Key] {
        let mut sim = Sim::new(7);
        let mut ordered = plan(1, 1);
        ordered.order = order;
        let ep = sim.endpoint(ordered, Answer::Status(200));
        sim.peer(ep).script.push_back(Answer::Status(400));
        let labelled = |collapse: Option<&str>| posthaste::model::Labels {
            ordering_key: Some(String::from("k")),
            collapse_key: collapse.map(str::to_owned),
            ..posthaste::model::Labels::default()
        };
        let head = sim.publish_labelled(&[ep], labelled(None));
        sim.advance(Duration::from_millis(100));
        sim.publish_labelled(&[ep], labelled(Some("a")));
        let middle = sim.publish_labelled(&[ep], labelled(None));
        let last = sim.publish_labelled(&[ep], labelled(Some("a")));
        sim.advance(DAY);
        assert_eq!(seen(&sim), [head, head, middle, last], "{order:?}");
        sim.census();
    }
}

/// The row of an expunged message stayed in the count of its key, and held up what came later.
#[test]
fn what_waits_behind_an_expunged_message_of_its_key_goes_on() {
    let mut sim = Sim::new(8);
    let mut ordered = plan(1, 1);
    ordered.order = Order::Key;
    let ep = sim.endpoint(ordered, Answer::Status(200));
    sim.peer(ep).script.push_back(Answer::Status(400));
    let first = sim.publish_keyed(&[ep], Some("k"));
    sim.advance(SECOND);
    let second = sim.publish_keyed(&[ep], Some("k"));
    sim.expunge(first);
    sim.advance(MINUTE);
    let third = sim.publish_keyed(&[ep], Some("k"));
    sim.advance(MINUTE);
    assert_eq!(seen(&sim), [first, second, third]);
    sim.census();
}

/// Random keys, moods, pauses, little memory and crashes: per key the last message arrives, none arrives
/// after a later one, and nothing is lost in between.
#[test]
fn the_last_message_of_each_key_arrives_whatever_happens() {
    for seed in seeds() {
        let settings = Settings {
            max_in_memory: 6,
            max_queue: 3,
            ..Settings::default()
        };
        let mut sim = Sim::with(seed, settings);
        let mut quick = plan(1, 1);
        quick.concurrency = 1;
        Arc::make_mut(&mut quick.failing).retry.delays = vec![Duration::from_secs(20); 50].into();
        Arc::make_mut(&mut quick.failing).disable = posthaste::model::DisablePolicy::Never;
        let ep = sim.endpoint(quick, Answer::Status(200));
        sim.peer(ep).takes = Duration::from_millis(400);
        let mut last = std::collections::BTreeMap::new();
        for _ in 0..120 {
            let key = format!("k{}", sim.random.random_range(0..3));
            let at = sim.publish_collapsing(&[ep], &key);
            last.insert(key, at);
            if sim.random.random_bool(0.3) {
                sim.peer(ep).script.push_back(Answer::Status(500));
            }
            if sim.random.random_bool(0.1) {
                let sending = sim.random.random_bool(0.5);
                sim.change(ep, |plan| plan.sending = sending);
            }
            if sim.random.random_bool(0.05) {
                sim.crash(false);
            }
            let pause = sim.random.random_range(1..3000);
            sim.advance(Duration::from_millis(pause));
        }
        sim.change(ep, |plan| plan.sending = true);
        sim.advance(DAY);
        for (key, at) in &last {
            let arrived = sim.seen.iter().any(|s| s.at == *at && s.status == 200);
            assert!(arrived, "seed {seed}: the last of {key}");
        }
        assert!(sim.rows(ep).is_empty(), "seed {seed}");
        sim.census();
    }
}
