//! `kill`: SIGKILL at random instants under load, on a data directory that grows older (T03).
//!
//! Two applications, endpoints that are well, slow, flaky and dead. Each round: load, SIGKILL
//! after 50 to 250 ms, restart within [`RECOVERY`], probes, drain, judgement.

use std::time::Duration;

use rand::RngExt;

use super::trial::{EndpointPlan, Trial};
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::oracle::check::Rule;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// From the start of the process to readiness.
const RECOVERY: Duration = Duration::from_secs(5);
/// For the backlog, most of it the schedule of the dead endpoint.
const DRAIN: Duration = Duration::from_secs(30);

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
    busy: u32,
    first: bool,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let mut trial = Trial::new(stage, &stage.dir.join("data"))?;
    trial.start()?;
    for (name, app, behaviour) in [
        ("well", "acme", Behaviour::Well),
        ("slow", "acme", Behaviour::Slow(Duration::from_millis(10))),
        ("flaky", "acme", Behaviour::Flaky(20)),
        ("dead", "doomed", Behaviour::Status(500)),
        ("wrecked", "doomed", Behaviour::Reset),
    ] {
        trial.endpoint(&EndpointPlan::new(name, app, behaviour))?;
    }
    Ok(Box::new(Kill {
        trial,
        slowest: Duration::ZERO,
        busy: 0,
        first: true,
    }))
}

impl Rounds for Kill {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let trial = &mut self.trial;
        if !std::mem::take(&mut self.first) {
            trial.next_history()?;
        }
        let stream = |app: &str, connections, pause| Stream {
            app: app.to_owned(),
            connections,
            pause: Duration::from_millis(pause),
            size: random.random_range(100..2000),
        };
        let load = trial.load(&[stream("acme", 6, 10), stream("doomed", 1, 30)])?;
        std::thread::sleep(Duration::from_millis(random.random_range(50..250)));
        self.busy += u32::from(trial.caller().unanswered() + trial.receiver.open() > 0);
        trial.kill()?;
        let took = trial.start()?;
        self.slowest = self.slowest.max(took);
        std::thread::sleep(Duration::from_millis(50));
        load.stop()?;
        trial.settle(DRAIN)?;
        let mut result = trial.result()?;
        result.must(
            took < RECOVERY,
            Rule::C10,
            format!("ready only {took:?} after the start, not within {RECOVERY:?}"),
        );
        Ok(result)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        Ok(RoundResult {
            notes: vec![format!(
                "slowest recovery {:?}; {} kills with work under way",
                self.slowest, self.busy
            )],
            ..RoundResult::default()
        })
    }
}
