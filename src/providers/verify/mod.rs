//! The one engine that decides whether a request is the provider's.
//!
//! It knows kinds of checks, never a provider: what differs between two providers of one kind stands in
//! their manifests. A missing header, secret or field is a refusal, never a check that is left out.
//! Pure: time comes in as an argument, key sets are fetched by the caller.

mod jwt;
mod signed;
mod stamp;
mod token;

use super::credentials::Credentials;
use super::key;
use super::manifest::{Integrity, Manifest};
use super::received::Received;
use super::refusal::Refusal;
use super::scheme::Scheme;
use crate::base::Timestamp;

/// A request that is the provider's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What that means.
    pub integrity: Integrity,
    /// Tells repetitions where an event has no id. Made of the signed message, without the signature:
    /// a repetition under another of several valid signatures has the same digest. Where the body is
    /// not bound, made of URL, body and the headers that the manifest lists.
    pub digest: [u8; 32],
    /// The signed timestamp, if there is one that can be read.
    pub timestamp: Option<Timestamp>,
}

/// Decides whether the request is the provider's. `now` is compared with signed timestamps and with
/// the life of tokens.
///
/// # Errors
/// Why not. For [`Refusal::UnknownKey`] the caller may fetch a fresh key set and ask once more.
pub fn verify(
    manifest: &Manifest,
    request: &Received<'_>,
    credentials: &Credentials,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let scheme = manifest.scheme().ok_or(Refusal::NotReceivable)?;
    let proof = match scheme {
        Scheme::Signed(signed) => {
            let handshake = manifest.handshake_plan();
            signed::check(signed, request, credentials, (now, handshake))?
        }
        Scheme::Jwt(jwt) => {
            jwt::check(jwt, request, credentials, now).map(|()| Proof::default())?
        }
        Scheme::Token(token) => {
            token::check(token, request, credentials).map(|()| Proof::default())?
        }
        Scheme::Basic(secret) => {
            token::basic(secret, request, credentials).map(|()| Proof::default())?
        }
        Scheme::Unsigned => Proof::default(),
    };
    let digest = match proof.message {
        Some(message) if manifest.integrity() == Integrity::Body => message,
        Some(_) | None => unbound(manifest, request),
    };
    Ok(Verified {
        integrity: manifest.integrity(),
        digest,
        timestamp: proof.timestamp,
    })
}

/// What a check leaves behind.
#[derive(Default)]
struct Proof {
    /// Fingerprint of the signed message.
    message: Option<[u8; 32]>,
    timestamp: Option<Timestamp>,
}

/// What tells repetitions where the signature does not bind the body.
fn unbound(manifest: &Manifest, request: &Received<'_>) -> [u8; 32] {
    let plan = manifest.events_plan();
    let headers = plan.map(|plan| plan.listed(request.headers));
    let headers = headers.unwrap_or_default();
    let mut parts = vec![request.public_url.as_bytes(), request.body.as_ref()];
    for (name, value) in &headers {
        parts.push(name.as_bytes());
        parts.push(value.as_bytes());
    }
    key::fingerprint(parts)
}
