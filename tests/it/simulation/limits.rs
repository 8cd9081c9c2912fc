//! Concurrency, rates, fairness, backlog and memory.

use std::time::Duration;

use posthaste::model::AppNo;
use posthaste::schedule::core::{Input, Settings};

use super::{Answer, DAY, HOUR, MINUTE, Sim, plan};

#[test]
fn attempts_at_the_same_time_never_exceed_the_endpoints_limit() {
    for limit in [1, 2, 10] {
        let mut sim = Sim::new(20);
        let mut plan = plan(1, 1);
        plan.concurrency = limit;
        let ep = sim.endpoint(plan, Answer::Status(200));
        for _ in 0..500 {
            sim.publish(&[ep]);
        }
        sim.advance(MINUTE * 2);
        assert_eq!(sim.seen.len(), 500);
        assert_eq!(sim.peer(ep).most_under_way, usize::from(limit));
        assert_eq!(sim.open, 0);
    }
}

#[test]
fn attempts_in_all_never_exceed_the_instances_limit() {
    let mut sim = Sim::with(
        21,
        Settings {
            max_in_flight: 7,
            ..Settings::default()
        },
    );
    for no in 1..=20 {
        let ep = sim.endpoint(plan(no, no), Answer::Status(200));
        for _ in 0..20 {
            sim.publish(&[ep]);
            assert!(sim.core.in_flight() <= 7);
        }
    }
    sim.advance(MINUTE);
    assert_eq!(sim.seen.len(), 400);
}

#[test]
fn a_rate_limit_spreads_attempts_over_time() {
    let mut sim = Sim::new(22);
    let mut plan = plan(1, 1);
    plan.rate = Some(5);
    let ep = sim.endpoint(plan, Answer::Status(200));
    let begin = sim.now;
    for _ in 0..50 {
        sim.publish(&[ep]);
    }
    sim.advance(MINUTE);
    let times = sim.times(ep, begin);
    assert_eq!(times.len(), 50);
    for second in 0..9 {
        let from = f64::from(second);
        let within = times
            .iter()
            .filter(|at| (from..from + 1.0).contains(*at))
            .count();
        assert!(within <= 10, "{within} in second {second}"); // five, and the burst of the first
    }
    assert!(times.last().unwrap() > &7.0, "{times:?}");
}

#[test]
fn a_hanging_application_leaves_the_others_their_share() {
    let mut sim = Sim::with(
        23,
        Settings {
            max_in_flight: 100,
            ..Settings::default()
        },
    );
    let mut hanging = Vec::new();
    for no in 1..=200 {
        let ep = sim.endpoint(
            plan(no, 1),
            Answer::Fails(posthaste::model::FailureKind::TimeoutTotal),
        );
        sim.peer(ep).takes = Duration::from_secs(15);
        hanging.push(ep);
    }
    let healthy: Vec<_> = (301..=310)
        .map(|no| sim.endpoint(plan(no, no), Answer::Status(200)))
        .collect();
    for round in 0..60 {
        for ep in hanging.iter().chain(&healthy) {
            sim.publish(&[*ep]);
        }
        sim.advance(Duration::from_secs(1));
        assert!(sim.core.in_flight() <= 100, "round {round}");
    }
    let late = sim
        .seen
        .iter()
        .filter(|seen| healthy.contains(&seen.endpoint))
        .filter(|seen| {
            let message = sim
                .messages
                .iter()
                .find(|message| message.at == seen.at)
                .unwrap();
            seen.start.since(message.accepted) > Duration::from_millis(250)
        })
        .count();
    let delivered = sim
        .seen
        .iter()
        .filter(|seen| healthy.contains(&seen.endpoint))
        .count();
    assert!(delivered >= 590, "{delivered} of 600");
    assert_eq!(late, 0, "healthy applications waited");
}

#[test]
fn an_application_with_a_quota_keeps_to_it_in_turns_and_nobody_waits_for_it() {
    let mut sim = Sim::with(29, Settings::default());
    let own: Vec<_> = (1..=8)
        .map(|no| sim.endpoint(plan(no, 1), Answer::Status(200)))
        .collect();
    for ep in &own {
        sim.peer(*ep).takes = Duration::from_secs(1);
    }
    let other = sim.endpoint(plan(9, 2), Answer::Status(200));
    let of = |sim: &Sim, ep| sim.seen.iter().filter(|seen| seen.endpoint == ep).count();
    sim.step(Input::Quota(AppNo(1), Some(4)));
    for round in 0..10 {
        for ep in own.iter().chain([&other]) {
            sim.publish(&[*ep]);
        }
        sim.advance(Duration::from_millis(100));
        assert_eq!(sim.core.in_flight(), 4, "round {round}");
        assert_eq!(of(&sim, other), round + 1, "another application waited");
        // What waits for its own application's attempts does not wait for a slot.
        assert_eq!(sim.core.oldest_runnable(), None);
    }
    sim.advance(Duration::from_secs(9));
    // Whose page is read first may begin with a few at once; nobody is left out.
    let served: Vec<usize> = own.iter().map(|ep| of(&sim, *ep)).collect();
    assert!(
        served.iter().all(|count| *count >= 3),
        "{served:?} of 10 after half the time"
    );
    sim.advance(Duration::from_secs(15));
    assert!(
        own.iter().all(|ep| of(&sim, *ep) == 10),
        "everything arrived"
    );
    for ep in own.iter().cycle().take(24) {
        sim.publish(&[*ep]);
    }
    assert_eq!(sim.core.in_flight(), 4);
    sim.step(Input::Quota(AppNo(1), None));
    sim.advance(Duration::from_millis(100));
    assert!(sim.core.in_flight() > 8, "{}", sim.core.in_flight());
}

#[test]
fn a_backlog_larger_than_memory_is_kept_in_the_store_and_drains() {
    let settings = Settings {
        max_in_memory: 200,
        max_queue: 100,
        ..Settings::default()
    };
    let mut sim = Sim::with(24, settings);
    let ep = sim.endpoint(
        plan(1, 1),
        Answer::Fails(posthaste::model::FailureKind::Refused),
    );
    let other = sim.endpoint(plan(2, 2), Answer::Status(200));
    for _ in 0..3000 {
        sim.publish(&[ep]);
        assert!(sim.core.in_memory() <= 200);
    }
    let at = sim.publish(&[other]);
    sim.advance(MINUTE);
    assert_eq!(
        sim.attempts(at, other).len(),
        1,
        "the other endpoint is not held up"
    );
    assert!(sim.core.in_memory() <= 200);
    sim.census();
    sim.peer(ep).then = Answer::Status(200);
    sim.advance(DAY);
    sim.census();
    assert_eq!(sim.open, 0);
    let delivered = sim
        .seen
        .iter()
        .filter(|s| s.endpoint == ep && s.status == 200)
        .count();
    assert_eq!(delivered, 3000, "each exactly once");
}

#[test]
fn an_endpoint_whose_url_is_edited_is_tried_at_once_and_another_edit_changes_nothing() {
    for (edit, at_once) in [(true, true), (false, false)] {
        let mut sim = Sim::new(29);
        let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
        for _ in 0..50 {
            sim.publish(&[ep]);
        }
        // Tens of failures: the breaker is open for a minute when its last attempt has failed.
        sim.advance(MINUTE * 10);
        let tried = sim.seen.len();
        while sim.seen.len() == tried {
            sim.advance(Duration::from_secs(1));
        }
        let tried = sim.seen.len();
        sim.peer(ep).then = Answer::Status(200);
        sim.change(ep, |plan| {
            plan.rate = Some(1000);
            plan.destination += u64::from(edit);
        });
        sim.advance(Duration::from_secs(5));
        assert_eq!(sim.seen.len() > tried, at_once);
        sim.advance(DAY);
        assert_eq!(sim.open, 0);
    }
}

#[test]
fn a_disabled_endpoint_holds_its_backlog_and_starts_slowly_when_enabled() {
    let mut sim = Sim::new(25);
    let mut off = plan(1, 1);
    off.sending = false;
    let ep = sim.endpoint(off, Answer::Status(200));
    for _ in 0..1000 {
        sim.publish(&[ep]);
    }
    sim.advance(HOUR);
    assert!(sim.seen.is_empty());
    assert_eq!(sim.core.in_memory(), 0, "held deliveries need no memory");
    assert_eq!(sim.rows(ep).len(), 1000);
    let enabled = sim.now;
    sim.change(ep, |plan| plan.sending = true);
    sim.advance(MINUTE * 5);
    assert_eq!(sim.seen.len(), 1000);
    assert_eq!(sim.open, 0);
    let first = sim
        .times(ep, enabled)
        .iter()
        .filter(|at| **at < 0.015)
        .count();
    assert_eq!(first, 1, "the ramp begins with one");
    assert_eq!(sim.peer(ep).most_under_way, 10);
}

#[test]
fn what_waits_too_long_for_a_slot_leaves_memory_and_the_checkpoint_moves() {
    let mut sim = Sim::new(26);
    let mut slow = plan(1, 1);
    slow.concurrency = 1;
    let ep = sim.endpoint(slow, Answer::Status(200));
    sim.peer(ep).takes = Duration::from_secs(14);
    for _ in 0..100 {
        sim.publish(&[ep]);
    }
    sim.advance(Duration::from_secs(20));
    assert!(
        sim.core.in_memory() < 30,
        "{} in memory",
        sim.core.in_memory()
    );
    let lane = sim.reader.lanes().unwrap().into_iter().next_back().unwrap();
    assert!(lane.checkpoint >= 1, "{lane:?}");
    sim.advance(HOUR);
    assert_eq!(sim.seen.len(), 100);
    assert_eq!(sim.open, 0);
    sim.census();
}

#[test]
fn a_deleted_endpoint_ends_its_deliveries_and_leaves_no_rows() {
    let mut sim = Sim::new(27);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    for _ in 0..300 {
        sim.publish(&[ep]);
    }
    sim.advance(MINUTE);
    sim.change(ep, |plan| {
        plan.deleted = true;
        plan.sending = false;
    });
    sim.advance(MINUTE);
    assert_eq!(sim.open, 0);
    assert!(sim.rows(ep).is_empty());
    let before = sim.seen.len();
    sim.publish(&[ep]);
    sim.advance(DAY);
    assert_eq!(sim.seen.len(), before);
    assert_eq!(sim.open, 0);
}
