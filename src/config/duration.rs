//! Durations as people write them: `15s`, `250ms`, `5m`, `2h`, `5d`, `1h30m`.

use std::time::Duration;

/// Units from long to short, with their milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads one or several `number unit` pairs. The error says what is wrong, for people.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("`{text}` {why}: write it like 250ms, 15s, 5m, 2h or 5d");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong("is no duration"));
    }
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong("is no duration"))?;
        if unit.is_empty() {
            return Err(wrong("has no unit"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit.trim()) else {
            return Err(wrong("has an unknown unit"));
        };
        millis = number
            .checked_mul(*factor)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| wrong("is too long"))?;
        rest = tail;
    }
    Ok(Duration::from_millis(millis))
}

/// The shortest form with one unit; fractions of a millisecond are cut.
pub(super) fn show(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return String::from("0s");
    }
    let fits = UNITS.iter().find(|(_, factor)| millis % factor == 0);
    fits.map_or_else(
        || format!("{millis}ms"),
        |(unit, factor)| format!("{}{unit}", millis / factor),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0_u64..1 << 42) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,24}") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration.as_millis() <= u128::from(u64::MAX));
            }
        }
    }

    #[test]
    fn reads_every_unit_and_sums() {
        for (text, millis) in [
            ("250ms", 250),
            ("15s", 15_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("5d", 432_000_000),
            (" 1h30m ", 5_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("", "is no duration"),
            ("s", "is no duration"),
            ("-5s", "is no duration"),
            ("1.5s", "unknown unit"),
            ("15", "has no unit"),
            ("15 minutes", "unknown unit"),
            ("99999999999999999d", "too long"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(why), "{message}");
        }
    }
}
