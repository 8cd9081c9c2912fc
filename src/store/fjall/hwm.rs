//! The independent high-water mark: what was acknowledged, in a file that the database never sees.
//!
//! Owns: the file `hwm`, two slots written in turn, each with its own checksum. A torn write leaves
//! the other slot, which is at most one interval older. Invariant: a mark names only what was on
//! stable storage before the mark was written (`reliability.md` D6). Elsewhere: comparing it with
//! what is found ([`super::recover`]).
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::BufMut as _;

use crate::base::Timestamp;
use crate::model::LaneId;

use super::keys::take;

const MAGIC: [u8; 8] = *b"PHHWM\0\0\x01";
/// Room for one slot; holds some 5,000 lanes.
const SLOT: u64 = 64 * 1024;
/// Lanes that fit; the oldest beyond are left out (their messages were acknowledged long ago).
const MAX_LANES: usize = 5000;

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Counts writes; the higher slot is the valid one.
    pub(super) generation: u64,
    /// The last batch known to be on stable storage.
    pub(super) batch: u64,
    /// Its hash.
    pub(super) hash: [u8; 16],
    /// The highest lane ever opened.
    pub(super) highest_lane: LaneId,
    /// When the mark was written.
    pub(super) at: Timestamp,
    /// Whether every commit wrote one before it was answered.
    pub(super) every_commit: bool,
    /// Batches below this number may be missing: a loss was accepted before it.
    pub(super) verify_from: u64,
    /// Per lane that still holds messages the last one acknowledged.
    pub(super) lanes: BTreeMap<LaneId, u64>,
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let skipped = self.lanes.len().saturating_sub(MAX_LANES);
        let mut out = Vec::with_capacity(72 + 12 * self.lanes.len());
        out.put_slice(&MAGIC);
        out.put_u64(self.generation);
        out.put_u64(self.batch);
        out.put_slice(&self.hash);
        out.put_u32(self.highest_lane.0);
        out.put_u64(self.at.millis());
        out.put_u8(u8::from(self.every_commit));
        out.put_u64(self.verify_from);
        out.put_u32(u32::try_from(self.lanes.len() - skipped).unwrap_or(0));
        for (lane, seq) in self.lanes.iter().skip(skipped) {
            out.put_u32(lane.0);
            out.put_u64(*seq);
        }
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    pub(super) fn decode(slot: &[u8]) -> Option<Self> {
        let mut from = slot;
        (take(&mut from)? == MAGIC).then_some(())?;
        let mut mark = Self {
            generation: u64::from_be_bytes(take(&mut from)?),
            batch: u64::from_be_bytes(take(&mut from)?),
            hash: take(&mut from)?,
            highest_lane: LaneId(u32::from_be_bytes(take(&mut from)?)),
            at: Timestamp::from_millis(u64::from_be_bytes(take(&mut from)?)),
            every_commit: take(&mut from)? == [1],
            verify_from: u64::from_be_bytes(take(&mut from)?),
            lanes: BTreeMap::new(),
        };
        for _ in 0..u32::from_be_bytes(take(&mut from)?) {
            let lane = LaneId(u32::from_be_bytes(take(&mut from)?));
            let seq = u64::from_be_bytes(take(&mut from)?);
            mark.lanes.insert(lane, seq);
        }
        let covered = slot.get(..slot.len() - from.len())?;
        let crc = u32::from_be_bytes(take(&mut from)?);
        (crc == crc32c::crc32c(covered)).then_some(mark)
    }
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    generation: u64,
}

impl MarkFile {
    /// Makes the file with a first mark. The caller syncs the directory.
    pub(super) fn create(path: &Path, mark: &Mark) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        file.set_len(2 * SLOT)?;
        let mut this = Self {
            file,
            generation: 0,
        };
        this.write(mark)?;
        this.file.sync_all()?;
        Ok(this)
    }

    /// Opens the file; `None` for the mark if neither slot can be read.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Mark>)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mark = read(&file)?;
        let generation = mark.as_ref().map_or(0, |mark| mark.generation);
        Ok((Self { file, generation }, mark))
    }

    /// Reads the mark without a wish to write.
    pub(super) fn peek(path: &Path) -> io::Result<Option<Mark>> {
        read(&File::open(path)?)
    }

    /// Writes a mark into the older slot and waits until it is on stable storage.
    pub(super) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        self.generation += 1;
        let mark = Mark {
            generation: self.generation,
            ..mark.clone()
        };
        let slot = (self.generation % 2) * SLOT;
        self.file.write_all_at(&mark.encode(), slot)?;
        self.file.sync_data()
    }
}

fn read(file: &File) -> io::Result<Option<Mark>> {
    let mut newest: Option<Mark> = None;
    for slot in 0..2 {
        let mut bytes = Vec::new();
        let mut reader = io::Read::take(OffsetReader(file, slot * SLOT), SLOT);
        io::Read::read_to_end(&mut reader, &mut bytes)?;
        let found = Mark::decode(&bytes);
        newest = match (newest, found) {
            (Some(a), Some(b)) if a.generation > b.generation => Some(a),
            (a, b) => b.or(a),
        };
    }
    Ok(newest)
}

struct OffsetReader<'a>(&'a File, u64);

impl io::Read for OffsetReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read_at(buf, self.1)?;
        self.1 += u64::try_from(n).unwrap_or(0);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(batch: u64) -> Mark {
        Mark {
            batch,
            lanes: [(LaneId(1), 9), (LaneId(2), batch)].into(),
            ..Mark::default()
        }
    }

    #[test]
    fn the_newest_mark_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hwm");
        let mut file = MarkFile::create(&path, &mark(1)).unwrap();
        for batch in 2..6 {
            file.write(&mark(batch)).unwrap();
            let found = MarkFile::peek(&path).unwrap().unwrap();
            assert_eq!((found.batch, &found.lanes), (batch, &mark(batch).lanes));
        }
    }

    #[test]
    fn one_damaged_slot_leaves_the_other_and_two_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hwm");
        let mut file = MarkFile::create(&path, &mark(1)).unwrap();
        file.write(&mark(2)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(MarkFile::peek(&path).unwrap().unwrap().batch, 1);
        bytes[usize::try_from(SLOT).unwrap() + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(MarkFile::peek(&path).unwrap(), None);
    }
}
