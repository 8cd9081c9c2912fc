//! What is known and remembered of one endpoint, and of one delivery in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::Timestamp;
use crate::model::{
    AppNo, DisablePolicy, EndpointNo, EndpointState, Health, Message, Order, ParkedKey, Position,
    Trigger,
};
use crate::policy::limit::Throttle;
use crate::policy::retry::{self, RetryPlan};

use super::cancel::Walk;
use super::clock::Strays;
use super::collapse::Newest;
use super::order::Keys;
use super::{Course, Kind};

/// Deliveries that every endpoint may hold in memory, however full it is.
const FLOOR: usize = 16;

/// What the scheduler must know of an endpoint, with the instance's defaults filled in.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which endpoint.
    pub endpoint: EndpointNo,
    /// Whose it is.
    pub app: AppNo,
    /// Changes with the URL and says nothing else of it.
    pub destination: u64,
    /// Attempts may start.
    pub sending: bool,
    /// Its owner switched it off.
    pub disabled_by_hand: bool,
    /// It is gone: what is open counts as cancelled.
    pub deleted: bool,
    /// Attempts at the same time.
    pub concurrency: u16,
    /// Attempts per second.
    pub rate: Option<u16>,
    /// What follows a failure. Shared by endpoints for which it is the same.
    pub failing: Arc<Failing>,
    /// Whether deliveries keep their order.
    pub order: Order,
}

/// What follows a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing {
    /// When failed deliveries are tried again.
    pub retry: RetryPlan,
    /// When the endpoint is switched off.
    pub disable: DisablePolicy,
}

/// A delivery in memory.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) message: Arc<Message>,
    /// When it came to wait.
    pub(super) entered: Timestamp,
    pub(super) attempts: u16,
    pub(super) course: Course,
    /// Its row, if it was parked; taken out when it is settled.
    pub(super) row: Option<ParkedKey>,
    pub(super) order_key: u64,
    pub(super) sending: bool,
    /// When its attempt began; only while it is sending.
    pub(super) started: Timestamp,
    /// Cancelled while an attempt was under way.
    pub(super) cancelled: bool,
}

impl Live {
    /// Until when it must wait for its first attempt, if its sender said so: not once it has waited so
    /// long (what waited behind another of its key has not), and not if somebody wants it tried now.
    pub(super) fn put_off(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.message.deliver_at()?;
        let is_fresh = self.attempts == 0 && self.course.trigger == Trigger::Scheduled;
        let has_waited = self.row.is_some_and(|row| row.due >= due);
        let waits = is_fresh && !has_waited && !retry::is_due(due, now);
        waits.then_some(due)
    }
}

/// One endpoint.
pub(super) struct Slot {
    pub(super) plan: Plan,
    pub(super) throttle: Throttle,
    pub(super) health: Health,
    /// Deliveries that may start, in order.
    pub(super) queue: VecDeque<Position>,
    pub(super) in_flight: usize,
    /// Rows of the sort `retry` that are in memory.
    pub(super) retries_in_hand: usize,
    pub(super) backlog: Head,
    pub(super) retry: Head,
    /// Present while everything of it that is not finished is being cancelled.
    pub(super) walk: Option<Box<Walk>>,
    /// Rows that are due too late.
    pub(super) strays: Strays,
    /// Present once a message with a collapse key came.
    pub(super) newest: Option<Box<Newest>>,
    /// Present at endpoints with `order: key`.
    pub(super) keys: Option<Box<Keys>>,
    pub(super) parked: u64,
    pub(super) parked_bytes: u64,
    /// No page is asked for before: there was no room for the last one.
    pub(super) hold_reads: Timestamp,
    /// The earliest wake-up that is set.
    pub(super) timer: Option<Timestamp>,
    /// It is in the ring of endpoints that may have something to start.
    pub(super) ready: bool,
    /// Its state must be written.
    pub(super) dirty: bool,
    /// When a success was last written, so that it is written now and then only.
    pub(super) success_written: Timestamp,
}

/// Where the rows of one kind begin.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Earliest due time of a row that is not in memory; `None` = there is none.
    pub(super) due: Option<Timestamp>,
    /// The last row taken into memory; reading goes on behind it. In a box, as the next: most endpoints
    /// have nothing parked.
    cursor: Option<Box<ParkedKey>>,
    /// A page is being read.
    pub(super) reading: bool,
    /// First row put in while a page was being read.
    noted: Option<Box<ParkedKey>>,
}

impl Head {
    /// A row was put in, or one that was in memory is only in the store again.
    pub(super) fn note(&mut self, key: ParkedKey) {
        if self.cursor().is_some_and(|cursor| key <= cursor) {
            self.cursor = None;
        }
        self.due = Some(self.due.map_or(key.due, |due| due.min(key.due)));
        if self.reading {
            let first = self.noted().map_or(key, |first| first.min(key));
            self.noted = Some(Box::new(first));
        }
    }

    /// The first row put in while a page was being read.
    pub(super) fn noted(&self) -> Option<ParkedKey> {
        self.noted.as_deref().copied()
    }

    /// The last row taken into memory.
    pub(super) fn cursor(&self) -> Option<ParkedKey> {
        self.cursor.as_deref().copied()
    }

    /// The next page is read from the start.
    pub(super) fn start_over(&mut self) {
        self.cursor = None;
    }

    /// A page came back: `last` is the last row dealt with, `next` the due time of the first row
    /// that was left.
    pub(super) fn read(&mut self, last: Option<ParkedKey>, next: Option<Timestamp>) {
        self.reading = false;
        let noted = self.noted.take().map(|key| *key);
        self.due = match (next, noted.map(|key| key.due)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if noted.is_some() && noted <= last {
            self.cursor = None; // it may stand before what was read: look from the start
        } else if last.is_some() {
            self.cursor = last.map(Box::new);
        }
    }
}

impl Slot {
    pub(super) fn new(plan: Plan) -> Self {
        let throttle = Throttle::new(plan.concurrency, plan.rate);
        let keys = Keys::wanted(plan.order);
        Self {
            plan,
            throttle,
            health: Health::default(),
            queue: VecDeque::new(),
            in_flight: 0,
            retries_in_hand: 0,
            backlog: Head::default(),
            retry: Head::default(),
            walk: None,
            strays: Strays::default(),
            newest: None,
            keys,
            parked: 0,
            parked_bytes: 0,
            hold_reads: Timestamp::ZERO,
            timer: None,
            ready: false,
            dirty: false,
            success_written: Timestamp::ZERO,
        }
    }

    pub(super) const fn state(&self) -> EndpointState {
        EndpointState {
            health: self.health,
            parked: self.parked,
            parked_bytes: self.parked_bytes,
        }
    }

    pub(super) const fn head(&mut self, kind: Kind) -> &mut Head {
        match kind {
            Kind::Backlog => &mut self.backlog,
            Kind::Retry | Kind::Stray => &mut self.retry,
        }
    }

    /// Whether it may hold one more delivery in memory although memory is full: a few each, so that
    /// one endpoint's backlog never keeps another from being served.
    pub(super) fn has_floor(&self) -> bool {
        self.queue.len() + self.in_flight < FLOOR
    }

    /// Rows to read at once: what can start soon.
    pub(super) fn page(&self) -> usize {
        usize::from(self.plan.concurrency)
            .saturating_mul(2)
            .clamp(8, 256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;

    /// A hundred thousand idle endpoints take twice these, 64 bytes more a step of the allocator's.
    #[test]
    fn what_every_idle_endpoint_has_stays_small() {
        assert!(size_of::<Slot>() <= 320, "{}", size_of::<Slot>());
        let shared = size_of::<Endpoint>() + 2 * size_of::<usize>();
        assert!(shared <= 448, "{shared}");
    }
}
