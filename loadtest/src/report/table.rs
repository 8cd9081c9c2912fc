//! The tables of the terminal: one run in detail, a set in one line a scenario, the bars.

use std::fmt::Write;

use super::{ceiling_line, figure, latency, thousands, time};
use crate::machine::Machine;
use crate::record::{Outcome, Record, Run};
use crate::scenario::measure::{Judged, Spread};

/// Two columns.
#[derive(Default)]
pub(crate) struct Rows(String);

impl Rows {
    pub(crate) fn row(&mut self, name: &str, value: &str) {
        push(&mut self.0, &format!("{name:<18}  {value}\n"));
    }

    pub(crate) fn text(self) -> String {
        self.0
    }
}

fn push(text: &mut String, more: &str) {
    // Writing to a String cannot fail.
    if text.write_str(more).is_err() {}
}

/// Columns as wide as they must be; the first is text, the others are figures.
struct Grid(Vec<Vec<String>>);

impl Grid {
    fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                let padded = if column == 0 {
                    format!("{cell}{pad}")
                } else {
                    format!("  {pad}{cell}")
                };
                push(&mut line, &padded);
            }
            push(&mut text, line.trim_end());
            push(&mut text, "\n");
        }
        text
    }
}

/// The machine in one line.
pub(crate) fn machine_line(machine: &Machine) -> String {
    format!(
        "{} cores ({}), {} GiB, kernel {}, fdatasync p50 {} / p99 {}, load average {:.1} before the run",
        machine.cores,
        machine.cpu,
        machine.memory_bytes >> 30,
        machine.kernel,
        time(machine.fdatasync.p50_us),
        time(machine.fdatasync.p99_us),
        machine.load_average
    )
}

/// One scenario in one line each.
pub(crate) fn overview(record: &Record) -> String {
    let heads = [
        "scenario",
        "accepted/s",
        "of accept",
        "of file",
        "delivered/s",
        "of send",
        "ingest p50/p99 ms",
        "delivery p50/p99 ms",
        "us/msg",
        "MiB",
        "B/B",
        "lost",
        "bars",
    ];
    let mut grid = vec![heads.map(str::to_owned).to_vec()];
    for outcome in &record.results {
        let median = |name: &str| outcome.spread(name).map(|spread| spread.median);
        let shown = |name: &str| median(name).map_or_else(|| "-".to_owned(), figure);
        let pair = |a: &str, b: &str| format!("{} / {}", shown(a), shown(b));
        let share = |name: &str, ceiling: &str| {
            let share = outcome.share(name, ceiling);
            share.map_or_else(|| "-".to_owned(), |share| percent(share.median))
        };
        let held = outcome.bars.iter().filter(|bar| bar.held).count();
        grid.push(vec![
            outcome.name.clone(),
            shown("accepted_per_second"),
            share("accepted_per_second", "ceiling_accept"),
            share("accepted_per_second", "ceiling_file"),
            shown("delivered_per_second"),
            share("delivered_per_second", "ceiling_send"),
            pair("ingest_p50_ms", "ingest_p99_ms"),
            pair("delivery_p50_ms", "delivery_p99_ms"),
            shown("gateway_cpu_us"),
            shown("peak_memory_mib"),
            shown("bytes_per_payload_byte"),
            shown("lost"),
            format!("{held} of {}", outcome.bars.len()),
        ]);
    }
    Grid(grid).text()
}

/// Every bar with what was measured.
pub(crate) fn bars(record: &Record) -> String {
    let mut grid = Vec::new();
    for outcome in &record.results {
        for judged in &outcome.bars {
            grid.push(vec![
                format!("{}: {}", outcome.name, judged.bar.text()),
                judged
                    .value
                    .map_or_else(|| "not measured".to_owned(), figure),
                verdict(judged).to_owned(),
            ]);
        }
    }
    Grid(grid).text()
}

pub(super) fn verdict(judged: &Judged) -> &'static str {
    if judged.held { "held" } else { "NOT HELD" }
}

/// One line about one repetition, as soon as it is there.
pub(crate) fn line(label: &str, run: &Run) -> String {
    let shown = |name: &str| {
        let value = run.measures.get(name);
        value.map_or_else(|| "-".to_owned(), |value| figure(*value))
    };
    format!(
        "{label}: accepted {}/s, delivered {}/s, ingest p99 {} ms, event to delivery p50 {} / p99 {} ms, {} us CPU a message, lost {}",
        shown("accepted_per_second"),
        shown("delivered_per_second"),
        shown("ingest_p99_ms"),
        shown("delivery_p50_ms"),
        shown("delivery_p99_ms"),
        shown("gateway_cpu_us"),
        shown("lost"),
    )
}

/// One scenario in full: its middle run, and the range where there are several.
pub(crate) fn detail(machine: &Machine, outcome: &Outcome) -> String {
    let Some(run) = outcome.middle() else {
        return String::new();
    };
    let mut rows = Rows::default();
    let value = |name: &str| run.measures.get(name).copied().unwrap_or(0.0);
    rows.row("load", &outcome.load);
    rows.row("machine", &machine_line(machine));
    if !outcome.settings.is_empty() {
        rows.row("settings", &outcome.settings.join(", "));
    }
    let rate = |name: &str| outcome.spread(name).map_or_else(|| "-".to_owned(), ranged);
    rows.row("accepted", &format!("{}/s", rate("accepted_per_second")));
    rows.row(
        "delivered",
        &format!(
            "{}/s with the drain of {:.1} s",
            rate("delivered_per_second"),
            value("drain_seconds")
        ),
    );
    if run.measures.contains_key("backlog_per_second") {
        rows.row("backlog", &format!("{}/s", rate("backlog_per_second")));
    }
    rows.row("ingest latency", &latency(&run.ingest.summary));
    rows.row("event to delivery", &latency(&run.delivery.summary));
    for (behaviour, of) in &run.by_behaviour {
        rows.row(&format!("  {behaviour}"), &latency(&of.summary));
    }
    rows.row(
        "lost / duplicates",
        &format!("{:.0} / {:.0}", value("lost"), value("duplicates")),
    );
    rows.row("not accepted", &refusals(run));
    rows.row(
        "signatures",
        &format!(
            "{} verified, {} bad; {} requests turned away by the receiver",
            run.signatures_verified, run.signatures_bad, run.turned_away
        ),
    );
    costs(&mut rows, run);
    if let Some(ceilings) = &run.ceilings {
        rows.row("ceilings", &ceiling_line(ceilings));
        rows.row("share of ceilings", &shares(outcome));
    }
    rows.text()
}

fn costs(rows: &mut Rows, run: &Run) {
    let value = |name: &str| run.measures.get(name).copied();
    let each = run.processes.iter().map(|(name, process)| {
        format!(
            "{name} {:.1} s ({:.3} s per 1,000 messages)",
            process.cpu_seconds, process.cpu_seconds_per_1000
        )
    });
    rows.row("CPU", &each.collect::<Vec<_>>().join(", "));
    if let Some(warning) = generator_warning(run) {
        rows.row("", warning);
    }
    if let Some(memory) = value("peak_memory_mib") {
        rows.row(
            "gateway",
            &format!(
                "peak {memory:.0} MiB resident, {:.0} threads, {:.2} context switches a message, {:.2} bytes written per payload byte",
                value("threads").unwrap_or(0.0),
                value("switches_per_message").unwrap_or(0.0),
                value("bytes_per_payload_byte").unwrap_or(0.0)
            ),
        );
    }
}

/// When the figures say as much about the harness as about the gateway.
pub(super) fn generator_warning(run: &Run) -> Option<&'static str> {
    let share = |name: &str| run.measures.get(name).copied().unwrap_or(0.0);
    if share("generator_share") > 0.5 {
        return Some(
            "the generator takes more than half of the busy time: the rate is its own as much as the gateway's",
        );
    }
    (share("generator_share") + share("receiver_share") > 0.5)
        .then_some("generator and receiver together take more than half of the busy time")
}

fn shares(outcome: &Outcome) -> String {
    let of = |name: &str, ceiling: &str| {
        let share = outcome.share(name, ceiling);
        share.map_or_else(|| "-".to_owned(), |share| percent(share.median))
    };
    format!(
        "accepted {} of bare accept and {} of file, delivered {} of bare send",
        of("accepted_per_second", "ceiling_accept"),
        of("accepted_per_second", "ceiling_file"),
        of("delivered_per_second", "ceiling_send"),
    )
}

/// Median, and the range if there is one.
pub(super) fn ranged(spread: Spread) -> String {
    if spread.least < spread.greatest {
        return format!(
            "{} ({} to {})",
            figure(spread.median),
            figure(spread.least),
            figure(spread.greatest)
        );
    }
    figure(spread.median)
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn refusals(run: &Run) -> String {
    let count = |name: &str| thousands(run.measures.get(name).copied().unwrap_or(0.0));
    let mut text = format!(
        "{} requests failed, {} sent again, {} unsent",
        count("failed"),
        count("retried"),
        count("unsent")
    );
    for (status, count) in &run.refused {
        push(&mut text, &format!(", {count} x {status}"));
    }
    if let Some(error) = &run.first_error {
        push(&mut text, &format!("; first: {error}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::measure::{Bar, Measures};

    fn record(generator_share: f64) -> Record {
        let measures = [
            ("accepted_per_second", 500.0),
            ("ceiling_accept", 1000.0),
            ("generator_share", generator_share),
        ];
        let run = Run {
            measures: measures
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            ..Run::default()
        };
        let bar = Bar {
            measure: "accepted_per_second".to_owned(),
            of: Some("ceiling_accept".to_owned()),
            at_least: Some(0.6),
            at_most: None,
        };
        Record {
            results: vec![Outcome {
                name: "small".to_owned(),
                bars: vec![bar.judge(&[&run.measures], |_| Vec::<Measures>::new())],
                runs: vec![run],
                ..Outcome::default()
            }],
            ..Record::default()
        }
    }

    #[test]
    fn shares_and_missed_bars_stand_in_the_tables() {
        let record = record(0.2);
        let text = overview(&record);
        assert!(text.contains("50 %") && text.contains("0 of 1"), "{text}");
        let text = bars(&record);
        assert!(
            text.contains("NOT HELD") && text.contains(">= 0.6"),
            "{text}"
        );
    }

    #[test]
    fn it_says_when_the_generator_is_the_limit() {
        let warned = |share| {
            let record = record(share);
            detail(&record.machine, &record.results[0]).contains("more than half")
        };
        assert!(warned(0.51) && !warned(0.49));
    }
}
