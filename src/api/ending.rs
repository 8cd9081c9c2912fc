//! Payloads whose time is over leave the store (ADR 0347).
//!
//! Readers go by the clock and see them no more already; here they are taken away for good, a page at a
//! time, each page in one commit. What is not finished keeps its payload and is looked at again later: an
//! hour, or an eighth of the time since the end, so that one that is held for months is not looked at
//! every hour. Whatever ends this in between finds the rest again.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, counter};

use super::ApiState;
use super::error::Problem;
use crate::base::Timestamp;
use crate::base::task::{self, Stop};
use crate::metrics::PAYLOADS_ENDED;
use crate::model::Delivery;
use crate::store::{self, Ended, PayloadEnd};

/// Messages of one commit.
const PAGE: usize = 100;
/// Between two pages, so that commits of others come first.
const PAUSE: Duration = Duration::from_millis(20);
/// A request that was checked just before the end is in the store by then.
const GRACE: Duration = Duration::from_secs(60);
/// What is not finished is looked at again after this at least.
const AGAIN: Duration = Duration::from_secs(3600);
/// What cannot be read is looked at again after this.
const UNREADABLE: Duration = Duration::from_secs(86_400);
/// So often a page is tried while the lane is busy, a second apart.
const TRIES: usize = 60;

/// What came of the ends that were due.
pub(super) struct Meters {
    taken_away: Counter,
    put_off: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            taken_away: counter!(PAYLOADS_ENDED, "result" => "taken_away"),
            put_off: counter!(PAYLOADS_ENDED, "result" => "put_off"),
        }
    }
}

/// When a payload that ended at `ends` and is still being delivered is looked at again.
fn again(ends: Timestamp, now: Timestamp) -> Timestamp {
    now.plus(AGAIN.max(now.since(ends) / 8))
}

impl ApiState {
    /// Takes away the payloads whose time is over and that nothing needs any more. Ends early when the
    /// process is to stop. Not cancel safe: it goes on.
    pub async fn end_payloads(self: &Arc<Self>, stop: &Stop) {
        let (state, stop) = (Arc::clone(self), stop.clone());
        let done = task::beside(async move { state.work_off(&stop).await }).await;
        match done {
            Some(Ok((0, 0))) => {}
            Some(Ok((taken_away, put_off))) => {
                tracing::info!(taken_away, put_off, "payloads whose time is over");
            }
            Some(Err(problem)) => {
                let why = problem.told().1;
                tracing::warn!(%why, "payloads whose time is over stay for now; it is tried again");
            }
            None => tracing::error!("taking away payloads whose time is over ended early"),
        }
    }

    /// Answers how many were taken away, and how many put off.
    async fn work_off(&self, stop: &Stop) -> Result<(u64, u64), Problem> {
        let until = self.clock.now().minus(GRACE);
        let (mut taken_away, mut put_off) = (0, 0);
        let mut after = None;
        while !stop.is_stopped() {
            let page = self.stored.payload_ends(after, until, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some((last.due, last.at));
            let more = page.len() == PAGE;
            let ends = self.judge(page).await?;
            let (mut taken, mut waiting) = (0, 0);
            for (_, ended) in &ends {
                taken += u64::from(*ended == Ended::TakenAway);
                waiting += u64::from(matches!(ended, Ended::PutOff(_)));
            }
            self.end_patiently(ends, stop).await?;
            self.ends.taken_away.increment(taken);
            self.ends.put_off.increment(waiting);
            taken_away += taken;
            put_off += waiting;
            if !more {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok((taken_away, put_off))
    }

    /// Waits while the lane is busy.
    async fn end_patiently(
        &self,
        ends: Vec<(PayloadEnd, Ended)>,
        stop: &Stop,
    ) -> Result<(), Problem> {
        for _ in 1..TRIES {
            match self.end(ends.clone()).await {
                Err(problem) if problem.is_overload() && !stop.is_stopped() => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                done => return done,
            }
        }
        self.end(ends).await
    }

    /// What is to become of each.
    async fn judge(&self, page: Vec<PayloadEnd>) -> Result<Vec<(PayloadEnd, Ended)>, Problem> {
        let now = self.clock.now();
        let mut all = Vec::new();
        let mut seen = Vec::with_capacity(page.len());
        for end in page {
            let first = all.len();
            let found = self.find(&end).map(|found| {
                found.map(|(ends, deliveries)| {
                    all.extend(deliveries);
                    (ends, first..all.len())
                })
            });
            let found = match found {
                Err(store::Error::Corrupt { what, why }) => {
                    tracing::error!(
                        what,
                        why,
                        "the payload of a message that cannot be read stays"
                    );
                    Err(Ended::PutOff(now.plus(UNREADABLE)))
                }
                found => found?.ok_or(Ended::Gone),
            };
            seen.push((end, found));
        }
        let open = self.schedule.unfinished(&all).await?;
        let judged = seen.into_iter().map(|(end, found)| {
            let ended = match found {
                Err(ended) => ended,
                Ok((ends, of)) => match open.get(of) {
                    Some(open) if !open.contains(&true) => Ended::TakenAway,
                    Some(_) | None => Ended::PutOff(again(ends, now)),
                },
            };
            (end, ended)
        });
        Ok(judged.collect())
    }

    /// When the payload ended, and every delivery of its message; `None` = there is no payload.
    fn find(&self, end: &PayloadEnd) -> Result<Option<(Timestamp, Vec<Delivery>)>, store::Error> {
        let at = end.at;
        let message = self.stored.message(at)?;
        let Some(message) = message.filter(|message| !message.is_expunged()) else {
            return Ok(None);
        };
        let tried = self.stored.attempts(at, None)?;
        let tried = tried.iter().map(|attempt| &attempt.endpoint);
        let all = message.targets.iter().chain(&end.further).chain(tried);
        let mut all: Vec<_> = all.map(|&endpoint| Delivery { at, endpoint }).collect();
        all.sort_unstable();
        all.dedup();
        Ok(Some((message.payload_ends().unwrap_or(end.due), all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_looked_at_after_an_hour_and_then_after_an_eighth_of_its_wait() {
        let ends = Timestamp::from_millis(1_767_600_000_000);
        let hours = |n: u64| Duration::from_secs(n * 3600);
        for (waited, next) in [(0, 1), (7, 1), (8, 1), (16, 2), (800, 100)] {
            let now = ends.plus(hours(waited));
            assert_eq!(again(ends, now), now.plus(hours(next)), "{waited}");
        }
        assert_eq!(again(ends.plus(hours(5)), ends), ends.plus(hours(1)));
    }
}
