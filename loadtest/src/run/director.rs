//! What is done to the gateway and the receiver while the load goes on: restarts, and a backlog that
//! is let go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Stage, Target};
use crate::adapter::Step;
use crate::gateway::End;
use crate::generator::Load;
use crate::population::Api;
use crate::scenario::{BacklogPlan, Hold, RestartPlan, Scenario};

/// How often it looks whether the load is over.
const LOOK: Duration = Duration::from_millis(5);
/// Longest wait for the first delivery of a backlog that was let go.
const FIRST_WITHIN: Duration = Duration::from_secs(60);
/// So long the receiver gets to read what a killed gateway has sent.
const READ_OUT: Duration = Duration::from_millis(200);

/// Acts beside the load.
pub(super) struct Director<'a> {
    stage: &'a Stage,
    target: &'a Target,
    restart: Option<RestartPlan>,
    backlog: Option<BacklogPlan>,
    over: AtomicBool,
}

/// What it did.
#[derive(Default)]
pub(super) struct Directed {
    /// Unix microseconds, and what.
    pub(super) events: Vec<(u64, String)>,
    /// From each start of the process to ready.
    pub(super) restarts: Vec<Duration>,
    /// Unix microseconds at which the backlog was let go.
    pub(super) released: Option<u64>,
    /// Unix microseconds at which the process was started with what was left of it.
    pub(super) started: Option<u64>,
}

impl<'a> Director<'a> {
    pub(super) fn new(stage: &'a Stage, target: &'a Target, scenario: &Scenario) -> Self {
        Self {
            stage,
            target,
            restart: scenario.restart,
            backlog: scenario.backlog,
            over: AtomicBool::new(false),
        }
    }

    /// The load is over: what has not been done yet is not done.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Acts until it is told to stop.
    pub(super) fn direct(&self, begin: Instant, load: &Load) -> anyhow::Result<Directed> {
        let mut done = Directed::default();
        if let Some(backlog) = self.backlog
            && self.wait_until(begin + load.warm_up)
        {
            done.released = Some(self.stage.clock.now());
            self.note(&mut done, "backlog let go");
            Self::release(self.stage, self.target, backlog.how)?;
            if backlog.restart {
                self.restart_in_backlog(&mut done)?;
            }
        }
        if let Some(restart) = self.restart {
            let mut next = begin + restart.every;
            while self.wait_until(next) {
                self.note(&mut done, "restart");
                done.restarts.push(self.stage.gateway.restart(restart.how)?);
                self.note(&mut done, "ready");
                next = (next + restart.every).max(Instant::now());
            }
        }
        Ok(done)
    }

    /// Kills the gateway when the backlog has begun to move, and starts it with what is left.
    fn restart_in_backlog(&self, done: &mut Directed) -> anyhow::Result<()> {
        let deadline = Instant::now() + FIRST_WITHIN;
        while self
            .stage
            .receiver
            .with_ledger(|ledger| ledger.gate.is_none())
        {
            if Instant::now() > deadline {
                bail!("the backlog did not begin to drain within {FIRST_WITHIN:?}");
            }
            std::thread::sleep(LOOK);
        }
        self.note(done, "killed");
        self.stage.gateway.end(End::Kill)?;
        // What the dead process had sent is read out of the sockets before the new one is timed.
        std::thread::sleep(READ_OUT);
        let started = self.stage.clock.now();
        self.stage.receiver.watch(started);
        done.started = Some(started);
        self.note(done, "started");
        done.restarts.push(self.stage.gateway.start_again()?);
        self.note(done, "ready");
        Ok(())
    }

    fn note(&self, done: &mut Directed, what: &str) {
        done.events.push((self.stage.clock.now(), what.to_owned()));
    }

    /// Whether the time came before the end.
    fn wait_until(&self, time: Instant) -> bool {
        while Instant::now() < time {
            if self.over.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        !self.over.load(Ordering::Relaxed)
    }

    /// The first application's endpoints take nothing from now on.
    pub(super) fn hold(stage: &Stage, target: &Target, how: Hold) -> anyhow::Result<()> {
        match how {
            Hold::Down => stage.receiver.set_gate(false),
            Hold::Paused => each(stage, target, target.adapter.pause.as_ref())?,
        }
        Ok(())
    }

    fn release(stage: &Stage, target: &Target, how: Hold) -> anyhow::Result<()> {
        match how {
            Hold::Down => stage.receiver.set_gate(true),
            Hold::Paused => each(stage, target, target.adapter.resume.as_ref())?,
        }
        Ok(())
    }
}

/// Does a step for each endpoint of the first application.
fn each(stage: &Stage, target: &Target, step: Option<&Step>) -> anyhow::Result<()> {
    let adapter = &target.adapter;
    let step = step.with_context(|| format!("the adapter {} cannot pause", adapter.name))?;
    let mut values = stage.values.first().cloned().context("no application")?;
    crate::connection::local_runtime()?.block_on(async {
        let gateway = &stage.gateway;
        let mut api = Api::open(adapter, gateway.address, &gateway.key).await?;
        for slot in 0..stage.population.endpoints {
            values.insert("slot".to_owned(), slot.to_string());
            let (status, answer) = api.call(&step.call(&values)?).await?;
            step.learn(status, &answer, &mut values)?;
        }
        anyhow::Ok(())
    })
}
