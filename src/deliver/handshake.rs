//! Asking a receiver whether it wants what it was subscribed to, before the subscription exists.
//!
//! One POST with a random token, in the header `X-Hook-Secret` and as `challenge` in the body; a receiver
//! that means it sends the token back, in that header or in its answer's body. Automation platforms do so
//! by themselves. Through the guarded client like everything that leaves; never retried.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::client::{Client, Request};
use crate::model::{AppNo, FailureKind};
use crate::policy::target::Target;

/// The header that carries the token, both ways.
const HEADER: HeaderName = HeaderName::from_static("x-hook-secret");
/// For the whole exchange; the caller waits meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There was no answer.
    #[error("there was no answer ({0})")]
    NoAnswer(&'static str),
    /// An answer other than 2xx.
    #[error("the answer was {0}")]
    Status(u16),
    /// A good answer without the token.
    #[error("the answer does not send the token back, in `X-Hook-Secret` or in its body")]
    NotReturned,
}

/// A handshake under way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

/// Whatever asks receivers.
pub trait Handshake: Send + Sync {
    /// Sends `token` to `target` for this application and looks for it in the answer. Takes up to 10 s.
    /// Cancel safe.
    fn ask<'a>(&'a self, tenant: AppNo, target: Target, token: &'a str) -> Asking<'a>;
}

impl Handshake for Client {
    fn ask<'a>(&'a self, tenant: AppNo, target: Target, token: &'a str) -> Asking<'a> {
        Box::pin(ask(self, tenant, target, token))
    }
}

async fn ask(client: &Client, tenant: AppNo, target: Target, token: &str) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    let agent = concat!("Posthaste/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(value) = HeaderValue::from_str(token) {
        headers.insert(HEADER, value);
    }
    let body = json!({ "type": "webhook.handshake", "challenge": token });
    let request = Request {
        method: Method::POST,
        tenant,
        target: Arc::new(target),
        headers,
        body: Bytes::from(body.to_string()),
        timeout: TIMEOUT,
        fresh: false,
    };
    let mut returned = false;
    let exchange = client
        .send_seeing(request, |answer: &HeaderMap| {
            let value = answer.get(HEADER);
            returned = value.is_some_and(|value| value.as_bytes() == token.as_bytes());
        })
        .await;
    match (exchange.outcome.status, exchange.outcome.failure) {
        (200..=299, _) if returned || is_in_body(&exchange.response, token) => Ok(()),
        (200..=299, _) => Err(Refusal::NotReturned),
        (0, failure) => Err(Refusal::NoAnswer(
            failure.map_or("unknown", FailureKind::name),
        )),
        (status, _) => Err(Refusal::Status(status)),
    }
}

/// The token as it is, or as `challenge` of a JSON object.
fn is_in_body(body: &[u8], token: &str) -> bool {
    if body.trim_ascii() == token.as_bytes() {
        return true;
    }
    let body: Option<Value> = serde_json::from_slice(body).ok();
    body.is_some_and(|body| body["challenge"] == *token || body == *token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_as_text_and_as_json_and_nowhere_else() {
        for body in [
            "abc",
            " abc\r\n",
            r#""abc""#,
            r#"{"challenge":"abc","ok":1}"#,
        ] {
            assert!(is_in_body(body.as_bytes(), "abc"), "{body}");
        }
        for body in [
            "",
            "abcd",
            "[\"abc\"]",
            r#"{"other":"abc"}"#,
            "{\"challenge\":",
        ] {
            assert!(!is_in_body(body.as_bytes(), "abc"), "{body}");
        }
    }
}
