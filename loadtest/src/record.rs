//! The JSON record of a set of scenarios. `SCHEMA` goes up when a reader of the old form would
//! misread the new one; a field that is added keeps it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::ceiling::Ceilings;
use crate::hist::{Histogram, Summary};
use crate::machine::Machine;
use crate::scenario::Point;
use crate::scenario::measure::{Judged, Measures, Spread, spread};
use crate::timeline::Line;

/// Version of this form.
pub(crate) const SCHEMA: u32 = 1;
const KIND: &str = "posthaste-loadtest";

/// Everything of one invocation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) schema: u32,
    pub(crate) kind: String,
    pub(crate) command: String,
    /// Unix seconds.
    pub(crate) started: u64,
    pub(crate) seed: u64,
    pub(crate) machine: Machine,
    /// Of programs, by name.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) results: Vec<Outcome>,
}

/// All repetitions of a scenario.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) about: String,
    /// The load in one line.
    pub(crate) load: String,
    /// Settings of the gateway that differ from its defaults.
    pub(crate) settings: Vec<String>,
    /// Where it stands on a curve.
    #[serde(default)]
    pub(crate) point: Option<Point>,
    pub(crate) runs: Vec<Run>,
    pub(crate) bars: Vec<Judged>,
}

/// One repetition.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) measures: Measures,
    pub(crate) ceilings: Option<Ceilings>,
    pub(crate) ingest: Latency,
    pub(crate) delivery: Latency,
    /// Event to delivery by behaviour of the endpoint, if there is more than one.
    pub(crate) by_behaviour: BTreeMap<String, Latency>,
    pub(crate) accepted_line: Line,
    pub(crate) delivered_line: Line,
    pub(crate) samples: Vec<Sample>,
    pub(crate) processes: BTreeMap<String, Process>,
    /// Messages answered with no success, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) first_error: Option<String>,
    /// Requests at the receiver that got no 2xx, and those it could not read.
    pub(crate) turned_away: u64,
    pub(crate) foreign: u64,
    pub(crate) signatures_verified: u64,
    pub(crate) signatures_bad: u64,
    /// Seconds after the first send at which something was done to the gateway.
    pub(crate) events: Vec<(f64, String)>,
    /// Promises that were broken.
    pub(crate) faults: Vec<String>,
}

/// A distribution of latencies.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) summary: Summary,
    /// Percentile and microseconds.
    pub(crate) curve: Vec<(f64, u64)>,
}

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Self {
        Self {
            summary: histogram.summary(),
            curve: histogram.curve(),
        }
    }
}

/// The gateway at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds after the first send.
    pub(crate) at: f64,
    /// Cores used since the sample before.
    pub(crate) cores: f64,
    pub(crate) memory_mib: f64,
    /// Written to the disk since the first send.
    pub(crate) written_mib: f64,
}

/// A process over the run, from the first send to the end of the drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_seconds_per_1000: f64,
    pub(crate) peak_memory: u64,
    pub(crate) written: u64,
    pub(crate) threads: u64,
    pub(crate) switches: u64,
}

impl Record {
    pub(crate) fn new(machine: Machine, seed: u64, versions: BTreeMap<String, String>) -> Self {
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            kind: KIND.to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            started: started.map_or(0, |since| since.as_secs()),
            seed,
            machine,
            versions,
            results: Vec::new(),
        }
    }

    /// Reads a record; refuses another form.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no record", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Form {
            kind: String,
            schema: u32,
        }
        let form: Form = serde_json::from_str(text)?;
        if form.kind != KIND || form.schema != SCHEMA {
            bail!(
                "it is `{}` of schema {}; this program reads `{KIND}` of schema {SCHEMA}",
                form.kind,
                form.schema
            );
        }
        Ok(serde_json::from_str(text)?)
    }

    pub(crate) fn outcome(&self, name: &str) -> Option<&Outcome> {
        self.results.iter().find(|outcome| outcome.name == name)
    }

    /// Broken promises of all runs, with the scenario's name.
    pub(crate) fn faults(&self) -> Vec<String> {
        let of = |outcome: &Outcome| {
            let faults = outcome.runs.iter().flat_map(|run| run.faults.iter());
            faults
                .map(|fault| format!("{}: {fault}", outcome.name))
                .collect::<Vec<_>>()
        };
        self.results.iter().flat_map(of).collect()
    }

    /// Bars that were missed, with the scenario's name.
    pub(crate) fn missed(&self) -> Vec<(&str, &Judged)> {
        self.results
            .iter()
            .flat_map(|outcome| {
                let missed = outcome.bars.iter().filter(|judged| !judged.held);
                missed.map(|judged| (outcome.name.as_str(), judged))
            })
            .collect()
    }
}

impl Outcome {
    /// Median and range over the repetitions.
    pub(crate) fn spread(&self, measure: &str) -> Option<Spread> {
        spread(self.runs.iter().map(|run| &run.measures), measure)
    }

    /// The same of the share of a ceiling, taken within each repetition.
    pub(crate) fn share(&self, measure: &str, ceiling: &str) -> Option<Spread> {
        let shares: Vec<Measures> = self
            .runs
            .iter()
            .filter_map(|run| {
                let of = run.measures.get(ceiling).filter(|of| **of > 0.0)?;
                let share = run.measures.get(measure)? / of;
                Some(Measures::from([(measure.to_owned(), share)]))
            })
            .collect();
        spread(shares.iter(), measure)
    }

    /// The run that is shown in plots: the one whose rate is the median.
    pub(crate) fn middle(&self) -> Option<&Run> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        let rate = |run: &Run| {
            let rate = run.measures.get("delivered_per_second");
            rate.or_else(|| run.measures.get("accepted_per_second"))
                .copied()
                .unwrap_or(0.0)
        };
        runs.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        runs.get(runs.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_another_schema_is_refused() {
        let mut record = Record::new(Machine::default(), 7, BTreeMap::new());
        record.results.push(Outcome {
            name: "a".to_owned(),
            runs: vec![Run {
                measures: Measures::from([("lost".to_owned(), 2.0)]),
                refused: BTreeMap::from([(503, 4)]),
                faults: vec!["2 lost".to_owned()],
                ..Run::default()
            }],
            ..Outcome::default()
        });
        let text = serde_json::to_string(&record).unwrap();
        let back = Record::parse(&text).unwrap();
        assert_eq!(back.faults(), ["a: 2 lost"]);
        assert_eq!(
            back.outcome("a").unwrap().spread("lost").unwrap().median,
            2.0
        );
        assert_eq!(back.outcome("a").unwrap().runs[0].refused[&503], 4);
        let newer = text.replacen("\"schema\":1", "\"schema\":2", 1);
        let error = Record::parse(&newer).unwrap_err().to_string();
        assert!(error.contains("schema 2"), "{error}");
    }

    #[test]
    fn the_middle_run_is_shown_and_shares_are_taken_run_by_run() {
        let run = |rate: f64, ceiling: f64| Run {
            measures: Measures::from([
                ("accepted_per_second".to_owned(), rate),
                ("ceiling_accept".to_owned(), ceiling),
            ]),
            ..Run::default()
        };
        let outcome = Outcome {
            runs: vec![run(300.0, 600.0), run(100.0, 200.0), run(200.0, 400.0)],
            ..Outcome::default()
        };
        assert_eq!(
            outcome.middle().unwrap().measures["accepted_per_second"],
            200.0
        );
        let share = outcome
            .share("accepted_per_second", "ceiling_accept")
            .unwrap();
        assert_eq!((share.least, share.greatest), (0.5, 0.5));
        assert!(Outcome::default().middle().is_none());
    }
}
