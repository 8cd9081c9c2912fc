//! C9 to C11: what is true of the trial as a whole.

use super::facts::Facts;
use super::{Rule, Violation};
use crate::oracle::history::{FaultKind, State};

/// C9: the API lists each acknowledged pair in exactly one state, and that state is what the
/// receiver saw.
pub(super) fn agreement(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    if facts.history.rules.without_states {
        return;
    }
    if !facts.history.dumped {
        found.push(Violation::new(
            Rule::C9,
            "the API was never asked for its states",
        ));
        return;
    }
    for (ack, _, endpoint) in facts.pairs() {
        let Some(endpoint) = endpoint else {
            continue; // C1 complains
        };
        let name = endpoint.name.as_str();
        let states = facts.states.get(&(name, ack.id.as_str()));
        let mut complain = |line, what: String| {
            found.push(
                Violation::new(Rule::C9, what)
                    .of(&ack.id)
                    .at(name)
                    .seen(line),
            );
        };
        let Some([(line, state)]) = states.map(Vec::as_slice) else {
            let count = states.map_or(0, Vec::len);
            complain(ack.line, format!("the API lists it {count} times"));
            continue;
        };
        let attempts = facts.attempts(name, &ack.id);
        let mut successes = attempts.iter().filter(|(_, one)| one.is_success());
        if *state == State::Delivered {
            if successes.next().is_none() {
                complain(
                    *line,
                    "delivered by the API, but no 2xx was sent".to_owned(),
                );
            }
        } else if successes.any(|(_, one)| !facts.is_ambiguous(one)) {
            complain(*line, format!("{state:?} by the API, but a 2xx was sent"));
        }
    }
}

/// C10: once the faults are over a new message arrives soon, and the backlog comes to its end.
pub(super) fn liveness(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let rules = &facts.history.rules;
    let is_calm = |kind| kind == FaultKind::Calm;
    let mut faults = facts.history.faults.iter().rev();
    let calm = faults.find(|(_, fault)| is_calm(fault.kind));
    let calm = calm.map_or(u64::MAX, |(_, fault)| fault.at);
    let mut probes = 0;
    for (request, ack) in facts.history.acknowledged() {
        if !request.probe || request.first_call < calm {
            continue;
        }
        probes += 1;
        for target in &ack.targets {
            let endpoint = facts.by_endpoint_id.get(target.as_str());
            let Some(endpoint) = endpoint.filter(|endpoint| endpoint.well) else {
                continue;
            };
            let rest = facts.longest_rest(&endpoint.name, ack.at);
            let by = ack.at + rules.probe_ms * 1000 + rest;
            let mut attempts = facts.attempts(&endpoint.name, &ack.id).iter();
            if !attempts.any(|(_, one)| one.is_success() && one.end <= by) {
                let within = rules.probe_ms + rest / 1000;
                let what = format!("a probe did not arrive within {within} ms");
                let violation = Violation::new(Rule::C10, what).of(&ack.id);
                found.push(violation.at(&endpoint.name).seen(ack.line));
            }
        }
    }
    if probes < rules.probes {
        let what = format!(
            "{probes} probes were accepted after the last fault, at least {}",
            rules.probes
        );
        found.push(Violation::new(Rule::C10, what));
    }
    for (ack, _, endpoint) in facts.pairs() {
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.drains) else {
            continue;
        };
        let states = facts.states.get(&(endpoint.name.as_str(), ack.id.as_str()));
        for (line, state) in states.into_iter().flatten() {
            if !state.is_final() {
                let what = format!("still {state:?} at the end: the backlog did not drain");
                let violation = Violation::new(Rule::C10, what).of(&ack.id);
                found.push(violation.at(&endpoint.name).seen(*line));
            }
        }
    }
}

/// C11: the trial did what it was meant to do.
pub(super) fn non_vacuity(facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let history = facts.history;
    let least = &history.rules.at_least;
    let mut want = |what: &str, seen: u64, wanted: u64| {
        if seen < wanted {
            let what = format!("{what}: {seen}, at least {wanted} to prove anything");
            found.push(Violation::new(Rule::C11, what));
        }
    };
    let acknowledged = history.acknowledged().count() as u64;
    want("acknowledged messages", acknowledged, least.acknowledged);
    let busy = history
        .faults
        .iter()
        .filter(|(_, fault)| fault.kind.is_death() && fault.unanswered + fault.open > 0);
    want(
        "deaths with work under way",
        busy.count() as u64,
        least.busy_deaths,
    );
    want("duplicates", facts.duplicates(), least.duplicates);
    let failed = history.deliveries.len() as u64 - facts.successes();
    want("failed attempts", failed, least.failed_attempts);
    want("requests shed", history.shed, least.shed);
    want("events taken again", history.replays, least.replays);
    for (kind, wanted) in &least.faults {
        let faults = history.faults.iter();
        let seen = faults.filter(|(_, fault)| fault.kind == *kind).count() as u64;
        want(&format!("faults of kind {kind:?}"), seen, *wanted);
    }
}
