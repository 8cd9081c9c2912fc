//! What a run is judged by: the list of measures, and the bars that scenarios set on them.
//!
//! A bar on the ratio of two measures takes both from the same repetition, since the machine is not
//! the same from one minute to the next; what is judged is the median over the repetitions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values of one run by name.
pub(crate) type Measures = BTreeMap<String, f64>;

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Says something about the run, not about the gateway.
    Neither,
}

/// One measure.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) better: Better,
    /// `compare` fails on it; others are shown only.
    pub(crate) judged: bool,
    /// The ceiling that its share is taken of.
    pub(crate) ceiling: Option<&'static str>,
    pub(crate) about: &'static str,
}

const fn kind(name: &'static str, better: Better, judged: bool, about: &'static str) -> Kind {
    Kind {
        name,
        better,
        judged,
        ceiling: None,
        about,
    }
}

const fn rate(name: &'static str, ceiling: &'static str, about: &'static str) -> Kind {
    Kind {
        name,
        better: Better::Higher,
        judged: true,
        ceiling: Some(ceiling),
        about,
    }
}

/// All of them.
pub(crate) const KINDS: [Kind; 37] = {
    use Better::{Higher, Lower, Neither};
    [
        rate(
            "accepted_per_second",
            "ceiling_accept",
            "messages acknowledged in the measured part, a second",
        ),
        rate(
            "delivered_per_second",
            "ceiling_send",
            "deliveries from the first send to the last arrival, drain included, a second",
        ),
        rate(
            "backlog_per_second",
            "ceiling_send",
            "deliveries of the backlog from its release to its last, a second",
        ),
        kind(
            "ingest_p50_ms",
            Lower,
            true,
            "from the (planned) send to the acknowledgement",
        ),
        kind("ingest_p99_ms", Lower, true, "the same, 99th percentile"),
        kind(
            "delivery_p50_ms",
            Lower,
            true,
            "event to delivery at fast endpoints: from the (planned) send to the receiver",
        ),
        kind("delivery_p99_ms", Lower, true, "the same, 99th percentile"),
        kind(
            "delivery_p999_ms",
            Lower,
            false,
            "the same, 99.9th percentile",
        ),
        kind(
            "within_1s",
            Higher,
            false,
            "share of the owed deliveries that arrived within a second",
        ),
        kind(
            "delivered_share",
            Higher,
            true,
            "share of the owed deliveries that arrived",
        ),
        kind("lost", Lower, true, "owed deliveries that did not arrive"),
        kind(
            "duplicates",
            Lower,
            false,
            "further deliveries of the same message to the same endpoint",
        ),
        kind("refused", Lower, false, "messages answered with no success"),
        kind("failed", Lower, false, "requests without an answer"),
        kind(
            "unsent",
            Lower,
            false,
            "planned requests that found no free connection",
        ),
        kind("retried", Lower, false, "requests sent again"),
        kind(
            "drain_seconds",
            Lower,
            false,
            "from the end of the load to the last delivery",
        ),
        kind(
            "setup_seconds",
            Lower,
            false,
            "to make all applications and endpoints",
        ),
        kind(
            "restart_ms",
            Lower,
            false,
            "longest time from a start of the process to ready, under load",
        ),
        kind(
            "first_delivery_ms",
            Lower,
            false,
            "from a start of the process with a backlog to the first delivery of it",
        ),
        kind(
            "management_p50_ms",
            Lower,
            false,
            "from the planned call of the management API to its answer, beside the load",
        ),
        kind(
            "management_p95_ms",
            Lower,
            true,
            "the same, 95th percentile",
        ),
        kind(
            "management_failed",
            Lower,
            true,
            "calls of the management API without a success",
        ),
        kind(
            "gateway_cpu_us",
            Lower,
            true,
            "CPU of the gateway for each acknowledged message, microseconds",
        ),
        kind(
            "gateway_cpu_us_per_delivery",
            Lower,
            false,
            "the same for each delivery",
        ),
        kind(
            "bytes_per_payload_byte",
            Lower,
            true,
            "bytes the gateway handed to the disk for each payload byte",
        ),
        kind(
            "peak_memory_mib",
            Lower,
            true,
            "peak resident memory of the gateway",
        ),
        kind(
            "idle_memory_mib",
            Lower,
            false,
            "resident memory of the gateway after the set-up, before the load",
        ),
        kind(
            "switches_per_message",
            Lower,
            false,
            "context switches of the gateway for each acknowledged message",
        ),
        kind(
            "threads",
            Neither,
            false,
            "threads of the gateway at the end",
        ),
        kind(
            "generator_share",
            Neither,
            false,
            "the generator's part of all CPU time; above 0.5 it is measured as much as the gateway",
        ),
        kind(
            "receiver_share",
            Neither,
            false,
            "the receiver's part of all CPU time",
        ),
        kind(
            "payload_bytes",
            Neither,
            false,
            "mean size of an acknowledged payload",
        ),
        kind(
            "offered_per_second",
            Neither,
            false,
            "planned messages a second of an open loop",
        ),
        kind(
            "ceiling_accept",
            Neither,
            false,
            "a bare server that answers 202 and stores nothing, requests a second",
        ),
        kind(
            "ceiling_send",
            Neither,
            false,
            "the bare generator straight at the receiver, requests a second",
        ),
        kind(
            "ceiling_file",
            Neither,
            false,
            "group commit of the same payloads into a plain file with fdatasync, a second",
        ),
    ]
};

/// The description of a measure.
pub(crate) fn known(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bar {
    pub(crate) measure: String,
    /// Judged is the ratio to this: another measure of the same run (a ceiling, say), or
    /// `scenario:NAME`, the same measure of another scenario in the same repetition, or
    /// `scenario:NAME/MEASURE`.
    pub(crate) of: Option<String>,
    pub(crate) at_least: Option<f64>,
    pub(crate) at_most: Option<f64>,
}

/// A bar and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) bar: Bar,
    /// Median over the repetitions; none if it could not be measured.
    pub(crate) value: Option<f64>,
    pub(crate) held: bool,
}

impl Bar {
    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let of = match (self.other(), &self.of) {
            (Some((_, measure)), _) => Some(measure),
            (None, of) => of.as_deref(),
        };
        for name in [Some(self.measure.as_str()), of].into_iter().flatten() {
            if known(name).is_none() {
                wrong.push(format!("expect: no measure `{name}`"));
            }
        }
        if self.at_least.is_none() && self.at_most.is_none() {
            wrong.push(format!("expect {}: at_least or at_most", self.measure));
        }
        wrong
    }

    pub(super) fn other_scenario(&self) -> Option<String> {
        self.other().map(|(name, _)| name.to_owned())
    }

    /// Scenario and measure.
    fn other(&self) -> Option<(&str, &str)> {
        let of = self.of.as_deref()?.strip_prefix("scenario:")?;
        Some(of.split_once('/').unwrap_or((of, &self.measure)))
    }

    /// Judges the runs of the bar's scenario; `runs_of` answers those of another.
    pub(crate) fn judge(
        &self,
        runs: &[&Measures],
        runs_of: impl Fn(&str) -> Vec<Measures>,
    ) -> Judged {
        let other = self.other().map(|(name, measure)| (runs_of(name), measure));
        let values = runs.iter().enumerate().filter_map(|(repetition, run)| {
            let value = run.get(&self.measure)?;
            let of = match (&other, &self.of) {
                (Some((others, measure)), _) => others.get(repetition)?.get(*measure)?,
                (None, Some(of)) => run.get(of)?,
                (None, None) => &1.0,
            };
            (*of > 0.0).then(|| value / of)
        });
        let value = median(values.collect());
        let held = value.is_some_and(|value| {
            self.at_least.is_none_or(|least| value >= least)
                && self.at_most.is_none_or(|most| value <= most)
        });
        Judged {
            bar: self.clone(),
            value,
            held,
        }
    }

    /// `accepted_per_second / ceiling_accept >= 0.4`
    pub(crate) fn text(&self) -> String {
        let of = self.of.as_ref().map(|of| format!(" / {of}"));
        let mut text = format!("{}{}", self.measure, of.unwrap_or_default());
        if let Some(least) = self.at_least {
            text += &format!(" >= {least}");
        }
        if let Some(most) = self.at_most {
            text += &format!(" <= {most}");
        }
        text
    }
}

/// The middle one, or the mean of both middle ones; none of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle)?;
    if values.len().is_multiple_of(2) {
        return values.get(middle - 1).map(|lower| (lower + upper) / 2.0);
    }
    Some(*upper)
}

/// Median, least and greatest of a measure over runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

/// None if no run has the measure.
pub(crate) fn spread<'a>(runs: impl Iterator<Item = &'a Measures>, name: &str) -> Option<Spread> {
    let values: Vec<f64> = runs.filter_map(|run| run.get(name).copied()).collect();
    Some(Spread {
        least: values.iter().copied().min_by(f64::total_cmp)?,
        greatest: values.iter().copied().max_by(f64::total_cmp)?,
        median: median(values)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pairs: &[(&str, f64)]) -> Measures {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        owned.collect()
    }

    fn bar(of: Option<&str>, at_least: Option<f64>, at_most: Option<f64>) -> Bar {
        Bar {
            measure: "accepted_per_second".to_owned(),
            of: of.map(str::to_owned),
            at_least,
            at_most,
        }
    }

    #[test]
    fn medians_of_odd_and_even_rows() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_within_each_repetition() {
        // The machine halves its speed in the second repetition: the ratio does not care.
        let fast = run(&[("accepted_per_second", 500.0), ("ceiling_accept", 1000.0)]);
        let slow = run(&[("accepted_per_second", 250.0), ("ceiling_accept", 500.0)]);
        let judged =
            bar(Some("ceiling_accept"), Some(0.5), None).judge(&[&fast, &slow], |_| vec![]);
        assert_eq!((judged.value, judged.held), (Some(0.5), true));
        let judged = bar(Some("ceiling_accept"), Some(0.51), None).judge(&[&fast], |_| vec![]);
        assert!(!judged.held);
    }

    #[test]
    fn another_scenario_is_paired_by_repetition() {
        let here = run(&[("accepted_per_second", 90.0)]);
        let there = run(&[("accepted_per_second", 100.0)]);
        let bar = bar(Some("scenario:base"), Some(0.8), Some(1.1));
        let judged = bar.judge(&[&here, &here], |name| {
            assert_eq!(name, "base");
            vec![there.clone()]
        });
        assert_eq!((judged.value, judged.held), (Some(0.9), true));
        let lesser = Bar {
            of: Some("scenario:base/lost".to_owned()),
            ..bar.clone()
        };
        let there = run(&[("accepted_per_second", 100.0), ("lost", 9.0)]);
        let judged = lesser.judge(&[&here], |_| vec![there.clone()]);
        assert_eq!((judged.value, judged.held), (Some(10.0), false));
        assert_eq!(
            bar.text(),
            "accepted_per_second / scenario:base >= 0.8 <= 1.1"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_held() {
        let judged = bar(None, None, Some(5.0)).judge(&[&Measures::new()], |_| vec![]);
        assert_eq!((judged.value, judged.held), (None, false));
    }

    #[test]
    fn names_are_unique_and_ceilings_are_measures() {
        for (at, kind) in KINDS.iter().enumerate() {
            let again = KINDS
                .iter()
                .skip(at + 1)
                .any(|other| other.name == kind.name);
            assert!(!again, "{}", kind.name);
            assert!(kind.ceiling.is_none_or(|name| known(name).is_some()));
        }
    }

    #[test]
    fn every_measure_is_documented() {
        let page = include_str!("../../../docs/LOADTEST.md");
        for kind in KINDS {
            let row = format!("| `{}` |", kind.name);
            assert!(
                page.contains(&row),
                "docs/LOADTEST.md lacks {row} {}",
                kind.about
            );
        }
    }
}
