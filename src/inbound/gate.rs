//! Requests per second of each source (GCRA; a burst is one second's worth).
//!
//! One number per source that was called since the start.

use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::SourceNo;

#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<SourceNo, Duration>>);

impl Gates {
    /// Lets one request through at `now` (monotonic), or says in how many seconds there is room.
    pub(super) fn take(&self, source: SourceNo, per_second: u16, now: Duration) -> Result<(), u32> {
        let gap = Duration::from_secs(1) / u32::from(per_second.max(1));
        let mut gates = self.0.lock();
        let full_at = gates.entry(source).or_insert(now);
        let next = (*full_at).max(now) + gap;
        let ahead = next.saturating_sub(now);
        let burst = Duration::from_secs(1).max(gap);
        if ahead > burst {
            let secs = ahead.saturating_sub(burst).as_millis().div_ceil(1000);
            return Err(u32::try_from(secs).unwrap_or(u32::MAX).max(1));
        }
        *full_at = next;
        Ok(())
    }

    pub(super) fn forget(&self, source: SourceNo) {
        self.0.lock().remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_takes_its_rate_and_no_more() {
        let gates = Gates::default();
        let ms = Duration::from_millis;
        let passed = (0..10_000).filter(|at| gates.take(SourceNo(1), 20, ms(*at)).is_ok());
        assert_eq!(passed.count(), 20 + 199);
        assert!(gates.take(SourceNo(2), 1, ms(0)).is_ok(), "another source");
        assert_eq!(gates.take(SourceNo(2), 1, ms(0)), Err(1));
        assert!(gates.take(SourceNo(2), 1, ms(1000)).is_ok());
    }
}
