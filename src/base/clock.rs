//! The only place that reads clocks.
//!
//! Wall time is the process start plus tokio's monotonic clock, so a paused test clock moves both.
//! [`SystemClock::resync`] takes over the system's idea of the time again: forward for everybody, back
//! for [`Clock::wall`] only (`reliability.md` 6, Clock).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Timestamp;

/// Where `now` comes from. Everything else takes the time as an argument.
pub trait Clock: Send + Sync + 'static {
    /// Wall time as shown and stored. Never goes back while the process runs, so that nothing waits
    /// for a time twice: after the system's clock was set back it runs ahead of it until a restart
    /// or until that has caught up.
    fn now(&self) -> Timestamp;
    /// What the system's clock shows, for those who compare it with theirs (`webhook-timestamp`).
    fn wall(&self) -> Timestamp {
        self.now()
    }
    /// Monotonic time since some fixed instant, for measuring durations.
    fn monotonic(&self) -> Duration;
}

/// The clock of a running gateway.
#[derive(Clone)]
pub struct SystemClock {
    start: tokio::time::Instant,
    /// Wall time at `start`, in milliseconds; moved forward by `resync`.
    offset: Arc<AtomicU64>,
    /// The same by the system's clock as `resync` last saw it.
    wall: Arc<AtomicU64>,
}

impl SystemClock {
    /// Reads the system's wall clock once.
    pub fn start() -> Self {
        let wall = wall_millis();
        Self {
            start: instant(),
            offset: Arc::new(AtomicU64::new(wall)),
            wall: Arc::new(AtomicU64::new(wall)),
        }
    }

    /// Takes over the system's wall clock; answers by how many milliseconds it was moved since the
    /// last time.
    pub fn resync(&self) -> i64 {
        self.adopt(wall_millis().saturating_sub(self.elapsed_millis()))
    }

    fn adopt(&self, target: u64) -> i64 {
        self.offset.fetch_max(target, Ordering::Relaxed);
        let before = self.wall.swap(target, Ordering::Relaxed);
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

    fn wall(&self) -> Timestamp {
        let start = self.wall.load(Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_moves_the_wall_and_nothing_that_waits() {
        const HOUR: u64 = 3_600_000;
        let clock = SystemClock::start();
        let start = clock.now();
        let set = |ms: u64| clock.adopt(start.millis().saturating_add(ms) - HOUR);
        assert_eq!(set(2 * HOUR), 3_600_000);
        assert_eq!(clock.now(), start.plus(Duration::from_secs(3_600)));
        assert_eq!(clock.wall(), clock.now());
        assert_eq!(set(0), -2 * 3_600_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), start.plus(Duration::from_secs(3_605)));
        assert_eq!(clock.wall(), start.minus(Duration::from_secs(3_595)));
        assert_eq!(set(0), 0, "told once");
        assert_eq!(set(HOUR), 3_600_000);
        assert_eq!(clock.wall(), start.plus(Duration::from_secs(5)));
        assert_eq!(clock.now(), start.plus(Duration::from_secs(3_605)));
    }
}
