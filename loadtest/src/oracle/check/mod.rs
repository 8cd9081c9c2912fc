//! The checker: a pure function from a history to a verdict.
//!
//! Each rule is one function and complains under its own name. [`delivery`] holds what is true of
//! single deliveries (C1 to C4), [`pace`] what is true of their order in time (C5 to C8), [`outcome`]
//! what is true of the whole (C9 to C11). All are linear in the history up to sorting.

mod delivery;
mod facts;
mod outcome;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::history::History;
use super::journal::Line;
use facts::Facts;

/// The rules of `docs/TORTURE.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Rule {
    /// No loss: what was acknowledged arrived, or is in a listed state.
    C1,
    /// No forgery: what arrived was asked for, once, and for this endpoint.
    C2,
    /// Integrity: the bytes and their type are those that were sent.
    C3,
    /// Authenticity: the signature fits and is fresh.
    C4,
    /// Concurrency: never more attempts at a time than the endpoint's limit.
    C5,
    /// Order, where it was asked for.
    C6,
    /// Bounded duplicates: a second 2xx only after an ambiguous attempt.
    C7,
    /// Schedule: never earlier than the schedule or `Retry-After` allow.
    C8,
    /// Agreement: the API says what the receiver saw.
    C9,
    /// Liveness: after the faults new messages arrive and the backlog drains.
    C10,
    /// Non-vacuity: the trial did what it was meant to do.
    C11,
}

impl Rule {
    pub(crate) const ALL: [Self; 11] = [
        Self::C1,
        Self::C2,
        Self::C3,
        Self::C4,
        Self::C5,
        Self::C6,
        Self::C7,
        Self::C8,
        Self::C9,
        Self::C10,
        Self::C11,
    ];
}

/// A broken rule.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// `msg_…`, where one is concerned.
    pub(crate) message: Option<String>,
    /// Name of the endpoint, where one is concerned.
    pub(crate) endpoint: Option<String>,
    /// File and line of the history that shows it.
    pub(crate) line: Option<String>,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self {
            rule,
            message: None,
            endpoint: None,
            line: None,
            what: what.into(),
        }
    }

    fn of(mut self, message: &str) -> Self {
        self.message = Some(message.to_owned());
        self
    }

    fn at(mut self, endpoint: &str) -> Self {
        self.endpoint = Some(endpoint.to_owned());
        self
    }

    fn seen(mut self, line: Line) -> Self {
        self.line = Some(line.to_string());
        self
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)?;
        for (name, value) in [
            ("message", &self.message),
            ("endpoint", &self.endpoint),
            ("line", &self.line),
        ] {
            if let Some(value) = value {
                write!(f, "; {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// What the checker found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: u64,
    /// Acknowledged (message, endpoint) pairs.
    pub(crate) pairs: u64,
    /// Requests whose fate the producer never learnt.
    pub(crate) unknown: u64,
    /// 2xx answers of the receiver.
    pub(crate) delivered: u64,
    /// Violations of C1.
    pub(crate) lost: u64,
    /// Further 2xx of the same delivery.
    pub(crate) duplicates: u64,
    /// Faults by kind, as they stand in the history.
    pub(crate) faults: BTreeMap<String, u64>,
    /// All violations, by rule.
    pub(crate) violations: Vec<Violation>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Judges a history.
pub(crate) fn judge(history: &History) -> Verdict {
    let facts = Facts::of(history);
    let mut found = Vec::new();
    delivery::no_loss(&facts, &mut found);
    let lost = found.len() as u64;
    delivery::no_forgery(&facts, &mut found);
    delivery::integrity(&facts, &mut found);
    delivery::authenticity(&facts, &mut found);
    pace::concurrency(&facts, &mut found);
    pace::order(&facts, &mut found);
    pace::bounded_duplicates(&facts, &mut found);
    pace::schedule(&facts, &mut found);
    outcome::agreement(&facts, &mut found);
    outcome::liveness(&facts, &mut found);
    outcome::non_vacuity(&facts, &mut found);
    let mut faults = BTreeMap::new();
    for (_, fault) in &history.faults {
        *faults.entry(format!("{:?}", fault.kind)).or_default() += 1;
    }
    let settled =
        |request: &&super::history::Request| request.acknowledged.is_none() && !request.refused;
    Verdict {
        acknowledged: history.acknowledged().count() as u64,
        pairs: history
            .acknowledged()
            .map(|(_, ack)| ack.targets.len() as u64)
            .sum(),
        unknown: history.requests.iter().filter(settled).count() as u64,
        delivered: facts.successes(),
        lost,
        duplicates: facts.duplicates(),
        faults,
        violations: found,
    }
}

/// Reads and judges the history in `dir`. Earlier histories on the same data are read only if
/// something arrived that this one does not explain.
pub(crate) fn judge_dir(dir: &Path) -> anyhow::Result<Verdict> {
    let mut history = History::read(dir)?;
    if Facts::of(&history).has_strangers() {
        let mut open: Vec<PathBuf> = history.earlier.clone();
        while let Some(before) = open.pop() {
            let earlier = History::read(&dir.join(before))?;
            open.extend(earlier.earlier.iter().cloned());
            history.strangers_may_be(&earlier);
        }
    }
    Ok(judge(&history))
}
