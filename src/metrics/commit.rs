//! Handles of the commit thread's metrics, looked up once.

use std::time::Duration;

use ::metrics::{Gauge, Histogram, gauge, histogram};

/// What the commit thread reports.
pub struct CommitMetrics {
    seconds: Histogram,
    messages: Histogram,
    queue: Gauge,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self {
            seconds: histogram!(super::COMMIT_SECONDS),
            messages: histogram!(super::COMMIT_MESSAGES),
            queue: gauge!(super::COMMIT_QUEUE),
        }
    }
}

impl CommitMetrics {
    /// A group of `messages` was committed in `took`.
    pub fn committed(&self, messages: usize, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        self.messages
            .record(u32::try_from(messages).unwrap_or(u32::MAX));
    }

    /// `waiting` messages are queued.
    pub fn queued(&self, waiting: usize) {
        self.queue.set(u32::try_from(waiting).unwrap_or(u32::MAX));
    }
}
