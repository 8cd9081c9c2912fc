//! What can be set, and what it is when it is not set.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::ByteSize;
use crate::model::DisablePolicy;
use crate::policy::own::PublicUrl;

/// Everything, one field per section of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[storage]`
    pub storage: Storage,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[inbound]`
    pub inbound: Inbound,
    /// `[delivery]`
    pub delivery: Delivery,
    /// `[providers]`
    pub providers: Providers,
    /// `[event_types]`
    pub event_types: EventTypes,
    /// `[retention]`
    pub retention: Retention,
    /// `[vault]`
    pub vault: Vault,
    /// `[log]`
    pub log: Log,
}

/// The incoming side.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Where the API listens. Ignored for sockets handed over by the service manager.
    pub listen: SocketAddr,
    /// A listener of its own for `/metrics`, `/health` and `/ready` without a credential. Without
    /// it `/metrics` on the API listener wants a key with scope `read`.
    pub metrics_listen: Option<SocketAddr>,
    /// Where the gateway is reached from outside, by any name: endpoints there are refused, or its
    /// messages would go in circles. Its listeners and the machine's addresses are known anyway.
    pub public_urls: Vec<PublicUrl>,
    /// Proxies whose `X-Forwarded-For` is believed; nobody's is by default.
    pub trusted_proxies: Vec<IpNet>,
    /// PEM certificate chain; TLS is on when both files are named. Read again on SIGHUP.
    pub tls_cert: Option<PathBuf>,
    /// PEM private key.
    pub tls_key: Option<PathBuf>,
    /// Open connections at most; further ones wait in the listen backlog.
    pub max_connections: usize,
    /// Time for a request's head to arrive.
    pub header_timeout: Duration,
    /// Time for a request's body to arrive.
    pub body_timeout: Duration,
    /// An idle keep-alive connection is closed after this.
    pub idle_timeout: Duration,
    /// From SIGTERM to the end: running attempts may finish within it.
    pub drain_timeout: Duration,
    /// Worker threads of the async runtime; 0 = one per core.
    pub worker_threads: usize,
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Data directory; made if absent.
    pub dir: PathBuf,
    /// Block cache of the store.
    pub cache: ByteSize,
    /// Memory table of each key space; larger ones stall longer when they are flushed.
    pub memtable: ByteSize,
    /// Journals above this are flushed away; bounds the time to open.
    pub max_journal: ByteSize,
    /// Ingest is refused (507) when the disk has less than this left; deliveries go on.
    pub reserve: ByteSize,
    /// Bytes that the store may take; 0 = as much as there is. Above it new messages are refused.
    pub budget: ByteSize,
    /// When the independent high-water mark is written.
    pub high_water: HighWater,
    /// Where the running gateway may write backups; without it `posthaste backup` works on a stopped
    /// gateway only.
    pub backup_dir: Option<PathBuf>,
    /// Table files are read and summed before the store is opened, the newest first, until this
    /// much is read. Manifests and journals always are.
    pub verify_at_start: ByteSize,
}

/// How often the high-water mark is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HighWater {
    /// At most once a second; a shortened log goes unnoticed for acknowledgements of the last second.
    Interval,
    /// With every commit, for a second fdatasync per group.
    EveryCommit,
}

/// Limits of what is taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingest {
    /// Largest payload of one message.
    pub max_body: ByteSize,
    /// Largest body of one NDJSON batch.
    pub max_batch_body: ByteSize,
    /// Lines of one NDJSON batch.
    pub max_batch_lines: usize,
    /// Nesting of a JSON body.
    pub max_json_depth: usize,
    /// Deliveries not yet finished, in all; above it every ingest answers 503.
    pub max_pending: u64,
    /// Payload bytes of those deliveries, in all.
    pub max_pending_bytes: ByteSize,
    /// The same for one application.
    pub max_pending_per_app: u64,
    /// The same for one application.
    pub max_pending_bytes_per_app: ByteSize,
    /// From this share of a limit on, answers carry a warning header. 0.0 to 1.0.
    pub soft_watermark: f64,
    /// Messages waiting for the next commit; above it 503 at once.
    pub queue: usize,
    /// Bytes waiting for the next commit.
    pub queue_bytes: ByteSize,
    /// Messages of one group commit at most.
    pub max_group: usize,
}

/// What providers send in.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Largest body of one request.
    pub max_body: ByteSize,
    /// Requests per second of one source that does not say otherwise; a burst is one second's worth.
    pub rate_per_second: u16,
    /// Events of one request at most.
    pub max_events: usize,
    /// Receipts kept of each source, in memory.
    pub receipts: usize,
    /// So many refusals of a source without an accepted request between them are told to the operator.
    pub failures: u64,
}

/// Encryption of secrets at rest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vault {
    /// The file of master keys; `None` = beside the data directory. Made at the first start.
    pub key_file: Option<PathBuf>,
}

/// The outgoing side.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Networks the address guard lets through although they are not public. Plain http is allowed
    /// into them as well.
    pub allow_networks: Vec<IpNet>,
    /// Ports that are never called, beside the fixed rule (80, 443, 1024 to 65535).
    pub deny_ports: Vec<u16>,
    /// Whether endpoints outside `allow_networks` may be plain http.
    pub allow_http: bool,
    /// One attempt, from connect to the last byte of the answer.
    pub timeout: Duration,
    /// The connect share of it (name, TCP, TLS).
    pub connect_timeout: Duration,
    /// Attempts of one endpoint at the same time, unless the endpoint says otherwise.
    pub endpoint_concurrency: u16,
    /// Attempts at the same time in all.
    pub max_in_flight: usize,
    /// Idle connections kept for the next attempt, to all endpoints together; fewer if the system
    /// grants fewer open files ([`Config::idle_connections`]).
    pub max_idle_connections: usize,
    /// Deliveries held in memory at most; the rest waits in the store.
    pub max_in_memory: usize,
    /// Name of a schedule or a list of delays in seconds.
    pub retry_schedule: Vec<Duration>,
    /// Delays are multiplied by a random factor of 1 - jitter to 1 + jitter. 0.0 to 0.5.
    pub jitter: f64,
    /// Upper bound of what `Retry-After` may ask for.
    pub max_retry_after: Duration,
    /// When failing endpoints are switched off.
    pub disable: DisablePolicy,
    /// Name of the signature profile of endpoints that name none: `standard`, `dual` or a preset.
    pub signature: String,
    /// Named signature profiles, as JSON objects of the API (`api.md` section 6).
    pub signature_presets: BTreeMap<String, serde_json::Value>,
    /// Whether application keys see `blocked_address` as such (instance keys always do).
    pub show_blocked_addresses: bool,
}

/// Providers whose webhooks are received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Providers {
    /// A directory of manifests, `ID.toml` each, that override or add. Read at the start; a mistake in
    /// it stops the start (78).
    pub manifests: Option<PathBuf>,
}

/// Catalogues of event types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypes {
    /// Names of catalogues whose types are added at the start if they do not exist.
    pub catalogs: Vec<String>,
    /// A directory of catalogues, `NAME.toml` each, that replace those of the product or add to them. A
    /// mistake in it stops the start (78).
    pub catalogs_dir: Option<PathBuf>,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// Messages with their payloads.
    pub messages: Duration,
    /// What is kept of the answers to attempts.
    pub attempt_bodies: Duration,
    /// Records of attempts. Not shorter than `messages`: the state of a delivery is told from them.
    pub attempts: Duration,
    /// Stored answers of `Idempotency-Key`.
    pub idempotency: Duration,
}

impl Retention {
    /// How long records of attempts are kept; never shorter than messages, whoever made this.
    pub fn of_attempts(&self) -> Duration {
        self.attempts.max(self.messages)
    }

    /// How long the answers to attempts are shown; never longer than their records.
    pub fn of_bodies(&self) -> Duration {
        self.attempt_bodies.min(self.of_attempts())
    }
}

/// What is logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `human` or `json`.
    pub format: LogFormat,
    /// A level (`info`) or directives (`info,posthaste::deliver=debug`).
    pub level: String,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8071)),
            metrics_listen: None,
            public_urls: Vec::new(),
            trusted_proxies: Vec::new(),
            tls_cert: None,
            tls_key: None,
            max_connections: 4096,
            header_timeout: secs(5),
            body_timeout: secs(30),
            idle_timeout: secs(60),
            drain_timeout: secs(25),
            worker_threads: 0,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("./data"),
            cache: ByteSize::mib(32),
            memtable: ByteSize::mib(16),
            max_journal: ByteSize::mib(256),
            reserve: ByteSize::mib(512),
            budget: ByteSize::mib(0),
            high_water: HighWater::Interval,
            backup_dir: None,
            verify_at_start: ByteSize::mib(256),
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            max_body: ByteSize::kib(256),
            max_batch_body: ByteSize::mib(16),
            max_batch_lines: 10_000,
            max_json_depth: 64,
            max_pending: 10_000_000,
            max_pending_bytes: ByteSize::mib(16 * 1024),
            max_pending_per_app: 5_000_000,
            max_pending_bytes_per_app: ByteSize::mib(8 * 1024),
            soft_watermark: 0.8,
            queue: 8192,
            queue_bytes: ByteSize::mib(64),
            max_group: 1024,
        }
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            max_body: ByteSize::mib(1),
            rate_per_second: 100,
            max_events: 5000,
            receipts: 100,
            failures: 10,
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            deny_ports: Vec::new(),
            allow_http: false,
            timeout: secs(15),
            connect_timeout: secs(5),
            endpoint_concurrency: 10,
            max_in_flight: 1024,
            max_idle_connections: 16_384,
            max_in_memory: 200_000,
            retry_schedule: [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
                .map(secs)
                .to_vec(),
            jitter: 0.2,
            max_retry_after: secs(86_400),
            disable: DisablePolicy::Duration {
                failing_secs: 5 * 86_400,
                span_secs: 12 * 3600,
            },
            signature: String::from("standard"),
            signature_presets: BTreeMap::new(),
            show_blocked_addresses: false,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            messages: secs(90 * 86_400),
            attempt_bodies: secs(7 * 86_400),
            attempts: secs(90 * 86_400),
            idempotency: secs(86_400),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: String::from("info"),
        }
    }
}
