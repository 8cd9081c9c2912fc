//! Going on after a loss that a human has accepted.
//!
//! Owns: `posthaste accept-loss` (`reliability.md` D6). It demands the numbers that the refusal
//! printed, copies journals and mark into a `lost-*` folder first, cuts the damaged journal behind
//! its last good batch, moves later journals away, and writes a new mark and an audit record. No
//! option or environment variable does this on its own.
//!
//! Batches before the acceptance are not verified any more ([`keys::VERIFY_FROM`]); lanes up to the
//! one opened here may have holes ([`keys::HOLES`]). The next start uses a new lane.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ::fjall::Readable as _;

use crate::base::Timestamp;
use crate::config::{HighWater, Retention, Storage};
use crate::model::LaneId;
use crate::store::faults::Faults;
use crate::store::{AcceptedLoss, Error, Writer as _};

use super::format::Directory;
use super::gone::Cuts;
use super::hwm::{Mark, MarkFile};
use super::reader::row;
use super::recent::Recent;
use super::spaces::{Space, Spaces};
use super::writer::{FjallWriter, Parts};
use super::{Shared, batch, keys, on_disk, open_failed, preflight, record, recover, tables};

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The lane concerned.
    pub lane: LaneId,
    /// Its last message that is kept for certain.
    pub last_good: u64,
    /// Its last message that had been acknowledged.
    pub acknowledged: u64,
    /// Where the files as found were copied to.
    pub kept: PathBuf,
}

/// All losses that were accepted in this store; those of the first version, which kept too little, are left out.
pub(super) fn accepted(spaces: &Spaces) -> Result<Vec<AcceptedLoss>, Error> {
    let mut found = Vec::new();
    for guard in spaces
        .snapshot()
        .prefix(spaces.of(Space::Meta), keys::AUDIT)
    {
        let (key, value) = row(guard)?;
        let numbers = record::read_audit(&key, &value)?;
        let Some((lane, (acknowledged, last_good, at))) = keys::read_audit(&key).zip(numbers)
        else {
            continue;
        };
        found.push(AcceptedLoss {
            lane,
            last_good,
            acknowledged,
            at,
        });
    }
    Ok(found)
}

/// Accepts the loss that an open of `dir` reports. `lane` and `last_good` must be those of its
/// message; `now` names the folder.
///
/// # Errors
/// [`Error::NotApplied`] if nothing is lost or the numbers are others; nothing is changed then.
pub fn accept_loss(
    dir: &Path,
    lane: LaneId,
    last_good: u64,
    now: Timestamp,
) -> Result<Loss, Error> {
    let directory = Directory::lock(dir)?;
    directory.check()?;
    let mark = MarkFile::peek(&directory.mark()).ok().flatten();
    let journals = preflight::look(&directory.database())?;
    if !journals.is_missing() {
        // A table holds what journals have no more: without it there is no way on but a backup.
        tables::look(&directory.database())?.check(u64::MAX)?;
    }
    let options = Storage {
        dir: dir.to_owned(),
        ..Storage::default()
    };
    let found = examine(&directory, &options, mark.as_ref(), &journals)?;
    let Some((lost_lane, found, acknowledged)) = found else {
        return Err(Error::NotApplied(String::from("nothing is lost")));
    };
    if (lost_lane, found) != (lane, last_good) {
        return Err(Error::NotApplied(format!(
            "the loss is in lane {lost_lane} behind {found}, not in lane {lane} behind {last_good}"
        )));
    }
    let kept = directory.path.join(format!("lost-{}", now.millis()));
    keep(&directory, &kept).map_err(|error| on_disk("copy the files aside", &error))?;
    journals
        .cut_at_damage(&kept, mark.as_ref().map_or(0, |mark| mark.verify_from))
        .map_err(|error| on_disk("cut the damaged journal", &error))?;
    renew(
        directory,
        &options,
        mark.unwrap_or_default(),
        &AcceptedLoss {
            lane,
            last_good,
            acknowledged,
            at: now,
        },
    )?;
    Ok(Loss {
        lane,
        last_good,
        acknowledged,
        kept,
    })
}

/// What an open would refuse, as lane, last sequence found and last acknowledged.
fn examine(
    directory: &Directory,
    options: &Storage,
    mark: Option<&Mark>,
    journals: &preflight::Journals,
) -> Result<Option<(LaneId, u64, u64)>, Error> {
    let tail = journals.tail();
    let unknown = (tail.lane, tail.seq, tail.seq);
    let Some(mark) = mark else {
        return Ok(Some(unknown));
    };
    let refused = match journals.judge(mark, HighWater::Interval) {
        Err(error) => Err(error),
        Ok(()) if journals.is_missing() && mark.batch > 0 => {
            let lane = mark.lanes.last_key_value();
            return Ok(lane.map(|(lane, acked)| (*lane, 0, *acked)));
        }
        Ok(()) => {
            journals.prepare(&directory.path, mark, HighWater::Interval)?;
            let spaces = Spaces::open(&directory.database(), options);
            let spaces = spaces.map_err(|error| open_failed(&error))?;
            recover::check(&spaces, mark).map(drop)
        }
    };
    match refused {
        Ok(()) => Ok(None),
        Err(Error::Regressed(damage)) => Ok(Some(damage.lane.unwrap_or(unknown))),
        Err(other) => Err(other),
    }
}

/// Copies journals, mark and marker as they were found.
fn keep(directory: &Directory, kept: &Path) -> io::Result<()> {
    fs::create_dir(kept)?;
    let mut files = vec![directory.mark(), directory.path.join("format")];
    if let Ok(entries) = fs::read_dir(directory.database()) {
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|ext| ext == "jnl") {
                files.push(path);
            }
        }
    }
    for file in files.into_iter().filter(|file| file.exists()) {
        let Some(name) = file.file_name() else {
            continue;
        };
        let copy = kept.join(name);
        fs::copy(&file, &copy)?;
        File::open(&copy)?.sync_all()?;
    }
    File::open(kept)?.sync_all()?;
    directory.sync()
}

/// Opens what is left, opens a lane, and writes mark, audit record and the new start of
/// verification.
fn renew(
    directory: Directory,
    options: &Storage,
    mark: Mark,
    loss: &AcceptedLoss,
) -> Result<(), Error> {
    let spaces = Spaces::open(&directory.database(), options);
    let spaces = spaces.map_err(|error| open_failed(&error))?;
    let found = recover::gather(&spaces)?;
    let fault = |error: io::Error| on_disk("write the high-water mark", &error);
    if directory.mark().exists() {
        fs::remove_file(directory.mark()).map_err(fault)?;
    }
    let fresh = Mark {
        generation: 0,
        batch: found.batch.number,
        hash: found.batch.hash,
        verify_from: found.batch.number + 1,
        lanes: found
            .lanes
            .iter()
            .filter(|(_, row)| row.last > 0)
            .map(|(lane, row)| (*lane, row.last))
            .collect(),
        ..mark
    };
    let mark_file = MarkFile::create(&directory.mark(), &fresh).map_err(fault)?;
    directory.sync().map_err(fault)?;
    let from = fresh.verify_from;
    let parts = Parts {
        dir: directory,
        spaces,
        shared: Arc::new(Shared {
            newest_bucket: AtomicU32::new(found.newest_bucket),
            floors: Arc::new(found.floors().into()),
            cuts: Cuts::default(),
            holes_up_to: AtomicU32::new(0),
            recent: Recent::default(),
        }),
        faults: Faults::none(),
        mark_file,
        mark: fresh,
        every_commit: false,
        retention: Retention::default(),
    };
    let rows: Vec<_> = found.lanes.clone().into_iter().collect();
    let mut writer = FjallWriter::begin(parts, found)?;
    let mut commit = writer.start(rows.len());
    let spaces = writer.spaces();
    for (lane, ends) in rows {
        let key = keys::lane(lane);
        commit.put(spaces, Space::Meta, &key, batch::lane(&key, ends));
    }
    for (key, n) in [
        (keys::VERIFY_FROM, from),
        (keys::HOLES, u64::from(writer.lane().0)),
    ] {
        commit.put(spaces, Space::Meta, key, record::number(key, n));
    }
    let key = keys::audit(loss.lane);
    let audit = record::audit(&key, loss.acknowledged, loss.last_good, loss.at);
    commit.put(spaces, Space::Meta, &key, audit);
    writer.finish(commit, true)?;
    writer.close()
}
