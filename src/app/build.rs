//! Builds the parts, bottom first, and connects them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::Request;
use rand::SeedableRng;
use rand::rngs::SysRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tower::Service;
use tracing::warn;

use super::Error;
use super::outgoing::Outgoing;
use crate::api;
use crate::auth::{Auth, Entropy};
use crate::backup::{self, Backups};
use crate::base::task::{self, OnExit, Stop, Tasks};
use crate::base::{Clock, SystemClock, Timestamp};
use crate::catalogs::Catalogs;
use crate::client::{Client, ClientOptions, SystemResolver};
use crate::config::Config;
use crate::dashboard;
use crate::deliver::{Defaults, Deliver};
use crate::directory::Directory;
use crate::inbound::{self, Inbound, KeysOverHttp};
use crate::ingest;
use crate::lane::{self, Lane};
use crate::metrics::ServerMetrics;
use crate::policy::own::Own;
use crate::policy::target::TargetRules;
use crate::providers::Catalogue;
use crate::schedule::core::{Core, Input, Settings};
use crate::schedule::{
    self, Announcer, Driver, Inbox, Parts, QuotaNews, Recovery, SourceNews, Status, StoreNews,
};
use crate::server::{self, Listeners, RequestBody, Server, Tls};
use crate::store::fjall::Store;
use crate::store::{self, ConfigKind, Reader, Writer as _};
use crate::telemetry::exposition::Exposition;
use crate::vault::{self, Vault};

/// Everything below the HTTP surface.
pub(super) struct Engine {
    pub(super) clock: Arc<SystemClock>,
    pub(super) lane: Lane,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) directory: Arc<Directory>,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) schedule: schedule::Handle,
    pub(super) status: watch::Receiver<Status>,
    pub(super) entropy: Arc<Entropy>,
    pub(super) rules: TargetRules,
    pub(super) backups: Arc<Backups>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) news: SourceNews,
    pub(super) quota_news: QuotaNews,
    pub(super) store_news: StoreNews,
    /// Taken by whoever waits for the recovery.
    pub(super) recovery: Option<RecoveryError>,
}

/// Returns if what was open cannot be read; never, once it is read. Cancel safe.
pub(super) async fn recovery_failure(recovery: Option<RecoveryError>) -> store::Error {
    match recovery {
        Some(failed) => match failed.await {
            Ok((cause, _held)) => cause,
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Binds the sockets first: a port that is taken must not cost a recovery.
pub(super) fn listeners(config: &Config) -> Result<Listeners, Error> {
    server::limits::open_files(config.open_files())?;
    Ok(Listeners::open(&config.server)?)
}

/// Where we are reached: never called (`reliability.md` S14).
pub(super) fn own(config: &Config, listeners: &Listeners) -> Own {
    let admin = listeners.admin.as_ref().map(server::Bound::address);
    Own {
        listeners: std::iter::once(listeners.ingest.address())
            .chain(admin)
            .collect(),
        machine: server::interfaces::addresses(),
        public_urls: config.server.public_urls.clone(),
    }
}

/// Store, lane, directory, scheduler.
pub(super) async fn engine(
    config: &Config,
    clock: &Arc<SystemClock>,
    (own, given): (Own, vault::Given),
    tasks: &Tasks,
    stop: &Stop,
) -> Result<Engine, Error> {
    let shared: Arc<dyn Clock> = clock.clone();
    let ((writer, reader), source, losses) = open_store(config, clock.now()).await?;
    let vault = vault(config, reader.as_ref(), given)?;
    // Groups on their way to the scheduler; see `Lane::start` for what happens when it is full.
    let (committed_to, committed) = mpsc::channel(64);
    let lane = lane(config, writer, &shared, committed_to)?;
    // Changed endpoints; when it is full the change that is already stored waits.
    let (changed_to, changed) = mpsc::channel(64);
    let directory = Arc::new(Directory::load(
        reader.as_ref(),
        lane.clone(),
        changed_to,
        vault,
    )?);

    let defaults = Defaults::of(&config.delivery, own)?;
    let rules = defaults.rules.clone();
    let (catalogue, catalogs) = (catalogue(config)?, catalogs(config)?);
    let outgoing = outgoing(config, defaults, (&directory, &catalogs), &shared)?;
    let (status_to, status) = watch::channel(Status::default());
    // Requests of the API; when it is full they wait a second and are refused.
    let (requests_to, requests) = mpsc::channel(256);
    let announcer = announcer((&lane, &directory, &shared), tasks, &losses);
    let backups = backups(config, source, &lane, &shared).await?;
    let news = announcer.source_news();
    let (quota_news, store_news) = (announcer.quota_news(), announcer.store_news());

    let (core, recovery) = begin(config, clock.now(), &reader, &directory)?;
    let (recovered, recovery_failed) = recover(recovery)?;
    let parts = Parts {
        attempts: Arc::clone(&outgoing),
        lane: lane.clone(),
        reader: Arc::clone(&reader),
        directory: Arc::clone(&directory),
        clock: Arc::clone(&shared),
        config: Arc::new(config.delivery.clone()),
        random: seeded()?,
        announcer,
    };
    let inbox = Inbox {
        committed,
        changed,
        requests,
        recovered,
    };
    let driver = Driver::new(core, parts, inbox, status_to);
    tasks.spawn("schedule", OnExit::StopNode, driver.run(stop.clone()));
    let (read, known) = (Arc::clone(&reader), Arc::clone(&directory));
    let schedule = schedule::Handle::new(requests_to, status.clone(), read, known);
    Ok(Engine {
        clock: Arc::clone(clock),
        lane,
        reader,
        directory,
        outgoing,
        schedule,
        status,
        entropy: Arc::new(Entropy::from_seed(system_bytes()?)),
        rules,
        backups,
        catalogue,
        catalogs,
        news,
        quota_news,
        store_news,
        recovery: Some(recovery_failed),
    })
}

/// Starts whoever writes operational events down; what was lost and accepted is told first.
fn announcer(
    (lane, directory, clock): (&Lane, &Arc<Directory>, &Arc<dyn Clock>),
    tasks: &Tasks,
    losses: &[store::AcceptedLoss],
) -> Announcer {
    let (announcer, teller) =
        Announcer::new(lane.clone(), Arc::clone(directory), Arc::clone(clock));
    tasks.spawn("teller", OnExit::Log, teller.run());
    for loss in losses {
        announcer.loss_accepted(*loss);
    }
    announcer
}

/// What is known of providers.
fn catalogue(config: &Config) -> Result<Arc<Catalogue>, Error> {
    Catalogue::load(config.providers.manifests.as_deref())
        .map(Arc::new)
        .map_err(|mistakes| {
            let all = mistakes.iter().map(ToString::to_string);
            Error::Providers(all.collect::<Vec<_>>().join("; "))
        })
}

/// What is known of event types.
fn catalogs(config: &Config) -> Result<Arc<Catalogs>, Error> {
    let (folder, wanted) = (
        config.event_types.catalogs_dir.as_deref(),
        &config.event_types.catalogs,
    );
    Catalogs::load(folder, wanted)
        .map(Arc::new)
        .map_err(|mistakes| {
            let all = mistakes.iter().map(ToString::to_string);
            Error::Catalogs(all.collect::<Vec<_>>().join("; "))
        })
}

/// The vault over the master keys that were given, or over one that is made because there is none and
/// nothing is sealed.
fn vault(config: &Config, reader: &dyn Reader, given: vault::Given) -> Result<Arc<Vault>, Error> {
    let (_, rows) = reader
        .config()
        .map_err(|cause| store_error(config, cause))?;
    let is_sealed = rows.iter().any(|row| row.kind == ConfigKind::DataKey);
    let found = given.find(is_sealed, system_bytes()?)?;
    let (key, place) = (found.masters.primary().id(), &found.place);
    if found.is_new {
        warn!(
            key,
            %place,
            "a master key for the store's secrets was made: keep a copy elsewhere, without it they are lost"
        );
    }
    if found.is_open {
        warn!(key, %place, "everybody on this machine may read the master key: chmod 600");
    }
    Ok(Arc::new(Vault::new(found.masters, system_bytes()?)))
}

fn lane(
    config: &Config,
    writer: Box<dyn store::Writer>,
    clock: &Arc<dyn Clock>,
    committed: mpsc::Sender<lane::Committed>,
) -> Result<Lane, Error> {
    let options = lane::Options {
        queue: config.ingest.queue,
        queue_bytes: config.ingest.queue_bytes.get(),
        max_group: config.ingest.max_group,
    };
    Lane::start(writer, Arc::clone(clock), options, committed).map_err(|cause| Error::System {
        what: "start the commit thread",
        cause,
    })
}

/// Why recovery failed, with the sender that keeps the driver waiting.
pub(super) type RecoveryError = oneshot::Receiver<(store::Error, mpsc::Sender<Input>)>;

type Opened = (Box<dyn store::Writer>, Arc<dyn Reader>);

/// Opening verifies the journals, which blocks. What fell out of retention while nothing ran is hidden
/// before anybody can read.
async fn open_store(
    config: &Config,
    now: Timestamp,
) -> Result<(Opened, backup::Source, Vec<store::AcceptedLoss>), Error> {
    let (storage, retention) = (config.storage.clone(), config.retention.clone());
    let open = move || {
        let mut opened = Store::open(&storage, &retention)?;
        opened.writer.tend(now)?;
        Ok(opened)
    };
    let opened = tokio::task::spawn_blocking(open).await;
    // The database panics on some files that are not as it wrote them: a start would not help.
    let opened = opened.unwrap_or_else(|panic| {
        Err(store::Error::Corrupt {
            what: String::from("file of the database"),
            why: panic.to_string(),
        })
    });
    let opened = opened.map_err(|cause| store_error(config, cause))?;
    let ends: Opened = (Box::new(opened.writer), opened.reader);
    Ok((ends, opened.source, opened.losses))
}

/// Looks through the folder of backups, which may take a while: not on an async thread.
async fn backups(
    config: &Config,
    source: backup::Source,
    lane: &Lane,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Backups>, Error> {
    let parts = backup::Parts {
        source,
        lane: lane.clone(),
        clock: Arc::clone(clock),
        dir: config.storage.backup_dir.clone(),
        reserve: config.storage.reserve.get(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let made = tokio::task::spawn_blocking(|| Backups::new(parts)).await;
    made.map(Arc::new).map_err(|panic| Error::System {
        what: "look for backups",
        cause: std::io::Error::other(panic),
    })
}

pub(super) fn store_error(config: &Config, cause: store::Error) -> Error {
    Error::Store {
        dir: config.storage.dir.clone(),
        cause,
    }
}

fn outgoing(
    config: &Config,
    defaults: Defaults,
    (directory, catalogs): (&Arc<Directory>, &Arc<Catalogs>),
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Outgoing>, Error> {
    let resolver = Arc::new(SystemResolver::new(Arc::clone(clock))?);
    let granted = server::limits::open_files(config.open_files())?;
    let max_idle = config.idle_connections(granted);
    let options = ClientOptions {
        rules: defaults.rules.clone(),
        connect_timeout: config.delivery.connect_timeout,
        max_idle,
        ..ClientOptions::new(resolver)
    };
    let client = Client::new(options, Arc::clone(clock))?;
    let deliver = Deliver::new(client.clone(), Arc::clone(clock));
    let known = (Arc::clone(directory), Arc::clone(catalogs));
    let outgoing = Outgoing::new(client, deliver, defaults, known, max_idle);
    Ok(Arc::new(outgoing))
}

fn settings(config: &Config) -> Settings {
    Settings {
        max_in_flight: config.delivery.max_in_flight,
        max_in_memory: config.delivery.max_in_memory,
        ..Settings::default()
    }
}

/// The scheduler's state as the store knows it, and what is still to be read.
fn begin(
    config: &Config,
    now: Timestamp,
    reader: &Arc<dyn Reader>,
    directory: &Arc<Directory>,
) -> Result<(Core, Recovery), Error> {
    let mut core = Core::new(settings(config));
    let recovery = schedule::begin(&mut core, now, reader, directory, &config.delivery)
        .map_err(|cause| store_error(config, cause))?;
    Ok((core, recovery))
}

/// Reads what was open, beside the driver. If it cannot be read the node must not start: the error
/// comes by the second channel, and the first stays open so that nothing new is sent before.
fn recover(recovery: Recovery) -> Result<(mpsc::Receiver<Input>, RecoveryError), Error> {
    // Pages on their way to the driver; when it is full the reading waits.
    let (recovered_to, recovered) = mpsc::channel(4);
    let (failed_to, failed) = oneshot::channel();
    task::thread("recovery", move || {
        if let Err(cause) = recovery.run(&recovered_to) {
            task::answer(failed_to, (cause, recovered_to));
        }
    })
    .map_err(|cause| Error::System {
        what: "start the recovery",
        cause,
    })?;
    Ok((recovered, failed))
}

fn seeded() -> Result<ChaCha8Rng, Error> {
    ChaCha8Rng::try_from_rng(&mut SysRng).map_err(|error| no_randomness(&error))
}

fn system_bytes() -> Result<[u8; 32], Error> {
    use rand::TryRng;
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| no_randomness(&error))?;
    Ok(seed)
}

fn no_randomness(error: &dyn std::error::Error) -> Error {
    let cause = std::io::Error::other(error.to_string());
    Error::System {
        what: "read random bytes from the system",
        cause,
    }
}

/// The management API over the engine.
pub(super) fn api(
    config: &Config,
    engine: &Engine,
    admin: Option<[u8; 32]>,
    exposition: Exposition,
) -> Arc<api::ApiState> {
    let clock: Arc<dyn Clock> = engine.clock.clone();
    let ingest = Arc::new(ingest::Ingest::new(ingest::Parts {
        config: config.ingest.clone(),
        remember_for: config.retention.idempotency,
        directory: Arc::clone(&engine.directory),
        lane: engine.lane.clone(),
        reader: Arc::clone(&engine.reader),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&engine.entropy),
    }));
    let base = config.server.public_urls.first().map(ToString::to_string);
    let inbound = Inbound::new(inbound::Parts {
        config: config.inbound.clone(),
        ids_kept: config.retention.messages,
        base: base.map(|base| base.trim_end_matches('/').to_owned()),
        trusted: config.server.trusted_proxies.clone(),
        catalogue: Arc::clone(&engine.catalogue),
        directory: Arc::clone(&engine.directory),
        ingest: Arc::clone(&ingest),
        clock: Arc::clone(&clock),
        news: Some(engine.news.clone()),
        keys: Arc::new(KeysOverHttp::new(
            engine.outgoing.client().clone(),
            engine.rules.clone(),
        )),
    });
    Arc::new(api::ApiState::new(api::Parts {
        auth: Auth::new(Arc::clone(&engine.directory), admin),
        ingest,
        inbound,
        directory: Arc::clone(&engine.directory),
        lane: engine.lane.clone(),
        reader: Arc::clone(&engine.reader),
        schedule: engine.schedule.clone(),
        clock,
        entropy: Arc::clone(&engine.entropy),
        delivery: config.delivery.clone(),
        retention: config.retention.clone(),
        targets: engine.rules.clone(),
        catalogs: Arc::clone(&engine.catalogs),
        reserve: config.storage.reserve.get(),
        handshake: Some(Arc::new(engine.outgoing.client().clone())),
        elsewhere: Some(Arc::<Outgoing>::clone(&engine.outgoing)),
        backups: Some(Arc::clone(&engine.backups)),
        metrics: Box::new(move || exposition.render()),
    }))
}

/// Opens the front door; answers where.
pub(super) fn serve(
    config: &Config,
    (listeners, tls, api): (Listeners, Option<Tls>, Arc<api::ApiState>),
    tasks: &Tasks,
    stop: &Stop,
) -> String {
    let drain = for_connections(config.server.drain_timeout);
    let metrics = ServerMetrics::register();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut bound = format!("{scheme}://{}", listeners.ingest.address());
    let front = Server::new(
        listeners.ingest,
        tls,
        (&config.server).into(),
        metrics.clone(),
    );
    tasks.spawn(
        "api",
        OnExit::StopNode,
        run_server(
            front,
            api::front_with(Arc::clone(&api), dashboard::router()),
            stop,
            drain,
        ),
    );
    if let Some(admin) = listeners.admin {
        bound.push_str(&format!(
            " (metrics and health also on http://{})",
            admin.address()
        ));
        let side = Server::new(admin, None, (&config.server).into(), metrics);
        let router = api::instance_router(api);
        tasks.spawn(
            "admin",
            OnExit::StopNode,
            run_server(side, router, stop, drain),
        );
    }
    bound
}

/// The part of the time to drain that connections have: they end before the rest, so that who is late
/// among them is named by the server and not cut off with it.
fn for_connections(limit: Duration) -> Duration {
    let margin = Duration::from_millis(500);
    limit.saturating_sub(margin).max(limit / 2)
}

fn run_server<S>(
    server: Server,
    service: S,
    stop: &Stop,
    drain: Duration,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let stop = stop.clone();
    async move {
        match server.run(service, stop, drain).await {
            Ok(drained) if drained.late > 0 => {
                tracing::warn!(
                    connections = drained.late,
                    "connections were cut off at the end"
                );
            }
            Ok(_) => {}
            Err(cause) => tracing::error!(%cause, "a listener cannot be used"),
        }
    }
}
