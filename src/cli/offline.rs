//! Sub-commands that work on the data directory of a stopped gateway: `verify`, `accept-loss`.
//!
//! The directory's lock keeps them and a running gateway apart.

use std::path::Path;
use std::process::ExitCode;

use super::{complain, config, say};
use crate::base::{Clock, SystemClock};
use crate::model::LaneId;
use crate::store;
use crate::store::fjall;

/// Arguments of `posthaste accept-loss`: the numbers that the refused start printed.
#[derive(Debug, Clone, clap::Args)]
pub struct LossArgs {
    /// The lane that was named.
    #[arg(long)]
    lane: u32,
    /// The last sequence number that was found.
    #[arg(long, value_name = "SEQ")]
    last_good: u64,
}

/// `posthaste verify`: exit code 0 if nothing is wrong, 78 otherwise.
pub(super) fn verify(file: Option<&Path>) -> ExitCode {
    let dir = match config::load(file) {
        Ok(config) => config.storage.dir,
        Err(error) => return complain(&error, 78),
    };
    if !dir.is_dir() {
        say(&format!("there is no store in {}", dir.display()));
        return ExitCode::from(78);
    }
    match fjall::verify(&dir) {
        Ok(report) => {
            say(&report.to_string());
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(78)
            }
        }
        Err(error) => complain(&error, code(&error)),
    }
}

/// `posthaste accept-loss`: goes on behind a damage, after copying everything aside.
pub(super) fn accept_loss(args: &LossArgs, file: Option<&Path>) -> ExitCode {
    let dir = match config::load(file) {
        Ok(config) => config.storage.dir,
        Err(error) => return complain(&error, 78),
    };
    let now = SystemClock::start().now();
    match fjall::accept_loss(&dir, LaneId(args.lane), args.last_good, now) {
        Ok(loss) => {
            let (kept, acked) = (loss.kept.display(), loss.acknowledged);
            say(&format!(
                "lane {}: kept up to {}, given up to {acked}; the files as found are in {kept}",
                loss.lane, loss.last_good
            ));
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, code(&error)),
    }
}

/// 78 = a human must decide, 74 = the disk, 1 = try again.
const fn code(error: &store::Error) -> u8 {
    match error {
        store::Error::Regressed(_) | store::Error::Corrupt { .. } => 78,
        store::Error::Doubtful(_) => 74,
        store::Error::NotApplied(_) | store::Error::Unavailable(_) => 1,
    }
}
