//! From an HTTP request to a handler and back: credential, scope, body, answer, counting.
//!
//! Every route runs through `run`, so what holds for all of them (401 before 404, the form of
//! errors, metrics) stands here once. Bodies are read to a limit and never beyond it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use parking_lot::Mutex;
use serde_json::Value;

use super::audit::Noting;
use super::error::{Code, Problem};
use super::intake::{self, Unread};
use super::meters::{Asked, template};
use super::query::Query;
use super::reply::Reply;
use super::{ApiState, audit, idempotency};
use crate::auth::Principal;
use crate::base::{Timestamp, task};
use crate::directory::{self, AppEntry, Draft};
use crate::ingest::fields::Fields;
use crate::model::{Endpoint, Scope};
use crate::server::Peer;

/// Largest body of a request that carries no message (`api.md` 2.1).
pub(super) const MAX_BODY: usize = 1 << 20;
/// Lists that are read at the same time; further ones wait.
pub(super) const SCANS: usize = 32;
/// So long they wait for a place, then they are refused: the SDKs give up after 15 s.
const SCAN_PATIENCE: Duration = Duration::from_secs(5);

/// What a handler gets.
pub(super) struct Cx {
    pub(super) state: Arc<ApiState>,
    pub(super) principal: Principal,
    pub(super) now: Timestamp,
    /// Where the request came from, by the word of proxies that are trusted.
    pub(super) ip: IpAddr,
    params: Params,
    method: Method,
    uri: http::Uri,
    /// The path as it stands in the table of routes.
    matched: Option<MatchedPath>,
    noting: Option<Arc<Noting>>,
    pub(super) headers: HeaderMap,
    /// Never locked, only reached through `&mut`: it makes the whole shareable between threads.
    body: Mutex<Body>,
}

/// What the path says, decoded.
pub(super) enum Params {
    /// As the router found them.
    Routed(Vec<(Box<str>, String)>),
    /// `app_id` and nothing else.
    App(String),
}

impl Params {
    fn of(routed: &RawPathParams) -> Self {
        Self::Routed(
            routed
                .iter()
                .map(|(k, v)| (k.into(), v.to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Routed(all) => {
                let found = all.iter().find(|(key, _)| key.as_ref() == name);
                found.map(|(_, value)| value.as_str())
            }
            Self::App(app) => (name == "app_id").then_some(app.as_str()),
        }
    }

    /// All but the application.
    fn within_app(&self) -> impl Iterator<Item = &str> {
        let all = match self {
            Self::Routed(all) => all.as_slice(),
            Self::App(_) => &[],
        };
        let named = all.iter().filter(|(key, _)| key.as_ref() != "app_id");
        named.map(|(_, value)| value.as_str())
    }
}

/// What a handler gives.
pub(super) type Answer = Result<Reply, Problem>;

/// Whether a POST remembers its answer under an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// Its answer is stored and repeated.
    Stored,
    /// It looks after that itself, or its answer must not be stored (secrets), or it is no POST.
    Own,
}

/// A route for one method; `None` = any valid credential will do.
pub(super) fn on<F, Fut>(
    method: MethodFilter,
    scope: impl Into<Option<Scope>>,
    replay: Replay,
    handler: F,
) -> MethodRouter<Arc<ApiState>>
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let scope = scope.into();
    let handler = move |cx: Cx| noted(handler.clone(), cx);
    let route =
        move |State(state): State<Arc<ApiState>>,
              params: Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>,
              request: Request| {
            let handler = handler.clone();
            let scope = scope.clone();
            async move {
                let meters = Arc::clone(&state);
                let uri = request.uri().clone();
                let asked = Asked {
                    method: request.method().clone(),
                    matched: request.extensions().get().cloned(),
                };
                let begun = meters.clock.monotonic();
                let params = params.ok().as_ref().map(Params::of);
                let answer = match routed(state, params, request, scope.as_ref()) {
                    Err(problem) => Err(problem),
                    Ok(cx) => match replay {
                        Replay::Stored => idempotency::once(cx, handler).await,
                        Replay::Own => handler(cx).await,
                    },
                };
                let response = leave(&meters, answer, uri.path());
                let took = meters.clock.monotonic().saturating_sub(begun);
                meters.meters.routed(&asked, response.status(), took);
                response
            }
        };
    axum::routing::on(method, route)
}

/// Reading through history, which blocks on the store: beside the async threads, and not too many at a
/// time, so that lists take nothing from ingest and deliveries.
pub(super) fn scan<F, Fut>(scope: Scope, handler: F) -> MethodRouter<Arc<ApiState>>
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    get(scope, move |cx: Cx| {
        let handler = handler.clone();
        async move {
            let place = Arc::clone(&cx.state.scans).acquire_owned();
            let place = tokio::time::timeout(SCAN_PATIENCE, place).await;
            let Ok(Ok(_place)) = place else {
                let detail = "Too many lists are being read.";
                return Err(Problem::new(Code::Overloaded, detail).after(1));
            };
            let answer = task::beside(handler(cx)).await;
            answer.unwrap_or_else(|| Err(Problem::new(Code::Server, "The list failed.")))
        }
    })
}

/// Reading, with this scope.
pub(super) fn get<F, Fut>(
    scope: impl Into<Option<Scope>>,
    handler: F,
) -> MethodRouter<Arc<ApiState>>
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    on(MethodFilter::GET, scope, Replay::Own, handler)
}

/// Runs a handler; what it did that changed no configuration gets its entry in the audit log here.
async fn noted<F, Fut>(handler: F, mut cx: Cx) -> Answer
where
    F: Fn(Cx) -> Fut,
    Fut: Future<Output = Answer>,
{
    if cx.method == Method::GET || !audit::is_entered(&cx.method, cx.template()) {
        return handler(cx).await;
    }
    let noting = Arc::new(Noting::default());
    cx.noting = Some(Arc::clone(&noting));
    let (state, note) = (Arc::clone(&cx.state), cx.note());
    let answer = handler(cx).await;
    if answer.is_ok() && !noting.is_done() {
        audit::entered(&state, note).await?;
    }
    answer
}

fn routed(
    state: Arc<ApiState>,
    params: Option<Params>,
    request: Request,
    scope: Option<&Scope>,
) -> Result<Cx, Problem> {
    let is_readable = params.is_some();
    let params = params.unwrap_or_else(|| Params::Routed(Vec::new()));
    let cx = enter(state, params, request, scope)?;
    if is_readable {
        return Ok(cx);
    }
    let detail = "The path is not valid UTF-8 when decoded.";
    Err(Problem::new(Code::Generic, detail))
}

/// Credential and scope come first, whatever else is wrong.
pub(super) fn enter(
    state: Arc<ApiState>,
    params: Params,
    request: Request,
    scope: Option<&Scope>,
) -> Result<Cx, Problem> {
    let now = state.clock.now();
    let ip = client(&state, &request);
    let principal = authenticate(&state, (request.headers(), ip), now)?;
    if let Some(scope) = scope.filter(|scope| !principal.may(scope)) {
        let detail = format!(
            "This credential lacks the scope {}.",
            String::from(scope.clone())
        );
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let (mut parts, body) = request.into_parts();
    Ok(Cx {
        ip,
        method: parts.method,
        matched: parts.extensions.remove(),
        noting: None,
        state,
        principal,
        now,
        params,
        uri: parts.uri,
        headers: parts.headers,
        body: Mutex::new(body),
    })
}

/// The principal of a request; one answer for everything that is wrong with a credential.
pub(super) fn authenticate(
    state: &ApiState,
    (headers, ip): (&HeaderMap, IpAddr),
    now: Timestamp,
) -> Result<Principal, Problem> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let found = bearer.and_then(|token| state.auth.authenticate(token, now).ok());
    let found = found.ok_or_else(|| {
        let detail = "A valid API key is wanted: `Authorization: Bearer <key>`.";
        Problem::new(Code::Unauthenticated, detail)
    })?;
    if !found.is_allowed_from(ip) {
        let detail = format!("This key may not be used from {ip}.");
        return Err(Problem::new(Code::IpNotAllowed, detail));
    }
    Ok(found)
}

/// Where a request comes from.
pub(super) fn client(state: &ApiState, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map_or(audit::NOWHERE, |peer| peer.0.ip());
    let forwarded = request.headers().get_all("x-forwarded-for").iter();
    let forwarded = forwarded.map(http::HeaderValue::as_bytes);
    state.inbound.client(peer, forwarded)
}

/// The answer as it is sent, counted.
pub(super) fn leave(state: &ApiState, answer: Answer, path: &str) -> Response {
    let response = match answer {
        Ok(reply) => reply.response(),
        Err(problem) => problem.response(path),
    };
    state.meters.answered(response.status());
    response
}

impl Cx {
    /// Changes configuration, with an entry of the audit log in the same commit
    /// ([`crate::directory::Directory::carry_out_noted`]). Cancel safe.
    pub(super) async fn carry_out<T, E>(
        &self,
        edit: impl FnOnce(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<directory::Error> + Send + 'static,
    {
        let note = self.noting.as_ref().map(|noting| {
            noting.done();
            self.note()
        });
        self.state.directory.carry_out_noted(note, edit).await
    }

    pub(super) const fn method(&self) -> &Method {
        &self.method
    }

    /// The path as it stands in the table of routes, without its version and a slash at its end.
    pub(super) fn template(&self) -> &str {
        template(self.matched.as_ref().map_or("", MatchedPath::as_str))
    }

    /// What the path names within its application.
    pub(super) fn objects(&self) -> String {
        let named: Vec<&str> = self.params.within_app().collect();
        if named.is_empty() {
            return self.param("app_id").to_owned();
        }
        named.join("/")
    }

    /// A parameter of the path, decoded.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).unwrap_or_default()
    }

    /// The host that was called, as the caller names it.
    pub(super) fn host(&self) -> Option<&str> {
        let header = self.headers.get(header::HOST);
        let named = header.and_then(|host| host.to_str().ok());
        named.or_else(|| self.uri.authority().map(http::uri::Authority::as_str))
    }

    /// The query string.
    pub(super) fn query(&self) -> Query {
        Query::of(self.uri.query())
    }

    /// Whether there is a query string at all.
    pub(super) fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// The path without version prefix and trailing slash: what names the request.
    pub(super) fn path(&self) -> &str {
        let path = self.uri.path();
        let path = path.strip_prefix("/api").unwrap_or(path);
        let path = path.strip_prefix("/v1").unwrap_or(path);
        path.strip_suffix('/').unwrap_or(path)
    }

    /// The `Idempotency-Key`, if there is a readable one.
    pub(super) fn idempotency_key(&self) -> Option<String> {
        let value = self.headers.get("idempotency-key")?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The application of the path, if the caller sees it.
    pub(super) fn app(&self) -> Result<Arc<AppEntry>, Problem> {
        self.find_app(self.param("app_id"))
    }

    /// An application by id or uid, if the caller sees it.
    pub(super) fn find_app(&self, id_or_uid: &str) -> Result<Arc<AppEntry>, Problem> {
        let snapshot = self.state.directory.peek();
        let entry = snapshot.app(id_or_uid);
        let seen = entry.filter(|entry| self.principal.sees(entry.app.no));
        seen.cloned()
            .ok_or_else(|| Problem::not_found("application"))
    }

    /// Application and endpoint of the path.
    pub(super) fn endpoint(&self) -> Result<(Arc<AppEntry>, Arc<Endpoint>), Problem> {
        let app = self.app()?;
        let endpoint = app.endpoint(self.param("endpoint_id")).cloned();
        let endpoint = endpoint.ok_or_else(|| Problem::not_found("endpoint"))?;
        Ok((app, endpoint))
    }

    /// Refuses keys that are bound to one application.
    pub(super) fn instance_wide(&self) -> Result<(), Problem> {
        if self.principal.app.is_none() {
            return Ok(());
        }
        let detail = "This needs a key that is not bound to one application.";
        Err(Problem::new(Code::Forbidden, detail))
    }

    /// 415 unless the body is JSON (or says nothing).
    pub(super) fn wants_json(&self, also: &[&str]) -> Result<(), Problem> {
        let Some(kind) = self.headers.get(header::CONTENT_TYPE) else {
            return Ok(());
        };
        let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let is_json = essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"));
        if is_json || also.contains(&essence) {
            return Ok(());
        }
        let detail = "The body must be application/json.";
        Err(Problem::new(Code::UnsupportedMediaType, detail))
    }

    /// The whole body, at most `limit` bytes: 413 beyond it ([`intake`]).
    pub(super) async fn bytes(&mut self, limit: usize) -> Result<Bytes, Problem> {
        let body = std::mem::replace(self.body.get_mut(), Body::empty());
        let read = intake::whole(&self.headers, body, limit).await;
        read.map_err(|unread| match unread {
            Unread::TooLarge => too_large(limit),
            Unread::BrokenOff => Problem::new(Code::Generic, "The body broke off before its end."),
        })
    }

    /// Puts a body in that was read before.
    pub(super) fn put_bytes(&mut self, bytes: Bytes) {
        *self.body.get_mut() = Body::from(bytes);
    }

    /// The body as JSON.
    pub(super) async fn json(&mut self) -> Result<Value, Problem> {
        self.wants_json(&[])?;
        let bytes = self.bytes(MAX_BODY).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Problem::new(Code::BadJson, format!("The body is not JSON: {error}.")))
    }

    /// The same, where no body at all means `{}`.
    pub(super) async fn fields_or_none(&mut self) -> Result<Fields, Problem> {
        let bytes = self.bytes(MAX_BODY).await?;
        if bytes.is_empty() {
            return Ok(Fields::body(Value::Object(serde_json::Map::new()))?);
        }
        self.put_bytes(bytes);
        self.headers.remove(header::CONTENT_LENGTH);
        self.fields().await
    }

    /// The body as a JSON object to be read field by field.
    pub(super) async fn fields(&mut self) -> Result<Fields, Problem> {
        Ok(Fields::body(self.json().await?)?)
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("The body is larger than {limit} bytes."),
    )
}
