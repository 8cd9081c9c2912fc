//! Reads the database's journal files without the database, and without changing a byte.
//!
//! Owns: what is known of the journal format of `fjall` 3.1.13 (facts in `storage.md` 1.2): a file is
//! a run of batches, each `1 | items u32 | seqno u64`, then items, then `3 | xxh3 u64 | FJL 3`; an
//! item is `2 | kind | compression | key space u64 | key u16 | value u32 | stored u32 | key | value`
//! or `4 | key space u64`. Numbers are little-endian; the sum covers the items. What follows the last
//! batch is zeros. Pure. Elsewhere: what to make of a find ([`super::preflight`]).
#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use super::batch::BatchRecord;
use super::keys::{self, is_batch, take};

const TRAILER: [u8; 4] = *b"FJL\x03";
/// An attempt with the longest answer that is kept.
const MAX_ATTEMPT: usize = 17 * 1024;
/// To compare with, a page at a time.
const ZEROS: [u8; 4096] = [0; 4096];

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Our records of its good batches: the first and the last.
    pub(super) first: Option<BatchRecord>,
    pub(super) last: Option<BatchRecord>,
    /// Good batches in all.
    pub(super) batches: u64,
    /// Where the last good batch ends.
    pub(super) good_end: usize,
    /// What follows it.
    pub(super) rest: Rest,
    /// Good batches whose numbers do not follow the one before.
    pub(super) gaps: Vec<Gap>,
}

/// Where batches are missing between two good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// Offset of the batch behind the gap.
    pub(super) at: usize,
    /// The first number missing.
    pub(super) missing: u64,
    /// The number found instead.
    pub(super) found: u64,
}

/// What stands behind the last good batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Rest {
    /// Nothing, or zeros.
    #[default]
    Clean,
    /// Bytes that make no batch, and no later batch among them.
    Torn,
    /// A batch of whole shape whose sum is wrong, and no later batch. `lazy` if its own record can
    /// be read and says that nobody waited for it.
    BadSum {
        /// See above.
        lazy: bool,
    },
    /// A good, later batch lies behind bytes that make none.
    Middle {
        /// Where the first of them begins.
        at: usize,
        /// How many there are.
        batches: u64,
        /// Whether one of them was synced before it was answered.
        synced: bool,
    },
}

/// A batch that could be read to its end.
struct Batch {
    end: usize,
    seqno: u64,
    sum_is_right: bool,
    record: Option<BatchRecord>,
}

/// Reads a whole file.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut seqno = None;
    while let Some(batch) = read(bytes, scan.good_end) {
        if !batch.sum_is_right || seqno.is_some_and(|last| batch.seqno <= last) {
            break;
        }
        seqno = Some(batch.seqno);
        scan.take(&batch);
    }
    scan.rest = rest(bytes, scan.good_end, seqno);
    scan
}

/// Where the batch `number` ends, or the last one before it if that is not in this file. `None` if
/// the file becomes unreadable before it.
pub(super) fn end_of(bytes: &[u8], number: u64) -> Option<usize> {
    let mut end = 0;
    let mut last = None;
    while let Some(batch) = read(bytes, end).filter(|batch| batch.sum_is_right) {
        let found = batch.record.map(|record| record.number);
        if found.is_some_and(|found| found > number) {
            break;
        }
        last = found.or(last);
        end = batch.end;
    }
    last.is_none_or(|last| last == number).then_some(end)
}

impl Scan {
    fn take(&mut self, batch: &Batch) {
        if let Some(record) = batch.record {
            let expected = self.last.map(|last| last.number.saturating_add(1));
            if let Some(missing) = expected.filter(|expected| *expected != record.number) {
                self.gaps.push(Gap {
                    at: self.good_end,
                    missing,
                    found: record.number,
                });
            }
            self.first = self.first.or(Some(record));
            self.last = Some(record);
        }
        self.batches += 1;
        self.good_end = batch.end;
    }
}

fn rest(bytes: &[u8], from: usize, last_seqno: Option<u64>) -> Rest {
    let tail = bytes.get(from..).unwrap_or_default();
    if tail
        .chunks(ZEROS.len())
        .all(|chunk| ZEROS.starts_with(chunk))
    {
        return Rest::Clean;
    }
    let bad = read(bytes, from);
    let foreign = foreign(bytes, from);
    let mut at = from + 1;
    let mut found = None;
    let mut behind = 0;
    let mut synced = false;
    while let Some(step) = bytes
        .get(at..)
        .and_then(|left| left.iter().position(|byte| *byte == 1))
    {
        at += step;
        if let Some(value) = foreign.iter().find(|value| value.contains(&at)) {
            at = value.end;
            continue;
        }
        // A batch that is not newer than the last good one is a left-over, not a loss.
        let newer = |batch: &Batch| last_seqno.is_none_or(|last| batch.seqno > last);
        match read(bytes, at).filter(|batch| batch.sum_is_right && newer(batch)) {
            Some(batch) => {
                found = found.or(Some(at));
                behind += 1;
                synced |= batch.record.is_none_or(|record| record.synced);
                at = batch.end;
            }
            None => at += 1,
        }
    }
    match (found, bad) {
        (Some(at), _) => Rest::Middle {
            at,
            batches: behind,
            synced,
        },
        (None, Some(bad)) => Rest::BadSum {
            lazy: bad.record.is_some_and(|record| !record.synced),
        },
        (None, None) => Rest::Torn,
    }
}

/// Where foreign bytes stand in the batch that begins at `at`, as far as it can be read: the answers
/// of endpoints, who may have written down a batch that looks newer. Nothing else that is stored can
/// hold the bytes of one (payloads are JSON, which has no control characters). Without this an
/// endpoint could make every start after a torn write end in a refusal.
///
/// Lengths in a damaged batch are believed only where both of an item say the same, and only for keys
/// of attempts and of their answers; where that fails, all bytes behind it are searched.
fn foreign(bytes: &[u8], at: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut walk = || -> Option<()> {
        let mut from = bytes.get(at..)?;
        let [1, _, _, _, _] = take(&mut from)? else {
            return None;
        };
        let _seqno: [u8; 8] = take(&mut from)?;
        loop {
            let [2, _kind, 0] = take(&mut from)? else {
                return None;
            };
            let _key_space: [u8; 8] = take(&mut from)?;
            let key_len = usize::from(u16::from_le_bytes(take(&mut from)?));
            let value_len: [u8; 4] = take(&mut from)?;
            if value_len != take(&mut from)? {
                return None;
            }
            let value_len = usize::try_from(u32::from_le_bytes(value_len)).ok()?;
            let (_key, rest) = from.split_at_checked(key_len)?;
            if matches!(key_len, keys::ATTEMPT | keys::BODY) && value_len <= MAX_ATTEMPT {
                let begin = bytes.len() - rest.len();
                found.push(begin..begin + value_len);
            }
            from = rest.get(value_len..)?;
        }
    };
    let _end: Option<()> = walk();
    found
}

/// Reads the batch that begins at `at`, if bytes of that shape stand there.
fn read(bytes: &[u8], at: usize) -> Option<Batch> {
    let all = bytes.get(at..)?;
    let mut from = all;
    (take(&mut from)? == [1]).then_some(())?;
    let items = u32::from_le_bytes(take(&mut from)?);
    let seqno = u64::from_le_bytes(take(&mut from)?);
    let covered = from;
    let mut record = None;
    for _ in 0..items {
        match take(&mut from)? {
            [2] => {
                let (key, value) = item(&mut from)?;
                if is_batch(key) {
                    record = BatchRecord::decode(key, value).ok();
                }
            }
            [4] => {
                let _key_space: [u8; 8] = take(&mut from)?;
            }
            _ => return None,
        }
    }
    let covered = covered.get(..covered.len() - from.len())?;
    (take(&mut from)? == [3]).then_some(())?;
    let sum = u64::from_le_bytes(take(&mut from)?);
    (take(&mut from)? == TRAILER).then_some(())?;
    Some(Batch {
        end: at + (all.len() - from.len()),
        seqno,
        sum_is_right: xxhash_rust::xxh3::xxh3_64(covered) == sum,
        record,
    })
}

fn item<'a>(from: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let [kind, compression] = take(from)?;
    (kind <= 4 && compression <= 1).then_some(())?;
    let _key_space: [u8; 8] = take(from)?;
    let key_len = usize::from(u16::from_le_bytes(take(from)?));
    let _value_len: [u8; 4] = take(from)?;
    let stored = usize::try_from(u32::from_le_bytes(take(from)?)).ok()?;
    let (key, rest) = from.split_at_checked(key_len)?;
    let (value, rest) = rest.split_at_checked(stored)?;
    *from = rest;
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fjall::keys;

    fn batch(number: u64, synced: bool, payload: &[u8]) -> Vec<u8> {
        let record = BatchRecord {
            number,
            synced,
            ..BatchRecord::GENESIS
        };
        let key = keys::batch(number);
        let mut items = Vec::new();
        for (key, value) in [(b"some".as_slice(), payload), (&key, &record.encode(&key))] {
            let len = u32::try_from(value.len()).unwrap().to_le_bytes();
            items.extend_from_slice(&[2, 0, 0]);
            items.extend_from_slice(&7_u64.to_le_bytes());
            items.extend_from_slice(&u16::try_from(key.len()).unwrap().to_le_bytes());
            items.extend_from_slice(&len);
            items.extend_from_slice(&len);
            items.extend_from_slice(key);
            items.extend_from_slice(value);
        }
        let mut out = vec![1];
        out.extend_from_slice(&2_u32.to_le_bytes());
        out.extend_from_slice(&(number * 10).to_le_bytes());
        out.extend_from_slice(&items);
        out.push(3);
        out.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&items).to_le_bytes());
        out.extend_from_slice(&TRAILER);
        out
    }

    fn three() -> (Vec<u8>, usize) {
        let mut bytes = batch(1, true, b"one");
        bytes.extend(batch(2, false, b"two"));
        let end = bytes.len();
        bytes.extend(batch(3, true, b"three"));
        (bytes, end)
    }

    #[test]
    fn good_batches_are_counted_up_to_the_zeros() {
        let (mut bytes, _) = three();
        let end = bytes.len();
        bytes.extend([0; 100]);
        let scan = scan(&bytes);
        assert_eq!((scan.batches, scan.good_end), (3, end));
        assert_eq!((scan.rest, scan.gaps.len()), (Rest::Clean, 0));
        assert_eq!(scan.last.map(|last| last.number), Some(3));
    }

    #[test]
    fn every_cut_in_the_last_batch_is_a_torn_tail() {
        let (bytes, second_end) = three();
        for cut in second_end + 1..bytes.len() {
            let scan = scan(&bytes[..cut]);
            assert_eq!((scan.good_end, scan.rest), (second_end, Rest::Torn));
        }
    }

    #[test]
    fn every_flipped_byte_before_the_last_batch_is_seen() {
        let (bytes, second_end) = three();
        for at in 0..second_end {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let scan = scan(&bytes);
            // A sequence number in a batch's head is not covered by the sum; it must only grow.
            let in_seqno = (5..13).contains(&(at % (second_end / 2)));
            let found = matches!(scan.rest, Rest::Middle { synced: true, .. });
            assert!(found || in_seqno, "byte {at}: {scan:?}");
        }
    }

    #[test]
    fn a_value_flipped_in_the_last_batch_is_a_bad_sum() {
        let (mut bytes, second_end) = three();
        let at = second_end + 13 + 21 + 4;
        bytes[at] ^= 1;
        assert_eq!(scan(&bytes).rest, Rest::BadSum { lazy: false });
    }

    #[test]
    fn an_old_batch_behind_the_end_is_a_left_over() {
        let (mut bytes, second_end) = three();
        bytes.extend_from_slice(b"garbage");
        let old = bytes[..second_end].to_vec();
        bytes.extend(old);
        assert_eq!(scan(&bytes).rest, Rest::Torn);
    }

    #[test]
    fn a_journal_is_cut_behind_any_batch_while_later_ones_are_written() {
        let (bytes, second_end) = three();
        assert_eq!(end_of(&bytes, 2), Some(second_end));
        assert_eq!(end_of(&bytes, 3), Some(bytes.len()));
        for torn in second_end + 1..bytes.len() {
            assert_eq!(end_of(&bytes[..torn], 2), Some(second_end));
            assert_eq!(end_of(&bytes[..torn], 3), None, "torn before its end");
        }
        // Begun a moment ago: the batch stands in the journal before.
        assert_eq!(end_of(&[], 9), Some(0));
        assert_eq!(end_of(&bytes, 0), Some(0));
    }

    #[test]
    fn a_batch_planted_in_the_answer_of_an_endpoint_is_not_taken_for_a_later_one() {
        let mut planted = b"HTTP answer ".to_vec();
        planted.extend(batch(1_000_000, true, b"planted").repeat(5));
        let item = |key: &[u8], value: &[u8]| {
            let len = u32::try_from(value.len()).unwrap().to_le_bytes();
            let mut item = vec![2, 0, 0];
            item.extend_from_slice(&7_u64.to_le_bytes());
            item.extend_from_slice(&u16::try_from(key.len()).unwrap().to_le_bytes());
            item.extend_from_slice(&[len, len].concat());
            item.extend_from_slice(&[key, value].concat());
            item
        };
        let mut torn = vec![1, 4, 0, 0, 0];
        torn.extend_from_slice(&20_u64.to_le_bytes());
        torn.extend(item(b"parked", b"row"));
        let begin = torn.len();
        torn.extend(item(&[0; keys::ATTEMPT], &planted));
        torn.extend(item(&[0; keys::BODY], &planted));
        torn.extend(item(b"state", b"row"));
        let good = batch(1, true, b"one");
        for cut in 1..=torn.len() {
            let bytes = [good.as_slice(), &torn[..cut]].concat();
            assert_eq!(scan(&bytes).rest, Rest::Torn, "cut at {cut}");
        }
        // A later batch behind it is one, and so is one that stands in a value of ours.
        let later = [good.as_slice(), &torn, &batch(3, true, b"three")].concat();
        assert!(matches!(scan(&later).rest, Rest::Middle { batches: 1, .. }));
        torn[begin + 15] ^= 1; // the two lengths differ: nothing is believed
        let doubtful = [good.as_slice(), &torn].concat();
        assert!(matches!(scan(&doubtful).rest, Rest::Middle { .. }));
    }

    #[test]
    fn a_missing_batch_is_a_gap() {
        let mut bytes = batch(1, true, b"one");
        let end = bytes.len();
        bytes.extend(batch(3, true, b"three"));
        let gap = Gap {
            at: end,
            missing: 2,
            found: 3,
        };
        assert_eq!(scan(&bytes).gaps, [gap]);
    }
}
