//! `idempotency`: 64 equal requests at once, SIGKILL in their midst, restart, the same again (T13).
//!
//! They must become one message with one answer; another body under the same key is refused; the
//! same key of another application is another message.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::trial::{EndpointPlan, Trial};
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::connection::local_runtime;
use crate::oracle::check::Rule;
use crate::oracle::history::Outcome;
use crate::oracle::producer::{Asked, Caller};
use crate::oracle::receiver::Behaviour;

const AT_ONCE: usize = 64;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "idempotency",
    about: "64 equal requests at once, kill, restart, repeat",
    rounds: [30, 200],
    chained: true,
    prepare,
};

struct Idempotency {
    trial: Trial,
    is_first: bool,
    /// Rounds in which the kill came before, amid and after the answers.
    early: u32,
    amid: u32,
    late: u32,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let mut trial = Trial::new(stage, &stage.dir.join("data"))?;
    trial.start()?;
    trial.endpoint(&EndpointPlan::new("first", "acme", Behaviour::Well))?;
    trial.endpoint(&EndpointPlan::new("second", "other", Behaviour::Well))?;
    Ok(Box::new(Idempotency {
        trial,
        is_first: true,
        early: 0,
        amid: 0,
        late: 0,
    }))
}

impl Rounds for Idempotency {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let trial = &mut self.trial;
        if !std::mem::take(&mut self.is_first) {
            trial.next_history()?;
        }
        let asked = trial.caller().ask("acme", 200, false);
        let caller = trial.caller().clone();
        let before = {
            let asked = asked.clone();
            let crowd = std::thread::spawn(move || at_once(&caller, &asked));
            // From before the first is answered until after the last is.
            let answers = random.random_range(0..=AT_ONCE as u64);
            let deadline = Instant::now() + Duration::from_millis(random.random_range(1..500));
            while trial.caller().acknowledged() < answers && Instant::now() < deadline {
                std::thread::yield_now();
            }
            trial.kill()?;
            joined(crowd)?
        };
        trial.start()?;
        let after = at_once(trial.caller(), &asked)?;
        let answered = ids(&before).len();
        match answered {
            0 => self.early += 1,
            AT_ONCE => self.late += 1,
            _ => self.amid += 1,
        }
        let mismatch = self.other_body(&asked)?;
        let trial = &mut self.trial;
        let foreign = other_application(trial, &asked)?;
        trial.settle(Duration::from_secs(20))?;
        let listed = trial.states()?;
        let listed = listed.iter().filter(|(name, ..)| name == "first").count();

        let mut result = trial.result()?;
        let (before, after) = (ids(&before), ids(&after));
        let all_equal = after.windows(2).all(|two| two[0] == two[1]);
        result.must(
            after.len() == AT_ONCE && all_equal,
            Rule::C2,
            format!(
                "{} of {AT_ONCE} repetitions were answered: {after:?}",
                after.len()
            ),
        );
        result.must(
            before.iter().all(|one| Some(one) == after.first()),
            Rule::C2,
            format!("before the kill {before:?}, after it {after:?}"),
        );
        result.must(
            mismatch == Outcome::Refused { status: 422 },
            Rule::C2,
            format!("another body under the same key: {mismatch:?}"),
        );
        result.must(
            ids(std::slice::from_ref(&foreign))
                .first()
                .is_some_and(|id| Some(id) != after.first()),
            Rule::C2,
            format!("the same key of another application: {foreign:?}"),
        );
        // The probe of this application is the second.
        result.must(
            listed == 2,
            Rule::C2,
            format!("{listed} messages are listed, not one and a probe"),
        );
        Ok(result)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let mut result = RoundResult {
            notes: vec![format!(
                "the kill came before the answers {} times, amid them {}, after them {}",
                self.early, self.amid, self.late
            )],
            ..RoundResult::default()
        };
        let rounds = self.early + self.amid + self.late;
        result.must(
            rounds < 10 || self.early + self.amid > 0,
            Rule::C11,
            "no kill came before the last answer",
        );
        Ok(result)
    }
}

impl Idempotency {
    fn other_body(&self, asked: &Asked) -> anyhow::Result<Outcome> {
        let other = Asked {
            key: asked.key.clone(),
            ..self.trial.caller().ask("acme", 201, false)
        };
        call(self.trial.caller(), &other)
    }
}

fn other_application(trial: &Trial, asked: &Asked) -> anyhow::Result<Outcome> {
    let other = Asked {
        key: asked.key.clone(),
        ..trial.caller().ask("other", 200, false)
    };
    call(trial.caller(), &other)
}

fn call(caller: &Caller, asked: &Asked) -> anyhow::Result<Outcome> {
    local_runtime()?.block_on(caller.call(&mut None, asked))
}

/// The same request on as many connections at the same time.
fn at_once(caller: &Caller, asked: &Asked) -> anyhow::Result<Vec<Outcome>> {
    local_runtime()?.block_on(async {
        let calls: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (caller, asked) = (caller.clone(), asked.clone());
                tokio::task::spawn_local(async move { caller.call(&mut None, &asked).await })
            })
            .collect();
        let mut outcomes = Vec::with_capacity(AT_ONCE);
        for call in calls {
            outcomes.push(call.await??);
        }
        Ok(outcomes)
    })
}

fn joined(
    thread: std::thread::JoinHandle<anyhow::Result<Vec<Outcome>>>,
) -> anyhow::Result<Vec<Outcome>> {
    let ended = thread.join();
    ended.map_err(|_| anyhow::anyhow!("the thread of the requests panicked"))?
}

/// Ids and targets of the acknowledgements.
fn ids(outcomes: &[Outcome]) -> Vec<(&str, &[String])> {
    let acknowledged = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Acknowledged { id, targets } => Some((id.as_str(), targets.as_slice())),
        Outcome::Taken | Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
    });
    acknowledged.collect()
}
