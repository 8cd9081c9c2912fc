//! Backups of the running gateway: POST `/admin/backup` answers 202 with a background task.
//!
//! The caller names a folder below `storage.backup_dir` and nothing else. What can be refused is
//! refused at once; copying goes on in the task, which tells position, size and pause in the end.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::ApiState;
use super::error::Problem;
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::task::{New, Status};
use crate::backup::{self, Backups, Begun, Done};
use crate::base::task;
use crate::ingest::ItemKind;
use crate::model::TaskId;

/// POST `/admin/backup`
pub(super) async fn create(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let mut fields = cx.fields_or_none().await?;
    let named = fields.text("name", |name| {
        backup::check_name(name).map_err(|error| (ItemKind::ValueError, error.to_string().into()))
    });
    fields.finish()?;
    let name = named.value().unwrap_or_else(|| backup::name_for(cx.now));
    let Some(backups) = cx.state.backups.clone() else {
        return Err(backup::Error::NotConfigured.into());
    };
    let begun = begin(&backups, name).await?;
    let snapshot = cx.state.directory.snapshot();
    let instance = snapshot.instance("id").and_then(Value::as_str);
    let instance = instance.map(str::to_owned);
    // An affair of the instance: keys of one application do not see it.
    let owner = cx.state.owner_of_instance_tasks();
    let id = TaskId::new(cx.now, cx.state.entropy.bytes());
    let new = New::plain(id, owner, "backup");
    let started = cx.state.start_task(new, cx.now).await?;
    let state = Arc::clone(&cx.state);
    let (now, named) = (cx.now, json!({ "name": begun.name() }));
    cx.state.tasks.update(id, Status::Running, named, now);
    task::detach(async move {
        let done = backups.finish(begun, instance).await;
        end(&state, id, done).await;
    });
    Ok(Reply::json(StatusCode::ACCEPTED, &started))
}

/// Looks at the disk on a thread for that.
async fn begin(backups: &Arc<Backups>, name: String) -> Result<Begun, Problem> {
    let backups = Arc::clone(backups);
    let begun = task::blocking(move || backups.begin(&name)).await;
    Ok(begun.unwrap_or(Err(backup::Error::Interrupted))?)
}

async fn end(state: &ApiState, id: TaskId, done: Result<Done, backup::Error>) {
    let (status, data) = match done {
        Ok(done) => (Status::Finished, shown(&done)),
        Err(error) => {
            let (code, detail) = Problem::from(error).told();
            (Status::Failed, json!({ "code": code, "error": detail }))
        }
    };
    state.end_task(id, status, data).await;
}

fn shown(done: &Done) -> Value {
    let manifest = &done.written.manifest;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "name": done.path.file_name().map(|name| name.to_string_lossy()),
        "path": done.path.to_string_lossy(),
        "created": manifest.created,
        "batch": manifest.batch,
        "lane": manifest.tail.lane,
        "seq": manifest.tail.seq,
        "files": manifest.files.len(),
        "bytes": manifest.bytes(),
        "copiedBytes": done.written.copied,
        "pauseMs": (done.pause.as_secs_f64() * 1e6).round() / 1e3,
        "tookMs": millis(done.took),
    })
}
