//! The state machine of all live deliveries: `(now, input)` in, commands out. Pure.
//!
//! Memory holds what is waiting for a slot or being sent, and per endpoint one due time for what is parked in
//! the store. A delivery leaves memory when it is finished, when its next attempt is due later, when its
//! endpoint is switched off, or when it waited [`Settings::spill_after`]: so memory never grows with the
//! backlog and the checkpoint always moves. A message with a time of delivery is put off when its turn has
//! come (`finish`, ADR 0342).
//!
//! Fairness: applications take turns, and within one its endpoints; no application may have more
//! than twice as many attempts under way as there are free slots, nor than its quota. Order: see [`order`].
//!
//! Elsewhere: limits of one endpoint (`policy::limit`), what an outcome means (`policy::retry`,
//! `policy::health`), carrying out commands (`schedule::driver`).

#![deny(clippy::wildcard_enum_match_arm)]

mod cancel;
mod clock;
mod collapse;
mod finish;
mod open;
mod order;
mod parked;
mod ready;
mod requests;
mod slot;
mod unapplied;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::base::Timestamp;
use crate::model::{
    AppNo, AttemptId, AttemptNo, Delivery, DeliveryState, DisableReason, EndpointNo, EndpointState,
    LaneId, Message, MessageId, Outcome, Parked, ParkedKey, Position, Trigger,
};
use crate::store::Settlement;

pub use cancel::Cancelled;
use open::OpenLane;
pub use order::order_key;
use ready::Ring;
pub use slot::{Failing, Plan};
use slot::{Live, Slot};
use unapplied::Unapplied;

/// Bounds of the whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Attempts at the same time in all.
    pub max_in_flight: usize,
    /// Deliveries in memory at most; what comes beyond is parked at once.
    pub max_in_memory: usize,
    /// Payload bytes of deliveries in memory at most.
    pub max_bytes: u64,
    /// Deliveries of one endpoint in memory at most.
    pub max_queue: usize,
    /// A delivery that waited so long for a slot is parked.
    pub spill_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_in_memory: 200_000,
            max_bytes: 256 << 20,
            max_queue: 16_384,
            spill_after: Duration::from_secs(5),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// An endpoint is there, was changed or was deleted.
    Endpoint(Box<Plan>),
    /// Attempts that an application may have under way; `None` = its share.
    Quota(AppNo, Option<usize>),
    /// At start: what the store remembers of an endpoint. Its plan was handed in before.
    State(EndpointNo, EndpointState),
    /// At start: a lane of an earlier run and its checkpoint.
    Lane(LaneId, u64),
    /// Messages are on stable storage, in order.
    Committed {
        /// Their lane.
        lane: LaneId,
        /// Last sequence number of the group.
        last: u64,
        /// Those that some endpoint wants.
        messages: Vec<Arc<Message>>,
    },
    /// At start: what was open when the last run ended; order and meaning as `Committed`, but only
    /// the named endpoints of each message are open.
    Recovered {
        /// Their lane.
        lane: LaneId,
        /// Everything up to here was looked at.
        last: u64,
        /// Open deliveries.
        open: Vec<(Arc<Message>, Vec<EndpointNo>)>,
    },
    /// An attempt ended.
    Finished(Box<Finished>),
    /// The answer to [`Command::Read`].
    Page {
        /// Which rows were asked for.
        read: Read,
        /// Rows in key order. Those due at `at` carry their message; `None` = it is gone or corrupt.
        rows: Vec<(Parked, Option<Arc<Message>>)>,
        /// There may be more behind the last one.
        more: bool,
        /// Those of the messages that a later one replaces, each with the newest such one.
        superseded: BTreeMap<Position, Position>,
        /// When they were read: what has become due since has no message yet.
        at: Timestamp,
    },
    /// A settlement taken with [`Core::take_settlement`] is applied.
    Applied(u64),
    /// Time passed.
    Tick,
    /// Someone wants these tried again; see `schedule::Request::Retry`. Read from the store after
    /// everything taken so far was applied.
    Retry {
        /// Which, with what the store says of each.
        deliveries: Vec<Stored>,
        /// A new schedule instead of one attempt.
        fresh: bool,
    },
    /// Someone wants these cancelled.
    Cancel(Vec<Stored>),
    /// Someone wants everything of an endpoint cancelled that is not finished.
    CancelPending(EndpointNo),
}

/// What the store says of a delivery that is not in memory.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which.
    pub delivery: Delivery,
    /// Its row, if it is parked.
    pub row: Option<Parked>,
    /// Attempts made.
    pub attempts: AttemptNo,
    /// Delivered, dead or cancelled.
    pub finished: bool,
    /// Payload length of its message.
    pub bytes: u32,
    /// Hash of its ordering key, or 0.
    pub order_key: u64,
    /// When the payload of its message ends, if it has a time of its own and nothing in the store says
    /// yet that it goes to this endpoint.
    pub ends: Option<Timestamp>,
}

impl Stored {
    /// A delivery that is in memory: the store has nothing to add.
    pub const fn in_memory(delivery: Delivery) -> Self {
        Self {
            delivery,
            row: None,
            attempts: 0,
            finished: false,
            bytes: 0,
            order_key: 0,
            ends: None,
        }
    }
}

/// An attempt that ended.
#[derive(Debug)]
pub struct Finished {
    /// Which delivery.
    pub delivery: Delivery,
    /// What came of it.
    pub outcome: Outcome,
    /// Milliseconds it took.
    pub duration_ms: u32,
    /// The first 16 KiB of the answer.
    pub response: bytes::Bytes,
    /// No resolver answered: a DNS failure is not the endpoint's.
    pub resolver_down: bool,
    /// Uniform in 0.0..1.0, for the jitter.
    pub random: f64,
}

/// What must be done.
#[derive(Debug)]
pub enum Command {
    /// Start an attempt; [`Input::Finished`] must follow.
    Start(Job),
    /// Read parked rows after everything settled so far is applied; [`Input::Page`] must follow.
    Read(Read),
    /// Switch an endpoint off; attempts have stopped already.
    Disable(EndpointNo, DisableReason),
    /// Tell the operator.
    Announce(Announcement),
    /// How far the answer to [`Input::CancelPending`] is; true once every settlement up to this
    /// number is applied.
    Cancelled(EndpointNo, Cancelled, u64),
    /// So many deliveries (payload bytes) of an application came to their end.
    Ended(AppNo, u64, Ending),
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// 2xx.
    Delivered,
    /// Schedule used up.
    Dead,
    /// Cancelled, or the endpoint is gone.
    Cancelled,
    /// A later message took its place.
    Superseded,
    /// A finished delivery is open again (resend, recover): the opposite of an end.
    Reopened,
}

impl Ending {
    /// The state that the delivery is in from then on; `None` = it has not ended.
    pub const fn state(self) -> Option<DeliveryState> {
        match self {
            Self::Delivered => Some(DeliveryState::Delivered),
            Self::Dead => Some(DeliveryState::Dead),
            Self::Cancelled => Some(DeliveryState::Cancelled),
            Self::Superseded => Some(DeliveryState::Superseded),
            Self::Reopened => None,
        }
    }
}

/// An attempt to be made.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where to.
    pub endpoint: EndpointNo,
    /// What.
    pub message: Arc<Message>,
    /// Number of this attempt, counted over the whole life of the delivery.
    pub no: AttemptNo,
    /// Attempts planned in all, never below `no`.
    pub total: AttemptNo,
}

/// A page of parked rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Whose.
    pub endpoint: EndpointNo,
    /// Backlog (due zero) or retries.
    pub kind: Kind,
    /// Behind this key.
    pub after: Option<ParkedKey>,
    /// Rows at most.
    pub limit: usize,
    /// Every settlement up to this number must be applied first.
    pub settled: u64,
    /// Its rows are to be cancelled: their messages are not needed.
    pub walk: bool,
    /// Pages are counted, so that what was taken out since one was read is not brought back by it.
    pub no: u64,
}

/// The sorts of parked rows. The first two have each its own head and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Waiting for a slot only.
    Backlog,
    /// Waiting for a time.
    Retry,
    /// Of the sort `Retry`, due later than any wait can have led to: written while the clock stood
    /// ahead.
    Stray,
}

/// What the operator is told; becomes a message of the operator application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// A delivery failed four times (or all but its last attempt).
    Failing(AttemptReport),
    /// A delivery's schedule is used up.
    Exhausted(AttemptReport),
    /// A success after `Failing`.
    Recovered(AttemptReport),
    /// An endpoint was switched off automatically.
    Disabled {
        /// Which.
        endpoint: EndpointNo,
        /// Why.
        reason: DisableReason,
        /// The first failure of the row.
        since: Option<Timestamp>,
    },
}

/// The attempt that an announcement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The message.
    pub message: Arc<Message>,
    /// Where it went.
    pub endpoint: EndpointNo,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its status, 0 = none.
    pub status: u16,
    /// When it ended.
    pub at: Timestamp,
}

/// All live delivery state.
pub struct Core {
    settings: Settings,
    /// In boxes: a table of so large values is half empty.
    slots: HashMap<EndpointNo, Box<Slot>>,
    /// That of the plan that came last: equal ones share it.
    failing: Option<Arc<Failing>>,
    live: HashMap<Delivery, Live>,
    lanes: HashMap<LaneId, OpenLane>,
    ring: Ring,
    /// Wake-ups of endpoints; outdated entries are harmless.
    timers: BinaryHeap<Reverse<(Timestamp, EndpointNo)>>,
    in_flight: usize,
    bytes: u64,
    parked: u64,
    settlement: Settlement,
    /// Endpoints whose state must go into the next settlement.
    dirty: Vec<EndpointNo>,
    unapplied: Unapplied,
    last_progress: Timestamp,
    next_sweep: Timestamp,
    /// The time of the last input.
    last_now: Timestamp,
    draining: bool,
}

impl Core {
    /// Empty state.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            slots: HashMap::new(),
            failing: None,
            live: HashMap::new(),
            lanes: HashMap::new(),
            ring: Ring::default(),
            timers: BinaryHeap::new(),
            in_flight: 0,
            bytes: 0,
            parked: 0,
            settlement: Settlement::default(),
            dirty: Vec::new(),
            unapplied: Unapplied::default(),
            last_progress: Timestamp::ZERO,
            next_sweep: Timestamp::ZERO,
            last_now: Timestamp::ZERO,
            draining: false,
        }
    }

    /// Moves the clock to `now`, takes one input, says what must happen. Call [`Core::pump`] after a
    /// row of inputs: only that starts attempts.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Command>) {
        self.look_at_clock(now);
        match input {
            Input::Endpoint(plan) => self.configure(*plan, out),
            Input::Quota(app, quota) => self.ring.set_quota(app, quota),
            Input::State(endpoint, state) => self.restore(now, endpoint, state),
            Input::Lane(lane, checkpoint) => {
                self.lanes.insert(lane, OpenLane::at(checkpoint));
            }
            Input::Committed {
                lane,
                last,
                messages,
            } => {
                for message in messages {
                    self.lanes.entry(lane).or_default().extend(message.at.seq);
                    for target in 0..message.targets.len() {
                        let Some(&endpoint) = message.targets.get(target) else {
                            break;
                        };
                        self.arrive(now, &message, endpoint, false, out);
                    }
                }
                self.lanes.entry(lane).or_default().extend(last);
            }
            Input::Recovered { lane, last, open } => {
                for (message, endpoints) in open {
                    self.lanes.entry(lane).or_default().extend(message.at.seq);
                    for endpoint in endpoints {
                        self.arrive(now, &message, endpoint, true, out);
                    }
                }
                self.lanes.entry(lane).or_default().extend(last);
            }
            Input::Finished(finished) => self.finish(now, *finished, out),
            Input::Page {
                read,
                rows,
                more,
                superseded,
                at,
            } => self.take_page((now, at), read, (rows, superseded), more, out),
            Input::Applied(number) => self.unapplied.applied(number),
            Input::Tick => self.tick(now),
            Input::Retry { deliveries, fresh } => self.retry(now, deliveries, fresh, out),
            Input::Cancel(deliveries) => self.cancel(deliveries, out),
            Input::CancelPending(endpoint) => self.cancel_pending(now, endpoint, out),
        }
    }

    /// No further attempt is started; those under way may finish.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The settlement gathered so far and its number, or `None` if there is nothing to write.
    /// Numbers grow by one; [`Input::Applied`] must follow in order.
    pub fn take_settlement(&mut self) -> Option<(u64, Settlement)> {
        for lane in &mut self.lanes {
            if let Some(checkpoint) = lane.1.moved() {
                self.settlement.checkpoint.push((*lane.0, checkpoint));
            }
        }
        self.settlement.checkpoint.sort_unstable(); // the map has no order
        for endpoint in self.dirty.drain(..) {
            if let Some(slot) = self.slots.get_mut(&endpoint) {
                slot.dirty = false;
                self.settlement.states.push((endpoint, slot.state()));
            }
        }
        if self.settlement.is_empty() {
            return None;
        }
        let settlement = std::mem::take(&mut self.settlement);
        let number = self.unapplied.taken(&settlement);
        Some((number, settlement))
    }

    /// Entries of the settlement gathered so far.
    pub fn unsettled(&self) -> usize {
        self.settlement.attempts.len()
            + self.settlement.park.len()
            + self.settlement.unpark.len()
            + self.settlement.cancelled.len()
            + self.settlement.superseded.len()
            + self.dirty.len()
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let sweep = (!self.live.is_empty()).then_some(self.next_sweep);
        match (timer, sweep) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The state of a delivery that is in memory.
    pub fn state(&self, delivery: Delivery) -> Option<DeliveryState> {
        let live = self.live.get(&delivery)?;
        let sending = self
            .slots
            .get(&delivery.endpoint)
            .is_some_and(|slot| slot.plan.sending);
        Some(if live.sending {
            DeliveryState::Sending
        } else if !sending {
            DeliveryState::Held
        } else if live.attempts > 0 {
            DeliveryState::Retrying
        } else {
            DeliveryState::Pending
        })
    }

    /// Attempts under way, the longest first, `most` at most, each with its message and its start.
    pub fn sending(&self, most: usize) -> Vec<(Delivery, MessageId, Timestamp)> {
        let sending = self.live.iter().filter(|(_, live)| live.sending);
        let mut all: Vec<_> = sending
            .map(|(delivery, live)| (*delivery, live.message.id(), live.started))
            .collect();
        all.sort_unstable_by_key(|(delivery, _, started)| (*started, *delivery));
        all.truncate(most);
        all
    }

    /// Deliveries of an endpoint that wait, and those whose attempt is under way.
    pub fn open(&self, endpoint: EndpointNo) -> (u64, u64) {
        let Some(slot) = self.slots.get(&endpoint) else {
            return (0, 0);
        };
        let (mut waiting, mut sending) = (slot.parked, 0);
        for (_, live) in self.live.iter().filter(|(d, _)| d.endpoint == endpoint) {
            sending += u64::from(live.sending);
            match (live.row, live.sending) {
                (None, false) => waiting += 1,
                (Some(_), true) => waiting = waiting.saturating_sub(1),
                (None, true) | (Some(_), false) => {}
            }
        }
        (waiting, sending)
    }

    /// Deliveries in memory.
    pub fn in_memory(&self) -> usize {
        self.live.len()
    }

    /// Attempts under way.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries in the store.
    pub const fn parked(&self) -> u64 {
        self.parked
    }

    /// When an attempt last started or ended.
    pub const fn last_progress(&self) -> Timestamp {
        self.last_progress
    }

    /// Since when the oldest delivery waits that only lacks a free slot of the whole.
    pub fn oldest_runnable(&self) -> Option<Timestamp> {
        self.ring
            .waiting()
            .filter_map(|endpoint| {
                let slot = self.slots.get(&endpoint)?;
                let first = slot.queue.front()?;
                self.live
                    .get(&Delivery {
                        at: *first,
                        endpoint,
                    })
                    .map(|live| live.entered)
            })
            .min()
    }

    fn tick(&mut self, now: Timestamp) {
        while let Some(&Reverse((at, endpoint))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            if let Some(slot) = self.slots.get_mut(&endpoint) {
                slot.timer = slot.timer.filter(|set| *set != at);
            }
            self.wake(endpoint);
        }
        if now >= self.next_sweep {
            self.next_sweep = now.plus(Duration::from_secs(1));
            self.sweep(now);
        }
    }

    fn mark_dirty(&mut self, endpoint: EndpointNo) {
        if let Some(slot) = self.slots.get_mut(&endpoint)
            && !slot.dirty
        {
            slot.dirty = true;
            self.dirty.push(endpoint);
        }
    }

    /// The delivery at `at` is settled or parked: its lane may move its checkpoint.
    fn close(&mut self, at: Position) {
        if let Some(lane) = self.lanes.get_mut(&at.lane) {
            lane.close(at.seq);
        }
    }
}

/// What the next attempt of a delivery counts as, and what it may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Course {
    /// Attempts made.
    attempts: AttemptNo,
    /// Attempts made when the schedule began.
    base: AttemptNo,
    trigger: Trigger,
    /// One attempt only: the delivery was finished before.
    once: bool,
}
