//! Background tasks: what was started, how far it is, cancelling it.
//!
//! Owns: the table of tasks, in memory, and its stored form, one instance setting per place in the
//! table (ADR 0322). A task that walks through history carries its walk; that is stored with it now
//! and then, so after a restart it goes on where it was last stored. Any other task that was running
//! when the process ended is shown as failed, with the reason.
//! Elsewhere: the walks themselves ([`super::walk`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ApiState;
use super::error::{Code, Problem};
use super::page::{List, Paging, select};
use super::query::{Query, wrong};
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::walk::Walk;
use crate::base::Timestamp;
use crate::directory::Snapshot;
use crate::ingest::ItemKind;
use crate::model::{AppNo, TaskId};
use crate::schedule::OPERATOR;

/// Tasks remembered; beyond it the oldest finished ones are forgotten.
const MAX_TASKS: u16 = 256;
/// Tasks running at the same time; a further one is refused with 503.
const MAX_RUNNING: usize = 32;
/// How far a running task is gets stored this often.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// BackgroundTaskOut.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) status: Status,
    pub(super) task: Cow<'static, str>,
    pub(super) updated_at: Timestamp,
    pub(super) data: Value,
    #[serde(skip, default = "nobody")]
    app: AppNo,
}

const fn nobody() -> AppNo {
    AppNo(0)
}

/// RecoverOut, ReplayOut, AppUsageStatsOut without its list, AggregateEventTypesOut.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Begun<'a> {
    id: TaskId,
    status: Status,
    task: &'a str,
    updated_at: Timestamp,
}

impl Task {
    /// The answer to the request that began it.
    pub(super) fn begun(&self) -> Reply {
        let begun = Begun {
            id: self.id,
            status: self.status,
            task: &self.task,
            updated_at: self.updated_at,
        };
        Reply::json(StatusCode::ACCEPTED, &begun)
    }
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Running,
    Finished,
    Failed,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// A task that is about to be started.
pub(super) struct New {
    pub(super) id: TaskId,
    pub(super) app: AppNo,
    pub(super) name: &'static str,
    /// What it walks through, if it goes on after a restart.
    pub(super) walk: Option<Walk>,
    /// Whether `cancel` ends it.
    pub(super) cancellable: bool,
}

impl New {
    /// A task that cannot be cancelled and ends with the process.
    pub(super) const fn plain(id: TaskId, app: AppNo, name: &'static str) -> Self {
        Self {
            id,
            app,
            name,
            walk: None,
            cancellable: false,
        }
    }
}

struct Entry {
    task: Task,
    place: u16,
    walk: Option<Walk>,
    cancellable: bool,
    cancelled: bool,
    stored: Timestamp,
}

/// A row of the table as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    task: Task,
    app: AppNo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    walk: Option<Walk>,
}

/// All tasks.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<TaskId, Entry>>);

fn setting(place: u16) -> String {
    format!("task/{place:03}")
}

impl Registry {
    /// The tasks that were stored. What was running and cannot go on has failed.
    pub(super) fn load(snapshot: &Snapshot, now: Timestamp) -> Self {
        let mut tasks = BTreeMap::new();
        for place in 0..MAX_TASKS {
            let Some(value) = snapshot.instance(&setting(place)) else {
                continue;
            };
            let Ok(stored) = serde_json::from_value::<Stored>(value.clone()) else {
                tracing::warn!(place, "a stored background task cannot be read");
                continue;
            };
            let mut task = stored.task;
            task.app = stored.app;
            if task.status == Status::Running && stored.walk.is_none() {
                task.status = Status::Failed;
                let why = "the gateway was restarted before it was done; ask again";
                set(&mut task.data, "error", why);
                task.updated_at = now;
            }
            let entry = Entry {
                place,
                cancellable: stored.walk.is_some(),
                walk: stored.walk,
                cancelled: false,
                stored: now,
                task,
            };
            tasks.insert(entry.task.id, entry);
        }
        Self(Mutex::new(tasks))
    }

    /// The walks that were under way when the last process ended.
    pub(super) fn unfinished(&self) -> Vec<(TaskId, Walk)> {
        let tasks = self.0.lock();
        let running = tasks
            .values()
            .filter(|entry| entry.task.status == Status::Running);
        running
            .filter_map(|entry| Some((entry.task.id, entry.walk.clone()?)))
            .collect()
    }

    fn enter(&self, new: New, now: Timestamp) -> Result<Task, Problem> {
        let mut tasks = self.0.lock();
        let is_running = |entry: &Entry| entry.task.status == Status::Running;
        if tasks.values().filter(|entry| is_running(entry)).count() >= MAX_RUNNING {
            let detail = format!("{MAX_RUNNING} background tasks are running already.");
            return Err(Problem::new(Code::Overloaded, detail).after(30));
        }
        if tasks.len() >= usize::from(MAX_TASKS) {
            let oldest = tasks.values().find(|entry| !is_running(entry));
            if let Some(oldest) = oldest.map(|entry| entry.task.id) {
                tasks.remove(&oldest);
            }
        }
        let taken = |place: &u16| tasks.values().any(|entry| entry.place == *place);
        let place = (0..MAX_TASKS).find(|place| !taken(place)).unwrap_or(0);
        let task = Task {
            id: new.id,
            status: Status::Running,
            task: Cow::Borrowed(new.name),
            updated_at: now,
            data: json!({}),
            app: new.app,
        };
        let entry = Entry {
            task: task.clone(),
            place,
            walk: new.walk,
            cancellable: new.cancellable,
            cancelled: false,
            stored: now,
        };
        tasks.insert(new.id, entry);
        Ok(task)
    }

    /// Notes how far a task is, in memory.
    pub(super) fn update(&self, id: TaskId, status: Status, data: Value, now: Timestamp) {
        if let Some(entry) = self.0.lock().get_mut(&id) {
            entry.task.status = status;
            entry.task.data = data;
            entry.task.updated_at = now;
        }
    }

    /// Notes how far a walk is; answers whether that should be stored now.
    pub(super) fn walked(&self, id: TaskId, walk: &Walk, now: Timestamp) -> bool {
        let mut tasks = self.0.lock();
        let Some(entry) = tasks.get_mut(&id) else {
            return false;
        };
        entry.task.data = walk.data();
        entry.task.updated_at = now;
        entry.walk = Some(walk.clone());
        let is_due = now.since(entry.stored) >= NOTE_EVERY;
        if is_due {
            entry.stored = now;
        }
        is_due
    }

    /// Whether someone wants it to end.
    pub(super) fn is_cancelled(&self, id: TaskId) -> bool {
        let tasks = self.0.lock();
        tasks.get(&id).is_none_or(|entry| entry.cancelled)
    }

    fn seen(&self, keep: impl Fn(&Task) -> bool) -> Vec<Task> {
        let tasks = self.0.lock();
        let tasks = tasks.values().map(|entry| &entry.task);
        tasks.filter(|task| keep(task)).cloned().collect()
    }

    /// The row of a task as it is, or as it is to end.
    fn row(&self, id: TaskId, end: Option<&(Status, Value, Timestamp)>) -> Option<(u16, Stored)> {
        let tasks = self.0.lock();
        let entry = tasks.get(&id)?;
        let mut task = entry.task.clone();
        if let Some((status, data, at)) = end {
            task.status = *status;
            task.data = data.clone();
            task.updated_at = *at;
        }
        let is_running = task.status == Status::Running;
        let stored = Stored {
            task,
            app: entry.task.app,
            walk: entry.walk.clone().filter(|_| is_running),
        };
        Some((entry.place, stored))
    }
}

/// Sets a field of a task's data.
fn set(data: &mut Value, name: &str, value: &str) {
    if let Some(fields) = data.as_object_mut() {
        fields.insert(name.to_owned(), Value::from(value));
    }
}

impl ApiState {
    /// Enters a task and stores it.
    pub(super) async fn start_task(&self, new: New, now: Timestamp) -> Result<Task, Problem> {
        let id = new.id;
        let task = self.tasks.enter(new, now)?;
        if let Err(problem) = self.store_task(id).await {
            self.tasks.0.lock().remove(&id);
            return Err(problem);
        }
        Ok(task)
    }

    /// Stores how far a task is.
    pub(super) async fn store_task(&self, id: TaskId) -> Result<(), Problem> {
        match self.tasks.row(id, None) {
            Some(row) => self.store_row(row).await,
            None => Ok(()),
        }
    }

    async fn store_row(&self, (place, stored): (u16, Stored)) -> Result<(), Problem> {
        let value = serde_json::to_value(&stored).map_err(|error| {
            tracing::error!(%error, "a task cannot be written as JSON");
            Problem::new(Code::Server, "The task cannot be stored.")
        })?;
        self.directory
            .carry_out(move |draft| Ok(draft.put_instance(&setting(place), value)?))
            .await
    }

    /// The last word on a task: stored first, then shown, so that nobody sees an end that a restart
    /// would take back. A store that takes nothing for half a minute is not waited for.
    pub(super) async fn end_task(&self, id: TaskId, status: Status, data: Value) {
        const TRIES: u32 = 30;
        let end = (status, data, self.clock.now());
        for tried in 1..=TRIES {
            let Some(row) = self.tasks.row(id, Some(&end)) else {
                return;
            };
            match self.store_row(row).await {
                Ok(()) => break,
                Err(_) if tried == TRIES => {
                    tracing::warn!(task = %id, "the end of a background task was not stored");
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        let (status, data, at) = end;
        self.tasks.update(id, status, data, at);
    }

    /// The application that tasks of the instance belong to: keys of one application do not see them.
    pub(super) fn owner_of_instance_tasks(&self) -> AppNo {
        let snapshot = self.directory.peek();
        snapshot
            .app(OPERATOR)
            .map_or(AppNo(u32::MAX), |entry| entry.app.no)
    }
}

/// Names that `task` may have in a list.
const NAMES: &[&str] = &[
    "endpoint.replay",
    "endpoint.recover",
    "endpoint.bulk-replay",
    "endpoint.cancel_pending",
    "application.stats",
    "application.purge_content",
    "application.replay",
    "event-type.aggregate",
    "message.broadcast",
    "sdk.generate",
    "quarantine.discard",
    "backup",
];

fn one_of<'a>(
    query: &'a Query,
    name: &'static str,
    allowed: &[&str],
) -> Result<Option<&'a str>, Problem> {
    let given = query.get(name);
    if given.is_some_and(|given| !allowed.contains(&given)) {
        let msg = format!("one of {} is wanted", allowed.join(", "));
        return Err(wrong(name, ItemKind::ValueError, msg));
    }
    Ok(given)
}

/// GET `/background-task`
pub(super) async fn list(cx: Cx) -> Answer {
    let query = cx.query();
    let paging = Paging::of(&query, true, |text| TaskId::parse(text).ok())?;
    let status = one_of(&query, "status", &["running", "finished", "failed"])?;
    let name = one_of(&query, "task", NAMES)?;
    let found = cx.state.tasks.seen(|task| {
        cx.principal.sees(task.app)
            && status.is_none_or(|status| status == task.status.name())
            && name.is_none_or(|name| name == task.task)
    });
    let (data, done) = select(&paging, found.into_iter(), |task| task.id);
    Ok(List::of(data, done, |task| task.id.to_string()).reply())
}

fn find(cx: &Cx) -> Result<Task, Problem> {
    let id = TaskId::parse(cx.param("task_id")).ok();
    let seen = |task: &Task| Some(task.id) == id && cx.principal.sees(task.app);
    let found = cx.state.tasks.seen(seen).into_iter().next();
    found.ok_or_else(|| Problem::not_found("background task"))
}

/// GET `/background-task/{task_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    Ok(Reply::ok(&find(&cx)?))
}

/// POST `/background-task/{task_id}/cancel`: it ends at its next page; what it did stands. A task that
/// has ended stays as it is.
pub(super) async fn cancel(mut cx: Cx) -> Answer {
    cx.fields_or_none().await?.finish()?;
    let task = find(&cx)?;
    if task.status == Status::Running {
        let mut tasks = cx.state.tasks.0.lock();
        let entry = tasks.get_mut(&task.id).filter(|entry| entry.cancellable);
        let Some(entry) = entry else {
            let detail = format!("A task {} cannot be cancelled.", task.task);
            return Err(Problem::new(Code::Conflict, detail));
        };
        entry.cancelled = true;
    }
    Ok(Reply::json(StatusCode::ACCEPTED, &task))
}
