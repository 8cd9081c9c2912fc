//! What each connection is doing, and how long it may go on doing it.
//!
//! A connection notes bytes and requests in a few relaxed atomics; once per tick the server's sweep
//! looks at all of them and tells the late ones to close. So deadlines cost a request nothing but
//! stores, whatever their number. Time is counted in ticks of 100 ms since the server began, which is
//! also the precision of every deadline here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Length of a tick.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// While draining, a connection without a request is closed after this: what was already under way
/// to us when the drain began has come in by then.
const DRAIN_IDLE: u32 = 5;
/// No head has begun.
const NONE: u32 = 0;

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const CLOSE: u8 = 2;

/// How long each phase may take, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) head: u32,
    pub(super) body: u32,
    pub(super) idle: u32,
}

/// Why a connection was told to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// A head that does not end.
    Head,
    /// A body that does not end.
    Body,
    /// Nothing under way.
    Idle,
    /// An answer that is not read.
    Reader,
}

impl Late {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Head => "slow head",
            Self::Body => "slow body",
            Self::Idle => "idle",
            Self::Reader => "slow reader",
        }
    }
}

/// What the other side of a connection is at, as a log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// Its request's body is not complete.
    Sending,
    /// It waits for its answer.
    Waiting,
    /// It does not read its answer.
    Reading,
    /// No request is under way.
    Nothing,
}

impl Busy {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sending => "its request is not complete",
            Self::Waiting => "its request is not answered",
            Self::Reading => "its answer is not read",
            Self::Nothing => "no request is under way",
        }
    }
}

/// Ticks since the server began; starts with 1, so that 0 can mean "none".
#[derive(Clone)]
pub(super) struct Ticks(Arc<AtomicU32>);

impl Ticks {
    pub(super) fn start() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }

    pub(super) fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A duration in ticks, rounded up.
pub(super) fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX)
}

/// The state of one connection. Written by its task, read by the sweep.
pub(super) struct Activity {
    ticks: Ticks,
    /// The other side.
    peer: SocketAddr,
    /// Last byte in or out.
    last_io: AtomicU32,
    /// Last time that a request was answered.
    last_answer: AtomicU32,
    /// When the first byte of a head came that is not complete; [`NONE`] between requests.
    head_since: AtomicU32,
    /// Since when writing does not get on; [`NONE`] if it does.
    blocked_since: AtomicU32,
    /// Requests being answered.
    in_service: AtomicU32,
    /// Request bodies that are not complete; of a connection that is not shared.
    bodies: AtomicU32,
    /// Since when there has been one.
    body_since: AtomicU32,
    /// The same of a shared connection, each with a deadline of its own.
    shared_bodies: Mutex<Vec<Arc<SharedBody>>>,
    /// Requests share the connection: its bytes do not tell heads from other frames.
    is_shared: AtomicBool,
    command: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Activity {
    pub(super) fn new(ticks: Ticks, peer: SocketAddr) -> Self {
        let now = ticks.now();
        Self {
            ticks,
            peer,
            last_io: AtomicU32::new(now),
            last_answer: AtomicU32::new(now),
            // A connection that never says anything is a head that does not end.
            head_since: AtomicU32::new(now),
            blocked_since: AtomicU32::new(NONE),
            in_service: AtomicU32::new(0),
            bodies: AtomicU32::new(0),
            body_since: AtomicU32::new(0),
            shared_bodies: Mutex::new(Vec::new()),
            is_shared: AtomicBool::new(false),
            command: AtomicU8::new(RUN),
            waker: Mutex::new(None),
        }
    }

    pub(super) fn note_read(&self) {
        let now = self.ticks.now();
        self.last_io.store(now, Ordering::Relaxed);
        let between = self.in_service.load(Ordering::Relaxed) == 0;
        if between && self.head_since.load(Ordering::Relaxed) == NONE {
            self.head_since.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn note_written(&self) {
        self.last_io.store(self.ticks.now(), Ordering::Relaxed);
        self.blocked_since.store(NONE, Ordering::Relaxed);
    }

    pub(super) fn note_blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == NONE {
            self.blocked_since
                .store(self.ticks.now(), Ordering::Relaxed);
        }
    }

    /// A head is complete; the request is under way until [`Activity::answered`].
    pub(super) fn begin(&self, is_shared: bool) {
        if is_shared {
            self.is_shared.store(true, Ordering::Relaxed);
        }
        self.head_since.store(NONE, Ordering::Relaxed);
        self.in_service.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        let now = self.ticks.now();
        self.last_io.store(now, Ordering::Relaxed);
        self.last_answer.store(now, Ordering::Relaxed);
        self.in_service.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn body_begins(&self) {
        if self.bodies.fetch_add(1, Ordering::Relaxed) == 0 {
            self.body_since.store(self.ticks.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn body_ends(&self) {
        self.bodies.fetch_sub(1, Ordering::Relaxed);
    }

    /// A body of a shared connection begins.
    pub(super) fn shared_body_begins(&self) -> Arc<SharedBody> {
        let body = Arc::new(SharedBody {
            since: self.ticks.now(),
            is_late: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        self.shared_bodies.lock().push(Arc::clone(&body));
        body
    }

    pub(super) fn shared_body_ends(&self, body: &Arc<SharedBody>) {
        self.shared_bodies
            .lock()
            .retain(|open| !Arc::ptr_eq(open, body));
    }

    /// Ends the bodies of a shared connection that have taken too long; the others go on.
    fn end_late_bodies(&self, now: u32, patience: Patience) {
        for body in &*self.shared_bodies.lock() {
            if now.saturating_sub(body.since) > patience.body {
                body.is_late.store(true, Ordering::Release);
                if let Some(waker) = body.waker.lock().take() {
                    waker.wake();
                }
            }
        }
    }

    /// Whether any byte has come in since accept.
    pub(super) fn has_spoken(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
            || self.in_service.load(Ordering::Relaxed) > 0
            || self.head_since.load(Ordering::Relaxed) == NONE
    }

    /// What it is at, and since when in ticks.
    fn at(&self) -> (Busy, u32) {
        let get = |at: &AtomicU32| at.load(Ordering::Relaxed);
        if get(&self.blocked_since) != NONE {
            (Busy::Reading, get(&self.blocked_since))
        } else if get(&self.bodies) > 0 {
            (Busy::Sending, get(&self.body_since))
        } else if get(&self.in_service) > 0 {
            (Busy::Waiting, get(&self.last_io))
        } else {
            (Busy::Nothing, get(&self.last_io))
        }
    }

    /// What is late at `now`, if anything.
    fn late(&self, now: u32, patience: Patience, draining: bool) -> Option<Late> {
        let since = |at: &AtomicU32| now.saturating_sub(at.load(Ordering::Relaxed));
        let is_set = |at: &AtomicU32| at.load(Ordering::Relaxed) != NONE;
        if is_set(&self.blocked_since) {
            return (since(&self.blocked_since) > patience.idle).then_some(Late::Reader);
        }
        let is_shared = self.is_shared.load(Ordering::Relaxed);
        if self.in_service.load(Ordering::Relaxed) > 0 {
            let waits = self.bodies.load(Ordering::Relaxed) > 0;
            return (waits && since(&self.body_since) > patience.body).then_some(Late::Body);
        }
        let in_head = is_set(&self.head_since) && !is_shared;
        if in_head && since(&self.head_since) > patience.head {
            return Some(Late::Head);
        }
        // Frames that keep a shared connection alive do not keep it from being idle.
        let silent = if is_shared {
            since(&self.last_answer)
        } else {
            since(&self.last_io)
        };
        let goes = draining && silent > DRAIN_IDLE;
        (silent > patience.idle || goes).then_some(Late::Idle)
    }

    /// Remembers whom to wake, before the task looks at [`Activity::order`].
    pub(super) fn register(&self, waker: &Waker) {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub(super) fn order(&self) -> Order {
        match self.command.load(Ordering::Acquire) {
            RUN => Order::GoOn,
            DRAIN => Order::Drain,
            _ => Order::Close,
        }
    }

    fn tell(&self, command: u8) {
        if self.command.fetch_max(command, Ordering::Release) < command
            && let Some(waker) = self.waker.lock().take()
        {
            waker.wake();
        }
    }
}

/// The body of a request on a connection that has others as well.
pub(super) struct SharedBody {
    since: u32,
    is_late: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl SharedBody {
    /// Whether its time is over; if not yet, `waker` is woken when it is.
    pub(super) fn is_late(&self, waker: &Waker) -> bool {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        drop(slot);
        self.is_late.load(Ordering::Acquire)
    }
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    GoOn,
    /// Answer what is under way, then close.
    Drain,
    /// Close now.
    Close,
}

/// All open connections of a server.
pub(super) struct Registry {
    ticks: Ticks,
    patience: Patience,
    state: Mutex<Table>,
    /// Rung when a connection has closed.
    pub(super) closed: Notify,
    /// Rung when one was opened.
    pub(super) opened: Notify,
}

struct Table {
    open: HashMap<u64, Arc<Activity>>,
    next: u64,
    draining: bool,
}

impl Registry {
    pub(super) fn new(patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            ticks: Ticks::start(),
            patience,
            state: Mutex::new(Table {
                open: HashMap::new(),
                next: 0,
                draining: false,
            }),
            closed: Notify::new(),
            opened: Notify::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().open.len()
    }

    /// Counts a new connection until the answer is dropped.
    pub(super) fn open(self: &Arc<Self>, peer: SocketAddr) -> Entry {
        let activity = Arc::new(Activity::new(self.ticks.clone(), peer));
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Arc::clone(&activity));
        if state.draining {
            activity.tell(DRAIN);
        }
        drop(state);
        // One waiter at most, the sweep; a ring without a waiter is kept for it.
        self.opened.notify_one();
        Entry {
            registry: Arc::clone(self),
            id,
            activity,
        }
    }

    /// Lets a tick pass and closes what is late.
    pub(super) fn sweep(&self) {
        let now = self.ticks.advance();
        let state = self.state.lock();
        for activity in state.open.values() {
            activity.end_late_bodies(now, self.patience);
            if let Some(late) = activity.late(now, self.patience, state.draining) {
                if !state.draining {
                    tracing::debug!(why = late.name(), "closing a connection");
                }
                activity.tell(CLOSE);
            }
        }
    }

    /// Tells all connections, and those still to come, to end after what they are at.
    pub(super) fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        for activity in state.open.values() {
            activity.tell(DRAIN);
        }
    }

    /// The connections that have been at something for the longest time, `most` at most.
    pub(super) fn busiest(&self, most: usize) -> Vec<(SocketAddr, Busy, Duration)> {
        let now = self.ticks.now();
        let state = self.state.lock();
        let mut all: Vec<_> = state
            .open
            .values()
            .map(|activity| (activity.at(), activity.peer))
            .collect();
        drop(state);
        all.sort_unstable_by_key(|((busy, since), _)| (*busy == Busy::Nothing, *since));
        all.truncate(most);
        let aged = |((busy, since), peer)| (peer, busy, TICK * now.saturating_sub(since));
        all.into_iter().map(aged).collect()
    }

    /// Tells all connections to close now.
    pub(super) fn close_all(&self) {
        for activity in self.state.lock().open.values() {
            activity.tell(CLOSE);
        }
    }
}

/// One open connection; closing is dropping.
pub(super) struct Entry {
    registry: Arc<Registry>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.state.lock().open.remove(&self.id);
        // One waiter at most, the acceptor or the drain; a ring without a waiter is kept for it.
        self.registry.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: 50,
        body: 300,
        idle: 600,
    };

    const PEER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

    fn at(ticks: &Ticks, now: u32) {
        ticks.0.store(now, Ordering::Relaxed);
    }

    fn fresh() -> (Ticks, Activity) {
        let ticks = Ticks::start();
        (ticks.clone(), Activity::new(ticks, PEER))
    }

    #[test]
    fn a_connection_that_says_nothing_is_a_slow_head() {
        let (_, activity) = fresh();
        assert_eq!(activity.late(51, PATIENCE, false), None);
        assert_eq!(activity.late(52, PATIENCE, false), Some(Late::Head));
    }

    #[test]
    fn dripping_bytes_do_not_prolong_a_head() {
        let (ticks, activity) = fresh();
        for now in 2..=52 {
            at(&ticks, now);
            activity.note_read();
        }
        assert_eq!(activity.late(52, PATIENCE, false), Some(Late::Head));
    }

    #[test]
    fn between_requests_the_idle_time_counts_and_then_the_next_head() {
        let (ticks, activity) = fresh();
        activity.begin(false);
        at(&ticks, 10);
        activity.answered();
        assert_eq!(activity.late(610, PATIENCE, false), None);
        assert_eq!(activity.late(611, PATIENCE, false), Some(Late::Idle));
        at(&ticks, 500);
        activity.note_read();
        assert_eq!(activity.late(551, PATIENCE, false), Some(Late::Head));
    }

    #[test]
    fn a_request_in_service_may_take_its_time_but_its_body_may_not() {
        let (ticks, activity) = fresh();
        activity.begin(false);
        activity.body_begins();
        at(&ticks, 200);
        activity.note_read();
        assert_eq!(activity.late(301, PATIENCE, false), None);
        assert_eq!(activity.late(302, PATIENCE, false), Some(Late::Body));
        activity.body_ends();
        assert_eq!(activity.late(100_000, PATIENCE, false), None);
    }

    #[test]
    fn a_slow_body_on_a_shared_connection_ends_alone() {
        let (ticks, activity) = fresh();
        let waker = Waker::noop();
        activity.begin(true);
        let slow = activity.shared_body_begins();
        at(&ticks, 250);
        activity.note_read(); // dripping bytes do not prolong it
        let other = activity.shared_body_begins();
        activity.end_late_bodies(301, PATIENCE);
        assert!(!slow.is_late(waker) && !other.is_late(waker));
        activity.end_late_bodies(302, PATIENCE);
        assert!(slow.is_late(waker) && !other.is_late(waker));
        assert_eq!(activity.late(100_000, PATIENCE, false), None);
        activity.shared_body_ends(&slow);
        assert_eq!(activity.shared_bodies.lock().len(), 1);
    }

    #[test]
    fn a_shared_connection_is_idle_in_spite_of_frames_that_keep_it_alive() {
        let (ticks, activity) = fresh();
        activity.begin(true);
        at(&ticks, 10);
        activity.answered();
        at(&ticks, 600);
        activity.note_read(); // a ping is no head and no request
        activity.note_written();
        assert_eq!(activity.late(610, PATIENCE, false), None);
        assert_eq!(activity.late(611, PATIENCE, false), Some(Late::Idle));
    }

    #[test]
    fn an_answer_nobody_reads_ends() {
        let (ticks, activity) = fresh();
        activity.begin(false);
        at(&ticks, 5);
        activity.note_blocked();
        assert_eq!(activity.late(605, PATIENCE, false), None);
        assert_eq!(activity.late(606, PATIENCE, false), Some(Late::Reader));
        activity.note_written();
        assert_eq!(activity.late(606, PATIENCE, false), None);
    }

    #[test]
    fn draining_closes_what_has_nothing_under_way() {
        let registry = Registry::new(PATIENCE);
        let (idle, busy) = (registry.open(PEER), registry.open(PEER));
        busy.activity.begin(false);
        registry.drain();
        assert_eq!(idle.activity.order(), Order::Drain);
        for _ in 0..=DRAIN_IDLE {
            registry.sweep();
        }
        assert_eq!(idle.activity.order(), Order::Close);
        assert_eq!(busy.activity.order(), Order::Drain);
        assert_eq!(registry.open(PEER).activity.order(), Order::Drain);
        registry.close_all();
        assert_eq!(busy.activity.order(), Order::Close);
        drop((idle, busy));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn durations_become_ticks_rounded_up() {
        assert_eq!(ticks(Duration::from_millis(100)), 1);
        assert_eq!(ticks(Duration::from_millis(101)), 2);
        assert_eq!(ticks(Duration::from_secs(5)), 50);
    }

    #[test]
    fn who_is_late_is_named_by_what_it_is_at_the_longest_first() {
        let registry = Registry::new(PATIENCE);
        let (idle, waiting, sending) = (
            registry.open(PEER),
            registry.open(PEER),
            registry.open(PEER),
        );
        at(&registry.ticks, 10);
        waiting.activity.note_read();
        waiting.activity.begin(false);
        at(&registry.ticks, 25);
        sending.activity.begin(false);
        sending.activity.body_begins();
        at(&registry.ticks, 40);
        let ms = Duration::from_millis;
        let all = [
            (PEER, Busy::Waiting, ms(3000)),
            (PEER, Busy::Sending, ms(1500)),
            (PEER, Busy::Nothing, ms(3900)),
        ];
        assert_eq!(registry.busiest(9), all);
        assert_eq!(registry.busiest(1), all[..1]);
        sending.activity.note_blocked();
        assert_eq!(registry.busiest(9)[1].1, Busy::Reading);
        drop(idle);
        assert_eq!(registry.busiest(9).len(), 2);
    }
}
