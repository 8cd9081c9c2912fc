//! The stored form of attempts, and of long answers to them.
//!
//! Owns: the layouts (records as in [`super::record`]) and what of an attempt goes where. Endpoints decide
//! how long an answer is, and answers are kept for days where records are kept for months; so a long one
//! stands in a row of its own, under the day its attempt ended, and whole days of them are dropped
//! ([`super::expire`]). A short one stands in the record and leaves with it. Pure.
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut as _, Bytes};

use crate::base::Timestamp;
use crate::model::{AppNo, Attempt, DeadReason, FailureKind, Outcome, Verdict};
use crate::store::Error;

use super::keys::{self, take};
use super::record::{
    FORMAT, corrupt, eight, four, opened, put_time, put_varint, read_trigger, seal, start, time,
    trigger_code, unseal, varint,
};

/// The format of attempts that say when their message was accepted, and where the answer stands.
const FORMAT_DATED: u8 = 2;
/// Answers up to this size stand in the record of the attempt.
const INLINE: usize = 256;

/// Where the answer to an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// In the record of the attempt.
    Here,
    /// In a row of its own.
    Apart,
}

/// Where the answer to this attempt goes.
pub(super) fn body_of(attempt: &Attempt) -> Body {
    if attempt.accepted.is_some() && attempt.response.len() > INLINE {
        Body::Apart
    } else {
        Body::Here
    }
}

/// Writes a long answer.
pub(super) fn answer(key: &[u8], response: &[u8]) -> Vec<u8> {
    let mut out = start(response.len());
    out.extend_from_slice(response);
    seal(key, out)
}

/// Reads a long answer.
pub(super) fn read_answer(key: &[u8], value: &Bytes) -> Result<Bytes, Error> {
    unseal("answer to an attempt", key, value).map(|response| value.slice_ref(response))
}

/// Writes an attempt; its key carries message, endpoint and number. Format 1 is written where nobody
/// knows when the message was accepted, with the answer in it; format 2 has behind the fields of format 1
/// that time, as a difference, and where the answer stands.
pub(super) fn write(key: &[u8], attempt: &Attempt) -> Vec<u8> {
    let body = body_of(attempt);
    let room = if body == Body::Here {
        attempt.response.len()
    } else {
        0
    };
    let mut out = start(42 + room);
    if let (Some(format), Some(_)) = (out.first_mut(), attempt.accepted) {
        *format = FORMAT_DATED;
    }
    out.put_u32(attempt.app.0);
    put_time(&mut out, attempt.ended);
    out.put_u32(attempt.duration_ms);
    out.put_u16(attempt.outcome.status);
    out.put_u8(attempt.outcome.failure.map_or(0, FailureKind::code));
    let retry_after = attempt.outcome.retry_after_secs;
    out.put_u64(retry_after.map_or(0, |secs| u64::from(secs) + 1));
    out.put_u8(trigger_code(attempt.trigger));
    let (verdict, at) = match attempt.verdict {
        Verdict::Delivered => (0, Timestamp::ZERO),
        Verdict::RetryAt(at) => (1, at),
        Verdict::Dead(DeadReason::Exhausted) => (2, Timestamp::ZERO),
        Verdict::Dead(DeadReason::Manual) => (3, Timestamp::ZERO),
    };
    out.put_u8(verdict);
    put_time(&mut out, at);
    if let Some(accepted) = attempt.accepted {
        let (ended, accepted) = (attempt.ended.millis(), accepted.millis());
        // The lowest bit: the clock went back in between.
        let back = u64::from(accepted > ended);
        put_varint(&mut out, ended.abs_diff(accepted) << 1 | back);
        out.put_u8(u8::from(body == Body::Apart));
    }
    if body == Body::Here {
        out.extend_from_slice(&attempt.response);
    }
    seal(key, out)
}

/// Reads an attempt; one whose answer stands apart has an empty one.
pub(super) fn read(key: &[u8], value: &Bytes) -> Result<(Attempt, Body), Error> {
    let read = match opened("attempt", key, value)? {
        (format @ (FORMAT | FORMAT_DATED), fields) => self::fields(key, format, fields, value),
        _ => return Err(corrupt("attempt", key, "the format is unknown")),
    };
    read.ok_or_else(|| corrupt("attempt", key, "a field is bad"))
}

/// When the message was accepted, and where the answer stands.
fn dated(ended: Timestamp, from: &mut &[u8]) -> Option<(Timestamp, Body)> {
    let between = varint(from)?;
    let (ended, by) = (ended.millis(), between >> 1);
    let accepted = if between & 1 == 0 {
        ended.checked_sub(by)?
    } else {
        ended.checked_add(by)?
    };
    let body = match take(from)? {
        [0] => Body::Here,
        [1] if from.is_empty() => Body::Apart,
        _ => return None,
    };
    Some((Timestamp::from_millis(accepted), body))
}

fn fields(key: &[u8], format: u8, mut from: &[u8], value: &Bytes) -> Option<(Attempt, Body)> {
    let (at, endpoint, no) = keys::read_attempt(key)?;
    let app = AppNo(four(&mut from)?);
    let ended = time(&mut from)?;
    let duration_ms = four(&mut from)?;
    let status = u16::from_be_bytes(take(&mut from)?);
    let [failure] = take(&mut from)?;
    let failure = match failure {
        0 => None,
        code => Some(FailureKind::from_code(code)?),
    };
    let retry_after_secs = match eight(&mut from)? {
        0 => None,
        n => Some(u32::try_from(n - 1).ok()?),
    };
    let [trigger] = take(&mut from)?;
    let [verdict] = take(&mut from)?;
    let retry_at = time(&mut from)?;
    let verdict = match verdict {
        0 => Verdict::Delivered,
        1 => Verdict::RetryAt(retry_at),
        2 => Verdict::Dead(DeadReason::Exhausted),
        3 => Verdict::Dead(DeadReason::Manual),
        _ => return None,
    };
    let dated = match format {
        FORMAT_DATED => Some(dated(ended, &mut from)?),
        _ => None,
    };
    let body = dated.map_or(Body::Here, |(_, body)| body);
    let attempt = Attempt {
        at,
        endpoint,
        app,
        no,
        accepted: dated.map(|(accepted, _)| accepted),
        ended,
        duration_ms,
        outcome: Outcome {
            status,
            failure,
            retry_after_secs,
        },
        trigger: read_trigger(trigger)?,
        verdict,
        response: value.slice_ref(from),
    };
    Some((attempt, body))
}
