//! `Idempotency-Key` on every POST but those that accept messages, which keep their own record in
//! the message's commit (`ingest`).
//!
//! The request runs in a task of its own under a claim, so a caller who goes away and comes back
//! finds the answer and not a second object. Answers of 2xx are stored for a day, across restarts.

use bytes::Bytes;
use http::StatusCode;

use super::error::{Code, Problem, mismatch};
use super::reply::{Kind, Reply};
use super::request::{Answer, Cx, MAX_BODY};
use crate::base::task;
use crate::ingest::{Refused, Taken, body_hash, request_key};
use crate::store::{IdempotencyKey, StoredAnswer};

/// Runs `handler` unless the same request was answered before.
pub(super) async fn once<F, Fut>(mut cx: Cx, handler: F) -> Answer
where
    F: Fn(Cx) -> Fut + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let Some(header) = cx.idempotency_key() else {
        return handler(cx).await;
    };
    let body = cx.bytes(MAX_BODY).await?;
    // A uid may have belonged to another application before: its answers are not this one's.
    let path = match cx.app() {
        Ok(entry) => format!("{}\0{}", cx.path(), entry.app.no.0),
        Err(_) => cx.path().to_owned(),
    };
    let key = IdempotencyKey {
        key: request_key(&cx.principal, &path, &header)?,
        body: body_hash(&body),
    };
    cx.put_bytes(body);
    let claims = cx.state.ingest.claims().clone();
    let claim = claims.claim(key.key).await;
    let claim = claim.map_err(|Taken| Refused::InProgress)?;
    if let Some(found) = find(&cx, &key)? {
        return Ok(found);
    }
    let (reply, answer) = tokio::sync::oneshot::channel();
    task::detach(async move {
        let lane = cx.state.lane.clone();
        let answer = handler(cx).await;
        if let Ok(made) = &answer {
            let stored = StoredAnswer::Whole {
                status: made.status.as_u16(),
                body: made.body.clone(),
            };
            // Work is done in the order it was handed in: when the figures come back, the answer
            // can be found, and the claim may end.
            let kept = lane.remember(key, stored);
            if kept.is_err() || lane.space().await.is_err() {
                tracing::debug!("the answer of a request was not stored under its key");
            }
        }
        drop(claim);
        drop(reply.send(answer)); // the caller went away; the work stands
    });
    let gone = |_| Problem::new(Code::Server, "The gateway is stopping.");
    answer.await.map_err(gone)?
}

fn find(cx: &Cx, key: &IdempotencyKey) -> Result<Option<Reply>, Problem> {
    let oldest = cx.now.minus(cx.state.retention.idempotency);
    let Some(record) = cx.state.reader.idempotent(&key.key, oldest)? else {
        return Ok(None);
    };
    if record.body != key.body {
        return Err(mismatch());
    }
    match record.answer {
        StoredAnswer::Whole { status, body } => Ok(Some(again(status, body))),
        StoredAnswer::Message(_) => Err(mismatch()),
    }
}

fn again(status: u16, body: Bytes) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = if body.is_empty() {
        Kind::Empty
    } else {
        Kind::Json
    };
    Reply {
        kind,
        ..Reply::raw(status, body)
    }
}
