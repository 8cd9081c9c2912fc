//! The embedded store on `fjall`.
//!
//! Owns: one data directory. [`Store::open`] locks it, looks at format, mark and journals before the
//! database may touch them, opens the database, checks that nothing acknowledged is missing, and
//! opens a new lane. What the checks find wrong stops the start ([`Error::Regressed`]); nothing is
//! repaired silently (`reliability.md` D6).
//!
//! Read in this order: [`keys`], [`message`], [`attempt`], [`record`] and [`batch`] (what is stored), [`writer`] (how), [`reader`] and
//! [`lists`] (how it is read), [`recent`] (what need not be read again), [`preflight`], [`tables`] and [`recover`] (what an open checks),
//! [`expire`], [`gone`] and [`reach`] (what is dropped), [`expunge`] and [`ending`] (what is taken away on request, and after its time), [`mod@verify`] and [`loss`] (offline), [`backup`]. Elsewhere: the seam and its guarantees
//! ([`super`]).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::broken;
use crate::config::{HighWater, Retention, Storage};
use crate::model::{Attempt, LaneId, Position};

use super::faults::Faults;
use super::{AcceptedLoss, Damage, Error};

mod attempt;
pub mod backup;
mod batch;
mod census;
mod ending;
mod expire;
mod expunge;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod gone;
mod hwm;
mod journal;
mod keys;
mod lists;
mod loss;
pub mod message;
mod names;
mod preflight;
mod reach;
mod reader;
mod recent;
mod record;
mod recover;
mod spaces;
mod tables;
mod tend;
mod verify;
mod writer;

pub use loss::{Loss, accept_loss};
pub use reader::FjallReader;
pub use verify::{Report, verify};
pub use writer::FjallWriter;

use format::Directory;
use gone::{Cuts, Floors};
use hwm::{Mark, MarkFile};
use preflight::Journals;
use recent::Recent;
use spaces::Spaces;

/// The store in a data directory.
#[derive(Debug)]
pub struct Store;

/// Both ends of an open store. The directory is free again when both are dropped.
pub struct Opened {
    /// The one writer, with a lane of its own.
    pub writer: FjallWriter,
    /// Reads; clone the handle freely.
    pub reader: Arc<FjallReader>,
    /// For backups beside both.
    pub source: backup::Source,
    /// Losses that were ever accepted in this store, as far as their numbers are known.
    pub losses: Vec<AcceptedLoss>,
}

/// What readers and the writer both look at.
#[derive(Debug, Default)]
struct Shared {
    /// The newest block of idempotency records; lookups start there.
    newest_bucket: AtomicU32,
    /// Messages below are out of retention: not shown, and dropped by and by.
    floors: Arc<Floors>,
    /// Attempts that ended before are not shown.
    cuts: Cuts,
    /// Lanes up to this number may have holes: a loss in them was accepted.
    holes_up_to: AtomicU32,
    recent: Recent,
}

impl Shared {
    fn note_bucket(&self, bucket: u32) {
        self.newest_bucket.fetch_max(bucket, Ordering::Relaxed);
    }

    fn may_have_holes(&self, lane: LaneId) -> bool {
        lane.0 <= self.holes_up_to.load(Ordering::Relaxed)
    }

    fn is_retained(&self, at: Position) -> bool {
        self.floors.is_retained(at)
    }

    /// Whether an attempt is within retention: with its message, and then by its own time.
    fn shows(&self, attempt: &Attempt) -> bool {
        let outlives = attempt.accepted.is_some() && attempt.ended >= self.cuts.attempts();
        outlives || self.is_retained(attempt.at)
    }
}

/// Whether a process uses the store in `dir` at this moment. Changes nothing.
pub fn in_use(dir: &Path) -> bool {
    format::is_locked(dir)
}

impl Store {
    /// Opens the store in `options.dir`, making it if there is none, and begins a new lane.
    ///
    /// # Errors
    /// [`Error::Regressed`] if something acknowledged is missing or damaged, or the format is newer
    /// (exit code 78); [`Error::Unavailable`] if another process uses it or the disk fails.
    pub fn open(options: &Storage, retention: &Retention) -> Result<Opened, Error> {
        Self::open_with(options, retention, Faults::none())
    }

    /// The same with planned faults, for tests.
    pub fn open_with(
        options: &Storage,
        retention: &Retention,
        faults: Faults,
    ) -> Result<Opened, Error> {
        let dir = Directory::lock(&options.dir)?;
        if dir.is_fresh() {
            create(&dir).map_err(|error| on_disk("make the store", &error))?;
        }
        dir.check()?;
        let journals = preflight::look(&dir.database())?;
        let (mark_file, mark) = open_mark(&dir.mark(), journals.tail())?;
        if is_unfinished(&mark, &journals) {
            dir.remove_database()
                .map_err(|error| on_disk("remove a database that was never finished", &error))?;
        } else {
            look_before_opening(&dir, &mark, &journals, options.verify_at_start.get())?;
            journals.prepare(&dir.path, &mark, options.high_water)?;
        }
        let floors = Arc::new(Floors::default());
        let spaces = Spaces::open_expiring(&dir.database(), options, &floors)
            .map_err(|error| open_failed(&error))?;
        let found = recover::check(&spaces, &mark)?;
        floors.set(found.floors());
        let losses = loss::accepted(&spaces)?;
        let shared = Arc::new(Shared {
            newest_bucket: AtomicU32::new(found.newest_bucket),
            floors,
            cuts: Cuts::default(),
            holes_up_to: AtomicU32::new(found.holes_up_to),
            recent: Recent::default(),
        });
        let reader = Arc::new(FjallReader::new(spaces.clone(), Arc::clone(&shared)));
        let source = backup::Source::new(spaces.clone(), dir.database());
        let parts = writer::Parts {
            dir,
            spaces,
            shared,
            faults,
            mark_file,
            mark,
            every_commit: options.high_water == HighWater::EveryCommit,
            retention: retention.clone(),
        };
        let writer = FjallWriter::begin(parts, found)?;
        Ok(Opened {
            writer,
            reader,
            source,
            losses,
        })
    }
}

/// The files of a new store, in an order that leaves no half of it looking whole: marker, mark,
/// and the database last. What an earlier, interrupted making has left is written again.
fn create(dir: &Directory) -> io::Result<()> {
    dir.mark_format()?;
    if dir.mark().exists() {
        std::fs::remove_file(dir.mark())?;
    }
    MarkFile::create(&dir.mark(), &Mark::default())?;
    dir.sync()
}

/// Whether the first start was cut off before its first commit: the mark names no batch and no
/// journal holds one. Nothing was ever accepted, and half a database may not open.
fn is_unfinished(mark: &Mark, journals: &Journals) -> bool {
    mark.batch == 0 && journals.hold_nothing()
}

/// Refuses what the database would open without a word, or delete while it opens. `budget`: bytes
/// of tables that are summed.
fn look_before_opening(
    dir: &Directory,
    mark: &Mark,
    journals: &Journals,
    budget: u64,
) -> Result<(), Error> {
    if broken::SKIP_CHECKSUM {
        return Ok(());
    }
    if journals.is_missing() && mark.batch > 0 {
        return Err(missing(dir, mark));
    }
    let left = tables::look(&dir.database())?.check(budget)?;
    if left > 0 {
        tracing::info!(
            bytes = left,
            "older tables were not summed at start; `posthaste verify` reads all"
        );
    }
    Ok(())
}

/// Opens the mark. Without one, the numbers of an accepted loss are those of the journals' `tail`.
fn open_mark(path: &Path, tail: Position) -> Result<(MarkFile, Mark), Error> {
    let unreadable = |found: &str| {
        Error::Regressed(Box::new(Damage {
            found: found.to_owned(),
            place: Some(path.display().to_string()),
            lane: None,
            remedy: remedy(Some(tail.lane), Some(tail.seq)),
        }))
    };
    match MarkFile::open(path) {
        Ok((file, Some(mark))) => Ok((file, mark)),
        Ok((_, None)) => Err(unreadable("the high-water mark is damaged")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(unreadable("the high-water mark is missing"))
        }
        Err(error) => Err(on_disk("read the high-water mark", &error)),
    }
}

fn missing(dir: &Directory, mark: &Mark) -> Error {
    let lane = mark.lanes.last_key_value();
    Error::Regressed(Box::new(Damage {
        found: format!(
            "the database has no journal although batch {} was acknowledged",
            mark.batch
        ),
        place: Some(dir.database().display().to_string()),
        lane: lane.map(|(lane, acked)| (*lane, 0, *acked)),
        remedy: remedy(lane.map(|(lane, _)| *lane), Some(0)),
    }))
}

/// The two ways on after a loss.
fn remedy(lane: Option<LaneId>, last_good: Option<u64>) -> String {
    let lane = lane.map_or_else(|| String::from("LANE"), |lane| lane.to_string());
    let seq = last_good.map_or_else(|| String::from("SEQ"), |seq| seq.to_string());
    format!(
        "Restore a backup, or run `posthaste accept-loss --lane {lane} --last-good {seq}` to go on without what is lost"
    )
}

fn on_disk(what: &str, error: &io::Error) -> Error {
    Error::Unavailable(format!("cannot {what}: {error}"))
}

fn open_failed(error: &::fjall::Error) -> Error {
    match error {
        _ if spaces::is_of_the_disk(error) => {
            Error::Unavailable(format!("the database cannot be opened: {error}"))
        }
        _ => Error::Regressed(Box::new(Damage {
            found: format!("the database refuses to open: {error:?}"),
            place: None,
            lane: None,
            remedy: remedy(None, None),
        })),
    }
}
