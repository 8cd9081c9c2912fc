//! Who gets a message and why: of one that was accepted, or of one that might be sent.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::endpoint::expression;
use super::error::Problem;
use super::message;
use super::reply::Reply;
use super::request::{Answer, Cx, MAX_BODY};
use crate::base::Timestamp;
use crate::directory::AppEntry;
use crate::expression::{Expression, Facts, Failure};
use crate::ingest::ItemKind;
use crate::ingest::fields::{self, Given};
use crate::ingest::parse::{self, Limits};
use crate::model::{DisableReason, Endpoint, EndpointId, MessageId, PayloadValidation};
use crate::policy::filter::{Mismatch, facts, why_not_in_full};
use crate::schedule::DeliveryView;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_id: Option<MessageId>,
    event_type: &'a str,
    /// Nothing is sent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<Timestamp>,
    /// What the schema of the type says of the payload, if payloads are held against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Validated>,
    endpoints: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Validated {
    mode: PayloadValidation,
    valid: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Error>,
}

/// One thing that the schema does not allow, by JSON pointer.
#[derive(Serialize)]
struct Error {
    pointer: String,
    msg: String,
}

/// What the schema says of a payload as both are now.
fn validated(cx: &Cx, facts: &Facts<'_>) -> Option<Validated> {
    let snapshot = cx.state.directory.peek();
    let schema = snapshot.schema(facts.event_type())?;
    let found = schema.violations(facts.payload());
    let errors = found.into_iter().map(|one| Error {
        pointer: one.pointer,
        msg: one.msg,
    });
    let errors: Vec<_> = errors.collect();
    Some(Validated {
        mode: schema.mode(),
        valid: errors.is_empty(),
        errors,
    })
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
    /// The first filter that does not: `event_type`, `channel`, `filter` (its expression), or
    /// `filter_error` (its expression comes to no answer).
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<&'static str>,
    /// Its expression, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'a str>,
    /// Why the expression comes to no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_error: Option<Failed>,
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
    /// The later message that took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_by: Option<MessageId>,
}

fn line<'a>(
    endpoint: &'a Endpoint,
    facts: &Facts<'_>,
    delivery: Option<&DeliveryView>,
) -> Line<'a> {
    let mismatch = why_not_in_full(endpoint, facts);
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
            Mismatch::Filter => "filter",
            Mismatch::Failed(_) => "filter_error",
        }),
        filter: endpoint.filter.as_deref().map(Expression::source),
        filter_error: match mismatch {
            Some(Mismatch::Failed(failure)) => Some(Failed::of(failure)),
            Some(_) | None => None,
        },
        held_by,
        disabled_reason: endpoint.disabled,
        state: delivery.map(|view| view.state.name()),
        attempts: delivery.map(|view| view.attempts.len()),
        next_attempt: delivery.and_then(|view| view.next_attempt),
        superseded_by: delivery.and_then(|view| view.superseded_by),
    }
}

/// GET `/app/{app_id}/msg/{msg_id}/explain`
pub(super) async fn explain(cx: Cx) -> Answer {
    let app = cx.app()?;
    let message = message::find(&cx, &app)?;
    let views = cx.state.schedule.deliveries(&message).await?;
    let facts = facts(&message);
    let lines = app.endpoints.iter().map(|endpoint| {
        let view = views.iter().find(|view| view.endpoint == endpoint.no);
        line(endpoint, &facts, view)
    });
    Ok(Reply::ok(&Out {
        msg_id: Some(message.id()),
        event_type: &message.event_type,
        deliver_at: message.deliver_at(),
        schema: validated(&cx, &facts).filter(|_| !message.is_expunged()),
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
    let facts = read.facts();
    Ok(Reply::ok(&Out {
        msg_id: None,
        event_type: &read.event_type,
        deliver_at: read.labels.as_ref().and_then(|labels| labels.deliver_at),
        schema: validated(&cx, &facts),
        endpoints: lines(&app, &facts),
    }))
}

fn lines<'a>(app: &'a AppEntry, facts: &Facts<'_>) -> Vec<Line<'a>> {
    let endpoints = app.endpoints.iter();
    endpoints
        .map(|endpoint| line(endpoint, facts, None))
        .collect()
}

#[derive(Serialize)]
struct Active {
    active: bool,
}

#[derive(Serialize)]
struct Tested {
    matches: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failed>,
}

/// Why an expression comes to no answer, and at which byte of it.
#[derive(Serialize)]
struct Failed {
    kind: &'static str,
    at: usize,
}

impl Failed {
    const fn of(failure: Failure) -> Self {
        Self {
            kind: failure.kind.name(),
            at: failure.at,
        }
    }
}

/// POST `/app/{app_id}/filter/test`: what an expression says about a payload. Nothing is stored.
pub(super) async fn test_filter(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let filter = fields.read("filter", expression);
    if matches!(filter, Given::Absent | Given::Null) && !fields.has_mistake("filter") {
        let msg = Cow::Borrowed("this field is required");
        fields.wrong("filter", (ItemKind::Missing, msg));
    }
    let payload = fields.read("payload", |value| match value {
        Value::Object(_) => Ok(value.to_string()),
        _ => Err((ItemKind::TypeError, Cow::Borrowed("an object is wanted"))),
    });
    if matches!(payload, Given::Absent | Given::Null) && !fields.has_mistake("payload") {
        let msg = Cow::Borrowed("this field is required");
        fields.wrong("payload", (ItemKind::Missing, msg));
    }
    let event_type = fields.text("eventType", fields::event_type).value();
    let channels = fields.set("channels", 1..=10, fields::channel).value();
    let tags = fields.set("tags", 0..=5, fields::tag).value();
    fields.finish().map_err(Problem::from)?;
    cx.app()?;
    let (event_type, payload) = (event_type.unwrap_or_default(), payload.value());
    let (channels, tags) = (channels.unwrap_or_default(), tags.unwrap_or_default());
    let payload = payload.unwrap_or_default();
    let facts = Facts::new(&event_type, &channels, &tags, payload.as_bytes());
    let said = filter.value().map(|filter| filter.matches(&facts));
    Ok(Reply::ok(&match said {
        Some(Err(failure)) => Tested {
            matches: false,
            error: Some(Failed::of(failure)),
        },
        said => Tested {
            matches: matches!(said, Some(Ok(true))),
            error: None,
        },
    }))
}

/// POST `/app/{app_id}/msg/precheck/active`: whether anyone would get a message of this type, whatever
/// its payload.
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
