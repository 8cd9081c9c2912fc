//! Until when it runs, and how it ends.
//!
//! Phases: stop accepting and answer what is under way; let attempts end; write what is left; close
//! the store. A deadline bounds all of it, whoever is late is named, and a second signal exits at
//! once: what was cut off is sent again after the restart, with the same id.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::Exit;
use super::build::Engine;
use super::reload::Reload;
use crate::base::task::{Stopper, Tasks};
use crate::server::notify;

/// Why it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    Signal,
    StorageFailed,
    TaskEnded(&'static str),
}

/// Waits for a reason to end; reloads in between.
pub(super) async fn wait(engine: &Engine, tasks: &Tasks, reload: &Reload) -> Cause {
    let (mut term, mut int, mut hup) = (
        listen(SignalKind::terminate()),
        listen(SignalKind::interrupt()),
        listen(SignalKind::hangup()),
    );
    loop {
        tokio::select! {
            biased;
            why = engine.lane.failed() => {
                error!(why, "the store failed: nothing more is acknowledged, exit code 74");
                return Cause::StorageFailed;
            }
            name = tasks.failure() => {
                error!(task = name, "a vital task ended");
                // The task may have ended because the store failed.
                let failed = engine.lane.has_failed();
                return if failed { Cause::StorageFailed } else { Cause::TaskEnded(name) };
            }
            () = received(&mut term) => return Cause::Signal,
            () = received(&mut int) => return Cause::Signal,
            () = received(&mut hup) => reload.reload(),
        }
    }
}

/// Takes everything down within `limit`.
pub(super) async fn drain(
    cause: Cause,
    engine: Engine,
    tasks: &Tasks,
    [front, rest]: [Stopper; 2],
    limit: Duration,
) -> Exit {
    match cause {
        Cause::Signal => {}
        Cause::StorageFailed => return Exit::StorageFailed, // no second fsync, no close (D2)
        Cause::TaskEnded(_) => return Exit::Aborted,
    }
    info!(
        limit_s = limit.as_secs(),
        in_flight = engine.schedule.status().in_flight,
        "draining"
    );
    notify::stopping();
    let mut again = listen(SignalKind::terminate());
    let mut interrupted = listen(SignalKind::interrupt());
    tokio::select! {
        exit = wind_down(&engine, tasks, front, rest, limit) => exit,
        () = received(&mut again) => second_signal(),
        () = received(&mut interrupted) => second_signal(),
    }
}

async fn wind_down(
    engine: &Engine,
    tasks: &Tasks,
    front: Stopper,
    rest: Stopper,
    limit: Duration,
) -> Exit {
    front.stop();
    rest.stop();
    let late = tasks.join_until(limit).await;
    if !late.is_empty() {
        warn!(tasks = ?late, "stopped without waiting; unfinished deliveries will be retried");
    }
    match engine.lane.close().await {
        Ok(()) => {
            info!("drained");
            Exit::Drained
        }
        Err(cause) => {
            error!(%cause, "the store could not be closed");
            Exit::StorageFailed
        }
    }
}

fn second_signal() -> Exit {
    warn!("told twice: exiting at once; unfinished deliveries will be retried");
    Exit::Aborted
}

fn listen(kind: SignalKind) -> Option<Signal> {
    match signal(kind) {
        Ok(signal) => Some(signal),
        Err(cause) => {
            error!(%cause, "a signal cannot be listened for");
            None
        }
    }
}

/// Resolves when the signal comes; never, if it cannot be listened for.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
