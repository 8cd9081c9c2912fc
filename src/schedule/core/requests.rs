//! Changes from outside: endpoints come, change and go; deliveries are tried again or cancelled.

use std::sync::Arc;

use super::parked::row;
use super::slot::Slot;
use super::{Announcement, Command, Core, Course, Ending, Kind, Plan, Stored};
use crate::base::Timestamp;
use crate::model::{
    Delivery, DisableReason, EndpointNo, EndpointState, Order, Parked, ParkedKey, Position, Trigger,
};
use crate::policy::health;

use super::order::Keys;

impl Core {
    /// An endpoint is there or was changed; takes effect with the next attempt.
    pub(super) fn configure(&mut self, mut plan: Plan, out: &mut Vec<Command>) {
        let endpoint = plan.endpoint;
        match &self.failing {
            Some(known) if *known == plan.failing => plan.failing = Arc::clone(known),
            _ => self.failing = Some(Arc::clone(&plan.failing)),
        }
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            self.slots.insert(endpoint, Box::new(Slot::new(plan)));
            return;
        };
        let before = std::mem::replace(&mut slot.plan, plan);
        slot.throttle
            .set_limits(slot.plan.concurrency, slot.plan.rate);
        if slot.plan.sending && !before.sending {
            // switching on resets the failures, and the backlog starts with a slow ramp.
            slot.health = health::enabled(slot.health);
            slot.throttle.restart();
            self.mark_dirty(endpoint);
        } else if slot.plan.destination != before.destination {
            // What was learned of the old address says nothing of the new one.
            slot.throttle.restart();
        }
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let (sending, deleted) = (slot.plan.sending, slot.plan.deleted);
        if slot.plan.disabled_by_hand && !before.disabled_by_hand && !deleted {
            out.push(Command::Announce(Announcement::Disabled {
                endpoint,
                reason: DisableReason::Manual,
                since: None,
            }));
        }
        let reordered = slot.plan.order != before.order;
        if reordered || !sending {
            self.spill(endpoint, None);
        }
        if reordered && let Some(slot) = self.slots.get_mut(&endpoint) {
            slot.keys = Keys::wanted(slot.plan.order);
            slot.start_reading();
        }
        if deleted {
            self.drop_endpoint(endpoint);
        }
        self.wake(endpoint);
    }

    /// What the store remembers of an endpoint.
    pub(super) fn restore(&mut self, now: Timestamp, endpoint: EndpointNo, state: EndpointState) {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        slot.health = state.health;
        slot.parked = state.parked;
        slot.parked_bytes = state.parked_bytes;
        slot.success_written = now;
        self.parked += state.parked;
        slot.start_reading();
        slot.strays.wanted = state.parked > 0; // the clock may have stood ahead in the last run
        self.wake(endpoint);
    }

    /// The endpoint is gone: its rows are taken out page by page ([`Core::take_page`]).
    fn drop_endpoint(&mut self, endpoint: EndpointNo) {
        // `spill` has parked what waited; rows end when they are read. Read all of them, due or not.
        if let Some(slot) = self.slots.get_mut(&endpoint)
            && slot.parked > 0
        {
            slot.start_reading();
        }
    }

    /// Tries deliveries again now.
    pub(super) fn retry(
        &mut self,
        now: Timestamp,
        deliveries: Vec<Stored>,
        fresh: bool,
        out: &mut Vec<Command>,
    ) {
        for stored in deliveries {
            let delivery = stored.delivery;
            let Some(slot) = self.slots.get(&delivery.endpoint) else {
                continue;
            };
            if slot.plan.deleted || self.live.contains_key(&delivery) {
                continue;
            }
            let (app, order) = (slot.plan.app, slot.plan.order);
            if order != Order::None {
                // What waits in memory is younger than the row that is put in: it goes behind it.
                self.spill(delivery.endpoint, None);
            }
            let base = if fresh {
                stored.attempts
            } else {
                stored.row.as_ref().map_or(stored.attempts, |row| row.base)
            };
            let course = Course {
                attempts: stored.attempts,
                base,
                trigger: Trigger::Manual,
                once: stored.finished && !fresh,
            };
            match stored.row {
                Some(row) => self.take_out(&row),
                None => out.push(Command::Ended(app, stored.bytes.into(), Ending::Reopened)),
            }
            // In the backlog it is found again by whoever asks, and by recovery. By key it must not
            // go behind the rows that wait for it, so there it waits for the time that is now.
            let by_key = order == Order::Key && !fresh && stored.attempts > 0;
            let due = if by_key {
                now.max(Timestamp::from_millis(1))
            } else {
                Timestamp::ZERO
            };
            self.park(row(delivery, due, course, stored.bytes, stored.order_key));
            let ends = stored.ends.map(|ends| (delivery, ends));
            self.settlement.further.extend(ends);
            self.recount(delivery.endpoint);
        }
    }

    /// Takes out a row that is not in memory.
    fn take_out(&mut self, row: &Parked) {
        self.unpark(row.key, row.bytes);
        self.recount(row.key.endpoint);
    }

    /// At an ordered endpoint: rows were changed past what is remembered of them, and what waited
    /// for one that is gone must not go on waiting.
    pub(super) fn recount(&mut self, endpoint: EndpointNo) {
        if let Some(slot) = self.slots.get_mut(&endpoint)
            && slot.plan.order != Order::None
        {
            slot.start_reading();
            self.wake(endpoint);
        }
    }

    /// Cancels deliveries that are not finished.
    pub(super) fn cancel(&mut self, deliveries: Vec<Stored>, out: &mut Vec<Command>) {
        for stored in deliveries {
            let delivery = stored.delivery;
            if let Some(live) = self.live.get_mut(&delivery) {
                if live.sending {
                    live.cancelled = true; // the attempt under way may still succeed
                    continue;
                }
                self.forget(delivery, None, out);
                continue;
            }
            let Some(row) = stored.row else { continue };
            let Some(slot) = self.slots.get(&delivery.endpoint) else {
                continue;
            };
            let app = slot.plan.app;
            self.take_out(&row);
            self.settlement.cancelled.push(delivery);
            out.push(Command::Ended(app, row.bytes.into(), Ending::Cancelled));
        }
    }

    /// A delivery that waits in memory is cancelled, or superseded `by` a later message.
    pub(super) fn forget(
        &mut self,
        delivery: Delivery,
        by: Option<Position>,
        out: &mut Vec<Command>,
    ) {
        let Some(live) = self.live.remove(&delivery) else {
            return;
        };
        let bytes = super::parked::length(&live.message);
        self.bytes = self.bytes.saturating_sub(bytes.into());
        match live.row {
            Some(key) => self.unpark(key, bytes),
            None => self.close(delivery.at),
        }
        let ending = match by {
            Some(by) => {
                self.settlement.superseded.push((delivery, by));
                Ending::Superseded
            }
            None => {
                self.settlement.cancelled.push(delivery);
                Ending::Cancelled
            }
        };
        if let Some(slot) = self.slots.get_mut(&delivery.endpoint) {
            slot.retries_in_hand -=
                usize::from(super::parked::is_retry(live.row)).min(slot.retries_in_hand);
            if let Some(next) = slot
                .keys
                .as_mut()
                .and_then(|keys| keys.ended(live.order_key, delivery.at))
            {
                slot.queue.push_back(next);
            }
        }
        out.push(Command::Ended(live.message.app, bytes.into(), ending));
    }
}

impl Slot {
    /// There may be rows of both sorts: read from the start.
    fn start_reading(&mut self) {
        if let Some(keys) = self.keys.as_mut() {
            keys.reload(self.retry.reading);
            // Nothing to count: a count that stayed would hold up its keys for ever.
            keys.loading = self.parked > 0;
        }
        if self.parked == 0 {
            (self.backlog.due, self.retry.due) = (None, None);
            return;
        }
        for (kind, due) in [(Kind::Backlog, 0), (Kind::Retry, 1)] {
            let due = Timestamp::from_millis(due);
            let at = Position::START;
            let endpoint = self.plan.endpoint;
            self.head(kind).note(ParkedKey { endpoint, due, at });
        }
    }
}
