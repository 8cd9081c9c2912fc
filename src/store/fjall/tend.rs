//! Housekeeping of the store, every few seconds: the heartbeat that lets old journals go, and what has
//! expired.
//!
//! An idle store is left alone: where nothing was written since the last heartbeat and no old journal
//! waits, another one would only write. Elsewhere: what expires when ([`super::expire`]).

use crate::base::Timestamp;
use crate::model::Position;
use crate::store::Error;

use super::spaces::Space;
use super::writer::FjallWriter;
use super::{batch, expire, keys, record};

/// Does what is due.
pub(super) fn tend(writer: &mut FjallWriter, now: Timestamp) -> Result<(), Error> {
    if !writer.rests() {
        beat(writer)?;
        writer.write_mark(now)?;
        writer.has_beaten();
    }
    match expire::step(writer, now) {
        Ok(()) => Ok(()),
        // What could not be read stays where it is; the next open or check reports it.
        Err(Error::Corrupt { .. }) => Ok(()),
        Err(error @ Error::Doubtful(_)) => Err(error),
        Err(error) => Err(writer.die("housekeeping failed", &error)),
    }
}

/// A marker in every key space (`storage.md` 3.3).
fn beat(writer: &mut FjallWriter) -> Result<(), Error> {
    let mut commit = writer.start(8);
    for space in Space::ALL {
        commit.touch(space);
    }
    let tail = commit.tail();
    if let Some(row) = writer.lanes.get_mut(&tail.lane) {
        row.last = tail.seq;
        let row = *row;
        let key = keys::lane(tail.lane);
        commit.put(writer.spaces(), Space::Meta, &key, batch::lane(&key, row));
    }
    let messages = writer.spaces().of(Space::Messages);
    if messages.first_key_value().is_none() {
        // Number 0 of a lane is never a message. Only an empty log needs it: one that has
        // messages is written to, or keeps tables of its own.
        let key = Position { seq: 0, ..tail }.bytes();
        let value = record::number(&key, 0);
        commit.put(writer.spaces(), Space::Messages, &key, value);
    }
    writer.finish(commit, true)
}
