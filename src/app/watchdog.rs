//! Tells the service manager that deliveries move, from a thread of its own.
//!
//! Silence is the alarm: the thread pings only while the commit thread turns, the scheduler turns,
//! and no delivery that could start has been waiting for a minute without anything moving (P14).

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};

use super::build::Engine;
use crate::base::{Clock, Timestamp, task};
use crate::lane::Lane;
use crate::schedule::Status;
use crate::server::notify;

/// The commit thread turns at least every 100 ms; a stall of the disk may take a while.
const COMMITS: Duration = Duration::from_secs(10);
/// The scheduler turns at least every 100 ms.
const TURNS: Duration = Duration::from_secs(5);
/// A delivery that could start starts within this, or nothing moves.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Starts the thread if the service manager wants to hear from us.
pub(super) fn start(engine: &Engine) {
    let Some(interval) = notify::watchdog_interval() else {
        return;
    };
    let (lane, status) = (engine.lane.clone(), engine.status.clone());
    let clock = engine.clock.clone();
    let started = task::thread("watchdog", move || {
        while status.has_changed().is_ok() {
            match wrong(&lane, &status, clock.now()) {
                None => notify::watchdog(),
                Some(what) => error!(what, "the watchdog is silent"),
            }
            std::thread::park_timeout(interval);
        }
    });
    if let Err(cause) = started {
        warn!(%cause, "no watchdog thread; the service manager will restart the process");
    }
}

/// What does not move, if anything.
fn wrong(lane: &Lane, status: &watch::Receiver<Status>, now: Timestamp) -> Option<&'static str> {
    let status = *status.borrow();
    let stands = status
        .oldest_runnable
        .is_some_and(|since| now.since(since) > STANDSTILL);
    if lane.has_failed() || now.since(lane.last_round()) > COMMITS {
        Some("the commit thread")
    } else if now.since(status.last_turn) > TURNS {
        Some("the scheduler")
    } else if stands && now.since(status.last_progress) > STANDSTILL {
        Some("deliveries")
    } else {
        None
    }
}
