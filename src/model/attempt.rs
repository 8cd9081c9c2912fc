//! Attempts: one HTTP exchange each, what came of it, and what was decided.

use bytes::Bytes;

use super::{AppNo, AttemptId, EndpointNo, MessageId, Position};
use crate::base::Timestamp;

/// What stands in place of an answer's body that was taken away, on request (`api.md` 5) or because its
/// time is over (`retention.attempt_bodies`).
pub const EXPUNGED: &[u8] = b"EXPUNGED";

/// Number of an attempt within its delivery; 1 is the first try.
pub type AttemptNo = u16;

/// One finished attempt, as it is stored and listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The message.
    pub at: Position,
    /// Where it went.
    pub endpoint: EndpointNo,
    /// Whose it is.
    pub app: AppNo,
    /// Its number.
    pub no: AttemptNo,
    /// When its message was accepted, which is part of the message's id. `None` in records of before this
    /// was kept: such an attempt is gone with its message, any other may outlive it.
    pub accepted: Option<Timestamp>,
    /// When its outcome was taken in; part of its id, so lists sort by it.
    pub ended: Timestamp,
    /// From the start of connecting to the last byte, milliseconds.
    pub duration_ms: u32,
    /// What happened.
    pub outcome: Outcome,
    /// Who wanted it.
    pub trigger: Trigger,
    /// What follows.
    pub verdict: Verdict,
    /// The first 16 KiB of the answer's body.
    pub response: Bytes,
}

impl Attempt {
    /// Its public id.
    pub fn id(&self) -> AttemptId {
        AttemptId::of(self.ended, self.endpoint, self.at, self.no)
    }

    /// The public id of its message, as far as the attempt knows it.
    pub fn message_id(&self) -> Option<MessageId> {
        self.accepted
            .map(|accepted| MessageId::of(accepted, self.at))
    }
}

/// What came of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// HTTP status; 0 = there was no answer.
    pub status: u16,
    /// Why it counts as a failure; `None` = delivered (status 200 to 299).
    pub failure: Option<FailureKind>,
    /// What `Retry-After` asked for, in seconds from the answer, at most 10 years.
    pub retry_after_secs: Option<u32>,
}

/// Failure kinds, a closed set (`api.md` section 8). The discriminant is stored: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureKind {
    /// No connection within the connect time.
    TimeoutConnect = 1,
    /// No complete answer within the attempt's time.
    TimeoutTotal = 2,
    /// The name could not be resolved.
    Dns = 3,
    /// The TLS handshake failed or the certificate is not good.
    Tls = 4,
    /// The connection was refused or the host unreachable.
    Refused = 5,
    /// The connection broke.
    Reset = 6,
    /// The address guard said no.
    BlockedAddress = 7,
    /// A 3xx answer; redirects are not followed.
    Redirect = 8,
    /// Head of the answer beyond the limit.
    ResponseTooLarge = 9,
    /// 400 to 499 except 410.
    Status4xx = 10,
    /// 500 and above, and what is no valid final status.
    Status5xx = 11,
    /// 410: the endpoint wants nothing any more.
    Gone = 12,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::TimeoutConnect,
        Self::TimeoutTotal,
        Self::Dns,
        Self::Tls,
        Self::Refused,
        Self::Reset,
        Self::BlockedAddress,
        Self::Redirect,
        Self::ResponseTooLarge,
        Self::Status4xx,
        Self::Status5xx,
        Self::Gone,
    ];

    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TimeoutConnect => "timeout.connect",
            Self::TimeoutTotal => "timeout.total",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::BlockedAddress => "blocked_address",
            Self::Redirect => "redirect",
            Self::ResponseTooLarge => "response_too_large",
            Self::Status4xx => "status_4xx",
            Self::Status5xx => "status_5xx",
            Self::Gone => "gone",
        }
    }

    /// The stored number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Reads the stored number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Who wanted an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The schedule.
    Scheduled,
    /// A person or the API (resend, recover, replay).
    Manual,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery is done.
    Delivered,
    /// The next attempt is due then.
    RetryAt(Timestamp),
    /// No further attempt.
    Dead(DeadReason),
}

/// Why a delivery is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// The schedule is used up.
    Exhausted,
    /// A manual attempt of a finished delivery failed; it stays finished.
    Manual,
}
