//! The outgoing wire: real sockets, receivers that keep to no rules.

#![expect(clippy::unwrap_used, reason = "test support outside of test functions")]

mod bombs;
mod dns;
mod headers;
pub(crate) mod kit;
mod name_server;
mod network;
mod tls;
