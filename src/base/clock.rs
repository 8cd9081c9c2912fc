//! The only place that reads clocks.
//!
//! Wall time is the process start plus tokio's monotonic clock, so a paused test clock moves both,
//! and a step of the system clock does not move what is already scheduled. [`SystemClock::resync`]
//! takes over the system's idea of the time again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Timestamp;

/// Where `now` comes from. Everything else takes the time as an argument.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, as shown and stored.
    fn now(&self) -> Timestamp;
    /// Monotonic time since some fixed instant, for measuring durations.
    fn monotonic(&self) -> Duration;
}

/// The clock of a running gateway.
#[derive(Clone)]
pub struct SystemClock {
    start: tokio::time::Instant,
    /// Wall time at `start`, in milliseconds; moved by `resync`.
    offset: Arc<AtomicU64>,
}

impl SystemClock {
    /// Reads the system's wall clock once.
    pub fn start() -> Self {
        Self {
            start: instant(),
            offset: Arc::new(AtomicU64::new(wall_millis())),
        }
    }

    /// Takes over the system's wall clock; answers by how many milliseconds it had moved away.
    pub fn resync(&self) -> i64 {
        let target = wall_millis().saturating_sub(self.elapsed_millis());
        let before = self.offset.swap(target, Ordering::Relaxed);
        i64::try_from(target).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let start = self.offset.load(Ordering::Relaxed);
        Timestamp::from_millis(start.saturating_add(self.elapsed_millis()))
    }

    fn monotonic(&self) -> Duration {
        instant().duration_since(self.start)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one that reads clocks"
)]
fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module is the one that reads clocks"
)]
fn wall_millis() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
