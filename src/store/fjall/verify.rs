//! Reads a whole store and says what is wrong with it.
//!
//! Owns: the offline check behind `posthaste verify` (`reliability.md` D8): every record of every key
//! space is read and its checksum computed, messages are dense within their lanes, parked rows point
//! to messages, every delivery is in a state ([`super::census`]), and the end agrees with the mark; every table file has
//! its sum. It takes the directory lock, changes no record, and does not open what the look beforehand refuses.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ::fjall::Readable as _;
use bytes::Bytes;
use serde_json::json;

use crate::config::{HighWater, Storage};
use crate::model::{LaneId, Position};
use crate::store::Error;

use super::batch::{self, BatchRecord};
use super::format::Directory;
use super::hwm::{Mark, MarkFile};
use super::reader::row;
use super::spaces::{Space, Spaces};
use super::{attempt, record};
use super::{is_unfinished, keys, message, on_disk, open_failed, preflight, recover, tables};

/// Problems listed at most; beyond, they are only counted.
const LISTED: usize = 100;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records read, by key space.
    pub records: Vec<(&'static str, u64)>,
    /// Lanes with their first and last message found and the last one acknowledged.
    pub lanes: Vec<(LaneId, u64, u64, u64)>,
    /// Every delivery is in exactly one state: how many are in which.
    pub states: Vec<(&'static str, u64)>,
    /// What is wrong, one sentence each; at most 100.
    pub problems: Vec<String>,
    /// How many problems there are in all.
    pub problem_count: u64,
}

impl Report {
    /// True if nothing is wrong.
    pub const fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    /// The same for programs: `good`, `records`, `lanes`, `deliveries` by state, `problems`.
    pub fn json(&self) -> serde_json::Value {
        let counts = |counts: &[(&'static str, u64)]| {
            let counts = counts
                .iter()
                .map(|(name, n)| ((*name).to_owned(), json!(n)));
            serde_json::Value::Object(counts.collect())
        };
        let lanes = self.lanes.iter().map(|(lane, first, last, acked)| {
            json!({ "lane": lane.0, "first": first, "last": last, "acknowledged": acked })
        });
        json!({
            "good": self.is_good(),
            "records": counts(&self.records),
            "lanes": lanes.collect::<Vec<_>>(),
            "deliveries": counts(&self.states),
            "problemCount": self.problem_count,
            "problems": self.problems,
        })
    }

    pub(super) fn problem(&mut self, what: impl fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < LISTED {
            self.problems.push(what.to_string());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (space, records) in &self.records {
            writeln!(f, "{space}: {records} records")?;
        }
        for (lane, first, last, acked) in &self.lanes {
            writeln!(f, "lane {lane}: {first} to {last}, acknowledged {acked}")?;
        }
        for (state, deliveries) in &self.states {
            writeln!(f, "{state}: {deliveries} deliveries")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        write!(f, "{} problems", self.problem_count)
    }
}

/// Checks the store in `dir`. Nobody else may use it meanwhile.
///
/// # Errors
/// If the check itself cannot be made: another process uses the store, the format is newer, the disk
/// fails. What is wrong with the store is in the report.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    let directory = Directory::lock(dir)?;
    directory.check()?;
    let mut report = Report::default();
    let mark = mark_of(&directory, &mut report);
    let journals = preflight::look(&directory.database())?;
    if report.is_good() && is_unfinished(&mark, &journals) {
        return Ok(report);
    }
    if journals.is_missing() {
        report.problem("there is no journal");
        return Ok(report);
    }
    if let Err(damage) = journals.judge(&mark, HighWater::Interval) {
        report.problem(damage);
    }
    match tables::look(&directory.database()) {
        Ok(tables) => tables.check_all()?.iter().for_each(|d| report.problem(d)),
        Err(damage @ Error::Regressed(_)) => report.problem(damage),
        Err(other) => return Err(other),
    }
    if !report.is_good() {
        // Opening could delete what does not seem to belong to the database.
        return Ok(report);
    }
    journals.prepare(&directory.path, &mark, HighWater::Interval)?;
    let options = Storage {
        dir: dir.to_owned(),
        ..Storage::default()
    };
    let spaces =
        Spaces::open(&directory.database(), &options).map_err(|error| open_failed(&error))?;
    if let Err(damage) = recover::check(&spaces, &mark) {
        report.problem(damage);
    }
    let mut check = Check {
        spaces: &spaces,
        floors: BTreeMap::new(),
        ends: BTreeMap::new(),
        report,
    };
    for space in [Space::Meta, Space::Messages] {
        check.space(space)?;
    }
    for space in Space::ALL {
        if !matches!(space, Space::Meta | Space::Messages) {
            check.space(space)?;
        }
    }
    let mut report = check.report;
    for (lane, (first, last)) in check.ends {
        let acked = mark.lanes.get(&lane).copied().unwrap_or(0);
        if last < acked {
            report.problem(format!("lane {lane} ends at {last}, acknowledged {acked}"));
        }
        report.lanes.push((lane, first, last, acked));
    }
    super::census::take(&spaces, &mut report)?;
    drop(spaces);
    directory
        .sync()
        .map_err(|error| on_disk("sync the directory", &error))?;
    Ok(report)
}

/// The high-water mark; an empty one where it cannot be read, which is a problem.
fn mark_of(directory: &Directory, report: &mut Report) -> Mark {
    match MarkFile::peek(&directory.mark()) {
        Ok(Some(mark)) => return mark,
        Ok(None) => report.problem("the high-water mark is damaged"),
        Err(error) => report.problem(format!("the high-water mark cannot be read: {error}")),
    }
    Mark::default()
}

struct Check<'a> {
    spaces: &'a Spaces,
    floors: BTreeMap<LaneId, u64>,
    ends: BTreeMap<LaneId, (u64, u64)>,
    report: Report,
}

impl Check<'_> {
    fn space(&mut self, space: Space) -> Result<(), Error> {
        let view = self.spaces.snapshot();
        let mut records = 0;
        for guard in view.iter(self.spaces.of(space)) {
            records += 1;
            let checked = row(guard).and_then(|(key, value)| self.record(space, &key, &value));
            match checked {
                Ok(()) => {}
                Err(error @ Error::Unavailable(_)) => return Err(error),
                Err(error) => self.report.problem(error),
            }
        }
        self.report.records.push((space.name(), records));
        Ok(())
    }

    fn record(&mut self, space: Space, key: &[u8], value: &Bytes) -> Result<(), Error> {
        let is_marker = match space {
            Space::Messages | Space::Meta => false,
            Space::Attempts => keys::is_attempts_marker(key),
            _ => keys::is_marker(key),
        };
        if is_marker {
            return record::read_number(key, value).map(drop);
        }
        match space {
            Space::Messages => self.message(key, value),
            Space::Parked => self.parked(key, value),
            Space::Attempts => attempt::read(key, value).map(drop),
            Space::AttemptsLate => match keys::read_attempt(key) {
                Some((_, _, 0)) => record::read_cancelled(key, value).map(drop),
                _ => attempt::read(key, value).map(drop),
            },
            Space::Lists => match key.first() {
                Some(&keys::OF_ENDPOINT) => record::read_endpoint_row(key, value, drop),
                Some(&keys::OF_AUDIT) => record::read_object(key, value).map(drop),
                Some(&keys::OF_BODY) => attempt::read_answer(key, value).map(drop),
                Some(&keys::OF_DAY | &keys::OF_PAYLOAD) => {
                    record::read_number(key, value).map(drop)
                }
                _ => record::read_app_row(key, value, 0).map(drop),
            },
            Space::Idem => match key.first() {
                Some(&keys::EVENT_ID) => record::read_event_id(key, value).map(drop),
                _ => record::read_idempotency(key, value).map(drop),
            },
            Space::State => match key.first() {
                Some(&keys::STATE) => record::read_state(key, value).map(drop),
                Some(&keys::OBJECT) => record::read_object(key, value).map(drop),
                _ => record::read_number(key, value).map(drop),
            },
            Space::Meta => self.meta(key, value),
        }
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if keys::is_batch(key) {
            let batch = BatchRecord::decode(key, value)?;
            if batch.hash != batch.expected_hash() {
                return Err(record::corrupt("batch record", key, "its hash is wrong"));
            }
            return Ok(());
        }
        if key.first() == Some(&keys::LANE) {
            let (lane, row) = batch::read_lane(key, value)?;
            self.floors.insert(lane, row.floor);
            return Ok(());
        }
        record::read_number(key, value).map(drop)
    }

    fn message(&mut self, key: &[u8], value: &Bytes) -> Result<(), Error> {
        let place = key.first_chunk::<12>().copied().map(Position::from_bytes);
        let Some(at) = place else {
            return Err(record::corrupt("message", key, "its key is short"));
        };
        if at.seq == 0 {
            return record::read_number(key, value).map(drop);
        }
        let end = self.ends.entry(at.lane).or_insert((at.seq, at.seq - 1));
        let expected = end.1 + 1;
        end.1 = at.seq;
        let floor = self.floors.get(&at.lane).copied().unwrap_or(0);
        let starts_late = end.0 == at.seq && at.seq > floor.max(1);
        if at.seq != expected || starts_late {
            let what = format!("lane {}: messages before {} are missing", at.lane, at.seq);
            self.report.problem(what);
        }
        message::decode(key, value).map(drop)
    }

    fn parked(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let row = record::read_parked(key, value)?;
        let at = row.key.at;
        let messages = self.spaces.of(Space::Messages);
        let there = messages.contains_key(at.bytes());
        if !there.map_err(|error| super::spaces::unreadable(&error))? {
            let what = format!("a parked row needs message {} of lane {}", at.seq, at.lane);
            self.report.problem(what);
        }
        Ok(())
    }
}
