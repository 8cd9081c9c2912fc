//! The incoming side over real sockets: framing, deadlines, limits, drain, TLS.
//!
//! Each test has a server of its own on a free port. Waiting is for an event (an answer, the end of
//! the connection) under a deadline; the time-outs under test are short ones.

mod drain;
pub(crate) mod frames;
mod framing;
mod limits;
mod stage;
mod tls;
