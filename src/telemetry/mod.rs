//! What the process says about itself: log lines, metrics in Prometheus form, panics.
//!
//! The only globals of the product live here, each installed once by the composition root before
//! anything else runs: the log subscriber ([`logs`]), the metrics recorder ([`exposition`]) and the
//! panic hook ([`panics`]). Elsewhere: metric names and handles (`metrics`), who may read `/metrics`
//! (`api`).

pub mod exposition;
pub mod logs;
pub mod panics;

/// A global could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another subscriber or recorder is there already.
    #[error("{what} is installed already")]
    Installed {
        /// What.
        what: &'static str,
    },
    /// The directives of `log.level` are not understood.
    #[error("log.level `{level}` is not understood: {why}")]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// Buckets that the exporter refuses.
    #[error("histogram buckets are refused: {0}")]
    Buckets(String),
}
