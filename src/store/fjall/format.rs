//! The data directory: its lock, its format marker, the names of its files.
//!
//! Owns: the layout of the directory. A directory written by a newer format is refused before
//! anything in it is touched (`reliability.md` D9); a second process is refused by the lock, which
//! the kernel releases when its owner dies.
//!
//! ```text
//! lock                held while a process uses the store
//! format              what is needed to read it
//! hwm                 the high-water mark
//! db/                 the database
//! aside-N-OFFSET.jnl  what was cut off the end of journal N at OFFSET
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::{Damage, Error};

use super::hwm::MarkFile;

/// What this code writes.
pub(super) const CURRENT: Format = Format {
    product_format: 1,
    fjall_format: 3,
    min_reader: 1,
};

/// The marker file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    /// Version of keys and records.
    product_format: u32,
    /// Version of the database's own files.
    fjall_format: u32,
    /// The oldest `product_format` whose code may read this.
    min_reader: u32,
}

impl Format {
    /// Why this version must not read such a store, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        let readable =
            self.min_reader <= CURRENT.product_format && self.fjall_format == CURRENT.fjall_format;
        (!readable).then(|| {
            format!(
                "the store was written in format {} (database format {}), this version reads up to {} ({})",
                self.product_format,
                self.fjall_format,
                CURRENT.product_format,
                CURRENT.fjall_format
            )
        })
    }
}

/// Whether another process holds the lock of the directory.
pub(super) fn is_locked(path: &Path) -> bool {
    let lock = File::options().write(true).open(path.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// A data directory, locked.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes the directory if it is not there and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        let fault = |what: &str, error: &io::Error| {
            Error::Unavailable(format!("{what} {}: {error}", path.display()))
        };
        if !path.is_dir() {
            let made = fs::create_dir_all(path).and_then(|()| sync_parent(path));
            made.map_err(|error| fault("cannot make", &error))?;
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|error| fault("cannot open the lock of", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Unavailable(format!(
                "another process uses {}",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(fault("cannot lock", &error)),
        }
    }

    /// Whether the file system still takes writes, asked after a sync that claims success.
    ///
    /// ext4 becomes read-only after an error of its own (`errors=remount-ro`). A sync that was under way
    /// then may claim success for data whose place on disk was never noted (seen on 6.18 with
    /// `loadtest torture --scenario read-only`, one acknowledged message in some 5,000). From then on it
    /// refuses every write, so one byte written to the lock file, and not synced, tells.
    ///
    /// # Errors
    /// What the write said, or `EROFS`.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.lock.write_all_at(&[0], 0)?;
        let stat = rustix::fs::fstatvfs(&self.lock)?;
        if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        Ok(())
    }

    /// Bytes that are free on its file system for who is not root.
    pub(super) fn free(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(&self.path);
        let stat = stat.map_err(|error| super::on_disk("ask for free space", &error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    pub(super) fn mark(&self) -> PathBuf {
        self.path.join("hwm")
    }

    fn marker(&self) -> PathBuf {
        self.path.join("format")
    }

    /// Whether nothing was ever stored here: the database is made last, after a whole mark. Marker
    /// and mark may be half written if the first start was cut off.
    pub(super) fn is_fresh(&self) -> bool {
        let marker = fs::read(self.marker()).ok();
        let marker = marker.and_then(|text| serde_json::from_slice::<Format>(&text).ok());
        !self.database().exists()
            && marker.is_none_or(|found| found == CURRENT)
            && !matches!(MarkFile::peek(&self.mark()), Ok(Some(_)))
    }

    /// Removes a database that was never finished.
    pub(super) fn remove_database(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.database()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.sync(),
        }
    }

    /// Checks the marker; writes nothing.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |found: String, remedy: &str| {
            Err(Error::Regressed(Box::new(Damage {
                found,
                place: Some(self.marker().display().to_string()),
                lane: None,
                remedy: remedy.to_owned(),
            })))
        };
        let text = match fs::read(self.marker()) {
            Ok(text) => text,
            Err(error) => {
                let found = format!("the format marker cannot be read: {error}");
                return refuse(found, "Restore a backup");
            }
        };
        let Ok(found) = serde_json::from_slice::<Format>(&text) else {
            return refuse(
                String::from("the format marker is damaged"),
                "Restore a backup",
            );
        };
        match found.refusal() {
            None => Ok(()),
            Some(found) => refuse(found, "Use the newer version; nothing was touched"),
        }
    }

    /// Writes the marker of a new store.
    pub(super) fn mark_format(&self) -> io::Result<()> {
        self.mark_as(CURRENT)
    }

    /// Writes the marker of a store that was written in `format`.
    pub(super) fn mark_as(&self, format: Format) -> io::Result<()> {
        let mut file = File::create(self.marker())?;
        file.write_all(serde_json::to_string(&format)?.as_bytes())?;
        file.sync_all()?;
        self.sync()
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Makes the name of a new directory durable: what is in it is worth nothing without.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
