//! When a failing endpoint is switched off, and when its owner is told.
//!
//! Judged on every outcome from persisted state ([`Health`]), so a restart changes nothing. Gentle:
//! an outage of the usual length disables nothing; `410 Gone` disables at once (SW26). Failures that
//! are ours (the resolver is down) do not count at all.

#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use crate::base::Timestamp;
use crate::model::{AttemptNo, DisablePolicy, DisableReason, FailureKind, Health, Outcome};

/// Failed attempts of one delivery after which `message.attempt.failing` is announced.
const FAILING_AFTER: AttemptNo = 4;

/// The circumstances of an outcome.
#[derive(Debug, Clone, Copy)]
pub struct Occasion {
    /// When the outcome was taken in.
    pub now: Timestamp,
    /// Attempts this delivery has made in its schedule, this one included.
    pub made: AttemptNo,
    /// Attempts its schedule has in all.
    pub planned: AttemptNo,
    /// The name could not be resolved because no resolver answers: nobody's fault but ours.
    pub resolver_down: bool,
}

/// What follows for the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthStep {
    /// To be stored.
    pub health: Health,
    /// Switch it off for this reason.
    pub disable: Option<DisableReason>,
    /// Announce `message.attempt.failing`: once between two successes.
    pub failing: bool,
    /// Announce `message.attempt.recovered`: the first success after `failing` was announced.
    pub recovered: bool,
}

/// Takes one outcome in.
pub fn step(
    health: Health,
    outcome: &Outcome,
    occasion: Occasion,
    policy: DisablePolicy,
) -> HealthStep {
    let Some(kind) = outcome.failure else {
        return succeeded(health, occasion.now);
    };
    if occasion.resolver_down && kind == FailureKind::Dns {
        return HealthStep {
            health,
            disable: None,
            failing: false,
            recovered: false,
        };
    }
    let mut health = Health {
        failures: health.failures.saturating_add(1),
        first_failure: health.first_failure.or(Some(occasion.now)),
        last_failure: Some(occasion.now),
        ..health
    };
    let failing = !health.announced && is_failing(occasion);
    health.announced |= failing;
    let disable = if kind == FailureKind::Gone {
        Some(DisableReason::Gone)
    } else {
        exceeds(&health, policy, occasion.now).then_some(DisableReason::Failing)
    };
    HealthStep {
        health,
        disable,
        failing,
        recovered: false,
    }
}

/// The state of an endpoint that was switched on again: failures start anew.
pub const fn enabled(health: Health) -> Health {
    Health {
        failures: 0,
        first_failure: None,
        last_failure: None,
        ..health
    }
}

/// The state by a clock that went back to `now`: nothing in it lies ahead, or the time without a
/// success would not grow until the clock had caught up.
pub fn not_after(health: Health, now: Timestamp) -> Health {
    let clamp = |at: Option<Timestamp>| at.map(|at| at.min(now));
    Health {
        first_failure: clamp(health.first_failure),
        last_failure: clamp(health.last_failure),
        last_success: clamp(health.last_success),
        ..health
    }
}

const fn succeeded(health: Health, now: Timestamp) -> HealthStep {
    HealthStep {
        health: Health {
            failures: 0,
            first_failure: None,
            last_failure: None,
            last_success: Some(now),
            announced: false,
        },
        disable: None,
        failing: false,
        recovered: health.announced,
    }
}

/// After four failed attempts, or the next to last of a shorter schedule (`api.md` 11). The last one
/// is announced as exhausted instead.
const fn is_failing(occasion: Occasion) -> bool {
    let left = occasion.planned.saturating_sub(occasion.made);
    left >= 1 && (occasion.made >= FAILING_AFTER || left == 1)
}

fn exceeds(health: &Health, policy: DisablePolicy, now: Timestamp) -> bool {
    match policy {
        DisablePolicy::Duration {
            failing_secs,
            span_secs,
        } => {
            let first = health.first_failure.unwrap_or(now);
            // Without a success at all, the first failure starts the clock.
            let quiet = now.since(health.last_success.unwrap_or(first));
            quiet >= Duration::from_secs(failing_secs)
                && now.since(first) >= Duration::from_secs(span_secs)
        }
        DisablePolicy::Consecutive { failures } => health.failures >= failures.max(1),
        DisablePolicy::Never => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::outcome::{of_failure, of_status};

    const HOUR: u64 = 3600;
    const DEFAULT: DisablePolicy = DisablePolicy::Duration {
        failing_secs: 120 * HOUR,
        span_secs: 12 * HOUR,
    };

    fn at(hours: u64) -> Occasion {
        Occasion {
            now: Timestamp::from_millis(1_767_600_000_000).plus(Duration::from_secs(hours * HOUR)),
            made: 1,
            planned: 10,
            resolver_down: false,
        }
    }

    fn fail(health: Health, hours: u64) -> HealthStep {
        step(health, &of_status(500, None), at(hours), DEFAULT)
    }

    fn succeed(health: Health, hours: u64) -> HealthStep {
        step(health, &of_status(200, None), at(hours), DEFAULT)
    }

    #[test]
    fn gone_disables_at_once_under_every_policy() {
        for policy in [DEFAULT, DisablePolicy::Never] {
            let step = step(Health::default(), &of_status(410, None), at(0), policy);
            assert_eq!(step.disable, Some(DisableReason::Gone));
        }
    }

    #[test]
    fn five_days_of_failures_disable_and_not_an_hour_less() {
        let mut health = succeed(Health::default(), 0).health;
        for hours in [1, 24, 72, 119] {
            let step = fail(health, hours);
            assert_eq!(step.disable, None, "after {hours} h");
            health = step.health;
        }
        assert_eq!(fail(health, 120).disable, Some(DisableReason::Failing));
    }

    #[test]
    fn a_long_silence_needs_twelve_hours_of_failures_as_well() {
        let health = succeed(Health::default(), 0).health;
        let first = fail(health, 200);
        assert_eq!(first.disable, None);
        let second = fail(first.health, 211);
        assert_eq!(second.disable, None);
        assert_eq!(
            fail(second.health, 212).disable,
            Some(DisableReason::Failing)
        );
    }

    #[test]
    fn one_success_starts_the_clock_anew() {
        let failed = fail(fail(Health::default(), 0).health, 100).health;
        let health = succeed(failed, 110).health;
        assert_eq!(health.failures, 0);
        assert_eq!(fail(health, 130).disable, None);
        assert_eq!(fail(failed, 130).disable, Some(DisableReason::Failing));
    }

    #[test]
    fn ten_in_a_row_disable_under_the_consecutive_policy() {
        let policy = DisablePolicy::Consecutive { failures: 10 };
        let mut health = Health::default();
        for n in 1..=10 {
            let step = step(health, &of_status(500, None), at(0), policy);
            assert_eq!(step.disable.is_some(), n == 10, "failure {n}");
            health = step.health;
        }
        assert_eq!(enabled(health).failures, 0);
    }

    #[test]
    fn a_resolver_that_is_down_is_not_held_against_the_endpoint() {
        let ours = Occasion {
            resolver_down: true,
            ..at(0)
        };
        let health = Health::default();
        let after = step(health, &of_failure(FailureKind::Dns), ours, DEFAULT);
        assert_eq!(after.health, health);
        let theirs = step(health, &of_failure(FailureKind::Dns), at(0), DEFAULT);
        assert_eq!(theirs.health.failures, 1);
    }

    #[test]
    fn failing_is_announced_once_and_taken_back_once() {
        let mut health = Health::default();
        let mut announced = Vec::new();
        for made in 1..=9 {
            let occasion = Occasion { made, ..at(0) };
            let step = step(health, &of_status(500, None), occasion, DEFAULT);
            if step.failing {
                announced.push(made);
            }
            health = step.health;
        }
        assert_eq!(announced, [4]);
        let good = succeed(health, 1);
        assert!(good.recovered && !succeed(good.health, 2).recovered);
    }

    #[test]
    fn a_short_schedule_announces_failing_at_its_next_to_last_attempt() {
        for (made, planned, want) in [(1, 3, false), (2, 3, true), (3, 3, false), (1, 1, false)] {
            let occasion = Occasion {
                made,
                planned,
                ..at(0)
            };
            let step = step(Health::default(), &of_status(500, None), occasion, DEFAULT);
            assert_eq!(step.failing, want, "{made} of {planned}");
        }
    }
}
