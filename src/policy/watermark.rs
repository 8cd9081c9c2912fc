//! How full the disk is, in three levels.
//!
//! [`level`] compares what the store takes with its budget, and what the disk has left with the reserve. A
//! level that was reached is left only a little below, so that a store at its edge does not go to and fro.

/// Per cent of the budget from which a warning is given.
const SOFT: u64 = 85;
/// Per cent of the budget that a level must fall below to be left.
const SLACK: u64 = 3;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Enough.
    #[default]
    Ok,
    /// 85 % of the budget is used, or less than twice the reserve is left: look after it.
    Soft,
    /// The budget is used up, or less than the reserve is left: new messages are refused.
    Hard,
}

impl Level {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

/// What is compared, all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The store takes.
    pub used: u64,
    /// Left on its disk.
    pub free: u64,
    /// The store may take; 0 = as much as there is.
    pub budget: u64,
    /// Must stay free.
    pub reserve: u64,
}

/// The level now, if it was `before` until now.
pub fn level(room: Room, before: Level) -> Level {
    let at = |level: Level, percent: u64| {
        let slack = if before >= level { SLACK } else { 0 };
        let percent = u128::from(percent - slack);
        let is_used =
            room.budget > 0 && u128::from(room.used) * 100 >= u128::from(room.budget) * percent;
        let least = match level {
            Level::Hard => room.reserve,
            Level::Soft | Level::Ok => room.reserve.saturating_mul(2),
        };
        is_used || room.free < least
    };
    if at(Level::Hard, 100) {
        Level::Hard
    } else if at(Level::Soft, SOFT) {
        Level::Soft
    } else {
        Level::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(used: u64, free: u64, budget: u64, before: Level) -> Level {
        let reserve = 100;
        let room = Room {
            used,
            free,
            budget,
            reserve,
        };
        level(room, before)
    }

    #[test]
    fn a_budget_has_a_soft_and_a_hard_mark() {
        for (used, want) in [
            (0, Level::Ok),
            (849, Level::Ok),
            (850, Level::Soft),
            (999, Level::Soft),
            (1000, Level::Hard),
            (5000, Level::Hard),
        ] {
            assert_eq!(of(used, 10_000, 1000, Level::Ok), want, "{used}");
        }
    }

    #[test]
    fn without_a_budget_only_the_reserve_counts() {
        for (free, want) in [
            (200, Level::Ok),
            (199, Level::Soft),
            (100, Level::Soft),
            (99, Level::Hard),
            (0, Level::Hard),
        ] {
            assert_eq!(of(u64::MAX, free, 0, Level::Ok), want, "{free}");
        }
    }

    #[test]
    fn a_level_is_left_a_little_below_its_mark() {
        assert_eq!(of(970, 10_000, 1000, Level::Hard), Level::Hard);
        assert_eq!(of(969, 10_000, 1000, Level::Hard), Level::Soft);
        assert_eq!(of(820, 10_000, 1000, Level::Soft), Level::Soft);
        assert_eq!(of(819, 10_000, 1000, Level::Soft), Level::Ok);
        assert_eq!(of(970, 10_000, 1000, Level::Soft), Level::Soft);
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!(of(u64::MAX, u64::MAX, u64::MAX, Level::Ok), Level::Hard);
    }
}
