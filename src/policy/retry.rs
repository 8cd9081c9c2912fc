//! When a failed delivery is tried again, and when it is dead.
//!
//! A schedule is a list of delays: entry n is the wait after the n-th failed attempt, so n delays make
//! n + 1 attempts. Jitter spreads deliveries that failed together; `Retry-After` can only move an
//! attempt to a later time, never to an earlier one.
//!
//! `410 Gone` is no special case here: it disables the endpoint ([`super::health`]), and the delivery
//! waits for its next time, held as long as the endpoint is off. So enabling it again loses nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Timestamp;
use crate::model::{AttemptNo, DeadReason, Outcome, Verdict};

/// The named schedules of `api.md` 8 as delays in seconds. Alphabetical.
pub static SCHEDULES: &[(&str, &[u64])] = &[
    ("geometric-3", &[60, 180, 540]),
    ("ladder-5", &[30, 120, 600, 1800]),
    (
        "standard-10",
        &[5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
    ),
    ("steps-8", &[5, 300, 1800, 7200, 18_000, 36_000, 36_000]),
];

/// When the attempts of one delivery are made.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPlan {
    /// Wait after the first, second … failed attempt.
    pub delays: Arc<[Duration]>,
    /// Each delay is multiplied by a random factor of 1 - jitter to 1 + jitter. 0.0 to 0.5.
    pub jitter: f64,
    /// Upper bound of what `Retry-After` may ask for.
    pub max_retry_after: Duration,
}

impl RetryPlan {
    /// The delays of the schedule called `name`, if there is one.
    pub fn named(name: &str) -> Option<Vec<Duration>> {
        let at = SCHEDULES.binary_search_by(|(known, _)| (*known).cmp(name));
        let (_, delays) = SCHEDULES.get(at.ok()?)?;
        Some(delays.iter().copied().map(Duration::from_secs).collect())
    }

    /// Longer than any wait this plan or an earlier one of the endpoint can have led to: delays are
    /// at most 7 days, times 1.5 of jitter, unless the instance allows more.
    pub fn horizon(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(11 * 86_400);
        let delays = self.delays.iter().max().copied().unwrap_or_default();
        LONGEST
            .max(delays.saturating_mul(2))
            .max(self.max_retry_after)
    }

    /// Attempts in all, the first one included.
    pub fn attempts(&self) -> AttemptNo {
        AttemptNo::try_from(self.delays.len())
            .unwrap_or(AttemptNo::MAX)
            .saturating_add(1)
    }
}

/// No retry waits longer: the longest delay of a schedule (30 days) with the most jitter, which is
/// more than the most that `Retry-After` may ask for.
const LONGEST: Duration = Duration::from_secs(45 * 86_400);

/// Whether a retry that was put off until `due` may be made. A time further away than any wait was
/// written when the clock was ahead: it is over, or the delivery would never be made (T30).
pub fn is_due(due: Timestamp, now: Timestamp) -> bool {
    due <= now || due > now.plus(LONGEST)
}

/// What follows an attempt of the schedule.
///
/// `made` counts the attempts made in this schedule, this one included; `random` is uniform in
/// 0.0..1.0. Next time = max(delay x U(1 - jitter, 1 + jitter), min(`Retry-After`, its bound)).
/// Manual attempts of finished deliveries are not judged here: they have no schedule.
pub fn judge(
    outcome: &Outcome,
    made: AttemptNo,
    plan: &RetryPlan,
    now: Timestamp,
    random: f64,
) -> Verdict {
    if outcome.failure.is_none() {
        return Verdict::Delivered;
    }
    let failed_before = usize::from(made.saturating_sub(1));
    let Some(&delay) = plan.delays.get(failed_before) else {
        return Verdict::Dead(DeadReason::Exhausted);
    };
    let hint = Duration::from_secs(outcome.retry_after_secs.unwrap_or(0).into());
    let wait = spread(delay, plan.jitter, random).max(hint.min(plan.max_retry_after));
    Verdict::RetryAt(now.plus(wait))
}

/// `delay` times a factor between 1 - jitter and 1 + jitter. Total: odd numbers count as no jitter.
fn spread(delay: Duration, jitter: f64, random: f64) -> Duration {
    let jitter = if (0.0..=1.0).contains(&jitter) {
        jitter
    } else {
        0.0
    };
    let random = if (0.0..=1.0).contains(&random) {
        random
    } else {
        0.5
    };
    let factor = 1.0 + jitter * (2.0 * random - 1.0);
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(delay)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::FailureKind;
    use crate::policy::outcome::{of_failure, of_status};

    const NOW: Timestamp = Timestamp::from_millis(1_767_600_930_120);

    fn plan(name: &str, jitter: f64) -> RetryPlan {
        RetryPlan {
            delays: RetryPlan::named(name).unwrap().into(),
            jitter,
            max_retry_after: Duration::from_secs(86_400),
        }
    }

    fn wait(verdict: Verdict) -> Duration {
        let Verdict::RetryAt(at) = verdict else {
            panic!("no retry: {verdict:?}");
        };
        at.since(NOW)
    }

    #[test]
    fn a_due_time_beyond_every_wait_is_due_and_one_within_is_not() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert!(is_due(Timestamp::ZERO, now));
        assert!(is_due(now, now));
        assert!(!is_due(now.plus(Duration::from_millis(1)), now));
        assert!(!is_due(now.plus(days(45)), now));
        assert!(is_due(now.plus(days(46)), now));
        assert!(is_due(Timestamp::MAX, now));
        assert!(days(30).mul_f64(1.5) <= LONGEST);
    }

    #[test]
    fn the_named_schedules_are_sorted_and_last_as_long_as_documented() {
        assert!(SCHEDULES.is_sorted_by_key(|(name, _)| name));
        for (name, attempts, minutes) in [
            ("standard-10", 10, 75 * 60 + 35),
            ("steps-8", 8, 27 * 60 + 35),
            ("geometric-3", 4, 13),
            ("ladder-5", 5, 42),
        ] {
            let plan = plan(name, 0.0);
            assert_eq!(plan.attempts(), attempts, "{name}");
            let total: Duration = plan.delays.iter().sum();
            assert_eq!(total.as_secs() / 60, minutes, "{name}");
        }
        assert_eq!(RetryPlan::named("standard"), None);
    }

    #[test]
    fn follows_the_schedule_to_its_end() {
        let plan = plan("ladder-5", 0.0);
        let failed = of_status(500, None);
        for (made, seconds) in [(1, 30), (2, 120), (3, 600), (4, 1800)] {
            let verdict = judge(&failed, made, &plan, NOW, 0.5);
            assert_eq!(wait(verdict), Duration::from_secs(seconds));
        }
        for made in [5, 6, AttemptNo::MAX] {
            let verdict = judge(&failed, made, &plan, NOW, 0.5);
            assert_eq!(verdict, Verdict::Dead(DeadReason::Exhausted));
        }
        let delivered = judge(&of_status(204, None), 5, &plan, NOW, 0.5);
        assert_eq!(delivered, Verdict::Delivered);
    }

    #[test]
    fn gone_waits_like_every_other_failure() {
        let verdict = judge(&of_status(410, None), 1, &plan("ladder-5", 0.0), NOW, 0.5);
        assert_eq!(wait(verdict), Duration::from_secs(30));
    }

    #[test]
    fn a_hint_moves_the_time_later_but_never_earlier_and_at_most_a_day() {
        let plan = plan("standard-10", 0.0);
        for (hint, made, seconds) in [
            (3, 1, 5),
            (30, 1, 30),
            (30, 2, 300),
            (1_000_000_000, 1, 86_400),
        ] {
            let verdict = judge(&of_status(503, Some(hint)), made, &plan, NOW, 0.5);
            assert_eq!(wait(verdict), Duration::from_secs(seconds), "{hint}");
        }
    }

    #[test]
    fn due_times_of_a_mass_failure_are_spread_evenly() {
        // T33: 10,000 deliveries that failed in the same second, delay 300 s, jitter 0.2.
        let plan = plan("standard-10", 0.2);
        let failed = of_failure(FailureKind::Refused);
        let mut buckets = [0_u32; 120];
        for n in 0..10_000_u32 {
            let random = f64::from(n.wrapping_mul(2_654_435_769)) / 4_294_967_296.0;
            let waited = wait(judge(&failed, 2, &plan, NOW, random)).as_secs();
            buckets[usize::try_from(waited - 240).unwrap().min(119)] += 1;
        }
        let mean = 10_000 / 120;
        assert!(
            buckets.iter().all(|&n| n > 0 && n <= 3 * mean),
            "{buckets:?}"
        );
    }

    proptest! {
        #[test]
        fn every_verdict_lies_inside_the_published_window(
            made in 1_u16..12, random: f64, jitter in 0.0..0.5_f64, hint: Option<u32>, status in 300_u16..600,
        ) {
            let plan = plan("standard-10", jitter);
            match judge(&of_status(status, hint), made, &plan, NOW, random) {
                Verdict::RetryAt(at) => {
                    let base = plan.delays[usize::from(made) - 1].as_secs_f64();
                    let hint = f64::from(hint.unwrap_or(0)).min(86_400.0);
                    let waited = at.since(NOW).as_secs_f64() + 0.001;
                    prop_assert!(waited >= (base * (1.0 - jitter)).max(hint));
                    prop_assert!(waited <= (base * (1.0 + jitter)).max(hint) + 0.002);
                }
                Verdict::Dead(reason) => {
                    prop_assert_eq!(reason, DeadReason::Exhausted);
                    prop_assert!(made > 9);
                }
                Verdict::Delivered => prop_assert!(false, "a failure was taken for a success"),
            }
        }
    }
}
