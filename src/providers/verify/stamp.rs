//! Signed timestamps: reading and judging them (SW15).

use std::time::Duration;

use crate::base::Timestamp;
use crate::providers::refusal::Refusal;
use crate::providers::scheme::{Stamp, Unit};

/// Reads the timestamp and compares it with `now`, in both directions; equal to the tolerance is still
/// good. Without a window the text need not be readable: it is signed as it stands.
pub(super) fn judge(
    stamp: &Stamp,
    text: &[u8],
    tolerance: Option<Duration>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Refusal> {
    let read = std::str::from_utf8(text)
        .ok()
        .and_then(|text| read(stamp.unit, text));
    let tolerance = tolerance.unwrap_or(stamp.tolerance);
    if tolerance.is_zero() {
        return Ok(read.map(|(at, _)| at));
    }
    let (at, in_seconds) = read.ok_or(Refusal::BadTimestamp)?;
    // A sender that counts seconds is compared in seconds, or 300.5 s would be more than 300.
    let (now, then, most) = if in_seconds {
        (now.seconds(), at.seconds(), tolerance.as_secs())
    } else {
        let most = u64::try_from(tolerance.as_millis()).unwrap_or(u64::MAX);
        (now.millis(), at.millis(), most)
    };
    if now.abs_diff(then) > most {
        return Err(Refusal::StaleTimestamp);
    }
    Ok(Some(at))
}

/// The instant, and whether it counts whole seconds.
fn read(unit: Unit, text: &str) -> Option<(Timestamp, bool)> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unit = match unit {
        Unit::Auto if !digits => Unit::Iso,
        Unit::Auto if text.len() >= 13 => Unit::Millis,
        Unit::Auto => Unit::Seconds,
        Unit::Seconds | Unit::Millis | Unit::Iso => unit,
    };
    let number = || digits.then(|| text.parse::<u64>().ok()).flatten();
    match unit {
        Unit::Seconds => {
            let ms = number()?.checked_mul(1000)?;
            Some((Timestamp::from_millis(ms), true))
        }
        Unit::Millis => Some((Timestamp::from_millis(number()?), false)),
        Unit::Iso | Unit::Auto => Timestamp::parse_rfc3339(text).map(|at| (at, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(unit: Unit, text: &str, now_ms: u64) -> Result<Option<Timestamp>, Refusal> {
        let stamp = Stamp {
            place: None,
            unit,
            tolerance: Duration::from_secs(300),
        };
        judge(
            &stamp,
            text.as_bytes(),
            None,
            Timestamp::from_millis(now_ms),
        )
    }

    const NOW: u64 = 1_764_000_000_000;

    #[test]
    fn the_window_is_closed_on_both_sides_and_its_edge_is_inside() {
        let good = Ok(Some(Timestamp::from_millis(NOW)));
        let stale = Err(Refusal::StaleTimestamp);
        for (unit, text) in [
            (Unit::Seconds, "1764000000"),
            (Unit::Millis, "1764000000000"),
            (Unit::Iso, "2025-11-24T16:00:00Z"),
            (Unit::Auto, "1764000000"),
            (Unit::Auto, "1764000000000"),
            (Unit::Auto, "2025-11-24T17:00:00.000+01:00"),
        ] {
            assert_eq!(verdict(unit, text, NOW + 300_000), good, "{text}");
            assert_eq!(verdict(unit, text, NOW - 300_000), good, "{text}");
            assert_eq!(verdict(unit, text, NOW + 301_000), stale, "{text}");
            assert_eq!(verdict(unit, text, NOW - 301_000), stale, "{text}");
        }
        assert_eq!(verdict(Unit::Seconds, "1764000000", NOW + 300_999), good);
        assert_eq!(verdict(Unit::Millis, "1764000000000", NOW + 300_001), stale);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-1",
            "+1764000000",
            "1764000000.0",
            " 1764000000",
            "0x1",
            "99999999999999999999",
            "now",
        ] {
            for unit in [Unit::Seconds, Unit::Millis, Unit::Iso, Unit::Auto] {
                assert!(verdict(unit, text, NOW).is_err(), "{text:?} as {unit:?}");
            }
        }
    }
}
