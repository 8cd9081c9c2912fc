//! Every key: where it lives, what it takes, and which range it has.
//!
//! One table serves file, environment, printed result, documentation and suggestions for mistyped names.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::duration;
use super::sections::{Config, HighWater, LogFormat};
use super::value::{Raw, schedule_name};
use crate::base::ByteSize;
use crate::model::DisablePolicy;
use crate::policy::own::PublicUrl;
use crate::policy::retry::SCHEDULES;

/// A configuration under way: the policy for failing endpoints is still in its single keys.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) disable: DisableWord,
    pub(super) disable_after: Duration,
    pub(super) disable_span: Duration,
    pub(super) disable_failures: u64,
}

/// The value of `delivery.disable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DisableWord {
    Duration,
    Consecutive,
    Never,
}

impl Draft {
    /// The draft that leads to `config`; numbers of policies that it does not use are defaults.
    pub(super) fn of(config: &Config) -> Self {
        let mut draft = Self {
            config: config.clone(),
            disable: DisableWord::Never,
            disable_after: Duration::from_secs(5 * 86_400),
            disable_span: Duration::from_secs(12 * 3600),
            disable_failures: 10,
        };
        match config.delivery.disable {
            DisablePolicy::Duration {
                failing_secs,
                span_secs,
            } => {
                draft.disable = DisableWord::Duration;
                draft.disable_after = Duration::from_secs(failing_secs);
                draft.disable_span = Duration::from_secs(span_secs);
            }
            DisablePolicy::Consecutive { failures } => {
                draft.disable = DisableWord::Consecutive;
                draft.disable_failures = u64::from(failures);
            }
            DisablePolicy::Never => {}
        }
        draft
    }

    /// Puts the policy together.
    pub(super) fn finish(self) -> Config {
        let mut config = self.config;
        config.delivery.disable = match self.disable {
            DisableWord::Duration => DisablePolicy::Duration {
                failing_secs: self.disable_after.as_secs(),
                span_secs: self.disable_span.as_secs(),
            },
            DisableWord::Consecutive => DisablePolicy::Consecutive {
                failures: u32::try_from(self.disable_failures).unwrap_or(u32::MAX),
            },
            DisableWord::Never => DisablePolicy::Never,
        };
        config
    }
}

type Get<T> = fn(&mut Draft) -> &mut T;

/// What a key takes, and where it is kept.
pub(super) enum Slot {
    Address(Get<SocketAddr>),
    OptionalAddress(Get<Option<SocketAddr>>),
    Path(Get<PathBuf>),
    OptionalPath(Get<Option<PathBuf>>),
    Count(Get<usize>, RangeInclusive<u64>),
    Number(Get<u64>, RangeInclusive<u64>),
    Small(Get<u16>, RangeInclusive<u64>),
    Share(Get<f64>, RangeInclusive<f64>),
    Time(Get<Duration>, RangeInclusive<Duration>),
    Size(Get<ByteSize>, RangeInclusive<ByteSize>),
    Flag(Get<bool>),
    Text(Get<String>),
    Networks(Get<Vec<IpNet>>),
    Urls(Get<Vec<PublicUrl>>),
    Ports(Get<Vec<u16>>),
    Schedule(Get<Vec<Duration>>),
    HighWater(Get<HighWater>),
    LogFormat(Get<LogFormat>),
    Disable(Get<DisableWord>),
    Presets,
}

const HIGH_WATER: &[(&str, HighWater)] = &[
    ("interval", HighWater::Interval),
    ("every-commit", HighWater::EveryCommit),
];
const LOG_FORMAT: &[(&str, LogFormat)] = &[("human", LogFormat::Human), ("json", LogFormat::Json)];
const DISABLE: &[(&str, DisableWord)] = &[
    ("duration", DisableWord::Duration),
    ("consecutive", DisableWord::Consecutive),
    ("never", DisableWord::Never),
];

/// One key of one section.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) slot: Slot,
}

impl Key {
    /// `section.name`
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `POSTHASTE__SECTION__NAME`
    pub(super) fn variable(&self) -> String {
        format!("POSTHASTE__{}__{}", self.section, self.name).to_uppercase()
    }

    /// Reads `raw` into the draft. The error says what is wrong with the value.
    pub(super) fn set(&self, draft: &mut Draft, raw: &Raw) -> Result<(), String> {
        let unset = matches!(raw, Raw::Plain(text) if text.trim().is_empty());
        match &self.slot {
            Slot::Address(at) => *at(draft) = raw.parsed(ADDRESS)?,
            Slot::OptionalAddress(at) if unset => *at(draft) = None,
            Slot::OptionalAddress(at) => *at(draft) = Some(raw.parsed(ADDRESS)?),
            Slot::Path(at) => *at(draft) = raw.path()?,
            Slot::OptionalPath(at) if unset => *at(draft) = None,
            Slot::OptionalPath(at) => *at(draft) = Some(raw.path()?),
            Slot::Count(at, range) => {
                *at(draft) = usize::try_from(raw.whole(range)?).unwrap_or(usize::MAX);
            }
            Slot::Number(at, range) => *at(draft) = raw.whole(range)?,
            Slot::Small(at, range) => {
                *at(draft) = u16::try_from(raw.whole(range)?).unwrap_or(u16::MAX);
            }
            Slot::Share(at, range) => *at(draft) = raw.real(range)?,
            Slot::Time(at, range) => *at(draft) = raw.time(range)?,
            Slot::Size(at, range) => *at(draft) = raw.size(range)?,
            Slot::Flag(at) => *at(draft) = raw.flag()?,
            Slot::Text(at) => raw.text()?.trim().clone_into(at(draft)),
            Slot::Networks(at) => {
                let one = |item: &Raw| item.parsed("a network such as 10.0.0.0/8");
                *at(draft) = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
            }
            Slot::Urls(at) => {
                let one = |item: &Raw| item.parsed("a URL such as https://hooks.example.com");
                *at(draft) = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
            }
            Slot::Ports(at) => {
                let one = |item: &Raw| item.whole(&(1..=65_535));
                let ports: Vec<u64> = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
                *at(draft) = ports
                    .into_iter()
                    .filter_map(|n| n.try_into().ok())
                    .collect();
            }
            Slot::Schedule(at) => *at(draft) = raw.schedule()?,
            Slot::HighWater(at) => *at(draft) = raw.word(HIGH_WATER)?,
            Slot::LogFormat(at) => *at(draft) = raw.word(LOG_FORMAT)?,
            Slot::Disable(at) => *at(draft) = raw.word(DISABLE)?,
            Slot::Presets => {
                let serde_json::Value::Object(presets) = raw.json()? else {
                    return Err(String::from("want a table of named profiles"));
                };
                draft.config.delivery.signature_presets = presets.into_iter().collect();
            }
        }
        Ok(())
    }

    /// The value as TOML; `None` = not set.
    pub(super) fn show(&self, draft: &Draft) -> Option<String> {
        let draft = &mut draft.clone();
        Some(match &self.slot {
            Slot::Address(at) => quoted(*at(draft)),
            Slot::OptionalAddress(at) => quoted((*at(draft))?),
            Slot::Path(at) => quoted(at(draft).display()),
            Slot::OptionalPath(at) => quoted(at(draft).as_ref()?.display()),
            Slot::Count(at, _) => at(draft).to_string(),
            Slot::Number(at, _) => at(draft).to_string(),
            Slot::Small(at, _) => at(draft).to_string(),
            Slot::Share(at, _) => format!("{:?}", at(draft)),
            Slot::Time(at, _) => quoted(duration::show(*at(draft))),
            Slot::Size(at, _) => quoted(*at(draft)),
            Slot::Flag(at) => at(draft).to_string(),
            Slot::Text(at) => quoted(&*at(draft)),
            Slot::Networks(at) => listed(at(draft).iter().map(quoted)),
            Slot::Urls(at) => listed(at(draft).iter().map(quoted)),
            Slot::Ports(at) => listed(at(draft).iter().map(ToString::to_string)),
            Slot::Schedule(at) => {
                let delays = at(draft);
                schedule_name(delays).map_or_else(
                    || listed(delays.iter().map(|delay| quoted(duration::show(*delay)))),
                    quoted,
                )
            }
            Slot::HighWater(at) => quoted(name_in(HIGH_WATER, *at(draft))),
            Slot::LogFormat(at) => quoted(name_in(LOG_FORMAT, *at(draft))),
            Slot::Disable(at) => quoted(name_in(DISABLE, *at(draft))),
            Slot::Presets => return None, // tables, shown behind their section
        })
    }

    /// What it takes, in words, for the documentation.
    pub(super) fn takes(&self) -> String {
        match &self.slot {
            Slot::Address(_) => String::from(ADDRESS),
            Slot::OptionalAddress(_) => format!("{ADDRESS}, or absent"),
            Slot::Path(_) => String::from("a path"),
            Slot::OptionalPath(_) => String::from("a path, or absent"),
            Slot::Count(_, range) | Slot::Number(_, range) | Slot::Small(_, range) => {
                format!("{} to {}", range.start(), range.end())
            }
            Slot::Share(_, range) => format!("{:?} to {:?}", range.start(), range.end()),
            Slot::Time(_, range) => format!(
                "{} to {}",
                duration::show(*range.start()),
                duration::show(*range.end())
            ),
            Slot::Size(_, range) => format!("{} to {}", range.start(), range.end()),
            Slot::Flag(_) => String::from("true, false"),
            Slot::Text(_) => String::from("text"),
            Slot::Networks(_) => String::from("a list of networks"),
            Slot::Urls(_) => String::from("a list of URLs"),
            Slot::Ports(_) => String::from("a list of ports"),
            Slot::Schedule(_) => {
                let names: Vec<_> = SCHEDULES.iter().map(|(name, _)| *name).collect();
                format!("{}, or a list of delays", names.join(", "))
            }
            Slot::HighWater(_) => words(HIGH_WATER),
            Slot::LogFormat(_) => words(LOG_FORMAT),
            Slot::Disable(_) => words(DISABLE),
            Slot::Presets => String::from("tables of signature profiles"),
        }
    }
}

const ADDRESS: &str = "an address with port such as 127.0.0.1:8071";

fn quoted(text: impl std::fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn listed(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn words<T>(words: &[(&str, T)]) -> String {
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    names.join(", ")
}

fn name_in<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let known = words.iter().find(|(_, meaning)| *meaning == value);
    known.map_or("", |(word, _)| word)
}

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
        "retention",
        "messages",
        Slot::Time(
            |d| &mut d.config.retention.messages,
            secs(3600)..=secs(3650 * DAY),
        ),
    ),
    key(
        "retention",
        "idempotency",
        Slot::Time(
            |d| &mut d.config.retention.idempotency,
            secs(60)..=secs(30 * DAY),
        ),
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
