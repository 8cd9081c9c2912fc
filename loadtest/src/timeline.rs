//! What happened when: counts and latencies in slots of equal width, from the first send to the end
//! of the drain.

use serde::{Deserialize, Serialize};

use crate::hist::Histogram;

/// Slots beyond this are added to the last: a drain without end must not take all memory.
const MOST: usize = 2_000;
/// A run is shown in about so many.
const WANTED: u64 = 120;
/// Microseconds; finer slots show noise.
const FINEST: u64 = 100_000;

/// Times are unix microseconds.
#[derive(Clone, Default)]
pub(crate) struct Timeline {
    from: u64,
    width: u64,
    counts: Vec<u64>,
    latencies: Vec<Histogram>,
}

impl Timeline {
    /// For a run that starts at `from` and is planned to end at `to`.
    pub(crate) fn new(from: u64, to: u64) -> Self {
        let width = to.saturating_sub(from) / WANTED;
        Self {
            from,
            // Whole tenths of a second, so that slots are the same from run to run.
            width: width.div_ceil(FINEST).max(1) * FINEST,
            ..Self::default()
        }
    }

    /// `count` things were done at `at`; what happens before the begin is not counted.
    pub(crate) fn count(&mut self, at: u64, count: u64) {
        let Some(slot) = self.slot(at) else { return };
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        if let Some(counted) = self.counts.get_mut(slot) {
            *counted += count;
        }
    }

    /// One of them had this latency.
    pub(crate) fn latency(&mut self, at: u64, micros: u64) {
        let Some(slot) = self.slot(at) else { return };
        if self.latencies.len() <= slot {
            self.latencies.resize_with(slot + 1, Histogram::default);
        }
        if let Some(histogram) = self.latencies.get_mut(slot) {
            histogram.record_micros(micros);
        }
    }

    fn slot(&self, at: u64) -> Option<usize> {
        let into = at.checked_sub(self.from)?.checked_div(self.width)?;
        Some(usize::try_from(into).map_or(MOST - 1, |slot| slot.min(MOST - 1)))
    }

    /// Both must be of the same run.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        if self.latencies.len() < other.latencies.len() {
            self.latencies
                .resize_with(other.latencies.len(), Histogram::default);
        }
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.merge(theirs);
        }
    }

    /// As it is recorded.
    pub(crate) fn line(&self) -> Line {
        let seconds = self.width as f64 / 1e6;
        Line {
            slot_seconds: seconds,
            per_second: self.counts.iter().map(|n| *n as f64 / seconds).collect(),
            p50_us: self.latencies.iter().map(|h| h.quantile(50_000)).collect(),
            p99_us: self.latencies.iter().map(|h| h.quantile(99_000)).collect(),
        }
    }
}

/// A time line in the record; index 0 begins with the first send.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) slot_seconds: f64,
    pub(crate) per_second: Vec<f64>,
    /// Microseconds; 0 where nothing was measured.
    pub(crate) p50_us: Vec<u64>,
    pub(crate) p99_us: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_fall_into_their_slot_and_late_ones_into_the_last() {
        let mut line = Timeline::new(1_000_000, 13_000_000);
        line.count(999_999, 7);
        line.count(1_000_000, 1);
        line.count(1_099_999, 1);
        line.count(1_100_000, 5);
        line.count(u64::MAX, 1);
        let line = line.line();
        assert_eq!(line.per_second[..2], [20.0, 50.0]);
        assert_eq!(line.per_second.len(), MOST);
    }

    #[test]
    fn merged_time_lines_hold_both() {
        let mut one = Timeline::new(0, 1);
        let mut other = Timeline::new(0, 1);
        one.latency(0, 10);
        other.latency(250_000, 30);
        other.count(250_000, 1);
        one.merge(&other);
        let line = one.line();
        assert_eq!(line.p99_us, [10, 0, 30]);
        assert_eq!(line.per_second, [0.0, 0.0, 10.0]);
    }

    #[test]
    fn a_long_run_has_wider_slots() {
        let line = Timeline::new(0, 3_600_000_000).line();
        assert_eq!(line.slot_seconds, 30.0);
    }
}
