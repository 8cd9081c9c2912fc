//! The commit thread: the only caller of the store's write path.
//!
//! Whatever queued while the last fsync ran is the next group: no timers, no linger. The thread owns
//! the [`Writer`], assigns the acceptance time, commits, hands the committed messages up to the
//! scheduler and then answers those who wait. Settlements and configuration changes ride in the same
//! loop, before the messages of their round, so one fsync covers all of it.
//!
//! Invariant: after the first write error nothing is answered `Ok` any more; [`Lane::failed`] tells
//! the process to end with exit code 74. Elsewhere: what is written how (`store`), who may hand in
//! what (`ingest`), what to do with committed messages (`schedule`).

mod round;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Inbox, Ordering, RecvTimeoutError, Sender, TrySendError,
    bounded,
};
use crate::base::{Clock, SystemClock, Timestamp, task};
use crate::model::{LaneId, Message};
use crate::store::{
    Accept, ConfigRow, Content, Ended, IdempotencyKey, PayloadEnd, Settlement, Space, Standing,
    StoredAnswer, Writer,
};

/// Room in the queue for settlements and configuration beside the messages.
const CONTROL_ROOM: usize = 1024;
/// A disk, or a scheduler, that keeps the thread for longer has stalled. New messages are refused
/// then instead of waiting behind it unseen (`reliability.md` 6, Backpressure; T31).
const STALL: Duration = Duration::from_secs(1);

/// Limits of the queue in front of the commit thread.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Messages waiting for the next commit; a further one is refused at once.
    pub queue: usize,
    /// Payload bytes waiting; a further message is refused at once.
    pub queue_bytes: u64,
    /// Messages of one group commit at most.
    pub max_group: usize,
}

/// Messages that are on stable storage, in order.
#[derive(Debug)]
pub struct Committed {
    /// Their lane.
    pub lane: LaneId,
    /// Sequence number of the last message of the group, wanted or not.
    pub last: u64,
    /// Those that some endpoint wants.
    pub messages: Vec<Arc<Message>>,
}

/// Why the lane did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The queue is full, or the write under way takes longer than a second. Nothing was written;
    /// try again in a moment.
    #[error("too many messages wait for the next commit")]
    Busy,
    /// The disk has less than the reserve left. Nothing was written.
    #[error("the disk has less space left than the reserve")]
    SpaceLow,
    /// Nothing was written: the expected state was not there (configuration revision).
    #[error("the stored state is not the expected one")]
    NotApplied,
    /// The write failed: it may or may not have happened, and the process is ending.
    #[error("the store failed; whether this was written is unknown")]
    Failed,
}

/// What was done while nothing was written.
#[derive(Debug)]
pub struct Held<T> {
    /// What it gave.
    pub value: T,
    /// Where the log stood meanwhile.
    pub standing: Standing,
    /// For how long commits had to wait: the sync before it included.
    pub pause: Duration,
}

/// Resolves when a settlement is applied.
pub type Done = oneshot::Receiver<Result<(), Error>>;

/// Cheap handle to the commit thread.
#[derive(Clone)]
pub struct Lane {
    work: Sender<Work>,
    shared: Arc<Shared>,
}

/// An append that was taken in; resolves after its fsync.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<Vec<Arc<Message>>, Error>>);

impl Ticket {
    /// Waits for the commit. Dropping the ticket does not undo the append. Cancel safe.
    pub async fn committed(self) -> Result<Vec<Arc<Message>>, Error> {
        self.0.await.unwrap_or(Err(Error::Failed))
    }
}

impl Lane {
    /// Starts the commit thread. `committed` is bounded; when it is full the thread waits, the queue
    /// in front of it fills, and new messages are refused: nothing is lost.
    pub fn start(
        writer: Box<dyn Writer>,
        clock: Arc<dyn Clock>,
        options: Options,
        committed: mpsc::Sender<Committed>,
    ) -> std::io::Result<Self> {
        let (lane, rounds) = Self::by_hand(writer, clock, options, committed);
        task::thread("lane", move || rounds.run())?;
        Ok(lane)
    }

    /// The lane without its thread: whoever holds the [`Rounds`] says when a round runs. A simulation
    /// delays them, lets them pile up, and ends the process between any two.
    pub fn by_hand(
        writer: Box<dyn Writer>,
        clock: Arc<dyn Clock>,
        options: Options,
        committed: mpsc::Sender<Committed>,
    ) -> (Self, Rounds) {
        let (work, inbox) = bounded(options.queue.saturating_add(CONTROL_ROOM));
        let shared = Arc::new(Shared {
            options,
            real: SystemClock::start(),
            lane: writer.lane(),
            busy_since_ms: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
            last_commit_ms: AtomicU64::new(clock.now().millis()),
            failed: watch::Sender::new(None),
            commits: watch::Sender::new(()),
            inbox: Inbox::new(inbox),
            ended: AtomicBool::new(false),
        });
        let round = round::Round::new(writer, clock, Arc::clone(&shared), committed);
        let seen = Arc::clone(&shared);
        let rounds = Rounds { round, seen };
        (Self { work, shared }, rounds)
    }

    /// The lane's number.
    pub fn id(&self) -> LaneId {
        self.shared.lane
    }

    /// Hands in messages that are to be committed together: all of them or none. Never waits.
    pub fn append(&self, batch: Vec<Accept>) -> Result<Ticket, Error> {
        let shared = &self.shared;
        if self.is_refusing() {
            return Err(Error::SpaceLow);
        }
        let bytes = batch.iter().map(weight).sum::<u64>();
        let count = batch.len();
        if shared.has_stalled() || !shared.count_in(count, bytes) {
            return Err(Error::Busy);
        }
        let (reply, ticket) = oneshot::channel();
        let sent = self.send(Work::Append {
            batch,
            bytes,
            reply,
        });
        if let Err(error) = sent {
            shared.count_out(count, bytes);
            return Err(error);
        }
        Ok(Ticket(ticket))
    }

    /// Hands in a settlement without waiting; the answer tells when it is applied, or, if `durable`,
    /// when it is on stable storage. A full queue gives it back.
    pub fn settle(
        &self,
        settlement: Settlement,
        durable: bool,
    ) -> Result<Done, (Error, Box<Settlement>)> {
        let (reply, done) = oneshot::channel();
        let work = Work::Settle {
            settlement,
            durable,
            reply,
        };
        match self.push(work) {
            Ok(()) => Ok(done),
            Err(TrySendError::Full(Work::Settle { settlement, .. })) => {
                Err((Error::Busy, Box::new(settlement)))
            }
            Err(_) => Err((Error::Failed, Box::default())),
        }
    }

    /// Writes configuration objects if the revision is still `expected`; answers the new one.
    /// Dropping the future does not undo the write.
    pub async fn commit_config(&self, expected: u64, rows: Vec<ConfigRow>) -> Result<u64, Error> {
        let (reply, done) = oneshot::channel();
        self.send(Work::Config {
            expected,
            rows,
            reply,
        })?;
        done.await.unwrap_or(Err(Error::Failed))
    }

    /// Stores the answer of a request other than a message; durable with the next commit.
    pub fn remember(&self, key: IdempotencyKey, answer: StoredAnswer) -> Result<(), Error> {
        self.send(Work::Remember { key, answer })
    }

    /// Takes content away; answers for each whether its record is there ([`Writer::expunge`]).
    /// Dropping the future does not undo it.
    pub async fn expunge(&self, contents: Vec<Content>) -> Result<Vec<bool>, Error> {
        let (reply, done) = oneshot::channel();
        self.send(Work::Expunge { contents, reply })?;
        done.await.unwrap_or(Err(Error::Failed))
    }

    /// Deals with ends of payloads ([`Writer::end_payloads`]). Dropping the future does not undo it.
    pub async fn end_payloads(&self, ends: Vec<(PayloadEnd, Ended)>) -> Result<(), Error> {
        let (reply, done) = oneshot::channel();
        self.send(Work::EndPayloads { ends, reply })?;
        done.await.unwrap_or(Err(Error::Failed))
    }

    /// Writes padding until the log of before can go ([`Writer::turn_over`]): false = it can.
    pub async fn turn_over(&self) -> Result<bool, Error> {
        let (reply, done) = oneshot::channel();
        self.send(Work::TurnOver { reply })?;
        done.await.unwrap_or(Err(Error::Failed))
    }

    /// Stops the thread after everything queued is written; syncs and closes the store.
    pub async fn close(&self) -> Result<(), Error> {
        let (reply, done) = oneshot::channel();
        self.send(Work::Close { reply })?;
        done.await.unwrap_or(Err(Error::Failed))
    }

    /// Returns the reason once the store has failed. The process must end with exit code 74.
    pub async fn failed(&self) -> String {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::from("the commit thread is gone"),
        }
    }

    /// True once the store has failed.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.borrow().is_some()
    }

    /// Changes soon after messages were committed and can be read.
    pub fn commits(&self) -> watch::Receiver<()> {
        self.shared.commits.subscribe()
    }

    /// Messages waiting for the next commit, for metrics and readiness.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// When the thread last finished a round (also an empty one, at least every two seconds).
    pub fn last_round(&self) -> Timestamp {
        Timestamp::from_millis(self.shared.last_commit_ms.load(Ordering::Relaxed))
    }

    /// Runs `body` on the commit thread between two group commits, after everything committed was
    /// made durable: while it runs nothing is written. It must be short (`reliability.md` D10: 100 ms).
    /// Dropping the future does not undo it.
    pub async fn hold<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Held<T>, Error> {
        let (found_to, found) = oneshot::channel();
        let (reply, done) = oneshot::channel();
        let body = Box::new(move |standing| task::answer(found_to, (body(), standing)));
        self.send(Work::Hold { body, reply })?;
        let pause = done.await.unwrap_or(Err(Error::Failed))?;
        let (value, standing) = found.await.map_err(|_| Error::Failed)?;
        Ok(Held {
            value,
            standing,
            pause,
        })
    }

    fn send(&self, work: Work) -> Result<(), Error> {
        self.push(work).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Failed,
        })
    }

    #[expect(
        clippy::result_large_err,
        reason = "what does not fit is given back whole, as the queue does it"
    )]
    fn push(&self, work: Work) -> Result<(), TrySendError<Work>> {
        if self.shared.ended.load(Ordering::SeqCst) {
            return Err(TrySendError::Disconnected(work));
        }
        self.work.try_send(work)?;
        // It may have ended between the two: then nobody will look into the queue any more.
        if self.shared.ended.load(Ordering::SeqCst) {
            self.shared.clear();
        }
        Ok(())
    }

    /// Refuses new messages while the disk is short; settlements go on. Set by housekeeping.
    pub fn refuse_messages(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Whether new messages are refused because the disk is short.
    pub fn is_refusing(&self) -> bool {
        self.shared.refuse.load(Ordering::Relaxed)
    }

    /// Figures of the store as of the last housekeeping.
    pub async fn space(&self) -> Result<Space, Error> {
        let (reply, done) = oneshot::channel();
        self.send(Work::Space { reply })?;
        done.await.unwrap_or(Err(Error::Failed))
    }
}

/// What both sides of the queue see.
struct Shared {
    options: Options,
    /// A stall of the disk is a matter of real time, also where a test moves the clock.
    real: SystemClock,
    lane: LaneId,
    /// When the thread took up what it does now (monotonic, plus one); 0 while it waits for work.
    busy_since_ms: AtomicU64,
    /// Messages between `append` and their commit; never above `options.queue` but for one batch.
    waiting: AtomicUsize,
    waiting_bytes: AtomicU64,
    refuse: AtomicBool,
    last_commit_ms: AtomicU64,
    failed: watch::Sender<Option<String>>,
    /// Told of every commit with messages, if somebody listens.
    commits: watch::Sender<()>,
    /// The other end of the queue. Taken by the thread as long as it runs.
    inbox: Inbox<Work>,
    /// The thread has ended, or is about to, and takes nothing any more.
    ended: AtomicBool,
}

impl Shared {
    /// Drops what is queued, which answers whoever waits for it with [`Error::Failed`]. A queue keeps
    /// what is in it as long as it has a sender, so without this they would wait for ever.
    fn clear(&self) {
        let inbox = self.inbox.take();
        while let Ok(work) = inbox.try_recv() {
            drop(work);
        }
    }

    /// The thread takes something up.
    fn works(&self) {
        let now = millis(self.real.monotonic()).saturating_add(1);
        self.busy_since_ms.store(now, Ordering::Relaxed);
    }

    /// The thread got on: under a load that never lets the queue run empty it is busy for long
    /// without having stalled. Rounds run by hand have no thread and never count as busy.
    fn gets_on(&self) {
        if self.busy_since_ms.load(Ordering::Relaxed) > 0 {
            self.works();
        }
    }

    /// The thread waits for work.
    fn rests(&self) {
        self.busy_since_ms.store(0, Ordering::Relaxed);
    }

    fn has_stalled(&self) -> bool {
        let since = self.busy_since_ms.load(Ordering::Relaxed);
        let now = millis(self.real.monotonic());
        since > 0 && now.saturating_add(1).saturating_sub(since) > millis(STALL)
    }

    /// Counts a batch in if there is room for it. One that is refused leaves the counters alone, so a
    /// flood of batches that are too large takes no room from others. A batch larger than the whole
    /// queue may pass an empty queue, or it never could.
    fn count_in(&self, count: usize, bytes: u64) -> bool {
        let Options {
            queue, queue_bytes, ..
        } = self.options;
        let fits = |held: u64| {
            let sum = held.checked_add(bytes)?;
            (sum <= queue_bytes).then_some(sum)
        };
        let is_empty = self.waiting.load(Ordering::Relaxed) == 0;
        if !is_empty && fits(self.waiting_bytes.load(Ordering::Relaxed)).is_none() {
            return false;
        }
        let counted = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                let sum = waiting.checked_add(count)?;
                (waiting == 0 || sum <= queue).then_some(sum)
            });
        let held = match counted {
            Err(_) => return false,
            Ok(0) => {
                self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
                return true;
            }
            Ok(_) => self
                .waiting_bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits),
        };
        if held.is_err() {
            // Others took the room for its bytes since the look above: rare, and no flood.
            self.waiting.fetch_sub(count, Ordering::Relaxed);
        }
        held.is_ok()
    }

    /// A batch is committed, or was not taken after all.
    fn count_out(&self, count: usize, bytes: u64) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One entry of the queue.
enum Work {
    Append {
        batch: Vec<Accept>,
        bytes: u64,
        reply: oneshot::Sender<Result<Vec<Arc<Message>>, Error>>,
    },
    Settle {
        settlement: Settlement,
        durable: bool,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Config {
        expected: u64,
        rows: Vec<ConfigRow>,
        reply: oneshot::Sender<Result<u64, Error>>,
    },
    Remember {
        key: IdempotencyKey,
        answer: StoredAnswer,
    },
    Expunge {
        contents: Vec<Content>,
        reply: oneshot::Sender<Result<Vec<bool>, Error>>,
    },
    EndPayloads {
        ends: Vec<(PayloadEnd, Ended)>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    TurnOver {
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    Space {
        reply: oneshot::Sender<Result<Space, Error>>,
    },
    Hold {
        body: Box<dyn FnOnce(Standing) + Send>,
        reply: oneshot::Sender<Result<Duration, Error>>,
    },
    Close {
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Memory a queued message stands for.
fn weight(accept: &Accept) -> u64 {
    let labels = accept.message.labels.as_ref();
    let metadata = labels.map_or(0, |labels| labels.metadata.values().map(String::len).sum());
    let payload: usize = accept.message.payload.len();
    u64::try_from(payload.saturating_add(metadata))
        .unwrap_or(u64::MAX)
        .saturating_add(256)
}

/// The work of the commit thread, round by round. Dropping it ends the lane: what is queued then, and
/// whatever comes later, is answered with [`Error::Failed`].
pub struct Rounds {
    round: round::Round,
    seen: Arc<Shared>,
}

impl Rounds {
    /// One round with what is queued now, which may be nothing; false = the lane was closed or has
    /// failed, and no further round may follow. Does not wait for work; waits while the scheduler's
    /// channel is full, so that must have room if the scheduler runs on the same thread.
    pub fn turn(&mut self) -> bool {
        let inbox = self.seen.inbox.take();
        self.round
            .turn(std::iter::from_fn(|| inbox.try_recv().ok()))
    }

    /// Runs until closed, failed, or every handle is gone.
    fn run(mut self) {
        // Lazily synced settlements wait this long at most.
        const UNSYNCED: Duration = Duration::from_millis(100);
        // With nothing to sync it is the heartbeat of the thread only; below what counts as stuck.
        const IDLE: Duration = Duration::from_secs(5);
        let inbox = self.seen.inbox.take();
        loop {
            let wait = if self.round.is_unsynced() {
                UNSYNCED
            } else {
                IDLE
            };
            let first = match inbox.recv_timeout(wait) {
                Ok(work) => Some(work),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let more = std::iter::from_fn(|| inbox.try_recv().ok());
            self.seen.works();
            let goes_on = self.round.turn(first.into_iter().chain(more));
            self.seen.rests();
            if !goes_on {
                break;
            }
        }
        drop(inbox); // before `self`, whose end looks into it
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.seen.ended.store(true, Ordering::SeqCst);
        self.seen.clear();
    }
}
