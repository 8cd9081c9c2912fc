//! How much may be taken in: pending deliveries and bytes, and messages per second.
//!
//! Pending work is counted up before the append and taken back if it fails, so a limit of n lets
//! exactly n through even when many requests come at once. Above the soft share of a limit answers
//! carry a warning; above the limit nothing is accepted.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::Refused;
use crate::base::Clock;
use crate::config;
use crate::directory::Load;
use crate::model::AppNo;

/// Seconds after which a refused caller may come again: backlogs shrink slowly.
const RETRY_AFTER_SECS: u32 = 5;

/// A soft watermark is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warning {
    /// Whose limit it is.
    pub scope: Scope,
    /// What part of the limit is used, per cent.
    pub percent: u8,
}

/// Whose pending work is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One application.
    Application,
    /// All applications together.
    Instance,
}

impl Scope {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "this application",
            Self::Instance => "the instance",
        }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (percent, scope) = (self.percent, self.scope.name());
        write!(f, "{percent} % of the pending limit of {scope} is used")
    }
}

/// Limits of pending work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    app: (u64, u64),
    total: (u64, u64),
    /// Share of a limit, in per cent, from which answers warn.
    soft_percent: u8,
}

impl Pending {
    pub(super) fn new(config: &config::Ingest) -> Self {
        let soft = (0..=100)
            .rev()
            .find(|&p| f64::from(p) <= config.soft_watermark * 100.0);
        Self {
            app: (
                config.max_pending_per_app,
                config.max_pending_bytes_per_app.get(),
            ),
            total: (config.max_pending, config.max_pending_bytes.get()),
            soft_percent: soft.unwrap_or(0),
        }
    }

    /// Whether anything can be accepted at all; with a warning if it is getting full.
    pub(super) fn check(
        &self,
        app: Option<&Load>,
        total: &Load,
    ) -> Result<Option<Warning>, Refused> {
        let app = app.map(|load| (load.pending(), self.app, Scope::Application));
        let total = (total.pending(), self.total, Scope::Instance);
        let mut warning: Option<Warning> = None;
        for (used, limit, scope) in app.into_iter().chain([total]) {
            if used.0 >= limit.0 || used.1 >= limit.1 {
                return Err(full(scope));
            }
            let percent = share(used.0, limit.0).max(share(used.1, limit.1));
            if percent >= self.soft_percent && warning.is_none_or(|w| w.percent < percent) {
                warning = Some(Warning { scope, percent });
            }
        }
        Ok(warning)
    }

    /// Counts `deliveries` of `bytes` each in, or refuses and counts nothing.
    pub(super) fn reserve(
        &self,
        (app, clock): (&Arc<Load>, &dyn Clock),
        total: &Load,
        deliveries: u64,
        bytes: u64,
    ) -> Result<Reserved, Refused> {
        app.usage().spend(deliveries, || clock.now())?;
        let bytes = bytes.saturating_mul(deliveries);
        app.add(deliveries, bytes);
        let reserved = Reserved {
            app: Arc::clone(app),
            deliveries,
            bytes,
        };
        if deliveries == 0 {
            return Ok(reserved);
        }
        let over = |used: (u64, u64), limit: (u64, u64)| used.0 > limit.0 || used.1 > limit.1;
        let scope = if over(app.pending(), self.app) {
            Scope::Application
        } else if over(total.pending(), self.total) {
            Scope::Instance
        } else {
            return Ok(reserved);
        };
        reserved.take_back();
        Err(full(scope))
    }
}

/// Deliveries that are counted in. They stay so unless taken back: the scheduler counts them out when
/// they end.
#[derive(Debug)]
#[must_use]
pub(super) struct Reserved {
    app: Arc<Load>,
    deliveries: u64,
    bytes: u64,
}

impl Reserved {
    /// The append did not happen.
    pub(super) fn take_back(self) {
        self.app.usage().take_back(self.deliveries);
        self.app.remove(self.deliveries, self.bytes);
    }
}

const fn full(scope: Scope) -> Refused {
    Refused::Overloaded {
        what: match scope {
            Scope::Application => "too many unfinished deliveries in this application",
            Scope::Instance => "too many unfinished deliveries in all",
        },
        retry_after_secs: RETRY_AFTER_SECS,
    }
}

fn share(used: u64, limit: u64) -> u8 {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    u8::try_from(percent).unwrap_or(u8::MAX)
}

/// Messages per second of each application that has such a limit (GCRA; a burst is one second's
/// worth). Holds one entry per such application.
#[derive(Default)]
pub(super) struct Throttle(Mutex<HashMap<AppNo, Duration>>);

impl Throttle {
    /// Takes one message in at `now` (monotonic), or says in how many seconds there is room.
    pub(super) fn take(&self, app: AppNo, per_second: u16, now: Duration) -> Result<(), Refused> {
        let gap = Duration::from_secs(1) / u32::from(per_second.max(1));
        let mut apps = self.0.lock();
        let full_at = apps.entry(app).or_insert(now);
        let next = (*full_at).max(now) + gap;
        let ahead = next.saturating_sub(now);
        if ahead > Duration::from_secs(1).max(gap) {
            let wait = ahead.saturating_sub(Duration::from_secs(1));
            let secs = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            return Err(Refused::Throttled {
                per_second,
                retry_after_secs: secs.max(1),
            });
        }
        *full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ByteSize;

    fn limits(deliveries: u64, bytes: u64) -> Pending {
        Pending::new(&config::Ingest {
            max_pending_per_app: deliveries,
            max_pending_bytes_per_app: ByteSize::bytes(bytes),
            max_pending: deliveries * 2,
            max_pending_bytes: ByteSize::bytes(bytes * 2),
            soft_watermark: 0.8,
            ..config::Ingest::default()
        })
    }

    #[test]
    fn exactly_the_limit_is_let_through() {
        let (limits, app, total) = (limits(10, 1000), Arc::new(Load::default()), Load::default());
        let clock = crate::base::SystemClock::start();
        for _ in 0..9 {
            assert!(limits.reserve((&app, &clock), &total, 1, 10).is_ok());
        }
        assert!(
            limits.reserve((&app, &clock), &total, 2, 1).is_err(),
            "11 of 10"
        );
        assert!(limits.check(Some(&app), &total).is_ok());
        assert!(
            limits.reserve((&app, &clock), &total, 1, 10).is_ok(),
            "10 of 10"
        );
        assert!(limits.check(Some(&app), &total).is_err());
        assert!(limits.reserve((&app, &clock), &total, 1, 0).is_err());
        assert!(
            limits.reserve((&app, &clock), &total, 0, 0).is_ok(),
            "nobody wants it"
        );
        app.remove(1, 10);
        assert!(
            limits.reserve((&app, &clock), &total, 1, 911).is_err(),
            "1001 bytes of 1000"
        );
        assert!(limits.reserve((&app, &clock), &total, 1, 910).is_ok());
        assert_eq!(app.pending(), (10, 1000));
    }

    #[test]
    fn the_soft_share_warns_and_names_the_fuller_limit() {
        let (limits, app, total) = (limits(10, 1000), Arc::new(Load::default()), Load::default());
        app.add(7, 0);
        assert_eq!(limits.check(Some(&app), &total).unwrap(), None);
        app.add(1, 0);
        let warning = limits.check(Some(&app), &total).unwrap().unwrap();
        assert_eq!((warning.scope, warning.percent), (Scope::Application, 80));
        total.add(19, 0);
        let warning = limits.check(Some(&app), &total).unwrap().unwrap();
        assert_eq!((warning.scope, warning.percent), (Scope::Instance, 95));
    }

    #[test]
    fn a_throttled_application_sends_its_rate_and_no_more() {
        let throttle = Throttle::default();
        let ms = Duration::from_millis;
        for _ in 0..5 {
            assert!(throttle.take(AppNo(1), 5, ms(0)).is_ok());
        }
        assert!(matches!(
            throttle.take(AppNo(1), 5, ms(0)),
            Err(Refused::Throttled {
                retry_after_secs: 1,
                ..
            })
        ));
        assert!(
            throttle.take(AppNo(2), 5, ms(0)).is_ok(),
            "another application"
        );
        assert!(throttle.take(AppNo(1), 5, ms(199)).is_err());
        assert!(throttle.take(AppNo(1), 5, ms(200)).is_ok());
        let sent = (0..10_000).filter(|t| throttle.take(AppNo(3), 50, ms(*t)).is_ok());
        assert_eq!(sent.count(), 50 + 499);
    }
}
