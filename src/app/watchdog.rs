//! Tells the service manager that deliveries move, from a thread of its own.
//!
//! Silence is the alarm: the thread pings only while the commit thread turns, the scheduler turns
//! (and with it the runtime), and no delivery that could start has been waiting for a minute without
//! anything moving (P14). It judges by what changed between two looks, on a clock of its own: a step
//! of the system's clock makes nothing look stuck, and nothing stuck look alive.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};

use super::build::Engine;
use crate::base::{Clock, Timestamp, task};
use crate::schedule::Status;
use crate::server::notify;

/// The commit thread turns at least every five seconds; a stall of the disk may take a while.
const COMMITS: Duration = Duration::from_secs(10);
/// The scheduler turns at least every five seconds.
const TURNS: Duration = Duration::from_secs(10);
/// A delivery that could start starts within this, or nothing moves.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Looks within the time that the manager waits for. Twice would do; one that is late must not end
/// the process.
const LOOKS: u32 = 4;

/// Starts the thread if the service manager wants to hear from us.
pub(super) fn start(engine: &Engine) {
    let Some(limit) = notify::watchdog_limit() else {
        return;
    };
    let (lane, status) = (engine.lane.clone(), engine.status.clone());
    let clock = engine.clock.clone();
    let started = task::thread("watchdog", move || {
        let mut judge = Judge::new(clock.monotonic());
        while status.has_changed().is_ok() {
            let seen = Seen::of(lane.last_round(), &status);
            match judge.look(clock.monotonic(), seen) {
                None if !lane.has_failed() => notify::watchdog(),
                None => error!("the watchdog is silent: the store has failed"),
                Some(what) => error!(what, "the watchdog is silent"),
            }
            std::thread::park_timeout(limit / LOOKS);
        }
    });
    if let Err(cause) = started {
        warn!(%cause, "no watchdog thread; the service manager will restart the process");
    }
}

/// What a look sees. Only whether these change matters, not how old they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    /// The commit thread's last round.
    round: Timestamp,
    /// The scheduler's last turn.
    turn: Timestamp,
    /// When an attempt last started or ended.
    progress: Timestamp,
    /// Whether some delivery could start.
    waits: bool,
}

impl Seen {
    fn of(round: Timestamp, status: &watch::Receiver<Status>) -> Self {
        let status = *status.borrow();
        Self {
            round,
            turn: status.last_turn,
            progress: status.last_progress,
            waits: status.oldest_runnable.is_some(),
        }
    }
}

/// Since when, on the monotonic clock, what should change has not.
#[derive(Debug)]
struct Judge {
    seen: Seen,
    round: Duration,
    turn: Duration,
    progress: Duration,
}

impl Judge {
    fn new(now: Duration) -> Self {
        Self {
            seen: Seen::default(),
            round: now,
            turn: now,
            progress: now,
        }
    }

    /// What does not move, if anything. `now` is monotonic.
    fn look(&mut self, now: Duration, seen: Seen) -> Option<&'static str> {
        if seen.round != self.seen.round {
            self.round = now;
        }
        if seen.turn != self.seen.turn {
            self.turn = now;
        }
        if seen.progress != self.seen.progress || !seen.waits {
            self.progress = now;
        }
        self.seen = seen;
        let beyond = |since: Duration, limit| now.saturating_sub(since) > limit;
        if beyond(self.round, COMMITS) {
            Some("the commit thread")
        } else if beyond(self.turn, TURNS) {
            Some("the scheduler")
        } else if beyond(self.progress, STANDSTILL) {
            Some("deliveries")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second for `seconds`; `at` says what is seen then. Answers the verdicts.
    fn looks(seconds: u64, at: impl Fn(u64) -> Seen) -> Vec<Option<&'static str>> {
        let mut judge = Judge::new(Duration::ZERO);
        (1..=seconds)
            .map(|second| judge.look(Duration::from_secs(second), at(second)))
            .collect()
    }

    fn beat(second: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + second * 1_000)
    }

    /// Everything turns, and something could start all the time.
    fn alive(second: u64) -> Seen {
        Seen {
            round: beat(second),
            turn: beat(second),
            progress: beat(second),
            waits: true,
        }
    }

    #[test]
    fn what_turns_is_not_reported() {
        assert_eq!(looks(300, alive), vec![None; 300]);
    }

    #[test]
    fn what_stands_is_named_after_its_time_and_not_before() {
        let stands = |seen: fn(Seen, Seen) -> Seen| {
            let all = looks(120, |second| seen(alive(second), alive(second.min(20))));
            let first = all.iter().position(Option::is_some).map(|at| at + 1);
            (first, first.and_then(|at| all[at - 1]))
        };
        let round = stands(|now, old| Seen {
            round: old.round,
            ..now
        });
        assert_eq!(round, (Some(31), Some("the commit thread")));
        let turn = stands(|now, old| Seen {
            turn: old.turn,
            ..now
        });
        assert_eq!(turn, (Some(31), Some("the scheduler")));
        let progress = stands(|now, old| Seen {
            progress: old.progress,
            ..now
        });
        assert_eq!(progress, (Some(81), Some("deliveries")));
    }

    #[test]
    fn with_nothing_to_start_no_progress_is_no_standstill() {
        let idle = |second| Seen {
            progress: beat(0),
            waits: second % 60 == 0, // never for a whole minute
            ..alive(second)
        };
        assert_eq!(looks(600, idle), vec![None; 600]);
    }

    #[test]
    fn an_attempt_that_ends_once_in_a_while_is_progress() {
        let slow = |second| Seen {
            progress: beat(second / 30 * 30), // receivers that hang until their time-out
            ..alive(second)
        };
        assert_eq!(looks(600, slow), vec![None; 600]);
    }

    #[test]
    fn a_step_of_the_clock_neither_alarms_nor_covers_up() {
        let stepped = |second: u64, by: u64| {
            let shift = if second > 20 { by } else { 0 };
            alive(second + shift)
        };
        for by in [3_600, 10 * 365 * 86_400] {
            assert_eq!(looks(60, |second| stepped(second, by)), vec![None; 60]);
        }
        // Back by an hour, and stuck from then on: noticed all the same.
        let back = |second: u64| Seen {
            turn: if second > 20 {
                Timestamp::from_millis(1_600_000_000_000)
            } else {
                beat(second)
            },
            ..alive(second)
        };
        let first = looks(60, back).iter().position(Option::is_some);
        assert_eq!(first, Some(31)); // in second 32: it changed in 21, with the step
    }
}
