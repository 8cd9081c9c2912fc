//! Copies of a store: taken while it is in use, checked, and turned into a store again.
//!
//! Owns: the form of a backup (`docs/adr/0103-backup-and-restore.md`). [`capture`] holds the files as
//! they are at one instant, [`mod@write`] copies and sums them and writes the [`manifest`] last,
//! [`mod@restore`] checks all of it before it writes a byte.
//!
//! Invariants: the manifest is the last file written and names every other one with size and SHA-256,
//! so a backup without a manifest is none; no file of a backup is ever changed by the store it was
//! taken from (only table files, which nobody changes, are shared by hard link). Elsewhere: who asks
//! for a backup and when (`crate::backup`), what a standing log is ([`crate::store::Standing`]).

use std::io;
use std::path::{Path, PathBuf};

use crate::store;

mod capture;
mod manifest;
mod restore;
mod write;

pub use capture::{Capture, Source};
pub use manifest::{FileEntry, MANIFEST, Manifest, Place};
pub use restore::{Restored, check, restore};
pub use write::{About, Written, offline};

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup is incomplete, damaged, or of a newer form. Nothing was written.
    #[error("{} is not a usable backup: {why}", .path.display())]
    Refused {
        /// The backup, or the file in it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The place it should go to is taken.
    #[error("{} exists already and is not empty", .0.display())]
    Taken(PathBuf),
    /// It would not fit.
    #[error("{needed} bytes are needed in {}, {free} are free beyond the reserve", .path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What would be copied.
        needed: u64,
        /// What may be used.
        free: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// The store itself.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The result of a restore does not pass the check of `posthaste verify`.
    #[error("the restored store in {} has problems: {first}", .path.display())]
    Unsound {
        /// The restored store.
        path: PathBuf,
        /// The first problem.
        first: String,
    },
}

/// Adds what was tried, and with which file.
fn with<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |cause| Error::Io {
        what,
        path: path.to_owned(),
        cause,
    }
}

/// Bytes that may still be written to the disk of `path` if `reserve` is to be left.
fn room(path: &Path, reserve: u64) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(path);
    let stat = stat.map_err(|error| with("ask for free space in", path)(error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(free.saturating_sub(reserve))
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> Result<(), Error> {
    std::fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(with("sync", path))
}

/// A folder that exists, with symbolic links resolved.
///
/// # Errors
/// [`Error::Io`] if it does not exist or is no folder.
pub fn folder(path: &Path) -> Result<PathBuf, Error> {
    let found = std::fs::canonicalize(path).and_then(|found| match found.is_dir() {
        true => Ok(found),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    found.map_err(with("use the folder", path))
}

/// The same, made if it is absent and its parent is there; readable for its owner only.
///
/// # Errors
/// As [`folder`]; [`Error::Io`] if it cannot be made.
pub fn make_folder(path: &Path) -> Result<PathBuf, Error> {
    match write::make_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(with("make the folder", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    folder(path)
}

/// When the newest complete backup in `dir` was taken. What cannot be read is no backup.
pub fn newest(dir: &Path) -> Option<crate::base::Timestamp> {
    let entries = std::fs::read_dir(dir).ok()?;
    let manifests = entries.filter_map(|entry| restore::read_manifest(&entry.ok()?.path()).ok());
    manifests.map(|manifest| manifest.created).max()
}
