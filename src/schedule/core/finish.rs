//! What follows an attempt.

use std::collections::BTreeSet;

use super::parked::{is_retry, length, row};
use super::slot::Live;
use super::{Announcement, AttemptReport, Command, Core, Course, Ending, Finished};
use crate::base::Timestamp;
use crate::model::{Attempt, DeadReason, Delivery, ParkReason, Parked, Position, Verdict};
use crate::policy::{health, retry};

/// A success at a healthy endpoint is written to its state this often at most.
const SUCCESS_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

impl Core {
    /// An attempt ended: judge it, record it, go on.
    pub(super) fn finish(&mut self, now: Timestamp, finished: Finished, out: &mut Vec<Command>) {
        let delivery = finished.delivery;
        let Some(live) = self.live.remove(&delivery) else {
            return;
        };
        let bytes = length(&live.message);
        self.bytes = self.bytes.saturating_sub(bytes.into());
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_progress = now;
        if live.row.is_none() {
            self.close(delivery.at);
        }
        let Some(slot) = self.slots.get_mut(&delivery.endpoint) else {
            return;
        };
        slot.in_flight = slot.in_flight.saturating_sub(1);
        slot.retries_in_hand -= usize::from(is_retry(live.row)).min(slot.retries_in_hand);
        let longest = slot.plan.failing.retry.max_retry_after;
        slot.throttle.finished(now, &finished.outcome, longest);
        self.ring.ended(slot.plan.app);
        let no = live.attempts.saturating_add(1);
        let made = no.saturating_sub(live.course.base);
        let verdict = if !live.course.once {
            retry::judge(
                &finished.outcome,
                made,
                &slot.plan.failing.retry,
                now,
                finished.random,
            )
        } else if finished.outcome.failure.is_none() {
            Verdict::Delivered
        } else {
            Verdict::Dead(DeadReason::Manual)
        };
        let attempt = Attempt {
            at: delivery.at,
            endpoint: delivery.endpoint,
            app: live.message.app,
            no,
            accepted: Some(live.message.accepted),
            ended: now,
            duration_ms: finished.duration_ms,
            outcome: finished.outcome,
            trigger: live.course.trigger,
            verdict,
            response: finished.response.clone(),
        };
        if let Some(key) = live.row {
            self.unpark(key, bytes);
        }
        let occasion = (made, finished.resolver_down);
        self.judge_health(&live, &attempt, occasion, out);
        self.conclude(&live, &attempt, out);
        self.settlement.attempts.push(attempt);
        self.wake(delivery.endpoint);
    }

    /// The delivery ends, or waits for its next attempt.
    fn conclude(&mut self, live: &Live, attempt: &Attempt, out: &mut Vec<Command>) {
        let delivery = Delivery {
            at: attempt.at,
            endpoint: attempt.endpoint,
        };
        let app = attempt.app;
        let bytes = length(&live.message);
        let deleted = self
            .slots
            .get(&delivery.endpoint)
            .is_none_or(|slot| slot.plan.deleted);
        let ending = match attempt.verdict {
            Verdict::Delivered => Ending::Delivered,
            Verdict::Dead(_) => Ending::Dead,
            Verdict::RetryAt(_) if live.cancelled || deleted => {
                self.settlement.cancelled.push(delivery);
                Ending::Cancelled
            }
            Verdict::RetryAt(_) if self.ends_replaced(live, delivery) => Ending::Superseded,
            Verdict::RetryAt(due) => {
                let course = Course {
                    attempts: attempt.no,
                    ..live.course
                };
                let behind = self.block_key(delivery, live.order_key, due);
                self.park(row(delivery, due, course, bytes, live.order_key));
                for at in behind {
                    self.move_behind(Delivery { at, ..delivery }, due);
                }
                return;
            }
        };
        let next = self.slots.get_mut(&delivery.endpoint).and_then(|slot| {
            let next = slot.keys.as_mut()?.ended(live.order_key, delivery.at)?;
            slot.queue.push_back(next);
            Some(next)
        });
        debug_assert!(next != Some(delivery.at), "a delivery never follows itself");
        if attempt.verdict == Verdict::Dead(DeadReason::Exhausted) {
            out.push(Command::Announce(Announcement::Exhausted(report(
                live, attempt,
            ))));
        }
        out.push(Command::Ended(app, bytes.into(), ending));
    }

    /// A delivery whose turn has come waits for the time its sender named, as one that failed waits for
    /// its next attempt: so where order is kept, what comes later waits behind it.
    pub(super) fn put_off(&mut self, delivery: Delivery, due: Timestamp) {
        let Some(live) = self.live.remove(&delivery) else {
            return;
        };
        let bytes = length(&live.message);
        self.bytes = self.bytes.saturating_sub(bytes.into());
        if is_retry(live.row)
            && let Some(slot) = self.slots.get_mut(&delivery.endpoint)
        {
            slot.retries_in_hand = slot.retries_in_hand.saturating_sub(1);
        }
        match live.row {
            Some(key) => self.unpark(key, bytes),
            None => self.close(delivery.at),
        }
        let behind = self.block_key(delivery, live.order_key, due);
        self.park(row(delivery, due, live.course, bytes, live.order_key));
        for at in behind {
            self.move_behind(Delivery { at, ..delivery }, due);
        }
    }

    fn block_key(&mut self, of: Delivery, key: u64, due: Timestamp) -> BTreeSet<Position> {
        let keys = self
            .slots
            .get_mut(&of.endpoint)
            .and_then(|slot| slot.keys.as_mut());
        keys.map(|keys| keys.blocked(key, of.at, due))
            .unwrap_or_default()
    }

    /// A delivery in memory must wait behind an earlier one of its key.
    fn move_behind(&mut self, delivery: Delivery, due: Timestamp) {
        let Some(live) = self.live.remove(&delivery) else {
            return;
        };
        let bytes = length(&live.message);
        self.bytes = self.bytes.saturating_sub(bytes.into());
        match live.row {
            Some(key) => {
                if is_retry(live.row)
                    && let Some(slot) = self.slots.get_mut(&delivery.endpoint)
                {
                    slot.retries_in_hand = slot.retries_in_hand.saturating_sub(1);
                }
                self.unpark(key, bytes);
            }
            None => self.close(delivery.at),
        }
        let parked = row(delivery, due, live.course, bytes, live.order_key);
        self.park_behind(Parked {
            reason: ParkReason::Behind,
            ..parked
        });
    }

    /// The endpoint's health, and whether it is switched off.
    fn judge_health(
        &mut self,
        live: &Live,
        attempt: &Attempt,
        (made, resolver_down): (u16, bool),
        out: &mut Vec<Command>,
    ) {
        let now = attempt.ended;
        let Some(slot) = self.slots.get_mut(&attempt.endpoint) else {
            return;
        };
        let occasion = health::Occasion {
            now,
            made,
            planned: slot.plan.failing.retry.attempts(),
            resolver_down,
        };
        let before = slot.health;
        let step = health::step(
            before,
            &attempt.outcome,
            occasion,
            slot.plan.failing.disable,
        );
        slot.health = step.health;
        let ordinary = before.failures == 0 && step.health.failures == 0;
        if !ordinary || now.since(slot.success_written) >= SUCCESS_EVERY {
            slot.success_written = now;
            self.mark_dirty(attempt.endpoint);
        }
        if step.failing {
            out.push(Command::Announce(Announcement::Failing(report(
                live, attempt,
            ))));
        }
        if step.recovered {
            out.push(Command::Announce(Announcement::Recovered(report(
                live, attempt,
            ))));
        }
        let Some(reason) = step.disable else { return };
        let Some(slot) = self.slots.get_mut(&attempt.endpoint) else {
            return;
        };
        if !slot.plan.sending {
            return; // an attempt that was under way when it was switched off
        }
        slot.plan.sending = false;
        let since = step.health.first_failure;
        let endpoint = attempt.endpoint;
        out.push(Command::Disable(endpoint, reason));
        out.push(Command::Announce(Announcement::Disabled {
            endpoint,
            reason,
            since,
        }));
        self.spill(endpoint, None);
    }
}

fn report(live: &Live, attempt: &Attempt) -> AttemptReport {
    AttemptReport {
        message: live.message.clone(),
        endpoint: attempt.endpoint,
        attempt: attempt.id(),
        status: attempt.outcome.status,
        at: attempt.ended,
    }
}
