//! Why something was not accepted. The variant is the decision; `api::error` makes the status.

use super::{Item, ItemKind};
use crate::base::Timestamp;
use crate::directory;
use crate::lane;
use crate::model::MessageId;
use crate::policy::hop;
use crate::store;

/// Nothing was accepted (or, for `Failed`, nobody knows).
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No such application, or not one of the caller's.
    #[error("no application with this id")]
    NoApplication,
    /// The body is no JSON.
    #[error("the body is not JSON: {0}")]
    BadJson(String),
    /// The body is JSON with mistakes, all of them listed.
    #[error("{} mistakes in the request", .0.len())]
    Invalid(Vec<Item>),
    /// The payload is larger than allowed.
    #[error("the payload is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The event id was used before.
    #[error("this event id was accepted before, as {0}")]
    Duplicate(MessageId),
    /// An equal request is still being worked on after five seconds.
    #[error("a request with this key is still being worked on")]
    InProgress,
    /// The idempotency key came with another body before.
    #[error("this idempotency key was used with another body")]
    Mismatch,
    /// The message went through a gateway as often as it may (S14).
    #[error("{0}")]
    TooManyHops(hop::BadHops),
    /// More messages per second than the application may send in.
    #[error("this application may send {per_second} messages per second")]
    Throttled {
        /// The limit.
        per_second: u16,
        /// When there is room again.
        retry_after_secs: u32,
    },
    /// The deliveries of this month are used up.
    #[error("this application may have {limit} deliveries a month; the next begins at {until}")]
    Quota {
        /// Deliveries a month.
        limit: u64,
        /// When the next month begins.
        until: Timestamp,
    },
    /// Too much is pending, or waiting for the next commit.
    #[error("{what}")]
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// When to come again.
        retry_after_secs: u32,
    },
    /// The disk has less than the reserve left.
    #[error("the disk has less space left than the reserve")]
    StorageLow,
    /// The store cannot be read now. Nothing was accepted.
    #[error("the store cannot be read")]
    Unreadable(#[source] store::Error),
    /// The commit failed: it may or may not have happened, and the process is ending.
    #[error("the store failed; whether the message was accepted is unknown")]
    Failed,
}

impl Refused {
    /// All values of [`Refused::reason`].
    pub const REASONS: [&'static str; 12] = [
        "bad_json",
        "conflict",
        "idempotency_in_progress",
        "not_found",
        "overloaded",
        "payload_too_large",
        "quota_exceeded",
        "rate_limited",
        "server_error",
        "storage_low",
        "too_many_hops",
        "validation",
    ];

    /// The problem code, also the label of the metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoApplication => "not_found",
            Self::BadJson(_) => "bad_json",
            Self::Invalid(_) | Self::Mismatch => "validation",
            Self::TooLarge { .. } => "payload_too_large",
            Self::Duplicate(_) => "conflict",
            Self::TooManyHops(_) => "too_many_hops",
            Self::InProgress => "idempotency_in_progress",
            Self::Throttled { .. } => "rate_limited",
            Self::Quota { .. } => "quota_exceeded",
            Self::Overloaded { .. } => "overloaded",
            Self::StorageLow => "storage_low",
            Self::Unreadable(_) | Self::Failed => "server_error",
        }
    }
}

impl From<hop::BadHops> for Refused {
    fn from(bad: hop::BadHops) -> Self {
        match bad {
            hop::BadHops::TooMany(_) => Self::TooManyHops(bad),
            hop::BadHops::Twice | hop::BadHops::Garbage => {
                let (place, kind) = ("header", ItemKind::ValueError);
                Self::Invalid(vec![Item::at(place, hop::HEADER, kind, bad.to_string())])
            }
        }
    }
}

impl From<lane::Error> for Refused {
    fn from(error: lane::Error) -> Self {
        match error {
            lane::Error::Busy => Self::Overloaded {
                what: "too many messages wait for the next commit",
                retry_after_secs: 1,
            },
            lane::Error::NotApplied => Self::Overloaded {
                what: "the store did not take the message; nothing was written",
                retry_after_secs: 1,
            },
            lane::Error::SpaceLow => Self::StorageLow,
            lane::Error::Failed => Self::Failed,
        }
    }
}

impl From<directory::Exhausted> for Refused {
    fn from(exhausted: directory::Exhausted) -> Self {
        let directory::Exhausted { limit, until } = exhausted;
        Self::Quota { limit, until }
    }
}

impl From<directory::Error> for Refused {
    fn from(error: directory::Error) -> Self {
        match error {
            directory::Error::Lane(error) => error.into(),
            directory::Error::Encode { .. } | directory::Error::Vault(_) => Self::Failed,
        }
    }
}
