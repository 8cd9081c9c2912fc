//! What the instance says of itself: alive, ready, metrics, what a problem code means.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::error::{Code, Problem};
use super::reply::{Kind, Reply};
use super::request::{authenticate, client, leave};
use super::{ApiState, openapi, webhook_keys};
use crate::model::Scope;

/// Due deliveries that have not moved for so long make the instance not ready (P14).
const STANDSTILL: Duration = Duration::from_secs(60);
/// A scheduler or commit thread that has not finished a turn for so long is stuck; both turn every five
/// seconds at least.
const STUCK: Duration = Duration::from_secs(8);

/// Routes of a listener of their own: no credential.
pub(super) fn open() -> Router<Arc<ApiState>> {
    health().route(
        "/metrics",
        get(async |State(state): State<Arc<ApiState>>| page(&state).response()),
    )
}

/// Routes of the API's listener: metrics want scope `read`.
pub(super) fn guarded() -> Router<Arc<ApiState>> {
    health()
        .route("/metrics", get(guarded_metrics))
        .route("/problems/{code}", get(problem))
        .route("/openapi.json", get(openapi::read))
        .route("/docs", get(openapi::docs))
        .route("/.well-known/webhook-keys", get(webhook_keys::read))
}

fn health() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/health", get(alive))
        .route("/healthz", get(alive))
        .route("/ready", get(ready))
        .route("/readyz", get(ready))
}

/// `/api/v1/health`, as the client SDKs ask for it.
pub(super) async fn sdk_health() -> Response {
    Reply::empty().response()
}

async fn alive() -> Response {
    Reply::ok(&json!({ "status": "ok" })).response()
}

async fn ready(State(state): State<Arc<ApiState>>) -> Response {
    let reasons = reasons(&state);
    if reasons.is_empty() {
        return Reply::ok(&json!({ "status": "ready" })).response();
    }
    let body = json!({ "status": "not_ready", "reasons": reasons });
    Reply::json(StatusCode::SERVICE_UNAVAILABLE, &body).response()
}

/// Why the instance is not ready; empty if it is.
fn reasons(state: &ApiState) -> Vec<&'static str> {
    let now = state.clock.now();
    let status = state.schedule.status();
    let stands_still = status.oldest_runnable.is_some_and(|oldest| {
        now.since(oldest) > STANDSTILL && now.since(status.last_progress) > STANDSTILL
    });
    let checks = [
        (state.lane.has_failed(), "the store has failed"),
        (
            now.since(state.lane.last_round()) > STUCK,
            "the commit thread does not answer",
        ),
        (
            !status.recovered,
            "the deliveries of the last run are still being read",
        ),
        (
            now.since(status.last_turn) > STUCK,
            "the scheduler does not answer",
        ),
        (stands_still, "due deliveries do not move"),
        (
            state.ingest.is_full(),
            "the limit of unfinished deliveries is reached",
        ),
        (
            state.lane.is_refusing(),
            "the disk has less space left than the reserve",
        ),
    ];
    let failing = checks.into_iter().filter(|(fails, _)| *fails);
    failing.map(|(_, reason)| reason).collect()
}

async fn guarded_metrics(State(state): State<Arc<ApiState>>, request: Request) -> Response {
    let now = state.clock.now();
    let from = client(&state, &request);
    let answer = authenticate(&state, (request.headers(), from), now).and_then(|principal| {
        if principal.app.is_none() && principal.may(&Scope::Read) {
            return Ok(page(&state));
        }
        let detail = "Metrics want an instance key with the scope read.";
        Err(Problem::new(Code::Forbidden, detail))
    });
    leave(&state, answer, request.uri().path())
}

fn page(state: &ApiState) -> Reply {
    Reply {
        kind: Kind::Metrics,
        ..Reply::raw(StatusCode::OK, (state.metrics)())
    }
}

/// GET `/problems/{code}`: the section of `docs/errors.md`.
async fn problem(State(state): State<Arc<ApiState>>, Path(code): Path<String>) -> Response {
    let text = section(&code).map(|text| Reply {
        kind: Kind::Text,
        ..Reply::raw(StatusCode::OK, Bytes::from_static(text.as_bytes()))
    });
    let answer = text.ok_or_else(|| Problem::new(Code::NotFound, "There is no such problem code."));
    leave(&state, answer, &format!("/problems/{code}"))
}

fn section(code: &str) -> Option<&'static str> {
    static PAGE: &str = include_str!("../../docs/errors.md");
    let known = Code::ALL
        .iter()
        .any(|known| known.name().replace(' ', "_") == code);
    let start = PAGE.find(&format!("\n## {code}\n")).filter(|_| known)?;
    let (_, rest) = PAGE.split_at(start + 1);
    let end = rest.find("\n## ").unwrap_or(rest.len());
    Some(rest.split_at(end).0.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_code_has_a_section_that_says_what_to_do() {
        for code in Code::ALL {
            let name = code.name().replace(' ', "_");
            let text = section(&name).unwrap_or_default();
            assert!(text.len() > 80, "{name}: {text:?}");
            assert!(text.contains(&code.status().to_string()), "{name}");
        }
        assert_eq!(section("nonsense"), None);
    }
}
