//! `chaos`: everything at once, in a random order, then all rules (T06).
//!
//! Faults are drawn from a shuffled deck, so that each comes at least once in a round: SIGKILL
//! at any instant and amid attempts, SIGTERM, SIGSTOP for 3 s, an endpoint that answers 500 or 429, hangs, resets or is slow, one that is
//! switched off and on, a name server that is silent, a wall clock that is stepped (libfaketime), a disk whose syncs are slow (strace).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::names::{NAME, NameServer};
use super::tracer::Tracer;
use super::trial::{EndpointPlan, Trial};
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::cli::TortureSet;
use crate::oracle::check::Rule;
use crate::oracle::history::FaultKind;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// Long enough to outlive every fault: nothing dies of a few seconds of chaos.
const SCHEDULE_MS: &[u64] = &[100, 300, 1000, 2000, 3000, 4000, 5000, 6000];
/// The longest rest of an endpoint that failed again and again, and its backlog.
const DRAIN: Duration = Duration::from_secs(90);
/// Longer than the drain limit of the gateway.
const STOPS: Duration = Duration::from_secs(40);
/// Seconds by which the clock is stepped. A retry that is parked keeps its time of the wall clock, so
/// a step back holds it up for as long: more than this would not drain within [`DRAIN`].
const STEP: i64 = 20;
/// How long a slow endpoint takes to answer.
const ANSWER: Duration = Duration::from_millis(700);
/// Endpoints that fall ill; all others stay as they are.
const VICTIMS: [&str; 3] = ["well", "flaky", "named"];

pub(super) const SCENARIO: Scenario = Scenario {
    name: "chaos",
    about: "a random mix of all faults for 60 s a round (full: 120 s)",
    rounds: [1, 8],
    chained: false,
    prepare,
};

/// One card of the deck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    Kill,
    /// Amid attempts: a quick machine has nothing under way at most instants.
    KillBusy,
    Terminate,
    Stop,
    Ill(Behaviour),
    Switch,
    Dns,
    Clock,
    SlowDisk,
}

const DECK: [Card; 14] = [
    Card::Kill,
    Card::KillBusy,
    Card::KillBusy,
    Card::Terminate,
    Card::Stop,
    Card::Ill(Behaviour::Status(500)),
    Card::Ill(Behaviour::Hang),
    Card::Ill(Behaviour::Reset),
    Card::Ill(Behaviour::TooMany(1)),
    Card::Ill(Behaviour::Slow(ANSWER)),
    Card::Switch,
    Card::Dns,
    Card::Clock,
    Card::SlowDisk,
];

struct Chaos {
    stage: Stage,
    faketime: PathBuf,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    Ok(Box::new(Chaos {
        stage: Stage {
            gateway: stage.gateway.clone(),
            dir: stage.dir.clone(),
            ..*stage
        },
        faketime: faketime()?,
    }))
}

/// The library of the Debian package `faketime`; without it the clock cannot be stepped, and that is
/// an error.
fn faketime() -> anyhow::Result<PathBuf> {
    let triple = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let path = Path::new(&triple).join("faketime/libfaketime.so.1");
    if !path.exists() {
        bail!(
            "{} is missing: scripts/install-test-deps installs it",
            path.display()
        );
    }
    Ok(path)
}

impl Rounds for Chaos {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut storm = Storm::brew(self, seed)?;
        let mut deck = Vec::new();
        let lasts = Duration::from_secs(match self.stage.set {
            TortureSet::Ci => 60,
            TortureSet::Full => 120,
        });
        let end = Instant::now() + lasts;
        let load = storm.trial.load(&streams())?;
        let mut played = 0;
        while Instant::now() < end || played < DECK.len() {
            if deck.is_empty() {
                deck = DECK.to_vec();
                deck.shuffle(&mut storm.random);
            }
            let card = deck.pop().context("the deck was just filled")?;
            storm.play(card)?;
            played += 1;
            storm.pause(300..900);
        }
        load.stop()?;
        storm.trial.settle(DRAIN)?;
        let mut result = storm.trial.result()?;
        let (asked, unanswered) = storm.names.asked();
        result.must(
            asked > unanswered && unanswered > 0,
            Rule::C11,
            format!("the name server was asked {asked} times, {unanswered} in vain"),
        );
        let code = storm.trial.terminate(STOPS)?;
        storm.drained(&mut result, code);
        result.notes.push(format!(
            "{played} faults; {asked} questions to the name server, {unanswered} without an answer; {} SIGTERMs",
            storm.terminations.len()
        ));
        Ok(result)
    }
}

fn streams() -> [Stream; 3] {
    let stream = |app: &str, connections, pause| Stream {
        app: app.to_owned(),
        connections,
        pause: Duration::from_millis(pause),
        size: 300,
    };
    [
        stream("acme", 4, 20),
        stream("ordered", 1, 60),
        stream("named", 1, 50),
    ]
}

struct Storm {
    trial: Trial,
    names: NameServer,
    /// libfaketime reads the offset from here.
    clock: PathBuf,
    random: ChaCha8Rng,
    /// Exit codes after SIGTERM.
    terminations: Vec<Option<i32>>,
}

impl Storm {
    fn brew(chaos: &Chaos, seed: u64) -> anyhow::Result<Self> {
        let mut random = random(seed);
        let dir = chaos.stage.dir.join(format!("seed-{seed}"));
        let stage = Stage {
            gateway: chaos.stage.gateway.clone(),
            dir: dir.clone(),
            ..chaos.stage
        };
        let mut trial = Trial::new(&stage, &dir.join("data"))?;
        trial.schedule(SCHEDULE_MS);
        // A name's address is not known when the endpoint is made.
        trial.world.set("delivery.allow_http", "true");
        // The gateway's clock is moved: its times say nothing about the age of a message.
        trial.lists_from_the_beginning();
        let names = NameServer::start(random.random())?;
        trial.world.wrap(&names.wrapper(&dir)?);
        let clock = dir.join("clock");
        std::fs::write(&clock, "+0\n")?;
        let library = chaos.faketime.display().to_string();
        let file = clock.display().to_string();
        for (name, value) in [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ] {
            trial.world.env(name, value);
        }
        trial.start()?;
        trial.endpoint(&EndpointPlan::new("well", "acme", Behaviour::Well))?;
        trial.endpoint(&EndpointPlan::new("flaky", "acme", Behaviour::Flaky(20)))?;
        trial.endpoint(&EndpointPlan {
            limit: 1,
            ordered: true,
            ..EndpointPlan::new("fifo", "ordered", Behaviour::Flaky(10))
        })?;
        trial.endpoint(&EndpointPlan {
            host: Some(NAME.to_owned()),
            ..EndpointPlan::new("named", "named", Behaviour::Well)
        })?;
        trial.agree(|rules| {
            rules.at_least.acknowledged = 500;
            rules.at_least.busy_deaths = 2;
            rules.at_least.failed_attempts = 20;
            rules.at_least.faults = [
                (FaultKind::Kill, 3),
                (FaultKind::Terminate, 1),
                (FaultKind::Stop, 1),
                (FaultKind::Endpoint, 4),
                (FaultKind::Dns, 1),
                (FaultKind::Clock, 1),
                (FaultKind::SlowDisk, 1),
            ]
            .into();
        })?;
        Ok(Self {
            trial,
            names,
            clock,
            random,
            terminations: Vec::new(),
        })
    }

    fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        let milliseconds = self.random.random_range(milliseconds);
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn play(&mut self, card: Card) -> anyhow::Result<()> {
        match card {
            Card::Kill => {
                self.trial.kill()?;
                self.trial.start()?;
            }
            Card::KillBusy => {
                self.trial.behave("well", Behaviour::Slow(ANSWER))?;
                self.pause(200..600);
                self.trial.kill()?;
                self.trial.behave("well", Behaviour::Well)?;
                self.trial.start()?;
            }
            Card::Terminate => {
                let code = self.trial.terminate(STOPS)?;
                self.terminations.push(code);
                self.trial.start()?;
            }
            Card::Stop => {
                self.trial.world.signal("STOP")?;
                self.trial.fault(FaultKind::Stop, 0, "")?;
                std::thread::sleep(Duration::from_secs(3));
                self.trial.fault(FaultKind::Continue, 0, "")?;
                self.trial.world.signal("CONT")?;
            }
            Card::Ill(behaviour) => {
                let victim = VICTIMS[self.random.random_range(0..VICTIMS.len())];
                let healthy = match victim {
                    "flaky" => Behaviour::Flaky(20),
                    _ => Behaviour::Well,
                };
                self.trial.behave(victim, behaviour)?;
                self.pause(1000..3000);
                self.trial.behave(victim, healthy)?;
            }
            Card::Switch => {
                self.trial.switch("well", false)?;
                self.pause(500..1500);
                self.trial.switch("well", true)?;
            }
            Card::Dns => {
                self.trial.fault(FaultKind::Dns, 1, "silent")?;
                self.names.set_down(true);
                // Open connections need no names; a new process has none.
                self.trial.kill()?;
                self.trial.start()?;
                self.pause(2000..4000);
                self.names.set_down(false);
                self.trial.fault(FaultKind::Dns, 0, "answers again")?;
            }
            Card::Clock => self.step_clock()?,
            Card::SlowDisk => {
                let inject = "fdatasync:delay_enter=100000";
                let tracer = Tracer::attach(self.trial.world.pid()?, inject)?;
                self.trial.fault(FaultKind::SlowDisk, 100, "")?;
                self.pause(1500..2500);
                drop(tracer);
                self.trial.fault(FaultKind::SlowDisk, 0, "")?;
            }
        }
        Ok(())
    }

    /// Ahead or back, and right again after a while.
    fn step_clock(&mut self) -> anyhow::Result<()> {
        let off = if self.random.random() { STEP } else { -STEP };
        self.set_clock(off)?;
        // The gateway looks at the system's clock every two seconds.
        self.pause(3000..4000);
        if self.random.random() {
            self.trial.kill()?;
            self.trial.start()?;
        }
        self.set_clock(0)?;
        self.pause(2500..3000);
        Ok(())
    }

    fn set_clock(&self, off: i64) -> anyhow::Result<()> {
        // Replaced whole: libfaketime reads it at every look at the clock.
        let new = self.clock.with_extension("new");
        std::fs::write(&new, format!("{off:+}\n"))?;
        std::fs::rename(&new, &self.clock)?;
        self.trial.fault(FaultKind::Clock, off, "")
    }

    /// SIGTERM always ends in order.
    fn drained(&self, result: &mut RoundResult, last: Option<i32>) {
        for code in self.terminations.iter().chain([&last]) {
            result.must(
                *code == Some(0),
                Rule::C10,
                format!("ended with {code:?} after SIGTERM, not with 0"),
            );
        }
    }
}
