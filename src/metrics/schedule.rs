//! Handles of the scheduler's metrics, looked up once.

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::model::{DisableReason, FailureKind, Outcome};

/// What the scheduler reports.
pub struct ScheduleMetrics {
    delivered: Counter,
    failed: [Counter; FailureKind::ALL.len()],
    finished: [Counter; 3],
    disabled: [Counter; 3],
    attempt_seconds: Histogram,
    delivery_seconds: Histogram,
    pending: Gauge,
    in_memory: Gauge,
    parked: Gauge,
    in_flight: Gauge,
    oldest: Gauge,
}

/// Live figures, as numbers.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Deliveries not finished.
    pub pending: u64,
    /// In memory.
    pub in_memory: usize,
    /// In the store.
    pub parked: u64,
    /// Attempts under way.
    pub in_flight: usize,
    /// Age of the oldest delivery that could start.
    pub oldest: Duration,
}

impl Default for ScheduleMetrics {
    fn default() -> Self {
        let finished = |state: &'static str| counter!(super::FINISHED, "state" => state);
        let disabled = |reason: &'static str| counter!(super::DISABLED, "reason" => reason);
        Self {
            delivered: counter!(super::ATTEMPTS, "class" => "2xx"),
            failed: FailureKind::ALL.map(|kind| counter!(super::ATTEMPTS, "class" => kind.name())),
            finished: [
                finished("delivered"),
                finished("dead"),
                finished("cancelled"),
            ],
            disabled: [disabled("manual"), disabled("gone"), disabled("failing")],
            attempt_seconds: histogram!(super::ATTEMPT_SECONDS),
            delivery_seconds: histogram!(super::DELIVERY_SECONDS),
            pending: gauge!(super::PENDING),
            in_memory: gauge!(super::IN_MEMORY),
            parked: gauge!(super::PARKED),
            in_flight: gauge!(super::IN_FLIGHT),
            oldest: gauge!(super::OLDEST_PENDING),
        }
    }
}

impl ScheduleMetrics {
    /// An attempt ended.
    pub fn attempted(&self, outcome: &Outcome, duration_ms: u32) {
        self.attempt_seconds.record(f64::from(duration_ms) / 1000.0);
        let place = outcome.failure.map(|kind| usize::from(kind.code()) - 1);
        match place.and_then(|place| self.failed.get(place)) {
            Some(failed) => failed.increment(1),
            None => self.delivered.increment(1),
        }
    }

    /// Time from acceptance to delivery.
    pub fn latency(&self) -> Histogram {
        self.delivery_seconds.clone()
    }

    /// A delivery was delivered (0), died (1) or was cancelled (2).
    pub fn ended(&self, how: usize) {
        if let Some(counter) = self.finished.get(how) {
            counter.increment(1);
        }
    }

    /// An endpoint was switched off.
    pub fn disabled(&self, reason: DisableReason) {
        let place = match reason {
            DisableReason::Manual => 0,
            DisableReason::Gone => 1,
            DisableReason::Failing => 2,
        };
        if let Some(counter) = self.disabled.get(place) {
            counter.increment(1);
        }
    }

    /// Sets the gauges.
    pub fn report(&self, figures: &Figures) {
        self.pending.set(whole(figures.pending));
        self.in_memory
            .set(whole(u64::try_from(figures.in_memory).unwrap_or(u64::MAX)));
        self.parked.set(whole(figures.parked));
        self.in_flight
            .set(whole(u64::try_from(figures.in_flight).unwrap_or(u64::MAX)));
        self.oldest.set(figures.oldest.as_secs_f64());
    }
}

/// A count as Prometheus wants it; exact up to 2^32, saturating beyond.
fn whole(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
