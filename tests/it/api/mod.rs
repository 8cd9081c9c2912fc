//! The HTTP API: the real front and router, lane and directory over the in-memory store; no sockets.

pub(crate) mod kit;

mod audit;
mod auth;
mod catalogs;
mod content;
mod delayed;
mod ending;
mod errors;
mod figures;
mod filters;
mod front;
mod history;
mod hops;
mod idempotency;
mod import;
mod limits;
mod machine;
mod messages;
mod metrics;
mod objects;
mod openapi;
mod pages;
mod prefixes;
mod quarantine;
mod quotas;
mod reading;
mod replay;
mod retention;
mod schemas;
mod sessions;
mod sizes;
mod tasks;
mod tenants;
mod webhook_keys;
