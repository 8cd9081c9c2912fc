//! The audit log: who changed what, when, from where.
//!
//! Every call that changes something is entered: configuration in the commit of the change itself, acts
//! that change none (resend, recover, expunge …) after they were taken on and before the answer, so a 2xx
//! that was seen has its entry. Accepting messages is no such call. Kept as long as messages
//! (`retention.messages`), dropped by the day.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use http::Method;
use serde::Serialize;
use serde_json::Value;

use super::error::Problem;
use super::openapi;
use super::page::{List, Paging, Place};
use super::query::Query;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::{AuditEntry, Note};
use crate::model::{AppNo, AuditId};
use crate::store::AuditPage;

/// Entries looked at for one page.
const BUDGET: usize = 2000;
/// Entries read at a time.
const STEP: usize = 250;

/// Ids of operations by method and path.
static OPERATIONS: LazyLock<HashMap<(&str, &str), &str>> = LazyLock::new(|| {
    let all = openapi::operations().into_iter();
    all.map(|one| ((one.method, one.path), one.id)).collect()
});

/// Whether the request at hand has its entry already.
#[derive(Debug, Default)]
pub(super) struct Noting(AtomicBool);

impl Noting {
    pub(super) fn done(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Cx {
    /// What the log says of this request.
    pub(super) fn note(&self) -> Note {
        let template = self.template();
        let path = template.strip_suffix('/').unwrap_or(template);
        let known = OPERATIONS.get(&(self.method().as_str(), path));
        let action = known.map_or_else(
            || format!("{} {path}", self.method()),
            |id| (*id).to_owned(),
        );
        let app = self.find_app(self.param("app_id")).ok();
        Note {
            at: self.now,
            actor: self.actor(),
            action,
            object: self.objects(),
            app: app.map(|entry| entry.app.no).or(self.principal.app),
            ip: Some(self.ip),
        }
    }

    fn actor(&self) -> String {
        match (&self.principal.key, &self.principal.portal) {
            (Some(key), _) => key.to_string(),
            (None, Some(token)) => match &token.session {
                Some(session) => format!("portal {session}"),
                None => String::from("portal"),
            },
            (None, None) => String::from("operator"),
        }
    }
}

/// Waits for the entry of an act that changed no configuration.
pub(super) async fn entered(state: &super::ApiState, note: Note) -> Result<(), Problem> {
    Ok(std::sync::Arc::clone(&state.directory).note(note).await?)
}

/// The address that is shown when a request came over no connection.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out {
    id: AuditId,
    at: Timestamp,
    actor: String,
    action: String,
    object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
    ip: Option<IpAddr>,
}

struct Wanted<'a> {
    actor: Option<&'a str>,
    action: Option<&'a str>,
    object: Option<&'a str>,
    before: Option<Timestamp>,
    after: Timestamp,
    app: Option<AppNo>,
}

impl Wanted<'_> {
    fn keeps(&self, entry: &AuditEntry) -> bool {
        self.actor.is_none_or(|actor| actor == entry.actor)
            && self.action.is_none_or(|action| action == entry.action)
            && self
                .object
                .is_none_or(|object| entry.object.split([' ', '/']).any(|one| one == object))
            && self.before.is_none_or(|end| entry.at < end)
            && entry.at > self.after
            && self.app.is_none_or(|app| entry.app == Some(app))
    }
}

/// GET `/audit`: newest first; a key of one application sees what happened in it.
pub(super) async fn list(cx: Cx) -> Answer {
    let query = cx.query();
    let paging = Paging::of(&query, true, |text| AuditId::parse(text).ok())?;
    let wanted = wanted(&cx, &query)?;
    let (backwards, from) = match paging.place {
        Place::First => (false, None),
        Place::Behind(id) => (false, Some(id)),
        Place::Before(id) => (true, Some(id)),
    };
    let newest_first = paging.descending != backwards;
    let (mut found, done, reached) = walk(&cx, &wanted, (from, newest_first, paging.limit))?;
    if backwards {
        found.reverse();
    }
    let mut list = List::of(found, done, |out| out.id.to_string());
    if list.data.len() < paging.limit && !done {
        // The walk came further than what it found.
        let reached = reached.map(|id| id.to_string());
        if backwards {
            list.prev_iterator = reached.map(|id| format!("-{id}"));
        } else {
            list.iterator = reached;
        }
    }
    Ok(list.reply())
}

fn wanted<'a>(cx: &Cx, query: &'a Query) -> Result<Wanted<'a>, Problem> {
    let named = query.get("app_id").map(|id| cx.find_app(id)).transpose()?;
    // What is out of retention may not have been dropped yet.
    let kept = cx.now.minus(cx.state.retention.messages);
    Ok(Wanted {
        actor: query.get("actor"),
        action: query.get("action"),
        object: query.get("object"),
        before: query.time("before")?,
        after: query.time("after")?.unwrap_or(Timestamp::ZERO).max(kept),
        app: named.map(|entry| entry.app.no).or(cx.principal.app),
    })
}

type Found = (Vec<Out>, bool, Option<AuditId>);

fn walk(
    cx: &Cx,
    wanted: &Wanted<'_>,
    (mut from, newest_first, limit): (Option<AuditId>, bool, usize),
) -> Result<Found, Problem> {
    let snapshot = cx.state.directory.peek();
    let mut found = Vec::new();
    let mut seen = 0;
    loop {
        let page = AuditPage {
            from: from.map(|id| id.0.0),
            newest_first,
            limit: STEP,
        };
        let rows = cx.state.reader.audit(&page)?;
        let is_end = rows.len() < STEP;
        for (id, value) in rows {
            let id = AuditId(crate::base::Id20(id));
            if found.len() == limit || seen == BUDGET {
                return Ok((found, false, from));
            }
            // Nothing older is wanted.
            if newest_first && id.0.at() <= wanted.after {
                return Ok((found, true, from));
            }
            seen += 1;
            from = Some(id);
            let Ok(entry) = serde_json::from_slice::<AuditEntry>(&value) else {
                tracing::warn!(%id, "an entry of the audit log cannot be read");
                continue;
            };
            if wanted.keeps(&entry) {
                let app = entry.app.and_then(|no| snapshot.app_by_no(no));
                found.push(shown(id, entry, app.map(|entry| entry.app.id.to_string())));
            }
        }
        if is_end {
            return Ok((found, true, from));
        }
    }
}

fn shown(id: AuditId, entry: AuditEntry, app_id: Option<String>) -> Out {
    Out {
        id,
        at: entry.at,
        actor: entry.actor,
        action: entry.action,
        object: entry.object,
        app_id,
        before: entry.before,
        after: entry.after,
        ip: entry.ip,
    }
}

/// Whether calls of this kind are entered: what changes something, but not what accepts messages or
/// asks with a body.
pub(super) fn is_entered(method: &Method, path: &str) -> bool {
    const ASKS: [&str; 6] = [
        "message.create",
        "message.create_batch",
        "message.explain_dry_run",
        "message.precheck",
        "statistics.aggregate_app_stats",
        "statistics.aggregate_event_types",
    ];
    let id = OPERATIONS.get(&(method.as_str(), path));
    *method != Method::GET && !id.is_some_and(|id| ASKS.contains(id))
}
