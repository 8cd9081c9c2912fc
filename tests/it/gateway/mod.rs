//! Real sockets, the real binary, the embedded store: one test per promise that the simulation
//! proves in virtual time.

mod bombs;
mod cancel;
mod circle;
mod crowds;
mod drain;
mod edits;
mod ingest;
mod lifecycle;
mod pace;
mod payloads;
mod quotas;
mod reading;
mod retry;
