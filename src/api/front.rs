//! The door of the API: the one route that carries the load goes past the router.
//!
//! `POST /app/{app_id}/msg` is most of what comes in. The router finds a route by the path, carries it
//! through boxed layers and copies parts of the request for each; this route is told by looking at the
//! path, and what follows is the same: credential, scope, handler, answer, counting (`request`). A
//! path with anything to decode, another method or another path takes the router, whose table has the
//! route as well: both ways answer alike (tests/it/api/front.rs).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{Method, Request};
use tower::Service;

use super::request::{self, Params};
use super::{ApiState, message};
use crate::model::Scope;

/// The API as a service; cheap to clone.
#[derive(Clone)]
pub struct Front {
    router: Router,
    state: Arc<ApiState>,
}

impl Front {
    pub(super) const fn new(router: Router, state: Arc<ApiState>) -> Self {
        Self { router, state }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // as the router always is
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let app = match *request.method() {
            Method::POST => application(request.uri().path()),
            _ => None,
        };
        match app {
            Some(app) => {
                let params = Params::App(app.to_owned());
                let accepting = accept(Arc::clone(&self.state), params, request.map(Body::new));
                Box::pin(accepting)
            }
            None => Box::pin(Service::call(&mut self.router, request)),
        }
    }
}

async fn accept(
    state: Arc<ApiState>,
    params: Params,
    request: Request<Body>,
) -> Result<Response, Infallible> {
    let meters = Arc::clone(&state);
    let uri = request.uri().clone();
    let answer = match request::enter(state, params, request, Some(&Scope::MessageWrite)) {
        Err(problem) => Err(problem),
        Ok(cx) => message::create(cx).await,
    };
    Ok(request::leave(&meters, answer, uri.path()))
}

/// The application in the path of a message, where nothing has to be decoded.
fn application(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/api")?;
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let (app, rest) = path.strip_prefix("/app/")?.split_once('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (matches!(rest, "msg" | "msg/") && !app.is_empty() && app.bytes().all(plain)).then_some(app)
}

#[cfg(test)]
mod tests {
    use super::application;

    #[test]
    fn only_the_plain_path_of_messages_goes_past_the_router() {
        for path in [
            "/api/v1/app/a-1_b.c/msg",
            "/api/app/a-1_b.c/msg",
            "/api/v1/app/a-1_b.c/msg/",
            "/api/app/a-1_b.c/msg/",
        ] {
            assert_eq!(application(path), Some("a-1_b.c"), "{path}");
        }
        for path in [
            "/api/v1/app//msg",
            "/api/v1/app/a%2Db/msg",
            "/api/v1/app/a/msg//",
            "/api/v1/app/a/msg/batch",
            "/api/v1/app/a/b/msg",
            "/api/v2/app/a/msg",
            "/app/a/msg",
            "/api/v1/v1/app/a/msg",
            "/api/v1/app/a",
        ] {
            assert_eq!(application(path), None, "{path}");
        }
    }
}
