//! Deliveries of an application in the month at hand, against its quota.
//!
//! Applications without a quota cost one relaxed load. The counter lives in memory; it is stored every ten
//! minutes and at the end, and after a start what was accepted since is counted in from the list of
//! messages. Only a crash before a counter was stored for the first time begins the count at the
//! application's last change.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::model::AppNo;
use crate::policy::quota::Month;
use crate::store::{self, ListKey, Page, Reader};

/// Messages read at a time when a counter is made whole.
const STEP: usize = 1000;

/// One application's counter.
#[derive(Debug, Default)]
pub struct Usage {
    /// The quota and one; 0 = none.
    limit: AtomicU64,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    month: Month,
    used: u64,
    /// As of when it was stored last, and what.
    stored: Option<u64>,
    /// That the quota is used up was told.
    told: bool,
}

/// A counter as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    month: u32,
    used: u64,
    /// Messages accepted later are not in it.
    at: Timestamp,
    told: bool,
}

/// What is used of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The month.
    pub month: Month,
    /// Deliveries in it.
    pub deliveries: u64,
}

/// The quota of the month is used up: nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Deliveries a month.
    pub limit: u64,
    /// When the next one begins.
    pub until: Timestamp,
}

impl Usage {
    /// Deliveries a month, if there is a limit.
    pub fn limit(&self) -> Option<u64> {
        self.limit.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        let one_more = limit.map_or(0, |limit| limit.saturating_add(1));
        self.limit.store(one_more, Ordering::Relaxed);
    }

    /// Counts deliveries in, or refuses and counts nothing. `now` is asked for only if there is a quota.
    ///
    /// # Errors
    /// There is not so much left of the month's quota.
    pub fn spend(&self, deliveries: u64, now: impl FnOnce() -> Timestamp) -> Result<(), Exhausted> {
        let Some(limit) = self.limit() else {
            return Ok(());
        };
        let mut counted = self.counted.lock();
        counted.turn(now());
        let used = counted.used.saturating_add(deliveries);
        if used > limit || counted.used >= limit {
            return Err(Exhausted {
                limit,
                until: counted.month.end(),
            });
        }
        counted.used = used;
        Ok(())
    }

    /// Whether nothing more is let through.
    ///
    /// # Errors
    /// It is so.
    pub fn check(&self, now: impl FnOnce() -> Timestamp) -> Result<(), Exhausted> {
        self.spend(0, now)
    }

    /// Takes back what [`Usage::spend`] counted in.
    pub fn take_back(&self, deliveries: u64) {
        if self.limit().is_some() {
            let mut counted = self.counted.lock();
            counted.used = counted.used.saturating_sub(deliveries);
        }
    }

    /// What is used of the month of `now`.
    pub fn used(&self, now: Timestamp) -> Used {
        let mut counted = self.counted.lock();
        counted.turn(now);
        Used {
            month: counted.month,
            deliveries: counted.used,
        }
    }

    /// True once a month, when the quota is used up.
    pub fn is_news(&self, now: Timestamp) -> bool {
        let Some(limit) = self.limit() else {
            return false;
        };
        let mut counted = self.counted.lock();
        counted.turn(now);
        let is_news = counted.used >= limit && !counted.told;
        counted.told |= is_news;
        is_news
    }

    /// What is to be stored, if it differs from what was.
    pub(super) fn unstored(&self, now: Timestamp) -> Option<Stored> {
        self.limit()?;
        let mut counted = self.counted.lock();
        counted.turn(now);
        if counted.stored == Some(counted.used) {
            return None;
        }
        counted.stored = Some(counted.used);
        Some(Stored {
            month: counted.month.0,
            used: counted.used,
            at: now,
            told: counted.told,
        })
    }

    /// Makes the counter whole after a start: what was stored, and every delivery accepted since; without
    /// anything stored those since the application was last changed (its quota was set then). Stops
    /// counting where the quota is reached.
    pub(super) fn restore(
        &self,
        reader: &dyn Reader,
        app: AppNo,
        (stored, since): (Option<Stored>, Timestamp),
    ) -> Result<(), store::Error> {
        let Some(limit) = self.limit() else {
            return Ok(());
        };
        let mut counted = self.counted.lock();
        let mut from = since;
        if let Some(stored) = stored {
            counted.month = Month(stored.month);
            (counted.used, counted.told) = (stored.used, stored.told);
            from = stored.at;
        }
        let mut page = Page {
            from: Some(ListKey {
                time: from.plus(std::time::Duration::from_millis(1)),
                at: crate::model::Position::START,
                no: 0,
            }),
            until: None,
            newest_first: false,
            limit: STEP,
        };
        loop {
            let listed = reader.app_messages(app, &page)?;
            for entry in &listed {
                if let Some(message) = reader.message(entry.key.at)? {
                    counted.turn(message.accepted);
                    let deliveries = u64::try_from(message.targets.len()).unwrap_or(u64::MAX);
                    counted.used = counted.used.saturating_add(deliveries);
                }
            }
            if listed.len() < STEP || counted.used >= limit {
                return Ok(());
            }
            page.from = listed.last().map(|last| last.key);
        }
    }
}

impl Counted {
    /// Begins a new month where one has begun. A clock that goes back begins none.
    fn turn(&mut self, now: Timestamp) {
        // The month's end is looked up only when it may be over.
        if now < self.month.start() || now >= self.month.end() {
            let month = Month::of(now);
            if month > self.month {
                *self = Self {
                    month,
                    ..Self::default()
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn exactly_the_quota_is_let_through_and_a_new_month_begins_anew() {
        let usage = Usage::default();
        let january = at("2026-01-31T23:59:59Z");
        assert_eq!(usage.spend(1_000_000, || january), Ok(()), "no quota");
        usage.set_limit(Some(10));
        for _ in 0..3 {
            assert_eq!(usage.spend(3, || january), Ok(()));
        }
        let refused = usage.spend(2, || january);
        let until = at("2026-02-01T00:00:00Z");
        assert_eq!(refused, Err(Exhausted { limit: 10, until }));
        assert_eq!(usage.spend(1, || january), Ok(()), "10 of 10");
        assert!(usage.check(|| january).is_err() && usage.is_news(january));
        assert!(!usage.is_news(january), "told once");
        usage.take_back(1);
        assert_eq!(usage.used(january).deliveries, 9);
        assert_eq!(usage.spend(10, || until), Ok(()), "another month");
        assert_eq!(usage.used(january).deliveries, 10, "the clock went back");
        usage.set_limit(None);
        assert_eq!(usage.spend(99, || until), Ok(()));
    }

    #[test]
    fn a_counter_is_stored_when_it_has_changed() {
        let usage = Usage::default();
        let now = at("2026-01-05T00:00:00Z");
        assert_eq!(usage.unstored(now), None);
        usage.set_limit(Some(10));
        assert!(usage.unstored(now).is_some(), "the first time");
        assert_eq!(usage.unstored(now), None);
        usage.spend(2, || now).unwrap();
        assert_eq!(usage.unstored(now).unwrap().used, 2);
    }
}
