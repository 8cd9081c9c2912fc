//! What a store holds, as plain ordered maps, and how each mutating call changes it.
//!
//! Owns: the meaning of the seam, written as simply as possible; the other implementations are
//! compared with it. Pure. Elsewhere: durability, crashes and faults ([`super`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::base::Timestamp;
use crate::config::Retention;
use crate::model::{
    AppNo, Attempt, Delivery, EXPUNGED, EndpointNo, EndpointState, LaneId, Message, Parked,
    ParkedKey, Position, Verdict,
};

use crate::store::collapse_id;
use crate::store::{
    Accept, AuditPage, AuditRow, ConfigKind, ConfigRow, Content, Ended, IdempotencyKey,
    IdempotencyRecord, Lane, ListKey, Listed, ListedAttempt, Page, PayloadEnd, Settlement,
    StoredAnswer,
};

/// One mutating call, kept until it is on stable storage.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Open(LaneId),
    Append(Vec<Accept>),
    Settle(Settlement),
    Config(u64, Vec<ConfigRow>),
    Remember([u8; 16], IdempotencyRecord),
    Expunge(Vec<Content>),
    EndPayloads(Vec<(PayloadEnd, Ended)>),
    /// The first message of each lane that is retained from now on.
    Expire(BTreeMap<LaneId, u64>),
}

/// Everything a store holds.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) messages: BTreeMap<Position, Message>,
    pub(super) parked: BTreeMap<ParkedKey, Parked>,
    attempts: BTreeMap<(Position, EndpointNo, u16), Attempt>,
    /// With the message that took its place, if one did.
    pub(super) cancelled: BTreeMap<Delivery, Option<Position>>,
    pub(super) states: BTreeMap<EndpointNo, EndpointState>,
    /// Every lane ever opened: checkpoint and last sequence number.
    lanes: BTreeMap<LaneId, (u64, u64)>,
    of_app: BTreeMap<AppNo, BTreeSet<ListKey>>,
    of_endpoint: BTreeMap<EndpointNo, BTreeMap<ListKey, (u16, u8)>>,
    /// Ends of payloads that are to be looked at; those with an endpoint are of deliveries beside the
    /// targets.
    payload_ends: BTreeSet<(Timestamp, Position, Option<EndpointNo>)>,
    event_ids: BTreeMap<AppNo, BTreeMap<String, Position>>,
    idempotency: BTreeMap<[u8; 16], IdempotencyRecord>,
    config: BTreeMap<(ConfigKind, Vec<u8>), Bytes>,
    audit: BTreeMap<[u8; 20], Bytes>,
    /// Per lane the first message that is retained.
    floors: BTreeMap<LaneId, u64>,
    /// From when on attempts, and what was answered to them, are shown. Told by housekeeping.
    cuts: (Timestamp, Timestamp),
    pub(super) revision: u64,
}

impl State {
    /// Carries one call out.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Open(lane) => {
                self.lanes.entry(*lane).or_default();
            }
            Change::Append(batch) => batch.iter().for_each(|accept| self.append(accept)),
            Change::Settle(settlement) => self.settle(settlement),
            Change::Config(revision, rows) => {
                self.revision = *revision;
                for row in rows {
                    if row.kind == ConfigKind::Audit {
                        let id = row.key.clone().try_into().unwrap_or([0; 20]);
                        self.audit.insert(id, row.value.clone());
                        continue;
                    }
                    let key = (row.kind, row.key.clone());
                    self.config.insert(key, row.value.clone());
                }
            }
            Change::Remember(key, record) => {
                self.idempotency.insert(*key, record.clone());
            }
            Change::Expunge(contents) => contents.iter().for_each(|content| self.expunge(content)),
            Change::EndPayloads(ends) => {
                ends.iter()
                    .for_each(|(end, how)| self.end_payload(end, *how));
            }
            Change::Expire(floors) => {
                self.floors.extend(floors);
                let floors = &self.floors;
                self.messages.retain(|at, _| retained(floors, *at));
            }
        }
    }

    /// Nothing that ended earlier is shown any more, as of `now`.
    pub(super) fn cut(&mut self, now: Timestamp, retention: &Retention) {
        let (attempts, bodies) = self.cuts;
        self.cuts = (
            attempts.max(now.minus(retention.of_attempts())),
            bodies.max(now.minus(retention.of_bodies())),
        );
    }

    /// A new process has not been told yet.
    pub(super) fn forget_cuts(&mut self) {
        self.cuts = Default::default();
    }

    /// The floors that move, when what was accepted before `cut` may go: settled, and neither parked nor
    /// `held`.
    pub(super) fn floors(
        &self,
        cut: Timestamp,
        mut held: BTreeMap<LaneId, u64>,
    ) -> BTreeMap<LaneId, u64> {
        for key in self.parked.keys() {
            let oldest = held.entry(key.at.lane).or_insert(key.at.seq);
            *oldest = key.at.seq.min(*oldest);
        }
        let mut moved = BTreeMap::new();
        for (&lane, &(checkpoint, _)) in &self.lanes {
            let old = self.floors.get(&lane).copied().unwrap_or(0).max(1);
            let held = held.get(&lane).copied().unwrap_or(u64::MAX);
            let is_old = |seq: u64| {
                let message = self.messages.get(&Position { lane, seq });
                message.is_some_and(|message| message.accepted < cut)
            };
            let mut floor = old;
            while floor <= checkpoint && floor < held && is_old(floor) {
                floor += 1;
            }
            if floor > old {
                moved.insert(lane, floor);
            }
        }
        moved
    }

    /// Whether a message is within retention.
    pub(super) fn is_retained(&self, at: Position) -> bool {
        retained(&self.floors, at)
    }

    /// Whether an attempt is.
    fn shows(&self, attempt: &Attempt) -> bool {
        let outlives = attempt.accepted.is_some() && attempt.ended >= self.cuts.0;
        outlives || self.is_retained(attempt.at)
    }

    /// Whether the record is there whose content this is.
    pub(super) fn has(&self, content: &Content) -> bool {
        match content {
            Content::Payload(at) => self.messages.contains_key(at),
            Content::Response(delivery, no) => {
                let place = (delivery.at, delivery.endpoint, *no);
                let attempt = self.attempts.get(&place);
                attempt.is_some_and(|attempt| self.shows(attempt))
            }
        }
    }

    fn expunge(&mut self, content: &Content) {
        match content {
            Content::Payload(at) => {
                if let Some(message) = self.messages.get_mut(at) {
                    message.expunge();
                }
            }
            Content::Response(delivery, no) => {
                let place = (delivery.at, delivery.endpoint, *no);
                if !self.has(content) {
                    return;
                }
                if let Some(attempt) = self.attempts.get_mut(&place) {
                    attempt.response = Bytes::from_static(EXPUNGED);
                }
            }
        }
    }

    fn end_payload(&mut self, end: &PayloadEnd, ended: Ended) {
        if ended == Ended::PutOff(end.due) {
            return;
        }
        let further = end.further.iter().copied().map(Some);
        for endpoint in std::iter::once(None).chain(further) {
            self.payload_ends.remove(&(end.due, end.at, endpoint));
            if let Ended::PutOff(until) = ended {
                self.payload_ends.insert((until, end.at, endpoint));
            }
        }
        if ended == Ended::TakenAway {
            self.expunge(&Content::Payload(end.at));
        }
    }

    pub(super) fn payload_ends(
        &self,
        after: Option<(Timestamp, Position)>,
        until: Timestamp,
        limit: usize,
    ) -> Vec<PayloadEnd> {
        let mut found: Vec<PayloadEnd> = Vec::new();
        for &(due, at, endpoint) in &self.payload_ends {
            if due > until || after.is_some_and(|after| (due, at) <= after) {
                continue;
            }
            match found.last_mut() {
                Some(last) if (last.due, last.at) == (due, at) => last.further.extend(endpoint),
                _ => found.push(PayloadEnd {
                    due,
                    at,
                    further: endpoint.into_iter().collect(),
                }),
            }
        }
        found.truncate(limit);
        found
    }

    fn append(&mut self, accept: &Accept) {
        let message = &accept.message;
        let at = message.at;
        if let Some(IdempotencyKey { key, body }) = accept.idempotency {
            let record = IdempotencyRecord {
                body,
                at: message.accepted,
                answer: StoredAnswer::Message(at),
            };
            self.idempotency.insert(key, record);
        }
        if let Some(event_id) = message.event_id() {
            let ids = self.event_ids.entry(message.app).or_default();
            ids.insert(event_id.to_owned(), at);
        }
        if let Some(key) = message.collapse_key() {
            let ids = self.event_ids.entry(message.app).or_default();
            for target in &message.targets {
                ids.insert(collapse_id(*target, key), at);
            }
        }
        let key = ListKey {
            time: message.accepted,
            at,
            no: 0,
        };
        if let Some(ends) = message.payload_ends() {
            self.payload_ends.insert((ends, at, None));
        }
        self.of_app.entry(message.app).or_default().insert(key);
        self.lanes.entry(at.lane).or_default().1 = at.seq;
        self.messages.insert(at, message.clone());
    }

    fn settle(&mut self, settlement: &Settlement) {
        for attempt in &settlement.attempts {
            let key = ListKey {
                time: attempt.ended,
                at: attempt.at,
                no: attempt.no,
            };
            let entry = (attempt.outcome.status, verdict_code(attempt.verdict));
            let list = self.of_endpoint.entry(attempt.endpoint).or_default();
            list.insert(key, entry);
            let place = (attempt.at, attempt.endpoint, attempt.no);
            self.attempts.insert(place, attempt.clone());
        }
        for key in &settlement.unpark {
            self.parked.remove(key);
        }
        for row in &settlement.park {
            self.parked.insert(row.key, row.clone());
        }
        let cancelled = settlement.cancelled.iter().map(|of| (*of, None));
        self.cancelled.extend(cancelled);
        let superseded = settlement.superseded.iter();
        self.cancelled
            .extend(superseded.map(|(of, by)| (*of, Some(*by))));
        let further = settlement.further.iter();
        let further = further.map(|(of, ends)| (*ends, of.at, Some(of.endpoint)));
        self.payload_ends.extend(further);
        self.states.extend(settlement.states.iter().copied());
        for (lane, seq) in &settlement.checkpoint {
            let checkpoint = &mut self.lanes.entry(*lane).or_default().0;
            *checkpoint = (*checkpoint).max(*seq);
        }
    }

    /// The highest lane ever opened.
    pub(super) fn highest_lane(&self) -> LaneId {
        self.lanes.keys().next_back().copied().unwrap_or_default()
    }

    /// Lanes with messages, and the newest one.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        let newest = self.highest_lane();
        let lanes = self.lanes.iter().map(|(&id, &(checkpoint, last))| Lane {
            id,
            checkpoint,
            last,
        });
        lanes
            .filter(|lane| {
                let floor = self.floors.get(&lane.id).copied().unwrap_or(0);
                (lane.last > 0 && floor <= lane.last) || lane.id == newest
            })
            .collect()
    }

    pub(super) fn fetch(&self, after: Position, limit: usize) -> Vec<Message> {
        let end = Position {
            lane: after.lane,
            seq: u64::MAX,
        };
        if after >= end {
            return Vec::new();
        }
        let range = (Bound::Excluded(after), Bound::Included(end));
        let found = self.messages.range(range).take(limit);
        found.map(|(_, message)| message.clone()).collect()
    }

    pub(super) fn parked(
        &self,
        endpoint: EndpointNo,
        after: Option<ParkedKey>,
        until: Timestamp,
        limit: usize,
    ) -> Vec<Parked> {
        let first = ParkedKey {
            endpoint,
            due: Timestamp::ZERO,
            at: Position::START,
        };
        let from = after.filter(|after| *after >= first);
        let from = from.map_or(Bound::Included(first), Bound::Excluded);
        let rows = self.parked.range((from, Bound::Unbounded));
        rows.map(|(_, row)| row)
            .take_while(|row| row.key.endpoint == endpoint && row.key.due <= until)
            .take(limit)
            .cloned()
            .collect()
    }

    pub(super) fn attempts(&self, at: Position, endpoint: Option<EndpointNo>) -> Vec<Attempt> {
        let all = (at, EndpointNo(0), 0)..=(at, EndpointNo(u32::MAX), u16::MAX);
        let found = self.attempts.range(all).map(|(_, attempt)| attempt);
        found
            .filter(|attempt| endpoint.is_none_or(|endpoint| attempt.endpoint == endpoint))
            .filter(|attempt| self.shows(attempt))
            .cloned()
            .map(|attempt| self.without_old_answer(attempt))
            .collect()
    }

    fn without_old_answer(&self, mut attempt: Attempt) -> Attempt {
        if attempt.ended < self.cuts.1 && !attempt.response.is_empty() {
            attempt.response = Bytes::from_static(EXPUNGED);
        }
        attempt
    }

    pub(super) fn app_messages(&self, app: AppNo, page: &Page) -> Vec<Listed> {
        let Some(list) = self.of_app.get(&app) else {
            return Vec::new();
        };
        let keys = list.iter().copied();
        let keys = keys.filter(|key| self.is_retained(key.at));
        stretch(keys, page, |key| *key)
            .into_iter()
            .map(|key| Listed { key })
            .collect()
    }

    pub(super) fn endpoint_attempts(
        &self,
        endpoint: EndpointNo,
        page: &Page,
    ) -> Vec<ListedAttempt> {
        let Some(list) = self.of_endpoint.get(&endpoint) else {
            return Vec::new();
        };
        let entries = list.iter().map(|(&key, &(status, verdict))| ListedAttempt {
            key,
            status,
            verdict,
            has_message: self.is_retained(key.at),
        });
        let entries = entries.filter(|entry| entry.key.time >= self.cuts.0);
        stretch(entries, page, |entry| entry.key)
    }

    pub(super) fn by_event_id(&self, app: AppNo, event_id: &str) -> Option<Position> {
        let at = self.event_ids.get(&app)?.get(event_id).copied();
        at.filter(|at| self.is_retained(*at))
    }

    pub(super) fn idempotent(
        &self,
        key: &[u8; 16],
        oldest: Timestamp,
    ) -> Option<IdempotencyRecord> {
        let record = self.idempotency.get(key)?;
        (record.at >= oldest).then(|| record.clone())
    }

    pub(super) fn audit(&self, page: &AuditPage) -> Vec<AuditRow> {
        let row = |(id, value): (&[u8; 20], &Bytes)| (*id, value.clone());
        let from = page.from.map_or(Bound::Unbounded, Bound::Excluded);
        if page.newest_first {
            let rows = self.audit.range((Bound::Unbounded, from)).rev();
            return rows.take(page.limit).map(row).collect();
        }
        let rows = self.audit.range((from, Bound::Unbounded));
        rows.take(page.limit).map(row).collect()
    }

    pub(super) fn config(&self) -> Vec<ConfigRow> {
        let rows = self.config.iter().map(|((kind, key), value)| ConfigRow {
            kind: *kind,
            key: key.clone(),
            value: value.clone(),
        });
        rows.collect()
    }
}

/// Whether a message stands at the floor of its lane or behind it.
fn retained(floors: &BTreeMap<LaneId, u64>, at: Position) -> bool {
    floors.get(&at.lane).is_none_or(|floor| at.seq >= *floor)
}

/// What a list says of a verdict (see [`ListedAttempt::verdict`]).
pub(super) const fn verdict_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Delivered => 0,
        Verdict::RetryAt(_) => 1,
        Verdict::Dead(_) => 2,
    }
}

/// The part of an ordered list that a page asks for.
fn stretch<T>(
    list: impl DoubleEndedIterator<Item = T>,
    page: &Page,
    key: impl Fn(&T) -> ListKey,
) -> Vec<T> {
    let (low, high) = if page.newest_first {
        (page.until, page.from)
    } else {
        (page.from, page.until)
    };
    let inside = list.filter(|entry| {
        let key = key(entry);
        low.is_none_or(|low| key > low) && high.is_none_or(|high| key < high)
    });
    if page.newest_first {
        inside.rev().take(page.limit).collect()
    } else {
        inside.take(page.limit).collect()
    }
}
