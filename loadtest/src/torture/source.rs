//! `source`: SIGKILL at random instants while providers post signed events to their sources, on a data
//! directory that grows older.
//!
//! One application with a source each of Stripe, GitHub, Standard Webhooks and HubSpot (lists of
//! events). Each round: load, SIGKILL, restart, the providers send again what got no 2xx (GitHub never
//! does), what was taken before the kill is sent once more, drain, judgement. A source's answer names
//! no message: what was answered 2xx is owed to every endpoint, under one id.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::trial::{EndpointPlan, Trial};
use super::world::LOOK;
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::oracle::check::Rule;
use crate::oracle::provider::{PUBLIC, Provider, Providers, Scheme, replay};
use crate::oracle::receiver::Behaviour;

const APP: &str = "shop";
/// For the load to begin, and for something of each provider to be taken before the kill.
const BEGINS: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_secs(30);
/// Of each provider.
const CONNECTIONS: usize = 2;
/// After each request of a connection.
const PAUSE: Duration = Duration::from_millis(10);
/// Acknowledged events before the kill, at least; and of those that are sent once more after it.
const LEAST: u64 = 20;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "source",
    about: "SIGKILL while providers post signed events to sources, then what they send again",
    rounds: [30, 300],
    chained: true,
    prepare,
};

struct Source {
    trial: Trial,
    providers: Vec<Provider>,
    rounds: u32,
    busy: u32,
    replayed: u64,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let mut trial = Trial::new(stage, &stage.dir.join("data"))?;
    trial.agree(|rules| {
        rules.at_least.acknowledged = LEAST;
        rules.at_least.replays = LEAST;
    })?;
    trial.world.set("storage.memtable", "1MiB");
    trial.world.set("server.public_urls", PUBLIC);
    trial.start()?;
    for (name, behaviour) in [
        ("well", Behaviour::Well),
        ("slow", Behaviour::Slow(Duration::from_millis(10))),
        ("flaky", Behaviour::Flaky(20)),
    ] {
        trial.endpoint(&EndpointPlan::new(name, APP, behaviour))?;
    }
    let mut providers = Vec::new();
    for scheme in Scheme::ALL {
        providers.push(Provider {
            scheme,
            app: APP.to_owned(),
            path: trial.source(APP, scheme.provider(), &scheme.secrets())?,
            size: 0,
        });
    }
    Ok(Box::new(Source {
        trial,
        providers,
        rounds: 0,
        busy: 0,
        replayed: 0,
    }))
}

impl Rounds for Source {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let trial = &mut self.trial;
        if self.rounds > 0 {
            trial.next_history()?;
        }
        self.rounds += 1;
        let size = random.random_range(0..6000);
        for provider in &mut self.providers {
            provider.size = size;
        }
        let load = Providers::start(trial.caller(), &self.providers, CONNECTIONS, PAUSE)?;
        let deadline = Instant::now() + BEGINS;
        while trial.caller().acknowledged() < LEAST && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..200_000)));
        self.busy += u32::from(trial.caller().unanswered() > 0);
        trial.kill()?;
        trial.start()?;
        std::thread::sleep(Duration::from_millis(50));
        let seen = load.stop()?;
        // The oldest of each connection: most of them were taken by the process that was killed.
        let not_again = replay(trial.caller(), &seen.taken)?;
        self.replayed += seen.taken.len() as u64;
        trial.settle(DRAIN)?;
        let mut result = trial.result()?;
        result.must(
            not_again.is_empty(),
            Rule::C2,
            format!("what was taken before was not taken again: {not_again:?}"),
        );
        result.must(
            seen.refused.is_empty(),
            Rule::C10,
            format!(
                "events that were signed well were refused: {:?}",
                seen.refused
            ),
        );
        result.must(
            seen.all_schemes(),
            Rule::C11,
            "not every provider had an event taken",
        );
        Ok(result)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let mut result = RoundResult::default();
        result.must(
            self.busy * 10 >= self.rounds * 3,
            Rule::C11,
            format!(
                "{} of {} kills had requests under way",
                self.busy, self.rounds
            ),
        );
        result.notes.push(format!(
            "{} kills with providers' requests under way; {} requests sent once more after they were taken",
            self.busy, self.replayed
        ));
        Ok(result)
    }
}
