//! Into the store and back: parking, pages of rows, and what waited too long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::slot::Live;
use super::{Command, Core, Course, Ending, Kind, Read};
use crate::base::Timestamp;
use crate::model::{
    Delivery, EndpointNo, Message, Order, ParkReason, Parked, ParkedKey, Position, Trigger,
};
use crate::policy::retry;

/// Rows as they were read, and those whose messages are superseded.
type Rows = (
    Vec<(Parked, Option<Arc<Message>>)>,
    BTreeMap<Position, Position>,
);

/// A page for which there was no room is read again after this.
pub(super) const HOLD: Duration = Duration::from_millis(50);

/// How a delivery comes into memory.
struct Waiting {
    course: Course,
    /// The row it was read from.
    row: Option<ParkedKey>,
    order_key: u64,
}

/// Whether a row was due when its page was read, and is now: only then it has its message with it.
fn is_due(due: Timestamp, (now, read): (Timestamp, Timestamp)) -> bool {
    retry::is_due(due, now) && retry::is_due(due, read)
}

impl Core {
    /// A message for one endpoint came in, fresh or from the last run.
    pub(super) fn arrive(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        endpoint: EndpointNo,
        recovered: bool,
        out: &mut Vec<Command>,
    ) {
        let bytes = length(message);
        let delivery = Delivery {
            at: message.at,
            endpoint,
        };
        let room = self.has_room();
        let max_queue = self.settings.max_queue;
        let Some(slot) = self
            .slots
            .get_mut(&endpoint)
            .filter(|slot| !slot.plan.deleted)
        else {
            out.push(Command::Ended(message.app, bytes.into(), Ending::Cancelled));
            return;
        };
        if self.live.contains_key(&delivery) {
            return; // handed over twice: the first one stands
        }
        let order_key = slot.order_key(message);
        // What was open when the last run ended may be superseded by what is settled since: rows are
        // held against the store when they are read.
        let unsure = recovered && message.collapse_key().is_some();
        let ordered = slot.plan.order != Order::None;
        let stays = (room || slot.has_floor())
            && slot.plan.sending
            && !unsure
            && !slot.throttle.is_open()
            && slot.queue.len() < max_queue
            && !(ordered && (recovered || slot.backlog.due.is_some()));
        self.collapse(message, endpoint, out);
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let course = Course {
            attempts: 0,
            base: 0,
            trigger: Trigger::Scheduled,
            once: false,
        };
        if !stays {
            self.park(row(delivery, Timestamp::ZERO, course, bytes, order_key));
            return;
        }
        if let Some(due) = slot
            .keys
            .as_mut()
            .and_then(|keys| keys.behind(order_key, message.at, now, true))
        {
            self.park_behind(row(delivery, due, course, bytes, order_key));
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&delivery.at.lane) {
            lane.open(delivery.at.seq);
        }
        let waiting = Waiting {
            course,
            row: None,
            order_key,
        };
        self.enter(now, message, endpoint, waiting);
    }

    /// A delivery comes to wait in memory.
    fn enter(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        endpoint: EndpointNo,
        waiting: Waiting,
    ) {
        let Waiting {
            course,
            row,
            order_key,
        } = waiting;
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let at = message.at;
        self.bytes += u64::from(length(message));
        self.live.insert(
            Delivery { at, endpoint },
            Live {
                message: Arc::clone(message),
                entered: now,
                attempts: course.attempts,
                course,
                row,
                order_key,
                sending: false,
                started: Timestamp::ZERO,
                cancelled: false,
            },
        );
        slot.retries_in_hand += usize::from(is_retry(row));
        let startable = slot
            .keys
            .as_mut()
            .is_none_or(|keys| keys.enter(order_key, at));
        if startable {
            if slot.plan.order == Order::Endpoint {
                let place = slot.queue.partition_point(|queued| *queued < at);
                slot.queue.insert(place, at);
            } else {
                slot.queue.push_back(at);
            }
        }
        self.wake(endpoint);
    }

    /// Puts a row into the store.
    pub(super) fn park(&mut self, parked: Parked) {
        let key = parked.key;
        let Some(slot) = self.slots.get_mut(&key.endpoint) else {
            return;
        };
        slot.parked += 1;
        slot.parked_bytes += u64::from(parked.bytes);
        slot.head(kind_of(key)).note(key);
        self.parked += 1;
        self.unapplied.put_in(&key);
        self.settlement.park.push(parked);
        self.mark_dirty(key.endpoint);
        self.wake(key.endpoint);
    }

    /// Parks a delivery behind an earlier one with the same ordering key.
    pub(super) fn park_behind(&mut self, parked: Parked) {
        if let Some(keys) = self
            .slots
            .get_mut(&parked.key.endpoint)
            .and_then(|slot| slot.keys.as_mut())
        {
            keys.parked(parked.order_key, parked.key.due);
        }
        self.park(Parked {
            reason: ParkReason::Behind,
            ..parked
        });
    }

    /// Takes a row out of the store.
    pub(super) fn unpark(&mut self, key: ParkedKey, bytes: u32) {
        let Some(slot) = self.slots.get_mut(&key.endpoint) else {
            return;
        };
        slot.parked = slot.parked.saturating_sub(1);
        slot.parked_bytes = slot.parked_bytes.saturating_sub(bytes.into());
        self.parked = self.parked.saturating_sub(1);
        self.unapplied.take_out(key);
        self.settlement.unpark.push(key);
        self.mark_dirty(key.endpoint);
    }

    /// Rows came back from the store, where they were read at `at`.
    pub(super) fn take_page(
        &mut self,
        times: (Timestamp, Timestamp),
        read: Read,
        rows: Rows,
        more: bool,
        out: &mut Vec<Command>,
    ) {
        self.take_rows(times, read, rows, more, out);
        self.unapplied.came(read.no);
    }

    fn take_rows(
        &mut self,
        (now, at): (Timestamp, Timestamp),
        read: Read,
        (rows, superseded): Rows,
        more: bool,
        out: &mut Vec<Command>,
    ) {
        if read.kind == Kind::Stray {
            return self.take_strays(now, read.endpoint, rows, more);
        }
        if read.walk {
            return self.take_walk_page(now, read, &rows, more, out);
        }
        let Some(slot) = self.slots.get_mut(&read.endpoint) else {
            return;
        };
        if slot.keys.as_ref().is_some_and(|keys| keys.loading) {
            return self.load_keys(&read, &rows, more);
        }
        let deleted = slot.plan.deleted;
        let ordered = slot.plan.order != Order::None && !deleted;
        let overtaken = slot.head(read.kind).noted().filter(|_| ordered);
        let (mut last, mut next, mut again) = (None, None, false);
        for (parked, message) in rows {
            let key = parked.key;
            if !is_due(key.due, (now, at)) && !deleted {
                next = Some(key.due);
                break;
            }
            if overtaken.is_some_and(|first| first < key) {
                // A row before it came (back) into the store while the page was read: read again.
                (next, again) = (Some(key.due), true);
                break;
            }
            let by = superseded.get(&key.at).copied();
            if !self.claim(now, &parked, (message.as_ref(), by), out) {
                next = Some(key.due);
                break;
            }
            last = Some(key);
        }
        let stuck =
            last.is_none() && !again && (more || next.is_some_and(|due| is_due(due, (now, at))));
        if next.is_none() && more {
            next = Some(Timestamp::ZERO);
        }
        if let Some(slot) = self.slots.get_mut(&read.endpoint) {
            if stuck {
                slot.hold_reads = now.plus(HOLD); // no room, or the store cannot be read
            }
            slot.head(read.kind).read(last, next);
        }
        self.wake(read.endpoint);
    }

    /// Whether a row needs no place in memory: it is in hand, or comes to its end here.
    fn is_dealt_with(
        &mut self,
        parked: &Parked,
        (message, by): (Option<&Arc<Message>>, Option<Position>),
        out: &mut Vec<Command>,
    ) -> bool {
        let key = parked.key;
        let delivery = Delivery {
            at: key.at,
            endpoint: key.endpoint,
        };
        if self.unapplied.contains(&key) {
            return true; // just finished
        }
        if let Some(live) = self.live.get(&delivery) {
            if live.row != Some(key) {
                // A second row of the same delivery: it would be sent again after the next start.
                let app = live.message.app;
                self.unpark(key, parked.bytes);
                out.push(Command::Ended(app, parked.bytes.into(), Ending::Cancelled));
            }
            return true; // in hand already
        }
        if self.is_cancelled_row(parked, out) {
            return true;
        }
        let by = by.or_else(|| message.and_then(|m| self.replaced(m, key.endpoint)));
        let Some(by) = by.filter(|_| parked.trigger == Trigger::Scheduled) else {
            return false;
        };
        self.end_row(parked, by, out);
        true
    }

    /// Takes one row into memory; false = there is no room for it now.
    fn claim(
        &mut self,
        now: Timestamp,
        parked: &Parked,
        (message, by): (Option<&Arc<Message>>, Option<Position>),
        out: &mut Vec<Command>,
    ) -> bool {
        if self.is_dealt_with(parked, (message, by), out) {
            return true;
        }
        let key = parked.key;
        let room = self.has_room();
        let Some(slot) = self.slots.get_mut(&key.endpoint) else {
            return true;
        };
        let app = slot.plan.app;
        if slot.plan.deleted {
            self.unpark(key, parked.bytes);
            out.push(Command::Ended(app, parked.bytes.into(), Ending::Cancelled));
            return true;
        }
        if !slot.plan.sending || !(room || slot.has_floor()) {
            return false;
        }
        let Some(message) = message else {
            // Expired or corrupt: it can never be delivered, and a corrupt record is never signed. What
            // waits behind it in its key goes on.
            if kind_of(key) != Kind::Backlog
                && let Some(keys) = slot.keys.as_mut()
            {
                keys.claimed(parked.order_key, key.at);
            }
            self.unpark(key, parked.bytes);
            self.settlement.cancelled.push(Delivery {
                at: key.at,
                endpoint: key.endpoint,
            });
            out.push(Command::Ended(app, parked.bytes.into(), Ending::Cancelled));
            return true;
        };
        let course = Course {
            attempts: parked.attempts,
            base: parked.base,
            trigger: parked.trigger,
            once: parked.reason == ParkReason::Once,
        };
        if let Some(keys) = slot.keys.as_mut() {
            let from_backlog = kind_of(key) == Kind::Backlog;
            if !from_backlog {
                keys.claimed(parked.order_key, key.at);
            }
            if let Some(due) = keys.behind(parked.order_key, key.at, now, from_backlog) {
                self.unpark(key, parked.bytes);
                self.park_behind(Parked {
                    key: ParkedKey { due, ..key },
                    ..parked.clone()
                });
                return true;
            }
        }
        let waiting = Waiting {
            course,
            row: Some(key),
            order_key: parked.order_key,
        };
        self.collapse(message, key.endpoint, out);
        self.enter(now, message, key.endpoint, waiting);
        true
    }

    /// What waited too long for a slot leaves memory, so that the checkpoint moves on.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        let limit = now.minus(self.settings.spill_after);
        let mut old: Vec<EndpointNo> = self
            .slots
            .iter()
            .filter(|(endpoint, slot)| {
                let first = slot.queue.front().map(|at| Delivery {
                    at: *at,
                    endpoint: **endpoint,
                });
                first
                    .and_then(|d| self.live.get(&d))
                    .is_some_and(|live| live.entered <= limit)
            })
            .map(|(endpoint, _)| *endpoint)
            .collect();
        old.sort_unstable(); // the map has no order, and a seed must replay the run
        for endpoint in old {
            self.spill(endpoint, Some(limit));
        }
    }

    /// Parks what waits in memory: all of it, or what came before `limit`. At ordered endpoints
    /// always all, so that memory never holds something younger than the store does.
    pub(super) fn spill(&mut self, endpoint: EndpointNo, limit: Option<Timestamp>) {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let limit = limit.filter(|_| slot.plan.order == Order::None);
        let mut waiting: Vec<Position> = slot.queue.drain(..).collect();
        if let Some(keys) = slot.keys.as_mut() {
            let live = &self.live;
            waiting.extend(keys.drain(|at| {
                live.get(&Delivery { at, endpoint })
                    .is_some_and(|live| live.sending)
            }));
            waiting.sort_unstable();
            waiting.dedup();
        }
        let mut stay = VecDeque::new();
        for at in waiting {
            let delivery = Delivery { at, endpoint };
            match self.live.get(&delivery) {
                Some(live) if live.sending => {}
                Some(live) if limit.is_some_and(|limit| live.entered > limit) => stay.push_back(at),
                Some(_) => self.put_back(delivery),
                None => {}
            }
        }
        if let Some(slot) = self.slots.get_mut(&endpoint) {
            slot.queue = stay;
        }
        self.wake(endpoint);
    }

    fn put_back(&mut self, delivery: Delivery) {
        let Some(live) = self.live.remove(&delivery) else {
            return;
        };
        let bytes = length(&live.message);
        self.bytes = self.bytes.saturating_sub(bytes.into());
        match live.row {
            Some(key) => {
                if let Some(slot) = self.slots.get_mut(&delivery.endpoint) {
                    slot.head(kind_of(key)).note(key);
                    if is_retry(live.row) {
                        slot.retries_in_hand = slot.retries_in_hand.saturating_sub(1);
                        if let Some(keys) = slot.keys.as_mut() {
                            keys.returned(live.order_key, key);
                        }
                    }
                }
            }
            None => {
                self.close(delivery.at);
                self.park(row(
                    delivery,
                    Timestamp::ZERO,
                    live.course,
                    bytes,
                    live.order_key,
                ));
            }
        }
    }

    /// The number of the settlement after which everything decided so far is in the store.
    pub(super) fn settled_so_far(&self) -> u64 {
        self.unapplied.last_taken() + u64::from(self.unsettled() > 0)
    }

    fn has_room(&self) -> bool {
        self.live.len() < self.settings.max_in_memory && self.bytes < self.settings.max_bytes
    }
}

/// Payload length as rows carry it.
pub(super) fn length(message: &Message) -> u32 {
    u32::try_from(message.payload.len()).unwrap_or(u32::MAX)
}

/// Which sort of row this is.
pub(super) fn kind_of(key: ParkedKey) -> Kind {
    if key.due == Timestamp::ZERO {
        Kind::Backlog
    } else {
        Kind::Retry
    }
}

/// Whether the row a delivery came from waits for a time.
pub(super) fn is_retry(row: Option<ParkedKey>) -> bool {
    row.is_some_and(|key| kind_of(key) == Kind::Retry)
}

/// A row for a delivery.
pub(super) fn row(
    delivery: Delivery,
    due: Timestamp,
    course: Course,
    bytes: u32,
    order_key: u64,
) -> Parked {
    let reason = if course.once {
        ParkReason::Once
    } else if due == Timestamp::ZERO {
        ParkReason::Backlog
    } else {
        ParkReason::Retry
    };
    Parked {
        key: ParkedKey {
            endpoint: delivery.endpoint,
            due,
            at: delivery.at,
        },
        attempts: course.attempts,
        base: course.base,
        reason,
        trigger: course.trigger,
        bytes,
        order_key,
    }
}
