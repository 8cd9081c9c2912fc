//! Accepting connections, serving them, and ending them in good order.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceExt};

use super::activity::{Activity, Entry, Order, Patience, Registry, TICK, ticks};
use super::body::{AnswerBody, InService, RequestBody};
use super::framing::{Framing, Refusals, Seen};
use super::guard::{self, Verdict};
use super::listen::Bound;
use super::tls::Tls;
use crate::base::task::{self, Stop};
use crate::config::Server as Section;
use crate::metrics::ServerMetrics;

/// Head of a request, with its request line (HTTP/1) or as header list (HTTP/2).
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Requests at the same time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// First and longest pause after the system ran out of descriptors or memory.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Connections that are named when they are cut off; of the rest the number is.
const NAMED: usize = 20;

/// Address of the other side; every request carries it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Open connections at most; further ones wait in the backlog.
    pub max_connections: usize,
    /// Time for a head to arrive, and for a TLS handshake.
    pub header_timeout: Duration,
    /// Time for a body to arrive; over HTTP/2 a late one ends its own request only.
    pub body_timeout: Duration,
    /// Time between two requests, and for an answer to be read on.
    pub idle_timeout: Duration,
}

impl From<&Section> for Settings {
    fn from(section: &Section) -> Self {
        Self {
            max_connections: section.max_connections,
            header_timeout: section.header_timeout,
            body_timeout: section.body_timeout,
            idle_timeout: section.idle_timeout,
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had something under way at the end of the limit and were cut off.
    pub late: usize,
}

/// One listener and what it serves by.
pub struct Server {
    bound: Bound,
    tls: Option<Tls>,
    settings: Settings,
    metrics: ServerMetrics,
}

impl Server {
    /// A server on a bound socket; nothing happens before [`Server::run`].
    pub const fn new(
        bound: Bound,
        tls: Option<Tls>,
        settings: Settings,
        metrics: ServerMetrics,
    ) -> Self {
        Self {
            bound,
            tls,
            settings,
            metrics,
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// Serves until told to stop, then at most `drain` longer: accepts nothing new, answers what is
    /// under way, closes what is idle. `service` is cloned per connection and per request. Not
    /// cancel safe: dropping it leaves connections without deadlines.
    ///
    /// # Errors
    /// The socket cannot be used with the runtime. Errors of single connections end those only.
    pub async fn run<S, B>(self, service: S, stop: Stop, drain: Duration) -> io::Result<Drained>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let listener = TcpListener::from_std(self.bound.socket)?;
        let registry = Registry::new(Patience {
            head: ticks(self.settings.header_timeout),
            body: ticks(self.settings.body_timeout),
            idle: ticks(self.settings.idle_timeout),
        });
        let acceptor = Acceptor {
            tls: self.tls,
            settings: self.settings,
            metrics: self.metrics,
            registry: Arc::clone(&registry),
            builder: builder(),
            service,
        };
        let sweep = async {
            let mut clock = tokio::time::interval(TICK);
            loop {
                // Time that passes without a connection is not counted, nor waked for.
                while registry.len() == 0 {
                    registry.opened.notified().await;
                    clock.reset();
                }
                clock.tick().await;
                registry.sweep();
            }
        };
        let serve = async {
            acceptor.until(&listener, stop).await;
            if !self.bound.is_inherited {
                acceptor.empty_backlog(&listener);
            }
            drop(listener);
            acceptor.drain(drain).await
        };
        tokio::select! {
            drained = serve => Ok(drained),
            () = sweep => Ok(Drained { late: 0 }), // never ends
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The sweep knows heads from idle connections; hyper's timer does not.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    builder
}

struct Acceptor<S> {
    tls: Option<Tls>,
    settings: Settings,
    metrics: ServerMetrics,
    registry: Arc<Registry>,
    builder: Builder<TokioExecutor>,
    service: S,
}

impl<S, B> Acceptor<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn until(&self, listener: &TcpListener, mut stop: Stop) {
        tokio::select! {
            () = stop.stopped() => {}
            () = self.accept(listener) => {} // never ends
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        let mut pause = PAUSE.0;
        loop {
            while self.registry.len() >= self.settings.max_connections {
                self.registry.closed.notified().await;
            }
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pause = PAUSE.0;
                    self.start(stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: the socket stays readable, so without a pause
                    // this would spin. Whoever waits in the backlog is served later.
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// Takes in what the system had accepted for us: closing the socket would reset it.
    fn empty_backlog(&self, listener: &TcpListener) {
        let waker = std::task::Waker::noop();
        let mut context = Context::from_waker(waker);
        while self.registry.len() < self.settings.max_connections {
            match listener.poll_accept(&mut context) {
                Poll::Ready(Ok((stream, peer))) => self.start(stream, peer),
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    async fn drain(&self, limit: Duration) -> Drained {
        self.registry.drain();
        let empty = async {
            while self.registry.len() > 0 {
                self.registry.closed.notified().await;
            }
        };
        if tokio::time::timeout(limit, empty).await.is_ok() {
            return Drained { late: 0 };
        }
        let late = self.registry.len();
        for (peer, busy, since) in self.registry.busiest(NAMED) {
            let (at, since_s) = (busy.name(), since.as_secs_f64());
            tracing::warn!(%peer, at, since_s, "a connection is cut off");
        }
        self.registry.close_all();
        Drained { late }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr) {
        let connection = Connection {
            entry: self.registry.open(peer),
            peer,
            builder: self.builder.clone(),
            service: self.service.clone(),
            metrics: self.metrics.clone(),
        };
        // Small answers must not wait for the other side's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        match &self.tls {
            None => task::detach(connection.run(stream)),
            Some(tls) => {
                let (acceptor, limit) = (tls.acceptor(), self.settings.header_timeout);
                task::detach(async move {
                    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => connection.run(stream).await,
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake took too long"),
                    }
                });
            }
        }
    }
}

/// Errors of `accept` that concern a connection that is gone already.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

struct Connection<S> {
    entry: Entry,
    peer: SocketAddr,
    builder: Builder<TokioExecutor>,
    service: S,
    metrics: ServerMetrics,
}

/// What each request of a connection needs; one per connection, so that requests of different
/// connections touch no common counter of references.
struct Shared<S> {
    activity: Arc<Activity>,
    refusals: Arc<Refusals>,
    metrics: ServerMetrics,
    service: S,
    peer: SocketAddr,
}

impl<S, B> Connection<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let activity = Arc::clone(&self.entry.activity);
        let _open = Counted::new(&self.metrics);
        let refusals = Arc::new(Refusals::default());
        let io = TokioIo::new(Watched {
            stream,
            activity: Arc::clone(&activity),
            framing: Framing::default(),
            refusals: Arc::clone(&refusals),
            metrics: self.metrics.clone(),
        });
        let shared = Arc::new(Shared {
            activity: Arc::clone(&activity),
            refusals,
            metrics: self.metrics.clone(),
            service: self.service,
            peer: self.peer,
        });
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut told = false;
        let ended = poll_fn(|cx| {
            activity.register(cx.waker());
            let order = activity.order();
            if order == Order::Close {
                return Poll::Ready(None);
            }
            let polled = connection.as_mut().poll(cx);
            // Before the first byte hyper would drop the connection, and a request on its way with
            // it; the sweep closes it if none comes.
            if polled.is_pending() && order == Order::Drain && !told && activity.has_spoken() {
                told = true;
                connection.as_mut().graceful_shutdown();
                return connection.as_mut().poll(cx).map(Some);
            }
            polled.map(Some)
        })
        .await;
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

async fn answer<S, B>(
    shared: Arc<Shared<S>>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody<B>>, S::Error>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
{
    let activity = &shared.activity;
    let is_shared = request.version() > http::Version::HTTP_11;
    let in_service = InService::begin(activity, is_shared);
    let is_bad = !is_shared && shared.refusals.is_next_bad();
    let verdict = if is_bad {
        Verdict::Refuse(StatusCode::BAD_REQUEST)
    } else {
        guard::check(&request)
    };
    let mut response = match verdict {
        Verdict::Refuse(status) => {
            let refused = match status {
                StatusCode::BAD_REQUEST => &shared.metrics.bad_framing,
                _ => &shared.metrics.too_many_headers,
            };
            refused.increment(1);
            let mut refusal = Response::new(None);
            *refusal.status_mut() = status;
            refusal
        }
        Verdict::Serve | Verdict::ServeAndClose => {
            let mut request = request.map(|body| RequestBody::new(body, activity, is_shared));
            request.extensions_mut().insert(Peer(shared.peer));
            shared.service.clone().oneshot(request).await?.map(Some)
        }
    };
    if verdict != Verdict::Serve && !is_shared {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response.map(|inner| AnswerBody {
        inner,
        _in_service: in_service,
    }))
}

/// One more open connection, for as long as it lives.
struct Counted(ServerMetrics);

impl Counted {
    fn new(metrics: &ServerMetrics) -> Self {
        metrics.connections.increment(1);
        Self(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.decrement(1);
    }
}

/// A stream that notes when bytes move, and looks at those that come in before hyper does.
struct Watched<I> {
    stream: I,
    activity: Arc<Activity>,
    framing: Framing,
    refusals: Arc<Refusals>,
    metrics: ServerMetrics,
}

impl<I> Watched<I> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(_) => self.activity.note_written(),
            Poll::Pending => self.activity.note_blocked(),
        }
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = buf.filled().get(before..).unwrap_or_default();
        if came.is_empty() {
            return polled;
        }
        self.activity.note_read();
        match self.framing.feed(came) {
            Seen::Good => polled,
            Seen::BadHead(number) => {
                self.refusals.refuse(number);
                polled
            }
            Seen::Flood => {
                self.metrics.floods.increment(1);
                Poll::Ready(Err(io::Error::other(
                    "too many frames that ask for nothing",
                )))
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
