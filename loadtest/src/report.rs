//! What is printed and recorded. The only file that prints.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::ceiling::Ceilings;
use crate::hist::Summary;
use crate::machine::Machine;

/// Prints one line.
#[expect(clippy::print_stdout, reason = "the one place that prints")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Everything about one `run`, as it stands in the JSON record.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) applications: u64,
    pub(crate) endpoints: usize,
    pub(crate) behaviours: Vec<String>,
    pub(crate) payload_bytes: usize,
    pub(crate) connections: usize,
    /// Planned requests a second; none in the closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) batch: Option<u64>,
    pub(crate) seconds: f64,
    /// Configuration of the gateway that differs from its defaults.
    pub(crate) environment: Vec<(String, String)>,

    pub(crate) accepted: u64,
    pub(crate) accepted_per_second: f64,
    pub(crate) refused: std::collections::BTreeMap<u16, u64>,
    pub(crate) failed: u64,
    pub(crate) unsent: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) ingest: Summary,

    pub(crate) delivered: u64,
    pub(crate) delivered_per_second: f64,
    /// Deliveries from the first send to the last arrival, drain included.
    pub(crate) sustained_per_second: f64,
    pub(crate) drain_seconds: f64,
    pub(crate) event_to_delivery: Summary,
    pub(crate) expected: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) turned_away: u64,
    pub(crate) signatures_verified: u64,
    pub(crate) signatures_bad: u64,

    pub(crate) gateway_cpu_seconds: f64,
    pub(crate) gateway_cpu_us_per_message: f64,
    pub(crate) generator_cpu_seconds: f64,
    pub(crate) receiver_cpu_seconds: f64,
    pub(crate) gateway_peak_memory: u64,
    pub(crate) gateway_threads: u64,
    pub(crate) gateway_switches: u64,
    pub(crate) bytes_written: u64,
    pub(crate) bytes_written_per_payload_byte: f64,

    pub(crate) ceilings: Option<Ceilings>,
    pub(crate) accepted_per_second_line: Vec<u64>,
    pub(crate) delivered_per_second_line: Vec<u64>,
}

impl Report {
    /// Whether a promise was broken: then the exit code is not zero.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.lost > 0 {
            faults.push(format!(
                "{} of {} deliveries lost",
                self.lost, self.expected
            ));
        }
        if self.signatures_bad > 0 {
            faults.push(format!("{} bad signatures", self.signatures_bad));
        }
        if self.accepted == 0 {
            faults.push("nothing was accepted".to_owned());
        }
        faults
    }

    /// The summary table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        table.row("load", &self.load_line());
        table.row("machine", &self.machine_line());
        table.row(
            "accepted",
            &format!("{:.0}/s  ({})", self.accepted_per_second, self.accepted),
        );
        table.row(
            "delivered",
            &format!(
                "{:.0}/s while loading, {:.0}/s with the drain of {:.1} s  ({})",
                self.delivered_per_second,
                self.sustained_per_second,
                self.drain_seconds,
                self.delivered
            ),
        );
        table.row("ingest latency", &latency(&self.ingest));
        table.row("event to delivery", &latency(&self.event_to_delivery));
        table.row(
            "lost / duplicates",
            &format!(
                "{} / {} of {} expected",
                self.lost, self.duplicates, self.expected
            ),
        );
        table.row("not accepted", &self.refusals());
        table.row(
            "signatures",
            &format!(
                "{} verified, {} bad",
                self.signatures_verified, self.signatures_bad
            ),
        );
        table.row("gateway CPU", &self.cpu_line());
        table.row(
            "gateway memory",
            &format!(
                "peak {} MiB, {} threads, {} context switches",
                self.gateway_peak_memory >> 20,
                self.gateway_threads,
                self.gateway_switches
            ),
        );
        table.row(
            "disk",
            &format!(
                "{:.2} bytes written per payload byte",
                self.bytes_written_per_payload_byte
            ),
        );
        if let Some(ceilings) = &self.ceilings {
            ceiling_rows(&mut table, ceilings);
            let share = |part: f64, whole: f64| 100.0 * part / whole.max(1.0);
            table.row(
                "share of ceilings",
                &format!(
                    "accepted {:.0} % of bare accept, delivered {:.0} % of bare send, accepted {:.0} % of file",
                    share(self.accepted_per_second, ceilings.accept_per_second),
                    share(self.sustained_per_second, ceilings.send_per_second),
                    share(self.accepted_per_second, ceilings.file_per_second),
                ),
            );
        }
        table.0
    }

    fn load_line(&self) -> String {
        let pace = self.rate.map_or_else(
            || "closed loop".to_owned(),
            |rate| format!("open loop {rate:.0}/s"),
        );
        let batch = self
            .batch
            .map_or_else(String::new, |lines| format!(", batches of {lines}"));
        format!(
            "{pace}{batch}, {} connections, {} B payloads, {} x {} endpoints, {:.0} s",
            self.connections, self.payload_bytes, self.applications, self.endpoints, self.seconds
        )
    }

    fn machine_line(&self) -> String {
        format!(
            "{} cores, kernel {}, fdatasync p50 {} / p99 {}",
            self.machine.cores,
            self.machine.kernel,
            time(self.machine.fdatasync.p50_us),
            time(self.machine.fdatasync.p99_us)
        )
    }

    fn refusals(&self) -> String {
        let mut text = format!("{} requests failed, {} unsent", self.failed, self.unsent);
        for (status, count) in &self.refused {
            push(&mut text, &format!(", {count} x {status}"));
        }
        if let Some(error) = &self.first_error {
            push(&mut text, &format!("; first: {error}"));
        }
        text
    }

    fn cpu_line(&self) -> String {
        let busy =
            self.gateway_cpu_seconds + self.generator_cpu_seconds + self.receiver_cpu_seconds;
        let harness = self.generator_cpu_seconds + self.receiver_cpu_seconds;
        let mut text = format!(
            "{:.2} s per 1,000 messages ({:.1} us each); gateway {:.1} s, generator {:.1} s, receiver {:.1} s",
            self.gateway_cpu_us_per_message / 1000.0,
            self.gateway_cpu_us_per_message,
            self.gateway_cpu_seconds,
            self.generator_cpu_seconds,
            self.receiver_cpu_seconds
        );
        if harness > busy / 2.0 {
            push(&mut text, "; the harness takes more than half of it");
        }
        text
    }
}

/// The table of `ceiling`.
pub(crate) fn ceiling_table(ceilings: &Ceilings) -> String {
    let mut table = Table::default();
    ceiling_rows(&mut table, ceilings);
    table.row("accept latency", &latency(&ceilings.accept_latency));
    table.row("send latency", &latency(&ceilings.send_latency));
    table.0
}

fn ceiling_rows(table: &mut Table, ceilings: &Ceilings) {
    table.row(
        "ceilings",
        &format!(
            "bare accept {:.0}/s, bare send {:.0}/s, file with group commit {:.0}/s ({} connections, {} B; generator {:.1} us per request)",
            ceilings.accept_per_second,
            ceilings.send_per_second,
            ceilings.file_per_second,
            ceilings.connections,
            ceilings.payload_bytes,
            ceilings.generator_us
        ),
    );
}

/// Two columns.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: &str) {
        push(&mut self.0, &format!("{name:<18}  {value}\n"));
    }
}

fn push(text: &mut String, more: &str) {
    // Writing to a String cannot fail.
    if text.write_str(more).is_err() {}
}

/// Quantiles on one line.
pub(crate) fn latency(summary: &Summary) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        time(summary.p50_us),
        time(summary.p90_us),
        time(summary.p99_us),
        time(summary.p999_us),
        time(summary.max_us)
    )
}

fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// Writes the JSON record.
pub(crate) fn record(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_a_readable_unit() {
        assert_eq!(time(999), "999 us");
        assert_eq!(time(1500), "1.50 ms");
        assert_eq!(time(2_000_000), "2.00 s");
    }
}
