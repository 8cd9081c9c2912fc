//! The test kit of the store suites: a reference and an embedded store side by side.
//!
//! Owns: a history of calls, given to both, and the comparison of everything that can be read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::base::Timestamp;
use posthaste::config::{HighWater, Retention, Storage};
use posthaste::model::{
    AppNo, Attempt, ContentType, DeadReason, Delivery, EndpointNo, EndpointState, FailureKind,
    Health, Labels, LaneId, Message, Outcome, ParkReason, Parked, ParkedKey, Position, Trigger,
    Verdict,
};
use posthaste::store::faults::{Fault, Faults};
use posthaste::store::fjall::{FjallReader, FjallWriter, Store};
use posthaste::store::model::{Crash, Model, ModelWriter};
use posthaste::store::{
    Accept, AuditPage, ConfigKind, ConfigRow, Content, Ended, Error, IdempotencyKey, Page,
    PayloadEnd, Reader, Settlement, StoredAnswer, Writer,
};
use proptest::prelude::*;

/// Applications and endpoints take their numbers from here: few, so that histories meet.
const APPS: u32 = 3;
const ENDPOINTS: u32 = 3;
const KEYS: u8 = 4;

/// One step of a history.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Append(Vec<Line>),
    Settle(Vec<Fact>),
    Config {
        stale: bool,
        rows: Vec<u8>,
    },
    Remember {
        key: u8,
        whole: bool,
    },
    Expunge(Vec<(prop::sample::Index, Option<(u32, u16)>)>),
    /// What housekeeping makes of the ends of payloads that are due: the nth is put off by so many hours, or
    /// taken away, or found gone.
    End {
        limit: usize,
        how: Vec<u64>,
    },
    Sync,
    Tend,
    Scrub,
    Close,
    Crash,
    Fault(Fault),
    Wait(u64),
}

/// One message of an append.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    app: u32,
    event: Option<u8>,
    key: Option<u8>,
    size: usize,
    /// Hours after which its payload ends.
    hours: u16,
}

/// One entry of a settlement.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    Attempt {
        nth: prop::sample::Index,
        endpoint: u32,
        no: u16,
        early: u64,
        verdict: u8,
        size: usize,
    },
    Park {
        nth: prop::sample::Index,
        endpoint: u32,
        due: u64,
    },
    Unpark {
        nth: prop::sample::Index,
    },
    Cancel {
        nth: prop::sample::Index,
        endpoint: u32,
    },
    Further {
        nth: prop::sample::Index,
        endpoint: u32,
    },
    State {
        endpoint: u32,
        failures: u32,
    },
    Checkpoint {
        lane: prop::sample::Index,
        seq: u64,
    },
}

fn line() -> impl Strategy<Value = Line> {
    let rare = |range: std::ops::Range<u8>| proptest::option::weighted(0.3, range);
    let hours = prop_oneof![3 => Just(0_u16), 1 => 1..30_u16];
    (1..=APPS, rare(0..3), rare(0..KEYS), 0..300_usize, hours).prop_map(
        |(app, event, key, size, hours)| Line {
            app,
            event,
            key,
            size,
            hours,
        },
    )
}

fn fact() -> impl Strategy<Value = Fact> {
    let nth = any::<prop::sample::Index>;
    let endpoint = 1..=ENDPOINTS;
    prop_oneof![
        4 => (nth(), endpoint.clone(), 1..4_u16, 0..900_u64, 0..4_u8, 0..600_usize).prop_map(
            |(nth, endpoint, no, early, verdict, size)| Fact::Attempt {
                nth, endpoint, no, early, verdict, size
            }
        ),
        3 => (nth(), endpoint.clone(), 0..3_u64)
            .prop_map(|(nth, endpoint, due)| Fact::Park { nth, endpoint, due }),
        2 => nth().prop_map(|nth| Fact::Unpark { nth }),
        1 => (nth(), endpoint.clone()).prop_map(|(nth, endpoint)| Fact::Cancel { nth, endpoint }),
        1 => (nth(), endpoint.clone()).prop_map(|(nth, endpoint)| Fact::Further { nth, endpoint }),
        1 => (endpoint, any::<u32>())
            .prop_map(|(endpoint, failures)| Fact::State { endpoint, failures }),
        1 => (nth(), 0..9_u64).prop_map(|(lane, seq)| Fact::Checkpoint { lane, seq }),
    ]
}

/// Any step of a history.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    let faults = prop_oneof![
        Just(Fault::NotApplied),
        Just(Fault::DoubtfulApplied),
        Just(Fault::DoubtfulLost)
    ];
    prop_oneof![
        8 => proptest::collection::vec(line(), 1..8).prop_map(Op::Append),
        8 => proptest::collection::vec(fact(), 0..8).prop_map(Op::Settle),
        2 => (proptest::bool::weighted(0.2), proptest::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(stale, rows)| Op::Config { stale, rows }),
        2 => (0..KEYS, any::<bool>()).prop_map(|(key, whole)| Op::Remember { key, whole }),
        2 => proptest::collection::vec(
            (any::<prop::sample::Index>(), proptest::option::of((1..=ENDPOINTS, 0..4_u16))), 0..4,
        ).prop_map(Op::Expunge),
        2 => (0..9_usize, proptest::collection::vec(0..4_u64, 1..5))
            .prop_map(|(limit, how)| Op::End { limit, how }),
        1 => Just(Op::Sync),
        3 => Just(Op::Tend),
        1 => Just(Op::Scrub),
        1 => Just(Op::Close),
        1 => Just(Op::Crash),
        1 => faults.prop_map(Op::Fault),
        4 => prop_oneof![0..3_u64, 100..2000_u64, 3_600_000..90_000_000_u64].prop_map(Op::Wait),
    ]
}

/// Settings of a small store in `dir`.
pub(crate) fn storage(dir: &Path) -> Storage {
    Storage {
        dir: dir.to_owned(),
        high_water: HighWater::EveryCommit,
        ..Storage::default()
    }
}

/// Opens the store in `dir` without faults.
pub(crate) fn open(options: &Storage) -> Result<(FjallWriter, Arc<FjallReader>), Error> {
    let opened = Store::open(options, &Retention::default())?;
    Ok((opened.writer, opened.reader))
}

/// A message of `size` payload bytes.
pub(crate) fn accept(app: u32, accepted: Timestamp, size: usize) -> Accept {
    Accept {
        message: Message {
            at: Position::START,
            accepted,
            app: AppNo(app),
            event_type: "invoice.paid".into(),
            content_type: ContentType::Json,
            payload: Bytes::from(vec![b'x'; size]),
            targets: vec![EndpointNo(1), EndpointNo(2)],
            labels: None,
        },
        idempotency: None,
    }
}

/// A parked row as backlog.
pub(crate) fn backlog(endpoint: u32, due: Timestamp, at: Position) -> Parked {
    Parked {
        key: ParkedKey {
            endpoint: EndpointNo(endpoint),
            due,
            at,
        },
        attempts: 1,
        base: 0,
        reason: ParkReason::Backlog,
        trigger: Trigger::Scheduled,
        bytes: 100,
        order_key: 0,
    }
}

/// Short times, so that a history sees the end of each.
fn retention() -> Retention {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    Retention {
        messages: hours(20),
        attempts: hours(40),
        attempt_bodies: hours(8),
        ..Retention::default()
    }
}

/// Both stores and what has been done to them.
pub(crate) struct World {
    options: Storage,
    now: Timestamp,
    model: Model,
    reference: ModelWriter,
    faults: Faults,
    embedded: Option<(FjallWriter, Arc<FjallReader>)>,
    mirror: Arc<dyn Reader>,
    /// Every position and parked key that was ever handed in.
    places: Vec<Position>,
    parked: Vec<ParkedKey>,
}

impl World {
    pub(crate) fn new(dir: &Path) -> Self {
        let options = storage(dir);
        let model = Model::new().with_retention(retention());
        let (reference, mirror) = model.open();
        let faults = Faults::none();
        let mut world = Self {
            options,
            now: Timestamp::from_millis(1_767_600_000_000),
            model,
            reference,
            faults,
            embedded: None,
            mirror,
            places: Vec::new(),
            parked: Vec::new(),
        };
        world.open_embedded();
        world
    }

    fn open_embedded(&mut self) {
        let opened = Store::open_with(&self.options, &retention(), self.faults.clone()).unwrap();
        self.embedded = Some((opened.writer, opened.reader));
    }

    /// Ends the process of both, cleanly or not, and opens them again; housekeeping comes first, as in
    /// the product.
    fn reopen(&mut self) {
        loop {
            self.embedded = None;
            self.model.crash(Crash::Process);
            let (reference, mirror) = self.model.open();
            self.reference = reference;
            self.mirror = mirror;
            self.open_embedded();
            let lanes = (self.reference.lane(), self.writer().lane());
            assert_eq!(lanes.0, lanes.1, "lanes are counted alike");
            let now = self.now;
            let (expected, found) = (self.reference.tend(now), self.writer().tend(now));
            assert_eq!(kind(&expected), kind(&found), "{expected:?} {found:?}");
            if found.is_ok() {
                return;
            }
        }
    }

    fn writer(&mut self) -> &mut FjallWriter {
        &mut self.embedded.as_mut().unwrap().0
    }

    /// Plans a fault for the call `ahead` calls from now, in both.
    pub(crate) fn plan(&self, ahead: u64, fault: Fault) {
        self.model.faults().plan(ahead, fault);
        self.faults.plan(ahead, fault);
    }

    /// Mutating calls so far.
    pub(crate) fn calls(&self) -> u64 {
        assert_eq!(self.model.faults().calls(), self.faults.calls());
        self.faults.calls()
    }

    /// Does one step with both and compares their answers; dead writers are opened anew.
    pub(crate) fn run(&mut self, op: &Op) {
        let (expected, found) = match op {
            Op::Append(lines) => self.append(lines),
            Op::Settle(facts) => {
                let settlement = self.settlement(facts);
                let expected = self.reference.settle(&settlement);
                (expected, self.writer().settle(&settlement))
            }
            Op::Config { stale, rows } => self.config(*stale, rows),
            Op::Remember { key, whole } => {
                let (now, answer) = (self.now, self.answer(*whole));
                let key = idempotency(*key);
                let expected = self.reference.remember(key, now, answer.clone());
                (expected, self.writer().remember(key, now, answer))
            }
            Op::Expunge(wanted) => self.expunge(wanted),
            Op::Sync => (self.reference.sync(), self.writer().sync()),
            Op::End { limit, how } => self.end(*limit, how),
            Op::Tend => {
                let now = self.now;
                (self.reference.tend(now), self.writer().tend(now))
            }
            Op::Scrub => {
                let embedded = &self.embedded.as_ref().unwrap().1;
                (self.mirror.scrub(), embedded.scrub())
            }
            Op::Close => {
                let answers = (self.reference.close(), self.writer().close());
                self.reopen();
                answers
            }
            Op::Crash => {
                self.reopen();
                (Ok(()), Ok(()))
            }
            Op::Fault(fault) => {
                self.plan(0, *fault);
                (Ok(()), Ok(()))
            }
            Op::Wait(ms) => {
                self.now = self.now.plus(Duration::from_millis(*ms));
                (Ok(()), Ok(()))
            }
        };
        assert_eq!(
            kind(&expected),
            kind(&found),
            "{op:?}: {expected:?} {found:?}"
        );
        if matches!(found, Err(Error::Doubtful(_))) {
            assert!(matches!(self.writer().sync(), Err(Error::Doubtful(_))) || *op_is_close(op));
            self.reopen();
            self.compare();
        }
    }

    fn append(&mut self, lines: &[Line]) -> (Result<(), Error>, Result<(), Error>) {
        let mut batch: Vec<Accept> = lines.iter().map(|line| self.accept(line)).collect();
        let expected = self.reference.append(&mut batch);
        let mut mirror = batch.clone();
        let found = self.writer().append(&mut mirror);
        if found.is_ok() {
            let at = |batch: &[Accept]| batch.iter().map(|one| one.message.at).collect::<Vec<_>>();
            assert_eq!(at(&batch), at(&mirror));
        }
        self.places.extend(batch.iter().map(|one| one.message.at));
        (expected, found)
    }

    fn expunge(
        &mut self,
        wanted: &[(prop::sample::Index, Option<(u32, u16)>)],
    ) -> (Result<(), Error>, Result<(), Error>) {
        let known = self.places.len();
        let contents: Vec<Content> = wanted
            .iter()
            .filter_map(|(nth, attempt)| {
                let at = self.places.get(nth.index(known.max(1))).copied()?;
                Some(match attempt {
                    None => Content::Payload(at),
                    Some((endpoint, no)) => {
                        let endpoint = EndpointNo(*endpoint);
                        Content::Response(Delivery { at, endpoint }, *no)
                    }
                })
            })
            .collect();
        let expected = self.reference.expunge(&contents);
        let found = self.writer().expunge(&contents);
        if let (Ok(expected), Ok(found)) = (&expected, &found) {
            assert_eq!(expected, found, "{contents:?}");
        }
        (expected.map(drop), found.map(drop))
    }

    /// Ends of payloads of messages that are retained: a compaction may have left out the others.
    fn ends(&self, of: &dyn Reader, until: Timestamp, limit: usize) -> Vec<PayloadEnd> {
        let mut ends = of.payload_ends(None, until, usize::MAX).unwrap();
        ends.retain(|end| self.mirror.message(end.at).unwrap().is_some());
        ends.truncate(limit);
        ends
    }

    fn end(&mut self, limit: usize, how: &[u64]) -> (Result<(), Error>, Result<(), Error>) {
        let due = self.ends(&*self.mirror, self.now, limit).into_iter();
        let ends: Vec<_> = due
            .zip(how.iter().cycle())
            .map(|(end, how)| {
                let ended = match how {
                    0 => Ended::TakenAway,
                    1 => Ended::Gone,
                    hours => Ended::PutOff(self.now.plus(Duration::from_secs(hours * 3600))),
                };
                (end, ended)
            })
            .collect();
        let expected = self.reference.end_payloads(&ends);
        (expected, self.writer().end_payloads(&ends))
    }

    fn accept(&self, line: &Line) -> Accept {
        let mut accept = accept(line.app, self.now, line.size);
        let labels = Labels {
            event_id: line.event.map(|event| format!("evt-{event}")),
            payload_hours: line.hours,
            ..Labels::default()
        };
        accept.message.labels = (labels != Labels::default()).then(|| Box::new(labels));
        accept.idempotency = line.key.map(idempotency);
        accept
    }

    fn config(&mut self, stale: bool, rows: &[u8]) -> (Result<(), Error>, Result<(), Error>) {
        let (revision, _) = self.mirror.config().unwrap();
        let expected = if stale { revision + 1 } else { revision };
        let rows: Vec<ConfigRow> = rows
            .iter()
            .map(|row| ConfigRow {
                kind: ConfigKind::Application,
                key: vec![row % 5],
                value: Bytes::from(vec![*row; 3]),
            })
            .collect();
        let first = self.reference.commit_config(expected, &rows);
        let second = self.writer().commit_config(expected, &rows);
        if let (Ok(first), Ok(second)) = (&first, &second) {
            assert_eq!(first, second);
        }
        (first.map(drop), second.map(drop))
    }

    fn answer(&self, whole: bool) -> StoredAnswer {
        if whole {
            StoredAnswer::Whole {
                status: 201,
                body: Bytes::from_static(b"{}"),
            }
        } else {
            StoredAnswer::Message(self.places.last().copied().unwrap_or_default())
        }
    }

    fn settlement(&mut self, facts: &[Fact]) -> Settlement {
        let mut out = Settlement::default();
        for fact in facts {
            self.add(fact, &mut out);
        }
        self.parked.extend(out.park.iter().map(|row| row.key));
        out
    }

    fn add(&self, fact: &Fact, out: &mut Settlement) {
        let place = |nth: &prop::sample::Index| {
            let known = self.places.len();
            self.places.get(nth.index(known.max(1))).copied()
        };
        match fact {
            Fact::Attempt {
                nth,
                endpoint,
                no,
                early,
                verdict,
                size,
            } => {
                let Some(at) = place(nth) else { return };
                let ended = self.now.minus(Duration::from_millis(*early));
                let mut one = attempt(at, *endpoint, *no, ended, *verdict);
                one.response = Bytes::from(vec![b'a'; *size]);
                // Some as an earlier version recorded them, some while the clock went back.
                one.accepted = match size % 4 {
                    0 => None,
                    1 => Some(ended.plus(Duration::from_secs(5))),
                    _ => Some(ended.minus(Duration::from_secs(60))),
                };
                out.attempts.push(one);
            }
            Fact::Park { nth, endpoint, due } => {
                let Some(at) = place(nth) else { return };
                let due = match due {
                    0 => Timestamp::ZERO,
                    n => self.now.plus(Duration::from_secs(*n)),
                };
                out.park.push(backlog(*endpoint, due, at));
            }
            Fact::Unpark { nth } => {
                let known = self.parked.len();
                out.unpark
                    .extend(self.parked.get(nth.index(known.max(1))).copied());
            }
            Fact::Cancel { nth, endpoint } => {
                let endpoint = EndpointNo(*endpoint);
                out.cancelled
                    .extend(place(nth).map(|at| Delivery { at, endpoint }));
            }
            Fact::Further { nth, endpoint } => {
                let Some(at) = place(nth) else { return };
                let message = self.mirror.message(at).unwrap();
                let ends = message.and_then(|message| message.payload_ends());
                let endpoint = EndpointNo(*endpoint);
                let delivery = Delivery { at, endpoint };
                out.further.extend(ends.map(|ends| (delivery, ends)));
            }
            Fact::State { endpoint, failures } => {
                let health = Health {
                    failures: *failures,
                    last_failure: Some(self.now),
                    ..Health::default()
                };
                let state = EndpointState {
                    health,
                    parked: 1,
                    parked_bytes: 2,
                };
                out.states.push((EndpointNo(*endpoint), state));
            }
            Fact::Checkpoint { lane, seq } => {
                let lanes = self.mirror.lanes().unwrap();
                out.checkpoint.push((lane.get(&lanes).id, *seq));
            }
        }
    }

    /// Reads everything from both and compares.
    pub(crate) fn compare(&self) {
        let (a, b) = (
            &*self.mirror,
            &*self.embedded.as_ref().unwrap().1 as &dyn Reader,
        );
        let lanes = a.lanes().unwrap();
        assert_eq!(lanes, b.lanes().unwrap());
        assert_eq!(a.config().unwrap(), b.config().unwrap());
        compare_audit(a, b);
        self.compare_ends(a, b);
        assert_eq!(a.endpoint_states().unwrap(), b.endpoint_states().unwrap());
        for lane in &lanes {
            compare_log(a, b, lane.id);
        }
        for at in self.places.iter().copied() {
            assert_eq!(a.message(at).unwrap(), b.message(at).unwrap());
            assert_eq!(a.attempts(at, None).unwrap(), b.attempts(at, None).unwrap());
            for endpoint in (1..=ENDPOINTS).map(EndpointNo) {
                let one = Some(endpoint);
                assert_eq!(a.attempts(at, one).unwrap(), b.attempts(at, one).unwrap());
                let delivery = Delivery { at, endpoint };
                assert_eq!(
                    a.is_cancelled(delivery).unwrap(),
                    b.is_cancelled(delivery).unwrap(),
                    "{delivery:?}"
                );
            }
        }
        for key in self.parked.iter().copied() {
            assert_eq!(a.parked_row(key).unwrap(), b.parked_row(key).unwrap());
        }
        for n in 1..=ENDPOINTS {
            self.compare_parked(a, b, EndpointNo(n));
            compare_pages(
                |page| a.endpoint_attempts(EndpointNo(n), page).unwrap(),
                |page| b.endpoint_attempts(EndpointNo(n), page).unwrap(),
                |entry| entry.key,
            );
        }
        for n in 1..=APPS {
            compare_pages(
                |page| a.app_messages(AppNo(n), page).unwrap(),
                |page| b.app_messages(AppNo(n), page).unwrap(),
                |entry| entry.key,
            );
            for event in 0..3 {
                let id = format!("evt-{event}");
                assert_eq!(
                    a.by_event_id(AppNo(n), &id).unwrap(),
                    b.by_event_id(AppNo(n), &id).unwrap()
                );
            }
        }
        for hours in [0, 1, 24] {
            let oldest = self.now.minus(Duration::from_secs(hours * 3600));
            for key in 0..KEYS {
                let key = idempotency(key).key;
                assert_eq!(
                    a.idempotent(&key, oldest).unwrap(),
                    b.idempotent(&key, oldest).unwrap()
                );
            }
        }
    }

    fn compare_ends(&self, a: &dyn Reader, b: &dyn Reader) {
        for until in [self.now, Timestamp::MAX] {
            let ends = self.ends(a, until, usize::MAX);
            assert_eq!(ends, self.ends(b, until, usize::MAX));
            for end in &ends {
                let after = Some((end.due, end.at));
                let page = |of: &dyn Reader| {
                    let mut page = of.payload_ends(after, until, usize::MAX).unwrap();
                    page.retain(|end| ends.contains(end));
                    page
                };
                assert_eq!(page(a), page(b), "{end:?}");
            }
        }
    }

    fn compare_parked(&self, a: &dyn Reader, b: &dyn Reader, endpoint: EndpointNo) {
        let all = Timestamp::MAX;
        let rows = a.parked(endpoint, None, all, usize::MAX).unwrap();
        assert_eq!(rows, b.parked(endpoint, None, all, usize::MAX).unwrap());
        for until in [Timestamp::ZERO, self.now] {
            let page = a.parked(endpoint, None, until, 3).unwrap();
            assert_eq!(page, b.parked(endpoint, None, until, 3).unwrap());
        }
        for row in rows {
            let after = Some(row.key);
            let page = a.parked(endpoint, after, all, 2).unwrap();
            assert_eq!(page, b.parked(endpoint, after, all, 2).unwrap());
        }
    }
}

fn op_is_close(op: &Op) -> &bool {
    if matches!(op, Op::Close) {
        &true
    } else {
        &false
    }
}

/// Compares the audit log as a whole, and from every entry in both directions.
fn compare_audit(a: &dyn Reader, b: &dyn Reader) {
    for newest_first in [true, false] {
        let mut page = AuditPage {
            from: None,
            newest_first,
            limit: usize::MAX,
        };
        let entries = a.audit(&page).unwrap();
        assert_eq!(entries, b.audit(&page).unwrap());
        page.limit = 2;
        for (id, _) in entries {
            page.from = Some(id);
            assert_eq!(a.audit(&page).unwrap(), b.audit(&page).unwrap(), "{page:?}");
        }
    }
}

fn compare_log(a: &dyn Reader, b: &dyn Reader, lane: LaneId) {
    let mut after = Position { lane, seq: 0 };
    loop {
        let page = a.fetch(after, 3).unwrap();
        assert_eq!(page, b.fetch(after, 3).unwrap());
        match page.last() {
            Some(last) => after = last.at,
            None => return,
        }
    }
}

/// Compares a list as a whole, in pages of any start, in both directions.
fn compare_pages<T: PartialEq + std::fmt::Debug>(
    a: impl Fn(&Page) -> Vec<T>,
    b: impl Fn(&Page) -> Vec<T>,
    key: impl Fn(&T) -> posthaste::store::ListKey,
) {
    for newest_first in [true, false] {
        let whole = Page {
            from: None,
            until: None,
            newest_first,
            limit: usize::MAX,
        };
        let entries = a(&whole);
        assert_eq!(entries, b(&whole));
        let nth = |n: usize| entries.get(n).map(&key);
        for n in 0..entries.len() {
            for (until, limit) in [(None, 2), (nth(n + 3), 9), (nth(n), 1), (nth(n + 1), 5)] {
                let page = Page {
                    from: nth(n),
                    until,
                    newest_first,
                    limit,
                };
                assert_eq!(a(&page), b(&page), "{page:?}");
            }
        }
    }
}

fn idempotency(key: u8) -> IdempotencyKey {
    IdempotencyKey {
        key: [key; 16],
        body: [key ^ 1; 16],
    }
}

pub(crate) fn attempt(
    at: Position,
    endpoint: u32,
    no: u16,
    ended: Timestamp,
    verdict: u8,
) -> Attempt {
    let failure = (verdict > 0).then_some(FailureKind::Reset);
    Attempt {
        at,
        endpoint: EndpointNo(endpoint),
        app: AppNo(1),
        no,
        accepted: Some(ended),
        ended,
        duration_ms: 12,
        outcome: Outcome {
            status: if verdict > 0 { 0 } else { 204 },
            failure,
            retry_after_secs: None,
        },
        trigger: Trigger::Scheduled,
        verdict: match verdict {
            0 => Verdict::Delivered,
            1 => Verdict::RetryAt(ended),
            2 => Verdict::Dead(DeadReason::Exhausted),
            3 => Verdict::Dead(DeadReason::Manual),
            other => panic!("no verdict {other}"),
        },
        response: Bytes::from_static(b"ok"),
    }
}

fn kind(answer: &Result<(), Error>) -> &'static str {
    match answer {
        Ok(()) => "ok",
        Err(Error::NotApplied(_)) => "not applied",
        Err(Error::Doubtful(_)) => "doubtful",
        Err(other) => panic!("{other}"),
    }
}
