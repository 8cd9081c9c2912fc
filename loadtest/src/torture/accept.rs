//! `atomic-accept`: a kill between every pair of store operations of one accept with 20 endpoints
//! (T12).
//!
//! strace holds the running gateway and kills it when one of its threads enters the n-th `write`,
//! `pwrite64` or `fdatasync` after that; n is swept, and goes beyond what one accept needs. After the
//! restart the message is there for all 20 endpoints or for none, and the same request again is
//! answered with the same message, or becomes the first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::RngExt;

use super::tracer::Tracer;
use super::trial::{EndpointPlan, Listed, Trial};
use super::world::LOOK;
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::connection::local_runtime;
use crate::oracle::check::Rule;
use crate::oracle::history::{FaultKind, Outcome};
use crate::oracle::receiver::Behaviour;

const ENDPOINTS: usize = 20;
const CALLS: [&str; 3] = ["write", "fdatasync", "pwrite64"];
/// An accept takes fewer of each, on any thread.
const MOST: u64 = 8;
/// A gateway that lives on for so long after its answer is killed from outside.
const SURVIVES: Duration = Duration::from_millis(150);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "atomic-accept",
    about: "kill between the store operations of one accept with 20 endpoints",
    rounds: [48, 240],
    chained: true,
    prepare,
};

struct Accept {
    trial: Trial,
    is_first: bool,
    /// What was there after the restart, by what the producer knew.
    seen: BTreeMap<&'static str, u32>,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let mut trial = Trial::new(stage, &stage.dir.join("data"))?;
    trial.start()?;
    for number in 0..ENDPOINTS {
        let name = format!("fan-{number}");
        trial.endpoint(&EndpointPlan::new(&name, "fan", Behaviour::Well))?;
    }
    Ok(Box::new(Accept {
        trial,
        is_first: true,
        seen: BTreeMap::new(),
    }))
}

impl Rounds for Accept {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let trial = &mut self.trial;
        if !std::mem::take(&mut self.is_first) {
            trial.next_history()?;
        }
        // Neighbouring seeds sweep all pairs; the size decides how the journal is written.
        let calls = CALLS.len() as u64;
        let syscall = CALLS[usize::try_from(seed % calls)?];
        let when = 1 + seed / calls % MOST;
        let asked = trial
            .caller()
            .ask("fan", random.random_range(10..4000), false);

        let inject = format!("{syscall}:signal=KILL:when={when}");
        let tracer = Tracer::attach(trial.world.pid()?, &inject)?;
        let call =
            |trial: &Trial| local_runtime()?.block_on(trial.caller().call(&mut None, &asked));
        let outcome = call(trial)?;
        let deadline = Instant::now() + SURVIVES;
        while trial.world.is_running() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        let note = format!("at {syscall} {when}");
        trial.fault(FaultKind::Kill, 0, &note)?;
        trial.world.kill()?;
        drop(tracer);
        trial.fault(FaultKind::Kill, 0, "gone")?;

        trial.start()?;
        let kept = trial.states()?;
        let again = call(trial)?;
        trial.settle(Duration::from_secs(20))?;
        let mut result = trial.result()?;
        self.compare(&mut result, (&note, &outcome, &again), &kept)?;
        Ok(result)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let mut result = RoundResult {
            notes: vec![format!("{:?}", self.seen)],
            ..RoundResult::default()
        };
        let rounds: u32 = self.seen.values().sum();
        let seen = |what: &str| self.seen.get(what).copied().unwrap_or(0) > 0;
        result.must(
            rounds < 24 || seen(NOTHING) && (seen(ALL_UNKNOWN) || seen(ALL_ACKNOWLEDGED)),
            Rule::C11,
            format!(
                "the kills must hit on both sides of the commit: {:?}",
                self.seen
            ),
        );
        Ok(result)
    }
}

const NOTHING: &str = "nothing there";
const ALL_UNKNOWN: &str = "all there, unanswered";
const ALL_ACKNOWLEDGED: &str = "all there, acknowledged";

impl Accept {
    fn compare(
        &mut self,
        result: &mut RoundResult,
        (note, outcome, again): (&str, &Outcome, &Outcome),
        kept: &[Listed],
    ) -> anyhow::Result<()> {
        let messages: BTreeSet<&str> = kept.iter().map(|(_, id, _)| id.as_str()).collect();
        result.must(
            kept.len() == messages.len() * ENDPOINTS && messages.len() <= 1,
            Rule::C1,
            format!(
                "{note}: {} deliveries of {} messages after the restart",
                kept.len(),
                messages.len()
            ),
        );
        let Outcome::Acknowledged { id, targets } = again else {
            result.must(
                false,
                Rule::C2,
                format!("{note}: the repetition got {again:?}"),
            );
            return Ok(());
        };
        result.must(
            targets.len() == ENDPOINTS && messages.iter().all(|kept| kept == id),
            Rule::C2,
            format!(
                "{note}: {messages:?} was there, the repetition is {id} for {} endpoints",
                targets.len()
            ),
        );
        let ids: BTreeSet<String> = {
            let states = self.trial.states()?;
            states.into_iter().map(|(_, id, _)| id).collect()
        };
        result.must(
            ids.len() == 2,
            Rule::C2,
            format!("{note}: {} messages, not one and a probe", ids.len()),
        );
        let what = match (messages.is_empty(), outcome) {
            (true, _) => NOTHING,
            (false, Outcome::Acknowledged { .. } | Outcome::Taken) => ALL_ACKNOWLEDGED,
            (false, Outcome::Refused { .. } | Outcome::Unknown { .. }) => ALL_UNKNOWN,
        };
        *self.seen.entry(what).or_default() += 1;
        Ok(())
    }
}
