//! What the generator saw: acknowledgements, refusals, latencies, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Window;
use crate::hist::Histogram;
use crate::timeline::Timeline;

/// As what a message of a batch counts that was refused by itself, whatever its status.
const LINE: u16 = 422;

/// The producer's record. Each thread has its own; they are merged at the end.
#[derive(Default)]
pub(crate) struct Ingested {
    pub(crate) window: Window,
    /// Numbers of all acknowledged messages, warm-up included, in no order.
    pub(crate) acked: Vec<u64>,
    /// Their payload bytes.
    pub(crate) payload_bytes: u64,
    /// Messages acknowledged within the window.
    pub(crate) accepted: u64,
    /// Messages acknowledged, and the latency of requests, from the first send on.
    pub(crate) timeline: Timeline,
    /// Messages answered with something else than success, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub(crate) failed: u64,
    /// Requests that were sent again.
    pub(crate) retried: u64,
    /// Acknowledgements without the id that the adapter names; a sample is looked at.
    pub(crate) without_id: u64,
    /// Open loop: planned requests that found no free connection until the end.
    pub(crate) unsent: u64,
    /// Per request, within the window.
    pub(crate) latency: Histogram,
    /// CPU of the generator threads in the whole run.
    pub(crate) cpu: Duration,
    /// The first error seen, to explain `failed`.
    pub(crate) first_error: Option<String>,
}

impl Ingested {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            timeline: Timeline::new(window.begin, window.to),
            ..Self::default()
        }
    }

    pub(super) fn error(&mut self, text: impl FnOnce() -> String) {
        if self.first_error.is_none() {
            self.first_error = Some(text());
        }
    }

    /// Counts the answer lines of a batch; one that holds `accepted` acknowledges its message.
    pub(super) fn batch(&mut self, first: u64, lines: u64, body: &[u8], accepted: &[u8]) {
        let mut answered = first;
        for line in body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            if line
                .windows(accepted.len().max(1))
                .any(|window| window == accepted)
            {
                self.acked.push(answered);
            } else {
                *self.refused.entry(LINE).or_default() += 1;
                self.error(|| String::from_utf8_lossy(line).into_owned());
            }
            answered += 1;
        }
        self.failed += (first + lines).saturating_sub(answered);
    }

    /// Whether all that was not acknowledged is single messages of requests that were, and something was: then
    /// the same again gets on.
    pub(crate) fn gets_on(&self) -> bool {
        self.failed == 0 && !self.acked.is_empty() && self.refused.keys().all(|of| *of == LINE)
    }

    /// Adds what another thread, or an earlier part of the run, saw. The window stays.
    pub(crate) fn merge(&mut self, part: Self) {
        self.acked.extend(part.acked);
        self.payload_bytes += part.payload_bytes;
        self.accepted += part.accepted;
        self.timeline.merge(&part.timeline);
        for (status, count) in part.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.failed += part.failed;
        self.retried += part.retried;
        self.without_id += part.without_id;
        self.latency.merge(&part.latency);
        self.cpu += part.cpu;
        self.first_error = self.first_error.take().or(part.first_error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_answers_are_counted_line_by_line() {
        let mut seen = Ingested::default();
        let body = b"{\"index\":0,\"status\":202,\"id\":\"msg_a\"}\n{\"index\":1,\"status\":422,\"detail\":[]}\n{\"index\":2,\"status\":202,\"id\":\"msg_b\"}\n";
        seen.batch(40, 4, body, b"\"status\":202");
        assert_eq!(seen.acked, [40, 42]);
        assert_eq!(seen.refused.get(&422), Some(&1));
        assert_eq!(seen.failed, 1, "the fourth line has no answer");
    }

    #[test]
    fn a_fill_goes_on_after_refused_lines_and_after_nothing_else() {
        let batch = |lines: &[u16], asked| {
            let mut seen = Ingested::default();
            let body: String = lines
                .iter()
                .map(|status| format!("{{\"status\":{status}}}\n"))
                .collect();
            seen.batch(0, asked, body.as_bytes(), b"\"status\":202");
            seen
        };
        assert!(batch(&[202, 202], 2).gets_on());
        assert!(batch(&[202, 503], 2).gets_on());
        assert!(!batch(&[503, 503], 2).gets_on(), "nothing was taken");
        assert!(!batch(&[202], 2).gets_on(), "a line without an answer");
        let mut whole = batch(&[202, 503], 2);
        whole.refused.insert(503, 100);
        assert!(!whole.gets_on(), "a request that was refused to its end");
    }
}
