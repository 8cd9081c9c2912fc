//! A set of scenarios: repetitions interleaved (all scenarios, then all again), each with its ceilings
//! right before it, bars judged over the repetitions, one record and one page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use crate::ceiling::{self, Ceilings};
use crate::cli::TargetArgs;
use crate::gateway;
use crate::machine::Machine;
use crate::record::{Outcome, Record, Run};
use crate::report::{self, say, table};
use crate::run::{Target, run};
use crate::scenario::measure::Measures;
use crate::scenario::{PacePlan, Scale, Scenario, duration, library};
use crate::watch::progress;

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Names of scenarios, or files; none = the standard set. What they need runs with them.
    scenario: Vec<String>,
    /// Every `*.toml` of this folder instead of the scenarios that are compiled in.
    #[arg(long)]
    scenarios: Option<PathBuf>,
    /// List the scenarios and end.
    #[arg(long)]
    list: bool,
    /// A few seconds each, with a tenth of the applications and a hundredth of the backlogs, once:
    /// shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Repetitions, interleaved.
    #[arg(long)]
    repeat: Option<u32>,
    /// Begin no repetition that would not end within this time; the first always runs.
    #[arg(long, default_value = "14m", value_parser = duration)]
    within: Duration,
    /// Factor on warm-up and duration.
    #[arg(long)]
    time_scale: Option<f64>,
    /// Factor on backlogs.
    #[arg(long)]
    backlog_scale: Option<f64>,
    /// Time for each of the three ceilings beside each run; 0s = none.
    #[arg(long, value_parser = duration)]
    ceilings: Option<Duration>,
    /// Folder for the record and the page.
    #[arg(long, default_value = "target/loadtest")]
    out: PathBuf,
    /// A missed bar fails the command too; without it only a broken promise does.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl SetArgs {
    fn scale(&self) -> Scale {
        let quick = |value: f64| if self.quick { value } else { 1.0 };
        Scale {
            applications: quick(0.1),
            backlog: self.backlog_scale.unwrap_or_else(|| quick(0.01)),
            time: self.time_scale.unwrap_or_else(|| quick(0.2)),
        }
    }

    fn plan(&self) -> Plan {
        let (ceilings, repeat) = if self.quick {
            (Duration::from_millis(300), 1)
        } else {
            (Duration::from_secs(1), 3)
        };
        Plan {
            ceilings: self.ceilings.unwrap_or(ceilings),
            repeat: self.repeat.unwrap_or(repeat).max(1),
            within: self.within,
        }
    }
}

/// How often, and what beside it.
pub(crate) struct Plan {
    pub(crate) ceilings: Duration,
    pub(crate) repeat: u32,
    pub(crate) within: Duration,
}

/// Success only if every promise held (and every bar, if strict).
pub(crate) fn command(args: &SetArgs) -> anyhow::Result<ExitCode> {
    let mut all = match &args.scenarios {
        Some(folder) => library::folder(folder)?,
        None => library::built_in()?,
    };
    if args.list {
        for scenario in &all {
            let standard = if scenario.standard { "*" } else { " " };
            say(&format!(
                "{standard} {:<18}  {}",
                scenario.name, scenario.title
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut names = args.scenario.clone();
    for name in names.iter_mut().filter(|name| name.ends_with(".toml")) {
        let scenario = library::file(Path::new(name))?;
        name.clone_from(&scenario.name);
        all.retain(|other| other.name != scenario.name);
        all.push(scenario);
    }
    let chosen = library::select(&all, &names)?;
    let scale = args.scale();
    let chosen: Vec<_> = chosen.into_iter().map(|one| one.scaled(scale)).collect();
    let target = args.target.target()?;
    let record = measure(&chosen, &target, &args.plan())?;
    if args.quick {
        say("quick: durations are shortened; the figures show that it works, no more");
    }
    say(&format!(
        "machine: {}",
        table::machine_line(&record.machine)
    ));
    say(&table::overview(&record));
    say(&table::bars(&record));
    write(&record, &args.out)?;
    Ok(verdict(&record, args.strict))
}

fn verdict(record: &Record, strict: bool) -> ExitCode {
    let faults = record.faults();
    for fault in &faults {
        say(&format!("FAULT: {fault}"));
    }
    let missed = record.missed().len();
    if missed > 0 {
        say(&format!("{missed} bars not held"));
    }
    crate::exit(faults.is_empty() && (missed == 0 || !strict))
}

fn write(record: &Record, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let json = out.join(format!("record-{}.json", record.started));
    let page = out.join("report.html");
    report::record(&json, record)?;
    report::write_page(&page, record)?;
    say(&format!("wrote {} and {}", json.display(), page.display()));
    Ok(())
}

/// Runs all of them; a fault of the gateway is recorded, an error of the harness ends it.
pub(crate) fn measure(
    scenarios: &[Scenario],
    target: &Target,
    plan: &Plan,
) -> anyhow::Result<Record> {
    let machine = Machine::look(&target.dir)?;
    let mut record = Record::new(machine, target.seed, versions(target));
    record.results = scenarios
        .iter()
        .map(|scenario| outcome(scenario, target))
        .collect::<anyhow::Result<_>>()?;
    let each = scenarios.iter().map(|one| one.estimate(plan.ceilings));
    progress(&format!(
        "seed {}, {} scenarios, about {:.0} s a repetition\n",
        target.seed,
        scenarios.len(),
        each.sum::<Duration>().as_secs_f64()
    ));
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    for repetition in 0..plan.repeat {
        if repetition > 0 && begin.elapsed() + longest > plan.within {
            progress(&format!("no time for more than {repetition} repetitions\n"));
            break;
        }
        let began = Instant::now();
        for (at, scenario) in scenarios.iter().enumerate() {
            let label = format!("{} {}/{}", scenario.name, repetition + 1, plan.repeat);
            let measured = once(scenario, target, plan, &record, &label)?;
            progress(&format!("{}\n", table::line(&label, &measured)));
            if let Some(outcome) = record.results.get_mut(at) {
                outcome.runs.push(measured);
            }
        }
        longest = longest.max(began.elapsed());
    }
    judge(&mut record, scenarios);
    Ok(record)
}

/// The ceilings, then the scenario.
fn once(
    scenario: &Scenario,
    target: &Target,
    plan: &Plan,
    record: &Record,
    label: &str,
) -> anyhow::Result<Run> {
    let ceilings = ceilings(scenario, target, plan.ceilings)?;
    let rate_of = |name: &str| {
        let latest = record.outcome(name)?.runs.last()?;
        latest.measures.get("accepted_per_second").copied()
    };
    let pace = scenario.pace(rate_of)?;
    let mut measured = run(target, scenario, pace, label)
        .with_context(|| format!("scenario {}", scenario.name))?;
    if let Some(ceilings) = &ceilings {
        for (name, value) in [
            ("ceiling_accept", ceilings.accept_per_second),
            ("ceiling_send", ceilings.send_per_second),
            ("ceiling_file", ceilings.file_per_second),
        ] {
            measured.measures.insert(name.to_owned(), value);
        }
    }
    measured.ceilings = ceilings;
    Ok(measured)
}

fn ceilings(
    scenario: &Scenario,
    target: &Target,
    duration: Duration,
) -> anyhow::Result<Option<Ceilings>> {
    if duration.is_zero() {
        return Ok(None);
    }
    let payloads = Arc::new(target.payloads(scenario, false)?);
    let connections = scenario.load.connections;
    ceiling::measure(connections, &payloads, duration, &target.dir).map(Some)
}

fn outcome(scenario: &Scenario, target: &Target) -> anyhow::Result<Outcome> {
    let environment = target.environment(scenario);
    let settings = match target.address {
        Some(_) => Vec::new(),
        None => gateway::differences(&target.binary, &environment),
    };
    Ok(Outcome {
        name: scenario.name.clone(),
        title: scenario.title.clone(),
        about: scenario.about.clone(),
        load: describe(scenario, target)?,
        settings,
        point: scenario.point.clone(),
        runs: Vec::new(),
        bars: Vec::new(),
    })
}

fn judge(record: &mut Record, scenarios: &[Scenario]) {
    let measures: BTreeMap<String, Vec<Measures>> = record
        .results
        .iter()
        .map(|outcome| {
            let runs = outcome.runs.iter().map(|run| run.measures.clone());
            (outcome.name.clone(), runs.collect())
        })
        .collect();
    for (outcome, scenario) in record.results.iter_mut().zip(scenarios) {
        let runs: Vec<_> = outcome.runs.iter().map(|run| &run.measures).collect();
        let of = |name: &str| measures.get(name).cloned().unwrap_or_default();
        outcome.bars = scenario
            .expect
            .iter()
            .map(|bar| bar.judge(&runs, of))
            .collect();
    }
}

fn versions(target: &Target) -> BTreeMap<String, String> {
    let own = env!("CARGO_PKG_VERSION");
    let name = target.adapter.name.clone();
    let gateway = match target.address {
        Some((address, _)) => format!("running at {address}"),
        None => gateway::version(&target.binary),
    };
    BTreeMap::from([("loadtest".to_owned(), own.to_owned()), (name, gateway)])
}

/// The load in one line.
fn describe(scenario: &Scenario, target: &Target) -> anyhow::Result<String> {
    let load = &scenario.load;
    let population = &scenario.population;
    let mean = target.payloads(scenario, false)?.mean();
    let pace = match &load.pace {
        PacePlan::Closed {} => "closed loop".to_owned(),
        PacePlan::Open { rate } => format!("open loop {rate}/s"),
        PacePlan::Share { of, share } => format!("open loop at {share} of {of}"),
        PacePlan::Ramp { from, to, steps } => format!("ramp {from}/s to {to}/s, {steps} steps"),
        PacePlan::Burst { count, every } => format!("bursts of {count} every {every:?}"),
    };
    let mut text = format!(
        "{pace}, {} connections, {mean} B payloads on average, {} x {} endpoints ({}), {:?} after {:?} of warm-up",
        load.connections,
        population.applications,
        population.endpoints,
        population.behaviours,
        load.duration,
        load.warm_up
    );
    let backlog = scenario.backlog.map_or(0, |backlog| backlog.messages);
    let history = scenario.history.map_or(0, |history| history.messages);
    for (given, more) in [
        (load.batch > 0, format!("NDJSON batches of {}", load.batch)),
        (!load.keep_alive, "a connection for each request".to_owned()),
        (load.idempotency, "idempotency keys".to_owned()),
        (load.source, "signed events to a source".to_owned()),
        (load.retry, "refused requests sent again".to_owned()),
        (population.disabled, "endpoints disabled".to_owned()),
        (
            load.unwanted > 0.0,
            format!("{} of the messages wanted by nobody", load.unwanted),
        ),
        (backlog > 0, format!("a backlog of {backlog}")),
        (history > 0, format!("{history} stored before")),
        (scenario.restart.is_some(), "restarts".to_owned()),
    ] {
        if given {
            text += ", ";
            text += &more;
        }
    }
    Ok(text)
}
