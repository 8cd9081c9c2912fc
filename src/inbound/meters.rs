//! Handles of the inbound metrics, looked up once.

use ::metrics::{Counter, counter};
use hashbrown::HashMap;

use super::receipt::Verdict;
use super::receive::Refused;
use crate::metrics;

pub(super) struct Meters {
    accepted: Counter,
    duplicate: Counter,
    handshake: Counter,
    events: Counter,
    refused: HashMap<&'static str, Counter>,
}

impl Default for Meters {
    fn default() -> Self {
        let verdict = |verdict: &'static str| counter!(metrics::INBOUND, "verdict" => verdict);
        let refused = Refused::reasons().map(|reason| {
            let counter = counter!(metrics::INBOUND_REFUSED, "reason" => reason);
            (reason, counter)
        });
        Self {
            accepted: verdict("accepted"),
            duplicate: verdict("duplicate"),
            handshake: verdict("handshake"),
            events: counter!(metrics::INBOUND_EVENTS),
            refused: refused.collect(),
        }
    }
}

impl Meters {
    pub(super) fn count(&self, verdict: Verdict, events: usize) {
        match verdict {
            Verdict::Accepted => {
                self.accepted.increment(1);
                self.events
                    .increment(u64::try_from(events).unwrap_or(u64::MAX));
            }
            Verdict::Duplicate => self.duplicate.increment(1),
            Verdict::Handshake => self.handshake.increment(1),
            Verdict::Refused(reason) => {
                if let Some(counter) = self.refused.get(reason) {
                    counter.increment(1);
                }
            }
        }
    }
}
