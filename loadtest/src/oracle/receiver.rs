//! The receiver of a trial: plays an endpoint per path and records every delivery.
//!
//! Path: `/<name of the endpoint>`. Each request ends in exactly one line of `receiver.jsonl`,
//! written before its answer is handed over: a 2xx that the gateway saw is always on record. Requests
//! that end without an answer (hang, reset, connection lost) are written when they end. The
//! signature of every delivery is checked with the endpoint's secret. One thread.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::history::{Delivery, RECEIVER};
use super::journal::Journal;
use crate::clock::Clock;
use crate::connection::{joined, local_runtime};
use crate::receiver::{ResetNow, Resettable, bind};
use crate::signature::Verifier;

/// What an endpoint does with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// 204 at once.
    Well,
    /// 204 after a delay.
    Slow(Duration),
    /// This status.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    TooMany(u64),
    /// This share of the messages, in percent, gets 500 at the first try and 204 later.
    Flaky(u8),
    /// Never answers.
    Hang,
    /// Resets the connection.
    Reset,
}

/// A running receiver. Its thread ends with the process or by [`Receiver::stop`].
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    clock: Clock,
    stop: AtomicBool,
    /// Requests under way.
    open: AtomicU64,
    /// Connections.
    connections: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    journal: Option<Arc<Journal>>,
    endpoints: HashMap<String, Endpoint>,
    /// Why a line could not be written: the record is worthless then.
    broken: Option<String>,
}

struct Endpoint {
    verifier: Verifier,
    behaviour: Behaviour,
    open: u32,
    /// Ids that came here, and those that got their 2xx: only for waiting; the checker reads files.
    tried: HashSet<String>,
    done: HashSet<String>,
}

impl Receiver {
    /// Binds and serves on a thread of its own. Nothing is recorded before
    /// [`Receiver::record_in`].
    pub(crate) fn start(listen: SocketAddr, clock: Clock) -> anyhow::Result<Self> {
        let listener = bind(listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            clock,
            stop: AtomicBool::new(false),
            open: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                journal: None,
                endpoints: HashMap::new(),
                broken: None,
            }),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("oracle-receiver".to_owned())
            .spawn(move || serve(listener, &serving))?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// From now on deliveries are recorded in the history in `dir`. What was seen before is
    /// forgotten for [`Receiver::has`].
    pub(crate) fn record_in(&self, dir: &std::path::Path) -> anyhow::Result<()> {
        let journal = Arc::new(Journal::open(dir, RECEIVER)?);
        let mut inner = self.shared.inner.lock();
        inner.journal = Some(journal);
        for endpoint in inner.endpoints.values_mut() {
            endpoint.tried.clear();
            endpoint.done.clear();
        }
        Ok(())
    }

    /// Adds an endpoint; its URL is `http://ADDRESS/NAME`.
    pub(crate) fn endpoint(
        &self,
        name: &str,
        secret: &str,
        behaviour: Behaviour,
    ) -> anyhow::Result<()> {
        let endpoint = Endpoint {
            verifier: Verifier::new(secret)?,
            behaviour,
            open: 0,
            tried: HashSet::new(),
            done: HashSet::new(),
        };
        let mut inner = self.shared.inner.lock();
        inner.endpoints.insert(name.to_owned(), endpoint);
        Ok(())
    }

    /// Makes an endpoint behave otherwise from the next request on.
    pub(crate) fn set(&self, name: &str, behaviour: Behaviour) {
        if let Some(endpoint) = self.shared.inner.lock().endpoints.get_mut(name) {
            endpoint.behaviour = behaviour;
        }
    }

    /// Whether `endpoint` has answered 2xx to this id.
    pub(crate) fn has(&self, endpoint: &str, id: &str) -> bool {
        let inner = self.shared.inner.lock();
        inner
            .endpoints
            .get(endpoint)
            .is_some_and(|endpoint| endpoint.done.contains(id))
    }

    /// Requests under way now.
    pub(crate) fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Connections now. None are left a little after the death of the gateway, when everything that it
    /// had sent is on record.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Why the record is incomplete, if it is.
    pub(crate) fn broken(&self) -> Option<String> {
        self.shared.inner.lock().broken.clone()
    }

    /// Ends the thread; requests under way are recorded as cut.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.shared.inner.lock().broken = Some("the receiver's thread panicked".to_owned());
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(listener: std::net::TcpListener, shared: &Arc<Shared>) {
    let Ok(runtime) = local_runtime() else { return };
    runtime.block_on(async {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        tokio::task::spawn_local(accept(listener, Arc::clone(shared)));
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !shared.stop.load(Ordering::Relaxed) {
            tick.tick().await;
        }
    });
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: connections that end make room.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let socket = Resettable {
                stream,
                reset: Arc::clone(&reset),
            };
            socket.stream.set_nodelay(true).unwrap_or_default();
            let service = service_fn(|request| answer(&shared, &reset, request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            // Connections end as the gateway likes; what matters is on record.
            if served.is_err() {}
        });
    }
}

type Answer = Result<Response<Empty<Bytes>>, ResetNow>;

async fn answer(shared: &Arc<Shared>, reset: &AtomicBool, request: Request<Incoming>) -> Answer {
    let (head, mut incoming) = request.into_parts();
    let mut body = Bytes::new();
    while let Some(frame) = incoming.frame().await {
        // A request that breaks off is no delivery.
        let data = frame.map_err(|_| ResetNow)?.into_data();
        body = joined(body, data.unwrap_or_default());
    }
    let name = head.uri.path().trim_start_matches('/').to_owned();
    let Some((mut open, behaviour)) = Open::begin(shared, &name, &head.headers, &body) else {
        return reply(StatusCode::NOT_FOUND);
    };
    let status = match behaviour {
        Behaviour::Well => StatusCode::NO_CONTENT,
        Behaviour::Slow(delay) => {
            tokio::time::sleep(delay).await;
            StatusCode::NO_CONTENT
        }
        Behaviour::Status(code) => StatusCode::from_u16(code).map_err(|_| ResetNow)?,
        Behaviour::TooMany(seconds) => {
            open.delivery.retry_after = Some(seconds);
            StatusCode::TOO_MANY_REQUESTS
        }
        Behaviour::Flaky(percent) => {
            if open.is_first && is_unlucky(&open.delivery.hash, percent) {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::NO_CONTENT
            }
        }
        Behaviour::Hang => {
            std::future::pending::<()>().await;
            return Err(ResetNow);
        }
        Behaviour::Reset => {
            reset.store(true, Ordering::Relaxed);
            return Err(ResetNow);
        }
    };
    let retry_after = open.delivery.retry_after;
    open.delivery.status = Some(status.as_u16());
    drop(open); // on record before it is on the wire
    let mut response = reply(status)?;
    if let Some(seconds) = retry_after {
        let value = HeaderValue::from(seconds);
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    Ok(response)
}

fn reply(code: StatusCode) -> Answer {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = code;
    Ok(response)
}

/// The same messages in every run with the same bodies.
fn is_unlucky(hash: &str, percent: u8) -> bool {
    let byte = hash
        .get(..2)
        .and_then(|two| u8::from_str_radix(two, 16).ok());
    byte.is_some_and(|byte| u16::from(byte) * 100 < u16::from(percent) * 256)
}

/// SHA-256 in hex.
pub(crate) fn hash(body: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(body) {
        // Writing to a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {}
    }
    text
}

/// A request under way; its line is written when this is dropped, for whatever reason.
struct Open {
    shared: Arc<Shared>,
    delivery: Delivery,
    /// No request with this id came to this endpoint before.
    is_first: bool,
}

impl Open {
    fn begin(
        shared: &Arc<Shared>,
        name: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<(Self, Behaviour)> {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let start = shared.clock.now();
        let hash = hash(body);
        let id = text("webhook-id");
        let mut inner = shared.inner.lock();
        let endpoint = inner.endpoints.get_mut(name)?;
        let bad_signature = endpoint.verifier.check(headers, body).err();
        endpoint.open += 1;
        let is_first = endpoint.tried.insert(id.clone());
        let delivery = Delivery {
            start,
            end: start,
            endpoint: name.to_owned(),
            id,
            timestamp: text("webhook-timestamp").parse().unwrap_or_default(),
            hash,
            content_type: text(CONTENT_TYPE.as_str()),
            bad_signature: bad_signature.map(str::to_owned),
            status: None,
            retry_after: None,
            concurrent: endpoint.open,
        };
        let behaviour = endpoint.behaviour;
        drop(inner);
        shared.open.fetch_add(1, Ordering::Relaxed);
        let open = Self {
            shared: Arc::clone(shared),
            delivery,
            is_first,
        };
        Some((open, behaviour))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.delivery.end = self.shared.clock.now();
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        let mut inner = self.shared.inner.lock();
        let success = self.delivery.is_success();
        if let Some(endpoint) = inner.endpoints.get_mut(&self.delivery.endpoint) {
            endpoint.open = endpoint.open.saturating_sub(1);
            if success {
                endpoint.done.insert(self.delivery.id.clone());
            }
        }
        let Some(journal) = inner.journal.clone() else {
            return;
        };
        if let Err(error) = journal.append(&self.delivery) {
            inner.broken = Some(format!("{error:#}"));
        }
    }
}
