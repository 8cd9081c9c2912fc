//! `kill-at-syscall`: SIGKILL at the n-th system call of a kind that writes, syncs, makes, renames or
//! removes files (T03).
//!
//! The gateway runs under strace from its first instruction, or from when it has work, so kills hit
//! creation, recovery, load and clean-up alike. Its memory tables are as small as they can be, so that tables are written and
//! journals removed all the time. The data directory grows older over [`LIFE`] rounds, then a fresh
//! one is made, so that its creation is hit as well.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::tracer::{Tracer, kill_at};
use super::trial::{EndpointPlan, Trial};
use super::world::LOOK;
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::oracle::check::Rule;
use crate::oracle::history::FaultKind;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// The calls of the first start, which makes the data directory, and about how many it makes of each.
const CREATION: [(&str, f64); 7] = [
    ("fsync", 150.0),
    ("renameat", 20.0),
    ("mkdir", 30.0),
    ("openat", 200.0),
    ("write", 120.0),
    ("ftruncate", 2.0),
    ("fdatasync", 4.0),
];
/// The calls of later starts and of the load, and about how many one thread makes of each.
const LIVING: [(&str, f64); 7] = [
    ("fdatasync", 60.0),
    ("write", 150.0),
    ("pwrite64", 2.0),
    ("openat", 60.0),
    ("fsync", 8.0),
    ("renameat", 2.0),
    ("unlink", 1.0),
];
/// Rounds on one data directory.
const LIFE: u32 = 9;
/// A gateway that has not met its call by then is killed from outside.
const PATIENCE: Duration = Duration::from_millis(900);
const RECOVERY: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-at-syscall",
    about: "SIGKILL at the n-th system call of a kind, from the first start on",
    rounds: [72, 450],
    chained: true,
    prepare,
};

struct Syscall {
    stage: Stage,
    trial: Option<Trial>,
    lives: u32,
    age: u32,
    hits: BTreeMap<&'static str, u32>,
    starts: u32,
    missed: u32,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    Ok(Box::new(Syscall {
        stage: Stage {
            gateway: stage.gateway.clone(),
            dir: stage.dir.clone(),
            ..*stage
        },
        trial: None,
        lives: 0,
        age: 0,
        hits: BTreeMap::new(),
        starts: 0,
        missed: 0,
    }))
}

impl Rounds for Syscall {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        if self.age == LIFE {
            self.trial = None;
        }
        // Small n matter most and are likeliest.
        let (syscall, most) = match self.trial {
            None => CREATION[random.random_range(0..CREATION.len())],
            Some(_) => LIVING[random.random_range(0..LIVING.len())],
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 200"
        )]
        let when = most.powf(random.random_range(0.0..1.0)).round() as u64;
        // A start makes enough calls to draw most of the kills.
        let from = match self.trial {
            Some(_) if random.random() => From::Load,
            _ => From::Start,
        };
        let mut trial = match self.trial.take() {
            Some(mut trial) => {
                trial.next_history()?;
                trial
            }
            None => self.fresh()?,
        };
        self.age += 1;
        let started = hit(&mut trial, (syscall, when), from)?;
        *self.hits.entry(syscall).or_default() += u32::from(started != Some(false));
        self.starts += u32::from(started.is_none());
        self.missed += u32::from(started == Some(false));
        trial.world.wrap(&[]);
        let took = trial.start()?;
        if self.age == 1 {
            endpoints(&mut trial)?;
        }
        trial.settle(Duration::from_secs(20))?;
        let mut result = trial.result()?;
        result.must(
            took < RECOVERY,
            Rule::C10,
            format!("ready only {took:?} after {syscall} {when}, not within {RECOVERY:?}"),
        );
        if result.violations.is_empty() {
            trial.stop(random.random())?;
        }
        self.trial = Some(trial);
        Ok(result)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let mut result = RoundResult {
            notes: vec![format!(
                "kills by call {:?}, {} of them during the start; {} calls were not met in time",
                self.hits, self.starts, self.missed
            )],
            ..RoundResult::default()
        };
        let hits: u32 = self.hits.values().sum();
        result.must(
            hits >= self.missed,
            Rule::C11,
            format!(
                "only {hits} kills at a call, {} rounds without",
                self.missed
            ),
        );
        Ok(result)
    }
}

impl Syscall {
    fn fresh(&mut self) -> anyhow::Result<Trial> {
        self.lives += 1;
        self.age = 0;
        let dir: PathBuf = self.stage.dir.join(format!("life-{}", self.lives));
        let stage = Stage {
            gateway: self.stage.gateway.clone(),
            dir: dir.clone(),
            ..self.stage
        };
        let mut trial = Trial::new(&stage, &dir.join("data"))?;
        trial.world.set("storage.memtable", "1MiB");
        Ok(trial)
    }
}

/// From when on calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// From the first instruction.
    Start,
    /// From when it is ready and has work.
    Load,
}

/// One run under strace. None: it died before it was ready; otherwise whether it met its call.
fn hit(
    trial: &mut Trial,
    (syscall, when): (&str, u64),
    from: From,
) -> anyhow::Result<Option<bool>> {
    match from {
        From::Start => trial.world.wrap(&kill_at(syscall, when)),
        From::Load => trial.world.wrap(&[]),
    }
    trial.quiet()?;
    trial.world.launch()?;
    let load = trial.load(&[Stream {
        app: "acme".to_owned(),
        connections: 4,
        pause: Duration::from_millis(2),
        size: 4000,
    }])?;
    let ready = trial.world.wait_ready(Duration::from_secs(30)).is_ok();
    let tracer = match from {
        From::Start => None,
        From::Load => kill_from_now_on(trial, syscall, when)?,
    };
    let deadline = Instant::now() + PATIENCE;
    while trial.world.is_running() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    let met = !trial.world.is_running();
    trial.fault(FaultKind::Kill, 0, &format!("{syscall} {when}, met: {met}"))?;
    trial.world.kill()?;
    drop(tracer);
    let code = trial.world.exit_code();
    trial.fault(FaultKind::Kill, 0, &format!("gone with {code:?}"))?;
    load.stop()?;
    anyhow::ensure!(
        code == Some(137),
        "{syscall} {when}: ended with {code:?}, not by SIGKILL:\n{}",
        trial.world.log_tail()
    );
    Ok(ready.then_some(met))
}

/// Takes hold of a gateway that runs; `None` if it met its call before all its threads were held.
fn kill_from_now_on(trial: &mut Trial, syscall: &str, when: u64) -> anyhow::Result<Option<Tracer>> {
    let inject = format!("{syscall}:signal=KILL:when={when}");
    match Tracer::attach(trial.world.pid()?, &inject) {
        Ok(tracer) => Ok(Some(tracer)),
        Err(_) if !trial.world.is_running() => Ok(None),
        Err(error) => Err(error),
    }
}

fn endpoints(trial: &mut Trial) -> anyhow::Result<()> {
    trial.endpoint(&EndpointPlan::new("well", "acme", Behaviour::Well))?;
    trial.endpoint(&EndpointPlan::new("flaky", "acme", Behaviour::Flaky(20)))
}
