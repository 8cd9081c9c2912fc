//! The key layout of every key space, in one place.
//!
//! All numbers are big-endian, so keys sort as what they stand for. Layouts are part of the stored
//! format: change one and [`super::format`] needs a new number. Pure.
//!
//! | key space | key | value |
//! |---|---|---|
//! | `messages` | lane 4, seq 8 | message |
//! | `parked` | endpoint 4, due 6, lane 4, seq 8 | parked row |
//! | `attempts` | lane 4, seq 8, endpoint 4, no 2 (= 1) | attempt |
//! | `attempts_late` | the same, no >= 2; no 0 = cancelled | attempt, or nothing |
//! | `lists` | `A`, day 4, app 4, ms 6, lane 4, first seq 8 | further seqs of one commit |
//! | `lists` | `B`, day 4, lane 4, seq 8, endpoint 4, no 2 | what was answered to an attempt, where it is long |
//! | `lists` | `F`, day 4, lane 4 | lowest seq of which an attempt ended on the day |
//! | `lists` | `N`, day 4, endpoint 4, slot 6, batch 8, part 2 | attempts that ended in the slot |
//! | `lists` | `P`, day 4, ms 6, lane 4, seq 8, endpoint 4 | the end of a payload: of the message (0), or of a delivery beside its targets (endpoint + 1) |
//! | `lists` | `U`, day 4, id 20 | entry of the audit log |
//! | `idem` | `K`, bucket 4, hash 16 | idempotency record |
//! | `idem` | `E`, app 4, hash 16 of the event id | position |
//! | `state` | `S`, endpoint 4 | endpoint state |
//! | `state` | `O`, kind 1, key | configuration object |
//! | `state` | `R` | configuration revision |
//! | `meta` | `L`, lane 4 | checkpoint, floor, last |
//! | `meta` | `T` | highest lane ever opened |
//! | `meta` | `V` | batches before this number are not verified any more |
//! | `meta` | `H` | lanes up to this one may have holes |
//! | `meta` | `P` | padding that makes the journal full |
//! | `meta` | `X`, lane 4 | audit of an accepted loss: last acknowledged number, last good one, when |
//! | `meta` | `batch`, slot 4 | batch record |
//! | all but `messages` and `attempts` | ff ff ff ff, `M`, slot 4 | marker: batch number |
//! | `attempts` | tail of the lane 12, ff ff ff ff, ff ff, batch 8 | marker: batch number |
//!
//! Batch records and markers live in rings of [`RING`] slots: they overwrite themselves, so they
//! need no trimming and leave no tombstones. Lanes and endpoints never get the number `u32::MAX`.

use crate::base::Timestamp;
use crate::model::{AppNo, EndpointNo, LaneId, ParkedKey, Position};
use crate::store::ConfigKind;

use super::spaces::Space;

/// Batches that can be verified after an open. More than fit into the journals of a busy store; few
/// in unit tests, so that they come round.
pub(super) const RING: u64 = if cfg!(test) { 16 } else { 1 << 18 };

/// Length of the key of an attempt. Only its row and the one of its long answer hold foreign bytes as
/// they came.
pub(super) const ATTEMPT: usize = 18;

/// Length of the key of a long answer.
pub(super) const BODY: usize = 23;

/// Milliseconds of a day; list rows are dropped by the day.
pub(super) const DAY_MS: u64 = 86_400_000;

/// Milliseconds of a block of idempotency records; dropped as a whole.
pub(super) const BUCKET_MS: u64 = 6 * 3_600_000;

/// Attempts that ended within the same 256 ms share list rows.
pub(super) const SLOT_BITS: u32 = 8;

/// First byte of list rows of messages.
pub(super) const OF_APP: u8 = b'A';
/// First byte of long answers.
pub(super) const OF_BODY: u8 = b'B';
/// First byte of rows that say how far back the attempts of a day reach.
pub(super) const OF_DAY: u8 = b'F';
/// First byte of list rows of attempts.
pub(super) const OF_ENDPOINT: u8 = b'N';
/// First byte of ends of payloads.
pub(super) const OF_PAYLOAD: u8 = b'P';
/// First byte of entries of the audit log.
pub(super) const OF_AUDIT: u8 = b'U';
/// First byte of idempotency records.
pub(super) const IDEMPOTENCY: u8 = b'K';
/// First byte of event ids.
pub(super) const EVENT_ID: u8 = b'E';
/// First byte of endpoint states.
pub(super) const STATE: u8 = b'S';
/// First byte of configuration objects.
pub(super) const OBJECT: u8 = b'O';
/// The configuration revision.
pub(super) const REVISION: &[u8] = b"R";
/// First byte of lane rows.
pub(super) const LANE: u8 = b'L';
/// The highest lane.
pub(super) const TOP_LANE: &[u8] = b"T";
/// The first batch that open verifies.
pub(super) const VERIFY_FROM: &[u8] = b"V";
/// Lanes up to this number may have holes: a loss in them was accepted.
pub(super) const HOLES: &[u8] = b"H";
/// Padding.
pub(super) const PADDING: &[u8] = b"P";
/// First byte of audit records.
pub(super) const AUDIT: &[u8] = b"X";
/// Prefix of batch records.
pub(super) const BATCH: &[u8] = b"batch";

/// Joins fixed parts into one fixed key.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    let mut rest = key.as_mut_slice();
    for part in parts {
        debug_assert!(part.len() <= rest.len(), "key parts fit the key");
        let n = part.len().min(rest.len());
        let (head, tail) = rest.split_at_mut(n);
        head.copy_from_slice(part.get(..n).unwrap_or_default());
        rest = tail;
    }
    debug_assert!(rest.is_empty(), "key parts fill the key");
    key
}

/// The low 48 bits.
pub(super) const fn six(n: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = n.to_be_bytes();
    [a, b, c, d, e, f]
}

const fn from_six(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Takes `N` bytes off the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Key of an attempt; also of a cancellation (`no` = 0).
pub(super) fn attempt(at: Position, endpoint: EndpointNo, no: u16) -> [u8; ATTEMPT] {
    join(&[&at.bytes(), &endpoint.0.to_be_bytes(), &no.to_be_bytes()])
}

/// Reads the key of an attempt.
pub(super) fn read_attempt(mut key: &[u8]) -> Option<(Position, EndpointNo, u16)> {
    let at = Position::from_bytes(take(&mut key)?);
    let endpoint = EndpointNo(u32::from_be_bytes(take(&mut key)?));
    let no = u16::from_be_bytes(take(&mut key)?);
    key.is_empty().then_some((at, endpoint, no))
}

/// Key of a parked row.
pub(super) fn parked(key: ParkedKey) -> [u8; 22] {
    let due = six(key.due.millis());
    join(&[&key.endpoint.0.to_be_bytes(), &due, &key.at.bytes()])
}

/// Reads the key of a parked row.
pub(super) fn read_parked(mut key: &[u8]) -> Option<ParkedKey> {
    let endpoint = EndpointNo(u32::from_be_bytes(take(&mut key)?));
    let due = Timestamp::from_millis(from_six(take(&mut key)?));
    let at = Position::from_bytes(take(&mut key)?);
    key.is_empty().then_some(ParkedKey { endpoint, due, at })
}

/// The day an instant falls on.
pub(super) fn day(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / DAY_MS).unwrap_or(u32::MAX)
}

/// What all rows of a list on one day begin with.
pub(super) fn list_day(kind: u8, day: u32, owner: u32) -> [u8; 9] {
    join(&[&[kind], &day.to_be_bytes(), &owner.to_be_bytes()])
}

/// What all rows of a kind of list on one day begin with.
pub(super) fn list_days(kind: u8, day: u32) -> [u8; 5] {
    join(&[&[kind], &day.to_be_bytes()])
}

/// The day of a list row of any kind.
pub(super) fn read_list_day(mut key: &[u8], kind: u8) -> Option<u32> {
    (take(&mut key)? == [kind]).then_some(())?;
    take(&mut key).map(u32::from_be_bytes)
}

/// Key of a list row of messages: those of one commit, named by the first.
pub(super) fn app_row(app: AppNo, time: Timestamp, first: Position) -> [u8; 27] {
    let head = list_day(OF_APP, day(time), app.0);
    join(&[&head, &six(time.millis()), &first.bytes()])
}

/// Reads the key of a list row of messages.
pub(super) fn read_app_row(mut key: &[u8]) -> Option<(AppNo, Timestamp, Position)> {
    (take(&mut key)? == [OF_APP]).then_some(())?;
    let _day: [u8; 4] = take(&mut key)?;
    let app = AppNo(u32::from_be_bytes(take(&mut key)?));
    let time = Timestamp::from_millis(from_six(take(&mut key)?));
    let first = Position::from_bytes(take(&mut key)?);
    key.is_empty().then_some((app, time, first))
}

/// The slot of an instant.
pub(super) const fn slot(at: Timestamp) -> u64 {
    at.millis() >> SLOT_BITS
}

/// Key of a list row of attempts that ended in one slot.
pub(super) fn endpoint_row(endpoint: EndpointNo, slot: u64, batch: u64, part: u16) -> [u8; 25] {
    let start = Timestamp::from_millis(slot << SLOT_BITS);
    let head = list_day(OF_ENDPOINT, day(start), endpoint.0);
    join(&[&head, &six(slot), &batch.to_be_bytes(), &part.to_be_bytes()])
}

/// Reads endpoint and slot out of the key of a list row of attempts.
pub(super) fn read_endpoint_row(mut key: &[u8]) -> Option<(EndpointNo, u64)> {
    (take(&mut key)? == [OF_ENDPOINT]).then_some(())?;
    let _day: [u8; 4] = take(&mut key)?;
    let endpoint = EndpointNo(u32::from_be_bytes(take(&mut key)?));
    let slot = from_six(take(&mut key)?);
    Some((endpoint, slot))
}

/// Key of what was answered to an attempt that ended at `ended`.
pub(super) fn body(ended: Timestamp, at: Position, endpoint: EndpointNo, no: u16) -> [u8; BODY] {
    let day = day(ended).to_be_bytes();
    join(&[&[OF_BODY], &day, &attempt(at, endpoint, no)])
}

/// Key of the row that says how far back the attempts of a day reach in a lane.
pub(super) fn first_of_day(day: u32, lane: LaneId) -> [u8; 9] {
    list_day(OF_DAY, day, lane.0)
}

/// Reads the key of a row that says how far back the attempts of a day reach.
pub(super) fn read_first_of_day(mut key: &[u8]) -> Option<(u32, LaneId)> {
    (take(&mut key)? == [OF_DAY]).then_some(())?;
    let day = u32::from_be_bytes(take(&mut key)?);
    let lane = u32::from_be_bytes(take(&mut key)?);
    key.is_empty().then_some((day, LaneId(lane)))
}

/// Key of the end of a payload, to be looked at when it is due; `endpoint` is one beside the targets.
pub(super) fn payload_end(due: Timestamp, at: Position, endpoint: Option<EndpointNo>) -> [u8; 27] {
    let head = list_days(OF_PAYLOAD, day(due));
    let endpoint = endpoint.map_or(0, |endpoint| endpoint.0.saturating_add(1));
    join(&[
        &head,
        &six(due.millis()),
        &at.bytes(),
        &endpoint.to_be_bytes(),
    ])
}

/// Reads the key of the end of a payload.
pub(super) fn read_payload_end(
    mut key: &[u8],
) -> Option<(Timestamp, Position, Option<EndpointNo>)> {
    (take(&mut key)? == [OF_PAYLOAD]).then_some(())?;
    let _day: [u8; 4] = take(&mut key)?;
    let due = Timestamp::from_millis(from_six(take(&mut key)?));
    let at = Position::from_bytes(take(&mut key)?);
    let endpoint = u32::from_be_bytes(take(&mut key)?);
    let endpoint = endpoint.checked_sub(1).map(EndpointNo);
    key.is_empty().then_some((due, at, endpoint))
}

/// Key of an entry of the audit log; `None` for an id that is none.
pub(super) fn audit_entry(id: &[u8]) -> Option<[u8; 25]> {
    let mut from = id;
    let at = Timestamp::from_millis(from_six(take(&mut from)?));
    (id.len() == 20).then(|| join(&[&[OF_AUDIT], &day(at).to_be_bytes(), id]))
}

/// Reads the id out of the key of an entry of the audit log.
pub(super) fn read_audit_entry(mut key: &[u8]) -> Option<[u8; 20]> {
    (take(&mut key)? == [OF_AUDIT]).then_some(())?;
    let _day: [u8; 4] = take(&mut key)?;
    let id = take(&mut key)?;
    key.is_empty().then_some(id)
}

/// The block of idempotency records an instant falls into.
pub(super) fn bucket(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / BUCKET_MS).unwrap_or(u32::MAX)
}

/// Key of an idempotency record.
pub(super) fn idempotency(bucket: u32, hash: &[u8; 16]) -> [u8; 21] {
    join(&[&[IDEMPOTENCY], &bucket.to_be_bytes(), hash])
}

/// What all idempotency records of a block begin with.
pub(super) fn idempotency_bucket(bucket: u32) -> [u8; 5] {
    join(&[&[IDEMPOTENCY], &bucket.to_be_bytes()])
}

/// Reads the block out of the key of an idempotency record.
pub(super) fn read_bucket(mut key: &[u8]) -> Option<u32> {
    (take(&mut key)? == [IDEMPOTENCY]).then_some(())?;
    take(&mut key).map(u32::from_be_bytes)
}

/// Key of an event id.
pub(super) fn event_id(app: AppNo, hash: &[u8; 16]) -> [u8; 21] {
    join(&[&[EVENT_ID], &app.0.to_be_bytes(), hash])
}

/// Key of an endpoint's state.
pub(super) fn state(endpoint: EndpointNo) -> [u8; 5] {
    join(&[&[STATE], &endpoint.0.to_be_bytes()])
}

/// Reads the key of an endpoint's state.
pub(super) fn read_state(mut key: &[u8]) -> Option<EndpointNo> {
    (take(&mut key)? == [STATE]).then_some(())?;
    let no = u32::from_be_bytes(take(&mut key)?);
    key.is_empty().then_some(EndpointNo(no))
}

/// Key of a configuration object.
pub(super) fn object(kind: ConfigKind, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + name.len());
    key.extend_from_slice(&[OBJECT, kind as u8]);
    key.extend_from_slice(name);
    key
}

/// Where a row of a configuration change stands: entries of the audit log among the lists.
pub(super) fn place(kind: ConfigKind, name: &[u8]) -> (Space, Vec<u8>) {
    let entry = audit_entry(name).filter(|_| kind == ConfigKind::Audit);
    match entry {
        Some(key) => (Space::Lists, key.to_vec()),
        None => (Space::State, object(kind, name)),
    }
}

/// Reads the key of a configuration object.
pub(super) fn read_object(mut key: &[u8]) -> Option<(ConfigKind, Vec<u8>)> {
    let [tag, kind] = take(&mut key)?;
    let kind = match kind {
        1 => ConfigKind::Application,
        2 => ConfigKind::Endpoint,
        3 => ConfigKind::EventType,
        4 => ConfigKind::ApiKey,
        5 => ConfigKind::Instance,
        6 => ConfigKind::DataKey,
        7 => ConfigKind::Source,
        8 => ConfigKind::Audit,
        _ => return None,
    };
    (tag == OBJECT).then(|| (kind, key.to_vec()))
}

/// Key of a lane row.
pub(super) fn lane(lane: LaneId) -> [u8; 5] {
    join(&[&[LANE], &lane.0.to_be_bytes()])
}

/// Reads the key of a lane row.
pub(super) fn read_lane(mut key: &[u8]) -> Option<LaneId> {
    (take(&mut key)? == [LANE]).then_some(())?;
    let no = u32::from_be_bytes(take(&mut key)?);
    key.is_empty().then_some(LaneId(no))
}

/// Key of the audit record of an accepted loss.
pub(super) fn audit(lane: LaneId) -> [u8; 5] {
    join(&[AUDIT, &lane.0.to_be_bytes()])
}

/// Reads the key of an audit record.
pub(super) fn read_audit(key: &[u8]) -> Option<LaneId> {
    let no = key.strip_prefix(AUDIT)?.try_into().ok()?;
    Some(LaneId(u32::from_be_bytes(no)))
}

fn ring_slot(batch: u64) -> [u8; 4] {
    let [_, _, _, _, a, b, c, d] = (batch % RING).to_be_bytes();
    [a, b, c, d]
}

/// Key of a batch record.
pub(super) fn batch(batch: u64) -> [u8; 9] {
    join(&[BATCH, &ring_slot(batch)])
}

/// Whether a key of any key space is the key of a batch record: nothing else has this shape.
pub(super) fn is_batch(key: &[u8]) -> bool {
    key.len() == 9 && key.starts_with(BATCH)
}

/// Key of a marker.
pub(super) fn marker(batch: u64) -> [u8; 9] {
    join(&[&[0xff; 4], b"M", &ring_slot(batch)])
}

/// Key of a marker among attempts: it stands where new attempts are written, since a row far from
/// there would make every flushed table overlap every other.
pub(super) fn attempts_marker(tail: Position, batch: u64) -> [u8; 26] {
    join(&[&tail.bytes(), &[0xff; 6], &batch.to_be_bytes()])
}

/// Whether a key of a key space with a ring is a marker.
pub(super) fn is_marker(key: &[u8]) -> bool {
    key.starts_with(&[0xff; 4])
}

/// Whether a key of `attempts` is a marker.
pub(super) const fn is_attempts_marker(key: &[u8]) -> bool {
    key.len() == 26
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        (0..u32::MAX, any::<u64>()).prop_map(|(lane, seq)| Position {
            lane: LaneId(lane),
            seq,
        })
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        any::<u64>().prop_map(Timestamp::from_millis)
    }

    proptest! {
        #[test]
        fn parked_keys_sort_as_they_read(
            a in (0..u32::MAX, time(), position()),
            b in (0..u32::MAX, time(), position()),
        ) {
            let of = |(endpoint, due, at)| ParkedKey { endpoint: EndpointNo(endpoint), due, at };
            let (a, b) = (of(a), of(b));
            prop_assert_eq!(read_parked(&parked(a)), Some(a));
            prop_assert_eq!(parked(a).cmp(&parked(b)), a.cmp(&b));
        }

        #[test]
        fn attempt_keys_sort_as_they_read(
            a in (position(), 0..u32::MAX, any::<u16>()),
            b in (position(), 0..u32::MAX, any::<u16>()),
        ) {
            let of = |(at, endpoint, no)| (at, EndpointNo(endpoint), no);
            let key = |(at, endpoint, no)| attempt(at, endpoint, no);
            let (a, b) = (of(a), of(b));
            prop_assert_eq!(read_attempt(&key(a)), Some(a));
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn list_rows_sort_by_time_within_their_owner(
            app: u32, a in (time(), position()), b in (time(), position()), batch: u64,
        ) {
            let row = |(time, at)| app_row(AppNo(app), time, at);
            prop_assert_eq!(read_app_row(&row(a)), Some((AppNo(app), a.0, a.1)));
            prop_assert_eq!(row(a).cmp(&row(b)), a.cmp(&b));
            prop_assert_eq!(read_list_day(&row(a), OF_APP), Some(day(a.0)));
            let slotted = |time| endpoint_row(EndpointNo(app), slot(time), batch, 0);
            prop_assert_eq!(
                read_endpoint_row(&slotted(a.0)),
                Some((EndpointNo(app), slot(a.0)))
            );
            prop_assert_eq!(slotted(a.0).cmp(&slotted(b.0)), slot(a.0).cmp(&slot(b.0)));
            let answer = body(a.0, a.1, EndpointNo(app), 7);
            prop_assert_eq!(read_list_day(&answer, OF_BODY), Some(day(a.0)));
            let ends = |(time, at)| payload_end(time, at, None);
            let further = payload_end(a.0, a.1, Some(EndpointNo(app / 2)));
            prop_assert_eq!(read_payload_end(&ends(a)), Some((a.0, a.1, None)));
            let back = Some((a.0, a.1, Some(EndpointNo(app / 2))));
            prop_assert_eq!(read_payload_end(&further), back);
            prop_assert_eq!(ends(a).cmp(&ends(b)), a.cmp(&b));
            prop_assert!(ends(a) < further);
            let first = first_of_day(day(a.0), a.1.lane);
            prop_assert_eq!(read_first_of_day(&first), Some((day(a.0), a.1.lane)));
        }
    }

    #[test]
    fn rings_come_round() {
        assert_eq!(batch(5), batch(5 + RING));
        assert_ne!(marker(5), marker(6));
        assert!(is_batch(&batch(u64::MAX)) && !is_batch(&marker(1)));
        assert!(is_marker(&marker(1)));
        assert!(is_attempts_marker(&attempts_marker(Position::START, 1)));
    }

    #[test]
    fn objects_read_back() {
        let key = object(ConfigKind::EventType, b"invoice.paid");
        assert_eq!(
            read_object(&key),
            Some((ConfigKind::EventType, b"invoice.paid".to_vec()))
        );
        assert_eq!(read_object(b"O\x09x"), None);
    }
}
