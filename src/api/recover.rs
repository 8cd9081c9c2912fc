//! Trying again what an endpoint missed: recover (dead deliveries), replay-missing (never tried).
//!
//! Both answer 202 with a background task that walks the history in pages and hands the scheduler at
//! most 100 deliveries at a time, so a year of failures costs no memory. The scheduler paces them;
//! while it is busy the task waits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::ApiState;
use super::error::Problem;
use super::history::{end_of, start_of};
use super::request::{Answer, Cx};
use super::task::{Status, Task};
use crate::base::{Timestamp, task};
use crate::ingest::{Item, ItemKind};
use crate::model::{AppNo, Delivery, EndpointNo, TaskId, Verdict};
use crate::policy::filter::why_not;
use crate::schedule;
use crate::store::{self, ListKey, Page, Reader};

/// Deliveries handed over at a time, and list entries read at a time.
const PAGE: usize = 100;
/// History of at least this long can always be asked for.
const ALWAYS_GRANTED: Duration = Duration::from_secs(14 * 86_400);

/// What is walked through.
struct Job {
    id: TaskId,
    app: AppNo,
    endpoint: EndpointNo,
    since: Timestamp,
    until: Timestamp,
}

/// POST `…/endpoint/{endpoint_id}/recover`
pub(super) async fn recover(cx: Cx) -> Answer {
    let (job, started) = begin(cx, "endpoint.recover").await?;
    walk_beside(Arc::clone(&started.state), job, dead);
    Ok(started.task.begun())
}

/// POST `…/endpoint/{endpoint_id}/replay-missing`
pub(super) async fn replay_missing(cx: Cx) -> Answer {
    let (job, started) = begin(cx, "endpoint.replay").await?;
    walk_beside(Arc::clone(&started.state), job, missing);
    Ok(started.task.begun())
}

struct Started {
    state: Arc<ApiState>,
    task: Task,
}

async fn begin(mut cx: Cx, name: &'static str) -> Result<(Job, Started), Problem> {
    let mut fields = cx.fields().await?;
    let since = fields.time("since");
    if !matches!(since, crate::ingest::fields::Given::Value(_)) {
        fields.wrong(
            "since",
            (ItemKind::Missing, "this field is required".into()),
        );
    }
    let until = fields.time("until").value();
    fields.finish()?;
    let since = since.value().unwrap_or(Timestamp::ZERO);
    let kept = cx.state.retention.messages.max(ALWAYS_GRANTED);
    if since < cx.now.minus(kept) {
        let msg = format!("history is kept for {} days", kept.as_secs() / 86_400);
        return Err(Item::body("since", ItemKind::ValueError, msg).into());
    }
    if until.is_some_and(|until| until < since) {
        return Err(Item::body("until", ItemKind::ValueError, "lies before `since`").into());
    }
    let (app, endpoint) = cx.endpoint()?;
    let job = Job {
        id: TaskId::new(cx.now, cx.state.entropy.bytes()),
        app: app.app.no,
        endpoint: endpoint.no,
        since,
        until: until.unwrap_or(cx.now),
    };
    let task = cx.state.tasks.start(job.id, job.app, name, cx.now)?;
    let state = cx.state;
    Ok((job, Started { state, task }))
}

/// A page of deliveries and where the next one begins; `None` at the end.
type Found = (Vec<Delivery>, Option<ListKey>);
type Finder = fn(&ApiState, &Job, ListKey) -> Result<Found, store::Error>;

/// The walk reads the store all the time: not on the async threads.
fn walk_beside(state: Arc<ApiState>, job: Job, find: Finder) {
    task::detach(async move {
        let (id, walked) = (job.id, Arc::clone(&state));
        let taken = task::beside(async move { walk(&walked, &job, find).await }).await;
        end(&state, id, taken.unwrap_or(Err(schedule::Error::Busy)));
    });
}

async fn walk(state: &ApiState, job: &Job, find: Finder) -> Result<usize, schedule::Error> {
    let mut from = Some(start_of(job.since));
    let mut taken = 0;
    while let Some(place) = from {
        let (found, next) = find(state, job, place)?;
        if !found.is_empty() {
            taken += hand_over(state, found).await?;
        }
        let data = json!({ "deliveries": taken });
        state
            .tasks
            .update(job.id, Status::Running, data, state.clock.now());
        from = next;
        tokio::task::yield_now().await;
    }
    Ok(taken)
}

/// Hands deliveries to the scheduler; waits while it is busy, ten minutes at most.
async fn hand_over(state: &ApiState, deliveries: Vec<Delivery>) -> Result<usize, schedule::Error> {
    const TRIES: usize = 600;
    for _ in 1..TRIES {
        match state.schedule.recover(deliveries.clone()).await {
            Err(schedule::Error::Busy) => tokio::time::sleep(Duration::from_secs(1)).await,
            other => return other,
        }
    }
    state.schedule.recover(deliveries).await
}

fn end(state: &ApiState, id: TaskId, result: Result<usize, schedule::Error>) {
    let (status, data) = match result {
        Ok(taken) => (Status::Finished, json!({ "deliveries": taken })),
        Err(error) => {
            tracing::warn!(task = %id, %error, "a background task failed");
            (Status::Failed, json!({ "error": error.to_string() }))
        }
    };
    state.tasks.update(id, status, data, state.clock.now());
}

fn page(from: ListKey) -> Page {
    Page {
        from: Some(from),
        until: None,
        newest_first: false,
        limit: PAGE,
    }
}

/// Deliveries whose last attempt left them dead, of messages accepted within the range. A message's
/// attempts end after it was accepted, so the list of attempts is read from `since` on.
fn dead(state: &ApiState, job: &Job, from: ListKey) -> Result<Found, store::Error> {
    const DEAD: u8 = 2;
    let reader = &state.reader;
    let listed = reader.endpoint_attempts(job.endpoint, &page(from))?;
    let next = listed
        .last()
        .filter(|_| listed.len() == PAGE)
        .map(|last| last.key);
    let mut found = Vec::new();
    for entry in listed.iter().filter(|entry| entry.verdict == DEAD) {
        let (at, no) = (entry.key.at, entry.key.no);
        let attempts = reader.attempts(at, Some(job.endpoint))?;
        let is_last = attempts.iter().all(|attempt| attempt.no <= no);
        let is_dead = is_last
            && attempts
                .iter()
                .any(|a| a.no == no && matches!(a.verdict, Verdict::Dead(_)));
        if is_dead && is_in_range(reader.as_ref(), job, at)? {
            found.push(Delivery {
                at,
                endpoint: job.endpoint,
            });
        }
    }
    Ok((found, next))
}

fn is_in_range(
    reader: &dyn Reader,
    job: &Job,
    at: crate::model::Position,
) -> Result<bool, store::Error> {
    let message = reader.message(at)?;
    Ok(message.is_some_and(|m| (job.since..=job.until).contains(&m.accepted)))
}

/// Messages that the endpoint would get now, and that were never meant for it nor tried there.
fn missing(state: &ApiState, job: &Job, from: ListKey) -> Result<Found, store::Error> {
    let reader = &state.reader;
    let range = Page {
        until: Some(end_of(job.until)),
        ..page(from)
    };
    let listed = reader.app_messages(job.app, &range)?;
    let next = listed
        .last()
        .filter(|_| listed.len() == PAGE)
        .map(|last| last.key);
    let snapshot = state.directory.snapshot();
    let Some(endpoint) = snapshot.endpoint(job.endpoint) else {
        return Ok((Vec::new(), None));
    };
    let mut found = Vec::new();
    for entry in &listed {
        let at = entry.key.at;
        let Some(message) = reader.message(at)? else {
            continue;
        };
        let is_new = !message.targets.contains(&job.endpoint)
            && why_not(endpoint, &message.event_type, message.channels()).is_none()
            && reader.attempts(at, Some(job.endpoint))?.is_empty();
        if is_new {
            found.push(Delivery {
                at,
                endpoint: job.endpoint,
            });
        }
    }
    Ok((found, next))
}
