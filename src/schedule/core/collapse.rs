//! Messages that take the place of earlier ones: with the same collapse key, the latest wins while the
//! others wait.
//!
//! A delivery that waits is superseded when a later message with its key is meant for the same endpoint.
//! What waits in memory is found by [`Newest`]. What waits in the store is found when its row is read:
//! the store knows the newest message of every key ([`Reader::newest`]), so memory needs to know only
//! those that came since. A delivery whose attempt is under way is not waiting: if the attempt fails, it
//! is superseded then. What somebody wants tried (resend, recover) is never superseded.
//!
//! [`Reader::newest`]: crate::store::Reader::newest

use hashbrown::HashMap;

use super::parked::kind_of;
use super::slot::Live;
use super::{Command, Core, Ending, Kind};
use crate::model::{Delivery, EndpointNo, Message, Parked, Position, Trigger};

/// Below so many keys none is let go.
const FEW: usize = 64;

/// The newest message of each collapse key of one endpoint: of those in memory, and of those that came
/// while a page was being read. Never many more than there are deliveries in memory.
#[derive(Debug, Default)]
pub(super) struct Newest {
    of: HashMap<Box<str>, Position>,
    /// When to look for keys that are needed no more.
    full: usize,
}

impl Newest {
    /// Notes a message; answers the newest one known before.
    fn note(&mut self, key: &str, at: Position) -> Option<Position> {
        let Some(known) = self.of.get_mut(key) else {
            self.of.insert(key.into(), at);
            return None;
        };
        let before = *known;
        *known = before.max(at);
        Some(before)
    }

    fn get(&self, key: &str) -> Option<Position> {
        self.of.get(key).copied()
    }

    fn prune(&mut self, is_needed: impl Fn(Position) -> bool) {
        if self.of.len() >= self.full.max(FEW) {
            self.of.retain(|_, at| is_needed(*at));
            self.full = self.of.len() * 2;
        }
    }
}

impl Core {
    /// A message with a collapse key came in for an endpoint: an earlier one that waits in memory ends.
    pub(super) fn collapse(
        &mut self,
        message: &Message,
        endpoint: EndpointNo,
        out: &mut Vec<Command>,
    ) {
        let Some(key) = message.collapse_key() else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let newest = slot.newest.get_or_insert_default();
        let before = newest.note(key, message.at);
        if !slot.backlog.reading && !slot.retry.reading {
            let live = &self.live;
            newest.prune(|at| live.contains_key(&Delivery { at, endpoint }));
        }
        let Some(at) = before.filter(|before| *before < message.at) else {
            return;
        };
        let earlier = Delivery { at, endpoint };
        let waits = |live: &Live| !live.sending && live.course.trigger == Trigger::Scheduled;
        if self.live.get(&earlier).is_some_and(waits) {
            self.forget(earlier, Some(message.at), out);
        }
    }

    /// The later message that takes the place of this one, as far as memory knows.
    pub(super) fn replaced(&self, message: &Message, endpoint: EndpointNo) -> Option<Position> {
        let key = message.collapse_key()?;
        let newest = self.slots.get(&endpoint)?.newest.as_ref()?.get(key)?;
        (newest > message.at).then_some(newest)
    }

    /// A row was read whose message is superseded: it ends without another attempt.
    pub(super) fn end_row(&mut self, parked: &Parked, by: Position, out: &mut Vec<Command>) {
        let key = parked.key;
        let Some(slot) = self.slots.get_mut(&key.endpoint) else {
            return;
        };
        let app = slot.plan.app;
        if kind_of(key) != Kind::Backlog
            && let Some(keys) = slot.keys.as_mut()
        {
            keys.claimed(parked.order_key, key.at);
        }
        self.unpark(key, parked.bytes);
        let delivery = Delivery {
            at: key.at,
            endpoint: key.endpoint,
        };
        self.settlement.superseded.push((delivery, by));
        let bytes = parked.bytes.into();
        out.push(Command::Ended(app, bytes, Ending::Superseded));
    }

    /// Whether a delivery whose attempt failed is superseded by now; it ends then.
    pub(super) fn ends_replaced(&mut self, live: &Live, delivery: Delivery) -> bool {
        let is_scheduled = live.course.trigger == Trigger::Scheduled;
        let by = self.replaced(&live.message, delivery.endpoint);
        let Some(by) = by.filter(|_| is_scheduled) else {
            return false;
        };
        self.settlement.superseded.push((delivery, by));
        true
    }
}
