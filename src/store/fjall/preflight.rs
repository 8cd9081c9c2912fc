//! Looks at the journals before the database may open them.
//!
//! Opening truncates what it cannot read, without a word (`reliability.md` F1). So: damage in the
//! middle refuses the start and leaves every file as found; a torn end, which a power cut may leave,
//! is copied aside and cut. What counts as acknowledged: every synced batch, and every batch the mark
//! names. Batches nobody waited for (settlements) may be lost with the power and are cut as well.
//!
//! Invariant: nothing is written before all journals are judged. Elsewhere: the file format
//! ([`super::journal`]), what an open checks afterwards ([`super::recover`]).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::config::HighWater;
use crate::model::Position;
use crate::store::{Damage, Error};

use super::hwm::Mark;
use super::journal::{Rest, Scan, scan};
use super::{on_disk, remedy};

/// All journals of a database, oldest first.
#[derive(Debug)]
pub(super) struct Journals {
    found: Vec<Journal>,
    exists: bool,
}

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    number: u64,
    scan: Scan,
}

/// Reads every journal in `dir`. Changes nothing.
pub(super) fn look(dir: &Path) -> Result<Journals, Error> {
    let read = || -> io::Result<Vec<Journal>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let is_journal = path.extension().is_some_and(|ext| ext == "jnl");
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            if let Some(number) = number.filter(|_| is_journal) {
                let scan = scan(&without_end_of_zeros(&path)?);
                found.push(Journal { path, number, scan });
            }
        }
        found.sort_unstable_by_key(|journal| journal.number);
        Ok(found)
    };
    match read() {
        Ok(found) => Ok(Journals {
            found,
            exists: true,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Journals {
            found: Vec::new(),
            exists: false,
        }),
        Err(error) => Err(on_disk("read the journals", &error)),
    }
}

/// What a file holds but for the zeros at its end: journals are made 64 MiB long and mostly holes.
fn without_end_of_zeros(path: &Path) -> io::Result<Vec<u8>> {
    const CHUNK: usize = 256 * 1024;
    let mut file = File::open(path)?;
    let zeros = vec![0; CHUNK];
    let mut chunk = vec![0; CHUNK];
    let mut bytes = Vec::new();
    let mut held_back = 0;
    loop {
        let n = file.read(&mut chunk)?;
        let read = chunk.get(..n).unwrap_or_default();
        if read.is_empty() {
            return Ok(bytes);
        }
        if zeros.starts_with(read) {
            held_back += n;
        } else {
            bytes.resize(bytes.len() + held_back, 0);
            held_back = 0;
            bytes.extend_from_slice(read);
        }
    }
}

impl Journals {
    /// Whether there is no journal at all: only a store never opened has none.
    pub(super) const fn is_missing(&self) -> bool {
        !self.exists || self.found.is_empty()
    }

    /// The end of the log as the newest good batch knows it.
    pub(super) fn tail(&self) -> Position {
        let newest = self
            .found
            .iter()
            .rev()
            .find_map(|journal| journal.scan.last);
        newest.map_or(Position::START, |last| last.tail)
    }

    /// Cuts the first damaged journal behind its last good batch, or before a gap, and moves later
    /// journals to `kept`, which holds copies of all of them already.
    pub(super) fn cut_at_damage(&self, kept: &Path) -> io::Result<()> {
        let mut before: Option<u64> = None;
        let mut damaged = false;
        for journal in &self.found {
            let scan = &journal.scan;
            let follows = match (before, scan.first) {
                (Some(before), Some(first)) => first.number == before.saturating_add(1),
                _ => true,
            };
            if damaged || !follows {
                damaged = true;
                fs::remove_file(&journal.path)?;
                continue;
            }
            before = scan.last.map(|last| last.number).or(before);
            if let Some((gap, _)) = scan.gap {
                damaged = true;
                journal.shorten(gap)?;
            } else if scan.rest != Rest::Clean {
                damaged = true;
                journal.shorten(scan.good_end)?;
            }
        }
        File::open(kept)?.sync_all()
    }

    /// Refuses the start, or makes the newest journal fit to open. Copies go to `aside`.
    pub(super) fn prepare(
        &self,
        aside: &Path,
        mark: &Mark,
        high_water: HighWater,
    ) -> Result<(), Error> {
        self.judge(mark, high_water)?;
        let Some(last) = self.found.last() else {
            return Ok(());
        };
        if last.scan.rest == Rest::Clean {
            return Ok(());
        }
        tracing::warn!(
            journal = %last.path.display(),
            offset = last.scan.good_end,
            "an unfinished batch at the end of the journal is copied aside and cut"
        );
        cut(last, aside).map_err(|error| on_disk("cut the torn end of a journal", &error))
    }

    /// Whether the journals may be opened, given what was acknowledged.
    pub(super) fn judge(&self, mark: &Mark, high_water: HighWater) -> Result<(), Error> {
        let mut before: Option<u64> = None;
        for (n, journal) in self.found.iter().enumerate() {
            let scan = &journal.scan;
            if let Some((at, missing)) = scan.gap {
                let found = format!("batch {missing} is missing in a journal");
                return Err(journal.refuse(found, at, mark));
            }
            if let (Some(before), Some(first)) = (before, scan.first)
                && first.number != before.saturating_add(1)
            {
                let found = format!("the batches from {} on are missing", before + 1);
                return Err(journal.refuse(found, 0, mark));
            }
            before = scan.last.map(|last| last.number).or(before);
            let newest = n + 1 == self.found.len();
            if scan.rest != Rest::Clean && !newest {
                let found = String::from("a finished journal is damaged");
                return Err(journal.refuse(found, scan.good_end, mark));
            }
            if newest {
                journal.judge_end(before, mark, high_water)?;
            }
        }
        Ok(())
    }
}

impl Journal {
    fn shorten(&self, end: usize) -> io::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.set_len(u64::try_from(end).unwrap_or(u64::MAX))?;
        file.sync_all()
    }

    fn judge_end(
        &self,
        last: Option<u64>,
        mark: &Mark,
        high_water: HighWater,
    ) -> Result<(), Error> {
        // Written with every commit, the mark alone knows what was acknowledged.
        let strict = mark.every_commit && high_water == HighWater::EveryCommit;
        let acknowledged = mark.batch > last.unwrap_or(0);
        let found = match self.scan.rest {
            Rest::Clean => return Ok(()),
            Rest::Middle {
                at,
                batches,
                synced,
            } if acknowledged || (synced && !strict) => format!(
                "the journal is damaged in the middle: {batches} good batches follow at offset {at}"
            ),
            Rest::BadSum { lazy } if acknowledged || !(lazy || strict) => String::from(
                "the last batch of the journal is damaged and may have been acknowledged",
            ),
            Rest::Torn if acknowledged => {
                String::from("the journal ends before what was acknowledged")
            }
            Rest::Middle { .. } | Rest::BadSum { .. } | Rest::Torn => return Ok(()),
        };
        Err(self.refuse(found, self.scan.good_end, mark))
    }

    fn refuse(&self, found: String, at: usize, mark: &Mark) -> Error {
        let tail = self.scan.last.map(|last| last.tail);
        let lane = tail.map(|tail| {
            let acked = mark.lanes.get(&tail.lane).copied().unwrap_or(tail.seq);
            (tail.lane, tail.seq, acked)
        });
        Error::Regressed(Box::new(Damage {
            found,
            place: Some(format!("{}, offset {at}", self.path.display())),
            lane,
            remedy: remedy(tail.map(|tail| tail.lane), tail.map(|tail| tail.seq)),
        }))
    }
}

/// Copies the whole journal aside, then cuts it behind its last good batch.
fn cut(journal: &Journal, aside: &Path) -> io::Result<()> {
    let name = format!("aside-{}-{}.jnl", journal.number, journal.scan.good_end);
    let copy = aside.join(name);
    fs::copy(&journal.path, &copy)?;
    File::open(&copy)?.sync_all()?;
    File::open(aside)?.sync_all()?;
    journal.shorten(journal.scan.good_end)
}
