//! Histories that break one rule each, to prove that the checker can fail.
//!
//! [`honest`] is a small history with everything in it that a real one has: retries, a dead
//! delivery, `Retry-After`, a kill with a duplicate, requests of unknown fate, a refusal, overload, a
//! probe, a provider's events of which one is sent again. Each of [`DOCTORED`] changes it in one
//! place, and the checker must complain under the named rule and no other than those listed beside it.
//! They go through the files on disk, as real histories do.

use std::collections::BTreeSet;
use std::path::Path;

use super::check::{Rule, judge_dir};
use super::history::{Call, Delivery, FaultKind, Outcome, Raw, State, StateEntry, Term};
use super::honest::{acknowledged, begin, delivery, end, honest, ms};

/// One way to tamper.
pub(crate) struct Doctored {
    pub(crate) name: &'static str,
    /// Must be among the complaints.
    pub(crate) rule: Rule,
    /// May be among them, for the same change breaks these too.
    pub(crate) also: &'static [Rule],
    change: fn(&mut Raw),
}

impl Doctored {
    const fn new(name: &'static str, rule: Rule, change: fn(&mut Raw)) -> Self {
        Self {
            name,
            rule,
            also: &[],
            change,
        }
    }

    const fn also(mut self, rules: &'static [Rule]) -> Self {
        self.also = rules;
        self
    }
}

/// At least one for each rule.
pub(crate) const DOCTORED: &[Doctored] = &[
    Doctored::new("an acknowledged message never arrives", Rule::C1, |raw| {
        raw.deliveries
            .retain(|one| one.id != "msg_0" || one.endpoint != "well");
        raw.states
            .retain(|one| !is_state_of(one, "msg_0") || !is_state_at(one, "well"));
    })
    .also(&[Rule::C9]),
    Doctored::new(
        "a message never arrives, although the API says so",
        Rule::C1,
        |raw| {
            raw.deliveries
                .retain(|one| one.id != "msg_7" || one.endpoint != "well");
        },
    )
    .also(&[Rule::C9]),
    Doctored::new("an endpoint nobody made is named", Rule::C1, |raw| {
        with_ack(raw, "msg_0", |_, targets| {
            targets.push("ep_none".to_owned())
        });
    }),
    Doctored::new("a message nobody sent arrives", Rule::C2, |raw| {
        let mut forged = delivery(6500, 6505, "well", 0, Some(204));
        "msg_forged".clone_into(&mut forged.id);
        "hash_forged".clone_into(&mut forged.hash);
        raw.deliveries.push(forged);
    }),
    Doctored::new("a refused request arrives", Rule::C2, |raw| {
        raw.deliveries
            .push(delivery(6500, 6505, "well", 5, Some(204)));
    }),
    Doctored::new("one request becomes two messages", Rule::C2, |raw| {
        let mut twin = delivery(6500, 6505, "well", 3, Some(204));
        "msg_twin".clone_into(&mut twin.id);
        raw.deliveries.push(twin);
    }),
    Doctored::new("a repeated request gets another id", Rule::C2, |raw| {
        let outcome = acknowledged(70, &["ep_well", "ep_fifo"]);
        raw.calls.push(begin(6600, 70, 7, "a", false));
        raw.calls.push(end(6610, 70, outcome));
    }),
    Doctored::new(
        "a message goes to an endpoint that is no target",
        Rule::C2,
        |raw| {
            raw.deliveries
                .push(delivery(6500, 6505, "dead", 0, Some(204)));
        },
    ),
    Doctored::new(
        "an endpoint of another application gets it",
        Rule::C2,
        |raw| {
            with_ack(raw, "msg_0", |_, targets| {
                targets.push("ep_dead".to_owned())
            });
            raw.deliveries
                .push(delivery(6500, 6505, "dead", 0, Some(204)));
            raw.states.push(StateEntry::State {
                endpoint: "dead".to_owned(),
                id: "msg_0".to_owned(),
                state: State::Delivered,
            });
        },
    ),
    Doctored::new("two bodies are swapped", Rule::C3, |raw| {
        for (id, hash) in [("msg_0", "hash_1"), ("msg_1", "hash_0")] {
            for one in raw.deliveries.iter_mut().filter(|one| one.id == id) {
                hash.clone_into(&mut one.hash);
            }
        }
    }),
    Doctored::new("the content type is another", Rule::C3, |raw| {
        with_delivery(raw, |one| "text/plain".clone_into(&mut one.content_type));
    }),
    Doctored::new("a signature does not fit", Rule::C4, |raw| {
        with_delivery(raw, |one| {
            one.bad_signature = Some("no signature fits".to_owned())
        });
    }),
    Doctored::new("a signature is stale", Rule::C4, |raw| {
        with_delivery(raw, |one| one.timestamp -= 60);
    }),
    Doctored::new("more attempts at a time than allowed", Rule::C5, |raw| {
        for one in raw
            .deliveries
            .iter_mut()
            .filter(|one| one.endpoint == "well")
        {
            match one.id.as_str() {
                "msg_3" | "msg_7" | "msg_8" => (one.start, one.end) = (ms(5880), ms(5890)),
                _ => {}
            }
        }
    }),
    Doctored::new(
        "the second is tried before the first is done",
        Rule::C6,
        |raw| {
            for one in raw
                .deliveries
                .iter_mut()
                .filter(|one| one.endpoint == "fifo")
            {
                if one.id == "msg_0" {
                    (one.start, one.end) = (ms(75), ms(80));
                }
            }
        },
    ),
    Doctored::new(
        "a duplicate without an ambiguous attempt",
        Rule::C7,
        |raw| {
            raw.deliveries
                .push(delivery(6500, 6505, "well", 6, Some(204)));
        },
    ),
    Doctored::new(
        "a duplicate long after the gateway stood still",
        Rule::C7,
        |raw| {
            for fault in &mut raw.faults {
                if fault.kind == FaultKind::Continue {
                    fault.at = ms(800);
                }
            }
        },
    ),
    Doctored::new("more duplicates than ambiguous attempts", Rule::C7, |raw| {
        raw.deliveries
            .push(delivery(6500, 6505, "well", 4, Some(204)));
        raw.deliveries
            .push(delivery(6600, 6605, "well", 4, Some(204)));
    }),
    Doctored::new("a retry comes too early", Rule::C8, |raw| {
        for one in &mut raw.deliveries {
            if one.id == "msg_1" && one.start == ms(1100) {
                (one.start, one.end) = (ms(300), ms(305));
            }
        }
    }),
    Doctored::new(
        "a broken connection is dialled a third time",
        Rule::C8,
        |raw| {
            for one in &mut raw.deliveries {
                if one.id == "msg_2" && one.start == ms(86) {
                    one.status = None;
                }
            }
            raw.deliveries.push(delivery(92, 95, "dead", 2, Some(500)));
        },
    ),
    Doctored::new("Retry-After is not heeded", Rule::C8, |raw| {
        for one in &mut raw.deliveries {
            if one.id == "msg_2" && one.start == ms(4200) {
                (one.start, one.end) = (ms(3200), ms(3205));
            }
        }
    }),
    Doctored::new("one attempt more than the schedule has", Rule::C8, |raw| {
        raw.deliveries
            .push(delivery(9500, 9505, "dead", 2, Some(500)));
    }),
    Doctored::new("the API says dead, the receiver took it", Rule::C9, |raw| {
        for entry in &mut raw.states {
            if is_state_of(entry, "msg_0")
                && let StateEntry::State { state, .. } = entry
            {
                *state = State::Dead;
            }
        }
    }),
    Doctored::new(
        "the API says delivered, the receiver took nothing",
        Rule::C9,
        |raw| {
            for entry in &mut raw.states {
                if is_state_of(entry, "msg_2")
                    && let StateEntry::State { state, .. } = entry
                {
                    *state = State::Delivered;
                }
            }
        },
    )
    .also(&[Rule::C1]),
    Doctored::new("the API lists a delivery twice", Rule::C9, |raw| {
        let twice = raw
            .states
            .iter()
            .find(|one| is_state_of(one, "msg_1"))
            .cloned();
        raw.states.extend(twice);
    }),
    Doctored::new("the API was never asked", Rule::C9, |raw| {
        raw.states.clear()
    })
    .also(&[Rule::C1]),
    Doctored::new("a probe arrives too late", Rule::C10, |raw| {
        for one in &mut raw.deliveries {
            if one.id == "msg_6" && one.endpoint == "well" {
                (one.start, one.end) = (ms(17_000), ms(17_005));
                one.timestamp += 11;
            }
        }
    }),
    Doctored::new("no probe was sent after the faults", Rule::C10, |raw| {
        for call in &mut raw.calls {
            if let Call::Begin { probe, .. } = call {
                *probe = false;
            }
        }
    }),
    Doctored::new("the backlog does not drain", Rule::C10, |raw| {
        for entry in &mut raw.states {
            if is_state_of(entry, "msg_2")
                && let StateEntry::State { state, .. } = entry
            {
                *state = State::Pending;
            }
        }
    }),
    Doctored::new("the kill hit an idle gateway", Rule::C11, |raw| {
        for fault in &mut raw.faults {
            (fault.unanswered, fault.open) = (0, 0);
        }
    }),
    Doctored::new("hardly anything was sent", Rule::C11, |raw| {
        for term in &mut raw.terms {
            if let Term::Rules(rules) = term {
                rules.at_least.acknowledged = 1000;
            }
        }
    }),
    Doctored::new("the fault never happened", Rule::C11, |raw| {
        for term in &mut raw.terms {
            if let Term::Rules(rules) = term {
                rules.at_least.faults.insert(FaultKind::SlowDisk, 1);
            }
        }
    }),
    Doctored::new("nothing was shed", Rule::C11, |raw| {
        for call in &mut raw.calls {
            if let Call::End {
                outcome: Outcome::Unknown { why },
                ..
            } = call
            {
                "reset".clone_into(why);
            }
        }
    }),
    Doctored::new(
        "an event that a source took never arrives",
        Rule::C1,
        |raw| {
            raw.deliveries.retain(|one| one.id != "msg_20");
            raw.states.retain(|one| !is_state_of(one, "msg_20"));
        },
    )
    .also(&[Rule::C9]),
    Doctored::new("an event goes to one endpoint of two", Rule::C1, |raw| {
        raw.deliveries
            .retain(|one| one.id != "msg_21" || one.endpoint != "archive");
        raw.states
            .retain(|one| !is_state_of(one, "msg_21") || !is_state_at(one, "archive"));
    })
    .also(&[Rule::C9]),
    Doctored::new(
        "an event that is sent again becomes a second message",
        Rule::C2,
        |raw| {
            let mut twin = delivery(6500, 6505, "inbox", 20, Some(204));
            "msg_twin".clone_into(&mut twin.id);
            raw.deliveries.push(twin);
        },
    ),
    Doctored::new("no event was sent again", Rule::C11, |raw| {
        let again = |one: &Call| {
            matches!(
                one,
                Call::Begin { call: 21, .. } | Call::End { call: 21, .. }
            )
        };
        raw.calls.retain(|one| !again(one));
    }),
];

/// What is wrong with the checker; empty if nothing is. `dir` is filled with histories.
pub(crate) fn self_test(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let complaints = |name: &str, raw: &Raw| -> anyhow::Result<Vec<_>> {
        let dir = dir.join(name.replace(' ', "-"));
        raw.write(&dir)?;
        Ok(judge_dir(&dir)?.violations)
    };
    let honest = honest();
    for violation in complaints("honest", &honest)? {
        wrong.push(format!("the honest history was rejected: {violation}"));
    }
    for doctored in DOCTORED {
        let mut raw = honest.clone();
        (doctored.change)(&mut raw);
        let found = complaints(doctored.name, &raw)?;
        let rules: BTreeSet<Rule> = found.iter().map(|one| one.rule).collect();
        let expected = |rule: &Rule| *rule == doctored.rule || doctored.also.contains(rule);
        if !rules.contains(&doctored.rule) || !rules.iter().all(expected) {
            wrong.push(format!(
                "`{}` must be rejected by {:?}, was by {rules:?}: {found:?}",
                doctored.name, doctored.rule
            ));
        }
    }
    for rule in Rule::ALL {
        if !DOCTORED.iter().any(|doctored| doctored.rule == rule) {
            wrong.push(format!("no doctored history for {rule:?}"));
        }
    }
    Ok(wrong)
}

fn is_state_of(entry: &StateEntry, message: &str) -> bool {
    matches!(entry, StateEntry::State { id, .. } if id == message)
}

fn is_state_at(entry: &StateEntry, name: &str) -> bool {
    matches!(entry, StateEntry::State { endpoint, .. } if endpoint == name)
}

fn with_delivery(raw: &mut Raw, change: fn(&mut Delivery)) {
    raw.deliveries.iter_mut().take(1).for_each(change);
}

fn with_ack(raw: &mut Raw, message: &str, change: fn(&mut String, &mut Vec<String>)) {
    for call in &mut raw.calls {
        if let Call::End {
            outcome: Outcome::Acknowledged { id, targets },
            ..
        } = call
            && id == message
        {
            change(id, targets);
        }
    }
}
