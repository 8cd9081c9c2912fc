//! The load: closed loop (each connection sends as soon as it has its answer) or open loop (starts
//! are planned, whatever the answers do; `pace`).
//!
//! Open-loop latency counts from the planned start, so a stall of the server is charged to every
//! request that should have started during it (no coordinated omission). Planned starts that never
//! found a free connection are reported as `unsent`. All connections are open before the clock
//! starts. Each generator thread has a single-threaded runtime and its share of the connections;
//! what it counts is merged at the end, so the hot path has no locks.
//!
//! Elsewhere: one connection's life (`user`), what is counted (`ingested`), the bytes (`payload`), the
//! socket (`connection`), what a gateway wants to hear (`adapter`).

mod ingested;
mod user;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use http::Method;
use tokio::sync::Semaphore;

use crate::adapter::Dialect;
use crate::clock::{Clock, Window};
use crate::connection::{Connection, Template, local_runtime};
use crate::machine;
use crate::pace::Pace;
use crate::payload::Payloads;
use crate::signature::Signer;
pub(crate) use ingested::Ingested;
use user::User;

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The payload itself (for a bare receiver).
    Bare,
    /// One `MessageIn`.
    Message,
    /// NDJSON of so many.
    Batch(u64),
}

impl Form {
    fn messages(self) -> u64 {
        match self {
            Self::Bare | Self::Message => 1,
            Self::Batch(lines) => lines.max(1),
        }
    }
}

/// One run of the generator.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
    /// Request `n` goes to path `n % paths`.
    pub(crate) paths: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pace: Pace,
    pub(crate) form: Form,
    pub(crate) keep_alive: bool,
    /// Send a fresh `Idempotency-Key` with each request, as the SDKs do.
    pub(crate) idempotency: bool,
    /// Sign each request as a provider does, under an id of its own.
    pub(crate) signer: Option<Signer>,
    /// Send a request again that got no answer, 429 or 503, until it is accepted.
    pub(crate) retry: bool,
    /// Number of the first message.
    pub(crate) first: u64,
    /// Closed loop: ends after so many messages, whatever the time.
    pub(crate) limit: Option<u64>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Messages acknowledged so far, for whoever watches.
    pub(crate) live: Arc<AtomicU64>,
}

impl Load {
    /// Closed loop on one connection, without warm-up.
    pub(crate) fn new(address: SocketAddr, paths: Vec<String>, duration: Duration) -> Self {
        Self {
            address,
            dialect: Dialect::default(),
            paths,
            connections: 1,
            threads: 1,
            pace: Pace::Closed,
            form: Form::Message,
            keep_alive: true,
            idempotency: false,
            signer: None,
            retry: false,
            first: 0,
            limit: None,
            warm_up: Duration::ZERO,
            duration,
            live: Arc::default(),
        }
    }
}

/// Drives `load` to its end. Blocks; `on_begin` is called when all are connected, just before the
/// first request.
pub(crate) fn drive(
    load: &Load,
    payloads: &Arc<Payloads>,
    clock: Clock,
    on_begin: impl FnOnce(Window),
) -> anyhow::Result<Ingested> {
    let threads = load.threads.clamp(1, load.connections.max(1));
    let plan = Arc::new(Plan {
        next: AtomicU64::new(load.first),
        started: AtomicU64::new(0),
        permits: Semaphore::new(0),
        connected: Barrier::new(threads + 1),
        begin: parking_lot::RwLock::new(None),
    });
    std::thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for thread in 0..threads {
            let connections = share(load.connections, threads, thread);
            let (plan, payloads) = (Arc::clone(&plan), Arc::clone(payloads));
            let run = move || worker(load, &plan, payloads, clock, connections);
            handles.push(
                std::thread::Builder::new()
                    .name(format!("generator-{thread}"))
                    .spawn_scoped(scope, run)?,
            );
        }
        plan.connected.wait();
        let begin = Instant::now() + Duration::from_millis(10);
        *plan.begin.write() = Some(begin);
        plan.connected.wait(); // everyone has read the plan's begin after this
        on_begin(window(clock, begin, load));
        let planned = release(load.pace, &plan, begin, warm_and_measured(load));
        let mut all = Ingested::new(window(clock, begin, load));
        for handle in handles {
            let part = handle
                .join()
                .map_err(|_| anyhow!("a generator thread panicked"))??;
            all.merge(part);
        }
        all.unsent = planned.saturating_sub(plan.started.load(Ordering::Relaxed));
        Ok(all)
    })
}

/// `share(10, 4, i)` is 3, 3, 2, 2.
fn share(all: usize, parts: usize, part: usize) -> usize {
    all / parts + usize::from(part < all % parts)
}

fn warm_and_measured(load: &Load) -> Duration {
    load.warm_up + load.duration
}

fn window(clock: Clock, begin: Instant, load: &Load) -> Window {
    Window {
        begin: clock.at(begin),
        from: clock.at(begin + load.warm_up),
        to: clock.at(begin + warm_and_measured(load)),
    }
}

/// Releases permits when their time has come; returns how many were planned. In the closed loop it
/// returns at once: the workers look at the clock themselves.
fn release(pace: Pace, plan: &Plan, begin: Instant, length: Duration) -> u64 {
    let mut released: u64 = 0;
    while let Some(mut next) = pace.start(released) {
        let into = begin.elapsed();
        let mut due = 0;
        while next <= into && next < length {
            released += 1;
            due += 1;
            next = pace.start(released).unwrap_or(Duration::MAX);
        }
        plan.permits.add_permits(due);
        if into >= length {
            plan.permits.close();
            break;
        }
        std::thread::sleep(next.min(length).saturating_sub(begin.elapsed()));
    }
    released
}

/// What the threads share.
struct Plan {
    /// Next message number.
    next: AtomicU64,
    /// Requests taken up (open loop).
    started: AtomicU64,
    /// Open loop: one for each request whose time has come. Never holds more than the whole plan.
    permits: Semaphore,
    /// Passed once when all are connected, and once more when `begin` is set.
    connected: Barrier,
    begin: parking_lot::RwLock<Option<Instant>>,
}

fn worker(
    load: &Load,
    plan: &Arc<Plan>,
    payloads: Arc<Payloads>,
    clock: Clock,
    connections: usize,
) -> anyhow::Result<Ingested> {
    let runtime = local_runtime()?;
    let opened = runtime.block_on(async {
        let mut opened = Vec::with_capacity(connections);
        for _ in 0..connections {
            opened.push(Connection::open(load.address, load.keep_alive).await?);
        }
        anyhow::Ok(opened)
    });
    // Both barriers are passed also after an error, or the other threads would wait for ever.
    plan.connected.wait();
    plan.connected.wait();
    let opened = opened?;
    let begin = plan.begin.read().context("the run has no begin")?;
    let templates = templates(load)?;
    let context = Rc::new(User::new(load, templates, plan, payloads, (clock, begin)));
    runtime.block_on(async {
        tokio::time::sleep_until(begin.into()).await;
        let tasks: Vec<_> = opened
            .into_iter()
            .map(|connection| tokio::task::spawn_local(Rc::clone(&context).user(connection)))
            .collect();
        for task in tasks {
            task.await?;
        }
        anyhow::Ok(())
    })?;
    let mut seen = context.take();
    seen.cpu = machine::own_thread_cpu();
    Ok(seen)
}

fn templates(load: &Load) -> anyhow::Result<Vec<Template>> {
    load.paths
        .iter()
        .map(|path| {
            let template = Template::new(Method::POST, load.address, path, None)?;
            Ok(template.with_headers(&load.dialect.headers))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_completely() {
        let shares: Vec<_> = (0..4).map(|part| share(10, 4, part)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
    }
}
