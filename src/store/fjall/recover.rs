//! What an open checks before the store may be used.
//!
//! Owns: the comparison of what is found with what must be there (`reliability.md` D6): batch numbers
//! without gaps and chained by hash, a marker in every key space a batch touched, lanes at least as
//! long as the mark says, a dense end of the log. A hole stops the start. Bounded: it reads the rings
//! of batch records and markers and the end of the log, never the whole store.

use std::collections::BTreeMap;

use ::fjall::{Readable as _, Snapshot};

use crate::base::broken;
use crate::model::{LaneId, Position};
use crate::store::{Damage, Error};

use super::batch::{self, BatchRecord, LaneRow};
use super::hwm::Mark;
use super::keys::{self, RING};
use super::reach::Reach;
use super::reader::row;
use super::record;
use super::remedy;
use super::spaces::{Space, Spaces, unreadable};

/// Messages at the end of the newest lane whose numbers are checked one by one.
const TAIL: u64 = 10_000;
/// Newest batches whose markers among the attempts are looked up one by one.
const ATTEMPT_MARKERS: u64 = 20_000;

/// What a store holds, as far as the writer must know.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) batch: BatchRecord,
    pub(super) lanes: BTreeMap<LaneId, LaneRow>,
    pub(super) highest_lane: LaneId,
    pub(super) revision: u64,
    pub(super) newest_bucket: u32,
    pub(super) holes_up_to: u32,
    pub(super) reach: Reach,
}

impl Found {
    /// First retained sequence number of the lanes that have lost some to retention.
    pub(super) fn floors(&self) -> BTreeMap<LaneId, u64> {
        let floors = self.lanes.iter().map(|(lane, row)| (*lane, row.floor));
        floors.filter(|(_, floor)| *floor > 0).collect()
    }
}

/// Checks everything and answers what is there.
pub(super) fn check(spaces: &Spaces, mark: &Mark) -> Result<Found, Error> {
    if broken::SKIP_CHECKSUM {
        return gather(spaces);
    }
    let check = Check {
        spaces,
        view: spaces.snapshot(),
        mark,
    };
    let from = check.number(Space::Meta, keys::VERIFY_FROM)?.unwrap_or(1);
    let chain = check.chain(from)?;
    check.markers(&chain, from)?;
    let lanes = check.lanes(&chain.last)?;
    check.found(chain.last, lanes)
}

/// Answers what is there without judging it, for going on after an accepted loss.
pub(super) fn gather(spaces: &Spaces) -> Result<Found, Error> {
    let check = Check {
        spaces,
        view: spaces.snapshot(),
        mark: &Mark::default(),
    };
    let mut last = BatchRecord::GENESIS;
    for guard in check.view.prefix(spaces.of(Space::Meta), keys::BATCH) {
        let (key, value) = row(guard)?;
        if let Ok(batch) = BatchRecord::decode(&key, &value)
            && batch.number > last.number
        {
            last = batch;
        }
    }
    let mut lanes = BTreeMap::new();
    for guard in check.view.prefix(spaces.of(Space::Meta), [keys::LANE]) {
        let (key, value) = row(guard)?;
        let (lane, row) = batch::read_lane(&key, &value)?;
        let last = check.last_stored(lane)?;
        lanes.insert(lane, LaneRow { last, ..row });
    }
    check.found(last, lanes)
}

/// The batch records as found.
struct Chain {
    last: BatchRecord,
    /// Per slot of the ring which key spaces the batch there touched; 0 = no batch.
    touched: Vec<u8>,
    /// Those whose markers among the attempts are looked up.
    attempts: Vec<(Position, u64)>,
}

impl Chain {
    /// The number of the batch in a slot, if there is one.
    fn number(&self, slot: u64) -> u64 {
        let newest = self.last.number % RING;
        if slot <= newest {
            self.last.number - (newest - slot)
        } else {
            (self.last.number + slot).saturating_sub(newest + RING)
        }
    }
}

struct Check<'a> {
    spaces: &'a Spaces,
    view: Snapshot,
    mark: &'a Mark,
}

impl Check<'_> {
    fn found(&self, batch: BatchRecord, lanes: BTreeMap<LaneId, LaneRow>) -> Result<Found, Error> {
        let highest = self.number(Space::Meta, keys::TOP_LANE)?.unwrap_or(0);
        let known = lanes.last_key_value().map_or(0, |(lane, _)| lane.0);
        let idem = self.spaces.of(Space::Idem);
        let newest = self.view.prefix(idem, [keys::IDEMPOTENCY]).next_back();
        let newest = newest.map(row).transpose()?;
        let small = |n: Option<u64>| u32::try_from(n.unwrap_or(0)).unwrap_or(u32::MAX);
        Ok(Found {
            batch,
            lanes,
            highest_lane: LaneId(small(Some(highest)).max(known)),
            revision: self.number(Space::State, keys::REVISION)?.unwrap_or(0),
            newest_bucket: newest
                .and_then(|(key, _)| keys::read_bucket(&key))
                .unwrap_or(0),
            holes_up_to: small(self.number(Space::Meta, keys::HOLES)?),
            reach: Reach::read(self.spaces, &self.view)?,
        })
    }

    fn number(&self, space: Space, key: &[u8]) -> Result<Option<u64>, Error> {
        let value = self.view.get(self.spaces.of(space), key);
        let value = value.map_err(|error| unreadable(&error))?;
        value
            .map(|value| record::read_number(key, &value))
            .transpose()
    }

    fn refuse(&self, found: String, lane: Option<(LaneId, u64, u64)>) -> Error {
        Error::Regressed(Box::new(Damage {
            found,
            place: None,
            lane,
            remedy: remedy(lane.map(|(lane, ..)| lane), lane.map(|(_, found, _)| found)),
        }))
    }

    fn tail_of(&self, batch: &BatchRecord) -> Option<(LaneId, u64, u64)> {
        let lane = batch.tail.lane;
        let acked = self.mark.lanes.get(&lane).copied();
        Some((lane, batch.tail.seq, acked.unwrap_or(batch.tail.seq)))
    }

    /// Walks the ring in key order: numbers grow by one, but for the one place where the newest
    /// batch is followed by the oldest.
    fn chain(&self, from: u64) -> Result<Chain, Error> {
        let ring = usize::try_from(RING).unwrap_or(usize::MAX);
        let mut chain = Chain {
            last: BatchRecord::GENESIS,
            touched: vec![0; ring],
            attempts: Vec::new(),
        };
        let mut before: Option<BatchRecord> = None;
        let mut first: Option<BatchRecord> = None;
        for guard in self.view.prefix(self.spaces.of(Space::Meta), keys::BATCH) {
            let (key, value) = row(guard)?;
            let batch = BatchRecord::decode(&key, &value)?;
            if batch.hash != batch.expected_hash() || key != keys::batch(batch.number).as_slice() {
                return Err(record::corrupt(
                    "batch record",
                    &key,
                    "its hash does not match",
                ));
            }
            if let Some(before) = before.filter(|before| before.number >= from) {
                self.follows(&before, &batch)?;
            }
            let slot = usize::try_from(batch.number % RING).unwrap_or(0);
            if let Some(touched) = chain.touched.get_mut(slot) {
                *touched = batch.touched;
            }
            if batch.touched & Space::Attempts.bit() != 0 {
                chain.attempts.push((batch.tail, batch.number));
            }
            if batch.number > chain.last.number {
                chain.last = batch;
            }
            first = first.or(Some(batch));
            before = Some(batch);
        }
        if let (Some(first), Some(before)) = (first, before) {
            // Round the end of the ring: the last slot precedes the first, unless it is the newest.
            if before.number < chain.last.number && before.number >= from {
                self.follows(&before, &first)?;
            }
            let oldest = chain.last.number.saturating_sub(RING - 1).max(1);
            let lowest = first.number.min(before.number);
            if lowest > oldest && lowest > from && chain.last.number < RING {
                let found = format!("the batches before {lowest} are missing");
                return Err(self.refuse(found, self.tail_of(&first)));
            }
        }
        self.against_mark(&chain, from)?;
        Ok(chain)
    }

    fn follows(&self, before: &BatchRecord, batch: &BatchRecord) -> Result<(), Error> {
        let wraps = before.number > batch.number && before.number - batch.number < RING;
        let next = before.number + 1 == batch.number && batch.previous == before.hash;
        // Behind the newest batch stands the oldest, whose predecessor is overwritten.
        if next || (wraps && before.number - batch.number == RING - 1) {
            return Ok(());
        }
        let found = format!(
            "the batches between {} and {} are missing",
            before.number.min(batch.number),
            before.number.max(batch.number)
        );
        Err(self.refuse(found, self.tail_of(before)))
    }

    fn against_mark(&self, chain: &Chain, from: u64) -> Result<(), Error> {
        let mark = self.mark;
        let last = &chain.last;
        if mark.batch > last.number {
            let found = format!(
                "the store ends at batch {}, batch {} was acknowledged",
                last.number, mark.batch
            );
            let lane = mark.lanes.last_key_value().map(|(lane, acked)| {
                let found = if last.tail.lane == *lane {
                    last.tail.seq
                } else {
                    0
                };
                (*lane, found, *acked)
            });
            return Err(self.refuse(found, lane));
        }
        if mark.batch == 0 || mark.batch + RING <= last.number || mark.batch < from {
            return Ok(());
        }
        let key = keys::batch(mark.batch);
        let value = self.view.get(self.spaces.of(Space::Meta), key);
        let Some(value) = value.map_err(|error| unreadable(&error))? else {
            let found = format!("batch {} is missing", mark.batch);
            return Err(self.refuse(found, None));
        };
        if BatchRecord::decode(&key, &value)?.hash != mark.hash {
            let found = format!(
                "batch {} is not the one that was acknowledged: the store and its mark do not belong together",
                mark.batch
            );
            return Err(self.refuse(found, self.tail_of(last)));
        }
        Ok(())
    }

    /// Every key space has the marker of every batch that touched it.
    fn markers(&self, chain: &Chain, from: u64) -> Result<(), Error> {
        for space in Space::ALL.into_iter().filter(|space| space.has_ring()) {
            let mut open = chain.touched.clone();
            let prefix = [0xff, 0xff, 0xff, 0xff, b'M'];
            for guard in self.view.prefix(self.spaces.of(space), prefix) {
                let (key, value) = row(guard)?;
                let number = record::read_number(&key, &value)?;
                let slot = number % RING;
                if chain.number(slot) == number
                    && let Some(open) = usize::try_from(slot).ok().and_then(|n| open.get_mut(n))
                {
                    *open &= !space.bit();
                }
            }
            for (slot, open) in (0..).zip(&open) {
                let number = chain.number(slot);
                if open & space.bit() != 0 && number >= from {
                    return Err(self.hole(space, number, &chain.last));
                }
            }
        }
        let oldest = chain.last.number.saturating_sub(ATTEMPT_MARKERS).max(from);
        let attempts = self.spaces.of(Space::Attempts);
        for (tail, number) in &chain.attempts {
            let key = keys::attempts_marker(*tail, *number);
            let found = *number < oldest || self.was_dropped(*tail)?;
            let found = found || {
                let found = self.view.contains_key(attempts, key);
                found.map_err(|error| unreadable(&error))?
            };
            if !found {
                return Err(self.hole(Space::Attempts, *number, &chain.last));
            }
        }
        Ok(())
    }

    fn was_dropped(&self, at: Position) -> Result<bool, Error> {
        let key = keys::lane(at.lane);
        let value = self.view.get(self.spaces.of(Space::Meta), key);
        match value.map_err(|error| unreadable(&error))? {
            Some(value) => Ok(batch::read_lane(&key, &value)?.1.floor > at.seq),
            None => Ok(true),
        }
    }

    fn hole(&self, space: Space, number: u64, last: &BatchRecord) -> Error {
        let found = format!(
            "what batch {number} wrote into the key space `{}` is missing",
            space.name()
        );
        self.refuse(found, self.tail_of(last))
    }

    /// Lanes with their true ends; checks them against the mark and the newest batch.
    fn lanes(&self, last: &BatchRecord) -> Result<BTreeMap<LaneId, LaneRow>, Error> {
        let mut lanes = BTreeMap::new();
        for guard in self.view.prefix(self.spaces.of(Space::Meta), [keys::LANE]) {
            let (key, value) = row(guard)?;
            let (lane, mut found) = batch::read_lane(&key, &value)?;
            let stored = self.last_stored(lane)?;
            if stored < found.last && found.floor <= found.last {
                let what = String::from("messages are missing at the end of a lane");
                return Err(self.refuse(what, Some((lane, stored, found.last))));
            }
            found.last = stored.max(found.last);
            lanes.insert(lane, found);
        }
        let tail = last.tail;
        let known = |lane: LaneId| lanes.get(&lane).copied().unwrap_or_default();
        let mut expected = self.mark.lanes.clone();
        if tail.seq > 0 {
            let seq = expected.entry(tail.lane).or_default();
            *seq = tail.seq.max(*seq);
        }
        for (lane, acked) in expected {
            let row = known(lane);
            if row.last < acked && lanes.contains_key(&lane) {
                let what = String::from("acknowledged messages are missing");
                return Err(self.refuse(what, Some((lane, row.last, acked))));
            }
            if !lanes.contains_key(&lane) && self.last_stored(lane)? < acked && lane == tail.lane {
                let what = String::from("a whole lane is missing");
                return Err(self.refuse(what, Some((lane, 0, acked))));
            }
        }
        self.dense_tail(tail, known(tail.lane))?;
        Ok(lanes)
    }

    fn last_stored(&self, lane: LaneId) -> Result<u64, Error> {
        let messages = self.spaces.of(Space::Messages);
        let newest = self.view.prefix(messages, lane.0.to_be_bytes()).next_back();
        let key = newest.map(row).transpose()?.map(|(key, _)| key);
        let place = key.and_then(|key| key.first_chunk::<12>().copied());
        Ok(place.map_or(0, |place| Position::from_bytes(place).seq))
    }

    fn dense_tail(&self, tail: Position, row_of: LaneRow) -> Result<(), Error> {
        let start = tail.seq.saturating_sub(TAIL).max(row_of.floor).max(1);
        let from = Position { seq: start, ..tail };
        let to = Position {
            seq: u64::MAX,
            ..tail
        };
        let messages = self.spaces.of(Space::Messages);
        let holes = self.number(Space::Meta, keys::HOLES)?.unwrap_or(0);
        if u64::from(tail.lane.0) <= holes {
            return Ok(());
        }
        let rows = self.view.range(messages, from.bytes()..=to.bytes());
        for (expected, guard) in (start..).zip(rows) {
            let (key, _) = row(guard)?;
            if key
                != (Position {
                    seq: expected,
                    ..tail
                })
                .bytes()
                .as_slice()
            {
                let what = format!("message {expected} is missing");
                let lane = Some((tail.lane, expected - 1, tail.seq));
                return Err(self.refuse(what, lane));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
