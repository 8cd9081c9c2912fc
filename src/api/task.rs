//! Background tasks: what was started, how far it is. Kept in memory; a restart ends them.

use std::collections::BTreeMap;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::{Code, Problem};
use super::page::{List, Paging, select};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::model::{AppNo, TaskId};

/// Tasks remembered; beyond it the oldest finished ones are forgotten.
const MAX_TASKS: usize = 1000;
/// Tasks running at the same time; a further one is refused with 503.
const MAX_RUNNING: usize = 32;

/// BackgroundTaskOut.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) status: Status,
    pub(super) task: &'static str,
    pub(super) updated_at: Timestamp,
    pub(super) data: Value,
    #[serde(skip)]
    app: AppNo,
}

/// RecoverOut, ReplayOut.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    id: TaskId,
    status: Status,
    task: &'static str,
    updated_at: Timestamp,
}

impl Task {
    /// The answer to the request that began it.
    pub(super) fn begun(&self) -> Reply {
        let begun = Begun {
            id: self.id,
            status: self.status,
            task: self.task,
            updated_at: self.updated_at,
        };
        Reply::json(StatusCode::ACCEPTED, &begun)
    }
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

/// All tasks of this process.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<TaskId, Task>>);

impl Registry {
    /// Notes a task as running.
    pub(super) fn start(
        &self,
        id: TaskId,
        app: AppNo,
        name: &'static str,
        now: Timestamp,
    ) -> Result<Task, Problem> {
        let mut tasks = self.0.lock();
        let is_running = |task: &Task| task.status == Status::Running;
        if tasks.values().filter(|task| is_running(task)).count() >= MAX_RUNNING {
            let detail = format!("{MAX_RUNNING} background tasks are running already.");
            return Err(Problem::new(Code::Overloaded, detail).after(30));
        }
        while tasks.len() >= MAX_TASKS {
            let oldest = tasks.values().find(|task| !is_running(task)).map(|t| t.id);
            let Some(oldest) = oldest else { break };
            tasks.remove(&oldest);
        }
        let task = Task {
            id,
            status: Status::Running,
            task: name,
            updated_at: now,
            data: json!({}),
            app,
        };
        tasks.insert(id, task.clone());
        Ok(task)
    }

    /// Notes how far a task is.
    pub(super) fn update(&self, id: TaskId, status: Status, data: Value, now: Timestamp) {
        if let Some(task) = self.0.lock().get_mut(&id) {
            task.status = status;
            task.data = data;
            task.updated_at = now;
        }
    }

    fn seen(&self, keep: impl Fn(&Task) -> bool) -> Vec<Task> {
        let tasks = self.0.lock();
        tasks.values().filter(|task| keep(task)).cloned().collect()
    }
}

/// GET `/background-task`
pub(super) async fn list(cx: Cx) -> Answer {
    let query = cx.query();
    let paging = Paging::of(&query, true, |text| TaskId::parse(text).ok())?;
    let (status, name) = (query.get("status"), query.get("task"));
    let found = cx.state.tasks.seen(|task| {
        cx.principal.sees(task.app)
            && status.is_none_or(|status| status == task.status.name())
            && name.is_none_or(|name| name == task.task)
    });
    let (data, done) = select(&paging, found.into_iter(), |task| task.id);
    Ok(List::of(data, done, |task| task.id.to_string()).reply())
}

/// GET `/background-task/{task_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    let id = TaskId::parse(cx.param("task_id")).ok();
    let found = cx
        .state
        .tasks
        .seen(|task| Some(task.id) == id && cx.principal.sees(task.app));
    let task = found
        .first()
        .ok_or_else(|| Problem::not_found("background task"))?;
    Ok(Reply::ok(task))
}
