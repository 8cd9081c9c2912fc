//! Load generator, receiver and oracle for Posthaste: sizes a machine, finds a regression, proves that
//! nothing acknowledged is lost.
//!
//! `run` is the whole: it starts a gateway, loads it, waits until everything acknowledged has
//! arrived and prints one table; it fails if anything was lost. `ingest` and `sink` are its halves
//! for a gateway elsewhere; `ceiling` is what the machine allows without a gateway. `torture` is the
//! other half of the crate: it hurts a gateway and judges what it did by a record on disk
//! (`oracle`); `record` and `check` are its parts.
//!
//! Generator and receiver share the cores with the gateway, so both are lean: raw HTTP/1.1
//! connections, prepared requests, one thread each, bodies read at fixed offsets.

mod ceiling;
mod cli;
mod clock;
mod connection;
mod gateway;
mod generator;
mod hist;
mod machine;
mod oracle;
mod payload;
mod receiver;
mod report;
mod run;
mod signature;
#[cfg(test)]
mod stub;
mod torture;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use cli::{CeilingArgs, CheckArgs, Cli, Command, IngestArgs, SinkArgs};
use clock::Clock;
use generator::{Load, drive};
use payload::{Filling, Payloads};
use receiver::Receiver;
use report::{latency, say};
use signature::Verifier;

fn main() -> ExitCode {
    command(Cli::parse().command).unwrap_or_else(|error| {
        say(&format!("FAULT: {error:#}"));
        ExitCode::from(2)
    })
}

/// Success only if every promise held; failure (1) if one was broken; 2 if there was no run.
fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let report = run::run(&args)?;
            say(&report.table());
            if let Some(path) = &args.json {
                report::record(path, &report)?;
            }
            let faults = report.faults();
            for fault in &faults {
                say(&format!("FAULT: {fault}"));
            }
            Ok(exit(faults.is_empty()))
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

fn ingest(args: &IngestArgs) -> anyhow::Result<ExitCode> {
    let payloads = Arc::new(Payloads::new(args.load.size, args.load.filling));
    let batch = if args.load.batch.is_some() {
        "/batch"
    } else {
        ""
    };
    let load = Load {
        paths: args
            .app
            .iter()
            .map(|app| format!("/api/v1/app/{app}/msg{batch}"))
            .collect(),
        ..args.load.load(args.address, args.key.clone())
    };
    let seen = drive(&load, &payloads, Clock::start(), || {})?;
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
    let payloads = Arc::new(Payloads::new(args.size, Filling::Text));
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let time = Duration::from_secs(args.duration);
    let ceilings = ceiling::measure(args.connections, &payloads, time, &dir)?;
    say(&report::ceiling_table(&ceilings));
    if let Some(path) = &args.json {
        report::record(path, &ceilings)?;
    }
    Ok(ExitCode::SUCCESS)
}
