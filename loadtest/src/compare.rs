//! Two records beside each other: ratios of the medians, and whether one is worse beyond a threshold.
//!
//! Rates are compared as shares of the ceilings that were measured beside them, where both records
//! have them: the same machine differs by a fifth from one hour to the next. What has no ceiling
//! (latencies, CPU, memory, bytes) is compared as it is.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use crate::record::{Outcome, Record};
use crate::report::{figure, say};
use crate::scenario::measure::{Better, KINDS, Kind, Spread, known};

/// Below this many milliseconds, or this many lost messages, a difference is no difference.
const FLOOR_MS: f64 = 0.05;

#[derive(Args)]
pub(crate) struct CompareArgs {
    /// Record before.
    pub(crate) before: PathBuf,
    /// Record after.
    pub(crate) after: PathBuf,
    /// How much worse a measure may be, such as `10%` or `0.1`.
    #[arg(long, default_value = "10%", value_parser = share)]
    pub(crate) threshold: f64,
    /// Judge this measure only; repeatable. Without it all that are meant to be judged.
    #[arg(long)]
    pub(crate) measure: Vec<String>,
    /// Show measures that are not judged as well.
    #[arg(long)]
    pub(crate) all: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| "want 10% or 0.1")?;
    if number.is_finite() && number >= 0.0 {
        Ok(number * scale)
    } else {
        Err("want 10% or 0.1".to_owned())
    }
}

/// One measure of one scenario in both.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) scenario: String,
    pub(crate) measure: &'static str,
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Taken as a share of the ceiling.
    pub(crate) of: Option<&'static str>,
    /// After / before; none if nothing was before.
    pub(crate) ratio: Option<f64>,
    /// The ranges over the repetitions overlap, so chance explains it.
    pub(crate) overlap: bool,
    pub(crate) verdict: Verdict,
}

/// What a pair says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    Better,
    Worse,
    /// Beyond the threshold, but this measure is shown only.
    Unjudged,
}

/// Prints the comparison; failure if anything judged is worse.
pub(crate) fn command(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    for name in &args.measure {
        if known(name).is_none() {
            bail!("no measure `{name}`; docs/LOADTEST.md lists them");
        }
    }
    let (before, after) = (Record::read(&args.before)?, Record::read(&args.after)?);
    let judges = |kind: &Kind| {
        if args.measure.is_empty() {
            kind.judged
        } else {
            args.measure.iter().any(|name| name == kind.name)
        }
    };
    let pairs = pairs(&before, &after, args.threshold, judges);
    if pairs.is_empty() {
        bail!("the records have no scenario in common");
    }
    for pair in pairs
        .iter()
        .filter(|pair| args.all || judges_pair(pair, &judges))
    {
        say(&line(pair));
    }
    for name in missing(&before, &after) {
        say(&format!("only in one of them: {name}"));
    }
    let worse = pairs.iter().filter(|pair| pair.verdict == Verdict::Worse);
    let worse = worse.count();
    say(&format!(
        "{worse} of {} measures worse by more than {:.0} %",
        pairs.len(),
        args.threshold * 100.0
    ));
    Ok(crate::exit(worse == 0))
}

fn judges_pair(pair: &Pair, judges: &impl Fn(&Kind) -> bool) -> bool {
    known(pair.measure).is_some_and(judges)
}

fn line(pair: &Pair) -> String {
    let ratio = pair
        .ratio
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
    let verdict = match pair.verdict {
        Verdict::Same => "",
        Verdict::Better => "  better",
        Verdict::Worse => "  WORSE",
        Verdict::Unjudged => "  (not judged)",
    };
    let overlap = if pair.overlap && pair.verdict != Verdict::Same {
        ", ranges overlap"
    } else {
        ""
    };
    let of = pair.of.map_or_else(String::new, |of| format!(" / {of}"));
    format!(
        "{:<28} {:<38} {:>10} -> {:>10}  x {ratio}{verdict}{overlap}",
        pair.scenario,
        format!("{}{of}", pair.measure),
        figure(pair.before),
        figure(pair.after)
    )
}

/// Scenarios that only one record has.
fn missing(before: &Record, after: &Record) -> Vec<String> {
    let lacks = |record: &Record, outcome: &&Outcome| record.outcome(&outcome.name).is_none();
    let gone = before.results.iter().filter(|one| lacks(after, one));
    let new = after.results.iter().filter(|one| lacks(before, one));
    gone.chain(new)
        .map(|outcome| outcome.name.clone())
        .collect()
}

/// Every measure that both records have.
pub(crate) fn pairs(
    before: &Record,
    after: &Record,
    threshold: f64,
    judges: impl Fn(&Kind) -> bool,
) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for old in &before.results {
        let Some(new) = after.outcome(&old.name) else {
            continue;
        };
        for kind in KINDS.iter().filter(|kind| kind.better != Better::Neither) {
            let found = shares(kind, old, new)
                .or_else(|| Some((old.spread(kind.name)?, new.spread(kind.name)?, None)));
            let Some((old_spread, new_spread, of)) = found else {
                continue;
            };
            let mut pair = compared(kind, (old_spread, new_spread), threshold);
            pair.scenario.clone_from(&old.name);
            pair.of = of;
            if pair.verdict == Verdict::Worse && !judges(kind) {
                pair.verdict = Verdict::Unjudged;
            }
            pairs.push(pair);
        }
    }
    pairs
}

/// Both as shares of the ceiling, if both have it.
fn shares(
    kind: &Kind,
    old: &Outcome,
    new: &Outcome,
) -> Option<(Spread, Spread, Option<&'static str>)> {
    let ceiling = kind.ceiling?;
    let share = |outcome: &Outcome| outcome.share(kind.name, ceiling);
    Some((share(old)?, share(new)?, Some(ceiling)))
}

fn compared(kind: &Kind, (old, new): (Spread, Spread), threshold: f64) -> Pair {
    let (before, after) = (old.median, new.median);
    let ratio = (before > 0.0).then(|| after / before);
    let floor = if kind.name.ends_with("_ms") {
        FLOOR_MS
    } else {
        0.0
    };
    let worse_by = match kind.better {
        Better::Higher => before - after,
        Better::Lower | Better::Neither => after - before,
    };
    let beyond = |by: f64| by > before.abs() * threshold && by > floor;
    let verdict = if beyond(worse_by) {
        Verdict::Worse
    } else if beyond(-worse_by) {
        Verdict::Better
    } else {
        Verdict::Same
    };
    Pair {
        scenario: String::new(),
        measure: kind.name,
        before,
        after,
        of: None,
        ratio,
        overlap: old.least <= new.greatest && new.least <= old.greatest,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Run;

    fn record(pairs: &[(&str, f64)]) -> Record {
        let measures = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        Record {
            results: vec![Outcome {
                name: "one".to_owned(),
                runs: vec![Run {
                    measures: measures.collect(),
                    ..Run::default()
                }],
                ..Outcome::default()
            }],
            ..Record::default()
        }
    }

    fn verdict(before: &[(&str, f64)], after: &[(&str, f64)], measure: &str) -> Verdict {
        let pairs = pairs(&record(before), &record(after), 0.1, |kind| kind.judged);
        let pair = pairs.iter().find(|pair| pair.measure == measure).unwrap();
        pair.verdict
    }

    #[test]
    fn a_slower_machine_is_no_regression_where_ceilings_stand_beside() {
        let before = [("accepted_per_second", 1000.0), ("ceiling_accept", 2000.0)];
        let after = [("accepted_per_second", 500.0), ("ceiling_accept", 1000.0)];
        let name = "accepted_per_second";
        assert_eq!(verdict(&before, &after, name), Verdict::Same);
        assert_eq!(verdict(&before[..1], &after[..1], name), Verdict::Worse);
    }

    #[test]
    fn each_measure_knows_which_direction_is_worse() {
        for (name, before, after, wanted) in [
            ("delivery_p99_ms", 10.0, 11.5, Verdict::Worse),
            ("delivery_p99_ms", 10.0, 10.5, Verdict::Same),
            ("delivery_p99_ms", 10.0, 8.0, Verdict::Better),
            ("delivery_p99_ms", 0.02, 0.05, Verdict::Same),
            ("gateway_cpu_us", 100.0, 120.0, Verdict::Worse),
            ("lost", 0.0, 1.0, Verdict::Worse),
            ("duplicates", 0.0, 5.0, Verdict::Unjudged),
            ("backlog_per_second", 100.0, 80.0, Verdict::Worse),
        ] {
            let found = verdict(&[(name, before)], &[(name, after)], name);
            assert_eq!(found, wanted, "{name} {before} -> {after}");
        }
    }

    #[test]
    fn thresholds_are_shares_or_percentages() {
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share("0.25"), Ok(0.25));
        for bad in ["", "x%", "-1%", "NaN"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_fails_on_a_regression_and_on_strangers() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, record: &Record| {
            let path = dir.path().join(name);
            crate::report::record(&path, record).unwrap();
            path
        };
        let stamped = |record: Record| Record {
            schema: crate::record::SCHEMA,
            kind: "posthaste-loadtest".to_owned(),
            ..record
        };
        let fast = write(
            "a.json",
            &stamped(record(&[("accepted_per_second", 900.0)])),
        );
        let slow = write(
            "b.json",
            &stamped(record(&[("accepted_per_second", 700.0)])),
        );
        let empty = write("c.json", &stamped(Record::default()));
        let run = |before: &PathBuf, after: &PathBuf| {
            command(&CompareArgs {
                before: before.clone(),
                after: after.clone(),
                threshold: 0.1,
                measure: Vec::new(),
                all: false,
            })
        };
        assert_eq!(run(&fast, &slow).unwrap(), ExitCode::FAILURE);
        assert_eq!(run(&slow, &fast).unwrap(), ExitCode::SUCCESS);
        assert!(run(&fast, &empty).is_err(), "nothing in common");
        assert!(run(&fast, &dir.path().join("none.json")).is_err());
    }
}
