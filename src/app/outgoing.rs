//! The scheduler's way out: endpoints as they are now, prepared once per change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::RwLock;
use tracing::warn;

use crate::api::{Elsewhere, Sending};
use crate::catalogs::Catalogs;
use crate::client::Client;
use crate::config;
use crate::deliver::{self, BadDefaults, BadEndpoint, Defaults, Deliver, Prepared};
use crate::directory::Directory;
use crate::model::{Delivery, Endpoint, EndpointNo, FailureKind, Message};
use crate::policy::exclude::Exclusion;
use crate::policy::outcome;
use crate::policy::own::Own;
use crate::schedule::core::Job;
use crate::schedule::{Attempts, Exchange};
use crate::server::interfaces;

/// Looks endpoints up and makes attempts.
pub(super) struct Outgoing {
    client: Client,
    deliver: Deliver,
    defaults: ArcSwap<Defaults>,
    directory: Arc<Directory>,
    catalogs: Arc<Catalogs>,
    /// Every endpoint that is not deleted; an endpoint that cannot be called keeps the reason.
    prepared: RwLock<HashMap<EndpointNo, Result<Arc<Prepared>, BadEndpoint>>>,
}

impl Outgoing {
    pub(super) fn new(
        client: Client,
        deliver: Deliver,
        defaults: Defaults,
        (directory, catalogs): (Arc<Directory>, Arc<Catalogs>),
    ) -> Self {
        Self {
            client,
            deliver,
            defaults: ArcSwap::from_pointee(defaults),
            directory,
            catalogs,
            prepared: RwLock::default(),
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
        for endpoint in self.directory.snapshot().endpoints() {
            self.put(endpoint);
        }
    }

    pub(super) fn put(&self, endpoint: &Endpoint) {
        if endpoint.deleted.is_some() {
            self.prepared.write().remove(&endpoint.no);
            return;
        }
        let snapshot = self.directory.snapshot();
        let app = snapshot.app_by_no(endpoint.app);
        let organization = app.map_or_else(String::new, |entry| {
            entry
                .app
                .uid
                .clone()
                .unwrap_or_else(|| entry.app.id.to_string())
        });
        let prepared = Prepared::new(endpoint, &organization, &self.defaults.load()).map(Arc::new);
        if let Err(cause) = &prepared {
            warn!(endpoint = %endpoint.id, %cause, "endpoint cannot be called");
        }
        self.prepared.write().insert(endpoint.no, prepared);
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

    fn find(&self, endpoint: EndpointNo) -> Result<Arc<Prepared>, Exchange> {
        match self.prepared.read().get(&endpoint) {
            Some(Ok(prepared)) => Ok(Arc::clone(prepared)),
            Some(Err(bad)) => Err(without_request(bad.outcome())),
            None => Err(without_request(outcome::of_failure(
                FailureKind::BlockedAddress,
            ))),
        }
    }
}

impl Attempts for Outgoing {
    fn prepare(&self, endpoint: &Endpoint) {
        self.put(endpoint);
    }

    async fn attempt(&self, job: Job) -> Exchange {
        let endpoint = match self.find(job.endpoint) {
            Ok(endpoint) => endpoint,
            Err(exchange) => return exchange,
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
                Err(bad) => return bad.outcome(),
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

/// Nothing was sent.
fn without_request(outcome: crate::model::Outcome) -> Exchange {
    Exchange {
        outcome,
        response: bytes::Bytes::new(),
        duration_ms: 0,
        resolver_down: false,
    }
}
