//! A wall clock that was stepped back (T30): nothing waits until it has caught up.
//!
//! What is in memory is moved by the step. Rows in the store keep the due time they were written
//! with, so after a step of an hour a retry may come up to an hour late; rows that are due later than
//! any wait can have led to (`RetryPlan::horizon`) were written while the clock stood years ahead, and
//! are moved to now. A step forward needs nothing: what is due starts within the usual limits.

use std::sync::Arc;
use std::time::Duration;

use super::parked::HOLD;
use super::{Command, Core, Kind, Read};
use crate::base::Timestamp;
use crate::model::{Delivery, EndpointNo, Message, Parked, ParkedKey, Position};
use crate::policy::health;

/// A clock that went back further than this was stepped (`reliability.md` 6, Clock).
const STEP: Duration = Duration::from_secs(2);
/// Strays read at once.
const PAGE: usize = 256;

/// The search of one endpoint for rows that are due too late.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// There may be some.
    pub(super) wanted: bool,
    reading: bool,
    /// Looked at up to here.
    cursor: Option<Box<ParkedKey>>,
}

impl Core {
    /// Notices a step back.
    pub(super) fn look_at_clock(&mut self, now: Timestamp) {
        let back = self.last_now.since(now);
        if back > STEP {
            self.stepped_back(now, back);
        }
        self.last_now = now;
    }

    fn stepped_back(&mut self, now: Timestamp, by: Duration) {
        self.timers.clear();
        self.next_sweep = now;
        self.last_progress = self.last_progress.min(now);
        for live in self.live.values_mut() {
            live.entered = live.entered.minus(by);
        }
        let mut endpoints: Vec<EndpointNo> = self.slots.keys().copied().collect();
        endpoints.sort_unstable(); // the map has no order, and a seed must replay the run
        for endpoint in endpoints {
            if let Some(slot) = self.slots.get_mut(&endpoint) {
                slot.timer = None;
                slot.hold_reads = Timestamp::ZERO;
                slot.success_written = slot.success_written.min(now);
                slot.health = health::not_after(slot.health, now);
                slot.throttle.stepped_back(by);
                slot.strays = Strays {
                    wanted: slot.parked > 0,
                    reading: slot.strays.reading,
                    cursor: None,
                };
            }
            self.wake(endpoint);
        }
    }

    /// Asks for rows that are due too late, if there may be some.
    pub(super) fn read_strays(
        &mut self,
        now: Timestamp,
        endpoint: EndpointNo,
        out: &mut Vec<Command>,
    ) {
        let settled = self.settled_so_far();
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let strays = &mut slot.strays;
        if !strays.wanted || strays.reading || now < slot.hold_reads {
            return;
        }
        strays.reading = true;
        let first = ParkedKey {
            endpoint,
            due: now.plus(slot.plan.failing.retry.horizon()),
            at: Position::END,
        };
        out.push(Command::Read(Read {
            endpoint,
            kind: Kind::Stray,
            after: Some(
                strays
                    .cursor
                    .as_deref()
                    .map_or(first, |cursor| first.max(*cursor)),
            ),
            limit: PAGE,
            settled,
            walk: false,
            no: self.unapplied.asked(),
        }));
    }

    /// Rows that are due too late are due now.
    pub(super) fn take_strays(
        &mut self,
        now: Timestamp,
        endpoint: EndpointNo,
        rows: Vec<(Parked, Option<Arc<Message>>)>,
        more: bool,
    ) {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let horizon = now.plus(slot.plan.failing.retry.horizon());
        let unreadable = rows.is_empty() && more;
        slot.strays = Strays {
            wanted: more,
            reading: false,
            cursor: rows.last().map(|(row, _)| Box::new(row.key)),
        };
        if unreadable {
            slot.hold_reads = now.plus(HOLD);
        }
        let mut moved = false;
        for (row, _) in rows {
            let key = row.key;
            let delivery = Delivery {
                at: key.at,
                endpoint,
            };
            let in_hand = self.live.contains_key(&delivery) || self.unapplied.contains(&key);
            if in_hand || key.due <= horizon {
                continue;
            }
            moved = true;
            self.unpark(key, row.bytes);
            let due = now.max(Timestamp::from_millis(1)); // zero marks backlog
            self.park(Parked {
                key: ParkedKey { due, ..key },
                ..row
            });
        }
        if moved {
            self.recount(endpoint);
        }
        self.wake(endpoint);
    }
}
