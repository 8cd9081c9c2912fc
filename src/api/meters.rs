//! The API's metrics: handles that are looked up once, and those of each route.

use std::time::Duration;

use ::metrics::{Counter, counter, histogram};
use axum::extract::MatchedPath;
use http::{Method, StatusCode};

use crate::metrics;

pub(super) struct Meters {
    good: Counter,
    client: Counter,
    server: Counter,
}

/// What a request asked for.
pub(super) struct Asked {
    pub(super) method: Method,
    /// The path as it stands in the table of routes.
    pub(super) matched: Option<MatchedPath>,
}

/// The route that carries the load; it has metrics of its own.
const MESSAGES: &str = "/app/{app_id}/msg";

/// A path of the router as the description writes it: without its version and the slash at its end.
pub(super) fn template(path: &str) -> &str {
    let path = path.strip_prefix("/api").unwrap_or(path);
    let path = path.strip_prefix("/v1").unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

impl Default for Meters {
    fn default() -> Self {
        let class = |class: &'static str| counter!(metrics::HTTP_REQUESTS, "class" => class);
        Self {
            good: class("2xx"),
            client: class("4xx"),
            server: class("5xx"),
        }
    }
}

impl Meters {
    /// A request that the router found a place for was answered. Labels come from the table of routes and from
    /// the statuses of the API, so there are only so many. Accepting a message costs nothing here.
    pub(super) fn routed(&self, asked: &Asked, status: StatusCode, took: Duration) {
        let Some(path) = asked.matched.as_ref() else {
            return;
        };
        let route = template(path.as_str());
        if asked.method == Method::POST && route == MESSAGES {
            return;
        }
        let (method, route) = (asked.method.as_str().to_owned(), route.to_owned());
        let status = status.as_str().to_owned();
        counter!(
            metrics::API_REQUESTS,
            "method" => method.clone(), "route" => route.clone(), "status" => status
        )
        .increment(1);
        histogram!(metrics::API_SECONDS, "method" => method, "route" => route)
            .record(took.as_secs_f64());
    }

    /// A request was answered.
    pub(super) fn answered(&self, status: StatusCode) {
        if status.is_server_error() {
            self.server.increment(1);
        } else if status.is_client_error() {
            self.client.increment(1);
        } else {
            self.good.increment(1);
        }
    }
}
