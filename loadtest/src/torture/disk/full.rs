//! `disk-full` (T04): a small image fills up under load.
//!
//! Two kinds of rounds in turn. With a reserve the gateway must refuse new messages (507) before the
//! store fails, go on delivering meanwhile, and accept again once there is room. Without one the
//! store itself runs out of room: the gateway must end with 74 and acknowledge nothing after it.
//! In both, all that was acknowledged is there after a kill and a restart. (Injected ENOSPC stands in
//! [`super::fsync_error`].)

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::super::trial::{EndpointPlan, Trial};
use super::super::{RoundResult, Rounds, Scenario, Stage};
use super::image::{Image, sweep};
use super::{STORAGE_FAILED, until};
use crate::oracle::check::Rule;
use crate::oracle::history::{Call, Delivery, FaultKind, Outcome, PRODUCER, RECEIVER};
use crate::oracle::journal;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// Of the image, in MiB.
const SIZE: u64 = 192;
/// A file of others that takes up room until it is deleted, in MiB.
const BALLAST: usize = 64;
/// For the disk to fill.
const FILLS: Duration = Duration::from_secs(60);
/// The gateway looks at the disk every 2 s.
const NOTICES: Duration = Duration::from_secs(8);
/// An endpoint that has failed for long is tried every ten seconds, a fifth more or less.
const TRIED: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(60);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-full",
    about: "a small disk fills up under load, and later has room again",
    rounds: [2, 10],
    chained: true,
    prepare,
};

struct Full {
    stage: Stage,
    rounds: u32,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    sweep()?;
    Ok(Box::new(Full {
        stage: stage.clone(),
        rounds: 0,
    }))
}

impl Rounds for Full {
    fn round(&mut self, _: u64) -> anyhow::Result<RoundResult> {
        let number = self.rounds;
        self.rounds += 1;
        let dir = self.stage.dir.join(format!("round-{number:04}"));
        let image = Image::make(&dir, SIZE, "")?;
        let ballast = image.mount.join("of-others");
        fs::write(&ballast, vec![0x5a; BALLAST << 20])?;
        let stage = Stage {
            dir,
            ..self.stage.clone()
        };
        let mut trial = Trial::new(&stage, &image.mount.join("data"))?;
        let result = if number.is_multiple_of(2) {
            with_reserve(&mut trial, &ballast)
        } else {
            without_reserve(&mut trial, &ballast)
        };
        // The image can be unmounted only when the gateway is gone.
        drop(trial);
        result
    }
}

fn load(trial: &Trial) -> anyhow::Result<crate::oracle::producer::Producer> {
    trial.load(&[Stream {
        app: "acme".to_owned(),
        connections: 4,
        pause: Duration::from_millis(10),
        size: 40_000,
    }])
}

fn with_reserve(trial: &mut Trial, ballast: &Path) -> anyhow::Result<RoundResult> {
    trial.world.set("storage.reserve", "48MiB");
    trial.start()?;
    trial.endpoint(&EndpointPlan::new("well", "acme", Behaviour::Well))?;
    trial.endpoint(&EndpointPlan::new("away", "acme", Behaviour::Status(500)))?;
    trial.agree(|rules| rules.at_least.shed = 10)?;
    let producing = load(trial)?;
    until("messages are refused for want of room", FILLS, || {
        Ok((refusals(&trial.dir)? > 0).then_some(()))
    })?;
    let full_at = trial.clock.now();
    trial.fault(FaultKind::Disk, 0, "full up to the reserve")?;
    // What waits for a retry must still be delivered, and its outcome written.
    trial.behave("away", Behaviour::Well)?;
    let delivers = until("deliveries go on while ingest is refused", TRIED, || {
        let seen = journal::read::<Delivery>(&trial.dir, RECEIVER)?;
        let goes_on =
            |one: &Delivery| one.endpoint == "away" && one.is_success() && one.start > full_at;
        Ok(seen.iter().any(|(_, one)| goes_on(one)).then_some(()))
    });
    let survives = trial.world.is_running();
    fs::remove_file(ballast)?;
    let before = trial.caller().acknowledged();
    let accepts = until("messages are accepted again", NOTICES, || {
        Ok((trial.caller().acknowledged() > before).then_some(()))
    });
    producing.stop()?;
    trial.kill()?;
    trial.start()?;
    trial.settle(DRAIN)?;
    let mut result = trial.result()?;
    result.must(
        survives,
        Rule::C10,
        "the gateway ended although it has a reserve",
    );
    result.must(delivers.is_ok(), Rule::C10, format!("{delivers:?}"));
    result.must(accepts.is_ok(), Rule::C10, format!("{accepts:?}"));
    result.notes.push(format!(
        "with a reserve: {} refusals, then accepted again",
        refusals(&trial.dir)?
    ));
    Ok(result)
}

fn without_reserve(trial: &mut Trial, ballast: &Path) -> anyhow::Result<RoundResult> {
    trial.world.set("storage.reserve", "0B");
    trial.start()?;
    trial.endpoint(&EndpointPlan::new("well", "acme", Behaviour::Well))?;
    let producing = load(trial)?;
    let ended = until("the store runs out of room", FILLS, || trial.world.ended());
    let code = trial.world.exit_code();
    trial.fault(FaultKind::Failed, i64::from(code.unwrap_or(-1)), "no room")?;
    producing.stop()?;
    ended?;
    // A supervisor would start it again on the full disk, and it may fail again, but not otherwise.
    let again = match trial.start() {
        Ok(_) => {
            trial.kill()?;
            Some(STORAGE_FAILED)
        }
        Err(_) => trial.world.exit_code(),
    };
    fs::remove_file(ballast)?;
    trial.start().context("with room again")?;
    trial.settle(DRAIN)?;
    let mut result = trial.result()?;
    for (when, code) in [("without room", code), ("started without room", again)] {
        result.must(
            code == Some(STORAGE_FAILED),
            Rule::C1,
            format!("{when} it ended with {code:?}, not {STORAGE_FAILED}"),
        );
    }
    result
        .notes
        .push("without a reserve: ended with 74".to_owned());
    Ok(result)
}

/// Answers 507 in the history in `dir`.
fn refusals(dir: &Path) -> anyhow::Result<usize> {
    let calls = journal::read::<Call>(dir, PRODUCER)?;
    let refused = calls.iter().filter(|(_, call)| match call {
        Call::End {
            outcome: Outcome::Unknown { why },
            ..
        } => why.starts_with("507"),
        Call::End { .. } | Call::Begin { .. } => false,
    });
    Ok(refused.count())
}
