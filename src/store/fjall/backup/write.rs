//! Copies what a [`Capture`] holds, sums it, and writes the manifest last.
//!
//! Runs beside the writer, on a thread of its own. Everything is on stable storage before the
//! manifest is written, and the manifest before the call returns.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::capture::{Capture, Source};
use super::manifest::{BACKUP_FORMAT, FileEntry, MANIFEST, Manifest, hex};
use super::{Error, folder, room, sync_dir, with};
use crate::base::Timestamp;
use crate::config::{HighWater, Storage};
use crate::store::Standing;
use crate::store::fjall::format::{CURRENT, Directory};
use crate::store::fjall::hwm::MarkFile;
use crate::store::fjall::spaces::{Space, Spaces, unreadable};
use crate::store::fjall::{journal, keys, on_disk, open_failed, preflight, record, recover};
use crate::store::{self, ConfigKind};

/// Read and written at a time.
const CHUNK: usize = 256 * 1024;
/// For manifest, directories and small files.
const SMALL: u64 = 1 << 20;

/// What a manifest says that the files do not.
#[derive(Debug, Clone)]
pub struct About {
    /// Version of the binary.
    pub product: String,
    /// The gateway it is taken from.
    pub instance: Option<String>,
    /// When the writer stood still.
    pub created: Timestamp,
}

/// A backup that is complete.
#[derive(Debug, Clone)]
pub struct Written {
    /// What it holds.
    pub manifest: Manifest,
    /// Bytes that were copied; the others are shared with the store by hard link.
    pub copied: u64,
}

impl Capture {
    /// Checks that the copy fits beside `reserve` bytes that must stay free. `parent` is the folder
    /// in which the backup will be made.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn fits(&self, parent: &Path, reserve: u64) -> Result<(), Error> {
        let needed = self.needed(parent)?;
        let free = room(parent, reserve)?;
        if needed > free {
            return Err(Error::NoSpace {
                path: parent.to_owned(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// Bytes that a copy takes: journals always, tables only on another file system.
    fn needed(&self, parent: &Path) -> Result<u64, Error> {
        let mut bytes = SMALL;
        for file in self.journals.values() {
            let about = file.metadata();
            let about = about.map_err(with("look at a journal in", &self.database))?;
            // A journal is made longer than it is; its blocks tell what is in it.
            bytes += about.len().min(about.blocks().saturating_mul(512));
        }
        let here = fs::metadata(&self.database).map_err(with("look at", &self.database))?;
        let there = fs::metadata(parent).map_err(with("look at", parent))?;
        if here.dev() != there.dev() {
            bytes += self.tables.iter().map(|(_, size)| size).sum::<u64>();
        }
        Ok(bytes)
    }

    /// Writes the backup to `to`, which must not exist. What was begun is taken away again if it
    /// fails; if the process dies there is no manifest.
    ///
    /// # Errors
    /// [`Error::Taken`], [`Error::Io`], or [`Error::Refused`] if a journal does not hold what the
    /// store stands for.
    pub fn write(self, standing: &Standing, to: &Path, about: &About) -> Result<Written, Error> {
        make_dir(to).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Taken(to.to_owned()),
            _ => with("make", to)(error),
        })?;
        let written = self.write_all(standing, to, about);
        if written.is_err()
            && let Err(error) = fs::remove_dir_all(to)
        {
            tracing::warn!(%error, path = %to.display(), "an unfinished backup cannot be removed");
        }
        written
    }

    fn write_all(&self, standing: &Standing, to: &Path, about: &About) -> Result<Written, Error> {
        let mut copy = Copy {
            to,
            files: Vec::new(),
            copied: 0,
        };
        copy.dirs(self)?;
        for (name, bytes) in &self.small {
            copy.bytes(name, bytes)?;
        }
        let newest = self.journals.keys().next_back().copied();
        for (number, file) in &self.journals {
            if Some(*number) == newest {
                copy.newest_journal(*number, file, standing)?;
            } else {
                copy.sealed_journal(*number, file)?;
            }
        }
        for (name, size) in &self.tables {
            copy.table(&self.database, name, *size)?;
        }
        copy.sync_dirs()?;
        let (tail, lanes) = Manifest::position(standing);
        let manifest = Manifest {
            backup_format: BACKUP_FORMAT,
            product: about.product.clone(),
            store_format: CURRENT,
            instance: about.instance.clone(),
            created: about.created,
            batch: standing.batch,
            hash: hex(&standing.hash),
            tail,
            highest_lane: standing.highest_lane.0,
            verify_from: standing.verify_from,
            lanes,
            files: copy.files,
        };
        let copied = copy.copied;
        put_manifest(to, &manifest)?;
        Ok(Written { manifest, copied })
    }
}

/// A copy under way.
struct Copy<'a> {
    to: &'a Path,
    files: Vec<FileEntry>,
    copied: u64,
}

impl Copy<'_> {
    fn dirs(&self, capture: &Capture) -> Result<(), Error> {
        let made = |path: &Path| make_dir(path).map_err(with("make", path));
        made(&self.to.join("db"))?;
        made(&self.to.join("db/keyspaces"))?;
        for (name, _) in &capture.small {
            if let Some(folder) = name.strip_suffix("/current") {
                made(&self.to.join("db").join(folder))?;
                made(&self.to.join("db").join(folder).join("tables"))?;
            }
        }
        Ok(())
    }

    fn note(&mut self, name: &str, size: u64, sum: Sha256) {
        self.files.push(FileEntry {
            path: format!("db/{name}"),
            size,
            sha256: hex(sum.finalize().as_slice()),
        });
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.to.join("db").join(name);
        let put = |path: &Path| {
            let mut file = new_file(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        put(&path).map_err(with("write", &path))?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.copied += size;
        self.note(name, size, Sha256::new_with_prefix(bytes));
        Ok(())
    }

    /// The one that was written to last: up to the last commit and not a byte further.
    fn newest_journal(
        &mut self,
        number: u64,
        file: &File,
        standing: &Standing,
    ) -> Result<(), Error> {
        let name = format!("{number}.jnl");
        let read = preflight::read_journal(file).map_err(with("read", Path::new(&name)))?;
        let Some(end) = journal::end_of(&read, standing.batch) else {
            return Err(Error::Refused {
                path: self.to.to_owned(),
                why: format!("the journal {name} is damaged before its end"),
            });
        };
        self.bytes(&name, read.get(..end).unwrap_or_default())
    }

    /// One that nobody writes to any more.
    fn sealed_journal(&mut self, number: u64, file: &File) -> Result<(), Error> {
        let name = format!("{number}.jnl");
        let path = self.to.join("db").join(&name);
        let about = file.metadata().map_err(with("look at", &path))?;
        let (size, sum) = transfer(file, &path, about.len()).map_err(with("copy to", &path))?;
        self.copied += size;
        self.note(&name, size, sum);
        Ok(())
    }

    fn table(&mut self, database: &Path, name: &str, size: u64) -> Result<(), Error> {
        let (from, path) = (database.join(name), self.to.join("db").join(name));
        let opened = |path: &Path| File::open(path).map_err(with("open", path));
        let (size, sum) = if fs::hard_link(&from, &path).is_ok() {
            let file = opened(&path)?;
            let summed = sum_of(&file).and_then(|found| file.sync_all().map(|()| found));
            summed.map_err(with("read", &path))?
        } else {
            // Another file system, or one without links: then it is a copy.
            let copied = transfer(opened(&from)?, &path, size).map_err(with("copy to", &path))?;
            self.copied += copied.0;
            copied
        };
        self.note(name, size, sum);
        Ok(())
    }

    fn sync_dirs(&self) -> Result<(), Error> {
        let mut dirs = std::collections::BTreeSet::new();
        for file in &self.files {
            let mut path = self.to.join(&file.path);
            while path.pop() && path.starts_with(self.to) {
                dirs.insert(path.clone());
            }
        }
        dirs.iter().try_for_each(|dir| sync_dir(dir))
    }
}

/// Makes the backup one: the manifest under another name first, so that it is whole or absent.
fn put_manifest(to: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = to.join(MANIFEST);
    let unfinished = to.join("manifest.unfinished");
    let put = || {
        let mut file = new_file(&unfinished)?;
        file.write_all(&manifest.seal()?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    put().map_err(with("write", &path))?;
    sync_dir(to)?;
    // The name of the backup itself.
    sync_dir(&parent_of(to)?)
}

/// Takes a backup of the store in `dir`, which no process uses. It is opened and checked as by a
/// start, but no lane is begun.
///
/// # Errors
/// [`Error::Store`] if another process uses it, or if it would not start; else as [`Capture::write`].
pub fn offline(dir: &Path, to: &Path, product: &str, now: Timestamp) -> Result<Written, Error> {
    let directory = Directory::lock(dir)?;
    directory.check()?;
    let Ok(Some(mark)) = MarkFile::peek(&directory.mark()) else {
        let why = "the high-water mark cannot be read; `posthaste verify` says more";
        return Err(store::Error::Unavailable(why.to_owned()).into());
    };
    let journals = preflight::look(&directory.database())?;
    journals.prepare(&directory.path, &mark, HighWater::Interval)?;
    let options = Storage {
        dir: dir.to_owned(),
        ..Storage::default()
    };
    let spaces =
        Spaces::open(&directory.database(), &options).map_err(|error| open_failed(&error))?;
    let found = recover::check(&spaces, &mark)?;
    spaces
        .db
        .persist(::fjall::PersistMode::SyncAll)
        .map_err(|error| store::Error::Doubtful(error.to_string()))?;
    let standing = Standing {
        batch: found.batch.number,
        hash: found.batch.hash,
        tail: found.batch.tail,
        highest_lane: found.highest_lane.max(mark.highest_lane),
        verify_from: mark.verify_from,
        lanes: found
            .lanes
            .iter()
            .filter(|(_, row)| row.last > 0 && !row.is_expired())
            .map(|(lane, row)| (*lane, row.last))
            .collect(),
    };
    let about = About {
        product: product.to_owned(),
        instance: instance(&spaces)?,
        created: now,
    };
    let source = Source::new(spaces, directory.database());
    let mut capture = source.begin()?;
    if !capture.still()? {
        let why = String::from("the journals change although nobody writes");
        return Err(store::Error::Unavailable(why).into());
    }
    let parent = parent_of(to)?;
    capture.fits(&parent, 0)?;
    let written = capture.write(&standing, to, &about);
    drop(source);
    directory
        .sync()
        .map_err(|error| on_disk("sync the directory", &error))?;
    written
}

/// The gateway's id among the configuration objects.
fn instance(spaces: &Spaces) -> Result<Option<String>, Error> {
    let key = keys::object(ConfigKind::Instance, b"id");
    let row = spaces.of(Space::State).get(&key);
    let row = row.map_err(|error| unreadable(&error))?;
    let Some(row) = row else { return Ok(None) };
    let value = record::read_object(&key, &row.into())?;
    Ok(serde_json::from_slice(&value).ok())
}

/// The folder that `path` is to be made in.
fn parent_of(path: &Path) -> Result<PathBuf, Error> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    folder(parent.unwrap_or_else(|| Path::new(".")))
}

/// Readable for its owner only: secrets of endpoints are in it.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// The same for a file; never follows or replaces what is there.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)
}

/// Copies at most `limit` bytes into a new file, durably; answers how many and their sum.
pub(super) fn transfer(from: impl Read, path: &Path, limit: u64) -> io::Result<(u64, Sha256)> {
    let mut to = new_file(path)?;
    let done = pump(from.take(limit), |chunk| to.write_all(chunk))?;
    to.sync_all()?;
    Ok(done)
}

/// Length and sum of a file.
pub(super) fn sum_of(from: impl Read) -> io::Result<(u64, Sha256)> {
    pump(from, |_| Ok(()))
}

fn pump(
    mut from: impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, Sha256)> {
    let mut chunk = vec![0; CHUNK];
    let mut sum = Sha256::new();
    let mut size = 0;
    loop {
        let n = from.read(&mut chunk)?;
        let read = chunk.get(..n).unwrap_or_default();
        if read.is_empty() {
            return Ok((size, sum));
        }
        sum.update(read);
        each(read)?;
        size += u64::try_from(n).unwrap_or(0);
    }
}
