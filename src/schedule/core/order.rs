//! Order of deliveries, where an endpoint asks for it.
//!
//! `order: endpoint`: at most one attempt at a time; while a retry waits nothing else starts; what
//! does not fit into memory is parked in order, and memory never holds something younger than the
//! store (so fresh messages are parked as long as there is a backlog).
//!
//! `order: key`: the same per ordering key, without holding up other keys. While a delivery of a key
//! waits for its retry, later ones of that key are parked behind it with the same due time; rows
//! sort by due time and then by position, so they come back in order. Memory grows with the keys that
//! are failing or in flight, never with the backlog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;

use super::slot::Slot;
use super::{Core, Kind, Read};
use crate::base::Timestamp;
use crate::model::{Delivery, Message, Order, ParkReason, Parked, ParkedKey, Position};

/// Keys of one endpoint that have something in memory or waiting for a retry.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// After a start: the rows that wait for a retry are being counted; nothing may start yet.
    pub(super) loading: bool,
    /// A page under way was asked for before the count began: it is no part of it (simulation
    /// seed 310).
    foreign: bool,
    of: HashMap<u64, Key>,
}

#[derive(Debug, Default)]
struct Key {
    /// Rows of this key that wait for a time and are not in memory.
    rows: u32,
    /// The latest due time of a row. What comes new gets none before it, even if the clock has gone
    /// back since (simulation seed 65).
    last: Timestamp,
    /// Those of the rows that others must not overtake although their due times allow it, and those
    /// due times: the one that failed, and what came out of turn and was sent back. At most the rows
    /// of a failing key.
    ahead: BTreeMap<Position, Timestamp>,
    /// While rows are counted, in the order of their due times: the newest that was found.
    newest: Option<Position>,
    /// Waiting in memory, in order; the first one may be queued or under way.
    waiting: BTreeSet<Position>,
    /// The one that is queued or under way.
    turn: Option<Position>,
}

impl Keys {
    pub(super) fn wanted(order: Order) -> Option<Box<Self>> {
        (order == Order::Key).then(Box::default)
    }

    /// The due time under which a delivery of `key` must wait, if it must: behind all rows if it is
    /// `fresh`, since those are older; else behind the rows that it must not overtake.
    ///
    /// Rows come back by due time and then by position. What is sent back gets the due time of the
    /// one before it, even if that has passed: so it stands behind it and in order with the rest, and
    /// does not come back before it, even if the clock has gone back (simulation seed 310).
    pub(super) fn behind(
        &mut self,
        key: u64,
        at: Position,
        now: Timestamp,
        fresh: bool,
    ) -> Option<Timestamp> {
        // Zero marks backlog.
        const LEAST: Timestamp = Timestamp::from_millis(1);
        if key == 0 {
            return None;
        }
        let state = self.of.get_mut(&key)?;
        if fresh && state.rows > 0 {
            state.last = state.last.max(now).max(LEAST);
            return Some(state.last);
        }
        let (first, due) = state.ahead.first_key_value()?;
        if *first >= at {
            return None;
        }
        let before = state.ahead.range(..at).next_back();
        let due = before
            .map_or(*due, |(_, before)| *before.max(due))
            .max(LEAST);
        state.ahead.insert(at, due);
        state.last = state.last.max(due);
        Some(due)
    }

    /// A delivery came into memory; true = it may be queued for a slot.
    pub(super) fn enter(&mut self, key: u64, at: Position) -> bool {
        if key == 0 {
            return true;
        }
        let state = self.of.entry(key).or_default();
        state.waiting.insert(at);
        if state.turn.is_some() {
            return false;
        }
        state.turn = state.waiting.first().copied();
        state.turn == Some(at)
    }

    /// A row was parked behind its key.
    pub(super) fn parked(&mut self, key: u64, due: Timestamp) {
        if key != 0 {
            let state = self.of.entry(key).or_default();
            state.rows += 1;
            state.last = state.last.max(due);
        }
    }

    /// A row is only in the store (again): it may be the first of its key.
    pub(super) fn returned(&mut self, key: u64, row: ParkedKey) {
        self.parked(key, row.due);
        if let Some(state) = self.of.get_mut(&key) {
            state.ahead.insert(row.at, row.due);
        }
    }

    /// A row was found in the store while counting. What is due later than a younger one was waited
    /// for, and still is.
    fn found(&mut self, parked: &Parked) {
        let (key, row) = (parked.order_key, parked.key);
        let known = |state: &Key| state.ahead.contains_key(&row.at);
        if key == 0 || self.of.get(&key).is_some_and(known) {
            return;
        }
        self.parked(key, row.due);
        if parked.reason == ParkReason::Once {
            // It was finished before: nothing waits for it, and it must not stand in the place of
            // the delivery that the others do wait for.
            return;
        }
        let state = self.of.entry(key).or_default();
        if state.newest.is_some_and(|newest| row.at < newest) {
            state.ahead.insert(row.at, row.due);
        }
        state.newest = state.newest.max(Some(row.at));
    }

    /// A row of the key was taken into memory.
    pub(super) fn claimed(&mut self, key: u64, at: Position) {
        if let Some(state) = self.of.get_mut(&key) {
            state.rows = state.rows.saturating_sub(1);
            state.ahead.remove(&at);
        }
        self.tidy(key);
    }

    /// Counts the rows anew: they were changed from outside. `reading` = a page is under way.
    pub(super) fn reload(&mut self, reading: bool) {
        self.loading = true;
        self.foreign = reading;
        for state in self.of.values_mut() {
            state.rows = 0;
            state.last = Timestamp::ZERO;
            state.newest = None;
            state.ahead.clear();
        }
        self.of.retain(|_, state| !state.waiting.is_empty());
    }

    /// A delivery left memory for good; answers the next one of its key that may be queued.
    pub(super) fn ended(&mut self, key: u64, at: Position) -> Option<Position> {
        let state = self.of.get_mut(&key)?;
        state.waiting.remove(&at);
        let mut next = None;
        if state.turn == Some(at) {
            state.turn = state.waiting.first().copied();
            next = state.turn;
        }
        self.tidy(key);
        next
    }

    /// A delivery waits for its retry until `due`; answers those of its key that must wait behind it.
    pub(super) fn blocked(&mut self, key: u64, at: Position, due: Timestamp) -> BTreeSet<Position> {
        if key == 0 {
            return BTreeSet::new();
        }
        self.parked(key, due);
        let state = self.of.entry(key).or_default();
        state.ahead.insert(at, due);
        state.turn = None;
        let mut behind = std::mem::take(&mut state.waiting);
        behind.remove(&at);
        behind
    }

    /// Everything that waits in memory, in order; what is under way stays.
    pub(super) fn drain(&mut self, sending: impl Fn(Position) -> bool) -> Vec<Position> {
        let mut all = Vec::new();
        for state in self.of.values_mut() {
            let (stay, go) = std::mem::take(&mut state.waiting)
                .into_iter()
                .partition(|at| sending(*at));
            state.waiting = stay;
            state.turn = state.waiting.first().copied();
            let go: BTreeSet<Position> = go;
            all.extend(go);
        }
        self.of
            .retain(|_, state| state.rows > 0 || !state.waiting.is_empty());
        all.sort_unstable();
        all
    }

    fn tidy(&mut self, key: u64) {
        if let Some(state) = self.of.get(&key)
            && state.rows == 0
            && state.waiting.is_empty()
        {
            self.of.remove(&key);
        }
    }
}

impl Slot {
    /// Hash of the message's ordering key, if this endpoint orders by key; 0 = no key.
    pub(super) fn order_key(&self, message: &Message) -> u64 {
        if self.keys.is_none() {
            return 0;
        }
        message.ordering_key().map_or(0, order_key)
    }
}

/// FNV-1a, 64 bits: stored in rows, so it must never change. A collision makes two keys wait for
/// each other, nothing worse.
pub fn order_key(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

impl Core {
    /// Counts the rows that wait for a time, page by page, before anything of the endpoint starts.
    pub(super) fn load_keys(
        &mut self,
        read: &Read,
        rows: &[(Parked, Option<Arc<Message>>)],
        more: bool,
    ) {
        let Some(slot) = self.slots.get_mut(&read.endpoint) else {
            return;
        };
        if read.kind == Kind::Backlog {
            slot.backlog.read(None, Some(Timestamp::ZERO)); // asked for before: read it again later
            return;
        }
        let Some(keys) = slot.keys.as_mut() else {
            return;
        };
        if std::mem::take(&mut keys.foreign) {
            slot.retry.read(None, Some(Timestamp::ZERO));
            return self.wake(read.endpoint);
        }
        for (row, _) in rows {
            let delivery = Delivery {
                at: row.key.at,
                endpoint: row.key.endpoint,
            };
            if self.live.contains_key(&delivery) || self.unapplied.contains(&row.key) {
                continue; // in memory, or just finished
            }
            keys.found(row);
        }
        keys.loading = more;
        slot.retry
            .read(rows.last().map(|(row, _)| row.key), Some(Timestamp::ZERO));
        if !more {
            slot.retry.start_over(); // counted; now read them to send them
        }
        self.wake(read.endpoint);
    }
}
