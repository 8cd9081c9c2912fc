//! Retention: what may be dropped, and when.
//!
//! Owns: the floor of each lane. A message may go once it is older than the retention, its delivery
//! is settled (it stands below the checkpoint) and nothing parked still needs it. Dropping takes
//! whole tables (`storage.md` 2.8), so bytes go later than the floor moves; readers go by the floor.
//! Undelivered messages are never dropped, whatever their age, nor are their attempts, nor the list they
//! stand in.
//!
//! An attempt of a message that is gone has a time of its own, from when it ended; what was answered to it
//! has a shorter one (ADR 0346). Readers hide both by the millisecond ([`super::gone::Cuts`]); rows go by the
//! day, those of attempts up to where the days that are kept still reach ([`super::reach`]).
//!
//! The oldest parked message is found by a slow walk over the parked rows, a bounded number per call;
//! what is parked during the walk is added by the writer. Invariant: a floor never goes back.

use std::collections::BTreeMap;
use std::ops::Bound;

use ::fjall::{AbstractTree as _, Readable as _};

use crate::base::Timestamp;
use crate::model::{LaneId, Parked, Position};
use crate::store::Error;

use super::batch::{self, LaneRow};
use super::gone::Days;
use super::reader::row;
use super::record;
use super::spaces::{Space, unreadable};
use super::{FjallWriter, keys, message};

/// Parked rows looked at in one step.
const STEP: usize = 5_000;
/// Event ids looked at in one step, some 10 ms. Compactions leave out what is gone at any rate
/// ([`super::gone`]); this is for what they do not touch any more.
const SWEEP: usize = 20_000;

/// Where housekeeping stands.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// The walk over the parked rows goes on behind this key; `None` = it begins.
    walk: Option<Vec<u8>>,
    /// Per lane the oldest message seen parked during this walk.
    oldest: BTreeMap<LaneId, u64>,
    /// The oldest days of lists and block of idempotency records when tables were last dropped.
    dropped: Option<(Days, u32)>,
    /// The sweep over event ids goes on behind this key.
    sweep: Option<Vec<u8>>,
}

impl Expiry {
    /// What is parked while a walk is under way must hold the floor as well.
    pub(super) fn note_parked(&mut self, rows: &[Parked]) {
        for parked in rows {
            self.note(parked.key.at);
        }
    }

    fn note(&mut self, at: Position) {
        let oldest = self.oldest.entry(at.lane).or_insert(at.seq);
        *oldest = at.seq.min(*oldest);
    }
}

/// One step of housekeeping: what is out of time is hidden; a piece of the walk, and at its end the floors
/// move and tables are dropped.
pub(super) fn step(writer: &mut FjallWriter, now: Timestamp) -> Result<(), Error> {
    writer.shared().cuts.raise(now, writer.retention());
    sweep_event_ids(writer)?;
    if !walk(writer)? {
        return Ok(());
    }
    let cut = now.minus(writer.retention().messages);
    let oldest = std::mem::take(&mut writer.expiry.oldest);
    let mut moved = Vec::new();
    for (lane, row) in writer.lanes.iter().filter(|(_, row)| !row.is_expired()) {
        let settled = row.checkpoint.saturating_add(1);
        let held = oldest.get(lane).copied().unwrap_or(u64::MAX);
        let high = settled.min(held);
        let floor = first_since(writer, *lane, row.floor.max(1), high, cut)?;
        if floor > row.floor.max(1) {
            moved.push((*lane, LaneRow { floor, ..*row }));
        }
    }
    let days = Days {
        messages: keys::day(cut),
        attempts: keys::day(now.minus(writer.retention().of_attempts())),
        bodies: keys::day(now.minus(writer.retention().of_bodies())),
        audit: keys::day(cut),
    };
    let oldest_block = keys::bucket(now.minus(writer.retention().idempotency));
    let reached = Some((days, oldest_block));
    if !moved.is_empty() || writer.expiry.dropped != reached {
        raise(writer, moved)?;
        let messages = first_listed(writer, days.messages)?;
        let days = Days { messages, ..days };
        writer.shared().floors.set_days(days);
        drop_tables(writer, days, oldest_block)?;
        writer.reach.forget_before(days.attempts);
        writer.expiry.dropped = reached;
    }
    Ok(())
}

/// The day from which on messages must stay in their lists: `day`, or that of the oldest one that is
/// retained longer because it waits.
fn first_listed(writer: &FjallWriter, day: u32) -> Result<u32, Error> {
    let view = writer.spaces().snapshot();
    let messages = writer.spaces().of(Space::Messages);
    let mut first = day;
    for (&lane, lane_row) in writer.lanes.iter().filter(|(_, row)| !row.is_expired()) {
        let low = Position {
            lane,
            seq: lane_row.floor.max(1),
        };
        let high = Position {
            lane,
            seq: u64::MAX,
        };
        let oldest = view.range(messages, low.bytes()..=high.bytes()).next();
        if let Some((key, value)) = oldest.map(row).transpose()? {
            first = first.min(keys::day(message::decode(&key, &value)?.accepted));
        }
    }
    Ok(first)
}

/// Looks at some more parked rows; true when all have been seen.
fn walk(writer: &mut FjallWriter) -> Result<bool, Error> {
    let view = writer.spaces().snapshot();
    let parked = writer.spaces().of(Space::Parked);
    let low = match &writer.expiry.walk {
        Some(after) => Bound::Excluded(after.clone()),
        None => Bound::Unbounded,
    };
    // Markers stand behind all rows.
    let high = Bound::Excluded(vec![0xff; 4]);
    let mut seen = 0;
    let mut last = None;
    let mut places = Vec::new();
    for guard in view.range::<Vec<u8>, _>(parked, (low, high)).take(STEP) {
        let key = guard.key().map_err(|error| unreadable(&error))?;
        if let Some(key) = keys::read_parked(&key) {
            places.push(key.at);
        }
        last = Some(key.to_vec());
        seen += 1;
    }
    for at in places {
        writer.expiry.note(at);
    }
    let done = seen < STEP;
    writer.expiry.walk = if done { None } else { last };
    Ok(done)
}

/// The first sequence number in `low..=high` accepted at `cut` or later; acceptance times do not go
/// back in a lane, so halving finds it.
fn first_since(
    writer: &FjallWriter,
    lane: LaneId,
    mut low: u64,
    mut high: u64,
    cut: Timestamp,
) -> Result<u64, Error> {
    let messages = writer.spaces().of(Space::Messages);
    high = high.max(low);
    while low < high {
        let seq = low + (high - low) / 2;
        let key = Position { lane, seq }.bytes();
        let value = messages.get(key).map_err(|error| unreadable(&error))?;
        let accepted = match value {
            Some(value) => message::decode(&key, &value.into())?.accepted,
            // Behind the end of the lane.
            None => Timestamp::MAX,
        };
        if accepted < cut {
            low = seq + 1;
        } else {
            high = seq;
        }
    }
    Ok(low)
}

/// Writes the new floors, then lets readers know.
fn raise(writer: &mut FjallWriter, moved: Vec<(LaneId, LaneRow)>) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    let mut commit = writer.start(moved.len());
    for (lane, row) in &moved {
        let key = keys::lane(*lane);
        let value = batch::lane(&key, *row);
        commit.put(writer.spaces(), Space::Meta, &key, value);
    }
    writer.finish(commit, true)?;
    for (lane, row) in moved {
        writer.shared().floors.raise(lane, row.floor);
        writer.expired(lane, row);
    }
    Ok(())
}

/// Drops the tables that lie below the floors as a whole.
fn drop_tables(writer: &FjallWriter, days: Days, block: u32) -> Result<(), Error> {
    let spaces = writer.spaces();
    let drop = |space: Space, low: Vec<u8>, high: Vec<u8>| {
        if low >= high {
            return Ok(());
        }
        let range = (Bound::Included(low), Bound::Excluded(high));
        let dropped = spaces.of(space).tree.drop_range(range);
        dropped.map_err(|error| Error::Unavailable(error.to_string()))
    };
    let floors = writer.shared().floors.all();
    let of_attempts = writer.reach.floors(&floors, days.attempts);
    for (space, floors) in [
        (Space::Messages, &floors),
        (Space::Attempts, &of_attempts),
        (Space::AttemptsLate, &of_attempts),
    ] {
        for (&lane, &seq) in floors {
            let low = Position { lane, seq: 0 }.bytes().to_vec();
            drop(space, low, Position { lane, seq }.bytes().to_vec())?;
        }
    }
    for kind in Days::KINDS {
        let low = keys::list_days(kind, 0).to_vec();
        let high = keys::list_days(kind, days.of(kind)).to_vec();
        drop(Space::Lists, low, high)?;
    }
    let low = keys::idempotency_bucket(0).to_vec();
    drop(Space::Idem, low, keys::idempotency_bucket(block).to_vec())
}

/// Removes some event ids whose message is gone.
fn sweep_event_ids(writer: &mut FjallWriter) -> Result<(), Error> {
    if writer.shared().floors.is_empty() {
        return Ok(());
    }
    let view = writer.spaces().snapshot();
    let low = match &writer.expiry.sweep {
        Some(after) => Bound::Excluded(after.clone()),
        None => Bound::Included(vec![keys::EVENT_ID]),
    };
    let high = Bound::Excluded(vec![keys::EVENT_ID + 1]);
    let mut commit = writer.start(SWEEP);
    let mut seen = 0;
    let mut last = None;
    let mut gone = 0;
    for guard in view
        .range::<Vec<u8>, _>(writer.spaces().of(Space::Idem), (low, high))
        .take(SWEEP)
    {
        let (key, value) = row(guard)?;
        let (at, _) = record::read_event_id(&key, &value)?;
        if !writer.shared().is_retained(at) {
            commit.remove(writer.spaces(), Space::Idem, &key);
            gone += 1;
        }
        last = Some(key.to_vec());
        seen += 1;
    }
    writer.expiry.sweep = if seen < SWEEP { None } else { last };
    if gone > 0 {
        writer.finish(commit, false)?;
    }
    Ok(())
}
