//! A scripted receiver on a real socket: records every request and answers as a closure says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::eventually;

/// One request, as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    /// `webhook-id`.
    pub(crate) id: String,
    /// How often this id has come to this path, 1 = first.
    pub(crate) nth: usize,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) start: Instant,
    /// When the answer was ready; none while it is under way.
    pub(crate) end: Option<Instant>,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Requests to this path under way, this one included, when it came.
    pub(crate) concurrent: usize,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// A field of the JSON body.
    pub(crate) fn field(&self, name: &str) -> Value {
        serde_json::from_slice::<Value>(&self.body).unwrap()[name].clone()
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
            delay: Duration::ZERO,
        }
    }

    pub(crate) fn ok() -> Self {
        Self::status(204)
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

/// A running receiver; it ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    script: Box<Script>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    under_way: HashMap<String, usize>,
    seen: HashMap<(String, String), usize>,
    record: Option<std::fs::File>,
}

impl Receiver {
    /// Answers every request with 204.
    pub(crate) async fn start() -> Self {
        Self::scripted(|_| Answer::ok()).await
    }

    /// Answers as `script` says; it sees the request with its number of tries.
    pub(crate) async fn scripted(
        script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::at_address([127, 0, 0, 1], script).await
    }

    /// Answers every request with 204, on every address of this machine.
    pub(crate) async fn anywhere() -> Self {
        Self::at_address([0, 0, 0, 0], |_| Answer::ok()).await
    }

    async fn at_address(
        address: [u8; 4],
        script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((address, 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            state: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// From now on every successful delivery is appended to `path` as `<id> <hash of the body>`,
    /// written before it is answered.
    pub(crate) fn record_to(&self, path: &Path) {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        self.shared.state.lock().record = Some(file);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything so far, in order of arrival.
    pub(crate) fn all(&self) -> Vec<Received> {
        self.shared.state.lock().received.clone()
    }

    /// What came to one path.
    pub(crate) fn at(&self, path: &str) -> Vec<Received> {
        let mut all = self.all();
        all.retain(|received| received.path == path);
        all
    }

    /// Number of requests so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.state.lock().received.len()
    }

    /// Waits until `path` has had `count` finished requests.
    pub(crate) async fn finished(
        &self,
        path: &str,
        count: usize,
        within: Duration,
    ) -> Vec<Received> {
        self.matching(path, count, within, |_| true).await
    }

    /// Waits until `path` has had `count` successful deliveries.
    pub(crate) async fn delivered(
        &self,
        path: &str,
        count: usize,
        within: Duration,
    ) -> Vec<Received> {
        self.matching(path, count, within, Received::is_success)
            .await
    }

    async fn matching(
        &self,
        path: &str,
        count: usize,
        within: Duration,
        wanted: impl Fn(&Received) -> bool,
    ) -> Vec<Received> {
        let what = format!("{count} requests at {path}");
        eventually(&what, within, async || {
            let mut found = self.at(path);
            found.retain(|received| received.end.is_some() && wanted(received));
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
        if std::thread::panicking() {
            let all = self.all();
            eprintln!("--- receiver: {} requests, the last ones:", all.len());
            for one in all.iter().skip(all.len().saturating_sub(40)) {
                let at = one.start.duration_since(all[0].start);
                let Received {
                    path,
                    id,
                    nth,
                    status,
                    concurrent,
                    ..
                } = one;
                let body = String::from_utf8_lossy(&one.body[..one.body.len().min(40)]);
                eprintln!("{at:>10.1?} {path} {id} try {nth} of {concurrent} -> {status} {body}");
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(handle(&shared, request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if served.is_err() {} // a killed gateway leaves broken connections
        });
    }
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Response::new(Full::default()); // the peer is gone, so is this answer
    };
    let path = head.uri.path().to_owned();
    let (at, answer) = {
        let mut state = shared.state.lock();
        let received = state.arrive(path.clone(), head.headers, body.to_bytes(), start);
        let answer = (shared.script)(&received);
        state.received.push(received);
        (state.received.len() - 1, answer)
    };
    // Leaving is counted even if the peer hangs up and this future is dropped.
    let leaving = Leaving {
        shared,
        at,
        status: 0,
    };
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status.try_into().unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    leaving.with(answer.status);
    response
}

impl State {
    fn arrive(
        &mut self,
        path: String,
        headers: HeaderMap,
        body: Bytes,
        start: Instant,
    ) -> Received {
        let id = headers
            .get("webhook-id")
            .map_or("", |value| value.to_str().unwrap())
            .to_owned();
        let nth = self.seen.entry((path.clone(), id.clone())).or_default();
        *nth += 1;
        let nth = *nth;
        let concurrent = self.under_way.entry(path.clone()).or_default();
        *concurrent += 1;
        Received {
            id,
            nth,
            headers,
            body,
            start,
            end: None,
            status: 0,
            concurrent: *concurrent,
            path,
        }
    }
}

struct Leaving<'a> {
    shared: &'a Shared,
    at: usize,
    status: u16,
}

impl Leaving<'_> {
    fn with(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let received = &mut state.received[self.at];
        received.end = Some(Instant::now());
        received.status = self.status;
        let line = format!("{} {}\n", received.id, super::hash(&received.body));
        let (path, success) = (received.path.clone(), received.is_success());
        *state.under_way.get_mut(&path).unwrap() -= 1;
        if success && let Some(record) = &mut state.record {
            record.write_all(line.as_bytes()).unwrap();
        }
    }
}
