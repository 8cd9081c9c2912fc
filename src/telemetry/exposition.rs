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
use crate::metrics::{ALL, COMMIT_MESSAGES, Kind};

/// Upper ends in seconds: 100 us to 60 s, three to a decade.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
/// Upper ends in messages.
const MESSAGES: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];
/// How often recorded values are moved into buckets; between, memory grows with traffic.
const UPKEEP: Duration = Duration::from_secs(1);

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
        let buckets: &[f64] = if metric.name == COMMIT_MESSAGES {
            &MESSAGES
        } else {
            &SECONDS
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
    use crate::metrics::{
        CommitMetrics, DeliveryMetrics, IngestMetrics, ProcessMetrics, ScheduleMetrics,
        ServerMetrics, StoreMetrics,
    };
    use crate::model::{DeliveryState, DisableReason, FailureKind};

    struct Everything {
        ingest: IngestMetrics,
        commit: CommitMetrics,
        _store: StoreMetrics,
        schedule: ScheduleMetrics,
        delivery: DeliveryMetrics,
        server: ServerMetrics,
        _process: ProcessMetrics,
    }

    fn everything() -> Everything {
        Everything {
            ingest: IngestMetrics::register(),
            commit: CommitMetrics::register(),
            _store: StoreMetrics::register(),
            schedule: ScheduleMetrics::register(),
            delivery: DeliveryMetrics::register(),
            server: ServerMetrics::register(),
            _process: ProcessMetrics::register(),
        }
    }

    #[test]
    fn every_listed_metric_is_there_from_the_start_with_help_and_type() {
        let (page, all) = scoped(everything).expect("a recorder");
        // A histogram without values is shown once it has one.
        for histogram in [
            &all.commit.seconds,
            &all.commit.messages,
            &all.delivery.delivery_seconds,
            &all.delivery.attempt_seconds,
        ] {
            histogram.record(1.0);
        }
        let text = page.render();
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let name = metric.name;
            assert!(
                text.contains(&format!("# TYPE {name} {kind}\n")),
                "{name}\n{text}"
            );
            assert!(
                text.contains(&format!("# HELP {name} {}", metric.help.trim())),
                "{name}"
            );
        }
        assert!(text.contains("posthaste_build_info{version=\""), "{text}");
    }

    #[test]
    fn every_label_value_has_its_own_series() {
        let (page, all) = scoped(everything).expect("a recorder");
        all.ingest.refused("overloaded").increment(2);
        all.ingest.refused("never heard of").increment(3);
        all.delivery.attempts(None).increment(4);
        all.delivery.attempts(Some(FailureKind::Gone)).increment(5);
        all.schedule.disabled(DisableReason::Failing).increment(6);
        let dead = all.schedule.finished(DeliveryState::Dead);
        dead.expect("dead is an end").increment(7);
        assert!(all.schedule.finished(DeliveryState::Held).is_none());
        all.server.requests(503).increment(8);
        let text = page.render();
        for line in [
            "posthaste_ingest_refused_total{reason=\"overloaded\"} 2",
            "posthaste_ingest_refused_total{reason=\"other\"} 3",
            "posthaste_attempts_total{class=\"2xx\"} 4",
            "posthaste_attempts_total{class=\"gone\"} 5",
            "posthaste_attempts_total{class=\"timeout.connect\"} 0",
            "posthaste_endpoints_disabled_total{reason=\"failing\"} 6",
            "posthaste_deliveries_finished_total{state=\"dead\"} 7",
            "posthaste_http_requests_total{class=\"5xx\"} 8",
            "posthaste_http_requests_total{class=\"2xx\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn buckets_fit_what_is_measured() {
        let (page, all) = scoped(everything).expect("a recorder");
        all.commit.seconds.record(0.0002);
        all.commit.messages.record(1000.0);
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
