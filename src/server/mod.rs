//! The incoming side of HTTP: listeners, TLS, connections and their deadlines.
//!
//! Serves any `tower` service (an axum router, without naming it) over HTTP/1.1 and HTTP/2. Owns
//! everything a connection can do wrong before a request exists: too many of them, slow heads, slow
//! bodies, slow readers, idle ones, framing that two parsers could read differently (R: threat list
//! "request smuggling", "slowloris"). hyper is named here and in `client` only.
//!
//! Invariants: a connection is counted from accept to close and never outlives the drain limit; no
//! timer and no lock is touched per request (one sweep per tenth of a second judges all connections,
//! see [`activity`]); accepting pauses, and never spins, when connections or descriptors run out.
//!
//! Elsewhere: routes, credentials and body limits (`api`), which socket is whose (`app`).

mod activity;
mod body;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
pub mod interfaces;
mod listen;
pub mod limits;
pub mod notify;
mod serve;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use body::{BodyError, RequestBody};
pub use listen::{Bound, Listeners};
pub use serve::{Drained, Peer, Server, Settings};
pub use tls::{Renewal, Tls};
/// Makes a service of a function, for modules that serve without a router.
pub use tower::service_fn;

/// Why listening is impossible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound: taken, foreign, or not permitted.
    #[error("cannot listen on {address}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The service manager handed over something else than listening sockets.
    #[error("the sockets handed over by the service manager are not usable: {why}")]
    Activation {
        /// What is wrong with them.
        why: String,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read {} as PEM: {why}", .path.display())]
    Pem {
        /// The configured file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not make a TLS server.
    #[error("certificate and key are not usable")]
    Tls(#[source] rustls::Error),
    /// The system grants fewer open files than the limits need.
    #[error(
        "the configured limits need {need} open files and the system grants {granted}: raise \
         `ulimit -n` (LimitNOFILE=), or lower server.max_connections or delivery.max_in_flight"
    )]
    OpenFiles {
        /// What the configuration may use.
        need: u64,
        /// The hard limit.
        granted: u64,
    },
}
