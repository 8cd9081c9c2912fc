//! Deliveries: one message for one endpoint, always in exactly one state.

use super::{AttemptNo, EndpointNo, Position, Trigger};
use crate::base::Timestamp;

/// One message for one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delivery {
    /// The message.
    pub at: Position,
    /// Where it goes.
    pub endpoint: EndpointNo,
}

/// The one state a delivery is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Accepted, not tried yet, waiting for a slot.
    Pending,
    /// An attempt is under way.
    Sending,
    /// Tried and waiting for its next attempt.
    Retrying,
    /// Its endpoint is disabled or paused; goes on when that ends.
    Held,
    /// Answered 2xx.
    Delivered,
    /// The schedule is used up.
    Dead,
    /// Cancelled, or its endpoint was deleted first.
    Cancelled,
    /// A later message with the same collapse key took its place while it waited.
    Superseded,
}

impl DeliveryState {
    /// Those a stopped gateway's deliveries can be in: all but sending.
    pub const STORED: [Self; 7] = [
        Self::Pending,
        Self::Retrying,
        Self::Held,
        Self::Delivered,
        Self::Dead,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// Whether nothing follows any more, unless somebody asks for it.
    pub const fn is_finished(self) -> bool {
        match self {
            Self::Pending | Self::Sending | Self::Retrying | Self::Held => false,
            Self::Delivered | Self::Dead | Self::Cancelled | Self::Superseded => true,
        }
    }

    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }
}

/// Key of a parked row: sorts by endpoint, then due time, then position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkedKey {
    /// Where it goes.
    pub endpoint: EndpointNo,
    /// When it may be tried; [`Timestamp::ZERO`] marks backlog: as soon as there is a slot.
    pub due: Timestamp,
    /// The message.
    pub at: Position,
}

/// A delivery that left memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Where and when.
    pub key: ParkedKey,
    /// Attempts made so far.
    pub attempts: AttemptNo,
    /// Attempts made when the current schedule began (0, or more after a recovery).
    pub base: AttemptNo,
    /// Why it is parked.
    pub reason: ParkReason,
    /// What the next attempt counts as.
    pub trigger: Trigger,
    /// Payload length, so that pending bytes add up without reading the message.
    pub bytes: u32,
    /// Hash of the ordering key at endpoints with `order: key`, else 0.
    pub order_key: u64,
}

/// Why a delivery is parked. The discriminant is stored: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ParkReason {
    /// Never tried: no room in memory, or the endpoint is slow, paused or disabled.
    Backlog = 1,
    /// Waits for its retry time.
    Retry = 2,
    /// Waits for an earlier delivery with the same ordering key.
    Behind = 3,
    /// A resend or recovery of a delivery that was finished: one attempt, no schedule.
    Once = 4,
}

/// What is remembered of an endpoint beside its configuration. Loaded whole at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointState {
    /// Its successes and failures.
    pub health: Health,
    /// Parked rows.
    pub parked: u64,
    /// Payload bytes of those rows.
    pub parked_bytes: u64,
}

/// Successes and failures of an endpoint, judged on every failure from persisted state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Failed attempts in a row; reset by any 2xx.
    pub failures: u32,
    /// The first of them.
    pub first_failure: Option<Timestamp>,
    /// The last of them.
    pub last_failure: Option<Timestamp>,
    /// The last 2xx.
    pub last_success: Option<Timestamp>,
    /// Whether `message.attempt.failing` was announced since the last success.
    pub announced: bool,
}
