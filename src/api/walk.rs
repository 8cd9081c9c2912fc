//! Walking through history in the background: recover (dead deliveries), replay-missing (never
//! tried), bulk-replay (whatever the filters say), purge (payloads of an application), discard (dead
//! deliveries that nobody wants any more), replay (`replay`).
//!
//! Each answers 202 with a background task that goes through the history in pages and hands the
//! scheduler at most 100 deliveries at a time, so a year of failures costs no memory. The scheduler
//! paces them; while it is busy the task waits. A walk is data: it is stored with its task and goes on
//! after a restart. The page it was on is then walked again, which does no harm: a delivery that was
//! taken on is not dead or untried any more, and one that waits is left as it is. A bulk replay may
//! send those of one page a second time.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ApiState;
use super::attempt::status;
use super::error::Problem;
use super::history::{MessageFilter, end_of, start_of};
use super::quarantine::still_dead;
use super::replay::{self, Replay};
use super::request::{Answer, Cx};
use super::task::{New, Status};
use crate::base::{Timestamp, task};
use crate::ingest::fields::{self, Fields, Given};
use crate::ingest::{Item, ItemKind};
use crate::lane;
use crate::model::{AppNo, Delivery, EndpointNo, FailureKind, LaneId, Message, Position, TaskId};
use crate::policy::filter::{facts, why_not_in_full};
use crate::schedule;
use crate::store::{self, Content, ListKey, Page, Reader, Settlement};

/// Deliveries handed over at a time, and list entries read at a time.
const PAGE: usize = 100;
/// History of at least this long can always be asked for.
const ALWAYS_GRANTED: Duration = Duration::from_secs(14 * 86_400);

/// What is walked through, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walk {
    kind: Kind,
    app: AppNo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointNo>,
    since: Timestamp,
    until: Timestamp,
    #[serde(default)]
    pub(super) filter: Filter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replay: Option<Replay>,
    /// Behind which entry it goes on: time, lane, sequence number, attempt.
    at: (Timestamp, u32, u64, u16),
    taken: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Dead,
    Discard,
    Missing,
    Bulk,
    Purge,
    Replay,
}

impl Kind {
    const fn task(self) -> &'static str {
        match self {
            Self::Dead => "endpoint.recover",
            Self::Discard => "quarantine.discard",
            Self::Missing => "endpoint.replay",
            Self::Bulk => "endpoint.bulk-replay",
            Self::Purge => "application.purge_content",
            Self::Replay => "application.replay",
        }
    }
}

/// What BulkReplayIn can ask for beside the range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    pub(super) messages: MessageFilter,
    #[serde(default)]
    pub(super) status: Option<u8>,
    #[serde(default)]
    pub(super) class: Option<u16>,
    /// Names of failures of the last attempt; empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) failures: Vec<String>,
}

impl Walk {
    /// What the task shows.
    pub(super) fn data(&self) -> Value {
        match self.kind {
            Kind::Dead | Kind::Discard | Kind::Missing | Kind::Bulk => {
                json!({ "deliveries": self.taken })
            }
            Kind::Purge => json!({ "messages": self.taken }),
            Kind::Replay => {
                let elsewhere = self.replay.as_ref().filter(|one| one.is_elsewhere());
                match elsewhere {
                    Some(one) => json!({ "deliveries": self.taken, "failed": one.failed }),
                    None => json!({ "deliveries": self.taken }),
                }
            }
        }
    }

    const fn place(&self) -> ListKey {
        let (time, lane, seq, no) = self.at;
        ListKey {
            time,
            at: Position {
                lane: LaneId(lane),
                seq,
            },
            no,
        }
    }

    const fn go_on(&mut self, key: ListKey) {
        self.at = (key.time, key.at.lane.0, key.at.seq, key.no);
    }

    fn delivery(&self, at: Position) -> Option<Delivery> {
        let endpoint = self.endpoint?;
        Some(Delivery { at, endpoint })
    }
}

/// POST `…/endpoint/{endpoint_id}/recover`
pub(super) async fn recover(cx: Cx) -> Answer {
    of_endpoint(cx, Kind::Dead).await
}

/// POST `…/endpoint/{endpoint_id}/replay-missing`
pub(super) async fn replay_missing(cx: Cx) -> Answer {
    of_endpoint(cx, Kind::Missing).await
}

/// POST `…/endpoint/{endpoint_id}/bulk-replay`
pub(super) async fn bulk_replay(cx: Cx) -> Answer {
    of_endpoint(cx, Kind::Bulk).await
}

/// POST `/app/{app_id}/msg/expunge-all-contents`
pub(super) async fn purge(mut cx: Cx) -> Answer {
    cx.fields_or_none().await?.finish()?;
    let app = cx.app()?.app.no;
    let range = (Timestamp::ZERO, cx.now);
    begin(
        cx,
        (Kind::Purge, None),
        (app, None),
        range,
        Filter::default(),
    )
    .await
}

async fn of_endpoint(mut cx: Cx, kind: Kind) -> Answer {
    let mut fields = cx.fields().await?;
    let range = read_range(&mut fields);
    let filter = match kind {
        Kind::Bulk => Filter::read(&mut fields),
        Kind::Dead | Kind::Discard | Kind::Missing | Kind::Purge | Kind::Replay => {
            Filter::default()
        }
    };
    fields.finish()?;
    let range = check_range(&cx, range)?;
    let (app, endpoint) = cx.endpoint()?;
    let whose = (app.app.no, Some(endpoint.no));
    begin(cx, (kind, None), whose, range, filter).await
}

/// `since` and `until` as they were sent.
pub(super) fn read_range(fields: &mut Fields) -> (Timestamp, Option<Timestamp>) {
    let since = fields.time("since");
    if !matches!(since, Given::Value(_)) && !fields.has_mistake("since") {
        let missing = (ItemKind::Missing, "this field is required".into());
        fields.wrong("since", missing);
    }
    let until = fields.time("until").value();
    (since.value().unwrap_or(Timestamp::ZERO), until)
}

/// The range, if there can be history in it.
pub(super) fn check_range(
    cx: &Cx,
    (since, until): (Timestamp, Option<Timestamp>),
) -> Result<(Timestamp, Timestamp), Problem> {
    let kept = cx.state.retention.messages.max(ALWAYS_GRANTED);
    if since < cx.now.minus(kept) {
        let msg = format!("history is kept for {} days", kept.as_secs() / 86_400);
        return Err(Item::body("since", ItemKind::ValueError, msg).into());
    }
    if until.is_some_and(|until| until < since) {
        return Err(Item::body("until", ItemKind::ValueError, "lies before `since`").into());
    }
    Ok((since, until.unwrap_or(cx.now)))
}

/// Retries or discards the dead deliveries of an endpoint whose last attempt failed so. The body may
/// narrow the time in which their messages were accepted.
pub(super) async fn of_failures(
    mut cx: Cx,
    kind: Kind,
    (app, endpoint): (AppNo, EndpointNo),
    failures: Vec<String>,
) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let since = fields.time("since").value();
    let until = fields.time("until").value();
    fields.finish()?;
    let since = since.unwrap_or(Timestamp::ZERO);
    if until.is_some_and(|until| until < since) {
        return Err(Item::body("until", ItemKind::ValueError, "lies before `since`").into());
    }
    let range = (since, until.unwrap_or(cx.now));
    let filter = Filter {
        failures,
        ..Filter::default()
    };
    begin(cx, (kind, None), (app, Some(endpoint)), range, filter).await
}

impl Filter {
    fn read(fields: &mut Fields) -> Self {
        let event_types = fields
            .set("eventTypes", 0..=500, fields::event_type)
            .value();
        let channel = fields.text("channel", fields::channel).value();
        let tag = fields.text("tag", fields::tag).value();
        let status = fields.number("status", 0..=4).value();
        let class = fields.read("statusCodeClass", |value| {
            let class = fields::whole(&value, &(0..=500))?;
            if [0, 100, 200, 300, 400, 500].contains(&class) {
                return Ok(class);
            }
            let msg = "one of 0, 100, 200, 300, 400, 500 is wanted";
            Err((ItemKind::ValueError, msg.into()))
        });
        Self {
            messages: MessageFilter::new(
                channel.into_iter().collect(),
                tag.into_iter().collect(),
                event_types.unwrap_or_default(),
            ),
            status: status.and_then(|n| u8::try_from(n).ok()),
            class: class.value().and_then(|n| u16::try_from(n).ok()),
            failures: Vec::new(),
        }
    }
}

pub(super) async fn begin(
    cx: Cx,
    (kind, replay): (Kind, Option<Replay>),
    (app, endpoint): (AppNo, Option<EndpointNo>),
    (since, until): (Timestamp, Timestamp),
    filter: Filter,
) -> Answer {
    let start = start_of(since);
    let mut walk = Walk {
        kind,
        app,
        endpoint,
        since,
        until,
        filter,
        replay,
        at: (since, 0, 0, 0),
        taken: 0,
    };
    walk.go_on(start);
    let id = TaskId::new(cx.now, cx.state.entropy.bytes());
    let new = New {
        id,
        app,
        name: kind.task(),
        walk: Some(walk.clone()),
        cancellable: true,
    };
    let task = cx.state.start_task(new, cx.now).await?;
    beside(cx.state, id, walk);
    Ok(task.begun())
}

impl ApiState {
    /// Goes on with the walks that were under way when the last process ended. Called once, at start.
    pub fn resume(self: &Arc<Self>) {
        for (id, walk) in self.tasks.unfinished() {
            tracing::info!(task = %id, "a background task goes on where it was stored");
            beside(Arc::clone(self), id, walk);
        }
    }
}

/// The walk reads the store all the time: not on the async threads.
fn beside(state: Arc<ApiState>, id: TaskId, walk: Walk) {
    task::detach(async move {
        let walked = Arc::clone(&state);
        let taken = task::beside(async move { run(&walked, id, walk).await }).await;
        let (status, data) = match taken.unwrap_or(Err(Error::Schedule(schedule::Error::Busy))) {
            Ok((walk, false)) => (Status::Finished, walk.data()),
            Ok((walk, true)) => {
                let mut data = walk.data();
                if let Some(fields) = data.as_object_mut() {
                    fields.insert(String::from("cancelled"), Value::Bool(true));
                }
                (Status::Failed, data)
            }
            Err(error) => {
                tracing::warn!(task = %id, %error, "a background task failed");
                (Status::Failed, json!({ "error": error.to_string() }))
            }
        };
        state.end_task(id, status, data).await;
    });
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Schedule(#[from] schedule::Error),
    #[error("the history cannot be read")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Lane(#[from] lane::Error),
    #[error("{0}")]
    Expunge(String),
}

/// Walks to the end; true = it was cancelled before.
async fn run(state: &ApiState, id: TaskId, mut walk: Walk) -> Result<(Walk, bool), Error> {
    loop {
        if state.tasks.is_cancelled(id) {
            return Ok((walk, true));
        }
        let (found, next) = page_of(state, &walk).await?;
        if !found.is_empty() {
            let taken = match walk.kind {
                Kind::Purge => purged(state, &found).await?,
                Kind::Discard => {
                    let at = found.iter().filter_map(|m| walk.delivery(m.at)).collect();
                    discarded(state, at).await?
                }
                Kind::Replay => replay::send(state, id, &mut walk, &found).await?,
                Kind::Dead | Kind::Missing | Kind::Bulk => {
                    let at = found.iter().filter_map(|m| walk.delivery(m.at)).collect();
                    hand_over(state, at).await?
                }
            };
            walk.taken = walk
                .taken
                .saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
        }
        if walk.kind == Kind::Replay && state.tasks.is_cancelled(id) {
            return Ok((walk, true)); // in the middle of this page
        }
        let Some(next) = next else {
            return Ok((walk, false));
        };
        walk.go_on(next);
        if state.tasks.walked(id, &walk, state.clock.now()) && state.store_task(id).await.is_err() {
            tracing::debug!(task = %id, "how far a task is was not stored; it is tried again");
        }
        tokio::task::yield_now().await;
    }
}

/// Messages of a page that the walk is about, and where the next one begins; `None` at the end.
type Found = (Vec<Message>, Option<ListKey>);

async fn page_of(state: &ApiState, walk: &Walk) -> Result<Found, Error> {
    match walk.kind {
        Kind::Dead | Kind::Discard => Ok(dead(state, walk)?),
        Kind::Missing => Ok(missing(state, walk)?),
        Kind::Bulk => bulk(state, walk).await,
        Kind::Purge | Kind::Replay => {
            let (found, next) = messages(state, walk)?;
            Ok((found, next))
        }
    }
}

/// Hands deliveries to the scheduler; waits while it is busy, ten minutes at most.
pub(super) async fn hand_over(
    state: &ApiState,
    deliveries: Vec<Delivery>,
) -> Result<usize, schedule::Error> {
    const TRIES: usize = 600;
    for _ in 1..TRIES {
        match state.schedule.recover(deliveries.clone()).await {
            Err(schedule::Error::Busy) => tokio::time::sleep(Duration::from_secs(1)).await,
            other => return other,
        }
    }
    state.schedule.recover(deliveries).await
}

/// Writes down that nobody wants these any more; waits while the lane is busy, ten minutes at most.
async fn discarded(state: &ApiState, deliveries: Vec<Delivery>) -> Result<usize, Error> {
    const TRIES: usize = 600;
    let count = deliveries.len();
    let mut settlement = Settlement {
        cancelled: deliveries,
        ..Settlement::default()
    };
    for _ in 0..TRIES {
        match state.lane.settle(settlement, true) {
            Ok(done) => {
                let stored = done.await.unwrap_or(Err(lane::Error::Failed));
                return stored.map(|_| count).map_err(Error::Lane);
            }
            Err((lane::Error::Busy, back)) => {
                settlement = *back;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err((error, _)) => return Err(Error::Lane(error)),
        }
    }
    Err(Error::Lane(lane::Error::Busy))
}

async fn purged(state: &ApiState, found: &[Message]) -> Result<usize, Error> {
    const TRIES: usize = 600;
    for _ in 1..TRIES {
        match state.expunge(found, Vec::new()).await {
            Ok(there) => return Ok(there.into_iter().filter(|there| *there).count()),
            Err(problem) if problem.is_overload() => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(problem) => return Err(Error::Expunge(problem.told().1.into_owned())),
        }
    }
    Err(Error::Lane(lane::Error::Busy))
}

fn page(walk: &Walk) -> Page {
    Page {
        from: Some(walk.place()),
        until: None,
        newest_first: false,
        limit: PAGE,
    }
}

/// Deliveries that are dead, of messages accepted within the range. A message's attempts end after it
/// was accepted, so the list of attempts is read from `since` on. What lost its payload can be discarded
/// and not retried.
fn dead(state: &ApiState, walk: &Walk) -> Result<Found, store::Error> {
    let reader = state.reader.as_ref();
    let Some(endpoint) = walk.endpoint else {
        return Ok((Vec::new(), None));
    };
    let listed = reader.endpoint_attempts(endpoint, &page(walk))?;
    let next = listed
        .last()
        .filter(|_| listed.len() == PAGE)
        .map(|last| last.key);
    let mut found = Vec::new();
    for entry in &listed {
        let Some(attempt) = still_dead(reader, endpoint, entry)? else {
            continue;
        };
        let failures = &walk.filter.failures;
        let name = attempt.outcome.failure.map_or("none", FailureKind::name);
        if !failures.is_empty() && !failures.iter().any(|wanted| wanted == name) {
            continue;
        }
        if walk.kind == Kind::Discard {
            let message = reader.message(entry.key.at)?;
            found.extend(message.filter(|m| (walk.since..=walk.until).contains(&m.accepted)));
        } else {
            found.extend(in_range(reader, walk, entry.key.at)?);
        }
    }
    Ok((found, next))
}

/// The message at `at`, if it lies in the range and still has its payload.
fn in_range(
    reader: &dyn Reader,
    walk: &Walk,
    at: Position,
) -> Result<Option<Message>, store::Error> {
    let message = reader.message(at)?;
    Ok(message.filter(|m| (walk.since..=walk.until).contains(&m.accepted) && !m.is_expunged()))
}

/// A page of the application's messages within the range that still have a payload.
fn messages(state: &ApiState, walk: &Walk) -> Result<Found, store::Error> {
    // A payload that is only hidden is there to be taken away.
    let reader = match walk.kind {
        Kind::Purge => &state.stored,
        _ => &state.reader,
    };
    let range = Page {
        until: Some(end_of(walk.until)),
        ..page(walk)
    };
    let listed = reader.app_messages(walk.app, &range)?;
    let next = listed
        .last()
        .filter(|_| listed.len() == PAGE)
        .map(|last| last.key);
    let mut found = Vec::new();
    for entry in &listed {
        found.extend(in_range(reader.as_ref(), walk, entry.key.at)?);
    }
    Ok((found, next))
}

/// Messages that the endpoint would get now, and that were never meant for it nor tried there.
fn missing(state: &ApiState, walk: &Walk) -> Result<Found, store::Error> {
    let (all, next) = messages(state, walk)?;
    let snapshot = state.directory.snapshot();
    let endpoint = walk.endpoint.and_then(|no| snapshot.endpoint(no));
    let Some(endpoint) = endpoint else {
        return Ok((Vec::new(), None));
    };
    let mut found = Vec::new();
    for message in all {
        let is_new = !message.targets.contains(&endpoint.no)
            && why_not_in_full(endpoint, &facts(&message)).is_none()
            && state
                .reader
                .attempts(message.at, Some(endpoint.no))?
                .is_empty();
        if is_new {
            found.push(message);
        }
    }
    Ok((found, next))
}

/// Messages that were meant for the endpoint or tried there and that the filters let through.
async fn bulk(state: &ApiState, walk: &Walk) -> Result<Found, Error> {
    let (all, next) = messages(state, walk)?;
    let mut found = Vec::new();
    for message in all {
        let Some(delivery) = walk.delivery(message.at) else {
            break;
        };
        if !walk.filter.messages.keeps(&message) {
            continue;
        }
        let view = state.schedule.delivery(delivery).await?;
        if !message.targets.contains(&delivery.endpoint) && view.attempts.is_empty() {
            continue;
        }
        let (now, _) = status(view.state, true);
        let last = view.attempts.last().map(|a| a.outcome.status / 100 * 100);
        let keeps = walk.filter.status.is_none_or(|wanted| wanted == now)
            && walk.filter.class.is_none_or(|class| last == Some(class));
        if keeps {
            found.push(message);
        }
    }
    Ok((found, next))
}

/// What is taken away of these messages.
pub(super) fn payloads(messages: &[Message]) -> impl Iterator<Item = Content> {
    messages.iter().map(|message| Content::Payload(message.at))
}
