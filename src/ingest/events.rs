//! Events that a source has verified: all of one request in one commit, each of them once.
//!
//! What makes an event the same as an earlier one is stored in its own commit: its event id, which holds as
//! long as the message is retained, and the digest of what was signed, which holds as long as stored answers
//! do ([`crate::config::Retention::idempotency`], in time buckets). An event that is known by either is
//! answered with the message it became.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::limits::Reserved;
use super::{Accepted, Ingest, Key, Refused, body_hash, keys, length};
use crate::base::{Timestamp, task};
use crate::directory::AppEntry;
use crate::expression::Facts;
use crate::model::{AppNo, ContentType, Labels, LaneId, Message, Position, SourceNo};
use crate::store::{Accept, IdempotencyKey, StoredAnswer};

/// One event of a provider.
#[derive(Debug, Clone)]
pub struct EventIn {
    /// The application it goes to.
    pub app: AppNo,
    /// Its type: a valid name.
    pub event_type: String,
    /// The provider's id for it, with the provider's name in front: one message of an application.
    pub event_id: Option<String>,
    /// What was signed, where the signature covers the body: a repetition under another event id (most
    /// id headers are not signed) is found out by it.
    pub signed: Option<Signed>,
    /// JSON, as it is delivered.
    pub payload: Bytes,
    /// Where it comes from.
    pub metadata: BTreeMap<String, String>,
    /// Tags for lists.
    pub tags: Vec<String>,
    /// Hops of the request ([`Ingest::hops`]).
    pub hops: u8,
}

/// What was signed, as far as it tells one event from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// The source that verified it.
    pub source: SourceNo,
    /// Digest of the signed message.
    pub digest: [u8; 32],
    /// The event's place in the request.
    pub place: usize,
}

impl EventIn {
    /// What claims are held under: event id and signed message, as far as there are any.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let id = self.event_id.as_deref();
        let id = id.map(|id| keys::event_key(self.app, id));
        id.into_iter().chain(self.signed.as_ref().map(seen_key))
    }
}

/// What the digest of a request is stored under.
fn seen_key(signed: &Signed) -> Key {
    let mut hash = Sha256::new();
    hash.update(b"inbound\0");
    hash.update(signed.source.0.to_be_bytes());
    hash.update(signed.digest);
    hash.update(length(signed.place).to_be_bytes());
    let full: [u8; 32] = hash.finalize().into();
    let mut out = [0; 16];
    out.copy_from_slice(full.split_at(16).0);
    out
}

/// An event on its way.
enum Fate {
    /// It was accepted before.
    Known(Accepted),
    /// Its place among the new ones.
    New(usize),
}

impl Ingest {
    /// Accepts all events or none of them: `Ok` = every one is on stable storage, now or since earlier.
    /// One result per event, in order. Cancel safe: what was handed in is stored and keeps its claims.
    ///
    /// # Errors
    /// Nothing was accepted (or, for `Failed`, nobody knows).
    pub async fn accept_events(&self, events: Vec<EventIn>) -> Result<Vec<Accepted>, Refused> {
        let accepted = self.all_events(events).await;
        if let Err(refused) = &accepted {
            self.meters.refused(refused);
        }
        accepted
    }

    async fn all_events(&self, events: Vec<EventIn>) -> Result<Vec<Accepted>, Refused> {
        let claims = self.claim_all(&events).await?;
        let mut fates = Vec::with_capacity(events.len());
        let mut batch = Vec::new();
        let mut reserved = Vec::new();
        let mut first: HashMap<Key, usize> = HashMap::new();
        let drafted = events.into_iter().try_for_each(|event| {
            let keys: Vec<Key> = event.keys().collect();
            let twin = keys.iter().find_map(|key| first.get(key).copied());
            if let Some(place) = twin {
                fates.push(Fate::New(place)); // twice in one request: one message
                return Ok(());
            }
            let entry = self.entry(event.app)?;
            if let Some(known) = self.known(&entry, &event)? {
                fates.push(Fate::Known(known));
                return Ok(());
            }
            first.extend(keys.into_iter().map(|key| (key, batch.len())));
            fates.push(Fate::New(batch.len()));
            let (accept, room) = self.draft_event(&entry, event)?;
            batch.push(accept);
            reserved.push(room);
            Ok(())
        });
        if let Err(refused) = drafted {
            reserved.into_iter().for_each(Reserved::take_back);
            return Err(refused);
        }
        let messages = self.commit(batch, reserved, claims).await?;
        let mut seen = vec![false; messages.len()];
        let accepted = fates.into_iter().map(|fate| match fate {
            Fate::Known(known) => Ok(known),
            Fate::New(place) => {
                let message = messages.get(place).cloned().ok_or(Refused::Failed)?;
                let again = seen
                    .get_mut(place)
                    .is_some_and(|seen| std::mem::replace(seen, true));
                Ok(Accepted {
                    message,
                    duplicate: again,
                })
            }
        });
        accepted.collect()
    }

    /// In the order of the keys: no two requests can wait for each other.
    async fn claim_all(&self, events: &[EventIn]) -> Result<Vec<super::Claim>, Refused> {
        let mut keys: Vec<Key> = events.iter().flat_map(EventIn::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut claims = Vec::with_capacity(keys.len());
        for key in keys {
            claims.push(self.claim(key).await?);
        }
        Ok(claims)
    }

    fn entry(&self, app: AppNo) -> Result<Arc<AppEntry>, Refused> {
        let found = self.parts.directory.peek().app_by_no(app).cloned();
        found.ok_or(Refused::NoApplication)
    }

    /// The message that an equal event became.
    fn known(&self, entry: &AppEntry, event: &EventIn) -> Result<Option<Accepted>, Refused> {
        let by_id = event.event_id.as_deref();
        let mut found = match by_id {
            Some(id) => self.first_of(entry, id)?,
            None => None,
        };
        if let (None, Some(signed)) = (&found, &event.signed) {
            let reader = &self.parts.reader;
            let record = reader.idempotent(&seen_key(signed), self.oldest());
            let answer = record
                .map_err(Refused::Unreadable)?
                .map(|record| record.answer);
            if let Some(StoredAnswer::Message(at)) = answer {
                found = reader.message(at).map_err(Refused::Unreadable)?;
            }
        }
        Ok(found.map(|message| Accepted {
            message: Arc::new(message),
            duplicate: true,
        }))
    }

    fn draft_event(&self, entry: &AppEntry, event: EventIn) -> Result<(Accept, Reserved), Refused> {
        let facts = Facts::new(&event.event_type, &[], &event.tags, &event.payload);
        self.warn(&facts);
        let targets = self.targets(entry, &facts);
        drop(facts);
        let idempotency = event.signed.as_ref().map(|signed| IdempotencyKey {
            key: seen_key(signed),
            body: body_hash(&event.payload),
        });
        let snapshot = self.parts.directory.peek();
        let reserved = self.pending.reserve(
            (&entry.load, self.parts.clock.as_ref()),
            snapshot.total(),
            length(targets.len()),
            length(event.payload.len()),
        )?;
        let message = Message {
            at: Position {
                lane: LaneId(0),
                seq: 0,
            },
            accepted: Timestamp::ZERO,
            app: entry.app.no,
            event_type: self.names.shared(&event.event_type),
            content_type: ContentType::Json,
            payload: event.payload,
            targets,
            labels: Some(Box::new(Labels {
                event_id: event.event_id,
                tags: event.tags,
                hops: event.hops,
                metadata: event.metadata,
                ..Labels::default()
            })),
        };
        let accept = Accept {
            message,
            idempotency,
        };
        Ok((accept, reserved))
    }

    /// One commit for all; in a task of its own, which holds the claims until it is made.
    async fn commit(
        &self,
        batch: Vec<Accept>,
        reserved: Vec<Reserved>,
        claims: Vec<super::Claim>,
    ) -> Result<Vec<Arc<Message>>, Refused> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ticket = match self.parts.lane.append(batch) {
            Ok(ticket) => ticket,
            Err(error) => {
                reserved.into_iter().for_each(Reserved::take_back);
                return Err(error.into());
            }
        };
        let (reply, answer) = tokio::sync::oneshot::channel();
        task::detach(async move {
            let committed = ticket.committed().await;
            if committed.is_err() {
                reserved.into_iter().for_each(Reserved::take_back);
            }
            drop(claims);
            drop(reply.send(committed)); // the caller went away; the messages stand
        });
        let messages = answer.await.unwrap_or(Err(crate::lane::Error::Failed))?;
        for message in &messages {
            self.meters.accepted(message);
        }
        Ok(messages)
    }

    /// Whether anything can be accepted for `app` now, before a body is read.
    ///
    /// # Errors
    /// Too much is pending, or there is no such application.
    pub fn admit_events(&self, app: AppNo) -> Result<(), Refused> {
        let snapshot = self.parts.directory.peek();
        let entry = snapshot.app_by_no(app).ok_or(Refused::NoApplication)?;
        self.pending.check(Some(&entry.load), snapshot.total())?;
        if self.parts.lane.is_refusing() {
            return Err(Refused::StorageLow);
        }
        Ok(())
    }
}
