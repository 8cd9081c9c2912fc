//! One measured run: gateway, receiver and generator together, then the comparison of the
//! producer's record with the receiver's ledger.
//!
//! The gateway is a process of its own; generator and receiver are threads of this one. After the
//! load the run waits for the drain: it ends when every healthy endpoint has all acknowledged
//! messages, or when nothing has moved for a while, and then what is missing is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::ceiling;
use crate::cli::RunArgs;
use crate::clock::Clock;
use crate::gateway::{Gateway, Population};
use crate::generator::{Form, Ingested, Load, Pace, drive};
use crate::machine::{Machine, Usage};
use crate::payload::Payloads;
use crate::receiver::{Behaviour, Receiver};
use crate::report::{Report, say};
use crate::signature::Verifier;

/// Signs every endpoint of a run.
pub(crate) const SECRET: &str = "whsec_bG9hZHRlc3QtbG9hZHRlc3QtbG9hZHRlc3QtMDE=";
/// Without any delivery for so long the backlog counts as stuck.
const STUCK: Duration = Duration::from_secs(20);

/// Runs it and answers the report.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Report> {
    let dir = tempfile::Builder::new()
        .prefix("posthaste-load-")
        .tempdir_in(args.dir.clone().unwrap_or_else(std::env::temp_dir))?;
    let machine = Machine::look(dir.path())?;
    let payloads = Arc::new(Payloads::new(args.load.size, args.load.filling));
    let ceilings = match args.ceilings {
        0 => None,
        seconds => {
            say("measuring the bare ceilings");
            let time = Duration::from_secs(seconds);
            Some(ceiling::measure(
                args.load.connections,
                &payloads,
                time,
                dir.path(),
            )?)
        }
    };
    let mut measured = Measured::take(args, dir.path(), &payloads)?;
    let verdict = measured.drain(args)?;
    let after = measured.gateway.usage();
    let report = report(args, &measured, verdict, after, (machine, ceilings));
    if args.keep {
        say(&format!("kept {}", dir.keep().display()));
    }
    measured.gateway.stop()?;
    measured.receiver.stop();
    Ok(report)
}

struct Measured {
    clock: Clock,
    gateway: Gateway,
    receiver: Receiver,
    behaviours: Vec<String>,
    /// Which slots must get everything.
    healthy: Vec<bool>,
    ingested: Ingested,
    /// When the window began, and when the first message was sent.
    before: Usage,
    payload_bytes: usize,
}

impl Measured {
    fn take(args: &RunArgs, dir: &Path, payloads: &Arc<Payloads>) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let behaviours = behaviours(&args.behaviours, args.endpoints)?;
        let healthy = behaviours
            .iter()
            .map(|name| anyhow::Ok(!args.disabled && name.parse::<Behaviour>()?.is_healthy()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let slots = u64::try_from(behaviours.len().max(1))?;
        let verifier = Verifier::new(SECRET)?;
        let receiver = Receiver::start(any, slots, clock, verifier, args.verify_every)?;
        let gateway = gateway(args, dir)?;
        let population = Population {
            applications: args.apps,
            behaviours: behaviours.clone(),
            concurrency: args.endpoint_concurrency,
            disabled: args.disabled,
            secret: SECRET.to_owned(),
        };
        let mut paths = gateway.populate(&population, receiver.address)?;
        if args.load.batch.is_some() {
            for path in &mut paths {
                path.push_str("/batch");
            }
        }
        let load = Load {
            paths,
            ..args.load.load(gateway.address, Some(gateway.key.clone()))
        };
        let before = parking_lot::Mutex::new(Usage::default());
        let warm = clock.now() + crate::hist::micros(load.warm_up);
        receiver.measure(crate::clock::Window {
            from: warm,
            to: warm + crate::hist::micros(load.duration),
        });
        let ingested = drive(&load, payloads, clock, || *before.lock() = gateway.usage())?;
        Ok(Self {
            clock,
            gateway,
            receiver,
            behaviours,
            healthy,
            ingested,
            before: before.into_inner(),
            payload_bytes: payloads.size(),
        })
    }

    /// Waits until everything acknowledged has arrived; what has not by then is lost.
    fn drain(&mut self, args: &RunArgs) -> anyhow::Result<crate::receiver::Verdict> {
        let healthy = u64::try_from(self.healthy.iter().filter(|slot| **slot).count())?;
        let wanted = u64::try_from(self.ingested.acked.len())? * healthy;
        let deadline = Instant::now() + Duration::from_secs(args.drain);
        let mut moved = (0, Instant::now());
        let mut verdict = self.check();
        while verdict.lost > 0 && Instant::now() < deadline {
            let distinct = self.receiver.with_ledger(|ledger| ledger.distinct);
            if distinct != moved.0 {
                moved = (distinct, Instant::now());
            }
            if moved.1.elapsed() > STUCK {
                say(&format!("no delivery for {STUCK:?}: giving up on the rest"));
                break;
            }
            // The exact comparison is not free; it waits until the counts could fit.
            if distinct >= wanted {
                verdict = self.check();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self.check())
    }

    fn check(&self) -> crate::receiver::Verdict {
        self.receiver.with_ledger(|ledger| {
            ledger.check(&self.ingested.acked, |_, slot| {
                usize::try_from(slot)
                    .ok()
                    .and_then(|slot| self.healthy.get(slot).copied())
                    .unwrap_or(false)
            })
        })
    }
}

fn gateway(args: &RunArgs, dir: &Path) -> anyhow::Result<Gateway> {
    if let Some(address) = args.address {
        let key = args.key.clone().context("--address wants --key as well")?;
        return Ok(Gateway::running(address, key));
    }
    Gateway::start(&args.gateway, dir, &args.env)
}

/// `fast=9,hang=1` for 20 endpoints: 18 fast and 2 that hang, evenly mixed.
fn behaviours(mix: &str, endpoints: usize) -> anyhow::Result<Vec<String>> {
    let mut wheel = Vec::new();
    for part in mix.split(',') {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let weight: usize = weight
            .parse()
            .with_context(|| format!("weight in `{part}`"))?;
        name.parse::<Behaviour>()?;
        wheel.extend(std::iter::repeat_n(name.to_owned(), weight));
    }
    anyhow::ensure!(!wheel.is_empty(), "the mix `{mix}` has no endpoint");
    Ok(wheel.into_iter().cycle().take(endpoints).collect())
}

fn report(
    args: &RunArgs,
    measured: &Measured,
    verdict: crate::receiver::Verdict,
    after: Usage,
    (machine, ceilings): (Machine, Option<ceiling::Ceilings>),
) -> Report {
    let ingested = &measured.ingested;
    let window = ingested.window;
    let gateway_cpu = after.cpu.saturating_sub(measured.before.cpu).as_secs_f64();
    let written = after.written.saturating_sub(measured.before.written);
    let payload_bytes = measured.payload_bytes as f64 * ingested.accepted.max(1) as f64;
    let begin = window
        .from
        .saturating_sub(crate::hist::micros(args.load.warm_up()));
    measured.receiver.with_ledger(|ledger| {
        let last = ledger.last.max(window.to.min(measured.clock.now()));
        Report {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine,
            applications: args.apps,
            endpoints: args.endpoints,
            behaviours: measured.behaviours.clone(),
            payload_bytes: measured.payload_bytes,
            connections: args.load.connections,
            rate: match args.load.pace() {
                Pace::Closed => None,
                Pace::Open(rate) => Some(rate),
            },
            batch: match args.load.form() {
                Form::Bare | Form::Message => None,
                Form::Batch(lines) => Some(lines),
            },
            seconds: window.seconds(),
            environment: args.env.clone(),
            accepted: ingested.accepted,
            accepted_per_second: ingested.accepted as f64 / window.seconds(),
            refused: ingested.refused.clone(),
            failed: ingested.failed,
            unsent: ingested.unsent,
            first_error: ingested.first_error.clone(),
            ingest: ingested.latency.summary(),
            delivered: ledger.delivered,
            delivered_per_second: ledger.in_window as f64 / window.seconds(),
            sustained_per_second: ledger.delivered as f64
                / Duration::from_micros(last.saturating_sub(begin).max(1)).as_secs_f64(),
            drain_seconds: Duration::from_micros(last.saturating_sub(window.to)).as_secs_f64(),
            event_to_delivery: ledger.latency.summary(),
            expected: verdict.expected,
            lost: verdict.lost,
            duplicates: verdict.duplicates,
            turned_away: ledger.turned_away,
            signatures_verified: ledger.verified,
            signatures_bad: ledger.bad_signatures,
            gateway_cpu_seconds: gateway_cpu,
            gateway_cpu_us_per_message: gateway_cpu * 1e6 / ingested.accepted.max(1) as f64,
            generator_cpu_seconds: ingested.cpu.as_secs_f64(),
            receiver_cpu_seconds: measured.receiver.cpu().as_secs_f64(),
            gateway_peak_memory: after.peak_memory,
            gateway_threads: after.threads,
            gateway_switches: after.switches.saturating_sub(measured.before.switches),
            bytes_written: written,
            bytes_written_per_payload_byte: written as f64 / payload_bytes,
            ceilings,
            accepted_per_second_line: ingested.per_second.clone(),
            delivered_per_second_line: ledger.per_second.clone(),
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::stub::{self, Fault};

    /// A short run against the stand-in; the report, and whether it is faultless.
    fn run_against(fault: Fault, options: &str) -> (Report, bool) {
        let address = stub::start(fault);
        let line = format!(
            "loadtest run --address {address} --key k --ceilings 0 --connections 4 --warm-up 0 --duration 1 --drain 1 --verify-every 1 {options}"
        );
        let Command::Run(args) = Cli::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        else {
            unreachable!("the line says run");
        };
        let report = run(&args).unwrap();
        let faultless = report.faults().is_empty();
        (report, faultless)
    }

    #[test]
    fn an_honest_gateway_passes_with_everything_counted() {
        let (report, faultless) = run_against(Fault::None, "--rate 100 --apps 3 --endpoints 2");
        assert!(faultless, "{:?}", report.faults());
        assert!((80..=101).contains(&report.accepted), "{}", report.accepted);
        // An answer behind the end of the window is not counted as accepted, but must be delivered:
        // one for each connection at most.
        let owed = 2 * report.accepted..=2 * (report.accepted + 4);
        assert!(owed.contains(&report.expected), "{}", report.expected);
        assert_eq!((report.lost, report.duplicates), (0, 0));
        assert_eq!(report.delivered, report.expected);
        assert_eq!(report.signatures_verified, report.delivered);
        assert!(report.event_to_delivery.p50_us > 0);
        assert!(report.table().contains("event to delivery"));
    }

    #[test]
    fn batches_are_followed_message_by_message() {
        let (report, faultless) = run_against(Fault::None, "--batch 7 --rate 20");
        assert!(faultless, "{:?}", report.faults());
        assert!(report.accepted >= 7 * 10, "{}", report.accepted);
        assert_eq!(report.delivered, report.expected);
    }

    #[test]
    fn a_single_lost_delivery_fails_the_run() {
        let (report, faultless) = run_against(Fault::Loses(17), "--rate 100");
        assert_eq!((report.lost, faultless), (1, false));
    }

    #[test]
    fn a_doubled_delivery_is_counted() {
        let (report, faultless) = run_against(Fault::Doubles(17), "--rate 100 --no-keep-alive");
        assert_eq!((report.duplicates, report.lost), (1, 0));
        assert!(faultless, "at least once is what is promised");
    }

    #[test]
    fn wrong_signatures_fail_the_run() {
        let (report, faultless) = run_against(Fault::SignsWrongly, "--rate 100");
        assert!(!faultless && report.signatures_bad == report.signatures_verified);
    }

    #[test]
    fn a_mix_is_dealt_out_by_weight() {
        let dealt = behaviours("fast=3,hang", 8).unwrap();
        assert_eq!(dealt.iter().filter(|name| *name == "hang").count(), 2);
        assert_eq!(dealt.len(), 8);
        assert!(behaviours("nothing", 1).is_err());
    }
}
