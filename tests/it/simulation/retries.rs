//! Schedules, `Retry-After`, `410`, automatic disabling, resend and recover.

use posthaste::model::{Delivery, DisablePolicy, DisableReason, FailureKind, Trigger, Verdict};
use posthaste::policy::retry::RetryPlan;
use posthaste::schedule::core::{Announcement, Kind, Read};
use posthaste::schedule::read_page;
use std::sync::Arc;

use super::{Answer, DAY, HOUR, MINUTE, Sim, plan};
use std::time::Duration;

#[test]
fn a_failing_delivery_gets_ten_attempts_over_75_hours_and_is_dead() {
    let mut sim = Sim::new(1);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    let begin = sim.now;
    let at = sim.publish(&[ep]);
    sim.advance(DAY * 5);
    let times = sim.times(ep, begin);
    assert_eq!(times.len(), 10);
    let delays = RetryPlan::named("standard-10").unwrap();
    for (pair, delay) in times.windows(2).zip(delays) {
        let factor = (pair[1] - pair[0] - 0.02) / delay.as_secs_f64();
        assert!((0.79..1.21).contains(&factor), "{factor} of {delay:?}");
    }
    let last = sim.attempts(at, ep).pop().unwrap();
    assert!(matches!(last.verdict, Verdict::Dead(_)), "{last:?}");
    let exhausted = sim
        .told
        .iter()
        .filter(|(_, told)| matches!(told, Announcement::Exhausted(_)))
        .count();
    assert_eq!(exhausted, 1);
    sim.census();
    assert_eq!(sim.open, 0);
}

#[test]
fn named_schedules_make_the_documented_number_of_attempts() {
    for (name, attempts) in [
        ("standard-10", 10),
        ("steps-8", 8),
        ("geometric-3", 4),
        ("ladder-5", 5),
    ] {
        let mut sim = Sim::new(2);
        let mut plan = plan(1, 1);
        Arc::make_mut(&mut plan.failing).retry.delays = RetryPlan::named(name).unwrap().into();
        let ep = sim.endpoint(plan, Answer::Status(500));
        sim.publish(&[ep]);
        sim.advance(DAY * 6);
        assert_eq!(sim.seen.len(), attempts, "{name}");
    }
}

#[test]
fn retry_after_is_waited_out_by_the_whole_endpoint() {
    let mut sim = Sim::new(3);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    sim.peer(ep).script.push_back(Answer::RetryAfter(429, 600));
    let begin = sim.now;
    sim.publish(&[ep]);
    sim.advance(Duration::from_secs(1));
    sim.publish(&[ep]);
    sim.advance(HOUR);
    let times = sim.times(ep, begin);
    assert_eq!(times.len(), 3);
    assert!(times[1..].iter().all(|at| *at >= 600.0), "{times:?}");
}

#[test]
fn the_whole_endpoint_waits_no_longer_than_the_configured_limit_also_after_that_was_changed() {
    for edited in [false, true] {
        let mut sim = Sim::new(30);
        let mut plan = plan(1, 1);
        if !edited {
            Arc::make_mut(&mut plan.failing).retry.max_retry_after = MINUTE;
        }
        let ep = sim.endpoint(plan, Answer::Status(200));
        sim.change(ep, |plan| {
            Arc::make_mut(&mut plan.failing).retry.max_retry_after = MINUTE
        });
        sim.peer(ep).script.push_back(Answer::RetryAfter(429, 3600));
        sim.publish(&[ep]);
        sim.advance(Duration::from_secs(1));
        sim.publish(&[ep]);
        sim.advance(Duration::from_secs(50));
        assert_eq!(sim.seen.len(), 1, "paused");
        sim.advance(Duration::from_secs(20));
        assert!(sim.seen.len() > 1, "not for the hour that was asked for");
    }
}

#[test]
fn retry_after_beyond_a_day_is_cut_and_a_short_one_never_speeds_up() {
    for (hint, least, most) in [(u32::MAX, 86_400.0, 86_500.0), (0, 3.9, 70.0)] {
        let mut sim = Sim::new(4);
        let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
        sim.peer(ep).script.push_back(Answer::RetryAfter(503, hint));
        let begin = sim.now;
        sim.publish(&[ep]);
        sim.advance(DAY * 3);
        let times = sim.times(ep, begin);
        assert_eq!(times.len(), 2, "{hint}");
        assert!((least..most).contains(&times[1]), "{hint}: {times:?}");
    }
}

#[test]
fn gone_disables_at_once_and_the_delivery_is_held_until_enabled() {
    let mut sim = Sim::new(5);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    sim.peer(ep).script.push_back(Answer::Status(410));
    sim.publish(&[ep]);
    sim.advance(DAY);
    assert_eq!(sim.seen.len(), 1);
    assert!(!sim.peer(ep).plan.sending);
    let disabled = |told: &Announcement| {
        matches!(
            told,
            Announcement::Disabled {
                reason: DisableReason::Gone,
                ..
            }
        )
    };
    assert_eq!(
        sim.told.iter().filter(|(_, told)| disabled(told)).count(),
        1
    );
    sim.publish(&[ep]);
    sim.advance(DAY);
    assert_eq!(sim.seen.len(), 1, "held while disabled");
    sim.census();
    assert_eq!(sim.open, 2);
    sim.change(ep, |plan| plan.sending = true);
    sim.advance(HOUR);
    assert_eq!(sim.seen.len(), 3);
    assert_eq!(sim.open, 0);
}

#[test]
fn five_days_of_nothing_but_failures_disable_and_one_success_resets() {
    let mut sim = Sim::new(6);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    for _ in 0..4 {
        sim.publish(&[ep]);
        sim.advance(DAY);
    }
    assert!(sim.peer(ep).plan.sending, "four days are not enough");
    sim.peer(ep).script.push_back(Answer::Status(200));
    sim.publish(&[ep]);
    sim.advance(DAY);
    let reset = sim.now;
    while sim.peer(ep).plan.sending {
        sim.publish(&[ep]);
        sim.advance(HOUR * 6);
        assert!(sim.now.since(reset) < DAY * 8, "never disabled");
    }
    assert!(
        sim.now.since(reset) >= DAY * 4,
        "{:?}",
        sim.now.since(reset)
    );
}

#[test]
fn the_consecutive_policy_disables_after_ten_failures_in_a_row() {
    let mut sim = Sim::new(7);
    let mut plan = plan(1, 1);
    Arc::make_mut(&mut plan.failing).disable = DisablePolicy::Consecutive { failures: 10 };
    let ep = sim.endpoint(plan, Answer::Status(500));
    for _ in 0..30 {
        sim.publish(&[ep]);
        sim.advance(MINUTE * 20);
    }
    assert!(!sim.peer(ep).plan.sending);
    // Attempts that were under way when the tenth failed may still end.
    assert!((10..20).contains(&sim.seen.len()), "{}", sim.seen.len());
}

#[test]
fn a_resend_of_a_delivered_message_is_one_manual_attempt() {
    let mut sim = Sim::new(8);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let at = sim.publish(&[ep]);
    sim.advance(MINUTE);
    sim.peer(ep).then = Answer::Status(500);
    sim.retry(&[Delivery { at, endpoint: ep }], false);
    sim.advance(DAY * 4);
    let attempts = sim.attempts(at, ep);
    assert_eq!(attempts.len(), 2, "a failed resend starts no schedule");
    assert_eq!(attempts[1].trigger, Trigger::Manual);
    sim.census();
    assert_eq!(sim.open, 0);
}

#[test]
fn a_resend_brings_a_waiting_retry_forward_and_keeps_its_schedule() {
    let mut sim = Sim::new(9);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    let at = sim.publish(&[ep]);
    sim.advance(MINUTE);
    assert_eq!(sim.seen.len(), 2);
    sim.retry(&[Delivery { at, endpoint: ep }], false);
    sim.advance(Duration::from_secs(30));
    assert_eq!(sim.seen.len(), 3);
    sim.census();
    sim.advance(DAY * 6);
    assert_eq!(sim.attempts(at, ep).len(), 10);
}

#[test]
fn recovered_deliveries_get_a_fresh_schedule() {
    let mut sim = Sim::new(10);
    let mut plan = plan(1, 1);
    Arc::make_mut(&mut plan.failing).retry.delays = vec![Duration::from_secs(1); 2].into();
    let ep = sim.endpoint(plan, Answer::Status(500));
    let at = sim.publish(&[ep]);
    sim.advance(HOUR);
    assert_eq!(sim.attempts(at, ep).len(), 3);
    sim.retry(&[Delivery { at, endpoint: ep }], true);
    sim.advance(HOUR);
    assert_eq!(sim.attempts(at, ep).len(), 6);
    sim.peer(ep).then = Answer::Status(200);
    sim.retry(&[Delivery { at, endpoint: ep }], true);
    sim.advance(HOUR);
    assert_eq!(
        sim.attempts(at, ep).last().unwrap().verdict,
        Verdict::Delivered
    );
    sim.census();
}

#[test]
fn a_cancelled_delivery_is_not_tried_again() {
    let mut sim = Sim::new(11);
    let ep = sim.endpoint(plan(1, 1), Answer::Fails(FailureKind::Refused));
    let at = sim.publish(&[ep]);
    sim.advance(Duration::from_secs(1));
    sim.cancel(&[Delivery { at, endpoint: ep }]);
    sim.advance(DAY * 4);
    assert_eq!(sim.seen.len(), 1);
    sim.census();
    assert_eq!(sim.open, 0);
}

#[test]
fn failing_is_announced_once_and_recovery_too() {
    let mut sim = Sim::new(12);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    sim.publish(&[ep]);
    sim.advance(HOUR * 9);
    sim.peer(ep).then = Answer::Status(200);
    sim.advance(DAY);
    let names: Vec<&str> = sim
        .told
        .iter()
        .map(|(_, told)| match told {
            Announcement::Failing(_) => "failing",
            Announcement::Exhausted(_) => "exhausted",
            Announcement::Recovered(_) => "recovered",
            Announcement::Disabled { .. } => "disabled",
        })
        .collect();
    assert_eq!(names, ["failing", "recovered"]);
}

#[test]
fn retries_that_failed_together_are_spread_evenly() {
    let mut sim = Sim::new(13);
    let mut endpoints = Vec::new();
    for no in 1..=1000 {
        let ep = sim.endpoint(plan(no, no), Answer::Status(200));
        // The first retry comes after 5 s, the second after 5 min: that one is looked at.
        sim.peer(ep).script.extend([Answer::Status(500); 2]);
        endpoints.push(ep);
    }
    for ep in &endpoints {
        sim.publish(&[*ep]);
    }
    sim.advance(MINUTE * 10);
    let mut waits: Vec<f64> = endpoints
        .iter()
        .map(|ep| {
            let times = sim.times(*ep, posthaste::base::Timestamp::ZERO);
            assert_eq!(times.len(), 3);
            times[2] - times[1]
        })
        .collect();
    waits.sort_by(f64::total_cmp);
    // Kolmogorov-Smirnov against the uniform distribution over 240 s to 360 s; 1.63/sqrt(n) is the
    // critical value at 1 %.
    let n = waits.len() as f64;
    let distance = waits
        .iter()
        .enumerate()
        .map(|(i, wait)| ((wait - 240.0) / 120.0 - i as f64 / n).abs())
        .fold(0.0, f64::max);
    assert!(distance < 1.63 / n.sqrt(), "{distance}");
}

#[test]
fn a_row_that_comes_due_after_its_page_was_read_is_left_for_the_next_page() {
    let mut sim = Sim::new(14);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    let at = sim.publish(&[ep]);
    sim.advance(Duration::from_secs(1));
    let read = Read {
        endpoint: ep,
        kind: Kind::Retry,
        after: None,
        limit: 8,
        settled: 0,
        walk: false,
        no: 0,
    };
    let page = read_page(sim.reader.as_ref(), read, sim.now);
    sim.now = sim.now.plus(MINUTE);
    sim.step(page);
    sim.advance(DAY * 5);
    assert!(
        !sim.reader
            .is_cancelled(Delivery { at, endpoint: ep })
            .unwrap()
    );
    assert_eq!(sim.attempts(at, ep).len(), 10);
}

#[test]
fn resends_while_the_endpoint_is_off_are_one_attempt_and_leave_nothing_behind() {
    let mut sim = Sim::new(15);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let at = sim.publish(&[ep]);
    sim.advance(MINUTE);
    sim.change(ep, |plan| plan.sending = false);
    for _ in 0..3 {
        sim.retry(&[Delivery { at, endpoint: ep }], false);
    }
    sim.census();
    assert_eq!((sim.rows(ep).len(), sim.open), (1, 1));
    sim.change(ep, |plan| plan.sending = true);
    sim.advance(MINUTE);
    sim.crash(false);
    sim.advance(HOUR);
    assert_eq!(sim.attempts(at, ep).len(), 2);
    assert_eq!((sim.rows(ep).len(), sim.open), (0, 0));
}

#[test]
fn a_resend_that_is_held_can_be_cancelled() {
    let mut sim = Sim::new(16);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    let at = sim.publish(&[ep]);
    sim.advance(MINUTE);
    sim.change(ep, |plan| plan.sending = false);
    let delivery = Delivery { at, endpoint: ep };
    sim.retry(&[delivery], false);
    sim.retry(&[delivery], false);
    sim.cancel(&[delivery]);
    sim.census();
    assert_eq!((sim.rows(ep).len(), sim.open), (0, 0));
    let before = sim.seen.len();
    sim.change(ep, |plan| plan.sending = true);
    sim.advance(DAY * 4);
    assert_eq!(sim.seen.len(), before);
}

#[test]
fn overload_answers_pace_the_whole_endpoint_and_other_failures_only_their_own_delivery() {
    for (status, paces) in [
        (429, true),
        (502, true),
        (503, true),
        (504, true),
        (500, false),
        (404, false),
    ] {
        for hint in [0, 120, 1_000_000_000] {
            let mut sim = Sim::new(17);
            let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
            sim.peer(ep)
                .script
                .push_back(Answer::RetryAfter(status, hint));
            let begin = sim.now;
            let first = sim.publish(&[ep]);
            sim.advance(Duration::from_millis(500));
            sim.publish(&[ep]);
            sim.advance(DAY * 2);
            let times = sim.times(ep, begin);
            assert_eq!(times.len(), 3, "{status}, {hint}");
            let wait = f64::from(hint.min(86_400));
            let other = if paces { wait } else { 0.5 };
            let fresh = sim.seen.iter().filter(|seen| seen.at != first);
            let fresh: Vec<f64> = fresh
                .map(|seen| seen.start.since(begin).as_secs_f64())
                .collect();
            assert!(
                fresh[0] >= other,
                "{status}, {hint}: the other began at {fresh:?}"
            );
            assert!(
                fresh[0] <= other.max(0.5) + 60.0,
                "{status}, {hint}: {fresh:?}"
            );
            let again = sim
                .seen
                .iter()
                .filter(|seen| seen.at == first)
                .nth(1)
                .unwrap();
            let again = again.start.since(begin).as_secs_f64();
            assert!(
                again >= wait.max(4.0),
                "{status}, {hint}: tried again at {again}"
            );
        }
    }
}
