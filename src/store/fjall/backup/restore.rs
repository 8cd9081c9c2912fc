//! From a backup to a data directory.
//!
//! Everything is checked before a byte is written: the manifest's own sum, that every file is there
//! with its size and sum, that the target is empty and has room. The format marker is written last,
//! so a target that was not finished does not start. The result passes the check of `posthaste
//! verify` before the restore calls itself done.
//!
//! The restored store goes on in lanes that nobody has used: lane numbers jump to the seconds since
//! 2025 (`docs/adr/0103-backup-and-restore.md`), because the original gave out public ids after the
//! backup that this store knows nothing of.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::Sha256;

use super::manifest::{FileEntry, MANIFEST, Manifest, hex};
use super::write::{make_dir, new_file, sum_of, transfer};
use super::{Error, room, sync_dir, with};
use crate::base::Timestamp;
use crate::model::LaneId;
use crate::store::fjall::format::Directory;
use crate::store::fjall::hwm::MarkFile;
use crate::store::fjall::verify::{Report, verify};

/// A manifest larger than this is none.
const MAX_MANIFEST: u64 = 256 << 20;
/// Left free beside the restored files: the first start writes as well.
const SPARE: u64 = 64 << 20;
/// 2025-01-01T00:00:00Z in seconds since the epoch.
const LANES_SINCE: u64 = 1_735_689_600;

/// A store that was made from a backup.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What it was made from.
    pub manifest: Manifest,
    /// The lane behind which the next start opens its own.
    pub lane: LaneId,
    /// What the check of the result found: nothing wrong.
    pub report: Report,
}

/// Checks a backup: its manifest, and every file's presence, size and sum. Writes nothing.
///
/// # Errors
/// [`Error::Refused`] names the file; [`Error::Io`] if one cannot be read.
pub fn check(backup: &Path) -> Result<Manifest, Error> {
    let manifest = read_manifest(backup)?;
    for file in &manifest.files {
        let path = backup.join(&file.path);
        let opened = open_plain(&path, file)?;
        let (size, sum) = sum_of(opened).map_err(with("read", &path))?;
        agrees(&path, file, size, sum)?;
    }
    Ok(manifest)
}

/// Makes `to`, which must be absent or empty, a data directory with the state of `backup`.
///
/// # Errors
/// [`Error::Refused`] for a damaged or incomplete backup, [`Error::Taken`], [`Error::NoSpace`]: nothing
/// was written. [`Error::Io`]: the target is unfinished and does not start. [`Error::Unsound`]: the
/// files are there and should not be used.
pub fn restore(backup: &Path, to: &Path, now: Timestamp) -> Result<Restored, Error> {
    let manifest = read_manifest(backup)?;
    let lane = jump(&manifest, now).ok_or_else(|| Error::Refused {
        path: backup.to_owned(),
        why: String::from("all lane numbers are used up"),
    })?;
    empty(to)?;
    check(backup)?;
    let parent = existing(to);
    let (needed, free) = (manifest.bytes(), room(&parent, SPARE)?);
    if needed > free {
        return Err(Error::NoSpace {
            path: parent,
            needed,
            free,
        });
    }
    if !to.exists() {
        fs::create_dir_all(&parent)
            .and_then(|()| make_dir(to))
            .map_err(with("make", to))?;
    }
    copy(&manifest, backup, to)?;
    finish(&manifest, lane, to)?;
    let report = verify(to)?;
    match report.problems.first() {
        None => Ok(Restored {
            manifest,
            lane,
            report,
        }),
        Some(first) => Err(Error::Unsound {
            path: to.to_owned(),
            first: first.clone(),
        }),
    }
}

/// The lane behind which a restored store goes on: seconds since 2025, or the highest lane it knows.
/// An instance opens a lane per start, far less than one a second, so its numbers stay below the
/// clock's, and so do those of every other store restored before. `None` when they are used up.
fn jump(manifest: &Manifest, now: Timestamp) -> Option<LaneId> {
    let seconds = |at: Timestamp| at.seconds().saturating_sub(LANES_SINCE);
    // The clock may be wrong: never behind the instant of the backup.
    let clock = seconds(now).max(seconds(manifest.created));
    let lane = u64::from(manifest.highest_lane).max(clock);
    let lane = u32::try_from(lane).ok()?;
    (lane < u32::MAX - 1).then_some(LaneId(lane))
}

pub(super) fn read_manifest(backup: &Path) -> Result<Manifest, Error> {
    let refuse = |why: String| Error::Refused {
        path: backup.to_owned(),
        why,
    };
    let path = backup.join(MANIFEST);
    let about = fs::symlink_metadata(&path)
        .map_err(|_| refuse(format!("it has no {MANIFEST}: it was never finished")))?;
    if !about.is_file() || about.len() > MAX_MANIFEST {
        return Err(refuse(format!("its {MANIFEST} is not a plain file")));
    }
    let bytes = fs::read(&path).map_err(with("read", &path))?;
    let manifest = Manifest::unseal(&bytes).map_err(|why| Error::Refused {
        path: path.clone(),
        why,
    })?;
    match manifest.store_format.refusal() {
        None => Ok(manifest),
        Some(why) => Err(refuse(why)),
    }
}

/// Opens a file of the backup; links and anything but plain files are refused.
fn open_plain(path: &Path, file: &FileEntry) -> Result<File, Error> {
    let refuse = |why: &str| Error::Refused {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let about = fs::symlink_metadata(path).map_err(|_| refuse("the file is missing"))?;
    if !about.is_file() {
        return Err(refuse("it is not a plain file"));
    }
    if about.len() != file.size {
        let why = format!("it has {} bytes instead of {}", about.len(), file.size);
        return Err(refuse(&why));
    }
    File::open(path).map_err(with("open", path))
}

fn agrees(path: &Path, file: &FileEntry, size: u64, sum: Sha256) -> Result<(), Error> {
    use sha2::Digest as _;
    let found = hex(sum.finalize().as_slice());
    if size == file.size && found == file.sha256 {
        return Ok(());
    }
    Err(Error::Refused {
        path: path.to_owned(),
        why: String::from("its checksum is wrong: the file is damaged"),
    })
}

/// Refuses a target that holds anything.
fn empty(to: &Path) -> Result<(), Error> {
    match fs::read_dir(to) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::Taken(to.to_owned())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(with("list", to)(error)),
    }
}

/// The nearest folder above `to` (or itself) that exists.
fn existing(to: &Path) -> PathBuf {
    let found = to.ancestors().find(|path| path.is_dir());
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Copies every file and sums it again on the way: it may have changed since it was checked.
fn copy(manifest: &Manifest, backup: &Path, to: &Path) -> Result<(), Error> {
    let mut dirs = std::collections::BTreeSet::new();
    for file in &manifest.files {
        let mut path = to.join(&file.path);
        while path.pop() && path != to {
            dirs.insert(path.clone());
        }
    }
    for dir in &dirs {
        make_dir(dir).map_err(with("make", dir))?;
    }
    // A key space without tables has the folder nevertheless.
    for dir in dirs.clone() {
        let tables = dir.join("tables");
        let is_key_space = dir.parent().is_some_and(|up| up.ends_with("db/keyspaces"));
        if is_key_space && dirs.insert(tables.clone()) {
            make_dir(&tables).map_err(with("make", &tables))?;
        }
    }
    for file in &manifest.files {
        let (from, path) = (backup.join(&file.path), to.join(&file.path));
        let opened = open_plain(&from, file)?;
        let copied = transfer(opened, &path, file.size).map_err(with("copy to", &path))?;
        agrees(&from, file, copied.0, copied.1)?;
    }
    // The database opens its lock and does not make it.
    let lock = to.join("db/lock");
    new_file(&lock)
        .and_then(|file| file.sync_all())
        .map_err(with("make", &lock))?;
    dirs.iter().rev().try_for_each(|dir| sync_dir(dir))
}

/// Mark, then marker: from here on it starts.
fn finish(manifest: &Manifest, lane: LaneId, to: &Path) -> Result<(), Error> {
    let directory = Directory::lock(to)?;
    MarkFile::create(&directory.mark(), &manifest.mark(lane))
        .map_err(with("write", &directory.mark()))?;
    sync_dir(to)?;
    directory
        .mark_as(manifest.store_format)
        .map_err(with("write the format marker in", to))?;
    to.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fjall::backup::manifest::Place;
    use crate::store::fjall::format::CURRENT;

    fn manifest(highest_lane: u32, created: u64) -> Manifest {
        Manifest {
            backup_format: 1,
            product: String::new(),
            store_format: CURRENT,
            instance: None,
            created: Timestamp::from_millis(created * 1000),
            batch: 1,
            hash: hex(&[0; 16]),
            tail: Place { lane: 1, seq: 0 },
            highest_lane,
            verify_from: 0,
            lanes: Vec::new(),
            files: Vec::new(),
        }
    }

    #[test]
    fn lanes_jump_to_the_clock_and_never_back() {
        let at = |seconds: u64| Timestamp::from_millis((LANES_SINCE + seconds) * 1000);
        let from = |highest, created| manifest(highest, LANES_SINCE + created);
        // Later restores of one backup, and restores of what was restored, are always ahead.
        assert_eq!(jump(&from(3, 100), at(200)), Some(LaneId(200)));
        assert_eq!(jump(&from(3, 100), at(201)), Some(LaneId(201)));
        assert_eq!(jump(&from(205, 210), at(300)), Some(LaneId(300)));
        // A clock that runs behind the backup, or before 2025.
        assert_eq!(jump(&from(3, 100), at(50)), Some(LaneId(100)));
        assert_eq!(jump(&from(7, 0), Timestamp::ZERO), Some(LaneId(7)));
        assert_eq!(jump(&from(3, 100), Timestamp::MAX), None);
        assert_eq!(jump(&from(u32::MAX, 0), at(1)), None);
    }
}
