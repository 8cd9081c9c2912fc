//! The public routes of sources: `/in/{token}`, `/webhooks/{provider}/{token}`, `/webhooks/{provider}/`.
//!
//! No credential: the token, and what the provider signs, is what counts. The order of work is that of
//! `api.md` 10; a body is read after everything that its head decides, and to its limit only ([`intake`]).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::ApiState;
use super::error::{Code, Problem};
use super::intake::{self, Unread};
use crate::inbound::{Answer, Head, Refused};
use crate::server::Peer;

type Route = axum::routing::MethodRouter<Arc<ApiState>>;

/// The routes.
pub(super) fn routes() -> Router<Arc<ApiState>> {
    let route = || -> Route { any(receive) };
    Router::new()
        .route("/in/{token}", route())
        .route("/webhooks/{provider}", route())
        .route("/webhooks/{provider}/", route())
        .route("/webhooks/{provider}/{token}", route())
}

async fn receive(
    State(state): State<Arc<ApiState>>,
    params: Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let answer = match params {
        Ok(params) => one(&state, &params, &parts, body).await,
        Err(_) => Err(Refused::Unknown.into()),
    };
    let is_head = parts.method == Method::HEAD;
    let response = match answer {
        Ok(answer) => sent(answer, is_head),
        // The path holds the token: it is not repeated.
        Err(problem) => problem.response("/in"),
    };
    state.meters.answered(response.status());
    response
}

async fn one(
    state: &ApiState,
    params: &RawPathParams,
    parts: &Parts,
    body: Body,
) -> Result<Answer, Problem> {
    let known = [Method::POST, Method::PUT, Method::GET, Method::HEAD];
    if !known.contains(&parts.method) {
        let detail = format!("{} is not allowed here.", parts.method);
        return Err(Problem::new(Code::MethodNotAllowed, detail));
    }
    let param = |name: &str| {
        params
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, text)| text)
    };
    let forwarded = parts.headers.get_all("x-forwarded-for").iter();
    let ip = state
        .inbound
        .client(peer(parts), forwarded.map(HeaderValue::as_bytes));
    let head = Head {
        method: &parts.method,
        provider: param("provider"),
        token: param("token"),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        ip,
    };
    let admitted = state.inbound.admit(&head)?;
    let body = match whole(parts, body, state.inbound.max_body()).await {
        Ok(body) => body,
        Err(refused) => {
            state.inbound.give_up(&admitted, &refused, ip);
            return Err(refused.into());
        }
    };
    Ok(state.inbound.receive(admitted, &head, body).await?)
}

/// Where the connection comes from; requests that came over none (tests of the router) are local.
fn peer(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>();
    peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip())
}

/// The body, at most `limit` bytes.
async fn whole(parts: &Parts, body: Body, limit: usize) -> Result<Bytes, Refused> {
    let read = intake::whole(&parts.headers, body, limit).await;
    read.map_err(|unread| match unread {
        Unread::TooLarge => Refused::TooLarge { limit },
        Unread::BrokenOff => Refused::Body,
    })
}

/// An answer that no browser takes for anything else than it says.
fn sent(answer: Answer, is_head: bool) -> Response {
    let body = if is_head { Bytes::new() } else { answer.body };
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let kind = answer
        .content_type
        .and_then(|kind| HeaderValue::from_str(&kind).ok());
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    for (name, value) in answer.headers {
        let name = HeaderName::try_from(name).ok();
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    response
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = format!("{refused}.");
        match refused {
            Refused::Unknown | Refused::Disabled => {
                Self::new(Code::NotFound, "There is nothing at this URL.")
            }
            Refused::Rate { retry_after_secs } => {
                Self::new(Code::RateLimited, detail).after(retry_after_secs)
            }
            Refused::Ip => Self::new(Code::IpNotAllowed, detail),
            Refused::TooLarge { .. } | Refused::TooMany { .. } => Self::new(Code::TooLarge, detail),
            Refused::Body => Self::new(Code::Generic, detail),
            Refused::Provider(_) => Self::new(Code::NotVerified, detail),
            Refused::Ingest(crate::ingest::Refused::NoApplication) => {
                let detail = "The application of this source is gone.";
                Self::new(Code::Overloaded, detail).after(60)
            }
            Refused::Ingest(refused) => refused.into(),
        }
    }
}
