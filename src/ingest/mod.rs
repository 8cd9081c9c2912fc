//! An authenticated body becomes a message on stable storage.
//!
//! [`Ingest::admit`] decides before the body is read whether anything can be accepted;
//! [`Ingest::accept`] reads the body once, finds the endpoints that want the message, counts them as
//! pending and hands it to the lane. `Ok` = one commit with message, targets and idempotency record
//! is on stable storage.
//!
//! A request with an `Idempotency-Key` or an event id takes a [`Claim`] first, looks into the store
//! under it, and holds it until its commit, also when its caller goes away meanwhile. All others
//! never touch that path. Knows no HTTP types. Elsewhere: routes and answers (`api::message`), group
//! commit (`lane`), matching (`policy::filter`).

mod application;
mod batch;
mod claims;
mod events;
pub mod fields;
mod keys;
mod limits;
mod meters;
mod names;
pub mod parse;
mod refused;
mod route;
mod scan;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::{Entropy, Principal};
use crate::base::{Clock, Timestamp, task};
use crate::config;
use crate::directory::{AppEntry, Directory};
use crate::lane::{self, Lane, Ticket};
use crate::model::{ContentType, EndpointNo, LaneId, Message, Position};
use crate::policy::hop;
use crate::store::{self, Accept, Reader, StoredAnswer, Timely};

pub use application::ApplicationIn;
pub use batch::LineResult;
#[doc(hidden)]
pub use batch::lines;
pub use claims::{Claim, Claims, Key, Taken};
pub use events::{EventIn, Signed};
pub use fields::{Item, ItemKind};
pub use keys::{body_hash, request_key};
pub use limits::{Scope as LimitScope, Warning};
pub use refused::Refused;

use limits::{Pending, Reserved, Throttle};
use meters::Meters;
use names::Names;
use parse::{Limits, MessageIn};

/// What [`Ingest`] works with.
pub struct Parts {
    /// Limits.
    pub config: config::Ingest,
    /// How long stored answers hold ([`config::Retention::idempotency`]).
    pub remember_for: Duration,
    /// Applications and endpoints.
    pub directory: Arc<Directory>,
    /// Where messages go.
    pub lane: Lane,
    /// Where earlier ones are found.
    pub reader: Arc<dyn Reader>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For the ids of applications made on the fly.
    pub entropy: Arc<Entropy>,
}

/// Takes messages in. Shared by all connections.
pub struct Ingest {
    parts: Parts,
    limits: Limits,
    pending: Pending,
    throttle: Throttle,
    names: Names,
    claims: Claims,
    meters: Meters,
}

/// What was found out before the body was read.
pub struct Admission {
    entry: Option<Arc<AppEntry>>,
    /// A soft watermark is passed.
    pub warning: Option<Warning>,
}

/// One request to accept a message, or a batch of them.
pub struct Submission<'a> {
    /// Id or uid of the application, as the path has it.
    pub app: &'a str,
    /// Who sends it.
    pub principal: &'a Principal,
    /// Whether the caller may make applications on the fly.
    pub may_create: bool,
    /// The path in its one canonical form: part of what an idempotency key belongs to.
    pub path: &'a str,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// Hops of the request ([`Ingest::hops`]); hold for every message in it.
    pub hops: u8,
    /// Answer a repeated event id with the first message instead of a conflict.
    pub return_duplicate: bool,
    /// The request body.
    pub body: Bytes,
}

/// A message on stable storage.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The message.
    pub message: Arc<Message>,
    /// It was accepted before, under the same event id.
    pub duplicate: bool,
}

impl Ingest {
    /// Puts it together.
    pub fn new(mut parts: Parts) -> Self {
        let timely = Timely::new(parts.reader, Arc::clone(&parts.clock));
        parts.reader = Arc::new(timely);
        Self {
            limits: Limits {
                max_payload: parts.config.max_body.len(),
                max_depth: parts.config.max_json_depth,
            },
            pending: Pending::new(&parts.config),
            throttle: Throttle::default(),
            names: Names::default(),
            claims: Claims::default(),
            meters: Meters::default(),
            parts,
        }
    }

    /// Limits of what is taken in.
    pub const fn config(&self) -> &config::Ingest {
        &self.parts.config
    }

    /// Claims, shared with the other routes that honour idempotency keys.
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether the limits of all applications together are reached: nothing is accepted then.
    pub fn is_full(&self) -> bool {
        let snapshot = self.parts.directory.peek();
        self.pending.check(None, snapshot.total()).is_err()
    }

    /// Decides whether a message of this application could be accepted, before its body is read.
    /// An unknown application is admitted: the body may make it.
    pub fn admit(&self, app: &str, principal: &Principal) -> Result<Admission, Refused> {
        let admitted = self.check(app, principal);
        match &admitted {
            Ok(admission) => self.meters.watermark(admission.warning.as_ref()),
            Err(refused) => self.meters.refused(refused),
        }
        admitted
    }

    fn check(&self, app: &str, principal: &Principal) -> Result<Admission, Refused> {
        let snapshot = self.parts.directory.peek();
        let entry = snapshot.app(app).cloned();
        let hidden = entry.as_ref().is_some_and(|e| !principal.sees(e.app.no));
        if hidden || (entry.is_none() && principal.app.is_some()) {
            return Err(Refused::NoApplication);
        }
        let load = entry.as_ref().map(|entry| entry.load.as_ref());
        let warning = self.pending.check(load, snapshot.total())?;
        if let Some(load) = load {
            load.usage().check(|| self.parts.clock.now())?;
        }
        Ok(Admission { entry, warning })
    }

    /// Hops that the messages of a request have behind them, from its `webhook-hops` headers. Refuses
    /// what goes in circles, before its body is read.
    pub fn hops<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<u8, Refused> {
        hop::read(values).map_err(|bad| {
            let refused = Refused::from(bad);
            self.meters.refused(&refused);
            refused
        })
    }

    /// Accepts one message. Cancel safe: a message that was handed in is stored and keeps its claim,
    /// whether the caller waits or not.
    pub async fn accept(
        &self,
        admission: Admission,
        submission: Submission<'_>,
    ) -> Result<Accepted, Refused> {
        let accepted = self.accept_one(admission, &submission).await;
        if let Err(refused) = &accepted {
            self.meters.refused(refused);
        }
        accepted
    }

    async fn accept_one(
        &self,
        admission: Admission,
        submission: &Submission<'_>,
    ) -> Result<Accepted, Refused> {
        let read = parse::message(&submission.body, &self.limits)?;
        let entry = match admission.entry {
            Some(entry) => entry,
            None => {
                self.application(submission, read.application.as_ref())
                    .await?
            }
        };
        self.throttle(&entry)?;
        let is_plain = submission.idempotency_key.is_none()
            && read.labels.as_ref().is_none_or(|l| l.event_id.is_none());
        let payload = submission.body.slice_ref(read.payload.as_bytes());
        let (message, mistakes) = self.message(&entry, read, payload, submission.hops);
        if !is_plain {
            return self
                .accept_once(&entry, (message, mistakes), submission)
                .await;
        }
        refuse(mistakes)?;
        let (ticket, reserved) = self.append(&entry, message, None)?;
        let message = settle(ticket.committed().await, reserved)?;
        self.meters.accepted(&message);
        Ok(Accepted {
            message,
            duplicate: false,
        })
    }

    /// Accepts a message that has an idempotency key or an event id.
    async fn accept_once(
        &self,
        entry: &AppEntry,
        (message, mistakes): (Message, Option<Vec<Item>>),
        submission: &Submission<'_>,
    ) -> Result<Accepted, Refused> {
        let mut claims = Vec::new();
        let mut record = None;
        if let Some(key) = submission.idempotency_key {
            let key = keys::of(submission, key, &submission.body)?;
            claims.push(self.claim(key.key).await?);
            if let Some(found) = self.replay(entry, &key)? {
                return Ok(found);
            }
            record = Some(key);
        }
        // Idempotency key first, event id second, never the other way round: no two requests can
        // wait for each other.
        if let Some(event_id) = message.event_id() {
            claims.push(self.claim(keys::event_key(entry.app.no, event_id)).await?);
            if let Some(first) = self.first_of(entry, event_id)? {
                if !submission.return_duplicate {
                    return Err(Refused::Duplicate(first.id()));
                }
                return Ok(Accepted {
                    message: Arc::new(first),
                    duplicate: true,
                });
            }
        }
        refuse(mistakes)?;
        let (ticket, reserved) = self.append(entry, message, record)?;
        let (reply, answer) = tokio::sync::oneshot::channel();
        task::detach(async move {
            let committed = settle(ticket.committed().await, reserved);
            drop(claims);
            drop(reply.send(committed)); // the caller went away; the message stands
        });
        let message = answer.await.unwrap_or(Err(Refused::Failed))?;
        self.meters.accepted(&message);
        Ok(Accepted {
            message,
            duplicate: false,
        })
    }

    /// Accepts a message for one endpoint, whatever its filters say: an example or a test.
    pub async fn accept_for(
        &self,
        entry: &AppEntry,
        event_type: &str,
        payload: Bytes,
        endpoint: EndpointNo,
    ) -> Result<Arc<Message>, Refused> {
        self.throttle(entry)?;
        if payload.len() > self.limits.max_payload {
            return Err(Refused::TooLarge {
                limit: self.limits.max_payload,
            });
        }
        let message = Message {
            at: Position {
                lane: LaneId(0),
                seq: 0,
            },
            accepted: Timestamp::ZERO,
            app: entry.app.no,
            event_type: self.names.shared(event_type),
            content_type: ContentType::Json,
            payload,
            targets: vec![endpoint],
            labels: None,
        };
        let (ticket, reserved) = self.append(entry, message, None)?;
        let message = settle(ticket.committed().await, reserved)?;
        self.meters.accepted(&message);
        Ok(message)
    }

    async fn claim(&self, key: Key) -> Result<Claim, Refused> {
        let claim = self.claims.claim(key).await;
        claim.map_err(|Taken| Refused::InProgress)
    }

    /// What the same request led to before. A path may name its application by a uid that another
    /// application, deleted since, had before: what was accepted for that one is no answer here.
    fn replay(
        &self,
        entry: &AppEntry,
        key: &store::IdempotencyKey,
    ) -> Result<Option<Accepted>, Refused> {
        let oldest = self.oldest();
        let reader = &self.parts.reader;
        let found = reader
            .idempotent(&key.key, oldest)
            .map_err(Refused::Unreadable)?;
        let Some(record) = found else { return Ok(None) };
        let StoredAnswer::Message(at) = record.answer else {
            return Err(Refused::Mismatch); // another route's answer: cannot be under this path
        };
        let message = reader.message(at).map_err(Refused::Unreadable)?;
        if message.as_ref().is_some_and(|m| m.app != entry.app.no) {
            return Ok(None);
        }
        if record.body != key.body {
            return Err(Refused::Mismatch);
        }
        self.meters.replayed();
        Ok(message.map(|message| Accepted {
            message: Arc::new(message),
            duplicate: false,
        }))
    }

    /// Stored answers older than this are not looked at.
    fn oldest(&self) -> Timestamp {
        self.parts.clock.now().minus(self.parts.remember_for)
    }

    /// The retained message that carries this event id.
    fn first_of(&self, entry: &AppEntry, event_id: &str) -> Result<Option<Message>, Refused> {
        let reader = &self.parts.reader;
        let at = reader.by_event_id(entry.app.no, event_id);
        let Some(at) = at.map_err(Refused::Unreadable)? else {
            return Ok(None);
        };
        reader.message(at).map_err(Refused::Unreadable)
    }

    fn throttle(&self, entry: &AppEntry) -> Result<(), Refused> {
        let Some(rate) = entry.app.throttle_rate else {
            return Ok(());
        };
        self.throttle
            .take(entry.app.no, rate, self.parts.clock.monotonic())
    }

    /// The message with its targets, not yet placed, and what its schema has against it. A repeat is
    /// answered as before, whatever the schema says now, so the caller refuses.
    fn message(
        &self,
        entry: &AppEntry,
        read: MessageIn<'_>,
        payload: Bytes,
        hops: u8,
    ) -> (Message, Option<Vec<Item>>) {
        let facts = read.facts();
        let deliver_at = read.labels.as_ref().and_then(|labels| labels.deliver_at);
        let mistakes = self.mistakes(&facts, deliver_at);
        let targets = self.targets(entry, &facts);
        drop(facts);
        let mut labels = read.labels;
        if hops > 0 {
            labels.get_or_insert_default().hops = hops;
        }
        let message = Message {
            at: Position {
                lane: LaneId(0),
                seq: 0,
            },
            accepted: Timestamp::ZERO,
            app: entry.app.no,
            event_type: self.names.shared(&read.event_type),
            content_type: ContentType::Json,
            payload,
            targets,
            labels,
        };
        (message, mistakes)
    }

    fn append(
        &self,
        entry: &AppEntry,
        message: Message,
        idempotency: Option<store::IdempotencyKey>,
    ) -> Result<(Ticket, Reserved), Refused> {
        let snapshot = self.parts.directory.peek();
        let reserved = self.pending.reserve(
            (&entry.load, self.parts.clock.as_ref()),
            snapshot.total(),
            length(message.targets.len()),
            length(message.payload.len()),
        )?;
        match self.parts.lane.append(vec![Accept {
            message,
            idempotency,
        }]) {
            Ok(ticket) => Ok((ticket, reserved)),
            Err(error) => {
                reserved.take_back();
                Err(error.into())
            }
        }
    }

    /// The application of the path, made out of what the body says of it. The path decides which one
    /// it is: a uid in the body must be the same, or the message would go to another tenant.
    async fn application(
        &self,
        submission: &Submission<'_>,
        named: Option<&ApplicationIn>,
    ) -> Result<Arc<AppEntry>, Refused> {
        let Some(named) = named.filter(|_| submission.may_create) else {
            return Err(Refused::NoApplication);
        };
        let named = named.clone();
        let uid = submission.app.to_owned();
        if named.uid.clone().value().is_some_and(|own| own != uid) {
            let msg = "must be the uid in the path, or be left out";
            let item = Item::body("application", ItemKind::ValueError, msg);
            return Err(Refused::Invalid(vec![item.under("uid")]));
        }
        if let Err((kind, msg)) = fields::uid(&uid) {
            return Err(Refused::Invalid(vec![Item::at(
                "path", "app_id", kind, msg,
            )]));
        }
        let random = self.parts.entropy.bytes();
        let now = self.parts.clock.now();
        let wanted = uid.clone();
        self.parts
            .directory
            .carry_out(move |draft| {
                if draft.app(&uid).is_none() {
                    named.create(draft, Some(uid), random, now)?;
                }
                Ok::<_, Refused>(())
            })
            .await?;
        let snapshot = self.parts.directory.peek();
        snapshot.app(&wanted).cloned().ok_or(Refused::NoApplication)
    }
}

/// Refuses what the schema has something against.
fn refuse(mistakes: Option<Vec<Item>>) -> Result<(), Refused> {
    mistakes.map_or(Ok(()), |items| Err(Refused::Invalid(items)))
}

/// The one message of a commit; what was counted in is taken back if it was not written.
fn settle(
    committed: Result<Vec<Arc<Message>>, lane::Error>,
    reserved: Reserved,
) -> Result<Arc<Message>, Refused> {
    match committed {
        Ok(messages) => messages.into_iter().next().ok_or(Refused::Failed),
        Err(error) => {
            reserved.take_back();
            Err(error.into())
        }
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
