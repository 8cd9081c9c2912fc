//! The messages of an application as a feed: oldest first, to be polled with the iterator of the last
//! page. Nothing is left out and nothing comes twice: a message accepted later stands further on.

use serde::Serialize;
use serde_json::value::RawValue;

use super::body::write_message;
use super::error::Problem;
use super::history::{Bounds, MessageFilter, Scan};
use super::message::list_key;
use super::page::{Paging, Place};
use super::query::Query;
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::directory::AppEntry;
use crate::model::{Endpoint, Message, MessageId, Position};
use crate::policy::filter::{facts, why_not_in_full};

#[derive(Serialize)]
struct Out {
    data: Vec<Box<RawValue>>,
    iterator: String,
    done: bool,
}

/// GET `/app/{app_id}/events`
pub(super) async fn all(cx: Cx) -> Answer {
    let app = cx.app()?;
    let query = cx.query();
    let filter = MessageFilter::of_feed(&query);
    feed(&cx, &app, &query, |message| filter.keeps(message))
}

/// GET `/app/{app_id}/events/subscription/{subscription_id}`: what an endpoint (by id or uid) would get.
pub(super) async fn subscription(cx: Cx) -> Answer {
    let app = cx.app()?;
    let endpoint = app.endpoint(cx.param("subscription_id")).cloned();
    let endpoint = endpoint.ok_or_else(|| Problem::not_found("subscription"))?;
    let wants = |message: &Message, endpoint: &Endpoint| {
        why_not_in_full(endpoint, &facts(message)).is_none()
    };
    let query = cx.query();
    feed(&cx, &app, &query, |message| wants(message, &endpoint))
}

fn feed(cx: &Cx, app: &AppEntry, query: &Query, keep: impl Fn(&Message) -> bool) -> Answer {
    let bounds = Bounds::of(query)?;
    let mut paging = Paging::of(query, false, list_key)?;
    paging.descending = false;
    let start = match &paging.place {
        Place::Behind(key) | Place::Before(key) => MessageId::of(key.time, key.at),
        Place::First => MessageId::of(bounds.start(), Position::START),
    };
    let reader = &cx.state.reader;
    let (found, edges) = Scan::new(&paging, &bounds).run(
        |page| reader.app_messages(app.app.no, page),
        |listed| Ok(reader.message(listed.key.at)?.filter(|m| keep(m))),
    )?;
    let data = found.iter().filter_map(|(_, message)| {
        let mut out = Vec::with_capacity(message.payload.len() + 256);
        write_message(&mut out, message, true);
        out.push(b'}');
        RawValue::from_string(String::from_utf8(out).ok()?).ok()
    });
    let iterator = edges.reached().map(|key| MessageId::of(key.time, key.at));
    Ok(Reply::ok(&Out {
        data: data.collect(),
        iterator: iterator.unwrap_or(start).to_string(),
        done: edges.is_done(),
    }))
}
