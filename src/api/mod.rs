//! The management API under `/api/v1` (`/api` means the same): one file per resource.
//!
//! Wire-compatible with the Svix client SDKs for applications, endpoints, event types, messages and
//! attempts (`docs/api.md`). Handlers check and translate; what happens is decided below: `ingest`
//! takes messages in, `directory` changes configuration, `schedule` knows deliveries. `request` is
//! what every route runs through, `error` the only place that makes statuses.
//!
//! A route of the description that is not built answers 501 `not_implemented`.

mod application;
mod attempt;
mod body;
mod endpoint;
mod error;
mod event_type;
mod explain;
mod history;
mod idempotency;
mod instance;
mod key;
mod message;
mod meters;
mod page;
mod query;
mod recover;
mod reply;
mod request;
mod routes;
mod task;
mod webhook_keys;

use std::sync::Arc;

use axum::Router;

use crate::auth::{Auth, Entropy};
use crate::base::Clock;
use crate::config;
use crate::directory::Directory;
use crate::ingest::Ingest;
use crate::lane::Lane;
use crate::policy::target::TargetRules;
use crate::schedule;
use crate::store::Reader;

pub use error::Code;

/// What the API works with.
pub struct Parts {
    /// Who may call.
    pub auth: Auth,
    /// Where messages go.
    pub ingest: Ingest,
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
    /// Which URLs endpoints may have.
    pub targets: TargetRules,
    /// The page of `/metrics`, in the Prometheus text form.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// What all handlers share.
pub struct ApiState {
    parts: Parts,
    meters: meters::Meters,
    tasks: task::Registry,
    webhook_keys: webhook_keys::Cache,
}

impl ApiState {
    /// Puts it together.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            meters: meters::Meters::default(),
            tasks: task::Registry::default(),
            webhook_keys: webhook_keys::Cache::default(),
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
    routes::all().with_state(state)
}

/// `/health`, `/ready` and `/metrics` without a credential, for a listener of their own.
pub fn instance_router(state: Arc<ApiState>) -> Router {
    instance::open().with_state(state)
}
