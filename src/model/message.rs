//! A message: one accepted event of one application.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{AppNo, EndpointNo, MessageId, Position};
use crate::base::Timestamp;

/// One accepted event. `payload` is the producer's bytes and is never re-serialised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it stands; set by the store when it is appended.
    pub at: Position,
    /// When it was accepted; set by the lane, equal within one commit, never going back in a lane.
    pub accepted: Timestamp,
    /// Whose it is.
    pub app: AppNo,
    /// Its event type.
    pub event_type: Arc<str>,
    /// What `payload` is.
    pub content_type: ContentType,
    /// The very bytes that are delivered.
    pub payload: Bytes,
    /// The endpoints that wanted it when it was accepted. Frozen.
    pub targets: Vec<EndpointNo>,
    /// The rarely used rest.
    pub labels: Option<Box<Labels>>,
}

/// The rarely used fields of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// The producer's own id for the event, unique in the application.
    pub event_id: Option<String>,
    /// Channels it is published on.
    pub channels: Vec<String>,
    /// Tags for lists.
    pub tags: Vec<String>,
    /// Messages with the same key keep their order at endpoints with `order: key`.
    pub ordering_key: Option<String>,
    /// While an earlier message with the same key waits at an endpoint, this one takes its place.
    pub collapse_key: Option<String>,
    /// No attempt is made before; the message waits at every endpoint until then.
    pub deliver_at: Option<Timestamp>,
    /// Its payload ends so many hours after it was accepted; 0 = with the message.
    pub payload_hours: u16,
    /// Hops the message had behind it when it came in ([`crate::policy::hop`]); 0 = none.
    pub hops: u8,
    /// Where it comes from, for messages of a source: provider, integrity, headers, and the body as it
    /// came where that is no JSON.
    pub metadata: BTreeMap<String, String>,
}

/// Content type of a payload, sent along with each delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    Json,
}

impl Message {
    /// Its public id.
    pub fn id(&self) -> MessageId {
        MessageId::of(self.accepted, self.at)
    }

    /// The producer's id for it.
    pub fn event_id(&self) -> Option<&str> {
        self.labels.as_ref()?.event_id.as_deref()
    }

    /// Channels it is published on.
    pub fn channels(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], |labels| &labels.channels)
    }

    /// Its tags.
    pub fn tags(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], |labels| &labels.tags)
    }

    /// Its ordering key.
    pub fn ordering_key(&self) -> Option<&str> {
        self.labels.as_ref()?.ordering_key.as_deref()
    }

    /// Its collapse key.
    pub fn collapse_key(&self) -> Option<&str> {
        self.labels.as_ref()?.collapse_key.as_deref()
    }

    /// No attempt is made before.
    pub fn deliver_at(&self) -> Option<Timestamp> {
        self.labels.as_ref()?.deliver_at
    }

    /// When its payload ends, if its sender named a time: nobody reads it from then on, and nothing new
    /// is sent. What is not finished then is delivered with it all the same.
    pub fn payload_ends(&self) -> Option<Timestamp> {
        let hours = self.labels.as_ref()?.payload_hours;
        let kept = Duration::from_secs(3600 * u64::from(hours));
        (hours > 0).then(|| self.accepted.plus(kept))
    }

    /// Whether the time of its payload is over.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.payload_ends().is_some_and(|ends| ends <= now)
    }

    /// Whether its payload was taken away: on request, or after its time. A payload is a JSON object, so
    /// never empty.
    pub const fn is_expunged(&self) -> bool {
        self.payload.is_empty()
    }

    /// Takes its payload away, and what a source kept of the headers it came with.
    pub fn expunge(&mut self) {
        self.payload = Bytes::new();
        if let Some(labels) = self.labels.as_mut() {
            labels.metadata.clear();
        }
    }

    /// Hops it had behind it when it came in; 0 for what a producer sent.
    pub fn hops(&self) -> u8 {
        self.labels.as_ref().map_or(0, |labels| labels.hops)
    }
}
