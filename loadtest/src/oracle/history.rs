//! The history of one trial, as it stands on disk and as the checker reads it.
//!
//! A history is a directory with five append-only files of JSON lines: `terms.jsonl` (what was
//! agreed: endpoints, limits, thresholds), `producer.jsonl` (calls and their ends), `receiver.jsonl`
//! (deliveries), `faults.jsonl` (what was done to the gateway) and `states.jsonl` (what its API said
//! in the end). All times are unix microseconds of one monotonic clock in the harness.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{self, Journal, Line};

pub(crate) const TERMS: &str = "terms.jsonl";
pub(crate) const PRODUCER: &str = "producer.jsonl";
pub(crate) const RECEIVER: &str = "receiver.jsonl";
pub(crate) const FAULTS: &str = "faults.jsonl";
pub(crate) const STATES: &str = "states.jsonl";

/// Something that was agreed before or during the trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "kebab-case")]
pub(crate) enum Term {
    /// An endpoint takes part.
    Endpoint(EndpointTerms),
    /// Holds for all of them; the last one counts.
    Rules(RuleTerms),
    /// Messages of an earlier history may still arrive, for the data directory is the same.
    Earlier { dir: PathBuf },
}

/// One endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointTerms {
    /// Name within the harness; the path at the receiver, unique in the history.
    pub(crate) name: String,
    /// Its id at the gateway (`ep_…`).
    pub(crate) id: String,
    /// Uid of its application.
    pub(crate) app: String,
    /// Attempts at the same time (C5).
    pub(crate) limit: u32,
    /// Whether order was asked for (C6).
    pub(crate) ordered: bool,
    /// Delays of its retry schedule in milliseconds (C8).
    pub(crate) schedule_ms: Vec<u64>,
    /// Whether every delivery must have come to its end when the trial is over (C10).
    pub(crate) drains: bool,
    /// Whether a probe must be delivered here (C10): the endpoint is well once faults are over.
    pub(crate) well: bool,
}

/// What holds for all endpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RuleTerms {
    /// `delivery.timeout` of the gateway.
    pub(crate) timeout_ms: u64,
    /// `delivery.jitter`.
    pub(crate) jitter: f64,
    /// An answer this close before the death of the gateway may not have been noted by it.
    pub(crate) settle_ms: u64,
    /// A probe must arrive within this time after its 202 (C10).
    pub(crate) probe_ms: u64,
    /// Probes that must have been sent after the last fault (C10).
    pub(crate) probes: u64,
    /// What must have happened for the trial to prove anything (C11).
    pub(crate) at_least: AtLeast,
    /// The API was not asked on purpose: C9 has nothing to compare.
    #[serde(default)]
    pub(crate) without_states: bool,
}

/// Thresholds of C11; zero asks for nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AtLeast {
    /// Acknowledged messages.
    pub(crate) acknowledged: u64,
    /// Deaths of the gateway with requests or attempts under way.
    pub(crate) busy_deaths: u64,
    /// Deliveries with more than one 2xx.
    pub(crate) duplicates: u64,
    /// Attempts that were answered with something else than 2xx, or not at all.
    pub(crate) failed_attempts: u64,
    /// Requests that the gateway refused for overload (503, 507).
    pub(crate) shed: u64,
    /// Events of a provider that were sent again, and taken again, after they had been taken.
    pub(crate) replays: u64,
    /// Faults by kind.
    pub(crate) faults: BTreeMap<FaultKind, u64>,
}

/// What a producer did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Call {
    /// Written before the first byte is sent.
    Begin {
        at: u64,
        /// Number of this call.
        call: u64,
        /// Calls with the same number repeat one request: same body, same key.
        request: u64,
        app: String,
        /// SHA-256 of the payload bytes.
        hash: String,
        key: Option<String>,
        probe: bool,
    },
    /// Written after the answer was read or the call was given up.
    End {
        at: u64,
        call: u64,
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// 202 with the id and the ids of the endpoints that want it.
    Acknowledged { id: String, targets: Vec<String> },
    /// 2xx of a source's URL, which tells no id: every endpoint of the application is owed it.
    Taken,
    /// 4xx: certainly not accepted.
    Refused { status: u16 },
    /// Anything else: 5xx, reset, time-out.
    Unknown { why: String },
}

/// What the receiver saw of one request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// When the request had arrived.
    pub(crate) start: u64,
    /// When the answer was handed over, or the connection broke.
    pub(crate) end: u64,
    /// Name of the endpoint.
    pub(crate) endpoint: String,
    /// `webhook-id`.
    pub(crate) id: String,
    /// `webhook-timestamp`, unix seconds.
    pub(crate) timestamp: i64,
    /// SHA-256 of the body.
    pub(crate) hash: String,
    pub(crate) content_type: String,
    /// Why the signature does not fit; none if it does.
    pub(crate) bad_signature: Option<String>,
    /// Status sent; none if the connection was reset, hung or cut.
    pub(crate) status: Option<u16>,
    /// `Retry-After` sent, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// Requests of this endpoint under way when this one arrived, itself included.
    pub(crate) concurrent: u32,
}

impl Delivery {
    pub(crate) fn is_success(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    /// SIGKILL, or a kill at a system call.
    Kill,
    /// The storage lost what was not synced.
    PowerCut,
    /// The gateway ended by itself with a failure (74, 70).
    Failed,
    /// SIGTERM; `Ended` follows.
    Terminate,
    /// The process is gone after SIGTERM.
    Ended,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// About to be started: what arrived since its death was sent before it.
    Launch,
    /// Ready again.
    Restart,
    /// The wall clock of the gateway was moved to `value` seconds off.
    Clock,
    /// Endpoint `note` behaves otherwise.
    Endpoint,
    /// The name server stopped answering, or answers again (`value` 0).
    Dns,
    /// Syncs are slow: `value` milliseconds.
    SlowDisk,
    /// Another fault of the disk, described by `note`.
    Disk,
    /// From here on nothing is done to the gateway any more.
    Calm,
}

impl FaultKind {
    /// Whether the gateway lost its memory.
    pub(crate) fn is_death(self) -> bool {
        matches!(self, Self::Kill | Self::PowerCut | Self::Failed)
    }
}

/// One fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) kind: FaultKind,
    #[serde(default)]
    pub(crate) value: i64,
    #[serde(default)]
    pub(crate) note: String,
    /// Requests without an answer, and attempts under way, at this moment.
    #[serde(default)]
    pub(crate) unanswered: u64,
    #[serde(default)]
    pub(crate) open: u64,
}

/// What the API said.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub(crate) enum StateEntry {
    /// A dump begins; what was said before no longer counts.
    Dump { at: u64 },
    /// One delivery; `endpoint` is the name within the harness.
    State {
        endpoint: String,
        id: String,
        state: State,
    },
}

/// State of a delivery. The API calls pending, retrying and held one: `pending`; the harness knows
/// which endpoints it has switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Pending,
    Sending,
    Held,
    Delivered,
    Dead,
    Cancelled,
}

impl State {
    /// Whether nothing will happen any more without an operator.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Sending)
    }
}

/// All calls that repeat one request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) first_call: u64,
    pub(crate) app: String,
    pub(crate) hash: String,
    pub(crate) probe: bool,
    /// First acknowledgement.
    pub(crate) acknowledged: Option<Acknowledged>,
    /// Further ids it was acknowledged under.
    pub(crate) other_ids: Vec<(Line, String)>,
    /// Acknowledgements of a source, which names no message: the first, and how many.
    taken: Option<(Line, u64)>,
    takes: u64,
    /// Whether every call was refused for certain.
    pub(crate) refused: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) line: Line,
    pub(crate) at: u64,
    /// Empty if a source took it and nothing of it ever arrived: then nobody knows its id.
    pub(crate) id: String,
    /// Ids of endpoints.
    pub(crate) targets: Vec<String>,
}

/// A history before it is written, for those that are made up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Raw {
    pub(crate) terms: Vec<Term>,
    pub(crate) calls: Vec<Call>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) states: Vec<StateEntry>,
}

impl Raw {
    /// Writes the files of a history into `dir`, which is made.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        append(dir, TERMS, &self.terms)?;
        append(dir, PRODUCER, &self.calls)?;
        append(dir, RECEIVER, &self.deliveries)?;
        append(dir, FAULTS, &self.faults)?;
        append(dir, STATES, &self.states)
    }
}

fn append<T: Serialize>(dir: &Path, name: &str, entries: &[T]) -> anyhow::Result<()> {
    let journal = Journal::open(dir, name)?;
    entries.iter().try_for_each(|entry| journal.append(entry))
}

/// A parsed history.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) rules: RuleTerms,
    pub(crate) endpoints: Vec<EndpointTerms>,
    pub(crate) earlier: Vec<PathBuf>,
    pub(crate) requests: Vec<Request>,
    pub(crate) shed: u64,
    pub(crate) replays: u64,
    pub(crate) deliveries: Vec<(Line, Delivery)>,
    pub(crate) faults: Vec<(Line, Fault)>,
    pub(crate) states: Vec<(Line, String, String, State)>,
    /// Whether a dump was taken at all.
    pub(crate) dumped: bool,
    /// Bodies of earlier histories that may still arrive, with the id where it is known.
    pub(crate) before: HashMap<String, Option<String>>,
}

impl History {
    /// Reads the directory of a history.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let mut history = Self::default();
        for (_, term) in journal::read(dir, TERMS)? {
            history.term(term);
        }
        history.calls(journal::read(dir, PRODUCER)?);
        history.deliveries = journal::read(dir, RECEIVER)?;
        history.name_taken();
        history.faults = journal::read(dir, FAULTS)?;
        for (line, entry) in journal::read(dir, STATES)? {
            match entry {
                StateEntry::Dump { .. } => {
                    history.states.clear();
                    history.dumped = true;
                }
                StateEntry::State {
                    endpoint,
                    id,
                    state,
                } => history.states.push((line, endpoint, id, state)),
            }
        }
        Ok(history)
    }

    fn term(&mut self, term: Term) {
        match term {
            Term::Endpoint(endpoint) => {
                self.endpoints.retain(|known| known.name != endpoint.name);
                self.endpoints.push(endpoint);
            }
            Term::Rules(rules) => self.rules = rules,
            Term::Earlier { dir } => self.earlier.push(dir),
        }
    }

    /// Puts calls and their ends together. A call without an end is unknown: the harness died.
    fn calls(&mut self, calls: Vec<(Line, Call)>) {
        let mut by_request: HashMap<u64, usize> = HashMap::new();
        let mut by_call: HashMap<u64, usize> = HashMap::new();
        let mut open: HashMap<usize, (u64, u64)> = HashMap::new(); // calls, refusals
        for (line, call) in calls {
            match call {
                Call::Begin {
                    at,
                    call,
                    request,
                    app,
                    hash,
                    probe,
                    ..
                } => {
                    let index = *by_request.entry(request).or_insert(self.requests.len());
                    if index == self.requests.len() {
                        self.requests.push(Request {
                            first_call: at,
                            app,
                            hash,
                            probe,
                            acknowledged: None,
                            other_ids: Vec::new(),
                            taken: None,
                            takes: 0,
                            refused: false,
                        });
                    }
                    by_call.insert(call, index);
                    open.entry(index).or_default().0 += 1;
                }
                Call::End { at, call, outcome } => {
                    let Some(&index) = by_call.get(&call) else {
                        continue;
                    };
                    if matches!(outcome, Outcome::Refused { .. }) {
                        open.entry(index).or_default().1 += 1;
                    }
                    self.end(line, at, index, outcome);
                }
            }
        }
        for (index, (calls, refusals)) in open {
            if let Some(request) = self.requests.get_mut(index) {
                request.refused = calls == refusals;
            }
        }
    }

    fn end(&mut self, line: Line, at: u64, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged { id, targets } => {
                let Some(request) = self.requests.get_mut(index) else {
                    return;
                };
                match &request.acknowledged {
                    None => {
                        request.acknowledged = Some(Acknowledged {
                            line,
                            at,
                            id,
                            targets,
                        });
                    }
                    Some(first) if first.id != id => request.other_ids.push((line, id)),
                    Some(_) => {}
                }
            }
            Outcome::Taken => {
                if let Some(request) = self.requests.get_mut(index) {
                    self.replays += u64::from(request.takes > 0);
                    request.takes += 1;
                    request.taken.get_or_insert((line, at));
                }
            }
            Outcome::Unknown { why } => {
                self.shed += u64::from(why.starts_with("503") || why.starts_with("507"));
            }
            Outcome::Refused { .. } => {}
        }
    }

    /// What a source took is owed to every endpoint of its application, under the id that its body
    /// arrived with first: the answer of a source names neither.
    fn name_taken(&mut self) {
        let mut ids: HashMap<&str, &str> = HashMap::new();
        for (_, delivery) in &self.deliveries {
            ids.entry(&delivery.hash).or_insert(&delivery.id);
        }
        for request in &mut self.requests {
            let Some((line, at)) = request.taken else {
                continue;
            };
            let endpoints = self.endpoints.iter().filter(|one| one.app == request.app);
            let id = ids.get(request.hash.as_str());
            request.acknowledged = Some(Acknowledged {
                line,
                at,
                id: id.map_or_else(String::new, |id| (*id).to_owned()),
                targets: endpoints.map(|one| one.id.clone()).collect(),
            });
        }
    }

    /// What an earlier history on the same data sent may arrive in this one.
    pub(crate) fn strangers_may_be(&mut self, earlier: &Self) {
        for request in earlier.requests.iter().filter(|request| !request.refused) {
            let id = request.acknowledged.as_ref().map(|ack| ack.id.clone());
            let id = id.filter(|id| !id.is_empty());
            self.before.insert(request.hash.clone(), id);
        }
    }

    /// Whether an earlier history explains this delivery.
    pub(crate) fn known_earlier(&self, id: &str, hash: &str) -> bool {
        let known = self.before.get(hash);
        known.is_some_and(|known| known.as_deref().is_none_or(|known| known == id))
    }

    /// Every acknowledged request with its acknowledgement.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (&Request, &Acknowledged)> {
        self.requests
            .iter()
            .filter_map(|request| Some((request, request.acknowledged.as_ref()?)))
    }
}
