//! One measured run of a scenario: gateway, receiver and generator together, then the comparison of
//! the producer's record with the receiver's ledger.
//!
//! The gateway is a process of its own; generator and receiver are threads of this one. After the
//! load the run waits for the drain: it ends when every healthy endpoint has all acknowledged
//! messages, or when nothing has moved for a while, and then what is missing is lost.
//!
//! Elsewhere: what is done to the gateway meanwhile (`director`), the management API beside the load
//! (`caller`), what the figures are made into
//! (`summary`).

mod caller;
mod director;
mod summary;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::adapter::{Adapter, Signature, Values};
use crate::clock::{Clock, Window};
use crate::gateway::Gateway;
use crate::generator::{Form, Ingested, Load, drive};
use crate::ledger::Verdict;
use crate::machine::Usage;
use crate::pace::Pace;
use crate::payload::Payloads;
use crate::population::{Population, SECRET};
use crate::receiver::Receiver;
use crate::record::{Run, Sample};
use crate::report::say;
use crate::scenario::Scenario;
use crate::signature::{Signer, Verifier};
use crate::watch::Watched;
use caller::Called;
use director::{Directed, Director};

/// Without any delivery for so long the backlog counts as stuck.
const STUCK: Duration = Duration::from_secs(20);
/// A backlog is filled in batches of so many.
const FILL_BATCH: u64 = 100;
const FILL_WITHIN: Duration = Duration::from_secs(1800);
/// The gateway is at rest when it uses less than a tenth of a core for so long.
const REST: Duration = Duration::from_secs(1);
const REST_WITHIN: Duration = Duration::from_secs(300);

/// What is measured, and with what.
pub(crate) struct Target {
    /// Started for each run, unless `address` names one that runs.
    pub(crate) binary: PathBuf,
    pub(crate) address: Option<(SocketAddr, String)>,
    pub(crate) adapter: Adapter,
    /// Environment of the gateway, beyond the scenario's.
    pub(crate) env: Vec<(String, String)>,
    /// Processes of a gateway that runs.
    pub(crate) pids: Vec<(String, u32)>,
    pub(crate) dir: PathBuf,
    pub(crate) keep: bool,
    pub(crate) listen: SocketAddr,
    pub(crate) seed: u64,
}

impl Target {
    /// The environment of the gateway in this scenario.
    pub(crate) fn environment(&self, scenario: &Scenario) -> Vec<(String, String)> {
        let of_scenario = scenario.gateway.iter();
        let of_scenario = of_scenario.map(|(key, value)| (key.clone(), value.clone()));
        of_scenario.chain(self.env.iter().cloned()).collect()
    }

    /// The payloads of a scenario, enveloped for this gateway.
    pub(crate) fn payloads(&self, scenario: &Scenario, batch: bool) -> anyhow::Result<Payloads> {
        self.payloads_with(scenario, batch, scenario.load.unwanted)
    }

    /// The same with another share of messages that nobody wants.
    fn payloads_with(
        &self,
        scenario: &Scenario,
        batch: bool,
        unwanted_share: f64,
    ) -> anyhow::Result<Payloads> {
        let payloads = Payloads::new(&scenario.sizes(), scenario.payload.filling, self.seed)?;
        let (wanted, unwanted) = self.adapter.envelopes(batch)?;
        let per_mille = crate::hist::whole(unwanted_share * 1000.0);
        Ok(payloads.enveloped(wanted, unwanted, per_mille))
    }

    fn gateway(&self, scenario: &Scenario, dir: &Path) -> anyhow::Result<Gateway> {
        match &self.address {
            Some((address, key)) => {
                let ready = self.adapter.ready.clone();
                Gateway::running((*address, key.clone()), ready, self.pids.clone())
            }
            None => Gateway::start(&self.binary, dir, &self.environment(scenario)),
        }
    }
}

/// Runs it once and answers what was measured; `label` stands before the progress.
pub(crate) fn run(
    target: &Target,
    scenario: &Scenario,
    pace: Pace,
    label: &str,
) -> anyhow::Result<Run> {
    let dir = tempfile::Builder::new()
        .prefix("posthaste-load-")
        .tempdir_in(&target.dir)?;
    let stage = Stage::set(target, scenario, dir.path())?;
    let measured = stage.measure(target, scenario, pace, label)?;
    let run = stage.summary(&measured);
    if target.keep {
        say(&format!("kept {}", dir.keep().display()));
    }
    // First the receiver: attempts that hang would hold the gateway until its drain limit.
    stage.receiver.stop();
    stage.gateway.stop()?;
    Ok(run)
}

/// Everything stands ready.
struct Stage {
    clock: Clock,
    gateway: Gateway,
    receiver: Receiver,
    population: Population,
    /// What is known of each application.
    values: Vec<Values>,
    set_up: Duration,
    idle_memory: u64,
}

/// What was sent before the load.
#[derive(Default)]
struct Filled {
    /// Numbers of what was acknowledged, in no order.
    acked: Vec<u64>,
    /// The first number that was not given to any message.
    next: u64,
}

/// Everything has happened.
struct Measured {
    payloads: Arc<Payloads>,
    pace: Pace,
    /// Of the load, without the backlog.
    ingested: Ingested,
    /// Numbers of the backlog's messages that were acknowledged.
    backlog: Vec<u64>,
    /// Number of the load's first message; what is below it is the backlog.
    first: u64,
    messages_per_request: u64,
    before: std::collections::BTreeMap<String, Usage>,
    samples: Vec<Sample>,
    directed: Directed,
    /// What came of calls of the management API, if there were any.
    called: Option<Called>,
    verdict: Verdict,
}

impl Measured {
    /// Nothing is known yet but what the generator saw.
    fn new(scenario: &Scenario, load: &Load, payloads: &Arc<Payloads>, ingested: Ingested) -> Self {
        Self {
            payloads: Arc::clone(payloads),
            pace: load.pace,
            ingested,
            backlog: Vec::new(),
            first: load.first,
            messages_per_request: scenario.load.batch.max(1),
            before: std::collections::BTreeMap::new(),
            samples: Vec::new(),
            directed: Directed::default(),
            called: None,
            verdict: Verdict::default(),
        }
    }
}

impl Stage {
    fn set(target: &Target, scenario: &Scenario, dir: &Path) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let population = scenario.population()?;
        let verifier = Verifier::new(SECRET)?;
        let sample = match target.adapter.signature {
            Signature::StandardWebhooks => scenario.verify_every,
            Signature::None => 0,
        };
        let slots = population.endpoints.max(1);
        let receiver = Receiver::start(target.listen, slots, clock, verifier, sample)?;
        let gateway = target.gateway(scenario, dir)?;
        let begin = Instant::now();
        let caller = (gateway.address, gateway.key.as_str());
        let values = population.make(&target.adapter, caller, receiver.address)?;
        let idle = gateway.usages().into_values();
        Ok(Self {
            clock,
            set_up: begin.elapsed(),
            idle_memory: idle.map(|usage| usage.memory).sum(),
            gateway,
            receiver,
            population,
            values,
        })
    }

    /// Applications that the load goes to: all but the one with the backlog.
    fn loaded(&self) -> &[Values] {
        let from = usize::from(self.population.gated);
        self.values.get(from..).unwrap_or_default()
    }

    fn paths(
        &self,
        target: &Target,
        values: &[Values],
        batch: bool,
    ) -> anyhow::Result<Vec<String>> {
        let paths = values.iter().map(|one| target.adapter.path(one, batch));
        paths.collect()
    }

    fn source_paths(&self, target: &Target) -> anyhow::Result<Vec<String>> {
        let values = self.loaded().iter();
        values.map(|one| target.adapter.source_path(one)).collect()
    }

    /// The application of a message, the load's first number and messages per request given.
    fn app_of(&self, number: u64, first: u64, messages: u64) -> u64 {
        let Some(into) = number.checked_sub(first) else {
            return 0; // the backlog
        };
        let skipped = u64::from(self.population.gated);
        let apps = self.population.applications - skipped;
        skipped + into / messages.max(1) % apps.max(1)
    }

    fn measure(
        &self,
        target: &Target,
        scenario: &Scenario,
        pace: Pace,
        label: &str,
    ) -> anyhow::Result<Measured> {
        self.store_history(target, scenario, label)?;
        let filled = self.fill(target, scenario, label)?;
        let batch = scenario.load.batch > 0;
        let payloads = Arc::new(target.payloads(scenario, batch)?);
        let is_source = scenario.load.source;
        let load = Load {
            dialect: match is_source {
                true => target.adapter.source_dialect()?,
                false => target.adapter.dialect(&self.gateway.key, batch)?,
            },
            connections: scenario.load.connections,
            threads: scenario.load.threads,
            pace,
            form: match scenario.load.batch {
                _ if is_source => Form::Bare,
                0 => Form::Message,
                lines => Form::Batch(lines),
            },
            signer: is_source.then(|| Signer::new(SECRET)).transpose()?,
            keep_alive: scenario.load.keep_alive,
            idempotency: scenario.load.idempotency,
            retry: scenario.load.retry,
            first: filled.next,
            warm_up: scenario.load.warm_up,
            ..Load::new(
                self.gateway.address,
                match is_source {
                    true => self.source_paths(target)?,
                    false => self.paths(target, self.loaded(), batch)?,
                },
                scenario.load.duration,
            )
        };
        self.play(target, scenario, (&load, filled.acked), &payloads, label)
    }

    /// Accepts the backlog while its endpoints take nothing.
    fn fill(&self, target: &Target, scenario: &Scenario, label: &str) -> anyhow::Result<Filled> {
        let Some(backlog) = scenario.backlog else {
            return Ok(Filled::default());
        };
        Director::hold(self, target, backlog.how)?;
        crate::watch::progress(&format!(
            "{label}: filling a backlog of {}\n",
            backlog.messages
        ));
        let values = self.values.get(..1).unwrap_or_default();
        self.put_in(
            target,
            scenario,
            values,
            backlog.messages,
            scenario.load.unwanted,
        )
    }

    /// Accepts what the store is to hold before the load, and waits until the gateway is at rest.
    fn store_history(
        &self,
        target: &Target,
        scenario: &Scenario,
        label: &str,
    ) -> anyhow::Result<()> {
        let Some(history) = scenario.history else {
            return Ok(());
        };
        let stored = history.messages;
        crate::watch::progress(&format!("{label}: storing {stored} messages\n"));
        self.put_in(target, scenario, self.loaded(), stored, 1.0)?;
        let deadline = Instant::now() + REST_WITHIN;
        let cpu = || {
            self.gateway
                .usages()
                .values()
                .map(|usage| usage.cpu)
                .sum::<Duration>()
        };
        loop {
            let before = cpu();
            std::thread::sleep(REST);
            if cpu().saturating_sub(before) < REST / 10 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the gateway does not come to rest within {REST_WITHIN:?} after {stored} messages"
                );
            }
        }
    }

    /// Sends messages as fast as they are taken, until so many were.
    fn put_in(
        &self,
        target: &Target,
        scenario: &Scenario,
        values: &[Values],
        messages: u64,
        unwanted: f64,
    ) -> anyhow::Result<Filled> {
        let batch = target.adapter.knows_batches();
        let (form, connections) = if batch {
            (Form::Batch(FILL_BATCH.min(messages.max(1))), 8)
        } else {
            (Form::Message, 64)
        };
        let paths = self.paths(target, values, batch)?;
        let payloads = Arc::new(target.payloads_with(scenario, batch, unwanted)?);
        let mut all = Filled::default();
        loop {
            let count = u64::try_from(all.acked.len())?;
            if count >= messages {
                return Ok(all);
            }
            let left = messages - count;
            let load = Load {
                dialect: target.adapter.dialect(&self.gateway.key, batch)?,
                connections,
                form,
                first: all.next,
                limit: Some(left),
                retry: true,
                ..Load::new(self.gateway.address, paths.clone(), FILL_WITHIN)
            };
            let filled = drive(&load, &payloads, self.clock, |_| {})?;
            let gets_on = filled.gets_on();
            // Single lines of batches may be refused while the store is behind: others with numbers of their
            // own follow in their place.
            all.next += left.next_multiple_of(FILL_BATCH);
            all.acked.extend(filled.acked);
            if !gets_on {
                let count = all.acked.len();
                let why = filled.first_error.unwrap_or_default();
                bail!("only {count} of {messages} messages were accepted before the load: {why}");
            }
        }
    }

    /// The load and its drain, with what is done to the gateway and the look at it beside them.
    fn play(
        &self,
        target: &Target,
        scenario: &Scenario,
        (load, backlog): (&Load, Vec<u64>),
        payloads: &Arc<Payloads>,
        label: &str,
    ) -> anyhow::Result<Measured> {
        let over = AtomicBool::new(false);
        let director = Director::new(self, target, scenario);
        let before = parking_lot::Mutex::new(std::collections::BTreeMap::new());
        let length = load.warm_up + load.duration;
        let watched = Watched {
            label,
            length,
            gateway: &self.gateway,
            receiver: &self.receiver,
            accepted: &load.live,
            over: &over,
        };
        std::thread::scope(|scope| {
            let watching = parking_lot::Mutex::new(None);
            let directing = parking_lot::Mutex::new(None);
            let calling = parking_lot::Mutex::new(None);
            let (watched, director, over) = (&watched, &director, &over);
            let ingested = drive(load, payloads, self.clock, |window: Window| {
                self.receiver.measure(window);
                *before.lock() = self.gateway.usages();
                *watching.lock() = Some(scope.spawn(move || watched.watch()));
                let begin = Instant::now();
                *directing.lock() = Some(scope.spawn(move || director.direct(begin, load)));
                *calling.lock() = scenario.management.map(|plan| {
                    let on = (self, target);
                    scope.spawn(move || caller::call(on, plan, (begin, load), over))
                });
            });
            director.stop();
            let directed = directing
                .lock()
                .take()
                .map(std::thread::ScopedJoinHandle::join);
            let finished = ingested.and_then(|ingested| {
                let directed = directed
                    .context("nothing was directed")?
                    .map_err(|_| anyhow::anyhow!("the director panicked"))??;
                let calling = calling.lock().take();
                let called = calling.map(std::thread::ScopedJoinHandle::join);
                let called = called
                    .transpose()
                    .map_err(|_| anyhow::anyhow!("the caller panicked"))?
                    .transpose()?;
                let mut measured = Measured {
                    directed,
                    called,
                    before: before.lock().clone(),
                    backlog,
                    ..Measured::new(scenario, load, payloads, ingested)
                };
                measured.verdict = self.drain(&measured, scenario.drain);
                Ok(measured)
            });
            // Also after an error: the scope waits for the watching thread.
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            let samples = watching
                .lock()
                .take()
                .map(std::thread::ScopedJoinHandle::join);
            Ok(Measured {
                samples: samples.and_then(Result::ok).unwrap_or_default(),
                ..finished?
            })
        })
    }

    /// Waits until everything acknowledged has arrived; what has not by then is lost.
    fn drain(&self, measured: &Measured, within: Duration) -> Verdict {
        let deadline = Instant::now() + within;
        let mut moved = (0, Instant::now());
        let mut verdict = self.check(measured);
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
            if distinct >= verdict.expected {
                verdict = self.check(measured);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.check(measured)
    }

    fn check(&self, measured: &Measured) -> Verdict {
        let first = measured.first;
        let owed = |number: u64, slot: u64| {
            let app = self.app_of(number, first, measured.messages_per_request);
            measured.payloads.is_wanted(number) && self.population.is_owed(app, slot)
        };
        self.receiver.with_ledger(|ledger| {
            let load = ledger.check(&measured.ingested.acked, owed);
            let rest = ledger.check(&measured.backlog, owed);
            Verdict {
                expected: load.expected + rest.expected,
                lost: load.lost + rest.lost,
                duplicates: load.duplicates + rest.duplicates,
            }
        })
    }
}

/// Where the receiver listens if nothing is said.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

#[cfg(test)]
mod tests;
