//! `fsync-error` (T02) and `read-only` (T65): the disk refuses to write or to sync.
//!
//! Each round is a gateway of its own under load, until one call fails: by strace at a random call,
//! by an image that lies in a memory file system which is full (the kernel then fails one fsync and
//! claims success at the next), or by a file system that becomes read-only after an error. What must
//! hold is judged from the log of strace, which is also kept where nothing is injected: exit code 74
//! within a second, nothing acknowledged after the error, the file never synced again. Then the disk
//! is good again, and everything acknowledged must be there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::trial::{EndpointPlan, Trial};
use super::super::{RoundResult, Rounds, Scenario, Stage, random};
use super::image::{self, Image, sweep};
use super::syscalls::{Traced, Tracing};
use super::{EXIT_WITHIN, IN_TRANSIT, STORAGE_FAILED, acknowledged_between, need_root, run, until};
use crate::oracle::check::{Rule, Violation};
use crate::oracle::history::FaultKind;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::Behaviour;

/// The load goes on for so long if nothing fails.
const PATIENCE: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(30);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "fsync-error",
    about: "a write or a sync fails once, then the disk claims to be well",
    rounds: [12, 120],
    chained: true,
    prepare: |stage| prepare(stage, &FAILURES),
};

pub(super) const READ_ONLY: Scenario = Scenario {
    name: "read-only",
    about: "the file system becomes read-only under load",
    rounds: [4, 40],
    chained: true,
    prepare: |stage| prepare(stage, &[Failure::ReadOnly]),
};

/// How the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// strace: the call, the error, and the highest number of the call that is hit. `only_journal`
    /// for calls that are mostly those of sockets.
    Injected {
        call: &'static str,
        error: &'static str,
        up_to: u32,
        only_journal: bool,
    },
    /// An image whose file cannot grow any more.
    NoRoomUnderneath,
    /// ext4 after an error, mounted with `errors=remount-ro`.
    ReadOnly,
}

const fn injected(call: &'static str, error: &'static str, up_to: u32) -> Failure {
    Failure::Injected {
        call,
        error,
        up_to,
        only_journal: false,
    }
}

const FAILURES: [Failure; 6] = [
    injected("fdatasync", "EIO", 60),
    injected("fsync", "EIO", 20),
    Failure::Injected {
        call: "write",
        error: "ENOSPC",
        up_to: 60,
        only_journal: true,
    },
    injected("pwrite64", "EIO", 4),
    injected("fdatasync", "ENOSPC", 60),
    Failure::NoRoomUnderneath,
];

struct FsyncError {
    stage: Stage,
    failures: &'static [Failure],
    rounds: usize,
    slowest_exit: Duration,
    while_starting: u32,
}

fn prepare(stage: &Stage, failures: &'static [Failure]) -> anyhow::Result<Box<dyn Rounds>> {
    need_root()?;
    sweep()?;
    Ok(Box::new(FsyncError {
        stage: stage.clone(),
        failures,
        rounds: 0,
        slowest_exit: Duration::ZERO,
        while_starting: 0,
    }))
}

impl Rounds for FsyncError {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let number = self.rounds;
        self.rounds += 1;
        let failure = self.failures.get(number % self.failures.len());
        let failure = *failure.context("there is a failure")?;
        let dir = self.stage.dir.join(format!("round-{number:04}"));
        fs::create_dir_all(&dir)?;
        let disk = Disk::make(failure, &dir)?;
        let stage = Stage {
            dir,
            ..self.stage.clone()
        };
        self.play(failure, &disk, &stage, &mut random(seed))
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let (slowest, starting) = (self.slowest_exit, self.while_starting);
        let note = format!(
            "from the error to the exit {slowest:?} at most; {starting} errors during a start"
        );
        Ok(RoundResult {
            notes: vec![note],
            ..RoundResult::default()
        })
    }
}

impl FsyncError {
    fn play(
        &mut self,
        failure: Failure,
        disk: &Disk,
        stage: &Stage,
        random: &mut ChaCha8Rng,
    ) -> anyhow::Result<RoundResult> {
        let mut trial = Trial::new(stage, &disk.data)?;
        // Tables are made only where their syncs are meant; elsewhere one journal has it all.
        let fills = failure == injected("fsync", "EIO", 20);
        trial
            .world
            .set("storage.memtable", if fills { "1MiB" } else { "64MiB" });
        trial.world.set("storage.reserve", "0B");
        trial.start()?;
        trial.endpoint(&EndpointPlan::new("well", "acme", Behaviour::Well))?;
        trial.endpoint(&EndpointPlan::new("flaky", "acme", Behaviour::Flaky(20)))?;
        trial.terminate(DRAIN)?;

        let tracing = Tracing::to(&stage.dir.join("trace"))?;
        let wrapper = wrapper(failure, &tracing, &disk.data, random);
        trial.world.wrap(&wrapper);
        let exit = self.fail_under_load(failure, disk, &mut trial, random)?;
        trial.world.wrap(&[]);

        let calls = tracing.read()?;
        let wanted =
            |call: &&Traced| call.injected || (call.failed && is_of_the_disk(call, &disk.data));
        let error = calls.iter().find(wanted).cloned();
        disk.mend()?;
        trial.start().context("on the disk that is good again")?;
        trial.settle(DRAIN)?;
        let mut result = trial.result()?;
        let Some(error) = error else {
            result.must(false, Rule::C11, format!("{failure:?}: no call failed"));
            return Ok(result);
        };
        let took = Duration::from_micros(exit.at.saturating_sub(error.at));
        self.slowest_exit = self.slowest_exit.max(took);
        let seen = &error.line;
        result.must(
            exit.code == Some(STORAGE_FAILED),
            Rule::C1,
            format!(
                "it ended with {:?}, not {STORAGE_FAILED}, after: {seen}",
                exit.code
            ),
        );
        result.must(
            took <= EXIT_WITHIN,
            Rule::C1,
            format!("it ended {took:?} after the disk had failed: {seen}"),
        );
        let late = error.at + u64::try_from(IN_TRANSIT.as_micros())?;
        let late = acknowledged_between(&trial.dir, late, exit.at)?;
        result.violations.extend(late);
        if !exit.while_starting {
            result.violations.extend(synced_again(&calls, &error));
        }
        Ok(result)
    }

    /// Starts the traced gateway, loads it, and waits for its end.
    fn fail_under_load(
        &mut self,
        failure: Failure,
        disk: &Disk,
        trial: &mut Trial,
        random: &mut ChaCha8Rng,
    ) -> anyhow::Result<Exit> {
        let ready = trial.start();
        if ready.is_err() {
            // The call that was hit may be one of the start.
            self.while_starting += 1;
            return Exit::of(trial, true);
        }
        let size = match failure {
            Failure::NoRoomUnderneath => 60_000,
            Failure::Injected { .. } | Failure::ReadOnly => random.random_range(500..4000),
        };
        let load = trial.load(&[Stream {
            app: "acme".to_owned(),
            connections: 8,
            pause: Duration::from_millis(1),
            size,
        }])?;
        if failure == Failure::ReadOnly {
            std::thread::sleep(Duration::from_millis(random.random_range(100..600)));
            disk.trip()?;
        }
        let ended = until("the gateway ends", PATIENCE, || trial.world.ended());
        let exit = Exit::of(trial, false)?;
        load.stop()?;
        ended.map(|_| exit)
    }
}

/// How the gateway ended.
struct Exit {
    at: u64,
    code: Option<i32>,
    /// Nothing was promised yet by this process. A database that fails to open syncs its journal
    /// once more when it is dropped, which then deceives nobody.
    while_starting: bool,
}

impl Exit {
    fn of(trial: &mut Trial, while_starting: bool) -> anyhow::Result<Self> {
        let at = trial.clock.now();
        trial.world.ended()?;
        let code = trial.world.exit_code();
        trial.fault(FaultKind::Failed, i64::from(code.unwrap_or(-1)), "")?;
        Ok(Self {
            at,
            code,
            while_starting,
        })
    }
}

/// Where the data lies, and how it becomes good again.
struct Disk {
    data: PathBuf,
    image: Option<Image>,
    /// Unmounted after the image that lies in it.
    memory: Option<Memory>,
}

impl Disk {
    fn make(failure: Failure, dir: &Path) -> anyhow::Result<Self> {
        let image = |image: Image, memory| Self {
            data: image.mount.join("data"),
            image: Some(image),
            memory,
        };
        Ok(match failure {
            Failure::Injected { .. } => Self {
                data: dir.join("data"),
                image: None,
                memory: None,
            },
            Failure::NoRoomUnderneath => {
                let memory = Memory::mount(&dir.join("memory"), 24)?;
                let made = Image::make_in(dir, &memory.mount, 128, "")?;
                image(made, Some(memory))
            }
            Failure::ReadOnly => image(Image::make(dir, 256, "errors=remount-ro")?, None),
        })
    }

    fn trip(&self) -> anyhow::Result<()> {
        self.image.as_ref().context("there is an image")?.trip()
    }

    /// The gateway must have ended.
    fn mend(&self) -> anyhow::Result<()> {
        if let Some(memory) = &self.memory {
            memory.grow(512)?;
        }
        if let Some(image) = &self.image {
            image.unmount()?;
            image.repair()?;
            image.mount()?;
        }
        Ok(())
    }
}

/// A memory file system of a given size. Unmounted when dropped.
struct Memory {
    mount: PathBuf,
}

impl Memory {
    fn mount(dir: &Path, mib: u64) -> anyhow::Result<Self> {
        let mount = dir.join("mnt");
        fs::create_dir_all(&mount)?;
        image::sign(dir)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(&mount))?;
        Ok(Self { mount })
    }

    fn grow(&self, mib: u64) -> anyhow::Result<()> {
        run(Command::new("mount")
            .args(["-o", &format!("remount,size={mib}m")])
            .arg(&self.mount))
        .map(drop)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // At an end by an error its image may still be mounted; the next start sweeps both.
        if image::unmount(&self.mount).is_err() {}
    }
}

fn wrapper(
    failure: Failure,
    tracing: &Tracing,
    data: &Path,
    random: &mut ChaCha8Rng,
) -> Vec<String> {
    match failure {
        Failure::Injected {
            call,
            error,
            up_to,
            only_journal,
        } => {
            let nth = random.random_range(1..=up_to);
            let inject = format!("{call}:error={error}:when={nth}");
            let journal = [data.join("db/0.jnl")];
            let only = if only_journal { &journal[..] } else { &[] };
            tracing.wrapper(Some(&inject), only)
        }
        Failure::NoRoomUnderneath | Failure::ReadOnly => tracing.wrapper(None, &[]),
    }
}

/// Whether a failed call is one that a good disk would have carried out.
fn is_of_the_disk(call: &Traced, data: &Path) -> bool {
    let path = call.path.as_deref().map(Path::new);
    path.is_some_and(|path| path.starts_with(data))
}

/// A second sync of the file could claim success for pages that the first one lost.
fn synced_again(calls: &[Traced], error: &Traced) -> Vec<Violation> {
    let Some(path) = &error.path else {
        return Vec::new(); // a rename has no open file
    };
    let again = calls.iter().filter(|call| {
        let syncs = call.name == "fsync" || call.name == "fdatasync";
        syncs && call.at > error.at && call.path.as_ref() == Some(path)
    });
    let what = |call: &Traced| format!("synced again after {}: {}", error.line, call.line);
    again
        .map(|call| Violation::new(Rule::C1, what(call)))
        .collect()
}
