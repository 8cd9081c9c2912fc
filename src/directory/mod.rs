//! Who exists: applications, endpoints, event types and keys, as an immutable snapshot that is
//! swapped whole.
//!
//! Readers take the current [`Snapshot`] without a lock. A change works on a [`Draft`], is committed
//! by the lane with the expected revision, and only then becomes the current snapshot; changes are
//! made one at a time. Every changed endpoint is told to the scheduler, so an edit takes effect at
//! the next attempt.
//!
//! Elsewhere: what fields may hold (`api`), how rows are kept (`store`).

mod snapshot;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::base::task;
use crate::lane::{self, Lane};
use crate::model::{ApiKey, Application, Endpoint, EventType};
use crate::store::{self, ConfigKind, ConfigRow, Reader};

pub use snapshot::{AppEntry, Load, Snapshot};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lane did not take it.
    #[error("the change was not stored")]
    Lane(#[from] lane::Error),
    /// An object cannot be written as JSON.
    #[error("the {what} cannot be encoded")]
    Encode {
        /// Kind of the object.
        what: &'static str,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

/// Why the directory cannot be read at start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A row is not what this version writes.
    #[error(
        "configuration row {kind:?} {key:?} cannot be read; was it written by a newer version?"
    )]
    Row {
        /// Its kind.
        kind: ConfigKind,
        /// Its key.
        key: Vec<u8>,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

/// The owner of the snapshot.
pub struct Directory {
    current: ArcSwap<Snapshot>,
    lane: Lane,
    /// Changed endpoints on their way to the scheduler. Bounded: when it is full the change waits
    /// (it is stored already), and with it the API call that made it.
    changed: mpsc::Sender<Arc<Endpoint>>,
    /// One change at a time.
    changing: Mutex<()>,
    /// The sum that every snapshot shares.
    total: Arc<Load>,
}

impl Directory {
    /// Reads everything from the store.
    pub fn load(
        reader: &dyn Reader,
        lane: Lane,
        changed: mpsc::Sender<Arc<Endpoint>>,
    ) -> Result<Self, LoadError> {
        let (revision, rows) = reader.config()?;
        let mut snapshot = Snapshot::default();
        snapshot.revision = revision;
        for row in &rows {
            read_row(&mut snapshot, row).map_err(|cause| LoadError::Row {
                kind: row.kind,
                key: row.key.clone(),
                cause,
            })?;
        }
        let total = Arc::clone(snapshot.total());
        Ok(Self {
            current: ArcSwap::from_pointee(snapshot),
            lane,
            changed,
            changing: Mutex::new(()),
            total,
        })
    }

    /// The current snapshot, for a look that does not last.
    pub fn peek(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Unfinished deliveries of all applications together.
    pub const fn total(&self) -> &Arc<Load> {
        &self.total
    }

    /// The current snapshot, to keep.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes one change: `edit` sees the current state and puts objects into the draft. What it
    /// answers is returned once everything is durable and visible. If `edit` fails nothing happens.
    ///
    /// Not cancel safe: a change that was handed to the lane is stored even if the caller went away,
    /// so callers run it in a task of its own or to its end.
    pub async fn change<T, E: From<Error>>(
        &self,
        edit: impl FnOnce(&mut Draft) -> Result<T, E>,
    ) -> Result<T, E> {
        let _one = self.changing.lock().await;
        let base = self.current.load_full();
        let mut draft = Draft {
            next: Snapshot::clone(&base),
            rows: Vec::new(),
            endpoints: Vec::new(),
        };
        let answer = edit(&mut draft)?;
        if draft.rows.is_empty() {
            return Ok(answer);
        }
        let Draft {
            mut next,
            rows,
            endpoints,
        } = draft;
        next.revision = self
            .lane
            .commit_config(base.revision, rows)
            .await
            .map_err(Error::from)?;
        self.current.store(Arc::new(next));
        for endpoint in endpoints {
            if self.changed.send(endpoint).await.is_err() {
                break; // the scheduler is gone: the process is ending
            }
        }
        Ok(answer)
    }

    /// [`Directory::change`] in a task of its own, which ends even if the caller goes away (a
    /// connection that breaks must not leave the snapshot behind the store). Cancel safe.
    pub async fn carry_out<T, E>(
        self: &Arc<Self>,
        edit: impl FnOnce(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let directory = Arc::clone(self);
        task::detach(async move {
            let done = directory.change(edit).await;
            drop(reply.send(done)); // the caller went away; the change stands
        });
        match answer.await {
            Ok(done) => done,
            Err(_) => Err(Error::Lane(lane::Error::Failed).into()), // the runtime is ending
        }
    }
}

/// A change in the making: reads see what was put before.
pub struct Draft {
    next: Snapshot,
    rows: Vec<ConfigRow>,
    endpoints: Vec<Arc<Endpoint>>,
}

impl std::ops::Deref for Draft {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.next
    }
}

impl Draft {
    /// Adds or replaces an application. New ones take their number from
    /// [`Snapshot::next_app`].
    pub fn put_app(&mut self, app: Application) -> Result<(), Error> {
        self.row(
            ConfigKind::Application,
            app.no.0.to_be_bytes().to_vec(),
            &app,
        )?;
        self.next.put_app(app);
        Ok(())
    }

    /// Adds or replaces an endpoint. New ones take their number from
    /// [`Snapshot::next_endpoint`].
    pub fn put_endpoint(&mut self, endpoint: Endpoint) -> Result<Arc<Endpoint>, Error> {
        self.row(
            ConfigKind::Endpoint,
            endpoint.no.0.to_be_bytes().to_vec(),
            &endpoint,
        )?;
        let endpoint = Arc::new(endpoint);
        self.next.put_endpoint(&endpoint);
        self.endpoints.push(Arc::clone(&endpoint));
        Ok(endpoint)
    }

    /// Adds or replaces an event type.
    pub fn put_event_type(&mut self, event_type: EventType) -> Result<(), Error> {
        self.row(
            ConfigKind::EventType,
            event_type.name.as_bytes().to_vec(),
            &event_type,
        )?;
        self.next.put_event_type(event_type);
        Ok(())
    }

    /// Adds or replaces an API key.
    pub fn put_key(&mut self, key: ApiKey) -> Result<(), Error> {
        self.row(ConfigKind::ApiKey, key.id.0.0.to_vec(), &key)?;
        self.next.put_key(key);
        Ok(())
    }

    /// Sets a value of the instance (its id, the number of the operator application …).
    pub fn put_instance(&mut self, name: &str, value: serde_json::Value) -> Result<(), Error> {
        self.row(ConfigKind::Instance, name.as_bytes().to_vec(), &value)?;
        self.next.put_instance(name, value);
        Ok(())
    }

    fn row(
        &mut self,
        kind: ConfigKind,
        key: Vec<u8>,
        object: &impl serde::Serialize,
    ) -> Result<(), Error> {
        let what = match kind {
            ConfigKind::Application => "application",
            ConfigKind::Endpoint => "endpoint",
            ConfigKind::EventType => "event type",
            ConfigKind::ApiKey => "key",
            ConfigKind::Instance => "instance setting",
        };
        let value = serde_json::to_vec(object)
            .map_err(|cause| Error::Encode { what, cause })?
            .into();
        self.rows.push(ConfigRow { kind, key, value });
        Ok(())
    }
}

fn read_row(snapshot: &mut Snapshot, row: &ConfigRow) -> Result<(), serde_json::Error> {
    match row.kind {
        ConfigKind::Application => snapshot.put_app(serde_json::from_slice(&row.value)?),
        ConfigKind::Endpoint => {
            let endpoint: Endpoint = serde_json::from_slice(&row.value)?;
            snapshot.put_endpoint(&Arc::new(endpoint));
        }
        ConfigKind::EventType => snapshot.put_event_type(serde_json::from_slice(&row.value)?),
        ConfigKind::ApiKey => snapshot.put_key(serde_json::from_slice(&row.value)?),
        ConfigKind::Instance => snapshot.put_instance(
            &String::from_utf8_lossy(&row.key),
            serde_json::from_slice(&row.value)?,
        ),
    }
    Ok(())
}
