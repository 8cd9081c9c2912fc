//! `/crm/webhook`: the one webhook of the CRM routes, the endpoint with the uid `crm-webhook`.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::figures::{BUDGET, Figures};
use super::{CRM, MAX_EVENTS, TEST_TYPE, done, events, made_by, own_app, test};
use crate::api::endpoint::{Sent, remove};
use crate::api::error::Problem;
use crate::api::reply::Reply;
use crate::api::request::{Answer, Cx};
use crate::directory::AppEntry;
use crate::ingest::ItemKind;
use crate::ingest::fields::{self, Given, Wrong, sized};
use crate::model::{Endpoint, Secret};

const MAX_URL: usize = 65_536;

/// What the endpoint starts with.
fn defaults() -> Value {
    json!({
        "signature": {
            "profile": "hex", "header": "X-HEKAX-Signature", "prefix": "sha256=",
            "key": "text", "alsoStandard": true,
        },
        "envelope": "event",
        "retrySchedule": "ladder-5",
        "disablePolicy": { "policy": "consecutive", "failures": 10 },
        "timeoutMs": 10_000,
    })
}

fn find(app: &AppEntry) -> Result<Arc<Endpoint>, Problem> {
    let found = app.endpoint(CRM).cloned();
    found.ok_or_else(|| Problem::not_found("CRM webhook"))
}

fn shown(cx: &Cx, endpoint: &Endpoint, secret: Option<&str>) -> Result<Value, Problem> {
    let mut budget = BUDGET;
    let figures = Figures::count(&cx.state, endpoint.no, &mut budget)?;
    let status = match (endpoint.disabled, figures.in_a_row) {
        (Some(_), _) => "disabled",
        (None, 0) => "active",
        (None, _) => "failing",
    };
    Ok(json!({
        "success": true,
        "webhook": {
            "id": endpoint.id, "webhookUrl": endpoint.url, "secret": secret,
            "events": events(endpoint), "enabled": endpoint.disabled.is_none(), "status": status,
        },
    }))
}

fn secret(text: &str) -> Result<(), Wrong> {
    sized(16, 256)(text)?;
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let msg = Cow::Borrowed("printable ASCII characters without blanks are wanted");
    Err((ItemKind::ValueError, msg))
}

/// POST `/crm/webhook`: 201, or 200 when it replaced one, which keeps its secret unless another is named.
pub(in crate::api) async fn set(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let url = fields
        .required("webhookUrl", sized(1, MAX_URL))
        .unwrap_or_default();
    let secret = fields.text("secret", secret).value().map(Secret::new);
    let wanted = fields.set("events", 1..=MAX_EVENTS, fields::event_filter);
    if !matches!(wanted, Given::Value(_)) && !fields.has_mistake("events") {
        fields.wrong(
            "events",
            (ItemKind::Missing, "this field is required".into()),
        );
    }
    let enabled = fields.flag("enabled").value().unwrap_or(true);
    fields.finish()?;
    let app = own_app(&cx)?.app.no;
    let mut body = defaults();
    if let Some(body) = body.as_object_mut() {
        body.insert(String::from("url"), json!(url));
        body.insert(String::from("eventTypes"), json!(wanted.value()));
        body.insert(String::from("disabled"), json!(!enabled));
    }
    let mark = made_by(&cx);
    let (state, now) = (Arc::clone(&cx.state), cx.now);
    let (endpoint, is_new) = cx
        .carry_out(move |draft| {
            let entry = draft.app_by_no(app).cloned();
            let entry = entry.ok_or_else(|| Problem::not_found("application"))?;
            let sent = Sent {
                app,
                fields: body,
                secret,
                uid: Some(CRM.to_owned()),
                mark,
            };
            let named = |problem: Problem| problem.renamed("url", "webhookUrl");
            match entry.endpoint(CRM).map(|known| known.no) {
                Some(no) => {
                    let changed = sent.lay_over(draft, no, (&state, now));
                    Ok::<_, Problem>((changed.map_err(named)?, false))
                }
                None => Ok((sent.make(draft, (&state, now)).map_err(named)?, true)),
            }
        })
        .await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let out = shown(&cx, &endpoint, Some(endpoint.secret.reveal()))?;
    Ok(Reply::json(status, &out))
}

/// GET `/crm/webhook`: without its secret.
pub(in crate::api) async fn read(cx: Cx) -> Answer {
    let endpoint = find(own_app(&cx)?.as_ref())?;
    Ok(Reply::ok(&shown(&cx, &endpoint, None)?))
}

/// DELETE `/crm/webhook`
pub(in crate::api) async fn delete(cx: Cx) -> Answer {
    let app = own_app(&cx)?;
    let (no, app, now) = (find(&app)?.no, app.app.no, cx.now);
    cx.carry_out(move |draft| remove(draft, app, no, now))
        .await?;
    Ok(done("The webhook was deleted."))
}

/// POST `/crm/webhook/test`
pub(in crate::api) async fn try_out(mut cx: Cx) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let event = fields.text("event", fields::event_type).value();
    fields.finish()?;
    let app = own_app(&cx)?;
    let endpoint = find(&app)?;
    test(&cx, &app, &endpoint, event.as_deref().unwrap_or(TEST_TYPE)).await
}
