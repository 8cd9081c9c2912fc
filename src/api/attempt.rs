//! Deliveries and attempts: lists of what happened, resend, cancel.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::body::write_message;
use super::endpoint;
use super::error::{Code, Problem};
use super::history::{Bounds, MessageFilter, Scan, end_of, start_of};
use super::message;
use super::page::{List, Paging, Place, select};
use super::query::Query;
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::AppEntry;
use crate::model::{
    Attempt, AttemptId, Delivery, DeliveryState, Endpoint, EndpointId, EndpointNo, FailureKind,
    Message, MessageId, Trigger, Verdict,
};
use crate::schedule::DeliveryView;
use crate::store::{ListKey, ListedAttempt};

/// MessageAttemptOut; `attempt` and `failure` are ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out {
    id: AttemptId,
    msg_id: MessageId,
    endpoint_id: EndpointId,
    url: String,
    response: String,
    response_status_code: u16,
    response_duration_ms: u32,
    status: u8,
    status_text: &'static str,
    trigger_type: u8,
    timestamp: Timestamp,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<Box<RawValue>>,
}

/// What every list of attempts may ask for.
struct Wanted {
    status: Option<u16>,
    class: Option<u16>,
    with_content: bool,
    with_msg: bool,
    messages: MessageFilter,
    bounds: Bounds,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Problem> {
        query.flag("expanded_statuses", false)?; // attempts are over: success or fail
        Ok(Self {
            status: query.number("status", &[0, 1, 2, 3, 4])?,
            class: query.number("status_code_class", &[0, 100, 200, 300, 400, 500])?,
            with_content: query.flag("with_content", true)?,
            with_msg: query.flag("with_msg", false)?,
            messages: MessageFilter::of(query),
            bounds: Bounds::of(query)?,
        })
    }

    /// By what the list itself knows.
    fn keeps(&self, status: u16, delivered: bool) -> bool {
        let own = if delivered { 0 } else { 2 };
        self.status.is_none_or(|wanted| wanted == own)
            && self.class.is_none_or(|class| status / 100 * 100 == class)
    }
}

/// GET `/app/{app_id}/attempt/endpoint/{endpoint_id}`: newest first. Attempts may outlive their message
/// (`retention.attempts`): such a one has no `msg`, and filters that look at the message leave it out.
pub(super) async fn by_endpoint(cx: Cx) -> Answer {
    let (app, endpoint) = cx.endpoint()?;
    let query = cx.query();
    let wanted = Wanted::of(&query)?;
    let from_below = wanted.bounds.is_from_below();
    let paging = Paging::of_history(&query, from_below, |text| AttemptId::parse(text).ok())?;
    let reader = &cx.state.reader;
    let (scan, mut skip) = attempt_scan(&paging, &wanted.bounds);
    let keep = |listed: &ListedAttempt| {
        if skip.skips(&listed.key) || !wanted.keeps(listed.status, listed.verdict == 0) {
            return Ok(None);
        }
        let at = listed.key.at;
        let is_filtered = !wanted.messages.is_empty();
        let message = if listed.has_message && (wanted.with_msg || is_filtered) {
            reader.message(at)?
        } else {
            None
        };
        // Of a message that is gone nobody knows whether the filters would keep it.
        let keeps = |message: &Message| wanted.messages.keeps(message);
        if is_filtered && !message.as_ref().is_some_and(keeps) {
            return Ok(None);
        }
        let attempts = reader.attempts(at, Some(endpoint.no))?;
        let found = attempts
            .into_iter()
            .find(|attempt| attempt.no == listed.key.no);
        let shown = found.map(|attempt| (attempt, message.filter(|_| wanted.with_msg)));
        Ok(shown)
    };
    let (found, edges) = scan.run(|page| reader.endpoint_attempts(endpoint.no, page), keep)?;
    let mut data = Vec::with_capacity(found.len());
    for (_, (attempt, message)) in found {
        let id = message_id(&cx, &app, &attempt, message.as_ref())?;
        let mut out = show(&cx, &attempt, id, &endpoint, wanted.with_content);
        out.msg = message.and_then(|message| without_content(&message));
        data.push(out);
    }
    let id = |key: &ListKey| AttemptId::of(key.time, endpoint.no, key.at, key.no).to_string();
    Ok(edges.list(data, id).reply())
}

/// The id of an attempt's message. Records of before attempts outlived their messages know the place and
/// not when it was accepted.
fn message_id(
    cx: &Cx,
    app: &AppEntry,
    attempt: &Attempt,
    message: Option<&Message>,
) -> Result<MessageId, Problem> {
    if let Some(id) = attempt.message_id().or_else(|| Some(message?.id())) {
        return Ok(id);
    }
    let found = cx.state.reader.message(attempt.at)?;
    let mine = found.filter(|message| message.app == app.app.no);
    // Retention may have dropped the message a moment ago.
    Ok(mine.map_or_else(|| MessageId::of(attempt.ended, attempt.at), |m| m.id()))
}

/// An attempt's id names endpoint, sequence number and attempt, not the lane, so a walk begins at the
/// millisecond in it and skips up to the attempt itself.
pub(super) fn attempt_scan(paging: &Paging<AttemptId>, bounds: &Bounds) -> (Scan, Skip) {
    let edge = |id: &AttemptId, newest_first: bool| {
        let time = id.0.at();
        if newest_first {
            end_of(time)
        } else {
            start_of(time)
        }
    };
    let (place, skip) = match &paging.place {
        Place::First => (Place::First, None),
        Place::Behind(id) => (Place::Behind(edge(id, paging.descending)), Some(*id)),
        Place::Before(id) => (Place::Before(edge(id, !paging.descending)), Some(*id)),
    };
    let keyed = Paging {
        limit: paging.limit,
        place,
        descending: paging.descending,
        upwards: paging.upwards,
    };
    (Scan::new(&keyed, bounds), Skip(skip))
}

/// Entries of one millisecond up to a certain attempt.
pub(super) struct Skip(Option<AttemptId>);

impl Skip {
    pub(super) fn skips(&mut self, key: &ListKey) -> bool {
        let Some(id) = self.0 else { return false };
        let (_, seq, no) = id.parts();
        let same_time = key.time == id.0.at();
        if !same_time || (key.at.seq, key.no) == (seq, no) {
            self.0 = None;
        }
        same_time
    }
}

/// GET `/app/{app_id}/attempt/msg/{msg_id}`: newest first.
pub(super) async fn by_message(cx: Cx) -> Answer {
    let app = cx.app()?;
    let message = message::find(&cx, &app)?;
    let query = cx.query();
    let wanted = Wanted::of(&query)?;
    let from_below = wanted.bounds.is_from_below();
    let mut paging = Paging::of_history(&query, from_below, |text| AttemptId::parse(text).ok())?;
    let only = match query.get("endpoint_id") {
        None => None,
        Some(id) => Some(
            app.endpoint(id)
                .ok_or_else(|| Problem::not_found("endpoint"))?
                .no,
        ),
    };
    let attempts = cx.state.reader.attempts(message.at, only)?;
    let kept = attempts.iter().filter(|attempt| {
        wanted.keeps(
            attempt.outcome.status,
            attempt.verdict == Verdict::Delivered,
        ) && wanted.messages.keeps(&message)
            && (paging.place != Place::First || wanted.bounds.hold(attempt.ended))
    });
    // With `after` alone: the attempts closest to it, still shown newest first.
    let is_start = paging.upwards && paging.place == Place::First;
    paging.descending &= !is_start;
    let (mut page, done) = select(&paging, kept, |attempt| attempt.id());
    if is_start {
        page.reverse();
    }
    let snapshot = cx.state.directory.snapshot();
    let shown = page.iter().filter_map(|attempt| {
        let endpoint = snapshot.endpoint(attempt.endpoint)?;
        Some(show(
            &cx,
            attempt,
            message.id(),
            endpoint,
            wanted.with_content,
        ))
    });
    let list = List::of(shown.collect(), done, |out: &Out| out.id.to_string());
    let list = if paging.upwards { list.upwards() } else { list };
    Ok(list.reply())
}

/// GET `/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    let app = cx.app()?;
    cx.query().flag("expanded_statuses", false)?; // an attempt is over: success or fail
    let (message, attempt, endpoint) = find(&cx, &app)?;
    Ok(Reply::ok(&show(
        &cx,
        &attempt,
        message.id(),
        &endpoint,
        true,
    )))
}

/// Message, attempt and endpoint of the path.
pub(super) fn find(cx: &Cx, app: &AppEntry) -> Result<(Message, Attempt, Arc<Endpoint>), Problem> {
    let message = message::find(cx, app)?;
    let missing = || Problem::not_found("attempt");
    let id = AttemptId::parse(cx.param("attempt_id")).map_err(|_| missing())?;
    let (endpoint, _, _) = id.parts();
    let attempts = cx.state.reader.attempts(message.at, Some(endpoint))?;
    let attempt = attempts
        .into_iter()
        .find(|a| a.id() == id)
        .ok_or_else(missing)?;
    let snapshot = cx.state.directory.snapshot();
    let endpoint = snapshot.endpoint(endpoint).ok_or_else(missing)?;
    Ok((message, attempt, Arc::clone(endpoint)))
}

fn show(cx: &Cx, attempt: &Attempt, msg: MessageId, to: &Endpoint, with_content: bool) -> Out {
    let delivered = attempt.verdict == Verdict::Delivered;
    let response = if with_content {
        String::from_utf8_lossy(&attempt.response).into_owned()
    } else {
        String::from("{}")
    };
    Out {
        id: attempt.id(),
        msg_id: msg,
        endpoint_id: to.id,
        url: to.url.clone(),
        response,
        response_status_code: attempt.outcome.status,
        response_duration_ms: attempt.duration_ms,
        status: if delivered { 0 } else { 2 },
        status_text: if delivered { "success" } else { "fail" },
        trigger_type: match attempt.trigger {
            Trigger::Scheduled => 0,
            Trigger::Manual => 1,
        },
        timestamp: attempt.ended,
        attempt: attempt.no,
        failure: attempt.outcome.failure.map(|kind| failure_name(cx, kind)),
        msg: None,
    }
}

/// What lies behind a target's name is the operator's affair: keys of one application read `target`
/// for everything that would tell it (`api.md` 8).
pub(super) fn failure_name(cx: &Cx, kind: FailureKind) -> &'static str {
    let tells = matches!(
        kind,
        FailureKind::Dns | FailureKind::Refused | FailureKind::BlockedAddress
    );
    if tells && cx.principal.app.is_some() && !cx.state.delivery.show_blocked_addresses {
        return "target";
    }
    kind.name()
}

fn without_content(message: &Message) -> Option<Box<RawValue>> {
    let mut out = Vec::with_capacity(256);
    write_message(&mut out, message, false);
    out.push(b'}');
    RawValue::from_string(String::from_utf8(out).ok()?).ok()
}

/// MessageStatus and its word.
pub(super) const fn status(state: DeliveryState, expanded: bool) -> (u8, &'static str) {
    match state {
        DeliveryState::Delivered => (0, "success"),
        DeliveryState::Pending | DeliveryState::Retrying | DeliveryState::Held => (1, "pending"),
        DeliveryState::Dead => (2, "fail"),
        DeliveryState::Sending if expanded => (3, "sending"),
        DeliveryState::Sending => (1, "pending"),
        DeliveryState::Cancelled | DeliveryState::Superseded if expanded => (4, "canceled"),
        DeliveryState::Cancelled | DeliveryState::Superseded => (0, "success"),
    }
}

/// GET `/app/{app_id}/endpoint/{endpoint_id}/msg`: messages that were meant for an endpoint or sent
/// to it, newest first.
pub(super) async fn messages(cx: Cx) -> Answer {
    let (app, endpoint) = cx.endpoint()?;
    let query = cx.query();
    let bounds = Bounds::of(&query)?;
    let paging = Paging::of_history(&query, bounds.is_from_below(), message::list_key)?;
    let filter = MessageFilter::of(&query);
    let with_content = query.flag("with_content", true)?;
    let expanded = query.flag("expanded_statuses", false)?;
    let only = query.number("status", &[0, 1, 2, 3, 4])?;
    let reader = &cx.state.reader;
    let (found, edges) = Scan::new(&paging, &bounds).run(
        |page| reader.app_messages(app.app.no, page),
        |listed| {
            let Some(message) = reader.message(listed.key.at)?.filter(|m| filter.keeps(m)) else {
                return Ok(None);
            };
            let concerns = message.targets.contains(&endpoint.no)
                || !reader.attempts(message.at, Some(endpoint.no))?.is_empty();
            Ok(concerns.then_some(message))
        },
    )?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"data\":[");
    let mut separator: &[u8] = b"";
    for (_, message) in &found {
        let view = cx
            .state
            .schedule
            .delivery(Delivery {
                at: message.at,
                endpoint: endpoint.no,
            })
            .await?;
        let (status, text) = status(view.state, expanded);
        if only.is_some_and(|only| only != u16::from(status)) {
            continue;
        }
        out.extend_from_slice(separator);
        separator = b",";
        write_message(&mut out, message, with_content);
        super::body::field(&mut out, "status", &status);
        super::body::field(&mut out, "statusText", text);
        if let Some(next) = view.next_attempt {
            super::body::field(&mut out, "nextAttempt", &next);
        }
        out.push(b'}');
    }
    out.push(b']');
    edges.write(&mut out, |key| MessageId::of(key.time, key.at).to_string());
    out.push(b'}');
    Ok(Reply::raw(StatusCode::OK, out))
}

/// MessageEndpointOut.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination<'a> {
    #[serde(flatten)]
    endpoint: endpoint::Out<'a>,
    status: u8,
    status_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<Timestamp>,
}

/// GET `/app/{app_id}/msg/{msg_id}/endpoint`: where a message goes, ascending by id.
pub(super) async fn destinations(cx: Cx) -> Answer {
    let app = cx.app()?;
    let message = message::find(&cx, &app)?;
    let query = cx.query();
    let paging = Paging::of(&query, false, |text| EndpointId::parse(text).ok())?;
    let expanded = query.flag("expanded_statuses", false)?;
    let views = views(&cx, &message).await?;
    let snapshot = cx.state.directory.snapshot();
    let found = views
        .iter()
        .filter_map(|view| Some((snapshot.endpoint(view.endpoint)?, view)));
    let (page, done) = select(&paging, found, |(endpoint, _): &(&Arc<Endpoint>, _)| {
        endpoint.id
    });
    let shown = page.into_iter().map(|(endpoint, view)| {
        let (status, status_text) = status(view.state, expanded);
        Destination {
            endpoint: endpoint::Out::of(endpoint).without_metadata(),
            status,
            status_text,
            next_attempt: view.next_attempt,
        }
    });
    Ok(List::of(shown.collect(), done, |d: &Destination<'_>| {
        d.endpoint.id.to_string()
    })
    .reply())
}

/// All deliveries of a message: those it was meant for, and those replayed to others later.
async fn views(cx: &Cx, message: &Message) -> Result<Vec<DeliveryView>, Problem> {
    let mut views = cx.state.schedule.deliveries(message).await?;
    let attempts = cx.state.reader.attempts(message.at, None)?;
    let mut others: Vec<EndpointNo> = attempts.iter().map(|attempt| attempt.endpoint).collect();
    others.sort_unstable();
    others.dedup();
    others.retain(|endpoint| !message.targets.contains(endpoint));
    for endpoint in others {
        let at = message.at;
        views.push(
            cx.state
                .schedule
                .delivery(Delivery { at, endpoint })
                .await?,
        );
    }
    Ok(views)
}

/// The delivery that the path names.
fn delivery(cx: &Cx) -> Result<Delivery, Problem> {
    let (app, endpoint) = cx.endpoint()?;
    let message = message::find(cx, &app)?;
    Ok(Delivery {
        at: message.at,
        endpoint: endpoint.no,
    })
}

/// POST `…/msg/{msg_id}/endpoint/{endpoint_id}/resend`: one attempt now, whatever came before.
pub(super) async fn resend(cx: Cx) -> Answer {
    let (app, endpoint) = cx.endpoint()?;
    let message = message::find(&cx, &app)?;
    if message.is_expunged() {
        let detail = "The payload of this message was expunged: there is nothing to send.";
        return Err(Problem::new(Code::MissingPayload, detail));
    }
    let delivery = Delivery {
        at: message.at,
        endpoint: endpoint.no,
    };
    cx.state.schedule.resend(delivery).await?;
    Ok(Reply::json(StatusCode::ACCEPTED, &json!({})))
}

/// POST `…/msg/{msg_id}/endpoint/{endpoint_id}/cancel`: no further attempt, if it is not finished.
pub(super) async fn cancel(cx: Cx) -> Answer {
    cx.state.schedule.cancel(vec![delivery(&cx)?]).await?;
    Ok(Reply::json(StatusCode::ACCEPTED, &json!({})))
}
