//! The in-memory reference store, for tests and the simulation.
//!
//! Owns: what is live and what is durable, and the gap between them. A process kill keeps all that
//! was answered `Ok`; a power cut keeps what was synced and any first part of what was not.
//! Invariants: `live` is `durable` plus `unsynced` in order; a dead writer changes nothing more;
//! opening again kills the writer before. Retention exists if it is asked for ([`Model::with_retention`]):
//! what is out of it is gone at once.
//! Elsewhere: what each call means ([`state`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::Timestamp;
use crate::config::Retention;
use crate::model::{
    AppNo, Attempt, Delivery, EndpointNo, EndpointState, LaneId, Message, Parked, ParkedKey,
    Position,
};

use super::faults::{Fault, Faults};
use super::{
    Accept, AuditPage, AuditRow, ConfigRow, Content, Ended, Error, IdempotencyKey,
    IdempotencyRecord, Lane, Listed, ListedAttempt, Page, PayloadEnd, Reader, Settlement, Space,
    Standing, StoredAnswer, Writer,
};

mod state;

use state::{Change, State};

/// The store itself: what stays when a process dies. Clones share it.
#[derive(Clone, Default)]
pub struct Model {
    shared: Arc<Mutex<Shared>>,
    faults: Faults,
    retention: Option<Retention>,
}

/// How a process ends in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies, the machine lives: every `Ok` stays.
    Process,
    /// The machine dies: of the calls not yet synced the first `keep` stay.
    Power {
        /// How many unsynced calls happened to reach the disk.
        keep: usize,
    },
}

#[derive(Default)]
struct Shared {
    live: State,
    durable: State,
    /// Applied to `live`, not yet to `durable`.
    unsynced: Vec<Change>,
    /// Count of opens and crashes; a writer of an earlier one is dead.
    generation: u64,
    /// What [`Writer::space`] reports as free.
    free: u64,
}

impl Shared {
    fn apply(&mut self, change: Change, synced: bool) {
        self.live.apply(&change);
        self.unsynced.push(change);
        if synced {
            self.sync();
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.durable.apply(&change);
        }
    }
}

impl Model {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::with_faults(Faults::none())
    }

    /// An empty store whose writers ask `faults` at every mutating call.
    pub fn with_faults(faults: Faults) -> Self {
        let model = Self {
            shared: Arc::default(),
            faults,
            retention: None,
        };
        model.shared.lock().free = u64::MAX;
        model
    }

    /// The same store, whose writers drop what is out of `retention`.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// The plan of faults.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Opens it: a new lane, never used before. A writer opened earlier is dead from now on.
    pub fn open(&self) -> (ModelWriter, Arc<dyn Reader>) {
        let mut shared = self.shared.lock();
        let lane = LaneId(shared.live.highest_lane().0.saturating_add(1));
        shared.generation = shared.generation.saturating_add(1);
        shared.apply(Change::Open(lane), true);
        shared.live.forget_cuts();
        let writer = ModelWriter {
            shared: Arc::clone(&self.shared),
            faults: self.faults.clone(),
            retention: self.retention.clone(),
            parked: BTreeMap::new(),
            generation: shared.generation,
            lane,
            last: 0,
            dead: false,
        };
        let reader = ModelReader {
            shared: Arc::clone(&self.shared),
        };
        (writer, Arc::new(reader))
    }

    /// Ends the process that holds the writer. Open again to go on.
    pub fn crash(&self, how: Crash) {
        let mut shared = self.shared.lock();
        shared.generation = shared.generation.saturating_add(1);
        match how {
            Crash::Process => {}
            Crash::Power { keep } => {
                shared.unsynced.truncate(keep);
                shared.sync();
                shared.live = shared.durable.clone();
            }
        }
    }

    /// Calls that are applied and not yet on stable storage.
    pub fn unsynced(&self) -> usize {
        self.shared.lock().unsynced.len()
    }

    /// Sets what [`Writer::space`] reports as free.
    pub fn set_free(&self, bytes: u64) {
        self.shared.lock().free = bytes;
    }
}

/// The one writer of a [`Model`].
pub struct ModelWriter {
    shared: Arc<Mutex<Shared>>,
    faults: Faults,
    retention: Option<Retention>,
    /// Per lane the oldest message that was parked since the last housekeeping: it is held until the next.
    parked: BTreeMap<LaneId, u64>,
    generation: u64,
    lane: LaneId,
    last: u64,
    dead: bool,
}

impl ModelWriter {
    /// Applies a change unless a fault is due; `None` changes nothing but can fail all the same.
    fn change(&mut self, change: Option<Change>, synced: bool) -> Result<(), Error> {
        let mut shared = self.shared.lock();
        if self.dead || shared.generation != self.generation {
            return Err(Error::Doubtful(String::from("the writer is dead")));
        }
        let fault = self.faults.next();
        if fault == Some(Fault::NotApplied) {
            return Err(Error::NotApplied(String::from("a planned fault")));
        }
        if fault != Some(Fault::DoubtfulLost) {
            if let Some(change) = change {
                shared.apply(change, synced);
            } else if synced {
                shared.sync();
            }
        }
        if fault.is_some() {
            self.dead = true;
            return Err(Error::Doubtful(String::from("a planned fault")));
        }
        Ok(())
    }
}

impl Writer for ModelWriter {
    fn lane(&self) -> LaneId {
        self.lane
    }

    fn append(&mut self, batch: &mut [Accept]) -> Result<(), Error> {
        let mut seq = self.last;
        for accept in batch.iter_mut() {
            seq = seq.saturating_add(1);
            accept.message.at = Position {
                lane: self.lane,
                seq,
            };
        }
        self.change(Some(Change::Append(batch.to_vec())), true)?;
        self.last = seq;
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<(), Error> {
        self.change(Some(Change::Settle(settlement.clone())), false)?;
        for row in &settlement.park {
            let at = row.key.at;
            let oldest = self.parked.entry(at.lane).or_insert(at.seq);
            *oldest = at.seq.min(*oldest);
        }
        Ok(())
    }

    fn commit_config(&mut self, expected: u64, rows: &[ConfigRow]) -> Result<u64, Error> {
        let found = self.shared.lock().live.revision;
        if found != expected {
            return Err(super::stale(expected, found));
        }
        let revision = expected.saturating_add(1);
        self.change(Some(Change::Config(revision, rows.to_vec())), true)?;
        Ok(revision)
    }

    fn remember(
        &mut self,
        key: IdempotencyKey,
        at: Timestamp,
        answer: StoredAnswer,
    ) -> Result<(), Error> {
        let IdempotencyKey { key, body } = key;
        let record = IdempotencyRecord { body, at, answer };
        self.change(Some(Change::Remember(key, record)), false)
    }

    fn expunge(&mut self, contents: &[Content]) -> Result<Vec<bool>, Error> {
        let found = {
            let shared = self.shared.lock();
            let there = |content: &Content| shared.live.has(content);
            contents.iter().map(there).collect()
        };
        self.change(Some(Change::Expunge(contents.to_vec())), true)?;
        Ok(found)
    }

    fn end_payloads(&mut self, ends: &[(PayloadEnd, Ended)]) -> Result<(), Error> {
        self.change(Some(Change::EndPayloads(ends.to_vec())), true)
    }

    fn turn_over(&mut self) -> Result<bool, Error> {
        Ok(false)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.change(None, true)
    }

    fn tend(&mut self, now: Timestamp) -> Result<(), Error> {
        self.change(None, false)?;
        let Some(retention) = &self.retention else {
            return Ok(());
        };
        let mut shared = self.shared.lock();
        shared.live.cut(now, retention);
        let held = std::mem::take(&mut self.parked);
        let floors = shared.live.floors(now.minus(retention.messages), held);
        if !floors.is_empty() {
            shared.apply(Change::Expire(floors), true);
        }
        Ok(())
    }

    fn space(&self) -> Result<Space, Error> {
        let shared = self.shared.lock();
        let payloads = shared.live.messages.values().map(|m| m.payload.len());
        let used = payloads.fold(0u64, |sum, len| {
            sum.saturating_add(u64::try_from(len).unwrap_or(u64::MAX))
        });
        Ok(Space {
            used,
            free: shared.free,
            journals: 0,
            journal_bytes: 0,
        })
    }

    fn standing(&mut self) -> Result<Standing, Error> {
        self.change(None, true)?;
        let shared = self.shared.lock();
        let mut lanes = BTreeMap::new();
        for at in shared.live.messages.keys() {
            lanes.insert(at.lane, at.seq); // in order: the last one stays
        }
        Ok(Standing {
            tail: Position {
                lane: self.lane,
                seq: self.last,
            },
            highest_lane: self.lane,
            lanes,
            ..Standing::default()
        })
    }

    fn close(&mut self) -> Result<(), Error> {
        self.change(None, true)?;
        self.dead = true;
        Ok(())
    }
}

/// Reads of a [`Model`]; sees what is live.
struct ModelReader {
    shared: Arc<Mutex<Shared>>,
}

impl Reader for ModelReader {
    fn message(&self, at: Position) -> Result<Option<Message>, Error> {
        Ok(self.shared.lock().live.messages.get(&at).cloned())
    }

    fn fetch(&self, after: Position, limit: usize) -> Result<Vec<Message>, Error> {
        Ok(self.shared.lock().live.fetch(after, limit))
    }

    fn lanes(&self) -> Result<Vec<Lane>, Error> {
        Ok(self.shared.lock().live.lanes())
    }

    fn parked(
        &self,
        endpoint: EndpointNo,
        after: Option<ParkedKey>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Parked>, Error> {
        let shared = self.shared.lock();
        Ok(shared.live.parked(endpoint, after, until, limit))
    }

    fn parked_row(&self, key: ParkedKey) -> Result<Option<Parked>, Error> {
        Ok(self.shared.lock().live.parked.get(&key).cloned())
    }

    fn endpoint_states(&self) -> Result<Vec<(EndpointNo, EndpointState)>, Error> {
        let shared = self.shared.lock();
        let states = shared.live.states.iter();
        Ok(states.map(|(no, state)| (*no, *state)).collect())
    }

    fn attempts(&self, at: Position, endpoint: Option<EndpointNo>) -> Result<Vec<Attempt>, Error> {
        Ok(self.shared.lock().live.attempts(at, endpoint))
    }

    fn is_cancelled(&self, delivery: Delivery) -> Result<bool, Error> {
        let shared = self.shared.lock();
        Ok(shared.live.is_retained(delivery.at) && shared.live.cancelled.contains_key(&delivery))
    }

    fn superseded_by(&self, delivery: Delivery) -> Result<Option<Position>, Error> {
        let shared = self.shared.lock();
        let by = shared.live.cancelled.get(&delivery).copied().flatten();
        Ok(by.filter(|_| shared.live.is_retained(delivery.at)))
    }

    fn cancelled(
        &self,
        endpoint: EndpointNo,
        (from, to): (Position, Position),
        _budget: usize,
    ) -> Result<Option<u64>, Error> {
        let shared = self.shared.lock();
        let inside = |one: &&Delivery| {
            one.endpoint == endpoint
                && (from..=to).contains(&one.at)
                && shared.live.is_retained(one.at)
        };
        let count = shared.live.cancelled.keys().filter(inside).count();
        Ok(Some(u64::try_from(count).unwrap_or(u64::MAX)))
    }

    fn scrub(&self) -> Result<(), Error> {
        Ok(()) // only the newest version of anything is kept
    }

    fn payload_ends(
        &self,
        after: Option<(Timestamp, Position)>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<PayloadEnd>, Error> {
        let shared = self.shared.lock();
        Ok(shared.live.payload_ends(after, until, limit))
    }

    fn app_messages(&self, app: AppNo, page: &Page) -> Result<Vec<Listed>, Error> {
        Ok(self.shared.lock().live.app_messages(app, page))
    }

    fn endpoint_attempts(
        &self,
        endpoint: EndpointNo,
        page: &Page,
    ) -> Result<Vec<ListedAttempt>, Error> {
        Ok(self.shared.lock().live.endpoint_attempts(endpoint, page))
    }

    fn by_event_id(&self, app: AppNo, event_id: &str) -> Result<Option<Position>, Error> {
        Ok(self.shared.lock().live.by_event_id(app, event_id))
    }

    fn idempotent(
        &self,
        key: &[u8; 16],
        oldest: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, Error> {
        Ok(self.shared.lock().live.idempotent(key, oldest))
    }

    fn audit(&self, page: &AuditPage) -> Result<Vec<AuditRow>, Error> {
        Ok(self.shared.lock().live.audit(page))
    }

    fn config(&self) -> Result<(u64, Vec<ConfigRow>), Error> {
        let shared = self.shared.lock();
        Ok((shared.live.revision, shared.live.config()))
    }
}

#[cfg(test)]
mod tests;
