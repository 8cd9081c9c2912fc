//! Real sockets, the real binary, the embedded store: one test per promise that the simulation
//! proves in virtual time.

mod cancel;
mod circle;
mod drain;
mod ingest;
mod lifecycle;
mod pace;
mod retry;
