//! Until when it runs, and how it ends.
//!
//! Phases: stop accepting and answer what is under way; let attempts end; write what is left; close
//! the store. A deadline bounds all of it, and whoever is late is named. A second signal exits at
//! once (what was cut off is sent again after the restart, with the same id), but not within
//! [`TOGETHER`] of the first: `timeout` and some supervisors signal the process and then its group.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::Exit;
use super::build::Engine;
use super::reload::Reload;
use crate::base::task::{Stopper, Tasks};
use crate::server::notify;

/// Signals to end that come within this time of the first are the same wish.
const TOGETHER: Duration = Duration::from_millis(500);

/// Attempts that are named when they are cut off; of the rest the number is.
const NAMED: usize = 20;
/// The scheduler answers within this, or is late itself.
const ANSWER: Duration = Duration::from_secs(1);
/// For the last syncs of the store, beyond the time to drain. A disk that takes longer is as good as
/// failed, and a closing that is cut off is a crash like others: nothing acknowledged is lost by it.
const CLOSES: Duration = Duration::from_secs(10);

/// Why it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    Signal,
    StorageFailed,
    TaskEnded(&'static str),
}

/// The signals that mean something. From [`Signals::listen`] on none of them kills the process; one
/// that comes while nobody waits is kept (once per kind).
pub(super) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn listen() -> Self {
        Self {
            terminate: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
            hangup: listen(SignalKind::hangup()),
        }
    }

    /// Resolves when told to end. Cancel safe.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            () = received(&mut self.terminate) => {}
            () = received(&mut self.interrupt) => {}
        }
    }
}

/// Waits for a reason to end. Cancel safe; a reload that is asked for stays asked for.
pub(super) async fn ends(engine: &Engine, tasks: &Tasks, signals: &mut Signals) -> Cause {
    tokio::select! {
        biased;
        why = engine.lane.failed() => {
            error!(why, "the store failed: nothing more is acknowledged, exit code 74");
            Cause::StorageFailed
        }
        name = tasks.failure() => {
            error!(task = name, "a vital task ended");
            // The task may have ended because the store failed.
            let failed = engine.lane.has_failed();
            if failed { Cause::StorageFailed } else { Cause::TaskEnded(name) }
        }
        () = signals.end() => Cause::Signal,
    }
}

/// Waits for a reason to end; reloads in between.
pub(super) async fn wait(
    engine: &Engine,
    tasks: &Tasks,
    signals: &mut Signals,
    reload: &Reload,
) -> Cause {
    let mut hangup = signals.hangup.take();
    loop {
        tokio::select! {
            biased;
            cause = ends(engine, tasks, signals) => return cause,
            () = received(&mut hangup) => reload.reload(),
        }
    }
}

/// Takes everything down within `limit`.
pub(super) async fn drain(
    cause: Cause,
    engine: &Engine,
    tasks: &Tasks,
    stoppers: [Stopper; 2],
    (limit, signals): (Duration, &mut Signals),
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
    tokio::select! {
        exit = wind_down(engine, tasks, stoppers, limit) => exit,
        () = told_again(signals) => {
            let in_flight = engine.schedule.status().in_flight;
            warn!(in_flight, "told twice: exiting at once; unfinished deliveries will be retried");
            Exit::Aborted
        }
    }
}

/// Resolves with the first signal to end that is not part of the one that began the drain.
async fn told_again(signals: &mut Signals) {
    let together = async {
        loop {
            signals.end().await;
            info!("told again at the same time: still draining");
        }
    };
    tokio::select! {
        () = together => {}
        () = tokio::time::sleep(TOGETHER) => {}
    }
    signals.end().await;
}

async fn wind_down(
    engine: &Engine,
    tasks: &Tasks,
    [front, rest]: [Stopper; 2],
    limit: Duration,
) -> Exit {
    front.stop();
    rest.stop();
    let late = tasks.join_until(limit).await;
    if !late.is_empty() {
        name_late(engine, &late).await;
        tasks.abort();
    }
    match tokio::time::timeout(CLOSES, engine.lane.close()).await {
        Ok(Ok(())) => {
            info!("drained");
            Exit::Drained
        }
        Ok(Err(cause)) => {
            error!(%cause, "the store could not be closed");
            Exit::StorageFailed
        }
        Err(_) => {
            let seconds = CLOSES.as_secs();
            error!(
                seconds,
                "the disk does not answer: ended without closing the store"
            );
            Exit::StorageFailed
        }
    }
}

/// Says who is late: every task, and the attempts that have been under way for the longest time.
/// Nothing is recorded of an attempt that is cut off, so it is made again under the same id.
async fn name_late(engine: &Engine, tasks: &[&'static str]) {
    let asked = tokio::time::timeout(ANSWER, engine.schedule.sending(NAMED)).await;
    let (named, attempts) = match asked {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => (Vec::new(), engine.schedule.status().in_flight),
    };
    let endpoints = engine.directory.snapshot();
    for (delivery, message, since) in &named {
        let endpoint = endpoints.endpoint(delivery.endpoint);
        let endpoint = endpoint.map_or_else(String::new, |endpoint| endpoint.id.to_string());
        warn!(msg = %message, endpoint, %since, "cut off while sending; it is sent again later");
    }
    warn!(
        ?tasks,
        attempts,
        named = named.len(),
        "the time to drain is over: cut off; unfinished deliveries will be retried"
    );
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

/// Resolves when the signal comes; never, if it cannot be listened for. Cancel safe.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
