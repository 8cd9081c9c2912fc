//! The store behind its seam: one suite for every implementation, and damage to the embedded one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test kit")]

mod backup;
mod conformance;
mod damage;
mod ending;
mod expunge;
mod manifests;
mod open;
mod retention;
pub(crate) mod upgrade;
pub(crate) mod world;
