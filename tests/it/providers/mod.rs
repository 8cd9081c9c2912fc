//! Provider manifests and the engine that verifies their requests.
//!
//! The vectors in `tests/fixtures/providers` are facts about providers: when one disagrees, the engine
//! or a manifest is wrong, never the vector.

pub(crate) mod catalogue;
mod command;
mod docs;
mod events;
mod kit;
mod libraries;
mod mutations;
mod properties;
mod vectors;
