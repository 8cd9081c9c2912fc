//! `/webhooks`: subscribe, list, change, unsubscribe, test, events.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use super::figures::{BUDGET, Figures};
use super::{
    CRM, MAX_EVENTS, MAX_WEBHOOKS, TEST_TYPE, answered, done, events, made_by, own_app, test, word,
};
use crate::api::endpoint::{Sent, exclude_pii, exclude_pii_as_sent, remove};
use crate::api::error::{Code, Problem};
use crate::api::history::{Bounds, Scan};
use crate::api::message;
use crate::api::page::Paging;
use crate::api::query::Query;
use crate::api::reply::Reply;
use crate::api::request::{Answer, Cx};
use crate::directory::AppEntry;
use crate::ingest::fields::{self, Fields, Given, sized};
use crate::ingest::{Item, ItemKind};
use crate::model::{AppNo, Delivery, Endpoint, Message, MessageId, Scope, Verdict};
use crate::policy::retry::RetryPlan;
use crate::policy::target::Target;
use crate::schedule::DeliveryView;

const MAX_DESCRIPTION: usize = 500;
const MAX_URL: usize = 65_536;

/// What an endpoint made here starts with.
fn defaults() -> Value {
    json!({
        "signature": {
            "profile": "hex", "header": "X-Webhook-Signature", "prefix": "sha256=",
            "typeHeader": "X-Webhook-Event-Type", "idHeader": "X-Webhook-Event-Id",
            "key": "text", "alsoStandard": true,
        },
        "envelope": "id-type",
        "retrySchedule": "geometric-3",
        "disablePolicy": { "policy": "consecutive", "failures": 10 },
        "timeoutMs": 10_000,
    })
}

fn is_one(endpoint: &Endpoint) -> bool {
    endpoint.tenant.is_some() && endpoint.uid.as_deref() != Some(CRM)
}

fn find(cx: &Cx, app: &AppEntry) -> Result<Arc<Endpoint>, Problem> {
    let found = app.endpoint(cx.param("id")).filter(|one| is_one(one));
    found.cloned().ok_or_else(|| Problem::not_found("webhook"))
}

fn row(cx: &Cx, endpoint: &Endpoint, budget: &mut usize) -> Result<Value, Problem> {
    let figures = Figures::count(&cx.state, endpoint.no, budget)?;
    Ok(json!({
        "id": endpoint.id, "url": endpoint.url, "events": events(endpoint),
        "description": endpoint.description, "is_active": endpoint.disabled.is_none(),
        "total_deliveries": figures.delivered + figures.failed,
        "successful_deliveries": figures.delivered, "failed_deliveries": figures.failed,
        "last_delivery_at": figures.last, "last_success_at": figures.last_success,
        "last_failure_at": figures.last_failure, "consecutive_failures": figures.in_a_row,
        "created_at": endpoint.created, "updated_at": endpoint.updated,
    }))
}

fn full(cx: &Cx, app: &AppEntry, endpoint: &Endpoint) -> Result<Value, Problem> {
    let mut budget = BUDGET;
    let mut whole = row(cx, endpoint, &mut budget)?;
    let mark = endpoint.tenant.as_deref().copied().unwrap_or_default();
    let may_see = cx.principal.may(&Scope::WebhooksWrite);
    let secret = may_see.then(|| endpoint.secret.reveal());
    let plan = match &endpoint.retry_schedule {
        Some(plan) => plan.clone(),
        None => RetryPlan::named("standard-10")
            .into_iter()
            .flatten()
            .filter_map(|delay| u32::try_from(delay.as_secs()).ok())
            .collect(),
    };
    let organization = app
        .app
        .uid
        .clone()
        .unwrap_or_else(|| app.app.id.to_string());
    let more = json!({
        "organization_id": organization, "secret": secret,
        "max_retries": plan.len(), "retry_delay_seconds": plan.first().copied().unwrap_or(0),
        "created_by": mark.created_by, "updated_by": mark.updated_by, "deleted_at": null,
        "exclude_pii": exclude_pii_as_sent(endpoint.exclude_pii.as_deref()),
    });
    if let (Some(whole), Value::Object(more)) = (whole.as_object_mut(), more) {
        whole.extend(more);
    }
    Ok(whole)
}

fn shown(cx: &Cx, app: &AppEntry, endpoint: &Endpoint, message: &str) -> Result<Value, Problem> {
    Ok(json!({ "success": true, "webhook": full(cx, app, endpoint)?, "message": message }))
}

/// GET `/webhooks`
pub(in crate::api) async fn list(cx: Cx) -> Answer {
    let app = own_app(&cx)?;
    let mut budget = BUDGET;
    let ours = app.endpoints.iter().filter(|one| is_one(one));
    let rows = ours.map(|endpoint| row(&cx, endpoint, &mut budget));
    let rows: Vec<Value> = rows.collect::<Result<_, _>>()?;
    let count = rows.len();
    Ok(Reply::ok(
        &json!({ "success": true, "webhooks": rows, "count": count }),
    ))
}

/// GET `/webhooks/{id}`
pub(in crate::api) async fn read(cx: Cx) -> Answer {
    let app = own_app(&cx)?;
    let webhook = full(&cx, &app, find(&cx, &app)?.as_ref())?;
    Ok(Reply::ok(&json!({ "success": true, "webhook": webhook })))
}

fn wanted_events(fields: &mut Fields, required: bool) -> Option<Vec<String>> {
    let given = fields.set("events", 1..=MAX_EVENTS, fields::event_filter);
    let is_missing = !matches!(given, Given::Value(_)) && !fields.has_mistake("events");
    if required && is_missing {
        fields.wrong(
            "events",
            (ItemKind::Missing, "this field is required".into()),
        );
    }
    given.value()
}

/// What personal data is left out, as EndpointIn says it.
fn wanted_exclusion(fields: &mut Fields) -> Option<Value> {
    let given = fields.read("excludePii", exclude_pii).value();
    given.map(|wanted| exclude_pii_as_sent(wanted.as_ref()))
}

/// Asks the receiver whether it wants the subscription.
async fn handshake(cx: &Cx, app: AppNo, url: &str) -> Result<(), Problem> {
    let wrong = |kind, msg: String| -> Problem { Item::body("url", kind, msg).into() };
    let Some(handshake) = &cx.state.handshake else {
        let detail = "This gateway asks receivers nothing.";
        return Err(Problem::new(Code::NotImplemented, detail));
    };
    let target = Target::parse(url, &cx.state.rules().targets)
        .map_err(|bad| wrong(ItemKind::ValueError, bad.to_string()))?;
    let token: [u8; 24] = cx.state.entropy.bytes();
    let token = URL_SAFE_NO_PAD.encode(token);
    handshake.ask(app, target, &token).await.map_err(|refusal| {
        wrong(
            ItemKind::ValueError,
            format!("the handshake failed: {refusal}"),
        )
    })
}

/// POST `/webhooks`: the same url and events by the same key answer 200 with what there is.
pub(in crate::api) async fn create(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let excluded = wanted_exclusion(&mut fields);
    let with_handshake = fields.flag("handshake").value().unwrap_or(false);
    let url = fields
        .required("url", sized(1, MAX_URL))
        .unwrap_or_default();
    let wanted = wanted_events(&mut fields, true);
    let description = fields
        .text("description", sized(0, MAX_DESCRIPTION))
        .value();
    fields.finish()?;
    let app = own_app(&cx)?.app.no;
    let mark = made_by(&cx);
    let wanted = wanted.unwrap_or_default();
    if with_handshake {
        handshake(&cx, app, &url).await?;
    }
    let mut body = defaults();
    if let Some(body) = body.as_object_mut() {
        if let Some(excluded) = excluded {
            body.insert(String::from("excludePii"), excluded);
        }
        body.insert(String::from("url"), json!(url));
        body.insert(String::from("eventTypes"), json!(wanted));
        body.insert(
            String::from("description"),
            json!(description.unwrap_or_default()),
        );
    }
    let (state, now) = (Arc::clone(&cx.state), cx.now);
    let (endpoint, is_new) = cx
        .carry_out(move |draft| {
            let entry = draft.app_by_no(app).cloned();
            let entry = entry.ok_or_else(|| Problem::not_found("application"))?;
            let ours = entry.endpoints.iter().filter(|one| is_one(one));
            let same = |one: &&Arc<Endpoint>| {
                one.url == url
                    && one.event_types.as_ref() == Some(&wanted)
                    && one.tenant.as_deref().map(|t| t.created_by) == Some(mark.created_by)
            };
            if let Some(known) = ours.clone().find(same) {
                return Ok((Arc::clone(known), false));
            }
            if ours.count() >= MAX_WEBHOOKS {
                let detail = format!("An application has at most {MAX_WEBHOOKS} webhooks.");
                return Err(Problem::new(Code::Quota, detail));
            }
            let sent = Sent {
                app,
                fields: body,
                secret: None,
                uid: None,
                mark,
            };
            Ok((sent.make(draft, (&state, now))?, true))
        })
        .await?;
    let app = own_app(&cx)?;
    let (status, text) = if is_new {
        (StatusCode::CREATED, "The webhook was made.")
    } else {
        (StatusCode::OK, "This webhook exists already.")
    };
    Ok(Reply::json(status, &shown(&cx, &app, &endpoint, text)?))
}

/// PUT `/webhooks/{id}`: any of url, events, isActive, description.
pub(in crate::api) async fn put(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    fields.alias("is_active", "isActive");
    let url = fields.text("url", sized(1, MAX_URL)).value();
    let wanted = wanted_events(&mut fields, false);
    let active = fields.flag("isActive").value();
    let description = fields
        .text("description", sized(0, MAX_DESCRIPTION))
        .value();
    let excluded = wanted_exclusion(&mut fields);
    let is_nothing = url.is_none() && wanted.is_none() && active.is_none() && excluded.is_none();
    if is_nothing && description.is_none() {
        let msg = "at least one of url, events, isActive, description and excludePii is wanted";
        if !["url", "events", "isActive", "description", "excludePii"]
            .iter()
            .any(|name| fields.has_mistake(name))
        {
            fields.wrong("url", (ItemKind::Missing, msg.into()));
        }
    }
    fields.finish()?;
    let app = own_app(&cx)?;
    let endpoint = find(&cx, &app)?;
    let mut body = serde_json::Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("url", url.map(Value::from));
    set("eventTypes", wanted.map(Value::from));
    set("disabled", active.map(|active| json!(!active)));
    set("description", description.map(Value::from));
    set("excludePii", excluded);
    let sent = Sent {
        app: app.app.no,
        fields: Value::Object(body),
        secret: None,
        uid: None,
        mark: crate::model::TenantMark {
            updated_by: cx.principal.key,
            ..endpoint.tenant.as_deref().copied().unwrap_or_default()
        },
    };
    let (state, now, no) = (Arc::clone(&cx.state), cx.now, endpoint.no);
    let changed = cx
        .carry_out(move |draft| sent.lay_over(draft, no, (&state, now)))
        .await?;
    let text = "The webhook was changed.";
    Ok(Reply::ok(&shown(&cx, &app, &changed, text)?))
}

/// DELETE `/webhooks/{id}`: waiting retries are cancelled.
pub(in crate::api) async fn delete(cx: Cx) -> Answer {
    let app = own_app(&cx)?;
    let endpoint = find(&cx, &app)?;
    let (app, no, now) = (app.app.no, endpoint.no, cx.now);
    cx.carry_out(move |draft| remove(draft, app, no, now))
        .await?;
    Ok(done("The webhook was deleted."))
}

/// POST `/webhooks/{id}/test`
pub(in crate::api) async fn try_out(mut cx: Cx) -> Answer {
    cx.fields_or_none().await?.finish()?;
    let app = own_app(&cx)?;
    let endpoint = find(&cx, &app)?;
    test(&cx, &app, &endpoint, TEST_TYPE).await
}

/// GET `/webhooks/{id}/events`: newest first, 100 unless `limit` says otherwise.
pub(in crate::api) async fn list_events(cx: Cx) -> Answer {
    let app = own_app(&cx)?;
    let endpoint = find(&cx, &app)?;
    let query = cx.query();
    let mut paging = Paging::of(&query, true, message::list_key)?;
    paging.descending = true;
    if query.get("limit").is_none() {
        paging.limit = 100;
    }
    let reader = &cx.state.reader;
    let (found, edges) = Scan::new(&paging, &Bounds::of(&Query::of(None))?).run(
        |page| reader.app_messages(app.app.no, page),
        |listed| {
            let Some(message) = reader.message(listed.key.at)? else {
                return Ok(None);
            };
            let concerns = message.targets.contains(&endpoint.no)
                || !reader.attempts(message.at, Some(endpoint.no))?.is_empty();
            Ok(concerns.then_some(message))
        },
    )?;
    let mut rows = Vec::with_capacity(found.len());
    for (_, message) in &found {
        let delivery = Delivery {
            at: message.at,
            endpoint: endpoint.no,
        };
        rows.push(event_row(
            message,
            &cx.state.schedule.delivery(delivery).await?,
        ));
    }
    let iterator = edges
        .reached()
        .filter(|_| !edges.is_done())
        .map(|key| MessageId::of(key.time, key.at));
    let count = rows.len();
    Ok(Reply::ok(&json!({
        "success": true, "events": rows, "count": count, "iterator": iterator,
    })))
}

fn event_row(message: &Message, view: &DeliveryView) -> Value {
    let last = view.attempts.last();
    let delivered = view
        .attempts
        .iter()
        .find(|a| a.verdict == Verdict::Delivered);
    let mut row = json!({
        "id": message.id(), "event_type": &*message.event_type, "status": word(view.state),
        "attempts": view.attempts.len(), "last_attempt_at": last.map(|a| a.ended),
        "delivered_at": delivered.map(|a| a.ended),
        "response_status": answered(last.map(|a| a.outcome.status)),
        "error_message": last.and_then(|a| a.outcome.failure).map(|kind| match kind {
            // What lies behind a target's name is the operator's affair.
            crate::model::FailureKind::Dns
            | crate::model::FailureKind::Refused
            | crate::model::FailureKind::BlockedAddress => "target",
            other => other.name(),
        }),
        "created_at": message.accepted,
    });
    if let (Some(next), Some(row)) = (view.next_attempt, row.as_object_mut()) {
        row.insert(String::from("next_retry_at"), json!(next));
    }
    row
}
