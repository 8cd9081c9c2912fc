//! The table of keys: one entry each, by section, in the order of `config/default.toml`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::keys::{Key, Slot};
use crate::base::ByteSize;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const DAY: u64 = 86_400;
const TIB: u64 = 1024 * 1024;
const UP_TO_TIB: RangeInclusive<ByteSize> = ByteSize::bytes(0)..=ByteSize::mib(TIB);

const fn key(section: &'static str, name: &'static str, slot: Slot) -> Key {
    Key {
        section,
        name,
        slot,
    }
}

/// All keys, by section, in the order of `config/default.toml`.
pub(super) static KEYS: &[Key] = &[
    key(
        "server",
        "listen",
        Slot::Address(|d| &mut d.config.server.listen),
    ),
    key(
        "server",
        "metrics_listen",
        Slot::OptionalAddress(|d| &mut d.config.server.metrics_listen),
    ),
    key(
        "server",
        "public_urls",
        Slot::Urls(|d| &mut d.config.server.public_urls),
    ),
    key(
        "server",
        "trusted_proxies",
        Slot::Networks(|d| &mut d.config.server.trusted_proxies),
    ),
    key(
        "server",
        "tls_cert",
        Slot::OptionalPath(|d| &mut d.config.server.tls_cert),
    ),
    key(
        "server",
        "tls_key",
        Slot::OptionalPath(|d| &mut d.config.server.tls_key),
    ),
    key(
        "server",
        "max_connections",
        Slot::Count(|d| &mut d.config.server.max_connections, 1..=1_000_000),
    ),
    key(
        "server",
        "header_timeout",
        Slot::Time(|d| &mut d.config.server.header_timeout, ms(100)..=secs(60)),
    ),
    key(
        "server",
        "body_timeout",
        Slot::Time(|d| &mut d.config.server.body_timeout, ms(100)..=secs(600)),
    ),
    key(
        "server",
        "idle_timeout",
        Slot::Time(|d| &mut d.config.server.idle_timeout, ms(100)..=secs(3600)),
    ),
    key(
        "server",
        "drain_timeout",
        Slot::Time(|d| &mut d.config.server.drain_timeout, ms(100)..=secs(600)),
    ),
    key(
        "server",
        "worker_threads",
        Slot::Count(|d| &mut d.config.server.worker_threads, 0..=1024),
    ),
    key("storage", "dir", Slot::Path(|d| &mut d.config.storage.dir)),
    key(
        "storage",
        "cache",
        Slot::Size(
            |d| &mut d.config.storage.cache,
            ByteSize::mib(1)..=ByteSize::mib(TIB),
        ),
    ),
    key(
        "storage",
        "memtable",
        Slot::Size(
            |d| &mut d.config.storage.memtable,
            ByteSize::mib(1)..=ByteSize::mib(1024),
        ),
    ),
    key(
        "storage",
        "max_journal",
        Slot::Size(
            |d| &mut d.config.storage.max_journal,
            ByteSize::mib(64)..=ByteSize::mib(65_536),
        ),
    ),
    key(
        "storage",
        "reserve",
        Slot::Size(|d| &mut d.config.storage.reserve, UP_TO_TIB),
    ),
    key(
        "storage",
        "budget",
        Slot::Size(|d| &mut d.config.storage.budget, UP_TO_TIB),
    ),
    key(
        "storage",
        "high_water",
        Slot::HighWater(|d| &mut d.config.storage.high_water),
    ),
    key(
        "storage",
        "backup_dir",
        Slot::OptionalPath(|d| &mut d.config.storage.backup_dir),
    ),
    key(
        "storage",
        "verify_at_start",
        Slot::Size(|d| &mut d.config.storage.verify_at_start, UP_TO_TIB),
    ),
    key(
        "ingest",
        "max_body",
        Slot::Size(
            |d| &mut d.config.ingest.max_body,
            ByteSize::kib(1)..=ByteSize::mib(1),
        ),
    ),
    key(
        "ingest",
        "max_batch_body",
        Slot::Size(
            |d| &mut d.config.ingest.max_batch_body,
            ByteSize::kib(1)..=ByteSize::mib(256),
        ),
    ),
    key(
        "ingest",
        "max_batch_lines",
        Slot::Count(|d| &mut d.config.ingest.max_batch_lines, 1..=1_000_000),
    ),
    key(
        "ingest",
        "max_json_depth",
        Slot::Count(|d| &mut d.config.ingest.max_json_depth, 4..=127),
    ),
    key(
        "ingest",
        "max_pending",
        Slot::Number(|d| &mut d.config.ingest.max_pending, 1..=10_000_000_000),
    ),
    key(
        "ingest",
        "max_pending_bytes",
        Slot::Size(
            |d| &mut d.config.ingest.max_pending_bytes,
            ByteSize::kib(1)..=ByteSize::mib(1024 * TIB),
        ),
    ),
    key(
        "ingest",
        "max_pending_per_app",
        Slot::Number(
            |d| &mut d.config.ingest.max_pending_per_app,
            1..=10_000_000_000,
        ),
    ),
    key(
        "ingest",
        "max_pending_bytes_per_app",
        Slot::Size(
            |d| &mut d.config.ingest.max_pending_bytes_per_app,
            ByteSize::kib(1)..=ByteSize::mib(1024 * TIB),
        ),
    ),
    key(
        "ingest",
        "soft_watermark",
        Slot::Share(|d| &mut d.config.ingest.soft_watermark, 0.0..=1.0),
    ),
    key(
        "ingest",
        "queue",
        Slot::Count(|d| &mut d.config.ingest.queue, 1..=1_000_000),
    ),
    key(
        "ingest",
        "queue_bytes",
        Slot::Size(
            |d| &mut d.config.ingest.queue_bytes,
            ByteSize::kib(1)..=ByteSize::mib(16_384),
        ),
    ),
    key(
        "ingest",
        "max_group",
        Slot::Count(|d| &mut d.config.ingest.max_group, 1..=65_536),
    ),
    key(
        "inbound",
        "max_body",
        Slot::Size(
            |d| &mut d.config.inbound.max_body,
            ByteSize::kib(1)..=ByteSize::mib(16),
        ),
    ),
    key(
        "inbound",
        "rate_per_second",
        Slot::Small(|d| &mut d.config.inbound.rate_per_second, 1..=65_535),
    ),
    key(
        "inbound",
        "max_events",
        Slot::Count(|d| &mut d.config.inbound.max_events, 1..=10_000),
    ),
    key(
        "inbound",
        "receipts",
        Slot::Count(|d| &mut d.config.inbound.receipts, 1..=1000),
    ),
    key(
        "inbound",
        "failures",
        Slot::Number(|d| &mut d.config.inbound.failures, 1..=1_000_000),
    ),
    key(
        "delivery",
        "allow_networks",
        Slot::Networks(|d| &mut d.config.delivery.allow_networks),
    ),
    key(
        "delivery",
        "deny_ports",
        Slot::Ports(|d| &mut d.config.delivery.deny_ports),
    ),
    key(
        "delivery",
        "allow_http",
        Slot::Flag(|d| &mut d.config.delivery.allow_http),
    ),
    key(
        "delivery",
        "timeout",
        Slot::Time(|d| &mut d.config.delivery.timeout, ms(100)..=secs(30)),
    ),
    key(
        "delivery",
        "connect_timeout",
        Slot::Time(
            |d| &mut d.config.delivery.connect_timeout,
            ms(50)..=secs(29),
        ),
    ),
    key(
        "delivery",
        "endpoint_concurrency",
        Slot::Small(|d| &mut d.config.delivery.endpoint_concurrency, 1..=1000),
    ),
    key(
        "delivery",
        "max_in_flight",
        Slot::Count(|d| &mut d.config.delivery.max_in_flight, 1..=100_000),
    ),
    key(
        "delivery",
        "max_idle_connections",
        Slot::Count(
            |d| &mut d.config.delivery.max_idle_connections,
            0..=1_000_000,
        ),
    ),
    key(
        "delivery",
        "max_in_memory",
        Slot::Count(|d| &mut d.config.delivery.max_in_memory, 1..=100_000_000),
    ),
    key(
        "delivery",
        "retry_schedule",
        Slot::Schedule(|d| &mut d.config.delivery.retry_schedule),
    ),
    key(
        "delivery",
        "jitter",
        Slot::Share(|d| &mut d.config.delivery.jitter, 0.0..=0.5),
    ),
    key(
        "delivery",
        "max_retry_after",
        Slot::Time(
            |d| &mut d.config.delivery.max_retry_after,
            secs(1)..=secs(7 * DAY),
        ),
    ),
    key("delivery", "disable", Slot::Disable(|d| &mut d.disable)),
    key(
        "delivery",
        "disable_after",
        Slot::Time(|d| &mut d.disable_after, secs(60)..=secs(90 * DAY)),
    ),
    key(
        "delivery",
        "disable_span",
        Slot::Time(|d| &mut d.disable_span, secs(0)..=secs(90 * DAY)),
    ),
    key(
        "delivery",
        "disable_failures",
        Slot::Number(|d| &mut d.disable_failures, 1..=1_000_000),
    ),
    key(
        "delivery",
        "signature",
        Slot::Text(|d| &mut d.config.delivery.signature),
    ),
    key("delivery", "signature_presets", Slot::Presets),
    key(
        "delivery",
        "show_blocked_addresses",
        Slot::Flag(|d| &mut d.config.delivery.show_blocked_addresses),
    ),
    key(
        "providers",
        "manifests",
        Slot::OptionalPath(|d| &mut d.config.providers.manifests),
    ),
    key(
        "event_types",
        "catalogs",
        Slot::Names(|d| &mut d.config.event_types.catalogs),
    ),
    key(
        "event_types",
        "catalogs_dir",
        Slot::OptionalPath(|d| &mut d.config.event_types.catalogs_dir),
    ),
    key(
        "retention",
        "messages",
        Slot::Time(
            |d| &mut d.config.retention.messages,
            secs(3600)..=secs(3650 * DAY),
        ),
    ),
    key(
        "retention",
        "attempt_bodies",
        Slot::Time(
            |d| &mut d.config.retention.attempt_bodies,
            secs(3600)..=secs(3650 * DAY),
        ),
    ),
    key(
        "retention",
        "attempts",
        Slot::Time(
            |d| &mut d.config.retention.attempts,
            secs(3600)..=secs(3650 * DAY),
        ),
    ),
    key(
        "retention",
        "idempotency",
        Slot::Time(
            |d| &mut d.config.retention.idempotency,
            secs(DAY)..=secs(30 * DAY),
        ),
    ),
    key(
        "vault",
        "key_file",
        Slot::OptionalPath(|d| &mut d.config.vault.key_file),
    ),
    key(
        "log",
        "format",
        Slot::LogFormat(|d| &mut d.config.log.format),
    ),
    key("log", "level", Slot::Text(|d| &mut d.config.log.level)),
];

/// The key at `section.name`.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.section == section && key.name == name)
}

/// Names of the sections, in order.
pub(super) fn sections() -> Vec<&'static str> {
    let mut names: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    names.dedup();
    names
}
