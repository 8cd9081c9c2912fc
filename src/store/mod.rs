//! The seam between the engine and its storage, and the implementations behind it.
//!
//! The engine is written once against these traits; [`fjall`] is the embedded default, [`model`] the
//! in-memory reference that tests and the simulation run on. Both pass one conformance suite
//! (`tests/it/store`). Guarantees stand at the methods. What is promised everywhere:
//!
//! - one writer: [`Writer`] takes `&mut self`, so there is one commit under way and sequence numbers
//!   are dense;
//! - every mutating call can end [`Error::Doubtful`]; after any error but `NotApplied` the writer is
//!   dead and answers `Doubtful` for ever: the process must end (exit code 74) and recover;
//! - reads see whole commits only.
//!
//! [`Timely`] is a reader over another one: it hides payloads whose time is over. Whoever shows messages reads
//! through it, whoever delivers them does not.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::Timestamp;
use crate::model::{
    AppNo, Attempt, AttemptNo, Delivery, EndpointNo, EndpointState, LaneId, Message, Parked,
    ParkedKey, Position,
};

pub mod faults;
pub mod fjall;
pub mod model;
mod timely;

pub use timely::Timely;

/// What can go wrong at the seam. The variant is the decision.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was written; the call may be repeated.
    #[error("nothing was written: {0}")]
    NotApplied(String),
    /// It may or may not be written. The writer is dead.
    #[error("the write may or may not have happened: {0}")]
    Doubtful(String),
    /// The store cannot be read now.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
    /// What is stored is behind what had been acknowledged, or damaged. A human must decide
    /// (exit code 78).
    #[error("{0}")]
    Regressed(Box<Damage>),
    /// One record fails its checksum. It is quarantined: never signed, never delivered.
    #[error("record {what} is corrupt: {why}")]
    Corrupt {
        /// Which record.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The name under which the newest message of a collapse key is kept, beside event ids. None of those has
/// a NUL in it.
fn collapse_id(endpoint: EndpointNo, collapse_key: &str) -> String {
    format!("\0{}\0{collapse_key}", endpoint.0)
}

/// The answer to a configuration change made against another revision.
fn stale(expected: u64, found: u64) -> Error {
    Error::NotApplied(format!(
        "the configuration is at revision {found}, the change was made at {expected}"
    ))
}

/// Why a store refuses to open, in the operator's words (`reliability.md` D6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// One sentence: what was found.
    pub found: String,
    /// File and offset, where they are known.
    pub place: Option<String>,
    /// The lane concerned, with the last sequence found and the one that had been acknowledged.
    pub lane: Option<(LaneId, u64, u64)>,
    /// What can be done.
    pub remedy: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.found)?;
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        if let Some((lane, found, acked)) = self.lane {
            write!(
                f,
                "; lane {lane}: last sequence found {found}, acknowledged {acked}"
            )?;
        }
        write!(f, ". {}", self.remedy)
    }
}

/// One message on its way into the log.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The message; `at` is set by [`Writer::append`].
    pub message: Message,
    /// The `Idempotency-Key` record that must appear with it.
    pub idempotency: Option<IdempotencyKey>,
}

/// Identity of a request that must not act twice: a hash over credential, method, path and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// First 128 bits of SHA-256 over credential, path and the header's value.
    pub key: [u8; 16],
    /// First 128 bits of SHA-256 over the request body: same key with another body is refused.
    pub body: [u8; 16],
}

/// What is stored under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Hash of the body that came with it.
    pub body: [u8; 16],
    /// When it was stored; expires after the configured time.
    pub at: Timestamp,
    /// What it led to.
    pub answer: StoredAnswer,
}

/// The answer that a repeated request gets again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredAnswer {
    /// A message was accepted; the answer is rebuilt from it.
    Message(Position),
    /// Status and body as they were sent.
    Whole {
        /// HTTP status.
        status: u16,
        /// Body bytes.
        body: Bytes,
    },
}

/// What follows from outcomes, written as one atomic step per call.
///
/// Applying the same settlement twice leaves the same state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Ownership epoch of the shard; a store with several writers refuses an older one.
    pub epoch: u64,
    /// Finished attempts.
    pub attempts: Vec<Attempt>,
    /// Rows to take out. Applied before `park`.
    pub unpark: Vec<ParkedKey>,
    /// Rows to put in.
    pub park: Vec<Parked>,
    /// Deliveries cancelled before they were finished.
    pub cancelled: Vec<Delivery>,
    /// Deliveries that ended because a later message took their place, each with that message.
    pub superseded: Vec<(Delivery, Position)>,
    /// New state of endpoints.
    pub states: Vec<(EndpointNo, EndpointState)>,
    /// Deliveries to endpoints that their message was not meant for, of messages whose payload ends at
    /// a time of its own, with that time: without a trace of them in the store the payload would go first.
    pub further: Vec<(Delivery, Timestamp)>,
    /// Per lane: every delivery up to this sequence number is settled or parked. Never goes back.
    pub checkpoint: Vec<(LaneId, u64)>,
}

impl Settlement {
    /// True if there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.attempts.is_empty()
            && self.unpark.is_empty()
            && self.park.is_empty()
            && self.cancelled.is_empty()
            && self.superseded.is_empty()
            && self.states.is_empty()
            && self.further.is_empty()
            && self.checkpoint.is_empty()
    }
}

/// One configuration object as the store keeps it: opaque bytes under a kind and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRow {
    /// What it is.
    pub kind: ConfigKind,
    /// Its identity within the kind (number big-endian, or a name).
    pub key: Vec<u8>,
    /// JSON of the object.
    pub value: Bytes,
}

/// Kinds of configuration objects. The discriminant is stored: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ConfigKind {
    /// [`crate::model::Application`] by number.
    Application = 1,
    /// [`crate::model::Endpoint`] by number.
    Endpoint = 2,
    /// [`crate::model::EventType`] by name.
    EventType = 3,
    /// [`crate::model::ApiKey`] by id.
    ApiKey = 4,
    /// Settings of the instance by name.
    Instance = 5,
    /// A wrapped data key of the vault by number.
    DataKey = 6,
    /// [`crate::model::Source`] by number.
    Source = 7,
    /// An entry of the audit log by its 20-byte id, which begins with the millisecond. Not among
    /// [`Reader::config`]: read by [`Reader::audit`], and dropped by the day like messages.
    Audit = 8,
}

/// An id of the audit log, and the JSON of its entry.
pub type AuditRow = ([u8; 20], Bytes);

/// A stretch of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPage {
    /// Start behind (or before) this entry, exclusive. `None` = from the end.
    pub from: Option<[u8; 20]>,
    /// Newest first, or oldest first.
    pub newest_first: bool,
    /// Entries at most.
    pub limit: usize,
}

/// The end of a payload ([`Message::payload_ends`]) that is still to be dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadEnd {
    /// When it is to be looked at: at the payload's end, or later if it was put off.
    pub due: Timestamp,
    /// The message.
    pub at: Position,
    /// Endpoints it was sent to beside its targets ([`Settlement::further`]), ascending.
    pub further: Vec<EndpointNo>,
}

/// What comes of the end of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The payload is taken away, as by [`Content::Payload`].
    TakenAway,
    /// There is none any more.
    Gone,
    /// It is still being delivered: to be looked at again at this time.
    PutOff(Timestamp),
}

/// What can be taken away on request while the rest of the record stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// The payload of a message.
    Payload(Position),
    /// What is kept of the answer to an attempt.
    Response(Delivery, AttemptNo),
}

/// All writes. Owned by one thread.
pub trait Writer: Send {
    /// The lane this writer appends to; opened with it, never used before.
    fn lane(&self) -> LaneId;

    /// Appends messages, their list entries, event ids, collapse keys and idempotency records in ONE
    /// atomic commit.
    /// Gives each message the next dense sequence number (sets `message.at`). `Ok` = on stable
    /// storage, together with every earlier `settle` of this writer. On error nothing may be
    /// acknowledged; `at` is meaningless then.
    ///
    /// The caller has set `accepted`, not going back within a lane and equal within one call.
    fn append(&mut self, batch: &mut [Accept]) -> Result<(), Error>;

    /// Applies a settlement atomically. `Ok` = will survive a crash of the process; it is on stable
    /// storage after the next `append` or `sync`. Losing power before that costs a duplicate
    /// delivery, never an event.
    fn settle(&mut self, settlement: &Settlement) -> Result<(), Error>;

    /// Writes configuration objects, all or nothing, if the revision is still `expected`; answers
    /// the new revision (`expected` + 1). Another revision: `NotApplied`. `Ok` = on stable storage.
    fn commit_config(&mut self, expected: u64, rows: &[ConfigRow]) -> Result<u64, Error>;

    /// Stores the answer of a request other than a message (see [`StoredAnswer::Whole`]).
    fn remember(
        &mut self,
        key: IdempotencyKey,
        at: Timestamp,
        answer: StoredAnswer,
    ) -> Result<(), Error>;

    /// Takes content away, all of it in one commit; answers for each whether its record is there (it
    /// may have lost its content before). `Ok` = on stable storage, and no reader sees it any more.
    /// The old bytes leave the disk with [`Writer::turn_over`] and [`Reader::scrub`].
    fn expunge(&mut self, contents: &[Content]) -> Result<Vec<bool>, Error>;

    /// Deals with ends of payloads, all in one commit: takes payloads away, and forgets or puts off what
    /// was to be looked at. `Ok` = on stable storage, and no reader sees the payloads any more. Their old
    /// bytes leave the disk as those of [`Writer::expunge`] do.
    fn end_payloads(&mut self, ends: &[(PayloadEnd, Ended)]) -> Result<(), Error>;

    /// Writes some padding, so that a log which is only removed as a whole comes to its end. Called
    /// until it answers false: then what was written before stands in no part of the log that is
    /// still open.
    fn turn_over(&mut self) -> Result<bool, Error>;

    /// Makes everything applied so far durable.
    fn sync(&mut self) -> Result<(), Error>;

    /// Housekeeping, called about every 10 s with the current time: heartbeats, trimming of what
    /// fell out of retention, high-water mark. Undelivered messages are never dropped. What is out of
    /// retention as of `now` is hidden from readers when this returns, but for messages behind a long
    /// walk over parked rows.
    fn tend(&mut self, now: Timestamp) -> Result<(), Error>;

    /// Bytes left on the disk that holds the store, for the reserve.
    fn space(&self) -> Result<Space, Error>;

    /// Makes everything applied so far durable, as [`Writer::sync`], and answers where the log then
    /// stands. Until the next call nothing is written: what is on the disk is exactly that.
    fn standing(&mut self) -> Result<Standing, Error>;

    /// Syncs and writes the final high-water mark. The writer is dead afterwards.
    fn close(&mut self) -> Result<(), Error>;
}

/// Where a log stands between two commits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The last commit; numbers are dense over the whole life of a store.
    pub batch: u64,
    /// Its hash, which covers all commits before it.
    pub hash: [u8; 16],
    /// The end of the log: the last message, or the open lane with sequence number 0.
    pub tail: Position,
    /// The highest lane ever opened.
    pub highest_lane: LaneId,
    /// Commits below this number are not verified any more: a loss was accepted before it.
    pub verify_from: u64,
    /// Per lane that still holds messages its last one.
    pub lanes: BTreeMap<LaneId, u64>,
}

/// A loss that was accepted some time, as its audit record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The lane concerned.
    pub lane: LaneId,
    /// Its last message that was kept for certain.
    pub last_good: u64,
    /// Its last message that had been acknowledged: what lies between may be gone.
    pub acknowledged: u64,
    /// When it was accepted.
    pub at: Timestamp,
}

/// Disk and journal figures of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes the store takes.
    pub used: u64,
    /// Bytes left on its disk.
    pub free: u64,
    /// Journal files.
    pub journals: u64,
    /// Bytes in them.
    pub journal_bytes: u64,
}

/// All reads. Cheap to clone behind an `Arc`; every call may block on the disk for a moment.
pub trait Reader: Send + Sync {
    /// The message at a position.
    fn message(&self, at: Position) -> Result<Option<Message>, Error>;

    /// Messages behind `after`, in order, at most `limit`, within one lane.
    fn fetch(&self, after: Position, limit: usize) -> Result<Vec<Message>, Error>;

    /// Lanes with their last checkpoint and last appended sequence number, oldest first.
    fn lanes(&self) -> Result<Vec<Lane>, Error>;

    /// Parked rows of an endpoint with key > `after` and due <= `until`, in key order.
    fn parked(
        &self,
        endpoint: EndpointNo,
        after: Option<ParkedKey>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Parked>, Error>;

    /// One parked row.
    fn parked_row(&self, key: ParkedKey) -> Result<Option<Parked>, Error>;

    /// State of every endpoint that has one.
    fn endpoint_states(&self) -> Result<Vec<(EndpointNo, EndpointState)>, Error>;

    /// Attempts of a message, by endpoint and number; of one endpoint if it is named. Those of a message
    /// that is out of retention are there until they are out of theirs. What was answered reads
    /// [`crate::model::EXPUNGED`] once it is out of its own.
    fn attempts(&self, at: Position, endpoint: Option<EndpointNo>) -> Result<Vec<Attempt>, Error>;

    /// Whether the delivery was cancelled or superseded.
    fn is_cancelled(&self, delivery: Delivery) -> Result<bool, Error>;

    /// The later message that took the delivery's place, if it ended so.
    fn superseded_by(&self, delivery: Delivery) -> Result<Option<Position>, Error>;

    /// The newest message with this collapse key for this endpoint, while it is retained.
    fn newest(
        &self,
        app: AppNo,
        endpoint: EndpointNo,
        collapse_key: &str,
    ) -> Result<Option<Position>, Error> {
        self.by_event_id(app, &collapse_id(endpoint, collapse_key))
    }

    /// How many deliveries of an endpoint were cancelled or superseded, of messages at `range` (both ends
    /// included); `None` if more than `budget` records would have to be looked at.
    fn cancelled(
        &self,
        endpoint: EndpointNo,
        range: (Position, Position),
        budget: usize,
    ) -> Result<Option<u64>, Error>;

    /// Rewrites the files that may still hold what was expunged before, and lets the log of that
    /// time go. Blocks for as long as that takes: about the size of the store through the disk.
    fn scrub(&self) -> Result<(), Error>;

    /// Ends of payloads that are to be looked at until `until`, the earliest first, behind `after`; those
    /// of messages that are out of retention may be among them.
    fn payload_ends(
        &self,
        after: Option<(Timestamp, Position)>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<PayloadEnd>, Error>;

    /// Positions of an application's messages in `order`, from `from` (exclusive).
    fn app_messages(&self, app: AppNo, page: &Page) -> Result<Vec<Listed>, Error>;

    /// Attempts at an endpoint in order of their end, from `from` (exclusive), while they are within their
    /// retention, also if their message is held longer.
    fn endpoint_attempts(
        &self,
        endpoint: EndpointNo,
        page: &Page,
    ) -> Result<Vec<ListedAttempt>, Error>;

    /// The message that carries this event id in this application, while it is retained.
    fn by_event_id(&self, app: AppNo, event_id: &str) -> Result<Option<Position>, Error>;

    /// What an idempotency key led to, not older than `oldest`.
    fn idempotent(
        &self,
        key: &[u8; 16],
        oldest: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, Error>;

    /// Entries of the audit log in order. Those out of retention may still be among them for a while.
    fn audit(&self, page: &AuditPage) -> Result<Vec<AuditRow>, Error>;

    /// All configuration objects and the revision they stand for.
    fn config(&self) -> Result<(u64, Vec<ConfigRow>), Error>;
}

/// A lane as found at open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// Which.
    pub id: LaneId,
    /// Everything up to here is settled or parked.
    pub checkpoint: u64,
    /// The last message in it; 0 = none.
    pub last: u64,
}

/// A stretch of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Start behind (or before) this place, exclusive. `None` = from the end.
    pub from: Option<ListKey>,
    /// Stop at this place, exclusive.
    pub until: Option<ListKey>,
    /// Newest first, or oldest first.
    pub newest_first: bool,
    /// Entries at most.
    pub limit: usize,
}

/// A place in a list: time first, then what makes it unique. Sorts as the list does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListKey {
    /// When the entry was made.
    pub time: Timestamp,
    /// The message.
    pub at: Position,
    /// Attempt number; 0 in lists of messages.
    pub no: u16,
}

/// An entry of a message list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its place.
    pub key: ListKey,
}

/// An entry of an attempt list: enough to filter without reading the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedAttempt {
    /// Its place; `at` and `no` find the attempt.
    pub key: ListKey,
    /// HTTP status; 0 = none.
    pub status: u16,
    /// 0 delivered, 1 retrying, 2 dead.
    pub verdict: u8,
    /// Whether its message is retained; attempts may outlive it.
    pub has_message: bool,
}
