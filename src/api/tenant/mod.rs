//! The tenant routes: webhooks in the words of the product's origin (`api.md` 7). A view on the same
//! endpoints that the resources show; everything set here can be seen and changed there.
//!
//! The application is the one that the caller's key belongs to, and comes from nowhere else.

pub(super) mod crm;
mod figures;
pub(super) mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{Code, Problem};
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::{ApiState, example};
use crate::directory::AppEntry;
use crate::model::{DeliveryState, Endpoint, TenantMark};
use crate::schedule::DeliveryView;

/// Subscriptions of one application at most.
const MAX_WEBHOOKS: usize = 50;
/// Event types of one subscription at most.
const MAX_EVENTS: usize = 100;
/// So long a test waits for its first attempt.
const TEST_PATIENCE: Duration = Duration::from_secs(10);
/// What a test sends unless something else is said.
const TEST_TYPE: &str = "webhook.test";
/// The endpoint of `/crm/webhook`, which is in no list of `/webhooks`.
const CRM: &str = "crm-webhook";

/// The application of the caller's key.
fn own_app(cx: &Cx) -> Result<Arc<AppEntry>, Problem> {
    let Some(no) = cx.principal.app else {
        let detail = "This route acts on the application of the key; an instance key has none.";
        return Err(Problem::new(Code::Forbidden, detail));
    };
    let entry = cx.state.directory.peek().app_by_no(no).cloned();
    entry.ok_or_else(|| Problem::not_found("application"))
}

fn made_by(cx: &Cx) -> TenantMark {
    TenantMark {
        created_by: cx.principal.key,
        updated_by: cx.principal.key,
    }
}

/// Sends one message to this endpoint and waits for what comes of it.
async fn test(cx: &Cx, app: &AppEntry, endpoint: &Endpoint, event: &str) -> Answer {
    let known = cx.state.directory.peek().event_type(event).cloned();
    let sample = known.and_then(|known| example::of_type(&known, 0));
    let listed = || Some(cx.state.catalogs.find(event)?.sample.clone());
    // A test says so itself; another type is shown as its catalogue has it.
    let listed = (event != TEST_TYPE).then(listed).flatten();
    let payload = sample.or(listed).unwrap_or_else(
        || json!({ "message": "This is a test.", "webhookId": endpoint.id, "test": true }),
    );
    let bytes = serde_json::to_vec(&payload).unwrap_or_default().into();
    let ingest = &cx.state.ingest;
    let message = ingest.accept_for(app, event, bytes, endpoint.no).await?;
    let delivery = crate::model::Delivery {
        at: message.at,
        endpoint: endpoint.no,
    };
    let view = first_attempt(&cx.state, delivery).await?;
    let response_status = view.attempts.last().map(|attempt| attempt.outcome.status);
    let status = word(view.state);
    let text = match status {
        "delivered" => "The test event was delivered.",
        "failed" => "The test event was not delivered.",
        _ => "The test event was accepted; its first attempt is not over yet.",
    };
    Ok(Reply::ok(&json!({
        "success": true, "message": text,
        "event": { "id": message.id(), "status": status, "response_status": answered(response_status) },
    })))
}

async fn first_attempt(
    state: &ApiState,
    delivery: crate::model::Delivery,
) -> Result<DeliveryView, Problem> {
    const STEP: Duration = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        let view = state.schedule.delivery(delivery).await?;
        if !view.attempts.is_empty() || waited >= TEST_PATIENCE {
            return Ok(view);
        }
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
}

/// A status as these routes show it: none if there was no answer.
fn answered(status: Option<u16>) -> Option<u16> {
    status.filter(|status| *status > 0)
}

/// The state of a delivery in the words of these routes.
const fn word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Delivered => "delivered",
        DeliveryState::Retrying
        | DeliveryState::Dead
        | DeliveryState::Cancelled
        | DeliveryState::Superseded => "failed",
        DeliveryState::Pending | DeliveryState::Sending | DeliveryState::Held => "pending",
    }
}

/// Event types as these routes show them: all of them is `*`.
fn events(endpoint: &Endpoint) -> Value {
    match &endpoint.event_types {
        Some(types) => json!(types),
        None => json!(["*"]),
    }
}

fn done(message: &str) -> Reply {
    Reply::ok(&json!({ "success": true, "message": message }))
}
