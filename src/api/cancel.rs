//! Cancelling everything that an endpoint has not finished: a background task like recover and replay.
//!
//! The scheduler walks through it page by page; the task only notes how far it is. What was cancelled
//! stays cancelled if the task ends early (a restart, the endpoint deleted); asking again goes on.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::ApiState;
use super::request::{Answer, Cx};
use super::task::{New, Status};
use crate::base::task;
use crate::model::TaskId;
use crate::schedule::core::Cancelled;

/// POST `…/endpoint/{endpoint_id}/cancel-pending`
pub(super) async fn pending(mut cx: Cx) -> Answer {
    cx.fields_or_none().await?.finish()?;
    let (app, endpoint) = cx.endpoint()?;
    let id = TaskId::new(cx.now, cx.state.entropy.bytes());
    let name = "endpoint.cancel_pending";
    let new = New::plain(id, app.app.no, name);
    let begun = cx.state.start_task(new, cx.now).await?;
    let state = Arc::clone(&cx.state);
    match state.schedule.cancel_pending(endpoint.no).await {
        Ok(progress) => task::detach(follow(state, id, progress)),
        Err(error) => {
            let data = json!({ "error": error.to_string() });
            state.end_task(id, Status::Failed, data).await;
            return Err(error.into());
        }
    }
    Ok(begun.begun())
}

async fn follow(state: Arc<ApiState>, id: TaskId, mut progress: watch::Receiver<Cancelled>) {
    let figures = |so_far: Cancelled| -> Value {
        json!({ "deliveries": so_far.cancelled, "sending": so_far.sending })
    };
    while progress.changed().await.is_ok() {
        let so_far = *progress.borrow_and_update();
        if so_far.done {
            break;
        }
        let now = state.clock.now();
        state
            .tasks
            .update(id, Status::Running, figures(so_far), now);
    }
    let last = *progress.borrow();
    if last.done {
        state.end_task(id, Status::Finished, figures(last)).await;
        return;
    }
    let mut data = figures(last);
    if let Some(data) = data.as_object_mut() {
        let why = "the scheduler ended before everything was cancelled; ask again";
        data.insert(String::from("error"), Value::from(why));
    }
    state.end_task(id, Status::Failed, data).await;
}
