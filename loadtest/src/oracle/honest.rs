//! A history that breaks no rule, made up of everything that a real one has; [`doctored`](super::doctored)
//! changes it in one place each.

use super::history::{
    AtLeast, Call, Delivery, EndpointTerms, Fault, FaultKind, Outcome, Raw, RuleTerms, State,
    StateEntry, Term,
};

/// Times in the honest history are milliseconds after this.
const BEGIN: u64 = 1_767_600_000_000_000;

pub(super) const fn ms(at: u64) -> u64 {
    BEGIN + at * 1000
}

/// A history that breaks no rule.
pub(crate) fn honest() -> Raw {
    let (both, dead) = (&["ep_well", "ep_fifo"][..], &["ep_dead"][..]);
    let unknown = |why: &str| Outcome::Unknown {
        why: why.to_owned(),
    };
    Raw {
        terms: terms(),
        calls: vec![
            begin(0, 0, 0, "a", false),
            end(10, 0, acknowledged(0, both)),
            begin(40, 1, 1, "a", false),
            end(50, 1, acknowledged(1, both)),
            begin(60, 2, 2, "b", false),
            end(70, 2, acknowledged(2, dead)),
            begin(100, 20, 20, "c", false),
            end(110, 20, Outcome::Taken),
            begin(300, 21, 20, "c", false),
            end(310, 21, Outcome::Taken),
            begin(4900, 4, 4, "a", false),
            end(4910, 4, acknowledged(4, both)),
            begin(4950, 6, 7, "a", false),
            begin(4980, 11, 9, "a", false),
            end(4995, 11, acknowledged(9, both)),
            begin(4998, 22, 21, "c", false),
            begin(5000, 3, 3, "a", false),
            end(5006, 3, unknown("reset")),
            end(5007, 6, unknown("reset")),
            end(5007, 22, unknown("reset")),
            begin(5450, 7, 7, "a", false),
            end(5460, 7, acknowledged(7, both)),
            begin(5500, 23, 21, "c", false),
            end(5510, 23, Outcome::Taken),
            begin(5700, 5, 5, "a", false),
            end(5710, 5, Outcome::Refused { status: 422 }),
            begin(5800, 8, 8, "a", false),
            end(5810, 8, unknown("503: overloaded")),
            begin(5850, 9, 8, "a", false),
            end(5860, 9, acknowledged(8, both)),
            begin(6010, 10, 6, "a", true),
            end(6020, 10, acknowledged(6, both)),
        ],
        deliveries: deliveries(),
        faults: vec![
            fault(600, FaultKind::Stop, 0, 0),
            fault(1090, FaultKind::Continue, 0, 0),
            fault(5005, FaultKind::Kill, 2, 1),
            fault(5300, FaultKind::Launch, 0, 0),
            fault(5400, FaultKind::Restart, 0, 0),
            fault(6000, FaultKind::Calm, 0, 0),
        ],
        states: states(),
    }
}

fn terms() -> Vec<Term> {
    let endpoint = |name: &str, app: &str, limit, well| {
        Term::Endpoint(EndpointTerms {
            name: name.to_owned(),
            id: format!("ep_{name}"),
            app: app.to_owned(),
            limit,
            ordered: name == "fifo",
            schedule_ms: vec![1000, 2000],
            drains: true,
            well,
        })
    };
    vec![
        Term::Rules(RuleTerms {
            timeout_ms: 2000,
            jitter: 0.2,
            settle_ms: 500,
            probe_ms: 10_000,
            probes: 1,
            at_least: AtLeast {
                acknowledged: 9,
                busy_deaths: 1,
                duplicates: 1,
                failed_attempts: 5,
                shed: 1,
                replays: 1,
                faults: [(FaultKind::Kill, 1)].into(),
            },
            without_states: false,
        }),
        endpoint("well", "a", 2, true),
        endpoint("fifo", "a", 1, true),
        endpoint("dead", "b", 2, false),
        endpoint("inbox", "c", 2, true),
        endpoint("archive", "c", 2, true),
    ]
}

fn deliveries() -> Vec<Delivery> {
    let mut all = vec![
        delivery(20, 25, "well", 0, Some(204)),
        delivery(20, 30, "fifo", 0, Some(204)),
        delivery(60, 65, "well", 1, Some(500)),
        delivery(60, 70, "fifo", 1, Some(204)),
        // Two dials of one attempt.
        delivery(80, 85, "dead", 2, None),
        delivery(86, 90, "dead", 2, Some(500)),
        delivery(120, 125, "inbox", 20, Some(204)),
        delivery(120, 125, "archive", 20, Some(204)),
        delivery(1100, 1105, "well", 1, Some(204)),
        delivery(1100, 1105, "dead", 2, Some(429)),
        // It had been begun when the gateway was stopped, and its time was over when it went on.
        delivery(3200, 3205, "well", 1, Some(204)),
        delivery(4200, 4205, "dead", 2, Some(500)),
        // The answer came so late that the killed gateway did not note it: a duplicate follows.
        delivery(4920, 5000, "well", 4, Some(204)),
        delivery(4990, 5006, "fifo", 4, None),
        // Sent before the kill, it waited in a socket: the gateway was gone when it was answered.
        delivery(5010, 5012, "well", 9, Some(204)),
        delivery(5500, 5505, "well", 4, Some(204)),
        delivery(5500, 5510, "fifo", 4, Some(204)),
        delivery(5520, 5530, "well", 7, Some(204)),
        delivery(5520, 5530, "fifo", 7, Some(204)),
        delivery(5540, 5545, "well", 9, Some(204)),
        delivery(5540, 5550, "fifo", 9, Some(204)),
        // Its provider had no answer, and sent it again.
        delivery(5480, 5490, "inbox", 21, Some(204)),
        delivery(5480, 5490, "archive", 21, Some(204)),
        // Its producer never learnt that it was accepted.
        delivery(5600, 5605, "well", 3, Some(204)),
        delivery(5600, 5605, "fifo", 3, Some(204)),
        delivery(5870, 5875, "well", 8, Some(204)),
        delivery(5870, 5875, "fifo", 8, Some(204)),
        delivery(6030, 6035, "well", 6, Some(204)),
        delivery(6030, 6040, "fifo", 6, Some(204)),
    ];
    for one in all.iter_mut().filter(|one| one.status == Some(429)) {
        one.retry_after = Some(3);
    }
    all
}

fn states() -> Vec<StateEntry> {
    let mut states = vec![StateEntry::Dump { at: ms(20_000) }];
    for message in [0, 1, 3, 4, 6, 7, 8, 9] {
        for endpoint in ["well", "fifo"] {
            states.push(StateEntry::State {
                endpoint: endpoint.to_owned(),
                id: format!("msg_{message}"),
                state: State::Delivered,
            });
        }
    }
    for message in [20, 21] {
        for endpoint in ["inbox", "archive"] {
            states.push(StateEntry::State {
                endpoint: endpoint.to_owned(),
                id: format!("msg_{message}"),
                state: State::Delivered,
            });
        }
    }
    states.push(StateEntry::State {
        endpoint: "dead".to_owned(),
        id: "msg_2".to_owned(),
        state: State::Dead,
    });
    states
}

pub(super) fn begin(at: u64, call: u64, request: u64, app: &str, probe: bool) -> Call {
    Call::Begin {
        at: ms(at),
        call,
        request,
        app: app.to_owned(),
        hash: format!("hash_{request}"),
        key: Some(format!("key_{request}")),
        probe,
    }
}

pub(super) fn end(at: u64, call: u64, outcome: Outcome) -> Call {
    Call::End {
        at: ms(at),
        call,
        outcome,
    }
}

pub(super) fn acknowledged(message: u64, targets: &[&str]) -> Outcome {
    Outcome::Acknowledged {
        id: format!("msg_{message}"),
        targets: targets.iter().map(|one| (*one).to_owned()).collect(),
    }
}

pub(super) fn delivery(
    start: u64,
    end: u64,
    endpoint: &str,
    message: u64,
    status: Option<u16>,
) -> Delivery {
    Delivery {
        start: ms(start),
        end: ms(end),
        endpoint: endpoint.to_owned(),
        id: format!("msg_{message}"),
        timestamp: i64::try_from(ms(start) / 1_000_000).unwrap_or_default(),
        hash: format!("hash_{message}"),
        content_type: "application/json".to_owned(),
        bad_signature: None,
        status,
        retry_after: None,
        concurrent: 1,
    }
}

fn fault(at: u64, kind: FaultKind, unanswered: u64, open: u64) -> Fault {
    Fault {
        at: ms(at),
        kind,
        value: 0,
        note: String::new(),
        unanswered,
        open,
    }
}
