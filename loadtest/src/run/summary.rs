//! From what happened to the measures of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Measured, Stage};
use crate::hist::Histogram;
use crate::ledger::Ledger;
use crate::machine::Usage;
use crate::receiver::Behaviour;
use crate::record::{Latency, Process, Run};
use crate::scenario::measure::Measures;

impl Stage {
    /// Everything that is recorded of a run, without its ceilings.
    pub(super) fn summary(&self, measured: &Measured) -> Run {
        let after = self.gateway.usages();
        self.receiver.with_ledger(|ledger| {
            let processes = self.processes(measured, &after);
            let mut measures = self.rates(measured, ledger);
            measures.extend(latencies(measured, ledger));
            measures.extend(self.costs(measured, ledger, &after));
            let ingested = &measured.ingested;
            let begin = ingested.window.begin;
            let into = |at: u64| at.saturating_sub(begin) as f64 / 1e6;
            let several = ledger.by_behaviour.len() > 1;
            let by_behaviour = ledger.by_behaviour.iter().filter(|_| several);
            Run {
                measures,
                ceilings: None,
                ingest: Latency::from(&ingested.latency),
                delivery: Latency::from(fast(ledger)),
                by_behaviour: by_behaviour
                    .map(|(behaviour, latency)| (behaviour.to_string(), Latency::from(latency)))
                    .collect(),
                accepted_line: ingested.timeline.line(),
                delivered_line: ledger.timeline.line(),
                samples: measured.samples.clone(),
                processes,
                refused: ingested.refused.clone(),
                first_error: ingested.first_error.clone(),
                turned_away: ledger.turned_away,
                foreign: ledger.foreign,
                signatures_verified: ledger.verified,
                signatures_bad: ledger.bad_signatures,
                events: measured
                    .directed
                    .events
                    .iter()
                    .map(|(at, what)| (into(*at), what.clone()))
                    .collect(),
                faults: faults(measured, ledger),
            }
        })
    }

    fn rates(&self, measured: &Measured, ledger: &Ledger) -> Measures {
        let ingested = &measured.ingested;
        let window = ingested.window;
        let span = |from: u64, to: u64| {
            Duration::from_micros(to.saturating_sub(from).max(1)).as_secs_f64()
        };
        let mut measures = named([
            (
                "accepted_per_second",
                ingested.accepted as f64 / window.seconds(),
            ),
            ("drain_seconds", span(window.to, ledger.last.max(window.to))),
            ("setup_seconds", self.set_up.as_secs_f64()),
            ("refused", ingested.refused.values().sum::<u64>() as f64),
            ("failed", ingested.failed as f64),
            ("unsent", ingested.unsent as f64),
            ("retried", ingested.retried as f64),
            ("lost", measured.verdict.lost as f64),
            ("duplicates", measured.verdict.duplicates as f64),
        ]);
        if measured.verdict.expected > 0 {
            let sustained =
                ledger.delivered as f64 / span(window.begin, ledger.last.max(window.to));
            measures.extend(named([("delivered_per_second", sustained)]));
        }
        if let Some(start) = measured.pace.start(0)
            && let Some(planned) = planned(measured, start)
        {
            measures.extend(named([("offered_per_second", planned)]));
        }
        if let (Some(released), Some(passed)) = (measured.directed.released, ledger.gate) {
            let rate = passed.count as f64 / span(released, passed.last);
            measures.extend(named([("backlog_per_second", rate)]));
        }
        if let (Some(started), Some(first)) = (measured.directed.started, ledger.first_after) {
            let waited = span(started, first) * 1e3;
            measures.extend(named([("first_delivery_ms", waited)]));
        }
        if let Some(called) = &measured.called {
            let at = |of_100_000| called.latency.quantile(of_100_000) as f64 / 1e3;
            measures.extend(named([
                ("management_p50_ms", at(50_000)),
                ("management_p95_ms", at(95_000)),
                ("management_failed", called.failed as f64),
            ]));
        }
        if let Some(longest) = measured.directed.restarts.iter().max() {
            measures.extend(named([("restart_ms", longest.as_secs_f64() * 1e3)]));
        }
        measures
    }

    fn costs(
        &self,
        measured: &Measured,
        ledger: &Ledger,
        after: &BTreeMap<String, Usage>,
    ) -> Measures {
        let ingested = &measured.ingested;
        let acked = ingested.acked.len().max(1) as f64;
        let mut measures = named([("payload_bytes", ingested.payload_bytes as f64 / acked)]);
        let receiver = self.receiver.cpu().as_secs_f64();
        let generator = ingested.cpu.as_secs_f64();
        let Some(used) = used(measured, after) else {
            return measures; // whose process it is, is not known
        };
        let cpu = used.cpu.as_secs_f64();
        let busy = (cpu + receiver + generator).max(1e-9);
        let deliveries = ledger.delivered.max(1) as f64;
        measures.extend(named([
            ("gateway_cpu_us", cpu * 1e6 / acked),
            ("gateway_cpu_us_per_delivery", cpu * 1e6 / deliveries),
            (
                "bytes_per_payload_byte",
                used.written as f64 / (ingested.payload_bytes.max(1)) as f64,
            ),
            (
                "peak_memory_mib",
                used.peak_memory as f64 / f64::from(1 << 20),
            ),
            (
                "idle_memory_mib",
                self.idle_memory as f64 / f64::from(1 << 20),
            ),
            ("switches_per_message", used.switches as f64 / acked),
            ("threads", used.threads as f64),
            ("generator_share", generator / busy),
            ("receiver_share", receiver / busy),
        ]));
        measures
    }

    fn processes(
        &self,
        measured: &Measured,
        after: &BTreeMap<String, Usage>,
    ) -> BTreeMap<String, Process> {
        let acked = measured.ingested.acked.len().max(1) as f64;
        let process = |cpu: Duration, usage: Usage| Process {
            cpu_seconds: cpu.as_secs_f64(),
            cpu_seconds_per_1000: cpu.as_secs_f64() * 1000.0 / acked,
            peak_memory: usage.peak_memory,
            written: usage.written,
            threads: usage.threads,
            switches: usage.switches,
        };
        let mut processes: BTreeMap<_, _> = after
            .iter()
            .map(|(name, usage)| {
                let before = measured.before.get(name).copied().unwrap_or_default();
                let used = usage.since(before);
                (name.clone(), process(used.cpu, used))
            })
            .collect();
        let thread = |cpu| process(cpu, Usage::default());
        processes.insert("generator".to_owned(), thread(measured.ingested.cpu));
        processes.insert("receiver".to_owned(), thread(self.receiver.cpu()));
        processes
    }
}

fn named<const N: usize>(pairs: [(&str, f64); N]) -> Measures {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Of all processes of the gateway together; none if none is known.
fn used(measured: &Measured, after: &BTreeMap<String, Usage>) -> Option<Usage> {
    let each = after
        .iter()
        .map(|(name, usage)| usage.since(measured.before.get(name).copied().unwrap_or_default()));
    each.reduce(|sum, one| Usage {
        peak_memory: sum.peak_memory + one.peak_memory,
        threads: sum.threads + one.threads,
        ..sum.and_ended(one)
    })
}

/// Messages planned a second over warm-up and measured part of an open loop.
fn planned(measured: &Measured, first: Duration) -> Option<f64> {
    let window = measured.ingested.window;
    let length = Duration::from_micros(window.to.saturating_sub(window.begin));
    // Starts do not go back in time, so a binary search finds how many lie within the length.
    let (mut low, mut high) = (0_u64, 1_u64 << 40);
    if first >= length {
        return None;
    }
    while low + 1 < high {
        let middle = low.midpoint(high);
        if measured.pace.start(middle)? < length {
            low = middle;
        } else {
            high = middle;
        }
    }
    let messages = (low + 1) * measured.messages_per_request;
    Some(messages as f64 / length.as_secs_f64())
}

/// The endpoints that answer at once; if there are none, all.
fn fast(ledger: &Ledger) -> &Histogram {
    let fast = ledger
        .by_behaviour
        .iter()
        .find(|(behaviour, _)| *behaviour == Behaviour::Fast);
    fast.map_or(&ledger.latency, |(_, latency)| latency)
}

fn latencies(measured: &Measured, ledger: &Ledger) -> Measures {
    let millis = |micros: u64| micros as f64 / 1e3;
    let mut measures = Measures::new();
    let ingest = measured.ingested.latency.summary();
    if ingest.count > 0 {
        measures.extend(named([
            ("ingest_p50_ms", millis(ingest.p50_us)),
            ("ingest_p99_ms", millis(ingest.p99_us)),
        ]));
    }
    let latency = fast(ledger);
    let delivery = latency.summary();
    if delivery.count > 0 {
        measures.extend(named([
            ("delivery_p50_ms", millis(delivery.p50_us)),
            ("delivery_p99_ms", millis(delivery.p99_us)),
            ("delivery_p999_ms", millis(delivery.p999_us)),
        ]));
    }
    let verdict = measured.verdict;
    if verdict.expected > 0 {
        let arrived = 1.0 - verdict.lost as f64 / verdict.expected as f64;
        measures.extend(named([("delivered_share", arrived)]));
        if delivery.count > 0 {
            let in_time = latency.at_most(1_000_000) as f64 / delivery.count as f64;
            measures.extend(named([("within_1s", in_time * arrived)]));
        }
    }
    measures
}

/// Promises that were broken.
fn faults(measured: &Measured, ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    let verdict = measured.verdict;
    if verdict.lost > 0 {
        faults.push(format!(
            "{} of {} deliveries lost",
            verdict.lost, verdict.expected
        ));
    }
    if ledger.bad_signatures > 0 {
        faults.push(format!(
            "{} of {} signatures bad, the first: {}",
            ledger.bad_signatures,
            ledger.verified,
            ledger.first_bad.as_deref().unwrap_or_default()
        ));
    }
    if ledger.foreign > 0 {
        faults.push(format!("{} deliveries that cannot be read", ledger.foreign));
    }
    if measured.ingested.without_id > 0 {
        faults.push(format!(
            "{} acknowledgements without an id",
            measured.ingested.without_id
        ));
    }
    if measured.ingested.accepted == 0 {
        let why = measured.ingested.first_error.as_deref().unwrap_or_default();
        faults.push(format!("nothing was accepted: {why}"));
    }
    faults
}
