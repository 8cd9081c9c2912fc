//! Feeds the core and carries out its commands.
//!
//! One task owns the core. It takes whatever is waiting in its channels, steps the core through all
//! of it, starts what may start, and hands the settlement to the lane: at most one is under way, so
//! settlements are applied in order and grow with the load. Nothing here decides.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::error;

use super::announce::Announcer;
use super::core::{Command, Core, Ending, Finished, Input, Job, Read, Stored};
use super::lookup::{self, Asked, Lookup, looked_up};
use super::pages::read_page;
use super::starting::Starting;
use super::under_way::{Replies, UnderWay, applied};
use super::walks::Walks;
use super::{Error, Open, Request, Status, plan};
use crate::base::task::{self, Stop};
use crate::base::{Clock, Timestamp};
use crate::config;
use crate::directory::Directory;
use crate::lane::{self, Committed, Lane};
use crate::metrics::{DELIVERY_SECONDS, ScheduleMetrics};
use crate::model::{Delivery, DeliveryState, Endpoint};
use crate::store::{Reader, Settlement};

/// A settlement waits this long for more to come, unless someone waits for it.
const GATHER: Duration = Duration::from_millis(5);
/// Beyond this many entries it does not wait.
const ENOUGH: usize = 512;
/// The driver looks at the clock at least this often while there is anything to deliver.
const BEAT: Duration = Duration::from_millis(100);
/// The same while there is nothing at all. Below what counts as stuck (`api::instance`, watchdog).
const IDLE_BEAT: Duration = Duration::from_secs(5);

/// Makes attempts.
pub trait Attempts: Send + Sync + 'static {
    /// An endpoint or the defaults changed: the time to say so if it cannot be called.
    fn changed(&self, _: &Endpoint) {}

    /// One attempt from start to end. Never panics; a missing endpoint is a failure like others.
    fn attempt(&self, job: Job) -> impl Future<Output = Exchange> + Send;
}

/// What an attempt came to.
#[derive(Debug)]
pub struct Exchange {
    /// Status or failure.
    pub outcome: crate::model::Outcome,
    /// The first 16 KiB of the answer.
    pub response: bytes::Bytes,
    /// Milliseconds it took.
    pub duration_ms: u32,
    /// No resolver answered.
    pub resolver_down: bool,
}

/// The driver's ends of the channels. Each is bounded; see where it is made.
pub struct Inbox {
    /// From the lane. When it is full the lane waits, and new messages are refused upstream.
    pub committed: mpsc::Receiver<Committed>,
    /// From the directory.
    pub changed: mpsc::Receiver<Arc<Endpoint>>,
    /// From the API.
    pub requests: mpsc::Receiver<Request>,
    /// From recovery; closed when it is done.
    pub recovered: mpsc::Receiver<Input>,
}

/// What the driver works with.
pub struct Parts<A> {
    /// Makes attempts.
    pub attempts: Arc<A>,
    /// Takes settlements.
    pub lane: Lane,
    /// Pages of parked rows.
    pub reader: Arc<dyn Reader>,
    /// Endpoints, and the counters of unfinished deliveries.
    pub directory: Arc<Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Defaults for endpoints.
    pub config: Arc<config::Delivery>,
    /// For the jitter; seeded so that a run can be replayed.
    pub random: ChaCha8Rng,
    /// Tells the operator.
    pub announcer: Announcer,
}

/// The scheduler's task.
pub struct Driver<A> {
    core: Core,
    parts: Parts<A>,
    inbox: Inbox,
    status: watch::Sender<Status>,
    metrics: ScheduleMetrics,
    /// From acceptance to delivery, seconds.
    latency: ::metrics::Histogram,
    commands: Vec<Command>,
    /// Ends of attempts. As many places as attempts may be under way, so nobody waits here.
    finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    /// Pages read. One place per endpoint that may be reading at once; when it is full the reading
    /// tasks wait.
    pages: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    reads: VecDeque<Read>,
    /// Requests that wait until everything taken so far is applied.
    queued: VecDeque<Request>,
    /// The store is being asked for one of them.
    lookup: Option<Lookup>,
    /// Endpoints whose deliveries are being cancelled, and who is told of it.
    walks: Walks,
    under_way: Option<UnderWay>,
    applied: u64,
    /// Monotonic, as the next two: a wall clock that goes back must not hold up a settlement.
    gathering_since: Option<Duration>,
    last_settled: Duration,
    last_report: Duration,
    recovering: bool,
    starting: Arc<Starting>,
    /// The state of now is the one that was reported.
    rests: bool,
}

impl<A: Attempts> Driver<A> {
    /// Prepares the driver; `core` was told of all endpoints, states and lanes.
    pub fn new(core: Core, parts: Parts<A>, inbox: Inbox, status: watch::Sender<Status>) -> Self {
        let places = parts.config.max_in_flight.max(1);
        Self {
            core,
            parts,
            inbox,
            status,
            metrics: ScheduleMetrics::register(),
            latency: ::metrics::histogram!(DELIVERY_SECONDS),
            commands: Vec::new(),
            finished: mpsc::channel(places),
            pages: mpsc::channel(64),
            reads: VecDeque::new(),
            queued: VecDeque::new(),
            lookup: None,
            walks: Walks::default(),
            under_way: None,
            applied: 0,
            gathering_since: None,
            last_settled: Duration::ZERO,
            last_report: Duration::ZERO,
            recovering: true,
            starting: Arc::new(Starting::new(1)),
            rests: false,
        }
    }

    /// Runs until told to stop and the attempts under way have ended. Their owner bounds the wait:
    /// what is cut off is sent again after the restart. Not cancel safe.
    pub async fn run(mut self, mut stop: Stop) {
        let mut stopping = false;
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        self.starting = Arc::new(Starting::new(threads));
        loop {
            let wait = self.wait();
            let open = !self.is_held();
            tokio::select! {
                biased;
                () = stop.stopped(), if !stopping => {
                    stopping = true;
                    self.core.drain();
                }
                done = applied(&mut self.under_way) => {
                    if !self.settled(done) {
                        return;
                    }
                }
                Some(finished) = self.finished.1.recv(), if open => self.take_finished(finished),
                Some(page) = self.pages.1.recv(), if open => self.step(page),
                input = self.inbox.recovered.recv(), if self.recovering => match input {
                    Some(input) => self.step(input),
                    None => self.recovering = false,
                },
                Some(group) = self.inbox.committed.recv(), if open && !self.recovering => {
                    self.take_committed(group);
                }
                found = looked_up(&mut self.lookup) => self.take_found(found),
                Some(endpoint) = self.inbox.changed.recv(), if self.lookup.is_none() => {
                    self.take_endpoint(&endpoint);
                }
                Some(request) = self.inbox.requests.recv() => self.take_request(request),
                () = self.starting.has_room() => {}
                () = task::pause(wait) => {}
            }
            self.turn();
            if stopping && self.core.in_flight() == 0 && self.is_settled() {
                return;
            }
        }
    }

    /// Everything that is waiting, then what follows from it.
    fn turn(&mut self) {
        if !self.is_held() {
            self.take_waiting();
            self.begin_walks();
        }
        let now = self.parts.clock.now();
        self.start_what_may(now);
        self.settle(now);
        self.start_reads();
        self.walks.tell(self.applied);
        self.report(now);
    }

    /// Carries out what was decided, and starts attempts no faster than they begin ([`Starting`]).
    fn start_what_may(&mut self, now: Timestamp) {
        while !self.recovering {
            let room = self.starting.room();
            let more = self.core.pump(now, room, &mut self.commands);
            self.carry_out();
            if !more || !self.starting.want() {
                return;
            }
        }
        self.carry_out();
    }

    /// What is in the channels, and the time.
    fn take_waiting(&mut self) {
        while let Ok(finished) = self.finished.1.try_recv() {
            self.take_finished(finished);
        }
        while !self.recovering
            && let Ok(group) = self.inbox.committed.try_recv()
        {
            self.take_committed(group);
        }
        while let Ok(page) = self.pages.1.try_recv() {
            self.step(page);
        }
        let now = self.parts.clock.now();
        if self.core.next_wakeup().is_some_and(|at| at <= now) {
            self.core.step(now, Input::Tick, &mut self.commands);
        }
    }

    /// While a request waits, nothing else that changes deliveries is taken in: it must see a store
    /// to which everything is applied, and under load there would always be something more. Two
    /// settlements later, in milliseconds, it is served.
    fn is_held(&self) -> bool {
        (!self.queued.is_empty() || self.lookup.is_some()) && !self.recovering
    }

    fn step(&mut self, input: Input) {
        let now = self.parts.clock.now();
        self.core.step(now, input, &mut self.commands);
    }

    fn take_committed(&mut self, group: Committed) {
        let Committed {
            lane,
            last,
            messages,
        } = group;
        self.step(Input::Committed {
            lane,
            last,
            messages,
        });
    }

    fn take_finished(&mut self, mut finished: Finished) {
        finished.random = self.parts.random.random();
        self.step(Input::Finished(Box::new(finished)));
    }

    fn take_endpoint(&mut self, endpoint: &Endpoint) {
        self.parts.attempts.changed(endpoint);
        let quota = plan::quota(&self.parts.directory.peek(), endpoint.app);
        self.step(Input::Quota(endpoint.app, quota));
        self.step(Input::Endpoint(Box::new(plan::of(
            endpoint,
            &self.parts.config,
        ))));
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Live(of, reply) => {
                let states: Vec<Option<DeliveryState>> = of
                    .into_iter()
                    .map(|delivery| self.core.state(delivery))
                    .collect();
                task::answer(reply, states);
            }
            Request::Open(endpoint, reply) => {
                let (waiting, sending) = self.core.open(endpoint);
                task::answer(reply, Open { waiting, sending });
            }
            Request::Sending(most, reply) => {
                let under_way = (self.core.sending(most), self.core.in_flight());
                task::answer(reply, under_way);
            }
            Request::CancelPending(endpoint, told) => self.walks.wanted(endpoint, told),
            Request::Defaults(defaults) => {
                self.parts.config = defaults;
                for endpoint in self.parts.directory.snapshot().endpoints() {
                    self.take_endpoint(endpoint);
                }
            }
            request @ (Request::Retry { .. } | Request::Cancel(..)) => {
                self.queued.push_back(request);
            }
        }
    }

    /// Begins what is wanted, once everything that was accepted before it is known.
    fn begin_walks(&mut self) {
        if self.recovering {
            return;
        }
        while let Some(endpoint) = self.walks.begin() {
            self.step(Input::CancelPending(endpoint));
        }
    }

    fn carry_out(&mut self) {
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Start(job) => self.start(job),
                Command::Read(read) => self.reads.push_back(read),
                Command::Disable(endpoint, reason) => {
                    self.metrics.disabled(reason).increment(1);
                    self.parts.announcer.disable(endpoint, reason);
                }
                Command::Announce(announcement) => self.parts.announcer.announce(announcement),
                Command::Cancelled(endpoint, so_far, settled) => {
                    self.walks.heard(endpoint, so_far, settled);
                }
                Command::Ended(app, bytes, ending) => self.count(app, bytes, ending),
            }
        }
    }

    fn start(&self, job: Job) {
        let attempts = Arc::clone(&self.parts.attempts);
        let done = self.finished.0.clone();
        let clock = Arc::clone(&self.parts.clock);
        let latency = self.latency.clone();
        let waiting = self.starting.start();
        task::detach(async move {
            let delivery = Delivery {
                at: job.message.at,
                endpoint: job.endpoint,
            };
            let accepted = job.message.accepted;
            let exchange = waiting.until_begun(attempts.attempt(job)).await;
            if exchange.outcome.failure.is_none() {
                latency.record(clock.now().since(accepted).as_secs_f64());
            }
            let finished = Finished {
                delivery,
                outcome: exchange.outcome,
                duration_ms: exchange.duration_ms,
                response: exchange.response,
                resolver_down: exchange.resolver_down,
                random: 0.5, // drawn by the driver, in order
            };
            if done.send(finished).await.is_err() {} // the driver is gone: sent again later
        });
    }

    fn count(&self, app: crate::model::AppNo, bytes: u64, ending: Ending) {
        let directory = self.parts.directory.peek();
        let load = directory
            .app_by_no(app)
            .map(|entry| Arc::clone(&entry.load));
        // An application that is gone has taken what it had pending out of the sum already.
        if let Some(load) = load {
            if ending == Ending::Reopened {
                load.add(1, bytes);
            } else {
                load.remove(1, bytes);
            }
        }
        if let Some(state) = ending.state()
            && let Some(finished) = self.metrics.finished(state)
        {
            finished.increment(1);
        }
    }

    /// Hands the settlement over when it is time.
    fn settle(&mut self, now: Timestamp) {
        if let Some(under_way) = &mut self.under_way {
            under_way.again(&self.parts.lane);
            return;
        }
        if self.lookup.is_some() {
            return; // nothing may change meanwhile, and what does not wait for it goes along after it
        }
        if !self.queued.is_empty() && self.core.unsettled() == 0 && !self.recovering {
            return self.serve_request();
        }
        let entries = self.core.unsettled();
        let passed = self.parts.clock.monotonic();
        if entries > 0 {
            self.gathering_since.get_or_insert(passed);
        }
        let waited = self
            .gathering_since
            .is_some_and(|since| passed.saturating_sub(since) >= GATHER);
        let wanted = !self.queued.is_empty() || !self.reads.is_empty();
        let beat = passed.saturating_sub(self.last_settled) >= BEAT;
        if !(waited || beat || entries >= ENOUGH || (wanted && entries > 0)) {
            return;
        }
        self.gathering_since = None;
        self.last_settled = passed;
        self.status.send_modify(|status| status.last_settled = now);
        if let Some((number, settlement)) = self.core.take_settlement() {
            self.hand_over(number, settlement, Vec::new());
        }
    }

    fn hand_over(&mut self, number: u64, settlement: Settlement, replies: Replies) {
        let under_way = UnderWay::begin(&self.parts.lane, number, settlement, replies);
        self.under_way = Some(under_way);
    }

    /// The settlement under way is applied; false = the store failed and the process is ending.
    fn settled(&mut self, done: Result<(), lane::Error>) -> bool {
        let Some(under_way) = self.under_way.take() else {
            return true;
        };
        let stored = done.is_ok();
        for (reply, count) in under_way.replies {
            let answer = if stored {
                Ok(count)
            } else {
                Err(Error::NotStored)
            };
            task::answer(reply, answer);
        }
        if let Err(cause) = done {
            error!(%cause, "a settlement was not stored; its deliveries are sent again later");
            return false;
        }
        self.applied = under_way.number;
        self.walks.tell(self.applied);
        self.step(Input::Applied(under_way.number));
        true
    }

    /// Everything taken so far is in the store: what it says of a delivery is the truth.
    fn serve_request(&mut self) {
        let Some(asked) = self.queued.pop_front().and_then(Asked::of) else {
            return;
        };
        let core = &self.core;
        self.lookup = Some(Lookup::begin(
            asked,
            |delivery| core.state(delivery).is_some(),
            Arc::clone(&self.parts.reader),
            (self.parts.directory.snapshot(), self.parts.clock.now()),
        ));
    }

    /// The store was asked for a request: now it is carried out.
    fn take_found(&mut self, found: Result<Vec<Stored>, Error>) {
        let Some(Lookup { asked, .. }) = self.lookup.take() else {
            return;
        };
        let stored = match found {
            Ok(stored) => stored,
            Err(cause) => return task::answer(asked.reply, Err(cause)),
        };
        let count = stored.len();
        self.step(lookup::input(asked.retry, stored));
        self.carry_out();
        match self.core.take_settlement() {
            Some((number, settlement)) => {
                self.hand_over(number, settlement, vec![(asked.reply, count)]);
            }
            None => task::answer(asked.reply, Ok(count)),
        }
    }

    /// Starts the reads whose settlements are applied.
    fn start_reads(&mut self) {
        let applied = self.applied;
        let ready: Vec<Read> = self
            .reads
            .iter()
            .filter(|r| r.settled <= applied)
            .copied()
            .collect();
        if ready.is_empty() {
            return;
        }
        self.reads.retain(|read| read.settled > applied);
        let now = self.parts.clock.now();
        for read in ready {
            let reader = Arc::clone(&self.parts.reader);
            let pages = self.pages.0.clone();
            task::detach(async move {
                let page = task::blocking(move || read_page(reader.as_ref(), read, now)).await;
                if let Some(page) = page
                    && pages.send(page).await.is_err()
                {} // the driver is gone
            });
        }
    }

    /// Nothing is waiting, under way, parked or to be written: only an input can change that.
    fn is_idle(&self) -> bool {
        self.core.in_memory() == 0
            && self.core.parked() == 0
            && self.core.in_flight() == 0
            && self.is_settled()
            && self.queued.is_empty()
            && self.reads.is_empty()
            && self.lookup.is_none()
            && !self.recovering
    }

    fn is_settled(&self) -> bool {
        self.under_way.is_none() && self.core.unsettled() == 0
    }

    /// Until when there is nothing to do by itself.
    fn wait(&self) -> Duration {
        if self.rests && self.is_idle() {
            return IDLE_BEAT;
        }
        let now = self.parts.clock.now();
        let timer = self.core.next_wakeup().map_or(BEAT, |at| at.since(now));
        let gather = match self.gathering_since {
            Some(since) if self.under_way.is_none() => {
                let passed = self.parts.clock.monotonic();
                GATHER.saturating_sub(passed.saturating_sub(since))
            }
            _ => BEAT,
        };
        let again = match &self.under_way {
            Some(under_way) if under_way.is_waiting() => Duration::from_millis(1),
            _ => BEAT,
        };
        timer
            .min(gather)
            .min(again)
            .min(BEAT)
            .max(Duration::from_millis(1))
    }

    fn report(&mut self, now: Timestamp) {
        let before = *self.status.borrow();
        let passed = self.parts.clock.monotonic();
        let recent = passed.saturating_sub(self.last_report) < BEAT;
        if recent && before.recovered != self.recovering {
            self.rests = false; // what was reported last is not the last
            return;
        }
        self.rests = true;
        self.last_report = passed;
        let status = Status {
            last_turn: now,
            oldest_runnable: self.core.oldest_runnable(),
            last_progress: self.core.last_progress(),
            in_memory: self.core.in_memory(),
            in_flight: self.core.in_flight(),
            parked: self.core.parked(),
            recovered: !self.recovering,
            last_settled: before.last_settled,
        };
        let (pending, _) = self.parts.directory.total().pending();
        let oldest = status
            .oldest_runnable
            .map_or(Duration::ZERO, |since| now.since(since));
        self.metrics.pending.set(figure(pending));
        self.metrics.in_memory.set(figure(count(status.in_memory)));
        self.metrics.parked.set(figure(status.parked));
        self.metrics.in_flight.set(figure(count(status.in_flight)));
        self.metrics.oldest_pending.set(oldest.as_secs_f64());
        self.status.send_replace(status);
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A count as a gauge wants it: exact below 2^32, saturating beyond.
fn figure(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}
