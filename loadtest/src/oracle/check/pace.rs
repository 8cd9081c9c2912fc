//! C5 to C8: what is true of deliveries in time.

use std::collections::HashMap;

use super::facts::Facts;
use super::{Rule, Violation};
use crate::oracle::history::{Delivery, State};
use crate::oracle::journal::Line;

/// The end of an attempt that the gateway gave up is seen here a little after its next one.
const LOOSE_END: u64 = 250_000;
/// Rounding of times to milliseconds on both sides.
const ROUNDING: u64 = 5_000;

/// C5: attempts under way never exceed the limit. An attempt of a process that is gone counts until
/// its death.
pub(super) fn concurrency(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let mut by_endpoint: HashMap<&str, Vec<(u64, bool, usize)>> = HashMap::new();
    for (index, (_, delivery)) in facts.history.deliveries.iter().enumerate() {
        let mut end = delivery.end;
        if delivery.status.is_none() {
            end = end.saturating_sub(LOOSE_END);
        }
        let end = end
            .min(facts.gone_after(delivery.start))
            .max(delivery.start);
        if end == delivery.start {
            continue; // of no length
        }
        let edges = by_endpoint.entry(delivery.endpoint.as_str()).or_default();
        edges.push((delivery.start, true, index));
        edges.push((end, false, index));
    }
    for (name, mut edges) in by_endpoint {
        let Some(endpoint) = facts.by_name.get(name) else {
            continue; // C2 complains
        };
        // At the same instant ends come first.
        edges.sort_unstable();
        let mut open = 0_u32;
        for (_, is_start, index) in edges {
            if !is_start {
                open = open.saturating_sub(1);
                continue;
            }
            open += 1;
            if open > endpoint.limit
                && let Some((line, delivery)) = facts.history.deliveries.get(index)
            {
                let what = format!("{open} attempts at a time, at most {}", endpoint.limit);
                let violation = Violation::new(Rule::C5, what).of(&delivery.id);
                found.push(violation.at(name).seen(*line));
            }
        }
    }
}

/// C6: at an endpoint with order, a message whose call began after another was acknowledged is not
/// tried before that other is delivered or dead.
pub(super) fn order(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for endpoint in facts.history.endpoints.iter().filter(|one| one.ordered) {
        let name = endpoint.name.as_str();
        let mut messages = Vec::new();
        for (request, ack) in facts.history.acknowledged() {
            if ack.targets.contains(&endpoint.id) {
                let attempts = facts.attempts(name, &ack.id);
                let first = attempts.first().map(|(line, one)| (*line, one.start));
                let done = finished(facts, name, &ack.id);
                messages.push((request.first_call, ack, first, done));
            }
        }
        let mut by_ack: Vec<_> = messages
            .iter()
            .map(|(_, ack, _, done)| (ack.at, *done, ack.id.as_str()))
            .collect();
        by_ack.sort_unstable();
        messages.sort_by_key(|(begun, ..)| *begun);
        // The latest end among all that were acknowledged before this call began.
        let mut before = by_ack.into_iter().peekable();
        let mut latest = (0, "");
        for (begun, ack, first, _) in messages {
            while let Some((_, done, id)) = before.next_if(|(at, ..)| *at < begun) {
                latest = latest.max((done, id));
            }
            if let Some((line, start)) = first
                && start < latest.0
            {
                let what = format!("tried before {}, which comes first, was done", latest.1);
                found.push(
                    Violation::new(Rule::C6, what)
                        .of(&ack.id)
                        .at(name)
                        .seen(line),
                );
            }
        }
    }
}

/// When a delivery came to its end: first 2xx, or the last attempt of a dead or cancelled one.
fn finished(facts: &Facts<'_>, name: &str, id: &str) -> u64 {
    let attempts = facts.attempts(name, id);
    if let Some((_, one)) = attempts.iter().find(|(_, one)| one.is_success()) {
        return one.end;
    }
    let states = facts.states.get(&(name, id));
    let is_over = states.is_some_and(|all| {
        let mut all = all.iter();
        all.any(|(_, state)| matches!(state, State::Dead | State::Cancelled))
    });
    match attempts.last() {
        Some((_, last)) if is_over => last.end.saturating_sub(LOOSE_END),
        None if is_over => 0,
        _ => u64::MAX,
    }
}

/// C7: 2xx beyond the first are at most as many as ambiguous attempts of the pair.
pub(super) fn bounded_duplicates(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for ((endpoint, id), attempts) in &facts.attempts {
        let successes: Vec<_> = attempts
            .iter()
            .filter(|(_, one)| one.is_success())
            .collect();
        let Some(extra) = successes.len().checked_sub(1).filter(|extra| *extra > 0) else {
            continue;
        };
        let ambiguous = attempts
            .iter()
            .filter(|(_, one)| facts.is_ambiguous(one))
            .count();
        if extra > ambiguous
            && let Some((line, _)) = successes.last()
        {
            let what = format!("{extra} further 2xx, but {ambiguous} ambiguous attempts");
            found.push(
                Violation::new(Rule::C7, what)
                    .of(id)
                    .at(endpoint)
                    .seen(*line),
            );
        }
    }
}

/// A connection that broke this early may be dialled once more within the same attempt.
const BROKE_EARLY: u64 = 1_000_000;
/// The second dial follows at once; the rest is for a busy machine.
const REDIAL: u64 = 600_000;

/// Requests put together to attempts: of two dials of one attempt the second stands for both.
fn dialled<'a>(requests: &[&'a (Line, Delivery)]) -> Vec<&'a (Line, Delivery)> {
    let mut attempts: Vec<&(Line, Delivery)> = Vec::with_capacity(requests.len());
    let mut is_second = false;
    for request in requests {
        let broke = attempts.last().is_some_and(|(_, before)| {
            before.status.is_none()
                && before.end - before.start < BROKE_EARLY
                && request.1.start.saturating_sub(before.end) < REDIAL
        });
        is_second = broke && !is_second;
        if is_second {
            attempts.pop();
        }
        attempts.push(request);
    }
    attempts
}

/// C8: an attempt is made no earlier than schedule and `Retry-After` allow, and none after the last.
pub(super) fn schedule(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    for ((name, id), requests) in &facts.attempts {
        let Some(endpoint) = facts.by_name.get(name) else {
            continue; // C2 complains
        };
        let attempts = dialled(requests);
        let mut complain = |line, what: String| {
            found.push(Violation::new(Rule::C8, what).of(id).at(name).seen(line));
        };
        let noted = |one: &&&(_, Delivery)| !one.1.is_success() && !facts.forgot(&one.1);
        let failures = attempts.iter().filter(noted).count();
        if failures > endpoint.schedule_ms.len() + 1
            && let Some((line, _)) = attempts.last()
        {
            let allowed = endpoint.schedule_ms.len() + 1;
            complain(
                *line,
                format!("{failures} failed attempts, at most {allowed}"),
            );
        }
        for (index, two) in attempts.windows(2).enumerate() {
            let [(_, before), (line, after)] = two else {
                continue;
            };
            if before.is_success()
                || facts.forgot(before)
                || facts.clock_moved(before.start, after.start)
            {
                continue;
            }
            let first = attempts.first().map_or(0, |(_, one)| one.start);
            let least = wait(facts, &endpoint.schedule_ms, index, (first, before));
            let gap = after.start.saturating_sub(before.end);
            let slack = ROUNDING
                + if before.status.is_none() {
                    LOOSE_END
                } else {
                    0
                };
            if gap + slack < least {
                let what = format!(
                    "tried again after {} ms, not before {} ms",
                    gap / 1000,
                    least / 1000
                );
                complain(*line, what);
            }
        }
    }
}

/// The least wait in microseconds after the attempt with this index. If the gateway died since the
/// first attempt it may have forgotten some, and count from further ahead in its schedule.
fn wait(
    facts: &Facts<'_>,
    schedule: &[u64],
    index: usize,
    (first, before): (u64, &Delivery),
) -> u64 {
    let planned = if facts.died(first, before.start) {
        schedule.iter().take(index + 1).min()
    } else {
        schedule.get(index)
    };
    let planned = planned.copied().unwrap_or(0) * 1000;
    let least = planned as f64 * (1.0 - facts.history.rules.jitter);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "microseconds of at most days"
    )]
    let least = least as u64;
    least.max(before.retry_after.unwrap_or(0) * 1_000_000)
}
