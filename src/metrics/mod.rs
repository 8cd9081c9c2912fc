//! Every metric name in one list, with its help text, and the handles that components record with.
//!
//! Label sets are bounded: their values come from closed lists. `docs/OPERATIONS.md` shows the list; a
//! test keeps the two equal.

mod handles;

pub use handles::{
    BackupMetrics, CommitMetrics, ProcessMetrics, ScheduleMetrics, ServerMetrics, StoreMetrics,
};

/// A metric as `/metrics` shows it.
pub struct Metric {
    /// Name, with unit and `_total` as Prometheus wants them.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Help line.
    pub help: &'static str,
}

/// Prometheus types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets.
    Histogram,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident = $kind:ident $text:literal;)+) => {
        $($(#[doc = $help])+ pub const $name: &str = $text;)+

        /// All of them, in reading order: ingest, store, schedule, delivery, process.
        pub static ALL: &[Metric] = &[
            $(Metric { name: $text, kind: Kind::$kind, help: concat!($($help),+) }),+
        ];
    };
}

metrics! {
    /// Messages accepted (202 sent).
    INGEST_MESSAGES = Counter "posthaste_ingest_messages_total";
    /// Payload bytes of accepted messages.
    INGEST_BYTES = Counter "posthaste_ingest_bytes_total";
    /// Ingest requests refused, by `reason` (the problem code).
    INGEST_REFUSED = Counter "posthaste_ingest_refused_total";
    /// Requests answered from a stored idempotent answer.
    INGEST_REPLAYED = Counter "posthaste_ingest_replayed_total";
    /// Accepted messages that no endpoint wanted.
    INGEST_UNMATCHED = Counter "posthaste_ingest_unmatched_total";
    /// Endpoints that did not get a message because of their payload filter, by `result`: `no`, or why the
    /// filter came to no answer (`missing`, `type`, `cost`, `payload`, `invalid`).
    INGEST_FILTERED = Counter "posthaste_ingest_filtered_total";
    /// Messages whose payload is not what the schema of its event type says, by `mode`: `warn` (accepted),
    /// `reject` (refused).
    INGEST_VIOLATIONS = Counter "posthaste_ingest_schema_violations_total";
    /// 1 while a soft watermark is passed.
    INGEST_WATERMARK = Gauge "posthaste_ingest_watermark";
    /// Requests of providers by `verdict`: `accepted`, `duplicate`, `handshake`.
    INBOUND = Counter "posthaste_inbound_requests_total";
    /// Requests of providers that were refused, by `reason`.
    INBOUND_REFUSED = Counter "posthaste_inbound_refused_total";
    /// Events in accepted requests of providers.
    INBOUND_EVENTS = Counter "posthaste_inbound_events_total";
    /// From handing a batch to the store to its fsync, seconds.
    COMMIT_SECONDS = Histogram "posthaste_commit_seconds";
    /// Messages in one group commit.
    COMMIT_MESSAGES = Histogram "posthaste_commit_messages";
    /// Messages waiting for the next commit.
    COMMIT_QUEUE = Gauge "posthaste_commit_queue";
    /// Bytes the store takes on disk.
    STORE_BYTES = Gauge "posthaste_store_bytes";
    /// Bytes left on the disk of the store.
    STORE_FREE_BYTES = Gauge "posthaste_store_free_bytes";
    /// How full the disk is: 0 = enough room, 1 = the soft watermark is passed, 2 = new messages are refused.
    STORE_WATERMARK = Gauge "posthaste_store_watermark";
    /// Journal files of the store.
    STORE_JOURNALS = Gauge "posthaste_store_journals";
    /// Bytes in journal files.
    STORE_JOURNAL_BYTES = Gauge "posthaste_store_journal_bytes";
    /// Payloads that came to the time their sender named, by `result`: `taken_away`, `put_off` (still being
    /// delivered; looked at again later).
    PAYLOADS_ENDED = Counter "posthaste_payloads_ended_total";
    /// For how long a backup held up commits, seconds.
    BACKUP_PAUSE = Histogram "posthaste_backup_pause_seconds";
    /// Backups by `result`: `finished`, `failed`.
    BACKUPS = Counter "posthaste_backups_total";
    /// Age of the newest complete backup in `storage.backup_dir`, seconds; infinite if there is none.
    BACKUP_AGE = Gauge "posthaste_backup_age_seconds";
    /// Deliveries not finished: in memory and parked.
    PENDING = Gauge "posthaste_deliveries_pending";
    /// Deliveries held in memory.
    IN_MEMORY = Gauge "posthaste_deliveries_in_memory";
    /// Deliveries parked in the store.
    PARKED = Gauge "posthaste_deliveries_parked";
    /// Attempts under way.
    IN_FLIGHT = Gauge "posthaste_deliveries_in_flight";
    /// Age of the oldest delivery that could start now, seconds.
    OLDEST_PENDING = Gauge "posthaste_oldest_pending_seconds";
    /// Finished attempts by `class`: `2xx` or a failure kind.
    ATTEMPTS = Counter "posthaste_attempts_total";
    /// From accepting a message to the end of its successful delivery, seconds.
    DELIVERY_SECONDS = Histogram "posthaste_delivery_seconds";
    /// Duration of attempts, seconds.
    ATTEMPT_SECONDS = Histogram "posthaste_attempt_seconds";
    /// Deliveries that came to their end, by `state`: `delivered`, `dead`, `cancelled`,
    /// `superseded`.
    FINISHED = Counter "posthaste_deliveries_finished_total";
    /// Endpoints switched off, by `reason`: `manual`, `gone`, `failing`.
    DISABLED = Counter "posthaste_endpoints_disabled_total";
    /// Open incoming connections.
    CONNECTIONS_IN = Gauge "posthaste_connections_in";
    /// Requests refused, or connections closed, before a route saw anything, by `reason`: `framing`,
    /// `headers`, `flood`.
    REFUSED_IN = Counter "posthaste_connections_refused_total";
    /// Open outgoing connections.
    CONNECTIONS_OUT = Gauge "posthaste_connections_out";
    /// Answered requests of the API by `class` (`2xx`, `4xx`, `5xx`).
    HTTP_REQUESTS = Counter "posthaste_http_requests_total";
    /// Answered requests of the API by `method`, `route` (as the description writes it) and `status`. Single
    /// messages are counted by `posthaste_ingest_*` alone.
    API_REQUESTS = Counter "posthaste_api_requests_total";
    /// From the head of such a request to its answer, by `method` and `route`, seconds.
    API_SECONDS = Histogram "posthaste_api_seconds";
    /// Panics caught.
    PANICS = Counter "posthaste_panics_total";
    /// Version of the binary, always 1, with label `version`.
    BUILD_INFO = Gauge "posthaste_build_info";
}
