//! Handles of the ingest metrics, looked up once.

use ::metrics::{Counter, Gauge, counter, gauge};

use super::{Refused, Warning};
use crate::expression::FailureKind;
use crate::metrics;
use crate::model::{Message, PayloadValidation};
use crate::policy::filter::Narrowed;

pub(super) struct Meters {
    messages: Counter,
    bytes: Counter,
    unmatched: Counter,
    replayed: Counter,
    watermark: Gauge,
    violated: [Counter; 2],
    filtered: Counter,
    filter_failed: [Counter; FailureKind::ALL.len()],
    refused: [Counter; Refused::REASONS.len()],
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            messages: counter!(metrics::INGEST_MESSAGES),
            bytes: counter!(metrics::INGEST_BYTES),
            unmatched: counter!(metrics::INGEST_UNMATCHED),
            replayed: counter!(metrics::INGEST_REPLAYED),
            watermark: gauge!(metrics::INGEST_WATERMARK),
            violated: ["warn", "reject"]
                .map(|mode| counter!(metrics::INGEST_VIOLATIONS, "mode" => mode)),
            filtered: counter!(metrics::INGEST_FILTERED, "result" => "no"),
            filter_failed: FailureKind::ALL
                .map(|kind| counter!(metrics::INGEST_FILTERED, "result" => kind.name())),
            refused: Refused::REASONS
                .map(|reason| counter!(metrics::INGEST_REFUSED, "reason" => reason)),
        }
    }
}

impl Meters {
    pub(super) fn accepted(&self, message: &Message) {
        self.messages.increment(1);
        let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        self.bytes.increment(bytes);
        if message.targets.is_empty() {
            self.unmatched.increment(1);
        }
    }

    pub(super) fn violated(&self, mode: PayloadValidation) {
        let [warned, refused] = &self.violated;
        match mode {
            PayloadValidation::Off => {}
            PayloadValidation::Warn => warned.increment(1),
            PayloadValidation::Reject => refused.increment(1),
        }
    }

    pub(super) fn filtered(&self, narrowed: &Narrowed) {
        self.filtered.increment(u64::from(narrowed.left_out));
        for (counter, count) in self.filter_failed.iter().zip(narrowed.failed) {
            counter.increment(u64::from(count));
        }
    }

    pub(super) fn replayed(&self) {
        self.replayed.increment(1);
    }

    pub(super) fn refused(&self, refused: &Refused) {
        let reason = refused.reason();
        let place = Refused::REASONS.iter().position(|known| *known == reason);
        if let Some(counter) = place.and_then(|place| self.refused.get(place)) {
            counter.increment(1);
        }
    }

    pub(super) fn watermark(&self, warning: Option<&Warning>) {
        self.watermark
            .set(if warning.is_some() { 1.0 } else { 0.0 });
    }
}
