//! The HTTP API: the real router, lane and directory over the in-memory store; no sockets.

pub(crate) mod kit;

mod auth;
mod content;
mod delayed;
mod errors;
mod figures;
mod filters;
mod history;
mod hops;
mod idempotency;
mod limits;
mod machine;
mod messages;
mod objects;
mod openapi;
mod pages;
mod reading;
mod replay;
mod schemas;
mod sessions;
mod sizes;
mod tasks;
mod tenants;
mod webhook_keys;
