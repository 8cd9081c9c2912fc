//! What is printed and written. The only file that prints results.
//!
//! Elsewhere: the tables (`table`), the page (`html`), its plots (`plot`) and curves (`curve`).

mod curve;
pub(crate) mod html;
mod plot;
pub(crate) mod table;

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::ceiling::Ceilings;
use crate::hist::Summary;
use crate::record::Record;

/// Prints one line.
#[expect(clippy::print_stdout, reason = "the one place that prints")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// The table of `ceiling`.
pub(crate) fn ceiling_table(ceilings: &Ceilings) -> String {
    let mut table = table::Rows::default();
    table.row("ceilings", &ceiling_line(ceilings));
    table.row("accept latency", &latency(&ceilings.accept_latency));
    table.row("send latency", &latency(&ceilings.send_latency));
    table.text()
}

fn ceiling_line(ceilings: &Ceilings) -> String {
    format!(
        "bare accept {}/s, bare send {}/s, file with group commit {}/s ({} connections, {} B; generator {:.1} us per request)",
        thousands(ceilings.accept_per_second),
        thousands(ceilings.send_per_second),
        thousands(ceilings.file_per_second),
        ceilings.connections,
        ceilings.payload_bytes,
        ceilings.generator_us
    )
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

/// A time in a readable unit.
pub(crate) fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// A count with groups of three digits.
pub(crate) fn thousands(value: f64) -> String {
    let digits = crate::hist::whole(value).to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A measure, with as many digits as say something.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => thousands(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Writes the page.
pub(crate) fn write_page(path: &Path, of: &Record) -> anyhow::Result<()> {
    std::fs::write(path, html::page(of)).with_context(|| format!("cannot write {}", path.display()))
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

    #[test]
    fn figures_have_the_digits_that_matter() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.567_8, "0.57"),
            (12.34, "12.3"),
            (999.4, "999"),
            (1_234_567.0, "1,234,567"),
            (100_000.0, "100,000"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
