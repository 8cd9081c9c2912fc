//! The load: closed loop (each connection sends as soon as it has its answer) or open loop (starts
//! are planned, whatever the answers do).
//!
//! Open-loop latency counts from the planned start, so a stall of the server is charged to every
//! request that should have started during it (no coordinated omission). Planned starts that never
//! found a free connection are reported as `unsent`. All connections are open before the clock
//! starts. Each generator thread has a single-threaded runtime and its share of the connections;
//! what it counts is merged at the end, so the hot path has no locks.
//!
//! Elsewhere: the bytes (`payload`), the socket (`connection`).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use tokio::sync::Semaphore;

use crate::clock::{Clock, Window};
use crate::connection::{Answer, Connection, Template, local_runtime};
use crate::hist::Histogram;
use crate::machine;
use crate::payload::{Payloads, Stamp};

/// How fast.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as the answers come.
    Closed,
    /// So many requests a second, planned evenly.
    Open(f64),
}

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
    pub(crate) key: Option<String>,
    /// Message `n` goes to path `n % paths`.
    pub(crate) paths: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pace: Pace,
    pub(crate) form: Form,
    pub(crate) keep_alive: bool,
    /// Send a fresh `Idempotency-Key` with each request, as the SDKs do.
    pub(crate) idempotency: bool,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What the generator saw.
#[derive(Default)]
pub(crate) struct Ingested {
    pub(crate) window: Window,
    /// Numbers of all acknowledged messages, warm-up included, in no order.
    pub(crate) acked: Vec<u64>,
    /// Messages acknowledged within the window.
    pub(crate) accepted: u64,
    /// The same per second of the window.
    pub(crate) per_second: Vec<u64>,
    /// Messages answered with something else than success, by status.
    pub(crate) refused: std::collections::BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub(crate) failed: u64,
    /// Open loop: planned requests that found no free connection until the end.
    pub(crate) unsent: u64,
    /// Per request, within the window.
    pub(crate) latency: Histogram,
    /// CPU of the generator threads in the whole run.
    pub(crate) cpu: Duration,
    /// The first error seen, to explain `failed`.
    pub(crate) first_error: Option<String>,
}

/// Drives `load` to its end. Blocks; `on_window` is called from another thread when the warm-up is
/// over.
pub(crate) fn drive(
    load: &Load,
    payloads: &Arc<Payloads>,
    clock: Clock,
    on_window: impl FnOnce() + Send,
) -> anyhow::Result<Ingested> {
    let threads = load.threads.clamp(1, load.connections.max(1));
    let plan = Arc::new(Plan {
        next: AtomicU64::new(0),
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
        let begin = Instant::now() + Duration::from_millis(5);
        *plan.begin.write() = Some(begin);
        plan.connected.wait(); // everyone has read the plan's begin after this
        let from = begin + load.warm_up;
        let to = from + load.duration;
        scope.spawn(move || {
            std::thread::sleep(from.saturating_duration_since(Instant::now()));
            on_window();
        });
        let planned = pace(load.pace, &plan, begin, to);
        let mut all = Ingested {
            window: Window {
                from: clock.at(from),
                to: clock.at(to),
            },
            ..Ingested::default()
        };
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

/// Releases permits when their time has come; returns how many were planned. In the closed loop it
/// returns at once: the workers look at the clock themselves.
fn pace(pace: Pace, plan: &Plan, begin: Instant, end: Instant) -> u64 {
    let Pace::Open(rate) = pace else { return 0 };
    let mut released: u64 = 0;
    loop {
        let now = Instant::now();
        let mut due = 0;
        while begin + planned_start(released, rate) <= now.min(end) {
            released += 1;
            due += 1;
        }
        plan.permits.add_permits(due);
        if now >= end {
            plan.permits.close();
            return released;
        }
        let next = begin + planned_start(released, rate);
        std::thread::sleep(next.min(end).saturating_duration_since(Instant::now()));
    }
}

fn planned_start(request: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(request as f64 / rate)
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
    let from = begin + load.warm_up;
    let context = Rc::new(User {
        load: load.clone(),
        templates: templates(load)?,
        plan: Arc::clone(plan),
        payloads,
        clock,
        begin,
        from,
        end: from + load.duration,
        seen: RefCell::new(Ingested {
            window: Window {
                from: clock.at(from),
                to: clock.at(from + load.duration),
            },
            acked: Vec::with_capacity(1 << 20),
            ..Ingested::default()
        }),
    });
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
    let mut seen = context.seen.take();
    seen.cpu = machine::own_thread_cpu();
    Ok(seen)
}

fn templates(load: &Load) -> anyhow::Result<Vec<Template>> {
    load.paths
        .iter()
        .map(|path| {
            let key = load.key.as_deref();
            let template = Template::new(Method::POST, load.address, path, key)?;
            Ok(match load.form {
                Form::Batch(_) => template.with_header(CONTENT_TYPE, "application/x-ndjson"),
                Form::Bare | Form::Message => template,
            })
        })
        .collect()
}

/// What the connections of one thread share.
struct User {
    load: Load,
    templates: Vec<Template>,
    plan: Arc<Plan>,
    payloads: Arc<Payloads>,
    clock: Clock,
    begin: Instant,
    from: Instant,
    end: Instant,
    seen: RefCell<Ingested>,
}

impl User {
    /// One connection from begin to end.
    async fn user(self: Rc<Self>, mut connection: Connection) {
        let mut buffer = BytesMut::new();
        while let Some((first, intended)) = self.next().await {
            let body = self.body(&mut buffer, first, intended);
            let template = usize::try_from(first / self.load.form.messages())
                .ok()
                .and_then(|n| self.templates.get(n % self.templates.len()));
            let Some(template) = template else { return };
            let mut request = template.request(body);
            if self.load.idempotency {
                let value =
                    HeaderValue::from_str(&format!("auto_{:x}_{first}", self.clock.at(self.begin)));
                if let Ok(value) = value {
                    let name = HeaderName::from_static("idempotency-key");
                    request.headers_mut().insert(name, value);
                }
            }
            let answer = connection.send(request).await;
            let pause = self.record(first, intended, Instant::now(), answer);
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Number of the first message and the (planned) start of the next request.
    async fn next(&self) -> Option<(u64, Instant)> {
        let messages = self.load.form.messages();
        match self.load.pace {
            Pace::Closed => {
                let now = Instant::now();
                (now < self.end)
                    .then(|| (self.plan.next.fetch_add(messages, Ordering::Relaxed), now))
            }
            Pace::Open(rate) => {
                self.plan.permits.acquire().await.ok()?.forget();
                let request = self.plan.started.fetch_add(1, Ordering::Relaxed);
                self.plan
                    .next
                    .store((request + 1) * messages, Ordering::Relaxed);
                Some((
                    request * messages,
                    self.begin + planned_start(request, rate),
                ))
            }
        }
    }

    fn body(&self, buffer: &mut BytesMut, first: u64, intended: Instant) -> Bytes {
        let sent = self.clock.at(intended);
        match self.load.form {
            Form::Bare => self.payloads.write(
                buffer,
                Stamp {
                    sent,
                    number: first,
                },
            ),
            Form::Message => self.payloads.write_message(
                buffer,
                Stamp {
                    sent,
                    number: first,
                },
            ),
            Form::Batch(lines) => {
                for number in first..first + lines {
                    self.payloads.write_message(buffer, Stamp { sent, number });
                    buffer.put_u8(b'\n');
                }
            }
        }
        buffer.split().freeze()
    }

    /// Counts; answers how long to wait before the next request (overload, broken connection).
    fn record(
        &self,
        first: u64,
        intended: Instant,
        done: Instant,
        answer: anyhow::Result<Answer>,
    ) -> Option<Duration> {
        let mut seen = self.seen.borrow_mut();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                seen.failed += 1;
                if seen.first_error.is_none() {
                    seen.first_error = Some(format!("{error:#}"));
                }
                return Some(Duration::from_millis(20));
            }
        };
        if !answer.status.is_success() {
            *seen.refused.entry(answer.status.as_u16()).or_default() += self.load.form.messages();
            if seen.first_error.is_none() {
                let text = String::from_utf8_lossy(&answer.body);
                seen.first_error = Some(format!("{}: {text}", answer.status));
            }
            // A real client waits as told; here enough not to spin, so that shedding is measured.
            return answer
                .retry_after
                .map(|_| Duration::from_millis(20))
                .or(Some(Duration::from_millis(2)));
        }
        let before = seen.acked.len();
        match self.load.form {
            Form::Bare | Form::Message => seen.acked.push(first),
            Form::Batch(lines) => seen.batch(first, lines, &answer.body),
        }
        let accepted = u64::try_from(seen.acked.len() - before).unwrap_or(0);
        let at = self.clock.at(done);
        if let Some(second) = seen.window.second(at) {
            seen.accepted += accepted;
            add_at(&mut seen.per_second, second, accepted);
        }
        if intended >= self.from {
            seen.latency
                .record(done.saturating_duration_since(intended));
        }
        None
    }
}

impl Ingested {
    /// Counts the answer lines of a batch. A line without its `202` is a refused message.
    fn batch(&mut self, first: u64, lines: u64, body: &[u8]) {
        let mut answered = first;
        for line in body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let status = b"\"status\":202";
            if line.windows(status.len()).any(|window| window == status) {
                self.acked.push(answered);
            } else {
                *self.refused.entry(422).or_default() += 1;
                if self.first_error.is_none() {
                    self.first_error = Some(String::from_utf8_lossy(line).into_owned());
                }
            }
            answered += 1;
        }
        self.failed += (first + lines).saturating_sub(answered);
    }

    fn merge(&mut self, part: Self) {
        self.acked.extend(part.acked);
        self.accepted += part.accepted;
        for (second, count) in part.per_second.into_iter().enumerate() {
            add_at(&mut self.per_second, second, count);
        }
        for (status, count) in part.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.failed += part.failed;
        self.latency.merge(&part.latency);
        self.cpu += part.cpu;
        self.first_error = self.first_error.take().or(part.first_error);
    }
}

/// `counts[at] += count`, growing as needed.
pub(crate) fn add_at(counts: &mut Vec<u64>, at: usize, count: u64) {
    if counts.len() <= at {
        counts.resize(at + 1, 0);
    }
    if let Some(slot) = counts.get_mut(at) {
        *slot += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_completely() {
        let shares: Vec<_> = (0..4).map(|part| share(10, 4, part)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
    }

    #[test]
    fn planned_starts_are_even() {
        assert_eq!(planned_start(0, 200.0), Duration::ZERO);
        assert_eq!(planned_start(200, 200.0), Duration::from_secs(1));
    }

    #[test]
    fn batch_answers_are_counted_line_by_line() {
        let mut seen = Ingested::default();
        let body = b"{\"index\":0,\"status\":202,\"id\":\"msg_a\"}\n{\"index\":1,\"status\":422,\"detail\":[]}\n{\"index\":2,\"status\":202,\"id\":\"msg_b\"}\n";
        seen.batch(40, 4, body);
        assert_eq!(seen.acked, [40, 42]);
        assert_eq!(seen.refused.get(&422), Some(&1));
        assert_eq!(seen.failed, 1, "the fourth line has no answer");
    }
}
