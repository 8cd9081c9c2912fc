//! When requests start: the plan of an open loop, as a pure function from a request's number to the
//! time after the begin at which it should start.
//!
//! The generator waits for these times and counts latency from them, whatever the answers do, so a
//! stall is charged to every request that should have started during it.

use std::time::Duration;

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as the answers come.
    Closed,
    /// So many requests a second, planned evenly. Above 0.
    Open(f64),
    /// From one rate to another.
    Ramp(Ramp),
    /// So many requests at once, again and again. Both above 0.
    Burst {
        /// Requests of a burst.
        count: u64,
        /// From the begin of one to the begin of the next.
        every: Duration,
    },
}

/// A rate that moves. Rates are requests a second, above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ramp {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The rate stays at `from` for so long first (the warm-up).
    pub(crate) hold: Duration,
    /// Then it moves for so long, and stays at `to` afterwards.
    pub(crate) over: Duration,
    /// In so many steps of equal length, the first at `from`, the last at `to`; 0 = evenly.
    pub(crate) steps: u32,
}

impl Pace {
    /// Planned start of the request with this number, counted from the begin; `None` in the closed
    /// loop, which has no plan. Never before the start of an earlier number.
    pub(crate) fn start(&self, request: u64) -> Option<Duration> {
        match self {
            Self::Closed => None,
            Self::Open(rate) => Some(seconds(request as f64 / rate)),
            Self::Ramp(ramp) => Some(ramp.start(request as f64)),
            Self::Burst { count, every } => {
                let burst = request / (*count).max(1);
                Some(seconds(every.as_secs_f64() * burst as f64))
            }
        }
    }
}

impl Ramp {
    fn start(&self, request: f64) -> Duration {
        let held = self.from * self.hold.as_secs_f64();
        if request < held {
            return seconds(request / self.from);
        }
        let into = match self.steps {
            0 => self.even(request - held),
            steps => self.stepped(request - held, steps),
        };
        seconds(self.hold.as_secs_f64() + into)
    }

    /// Inverse of `from * t + slope * t^2 / 2`, in the form that also holds for a slope of 0.
    fn even(&self, request: f64) -> f64 {
        let over = self.over.as_secs_f64();
        let within = (self.from + self.to) / 2.0 * over;
        if request >= within {
            return over + (request - within) / self.to;
        }
        let slope = (self.to - self.from) / over;
        let root = (self.from * self.from + 2.0 * slope * request).max(0.0);
        2.0 * request / (self.from + root.sqrt())
    }

    fn stepped(&self, mut request: f64, steps: u32) -> f64 {
        let length = self.over.as_secs_f64() / f64::from(steps);
        for step in 0..steps {
            let share = f64::from(step) / f64::from((steps - 1).max(1));
            let rate = self.from + (self.to - self.from) * share;
            if request < rate * length {
                return length * f64::from(step) + request / rate;
            }
            request -= rate * length;
        }
        self.over.as_secs_f64() + request / self.to
    }
}

/// A plan that lies beyond all bounds is a plan for never.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    fn ramp(from: f64, to: f64, steps: u32) -> Pace {
        Pace::Ramp(Ramp {
            from,
            to,
            hold: secs(2),
            over: secs(10),
            steps,
        })
    }

    /// Requests planned to start in each second.
    fn by_second(pace: Pace, seconds: usize) -> Vec<u64> {
        let mut counts = vec![0; seconds];
        for request in 0.. {
            let start = pace.start(request).unwrap();
            let at = usize::try_from(start.as_secs()).unwrap();
            match counts.get_mut(at) {
                Some(count) => *count += 1,
                None => return counts,
            }
        }
        counts
    }

    #[test]
    fn planned_starts_of_an_open_loop_are_even() {
        assert_eq!(Pace::Open(200.0).start(0), Some(Duration::ZERO));
        assert_eq!(Pace::Open(200.0).start(200), Some(secs(1)));
        assert_eq!(Pace::Closed.start(3), None);
    }

    #[test]
    fn an_even_ramp_holds_climbs_and_stays() {
        let counts = by_second(ramp(100.0, 1100.0, 0), 14);
        assert_eq!(counts[..2], [100, 100]);
        for (second, pair) in counts[2..12].windows(2).enumerate() {
            assert!(pair[1].abs_diff(pair[0] + 100) <= 2, "{second}: {counts:?}");
        }
        assert!(counts[12].abs_diff(1100) <= 1 && counts[13].abs_diff(1100) <= 1);
        let all: u64 = counts[2..12].iter().sum();
        assert!(all.abs_diff(6000) <= 1, "{all}");
    }

    #[test]
    fn a_ramp_downwards_never_goes_back_in_time() {
        for pace in [ramp(500.0, 5.0, 0), ramp(500.0, 5.0, 7)] {
            let starts: Vec<_> = (0..4000).map(|n| pace.start(n).unwrap()).collect();
            assert!(starts.is_sorted());
        }
    }

    #[test]
    fn a_stepped_ramp_stands_at_each_step() {
        let counts = by_second(ramp(100.0, 500.0, 5), 14);
        assert_eq!(
            counts,
            [
                100, 100, 100, 100, 200, 200, 300, 300, 400, 400, 500, 500, 500, 500
            ]
        );
    }

    #[test]
    fn bursts_start_together() {
        let pace = Pace::Burst {
            count: 50,
            every: secs(3),
        };
        assert_eq!(pace.start(49), Some(Duration::ZERO));
        assert_eq!(pace.start(50), Some(secs(3)));
        assert_eq!(pace.start(149), Some(secs(6)));
    }
}
