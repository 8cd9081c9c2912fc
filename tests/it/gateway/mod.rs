//! Real sockets, the real binary, the embedded store: one test per promise that the simulation
//! proves in virtual time.

mod bombs;
mod crowds;
mod ingest;
mod lifecycle;
mod pace;
mod payloads;
mod retry;
