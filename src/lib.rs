//! Posthaste: takes events in over HTTP, makes them durable in an embedded log, and delivers each of
//! them to every endpoint that wants it: signed, at least once, with retries over days.
//!
//! ```text
//!  POST /api/v1/app/{app}/msg ─▶ api ─▶ ingest ─▶ lane ─▶ store (group commit, fsync) ─▶ 202
//!                                                  │ committed messages
//!                                                  ▼
//!                                              schedule ─▶ deliver ─▶ client ─▶ the endpoint
//!                                                  ▲          │ Outcome
//!                                                  └──────────┘ policy::retry judges, settlements go
//!                                                               back through the lane to the store
//! ```
//!
//! To follow one message from socket to socket, read in this order: `api/message.rs` (the route; it is
//! reached past the router, `api/front.rs`),
//! `ingest/mod.rs` (body to message and targets), `lane/mod.rs` (group commit), `schedule/core.rs`
//! (which delivery starts when), `deliver/mod.rs` (one attempt).
//!
//! The list below is ordered from top to bottom: **a module may import only modules that stand
//! below it.** `tests/tidy.rs` checks that. Read upwards it is the start order, downwards the stop
//! order.

#[doc(hidden)]
pub mod fuzzing;
pub mod cli;
pub mod app;
pub mod dashboard;
pub mod api;
pub mod inbound;
pub mod providers;
pub mod ingest;
pub mod schedule;
pub mod deliver;
pub mod auth;
pub mod catalogs;
pub mod directory;
pub mod vault;
pub mod backup;
pub mod lane;
pub mod store;
pub mod server;
pub mod client;
pub mod telemetry;
pub mod config;
pub mod policy;
pub mod metrics;
pub mod model;
pub mod expression;
pub mod base;
