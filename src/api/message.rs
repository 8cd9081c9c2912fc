//! Messages: accept one, accept many, list, read.

use std::sync::Arc;

use axum::body::Bytes;
use http::{HeaderValue, StatusCode};

use super::body;
use super::error::{Code, Problem};
use super::history::{self, Bounds, Scan};
use super::page::Paging;
use super::reply::{Kind, Reply};
use super::request::{Answer, Cx};
use crate::base::task;
use crate::directory::{AppEntry, Snapshot};
use crate::ingest::{Accepted, Submission};
use crate::model::{Message, MessageId, Scope};
use crate::policy::hop;
use crate::store::ListKey;

/// What a body may have beside its payload.
const AROUND_PAYLOAD: usize = 64 << 10;

/// POST `/app/{app_id}/msg`: 202 once the message is on stable storage.
pub(super) async fn create(mut cx: Cx) -> Answer {
    // Overload is decided before the body is read.
    let admission = cx.state.ingest.admit(cx.param("app_id"), &cx.principal)?;
    let warning = admission.warning;
    let hops = hops(&cx)?;
    cx.wants_json(&[])?;
    let limit = cx.state.ingest.config().max_body.len();
    let body = cx.bytes(limit.saturating_add(AROUND_PAYLOAD)).await?;
    let (with_content, return_duplicate) = options(&cx)?;
    let key = cx.idempotency_key();
    let submission = Submission {
        app: cx.param("app_id"),
        principal: &cx.principal,
        may_create: may_create(&cx),
        path: cx.path(),
        idempotency_key: key.as_deref(),
        hops,
        return_duplicate,
        body,
    };
    let accepted = cx.state.ingest.accept(admission, submission).await?;
    let snapshot = cx.state.directory.peek();
    let body = accepted_json(&accepted, &snapshot, with_content);
    Ok(Reply {
        warning: warning.map(|warning| warning.to_string()),
        ..Reply::raw(StatusCode::ACCEPTED, body)
    })
}

/// Hops the request has behind it; what goes in circles ends here.
fn hops(cx: &Cx) -> Result<u8, Problem> {
    let values = cx.headers.get_all(hop::HEADER).iter();
    Ok(cx.state.ingest.hops(values.map(HeaderValue::as_bytes))?)
}

fn options(cx: &Cx) -> Result<(bool, bool), Problem> {
    if !cx.has_query() {
        return Ok((true, false));
    }
    let query = cx.query();
    let return_duplicate = query.get("on_duplicate") == Some("return");
    Ok((query.flag("with_content", true)?, return_duplicate))
}

fn may_create(cx: &Cx) -> bool {
    cx.principal.app.is_none() && cx.principal.may(&Scope::WebhooksWrite)
}

/// POST `/app/{app_id}/msg/batch`: NDJSON in, NDJSON out, line for line.
pub(super) async fn batch(mut cx: Cx) -> Answer {
    let admission = cx.state.ingest.admit(cx.param("app_id"), &cx.principal)?;
    let warning = admission.warning;
    let hops = hops(&cx)?;
    cx.wants_json(&["application/x-ndjson", "application/jsonl", "text/plain"])?;
    let limit = cx.state.ingest.config().max_batch_body.len();
    let body = cx.bytes(limit).await?;
    let (_, return_duplicate) = options(&cx)?;
    let (reply, answer) = tokio::sync::oneshot::channel();
    // In a task of its own: keys and event ids stay claimed until the last line is committed, also
    // if the caller goes away.
    task::detach(async move {
        let key = cx.idempotency_key();
        let submission = Submission {
            app: cx.param("app_id"),
            principal: &cx.principal,
            may_create: may_create(&cx),
            path: cx.path(),
            idempotency_key: key.as_deref(),
            hops,
            return_duplicate,
            body,
        };
        let results = cx.state.ingest.accept_batch(admission, submission).await;
        drop(reply.send(results)); // the caller went away; the lines stand
    });
    let gone = |_| Problem::new(Code::Server, "The gateway is stopping.");
    let results = answer.await.map_err(gone)??;
    let mut out = Vec::with_capacity(results.len() * 80);
    for (index, result) in results.into_iter().enumerate() {
        out.extend_from_slice(format!("{{\"index\":{index},").as_bytes());
        match result {
            Ok(accepted) => {
                let id = accepted.message.id();
                out.extend_from_slice(format!("\"status\":202,\"id\":\"{id}\"").as_bytes());
                if accepted.duplicate {
                    out.extend_from_slice(b",\"duplicate\":true");
                }
            }
            Err(refused) => Problem::from(refused).write_line(&mut out),
        }
        out.extend_from_slice(b"}\n");
    }
    Ok(Reply {
        kind: Kind::Lines,
        warning: warning.map(|warning| warning.to_string()),
        ..Reply::raw(StatusCode::ACCEPTED, out)
    })
}

/// GET `/app/{app_id}/msg/{msg_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    let app = cx.app()?;
    let message = find(&cx, &app)?;
    let with_content = cx.query().flag("with_content", true)?;
    let mut out = Vec::with_capacity(message.payload.len() + 256);
    body::write_message(&mut out, &message, with_content);
    out.push(b'}');
    Ok(Reply::raw(StatusCode::OK, out))
}

/// The message of the path, by its id or event id.
pub(super) fn find(cx: &Cx, app: &AppEntry) -> Result<Message, Problem> {
    let found = find_by(cx, app, cx.param("msg_id"))?;
    found.ok_or_else(|| Problem::not_found("message"))
}

/// A message of the application by its id or event id.
pub(super) fn find_by(cx: &Cx, app: &AppEntry, text: &str) -> Result<Option<Message>, Problem> {
    let reader = &cx.state.reader;
    let found = match MessageId::parse(text) {
        Ok(id) => {
            let (_, at) = id.place();
            // The id says where to look; what is found there must be what it names.
            reader.message(at)?.filter(|message| message.id() == id)
        }
        Err(_) => match reader.by_event_id(app.app.no, text)? {
            Some(at) => reader.message(at)?,
            None => None,
        },
    };
    Ok(found.filter(|message| message.app == app.app.no))
}

/// GET `/app/{app_id}/msg`
pub(super) async fn list(cx: Cx) -> Answer {
    let app = cx.app()?;
    let query = cx.query();
    let bounds = Bounds::of(&query)?;
    let paging = Paging::of_history(&query, bounds.is_from_below(), list_key)?;
    let with_content = query.flag("with_content", true)?;
    let filter = history::MessageFilter::of(&query);
    let reader = &cx.state.reader;
    let scan = Scan::new(&paging, &bounds);
    let (found, edges) = scan.run(
        |page| reader.app_messages(app.app.no, page),
        |listed| {
            let message = reader.message(listed.key.at)?;
            Ok(message.filter(|message| filter.keeps(message)))
        },
    )?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"data\":[");
    for (place, (_, message)) in found.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        body::write_message(&mut out, message, with_content);
        out.push(b'}');
    }
    out.push(b']');
    edges.write(&mut out, |key| MessageId::of(key.time, key.at).to_string());
    out.push(b'}');
    Ok(Reply::raw(StatusCode::OK, out))
}

/// The place of a message in lists, from its id.
pub(super) fn list_key(text: &str) -> Option<ListKey> {
    let (time, at) = MessageId::parse(text).ok()?.place();
    Some(ListKey { time, at, no: 0 })
}

fn accepted_json(accepted: &Accepted, snapshot: &Arc<Snapshot>, with_content: bool) -> Bytes {
    let message = &accepted.message;
    let content = if with_content {
        message.payload.len()
    } else {
        2
    };
    let mut out = Vec::with_capacity(content + 256 + message.targets.len() * 33);
    body::write_message(&mut out, message, with_content);
    if accepted.duplicate {
        out.extend_from_slice(b",\"duplicate\":true");
    }
    out.extend_from_slice(b",\"endpoints\":[");
    let ids = message
        .targets
        .iter()
        .filter_map(|no| snapshot.endpoint(*no));
    for (place, endpoint) in ids.enumerate() {
        out.extend_from_slice(if place > 0 { b",\"" } else { b"\"" });
        out.extend_from_slice(b"ep_");
        out.extend_from_slice(&endpoint.id.0.digits());
        out.push(b'"');
    }
    out.extend_from_slice(b"]}");
    out.into()
}
