//! Sub-commands that work on the data directory of a stopped gateway: `keys`, `verify`,
//! `accept-loss`.
//!
//! The directory's lock keeps them and a running gateway apart.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::mpsc;

use super::{backup, complain, config, keys, say, serve};
use crate::auth::KEY_RANDOM;
use crate::base::{Clock, SystemClock, Timestamp};
use crate::config::Config;
use crate::directory::Directory;
use crate::lane::{self, Lane};
use crate::model::{LaneId, Position};
use crate::store::fjall as embedded;
use crate::store::fjall::backup::MANIFEST;
use crate::store::{self, ConfigKind};
use crate::vault::Vault;

/// Arguments of `posthaste accept-loss`: the numbers that the refused start printed.
#[derive(Debug, Clone, clap::Args)]
pub struct LossArgs {
    /// The lane that was named.
    #[arg(
        long,
        requires = "last_good",
        required_unless_present = "accept_loss_after"
    )]
    lane: Option<u32>,
    /// The last sequence number that was found.
    #[arg(long, value_name = "SEQ", requires = "lane")]
    last_good: Option<u64>,
    /// Both in one word: what stands behind this position may be lost.
    #[arg(
        long,
        value_name = "LANE:SEQ",
        value_parser = position,
        conflicts_with_all = ["lane", "last_good"]
    )]
    accept_loss_after: Option<Position>,
}

impl LossArgs {
    /// The last position that is kept for certain.
    fn last_good(&self) -> Position {
        let named = self.lane.zip(self.last_good);
        let named = named.map(|(lane, seq)| Position {
            lane: LaneId(lane),
            seq,
        });
        // The parser has seen to it that one of the two is there.
        self.accept_loss_after.or(named).unwrap_or(Position::START)
    }
}

/// Reads `LANE:SEQ`.
fn position(text: &str) -> Result<Position, String> {
    let parts = text.split_once(':');
    let numbers = parts.and_then(|(lane, seq)| lane.parse().ok().zip(seq.parse().ok()));
    let (lane, seq) = numbers.ok_or("a position is LANE:SEQ, two numbers")?;
    Ok(Position {
        lane: LaneId(lane),
        seq,
    })
}

/// Arguments of `posthaste verify`.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyArgs {
    /// A data directory that no process uses, or a backup; `storage.dir` if absent.
    dir: Option<PathBuf>,
    /// Prints the report as one JSON object.
    #[arg(long)]
    json: bool,
}

/// `posthaste verify`: exit code 0 if nothing is wrong, 78 if something is, 74 if the disk fails, 1 if
/// another process uses the directory.
pub(super) fn verify(args: VerifyArgs, file: Option<&Path>) -> ExitCode {
    let dir = match args
        .dir
        .map_or_else(|| Ok(config::load(file)?.storage.dir), Ok)
    {
        Ok(dir) => dir,
        Err::<_, config::Error>(error) => return complain(&error, 78),
    };
    if dir.join(MANIFEST).exists() {
        return backup::verify(&dir, args.json);
    }
    if !dir.is_dir() {
        say(&format!("there is no store in {}", dir.display()));
        return ExitCode::from(78);
    }
    match embedded::verify(&dir) {
        Ok(report) => {
            let text = if args.json {
                report.json().to_string()
            } else {
                report.to_string()
            };
            say(&text);
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
    opened(config, async |directory, now| {
        let mut random = [0; KEY_RANDOM];
        SysRng.try_fill_bytes(&mut random)?;
        Ok(keys::run(args, &directory, now, random).await?)
    })
    .await
}

/// Opens the store of a stopped gateway, lets `work` change it, closes it, and says what `work` answered.
pub(super) async fn opened(
    config: Config,
    work: impl AsyncFnOnce(Arc<Directory>, Timestamp) -> anyhow::Result<String>,
) -> anyhow::Result<ExitCode> {
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
    let vault = match vault(&config, opened.reader.as_ref()) {
        Ok(vault) => vault,
        Err(error) => {
            lane.close().await?;
            return Ok(complain(&*error, 78));
        }
    };
    let directory = match Directory::load(opened.reader.as_ref(), lane.clone(), changed, vault) {
        Ok(directory) => Arc::new(directory),
        Err(error) => {
            lane.close().await?;
            return Ok(complain(&error, 78));
        }
    };
    let done = work(directory, clock.now()).await;
    lane.close().await?;
    say(&done?);
    Ok(ExitCode::SUCCESS)
}

/// The vault over the master keys that a start would find.
fn vault(
    config: &Config,
    reader: &dyn store::Reader,
) -> Result<Arc<Vault>, Box<dyn std::error::Error + Send + Sync>> {
    let (_, rows) = reader.config()?;
    let is_sealed = rows.iter().any(|row| row.kind == ConfigKind::DataKey);
    let (mut key, mut seed) = ([0; 32], [0; 32]);
    SysRng.try_fill_bytes(&mut key)?;
    SysRng.try_fill_bytes(&mut seed)?;
    let found = serve::vault_keys(config).find(is_sealed, key)?;
    Ok(Arc::new(Vault::new(found.masters, seed)))
}

/// `posthaste accept-loss`: goes on behind a damage, after copying everything aside.
pub(super) fn accept_loss(args: &LossArgs, file: Option<&Path>) -> ExitCode {
    let dir = match config::load(file) {
        Ok(config) => config.storage.dir,
        Err(error) => return complain(&error, 78),
    };
    let now = SystemClock::start().now();
    let after = args.last_good();
    match embedded::accept_loss(&dir, after.lane, after.seq, now) {
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
pub(super) const fn code(error: &store::Error) -> u8 {
    match error {
        store::Error::Regressed(_) | store::Error::Corrupt { .. } => 78,
        store::Error::Doubtful(_) => 74,
        store::Error::NotApplied(_) | store::Error::Unavailable(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        loss: LossArgs,
    }

    fn parsed(words: &[&str]) -> Option<Position> {
        let words = std::iter::once(&"accept-loss").chain(words);
        Some(Line::try_parse_from(words).ok()?.loss.last_good())
    }

    #[test]
    fn a_loss_is_accepted_by_its_exact_position_in_either_form() {
        let expected = Some(Position {
            lane: LaneId(3),
            seq: 17,
        });
        assert_eq!(parsed(&["--lane", "3", "--last-good", "17"]), expected);
        assert_eq!(parsed(&["--accept-loss-after", "3:17"]), expected);
        for wrong in [
            &[][..],
            &["--lane", "3"],
            &["--last-good", "17"],
            &["--accept-loss-after", "17"],
            &["--accept-loss-after", "3:"],
            &["--accept-loss-after", "3:17:1"],
            &[
                "--accept-loss-after",
                "3:17",
                "--lane",
                "3",
                "--last-good",
                "17",
            ],
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
