//! The table of the demonstration: what is known of each endpoint, and how it is shown.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

/// Lines of a table, for drawing the next one over it.
pub(super) const LINES: usize = 6;
const WIDTH: usize = 20;

/// How an endpoint is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Deliveries go out.
    Sending,
    /// Its last attempts failed, so it is sent less at a time.
    Slowed,
    /// Switched off by the gateway; its deliveries are held.
    Disabled,
}

/// One endpoint.
pub(super) struct Row {
    pub(super) name: &'static str,
    about: &'static str,
    pub(super) state: State,
    attempts: usize,
    failed: usize,
    /// Failures since the last success.
    failing: usize,
    delivered: HashSet<String>,
    /// Tries per message that is not delivered yet.
    open: HashMap<String, usize>,
    /// From sending an event to its successful delivery, milliseconds.
    latencies: Vec<u64>,
}

impl Row {
    pub(super) fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            state: State::Sending,
            attempts: 0,
            failed: 0,
            failing: 0,
            delivered: HashSet::new(),
            open: HashMap::new(),
            latencies: Vec::new(),
        }
    }

    /// Counts one request that the receiver saw.
    pub(super) fn attempt(&mut self, id: &str, is_success: bool, since: Option<Duration>) {
        self.attempts += 1;
        if !is_success {
            self.failed += 1;
            self.failing += 1;
            *self.open.entry(id.to_owned()).or_default() += 1;
            return;
        }
        self.failing = 0;
        self.open.remove(id);
        let is_first = self.delivered.insert(id.to_owned());
        if let (true, Some(since)) = (is_first, since) {
            self.latencies
                .push(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn delivered(&self) -> usize {
        self.delivered.len()
    }

    /// Several failures in a row.
    pub(super) fn is_failing(&self) -> bool {
        self.failing >= 5
    }

    fn quantile(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get(last * percent / 100).copied()
    }
}

/// The whole table, [`LINES`] lines.
pub(super) fn table(rows: &[&Row], sent: usize, events: usize, elapsed: Duration) -> String {
    let mut out = String::new();
    let seconds = elapsed.as_secs_f64();
    line(
        &mut out,
        &format!("{sent} of {events} events sent, {seconds:.1} s"),
    );
    line(
        &mut out,
        &format!(
            "{:<8} {:<WIDTH$} {:>9} {:>9} {:>7} {:>9} {:>9}  state",
            "endpoint", "progress", "delivered", "attempts", "failed", "p50", "p99"
        ),
    );
    for row in rows {
        let state = match row.state {
            State::Sending => "sending",
            State::Slowed => "failing, slowed",
            State::Disabled => "disabled by the gateway, backlog held",
        };
        let time = |percent| {
            let found = row.quantile(percent);
            found.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"))
        };
        line(
            &mut out,
            &format!(
                "{:<8} {} {:>9} {:>9} {:>7} {:>9} {:>9}  {state}",
                row.name,
                bar(row.delivered(), events),
                row.delivered(),
                row.attempts,
                row.failed,
                time(50),
                time(99),
            ),
        );
    }
    let about: Vec<_> = rows
        .iter()
        .map(|row| format!("{}: {}", row.name, row.about))
        .collect();
    line(&mut out, &format!("({})", about.join("; ")));
    out
}

/// The table, drawn over the last one if that stands `up` lines higher.
pub(super) fn frame(table: &str, up: usize) -> String {
    if up == 0 {
        return format!("{table}\n");
    }
    // Up, and each line cleared to its end; the blank line below is drawn again as well.
    let cleared = table.replace('\n', "\x1b[K\n");
    format!("\x1b[{}A{cleared}\n", up + 1)
}

fn bar(part: usize, whole: usize) -> String {
    let full = (part * WIDTH).checked_div(whole).unwrap_or(0).min(WIDTH);
    format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full))
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    if writeln!(out, "{text}").is_err() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_attempts_failures_and_first_deliveries() {
        let mut row = Row::new("flaky", "fails at times");
        for (id, is_success, ms) in [
            ("a", false, 10),
            ("a", true, 1010),
            ("b", true, 20),
            ("b", true, 30),
        ] {
            row.attempt(id, is_success, Some(Duration::from_millis(ms)));
        }
        assert_eq!((row.attempts, row.failed, row.delivered()), (4, 1, 2));
        assert_eq!(row.quantile(50), Some(20));
        assert_eq!(row.quantile(100), Some(1010));
        assert!(!row.is_failing());
    }

    #[test]
    fn the_table_has_as_many_lines_as_are_drawn_over() {
        let rows = ["healthy", "flaky", "dead"].map(|name| Row::new(name, "?"));
        let rows: Vec<&Row> = rows.iter().collect();
        let text = table(&rows, 10, 300, Duration::from_secs(2));
        assert_eq!(text.lines().count(), LINES);
        assert!(frame(&text, LINES).starts_with("\x1b[7A"));
    }

    #[test]
    fn the_bar_never_leaves_its_column() {
        for (part, whole) in [(0, 0), (0, 300), (150, 300), (300, 300), (999, 300)] {
            assert_eq!(bar(part, whole).len(), WIDTH);
        }
    }
}
