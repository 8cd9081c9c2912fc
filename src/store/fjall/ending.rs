//! Ends of payloads: which messages have a time of their own, in the order of that time (ADR 0347).
//!
//! Owns: one row for each such message, written in its commit, and one for each delivery of it to an
//! endpoint that it was not meant for. They stay until they are dealt with; those of messages that are
//! out of retention are left out by compactions before ([`super::gone`]). Invariant: a payload is taken
//! away in the commit that removes its rows, so whoever crashes in between finds them again.
//! Elsewhere: who decides what is unfinished (the API's housekeeping), how bytes leave the disk
//! ([`super::expunge`]).

use std::ops::Bound;

use ::fjall::Readable as _;

use super::spaces::{Space, Spaces, unreadable};
use super::writer::{Commit, FjallWriter};
use super::{expunge, keys, record};
use crate::base::Timestamp;
use crate::model::{EndpointNo, Message, Position};
use crate::store::{Ended, Error, PayloadEnd, Settlement};

fn put_row(
    commit: &mut Commit,
    spaces: &Spaces,
    (due, at): (Timestamp, Position),
    endpoint: Option<EndpointNo>,
) {
    let key = keys::payload_end(due, at, endpoint);
    commit.put(spaces, Space::Lists, &key, record::number(&key, 0));
}

/// Puts the row of a message that has its place, if its payload has a time.
pub(super) fn put(commit: &mut Commit, spaces: &Spaces, message: &Message) {
    if let Some(ends) = message.payload_ends() {
        put_row(commit, spaces, (ends, message.at), None);
    }
}

/// Puts the rows of deliveries beside the targets of their messages.
pub(super) fn put_further(commit: &mut Commit, spaces: &Spaces, settlement: &Settlement) {
    for (delivery, ends) in &settlement.further {
        let endpoint = Some(delivery.endpoint);
        put_row(commit, spaces, (*ends, delivery.at), endpoint);
    }
}

/// Rows that are due, those of one message together.
pub(super) fn page(
    spaces: &Spaces,
    after: Option<(Timestamp, Position)>,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<PayloadEnd>, Error> {
    let last = |due, at| keys::payload_end(due, at, Some(EndpointNo(u32::MAX))).to_vec();
    let low = match after {
        Some((due, at)) => Bound::Excluded(last(due, at)),
        None => Bound::Included(vec![keys::OF_PAYLOAD]),
    };
    let high = Bound::Included(last(until, Position::from_bytes([0xff; 12])));
    let mut found: Vec<PayloadEnd> = Vec::new();
    if limit == 0 || after.is_some_and(|(due, _)| due > until) {
        return Ok(found);
    }
    let view = spaces.snapshot();
    for guard in view.range::<Vec<u8>, _>(spaces.of(Space::Lists), (low, high)) {
        let key = guard.key().map_err(|error| unreadable(&error))?;
        let read = keys::read_payload_end(&key);
        let (due, at, endpoint) =
            read.ok_or_else(|| record::corrupt("end of a payload", &key, "the key is bad"))?;
        let is_full = found.len() >= limit;
        match found.last_mut() {
            Some(last) if (last.due, last.at) == (due, at) => last.further.extend(endpoint),
            Some(_) if is_full => break,
            Some(_) | None => found.push(PayloadEnd {
                due,
                at,
                further: endpoint.into_iter().collect(),
            }),
        }
    }
    Ok(found)
}

/// Carries out what was decided, in one commit.
pub(super) fn carry_out(
    writer: &mut FjallWriter,
    ends: &[(PayloadEnd, Ended)],
) -> Result<(), Error> {
    let mut commit = writer.start(ends.len() * 2);
    for (end, ended) in ends {
        if *ended == Ended::PutOff(end.due) {
            continue; // it stands there
        }
        let further = end.further.iter().copied().map(Some);
        for endpoint in std::iter::once(None).chain(further) {
            let key = keys::payload_end(end.due, end.at, endpoint);
            commit.remove(writer.spaces(), Space::Lists, &key);
            if let Ended::PutOff(until) = ended {
                put_row(&mut commit, writer.spaces(), (*until, end.at), endpoint);
            }
        }
        if *ended == Ended::TakenAway {
            expunge::put_without_payload(writer, &mut commit, end.at)?;
        }
    }
    writer.finish(commit, true)
}
