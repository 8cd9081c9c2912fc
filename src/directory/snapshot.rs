//! The immutable state: maps that are cheap to copy and change in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;

use super::usage::Usage;
use crate::base::Parted;
use crate::model::{
    ApiKey, AppId, AppNo, Application, Endpoint, EndpointId, EndpointNo, EventType, KeyId, Source,
    SourceId, SourceNo,
};
use crate::policy::filter::Routes;
use crate::policy::quota;
use crate::policy::schema::Schema;
use crate::store::ConfigKind;
use crate::vault::Keyring;

/// Everything that is configured, at one revision. Cloning copies pointers only.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub(super) revision: u64,
    apps: Parted<AppNo, Arc<AppEntry>>,
    app_ids: Parted<AppId, AppNo>,
    app_uids: Parted<String, AppNo>,
    endpoints: Parted<EndpointNo, Arc<Endpoint>>,
    /// By name; small and rarely changed, so it is copied whole.
    event_types: Arc<BTreeMap<String, Arc<EventType>>>,
    /// Of the event types whose payloads are looked at, by name; few.
    schemas: Arc<HashMap<String, Arc<Schema>>>,
    keys: Arc<HashMap<KeyId, Arc<ApiKey>>>,
    /// Without deleted ones.
    sources: Parted<SourceNo, Arc<Source>>,
    source_ids: Parted<SourceId, SourceNo>,
    /// By the hash of a token, rotated ones included.
    source_tokens: Parted<[u8; 32], SourceNo>,
    /// Shared sources by provider; few.
    shared_sources: Arc<BTreeMap<String, SourceNo>>,
    pub(super) keyring: Keyring,
    /// Rows whose secrets are in the clear, from before there was a vault.
    clear: Arc<BTreeSet<(ConfigKind, Vec<u8>)>>,
    instance: Arc<BTreeMap<String, serde_json::Value>>,
    total: Arc<Load>,
    next_app: u32,
    next_endpoint: u32,
    next_source: u32,
}

/// One application with what belongs to it.
#[derive(Clone)]
pub struct AppEntry {
    /// The application; never a deleted one.
    pub app: Arc<Application>,
    /// Its unfinished deliveries, counted across all snapshots.
    pub load: Arc<Load>,
    /// Its endpoints that are not deleted, oldest first.
    pub endpoints: Vec<Arc<Endpoint>>,
    routes: OnceLock<Arc<Routes>>,
}

/// Unfinished deliveries of one application: counted up at acceptance, down when they end. What is
/// counted here is counted in the sum of all applications as well.
#[derive(Debug, Default)]
pub struct Load {
    deliveries: AtomicU64,
    bytes: AtomicU64,
    usage: Usage,
    /// The sum that this is a part of; `None` for the sum itself.
    total: Option<Arc<Load>>,
}

impl Drop for Load {
    /// The application is gone: what it still had pending leaves the sum.
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            let (deliveries, bytes) = self.pending();
            total.subtract(deliveries, bytes);
        }
    }
}

impl Load {
    fn within(total: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            deliveries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            usage: Usage::default(),
            total: Some(Arc::clone(total)),
        })
    }

    /// What was accepted this month, against the application's quota.
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Deliveries not finished, and their payload bytes.
    pub fn pending(&self) -> (u64, u64) {
        (
            self.deliveries.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// Counts `deliveries` of `bytes` payload bytes in sum in.
    pub fn add(&self, deliveries: u64, bytes: u64) {
        self.deliveries.fetch_add(deliveries, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(total) = &self.total {
            total.add(deliveries, bytes);
        }
    }

    /// Counts them out; stops at zero.
    pub fn remove(&self, deliveries: u64, bytes: u64) {
        let (deliveries, bytes) = self.subtract(deliveries, bytes);
        if let Some(total) = &self.total {
            total.subtract(deliveries, bytes);
        }
    }

    /// Answers what was really taken away.
    fn subtract(&self, deliveries: u64, bytes: u64) -> (u64, u64) {
        let take = |counter: &AtomicU64, by: u64| {
            let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(by))
            });
            before.unwrap_or(0).min(by)
        };
        (take(&self.deliveries, deliveries), take(&self.bytes, bytes))
    }
}

impl AppEntry {
    /// Which of its endpoints want a message; built on first use after a change.
    pub fn routes(&self) -> &Routes {
        self.routes.get_or_init(|| {
            Arc::new(Routes::build(
                self.endpoints.iter().map(|ep| (ep.no, ep.as_ref())),
            ))
        })
    }

    /// The endpoint with this id or uid.
    pub fn endpoint(&self, id_or_uid: &str) -> Option<&Arc<Endpoint>> {
        if let Ok(id) = EndpointId::parse(id_or_uid) {
            // Oldest first is by id, so a search by halves finds it.
            let place = self.endpoints.binary_search_by_key(&id, |ep| ep.id).ok()?;
            return self.endpoints.get(place);
        }
        self.endpoints
            .iter()
            .find(|ep| ep.uid.as_deref() == Some(id_or_uid))
    }
}

impl Snapshot {
    /// Grows by one with every change.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The number the next application gets.
    pub const fn next_app(&self) -> AppNo {
        AppNo(self.next_app)
    }

    /// The number the next endpoint gets.
    pub const fn next_endpoint(&self) -> EndpointNo {
        EndpointNo(self.next_endpoint)
    }

    /// The application with this id or uid, unless deleted.
    pub fn app(&self, id_or_uid: &str) -> Option<&Arc<AppEntry>> {
        let no = match AppId::parse(id_or_uid) {
            Ok(id) => self.app_ids.get(&id)?,
            Err(_) => self.app_uids.get(id_or_uid)?,
        };
        self.apps.get(no)
    }

    /// The application with this number, unless deleted.
    pub fn app_by_no(&self, no: AppNo) -> Option<&Arc<AppEntry>> {
        self.apps.get(&no)
    }

    /// All applications that are not deleted, in no order.
    pub fn apps(&self) -> impl Iterator<Item = &Arc<AppEntry>> {
        self.apps.values()
    }

    /// The endpoint with this number, deleted ones included.
    pub fn endpoint(&self, no: EndpointNo) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&no)
    }

    /// All endpoints, deleted ones included, in no order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// The number the next source gets.
    pub const fn next_source(&self) -> SourceNo {
        SourceNo(self.next_source)
    }

    /// The source with this id, unless deleted.
    pub fn source(&self, id: SourceId) -> Option<&Arc<Source>> {
        self.sources.get(self.source_ids.get(&id)?)
    }

    /// The source that a token with this SHA-256 leads to, whether or not the token has expired.
    pub fn source_by_token(&self, hash: &[u8; 32]) -> Option<&Arc<Source>> {
        self.sources.get(self.source_tokens.get(hash)?)
    }

    /// The source bound to `/webhooks/{provider}/`.
    pub fn shared_source(&self, provider: &str) -> Option<&Arc<Source>> {
        self.sources.get(self.shared_sources.get(provider)?)
    }

    /// The source with this number, unless deleted.
    pub fn source_by_no(&self, no: SourceNo) -> Option<&Arc<Source>> {
        self.sources.get(&no)
    }

    /// All sources that are not deleted, in no order.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// The data keys of the vault.
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Rows whose secrets are in the clear, from before there was a vault.
    pub fn in_the_clear(&self) -> usize {
        self.clear.len()
    }

    pub(super) fn clear_rows(&self) -> impl Iterator<Item = &(ConfigKind, Vec<u8>)> {
        self.clear.iter()
    }

    pub(super) fn seen_clear(&mut self, kind: ConfigKind, key: &[u8]) {
        Arc::make_mut(&mut self.clear).insert((kind, key.to_vec()));
    }

    pub(super) fn seen_sealed(&mut self, kind: ConfigKind, key: &[u8]) {
        if !self.clear.is_empty() {
            Arc::make_mut(&mut self.clear).remove(&(kind, key.to_vec()));
        }
    }

    /// The event type of this name, archived ones included, expunged ones not.
    pub fn event_type(&self, name: &str) -> Option<&Arc<EventType>> {
        self.event_types.get(name)
    }

    /// All event types by name.
    pub fn event_types(&self) -> &BTreeMap<String, Arc<EventType>> {
        &self.event_types
    }

    /// The schema that payloads of this type are held against, if they are.
    pub fn schema(&self, event_type: &str) -> Option<&Arc<Schema>> {
        if self.schemas.is_empty() {
            return None;
        }
        self.schemas.get(event_type)
    }

    /// The API key with this id, revoked ones included.
    pub fn key(&self, id: &KeyId) -> Option<&Arc<ApiKey>> {
        self.keys.get(id)
    }

    /// All API keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
        self.keys.values()
    }

    /// Unfinished deliveries of all applications, the sum of their [`AppEntry::load`].
    pub const fn total(&self) -> &Arc<Load> {
        &self.total
    }

    /// A value of the instance.
    pub fn instance(&self, name: &str) -> Option<&serde_json::Value> {
        self.instance.get(name)
    }

    /// Values of the instance whose names begin with `prefix`.
    pub fn instances<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a serde_json::Value> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let rows = self.instance.range::<str, _>(from);
        rows.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
    }

    pub(super) fn put_app(&mut self, app: Application) {
        let no = app.no;
        self.next_app = self.next_app.max(no.0.saturating_add(1));
        let before = self.apps.get(&no).and_then(|entry| entry.app.uid.clone());
        if let Some(uid) = before {
            self.app_uids.remove(uid.as_str());
        }
        if app.deleted.is_some() {
            self.apps.remove(&no);
            self.app_ids.remove(&app.id);
            return;
        }
        if let Some(uid) = &app.uid {
            self.app_uids.put(uid.clone(), no);
        }
        self.app_ids.put(app.id, no);
        let app = Arc::new(app);
        let of_plan = || quota::plan(app.plan.as_deref()?).flatten();
        let limit = app.quotas.deliveries_per_month.or_else(of_plan);
        if let Some(entry) = self.apps.get_mut(&no) {
            entry.load.usage().set_limit(limit);
            Arc::make_mut(entry).app = app;
        } else {
            let entry = AppEntry {
                app,
                load: Load::within(&self.total),
                endpoints: Vec::new(),
                routes: OnceLock::new(),
            };
            entry.load.usage().set_limit(limit);
            self.apps.put(no, Arc::new(entry));
        }
    }

    pub(super) fn put_endpoint(&mut self, endpoint: &Arc<Endpoint>) {
        self.next_endpoint = self.next_endpoint.max(endpoint.no.0.saturating_add(1));
        self.endpoints.put(endpoint.no, Arc::clone(endpoint));
        let Some(entry) = self.apps.get_mut(&endpoint.app) else {
            return;
        };
        let entry = Arc::make_mut(entry);
        entry.routes = OnceLock::new();
        match entry
            .endpoints
            .binary_search_by_key(&endpoint.id, |ep| ep.id)
        {
            Ok(place) if endpoint.deleted.is_some() => {
                entry.endpoints.remove(place);
            }
            Ok(place) => {
                if let Some(slot) = entry.endpoints.get_mut(place) {
                    *slot = Arc::clone(endpoint);
                }
            }
            Err(_) if endpoint.deleted.is_some() => {}
            Err(place) => {
                if entry.endpoints.is_empty() {
                    entry.endpoints.reserve_exact(1); // most have one; room for four costs a hundred thousand of them
                }
                entry.endpoints.insert(place, Arc::clone(endpoint));
            }
        }
    }

    pub(super) fn put_source(&mut self, source: &Arc<Source>) {
        self.next_source = self.next_source.max(source.no.0.saturating_add(1));
        if let Some(before) = self.sources.get(&source.no).cloned() {
            for (token, _) in before.tokens() {
                self.source_tokens.remove(token);
            }
            if before.is_shared {
                Arc::make_mut(&mut self.shared_sources).remove(&before.provider);
            }
        }
        if source.deleted.is_some() {
            self.sources.remove(&source.no);
            self.source_ids.remove(&source.id);
            return;
        }
        for (token, _) in source.tokens() {
            self.source_tokens.put(*token, source.no);
        }
        if source.is_shared {
            let shared = Arc::make_mut(&mut self.shared_sources);
            shared.insert(source.provider.clone(), source.no);
        }
        self.source_ids.put(source.id, source.no);
        self.sources.put(source.no, Arc::clone(source));
    }

    pub(super) fn put_event_type(&mut self, event_type: EventType) {
        self.put_schema(&event_type);
        let types = Arc::make_mut(&mut self.event_types);
        if event_type.deleted {
            types.remove(&event_type.name);
        } else {
            types.insert(event_type.name.clone(), Arc::new(event_type));
        }
    }

    fn put_schema(&mut self, event_type: &EventType) {
        let name = &event_type.name;
        if let Some(schema) = Schema::of(event_type) {
            if let Some(why) = schema.mistake() {
                tracing::warn!(
                    event_type = name,
                    why,
                    "payloads are not held against a schema"
                );
            }
            Arc::make_mut(&mut self.schemas).insert(name.clone(), Arc::new(schema));
        } else if self.schemas.contains_key(name) {
            Arc::make_mut(&mut self.schemas).remove(name);
        }
    }

    pub(super) fn put_key(&mut self, key: ApiKey) {
        Arc::make_mut(&mut self.keys).insert(key.id, Arc::new(key));
    }

    pub(super) fn put_instance(&mut self, name: &str, value: serde_json::Value) {
        Arc::make_mut(&mut self.instance).insert(name.to_owned(), value);
    }
}
