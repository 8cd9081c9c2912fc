//! Figures over history: of an endpoint at once, of applications and event types in the background.
//!
//! Nothing is counted ahead: the figures come from walking the lists, so they cost nothing while
//! messages flow, and they are exact. A walk that answers a request ends at a budget and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::ApiState;
use super::error::{Code, Problem};
use super::history::{end_of, start_of};
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::task::{New, Status, Task};
use crate::base::{Timestamp, task};
use crate::ingest::ItemKind;
use crate::ingest::fields::{Given, sized};
use crate::model::{AppNo, Attempt, EndpointNo, Message, Position, TaskId, Verdict};
use crate::schedule::Open;
use crate::store::{self, ListKey, ListedAttempt, Page};

/// The longest range of an endpoint's figures, and the range when none is named.
const RANGE: Duration = Duration::from_secs(28 * 86_400);
/// Entries that one request looks at.
const BUDGET: usize = 1_000_000;
/// Entries read at a time.
const PAGE: usize = 1000;
/// Applications of one request.
const MAX_APPS: usize = 10_000;
/// Event types told apart; the rest is summed under `(others)`.
const MAX_TYPES: usize = 10_000;

/// EndpointStats.
#[derive(Debug, Default, Serialize)]
struct Out {
    success: u64,
    pending: u64,
    sending: u64,
    fail: u64,
    canceled: u64,
}

/// GET `…/endpoint/{endpoint_id}/stats`: deliveries that came to their end within the range, and what
/// is open now.
pub(super) async fn of_endpoint(cx: Cx) -> Answer {
    let (app, endpoint) = cx.endpoint()?;
    let query = cx.query();
    let until = query.time("until")?.unwrap_or(cx.now);
    let since = query.time("since")?.unwrap_or_else(|| until.minus(RANGE));
    let wrong = |detail: &'static str| Err(Problem::new(Code::InvalidRange, detail));
    if until > cx.now {
        return wrong("`until` lies in the future.");
    }
    if since > until {
        return wrong("`since` lies after `until`.");
    }
    if until.since(since) > RANGE {
        return wrong("The range is longer than 28 days.");
    }
    let Open { waiting, sending } = cx.state.schedule.open(endpoint.no).await?;
    let counted = ended(&cx.state, endpoint.no, (since, until))?;
    let cancelled = cancelled(&cx.state, (app.app.no, endpoint.no), (since, until))?;
    let (Some((success, fail)), Some(canceled)) = (counted, cancelled) else {
        return wrong("There is too much in this range to be counted; ask for a shorter one.");
    };
    Ok(Reply::ok(&Out {
        success,
        pending: waiting,
        sending,
        fail,
        canceled,
    }))
}

/// Deliveries that were delivered, and that died and stayed so; `None` = over the budget.
fn ended(
    state: &ApiState,
    endpoint: EndpointNo,
    (since, until): (Timestamp, Timestamp),
) -> Result<Option<(u64, u64)>, store::Error> {
    let (mut success, mut fail) = (0, 0);
    let mut page = Page {
        from: Some(start_of(since)),
        until: Some(end_of(until)),
        newest_first: false,
        limit: PAGE,
    };
    for _ in 0..BUDGET / PAGE {
        let listed = state.reader.endpoint_attempts(endpoint, &page)?;
        for entry in &listed {
            match entry.verdict {
                0 if counts(state, endpoint, entry, is_first_success)? => success += 1,
                2 if counts(state, endpoint, entry, is_last)? => fail += 1,
                _ => {}
            }
        }
        match listed.last() {
            Some(last) if listed.len() == PAGE => page.from = Some(last.key),
            _ => return Ok(Some((success, fail))),
        }
    }
    Ok(None)
}

/// A delivery may come to its end several times, by resends and recoveries; it counts once. The first
/// attempt needs no look at the others to be the first success.
fn counts(
    state: &ApiState,
    endpoint: EndpointNo,
    entry: &ListedAttempt,
    judge: fn(&[Attempt], u16) -> bool,
) -> Result<bool, store::Error> {
    if entry.verdict == 0 && entry.key.no == 1 {
        return Ok(true);
    }
    let attempts = state.reader.attempts(entry.key.at, Some(endpoint))?;
    Ok(judge(&attempts, entry.key.no))
}

fn is_first_success(attempts: &[Attempt], no: u16) -> bool {
    let earlier = attempts.iter().filter(|attempt| attempt.no < no);
    earlier.clone().all(|a| a.verdict != Verdict::Delivered)
}

fn is_last(attempts: &[Attempt], no: u16) -> bool {
    attempts.iter().all(|attempt| attempt.no <= no) && is_first_success(attempts, no)
}

/// Cancelled deliveries of messages that were accepted within the range.
fn cancelled(
    state: &ApiState,
    (app, endpoint): (AppNo, EndpointNo),
    (since, until): (Timestamp, Timestamp),
) -> Result<Option<u64>, store::Error> {
    let (low, high) = (start_of(since), end_of(until));
    let edge = |newest_first: bool| -> Result<Option<Position>, store::Error> {
        let (from, to) = if newest_first {
            (high, low)
        } else {
            (low, high)
        };
        let page = Page {
            from: Some(from),
            until: Some(to),
            newest_first,
            limit: 1,
        };
        let listed = state.reader.app_messages(app, &page)?;
        Ok(listed.first().map(|entry| entry.key.at))
    };
    match (edge(false)?, edge(true)?) {
        (Some(first), Some(last)) => state.reader.cancelled(endpoint, (first, last), BUDGET),
        _ => Ok(Some(0)),
    }
}

/// POST `/stats/usage/app`: messages and deliveries of each application, as a background task.
pub(super) async fn usage(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let mut fields = cx.fields().await?;
    let mut times = Vec::new();
    for name in ["since", "until"] {
        let given = fields.time(name);
        if matches!(given, Given::Absent | Given::Null) && !fields.has_mistake(name) {
            fields.wrong(name, (ItemKind::Missing, "this field is required".into()));
        }
        times.push(given.value().unwrap_or(Timestamp::ZERO));
    }
    let ids = fields.set("appIds", 0..=MAX_APPS, sized(1, 256)).value();
    fields.finish()?;
    let (since, until) = match times.as_slice() {
        [since, until] if since <= until => (*since, *until),
        _ => {
            let detail = "`since` lies after `until`.";
            return Err(Problem::new(Code::InvalidRange, detail));
        }
    };
    let mut unresolved = Vec::new();
    let mut apps = Vec::new();
    for id in ids.clone().unwrap_or_default() {
        match cx.find_app(&id) {
            Ok(entry) => apps.push(entry.app.no),
            Err(_) => unresolved.push(id),
        }
    }
    if ids.is_none() {
        apps = all_apps(&cx.state);
    }
    let begun = start(&cx, "application.stats").await?;
    let state = Arc::clone(&cx.state);
    let id = begun.id;
    in_background(state, id, move |state| {
        let mut out = Vec::new();
        for app in apps {
            let (mut messages, mut deliveries) = (0_u64, 0_u64);
            walk(state, id, app, (since, until), |message| {
                messages += 1;
                deliveries += u64::try_from(message.targets.len()).unwrap_or(u64::MAX);
            })?;
            if let Some(entry) = state.directory.peek().app_by_no(app) {
                out.push(json!({
                    "appId": entry.app.id, "appUid": entry.app.uid,
                    "messages": messages, "messageDestinations": deliveries,
                }));
            }
        }
        Ok(json!({ "appStats": out }))
    });
    Ok(Reply::json(
        StatusCode::ACCEPTED,
        &json!({
            "id": begun.id, "status": begun.status, "task": begun.task,
            "updatedAt": begun.updated_at, "unresolvedAppIds": unresolved,
        }),
    ))
}

/// PUT `/stats/usage/event-types`: messages of each type over the whole retention, as a background task.
pub(super) async fn event_types(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    cx.fields_or_none().await?.finish()?;
    let begun = start(&cx, "event-type.aggregate").await?;
    let (state, id, now) = (Arc::clone(&cx.state), begun.id, cx.now);
    in_background(state, id, move |state| {
        let mut counts: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let mut others = 0_u64;
        for app in all_apps(state) {
            walk(state, id, app, (Timestamp::ZERO, now), |message| {
                let is_full = counts.len() >= MAX_TYPES;
                match counts.get_mut(&message.event_type) {
                    Some(count) => *count += 1,
                    None if is_full => others += 1,
                    None => {
                        counts.insert(Arc::clone(&message.event_type), 1);
                    }
                }
            })?;
        }
        let mut shown: Vec<Value> = counts
            .iter()
            .map(|(name, count)| json!({ "name": **name, "messages": count }))
            .collect();
        if others > 0 {
            shown.push(json!({ "name": "(others)", "messages": others }));
        }
        Ok(json!({ "eventTypes": shown }))
    });
    Ok(begun.begun())
}

fn all_apps(state: &ApiState) -> Vec<AppNo> {
    let mut apps: Vec<AppNo> = state
        .directory
        .snapshot()
        .apps()
        .map(|e| e.app.no)
        .collect();
    apps.sort_unstable();
    apps
}

async fn start(cx: &Cx, name: &'static str) -> Result<Task, Problem> {
    let id = TaskId::new(cx.now, cx.state.entropy.bytes());
    let new = New {
        cancellable: true,
        ..New::plain(id, cx.state.owner_of_instance_tasks(), name)
    };
    cx.state.start_task(new, cx.now).await
}

/// Why a count has no result.
enum Ended {
    Cancelled,
    Store(store::Error),
}

impl From<store::Error> for Ended {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

fn in_background(
    state: Arc<ApiState>,
    id: TaskId,
    count: impl FnOnce(&ApiState) -> Result<Value, Ended> + Send + 'static,
) {
    task::detach(async move {
        let counted = Arc::clone(&state);
        let result = task::blocking(move || count(&counted)).await;
        let (status, data) = match result {
            Some(Ok(data)) => (Status::Finished, data),
            Some(Err(Ended::Cancelled)) => (Status::Failed, json!({ "cancelled": true })),
            Some(Err(Ended::Store(error))) => {
                tracing::warn!(task = %id, %error, "a background task failed");
                (
                    Status::Failed,
                    json!({ "error": "the history cannot be read" }),
                )
            }
            None => (
                Status::Failed,
                json!({ "error": "the counting ended early" }),
            ),
        };
        state.end_task(id, status, data).await;
    });
}

fn walk(
    state: &ApiState,
    id: TaskId,
    app: AppNo,
    (since, until): (Timestamp, Timestamp),
    mut each: impl FnMut(&Message),
) -> Result<(), Ended> {
    let mut from: Option<ListKey> = Some(start_of(since));
    loop {
        if state.tasks.is_cancelled(id) {
            return Err(Ended::Cancelled);
        }
        let page = Page {
            from,
            until: Some(end_of(until)),
            newest_first: false,
            limit: PAGE,
        };
        let listed = state.reader.app_messages(app, &page)?;
        for entry in &listed {
            if let Some(message) = state.reader.message(entry.key.at)? {
                each(&message);
            }
        }
        match listed.last() {
            Some(last) if listed.len() == PAGE => from = Some(last.key),
            _ => return Ok(()),
        }
    }
}
