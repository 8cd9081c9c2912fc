//! Who gets a message and why: of one that was accepted, or of one that might be sent.

use serde::Serialize;

use super::error::Problem;
use super::message;
use super::reply::Reply;
use super::request::{Answer, Cx, MAX_BODY};
use crate::base::Timestamp;
use crate::directory::AppEntry;
use crate::ingest::fields;
use crate::ingest::parse::{self, Limits};
use crate::model::{DisableReason, Endpoint, EndpointId, MessageId};
use crate::policy::filter::{Mismatch, why_not};
use crate::schedule::DeliveryView;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_id: Option<MessageId>,
    event_type: &'a str,
    endpoints: Vec<Line<'a>>,
}

/// One endpoint of the application.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    endpoint_id: EndpointId,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    /// Whether its filters let the message through, as they are now.
    matches: bool,
    /// The first filter that does not: `event_type` or `channel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<&'static str>,
    /// Why nothing is sent to it at the moment: `disabled` or `paused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<DisableReason>,
    /// State of its delivery, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<Timestamp>,
}

fn line<'a>(
    endpoint: &'a Endpoint,
    event_type: &str,
    channels: &[String],
    delivery: Option<&DeliveryView>,
) -> Line<'a> {
    let mismatch = why_not(endpoint, event_type, channels);
    let held_by = match (endpoint.disabled, endpoint.paused) {
        (Some(_), _) => Some("disabled"),
        (None, true) => Some("paused"),
        (None, false) => None,
    };
    Line {
        endpoint_id: endpoint.id,
        uid: endpoint.uid.as_deref(),
        matches: mismatch.is_none(),
        mismatch: mismatch.map(|why| match why {
            Mismatch::Deleted => "deleted",
            Mismatch::EventType => "event_type",
            Mismatch::Channel => "channel",
        }),
        held_by,
        disabled_reason: endpoint.disabled,
        state: delivery.map(|view| view.state.name()),
        attempts: delivery.map(|view| view.attempts.len()),
        next_attempt: delivery.and_then(|view| view.next_attempt),
    }
}

/// GET `/app/{app_id}/msg/{msg_id}/explain`
pub(super) async fn explain(cx: Cx) -> Answer {
    let app = cx.app()?;
    let message = message::find(&cx, &app)?;
    let views = cx.state.schedule.deliveries(&message).await?;
    let lines = app.endpoints.iter().map(|endpoint| {
        let view = views.iter().find(|view| view.endpoint == endpoint.no);
        line(endpoint, &message.event_type, message.channels(), view)
    });
    Ok(Reply::ok(&Out {
        msg_id: Some(message.id()),
        event_type: &message.event_type,
        endpoints: lines.collect(),
    }))
}

/// POST `/app/{app_id}/msg/explain`: the same for a message that is not sent.
pub(super) async fn dry_run(mut cx: Cx) -> Answer {
    cx.wants_json(&[])?;
    let body = cx.bytes(MAX_BODY).await?;
    let config = cx.state.ingest.config();
    let limits = Limits {
        max_payload: config.max_body.len(),
        max_depth: config.max_json_depth,
    };
    let read = parse::message(&body, &limits)?;
    let app = cx.app()?;
    let channels = read
        .labels
        .as_ref()
        .map_or(&[][..], |labels| &labels.channels);
    Ok(Reply::ok(&Out {
        msg_id: None,
        event_type: &read.event_type,
        endpoints: lines(&app, &read.event_type, channels),
    }))
}

fn lines<'a>(app: &'a AppEntry, event_type: &str, channels: &[String]) -> Vec<Line<'a>> {
    let endpoints = app.endpoints.iter();
    endpoints
        .map(|endpoint| line(endpoint, event_type, channels, None))
        .collect()
}

#[derive(Serialize)]
struct Active {
    active: bool,
}

/// POST `/app/{app_id}/msg/precheck/active`: whether anyone would get a message of this type.
pub(super) async fn precheck(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let event_type = fields.required("eventType", fields::event_type);
    let channels = fields.set("channels", 1..=10, fields::channel).value();
    fields.finish().map_err(Problem::from)?;
    let app = cx.app()?;
    let (event_type, channels) = (event_type.unwrap_or_default(), channels.unwrap_or_default());
    let mut found = Vec::new();
    app.routes().matching(&event_type, &channels, &mut found);
    Ok(Reply::ok(&Active {
        active: !found.is_empty(),
    }))
}
