//! Plans, and the calendar that monthly quotas go by.

use std::time::Duration;

use crate::base::Timestamp;

/// Plans by name, with the deliveries that one month has; `None` = as many as there are.
pub const PLANS: [(&str, Option<u64>); 3] = [
    ("free", Some(100)),
    ("professional", Some(10_000)),
    ("enterprise", None),
];

/// Deliveries a month of a plan; the outer `None` = there is no such plan.
pub fn plan(name: &str) -> Option<Option<u64>> {
    let found = PLANS.iter().find(|(known, _)| *known == name);
    found.map(|(_, limit)| *limit)
}

/// A calendar month in UTC, counted from January 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Month(pub u32);

impl Month {
    /// The month of an instant.
    pub fn of(at: Timestamp) -> Self {
        let text = at.rfc3339();
        let mut parts = text.split('-').map(|part| part.parse::<u32>().unwrap_or(0));
        let (year, month) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Self(year.saturating_sub(1970) * 12 + month.saturating_sub(1))
    }

    /// The first instant of it.
    pub fn start(self) -> Timestamp {
        let text = format!("{}-01T00:00:00Z", self.name());
        Timestamp::parse_rfc3339(&text).unwrap_or(Timestamp::MAX)
    }

    /// The first instant behind it.
    pub fn end(self) -> Timestamp {
        Self(self.0.saturating_add(1)).start()
    }

    /// `2026-01`
    pub fn name(self) -> String {
        format!("{:04}-{:02}", 1970 + self.0 / 12, self.0 % 12 + 1)
    }

    /// How long it still goes on.
    pub fn left(self, now: Timestamp) -> Duration {
        self.end().since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        for (text, name, end) in [
            ("2026-01-05T08:15:30Z", "2026-01", "2026-02-01T00:00:00Z"),
            (
                "2024-02-29T23:59:59.999Z",
                "2024-02",
                "2024-03-01T00:00:00Z",
            ),
            ("2025-12-31T23:59:59Z", "2025-12", "2026-01-01T00:00:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01", "1970-02-01T00:00:00Z"),
        ] {
            let at = Timestamp::parse_rfc3339(text).unwrap();
            let month = Month::of(at);
            assert_eq!(month.name(), name);
            assert_eq!(Some(month.end()), Timestamp::parse_rfc3339(end));
            assert!(month.start() <= at && at < month.end());
            assert_eq!(Month::of(month.end()).0, month.0 + 1);
        }
    }

    #[test]
    fn the_plans_are_those_of_the_origin() {
        assert_eq!(plan("free"), Some(Some(100)));
        assert_eq!(plan("professional"), Some(Some(10_000)));
        assert_eq!(plan("enterprise"), Some(None));
        assert_eq!(plan("gold"), None);
    }
}
