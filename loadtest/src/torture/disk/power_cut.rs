//! `power-cut` (T01): the power fails at random instants under load, on an ext4 image.
//!
//! Each round: load, SIGSTOP and a cut after up to 400 ms, SIGKILL, remount, restart, drain, judgement. The data
//! directory grows older over [`PER_IMAGE`] rounds; then a fresh image begins with a cut during the
//! very first start. Now and then the cut hits a start on old data instead of the load. A round in
//! which nothing was under way proves little: at least 30 % of the cuts must find requests that were
//! sent and not answered.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::trial::{EndpointPlan, Trial};
use super::super::{RoundResult, Rounds, Scenario, Stage, random};
use super::image::{Image, sweep};
use super::until;
use crate::oracle::check::{Rule, Violation};
use crate::oracle::history::FaultKind;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// Rounds on one image.
const PER_IMAGE: u32 = 25;
/// Of the image, in MiB. It is sparse; a journal of the store is made 64 MiB long, mostly holes.
const SIZE: u64 = 256;
/// Of 100 cuts under load so many must find requests without an answer.
const BUSY_PERCENT: u32 = 30;
/// For the backlog.
const DRAIN: Duration = Duration::from_secs(30);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "power-cut",
    about: "the power fails at random instants under load",
    rounds: [60, 300],
    chained: true,
    prepare,
};

struct PowerCut {
    stage: Stage,
    /// The trial stands first: it must end before its image can be unmounted.
    plays: Option<(Trial, Image)>,
    rounds: u32,
    under_load: u32,
    busy: u32,
    while_starting: u32,
    slowest: Duration,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    sweep()?;
    Ok(Box::new(PowerCut {
        stage: stage.clone(),
        plays: None,
        rounds: 0,
        under_load: 0,
        busy: 0,
        while_starting: 0,
        slowest: Duration::ZERO,
    }))
}

impl Rounds for PowerCut {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let number = self.rounds;
        self.rounds += 1;
        if number.is_multiple_of(PER_IMAGE) {
            self.fresh_image(number / PER_IMAGE)?;
            if let Some(broken) = self.cut_while_starting(&mut random)? {
                return Ok(broken);
            }
            self.endpoints()?;
        } else {
            self.playing()?.0.next_history()?;
            if random.random_ratio(1, 8) {
                self.playing()?.0.terminate(DRAIN)?;
                if let Some(broken) = self.cut_while_starting(&mut random)? {
                    return Ok(broken);
                }
            }
        }
        self.cut_under_load(&mut random)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let mut result = RoundResult {
            notes: vec![format!(
                "{} of {} cuts under load had requests under way; {} cuts during a start; slowest start {:?}",
                self.busy, self.under_load, self.while_starting, self.slowest
            )],
            ..RoundResult::default()
        };
        result.must(
            self.busy * 100 >= self.under_load * BUSY_PERCENT,
            Rule::C11,
            format!("less than {BUSY_PERCENT} % of the cuts had requests under way"),
        );
        Ok(result)
    }
}

impl PowerCut {
    fn playing(&mut self) -> anyhow::Result<&mut (Trial, Image)> {
        self.plays.as_mut().context("no image is mounted")
    }

    fn fresh_image(&mut self, number: u32) -> anyhow::Result<()> {
        self.plays = None;
        let dir: PathBuf = self.stage.dir.join(format!("image-{number}"));
        let image = Image::make(&dir, SIZE, "")?;
        let stage = Stage {
            dir,
            ..self.stage.clone()
        };
        let mut trial = Trial::new(&stage, &image.mount.join("data"))?;
        // Small tables: flushes, rotations and compactions take place between the cuts.
        trial.world.set("storage.memtable", "1MiB");
        self.plays = Some((trial, image));
        Ok(())
    }

    fn endpoints(&mut self) -> anyhow::Result<()> {
        let (trial, _) = self.playing()?;
        for (name, behaviour) in [("well", Behaviour::Well), ("flaky", Behaviour::Flaky(20))] {
            trial.endpoint(&EndpointPlan::new(name, "acme", behaviour))?;
        }
        Ok(())
    }

    /// A cut within the first moments of a start, then a start that must succeed.
    fn cut_while_starting(
        &mut self,
        random: &mut ChaCha8Rng,
    ) -> anyhow::Result<Option<RoundResult>> {
        self.while_starting += 1;
        let (trial, image) = self.playing()?;
        let cutter = image.cutter()?;
        trial.world.launch()?;
        until("the process has begun", DRAIN, || {
            let begun = trial.world.pid().is_ok() || trial.world.ended()?.is_some();
            Ok(begun.then_some(()))
        })?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..80)));
        trial.fault(FaultKind::PowerCut, 0, "while starting")?;
        freeze(trial);
        cutter.cut()?;
        self.comes_back()
    }

    fn cut_under_load(&mut self, random: &mut ChaCha8Rng) -> anyhow::Result<RoundResult> {
        let (trial, image) = self.playing()?;
        let cutter = image.cutter()?;
        let load = trial.load(&[Stream {
            app: "acme".to_owned(),
            connections: 8,
            pause: Duration::from_millis(3),
            size: random.random_range(100..3000),
        }])?;
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
        let under_way = trial.caller().unanswered();
        trial.fault(FaultKind::PowerCut, 0, "")?;
        freeze(trial);
        cutter.cut()?;
        self.under_load += 1;
        self.busy += u32::from(under_way > 0);
        let broken = self.comes_back()?;
        load.stop()?;
        if let Some(broken) = broken {
            return Ok(broken);
        }
        let (trial, _) = self.playing()?;
        trial.settle(DRAIN)?;
        trial.result()
    }

    /// After a cut: the process is killed, the image is mounted anew, and the gateway must start.
    fn comes_back(&mut self) -> anyhow::Result<Option<RoundResult>> {
        let (trial, image) = self.playing()?;
        trial.world.kill()?;
        // What was sent between the cut and the end belongs to the dead process too.
        trial.fault(FaultKind::PowerCut, 0, "gone")?;
        image.unmount()?;
        image.mount()?;
        match trial.start() {
            Ok(took) => {
                self.slowest = self.slowest.max(took);
                Ok(None)
            }
            Err(error) => {
                let what = format!("it does not start after the cut: {error:#}");
                Ok(Some(RoundResult {
                    violations: vec![Violation::new(Rule::C10, what)],
                    history: Some(trial.dir.clone()),
                    ..RoundResult::default()
                }))
            }
        }
    }
}

/// Stops the process before its disk: a sync that is under way when ext4 shuts down may still claim
/// success, and a machine without power would not act on that.
fn freeze(trial: &Trial) {
    match trial.world.signal("STOP") {
        // A start that has ended by itself needs no stopping.
        Ok(()) | Err(_) => {}
    }
}
