//! The composition root: builds everything from the bottom up, watches it, and takes it down again.
//!
//! One function per component, in the order of the module list read upwards. Nothing is decided here
//! but who gets which handle. The end has phases ([`shutdown`]): stop accepting, let attempts end, write
//! what is left, close the store; whoever is late is named.

mod build;
mod housekeeping;
mod instance;
mod outgoing;
mod reload;
mod shutdown;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::auth;
use crate::base::task::{OnExit, Stop, Stopper, Tasks};
use crate::base::{SystemClock, broken};
use crate::config::Config;
use crate::server;
use crate::server::notify;
use crate::store;
use crate::telemetry;

/// The service manager is asked for more time this often while the start goes on.
const PROLONG: Duration = Duration::from_secs(5);
/// A start that takes longer is stuck.
const LONGEST_START: Duration = Duration::from_secs(3600);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Told to stop, and drained.
    Drained,
    /// The store failed; start again (exit code 74).
    StorageFailed,
    /// Told twice, or a vital task ended (exit code 70).
    Aborted,
}

impl Exit {
    /// The process exit code (`reliability.md` 6).
    pub const fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Aborted => 70,
            Self::StorageFailed => 74,
        }
    }
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Logs or metrics.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// A listener, TLS files, or the limit of open files.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The store.
    #[error("the store in {} cannot be opened: {cause}", .dir.display())]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        cause: store::Error,
    },
    /// The configuration objects in the store.
    #[error(transparent)]
    Directory(#[from] crate::directory::LoadError),
    /// There is no master key, or what was given is none.
    #[error(transparent)]
    VaultKey(#[from] crate::vault::KeyError),
    /// Manifests of providers that cannot be used.
    #[error("the providers' manifests have mistakes: {0}")]
    Providers(String),
    /// Catalogues of event types that cannot be used.
    #[error("the catalogues of event types have mistakes: {0}")]
    Catalogs(String),
    /// What the instance needs could not be written.
    #[error("the instance cannot be set up")]
    Instance(#[from] crate::directory::Error),
    /// The outgoing side.
    #[error("the outgoing client cannot be set up: {0}")]
    Client(#[from] crate::client::Error),
    /// The signature defaults.
    #[error(transparent)]
    Defaults(#[from] crate::deliver::BadDefaults),
    /// The system.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// The admin key of the environment.
    #[error(transparent)]
    AdminKey(#[from] BadAdminKey),
}

/// An admin key that is not taken. Never shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAdminKey {
    /// It can be guessed.
    #[error("POSTHASTE_ADMIN_KEY must have at least 32 characters, this one has {0}")]
    Short(usize),
    /// SDKs read what follows the first dot as a region (`api.md` 2.2).
    #[error(
        "POSTHASTE_ADMIN_KEY must hold no dot: client libraries take what follows it for a region"
    )]
    Dot,
}

/// Checks an admin key of the environment.
pub fn check_admin_key(key: &str) -> Result<(), BadAdminKey> {
    match key.chars().count() {
        short @ 0..32 => Err(BadAdminKey::Short(short)),
        _ if key.contains('.') => Err(BadAdminKey::Dot),
        _ => Ok(()),
    }
}

impl Error {
    /// 78 = a human must decide; 74 = the disk; 1 = try again.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Store {
                cause: store::Error::Regressed(_) | store::Error::Corrupt { .. },
                ..
            }
            | Self::Server(server::Error::OpenFiles { .. } | server::Error::Activation { .. })
            | Self::Directory(_)
            | Self::VaultKey(_)
            | Self::Providers(_)
            | Self::Catalogs(_)
            | Self::Defaults(_)
            | Self::AdminKey(_) => 78,
            Self::Store { .. } => 74,
            Self::Telemetry(_)
            | Self::Server(_)
            | Self::Instance(_)
            | Self::Client(_)
            | Self::System { .. } => 1,
        }
    }
}

/// What a run needs beside the configuration.
pub struct Run {
    /// Checked configuration.
    pub config: Config,
    /// `POSTHASTE_ADMIN_KEY`.
    pub admin_key: Option<String>,
    /// Where the master keys of the vault may be.
    pub vault: crate::vault::Given,
    /// Reads the configuration again (SIGHUP).
    pub reread: Box<dyn Fn() -> Result<Config, String> + Send + Sync>,
    /// Shows a line to the person who started it: where it listens, and a new admin key once.
    pub say: fn(&str),
}

/// Runs a gateway until it is told to stop or cannot go on.
pub async fn run(run: Run) -> Result<Exit, Error> {
    // Before anything else: from here on a signal to end ends in order, and SIGHUP does not kill.
    let mut signals = shutdown::Signals::listen();
    let Run {
        config,
        admin_key,
        vault,
        reread,
        say,
    } = run;
    admin_key.as_deref().map(check_admin_key).transpose()?;
    let clock = Arc::new(SystemClock::start());
    let logs = telemetry::logs::install(&config.log)?;
    let exposition = telemetry::exposition::install()?;
    telemetry::panics::install(crate::metrics::ProcessMetrics::register());
    let listeners = build::listeners(&config)?;
    let tls = server::Tls::open(&config.server)?;
    let own = build::own(&config, &listeners);
    let (stopper, stop) = Stopper::new();
    let tasks = Tasks::default();
    let (started, starting) = Stopper::new();
    tasks.spawn("start", OnExit::Log, prolong(starting));

    let mut engine = tokio::select! {
        engine = build::engine(&config, &clock, (own, vault), &tasks, &stop) => engine?,
        // Opening may take minutes. Nothing was accepted, and a killed opening is a crash like others.
        () = signals.end() => {
            notify::stopping();
            info!("told to stop while the store was opened");
            return Ok(Exit::Drained);
        }
    };
    set_up(&engine, &config, admin_key.is_some(), say).await?;
    let admin = admin_key.map(|key| auth::hash(&key));
    let api = build::api(&config, &engine, admin, exposition.clone());
    let (front_stopper, front_stop) = Stopper::new();
    let served = (listeners, tls.clone(), Arc::clone(&api));
    let bound = build::serve(&config, served, &tasks, &front_stop);

    tasks.spawn("metrics", OnExit::Log, exposition.upkeep(stop.clone()));
    housekeeping::start(&engine, &config, &tasks, &stop);
    housekeeping::with_api(&api, &tasks, &stop);
    housekeeping::end_tails(Arc::clone(&api), &tasks, &stop);
    let (limit, recovery) = (config.server.drain_timeout, engine.recovery.take());
    let early = tokio::select! {
        biased;
        cause = shutdown::ends(&engine, &tasks, &mut signals) => Some(cause),
        () = recovered(&engine) => None,
        cause = build::recovery_failure(recovery) => {
            return Err(build::store_error(&config, cause));
        }
    };
    started.stop();
    api.resume();
    let cause = match early {
        Some(cause) => cause,
        None => {
            announce(&engine, &bound, say);
            slower_than_the_drain(&engine, limit);
            let reload = reload::Reload {
                reread,
                running: Mutex::new(config),
                logs,
                tls,
                outgoing: Arc::clone(&engine.outgoing),
                api,
                schedule: engine.schedule.clone(),
            };
            shutdown::wait(&engine, &tasks, &mut signals, &reload).await
        }
    };
    let stoppers = [front_stopper, stopper];
    Ok(shutdown::drain(cause, &engine, &tasks, stoppers, (limit, &mut signals)).await)
}

/// Makes and shows the admin key of a first start. Now, not when ready: the key is in the store, and a
/// start that fails later makes no other. Adds event types of catalogues.
async fn set_up(
    engine: &build::Engine,
    config: &Config,
    is_given: bool,
    say: fn(&str),
) -> Result<(), Error> {
    if let Some(key) = instance::prepare(engine, is_given).await? {
        say(&format!("admin key, shown this once: {key}"));
    }
    instance::add_event_types(engine, &config.event_types.catalogs).await?;
    Ok(())
}

/// Tells the service manager, the log and the person who started it.
fn announce(engine: &build::Engine, bound: &str, say: fn(&str)) {
    notify::ready();
    watchdog::start(engine);
    let lane = engine.lane.id().0;
    info!(version = env!("CARGO_PKG_VERSION"), %bound, lane, "posthaste is ready");
    for feature in broken::names() {
        error!(
            feature,
            "this build is broken on purpose: never use it for real events"
        );
    }
    say(&format!("posthaste listens on {bound}"));
}

/// An endpoint may take longer than the drain: its own time-out is its owner's choice, up to 30 s,
/// and a longer drain is the operator's. What is cut off is sent again, so this is worth knowing
/// and no mistake.
fn slower_than_the_drain(engine: &build::Engine, limit: Duration) {
    let snapshot = engine.directory.snapshot();
    let slow = |ms: u32| Duration::from_millis(ms.into()) > limit;
    let slow = snapshot
        .endpoints()
        .filter(|endpoint| endpoint.timeout_ms.is_some_and(slow));
    let endpoints = slow.count();
    if endpoints > 0 {
        let drain_s = limit.as_secs_f64();
        warn!(
            endpoints,
            drain_s,
            "endpoints may take longer than server.drain_timeout: attempts that a stop cuts off are \
             made again"
        );
    }
}

/// Asks the service manager for more time while the start goes on: opening verifies the journals, and
/// what was open is read again, which takes as long as it takes. After [`LONGEST_START`] it is stuck.
/// Cancel safe.
async fn prolong(mut starting: Stop) {
    let often = u32::try_from(LONGEST_START.as_secs() / PROLONG.as_secs()).unwrap_or(u32::MAX);
    for _ in 0..often {
        notify::extend_timeout(PROLONG * 12);
        tokio::select! {
            () = starting.stopped() => return,
            () = tokio::time::sleep(PROLONG) => {}
        }
    }
}

/// Nothing is lost by serving earlier, but `READY` promises that deliveries move.
async fn recovered(engine: &build::Engine) {
    let mut status = engine.status.clone();
    if status.wait_for(|status| status.recovered).await.is_err() {
        // The scheduler is gone, which is a reason to end and noticed as one.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_key_is_long_and_has_no_dot() {
        let long = "0123456789abcdef0123456789abcdef";
        assert_eq!(check_admin_key(long), Ok(()));
        assert_eq!(check_admin_key("too short"), Err(BadAdminKey::Short(9)));
        assert_eq!(check_admin_key(""), Err(BadAdminKey::Short(0)));
        let dotted = format!("{long}.eu");
        assert_eq!(check_admin_key(&dotted), Err(BadAdminKey::Dot));
        assert_eq!(Error::from(BadAdminKey::Dot).code(), 78);
    }
}
