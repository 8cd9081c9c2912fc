//! One round of the commit thread: what is queued, in the order that lets one fsync cover it.
//!
//! Order within a round: configuration, settlements, stored answers, then messages. A message never
//! overtakes a configuration change that was handed in before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::sync::{Ordering, hand};
use super::{Committed, Error, Shared, Work};
use crate::base::{Clock, Timestamp, task};
use crate::metrics::CommitMetrics;
use crate::model::Message;
use crate::store;
use crate::store::{Accept, Standing, Writer};

/// Housekeeping of the store is due this often.
const TEND: Duration = Duration::from_secs(10);
/// A settlement that no message commit has synced waits this long at most.
const LAZY: Duration = Duration::from_millis(100);

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Messages of one caller within a group.
struct Part {
    len: usize,
    bytes: u64,
    reply: Reply<Vec<Arc<Message>>>,
}

/// The state of the commit thread between rounds.
pub(super) struct Round {
    writer: Box<dyn Writer>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    committed: mpsc::Sender<Committed>,
    metrics: CommitMetrics,
    /// Messages of the group being built, and who waits for which of them.
    group: Vec<Accept>,
    parts: Vec<Part>,
    /// Callers of durable settlements of this round.
    durable: Vec<Reply<()>>,
    /// Monotonic, as `last_tend`: a wall clock that goes back must not hold up a sync.
    unsynced_since: Option<Duration>,
    last_tend: Duration,
    last_accepted: Timestamp,
}

impl Round {
    pub(super) fn new(
        writer: Box<dyn Writer>,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        committed: mpsc::Sender<Committed>,
    ) -> Self {
        let (now, last_tend) = (clock.now(), clock.monotonic());
        Self {
            writer,
            clock,
            shared,
            committed,
            metrics: CommitMetrics::register(),
            group: Vec::new(),
            parts: Vec::new(),
            durable: Vec::new(),
            unsynced_since: None,
            last_tend,
            last_accepted: now,
        }
    }

    /// Something written waits for a sync.
    pub(super) const fn is_unsynced(&self) -> bool {
        self.unsynced_since.is_some()
    }

    /// Does one round with what is queued; false = the thread must end.
    pub(super) fn turn(&mut self, mut queued: impl Iterator<Item = Work>) -> bool {
        loop {
            let mut drained = false;
            while self.group.len() < self.shared.options.max_group {
                let Some(work) = queued.next() else {
                    drained = true;
                    break;
                };
                match self.take(work) {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(cause) => return self.fail(&cause),
                }
            }
            if let Err(cause) = self.commit() {
                return self.fail(&cause);
            }
            if drained {
                break;
            }
            self.shared.gets_on();
        }
        match self.rest() {
            Ok(()) => true,
            Err(cause) => self.fail(&cause),
        }
    }

    /// Takes one entry in; everything but messages is applied at once.
    fn take(&mut self, work: Work) -> Result<bool, store::Error> {
        match work {
            Work::Append {
                batch,
                bytes,
                reply,
            } => {
                self.parts.push(Part {
                    len: batch.len(),
                    bytes,
                    reply,
                });
                self.group.extend(batch);
            }
            Work::Settle {
                settlement,
                durable,
                reply,
            } => {
                let applied = self.writer.settle(&settlement);
                self.unsynced_since
                    .get_or_insert_with(|| self.clock.monotonic());
                match applied {
                    Ok(()) if durable => self.durable.push(reply),
                    applied => return self.answer(reply, applied).map(|()| true),
                }
            }
            Work::Config {
                expected,
                rows,
                reply,
            } => {
                // Messages handed in before it were routed by the old configuration.
                self.commit()?;
                let revision = self.writer.commit_config(expected, &rows);
                return self.answer(reply, revision).map(|()| true);
            }
            Work::Remember { key, answer } => {
                self.writer.remember(key, self.clock.now(), answer)?;
                self.unsynced_since
                    .get_or_insert_with(|| self.clock.monotonic());
            }
            Work::Expunge { contents, reply } => {
                // What was handed in before it is there to be found.
                self.commit()?;
                let found = self.writer.expunge(&contents);
                return self.answer(reply, found).map(|()| true);
            }
            Work::EndPayloads { ends, reply } => {
                let done = self.writer.end_payloads(&ends);
                return self.answer(reply, done).map(|()| true);
            }
            Work::TurnOver { reply } => {
                let goes_on = self.writer.turn_over();
                self.unsynced_since
                    .get_or_insert_with(|| self.clock.monotonic());
                return self.answer(reply, goes_on).map(|()| true);
            }
            Work::Space { reply } => {
                let space = self.writer.space();
                return self.answer(reply, space).map(|()| true);
            }
            Work::Hold { body, reply } => return self.hold(body, reply),
            Work::Close { reply } => {
                self.commit()?;
                let closed = self.writer.close();
                self.answer(reply, closed)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs `body` while nothing is written; what queued before it is not part of the pause.
    fn hold(
        &mut self,
        body: Box<dyn FnOnce(Standing) + Send>,
        reply: Reply<Duration>,
    ) -> Result<bool, store::Error> {
        self.commit()?;
        let began = self.clock.monotonic();
        let held = self.writer.standing().map(|standing| {
            body(standing);
            self.clock.monotonic().saturating_sub(began)
        });
        if held.is_ok() {
            self.unsynced_since = None;
            self.answer_durable();
        }
        self.answer(reply, held).map(|()| true)
    }

    /// Answers one caller; `NotApplied` is the caller's affair, everything else ends the thread.
    fn answer<T>(
        &self,
        reply: Reply<T>,
        result: Result<T, store::Error>,
    ) -> Result<(), store::Error> {
        match result {
            Ok(value) => {
                task::answer(reply, Ok(value));
                Ok(())
            }
            Err(store::Error::NotApplied(why)) => {
                warn!(why, "a write was refused by the store");
                task::answer(reply, Err(Error::NotApplied));
                Ok(())
            }
            Err(cause) => {
                // Before the answer: who ends by it must find out that the store is the reason.
                self.note_failed(&cause);
                task::answer(reply, Err(Error::Failed));
                Err(cause)
            }
        }
    }

    fn note_failed(&self, cause: &store::Error) {
        self.shared.failed.send_replace(Some(cause.to_string()));
    }

    /// Commits the group with one fsync, hands it up, answers its callers.
    fn commit(&mut self) -> Result<(), store::Error> {
        if self.group.is_empty() {
            if !self.durable.is_empty() {
                self.sync()?;
            }
            return Ok(());
        }
        let accepted = self.clock.now().max(self.last_accepted);
        self.last_accepted = accepted;
        for accept in &mut self.group {
            accept.message.accepted = accepted;
        }
        let began = self.clock.monotonic();
        match self.writer.append(&mut self.group) {
            Ok(()) => {}
            Err(store::Error::NotApplied(why)) => {
                warn!(
                    why,
                    messages = self.group.len(),
                    "an append was refused by the store"
                );
                self.group.clear();
                self.answer_parts(&Err(Error::NotApplied));
                return Ok(());
            }
            Err(cause) => return Err(cause),
        }
        let took = self.clock.monotonic().saturating_sub(began);
        self.metrics.seconds.record(took.as_secs_f64());
        let size = u32::try_from(self.group.len()).unwrap_or(u32::MAX);
        self.metrics.messages.record(size);
        self.unsynced_since = None;
        let messages: Vec<_> = self.group.drain(..).map(|a| Arc::new(a.message)).collect();
        self.hand_up(&messages);
        self.answer_parts(&Ok(messages));
        if self.shared.commits.receiver_count() > 0 {
            self.shared.commits.send_replace(());
        }
        self.answer_durable();
        Ok(())
    }

    fn hand_up(&self, messages: &[Arc<Message>]) {
        let Some(last) = messages.last() else { return };
        let committed = Committed {
            lane: last.at.lane,
            last: last.at.seq,
            messages: messages
                .iter()
                .filter(|m| !m.targets.is_empty())
                .cloned()
                .collect(),
        };
        if !hand(&self.committed, committed) {
            // The scheduler is gone: the process is ending, and recovery reads the log again.
            warn!("committed messages were not handed on; they are delivered after the restart");
        }
    }

    fn answer_parts(&mut self, result: &Result<Vec<Arc<Message>>, Error>) {
        let mut messages = result.as_ref().map(|all| all.iter());
        for part in self.parts.drain(..) {
            self.shared.count_out(part.len, part.bytes);
            let answer = match &mut messages {
                Ok(all) => Ok(all.by_ref().take(part.len).cloned().collect()),
                Err(error) => Err(**error),
            };
            task::answer(part.reply, answer);
        }
    }

    fn answer_durable(&mut self) {
        for reply in self.durable.drain(..) {
            task::answer(reply, Ok(()));
        }
    }

    fn sync(&mut self) -> Result<(), store::Error> {
        self.writer.sync()?;
        self.unsynced_since = None;
        self.answer_durable();
        Ok(())
    }

    /// What is due between groups.
    fn rest(&mut self) -> Result<(), store::Error> {
        let now = self.clock.now();
        self.last_accepted = self.last_accepted.max(now);
        let passed = self.clock.monotonic();
        if self
            .unsynced_since
            .is_some_and(|since| passed.saturating_sub(since) >= LAZY)
        {
            self.sync()?;
        }
        if passed.saturating_sub(self.last_tend) >= TEND {
            self.last_tend = passed;
            self.writer.tend(now)?;
        }
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        self.metrics
            .queue
            .set(u32::try_from(waiting).unwrap_or(u32::MAX));
        self.shared
            .last_commit_ms
            .store(now.millis(), Ordering::Relaxed);
        Ok(())
    }

    /// The end: nobody is told `Ok` any more (`reliability.md` D2).
    fn fail(&mut self, cause: &store::Error) -> bool {
        error!(%cause, "the store failed; nothing is acknowledged any more");
        self.note_failed(cause);
        self.answer_parts(&Err(Error::Failed));
        for reply in self.durable.drain(..) {
            task::answer(reply, Err(Error::Failed));
        }
        false
    }
}
