//! The history, indexed: what several rules ask for.

use std::collections::{HashMap, HashSet};

use crate::oracle::history::{
    Acknowledged, Delivery, EndpointTerms, FaultKind, History, Request, State,
};
use crate::oracle::journal::Line;

/// The gateway compares its clock with the system's every two seconds, not at each attempt, and may
/// have stood still for three.
pub(super) const CLOCK_LAG: u64 = 8_000_000;

/// Failures in a row after which the gateway takes an endpoint for dead and only probes it
/// (ADR 0022).
const FAILURES: usize = 10;
/// The longest time between two such probes; microseconds.
const REST: u64 = 60_000_000;

/// Deliveries of one message to one endpoint, by their start.
pub(super) type Attempts<'h> = Vec<&'h (Line, Delivery)>;

/// A (name of endpoint, message id).
pub(super) type Pair<'h> = (&'h str, &'h str);

pub(super) struct Facts<'h> {
    pub(super) history: &'h History,
    pub(super) by_name: HashMap<&'h str, &'h EndpointTerms>,
    pub(super) by_endpoint_id: HashMap<&'h str, &'h EndpointTerms>,
    pub(super) by_message: HashMap<&'h str, (&'h Request, &'h Acknowledged)>,
    pub(super) by_hash: HashMap<&'h str, &'h Request>,
    pub(super) attempts: HashMap<Pair<'h>, Attempts<'h>>,
    pub(super) states: HashMap<Pair<'h>, Vec<(Line, State)>>,
    /// From each loss of the gateway's memory to the next launch: what arrives meanwhile was sent by
    /// the dead process and waited in a socket. Sorted.
    deaths: Vec<(u64, u64)>,
    /// The same for ends in order.
    ends: Vec<(u64, u64)>,
    stops: Vec<(u64, u64)>,
}

/// What the gateway had begun to send when it was stopped arrives this soon after it goes on, when the
/// time of the attempt may be over already; microseconds.
const AWAKE: u64 = 200_000;

impl<'h> Facts<'h> {
    pub(super) fn of(history: &'h History) -> Self {
        let mut attempts: HashMap<Pair<'h>, Attempts<'h>> = HashMap::new();
        for seen in &history.deliveries {
            let pair = (seen.1.endpoint.as_str(), seen.1.id.as_str());
            attempts.entry(pair).or_default().push(seen);
        }
        for list in attempts.values_mut() {
            list.sort_by_key(|(_, delivery)| delivery.start);
        }
        let mut states: HashMap<Pair<'h>, Vec<(Line, State)>> = HashMap::new();
        for (line, endpoint, id, state) in &history.states {
            let pair = (endpoint.as_str(), id.as_str());
            states.entry(pair).or_default().push((*line, *state));
        }
        let endpoints = history.endpoints.iter();
        Self {
            history,
            by_name: endpoints
                .clone()
                .map(|one| (one.name.as_str(), one))
                .collect(),
            by_endpoint_id: endpoints.map(|one| (one.id.as_str(), one)).collect(),
            by_message: history
                .acknowledged()
                .map(|(request, ack)| (ack.id.as_str(), (request, ack)))
                .collect(),
            by_hash: history
                .requests
                .iter()
                .map(|request| (request.hash.as_str(), request))
                .collect(),
            attempts,
            states,
            deaths: down(history, FaultKind::is_death),
            ends: down(history, |kind| kind == FaultKind::Ended),
            stops: stops(history),
        }
    }

    /// Whether something arrived that this history does not explain.
    pub(super) fn has_strangers(&self) -> bool {
        let mut seen = self.history.deliveries.iter();
        seen.any(|(_, delivery)| {
            !self.by_message.contains_key(delivery.id.as_str())
                && !self.by_hash.contains_key(delivery.hash.as_str())
        })
    }

    pub(super) fn attempts<'a>(
        &'a self,
        endpoint: &'a str,
        id: &'a str,
    ) -> &'a [&'a (Line, Delivery)] {
        self.attempts
            .get(&(endpoint, id))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether the receiver answered 2xx.
    pub(super) fn arrived(&self, endpoint: &str, id: &str) -> bool {
        let mut attempts = self.attempts(endpoint, id).iter();
        attempts.any(|(_, delivery)| delivery.is_success())
    }

    /// How much longer than usual the gateway may leave this endpoint alone at `at`, in microseconds.
    /// It rests after [`FAILURES`] failures in a row, each time twice as long as before: an endpoint
    /// that failed without a success for so long may rest as long again, up to [`REST`].
    pub(super) fn longest_rest(&self, endpoint: &str, at: u64) -> u64 {
        let here = self.history.deliveries.iter().map(|(_, one)| one);
        let mut here: Vec<&Delivery> = here.filter(|one| one.endpoint == endpoint).collect();
        here.sort_by_key(|one| one.end);
        let now = here.partition_point(|one| one.end <= at);
        let success = |one: &&Delivery| one.is_success();
        let from = here[..now]
            .iter()
            .rposition(success)
            .map_or(0, |last| last + 1);
        let next = here[now..].iter().position(success);
        let failures = &here[from..next.map_or(here.len(), |next| now + next)];
        match failures {
            [first, .., last] if failures.len() >= FAILURES => (last.end - first.end).min(REST),
            _ => 0,
        }
    }

    /// Acknowledged pairs with the endpoint's terms, if it has any.
    pub(super) fn pairs(
        &self,
    ) -> impl Iterator<Item = (&'h Acknowledged, &'h str, Option<&'h EndpointTerms>)> + '_ {
        self.history.acknowledged().flat_map(move |(_, ack)| {
            let targets = ack.targets.iter().map(String::as_str);
            targets.map(move |id| (ack, id, self.by_endpoint_id.get(id).copied()))
        })
    }

    /// When the process that sent a request that arrived `at` was gone; `at` itself if it was gone
    /// already.
    pub(super) fn gone_after(&self, at: u64) -> u64 {
        let next = |times: &[(u64, u64)]| {
            let index = times.partition_point(|(_, launch)| *launch < at);
            times.get(index).map_or(u64::MAX, |(gone, _)| *gone)
        };
        next(&self.deaths).min(next(&self.ends)).max(at)
    }

    /// Whether the gateway lost its memory, or was gone for that reason, within these times.
    pub(super) fn died(&self, from: u64, to: u64) -> bool {
        let index = self.deaths.partition_point(|(_, launch)| *launch < from);
        self.deaths.get(index).is_some_and(|(gone, _)| *gone <= to)
    }

    /// Whether the gateway may not know that this attempt was answered: it died before it could
    /// note the answer, it stood still, its time was over, or no answer was sent at all.
    pub(super) fn is_ambiguous(&self, delivery: &Delivery) -> bool {
        let rules = &self.history.rules;
        let noted = delivery.end + rules.settle_ms * 1000;
        // The gateway's time starts before the request has arrived here.
        let late = delivery.start + (rules.timeout_ms * 1000).saturating_sub(100_000);
        let stood = self
            .stops
            .iter()
            .any(|(from, to)| *from <= noted && delivery.start <= to.saturating_add(AWAKE));
        delivery.status.is_none()
            || self.died(delivery.start, noted)
            || stood
            || rules.timeout_ms > 0 && delivery.end >= late
    }

    /// Whether the gateway died so soon that it may not remember this attempt.
    pub(super) fn forgot(&self, delivery: &Delivery) -> bool {
        let noted = delivery.end + self.history.rules.settle_ms * 1000;
        self.died(delivery.start, noted)
            || delivery.status.is_none() && self.gone_after(delivery.start) <= noted
    }

    /// Whether the wall clock of the gateway moved within these times.
    pub(super) fn clock_moved(&self, from: u64, to: u64) -> bool {
        let from = from.saturating_sub(CLOCK_LAG);
        let mut faults = self.history.faults.iter();
        faults.any(|(_, fault)| fault.kind == FaultKind::Clock && (from..=to).contains(&fault.at))
    }

    pub(super) fn successes(&self) -> u64 {
        let seen = self.history.deliveries.iter();
        seen.filter(|(_, delivery)| delivery.is_success()).count() as u64
    }

    /// 2xx beyond the first of each pair.
    pub(super) fn duplicates(&self) -> u64 {
        let mut once = HashSet::new();
        let seen = self.history.deliveries.iter();
        let successes = seen.filter(|(_, delivery)| delivery.is_success());
        let repeated = successes.filter(|(_, delivery)| {
            !once.insert((delivery.endpoint.as_str(), delivery.id.as_str()))
        });
        repeated.count() as u64
    }
}

/// From each fault of a kind to the launch that follows it.
fn down(history: &History, wanted: fn(FaultKind) -> bool) -> Vec<(u64, u64)> {
    let mut times = Vec::new();
    let mut open: Vec<u64> = Vec::new();
    for (_, fault) in &history.faults {
        if wanted(fault.kind) {
            open.push(fault.at);
        } else if fault.kind == FaultKind::Launch {
            times.extend(open.drain(..).map(|gone| (gone, fault.at)));
        }
    }
    // Histories without launches, and a gateway that was not started again.
    times.extend(open.into_iter().map(|gone| (gone, gone)));
    times.sort_unstable();
    times
}

/// From each SIGSTOP to its SIGCONT.
fn stops(history: &History) -> Vec<(u64, u64)> {
    let mut stops = Vec::new();
    let mut from = None;
    for (_, fault) in &history.faults {
        match fault.kind {
            FaultKind::Stop => from = Some(fault.at),
            FaultKind::Continue => stops.extend(from.take().map(|from| (from, fault.at))),
            _ => {}
        }
    }
    stops.extend(from.map(|from| (from, u64::MAX)));
    stops
}
