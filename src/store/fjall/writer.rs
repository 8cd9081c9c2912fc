//! The write path: one atomic batch per call, one fsync per group.
//!
//! Owns: the only handle that writes. Every batch carries its record (number, hash of the one before)
//! and a marker in each key space it touches, so a stretch that goes missing leaves a hole
//! (`reliability.md` D6). Keys and payloads of a group are laid out in one allocation; a message
//! costs one row, its application one list row per group.
//!
//! Invariants: the batch number moves only after a commit returned; after the first failed write or
//! fsync the writer is dead and the database is leaked, so that no drop fsyncs again (D2).
//! Elsewhere: layouts ([`super::keys`], [`super::record`], [`super::message`]), what is dropped when
//! ([`super::expire`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::fjall::{OwnedWriteBatch, PersistMode};
use bytes::{Bytes, BytesMut};

use crate::base::{Timestamp, broken};
use crate::config::Retention;
use crate::model::{Attempt, LaneId, Position};
use crate::store::faults::{Fault, Faults};
use crate::store::{
    Accept, ConfigRow, Content, Ended, Error, IdempotencyKey, IdempotencyRecord, PayloadEnd,
    Settlement, Space as Figures, Standing, StoredAnswer, Writer,
};

use super::attempt::{self, Body};
use super::batch::{self, BatchRecord, LaneRow};
use super::expire::Expiry;
use super::format::Directory;
use super::hwm::{Mark, MarkFile};
use super::lists::AppLists;
use super::reach::{self, Reach};
use super::recover::Found;
use super::spaces::{Space, Spaces};
use super::{Shared, ending, keys, message, names, record};

/// The mark is written at most this often unless every commit wants it.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// Entries of one list row of attempts.
const ROW_ENTRIES: usize = 256;

/// What a writer is made of.
pub(super) struct Parts {
    pub(super) dir: Directory,
    pub(super) spaces: Spaces,
    pub(super) shared: Arc<Shared>,
    pub(super) faults: Faults,
    pub(super) mark_file: MarkFile,
    pub(super) mark: Mark,
    pub(super) every_commit: bool,
    pub(super) retention: Retention,
}

/// The one writer of an embedded store.
pub struct FjallWriter {
    parts: Parts,
    /// The lane's last message is `batch.tail`.
    batch: BatchRecord,
    revision: u64,
    pub(super) lanes: BTreeMap<LaneId, LaneRow>,
    pub(super) expiry: Expiry,
    pub(super) reach: Reach,
    dead: bool,
    /// Bytes of padding since the journal was last turned over.
    pub(super) padded: u64,
    /// The last batch that the written mark names.
    marked: u64,
    /// What the faults planned for the call under way.
    planned: Option<Fault>,
    /// The last batch when the last heartbeat was written.
    beaten: u64,
}

/// A batch under construction.
pub(super) struct Commit {
    batch: OwnedWriteBatch,
    touched: u8,
    count: u32,
    digest: u32,
    tail: Position,
}

impl Commit {
    pub(super) const fn touch(&mut self, space: Space) {
        self.touched |= space.bit();
    }

    pub(super) const fn tail(&self) -> Position {
        self.tail
    }

    pub(super) fn put(&mut self, spaces: &Spaces, space: Space, key: &[u8], value: Vec<u8>) {
        self.put_shared(spaces, space, Bytes::copy_from_slice(key), value.into());
    }

    fn put_shared(&mut self, spaces: &Spaces, space: Space, key: Bytes, value: Bytes) {
        self.touched |= space.bit();
        self.batch.insert(spaces.of(space), key, value);
    }

    pub(super) fn remove(&mut self, spaces: &Spaces, space: Space, key: &[u8]) {
        self.touched |= space.bit();
        let key = Bytes::copy_from_slice(key);
        self.batch.remove(spaces.of(space), key);
    }
}

impl FjallWriter {
    /// Begins a new lane: its number is in the mark and in the store before its first message.
    pub(super) fn begin(mut parts: Parts, found: Found) -> Result<Self, Error> {
        let highest = found.highest_lane.max(parts.mark.highest_lane);
        let lane = LaneId(highest.0.saturating_add(1));
        if lane.0 == u32::MAX {
            return Err(Error::Unavailable(String::from("all lanes are used up")));
        }
        parts.mark.highest_lane = lane;
        parts.mark.every_commit = parts.every_commit;
        let written = parts.mark_file.write(&parts.mark);
        written.map_err(|error| super::on_disk("write the high-water mark", &error))?;
        let mut this = Self {
            parts,
            batch: BatchRecord {
                tail: Position { lane, seq: 0 },
                ..found.batch
            },
            revision: found.revision,
            lanes: found.lanes,
            expiry: Expiry::default(),
            reach: found.reach,
            dead: false,
            padded: 0,
            marked: 0,
            planned: None,
            beaten: u64::MAX,
        };
        this.lanes.insert(lane, LaneRow::default());
        let mut commit = this.start(3);
        let spaces = &this.parts.spaces;
        let top = record::number(keys::TOP_LANE, u64::from(lane.0));
        commit.put(spaces, Space::Meta, keys::TOP_LANE, top);
        let key = keys::lane(lane);
        commit.put(
            spaces,
            Space::Meta,
            &key,
            batch::lane(&key, LaneRow::default()),
        );
        this.finish(commit, true)?;
        this.write_mark(Timestamp::ZERO)?;
        Ok(this)
    }

    pub(super) const fn spaces(&self) -> &Spaces {
        &self.parts.spaces
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.parts.shared
    }

    pub(super) const fn retention(&self) -> &Retention {
        &self.parts.retention
    }

    /// Counts the call and refuses it if the writer is dead or the plan says so.
    fn enter(&mut self) -> Result<(), Error> {
        if self.dead {
            return Err(Error::Doubtful(String::from(
                "the writer is dead after an earlier failure",
            )));
        }
        self.planned = self.parts.faults.next();
        if self.planned == Some(Fault::NotApplied) {
            return Err(Error::NotApplied(String::from("a planned fault")));
        }
        Ok(())
    }

    /// Dies after a failure. The database is leaked on purpose: dropping it would fsync again, and a
    /// second fsync may claim success for pages that the first one lost (`reliability.md` F9).
    pub(super) fn die(&mut self, what: &str, error: &dyn std::fmt::Display) -> Error {
        self.dead = true;
        std::mem::forget(self.parts.spaces.db.clone());
        Error::Doubtful(format!("{what}: {error}"))
    }

    pub(super) fn start(&self, rows: usize) -> Commit {
        let db = self.parts.spaces.db.clone();
        Commit {
            batch: OwnedWriteBatch::with_capacity(db, rows + 8),
            touched: 0,
            count: 0,
            digest: 0,
            tail: self.batch.tail,
        }
    }

    /// Adds batch record and markers, commits, and only then takes the new numbers over.
    pub(super) fn finish(&mut self, mut commit: Commit, synced: bool) -> Result<(), Error> {
        commit.touched |= Space::Meta.bit();
        let mut next = BatchRecord {
            number: self.batch.number.saturating_add(1),
            previous: self.batch.hash,
            hash: [0; 16],
            touched: commit.touched,
            synced,
            tail: commit.tail,
            count: commit.count,
            digest: commit.digest,
        };
        next.hash = next.expected_hash();
        self.put_markers(&mut commit, &next);
        let lost = self.planned == Some(Fault::DoubtfulLost);
        if !lost {
            let mode = if synced && !broken::ACK_BEFORE_FSYNC {
                PersistMode::SyncData
            } else {
                PersistMode::Buffer
            };
            let batch = commit.batch.durability(Some(mode));
            if let Err(error) = batch.commit() {
                return Err(self.die("commit failed", &error));
            }
            if synced {
                self.probe()?;
            }
            let touched = Space::ALL.into_iter();
            let touched = touched.filter(|space| next.touched & space.bit() != 0);
            if let Err(error) = self.parts.spaces.flush_full(touched) {
                return Err(self.die(
                    "a full memory table could not be handed to the flush",
                    &error,
                ));
            }
        }
        if self.planned.take().is_some() {
            self.dead = true;
            return Err(Error::Doubtful(String::from("a planned fault")));
        }
        self.batch = next;
        if synced {
            self.note_durable();
        }
        Ok(())
    }

    /// After a sync: nothing may be acknowledged if the file system gave up meanwhile.
    fn probe(&mut self) -> Result<(), Error> {
        let taken = self.parts.dir.probe();
        taken.map_err(|error| self.die("the file system takes no more writes", &error))
    }

    fn put_markers(&self, commit: &mut Commit, next: &BatchRecord) {
        let spaces = &self.parts.spaces;
        let ring = keys::marker(next.number);
        for space in Space::ALL {
            if space.has_ring() && next.touched & space.bit() != 0 {
                commit.put(spaces, space, &ring, record::number(&ring, next.number));
            }
        }
        if next.touched & Space::Attempts.bit() != 0 {
            let key = keys::attempts_marker(next.tail, next.number);
            let value = record::number(&key, next.number);
            commit.put(spaces, Space::Attempts, &key, value);
        }
        let key = keys::batch(next.number);
        commit.put(spaces, Space::Meta, &key, next.encode(&key));
    }

    /// Everything up to the last batch is on stable storage.
    fn note_durable(&mut self) {
        let mark = &mut self.parts.mark;
        mark.batch = self.batch.number;
        mark.hash = self.batch.hash;
        if self.batch.tail.seq > 0 {
            mark.lanes.insert(self.batch.tail.lane, self.batch.tail.seq);
        }
    }

    /// Nothing was written since the last heartbeat, and no journal waits to go.
    pub(super) fn rests(&self) -> bool {
        self.batch.number == self.beaten
            && self.planned.is_none()
            && self.parts.spaces.db.journal_count() <= 1
    }

    pub(super) const fn has_beaten(&mut self) {
        self.beaten = self.batch.number;
    }

    /// Writes the mark if its time has come.
    fn maybe_mark(&mut self, now: Timestamp) -> Result<(), Error> {
        let mark = &self.parts.mark;
        if mark.batch == self.marked {
            return Ok(());
        }
        let stepped_back = now < mark.at;
        if self.parts.every_commit || stepped_back || now.since(mark.at) >= MARK_EVERY {
            return self.write_mark(now);
        }
        Ok(())
    }

    pub(super) fn write_mark(&mut self, now: Timestamp) -> Result<(), Error> {
        self.parts.mark.at = now;
        match self.parts.mark_file.write(&self.parts.mark) {
            Ok(()) => {
                self.marked = self.parts.mark.batch;
                Ok(())
            }
            Err(error) => Err(self.die("the high-water mark cannot be written", &error)),
        }
    }

    /// Takes over the raised floor of a lane; the mark names only lanes that still hold messages.
    pub(super) fn expired(&mut self, lane: LaneId, row: LaneRow) {
        self.lanes.insert(lane, row);
        if row.is_expired() && lane != self.batch.tail.lane {
            self.parts.mark.lanes.remove(&lane);
        }
    }

    fn lay_out(&self, batch: &mut [Accept], commit: &mut Commit) -> Result<(), Error> {
        let spaces = &self.parts.spaces;
        let room = batch.iter().map(|one| 12 + message::size(&one.message));
        let mut arena = BytesMut::with_capacity(room.sum());
        let mut lists = AppLists::default();
        for accept in batch {
            let message = &mut accept.message;
            commit.tail.seq = commit.tail.seq.saturating_add(1);
            commit.count = commit.count.saturating_add(1);
            message.at = commit.tail;
            let key = message.at.bytes();
            arena.extend_from_slice(&key);
            let crc = message::encode(message, &mut arena)?;
            commit.digest = crc32c::crc32c_append(commit.digest, &crc.to_be_bytes());
            let row = arena.split().freeze();
            let (key, value) = (row.slice(..key.len()), row.slice(key.len()..));
            commit.put_shared(spaces, Space::Messages, key, value);
            lists.push(message.app, message.accepted, message.at);
            names::put(commit, spaces, message);
            ending::put(commit, spaces, message);
            if let Some(IdempotencyKey { key, body }) = accept.idempotency {
                let record = IdempotencyRecord {
                    body,
                    at: message.accepted,
                    answer: StoredAnswer::Message(message.at),
                };
                self.put_answer(commit, &key, &record);
            }
        }
        for (app, time, row) in lists.rows {
            let key = keys::app_row(app, time, row.first);
            commit.put(spaces, Space::Lists, &key, row.seal(&key));
        }
        Ok(())
    }

    fn put_answer(&self, commit: &mut Commit, hash: &[u8; 16], record: &IdempotencyRecord) {
        let bucket = keys::bucket(record.at);
        self.parts.shared.note_bucket(bucket);
        let key = keys::idempotency(bucket, hash);
        let value = record::idempotency(&key, record);
        commit.put(&self.parts.spaces, Space::Idem, &key, value);
    }

    /// Lanes whose checkpoint moves forward.
    fn moved(&self, checkpoints: &[(LaneId, u64)]) -> BTreeMap<LaneId, LaneRow> {
        let mut moved = BTreeMap::new();
        for (lane, seq) in checkpoints {
            let Some(row) = self.lanes.get(lane) else {
                continue;
            };
            let row = moved.entry(*lane).or_insert(*row);
            row.checkpoint = row.checkpoint.max(*seq);
        }
        moved
    }

    fn put_attempts(&self, commit: &mut Commit, attempts: &[Attempt]) {
        let spaces = &self.parts.spaces;
        let mut order = Vec::with_capacity(attempts.len());
        for (n, one) in attempts.iter().enumerate() {
            let space = if one.no == 1 {
                Space::Attempts
            } else {
                Space::AttemptsLate
            };
            let key = keys::attempt(one.at, one.endpoint, one.no);
            commit.put(spaces, space, &key, attempt::write(&key, one));
            if attempt::body_of(one) == Body::Apart {
                let key = keys::body(one.ended, one.at, one.endpoint, one.no);
                let value = attempt::answer(&key, &one.response);
                commit.put(spaces, Space::Lists, &key, value);
            }
            order.push((one.endpoint, keys::slot(one.ended), n));
        }
        order.sort_unstable();
        let number = self.batch.number.saturating_add(1);
        for group in order.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            for (part, entries) in (0..=u16::MAX).zip(group.chunks(ROW_ENTRIES)) {
                let Some(&(endpoint, slot, _)) = entries.first() else {
                    continue;
                };
                let key = keys::endpoint_row(endpoint, slot, number, part);
                let of = entries.iter().filter_map(|&(_, _, n)| attempts.get(n));
                commit.put(spaces, Space::Lists, &key, record::endpoint_row(&key, of));
            }
        }
    }
}

impl Writer for FjallWriter {
    fn lane(&self) -> LaneId {
        self.batch.tail.lane
    }

    fn append(&mut self, batch: &mut [Accept]) -> Result<(), Error> {
        let Some(first) = batch.first() else {
            return self.sync();
        };
        let now = first.message.accepted;
        self.enter()?;
        let mut commit = self.start(batch.len() + batch.len() / 4);
        self.lay_out(batch, &mut commit)?;
        self.finish(commit, true)?;
        self.maybe_mark(now)
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<(), Error> {
        self.enter()?;
        let rows = settlement.attempts.len() * 2 + settlement.park.len() + settlement.unpark.len();
        let mut commit = self.start(rows);
        let spaces = &self.parts.spaces;
        self.put_attempts(&mut commit, &settlement.attempts);
        let lowered = self.reach.lowered(&settlement.attempts);
        reach::put(&lowered, &mut commit, spaces);
        for key in &settlement.unpark {
            commit.remove(spaces, Space::Parked, &keys::parked(*key));
        }
        for row in &settlement.park {
            let key = keys::parked(row.key);
            commit.put(spaces, Space::Parked, &key, record::parked(&key, row));
        }
        names::put_ends(&mut commit, spaces, settlement);
        ending::put_further(&mut commit, spaces, settlement);
        for (endpoint, state) in &settlement.states {
            let key = keys::state(*endpoint);
            commit.put(spaces, Space::State, &key, record::state(&key, state));
        }
        let moved = self.moved(&settlement.checkpoint);
        for (lane, row) in &moved {
            let key = keys::lane(*lane);
            commit.put(spaces, Space::Meta, &key, batch::lane(&key, *row));
        }
        self.finish(commit, false)?;
        self.lanes.extend(moved);
        self.reach.lower(lowered);
        self.expiry.note_parked(&settlement.park);
        match settlement.attempts.last() {
            Some(last) if !self.parts.every_commit => self.maybe_mark(last.ended),
            _ => Ok(()),
        }
    }

    fn commit_config(&mut self, expected: u64, rows: &[ConfigRow]) -> Result<u64, Error> {
        if expected != self.revision {
            return Err(crate::store::stale(expected, self.revision));
        }
        self.enter()?;
        let revision = expected.saturating_add(1);
        let mut commit = self.start(rows.len());
        let spaces = &self.parts.spaces;
        for row in rows {
            let (space, key) = keys::place(row.kind, &row.key);
            commit.put(spaces, space, &key, record::object(&key, &row.value));
        }
        let value = record::number(keys::REVISION, revision);
        commit.put(spaces, Space::State, keys::REVISION, value);
        self.finish(commit, true)?;
        self.revision = revision;
        if self.parts.every_commit {
            self.write_mark(self.parts.mark.at)?;
        }
        Ok(revision)
    }

    fn remember(
        &mut self,
        key: IdempotencyKey,
        at: Timestamp,
        answer: StoredAnswer,
    ) -> Result<(), Error> {
        self.enter()?;
        let IdempotencyKey { key, body } = key;
        let record = IdempotencyRecord { body, at, answer };
        let mut commit = self.start(1);
        self.put_answer(&mut commit, &key, &record);
        self.finish(commit, false)
    }

    fn expunge(&mut self, contents: &[Content]) -> Result<Vec<bool>, Error> {
        self.enter()?;
        let found = super::expunge::take_away(self, contents);
        self.parts.shared.recent.forget();
        let found = found?;
        if self.parts.every_commit {
            self.write_mark(self.parts.mark.at)?;
        }
        Ok(found)
    }

    fn end_payloads(&mut self, ends: &[(PayloadEnd, Ended)]) -> Result<(), Error> {
        self.enter()?;
        let ended = ending::carry_out(self, ends);
        self.parts.shared.recent.forget();
        ended?;
        if self.parts.every_commit {
            self.write_mark(self.parts.mark.at)?;
        }
        Ok(())
    }

    fn turn_over(&mut self) -> Result<bool, Error> {
        self.enter()?;
        super::expunge::pad(self)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.enter()?;
        if self.planned != Some(Fault::DoubtfulLost)
            && let Err(error) = self.parts.spaces.db.persist(PersistMode::SyncData)
        {
            return Err(self.die("fsync failed", &error));
        }
        self.probe()?;
        if self.planned.take().is_some() {
            self.dead = true;
            return Err(Error::Doubtful(String::from("a planned fault")));
        }
        self.note_durable();
        if self.parts.every_commit {
            self.write_mark(self.parts.mark.at)?;
        }
        Ok(())
    }

    fn tend(&mut self, now: Timestamp) -> Result<(), Error> {
        self.enter()?;
        super::tend::tend(self, now)
    }

    fn space(&self) -> Result<Figures, Error> {
        let db = &self.parts.spaces.db;
        let used = db.disk_space();
        let journals = db.journal_disk_space();
        Ok(Figures {
            used: used.map_err(|error| super::spaces::unreadable(&error))?,
            free: self.parts.dir.free()?,
            journals: u64::try_from(db.journal_count()).unwrap_or(u64::MAX),
            journal_bytes: journals.map_err(|error| super::spaces::unreadable(&error))?,
        })
    }

    fn standing(&mut self) -> Result<Standing, Error> {
        self.sync()?;
        let mark = &self.parts.mark;
        Ok(Standing {
            batch: mark.batch,
            hash: mark.hash,
            tail: self.batch.tail,
            highest_lane: mark.highest_lane,
            verify_from: mark.verify_from,
            lanes: mark.lanes.clone(),
        })
    }

    fn close(&mut self) -> Result<(), Error> {
        self.sync()?;
        self.write_mark(self.parts.mark.at)?;
        self.dead = true;
        Ok(())
    }
}

/// The name of an event id in its key.
pub(super) fn hash(text: &[u8]) -> [u8; 16] {
    use sha2::Digest as _;
    record::first_16(sha2::Sha256::digest(text).as_slice())
}
