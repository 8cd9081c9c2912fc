//! C1 to C4: what is true of single deliveries.

use std::collections::HashMap;

use super::facts::{CLOCK_LAG, Facts};
use super::{Rule, Violation};
use crate::oracle::history::{FaultKind, State};

/// What every message of the producer is.
const CONTENT_TYPE: &str = "application/json";
/// Age of a signature's timestamp, in either direction.
const FRESH: i64 = 5_000_000;

/// C1: every acknowledged pair got a 2xx, or the API lists it in a state that is not `delivered`.
pub(super) fn no_loss(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for (ack, target, endpoint) in facts.pairs() {
        let Some(endpoint) = endpoint else {
            let what = format!("acknowledged for {target}, which nobody made");
            found.push(Violation::new(Rule::C1, what).of(&ack.id).seen(ack.line));
            continue;
        };
        if facts.arrived(&endpoint.name, &ack.id) {
            continue;
        }
        let states = facts.states.get(&(endpoint.name.as_str(), ack.id.as_str()));
        let kept = states.is_some_and(|all| all.iter().any(|(_, one)| *one != State::Delivered));
        if !kept {
            let what = match states {
                None => "acknowledged, never delivered, and the API knows nothing of it",
                Some(_) => "acknowledged and never delivered, although the API says so",
            };
            let violation = Violation::new(Rule::C1, what).of(&ack.id);
            found.push(violation.at(&endpoint.name).seen(ack.line));
        }
    }
}

/// C2: everything that arrived was asked for, under one id, and for this endpoint.
pub(super) fn no_forgery(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let mut unknown: HashMap<&str, &str> = HashMap::new();
    for (line, delivery) in &facts.history.deliveries {
        let mut complain = |what: &str| {
            let violation = Violation::new(Rule::C2, what).of(&delivery.id);
            found.push(violation.at(&delivery.endpoint).seen(*line));
        };
        if let Some((request, ack)) = facts.by_message.get(delivery.id.as_str()) {
            let endpoint = facts.by_name.get(delivery.endpoint.as_str());
            if endpoint.is_none_or(|endpoint| !ack.targets.contains(&endpoint.id)) {
                complain("arrived at an endpoint that its acknowledgement does not name");
            } else if endpoint.is_some_and(|endpoint| endpoint.app != request.app) {
                complain("arrived at an endpoint of another application");
            }
            continue;
        }
        let Some(request) = facts.by_hash.get(delivery.hash.as_str()) else {
            if !facts.history.known_earlier(&delivery.id, &delivery.hash) {
                complain("arrived, but nobody sent it");
            }
            continue;
        };
        if request.refused {
            complain("arrived although the request was refused");
        } else if request.acknowledged.is_some() {
            complain("the body of another message, which was acknowledged under another id");
        } else if *unknown.entry(&delivery.hash).or_insert(&delivery.id) != delivery.id {
            complain("one request became two messages");
        }
    }
    for request in &facts.history.requests {
        for (line, id) in &request.other_ids {
            let what = format!(
                "the same request under the same key was acknowledged as {} before",
                request.acknowledged.as_ref().map_or("?", |ack| &ack.id)
            );
            found.push(Violation::new(Rule::C2, what).of(id).seen(*line));
        }
    }
}

/// C3: body and content type are those that were sent.
pub(super) fn integrity(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for (line, delivery) in &facts.history.deliveries {
        let mut complain = |what: String| {
            let violation = Violation::new(Rule::C3, what).of(&delivery.id);
            found.push(violation.at(&delivery.endpoint).seen(*line));
        };
        if let Some((request, _)) = facts.by_message.get(delivery.id.as_str())
            && request.hash != delivery.hash
        {
            complain(format!(
                "the body has hash {}, sent was {}",
                delivery.hash, request.hash
            ));
        }
        if delivery.content_type != CONTENT_TYPE {
            complain(format!("the content type is `{}`", delivery.content_type));
        }
    }
}

/// C4: the signature fits, and its timestamp is this attempt's.
pub(super) fn authenticity(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let clock: Vec<(u64, i64)> = facts
        .history
        .faults
        .iter()
        .filter(|(_, fault)| fault.kind == FaultKind::Clock)
        .map(|(_, fault)| (fault.at, fault.value))
        .collect();
    for (line, delivery) in &facts.history.deliveries {
        let mut complain = |what: String| {
            let violation = Violation::new(Rule::C4, what).of(&delivery.id);
            found.push(violation.at(&delivery.endpoint).seen(*line));
        };
        if let Some(why) = &delivery.bad_signature {
            complain(format!("the signature does not verify: {why}"));
        }
        let now = i64::try_from(delivery.start).unwrap_or(i64::MAX);
        let age = now - delivery.timestamp.saturating_mul(1_000_000);
        // Whole seconds, rounded down.
        let is_fresh = |off: i64| (-FRESH..=FRESH + 1_000_000).contains(&(age + off * 1_000_000));
        if !offsets(&clock, delivery.start).any(is_fresh) {
            complain(format!(
                "webhook-timestamp is {:.1} s old on arrival",
                age as f64 / 1e6
            ));
        }
    }
}

/// How far off the gateway's clock may have been, in seconds.
fn offsets(clock: &[(u64, i64)], now: u64) -> impl Iterator<Item = i64> {
    let from = now.saturating_sub(CLOCK_LAG);
    let first = clock.partition_point(|(at, _)| *at <= from);
    let last = clock.partition_point(|(at, _)| *at <= now);
    let before = first
        .checked_sub(1)
        .and_then(|index| clock.get(index))
        .map_or(0, |(_, off)| *off);
    let within = clock.get(first..last).unwrap_or_default();
    std::iter::once(before).chain(within.iter().map(|(_, off)| *off))
}
