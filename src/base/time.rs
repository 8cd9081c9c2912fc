//! Wall-clock instants in milliseconds, as they are stored and shown.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC. Saturating arithmetic: no input can make it panic.
///
/// Stored as one more than that, so that `Option<Timestamp>` takes eight bytes: there are a dozen of them
/// for every endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

/// 48 bits of milliseconds.
const LAST: u64 = (1 << 48) - 1;

impl Timestamp {
    /// The Unix epoch; also the due time of a delivery that waits for a free slot only.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// Later than every instant that can be stored (48 bits of milliseconds).
    pub const MAX: Self = Self::from_millis(LAST);

    /// From milliseconds since the epoch; clamped to [`Timestamp::MAX`].
    pub const fn from_millis(ms: u64) -> Self {
        let ms = if ms > LAST { LAST } else { ms };
        Self(NonZeroU64::MIN.saturating_add(ms))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole seconds since the epoch, as `webhook-timestamp` wants them (Standard Webhooks, SW5).
    pub const fn seconds(self) -> u64 {
        self.millis() / 1000
    }

    /// This instant moved forward; stops at [`Timestamp::MAX`].
    pub fn plus(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.millis().saturating_add(ms))
    }

    /// This instant moved back; stops at the epoch.
    pub fn minus(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.millis().saturating_sub(ms))
    }

    /// Time from `earlier` to this instant; zero if the clock went back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(earlier.millis()))
    }

    /// RFC 3339 in UTC with three fraction digits, the only form the API shows.
    pub fn rfc3339(self) -> String {
        let ms = i64::try_from(self.millis()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(ms).map_or_else(
            |_| String::from("9999-12-31T23:59:59.999Z"),
            |at| format!("{at:.3}"),
        )
    }

    /// Reads RFC 3339 with any offset. Instants before 1970 are refused.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(at.as_millisecond())
            .ok()
            .map(Self::from_millis)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse_rfc3339(&text)
            .ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time after 1970"))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_and_reads_rfc_3339_with_milliseconds() {
        let at = Timestamp::from_millis(1_767_600_930_120);
        assert_eq!(at.rfc3339(), "2026-01-05T08:15:30.120Z");
        assert_eq!(
            Timestamp::parse_rfc3339("2026-01-05T09:15:30.12+01:00"),
            Some(at)
        );
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn an_optional_instant_takes_no_more_room_than_an_instant() {
        assert_eq!(size_of::<Option<Timestamp>>(), 8);
        for ms in [0, 1, LAST - 1, LAST] {
            assert_eq!(Timestamp::from_millis(ms).millis(), ms);
        }
        assert_eq!(Timestamp::from_millis(LAST + 1), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(u64::MAX).millis(), LAST);
        assert_eq!(Timestamp::default(), Timestamp::from_millis(0));
        assert!(Some(Timestamp::ZERO) > None);
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(
            Timestamp::ZERO.minus(Duration::from_secs(1)),
            Timestamp::ZERO
        );
        assert_eq!(Timestamp::ZERO.since(Timestamp::MAX), Duration::ZERO);
    }
}
