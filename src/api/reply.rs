//! A successful answer: status, bytes, content type. Built by the handlers, sent by `request`.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// What is sent back.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) kind: Kind,
    /// Value of `x-posthaste-warning`.
    pub(super) warning: Option<String>,
    /// Sent instead of `body`, as it comes.
    pub(super) stream: Option<Body>,
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No body and no content type.
    Empty,
    /// `application/json`
    Json,
    /// `application/x-ndjson`
    Lines,
    /// The text form of metrics.
    Metrics,
    /// Plain text.
    Text,
    /// Server-sent events.
    Events,
}

impl Reply {
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let mut body = Vec::with_capacity(512);
        write_json(&mut body, value);
        Self::raw(status, body)
    }

    /// JSON that is written already.
    pub(super) fn raw(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            body: body.into(),
            kind: Kind::Json,
            warning: None,
            stream: None,
        }
    }

    pub(super) fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }

    pub(super) fn created(value: &impl Serialize) -> Self {
        Self::json(StatusCode::CREATED, value)
    }

    /// 204: no body, no content type (`api.md` 5).
    pub(super) const fn empty() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: Bytes::new(),
            kind: Kind::Empty,
            warning: None,
            stream: None,
        }
    }

    /// A stream of events.
    pub(super) fn events(stream: Body) -> Self {
        Self {
            kind: Kind::Events,
            stream: Some(stream),
            ..Self::raw(StatusCode::OK, Bytes::new())
        }
    }

    pub(super) fn response(self) -> Response {
        let body = self.stream.unwrap_or_else(|| self.body.into());
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let kind = match self.kind {
            Kind::Empty => None,
            Kind::Json => Some("application/json"),
            Kind::Lines => Some("application/x-ndjson"),
            Kind::Metrics => Some("text/plain; version=0.0.4; charset=utf-8"),
            Kind::Text => Some("text/plain; charset=utf-8"),
            Kind::Events => Some("text/event-stream"),
        };
        let headers = response.headers_mut();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if self.kind == Kind::Events {
            let no_store = HeaderValue::from_static("no-store");
            headers.insert(header::CACHE_CONTROL, no_store);
        }
        if let Some(warning) = self
            .warning
            .and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert("x-posthaste-warning", warning);
        }
        response
    }
}

/// Appends `value` as compact JSON.
pub(super) fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    if let Err(error) = serde_json::to_writer(out, value) {
        // Only a map with keys that are no strings can fail; the API has none.
        tracing::error!(%error, "an answer cannot be written as JSON");
    }
}
