//! The stored form of every small record: parked rows, states, lists, batches.
//!
//! Owns: the layouts. A record is `format 1 | fields | crc32c 4`; the checksum covers the key as
//! well, so a record under a wrong key is found out. Numbers are big-endian, `opt` fields carry 0
//! for none or the value plus one. Pure. Elsewhere: messages ([`super::message`]), attempts
//! ([`super::attempt`]).
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes};

use crate::base::{Timestamp, broken};
use crate::model::{
    Attempt, EndpointNo, EndpointState, Health, LaneId, ParkReason, Parked, ParkedKey, Position,
    Trigger, Verdict,
};
use crate::store::{Error, IdempotencyRecord, ListKey, ListedAttempt, StoredAnswer};

use super::keys::{self, six, take};

/// The format this code writes.
pub(super) const FORMAT: u8 = 1;
/// The format of cancellations that name what took the delivery's place.
const FORMAT_SUPERSEDED: u8 = 2;

/// A record that fails its check.
pub(super) fn corrupt(kind: &str, key: &[u8], why: &str) -> Error {
    let mut what = format!("{kind} ");
    for byte in key {
        what.push_str(&format!("{byte:02x}"));
    }
    Error::Corrupt {
        what,
        why: why.to_owned(),
    }
}

/// A stored length as one in memory.
pub(super) fn length(bytes: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX)
}

/// Opens a record for writing.
pub(super) fn start(capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity + 5);
    out.push(FORMAT);
    out
}

/// Closes a record for writing.
pub(super) fn seal(key: &[u8], mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &out);
    out.put_u32(crc);
    out
}

/// Checks a record and answers its fields.
pub(super) fn unseal<'a>(kind: &str, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Error> {
    match opened(kind, key, value)? {
        (FORMAT, fields) => Ok(fields),
        _ => Err(corrupt(kind, key, "the format is unknown")),
    }
}

/// Checks a record and answers its format and fields.
pub(super) fn opened<'a>(kind: &str, key: &[u8], value: &'a [u8]) -> Result<(u8, &'a [u8]), Error> {
    let Some((body, crc)) = value.split_last_chunk::<4>() else {
        return Err(corrupt(kind, key, "it is too short"));
    };
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), body);
    if u32::from_be_bytes(*crc) != sum && !broken::SKIP_CHECKSUM {
        return Err(corrupt(kind, key, "the checksum does not match"));
    }
    let (format, fields) = body
        .split_first()
        .ok_or_else(|| corrupt(kind, key, "it is too short"))?;
    Ok((*format, fields))
}

pub(super) fn time(from: &mut &[u8]) -> Option<Timestamp> {
    let [a, b, c, d, e, f] = take(from)?;
    let ms = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    Some(Timestamp::from_millis(ms))
}

pub(super) fn four(from: &mut &[u8]) -> Option<u32> {
    take(from).map(u32::from_be_bytes)
}

pub(super) fn eight(from: &mut &[u8]) -> Option<u64> {
    take(from).map(u64::from_be_bytes)
}

pub(super) fn put_time(out: &mut Vec<u8>, at: Timestamp) {
    out.extend_from_slice(&six(at.millis()));
}

/// LEB128, as everywhere.
pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(low7(n) | 0x80);
        n >>= 7;
    }
    out.push(low7(n));
}

fn low7(n: u64) -> u8 {
    u8::try_from(n & 0x7f).unwrap_or(0)
}

pub(super) fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(from)?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

pub(super) const fn trigger_code(trigger: Trigger) -> u8 {
    match trigger {
        Trigger::Scheduled => 0,
        Trigger::Manual => 1,
    }
}

pub(super) const fn read_trigger(code: u8) -> Option<Trigger> {
    match code {
        0 => Some(Trigger::Scheduled),
        1 => Some(Trigger::Manual),
        _ => None,
    }
}

/// Writes a cancellation.
pub(super) fn cancelled(key: &[u8]) -> Vec<u8> {
    seal(key, start(0))
}

/// Writes a cancellation by the message that took the delivery's place. A version that does not know
/// the format refuses it.
pub(super) fn superseded(key: &[u8], by: Position) -> Vec<u8> {
    let mut out = Vec::with_capacity(17);
    out.push(FORMAT_SUPERSEDED);
    out.extend_from_slice(&by.bytes());
    seal(key, out)
}

/// Checks a cancellation; answers what took the delivery's place, if it ended so.
pub(super) fn read_cancelled(key: &[u8], value: &[u8]) -> Result<Option<Position>, Error> {
    const KIND: &str = "cancellation";
    match opened(KIND, key, value)? {
        (FORMAT, _) => Ok(None),
        (FORMAT_SUPERSEDED, mut fields) => match take(&mut fields) {
            Some(by) => Ok(Some(Position::from_bytes(by))),
            None => Err(corrupt(KIND, key, "it is too short")),
        },
        _ => Err(corrupt(KIND, key, "the format is unknown")),
    }
}

/// Writes a parked row.
pub(super) fn parked(key: &[u8], row: &Parked) -> Vec<u8> {
    let mut out = start(18);
    out.put_u16(row.attempts);
    out.put_u16(row.base);
    out.put_u8(row.reason as u8);
    out.put_u8(trigger_code(row.trigger));
    out.put_u32(row.bytes);
    out.put_u64(row.order_key);
    seal(key, out)
}

/// Reads a parked row.
pub(super) fn read_parked(key: &[u8], value: &[u8]) -> Result<Parked, Error> {
    let fields = unseal("parked row", key, value)?;
    let row = keys::read_parked(key).and_then(|key| parked_fields(key, fields));
    row.ok_or_else(|| corrupt("parked row", key, "a field is bad"))
}

fn parked_fields(key: ParkedKey, mut from: &[u8]) -> Option<Parked> {
    let attempts = u16::from_be_bytes(take(&mut from)?);
    let base = u16::from_be_bytes(take(&mut from)?);
    let [reason, trigger] = take(&mut from)?;
    let reason = match reason {
        1 => ParkReason::Backlog,
        2 => ParkReason::Retry,
        3 => ParkReason::Behind,
        4 => ParkReason::Once,
        _ => return None,
    };
    Some(Parked {
        key,
        attempts,
        base,
        reason,
        trigger: read_trigger(trigger)?,
        bytes: four(&mut from)?,
        order_key: eight(&mut from)?,
    })
}

/// Writes an endpoint's state.
pub(super) fn state(key: &[u8], state: &EndpointState) -> Vec<u8> {
    let opt = |at: Option<Timestamp>| at.map_or(0, |at| at.millis() + 1);
    let mut out = start(45);
    out.put_u32(state.health.failures);
    out.put_u64(opt(state.health.first_failure));
    out.put_u64(opt(state.health.last_failure));
    out.put_u64(opt(state.health.last_success));
    out.put_u8(u8::from(state.health.announced));
    out.put_u64(state.parked);
    out.put_u64(state.parked_bytes);
    seal(key, out)
}

/// Reads an endpoint's state.
pub(super) fn read_state(key: &[u8], value: &[u8]) -> Result<(EndpointNo, EndpointState), Error> {
    let fields = unseal("endpoint state", key, value)?;
    let state = keys::read_state(key).zip(state_fields(fields));
    state.ok_or_else(|| corrupt("endpoint state", key, "a field is bad"))
}

fn state_fields(mut from: &[u8]) -> Option<EndpointState> {
    fn opt(from: &mut &[u8]) -> Option<Option<Timestamp>> {
        eight(from).map(|ms| ms.checked_sub(1).map(Timestamp::from_millis))
    }
    let failures = four(&mut from)?;
    let first_failure = opt(&mut from)?;
    let last_failure = opt(&mut from)?;
    let last_success = opt(&mut from)?;
    let [announced] = take(&mut from)?;
    Some(EndpointState {
        health: Health {
            failures,
            first_failure,
            last_failure,
            last_success,
            announced: announced != 0,
        },
        parked: eight(&mut from)?,
        parked_bytes: eight(&mut from)?,
    })
}

/// Writes a configuration object.
pub(super) fn object(key: &[u8], json: &[u8]) -> Vec<u8> {
    let mut out = start(json.len());
    out.extend_from_slice(json);
    seal(key, out)
}

/// Reads a configuration object.
pub(super) fn read_object(key: &[u8], value: &Bytes) -> Result<Bytes, Error> {
    unseal("configuration object", key, value).map(|json| value.slice_ref(json))
}

/// Writes a record that is one number.
pub(super) fn number(key: &[u8], n: u64) -> Vec<u8> {
    let mut out = start(8);
    out.put_u64(n);
    seal(key, out)
}

/// A number with `size` empty bytes behind it; reads as the number.
pub(super) fn padding(key: &[u8], size: usize) -> Vec<u8> {
    let mut out = start(8 + size);
    out.put_u64(0);
    out.resize(out.len() + size, 0);
    seal(key, out)
}

/// Reads a record that is one number.
pub(super) fn read_number(key: &[u8], value: &[u8]) -> Result<u64, Error> {
    let mut fields = unseal("number", key, value)?;
    eight(&mut fields).ok_or_else(|| corrupt("number", key, "it is too short"))
}

/// Writes the audit of an accepted loss. Begins as a number: that is what the first version wrote.
pub(super) fn audit(key: &[u8], acknowledged: u64, last_good: u64, at: Timestamp) -> Vec<u8> {
    let mut out = start(24);
    out.put_u64(acknowledged);
    out.put_u64(last_good);
    out.put_u64(at.millis());
    seal(key, out)
}

/// Reads it: acknowledged, last good, when. `None` for one that is only a number.
pub(super) fn read_audit(key: &[u8], value: &[u8]) -> Result<Option<(u64, u64, Timestamp)>, Error> {
    let mut from = unseal("audit record", key, value)?;
    let short = || corrupt("audit record", key, "it is too short");
    let acknowledged = eight(&mut from).ok_or_else(short)?;
    if from.is_empty() {
        return Ok(None);
    }
    let last_good = eight(&mut from).ok_or_else(short)?;
    let at = eight(&mut from).ok_or_else(short)?;
    Ok(Some((acknowledged, last_good, Timestamp::from_millis(at))))
}

/// Writes an idempotency record.
pub(super) fn idempotency(key: &[u8], record: &IdempotencyRecord) -> Vec<u8> {
    let mut out = start(40);
    out.extend_from_slice(&record.body);
    put_time(&mut out, record.at);
    match &record.answer {
        StoredAnswer::Message(at) => {
            out.put_u16(0);
            out.extend_from_slice(&at.bytes());
        }
        StoredAnswer::Whole { status, body } => {
            out.put_u16((*status).max(1));
            out.extend_from_slice(body);
        }
    }
    seal(key, out)
}

/// Reads an idempotency record.
pub(super) fn read_idempotency(key: &[u8], value: &Bytes) -> Result<IdempotencyRecord, Error> {
    let fields = unseal("idempotency record", key, value)?;
    idempotency_fields(fields, value)
        .ok_or_else(|| corrupt("idempotency record", key, "a field is bad"))
}

fn idempotency_fields(mut from: &[u8], value: &Bytes) -> Option<IdempotencyRecord> {
    let body = take(&mut from)?;
    let at = time(&mut from)?;
    let answer = match u16::from_be_bytes(take(&mut from)?) {
        0 => StoredAnswer::Message(Position::from_bytes(take(&mut from)?)),
        status => StoredAnswer::Whole {
            status,
            body: value.slice_ref(from),
        },
    };
    Some(IdempotencyRecord { body, at, answer })
}

/// Writes where an event id leads, and when that was accepted.
pub(super) fn event_id(key: &[u8], at: Position, accepted: Timestamp) -> Vec<u8> {
    let mut out = start(18);
    out.extend_from_slice(&at.bytes());
    put_time(&mut out, accepted);
    seal(key, out)
}

/// Reads where an event id leads.
pub(super) fn read_event_id(key: &[u8], value: &[u8]) -> Result<(Position, Timestamp), Error> {
    let mut from = unseal("event id", key, value)?;
    let at = take(&mut from).map(Position::from_bytes);
    at.zip(time(&mut from))
        .ok_or_else(|| corrupt("event id", key, "it is too short"))
}

/// The list row of one application in one commit, under construction.
#[derive(Debug)]
pub(super) struct AppRow {
    /// The first message.
    pub(super) first: Position,
    last: u64,
    deltas: Vec<u8>,
}

impl AppRow {
    /// A row with its first message.
    pub(super) fn new(first: Position) -> Self {
        Self {
            first,
            last: first.seq,
            deltas: start(0),
        }
    }

    /// Adds a later message.
    pub(super) fn push(&mut self, seq: u64) {
        put_varint(&mut self.deltas, seq.saturating_sub(self.last));
        self.last = seq;
    }

    /// Closes the row.
    pub(super) fn seal(self, key: &[u8]) -> Vec<u8> {
        seal(key, self.deltas)
    }
}

/// Reads the sequence numbers of a list row, ascending.
pub(super) fn read_app_row(key: &[u8], value: &[u8], first: u64) -> Result<Vec<u64>, Error> {
    let mut from = unseal("list row", key, value)?;
    let mut seqs = vec![first];
    let mut last = first;
    while !from.is_empty() {
        let delta = varint(&mut from).ok_or_else(|| corrupt("list row", key, "a field is bad"))?;
        last = last.saturating_add(delta);
        seqs.push(last);
    }
    Ok(seqs)
}

/// Writes a list row of attempts that ended in the same slot.
pub(super) fn endpoint_row<'a>(key: &[u8], of: impl Iterator<Item = &'a Attempt>) -> Vec<u8> {
    let mut out = start(64);
    for attempt in of {
        let [.., ms] = attempt.ended.millis().to_be_bytes();
        out.push(ms);
        put_varint(&mut out, u64::from(attempt.at.lane.0));
        put_varint(&mut out, attempt.at.seq);
        put_varint(&mut out, u64::from(attempt.no));
        out.put_u16(attempt.outcome.status);
        out.push(match attempt.verdict {
            Verdict::Delivered => 0,
            Verdict::RetryAt(_) => 1,
            Verdict::Dead(_) => 2,
        });
    }
    seal(key, out)
}

/// Reads a list row of attempts.
pub(super) fn read_endpoint_row(
    key: &[u8],
    value: &[u8],
    mut each: impl FnMut(ListedAttempt),
) -> Result<(), Error> {
    let mut from = unseal("list row", key, value)?;
    let (_, slot) = keys::read_endpoint_row(key).ok_or_else(|| corrupt("list row", key, "key"))?;
    while !from.is_empty() {
        let entry = list_entry(slot, &mut from);
        each(entry.ok_or_else(|| corrupt("list row", key, "a field is bad"))?);
    }
    Ok(())
}

fn list_entry(slot: u64, from: &mut &[u8]) -> Option<ListedAttempt> {
    let [ms] = take(from)?;
    let lane = LaneId(u32::try_from(varint(from)?).ok()?);
    let seq = varint(from)?;
    let no = u16::try_from(varint(from)?).ok()?;
    let status = u16::from_be_bytes(take(from)?);
    let [verdict] = take(from)?;
    Some(ListedAttempt {
        key: ListKey {
            time: Timestamp::from_millis(slot << keys::SLOT_BITS | u64::from(ms)),
            at: Position { lane, seq },
            no,
        },
        status,
        verdict,
        has_message: true,
    })
}

/// The first 16 bytes of a longer hash.
pub(super) fn first_16(hash: &[u8]) -> [u8; 16] {
    hash.first_chunk::<16>().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
