//! Retry schedules that have a name (`api.md` section 8).
//!
//! A schedule is the list of delays after the previous attempt, so it stands for one attempt more
//! than it has entries. Used by the configuration file and, through the API, by endpoints.

use std::time::Duration;

/// Name and delays in seconds. The first is the default.
pub static NAMED: &[(&str, &[u64])] = &[
    (
        "standard-10",
        &[5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
    ),
    ("steps-8", &[5, 300, 1800, 7200, 18_000, 36_000, 36_000]),
    ("geometric-3", &[60, 180, 540]),
    ("ladder-5", &[30, 120, 600, 1800]),
];

/// The delays of the schedule called `name`.
pub fn named(name: &str) -> Option<Vec<Duration>> {
    let (_, delays) = NAMED.iter().find(|(known, _)| *known == name)?;
    Some(delays.iter().copied().map(Duration::from_secs).collect())
}

/// The name of a schedule with exactly these delays.
pub fn name_of(delays: &[Duration]) -> Option<&'static str> {
    let same = |seconds: &[u64]| {
        seconds.len() == delays.len()
            && seconds
                .iter()
                .zip(delays)
                .all(|(s, d)| Duration::from_secs(*s) == *d)
    };
    NAMED
        .iter()
        .find(|(_, seconds)| same(seconds))
        .map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_windows_hold() {
        let window = |name| {
            named(name)
                .expect("known")
                .iter()
                .sum::<Duration>()
                .as_secs()
        };
        assert_eq!(window("standard-10"), 75 * 3600 + 35 * 60 + 5);
        assert_eq!(window("steps-8"), 27 * 3600 + 35 * 60 + 5);
        assert_eq!(window("geometric-3"), 780);
        assert_eq!(window("ladder-5"), 2550);
        assert_eq!(named("standard-11"), None);
    }

    #[test]
    fn a_name_is_found_for_its_own_delays_only() {
        for (name, _) in NAMED {
            assert_eq!(name_of(&named(name).expect("known")), Some(*name));
        }
        assert_eq!(name_of(&[]), None);
        assert_eq!(name_of(&[Duration::from_secs(5)]), None);
    }
}
