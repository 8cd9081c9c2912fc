//! What an exchange amounts to: status classes, `Retry-After`, and the quick second dial.
//!
//! Everything here was written by the endpoint and is hostile until proven otherwise: numbers
//! saturate, what cannot be read is ignored.

#![deny(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

use std::time::{Duration, UNIX_EPOCH};

use crate::base::Timestamp;
use crate::model::{FailureKind, Outcome};

/// Largest `Retry-After` that is remembered, in seconds: ten years. The schedule bounds it further.
pub const RETRY_AFTER_MAX: u32 = 315_576_000;

/// Connections that broke sooner than this are dialled once more within the same attempt.
pub const QUICK: Duration = Duration::from_secs(1);

/// The outcome of an answer with `status`. Success is 200 to 299 and nothing else (SW24); a redirect
/// is a failure (SW25); what is no final status (1xx, 101 included, 600 and above) counts as 5xx.
pub const fn of_status(status: u16, retry_after_secs: Option<u32>) -> Outcome {
    let failure = match status {
        200..=299 => None,
        300..=399 => Some(FailureKind::Redirect),
        410 => Some(FailureKind::Gone),
        400..=499 => Some(FailureKind::Status4xx),
        _ => Some(FailureKind::Status5xx),
    };
    Outcome {
        status,
        failure,
        retry_after_secs,
    }
}

/// The outcome of an exchange that brought no answer.
pub const fn of_failure(kind: FailureKind) -> Outcome {
    Outcome {
        status: 0,
        failure: Some(kind),
        retry_after_secs: None,
    }
}

/// What the `Retry-After` headers of an answer ask for, in seconds from `now` (RFC 9110 10.2.3).
///
/// Whole seconds or an HTTP date; a date in the past is 0; anything else is ignored. Of several
/// headers the longest wait counts, since a hint may only slow us down (SW29).
pub fn retry_after<'a>(values: impl IntoIterator<Item = &'a [u8]>, now: Timestamp) -> Option<u32> {
    values
        .into_iter()
        .filter_map(|value| hint(value, now))
        .max()
}

/// Whether an attempt whose connection broke is dialled once more at once (`api.md` 8).
pub fn redials(outcome: &Outcome, took: Duration, redialled: bool) -> bool {
    outcome.failure == Some(FailureKind::Reset) && took < QUICK && !redialled
}

/// Whether the endpoint asks for less: 429, 5xx and time-outs shrink its window.
pub const fn is_overload(outcome: &Outcome) -> bool {
    match outcome.failure {
        Some(FailureKind::TimeoutConnect | FailureKind::TimeoutTotal | FailureKind::Status5xx) => {
            true
        }
        Some(FailureKind::Status4xx) => outcome.status == 429,
        Some(
            FailureKind::Dns
            | FailureKind::Tls
            | FailureKind::Refused
            | FailureKind::Reset
            | FailureKind::BlockedAddress
            | FailureKind::Redirect
            | FailureKind::ResponseTooLarge
            | FailureKind::Gone,
        )
        | None => false,
    }
}

/// Whether the answer pauses the whole endpoint (SW27, SW28).
pub const fn is_pause(outcome: &Outcome) -> bool {
    matches!(outcome.status, 429 | 502 | 503 | 504)
}

fn hint(value: &[u8], now: Timestamp) -> Option<u32> {
    let text = value.trim_ascii();
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    if text.iter().all(u8::is_ascii_digit) {
        let seconds = text.iter().fold(0_u32, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        });
        return Some(seconds.min(RETRY_AFTER_MAX));
    }
    let text = std::str::from_utf8(text).ok()?;
    let at = httpdate::parse_http_date(text).ok()?;
    let since_epoch = at.duration_since(UNIX_EPOCH).ok()?;
    let ahead = Timestamp::ZERO.plus(since_epoch).since(now);
    // A second begun counts: never earlier than asked for.
    let seconds = ahead.as_secs() + u64::from(ahead.subsec_millis() > 0);
    Some(u32::try_from(seconds).map_or(RETRY_AFTER_MAX, |s| s.min(RETRY_AFTER_MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_600_930_120); // 2026-01-05 08:15:30.120

    fn after(value: &str) -> Option<u32> {
        retry_after([value.as_bytes()], NOW)
    }

    #[test]
    fn only_2xx_is_success_and_410_stands_alone() {
        for (status, want) in [
            (200, None),
            (204, None),
            (299, None),
            (301, Some(FailureKind::Redirect)),
            (404, Some(FailureKind::Status4xx)),
            (410, Some(FailureKind::Gone)),
            (429, Some(FailureKind::Status4xx)),
            (500, Some(FailureKind::Status5xx)),
            (101, Some(FailureKind::Status5xx)),
            (999, Some(FailureKind::Status5xx)),
        ] {
            assert_eq!(of_status(status, None).failure, want, "{status}");
        }
    }

    #[test]
    fn reads_seconds_and_dates() {
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("Mon, 05 Jan 2026 08:16:30 GMT"), Some(60));
        assert_eq!(after("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(
            after("Fri, 31 Dec 9999 23:59:59 GMT"),
            Some(RETRY_AFTER_MAX)
        );
        assert_eq!(after(&"9".repeat(31)), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn ignores_garbage() {
        for text in [
            "", "inf", "NaN", "-1", "1e300", "1.5", "+5", "soon", "0x10", "١٢",
        ] {
            assert_eq!(after(text), None, "{text}");
        }
        assert_eq!(retry_after([&[0xff, 0xfe][..]], NOW), None);
        assert_eq!(after(&"9".repeat(65)), None);
    }

    #[test]
    fn the_longest_of_several_hints_counts() {
        let values: [&[u8]; 3] = [b"5", b"junk", b"60"];
        assert_eq!(retry_after(values, NOW), Some(60));
    }

    #[test]
    fn redials_once_and_only_when_it_broke_quickly() {
        let reset = of_failure(FailureKind::Reset);
        assert!(redials(&reset, Duration::from_millis(999), false));
        assert!(!redials(&reset, Duration::from_millis(999), true));
        assert!(!redials(&reset, QUICK, false));
        let refused = of_failure(FailureKind::Refused);
        assert!(!redials(&refused, Duration::ZERO, false));
    }

    proptest! {
        #[test]
        fn no_header_value_panics_or_exceeds_ten_years(value: Vec<u8>, now: u64) {
            let got = retry_after([value.as_slice()], Timestamp::from_millis(now));
            prop_assert!(got.is_none_or(|s| s <= RETRY_AFTER_MAX));
        }
    }
}
