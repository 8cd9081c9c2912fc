//! The table at the end of a torture run.

use std::fmt;

use serde::Serialize;

use super::RoundResult;
use crate::report::say;

/// Violations printed of one round; all stand in the JSON report.
const PRINTED: usize = 20;

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) rounds: u32,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) seconds: f64,
    pub(crate) notes: Vec<String>,
    /// Why it failed; empty if every promise was kept.
    pub(crate) complaints: Vec<String>,
}

impl Row {
    pub(crate) fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            rounds: 0,
            acknowledged: 0,
            lost: 0,
            duplicates: 0,
            seconds: 0.0,
            notes: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// Adds what a round showed.
    pub(crate) fn add(&mut self, result: &RoundResult) {
        self.acknowledged += result.acknowledged;
        self.lost += result.lost;
        self.duplicates += result.duplicates;
        self.notes.extend(result.notes.iter().cloned());
        for (index, violation) in result.violations.iter().enumerate() {
            let text = violation.to_string();
            if index < PRINTED {
                say(&format!("VIOLATION {text}"));
            }
            self.complaints.push(text);
        }
    }

    pub(crate) fn complain(&mut self, what: &str) {
        say(&format!("FAULT: {what}"));
        self.complaints.push(what.to_owned());
    }

    pub(crate) fn verdict(&self) -> &'static str {
        if self.complaints.is_empty() {
            "ok"
        } else {
            "FAILED"
        }
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{:<16} {:>6} rounds {:>9} acknowledged {:>4} lost {:>6} duplicates  {:<6} {:>7.1} s",
            self.scenario,
            self.rounds,
            self.acknowledged,
            self.lost,
            self.duplicates,
            self.verdict(),
            self.seconds
        )
    }
}

/// All scenarios of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) seed: u64,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            rows: Vec::new(),
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.complaints.is_empty())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "{:<16} {:>6} {:>12} {:>5} {:>10}  {:<7} {:>8}",
            "scenario", "rounds", "acknowledged", "lost", "duplicates", "verdict", "seconds"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<16} {:>6} {:>12} {:>5} {:>10}  {:<7} {:>8.1}",
                row.scenario,
                row.rounds,
                row.acknowledged,
                row.lost,
                row.duplicates,
                row.verdict(),
                row.seconds
            )?;
            for note in &row.notes {
                writeln!(f, "    {note}")?;
            }
        }
        let total = |pick: fn(&Row) -> u64| self.rows.iter().map(pick).sum::<u64>();
        write!(
            f,
            "{:<16} {:>6} {:>12} {:>5} {:>10}  {:<7} {:>8.1}",
            "all",
            self.rows.iter().map(|row| row.rounds).sum::<u32>(),
            total(|row| row.acknowledged),
            total(|row| row.lost),
            total(|row| row.duplicates),
            if self.is_good() { "ok" } else { "FAILED" },
            self.rows.iter().map(|row| row.seconds).sum::<f64>()
        )
    }
}
