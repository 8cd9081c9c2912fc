//! Looks at the journals before the database may open them.
//!
//! Opening truncates what it cannot read, without a word (`reliability.md` F1). So: damage in the
//! middle refuses the start and leaves every file as found; a torn end, which a power cut may leave,
//! is moved aside. What counts as acknowledged: every synced batch, and every batch the mark
//! names. Batches nobody waited for (settlements) may be lost with the power and are cut as well.
//!
//! Invariant: nothing is written before all journals are judged. Elsewhere: the file format
//! ([`super::journal`]), what an open checks afterwards ([`super::recover`]).

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use crate::base::broken;
use crate::config::HighWater;
use crate::model::Position;
use crate::store::{Damage, Error};

use super::hwm::Mark;
use super::journal::{Gap, Rest, Scan, scan};
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
                let scan = scan(&read_journal(File::open(&path)?)?);
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
pub(super) fn read_journal(mut file: impl Read) -> io::Result<Vec<u8>> {
    const CHUNK: usize = 256 * 1024;
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

    /// Whether no journal holds a good batch.
    pub(super) fn hold_nothing(&self) -> bool {
        self.found.iter().all(|journal| {
            journal.scan.batches == 0 && !matches!(journal.scan.rest, Rest::Middle { .. })
        })
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
    pub(super) fn cut_at_damage(&self, kept: &Path, verify_from: u64) -> io::Result<()> {
        let mut before: Option<u64> = None;
        let mut damaged = false;
        for journal in &self.found {
            let scan = &journal.scan;
            if damaged {
                fs::remove_file(&journal.path)?;
                continue;
            }
            if let Some(gap) = journal.gap(before, verify_from) {
                damaged = true;
                journal.shorten(gap.at)?;
            } else if scan.rest != Rest::Clean {
                damaged = true;
                journal.shorten(scan.good_end)?;
            }
            before = scan.last.map(|last| last.number).or(before);
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
        if broken::SKIP_CHECKSUM {
            return Ok(());
        }
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
            if let Some(gap) = journal.gap(before, mark.verify_from) {
                let found = format!(
                    "the batches from {} to {} are missing",
                    gap.missing,
                    gap.found.saturating_sub(1)
                );
                return Err(journal.refuse(found, gap.at, mark));
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
    /// The first place where batches are missing, in it or before it, unless that was accepted.
    fn gap(&self, before: Option<u64>, verify_from: u64) -> Option<Gap> {
        let first = self.scan.first.map(|first| first.number);
        let missing = before.map(|before| before.saturating_add(1));
        let ahead = missing.zip(first).map(|(missing, found)| Gap {
            at: 0,
            missing,
            found,
        });
        let ahead = ahead.filter(|gap| gap.missing != gap.found);
        let mut gaps = ahead.into_iter().chain(self.scan.gaps.iter().copied());
        gaps.find(|gap| gap.found > verify_from)
    }

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
        // Without a good batch in any journal this cannot be told. A torn end is then left to the
        // check after opening, which also sees the tables; anything else is refused.
        let beyond_mark = last.map(|last| mark.batch <= last);
        let acknowledged = beyond_mark != Some(true);
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
            Rest::Torn if beyond_mark == Some(false) => {
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

/// Copies what stands behind the last good batch aside, then cuts it off. Not the whole journal:
/// after a disk ran full its 64 MiB would fill the disk again.
fn cut(journal: &Journal, aside: &Path) -> io::Result<()> {
    let end = journal.scan.good_end;
    let bytes = read_journal(File::open(&journal.path)?)?;
    let name = format!("aside-{}-{end}.jnl", journal.number);
    let mut copy = File::create(aside.join(name))?;
    copy.write_all(bytes.get(end..).unwrap_or_default())?;
    copy.sync_all()?;
    File::open(aside)?.sync_all()?;
    journal.shorten(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fjall::batch::BatchRecord;

    fn scanned(numbers: std::ops::RangeInclusive<u64>, rest: Rest) -> Scan {
        let record = |number| {
            let genesis = BatchRecord::GENESIS;
            Some(BatchRecord { number, ..genesis })
        };
        if numbers.is_empty() {
            return Scan {
                rest,
                ..Scan::default()
            };
        }
        Scan {
            first: record(*numbers.start()),
            last: record(*numbers.end()),
            rest,
            ..Scan::default()
        }
    }

    #[expect(clippy::reversed_empty_ranges, reason = "a journal without batches")]
    const NONE: std::ops::RangeInclusive<u64> = 1..=0;

    fn judge(scans: Vec<Scan>, mark: &Mark) -> bool {
        let journal = |(number, scan)| Journal {
            path: PathBuf::new(),
            number,
            scan,
        };
        let journals = Journals {
            found: (1..).zip(scans).map(journal).collect(),
            exists: true,
        };
        let high_water = if mark.every_commit {
            HighWater::EveryCommit
        } else {
            HighWater::Interval
        };
        journals.judge(mark, high_water).is_ok()
    }

    fn mark(batch: u64, every_commit: bool) -> Mark {
        Mark {
            batch,
            every_commit,
            ..Mark::default()
        }
    }

    fn middle(synced: bool) -> Rest {
        Rest::Middle {
            at: 9,
            batches: 1,
            synced,
        }
    }

    #[test]
    fn an_end_is_cut_only_if_nothing_acknowledged_can_be_in_it() {
        let lazy = || Rest::BadSum { lazy: true };
        let bad = || Rest::BadSum { lazy: false };
        // What stands behind batch 5, the mark's batch, whether each commit wrote it, may it be cut?
        let table = [
            (Rest::Clean, 9, false, true),
            (Rest::Torn, 5, false, true),
            (Rest::Torn, 6, false, false),
            (lazy(), 5, false, true),
            (lazy(), 6, false, false),
            (bad(), 5, false, false),
            (bad(), 5, true, true),
            (bad(), 6, true, false),
            (middle(false), 5, false, true),
            (middle(false), 6, false, false),
            (middle(true), 5, false, false),
            (middle(true), 5, true, true),
            (middle(true), 6, true, false),
        ];
        for (rest, batch, every_commit, may_be_cut) in table {
            let scan = scanned(1..=5, rest.clone());
            let found = judge(vec![scan], &mark(batch, every_commit));
            assert_eq!(found, may_be_cut, "{rest:?}, mark {batch}, {every_commit}");
        }
    }

    #[test]
    fn of_a_journal_without_a_good_batch_only_a_torn_end_is_left_to_the_check_after_opening() {
        assert!(judge(vec![scanned(NONE, Rest::Torn)], &mark(7, false)));
        for rest in [middle(true), middle(false), Rest::BadSum { lazy: false }] {
            for every_commit in [false, true] {
                let scan = scanned(NONE, rest.clone());
                assert!(!judge(vec![scan], &mark(7, every_commit)), "{rest:?}");
            }
        }
    }

    #[test]
    fn journals_must_follow_each_other_and_only_the_newest_may_be_torn() {
        let clean = |numbers| scanned(numbers, Rest::Clean);
        let none = mark(0, false);
        assert!(judge(vec![clean(3..=5), clean(NONE), clean(6..=7)], &none));
        assert!(!judge(vec![clean(3..=5), clean(7..=8)], &none));
        let torn = scanned(3..=5, Rest::Torn);
        assert!(!judge(vec![torn, clean(6..=7)], &none));
    }

    #[test]
    fn an_accepted_gap_is_no_gap() {
        let scans = || vec![scanned(3..=5, Rest::Clean), scanned(9..=10, Rest::Clean)];
        let accepted = |verify_from| Mark {
            verify_from,
            ..Mark::default()
        };
        assert!(judge(scans(), &accepted(9)));
        assert!(!judge(scans(), &accepted(8)));
    }
}
