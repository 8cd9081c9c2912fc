//! The rules, as total functions: what an outcome means, when to try again, when to stop, how fast to
//! go, who wants a message, what may be called, and how a request is signed.
//!
//! Pure: no sockets, no clock, no randomness. Time and random numbers are arguments, so a test can
//! ask about any instant and a simulation can replay any run. State that a rule needs
//! ([`limit::Throttle`], [`crate::model::Health`]) is owned by the caller.
//!
//! Elsewhere: who calls them, and what is stored of it (`schedule`); the requests themselves
//! (`deliver`, `client`).

pub mod address;
pub mod exclude;
pub mod filter;
pub mod forwarded;
pub mod header;
pub mod health;
pub mod hop;
mod key;
pub mod limit;
pub mod outcome;
pub mod own;
pub mod quota;
pub mod retry;
pub mod schema;
pub mod sign;
pub mod target;
pub mod watermark;
