//! Receivers that misbehave to order, and a client that may call them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use posthaste::base::{Clock, SystemClock, Timestamp, task};
use posthaste::client::{Client, ClientOptions, Request, Resolve, ResolveError, Resolving};
use posthaste::model::AppNo;
use posthaste::policy::target::{Target, TargetRules};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a receiver does after it has read a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Writes this and waits for the next request.
    Keep(Vec<u8>),
    /// Writes this and closes.
    Close(Vec<u8>),
    /// Writes the first part, then the second again and again, as fast as it is taken.
    Endless(Vec<u8>, Vec<u8>),
    /// Writes the first part at once, then the second byte by byte, one in 100 ms.
    Drip(Vec<u8>, Vec<u8>),
    /// Answers nothing and keeps the connection open.
    Hang,
    /// Closes with RST.
    Reset,
}

impl Reply {
    pub(crate) fn keep(text: &str) -> Self {
        Self::Keep(text.into())
    }

    pub(crate) fn close(text: &str) -> Self {
        Self::Close(text.into())
    }

    pub(crate) fn ok() -> Self {
        Self::keep("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }
}

/// A receiver on a raw socket.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Receiver {
    /// Answers the n-th request (from 0, over all connections) with `script(n)`.
    pub(crate) async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::bind("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// The same on a given address.
    pub(crate) async fn bind(
        addr: SocketAddr,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind(addr).await.unwrap(), script)
    }

    /// The same on a given listener.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let receiver = Self {
            addr: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (mine, script) = (receiver.clone(), Arc::new(script));
        task::detach(async move {
            while let Ok((stream, _)) = listener.accept().await {
                mine.connections.fetch_add(1, Ordering::SeqCst);
                let (mine, script) = (mine.clone(), Arc::clone(&script));
                task::detach(async move { mine.serve(stream, &*script).await });
            }
        });
        receiver
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests received so far, byte for byte.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.lock().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    async fn serve(&self, mut stream: TcpStream, script: &(dyn Fn(usize) -> Reply + Sync)) {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            let n = {
                let mut requests = self.requests.lock();
                requests.push(request);
                requests.len() - 1
            };
            match script(n) {
                Reply::Keep(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Reply::Close(bytes) => {
                    if stream.write_all(&bytes).await.is_ok() {
                        drop(stream.shutdown().await);
                    }
                    return;
                }
                Reply::Endless(head, again) => {
                    let mut open = stream.write_all(&head).await.is_ok();
                    let again = again.repeat(1 + 4096 / again.len());
                    while open {
                        open = stream.write_all(&again).await.is_ok();
                    }
                    return;
                }
                Reply::Drip(head, slowly) => {
                    let mut ticks = tokio::time::interval(Duration::from_millis(100));
                    let mut open = stream.write_all(&head).await.is_ok();
                    for byte in slowly {
                        ticks.tick().await;
                        open = open && stream.write_all(&[byte]).await.is_ok();
                    }
                    return;
                }
                Reply::Hang => std::future::pending::<()>().await,
                Reply::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

/// One request with a `content-length` body; what follows it stays in `buffer`.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |text| text.trim().parse::<usize>().unwrap());
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                let rest = buffer.split_off(whole);
                return Some(std::mem::replace(buffer, rest));
            }
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// A clock that is moved by hand beside running by itself.
pub(crate) struct Moved {
    clock: SystemClock,
    ahead_ms: AtomicU64,
}

impl Moved {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self {
            clock: SystemClock::start(),
            ahead_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap();
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        self.clock.now().plus(self.ahead())
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + self.ahead()
    }
}

type Answer = Result<Vec<IpAddr>, ResolveError>;

/// Name servers by script: each name has a list of answers, the last of which stays.
#[derive(Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, VecDeque<Answer>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    /// `name` answers these, one after the other.
    pub(crate) fn set(&self, name: &str, answers: impl IntoIterator<Item = Answer>) {
        let answers = answers.into_iter().collect();
        self.answers.lock().insert(name.to_owned(), answers);
    }

    /// `name` has these addresses.
    pub(crate) fn point(&self, name: &str, addresses: &[&str]) {
        self.set(name, [Ok(ips(addresses))]);
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

pub(crate) fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|ip| ip.parse().unwrap()).collect()
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        self.asked.lock().push(name.to_owned());
        let mut answers = self.answers.lock();
        let answer = match answers.get_mut(name) {
            Some(list) if list.len() > 1 => list.pop_front(),
            Some(list) => list.front().cloned(),
            None => None,
        };
        Box::pin(std::future::ready(
            answer.unwrap_or(Err(ResolveError::NotFound)),
        ))
    }
}

/// Everything a test of the client needs.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) names: Arc<Names>,
    pub(crate) clock: Arc<Moved>,
}

impl Bench {
    /// A client that may call `networks` beside public addresses, over plain http as well.
    pub(crate) fn allowing(networks: &[&str]) -> Self {
        Self::with(networks, |_| {})
    }

    /// The same with other options.
    pub(crate) fn with(networks: &[&str], change: impl FnOnce(&mut ClientOptions)) -> Self {
        let names = Arc::new(Names::default());
        let clock = Moved::start();
        let mut options = ClientOptions::new(Arc::clone(&names) as _);
        options.rules = rules(networks);
        change(&mut options);
        let client = Client::new(options, Arc::clone(&clock) as _).unwrap();
        Self {
            client,
            names,
            clock,
        }
    }
}

/// Rules that let these networks through, and plain http everywhere.
pub(crate) fn rules(networks: &[&str]) -> TargetRules {
    TargetRules {
        allow_networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
        allow_http: true,
        ..TargetRules::default()
    }
}

/// A request to `url`, whose spelling is not held against it: the client itself must judge.
pub(crate) fn request(url: &str) -> Request {
    let anything = rules(&["0.0.0.0/0", "::/0"]);
    Request {
        method: http::Method::POST,
        tenant: AppNo(1),
        target: Arc::new(Target::parse(url, &anything).unwrap()),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(5),
        fresh: false,
    }
}
