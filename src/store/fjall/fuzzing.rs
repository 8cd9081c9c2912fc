//! Decoders of stored bytes under arbitrary input (`crate::fuzzing`).
//!
//! Records are checked by a sum before anything else, so the input is tried twice: as it is, and with
//! a right sum, as after a mistake of ours or damage that hit the sum as well.

use bytes::Bytes;

use super::batch::{self, BatchRecord};
use super::hwm::Mark;
use super::journal::scan;
use super::{attempt, keys, message, record};

/// Record decoders: the first byte is the length of the key, then key and value.
pub fn record(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else {
        return;
    };
    let Some((key, fields)) = rest.split_at_checked(usize::from(length)) else {
        return;
    };
    let sealed = |format| Bytes::from(record::seal(key, [&[format], fields].concat()));
    for value in [Bytes::copy_from_slice(fields), sealed(1), sealed(2)] {
        decode(key, &value);
    }
    let sum = crc32c::crc32c(fields).to_be_bytes();
    let value = Bytes::from([&sum, fields].concat());
    if let Ok(found) = message::decode(key, &value) {
        assert!(found.payload.len() <= fields.len());
    }
}

fn decode(key: &[u8], value: &Bytes) {
    drop(attempt::read(key, value));
    drop(attempt::read_answer(key, value));
    drop(record::read_cancelled(key, value));
    drop(record::read_parked(key, value));
    drop(record::read_state(key, value));
    drop(record::read_object(key, value));
    drop(record::read_number(key, value));
    drop(record::read_idempotency(key, value));
    drop(record::read_event_id(key, value));
    drop(batch::read_lane(key, value));
    drop(BatchRecord::decode(key, value));
    if let Ok(seqs) = record::read_app_row(key, value, 7) {
        assert!(seqs.len() <= value.len());
    }
    let mut entries = 0;
    drop(record::read_endpoint_row(key, value, |_| entries += 1));
    assert!(entries <= value.len());
    let _place = keys::read_app_row(key);
    let _object = keys::read_object(key);
    let _parked = keys::read_parked(key);
    let _day = keys::read_first_of_day(key);
}

/// The look at a journal before the database opens it, and the high-water mark.
pub fn journal(data: &[u8]) {
    let found = scan(data);
    assert!(found.good_end <= data.len());
    // The same items in a batch whose sum is right.
    let items = data.first().copied().unwrap_or_default();
    let mut good = vec![1];
    good.extend_from_slice(&u32::from(items).to_le_bytes());
    good.extend_from_slice(&7_u64.to_le_bytes());
    let covered = data.get(1..).unwrap_or_default();
    good.extend_from_slice(covered);
    good.push(3);
    good.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(covered).to_le_bytes());
    good.extend_from_slice(b"FJL\x03");
    let found = scan(&good);
    assert!(found.good_end <= good.len());
    let _mark = Mark::decode(data);
    let sum = crc32c::crc32c(data).to_be_bytes();
    let _mark = Mark::decode(&[data, &sum].concat());
}
