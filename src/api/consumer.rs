//! Pull consumers: an application's messages are fetched instead of delivered.
//!
//! Owns: named places in the log that are stored (one configuration row each), and the leases on what
//! was handed out behind them. A lease is memory only: it ends with its time, with a commit of all of
//! it, with a seek, or with the process; what was not committed is handed out again. So a message is
//! handed out at least once, and by one reader at a time.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::ApiState;
use super::body::write_message;
use super::error::{Code, Problem};
use super::feed::{self, Feed, Found};
use super::history::{MessageFilter, end_of};
use super::message;
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::Snapshot;
use crate::ingest::fields::{self, Fields, Given};
use crate::ingest::{Item, ItemKind};
use crate::model::{AppNo, Message, MessageId};
use crate::store::ListKey;

/// Consumers of one application at most.
const MAX_CONSUMERS: usize = 100;
/// Milliseconds of a lease, and for how long a reader waits for something new.
const LEASE: std::ops::RangeInclusive<u64> = 1000..=3_600_000;
const DEFAULT_LEASE: u64 = 30_000;
const WAIT: std::ops::RangeInclusive<u64> = 0..=10_000;

/// A consumer as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Consumer {
    name: String,
    filter: MessageFilter,
    /// Everything up to this message is committed; `None` = nothing.
    offset: Option<MessageId>,
    /// A time that was sought stands before the first message behind it.
    after: Timestamp,
    created: Timestamp,
    updated: Timestamp,
}

impl Consumer {
    fn place(&self) -> ListKey {
        let sought = (self.after > Timestamp::ZERO).then(|| end_of(self.after));
        let committed = self.offset.map(feed::place);
        committed.max(sought).unwrap_or(feed::START)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_types: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<&'a [String]>,
    offset: Option<MessageId>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> Out<'a> {
    fn of(consumer: &'a Consumer) -> Self {
        let given = |list: &'a [String]| (!list.is_empty()).then_some(list);
        Self {
            id: &consumer.name,
            event_types: given(consumer.filter.event_types()),
            channels: given(consumer.filter.channels()),
            offset: consumer.offset,
            created_at: consumer.created,
            updated_at: consumer.updated,
        }
    }
}

/// What is handed out at the moment.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<(AppNo, String), Lease>>);

#[derive(Debug, Clone, Copy)]
enum Lease {
    /// Somebody waits for something to lease.
    Sought,
    /// Handed out up to here, until then (monotonic).
    Held { to: ListKey, until: Duration },
    /// Nothing is handed out; what lies before this place fits no filter.
    Skipped(ListKey),
}

/// Takes the mark of a reader that waits back, if it goes away.
struct Seeking<'a> {
    leases: &'a Leases,
    key: (AppNo, String),
}

impl Drop for Seeking<'_> {
    fn drop(&mut self) {
        let mut all = self.leases.0.lock();
        if matches!(all.get(&self.key), Some(Lease::Sought)) {
            all.remove(&self.key);
        }
    }
}

impl Leases {
    /// Begins to look for something to lease; answers what may be skipped.
    fn seek(
        &self,
        key: &(AppNo, String),
        now: Duration,
    ) -> Result<(Seeking<'_>, Option<ListKey>), Problem> {
        let mut all = self.0.lock();
        let skipped = match all.get(key) {
            None => None,
            Some(Lease::Skipped(place)) => Some(*place),
            Some(Lease::Held { until, .. }) if *until <= now => None,
            Some(Lease::Held { until, .. }) => {
                let left = until.saturating_sub(now).as_secs().saturating_add(1);
                let secs = u32::try_from(left).unwrap_or(u32::MAX);
                let detail = "What comes next is leased; commit it, or wait until the lease ends.";
                return Err(Problem::new(Code::Conflict, detail).after(secs));
            }
            Some(Lease::Sought) => {
                let detail = "Another request of this consumer waits for messages.";
                return Err(Problem::new(Code::Conflict, detail).after(1));
            }
        };
        all.insert(key.clone(), Lease::Sought);
        let seeking = Seeking {
            leases: self,
            key: key.clone(),
        };
        Ok((seeking, skipped))
    }

    fn set(&self, key: &(AppNo, String), lease: Lease) {
        self.0.lock().insert(key.clone(), lease);
    }

    fn end(&self, key: &(AppNo, String)) {
        self.0.lock().remove(key);
    }

    /// Everything up to here is committed: a lease that is used up ends.
    fn committed(&self, key: &(AppNo, String), place: ListKey) {
        let mut all = self.0.lock();
        if matches!(all.get(key), Some(Lease::Held { to, .. }) if *to <= place) {
            all.remove(key);
        }
    }
}

fn row(app: AppNo, name: &str) -> String {
    format!("consumer/{}/{name}", app.0)
}

fn find(snapshot: &Snapshot, app: AppNo, name: &str) -> Option<Consumer> {
    let value = snapshot.instance(&row(app, name))?;
    serde_json::from_value(value.clone()).ok()
}

/// The consumer of the path.
fn of_path(cx: &Cx) -> Result<(AppNo, Consumer), Problem> {
    let app = cx.app()?.app.no;
    let snapshot = cx.state.directory.peek();
    let found = find(&snapshot, app, cx.param("consumer_id"));
    let found = found.ok_or_else(|| Problem::not_found("consumer"))?;
    Ok((app, found))
}

/// PUT `/app/{app_id}/consumer/{consumer_id}`: makes it, or changes its filters.
pub(super) async fn put(mut cx: Cx) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let event_types = fields
        .set("eventTypes", 0..=500, fields::event_type)
        .value();
    let channels = fields.set("channels", 1..=10, fields::channel).value();
    let start = fields.read("startingPosition", starting_position).value();
    fields.finish()?;
    let app = cx.app()?.app.no;
    let name = cx.param("consumer_id").to_owned();
    if let Err((kind, msg)) = fields::uid(&name) {
        return Err(Item::at("path", "consumer_id", kind, msg).into());
    }
    let filter = MessageFilter::new(
        channels.unwrap_or_default(),
        Vec::new(),
        event_types.unwrap_or_default(),
    );
    let end = feed::end(cx.state.reader.as_ref(), app)?;
    let (offset, after) = match start.unwrap_or(Start::Latest) {
        Start::Earliest => (None, Timestamp::ZERO),
        Start::After(time) => (None, time),
        Start::Latest if end == feed::START => (None, Timestamp::ZERO),
        Start::Latest => (Some(feed::id(end)), Timestamp::ZERO),
    };
    let fresh = Consumer {
        name,
        filter,
        offset,
        after,
        created: cx.now,
        updated: cx.now,
    };
    let directory = &cx.state.directory;
    let stored = directory.carry_out(move |draft| {
        let known = find(draft, app, &fresh.name);
        let is_new = known.is_none();
        if is_new && count(draft, app) >= MAX_CONSUMERS {
            let detail = format!("An application has at most {MAX_CONSUMERS} consumers.");
            return Err(Problem::new(Code::Quota, detail));
        }
        let consumer = match known {
            Some(known) => Consumer {
                filter: fresh.filter,
                updated: fresh.updated,
                ..known
            },
            None => fresh,
        };
        draft.put_instance(&row(app, &consumer.name), value_of(&consumer)?)?;
        Ok::<_, Problem>((consumer, is_new))
    });
    let (consumer, is_new) = stored.await?;
    cx.state.consumers.end(&(app, consumer.name.clone()));
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(status, &Out::of(&consumer)))
}

fn count(snapshot: &Snapshot, app: AppNo) -> usize {
    let prefix = row(app, "");
    let rows = snapshot.instances(&prefix);
    rows.filter(|value| !value.is_null()).count()
}

fn value_of(consumer: &Consumer) -> Result<Value, Problem> {
    serde_json::to_value(consumer)
        .map_err(|_| Problem::new(Code::Server, "The consumer cannot be stored."))
}

/// Where a new consumer begins.
enum Start {
    Earliest,
    Latest,
    After(Timestamp),
}

fn starting_position(value: Value) -> Result<Start, fields::Wrong> {
    let text = value.as_str().unwrap_or_default();
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => Timestamp::parse_rfc3339(text)
            .map(Start::After)
            .ok_or_else(|| {
                let msg = "`earliest`, `latest` or an RFC 3339 time is wanted";
                (ItemKind::ValueError, msg.into())
            }),
    }
}

/// DELETE `/app/{app_id}/consumer/{consumer_id}`
pub(super) async fn delete(cx: Cx) -> Answer {
    let (app, consumer) = of_path(&cx)?;
    let name = row(app, &consumer.name);
    let directory = &cx.state.directory;
    let gone = directory.carry_out(move |draft| draft.put_instance(&name, Value::Null));
    gone.await.map_err(Problem::from)?;
    cx.state.consumers.end(&(app, consumer.name));
    Ok(Reply::empty())
}

#[derive(Serialize)]
struct Leased {
    data: Vec<Box<RawValue>>,
    /// To be committed once all of `data` is dealt with.
    offset: Option<MessageId>,
    done: bool,
}

/// GET `/app/{app_id}/consumer/{consumer_id}`: what comes next, for this reader alone until the lease
/// ends.
pub(super) async fn lease(cx: Cx) -> Answer {
    let query = cx.query();
    let limit = query.within("limit", &(1..=250))?.unwrap_or(50);
    let limit = usize::try_from(limit).unwrap_or(50);
    let lease = query.within("leaseMs", &LEASE)?.unwrap_or(DEFAULT_LEASE);
    let lease = Duration::from_millis(lease);
    let wait = Duration::from_millis(query.within("waitMs", &WAIT)?.unwrap_or(0));
    let (app, consumer) = of_path(&cx)?;
    let key = (app, consumer.name.clone());
    let state = &cx.state;
    let (seeking, skipped) = state.consumers.seek(&key, state.clock.monotonic())?;
    let place = consumer.place();
    let feed = Feed {
        app,
        filter: consumer.filter.clone(),
        after: skipped.map_or(place, |skipped| skipped.max(place)),
    };
    let mut found = once(state, feed.clone(), limit).await?;
    if found.messages.is_empty() && !wait.is_zero() {
        let after = found.reached;
        let looked = look(state, Feed { after, ..feed }, limit);
        if let Ok(later) = tokio::time::timeout(wait, looked).await {
            found = later?;
        }
    }
    let is_empty = found.messages.is_empty();
    let held = if is_empty {
        Lease::Skipped(found.reached)
    } else {
        let until = state.clock.monotonic().saturating_add(lease);
        let to = found.reached;
        Lease::Held { to, until }
    };
    state.consumers.set(&key, held);
    drop(seeking);
    let offset = (found.reached != feed::START).then(|| feed::id(found.reached));
    Ok(Reply::ok(&Leased {
        data: found.messages.iter().filter_map(shown).collect(),
        offset: if is_empty { consumer.offset } else { offset },
        done: found.done,
    }))
}

/// Reads on until there is something; waits for commits in between. Cancel safe.
async fn look(state: &ApiState, mut feed: Feed, limit: usize) -> Result<Found, Problem> {
    let mut commits = state.lane.commits();
    loop {
        commits.mark_unchanged();
        let found = once(state, feed.clone(), limit).await?;
        if !found.messages.is_empty() {
            return Ok(found);
        }
        feed.after = found.reached;
        if found.done {
            feed::news(&mut commits).await;
        }
    }
}

async fn once(state: &ApiState, feed: Feed, limit: usize) -> Result<Found, Problem> {
    let found = feed::read(Arc::clone(&state.reader), feed, limit).await;
    let failed = || Problem::new(Code::Server, "The log cannot be read at the moment.");
    Ok(found.ok_or_else(failed)??)
}

fn shown(message: &Message) -> Option<Box<RawValue>> {
    let mut out = Vec::with_capacity(message.payload.len() + 256);
    write_message(&mut out, message, true);
    out.push(b'}');
    RawValue::from_string(String::from_utf8(out).ok()?).ok()
}

/// POST `…/commit`: everything up to this message is dealt with. One that lies before what is committed
/// changes nothing.
pub(super) async fn commit(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let offset = fields.required("offset", fields::any);
    fields.finish()?;
    let (app, consumer) = of_path(&cx)?;
    let offset = known(&cx, app, &offset.unwrap_or_default())?;
    let place = feed::place(offset);
    move_to(&cx, app, consumer.name.clone(), move |consumer| {
        if place > consumer.place() {
            consumer.offset = Some(offset);
        }
    })
    .await?;
    cx.state.consumers.committed(&(app, consumer.name), place);
    Ok(Reply::empty())
}

/// POST `…/seek`: reading goes on behind a message or a time, forward or back; a lease ends.
pub(super) async fn seek(mut cx: Cx) -> Answer {
    let (offset, after) = sought(cx.fields().await?)?;
    let (app, consumer) = of_path(&cx)?;
    let offset = match offset {
        Some(text) => Some(known(&cx, app, &text)?),
        None => None,
    };
    move_to(&cx, app, consumer.name.clone(), move |consumer| {
        consumer.offset = offset;
        consumer.after = after.unwrap_or(Timestamp::ZERO);
    })
    .await?;
    cx.state.consumers.end(&(app, consumer.name));
    Ok(Reply::empty())
}

type Sought = (Option<String>, Option<Timestamp>);

fn sought(mut fields: Fields) -> Result<Sought, Vec<Item>> {
    let offset = fields.text("offset", fields::any);
    let after = fields.time("after");
    let is_one = matches!(
        (&offset, &after),
        (Given::Value(_), Given::Absent | Given::Null)
            | (Given::Absent | Given::Null, Given::Value(_))
    );
    if !is_one && !fields.has_mistake("offset") && !fields.has_mistake("after") {
        let msg = "exactly one of `offset` and `after` is wanted".into();
        fields.wrong("offset", (ItemKind::ValueError, msg));
    }
    fields.finish()?;
    Ok((offset.value(), after.value()))
}

/// The message of this id, if it is one of the application's.
fn known(cx: &Cx, app: AppNo, text: &str) -> Result<MessageId, Problem> {
    let wrong = || -> Problem {
        let msg = "not the id of a message of this application";
        Item::body("offset", ItemKind::ValueError, msg).into()
    };
    let place = message::list_key(text).ok_or_else(wrong)?;
    let found = cx.state.reader.message(place.at)?;
    let found = found.filter(|found| found.app == app && feed::place(found.id()) == place);
    found.map(|found| found.id()).ok_or_else(wrong)
}

/// Stores another place, made from the one that is stored then.
async fn move_to(
    cx: &Cx,
    app: AppNo,
    name: String,
    change: impl FnOnce(&mut Consumer) + Send + 'static,
) -> Result<(), Problem> {
    let now = cx.now;
    let directory = &cx.state.directory;
    let stored = directory.carry_out(move |draft| {
        let known = find(draft, app, &name);
        let mut consumer = known.ok_or_else(|| Problem::not_found("consumer"))?;
        change(&mut consumer);
        consumer.updated = now;
        Ok::<_, Problem>(draft.put_instance(&row(app, &name), value_of(&consumer)?)?)
    });
    stored.await
}
