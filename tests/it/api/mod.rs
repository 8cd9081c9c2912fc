//! The HTTP API: the real router, lane and directory over the in-memory store; no sockets.

pub(crate) mod kit;

mod auth;
mod errors;
mod history;
mod hops;
mod idempotency;
mod limits;
mod machine;
mod messages;
mod objects;
mod sizes;
mod webhook_keys;
