//! What the throttle does over time.

use proptest::prelude::*;

use super::*;
use crate::model::FailureKind;
use crate::policy::outcome::{of_failure, of_status};

const START: Timestamp = Timestamp::from_millis(1_767_600_000_000);
const LONGEST: Duration = Duration::from_secs(86_400);

fn after(ms: u64) -> Timestamp {
    START.plus(Duration::from_millis(ms))
}

fn slots(throttle: &mut Throttle, at: Timestamp) -> u16 {
    match throttle.ready(at) {
        Ready::Slots(n) => n,
        Ready::NotBefore(_) => 0,
    }
}

/// Starts what may start, ends all of it with `outcome`; answers how many ran at the same time.
fn round(throttle: &mut Throttle, at: Timestamp, outcome: &Outcome) -> u16 {
    let n = slots(throttle, at);
    for _ in 0..n {
        throttle.started(at);
    }
    for _ in 0..n {
        throttle.finished(at, outcome, LONGEST);
    }
    n
}

fn warmed(limit: u16) -> Throttle {
    let mut throttle = Throttle::new(limit, None);
    while throttle.width() < limit {
        round(&mut throttle, START, &of_status(200, None));
    }
    throttle
}

#[test]
fn a_new_endpoint_gets_one_two_four_up_to_its_limit() {
    let mut throttle = Throttle::new(10, None);
    let widths: Vec<u16> = (0..6)
        .map(|_| round(&mut throttle, START, &of_status(200, None)))
        .collect();
    assert_eq!(widths, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn slots_are_what_is_left_of_the_window() {
    let mut throttle = warmed(10);
    for _ in 0..7 {
        throttle.started(START);
    }
    assert_eq!(throttle.ready(START), Ready::Slots(3));
    for _ in 0..3 {
        throttle.started(START);
    }
    assert_eq!(throttle.ready(START), Ready::Slots(0));
    throttle.finished(START, &of_status(200, None), LONGEST);
    assert_eq!(throttle.ready(START), Ready::Slots(1));
}

#[test]
fn overload_halves_the_window_once_per_round_and_it_grows_back_by_one() {
    let mut throttle = warmed(10);
    for _ in 0..10 {
        throttle.started(START);
    }
    for _ in 0..9 {
        throttle.finished(START, &of_status(500, None), LONGEST);
    }
    throttle.finished(START, &of_status(200, None), LONGEST);
    assert_eq!(throttle.width(), 5);
    let mut widths = Vec::new();
    for _ in 0..4 {
        round(&mut throttle, START, &of_status(200, None));
        widths.push(throttle.width());
    }
    assert_eq!(widths, [6, 7, 8, 9]);
    for _ in 0..9 {
        round(&mut throttle, START, &of_failure(FailureKind::TimeoutTotal));
        round(&mut throttle, START, &of_status(200, None));
    }
    assert!((1..=3).contains(&throttle.width()), "{}", throttle.width());
}

#[test]
fn plain_refusals_do_not_shrink_the_window() {
    let mut throttle = warmed(4);
    round(&mut throttle, START, &of_status(404, None));
    assert_eq!(throttle.width(), 4);
}

#[test]
fn too_many_requests_pause_the_endpoint_until_retry_after() {
    for status in [429, 502, 503, 504] {
        let mut throttle = warmed(10);
        throttle.started(START);
        throttle.finished(START, &of_status(status, Some(30)), LONGEST);
        assert_eq!(throttle.ready(START), Ready::NotBefore(after(30_000)));
        assert_eq!(
            throttle.ready(after(29_999)),
            Ready::NotBefore(after(30_000))
        );
        assert_eq!(throttle.ready(after(30_000)), Ready::Slots(5), "{status}");
    }
    let mut throttle = warmed(10);
    throttle.started(START);
    throttle.finished(START, &of_status(500, Some(30)), LONGEST);
    assert_eq!(throttle.ready(START), Ready::Slots(5));
}

#[test]
fn pauses_without_a_hint_double_and_a_hint_is_granted_at_most_a_day() {
    let mut throttle = warmed(10);
    let mut now = START;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        round(&mut throttle, now, &of_status(200, None)); // keeps the breaker closed
        throttle.pauses = u8::try_from(u64::ilog2(seconds)).unwrap() + u8::from(seconds == 60);
        throttle.started(now);
        throttle.finished(now, &of_status(503, None), LONGEST);
        let until = now.plus(Duration::from_secs(seconds));
        assert_eq!(throttle.ready(now), Ready::NotBefore(until));
        now = until;
    }
    throttle.started(now);
    throttle.finished(now, &of_status(503, Some(u32::MAX)), LONGEST);
    let until = now.plus(Duration::from_secs(86_400));
    assert_eq!(throttle.ready(now), Ready::NotBefore(until));
}

#[test]
fn ten_failures_open_the_breaker_and_one_probe_at_a_time_asks_again() {
    let mut throttle = warmed(10);
    let refused = of_failure(FailureKind::Refused);
    round(&mut throttle, START, &refused);
    assert!(throttle.is_open());
    let mut now = START;
    for seconds in [5, 10, 20, 40, 60, 60] {
        let until = now.plus(Duration::from_secs(seconds));
        assert_eq!(throttle.ready(now), Ready::NotBefore(until));
        now = until;
        assert_eq!(throttle.ready(now), Ready::Slots(1));
        throttle.started(now);
        assert_eq!(throttle.ready(now), Ready::Slots(0));
        throttle.finished(now, &refused, LONGEST);
    }
    now = now.plus(Duration::from_secs(60));
    assert_eq!(round(&mut throttle, now, &of_status(200, None)), 1);
    let widths: Vec<u16> = (0..5)
        .map(|_| round(&mut throttle, now, &of_status(200, None)))
        .collect();
    assert_eq!(widths, [1, 2, 4, 8, 10]);
}

#[test]
fn stragglers_do_not_prolong_an_open_breaker() {
    let mut throttle = warmed(20);
    let refused = of_failure(FailureKind::Refused);
    for _ in 0..20 {
        throttle.started(START);
    }
    for ms in 0..20 {
        throttle.finished(after(ms), &refused, LONGEST);
    }
    assert_eq!(throttle.ready(after(19)), Ready::NotBefore(after(5009)));
}

#[test]
fn the_rate_is_kept_over_every_second_and_forgotten_with_its_setting() {
    let mut throttle = Throttle::new(1000, Some(100));
    let mut starts = Vec::new();
    for ms in 0..3000 {
        while let Ready::Slots(n @ 1..) = throttle.ready(after(ms)) {
            assert_eq!(n, 1);
            throttle.started(after(ms));
            throttle.finished(after(ms), &of_status(200, None), LONGEST);
            starts.push(ms);
        }
    }
    assert!((295..=310).contains(&starts.len()), "{}", starts.len());
    for from in (0..2000).step_by(50) {
        let n = starts
            .iter()
            .filter(|&&ms| (from..from + 1000).contains(&ms));
        assert!(n.count() <= 110);
    }
    throttle.set_limits(2, None);
    assert_eq!(throttle.ready(after(3000)), Ready::Slots(2));
}

#[test]
fn one_per_second_means_the_second_waits_a_second() {
    let mut throttle = Throttle::new(10, Some(1));
    throttle.started(START);
    throttle.finished(START, &of_status(200, None), LONGEST);
    let Ready::NotBefore(at) = throttle.ready(START) else {
        panic!("the second attempt was let through");
    };
    assert_eq!(at, after(1000));
    assert_eq!(throttle.ready(at), Ready::Slots(1));
}

#[test]
fn a_clock_that_goes_back_does_not_stop_a_rated_endpoint() {
    let mut throttle = Throttle::new(10, Some(10));
    throttle.started(after(3_600_000));
    throttle.finished(after(3_600_000), &of_status(200, None), LONGEST);
    let Ready::NotBefore(at) = throttle.ready(START) else {
        panic!("the rate was forgotten");
    };
    assert!(at <= after(101), "waits until {at}");
    assert_eq!(throttle.ready(at), Ready::Slots(1));
}

#[test]
fn an_endpoint_switched_on_again_begins_slowly() {
    let mut throttle = warmed(10);
    round(&mut throttle, START, &of_status(503, Some(3600)));
    throttle.restart();
    assert_eq!(round(&mut throttle, START, &of_status(200, None)), 1);
    assert_eq!(round(&mut throttle, START, &of_status(200, None)), 2);
}

proptest! {
    #[test]
    fn never_more_than_the_limit_and_never_stuck(
        limit in 1_u16..50,
        rate in prop::option::of(1_u16..200),
        statuses in prop::collection::vec(prop::sample::select(vec![200_u16, 404, 429, 500, 503, 0]), 1..200),
    ) {
        let mut throttle = Throttle::new(limit, rate);
        let mut now = START;
        for status in statuses {
            match throttle.ready(now) {
                Ready::Slots(n) => {
                    prop_assert!(n <= limit);
                    prop_assert!(n > 0, "nothing under way and nothing may start");
                    throttle.started(now);
                    let outcome = if status == 0 {
                        of_failure(FailureKind::Refused)
                    } else {
                        of_status(status, None)
                    };
                    throttle.finished(now, &outcome, LONGEST);
                }
                Ready::NotBefore(at) => {
                    prop_assert!(at > now && at <= now.plus(PROBE.1));
                    now = at;
                }
            }
        }
    }
}
