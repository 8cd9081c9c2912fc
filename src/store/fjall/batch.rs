//! What the store keeps about itself: lanes, and one record per commit.
//!
//! Owns: the layouts of both (sealed as all records, [`super::record`]) and the hash that chains the
//! commits. Pure. Elsewhere: where they are checked ([`super::recover`], [`super::journal`]).
#![deny(clippy::indexing_slicing)]

use bytes::BufMut as _;

use crate::model::{LaneId, Position};
use crate::store::Error;

use super::keys::{self, take};
use super::record::{corrupt, eight, first_16, four, seal, start, unseal};

/// What the store knows of a lane beside its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LaneRow {
    /// Everything up to here is settled or parked.
    pub(super) checkpoint: u64,
    /// Messages below this may be gone: they fell out of retention.
    pub(super) floor: u64,
    /// The last message as of the last housekeeping; the messages themselves know better.
    pub(super) last: u64,
}

impl LaneRow {
    /// Whether all its messages fell out of retention. The row stays, or they would come back.
    pub(super) const fn is_expired(&self) -> bool {
        self.last > 0 && self.floor > self.last
    }
}

/// Writes a lane row.
pub(super) fn lane(key: &[u8], row: LaneRow) -> Vec<u8> {
    let mut out = start(24);
    out.put_u64(row.checkpoint);
    out.put_u64(row.floor);
    out.put_u64(row.last);
    seal(key, out)
}

/// Reads a lane row.
pub(super) fn read_lane(key: &[u8], value: &[u8]) -> Result<(LaneId, LaneRow), Error> {
    let mut from = unseal("lane row", key, value)?;
    let row = (|| {
        Some(LaneRow {
            checkpoint: eight(&mut from)?,
            floor: eight(&mut from)?,
            last: eight(&mut from)?,
        })
    })();
    let found = keys::read_lane(key).zip(row);
    found.ok_or_else(|| corrupt("lane row", key, "a field is bad"))
}

/// Every commit leaves one of these: a chain without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BatchRecord {
    /// Numbers are dense over the whole life of a store.
    pub(super) number: u64,
    /// Hash of the batch before.
    pub(super) previous: [u8; 16],
    /// Hash over this record's other fields.
    pub(super) hash: [u8; 16],
    /// Bit per key space that it wrote to.
    pub(super) touched: u8,
    /// Whether it was synced before it was answered.
    pub(super) synced: bool,
    /// Lane and last sequence number as of this batch: the tail of the log.
    pub(super) tail: Position,
    /// Messages in it: the last ones up to `tail`.
    pub(super) count: u32,
    /// Checksum over the checksums of these messages.
    pub(super) digest: u32,
}

impl BatchRecord {
    /// The first batch follows this.
    pub(super) const GENESIS: Self = Self {
        number: 0,
        previous: [0; 16],
        hash: [0; 16],
        touched: 0,
        synced: true,
        tail: Position::START,
        count: 0,
        digest: 0,
    };

    /// The hash that belongs to the other fields.
    pub(super) fn expected_hash(&self) -> [u8; 16] {
        use sha2::Digest as _;
        let mut fields = Vec::with_capacity(64);
        self.put(&mut fields);
        first_16(sha2::Sha256::digest(&fields).as_slice())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.number);
        out.extend_from_slice(&self.previous);
        out.put_u8(self.touched);
        out.put_u8(u8::from(self.synced));
        out.extend_from_slice(&self.tail.bytes());
        out.put_u32(self.count);
        out.put_u32(self.digest);
    }

    /// Writes it.
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = start(62);
        self.put(&mut out);
        out.extend_from_slice(&self.hash);
        seal(key, out)
    }

    /// Reads it.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Error> {
        let fields = unseal("batch record", key, value)?;
        Self::fields(fields).ok_or_else(|| corrupt("batch record", key, "a field is bad"))
    }

    fn fields(mut from: &[u8]) -> Option<Self> {
        let number = eight(&mut from)?;
        let previous = take(&mut from)?;
        let [touched, synced] = take(&mut from)?;
        Some(Self {
            number,
            previous,
            touched,
            synced: synced != 0,
            tail: Position::from_bytes(take(&mut from)?),
            count: four(&mut from)?,
            digest: four(&mut from)?,
            hash: take(&mut from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_records_read_back_and_their_hash_covers_every_field() {
        let mut one = BatchRecord {
            number: 7,
            touched: 3,
            synced: true,
            count: 2,
            digest: 9,
            ..BatchRecord::GENESIS
        };
        one.hash = one.expected_hash();
        let key = keys::batch(7);
        assert_eq!(BatchRecord::decode(&key, &one.encode(&key)).unwrap(), one);
        let others = [
            BatchRecord { number: 8, ..one },
            BatchRecord {
                previous: [1; 16],
                ..one
            },
            BatchRecord { touched: 2, ..one },
            BatchRecord {
                synced: false,
                ..one
            },
            BatchRecord {
                tail: Position { seq: 1, ..one.tail },
                ..one
            },
            BatchRecord { count: 3, ..one },
            BatchRecord { digest: 8, ..one },
        ];
        for other in others {
            assert_ne!(other.expected_hash(), one.hash);
        }
    }

    #[test]
    fn lanes_read_back() {
        let row = LaneRow {
            checkpoint: 1,
            floor: 2,
            last: 3,
        };
        let key = keys::lane(LaneId(9));
        assert_eq!(read_lane(&key, &lane(&key, row)).unwrap(), (LaneId(9), row));
    }
}
