//! What happened at an endpoint, as the tenant routes show it: counted from its attempts.

use crate::api::ApiState;
use crate::base::Timestamp;
use crate::model::EndpointNo;
use crate::store::{self, Page};

/// Attempts looked at for one answer, all of its endpoints together. What lies further back is not
/// counted.
pub(super) const BUDGET: usize = 200_000;
/// Attempts read at a time.
const PAGE: usize = 1000;

/// Figures of one endpoint over the retention of attempts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) last: Option<Timestamp>,
    pub(super) last_success: Option<Timestamp>,
    pub(super) last_failure: Option<Timestamp>,
    /// Failed attempts since the last success.
    pub(super) in_a_row: u32,
}

impl Figures {
    /// Counts from the newest attempt back; takes what it looks at from `budget`.
    pub(super) fn count(
        state: &ApiState,
        endpoint: EndpointNo,
        budget: &mut usize,
    ) -> Result<Self, store::Error> {
        let mut figures = Self::default();
        let mut page = Page {
            from: None,
            until: None,
            newest_first: true,
            limit: PAGE,
        };
        while *budget > 0 {
            let listed = state.reader.endpoint_attempts(endpoint, &page)?;
            for entry in &listed {
                figures.add(entry.verdict, entry.key.time);
            }
            *budget = budget.saturating_sub(listed.len());
            match listed.last() {
                Some(last) if listed.len() == PAGE => page.from = Some(last.key),
                _ => break,
            }
        }
        Ok(figures)
    }

    /// The next older attempt: 0 delivered, 1 to be tried again, 2 given up.
    fn add(&mut self, verdict: u8, at: Timestamp) {
        self.last = self.last.or(Some(at));
        if verdict == 0 {
            self.delivered += 1;
            self.last_success = self.last_success.or(Some(at));
            return;
        }
        self.last_failure = self.last_failure.or(Some(at));
        if self.last_success.is_none() {
            self.in_a_row += 1;
        }
        if verdict == 2 {
            self.failed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_taken_from_the_newest_back() {
        let mut figures = Figures::default();
        for (verdict, at) in [(2, 50), (1, 40), (0, 30), (1, 20), (0, 10)] {
            figures.add(verdict, Timestamp::from_millis(at));
        }
        let at = |ms| Some(Timestamp::from_millis(ms));
        assert_eq!(
            figures,
            Figures {
                delivered: 2,
                failed: 1,
                last: at(50),
                last_success: at(30),
                last_failure: at(50),
                in_a_row: 2,
            }
        );
    }
}
