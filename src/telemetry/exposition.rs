//! Metrics in the Prometheus text format.
//!
//! The recorder is installed before any handle is registered; a handle made earlier records nothing.
//! Histograms have fixed buckets, so that two nodes can be added up.

use std::time::Duration;

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::Error;
use crate::base::task::Stop;
use crate::metrics::{ALL, API_SECONDS, COMMIT_MESSAGES, Kind};

/// Upper ends in seconds: 100 us to 60 s, three to a decade.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
/// Upper ends in messages.
const MESSAGES: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];
/// Upper ends in seconds for calls of the API: there is a histogram for each, so there are fewer of them.
const CALLS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 15.0];
/// How often recorded values are moved into buckets; between, memory grows with traffic.
const UPKEEP: Duration = Duration::from_secs(15);

/// What `/metrics` shows.
#[derive(Clone)]
pub struct Exposition {
    handle: PrometheusHandle,
}

impl Exposition {
    /// The page, content type `text/plain; version=0.0.4`.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the memory of histograms bounded until told to stop. Cancel safe.
    pub async fn upkeep(self, mut stop: Stop) {
        let mut clock = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                _ = clock.tick() => self.handle.run_upkeep(),
            }
        }
    }
}

/// Installs the recorder for the whole process and describes every metric.
///
/// # Errors
/// A recorder is installed already.
pub fn install() -> Result<Exposition, Error> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|_| Error::Installed {
        what: "a metrics recorder",
    })?;
    describe();
    Ok(Exposition { handle })
}

/// Runs `body` with a recorder of its own in place of the global one, on this thread. For tests that
/// look at metrics.
///
/// # Errors
/// The recorder cannot be built.
pub fn scoped<T>(body: impl FnOnce() -> T) -> Result<(Exposition, T), Error> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    let value = ::metrics::with_local_recorder(&recorder, || {
        describe();
        body()
    });
    Ok((Exposition { handle }, value))
}

fn recorder() -> Result<PrometheusRecorder, Error> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let buckets: &[f64] = match metric.name {
            COMMIT_MESSAGES => &MESSAGES,
            API_SECONDS => &CALLS,
            _ => &SECONDS,
        };
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            .map_err(|error| Error::Buckets(error.to_string()))?;
    }
    Ok(builder.build_recorder())
}

fn describe() {
    for metric in ALL {
        let help = metric.help.trim();
        match metric.kind {
            Kind::Counter => ::metrics::describe_counter!(metric.name, help),
            Kind::Gauge => ::metrics::describe_gauge!(metric.name, help),
            Kind::Histogram => ::metrics::describe_histogram!(metric.name, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CommitMetrics, ProcessMetrics, ScheduleMetrics};
    use crate::model::{DeliveryState, DisableReason};

    #[test]
    fn every_listed_metric_has_help_and_type() {
        let (page, ()) = scoped(|| {
            for metric in ALL {
                match metric.kind {
                    Kind::Counter => ::metrics::counter!(metric.name).increment(1),
                    Kind::Gauge => ::metrics::gauge!(metric.name).set(1.0),
                    Kind::Histogram => ::metrics::histogram!(metric.name).record(1.0),
                }
            }
        })
        .expect("a recorder");
        let text = page.render();
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let name = metric.name;
            let shown = |line: String| text.lines().any(|found| found == line);
            assert!(shown(format!("# TYPE {name} {kind}")), "{name}\n{text}");
            assert!(
                shown(format!("# HELP {name} {}", metric.help.trim())),
                "{name}"
            );
        }
    }

    #[test]
    fn label_values_have_their_own_series_from_the_start() {
        let registered = || (ScheduleMetrics::register(), ProcessMetrics::register());
        let (page, (schedule, _process)) = scoped(registered).expect("a recorder");
        schedule.disabled(DisableReason::Failing).increment(6);
        let dead = schedule.finished(DeliveryState::Dead);
        dead.expect("dead is an end").increment(7);
        assert!(schedule.finished(DeliveryState::Held).is_none());
        let text = page.render();
        for line in [
            "posthaste_endpoints_disabled_total{reason=\"failing\"} 6",
            "posthaste_endpoints_disabled_total{reason=\"gone\"} 0",
            "posthaste_deliveries_finished_total{state=\"dead\"} 7",
            "posthaste_deliveries_finished_total{state=\"delivered\"} 0",
            "posthaste_panics_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("posthaste_build_info{version=\""), "{text}");
    }

    #[test]
    fn buckets_fit_what_is_measured() {
        let (page, commit) = scoped(CommitMetrics::register).expect("a recorder");
        commit.seconds.record(0.0002);
        commit.messages.record(1000.0);
        let text = page.render();
        assert!(
            text.contains("posthaste_commit_seconds_bucket{le=\"0.00025\"} 1"),
            "{text}"
        );
        assert!(text.contains("posthaste_commit_seconds_bucket{le=\"60\"} 1"));
        assert!(text.contains("posthaste_commit_messages_bucket{le=\"512\"} 0"));
        assert!(text.contains("posthaste_commit_messages_bucket{le=\"1024\"} 1"));
    }
}
