//! GET `/.well-known/webhook-keys`: the public Ed25519 keys of all endpoints as a JSON Web Key Set
//! (RFC 7517, keys as in RFC 8037), for receivers that check `v1a` signatures. No credential: what
//! stands here is public (`api.md` 12).
//!
//! Owns the set last made. It is made again when the configuration has changed or after a minute, so
//! callers without a credential cannot make the gateway derive keys all day. Elsewhere: what a secret
//! is (`policy::sign`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::reply::{Reply, write_json};
use super::request::leave;
use super::{ApiState, endpoint};
use crate::base::Timestamp;
use crate::directory::Snapshot;
use crate::model::{Endpoint, EndpointId, Profile};
use crate::policy::sign::public_key;

/// So long callers may keep the set (`api.md` 12).
const CACHEABLE: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// So long the set is kept here while nothing changes; expired keys leave it no later than this.
const KEEP: Duration = Duration::from_secs(60);

/// The set last made.
#[derive(Default)]
pub(super) struct Cache(Mutex<Option<Made>>);

struct Made {
    revision: u64,
    at: Timestamp,
    body: Bytes,
}

#[derive(Serialize)]
struct KeySet {
    keys: Vec<WebKey>,
}

/// An Ed25519 key (RFC 8037, section 2).
#[derive(Serialize)]
struct WebKey {
    kty: &'static str,
    crv: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: String,
    x: String,
}

/// GET `/.well-known/webhook-keys`
pub(super) async fn read(State(state): State<Arc<ApiState>>) -> Response {
    let reply = Reply::raw(StatusCode::OK, current(&state));
    let mut response = leave(&state, Ok(reply), "/.well-known/webhook-keys");
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, CACHEABLE);
    response
}

fn current(state: &ApiState) -> Bytes {
    let now = state.clock.now();
    let snapshot = state.directory.snapshot();
    let revision = snapshot.revision();
    let mut cached = state.webhook_keys.0.lock();
    if let Some(made) = cached.as_ref()
        && made.revision == revision
        && now.since(made.at) < KEEP
    {
        return made.body.clone();
    }
    let mut body = Vec::new();
    write_json(&mut body, &set(state, &snapshot, now));
    let body = Bytes::from(body);
    *cached = Some(Made {
        revision,
        at: now,
        body: body.clone(),
    });
    body
}

fn set(state: &ApiState, snapshot: &Snapshot, now: Timestamp) -> KeySet {
    let apps = snapshot.apps();
    let mut endpoints: Vec<_> = apps.flat_map(|entry| &entry.endpoints).collect();
    endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
    let keys = endpoints.into_iter().flat_map(|endpoint| {
        let secrets = live(endpoint, now).filter_map(|x| {
            signs_standard(endpoint, state).then(|| WebKey {
                kty: "OKP",
                crv: "Ed25519",
                usage: "sig",
                alg: "EdDSA",
                kid: kid(endpoint.id, &x),
                x,
            })
        });
        secrets.collect::<Vec<_>>()
    });
    KeySet {
        keys: keys.collect(),
    }
}

/// Endpoint and RFC 7638 thumbprint of the key: the same for as long as the key lives, so that a
/// receiver which keeps keys by `kid` is not led to another one by a rotation.
fn kid(endpoint: EndpointId, x: &str) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
    format!("{endpoint}.{thumbprint}")
}

/// Public keys that signatures may be made with now, that of the newest secret first.
fn live(endpoint: &Endpoint, now: Timestamp) -> impl Iterator<Item = String> {
    let old = endpoint.old_secrets.iter();
    let old = old.filter(move |old| now < old.expires);
    std::iter::once(&endpoint.secret)
        .chain(old.map(|old| &old.secret))
        .filter_map(|secret| Some(base64url(&public_key(secret)?)))
}

/// Other profiles use the same text as the key of an HMAC: no public key belongs to that.
fn signs_standard(ep: &Endpoint, state: &ApiState) -> bool {
    match endpoint::effective(ep, state) {
        Profile::Standard | Profile::Dual => true,
        Profile::Hex(hex) => hex.also_standard,
        Profile::Timestamped { .. } => false,
    }
}

/// `whpk_` and base64 in the alphabet of web keys, without padding (RFC 7515, section 2).
fn base64url(public: &str) -> String {
    let text = public.strip_prefix("whpk_").unwrap_or(public);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}
