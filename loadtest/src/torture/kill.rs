//! `kill`: SIGKILL at random instants under load, on a data directory that grows older (T03).
//!
//! Two applications, endpoints that are well, slow, flaky, dead and switched off. Each round: load, SIGKILL
//! within 200 ms of the first acknowledgements, restart within [`RECOVERY`], probes, drain, judgement.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::trial::{EndpointPlan, Trial};
use super::world::LOOK;
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::oracle::check::Rule;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// From the start of the process to readiness.
const RECOVERY: Duration = Duration::from_secs(5);
/// For the backlog.
const DRAIN: Duration = Duration::from_secs(30);

/// For what was held over all rounds.
const BACKLOG: Duration = Duration::from_secs(120);
/// Acknowledged before the kill, at least.
const LEAST: u64 = 10;
/// The endpoint that is off until the end.
const HELD: &str = "held";

/// Endpoints that fail until the load is over, so that deliveries are parked when the kill comes.
const DOOMED: [(&str, Behaviour); 2] = [
    ("dead", Behaviour::Status(500)),
    ("wrecked", Behaviour::Reset),
];

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill",
    about: "SIGKILL at random instants under load",
    rounds: [120, 500],
    chained: true,
    prepare,
};

struct Kill {
    trial: Trial,
    slowest: Duration,
    rounds: u32,
    busy: u32,
    /// Messages held for the endpoint that is off, over all rounds.
    held: BTreeSet<String>,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let mut trial = Trial::new(stage, &stage.dir.join("data"))?;
    trial.agree(|rules| rules.at_least.acknowledged = LEAST)?;
    // Small, so that tables are written and journals removed all the time.
    trial.world.set("storage.memtable", "1MiB");
    trial.start()?;
    for (name, app, behaviour) in [
        ("well", "acme", Behaviour::Well),
        ("slow", "acme", Behaviour::Slow(Duration::from_millis(10))),
        ("flaky", "acme", Behaviour::Flaky(20)),
        (DOOMED[0].0, "doomed", Behaviour::Well),
        (DOOMED[1].0, "doomed", Behaviour::Well),
    ] {
        trial.endpoint(&EndpointPlan::new(name, app, behaviour))?;
    }
    trial.endpoint(&EndpointPlan {
        disabled: true,
        ..EndpointPlan::new(HELD, "doomed", Behaviour::Well)
    })?;
    Ok(Box::new(Kill {
        trial,
        slowest: Duration::ZERO,
        rounds: 0,
        busy: 0,
        held: BTreeSet::new(),
    }))
}

impl Rounds for Kill {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let trial = &mut self.trial;
        if self.rounds > 0 {
            trial.next_history()?;
        }
        self.rounds += 1;
        for (name, behaviour) in DOOMED {
            trial.behave(name, behaviour)?;
        }
        let size = random.random_range(100..8000);
        let stream = |app: &str, connections, pause| Stream {
            app: app.to_owned(),
            connections,
            pause: Duration::from_millis(pause),
            size,
        };
        let load = trial.load(&[stream("acme", 6, 10), stream("doomed", 1, 30)])?;
        let deadline = Instant::now() + RECOVERY;
        while trial.caller().acknowledged() < LEAST && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..200_000)));
        self.busy += u32::from(trial.caller().unanswered() + trial.receiver.open() > 0);
        trial.kill()?;
        let took = trial.start()?;
        self.slowest = self.slowest.max(took);
        std::thread::sleep(Duration::from_millis(50));
        load.stop()?;
        // What was parked for them over the kill must arrive now. Switching resets the breaker.
        for (name, _) in DOOMED {
            trial.behave(name, Behaviour::Well)?;
            trial.switch(name, false)?;
            trial.switch(name, true)?;
        }
        let states = trial.settle(DRAIN)?;
        let held = states.into_iter().filter(|(name, ..)| name == HELD);
        self.held.extend(held.map(|(_, id, _)| id));
        let mut result = trial.result()?;
        result.must(
            took < RECOVERY,
            Rule::C10,
            format!("ready only {took:?} after the start, not within {RECOVERY:?}"),
        );
        Ok(result)
    }

    /// Switches the held endpoint on: everything that was kept over all kills must arrive.
    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let trial = &mut self.trial;
        trial.next_history()?;
        trial.agree(|rules| rules.at_least.acknowledged = 0)?;
        trial.switch(HELD, true)?;
        let missing = |trial: &Trial| {
            let mut held = self.held.iter();
            held.any(|id| !trial.receiver.has(HELD, id))
        };
        let deadline = Instant::now() + BACKLOG;
        while missing(trial) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let lost = self.held.iter().filter(|id| !trial.receiver.has(HELD, id));
        let lost = lost.count() as u64;
        trial.settle(DRAIN)?;
        let mut result = trial.result()?;
        result.lost += lost;
        result.must(
            lost == 0,
            Rule::C1,
            format!("{lost} of {} held messages never arrived", self.held.len()),
        );
        result.must(
            self.busy * 10 >= self.rounds * 3,
            Rule::C11,
            format!("{} of {} kills had work under way", self.busy, self.rounds),
        );
        result.notes.push(format!(
            "slowest recovery {:?}; {} kills with work under way; {} messages held over the kills and delivered in the end",
            self.slowest,
            self.busy,
            self.held.len()
        ));
        Ok(result)
    }
}
