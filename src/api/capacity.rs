//! What this instance can take: measured commits, the rate they would sustain, and days of disk left.
//!
//! Owns: samples of the last hour, one a minute, of what the metrics say. Everything is measured under the
//! load there was: the rate that could be sustained is the accepted rate divided by the share of time the
//! commit thread was busy (utilisation law). Since groups grow with the load it is a lower bound.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::ApiState;
use super::error::{Code, Problem};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::metrics::{COMMIT_MESSAGES, COMMIT_SECONDS};

/// Samples kept; with one a minute that is an hour.
const SAMPLES: usize = 60;
const DAY_SECS: f64 = 86_400.0;

/// Samples, oldest first.
#[derive(Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Sample {
    /// Monotonic.
    at: Duration,
    /// Upper ends in seconds, and commits up to them.
    buckets: Vec<(f64, f64)>,
    commits: f64,
    busy_seconds: f64,
    messages: f64,
    used_bytes: f64,
}

/// Figures of a window.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Commits {
    commits: f64,
    mean_ms: Option<f64>,
    /// Upper ends of the buckets that the quantiles lie in.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// Reads one number of a metrics page; absent = 0.
fn number(page: &str, name: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0.0)
}

impl Sample {
    fn read(page: &str, at: Duration, used_bytes: f64) -> Self {
        let head = format!("{COMMIT_SECONDS}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (end, count) = line.strip_prefix(head.as_str())?.split_once("\"} ")?;
            Some((end.parse().ok()?, count.trim().parse().ok()?))
        };
        Self {
            at,
            buckets: page.lines().filter_map(bucket).collect(),
            commits: number(page, &format!("{COMMIT_SECONDS}_count")),
            busy_seconds: number(page, &format!("{COMMIT_SECONDS}_sum")),
            messages: number(page, &format!("{COMMIT_MESSAGES}_sum")),
            used_bytes,
        }
    }

    /// What happened since `before`.
    fn commits_since(&self, before: &Self) -> Commits {
        let commits = (self.commits - before.commits).max(0.0);
        let counts: Vec<(f64, f64)> = self
            .buckets
            .iter()
            .map(|(end, count)| {
                let known = before.buckets.iter().find(|(known, _)| known == end);
                (*end, count - known.map_or(0.0, |(_, count)| *count))
            })
            .collect();
        let quantile = |share: f64| {
            let wanted = commits * share;
            let found = counts.iter().find(|(_, count)| *count >= wanted);
            found
                .filter(|(end, _)| commits > 0.0 && end.is_finite())
                .map(|(end, _)| end * 1000.0)
        };
        let busy = self.busy_seconds - before.busy_seconds;
        Commits {
            commits,
            mean_ms: (commits > 0.0).then(|| busy / commits * 1000.0),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        }
    }
}

impl ApiState {
    /// Takes a sample; called once a minute. Cancel safe.
    pub async fn sample_capacity(&self) {
        if let Ok(space) = self.lane.space().await {
            let sample = self.sample(space.used);
            let mut samples = self.samples.0.lock();
            if samples.len() >= SAMPLES {
                samples.pop_front();
            }
            samples.push_back(sample);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "byte counts below 2^53 are exact"
    )]
    fn sample(&self, used: u64) -> Sample {
        Sample::read(&(self.metrics)(), self.clock.monotonic(), used as f64)
    }
}

/// GET `/capacity`
#[expect(
    clippy::cast_precision_loss,
    reason = "byte counts below 2^53 are exact"
)]
pub(super) async fn read(cx: Cx) -> Answer {
    cx.instance_wide()?;
    let state = &cx.state;
    let space = state.lane.space().await;
    let space = space.map_err(|_| Problem::new(Code::Server, "The store does not answer."))?;
    let now = state.sample(space.used);
    let oldest = state.samples.0.lock().front().cloned();
    // Before the first sample everything counts from the start of the process; growth cannot be told.
    let has_sample = oldest.is_some();
    let before = oldest.unwrap_or_default();
    let seconds = now.at.saturating_sub(before.at).as_secs_f64();
    let commits = now.commits_since(&before);
    let busy = ((now.busy_seconds - before.busy_seconds) / seconds.max(0.001)).clamp(0.0, 1.0);
    let rate = (now.messages - before.messages).max(0.0) / seconds.max(0.001);
    let growth = (now.used_bytes - before.used_bytes) / seconds.max(0.001) * DAY_SECS;
    let growth = Some(growth).filter(|_| has_sample && seconds >= 60.0);
    let room = space.free.saturating_sub(state.reserve) as f64;
    Ok(Reply::ok(&json!({
        "windowSeconds": seconds,
        "commit": commits,
        "acceptedPerSecond": rate,
        "busy": busy,
        "sustainablePerSecond": (busy > 0.0).then(|| rate / busy),
        "headroom": 1.0 - busy,
        "disk": {
            "usedBytes": space.used, "freeBytes": space.free, "reserveBytes": state.reserve,
            "growthBytesPerDay": growth,
            "daysLeft": growth.filter(|growth| *growth > 0.0).map(|growth| room / growth),
        },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE posthaste_commit_seconds histogram\n\
        posthaste_commit_seconds_bucket{le=\"0.001\"} 90\n\
        posthaste_commit_seconds_bucket{le=\"0.005\"} 99\n\
        posthaste_commit_seconds_bucket{le=\"+Inf\"} 100\n\
        posthaste_commit_seconds_sum 0.2\n\
        posthaste_commit_seconds_count 100\n\
        posthaste_commit_messages_sum 400\n";

    #[test]
    fn commits_are_read_from_the_metrics_and_compared_with_earlier_ones() {
        let now = Sample::read(PAGE, Duration::from_secs(10), 5.0);
        assert_eq!((now.commits, now.messages), (100.0, 400.0));
        let since_start = now.commits_since(&Sample::default());
        assert_eq!(since_start.p50_ms, Some(1.0));
        assert_eq!(since_start.p99_ms, Some(5.0));
        assert_eq!(since_start.mean_ms, Some(2.0));
        let same = now.commits_since(&now);
        assert_eq!((same.commits, same.mean_ms, same.p99_ms), (0.0, None, None));
        let empty = Sample::read("# metrics\n", Duration::ZERO, 0.0);
        assert_eq!(empty.commits_since(&Sample::default()).p50_ms, None);
    }
}
