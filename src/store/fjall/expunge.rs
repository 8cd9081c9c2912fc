//! Taking content away on request or after its time, so that its bytes leave the disk (ADR 0321).
//!
//! Owns: the three steps. First a commit writes the record again without its content: from then on
//! no reader sees it. Then padding makes the open journal full, because journals go as a whole and
//! the old bytes stand in one. Then the key spaces are flushed, which lets the journals go, and the
//! key spaces with content are rewritten, which leaves older versions of a key out.
//!
//! Invariant: the record keeps its place and everything but its content. Elsewhere: backups keep what
//! they copied; messages out of retention ([`super::expire`]).

use bytes::{Bytes, BytesMut};

use super::attempt::{self, Body};
use super::spaces::{Space, Spaces, unreadable};
use super::writer::Commit;
use super::{FjallWriter, keys, message, record};
use crate::model::{Delivery, EXPUNGED, Position};
use crate::store::{Content, Error};

/// Bytes of one padding. A commit of this size takes a few milliseconds.
const PAD: usize = 1 << 20;
/// A journal larger than this is closed at the next flush (the database's own figure is 64 MB).
const JOURNAL: u64 = 65 << 20;

/// A row and what stands in it from now on; `None` = it is removed.
type Row = (Space, Vec<u8>, Option<Vec<u8>>);

/// Writes records again without their content, in one commit; answers which were there.
pub(super) fn take_away(
    writer: &mut FjallWriter,
    contents: &[Content],
) -> Result<Vec<bool>, Error> {
    let mut commit = writer.start(contents.len());
    let mut found = Vec::with_capacity(contents.len());
    for content in contents {
        let rows = match *content {
            Content::Payload(at) => without_payload(writer, at),
            Content::Response(delivery, no) => without_response(writer, delivery, no),
        };
        // Nothing is written yet, whatever could not be read.
        let rows = rows.map_err(|cause| Error::NotApplied(cause.to_string()))?;
        found.push(rows.is_some());
        for (space, key, value) in rows.unwrap_or_default() {
            match value {
                Some(value) => commit.put(writer.spaces(), space, &key, value),
                None => commit.remove(writer.spaces(), space, &key),
            }
        }
    }
    writer.finish(commit, true)?;
    Ok(found)
}

/// Puts the record of a message without its payload, if it is there and has one.
pub(super) fn put_without_payload(
    writer: &FjallWriter,
    commit: &mut Commit,
    at: Position,
) -> Result<(), Error> {
    // Nothing is written yet, whatever could not be read.
    let rows = without_payload(writer, at).map_err(|cause| Error::NotApplied(cause.to_string()))?;
    for (space, key, value) in rows.unwrap_or_default() {
        if let Some(value) = value {
            commit.put(writer.spaces(), space, &key, value);
        }
    }
    Ok(())
}

fn without_payload(writer: &FjallWriter, at: Position) -> Result<Option<Vec<Row>>, Error> {
    let key = at.bytes();
    if at.seq == 0 || !writer.shared().is_retained(at) {
        return Ok(None);
    }
    let Some(value) = stored(writer.spaces(), Space::Messages, &key)? else {
        return Ok(None);
    };
    let mut message = message::decode(&key, &value)?;
    message.expunge();
    let mut out = BytesMut::with_capacity(message::size(&message));
    message::encode(&message, &mut out)?;
    let row = (Space::Messages, key.to_vec(), Some(out.to_vec()));
    Ok(Some(vec![row]))
}

fn without_response(
    writer: &FjallWriter,
    delivery: Delivery,
    no: u16,
) -> Result<Option<Vec<Row>>, Error> {
    let space = if no == 1 {
        Space::Attempts
    } else {
        Space::AttemptsLate
    };
    let key = keys::attempt(delivery.at, delivery.endpoint, no);
    if no == 0 {
        return Ok(None);
    }
    let Some(value) = stored(writer.spaces(), space, &key)? else {
        return Ok(None);
    };
    let (mut attempt, body) = attempt::read(&key, &value)?;
    if !writer.shared().shows(&attempt) {
        return Ok(None);
    }
    attempt.response = Bytes::from_static(EXPUNGED);
    let record = attempt::write(&key, &attempt);
    let mut rows = vec![(space, key.to_vec(), Some(record))];
    if body == Body::Apart {
        let key = keys::body(attempt.ended, delivery.at, delivery.endpoint, no);
        rows.push((Space::Lists, key.to_vec(), None));
    }
    Ok(Some(rows))
}

fn stored(spaces: &Spaces, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
    let value = spaces.of(space).get(key);
    Ok(value.map_err(|error| unreadable(&error))?.map(Bytes::from))
}

/// Writes one padding; false = the journal is full enough to be closed at the next flush.
pub(super) fn pad(writer: &mut FjallWriter) -> Result<bool, Error> {
    let size = u64::try_from(PAD).unwrap_or(u64::MAX);
    let written = writer.padded.saturating_add(size);
    if written > JOURNAL {
        writer.padded = 0;
        return Ok(false);
    }
    let mut commit = writer.start(1);
    let value = record::padding(keys::PADDING, PAD);
    commit.put(writer.spaces(), Space::Meta, keys::PADDING, value);
    writer.finish(commit, false)?;
    writer.padded = written;
    Ok(true)
}

/// Flushes everything, so that full journals go, and rewrites what may hold old content.
pub(super) fn scrub(spaces: &Spaces) -> Result<(), Error> {
    // Twice: the first flush closes the journal, the second lets it go.
    for _ in 0..2 {
        for space in Space::ALL {
            let flushed = spaces.of(space).rotate_memtable_and_wait();
            flushed.map_err(|error| unreadable(&error))?;
        }
    }
    for space in [
        Space::Messages,
        Space::Attempts,
        Space::AttemptsLate,
        Space::Lists,
    ] {
        let rewritten = spaces.of(space).major_compact();
        rewritten.map_err(|error| unreadable(&error))?;
    }
    Ok(())
}
