//! `stalled-disk` (T31): every sync takes five seconds.
//!
//! Readiness and metrics must answer within [`AT_ONCE`] all the while, new messages must be refused
//! with 503 instead of waiting unseen, SIGTERM must still end the process (with 0, or with 74 if the
//! disk does not even let it close the store), and what was acknowledged must be there afterwards.

use std::time::{Duration, Instant};

use http::Method;

use super::super::tracer::Tracer;
use super::super::trial::{EndpointPlan, Trial};
use super::super::{RoundResult, Rounds, Scenario, Stage};
use super::{STORAGE_FAILED, until};
use crate::oracle::check::Rule;
use crate::oracle::history::FaultKind;
use crate::oracle::producer::{Producer, Stream};
use crate::oracle::receiver::Behaviour;

/// Each sync takes so long.
const DELAY: Duration = Duration::from_secs(5);
/// Longest answer of `/ready` and `/metrics`.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The disk has stalled for so long when more load comes.
const BEFORE: Duration = Duration::from_secs(2);
/// And goes on stalling for so long.
const UNDER_LOAD: Duration = Duration::from_secs(8);
/// From SIGTERM to the end: 2 s to drain, 10 s to close the store, which may be too little, and the
/// sync that is under way, which holds the process.
const ENDS: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(30);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stalled-disk",
    about: "every sync takes five seconds",
    rounds: [1, 5],
    chained: true,
    prepare,
};

struct Stalled {
    stage: Stage,
    rounds: u32,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    Ok(Box::new(Stalled {
        stage: stage.clone(),
        rounds: 0,
    }))
}

impl Rounds for Stalled {
    fn round(&mut self, _: u64) -> anyhow::Result<RoundResult> {
        let dir = self.stage.dir.join(format!("round-{:04}", self.rounds));
        self.rounds += 1;
        let stage = Stage {
            dir: dir.clone(),
            ..self.stage.clone()
        };
        let mut trial = Trial::new(&stage, &dir.join("data"))?;
        trial.world.set("server.drain_timeout", "2s");
        trial.start()?;
        trial.endpoint(&EndpointPlan::new("well", "acme", Behaviour::Well))?;
        trial.agree(|rules| {
            rules.at_least.shed = 20;
            // Outcomes wait for the disk too, and are lost if it does not let the store close.
            rules.settle_ms = u64::try_from((BEFORE + UNDER_LOAD + ENDS).as_millis()).unwrap_or(0);
        })?;
        // They fill the group that waits; who comes later must not wait behind it.
        let early = load(&trial)?;
        let micros = DELAY.as_micros();
        let inject = format!("fdatasync:delay_enter={micros}");
        let strace = Tracer::attach(trial.world.pid()?, &inject)?;
        trial.fault(FaultKind::SlowDisk, i64::try_from(DELAY.as_millis())?, "")?;
        let mut slowest = Vec::new();
        probe(&trial, BEFORE, &mut slowest)?;
        let late = load(&trial)?;
        probe(&trial, UNDER_LOAD, &mut slowest)?;
        trial.fault(FaultKind::Terminate, 0, "")?;
        let told = Instant::now();
        trial.world.signal("TERM")?;
        let ended = until("it ends after SIGTERM", ENDS, || trial.world.ended());
        let (code, took) = (trial.world.exit_code(), told.elapsed());
        if ended.is_err() {
            trial.world.kill()?;
        }
        let kind = match code {
            Some(0) => FaultKind::Ended,
            Some(_) | None => FaultKind::Failed,
        };
        trial.fault(kind, i64::from(code.unwrap_or(-1)), "")?;
        early.stop()?;
        late.stop()?;
        drop(strace);
        trial.start()?;
        trial.settle(DRAIN)?;
        let mut result = trial.result()?;
        for (path, took) in slowest {
            result.must(took <= AT_ONCE, Rule::C10, format!("{path} took {took:?}"));
            result.notes.push(format!("{path} took {took:?} at most"));
        }
        result.must(
            matches!(code, Some(0 | STORAGE_FAILED)),
            Rule::C10,
            format!("SIGTERM ended it with {code:?}"),
        );
        result.notes.push(format!("ended {took:?} after SIGTERM"));
        Ok(result)
    }
}

fn load(trial: &Trial) -> anyhow::Result<Producer> {
    trial.load(&[Stream {
        app: "acme".to_owned(),
        connections: 15,
        pause: Duration::from_millis(100),
        size: 500,
    }])
}

/// Asks again and again; notes the slowest answer of each path.
fn probe(
    trial: &Trial,
    time: Duration,
    slowest: &mut Vec<(&'static str, Duration)>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        for path in ["/ready", "/metrics", "/health"] {
            let asked = Instant::now();
            trial.world.api(Method::GET, path, None)?;
            let took = asked.elapsed();
            match slowest.iter_mut().find(|(known, _)| *known == path) {
                Some((_, longest)) => *longest = took.max(*longest),
                None => slowest.push((path, took)),
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
