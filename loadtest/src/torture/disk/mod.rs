//! Scenarios that hurt the disk (`docs/TORTURE.md`, Disk scenarios).
//!
//! Owns: what they share: file systems in image files ([`image`]), errors and delays of system calls
//! ([`syscalls`]), damage to files ([`damage`]). All of it stays in images, copies and processes that
//! the harness made itself. They need root, strace, python3 and ext4's tools; where one is missing
//! the scenario fails and says which.

mod bit_rot;
mod damage;
mod fsync_error;
mod full;
mod image;
mod power_cut;
mod sample;
mod stalled;
mod syscalls;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Scenario;
use crate::oracle::check::{Rule, Violation};
use crate::oracle::history::{Call, Outcome, PRODUCER};
use crate::oracle::journal;

pub(super) const SCENARIOS: [Scenario; 6] = [
    power_cut::SCENARIO,
    fsync_error::SCENARIO,
    fsync_error::READ_ONLY,
    full::SCENARIO,
    bit_rot::SCENARIO,
    stalled::SCENARIO,
];

/// `EX_IOERR`: the storage failed.
const STORAGE_FAILED: i32 = 74;
/// `EX_CONFIG`: a human must decide.
const REFUSED: i32 = 78;
/// From the first error to the end of the process (`reliability.md` T02).
const EXIT_WITHIN: Duration = Duration::from_secs(1);
/// An answer that was on its way when the disk failed has arrived by then.
const IN_TRANSIT: Duration = Duration::from_millis(100);

/// Runs a tool of the system to its end; an error says what it said.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}; is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {said}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An error unless the harness may mount file systems.
fn need_root() -> anyhow::Result<()> {
    let user = run(Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        bail!("needs root, for it mounts file systems of its own; run it with sudo");
    }
    Ok(())
}

/// Looks until `found`, or an error that says `what` did not come `within`.
fn until<T>(
    what: &str,
    within: Duration,
    mut found: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = found()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("not within {within:?}: {what}");
        }
        std::thread::sleep(super::world::LOOK);
    }
}

/// Acknowledgements in the history in `dir` that came between two times (unix microseconds).
fn acknowledged_between(dir: &Path, from: u64, to: u64) -> anyhow::Result<Vec<Violation>> {
    let calls = journal::read::<Call>(dir, PRODUCER)?;
    let late = calls.iter().filter_map(|(line, call)| match call {
        Call::End {
            at: end,
            outcome: Outcome::Acknowledged { id, .. },
            ..
        } if (from..=to).contains(end) => Some(format!(
            "{id} was acknowledged although the disk had failed {} ms before, and more ({line})",
            (end - from) / 1000
        )),
        Call::End { .. } | Call::Begin { .. } => None,
    });
    Ok(late.map(|what| Violation::new(Rule::C1, what)).collect())
}
