//! The scheduler's way out: endpoints as they are now, each prepared when it is first called after a change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use tracing::warn;

use crate::api::{Elsewhere, Sending};
use crate::catalogs::Catalogs;
use crate::client::Client;
use crate::config;
use crate::deliver::{self, BadDefaults, BadEndpoint, Defaults, Deliver, Prepared};
use crate::directory::Directory;
use crate::model::{Application, Delivery, Endpoint, EndpointNo, Message};
use crate::policy::exclude::Exclusion;
use crate::policy::own::Own;
use crate::schedule::core::Job;
use crate::schedule::{Attempts, Exchange};
use crate::server::interfaces;

/// Fewer are never kept, however few connections may be.
const KEPT: usize = 256;

/// Looks endpoints up and makes attempts.
pub(super) struct Outgoing {
    client: Client,
    deliver: Deliver,
    defaults: ArcSwap<Defaults>,
    directory: Arc<Directory>,
    catalogs: Arc<Catalogs>,
    /// Those called lately, no more than idle connections are kept to: one that is called so rarely that its
    /// connection is gone may as well be prepared again, which takes microseconds. Kept for all, they
    /// were a fifth of what an endpoint takes in memory.
    prepared: Cache<EndpointNo, Arc<Kept>>,
}

/// An endpoint that was prepared, with what it was made of.
struct Kept {
    endpoint: Arc<Endpoint>,
    app: Option<Arc<Application>>,
    defaults: Arc<Defaults>,
    /// `None` = it cannot be called.
    prepared: Option<Arc<Prepared>>,
}

impl Kept {
    /// Whether nothing that it was made of has changed. Objects of the directory are never changed in place.
    fn is_of(
        &self,
        endpoint: &Arc<Endpoint>,
        app: Option<&Arc<Application>>,
        defaults: &Arc<Defaults>,
    ) -> bool {
        let same_app = match (&self.app, app) {
            (Some(mine), Some(app)) => Arc::ptr_eq(mine, app),
            (mine, app) => mine.is_none() && app.is_none(),
        };
        same_app && Arc::ptr_eq(&self.endpoint, endpoint) && Arc::ptr_eq(&self.defaults, defaults)
    }
}

impl Outgoing {
    pub(super) fn new(
        client: Client,
        deliver: Deliver,
        defaults: Defaults,
        (directory, catalogs): (Arc<Directory>, Arc<Catalogs>),
        max_idle: usize,
    ) -> Self {
        Self {
            client,
            deliver,
            defaults: ArcSwap::from_pointee(defaults),
            directory,
            catalogs,
            prepared: Cache::new(max_idle.max(KEPT)),
        }
    }

    /// The client that attempts are made with.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The defaults of a changed configuration, checked and not yet in use. The addresses of the
    /// machine are read again.
    pub(super) fn defaults(&self, config: &config::Delivery) -> Result<Defaults, BadDefaults> {
        let own = Own {
            machine: interfaces::addresses(),
            ..self.defaults.load().rules.own.clone()
        };
        Defaults::of(config, own)
    }

    /// Takes changed defaults over (SIGHUP): which addresses may be called, the default profile and
    /// time-out. Effective with the next attempt.
    pub(super) fn adopt(&self, defaults: Defaults) {
        self.client.set_rules(defaults.rules.clone());
        self.defaults.store(Arc::new(defaults));
    }

    /// Personal data as the newest schema of an event type marks it; as a catalogue does, if the type was
    /// not registered.
    fn marked(&self, event_type: &str) -> Exclusion {
        let snapshot = self.directory.peek();
        match snapshot.event_type(event_type) {
            Some(known) => known.newest_schema().map(Exclusion::marked),
            None => {
                let listed = self.catalogs.find(event_type);
                listed.map(|listed| Exclusion::marked(&listed.schema))
            }
        }
        .unwrap_or_default()
    }

    /// The endpoint as it is now; `None` if it is gone or cannot be called.
    fn find(&self, no: EndpointNo) -> Option<Arc<Prepared>> {
        let snapshot = self.directory.peek();
        let endpoint = snapshot.endpoint(no)?;
        if endpoint.deleted.is_some() {
            return None;
        }
        let app = snapshot.app_by_no(endpoint.app).map(|entry| &entry.app);
        let defaults = self.defaults.load();
        if let Some(kept) = self.prepared.get(&no)
            && kept.is_of(endpoint, app, &defaults)
        {
            return kept.prepared.clone();
        }
        let kept = Arc::new(Kept {
            endpoint: Arc::clone(endpoint),
            app: app.cloned(),
            defaults: Arc::clone(&defaults),
            prepared: prepared(endpoint, app.map(Arc::as_ref), &defaults),
        });
        self.prepared.insert(no, Arc::clone(&kept));
        kept.prepared.clone()
    }
}

impl Attempts for Outgoing {
    /// Forgets what was prepared, and only says whether it can be: it may not be called for days.
    fn changed(&self, endpoint: &Endpoint) {
        self.prepared.remove(&endpoint.no);
        if endpoint.deleted.is_none() {
            let snapshot = self.directory.peek();
            let app = snapshot.app_by_no(endpoint.app);
            let app = app.map(|entry| entry.app.as_ref());
            drop(prepared(endpoint, app, &self.defaults.load()));
        }
    }

    async fn attempt(&self, job: Job) -> Exchange {
        let Some(endpoint) = self.find(job.endpoint) else {
            return without_request(BadEndpoint::OUTCOME);
        };
        let marked = endpoint.leaves_marked_out();
        let marked = marked.then(|| self.marked(&job.message.event_type));
        let job = deliver::Job {
            marked,
            delivery: Delivery {
                at: job.message.at,
                endpoint: job.endpoint,
            },
            endpoint,
            message: job.message,
            no: job.no,
            total: job.total,
        };
        let finished = self.deliver.attempt(&job).await;
        Exchange {
            outcome: finished.outcome,
            response: finished.response,
            duration_ms: finished.duration_ms,
            resolver_down: finished.resolver_down,
        }
    }
}

impl Elsewhere for Outgoing {
    fn send(&self, endpoint: Endpoint, organization: String, message: Arc<Message>) -> Sending<'_> {
        Box::pin(async move {
            let prepared = Prepared::new(&endpoint, &organization, &self.defaults.load());
            let prepared = match prepared {
                Ok(prepared) => Arc::new(prepared),
                Err(_) => return BadEndpoint::OUTCOME,
            };
            let marked = prepared.leaves_marked_out();
            let job = deliver::Job {
                delivery: Delivery {
                    at: message.at,
                    endpoint: endpoint.no,
                },
                marked: marked.then(|| self.marked(&message.event_type)),
                endpoint: prepared,
                message,
                no: 1,
                total: 1,
            };
            self.deliver.attempt(&job).await.outcome
        })
    }
}

/// An endpoint, ready to be called; says why if it cannot be.
fn prepared(
    endpoint: &Endpoint,
    app: Option<&Application>,
    defaults: &Defaults,
) -> Option<Arc<Prepared>> {
    let organization = app.map_or_else(String::new, |app| {
        app.uid.clone().unwrap_or_else(|| app.id.to_string())
    });
    match Prepared::new(endpoint, &organization, defaults) {
        Ok(prepared) => Some(Arc::new(prepared)),
        Err(cause) => {
            warn!(endpoint = %endpoint.id, %cause, "endpoint cannot be called");
            None
        }
    }
}

/// Nothing was sent.
fn without_request(outcome: crate::model::Outcome) -> Exchange {
    Exchange {
        outcome,
        response: bytes::Bytes::new(),
        duration_ms: 0,
        resolver_down: false,
    }
}
