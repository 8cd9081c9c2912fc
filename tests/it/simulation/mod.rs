//! The engine in virtual time: the real core, the reference store, and endpoints that follow a script.
//!
//! Everything is deterministic: one seed decides every random number, and time moves only from one
//! event to the next, so days of retries take milliseconds. What the driver does in a running gateway
//! (settle, read pages, recover) is done here step by step against `store::model`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test kit; seeds are printed"
)]

mod cancel;
mod chaos;
mod clock;
mod collapse;
mod delayed;
mod gateway;
mod herd;
mod limits;
mod ordered;
mod retries;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use posthaste::base::Timestamp;
use posthaste::model::{
    AppNo, Attempt, ContentType, Delivery, DisablePolicy, EndpointNo, FailureKind, Labels, Message,
    Order, Outcome, ParkReason, Position, Verdict,
};
use posthaste::policy::retry::RetryPlan;
use posthaste::schedule::core::{
    Announcement, Cancelled, Command, Core, Ending, Failing, Finished, Input, Job, Plan, Read,
    Settings, Stored, order_key,
};
use posthaste::schedule::{open_deliveries, read_page};
use posthaste::store::model::{Crash, Model, ModelWriter};
use posthaste::store::{Accept, Content, Reader, Writer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// Attempts that one call of the core may start.
const AT_ONCE: usize = 3;

/// What an endpoint answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Status(u16),
    RetryAfter(u16, u32),
    Fails(FailureKind),
}

impl Answer {
    fn outcome(self) -> Outcome {
        let of = |status: u16, retry_after_secs| Outcome {
            status,
            failure: match status {
                200..=299 => None,
                300..=399 => Some(FailureKind::Redirect),
                410 => Some(FailureKind::Gone),
                400..=499 => Some(FailureKind::Status4xx),
                _ => Some(FailureKind::Status5xx),
            },
            retry_after_secs,
        };
        match self {
            Self::Status(status) => of(status, None),
            Self::RetryAfter(status, secs) => of(status, Some(secs)),
            Self::Fails(kind) => Outcome {
                status: 0,
                failure: Some(kind),
                retry_after_secs: None,
            },
        }
    }
}

/// A simulated endpoint: answers from the script, then the last answer for ever.
pub(crate) struct Peer {
    pub(crate) script: VecDeque<Answer>,
    pub(crate) then: Answer,
    pub(crate) takes: Duration,
    pub(crate) plan: Plan,
    under_way: usize,
    pub(crate) most_under_way: usize,
}

/// One attempt as an endpoint saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) start: Timestamp,
    pub(crate) endpoint: EndpointNo,
    pub(crate) at: Position,
    pub(crate) status: u16,
}

pub(crate) struct Sim {
    pub(crate) now: Timestamp,
    pub(crate) core: Core,
    pub(crate) reader: Arc<dyn Reader>,
    model: Model,
    writer: ModelWriter,
    settings: Settings,
    pub(crate) peers: BTreeMap<EndpointNo, Peer>,
    ends: BinaryHeap<Reverse<(Timestamp, u64, Delivery)>>,
    count: u64,
    /// Settle at most this often: what a crash loses.
    pub(crate) settle_every: Duration,
    last_settle: Timestamp,
    applied: u64,
    reads: Vec<Read>,
    /// Pages take their time: none comes while it is set.
    pub(crate) reads_wait: bool,
    commands: Vec<Command>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) told: Vec<(Timestamp, Announcement)>,
    /// What was said of walks, with the settlement that makes it true.
    pub(crate) walks: Vec<(EndpointNo, Cancelled, u64)>,
    pub(crate) messages: Vec<Arc<Message>>,
    /// Deliveries that were accepted and did not end yet, as the counters of the driver see them.
    pub(crate) open: i64,
    pub(crate) random: ChaCha8Rng,
}

/// A plan with the defaults of the product.
pub(crate) fn plan(no: u32, app: u32) -> Plan {
    Plan {
        endpoint: EndpointNo(no),
        app: AppNo(app),
        destination: 0,
        sending: true,
        disabled_by_hand: false,
        deleted: false,
        concurrency: 10,
        rate: None,
        failing: Arc::new(Failing {
            retry: RetryPlan {
                delays: RetryPlan::named("standard-10").unwrap().into(),
                jitter: 0.2,
                max_retry_after: DAY,
            },
            disable: DisablePolicy::Duration {
                failing_secs: 5 * 86_400,
                span_secs: 12 * 3600,
            },
        }),
        order: Order::None,
    }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, Settings::default())
    }

    pub(crate) fn with(seed: u64, settings: Settings) -> Self {
        println!("seed {seed}");
        let model = Model::new();
        let (writer, reader) = model.open();
        Self {
            now: Timestamp::from_millis(1_767_600_000_000),
            core: Core::new(settings.clone()),
            reader,
            model,
            writer,
            settings,
            peers: BTreeMap::new(),
            ends: BinaryHeap::new(),
            count: 0,
            settle_every: Duration::from_millis(5),
            last_settle: Timestamp::ZERO,
            applied: 0,
            reads: Vec::new(),
            reads_wait: false,
            commands: Vec::new(),
            seen: Vec::new(),
            told: Vec::new(),
            walks: Vec::new(),
            messages: Vec::new(),
            open: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Adds an endpoint that answers `then` after 20 ms.
    pub(crate) fn endpoint(&mut self, plan: Plan, then: Answer) -> EndpointNo {
        let no = plan.endpoint;
        self.step(Input::Endpoint(Box::new(plan.clone())));
        let peer = Peer {
            script: VecDeque::new(),
            then,
            takes: Duration::from_millis(20),
            plan,
            under_way: 0,
            most_under_way: 0,
        };
        self.peers.insert(no, peer);
        no
    }

    /// Changes an endpoint's configuration.
    pub(crate) fn change(&mut self, endpoint: EndpointNo, edit: impl FnOnce(&mut Plan)) {
        let plan = &mut self.peers.get_mut(&endpoint).unwrap().plan;
        edit(plan);
        let plan = plan.clone();
        self.step(Input::Endpoint(Box::new(plan)));
        self.settle_down();
    }

    pub(crate) fn peer(&mut self, endpoint: EndpointNo) -> &mut Peer {
        self.peers.get_mut(&endpoint).unwrap()
    }

    pub(crate) fn publish(&mut self, targets: &[EndpointNo]) -> Position {
        self.publish_keyed(targets, None)
    }

    /// Accepts many messages in one commit.
    pub(crate) fn publish_many(&mut self, target: EndpointNo, count: usize) {
        let accept = Accept {
            message: self.message(&[target], Labels::default()),
            idempotency: None,
        };
        let mut batch = vec![accept; count];
        self.writer.append(&mut batch).unwrap();
        let messages: Vec<_> = batch.into_iter().map(|a| Arc::new(a.message)).collect();
        self.open += i64::try_from(count).unwrap();
        self.messages.extend(messages.iter().cloned());
        let at = messages[count - 1].at;
        self.step(Input::Committed {
            lane: at.lane,
            last: at.seq,
            messages,
        });
        self.settle_down();
    }

    fn message(&self, targets: &[EndpointNo], labels: Labels) -> Message {
        let labels = (labels != Labels::default()).then(|| Box::new(labels));
        Message {
            at: Position::START,
            accepted: self.now,
            app: self.peers[&targets[0]].plan.app,
            event_type: Arc::from("invoice.paid"),
            content_type: ContentType::Json,
            payload: bytes::Bytes::from_static(b"{}"),
            targets: targets.to_vec(),
            labels,
        }
    }

    /// Accepts a message: durable first, then handed to the core, as the lane does.
    pub(crate) fn publish_keyed(&mut self, targets: &[EndpointNo], key: Option<&str>) -> Position {
        let labels = Labels {
            ordering_key: key.map(str::to_owned),
            ..Labels::default()
        };
        self.publish_labelled(targets, labels)
    }

    /// The same with a time of delivery.
    pub(crate) fn publish_at(
        &mut self,
        targets: &[EndpointNo],
        key: Option<&str>,
        at: Timestamp,
    ) -> Position {
        let labels = Labels {
            ordering_key: key.map(str::to_owned),
            deliver_at: Some(at),
            ..Labels::default()
        };
        self.publish_labelled(targets, labels)
    }

    /// The same with a collapse key.
    pub(crate) fn publish_collapsing(&mut self, targets: &[EndpointNo], key: &str) -> Position {
        let labels = Labels {
            collapse_key: Some(key.to_owned()),
            ..Labels::default()
        };
        self.publish_labelled(targets, labels)
    }

    /// Takes payloads away, as their owner may.
    pub(crate) fn expunge(&mut self, at: Position) {
        let gone = self.writer.expunge(&[Content::Payload(at)]).unwrap();
        assert_eq!(gone, [true]);
    }

    pub(crate) fn publish_labelled(&mut self, targets: &[EndpointNo], labels: Labels) -> Position {
        let message = self.message(targets, labels);
        let mut batch = [Accept {
            message,
            idempotency: None,
        }];
        self.writer.append(&mut batch).unwrap();
        let [Accept { message, .. }] = batch;
        let message = Arc::new(message);
        let at = message.at;
        self.open += i64::try_from(targets.len()).unwrap();
        self.messages.push(Arc::clone(&message));
        self.step(Input::Committed {
            lane: at.lane,
            last: at.seq,
            messages: vec![message],
        });
        self.settle_down();
        at
    }

    /// Lets virtual time pass.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle_down();
        }
        self.now = end;
        self.settle_down();
    }

    /// The wall clock is stepped; what is under way ends when it would have ended.
    pub(crate) fn step_clock(&mut self, by: i64) {
        let moved = |at: Timestamp| Timestamp::from_millis(at.millis().saturating_add_signed(by));
        self.now = moved(self.now);
        self.last_settle = moved(self.last_settle);
        let ends = std::mem::take(&mut self.ends).into_iter();
        self.ends = ends
            .map(|Reverse((at, no, delivery))| Reverse((moved(at), no, delivery)))
            .collect();
        self.settle_down();
    }

    /// Tries deliveries again (resend, or recover with a fresh schedule).
    pub(crate) fn retry(&mut self, of: &[Delivery], fresh: bool) {
        self.settle();
        let deliveries = of.iter().filter_map(|d| self.stored(*d)).collect();
        self.step(Input::Retry { deliveries, fresh });
        self.settle();
        self.settle_down();
    }

    pub(crate) fn cancel(&mut self, of: &[Delivery]) {
        self.settle();
        let deliveries = of
            .iter()
            .filter_map(|d| match self.core.state(*d) {
                Some(_) => Some(Stored::in_memory(*d)),
                None => self.stored(*d),
            })
            .collect();
        self.step(Input::Cancel(deliveries));
        self.settle();
        self.settle_down();
    }

    /// Begins to cancel everything of an endpoint.
    pub(crate) fn cancel_pending(&mut self, endpoint: EndpointNo) {
        self.step(Input::CancelPending(endpoint));
        self.settle_down();
    }

    fn stored(&self, delivery: Delivery) -> Option<Stored> {
        if self.core.state(delivery).is_some() {
            return None;
        }
        let attempts = self
            .reader
            .attempts(delivery.at, Some(delivery.endpoint))
            .unwrap();
        let row = self
            .rows(delivery.endpoint)
            .into_iter()
            .find(|row| row.key.at == delivery.at);
        let message = self.reader.message(delivery.at).unwrap()?;
        Some(Stored {
            delivery,
            finished: row
                .as_ref()
                .is_none_or(|row| row.reason == ParkReason::Once),
            row,
            attempts: attempts.last().map_or(0, |attempt| attempt.no),
            bytes: u32::try_from(message.payload.len()).unwrap(),
            order_key: message.ordering_key().map_or(0, order_key),
            ends: message
                .payload_ends()
                .filter(|_| attempts.is_empty() && !message.targets.contains(&delivery.endpoint)),
        })
    }

    /// All parked rows of an endpoint.
    pub(crate) fn rows(&self, endpoint: EndpointNo) -> Vec<posthaste::model::Parked> {
        self.reader
            .parked(endpoint, None, Timestamp::MAX, usize::MAX)
            .unwrap()
    }

    pub(crate) fn attempts(&self, at: Position, endpoint: EndpointNo) -> Vec<Attempt> {
        self.reader.attempts(at, Some(endpoint)).unwrap()
    }

    /// Times of the attempts at an endpoint, from `since`, in seconds.
    pub(crate) fn times(&self, endpoint: EndpointNo, since: Timestamp) -> Vec<f64> {
        let mine = self.seen.iter().filter(|seen| seen.endpoint == endpoint);
        mine.map(|seen| seen.start.since(since).as_secs_f64())
            .collect()
    }

    /// The process dies and starts again; `power` also loses what was not synced.
    pub(crate) fn crash(&mut self, power: bool) {
        let how = if power {
            Crash::Power {
                keep: self.random.random_range(0..3),
            }
        } else {
            Crash::Process
        };
        self.model.crash(how);
        let (writer, reader) = self.model.open();
        self.writer = writer;
        self.reader = reader;
        self.ends.clear();
        self.reads.clear();
        self.commands.clear();
        self.applied = 0;
        self.core = Core::new(self.settings.clone());
        let plans: Vec<Plan> = self.peers.values().map(|peer| peer.plan.clone()).collect();
        for peer in self.peers.values_mut() {
            peer.under_way = 0;
        }
        self.open = 0;
        for plan in plans {
            self.step(Input::Endpoint(Box::new(plan)));
        }
        for (endpoint, state) in self.reader.endpoint_states().unwrap() {
            self.open += i64::try_from(state.parked).unwrap();
            self.step(Input::State(endpoint, state));
        }
        self.recover();
        self.settle_down();
    }

    fn recover(&mut self) {
        for lane in self.reader.lanes().unwrap() {
            self.step(Input::Lane(lane.id, lane.checkpoint));
            let after = Position {
                lane: lane.id,
                seq: lane.checkpoint,
            };
            let mut open = Vec::new();
            for message in self.reader.fetch(after, usize::MAX).unwrap() {
                let by_key = |ep: EndpointNo| {
                    self.peers
                        .get(&ep)
                        .is_some_and(|peer| peer.plan.order == Order::Key)
                };
                let endpoints = open_deliveries(self.reader.as_ref(), &message, by_key).unwrap();
                self.open += i64::try_from(endpoints.len()).unwrap();
                open.push((Arc::new(message), endpoints));
            }
            self.step(Input::Recovered {
                lane: lane.id,
                last: lane.last,
                open,
            });
        }
    }

    fn step(&mut self, input: Input) {
        self.core.step(self.now, input, &mut self.commands);
    }

    fn next_event(&self) -> Option<Timestamp> {
        let end = self.ends.peek().map(|Reverse((at, ..))| *at);
        let settle = (self.core.unsettled() > 0)
            .then(|| self.last_settle.plus(self.settle_every).max(self.now));
        [end, settle, self.core.next_wakeup()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Everything that happens at this very moment.
    fn settle_down(&mut self) {
        loop {
            while let Some(Reverse((at, ..))) = self.ends.peek() {
                if *at > self.now {
                    break;
                }
                let Some(Reverse((_, _, delivery))) = self.ends.pop() else {
                    break;
                };
                self.end(delivery);
            }
            if self.core.next_wakeup().is_some_and(|at| at <= self.now) {
                self.step(Input::Tick);
            }
            self.pump();
            let due = self.now >= self.last_settle.plus(self.settle_every);
            if due || self.reads.iter().any(|read| read.settled > self.applied) {
                self.settle();
            }
            self.read();
            if self.commands.is_empty() {
                break;
            }
            for command in std::mem::take(&mut self.commands) {
                self.carry_out(command);
            }
        }
    }

    /// A few at a time, as a busy driver does.
    fn pump(&mut self) {
        let mut more = true;
        while more {
            let before = self.core.in_flight();
            more = self.core.pump(self.now, AT_ONCE, &mut self.commands);
            let started = self.core.in_flight() - before;
            assert!(started <= AT_ONCE, "{started} at once");
            assert!(started == AT_ONCE || !more, "stopped after {started}");
        }
    }

    fn settle(&mut self) {
        self.last_settle = self.now;
        if let Some((number, settlement)) = self.core.take_settlement() {
            self.writer.settle(&settlement).unwrap();
            self.applied = number;
            self.step(Input::Applied(number));
        }
    }

    fn read(&mut self) {
        if self.reads_wait {
            return;
        }
        let applied = self.applied;
        let (ready, rest) = std::mem::take(&mut self.reads)
            .into_iter()
            .partition(|read: &Read| read.settled <= applied);
        self.reads = rest;
        let ready: Vec<Read> = ready;
        for read in ready {
            let page = read_page(self.reader.as_ref(), read, self.now);
            self.step(page);
            self.pump();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Start(job) => self.start(&job),
            Command::Read(read) => self.reads.push(read),
            Command::Announce(announcement) => self.told.push((self.now, announcement)),
            Command::Disable(endpoint, _) => self.change(endpoint, |plan| plan.sending = false),
            Command::Cancelled(endpoint, so_far, settled) => {
                self.walks.push((endpoint, so_far, settled));
            }
            Command::Ended(_, _, Ending::Reopened) => self.open += 1,
            Command::Ended(..) => self.open -= 1,
        }
    }

    fn start(&mut self, job: &Job) {
        let peer = self.peers.get_mut(&job.endpoint).unwrap();
        peer.under_way += 1;
        peer.most_under_way = peer.most_under_way.max(peer.under_way);
        self.count += 1;
        let delivery = Delivery {
            at: job.message.at,
            endpoint: job.endpoint,
        };
        self.ends
            .push(Reverse((self.now.plus(peer.takes), self.count, delivery)));
    }

    fn end(&mut self, delivery: Delivery) {
        let peer = self.peers.get_mut(&delivery.endpoint).unwrap();
        peer.under_way -= 1;
        let takes = peer.takes;
        let outcome = peer.script.pop_front().unwrap_or(peer.then).outcome();
        self.seen.push(Seen {
            start: self.now.minus(takes),
            endpoint: delivery.endpoint,
            at: delivery.at,
            status: outcome.status,
        });
        let random = self.random.random();
        self.step(Input::Finished(Box::new(Finished {
            delivery,
            outcome,
            duration_ms: u32::try_from(takes.as_millis()).unwrap(),
            response: bytes::Bytes::new(),
            resolver_down: false,
            random,
        })));
    }

    /// Every delivery is in exactly one state, and all counters agree with the store.
    pub(crate) fn census(&mut self) {
        self.settle();
        let (mut open, mut rows_in_memory) = (0, 0);
        for message in self.messages.clone() {
            for &endpoint in &message.targets {
                let delivery = Delivery {
                    at: message.at,
                    endpoint,
                };
                let attempts = self.attempts(message.at, endpoint);
                let rows = self
                    .rows(endpoint)
                    .into_iter()
                    .filter(|row| row.key.at == message.at)
                    .count();
                let live = self.core.state(delivery).is_some();
                let ended = attempts
                    .iter()
                    .any(|a| !matches!(a.verdict, Verdict::RetryAt(_)))
                    || self.reader.is_cancelled(delivery).unwrap();
                assert!(rows <= 1, "{delivery:?} is parked {rows} times");
                rows_in_memory += usize::from(live && rows == 1);
                let held = live || rows == 1;
                assert!(
                    held || ended || self.peers[&endpoint].plan.deleted,
                    "{delivery:?} is lost"
                );
                open += i64::from(held);
            }
        }
        let rows: usize = self
            .peers
            .keys()
            .map(|endpoint| self.rows(*endpoint).len())
            .sum();
        assert_eq!(
            u64::try_from(rows).unwrap(),
            self.core.parked(),
            "parked rows"
        );
        assert_eq!(
            open, self.open,
            "open deliveries; {rows_in_memory} rows are in memory"
        );
    }
}

/// The seeds of a random test: `POSTHASTE_SEEDS` sets how many are run, `POSTHASTE_SEED` runs one.
pub(crate) fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("POSTHASTE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("POSTHASTE_SEEDS").unwrap_or(100)).collect(),
    }
}
