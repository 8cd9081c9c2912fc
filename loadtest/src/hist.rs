//! Latency histogram: log-linear buckets, 128 to the octave, so any quantile is exact to 0.8 %.
//!
//! Values are microseconds. Recording is one addition; histograms of several threads are merged at
//! the end. What is reported for a quantile is the upper edge of its bucket, never below the truth,
//! and never above the exact maximum, which is kept apart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// log2 of the buckets per octave.
const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;

/// Where the percentile plot has its points, of 100,000.
const CURVE: [u64; 21] = [
    0, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 85_000, 90_000, 95_000,
    97_500, 99_000, 99_500, 99_750, 99_900, 99_950, 99_975, 99_990, 99_995,
];

/// Counts per bucket, and the exact extremes.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.record_micros(micros(latency));
    }

    pub(crate) fn record_micros(&mut self, value: u64) {
        let at = bucket(value);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.total += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Microseconds below or at which `per_mille_of_100` / 100,000 of the values lie; 0 if empty.
    pub(crate) fn quantile(&self, of_100_000: u64) -> u64 {
        let wanted = (self.total * of_100_000).div_ceil(100_000).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_edge(at).min(self.max);
            }
        }
        self.max
    }

    /// How many values are at most `limit`, to the precision of a bucket.
    pub(crate) fn at_most(&self, limit: u64) -> u64 {
        self.counts.iter().take(bucket(limit) + 1).sum()
    }

    /// The curve of the percentile plot: (percentile, microseconds).
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        if self.total == 0 {
            return Vec::new();
        }
        CURVE
            .iter()
            // The 99.99th percentile of 50 values says nothing.
            .filter(|at| (100_000 - **at) * self.total >= 100_000)
            .map(|at| (*at as f64 / 1000.0, self.quantile(*at)))
            .collect()
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.total,
            mean_us: u64::try_from(self.sum / u128::from(self.total.max(1))).unwrap_or(u64::MAX),
            p50_us: self.quantile(50_000),
            p90_us: self.quantile(90_000),
            p99_us: self.quantile(99_000),
            p999_us: self.quantile(99_900),
            max_us: self.max,
        }
    }
}

/// What is printed and recorded of a histogram; microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean_us: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

/// Whole microseconds of a duration.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The whole number nearest to a value that is not negative; what does not fit is cut.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such casts saturate, which is what is wanted here"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Values below 256 have a bucket each; above, an octave has 128.
fn bucket(value: u64) -> usize {
    let at = if value < 2 * SUB {
        value
    } else {
        let shift = value.ilog2() - SUB_BITS;
        u64::from(shift) * SUB + (value >> shift)
    };
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn upper_edge(bucket: usize) -> u64 {
    let at = u64::try_from(bucket).unwrap_or(u64::MAX);
    if at < 2 * SUB {
        return at;
    }
    let shift = at / SUB - 1;
    let mantissa = at % SUB + SUB;
    (mantissa << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_one_percent() {
        for value in (0..4096).chain((12..60).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1])) {
            let edge = upper_edge(bucket(value));
            assert!(
                edge >= value && edge - value <= value / 128,
                "{value}: {edge}"
            );
        }
    }

    #[test]
    fn buckets_are_dense_and_ordered() {
        for at in 1..4000 {
            assert_eq!(bucket(upper_edge(at)), at);
            assert_eq!(bucket(upper_edge(at - 1) + 1), at);
        }
    }

    #[test]
    fn quantiles_of_a_known_row_are_right_also_after_merging() {
        let mut low = Histogram::default();
        let mut high = Histogram::default();
        (1..=50).for_each(|v| low.record_micros(v));
        (51..=100).for_each(|v| high.record_micros(v));
        low.merge(&high);
        let summary = low.summary();
        assert_eq!(
            (
                summary.count,
                summary.p50_us,
                summary.p99_us,
                summary.max_us
            ),
            (100, 50, 99, 100)
        );
    }

    #[test]
    fn values_below_a_limit_are_counted_and_the_curve_climbs() {
        let mut row = Histogram::default();
        (1..=2000).for_each(|v| row.record_micros(v));
        assert_eq!((row.at_most(100), row.at_most(5000)), (100, 2000));
        let curve = row.curve();
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert_eq!(curve.last().map(|point| point.0), Some(99.95));
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::default().summary().p99_us, 0);
    }
}
