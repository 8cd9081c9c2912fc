//! The management API under `/api/v1` (`/api` means the same): one file per resource.
//!
//! Wire-compatible with the Svix client SDKs for applications, endpoints, event types, messages and
//! attempts (`docs/API.md`). Handlers check and translate; what happens is decided below: `ingest`
//! takes messages in, `directory` changes configuration, `schedule` knows deliveries. `request` is
//! what every route runs through, `error` the only place that makes statuses.
//!
//! A route of the description that is not built answers 501 `not_implemented`.

mod application;
mod attempt;
mod audit;
mod backup;
mod body;
mod cancel;
mod capacity;
mod content;
mod endpoint;
mod error;
mod consumer;
mod ending;
mod event_type;
mod events;
mod example;
mod explain;
mod feed;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod idempotency;
mod import;
mod inbound;
mod instance;
mod intake;
mod key;
mod message;
mod meters;
pub mod openapi;
mod page;
mod quarantine;
mod query;
mod replay;
mod reply;
mod request;
mod routes;
mod sample;
mod session;
mod source;
mod stats;
mod tail;
mod task;
mod tenant;
mod vault;
mod walk;
mod webhook_keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::sync::Semaphore;

use crate::auth::{Auth, Entropy};
use crate::backup::Backups;
use crate::base::Clock;
use crate::catalogs::Catalogs;
use crate::config;
use crate::deliver::Handshake;
use crate::directory::Directory;
use crate::inbound::Inbound;
use crate::ingest::Ingest;
use crate::lane::Lane;
use crate::policy::target::TargetRules;
use crate::schedule;
use crate::store::{Reader, Timely};

pub use error::Code;
pub use front::Front;
pub use replay::{Elsewhere, Sending};

/// What the API works with.
pub struct Parts {
    /// Who may call.
    pub auth: Auth,
    /// Where messages go.
    pub ingest: Arc<Ingest>,
    /// Sources and what they receive.
    pub inbound: Inbound,
    /// Applications, endpoints, event types, keys.
    pub directory: Arc<Directory>,
    /// For stored answers and readiness.
    pub lane: Lane,
    /// History.
    pub reader: Arc<dyn Reader>,
    /// Deliveries.
    pub schedule: schedule::Handle,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For ids, keys and secrets.
    pub entropy: Arc<Entropy>,
    /// Signature presets, default profile, what application keys see of failures.
    pub delivery: config::Delivery,
    /// How long history and stored answers last.
    pub retention: config::Retention,
    /// Which URLs endpoints may have, until [`ApiState::adopt`] says otherwise.
    pub targets: TargetRules,
    /// What is known of event types beside those that exist.
    pub catalogs: Arc<Catalogs>,
    /// What asks receivers whether they want a subscription; without it that cannot be asked for.
    pub handshake: Option<Arc<dyn Handshake>>,
    /// Bytes of the disk at which nothing new is accepted ([`config::Storage::reserve`]).
    pub reserve: u64,
    /// Sends replays to other URLs, if anything can.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
    /// Backups, if the store can be copied while it is used.
    pub backups: Option<Arc<Backups>>,
    /// The page of `/metrics`, in the Prometheus text form.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// What all handlers share.
pub struct ApiState {
    /// Its reader hides payloads whose time is over.
    parts: Parts,
    /// The store as it is, payloads whose time is over included: for those who take content away.
    stored: Arc<dyn Reader>,
    rules: ArcSwap<Rules>,
    meters: meters::Meters,
    tasks: task::Registry,
    samples: capacity::Samples,
    scrub: content::Scrub,
    ends: ending::Meters,
    webhook_keys: webhook_keys::Cache,
    /// Places for lists ([`request::scan`]).
    scans: Arc<Semaphore>,
    tails: tail::Tails,
    consumers: consumer::Leases,
}

impl ApiState {
    /// Puts it together.
    pub fn new(mut parts: Parts) -> Self {
        let stored = Arc::clone(&parts.reader);
        let timely = Timely::new(parts.reader, Arc::clone(&parts.clock));
        parts.reader = Arc::new(timely);
        let rules = Rules::of(&parts.delivery, parts.targets.clone());
        let tasks = task::Registry::load(&parts.directory.peek(), parts.clock.now());
        Self {
            parts,
            stored,
            ends: ending::Meters::default(),
            rules: ArcSwap::from_pointee(rules),
            meters: meters::Meters::default(),
            tasks,
            samples: capacity::Samples::default(),
            scrub: content::Scrub::default(),
            webhook_keys: webhook_keys::Cache::default(),
            scans: Arc::new(Semaphore::new(request::SCANS)),
            tails: tail::Tails::default(),
            consumers: consumer::Leases::default(),
        }
    }
}

impl ApiState {
    /// Takes changed rules for endpoints over (SIGHUP): which URLs they may have, the presets and the
    /// default profile. Endpoints that exist are not checked again.
    pub fn adopt(&self, delivery: &config::Delivery, targets: TargetRules) {
        self.rules.store(Arc::new(Rules::of(delivery, targets)));
    }

    /// Stores when keys were last used ([`Auth::store_last_use`]). Cancel safe.
    pub async fn store_last_use(&self) {
        if let Err(cause) = self.auth.store_last_use().await {
            tracing::warn!(%cause, "the last use of keys was not stored; it is tried again");
        }
        if let Err(cause) = self.directory.store_usage(self.clock.now()).await {
            tracing::warn!(%cause, "what applications used of their quotas was not stored");
        }
    }

    /// Ends the streams that are open: they would outlast every drain.
    pub fn end_tails(&self) {
        self.tails.end();
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }
}

/// What endpoints are checked against; exchanged as a whole.
struct Rules {
    targets: TargetRules,
    signature: String,
    presets: BTreeMap<String, serde_json::Value>,
}

impl Rules {
    fn of(delivery: &config::Delivery, targets: TargetRules) -> Self {
        Self {
            targets,
            signature: delivery.signature.clone(),
            presets: delivery.signature_presets.clone(),
        }
    }
}

impl std::ops::Deref for ApiState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// The whole API with `/health`, `/ready`, `/metrics` (which wants scope `read` here) and JSON answers
/// for every path and method that does not exist. Other routers are merged into it without a
/// fallback of their own.
pub fn router(state: Arc<ApiState>) -> Router {
    routes::all(Router::new()).with_state(state)
}

/// The same as a service, in which accepting a message takes the short way.
pub fn front(state: Arc<ApiState>) -> Front {
    front_with(state, Router::new())
}

/// The same with further pages, which have no fallback of their own.
pub fn front_with(state: Arc<ApiState>, pages: Router<Arc<ApiState>>) -> Front {
    let router = routes::all(pages).with_state(Arc::clone(&state));
    Front::new(router, state)
}

/// Every path below `/api/v1`, for comparing them with the description.
pub fn paths() -> Vec<&'static str> {
    routes::paths()
}

/// `/health`, `/ready` and `/metrics` without a credential, for a listener of their own.
pub fn instance_router(state: Arc<ApiState>) -> Router {
    instance::open().with_state(state)
}
