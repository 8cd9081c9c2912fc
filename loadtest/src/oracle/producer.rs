//! The producer of a trial: records each call before it is sent and its end after it came.
//!
//! Closed loop: each connection sends one request after another, with a pause. A call whose outcome
//! is unknown (reset, time-out, 5xx) is repeated under the same `Idempotency-Key` until it is
//! settled or the load is stopped; one request in [`GIVES_UP`] is never repeated, so that the record
//! also holds requests whose fate stays unknown. One thread.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::history::{Call, Outcome, PRODUCER};
use super::journal::Journal;
use super::receiver::hash;
use crate::clock::Clock;
use crate::connection::{Answer, Connection, Template, local_runtime};

/// Of so many requests one is not repeated when its outcome is unknown.
const GIVES_UP: u64 = 10;
/// A call without an answer for so long is given up. Longer than a SIGSTOP of the chaos scenario.
const PATIENCE: Duration = Duration::from_secs(8);

/// Messages for one application.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// Uid of the application.
    pub(crate) app: String,
    /// Connections that send them. With one, accept order is send order.
    pub(crate) connections: usize,
    /// Between two requests of a connection.
    pub(crate) pause: Duration,
    /// Bytes of filling in a payload.
    pub(crate) size: usize,
}

/// Where calls go and where they are recorded.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) clock: Clock,
    journal: Arc<Journal>,
    numbers: Arc<Numbers>,
}

/// Shared by all callers of a history.
#[derive(Default)]
struct Numbers {
    next_call: AtomicU64,
    next_request: AtomicU64,
    /// Calls without an answer now.
    unanswered: AtomicU64,
    acknowledged: AtomicU64,
}

/// One request: what is repeated when its outcome is unknown.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) request: u64,
    pub(crate) app: String,
    pub(crate) payload: Bytes,
    pub(crate) key: Option<String>,
    pub(crate) probe: bool,
}

impl Caller {
    /// Calls to `address`, recorded in the history in `dir`.
    pub(crate) fn new(
        address: SocketAddr,
        key: &str,
        clock: Clock,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            key: key.to_owned(),
            clock,
            journal: Arc::new(Journal::open(dir, PRODUCER)?),
            numbers: Arc::default(),
        })
    }

    /// Calls without an answer now.
    pub(crate) fn unanswered(&self) -> u64 {
        self.numbers.unanswered.load(Ordering::Relaxed)
    }

    /// Acknowledgements so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.numbers.acknowledged.load(Ordering::Relaxed)
    }

    /// The number of a new request.
    pub(super) fn number(&self) -> u64 {
        self.numbers.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// A new request with a payload of its own and an `Idempotency-Key` of its own.
    pub(crate) fn ask(&self, app: &str, size: usize, probe: bool) -> Asked {
        let request = self.number();
        // The time makes bodies and keys unique over histories on the same data directory.
        let now = self.clock.now();
        let payload = json!({"request": request, "at": now, "pad": "x".repeat(size)});
        Asked {
            request,
            app: app.to_owned(),
            payload: Bytes::from(payload.to_string()),
            key: Some(format!("torture-{now}-{request}")),
            probe,
        }
    }

    /// Makes one recorded call. Needs a [`local_runtime`] around it.
    pub(crate) async fn call(
        &self,
        connection: &mut Option<Connection>,
        asked: &Asked,
    ) -> anyhow::Result<Outcome> {
        let all = std::slice::from_ref(asked);
        let sent = self.send(connection, asked);
        let outcome = self.recorded(all, sent, outcome).await?;
        if !matches!(outcome, Outcome::Acknowledged { .. }) {
            *connection = None;
        }
        Ok(outcome)
    }

    /// One exchange that carries all of `asked`, each a call of its own in the record; `judge` says
    /// what its answer means for every one of them.
    pub(super) async fn recorded(
        &self,
        asked: &[Asked],
        exchange: impl Future<Output = anyhow::Result<Answer>>,
        judge: fn(&Answer) -> Outcome,
    ) -> anyhow::Result<Outcome> {
        let count = asked.len() as u64;
        let first = self.numbers.next_call.fetch_add(count, Ordering::Relaxed);
        for (call, asked) in (first..).zip(asked) {
            self.journal.append(&Call::Begin {
                at: self.clock.now(),
                call,
                request: asked.request,
                app: asked.app.clone(),
                hash: hash(&asked.payload),
                key: asked.key.clone(),
                probe: asked.probe,
            })?;
        }
        self.numbers.unanswered.fetch_add(1, Ordering::Relaxed);
        let sent = tokio::time::timeout(PATIENCE, exchange).await;
        self.numbers.unanswered.fetch_sub(1, Ordering::Relaxed);
        let outcome = match sent {
            Ok(Ok(answer)) => judge(&answer),
            Ok(Err(error)) => Outcome::Unknown {
                why: format!("{error:#}"),
            },
            Err(_) => Outcome::Unknown {
                why: format!("no answer within {PATIENCE:?}"),
            },
        };
        let at = self.clock.now();
        if matches!(outcome, Outcome::Acknowledged { .. } | Outcome::Taken) {
            let acknowledged = &self.numbers.acknowledged;
            acknowledged.fetch_add(count, Ordering::Relaxed);
        }
        for (call, _) in (first..).zip(asked) {
            self.journal.append(&Call::End {
                at,
                call,
                outcome: outcome.clone(),
            })?;
        }
        Ok(outcome)
    }

    async fn send(
        &self,
        connection: &mut Option<Connection>,
        asked: &Asked,
    ) -> anyhow::Result<Answer> {
        let path = format!("/api/v1/app/{}/msg", asked.app);
        let template = Template::new(Method::POST, self.address, &path, Some(&self.key))?;
        let body = [
            br#"{"eventType":"torture.test","payload":"#.as_slice(),
            &asked.payload,
            b"}",
        ]
        .concat();
        let mut request = template.request(Bytes::from(body));
        if let Some(key) = &asked.key {
            let name = HeaderName::from_static("idempotency-key");
            let value = HeaderValue::from_str(key)?;
            request.headers_mut().insert(name, value);
        }
        if connection.is_none() {
            *connection = Some(Connection::open(self.address, true).await?);
        }
        let open = connection.as_mut().context("not connected")?;
        open.send(request).await
    }
}

fn outcome(answer: &Answer) -> Outcome {
    let status = answer.status.as_u16();
    if status == 202 {
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let targets = value["endpoints"].as_array().map(|all| {
            let texts = all.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        });
        if let (Some(id), Some(targets)) = (value["id"].as_str(), targets) {
            return Outcome::Acknowledged {
                id: id.to_owned(),
                targets,
            };
        }
    }
    if answer.status.is_client_error() {
        return Outcome::Refused { status };
    }
    let text = String::from_utf8_lossy(&answer.body);
    Outcome::Unknown {
        why: format!("{status}: {text}"),
    }
}

/// Load that runs until it is stopped.
pub(crate) struct Producer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Producer {
    /// Starts `streams` on a thread of their own.
    pub(crate) fn start(caller: &Caller, streams: &[Stream]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (caller, streams) = (caller.clone(), streams.to_vec());
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("oracle-producer".to_owned())
            .spawn(move || produce(&caller, &streams, &told))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Lets calls under way end and stops. An error means that the record is incomplete.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread
            .join()
            .map_err(|_| anyhow!("the producer's thread panicked"))?
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn produce(caller: &Caller, streams: &[Stream], stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let failed: Rc<RefCell<Option<anyhow::Error>>> = Rc::default();
    local_runtime()?.block_on(async {
        let mut users = Vec::new();
        for stream in streams {
            for _ in 0..stream.connections {
                let (caller, stream) = (caller.clone(), stream.clone());
                let (stop, failed) = (Arc::clone(stop), Rc::clone(&failed));
                users.push(tokio::task::spawn_local(async move {
                    if let Err(error) = user(&caller, &stream, &stop).await {
                        *failed.borrow_mut() = Some(error);
                    }
                }));
            }
        }
        for user in users {
            user.await?;
        }
        anyhow::Ok(())
    })?;
    failed.take().map_or(Ok(()), Err)
}

async fn user(caller: &Caller, stream: &Stream, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let asked = caller.ask(&stream.app, stream.size, false);
        loop {
            let outcome = caller.call(&mut connection, &asked).await?;
            // 409: the first call under this key is still being carried out.
            let unsettled = matches!(outcome, Outcome::Unknown { .. })
                || outcome == Outcome::Refused { status: 409 };
            let gives_up = asked.request.is_multiple_of(GIVES_UP);
            if !unsettled || gives_up || stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(stream.pause).await;
    }
    Ok(())
}
