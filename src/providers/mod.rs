//! Providers whose webhooks are received: their manifests, and the one engine that reads them.
//!
//! A manifest (TOML, one file per provider, compiled in, overridable by a directory) says how a request
//! is signed, how a handshake is answered, and where type and id of an event stand. A provider whose
//! scheme is known needs no Rust, and no code here knows a provider.
//!
//! Invariant: a request is refused unless everything that its manifest names is there and right.
//! Reading the directory is the only I/O; secrets are neither logged nor part of any error.
//! Elsewhere: the route, sources, replay prevention and fetching key sets (`inbound`).

mod builtin;
mod catalogue;
mod credentials;
mod events;
mod form;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod json;
mod jwks;
mod key;
mod manifest;
mod mistake;
mod outline;
mod place;
mod reader;
mod received;
mod refusal;
mod scheme;
mod template;
mod url;
mod verify;
mod xml;

pub use catalogue::Catalogue;
pub use credentials::{Credentials, TOLERANCE};
pub use events::{Event, MAX_EVENTS, events};
pub use handshake::{Answer, Handshake, handshake};
pub use jwks::{BadJwks, Jwks};
pub use manifest::{Integrity, Manifest, Reply, Status};
pub use mistake::Mistake;
pub use received::Received;
pub use refusal::Refusal;
pub use verify::{Verified, verify};
