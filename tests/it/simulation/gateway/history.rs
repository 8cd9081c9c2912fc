//! What clients did and endpoints saw, from beginning to end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use posthaste::model::{Delivery, EndpointNo, Position};

/// One event that a client wants delivered, however often it has to ask.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) app: usize,
    /// The whole request body.
    pub(crate) body: String,
    /// The payload within it, byte for byte.
    pub(crate) payload: String,
    /// The `Idempotency-Key`, if it has one.
    pub(crate) key: Option<String>,
    /// Wall clock milliseconds before which it must not be sent.
    pub(crate) deliver_at: Option<u64>,
    /// Requests whose answer never came, or was no verdict.
    pub(crate) unknown: u32,
    /// Message ids it was acknowledged with, and the endpoints named in the answer.
    pub(crate) accepted: BTreeMap<String, BTreeSet<String>>,
    /// It was refused for good.
    pub(crate) refused: bool,
}

/// One request as an endpoint saw it. Times are virtual milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) peer: usize,
    pub(crate) id: String,
    pub(crate) body: Bytes,
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
    /// Status that was sent; 0 = none.
    pub(crate) sent: u16,
    /// The gateway saw that status.
    pub(crate) seen: bool,
    /// The process ended meanwhile.
    pub(crate) cut: bool,
}

/// How a life ended, at which virtual millisecond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) at: u64,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) publishes: Vec<Publish>,
    pub(crate) received: Vec<Received>,
    pub(crate) deaths: Vec<Death>,
    /// Steps of the wall clock, milliseconds.
    pub(crate) steps: Vec<i64>,
    /// Deliveries that someone wanted tried again, and how often.
    pub(crate) again: BTreeMap<Delivery, u32>,
    /// Deliveries that someone wanted cancelled.
    pub(crate) cancelled: BTreeSet<Delivery>,
    /// Endpoints whose dead or missing deliveries someone wanted again, and how often.
    pub(crate) recovered: BTreeMap<EndpointNo, u32>,
}

impl History {
    /// Whether someone meddled with a delivery, so that no schedule and no order binds it.
    pub(crate) fn is_touched(&self, at: Position, endpoint: EndpointNo) -> bool {
        let delivery = Delivery { at, endpoint };
        self.again.contains_key(&delivery)
            || self.cancelled.contains(&delivery)
            || self.recovered.contains_key(&endpoint)
    }
}
