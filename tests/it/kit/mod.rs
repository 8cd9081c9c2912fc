//! The test kit: starts the real binary, calls its API, and receives what it sends.
//!
//! Waiting lives here and nowhere else: a test names a condition and a deadline, the kit polls.
//! Everything binds port 0 or asks the system for a free port, so tests can run side by side.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "test kit: a failure is a failed test, and it owns clocks, tasks and sockets"
)]

mod http;
mod launch;
mod notify;
mod process;
mod receiver;
mod setup;
mod stall;

pub(crate) use http::{Client, Reply};
pub(crate) use launch::Launch;
pub(crate) use notify::Manager;
pub(crate) use process::{Gateway, run_to_end, spawn_logged};
pub(crate) use receiver::{Answer, Received, Receiver};
pub(crate) use setup::{EndpointRef, endpoint, message, send};
pub(crate) use stall::{Stall, Thread, release};

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine with two cores; a test that reaches it has failed.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Polls until `probe` answers `Some`; panics with `what` when `within` is over.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Lets time pass where the passing itself is the subject ("nothing arrives meanwhile").
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Reads the clock, to measure how long something took.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Prints a fact that belongs to the test's result.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A seed for this run, from the environment if it is set there, printed in any case.
pub(crate) fn seed(variable: &str) -> u64 {
    let seed = match std::env::var(variable) {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("{variable}={seed}");
    seed
}

/// A variable of the environment, for runs larger than the usual.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}

/// Makes sure that this process may open so many files.
pub(crate) fn open_files(count: u64) {
    let granted = posthaste::server::limits::open_files(count);
    granted.expect("the machine grants the test enough open files");
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A path that `scripts/install-test-deps` provides.
pub(crate) fn dependency(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    assert!(
        path.exists(),
        "{} is missing: run scripts/install-test-deps",
        path.display()
    );
    path
}

/// SHA-256 in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The master key that every test has.
pub(crate) const VAULT_KEY: &str =
    "0707070707070707070707070707070707070707070707070707070707070707";

/// A vault over it.
pub(crate) fn vault() -> std::sync::Arc<posthaste::vault::Vault> {
    let masters = posthaste::vault::Masters::parse(VAULT_KEY, "the test kit").unwrap();
    std::sync::Arc::new(posthaste::vault::Vault::new(masters, [7; 32]))
}
