//! Counts deliveries by state, and finds those that are in none.
//!
//! Owns: the offline counterpart of what the API says of a delivery: a parked row decides, then the
//! last attempt, then a cancellation; what has no trace is pending while it stands above the
//! checkpoint of its lane. Below the checkpoint everything is settled or parked (the cursor rule), so
//! a delivery without a trace there would never be tried: a problem.
//!
//! Messages and both kinds of attempts are walked side by side in the order of the log. The keys of
//! parked rows stand under their endpoints, so they are held in memory, 24 bytes each. Records that
//! cannot be read are passed over: the check of the records has reported them.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use ::fjall::{Guard, Readable as _, Snapshot};

use crate::base::Timestamp;
use crate::model::{DeliveryState, DisableReason, EndpointNo, LaneId, Position, Verdict};
use crate::store::{ConfigKind, Error};

use super::reader::row;
use super::spaces::{Space, Spaces, unreadable};
use super::verify::Report;
use super::{attempt, batch, keys, message, record};

/// Counts into the report.
pub(super) fn take(spaces: &Spaces, report: &mut Report) -> Result<(), Error> {
    let view = spaces.snapshot();
    let facts = Facts::read(spaces, &view)?;
    let mut parked = facts.parked.iter().peekable();
    let mut first = Trace::of(view.iter(spaces.of(Space::Attempts))).peekable();
    let mut late = Trace::of(view.iter(spaces.of(Space::AttemptsLate))).peekable();
    let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
    for guard in view.iter(spaces.of(Space::Messages)) {
        let Ok((key, value)) = row(guard) else {
            continue;
        };
        let Ok(message) = message::decode(&key, &value) else {
            continue; // also the record of an empty log, which is none
        };
        let at = message.at;
        if !facts.is_retained(at) {
            continue;
        }
        let mut of = BTreeMap::new();
        for endpoint in message.targets {
            of.insert(endpoint, Found::default());
        }
        for (_, endpoint, fact) in upto(&mut first, at).chain(upto(&mut late, at)) {
            of.entry(endpoint).or_insert_with(Found::default).add(fact);
        }
        while let Some(row) = parked.next_if(|row| row.0 <= at) {
            if row.0 == at {
                of.entry(row.1).or_insert_with(Found::default).parked = Some(row.2);
            }
        }
        for (endpoint, found) in of {
            match facts.state(at, endpoint, &found) {
                Some(state) => *states.entry(state.name()).or_default() += 1,
                None => report.problem(format!(
                    "message {} of lane {} has no state for endpoint {}: it would never be tried",
                    at.seq, at.lane, endpoint.0
                )),
            }
        }
    }
    report.states = DeliveryState::STORED
        .map(|state| (state.name(), states.remove(state.name()).unwrap_or(0)))
        .into();
    Ok(())
}

/// What the attempts say of one delivery.
#[derive(Debug, Default)]
struct Found {
    /// Attempts made, of the parked row.
    parked: Option<u16>,
    last: Option<(u16, Verdict)>,
    cancelled: Option<DeliveryState>,
}

enum Fact {
    Attempt(u16, Verdict),
    Cancelled(DeliveryState),
}

impl Found {
    fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Attempt(no, verdict) => {
                if self.last.is_none_or(|(last, _)| last < no) {
                    self.last = Some((no, verdict));
                }
            }
            Fact::Cancelled(how) => self.cancelled = Some(how),
        }
    }
}

/// Attempts in the order of the log.
struct Trace<I>(I);

impl<I: Iterator<Item = Guard>> Trace<I> {
    const fn of(rows: I) -> Self {
        Self(rows)
    }
}

impl<I: Iterator<Item = Guard>> Iterator for Trace<I> {
    type Item = (Position, EndpointNo, Fact);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Ok((key, value)) = row(self.0.next()?) else {
                continue;
            };
            if keys::is_attempts_marker(&key) || keys::is_marker(&key) {
                continue;
            }
            let Some((at, endpoint, no)) = keys::read_attempt(&key) else {
                continue;
            };
            if no == 0 {
                let how = match record::read_cancelled(&key, &value) {
                    Ok(Some(_)) => DeliveryState::Superseded,
                    Ok(None) | Err(_) => DeliveryState::Cancelled,
                };
                return Some((at, endpoint, Fact::Cancelled(how)));
            }
            if let Ok((attempt, _)) = attempt::read(&key, &value) {
                return Some((at, endpoint, Fact::Attempt(no, attempt.verdict)));
            }
        }
    }
}

/// Those of `at`; earlier ones (their message fell out of retention) are passed over.
fn upto<'a, I: Iterator<Item = Guard>>(
    trace: &'a mut Peekable<Trace<I>>,
    at: Position,
) -> impl Iterator<Item = (Position, EndpointNo, Fact)> + 'a {
    std::iter::from_fn(move || {
        while let Some(fact) = trace.next_if(|fact| fact.0 <= at) {
            if fact.0 == at {
                return Some(fact);
            }
        }
        None
    })
}

/// What is known beside messages and attempts.
struct Facts {
    lanes: BTreeMap<LaneId, batch::LaneRow>,
    holes_up_to: u64,
    /// Position, endpoint, attempts made; sorted.
    parked: Vec<(Position, EndpointNo, u16)>,
    deleted: BTreeSet<EndpointNo>,
    /// Neither disabled nor paused nor deleted.
    sending: BTreeSet<EndpointNo>,
}

impl Facts {
    fn read(spaces: &Spaces, view: &Snapshot) -> Result<Self, Error> {
        let mut lanes = BTreeMap::new();
        for guard in view.prefix(spaces.of(Space::Meta), [keys::LANE]) {
            let read = row(guard).and_then(|(key, value)| batch::read_lane(&key, &value));
            lanes.extend(read.ok());
        }
        let holes = view.get(spaces.of(Space::Meta), keys::HOLES);
        let holes = holes.map_err(|error| unreadable(&error))?;
        let holes_up_to = holes
            .map(|value| record::read_number(keys::HOLES, &value))
            .transpose()?;
        let mut parked = Vec::new();
        for guard in view.iter(spaces.of(Space::Parked)) {
            let Ok((key, value)) = row(guard) else {
                continue;
            };
            if keys::is_marker(&key) {
                continue;
            }
            if let Ok(row) = record::read_parked(&key, &value) {
                parked.push((row.key.at, row.key.endpoint, row.attempts));
            }
        }
        parked.sort_unstable();
        let (mut deleted, mut sending) = (BTreeSet::new(), BTreeSet::new());
        for guard in view.prefix(spaces.of(Space::State), [keys::OBJECT]) {
            let Some(endpoint) = row(guard)
                .ok()
                .and_then(|(key, value)| endpoint(&key, &value))
            else {
                continue;
            };
            if endpoint.deleted.is_some() {
                deleted.insert(endpoint.no);
            } else if endpoint.is_sending() {
                sending.insert(endpoint.no);
            }
        }
        Ok(Self {
            lanes,
            holes_up_to: holes_up_to.unwrap_or(0),
            parked,
            deleted,
            sending,
        })
    }

    fn is_retained(&self, at: Position) -> bool {
        self.lanes
            .get(&at.lane)
            .is_none_or(|lane| at.seq >= lane.floor)
    }

    /// The one state of a delivery, as the API would say it.
    fn state(&self, at: Position, endpoint: EndpointNo, found: &Found) -> Option<DeliveryState> {
        let gone = self.deleted.contains(&endpoint);
        let waiting = |tried: bool| match (self.sending.contains(&endpoint), tried) {
            (false, _) => DeliveryState::Held,
            (true, false) => DeliveryState::Pending,
            (true, true) => DeliveryState::Retrying,
        };
        let lane = self.lanes.get(&at.lane);
        let open = lane.is_none_or(|lane| at.seq > lane.checkpoint);
        // What was lost with an accepted loss may be the settlement.
        let excused = open || u64::from(at.lane.0) <= self.holes_up_to;
        let last = found.last.map(|(_, verdict)| verdict);
        match (found.parked, last) {
            (Some(attempts), _) if !gone => Some(waiting(attempts > 0)),
            (_, Some(Verdict::Delivered)) => Some(DeliveryState::Delivered),
            _ if found.cancelled.is_some() => found.cancelled,
            (_, Some(Verdict::Dead(_))) => Some(DeliveryState::Dead),
            _ if gone => Some(DeliveryState::Cancelled),
            (_, Some(Verdict::RetryAt(_))) => excused.then(|| waiting(true)),
            (_, None) => excused.then(|| waiting(false)),
        }
    }
}

/// What is asked of an endpoint here. Its secrets are sealed, and nobody has a key for them offline.
#[derive(serde::Deserialize)]
struct Switches {
    no: EndpointNo,
    disabled: Option<DisableReason>,
    paused: bool,
    deleted: Option<Timestamp>,
}

impl Switches {
    /// As [`crate::model::Endpoint::is_sending`].
    const fn is_sending(&self) -> bool {
        self.disabled.is_none() && !self.paused && self.deleted.is_none()
    }
}

fn endpoint(key: &[u8], value: &bytes::Bytes) -> Option<Switches> {
    let (kind, _) = keys::read_object(key)?;
    (kind == ConfigKind::Endpoint).then_some(())?;
    let json = record::read_object(key, value).ok()?;
    serde_json::from_slice(&json).ok()
}
