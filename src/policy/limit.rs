//! How fast one endpoint is called: its window of concurrent attempts, its rate, its pauses, its
//! breaker.
//!
//! * **Window** (AIMD): 429, 5xx and time-outs halve it, at most once per window's worth of attempts
//!   and never below 1; successes let it grow by one per window's worth. A new endpoint and one that
//!   came back begin with 1, 2, 4 … up to the limit, so nobody is flooded by a backlog.
//! * **Pause**: 429, 502, 503, 504 stop the whole endpoint until `Retry-After`, or for a back-off.
//! * **Breaker**: ten failures in a row of any kind open it; after a back-off one probe decides.
//! * **Rate**: attempts per second by GCRA (`governor`), fed with the caller's time.
//!
//! Every call is O(1) and allocates nothing. The schedule of a single delivery is none of its
//! business ([`super::retry`]).

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::outcome;
use crate::base::Timestamp;
use crate::model::Outcome;

/// Failures in a row that open the breaker.
pub const BREAKER_AFTER: u16 = 10;
/// First and longest wait of the breaker before its next probe.
const PROBE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// First and longest pause after 429, 502, 503, 504 without a `Retry-After`.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Windows are counted in 1/256 of an attempt.
const ONE: u32 = 256;

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// So many attempts; 0 = none before one of those under way has finished. With a rate limit at
    /// most 1: ask again after starting it.
    Slots(u16),
    /// None before then, whatever finishes meanwhile.
    NotBefore(Timestamp),
}

/// The throttle of one endpoint. Owned by whoever starts its attempts.
#[derive(Debug)]
pub struct Throttle {
    limit: u16,
    /// 1/256 attempts; between `ONE` and `limit * ONE`.
    window: u32,
    in_flight: u16,
    /// Attempts that began before the window last shrank: their failures do not shrink it again.
    stale: u16,
    /// Doubling per round instead of growing by one.
    ramping: bool,
    failures: u16,
    breaker: Breaker,
    /// Probes that failed since the breaker opened; the exponent of its back-off.
    probes: u8,
    paused_until: Timestamp,
    /// Pauses in a row; the exponent of their back-off.
    pauses: u8,
    /// In a box: few endpoints have one.
    rate: Option<Box<Rate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Closed,
    /// No attempt until then, afterwards one probe.
    Open(Timestamp),
}

impl Throttle {
    /// A throttle that begins slowly (one attempt, then two, four …). `limit` is the number of
    /// attempts at the same time (0 counts as 1), `rate` attempts per second (`None` or 0 = no rate).
    pub fn new(limit: u16, rate: Option<u16>) -> Self {
        Self {
            limit: limit.max(1),
            window: ONE,
            in_flight: 0,
            stale: 0,
            ramping: true,
            failures: 0,
            breaker: Breaker::Closed,
            probes: 0,
            paused_until: Timestamp::ZERO,
            pauses: 0,
            rate: rate.and_then(Rate::new).map(Box::new),
        }
    }

    /// Takes over an edited endpoint's limits; what was learned of it stays.
    pub fn set_limits(&mut self, limit: u16, rate: Option<u16>) {
        self.limit = limit.max(1);
        self.window = self.window.min(self.ceiling());
        let rate = rate.filter(|&rate| rate > 0);
        if self.rate.as_ref().map(|r| r.per_second) != rate {
            self.rate = rate.and_then(Rate::new).map(Box::new);
        }
    }

    /// Begins anew with one attempt at a time and forgets pauses and the breaker: the endpoint was
    /// switched on again, resumed, or its URL was edited.
    pub const fn restart(&mut self) {
        self.window = ONE;
        self.stale = self.in_flight;
        self.ramping = true;
        self.failures = 0;
        self.breaker = Breaker::Closed;
        self.probes = 0;
        self.paused_until = Timestamp::ZERO;
        self.pauses = 0;
    }

    /// The caller's clock went back by `by`: what was to end then ends so much earlier by that clock.
    pub fn stepped_back(&mut self, by: Duration) {
        self.paused_until = self.paused_until.minus(by);
        if let Breaker::Open(until) = self.breaker {
            self.breaker = Breaker::Open(until.minus(by));
        }
    }

    /// How many attempts may start at `now`. Asking costs nothing and changes no answer.
    pub fn ready(&mut self, now: Timestamp) -> Ready {
        let slots = match self.breaker {
            Breaker::Open(until) if now < until => return Ready::NotBefore(until),
            // The probe is alone, so that its outcome speaks for itself.
            Breaker::Open(_) => u16::from(self.in_flight == 0),
            Breaker::Closed => self.width().saturating_sub(self.in_flight),
        };
        if now < self.paused_until {
            return Ready::NotBefore(self.paused_until);
        }
        match &mut self.rate {
            Some(rate) if slots > 0 => match rate.take(now) {
                Ok(()) => Ready::Slots(1),
                Err(wait) => Ready::NotBefore(now.plus(wait)),
            },
            Some(_) | None => Ready::Slots(slots),
        }
    }

    /// An attempt begins. Starting more than [`Throttle::ready`] granted is counted, not refused: a
    /// person's resend may not wait.
    pub fn started(&mut self, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_add(1);
        if let Some(rate) = &mut self.rate {
            rate.spend(now);
        }
    }

    /// An attempt ended. `max_pause`: the longest pause that a `Retry-After` is granted.
    pub fn finished(&mut self, now: Timestamp, outcome: &Outcome, max_pause: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let stale = self.stale > 0;
        self.stale = self.stale.saturating_sub(1);
        if outcome.failure.is_none() {
            self.succeeded();
            return;
        }
        if outcome::is_pause(outcome) {
            let hint = outcome.retry_after_secs;
            let hint = hint.map(|secs| Duration::from_secs(secs.into()).min(max_pause));
            self.pause(now, hint, stale);
        }
        if outcome::is_overload(outcome) && !stale {
            self.shrink();
        }
        self.failed(now);
    }

    /// Attempts under way.
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Attempts it would allow at the same time, pauses aside.
    pub fn width(&self) -> u16 {
        u16::try_from(self.window / ONE).unwrap_or(self.limit)
    }

    /// Whether the breaker is open: the endpoint is taken for dead until a probe succeeds.
    pub fn is_open(&self) -> bool {
        self.breaker != Breaker::Closed
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.pauses = 0;
        if self.is_open() {
            self.breaker = Breaker::Closed;
            self.probes = 0;
            self.window = ONE;
            self.ramping = true;
            return;
        }
        let step = if self.ramping {
            ONE
        } else {
            ONE.div_ceil(self.window / ONE)
        };
        self.window = self.window.saturating_add(step).min(self.ceiling());
        self.ramping &= self.window < self.ceiling();
    }

    fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        match self.breaker {
            Breaker::Closed if self.failures >= BREAKER_AFTER => {
                self.breaker = Breaker::Open(now.plus(PROBE.0));
                self.probes = 0;
            }
            Breaker::Open(until) if now >= until => {
                self.probes = self.probes.saturating_add(1);
                self.breaker = Breaker::Open(now.plus(backoff(PROBE, self.probes)));
            }
            // A straggler that began before the breaker opened tells nothing new.
            Breaker::Open(_) | Breaker::Closed => {}
        }
    }

    fn pause(&mut self, now: Timestamp, hint: Option<Duration>, stale: bool) {
        let before = self.pauses.saturating_sub(u8::from(stale));
        let wait = hint.unwrap_or_else(|| backoff(PAUSE, before));
        if !stale {
            self.pauses = self.pauses.saturating_add(1);
        }
        self.paused_until = self.paused_until.max(now.plus(wait));
    }

    const fn shrink(&mut self) {
        let half = self.window / 2;
        self.window = if half < ONE { ONE } else { half };
        self.ramping = false;
        self.stale = self.in_flight;
    }

    fn ceiling(&self) -> u32 {
        u32::from(self.limit) * ONE
    }
}

/// `range.0` doubled `times` times, at most `range.1`.
fn backoff(range: (Duration, Duration), times: u8) -> Duration {
    let factor = 1_u32.checked_shl(times.into()).unwrap_or(u32::MAX);
    range.0.saturating_mul(factor).min(range.1)
}

/// Attempts per second.
struct Rate {
    per_second: u16,
    limiter: RateLimiter<NotKeyed, InMemoryState, Fed, NoOpMiddleware<Nanos>>,
    /// The caller's time at the last call; a clock that goes back stands still here.
    last: Timestamp,
    /// A permit taken from the limiter and not used yet: `ready` asks, `started` spends.
    in_hand: bool,
}

/// A clock that shows what it was last told, in nanoseconds since the limiter was made.
#[derive(Debug)]
struct Fed(AtomicU64);

impl governor::clock::Clock for Fed {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

impl Rate {
    /// Bursts are a tenth of a second's worth, at least one attempt.
    fn new(per_second: u16) -> Option<Self> {
        let rate = NonZeroU32::new(per_second.into())?;
        let burst = NonZeroU32::new(u32::from(per_second).div_ceil(10))?;
        let quota = Quota::per_second(rate).allow_burst(burst);
        Some(Self {
            per_second,
            limiter: RateLimiter::direct_with_clock(quota, Fed(AtomicU64::new(0))),
            last: Timestamp::ZERO,
            in_hand: false,
        })
    }

    /// Makes sure that a permit is in hand, or says how long until there is one.
    fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        /// Keeps sums of nanoseconds away from overflow: 36 years.
        const FAR: u64 = 1 << 60;
        if self.in_hand {
            return Ok(());
        }
        if self.last == Timestamp::ZERO {
            self.last = now;
        }
        let passed = u64::try_from(now.since(self.last).as_nanos()).unwrap_or(FAR);
        self.last = now;
        let clock = &self.limiter.clock().0;
        let at = clock
            .load(Ordering::Relaxed)
            .saturating_add(passed)
            .min(FAR);
        clock.store(at, Ordering::Relaxed);
        match self.limiter.check() {
            Ok(()) => {
                self.in_hand = true;
                Ok(())
            }
            // Rounded up to the millisecond that timers count in.
            Err(until) => Err(until.wait_time_from(Nanos::new(at)) + Duration::from_nanos(999_999)),
        }
    }

    fn spend(&mut self, now: Timestamp) {
        // Without a permit (a resend by hand) the rate is exceeded by one and not remembered.
        if self.take(now).is_ok() {
            self.in_hand = false;
        }
    }
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/s", self.per_second)
    }
}

#[cfg(test)]
mod tests;
