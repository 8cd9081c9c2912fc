//! Payloads to build a flow on, for connectors: what an automation platform shows before the first event
//! (`api.md` 9). Never empty for a type that anybody knows.
//!
//! Newest real payloads of an application come first; without one the examples of the type's schema,
//! then the catalogues, then a payload that only says which type it is.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{Code, Problem};
use super::example;
use super::history::{Bounds, Scan};
use super::page::{Paging, Place};
use super::query::{Query, wrong};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::AppEntry;
use crate::ingest::{ItemKind, fields};
use crate::model::{Message, MessageId, Scope};

const DEFAULT_LIMIT: usize = 3;
const MAX_LIMIT: usize = 10;

#[derive(Serialize)]
struct Samples {
    data: Vec<Sample>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    /// Of the message; samples that are made up have none.
    id: Option<MessageId>,
    event_type: String,
    timestamp: Timestamp,
    payload: Box<RawValue>,
    /// `message`, `schema`, `catalogue` or `none`.
    from: &'static str,
}

/// GET `/event-type/{event_type_name}/sample`
pub(super) async fn read(cx: Cx) -> Answer {
    let name = cx.param("event_type_name");
    let query = cx.query();
    let limit = limit(&query)?;
    let mut data = match app(&cx, &query)? {
        Some(app) => newest(&cx, &app, name, limit)?,
        None => Vec::new(),
    };
    if data.is_empty() {
        data = made_up(&cx, name, limit)?;
    }
    Ok(Reply::ok(&Samples { data }))
}

fn limit(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else {
        return Ok(DEFAULT_LIMIT);
    };
    let read = text.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
    read.ok_or_else(|| {
        let msg = format!("a whole number from 1 to {MAX_LIMIT} is wanted");
        wrong("limit", ItemKind::Limit, msg)
    })
}

/// Whose messages may be shown: the application that is named, or the caller's own. Nobody's without the
/// scope for messages.
fn app(cx: &Cx, query: &Query) -> Result<Option<std::sync::Arc<AppEntry>>, Problem> {
    let named = query.get("app_id").map(|id| cx.find_app(id)).transpose()?;
    if !cx.principal.may(&Scope::MessageRead) {
        return Ok(None);
    }
    let own = || {
        cx.state
            .directory
            .peek()
            .app_by_no(cx.principal.app?)
            .cloned()
    };
    Ok(named.or_else(own))
}

fn newest(cx: &Cx, app: &AppEntry, name: &str, limit: usize) -> Result<Vec<Sample>, Problem> {
    let reader = &cx.state.reader;
    let paging = Paging {
        limit,
        place: Place::First,
        descending: true,
        upwards: false,
    };
    let (found, _) = Scan::new(&paging, &Bounds::of(&Query::of(None))?).run(
        |page| reader.app_messages(app.app.no, page),
        |listed| {
            let message = reader.message(listed.key.at)?;
            let is_one = |message: &Message| *message.event_type == *name;
            // What was expunged is no JSON object any more.
            Ok(message.filter(is_one).and_then(|message| of(&message)))
        },
    )?;
    Ok(found.into_iter().map(|(_, sample)| sample).collect())
}

fn of(message: &Message) -> Option<Sample> {
    let payload: Box<RawValue> = serde_json::from_slice(&message.payload).ok()?;
    payload.get().starts_with('{').then(|| Sample {
        id: Some(message.id()),
        event_type: message.event_type.to_string(),
        timestamp: message.accepted,
        payload,
        from: "message",
    })
}

fn made_up(cx: &Cx, name: &str, limit: usize) -> Result<Vec<Sample>, Problem> {
    let snapshot = cx.state.directory.peek();
    let known = snapshot.event_type(name);
    let listed = cx.state.catalogs.find(name);
    let mut payloads = Vec::new();
    let mut from = "schema";
    if let Some(known) = known {
        for index in 0..limit {
            let made = example::of_type(known, index);
            payloads.extend(made.filter(|made| !payloads.contains(made)));
        }
    }
    if let (true, Some(listed)) = (payloads.is_empty(), listed) {
        payloads.push(listed.sample.clone());
        from = "catalogue";
    }
    if payloads.is_empty() {
        if known.is_none() || fields::event_type(name).is_err() {
            let detail = "No event type with this name, and no catalogue has it.";
            return Err(Problem::new(Code::NotFound, detail));
        }
        payloads.push(serde_json::json!({ "sample": true, "eventType": name }));
        from = "none";
    }
    let sample = |payload: &Value| {
        let payload = serde_json::value::to_raw_value(payload).ok()?;
        Some(Sample {
            id: None,
            event_type: name.to_owned(),
            timestamp: cx.now,
            payload,
            from,
        })
    };
    Ok(payloads.iter().filter_map(sample).collect())
}
