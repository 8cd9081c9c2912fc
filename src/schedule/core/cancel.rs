//! Cancelling everything that an endpoint has not finished, however much it is.
//!
//! A walk over the endpoint's rows, backlog first and then what waits for a time, one page after the
//! other: memory and settlements stay small, and others are served in between. What waits in memory
//! is parked first; an attempt under way ends as it ends, and is not followed by another. What is
//! accepted after the walk began is not touched: [`Walk::bound`] is the newest message known then.
//!
//! Nothing slips through between the two sorts of rows: a delivery that fails moves from the backlog
//! to the retries, which are walked later, and none moves the other way unless somebody asks for it
//! anew. A row of those that is read to be sent meanwhile is cancelled instead
//! ([`Core::is_cancelled_row`]).

use std::sync::Arc;

use super::parked::HOLD;
use super::{Command, Core, Ending, Kind, Read};
use crate::base::Timestamp;
use crate::model::{Delivery, EndpointNo, Message, Parked, ParkedKey, Position};

/// Rows of one page: what one settlement takes on beside its ordinary load.
const PAGE: usize = 256;

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    /// The newest message it concerns.
    bound: Position,
    kind: Kind,
    after: Option<ParkedKey>,
    /// A page is being read.
    reading: bool,
    /// Asked for again meanwhile, for newer messages: begins anew when this page is done.
    again: bool,
    /// Nothing is read before: the store could not be read.
    hold: Timestamp,
    so_far: Cancelled,
}

/// How far the cancelling of an endpoint's deliveries is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cancelled {
    /// Deliveries that were cancelled.
    pub cancelled: u64,
    /// Deliveries with an attempt under way when it began: that attempt was their last.
    pub sending: u64,
    /// Nothing is left to cancel.
    pub done: bool,
}

impl Walk {
    /// Whether its next page should be asked for.
    pub(super) const fn is_waiting(&self) -> bool {
        !self.reading
    }
}

impl Core {
    /// Cancels everything of an endpoint that is not finished; [`Command::Cancelled`] tells how far
    /// it is, and that it is done.
    pub(super) fn cancel_pending(
        &mut self,
        now: Timestamp,
        endpoint: EndpointNo,
        out: &mut Vec<Command>,
    ) {
        let bound = self.newest();
        let gone = self.slots.get(&endpoint).is_none_or(|s| s.plan.deleted);
        if gone {
            // Its rows are being taken out, and count as cancelled already.
            let done = Cancelled {
                done: true,
                ..Cancelled::default()
            };
            let settled = self.settled_so_far();
            return out.push(Command::Cancelled(endpoint, done, settled));
        }
        let sending = self.end_with_this_attempt(endpoint);
        // What waits in memory becomes rows, so that there is one way to cancel.
        self.spill(endpoint, None);
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        match slot.walk.as_mut() {
            Some(walk) => {
                walk.bound = bound;
                walk.again = true;
                walk.so_far.sending += sending;
            }
            None => {
                slot.walk = Some(Box::new(Walk {
                    bound,
                    kind: Kind::Backlog,
                    after: None,
                    reading: false,
                    again: false,
                    hold: Timestamp::ZERO,
                    so_far: Cancelled {
                        sending,
                        ..Cancelled::default()
                    },
                }));
            }
        }
        self.walk_on(now, endpoint, out);
    }

    /// Marks what is being sent to an endpoint; answers how much that is. Looks at everything in
    /// memory, which a rare request may.
    fn end_with_this_attempt(&mut self, endpoint: EndpointNo) -> u64 {
        let mut marked = 0;
        let of_endpoint = self
            .live
            .iter_mut()
            .filter(|(delivery, _)| delivery.endpoint == endpoint);
        for (_, live) in of_endpoint {
            if live.sending && !live.cancelled {
                live.cancelled = true;
                marked += 1;
            }
        }
        marked
    }

    /// Asks for the next page of a walk, if there is one that waits for it.
    pub(super) fn walk_on(&mut self, now: Timestamp, endpoint: EndpointNo, out: &mut Vec<Command>) {
        let settled = self.settled_so_far();
        let Some(walk) = self.slots.get_mut(&endpoint).and_then(|s| s.walk.as_mut()) else {
            return;
        };
        if walk.reading {
            return;
        }
        if walk.hold > now {
            let hold = walk.hold;
            return self.wake_at(endpoint, hold);
        }
        walk.reading = true;
        out.push(Command::Read(Read {
            endpoint,
            kind: walk.kind,
            after: walk.after,
            limit: PAGE,
            settled,
            walk: true,
            no: self.unapplied.asked(),
        }));
    }

    /// Cancels the rows of a page, and goes on with the next one.
    pub(super) fn take_walk_page(
        &mut self,
        now: Timestamp,
        read: Read,
        rows: &[(Parked, Option<Arc<Message>>)],
        more: bool,
        out: &mut Vec<Command>,
    ) {
        let endpoint = read.endpoint;
        let slot = self.slots.get_mut(&endpoint);
        let Some(mut walk) = slot.and_then(|slot| slot.walk.take()) else {
            return;
        };
        walk.reading = false;
        for (parked, _) in rows {
            if parked.key.at <= walk.bound {
                walk.so_far.cancelled += u64::from(self.cancel_row(parked, out));
            }
        }
        let last = rows.last().map(|(parked, _)| parked.key);
        if more && last.is_none() {
            walk.hold = now.plus(HOLD); // the store cannot be read
        }
        walk.after = last.or(walk.after);
        let ends = match (more, std::mem::take(&mut walk.again), walk.kind) {
            (_, true, _) => {
                (walk.kind, walk.after) = (Kind::Backlog, None);
                false
            }
            (true, false, _) => false,
            (false, false, Kind::Backlog) => {
                (walk.kind, walk.after) = (Kind::Retry, None);
                false
            }
            (false, false, Kind::Retry | Kind::Stray) => true,
        };
        walk.so_far.done = ends;
        let settled = self.settled_so_far();
        out.push(Command::Cancelled(endpoint, walk.so_far, settled));
        if ends {
            // Rows were taken out past the count of its keys.
            return self.recount(endpoint);
        }
        if self.draining {
            return; // what is left stays as it is, for whoever asks again after the restart
        }
        if let Some(slot) = self.slots.get_mut(&endpoint) {
            slot.walk = Some(walk);
        }
        self.walk_on(now, endpoint, out);
    }

    /// Whether a row that was read to be sent belongs to a walk: then it is cancelled instead.
    pub(super) fn is_cancelled_row(&mut self, parked: &Parked, out: &mut Vec<Command>) -> bool {
        let key = parked.key;
        let walk = self
            .slots
            .get_mut(&key.endpoint)
            .and_then(|s| s.walk.as_mut());
        let Some(walk) = walk.filter(|walk| key.at <= walk.bound) else {
            return false;
        };
        walk.so_far.cancelled += 1;
        self.cancel_row(parked, out);
        true
    }

    /// Cancels the delivery of a row; false = it was finished already, or its attempt is under way.
    fn cancel_row(&mut self, parked: &Parked, out: &mut Vec<Command>) -> bool {
        let key = parked.key;
        if self.unapplied.contains(&key) {
            return false;
        }
        let delivery = Delivery {
            at: key.at,
            endpoint: key.endpoint,
        };
        if let Some(live) = self.live.get_mut(&delivery) {
            live.cancelled = true;
            if live.sending {
                return false;
            }
            self.forget(delivery, None, out);
            return true;
        }
        let Some(slot) = self.slots.get(&key.endpoint) else {
            return false;
        };
        let app = slot.plan.app;
        self.unpark(key, parked.bytes);
        self.settlement.cancelled.push(delivery);
        out.push(Command::Ended(app, parked.bytes.into(), Ending::Cancelled));
        true
    }

    /// The newest message known.
    fn newest(&self) -> Position {
        let newest = self.lanes.iter().map(|(lane, open)| Position {
            lane: *lane,
            seq: open.last(),
        });
        newest.max().unwrap_or(Position::START)
    }
}
