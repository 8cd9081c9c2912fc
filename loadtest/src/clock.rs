//! One idea of the time for generator and receiver: monotonic, shown as unix microseconds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::hist::micros;

/// Wall time as it was at `zero`, moved on by the monotonic clock, so a step of the system clock
/// disturbs no latency.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
    wall_at_zero: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            zero: Instant::now(),
            wall_at_zero: wall.map_or(0, micros),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Unix microseconds of `instant`.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        self.wall_at_zero + micros(instant.saturating_duration_since(self.zero))
    }
}

/// The measured part of a run: from `begin`, the first send, to `from` is warm-up, what happens after
/// `to` is drain. All as unix microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub(crate) begin: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Window {
    pub(crate) fn contains(&self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }

    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(self.to.saturating_sub(self.from)).as_secs_f64()
    }
}
