//! Registered handles, so that hot paths never look a name up. Components whose label values are
//! their own (ingest, deliver, api) register theirs beside those values.
//!
//! Build them after the recorder is installed (`telemetry::metrics::install`): before that, they
//! record nothing. Each constructor registers every label value, so all series exist from the start
//! with 0 and label sets are bounded by what is written here. Cloning shares the series.

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::model::{DeliveryState, DisableReason};

/// What the commit thread measures.
#[derive(Clone)]
pub struct CommitMetrics {
    /// From handing a batch to the store to its fsync, seconds.
    pub seconds: Histogram,
    /// Messages in one group commit.
    pub messages: Histogram,
    /// Messages waiting for the next commit.
    pub queue: Gauge,
}

impl CommitMetrics {
    /// Registers all series.
    pub fn register() -> Self {
        Self {
            seconds: histogram!(super::COMMIT_SECONDS),
            messages: histogram!(super::COMMIT_MESSAGES),
            queue: gauge!(super::COMMIT_QUEUE),
        }
    }
}

/// Size of the store.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Bytes it takes on disk.
    pub bytes: Gauge,
    /// Bytes left on its disk.
    pub free_bytes: Gauge,
    /// How full the disk is, 0 to 2.
    pub watermark: Gauge,
    /// Journal files.
    pub journals: Gauge,
    /// Bytes in them.
    pub journal_bytes: Gauge,
}

impl StoreMetrics {
    /// Registers all series.
    pub fn register() -> Self {
        Self {
            bytes: gauge!(super::STORE_BYTES),
            free_bytes: gauge!(super::STORE_FREE_BYTES),
            watermark: gauge!(super::STORE_WATERMARK),
            journals: gauge!(super::STORE_JOURNALS),
            journal_bytes: gauge!(super::STORE_JOURNAL_BYTES),
        }
    }
}

/// What becomes of backups.
#[derive(Clone)]
pub struct BackupMetrics {
    /// For how long one held up commits, seconds.
    pub pause: Histogram,
    /// Complete ones.
    pub finished: Counter,
    /// Begun, and not completed.
    pub failed: Counter,
    /// Age of the newest complete one, seconds.
    pub age: Gauge,
}

impl BackupMetrics {
    /// Registers all series.
    pub fn register() -> Self {
        let age = gauge!(super::BACKUP_AGE);
        age.set(f64::INFINITY);
        Self {
            pause: histogram!(super::BACKUP_PAUSE),
            finished: counter!(super::BACKUPS, "result" => "finished"),
            failed: counter!(super::BACKUPS, "result" => "failed"),
            age,
        }
    }
}

/// What the scheduler knows.
#[derive(Clone)]
pub struct ScheduleMetrics {
    /// Deliveries not finished: in memory and parked.
    pub pending: Gauge,
    /// Deliveries held in memory.
    pub in_memory: Gauge,
    /// Deliveries parked in the store.
    pub parked: Gauge,
    /// Attempts under way.
    pub in_flight: Gauge,
    /// Age of the oldest delivery that could start now, seconds.
    pub oldest_pending: Gauge,
    delivered: Counter,
    dead: Counter,
    cancelled: Counter,
    superseded: Counter,
    disabled: [Counter; 3],
}

impl ScheduleMetrics {
    /// Registers all series.
    pub fn register() -> Self {
        let finished = |state: DeliveryState| counter!(super::FINISHED, "state" => state.name());
        Self {
            pending: gauge!(super::PENDING),
            in_memory: gauge!(super::IN_MEMORY),
            parked: gauge!(super::PARKED),
            in_flight: gauge!(super::IN_FLIGHT),
            oldest_pending: gauge!(super::OLDEST_PENDING),
            delivered: finished(DeliveryState::Delivered),
            dead: finished(DeliveryState::Dead),
            cancelled: finished(DeliveryState::Cancelled),
            superseded: finished(DeliveryState::Superseded),
            disabled: ["manual", "gone", "failing"]
                .map(|reason| counter!(super::DISABLED, "reason" => reason)),
        }
    }

    /// The counter of deliveries that ended in this state; `None` for states that are no end.
    pub const fn finished(&self, state: DeliveryState) -> Option<&Counter> {
        match state {
            DeliveryState::Delivered => Some(&self.delivered),
            DeliveryState::Dead => Some(&self.dead),
            DeliveryState::Cancelled => Some(&self.cancelled),
            DeliveryState::Superseded => Some(&self.superseded),
            DeliveryState::Pending
            | DeliveryState::Sending
            | DeliveryState::Retrying
            | DeliveryState::Held => None,
        }
    }

    /// The counter of endpoints switched off for this reason.
    pub const fn disabled(&self, reason: DisableReason) -> &Counter {
        let [manual, gone, failing] = &self.disabled;
        match reason {
            DisableReason::Manual => manual,
            DisableReason::Gone => gone,
            DisableReason::Failing => failing,
        }
    }
}

/// What the incoming side counts.
#[derive(Clone)]
pub struct ServerMetrics {
    /// Open incoming connections.
    pub connections: Gauge,
    /// Requests that two parsers could read differently.
    pub bad_framing: Counter,
    /// Requests with too many header lines.
    pub too_many_headers: Counter,
    /// HTTP/2 connections that sent frames and asked for nothing.
    pub floods: Counter,
}

impl ServerMetrics {
    /// Registers all series.
    pub fn register() -> Self {
        Self {
            connections: gauge!(super::CONNECTIONS_IN),
            bad_framing: counter!(super::REFUSED_IN, "reason" => "framing"),
            too_many_headers: counter!(super::REFUSED_IN, "reason" => "headers"),
            floods: counter!(super::REFUSED_IN, "reason" => "flood"),
        }
    }
}

/// What concerns the process as a whole.
#[derive(Clone)]
pub struct ProcessMetrics {
    /// Panics caught.
    pub panics: Counter,
}

impl ProcessMetrics {
    /// Registers all series and states the version.
    pub fn register() -> Self {
        gauge!(super::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self {
            panics: counter!(super::PANICS),
        }
    }
}
