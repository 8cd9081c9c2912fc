//! The files of a store as they are at one instant, held while they are copied.
//!
//! The order is what makes it right (`fjall` deletes a journal only after everything in it stands in
//! tables): first the journals are opened, then per key space its version is pinned, then, while the
//! writer stands still, journals that are new since are opened. Whatever a pinned version lacks stands
//! in a journal that is held. Open files outlive their names, pinned versions keep their tables, so
//! compaction and flushes go on beside the copying and a killed backup leaves nothing behind.
//!
//! | file | may change | held by |
//! |---|---|---|
//! | `db/N.jnl` | grows at its end; cut by a later open | open file, copied up to the last commit |
//! | `db/keyspaces/K/tables/*` | never | the version, linked or copied |
//! | `db/keyspaces/K/current`, `vN` | replaced; `vN` may be written over after a crash | read at once |
//! | `db/version` | never | read at once |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::fjall::{AbstractTree as _, Keyspace};

use super::{Error, with};
use crate::store;
use crate::store::fjall::spaces::{Space, Spaces};

/// How often a version is read again that changes under the hand; a change takes five fsyncs.
const TRIES: u32 = 200;
/// Between two tries.
const MOMENT: Duration = Duration::from_millis(5);

/// An open store of which backups can be taken, beside its writer and readers. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    spaces: Spaces,
    database: PathBuf,
}

/// Files that are held. Dropping it lets them go.
pub struct Capture {
    pub(super) database: PathBuf,
    /// Small files, read already: name within `db/`, content.
    pub(super) small: Vec<(String, Vec<u8>)>,
    /// Table files: name within `db/`, bytes.
    pub(super) tables: Vec<(String, u64)>,
    /// Journals by number.
    pub(super) journals: BTreeMap<u64, File>,
    /// Versions; a table's file is not deleted while one that names it is held.
    _pins: Vec<Box<dyn Send>>,
}

impl Source {
    pub(in crate::store::fjall) fn new(spaces: Spaces, database: PathBuf) -> Self {
        Self { spaces, database }
    }

    /// Holds everything but what is written from now on. [`Capture::still`] completes it.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Store`] if tables change without a pause.
    pub fn begin(&self) -> Result<Capture, Error> {
        let mut capture = Capture {
            database: self.database.clone(),
            small: Vec::new(),
            tables: Vec::new(),
            journals: BTreeMap::new(),
            _pins: Vec::new(),
        };
        capture.hold_journals()?;
        capture.read_small("version")?;
        capture.hold_names()?;
        for space in Space::ALL {
            capture.hold_tables(self.spaces.of(space))?;
        }
        Ok(capture)
    }
}

impl Capture {
    /// Completes the capture. Called while the writer stands still; takes the time of a directory
    /// listing. False if journals came and went since [`Source::begin`]: begin again.
    ///
    /// # Errors
    /// [`Error::Io`] if a journal cannot be opened.
    pub fn still(&mut self) -> Result<bool, Error> {
        let known = self.journals.last_key_value().map_or(0, |(last, _)| *last);
        for number in journals(&self.database)? {
            if (number > known || self.journals.is_empty()) && !self.hold_journal(number)? {
                return Ok(false);
            }
        }
        let mut numbers = self.journals.keys();
        let mut expected = numbers.next().map(|first| first + 1);
        for number in numbers {
            if expected != Some(*number) {
                return Ok(false);
            }
            expected = Some(number + 1);
        }
        Ok(expected.is_some())
    }

    /// Newest first: they are deleted oldest first, so one that is gone ends the list without a gap.
    fn hold_journals(&mut self) -> Result<(), Error> {
        for number in journals(&self.database)?.into_iter().rev() {
            if !self.hold_journal(number)? {
                break;
            }
        }
        Ok(())
    }

    /// False if it is gone.
    fn hold_journal(&mut self, number: u64) -> Result<bool, Error> {
        let path = self.database.join(format!("{number}.jnl"));
        match File::open(&path) {
            Ok(file) => {
                self.journals.insert(number, file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(with("open", &path)(error)),
        }
    }

    fn read_small(&mut self, name: &str) -> Result<(), Error> {
        let path = self.database.join(name);
        let bytes = fs::read(&path).map_err(with("read", &path))?;
        self.small.push((name.to_owned(), bytes));
        Ok(())
    }

    /// Pins the newest version of a key space whose files are on the disk.
    fn hold_tables(&mut self, keyspace: &Keyspace) -> Result<(), Error> {
        for _ in 0..TRIES {
            let version = keyspace.tree.current_version();
            if version.blob_file_count() > 0 {
                return Err(unexpected(
                    keyspace.path(),
                    "has files that no release writes",
                ));
            }
            let folder = self.folder(keyspace.path())?;
            if let Some(files) = read_version(keyspace.path(), Some(version.id()))? {
                for (name, bytes) in files {
                    self.small.push((format!("{folder}/{name}"), bytes));
                }
                for table in version.iter_tables() {
                    let name = format!("{folder}/tables/{}", table.id());
                    let path = self.database.join(&name);
                    let about = fs::metadata(&path).map_err(with("look at", &path))?;
                    self.tables.push((name, about.len()));
                }
                self._pins.push(Box::new(version));
                return Ok(());
            }
            // The version on the disk is one ahead of the one in memory for a moment.
            std::thread::park_timeout(MOMENT);
        }
        Err(unexpected(keyspace.path(), "changes without a pause"))
    }

    /// Names and options of the key spaces: written when the store was made and never again.
    fn hold_names(&mut self) -> Result<(), Error> {
        let folder = self.database.join("keyspaces").join("0");
        let gone = || unexpected(&folder, "changes although no key space is made");
        let files = read_version(&folder, None)?.ok_or_else(gone)?;
        for (name, bytes) in files {
            self.small.push((format!("keyspaces/0/{name}"), bytes));
        }
        let tables = folder.join("tables");
        for entry in fs::read_dir(&tables).map_err(with("list", &tables))? {
            let entry = entry.map_err(with("list", &tables))?;
            let about = entry.metadata().map_err(with("look at", &tables))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            self.tables
                .push((format!("keyspaces/0/tables/{name}"), about.len()));
        }
        Ok(())
    }

    /// The name of a key space's folder within `db/`.
    fn folder(&self, path: &Path) -> Result<String, Error> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| self.database.join("keyspaces").join(name).is_dir());
        name.map(|name| format!("keyspaces/{name}"))
            .ok_or_else(|| unexpected(path, "stands outside of the database"))
    }
}

/// Numbers of the journals, oldest first.
fn journals(database: &Path) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(database).map_err(with("list", database))? {
        let path = entry.map_err(with("list", database))?.path();
        let is_journal = path.extension().is_some_and(|ext| ext == "jnl");
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        found.extend(number.filter(|_| is_journal));
    }
    found.sort_unstable();
    Ok(found)
}

type Files = [(String, Vec<u8>); 2];

/// `current` and the version file it names; `None` if that is not the wanted version, or if it was
/// replaced between the two reads.
fn read_version(folder: &Path, wanted: Option<u64>) -> Result<Option<Files>, Error> {
    let path = folder.join("current");
    let current = fs::read(&path).map_err(with("read", &path))?;
    let number = current.first_chunk::<8>().copied().map(u64::from_le_bytes);
    let Some(number) = number else {
        return Err(unexpected(&path, "is too short"));
    };
    if wanted.is_some_and(|wanted| wanted != number) {
        return Ok(None);
    }
    let name = format!("v{number}");
    let path = folder.join(&name);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some([(String::from("current"), current), (name, bytes)])),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(with("read", &path)(error)),
    }
}

fn unexpected(path: &Path, what: &str) -> Error {
    Error::Store(store::Error::Unavailable(format!(
        "{} {what}",
        path.display()
    )))
}
