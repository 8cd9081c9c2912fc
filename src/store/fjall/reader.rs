//! The read path.
//!
//! Owns: nothing but handles. What spans rows is read from a snapshot, so a commit is seen whole or
//! not at all; single rows are read as they are. Every record is checked as it is read. Messages
//! below the floor of retention do not exist any more, wherever a row of them may still lie; nor do
//! attempts and answers that are older than what is kept of them ([`super::gone::Cuts`]).
//! Elsewhere: the lists ([`super::lists`]).

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::fjall::{Guard, Readable as _, Snapshot};
use bytes::Bytes;

use crate::base::Timestamp;
use crate::model::{
    AppNo, Attempt, Delivery, EXPUNGED, EndpointNo, EndpointState, Message, Parked, ParkedKey,
    Position,
};
use crate::store::{
    AuditPage, AuditRow, ConfigRow, Error, IdempotencyRecord, Lane, Listed, ListedAttempt, Page,
    PayloadEnd, Reader,
};

use super::attempt::{self, Body};
use super::spaces::{Space, Spaces, unreadable};
use super::{Shared, batch, ending, keys, lists, message, record, writer};

/// Reads of an embedded store.
pub struct FjallReader {
    spaces: Spaces,
    shared: Arc<Shared>,
}

/// A row as bytes.
pub(super) fn row(guard: Guard) -> Result<(Bytes, Bytes), Error> {
    let (key, value) = guard.into_inner().map_err(|error| unreadable(&error))?;
    Ok((key.into(), value.into()))
}

impl FjallReader {
    pub(super) const fn new(spaces: Spaces, shared: Arc<Shared>) -> Self {
        Self { spaces, shared }
    }

    fn one(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.spaces.of(space).get(key);
        Ok(value.map_err(|error| unreadable(&error))?.map(Bytes::from))
    }

    fn attempts_of(
        &self,
        at: Position,
        endpoint: Option<EndpointNo>,
    ) -> Result<Vec<Attempt>, Error> {
        let view = self.spaces.snapshot();
        // Number 0 is a cancellation, the highest endpoint a marker.
        let low = keys::attempt(at, endpoint.unwrap_or(EndpointNo(0)), 0);
        let last = endpoint.unwrap_or(EndpointNo(u32::MAX - 1));
        let high = keys::attempt(at, last, u16::MAX);
        let mut found = Vec::new();
        for space in [Space::Attempts, Space::AttemptsLate] {
            for guard in view.range(self.spaces.of(space), low..=high) {
                let (key, value) = row(guard)?;
                if keys::read_attempt(&key).is_some_and(|(_, _, no)| no == 0) {
                    continue;
                }
                let (mut attempt, body) = attempt::read(&key, &value)?;
                if self.shared.shows(&attempt) {
                    attempt.response = self.response(&view, &attempt, body)?;
                    found.push(attempt);
                }
            }
        }
        found.sort_unstable_by_key(|attempt| (attempt.endpoint, attempt.no));
        Ok(found)
    }

    /// What was answered, while it is retained. A row of it that is not there was dropped: the clock went
    /// back, or answers are kept longer since the last start.
    fn response(&self, view: &Snapshot, attempt: &Attempt, body: Body) -> Result<Bytes, Error> {
        let expired = || Ok(Bytes::from_static(EXPUNGED));
        if body == Body::Here && attempt.response.is_empty() {
            return Ok(Bytes::new());
        }
        if attempt.ended < self.shared.cuts.bodies() {
            return expired();
        }
        if body == Body::Here {
            return Ok(attempt.response.clone());
        }
        let key = keys::body(attempt.ended, attempt.at, attempt.endpoint, attempt.no);
        let value = view.get(self.spaces.of(Space::Lists), key);
        match value.map_err(|error| unreadable(&error))? {
            Some(value) => attempt::read_answer(&key, &value.into()),
            None => expired(),
        }
    }
}

impl Reader for FjallReader {
    fn message(&self, at: Position) -> Result<Option<Message>, Error> {
        if at.seq == 0 || !self.shared.is_retained(at) {
            return Ok(None);
        }
        if let Some(message) = self.shared.recent.get(at) {
            return Ok(Some(message));
        }
        let changes = self.shared.recent.changes();
        let key = at.bytes();
        let Some(value) = self.one(Space::Messages, &key)? else {
            return Ok(None);
        };
        let message = message::decode(&key, &value)?;
        self.shared.recent.keep(changes, &message);
        Ok(Some(message))
    }

    fn fetch(&self, after: Position, limit: usize) -> Result<Vec<Message>, Error> {
        let floor = self.shared.floors.of(after.lane);
        let after = Position {
            seq: after.seq.max(floor.unwrap_or(0).saturating_sub(1)),
            ..after
        };
        let end = Position {
            seq: u64::MAX,
            ..after
        };
        let range = (Bound::Excluded(after.bytes()), Bound::Included(end.bytes()));
        let mut found: Vec<Message> = Vec::new();
        if after >= end {
            return Ok(found);
        }
        let view = self.spaces.snapshot();
        let rows = view.range(self.spaces.of(Space::Messages), range);
        for guard in rows.take(limit) {
            let (key, value) = row(guard)?;
            let message = message::decode(&key, &value)?;
            let expected = found.last().map(|last| last.at.seq.saturating_add(1));
            let is_hole = expected.is_some_and(|seq| seq != message.at.seq);
            if is_hole && !self.shared.may_have_holes(after.lane) {
                return Err(record::corrupt("message", &key, "those before it are gone"));
            }
            found.push(message);
        }
        Ok(found)
    }

    fn lanes(&self) -> Result<Vec<Lane>, Error> {
        let view = self.spaces.snapshot();
        let messages = self.spaces.of(Space::Messages);
        let mut lanes = Vec::new();
        for guard in view.prefix(self.spaces.of(Space::Meta), [keys::LANE]) {
            let (key, value) = row(guard)?;
            let (id, lane) = batch::read_lane(&key, &value)?;
            let newest = view.prefix(messages, id.0.to_be_bytes()).next_back();
            let stored = newest.map(row).transpose()?.map_or(0, |(key, _)| {
                let place = key.first_chunk::<12>().copied();
                place.map_or(0, |place| Position::from_bytes(place).seq)
            });
            let (last, floor) = (stored.max(lane.last), lane.floor);
            let lane = Lane {
                id,
                checkpoint: lane.checkpoint,
                last,
            };
            lanes.push((lane, last == 0 || floor > last));
        }
        let newest = lanes.last().map(|(lane, _)| lane.id);
        lanes.retain(|(lane, is_empty)| !is_empty || Some(lane.id) == newest);
        Ok(lanes.into_iter().map(|(lane, _)| lane).collect())
    }

    fn parked(
        &self,
        endpoint: EndpointNo,
        after: Option<ParkedKey>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Parked>, Error> {
        let first = ParkedKey {
            endpoint,
            due: Timestamp::ZERO,
            at: Position::START,
        };
        let low = match after {
            Some(after) if after >= first => Bound::Excluded(keys::parked(after)),
            _ => Bound::Included(keys::parked(first)),
        };
        let last = ParkedKey {
            due: until,
            at: Position::from_bytes([0xff; 12]),
            ..first
        };
        if after.is_some_and(|after| after >= last) {
            return Ok(Vec::new());
        }
        let view = self.spaces.snapshot();
        let range = (low, Bound::Included(keys::parked(last)));
        let rows = view.range(self.spaces.of(Space::Parked), range).take(limit);
        let parked = rows.map(|guard| {
            let (key, value) = row(guard)?;
            record::read_parked(&key, &value)
        });
        parked.collect()
    }

    fn parked_row(&self, key: ParkedKey) -> Result<Option<Parked>, Error> {
        let key = keys::parked(key);
        let value = self.one(Space::Parked, &key)?;
        value
            .map(|value| record::read_parked(&key, &value))
            .transpose()
    }

    fn endpoint_states(&self) -> Result<Vec<(EndpointNo, EndpointState)>, Error> {
        let view = self.spaces.snapshot();
        let rows = view.prefix(self.spaces.of(Space::State), [keys::STATE]);
        let states = rows.map(|guard| {
            let (key, value) = row(guard)?;
            record::read_state(&key, &value)
        });
        states.collect()
    }

    fn attempts(&self, at: Position, endpoint: Option<EndpointNo>) -> Result<Vec<Attempt>, Error> {
        self.attempts_of(at, endpoint)
    }

    fn is_cancelled(&self, delivery: Delivery) -> Result<bool, Error> {
        if !self.shared.is_retained(delivery.at) {
            return Ok(false);
        }
        let key = keys::attempt(delivery.at, delivery.endpoint, 0);
        match self.one(Space::AttemptsLate, &key)? {
            Some(value) => record::read_cancelled(&key, &value).map(|_| true),
            None => Ok(false),
        }
    }

    fn superseded_by(&self, delivery: Delivery) -> Result<Option<Position>, Error> {
        if !self.shared.is_retained(delivery.at) {
            return Ok(None);
        }
        let key = keys::attempt(delivery.at, delivery.endpoint, 0);
        match self.one(Space::AttemptsLate, &key)? {
            Some(value) => record::read_cancelled(&key, &value),
            None => Ok(None),
        }
    }

    fn cancelled(
        &self,
        endpoint: EndpointNo,
        (from, to): (Position, Position),
        budget: usize,
    ) -> Result<Option<u64>, Error> {
        let low = keys::attempt(from, EndpointNo(0), 0);
        let high = keys::attempt(to, EndpointNo(u32::MAX - 1), u16::MAX);
        let view = self.spaces.snapshot();
        let mut count = 0;
        let rows = view.range(self.spaces.of(Space::AttemptsLate), low..=high);
        for (seen, guard) in rows.enumerate() {
            if seen >= budget {
                return Ok(None);
            }
            let key = guard.key().map_err(|error| unreadable(&error))?;
            let is_one = keys::read_attempt(&key).is_some_and(|(at, of, no)| {
                of == endpoint && no == 0 && self.shared.is_retained(at)
            });
            count += u64::from(is_one);
        }
        Ok(Some(count))
    }

    fn scrub(&self) -> Result<(), Error> {
        super::expunge::scrub(&self.spaces)
    }

    fn payload_ends(
        &self,
        after: Option<(Timestamp, Position)>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<PayloadEnd>, Error> {
        ending::page(&self.spaces, after, until, limit)
    }

    fn app_messages(&self, app: AppNo, page: &Page) -> Result<Vec<Listed>, Error> {
        lists::of_app(&self.spaces, app, page, |at| self.shared.is_retained(at))
    }

    fn endpoint_attempts(
        &self,
        endpoint: EndpointNo,
        page: &Page,
    ) -> Result<Vec<ListedAttempt>, Error> {
        let cut = self.shared.cuts.attempts();
        lists::of_endpoint(&self.spaces, endpoint, page, |entry| {
            entry.has_message = self.shared.is_retained(entry.key.at);
            entry.key.time >= cut
        })
    }

    fn by_event_id(&self, app: AppNo, event_id: &str) -> Result<Option<Position>, Error> {
        let key = keys::event_id(app, &writer::hash(event_id.as_bytes()));
        let Some(value) = self.one(Space::Idem, &key)? else {
            return Ok(None);
        };
        let (at, _) = record::read_event_id(&key, &value)?;
        Ok(Some(at).filter(|at| self.shared.is_retained(*at)))
    }

    fn idempotent(
        &self,
        hash: &[u8; 16],
        oldest: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, Error> {
        let newest = self.shared.newest_bucket.load(Ordering::Relaxed);
        // A far-off `oldest` must not mean a long walk: blocks without rows are skipped by a seek.
        let mut low = keys::bucket(oldest);
        if newest.saturating_sub(low) > 64 {
            low = low.max(self.oldest_bucket()?.unwrap_or(newest));
        }
        for bucket in (low..=newest).rev() {
            let key = keys::idempotency(bucket, hash);
            if let Some(value) = self.one(Space::Idem, &key)? {
                let record = record::read_idempotency(&key, &value)?;
                return Ok((record.at >= oldest).then_some(record));
            }
        }
        Ok(None)
    }

    fn audit(&self, page: &AuditPage) -> Result<Vec<AuditRow>, Error> {
        lists::of_audit(&self.spaces, page)
    }

    fn config(&self) -> Result<(u64, Vec<ConfigRow>), Error> {
        let view = self.spaces.snapshot();
        let state = self.spaces.of(Space::State);
        let revision = view.get(state, keys::REVISION);
        let revision = match revision.map_err(|error| unreadable(&error))? {
            Some(value) => record::read_number(keys::REVISION, &value)?,
            None => 0,
        };
        let rows = view.prefix(state, [keys::OBJECT]).map(|guard| {
            let (key, value) = row(guard)?;
            let value = record::read_object(&key, &value)?;
            let read = keys::read_object(&key);
            let (kind, key) =
                read.ok_or_else(|| record::corrupt("configuration object", &key, "kind"))?;
            Ok(ConfigRow { kind, key, value })
        });
        Ok((revision, rows.collect::<Result<_, Error>>()?))
    }
}

impl FjallReader {
    fn oldest_bucket(&self) -> Result<Option<u32>, Error> {
        let view = self.spaces.snapshot();
        let first = view
            .prefix(self.spaces.of(Space::Idem), [keys::IDEMPOTENCY])
            .next();
        let first = first.map(row).transpose()?;
        Ok(first.and_then(|(key, _)| keys::read_bucket(&key)))
    }
}
