//! Sub-commands that work on the data directory of a stopped gateway: `keys`, `verify`,
//! `accept-loss`.
//!
//! The directory's lock keeps them and a running gateway apart.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::mpsc;

use super::{complain, config, keys, say};
use crate::auth::KEY_RANDOM;
use crate::base::{Clock, SystemClock};
use crate::config::Config;
use crate::directory::Directory;
use crate::lane::{self, Lane};
use crate::model::LaneId;
use crate::store;
use crate::store::fjall as embedded;

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
    match embedded::verify(&dir) {
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

/// `posthaste keys`: opens the store, does it, closes the store.
pub(super) async fn keys(args: keys::KeysArgs, config: Config) -> anyhow::Result<ExitCode> {
    let opened = embedded::Store::open(&config.storage, &config.retention)
        .context("the store cannot be opened; is the gateway still running?")?;
    let clock = Arc::new(SystemClock::start());
    let options = lane::Options {
        queue: 16,
        queue_bytes: 1 << 20,
        max_group: 16,
    };
    // Nothing is appended and nobody schedules here: both ends are only held open.
    let (committed, _unused) = mpsc::channel(1);
    let (changed, _unheard) = mpsc::channel(16);
    let lane = Lane::start(Box::new(opened.writer), clock.clone(), options, committed)?;
    let directory = Directory::load(opened.reader.as_ref(), lane.clone(), changed)?;
    let mut random = [0; KEY_RANDOM];
    SysRng.try_fill_bytes(&mut random)?;
    let done = keys::run(args, &directory, clock.now(), random).await;
    lane.close().await?;
    say(&done?);
    Ok(ExitCode::SUCCESS)
}

/// `posthaste accept-loss`: goes on behind a damage, after copying everything aside.
pub(super) fn accept_loss(args: &LossArgs, file: Option<&Path>) -> ExitCode {
    let dir = match config::load(file) {
        Ok(config) => config.storage.dir,
        Err(error) => return complain(&error, 78),
    };
    let now = SystemClock::start().now();
    match embedded::accept_loss(&dir, LaneId(args.lane), args.last_good, now) {
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
