//! Integration tests: one binary, one module per subject, most of them against the real binary.
//!
//! They need `scripts/install-test-deps` (npm and PyPI packages, Prometheus); a missing one is a
//! failure that names the script, never a skip.

mod api;
mod backup;
mod config;
mod crash;
mod gateway;
mod inbound;
#[cfg(feature = "shuttle")]
mod interleavings;
mod kit;
mod lane;
mod portal;
mod process;
mod prometheus;
mod providers;
mod real_payloads;
mod rest_hooks;
mod sdk;
mod seeds;
mod server;
mod simulation;
mod sink;
mod ssrf;
mod store;
mod wire;
