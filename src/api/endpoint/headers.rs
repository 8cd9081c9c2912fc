//! Custom headers of an endpoint: read, replace, change some.
//!
//! Values of headers that look like credentials are shown to nobody, and they are forgotten when the
//! URL moves to another origin: whoever may edit a URL must not be able to have a secret sent to
//! himself (T26).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{change, wanted};
use crate::api::error::Problem;
use crate::api::reply::Reply;
use crate::api::request::{Answer, Cx};
use crate::ingest::ItemKind;
use crate::ingest::fields::{Wrong, any};
use crate::model::Endpoint;

#[derive(Serialize)]
struct Out<'a> {
    headers: BTreeMap<&'a str, &'a str>,
    sensitive: &'a [String],
}

/// GET `…/endpoint/{endpoint_id}/headers`
pub(in crate::api) async fn read(cx: Cx) -> Answer {
    let (_, endpoint) = cx.endpoint()?;
    let shown = endpoint
        .headers
        .iter()
        .filter(|(name, _)| !is_sensitive(name));
    Ok(Reply::ok(&Out {
        headers: shown.map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        sensitive: &endpoint.sensitive_headers,
    }))
}

/// PUT `…/endpoint/{endpoint_id}/headers`
pub(in crate::api) async fn put(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let headers = fields.texts("headers");
    if headers == crate::ingest::fields::Given::Null {
        fields.wrong("headers", missing());
    }
    fields.finish()?;
    let headers = headers.value().unwrap_or_default();
    replace(&cx, move |_| headers).await
}

/// PATCH `…/endpoint/{endpoint_id}/headers`: null and `deleteHeaders` take away.
pub(in crate::api) async fn patch(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let set = fields.read("headers", |value| {
        serde_json::from_value::<BTreeMap<String, Option<String>>>(value).map_err(|_| {
            let msg = "an object whose values are strings or null is wanted";
            (ItemKind::TypeError, msg.into())
        })
    });
    let delete = fields.set("deleteHeaders", 0..=64, any);
    fields.finish()?;
    let set = set.value().unwrap_or_default();
    let delete = delete.value().unwrap_or_default();
    replace(&cx, move |endpoint| {
        let gone = |name: &str| {
            let is = |other: &String| other.eq_ignore_ascii_case(name);
            delete.iter().any(is) || set.keys().any(is)
        };
        let mut headers = endpoint.headers.clone();
        headers.retain(|name, _| !gone(name));
        headers.extend(
            set.into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        headers
    })
    .await
}

fn missing() -> Wrong {
    (ItemKind::Missing, "this field is required".into())
}

async fn replace(
    cx: &Cx,
    with: impl FnOnce(&Endpoint) -> BTreeMap<String, String> + Send + 'static,
) -> Answer {
    let state = Arc::clone(&cx.state);
    let now = cx.now;
    let done = change(cx, move |_, endpoint| {
        let headers = with(endpoint);
        set(endpoint, headers);
        endpoint.updated = now;
        wanted::check(endpoint, &state)
    });
    done.await?;
    Ok::<_, Problem>(Reply::empty())
}

/// Sets the headers and notes which of them are credentials.
pub(super) fn set(endpoint: &mut Endpoint, headers: BTreeMap<String, String>) {
    let sensitive = headers.keys().filter(|name| is_sensitive(name));
    endpoint.sensitive_headers = sensitive.cloned().collect();
    endpoint.headers = headers;
}

/// Forgets the headers that are credentials: the URL moved to another origin.
pub(super) fn forget_sensitive(endpoint: &mut Endpoint) {
    if endpoint.url.is_empty() {
        return; // it is being made
    }
    let mut headers = std::mem::take(&mut endpoint.headers);
    headers.retain(|name, _| !is_sensitive(name));
    set(endpoint, headers);
}

/// Whether a header's name says that its value is a credential.
fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = ["auth", "cookie", "key", "password", "secret", "token"];
    parts.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_credentials_are_sensitive() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "X-API-Key",
            "x-my-token",
        ] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["x-tenant", "accept", "x-request-id"] {
            assert!(!is_sensitive(name), "{name}");
        }
    }
}
