//! Whose turn it is: applications in a ring, and within each its endpoints.

use std::cmp::Reverse;
use std::collections::VecDeque;

use hashbrown::HashMap;

use super::slot::Slot;
use super::{Command, Core, Course, Job, Kind, Read};
use crate::base::Timestamp;
use crate::model::{AppNo, Delivery, EndpointNo, Order};
use crate::policy::limit::Ready;
use crate::policy::retry;

/// Endpoints that may have something to start.
#[derive(Default)]
pub(super) struct Ring {
    turns: VecDeque<AppNo>,
    apps: HashMap<AppNo, Turn>,
    /// Attempts at the same time, of applications that have a quota for them.
    quotas: HashMap<AppNo, usize>,
}

#[derive(Default)]
struct Turn {
    endpoints: VecDeque<EndpointNo>,
    in_flight: usize,
    /// As `Ring::quotas` says.
    quota: Option<usize>,
}

impl Turn {
    /// Whether its application has all the attempts under way that it may have.
    fn is_full(&self) -> bool {
        self.quota.is_some_and(|quota| self.in_flight >= quota)
    }
}

impl Ring {
    /// Adds an endpoint at the end of its application's row. It must not be in there yet.
    fn push(&mut self, app: AppNo, endpoint: EndpointNo) {
        let turn = self.turn(app);
        let is_first = turn.endpoints.is_empty();
        turn.endpoints.push_back(endpoint);
        if is_first {
            self.turns.push_back(app);
        }
    }

    fn turn(&mut self, app: AppNo) -> &mut Turn {
        let Self { apps, quotas, .. } = self;
        apps.entry(app).or_insert_with(|| Turn {
            quota: quotas.get(&app).copied(),
            ..Turn::default()
        })
    }

    /// From now on the application has at most so many attempts under way; those that are end first.
    pub(super) fn set_quota(&mut self, app: AppNo, quota: Option<usize>) {
        match quota {
            Some(quota) => self.quotas.insert(app, quota),
            None => self.quotas.remove(&app),
        };
        if let Some(turn) = self.apps.get_mut(&app) {
            turn.quota = quota;
        }
    }

    /// Takes the next endpoint of the next application. An application may have at most twice as many
    /// attempts under way as there are `free` slots: alone it gets two thirds of all, and however many
    /// hang, some slots stay free for the others.
    fn next(&mut self, free: usize) -> Option<EndpointNo> {
        for _ in 0..self.turns.len() {
            let app = self.turns.pop_front()?;
            let Some(turn) = self.apps.get_mut(&app) else {
                continue;
            };
            if turn.in_flight >= free.saturating_mul(2) || turn.is_full() {
                self.turns.push_back(app);
                continue;
            }
            let endpoint = turn.endpoints.pop_front();
            if !turn.endpoints.is_empty() {
                self.turns.push_back(app);
            }
            if endpoint.is_some() {
                return endpoint;
            }
        }
        None
    }

    /// An attempt of the application started.
    fn started(&mut self, app: AppNo) {
        self.turn(app).in_flight += 1;
    }

    /// An attempt of the application ended.
    pub(super) fn ended(&mut self, app: AppNo) {
        if let Some(turn) = self.apps.get_mut(&app) {
            turn.in_flight = turn.in_flight.saturating_sub(1);
            if turn.in_flight == 0 && turn.endpoints.is_empty() {
                self.apps.remove(&app);
            }
        }
    }

    /// Endpoints that wait for their turn, and not for attempts of their own application to end.
    pub(super) fn waiting(&self) -> impl Iterator<Item = EndpointNo> {
        self.apps
            .values()
            .filter(|turn| !turn.is_full())
            .flat_map(|turn| turn.endpoints.iter().copied())
    }
}

impl Core {
    /// Starts what may start now, `most` attempts at most; true = there may be more to start.
    pub fn pump(&mut self, now: Timestamp, most: usize, out: &mut Vec<Command>) -> bool {
        self.look_at_clock(now);
        if self.draining {
            return false;
        }
        let enough = self.in_flight.saturating_add(most);
        while self.in_flight < self.settings.max_in_flight {
            if self.in_flight >= enough {
                return true;
            }
            let free = self.settings.max_in_flight - self.in_flight;
            let Some(endpoint) = self.ring.next(free) else {
                break;
            };
            self.serve(now, endpoint, out);
        }
        false
    }

    /// The endpoint may have something to start: it gets a turn.
    pub(super) fn wake(&mut self, endpoint: EndpointNo) {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        if !slot.ready && slot.has_work() {
            slot.ready = true;
            self.ring.push(slot.plan.app, endpoint);
        }
    }

    /// One turn: at most one attempt, so that others get theirs.
    fn serve(&mut self, now: Timestamp, endpoint: EndpointNo, out: &mut Vec<Command>) {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        slot.ready = false;
        if slot.walk.is_some() {
            self.walk_on(now, endpoint, out);
        }
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        if slot.plan.deleted {
            return self.read_more(now, endpoint, out);
        }
        if !slot.plan.sending {
            return;
        }
        match slot.throttle.ready(now) {
            Ready::NotBefore(at) => return self.wake_at(endpoint, at),
            Ready::Slots(0) => return,
            Ready::Slots(_) => {}
        }
        let blocked = slot.plan.order == Order::Endpoint && slot.is_behind_retry();
        let started = !blocked && self.start_next(now, endpoint, out);
        self.read_more(now, endpoint, out);
        if started {
            self.wake(endpoint);
        }
    }

    /// Starts the first delivery of the queue, or puts it off to its time; false = there was none, or it
    /// must wait.
    fn start_next(&mut self, now: Timestamp, endpoint: EndpointNo, out: &mut Vec<Command>) -> bool {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return false;
        };
        if slot.plan.order == Order::Endpoint && slot.in_flight > 0 {
            return false;
        }
        while let Some(at) = slot.queue.pop_front() {
            let Some(live) = self.live.get_mut(&Delivery { at, endpoint }) else {
                continue;
            };
            if live.sending {
                continue;
            }
            if let Some(due) = live.put_off(now) {
                self.put_off(Delivery { at, endpoint }, due);
                return true;
            }
            live.sending = true;
            live.started = now;
            slot.in_flight += 1;
            slot.throttle.started(now);
            let no = live.attempts.saturating_add(1);
            out.push(Command::Start(Job {
                endpoint,
                message: live.message.clone(),
                no,
                total: total(live.course, slot).max(no),
            }));
            self.ring.started(slot.plan.app);
            self.in_flight += 1;
            self.last_progress = now;
            return true;
        }
        false
    }

    /// Asks for parked rows when the queue runs low.
    fn read_more(&mut self, now: Timestamp, endpoint: EndpointNo, out: &mut Vec<Command>) {
        self.read_strays(now, endpoint, out);
        let settled = self.settled_so_far();
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        let unapplied = &mut self.unapplied;
        let limit = slot.page();
        let low = slot.queue.len() < limit / 2;
        for kind in [Kind::Retry, Kind::Backlog] {
            let wanted = slot.wants(kind, now, low);
            let head = slot.head(kind);
            if wanted && !head.reading {
                head.reading = true;
                let after = head.cursor();
                out.push(Command::Read(Read {
                    endpoint,
                    kind,
                    after,
                    limit,
                    settled,
                    walk: false,
                    no: unapplied.asked(),
                }));
            }
        }
        let hold = slot.hold_reads;
        if hold > now && (slot.backlog.due.is_some() || slot.retry.due.is_some()) {
            return self.wake_at(endpoint, hold);
        }
        let loading = slot.keys.as_ref().is_some_and(|keys| keys.loading);
        if let Some(due) = slot
            .retry
            .due
            .filter(|due| !retry::is_due(*due, now) && !loading)
        {
            self.wake_at(endpoint, due);
        }
    }

    pub(super) fn wake_at(&mut self, endpoint: EndpointNo, at: Timestamp) {
        let Some(slot) = self.slots.get_mut(&endpoint) else {
            return;
        };
        // A timer that fires early only costs a look, so one pending timer per endpoint is enough.
        if slot.timer.is_none_or(|set| at < set) {
            slot.timer = Some(at);
            self.timers.push(Reverse((at, endpoint)));
        }
    }
}

impl Slot {
    /// Whether a turn could lead to anything.
    fn has_work(&self) -> bool {
        if self.walk.as_ref().is_some_and(|walk| walk.is_waiting()) {
            return true;
        }
        if self.plan.deleted {
            return self.parked > 0;
        }
        self.plan.sending
            && (!self.queue.is_empty()
                || self.backlog.due.is_some()
                || self.retry.due.is_some()
                || self.strays.wanted)
    }

    /// At an ordered endpoint: an earlier delivery waits for its retry.
    fn is_behind_retry(&self) -> bool {
        (self.retry.due.is_some() || self.retry.reading) && self.retries_in_hand == 0
    }

    /// Whether rows of this kind should be read now.
    fn wants(&self, kind: Kind, now: Timestamp, low: bool) -> bool {
        let head = match kind {
            Kind::Backlog => &self.backlog,
            Kind::Retry | Kind::Stray => &self.retry,
        };
        let Some(due) = head.due else { return false };
        if self.plan.deleted {
            return true;
        }
        if self.keys.as_ref().is_some_and(|keys| keys.loading) {
            return kind == Kind::Retry;
        }
        // Retries have a quota of their own: a queue full of fresh deliveries must not starve them.
        let low = match kind {
            Kind::Backlog => low,
            Kind::Retry | Kind::Stray => self.retries_in_hand < self.page() / 2,
        };
        if !retry::is_due(due, now) || !low || now < self.hold_reads {
            return false;
        }
        match (self.plan.order, kind) {
            (Order::None | Order::Key, _) => true,
            (Order::Endpoint, Kind::Retry | Kind::Stray) => {
                self.in_flight == 0 && self.retries_in_hand == 0
            }
            (Order::Endpoint, Kind::Backlog) => {
                self.queue.is_empty() && self.retry.due.is_none() && !self.retry.reading
            }
        }
    }
}

/// Attempts planned in all.
fn total(course: Course, slot: &Slot) -> u16 {
    if course.once {
        course.attempts.saturating_add(1)
    } else {
        course
            .base
            .saturating_add(slot.plan.failing.retry.attempts())
    }
}
