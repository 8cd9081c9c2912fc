//! Who exists: applications, endpoints, event types and keys, as an immutable snapshot that is
//! swapped whole.
//!
//! Readers take the current [`Snapshot`] without a lock. A change works on a [`Draft`], is committed
//! by the lane with the expected revision, and only then becomes the current snapshot; changes are
//! made one at a time. Every changed endpoint is told to the scheduler, so an edit takes effect at
//! the next attempt.
//!
//! Elsewhere: what fields may hold (`api`), how rows are kept (`store`).

mod noted;
mod rotate;
mod snapshot;
mod usage;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::base::{Timestamp, task};
use crate::lane::{self, Lane};
use crate::model::{ApiKey, AppNo, Application, Endpoint, EventType, Source};
use crate::store::{self, ConfigKind, ConfigRow, Reader};
use crate::vault::{self, DataKeyRow, Vault};

use noted::Touched;
pub use noted::{AuditEntry, Note};
pub use rotate::Rotated;
pub use snapshot::{AppEntry, Load, Snapshot};
pub use usage::{Exhausted, Usage, Used};

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
    /// Its secrets cannot be sealed.
    #[error("the change was not stored: its secrets cannot be sealed")]
    Vault(#[from] vault::Error),
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
    /// Its secrets stay closed: a master key is missing, or rows were changed.
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

/// The owner of the snapshot.
pub struct Directory {
    current: ArcSwap<Snapshot>,
    lane: Lane,
    vault: Arc<Vault>,
    /// Changed endpoints on their way to the scheduler. Bounded: when it is full the change waits
    /// (it is stored already), and with it the API call that made it.
    changed: mpsc::Sender<Arc<Endpoint>>,
    /// One change at a time.
    changing: Mutex<()>,
    /// The sum that every snapshot shares.
    total: Arc<Load>,
}

impl Directory {
    /// Reads everything from the store; `vault` opens what is sealed there and seals what is written.
    pub fn load(
        reader: &dyn Reader,
        lane: Lane,
        changed: mpsc::Sender<Arc<Endpoint>>,
        vault: Arc<Vault>,
    ) -> Result<Self, LoadError> {
        let (revision, rows) = reader.config()?;
        let mut snapshot = Snapshot::default();
        snapshot.revision = revision;
        // The keys first: other rows need them.
        for row in rows.iter().filter(|row| row.kind == ConfigKind::DataKey) {
            let key: DataKeyRow = parse(row, &row.value)?;
            vault.admit(&mut snapshot.keyring, key)?;
        }
        for row in rows.iter().filter(|row| row.kind != ConfigKind::DataKey) {
            read_row(&mut snapshot, row, &vault)?;
        }
        for entry in snapshot.apps() {
            let stored = snapshot.instance(&usage_of(entry.app.no));
            let stored = stored.and_then(|value| serde_json::from_value(value.clone()).ok());
            let since = entry.app.updated;
            let usage = entry.load.usage();
            usage.restore(reader, entry.app.no, (stored, since))?;
        }
        let total = Arc::clone(snapshot.total());
        Ok(Self {
            current: ArcSwap::from_pointee(snapshot),
            lane,
            vault,
            changed,
            changing: Mutex::new(()),
            total,
        })
    }

    /// What seals and opens secrets.
    pub fn vault(&self) -> &Vault {
        &self.vault
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
        self.change_noted(None, edit).await
    }

    /// [`Directory::change`], with an entry of the audit log in the same commit if anything changes.
    ///
    /// Not cancel safe, as that.
    pub async fn change_noted<T, E: From<Error>>(
        &self,
        note: Option<Note>,
        edit: impl FnOnce(&mut Draft) -> Result<T, E>,
    ) -> Result<T, E> {
        let _one = self.changing.lock().await;
        let base = self.current.load_full();
        let mut draft = Draft {
            next: Snapshot::clone(&base),
            vault: Arc::clone(&self.vault),
            rows: Vec::new(),
            endpoints: Vec::new(),
            touched: note.as_ref().map(|_| Vec::new()),
        };
        let answer = edit(&mut draft)?;
        if draft.rows.is_empty() {
            return Ok(answer);
        }
        if let Some(note) = note {
            draft.enter(note)?;
        }
        let Draft {
            mut next,
            rows,
            endpoints,
            ..
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
        self.carry_out_noted(None, edit).await
    }

    /// [`Directory::carry_out`] with an entry of the audit log ([`Directory::change_noted`]). Cancel safe.
    pub async fn carry_out_noted<T, E>(
        self: &Arc<Self>,
        note: Option<Note>,
        edit: impl FnOnce(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let directory = Arc::clone(self);
        task::detach(async move {
            let done = directory.change_noted(note, edit).await;
            drop(reply.send(done)); // the caller went away; the change stands
        });
        match answer.await {
            Ok(done) => done,
            Err(_) => Err(Error::Lane(lane::Error::Failed).into()), // the runtime is ending
        }
    }
}

impl Directory {
    /// Writes an entry of the audit log for something that changes no configuration. Cancel safe.
    ///
    /// # Errors
    /// It was not stored.
    pub async fn note(self: &Arc<Self>, note: Note) -> Result<(), Error> {
        self.carry_out(move |draft| draft.enter(note)).await
    }
}

/// The setting that holds an application's counter.
fn usage_of(app: AppNo) -> String {
    format!("usage/{}", app.0)
}

impl Directory {
    /// Stores the counters of applications with a quota, all in one change, where they have changed.
    /// Cancel safe.
    ///
    /// # Errors
    /// They were not stored.
    pub async fn store_usage(self: &Arc<Self>, now: Timestamp) -> Result<(), Error> {
        let snapshot = self.snapshot();
        let due = snapshot.apps().filter_map(|entry| {
            let stored = entry.load.usage().unstored(now)?;
            Some((usage_of(entry.app.no), stored))
        });
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            return Ok(());
        }
        self.carry_out(move |draft| {
            for (name, stored) in due {
                let what = "usage of an application";
                let value =
                    serde_json::to_value(stored).map_err(|cause| Error::Encode { what, cause })?;
                draft.put_instance(&name, value)?;
            }
            Ok(())
        })
        .await
    }
}

/// A change in the making: reads see what was put before.
pub struct Draft {
    next: Snapshot,
    vault: Arc<Vault>,
    rows: Vec<ConfigRow>,
    endpoints: Vec<Arc<Endpoint>>,
    /// What was put, if the audit log is to know.
    touched: Option<Vec<Touched>>,
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
        let before = self
            .next
            .app_by_no(app.no)
            .map(|entry| Arc::clone(&entry.app));
        let of = (ConfigKind::Application, app.id.to_string());
        self.touch(of, Some(app.no), before.as_deref(), &app);
        let quota = before.map_or(app.quotas.concurrency, |before| before.quotas.concurrency);
        if quota != app.quotas.concurrency {
            // The scheduler looks an application's quota up with its endpoints.
            let entry = self.next.app_by_no(app.no);
            let own = entry.map_or(&[][..], |entry| &entry.endpoints);
            self.endpoints.extend(own.iter().cloned());
        }
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
        let before = self.next.endpoint(endpoint.no).cloned();
        let of = (ConfigKind::Endpoint, endpoint.id.to_string());
        self.touch(of, Some(endpoint.app), before.as_deref(), &endpoint);
        let endpoint = Arc::new(endpoint);
        self.next.put_endpoint(&endpoint);
        self.endpoints.push(Arc::clone(&endpoint));
        Ok(endpoint)
    }

    /// Adds or replaces a source. New ones take their number from [`Snapshot::next_source`].
    pub fn put_source(&mut self, source: Source) -> Result<Arc<Source>, Error> {
        self.row(
            ConfigKind::Source,
            source.no.0.to_be_bytes().to_vec(),
            &source,
        )?;
        let before = self.next.source_by_no(source.no).cloned();
        let of = (ConfigKind::Source, source.id.to_string());
        self.touch(of, Some(source.app), before.as_deref(), &source);
        let source = Arc::new(source);
        self.next.put_source(&source);
        Ok(source)
    }

    /// Adds or replaces an event type.
    pub fn put_event_type(&mut self, event_type: EventType) -> Result<(), Error> {
        self.row(
            ConfigKind::EventType,
            event_type.name.as_bytes().to_vec(),
            &event_type,
        )?;
        let before = self.next.event_type(&event_type.name).cloned();
        let of = (ConfigKind::EventType, event_type.name.clone());
        self.touch(of, None, before.as_deref(), &event_type);
        self.next.put_event_type(event_type);
        Ok(())
    }

    /// Adds or replaces an API key.
    pub fn put_key(&mut self, key: ApiKey) -> Result<(), Error> {
        self.row(ConfigKind::ApiKey, key.id.0.0.to_vec(), &key)?;
        let before = self.next.key(&key.id).cloned();
        let of = (ConfigKind::ApiKey, key.id.to_string());
        self.touch(of, key.app, before.as_deref(), &key);
        self.next.put_key(key);
        Ok(())
    }

    /// Sets a value of the instance (its id, the number of the operator application …).
    pub fn put_instance(&mut self, name: &str, value: serde_json::Value) -> Result<(), Error> {
        self.row(ConfigKind::Instance, name.as_bytes().to_vec(), &value)?;
        let of = (ConfigKind::Instance, name.to_owned());
        self.touch(
            of,
            None,
            None::<&serde_json::Value>,
            &serde_json::Value::Null,
        );
        self.next.put_instance(name, value);
        Ok(())
    }

    fn row(
        &mut self,
        kind: ConfigKind,
        key: Vec<u8>,
        object: &impl serde::Serialize,
    ) -> Result<(), Error> {
        let what = name(kind);
        let encode = |cause| Error::Encode { what, cause };
        let value = if let Some(app) = secrets_of(kind, object).map_err(encode)? {
            let (app, mut value) = app;
            self.seal_for(app)?;
            self.vault
                .seal(&self.next.keyring, (kind, &key), &mut value)?;
            serde_json::to_vec(&value)
        } else {
            serde_json::to_vec(object)
        };
        let value = value.map_err(encode)?.into();
        self.next.seen_sealed(kind, &key);
        self.rows.push(ConfigRow { kind, key, value });
        Ok(())
    }

    /// Makes sure that there is a data key for secrets of `app`; a new one is stored in this change.
    fn seal_for(&mut self, app: AppNo) -> Result<(), Error> {
        if self.next.keyring.has(app) {
            return Ok(());
        }
        let row = self.vault.make(&mut self.next.keyring, app)?;
        self.data_key(&row)
    }

    fn data_key(&mut self, row: &DataKeyRow) -> Result<(), Error> {
        let what = name(ConfigKind::DataKey);
        let value = serde_json::to_vec(row).map_err(|cause| Error::Encode { what, cause })?;
        self.rows.push(ConfigRow {
            kind: ConfigKind::DataKey,
            key: row.no.to_be_bytes().to_vec(),
            value: value.into(),
        });
        Ok(())
    }
}

const fn name(kind: ConfigKind) -> &'static str {
    match kind {
        ConfigKind::Application => "application",
        ConfigKind::Endpoint => "endpoint",
        ConfigKind::EventType => "event type",
        ConfigKind::ApiKey => "key",
        ConfigKind::Instance => "instance setting",
        ConfigKind::DataKey => "data key",
        ConfigKind::Source => "source",
        ConfigKind::Audit => "entry of the audit log",
    }
}

/// An object that holds secrets, as JSON, with the application whose data key seals them.
fn secrets_of(
    kind: ConfigKind,
    object: &impl serde::Serialize,
) -> Result<Option<(AppNo, serde_json::Value)>, serde_json::Error> {
    if !matches!(kind, ConfigKind::Endpoint | ConfigKind::Source) {
        return Ok(None);
    }
    let value = serde_json::to_value(object)?;
    Ok(Vault::owner(kind, &value).map(|app| (app, value)))
}

fn parse<T: serde::de::DeserializeOwned>(row: &ConfigRow, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|cause| unreadable(row, cause))
}

fn unreadable(row: &ConfigRow, cause: serde_json::Error) -> LoadError {
    LoadError::Row {
        kind: row.kind,
        key: row.key.clone(),
        cause,
    }
}

/// An object of a row whose secrets are opened first.
fn opened<T: serde::de::DeserializeOwned>(
    snapshot: &mut Snapshot,
    row: &ConfigRow,
    vault: &Vault,
) -> Result<T, LoadError> {
    let mut value: serde_json::Value = parse(row, &row.value)?;
    let clear = vault.open(&snapshot.keyring, (row.kind, &row.key), &mut value)?;
    if clear > 0 {
        snapshot.seen_clear(row.kind, &row.key);
    }
    serde_json::from_value(value).map_err(|cause| unreadable(row, cause))
}

fn read_row(snapshot: &mut Snapshot, row: &ConfigRow, vault: &Vault) -> Result<(), LoadError> {
    match row.kind {
        ConfigKind::Application => snapshot.put_app(parse(row, &row.value)?),
        ConfigKind::Endpoint => {
            let endpoint: Endpoint = opened(snapshot, row, vault)?;
            snapshot.put_endpoint(&Arc::new(endpoint));
        }
        ConfigKind::Source => {
            let source: Source = opened(snapshot, row, vault)?;
            snapshot.put_source(&Arc::new(source));
        }
        ConfigKind::EventType => snapshot.put_event_type(parse(row, &row.value)?),
        ConfigKind::ApiKey => snapshot.put_key(parse(row, &row.value)?),
        ConfigKind::Instance => {
            snapshot.put_instance(&String::from_utf8_lossy(&row.key), parse(row, &row.value)?)
        }
        // Data keys were admitted before all others; the audit log is not kept in memory.
        ConfigKind::DataKey | ConfigKind::Audit => {}
    }
    Ok(())
}
