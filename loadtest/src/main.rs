//! Load generator, receiver and oracle for Posthaste: sizes a machine, finds a regression, proves that
//! nothing acknowledged is lost.
//!
//! `run` is one measurement: it starts a gateway, loads it, waits until everything acknowledged has
//! arrived and prints one table; it fails if anything was lost. `set` does this for scenarios that
//! stand in files, again and again, with the bare ceilings beside each, and writes a record and a page;
//! `compare` reads two records. `ingest` and `sink` are the halves for a gateway elsewhere; `ceiling` is
//! what the machine allows without a gateway. How to use all of it: `docs/LOADTEST.md`. `torture` is the
//! other half of the crate: it hurts a gateway and judges what it did by a record on disk
//! (`oracle`, `docs/TORTURE.md`); `record` and `check` are its parts.
//!
//! Generator and receiver share the cores with the gateway, so both are lean: raw HTTP/1.1
//! connections, prepared requests, one thread each, bodies read at fixed offsets.

mod adapter;
mod ceiling;
mod cli;
mod clock;
mod compare;
mod connection;
mod gateway;
mod generator;
mod hist;
mod ledger;
mod machine;
mod oracle;
mod pace;
mod payload;
mod population;
mod receiver;
mod record;
mod report;
mod run;
mod scenario;
mod set;
mod signature;
mod sizes;
#[cfg(test)]
mod stub;
mod timeline;
mod torture;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use adapter::Adapter;
use cli::{CeilingArgs, CheckArgs, Cli, Command, IngestArgs, RunArgs, SinkArgs};
use clock::Clock;
use generator::{Form, Load, drive};
use payload::{Filling, Payloads};
use receiver::Receiver;
use report::{latency, say, table};
use scenario::PacePlan;
use signature::Verifier;
use sizes::Sizes;

fn main() -> ExitCode {
    command(Cli::parse().command).unwrap_or_else(|error| {
        say(&format!("FAULT: {error:#}"));
        ExitCode::from(2)
    })
}

/// Success only if every promise held; failure (1) if one was broken; 2 if there was no run.
fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => one(&args),
        Command::Set(args) => set::command(&args),
        Command::Compare(args) => compare::command(&args),
        Command::Page(args) => {
            let record = record::Record::read(&args.record)?;
            report::write_page(&args.page, &record)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ingest(args) => ingest(&args),
        Command::Sink(args) => sink(&args),
        Command::Ceiling(args) => ceilings(&args),
        Command::Torture(args) => torture::torture(&args),
        Command::Check(args) => check(&args),
        Command::Record(args) => oracle::record::record(&args).map(|()| ExitCode::SUCCESS),
    }
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let verdict = oracle::check::judge_dir(&args.dir)?;
    for violation in &verdict.violations {
        say(&format!("VIOLATION {violation}"));
    }
    say(&format!(
        "{} acknowledged ({} deliveries owed), {} of unknown fate, {} delivered, {} lost, {} duplicates, {} violations",
        verdict.acknowledged,
        verdict.pairs,
        verdict.unknown,
        verdict.delivered,
        verdict.lost,
        verdict.duplicates,
        verdict.violations.len()
    ));
    Ok(exit(verdict.is_good()))
}

/// One scenario from the command line.
fn one(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let plan = set::Plan {
        ceilings: Duration::from_secs(args.ceilings),
        repeat: 1,
        within: Duration::MAX,
    };
    let record = set::measure(&[args.scenario()?], &args.target.target()?, &plan)?;
    for outcome in &record.results {
        say(&table::detail(&record.machine, outcome));
    }
    if let Some(path) = &args.json {
        report::record(path, &record)?;
    }
    if let Some(path) = &args.html {
        report::write_page(path, &record)?;
    }
    let faults = record.faults();
    for fault in &faults {
        say(&format!("FAULT: {fault}"));
    }
    Ok(exit(faults.is_empty()))
}

fn ingest(args: &IngestArgs) -> anyhow::Result<ExitCode> {
    let adapter = Adapter::named(&args.adapter)?;
    let batch = args.load.batch.is_some();
    let (wanted, unwanted) = adapter.envelopes(batch)?;
    let per_mille = hist::whole(args.load.unwanted * 1000.0);
    let payloads = Payloads::new(&Sizes::Fixed(args.load.size), args.load.filling, 1)?;
    let payloads = Arc::new(payloads.enveloped(wanted, unwanted, per_mille));
    let key = args.key.as_deref().unwrap_or_default();
    let paths = args.app.iter().map(|app| {
        let mut values = Adapter::values(key, 0, "");
        for name in ["app", "app_id"] {
            values.insert(name.to_owned(), app.clone());
        }
        adapter.path(&values, batch)
    });
    let plan = args.load.plan();
    let load = Load {
        dialect: adapter.dialect(key, batch)?,
        connections: plan.connections,
        threads: plan.threads,
        pace: match plan.pace {
            PacePlan::Open { rate } => pace::Pace::Open(rate),
            _ => pace::Pace::Closed,
        },
        form: args.load.batch.map_or(Form::Message, Form::Batch),
        keep_alive: plan.keep_alive,
        idempotency: plan.idempotency,
        retry: plan.retry,
        warm_up: plan.warm_up,
        ..Load::new(
            args.address,
            paths.collect::<anyhow::Result<_>>()?,
            plan.duration,
        )
    };
    let seen = drive(&load, &payloads, Clock::start(), |_| {})?;
    let rate = seen.accepted as f64 / seen.window.seconds();
    say(&format!(
        "accepted            {rate:.0}/s  ({})",
        seen.accepted
    ));
    say(&format!(
        "ingest latency      {}",
        latency(&seen.latency.summary())
    ));
    say(&format!(
        "not accepted        {:?} by status, {} failed, {} unsent{}",
        seen.refused,
        seen.failed,
        seen.unsent,
        seen.first_error
            .map_or_else(String::new, |error| format!("; first: {error}"))
    ));
    Ok(exit(seen.accepted > 0))
}

fn sink(args: &SinkArgs) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let sample = if args.secret.is_some() {
        args.verify_every
    } else {
        0
    };
    let verifier = Verifier::new(args.secret.as_deref().unwrap_or("whsec_"))?;
    let receiver = Receiver::start(args.listen, args.slots, clock, verifier, sample)?;
    say(&format!("listening on http://{}", receiver.address));
    // Everything counts: without a run around it the window has no end.
    receiver.measure(clock::Window {
        begin: clock.now(),
        from: clock.now(),
        to: u64::MAX,
    });
    let begin = Instant::now();
    let mut before = 0;
    while args.duration == 0 || begin.elapsed() < Duration::from_secs(args.duration) {
        std::thread::sleep(Duration::from_secs(1));
        receiver.with_ledger(|ledger| {
            let now = ledger.delivered + ledger.turned_away;
            if now != before {
                say(&format!(
                    "{:>8}/s  {} delivered ({} distinct), {} turned away, {} foreign, {} of {} signatures bad; event to delivery {}",
                    now - before,
                    ledger.delivered,
                    ledger.distinct,
                    ledger.turned_away,
                    ledger.foreign,
                    ledger.bad_signatures,
                    ledger.verified,
                    latency(&ledger.latency.summary())
                ));
            }
            before = now;
        });
    }
    receiver.stop();
    let bad = receiver.with_ledger(|ledger| ledger.first_bad.clone());
    if let Some(why) = &bad {
        say(&format!("FAULT: a bad signature: {why}"));
    }
    Ok(exit(bad.is_none()))
}

fn ceilings(args: &CeilingArgs) -> anyhow::Result<ExitCode> {
    let payloads = Payloads::new(&Sizes::Fixed(args.size), Filling::Text, 1)?;
    let payloads = Arc::new(payloads);
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let time = Duration::from_secs(args.duration);
    let ceilings = ceiling::measure(args.connections, &payloads, time, &dir)?;
    say(&report::ceiling_table(&ceilings));
    if let Some(path) = &args.json {
        report::record(path, &ceilings)?;
    }
    Ok(ExitCode::SUCCESS)
}
