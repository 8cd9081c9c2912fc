//! The outgoing side: the one way by which bytes leave for a foreign address (S10).
//!
//! A request goes to the vetted address of its target and nowhere else: names are resolved here, every
//! answer is judged, the connection is made to the judged address and checked, redirects are not
//! followed, no proxy is read from the environment. Connections are kept alive per tenant and origin
//! for at most a minute. One deadline covers everything from the name to the last byte of the answer.
//!
//! What comes back is hostile: the head is capped, at most 64 KiB of body are read and 16 KiB kept,
//! nothing is decompressed, and a 2xx stays a success whatever its body does.
//!
//! Elsewhere: the rules ([`crate::policy::target`], [`crate::policy::outcome`]), what is sent
//! (`deliver`). Absent on purpose: redirects, cookies, proxies, content decoding.

mod connect;
mod h1;
mod io;
mod pool;
mod resolve;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use rustls_pki_types::CertificateDer;

use self::connect::{ConnectError, Connector};
use self::pool::{Connection, Origin, Pool, Sent};
use crate::base::{Clock, task};
use crate::model::{AppNo, FailureKind, Outcome};
use crate::policy::outcome;
use crate::policy::target::{Target, TargetRules};

pub use self::resolve::{Resolve, ResolveError, Resolving, SystemResolver};

/// Bytes of an answer's body that are kept.
pub const KEPT: usize = 16 * 1024;
/// Bytes of an answer's body that are read; then the connection is dropped.
pub const READ_MAX: usize = 64 * 1024;
/// Longest head of an answer, and its most header lines.
const HEAD_MAX: usize = 16 * 1024;
const HEAD_LINES_MAX: usize = 100;
/// Connections are used no longer than this, and names are resolved again after it (S6).
pub const POOL_LIFE: Duration = Duration::from_secs(60);
/// How often connections that are past their life are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// How the client is set up.
pub struct ClientOptions {
    /// What may be called.
    pub rules: TargetRules,
    /// Name, TCP, TLS and the HTTP handshake together.
    pub connect_timeout: Duration,
    /// Asked for every host that is no address and not `localhost`.
    pub resolver: Arc<dyn Resolve>,
    /// Trusted beside the Mozilla roots (a private authority, tests).
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Idle connections kept in all. When full, a finished connection is closed instead.
    pub max_idle: usize,
    /// Idle connections kept of one tenant and origin. When full, as above.
    pub max_idle_per_origin: usize,
}

impl ClientOptions {
    /// The defaults of `api.md` 8 with this resolver.
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            rules: TargetRules::default(),
            connect_timeout: Duration::from_secs(5),
            resolver,
            extra_roots: Vec::new(),
            max_idle: 4096,
            max_idle_per_origin: 256,
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TLS library refused its configuration.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The system's resolver configuration cannot be read.
    #[error("the name servers of this system cannot be read: {0}")]
    Resolver(String),
}

/// One request. `content-length` and `host` are added here.
pub struct Request {
    /// `POST` for everything that is delivered.
    pub method: Method,
    /// Connections are not shared between tenants.
    pub tenant: AppNo,
    /// Where it goes.
    pub target: Arc<Target>,
    /// Everything else that is sent.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// From now to the last byte of the answer.
    pub timeout: Duration,
    /// Dial anew instead of taking an idle connection (the second dial of an attempt).
    pub fresh: bool,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Status or failure.
    pub outcome: Outcome,
    /// The first [`KEPT`] bytes of the answer's body.
    pub response: Bytes,
    /// From the start to the last byte, milliseconds.
    pub duration_ms: u32,
    /// The connection broke in under a second: worth one more dial ([`outcome::redials`]).
    pub broke_early: bool,
    /// The name was not resolved because no name server answers: not the endpoint's fault.
    pub resolver_down: bool,
}

/// Whatever performs exchanges: the [`Client`], or a made-up network in a simulation.
pub trait Net: Send + Sync + 'static {
    /// Performs one exchange.
    fn send(&self, request: Request) -> impl Future<Output = Exchange> + Send;
}

impl Net for Client {
    fn send(&self, request: Request) -> impl Future<Output = Exchange> + Send {
        Self::send(self, request)
    }
}

/// Sends requests. Clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    connector: Connector,
    connect_timeout: Duration,
    pool: Pool,
}

type Wire = http::Request<Full<Bytes>>;

impl Client {
    /// A client with no connections. Call it inside the runtime: it starts a sweeper that ends by
    /// itself after the last clone is gone.
    pub fn new(options: ClientOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let inner = Arc::new(Inner {
            clock,
            connector: Connector::new(options.rules, options.resolver, options.extra_roots)?,
            connect_timeout: options.connect_timeout,
            pool: Pool::new(options.max_idle, options.max_idle_per_origin),
        });
        task::detach(sweep(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// Takes over changed rules; idle connections are dropped, since they were judged by the old.
    pub fn set_rules(&self, rules: TargetRules) {
        self.0.connector.set_rules(rules);
        self.0.pool.clear();
    }

    /// Resolves and judges a target without calling it: what an endpoint's URL is checked with when
    /// it is set. The kind is `Dns` or `BlockedAddress`. Cancel safe.
    pub async fn vet(&self, target: &Target) -> Result<(), FailureKind> {
        let vetted = self.0.connector.vet(target).await;
        vetted.map(drop).map_err(|error| error.kind)
    }

    /// Performs one exchange. Never fails otherwise than by its outcome, never takes noticeably
    /// longer than `request.timeout`. Cancelling drops the connection.
    pub async fn send(&self, request: Request) -> Exchange {
        self.send_seeing(request, |_| ()).await
    }

    /// [`Client::send`], and the headers of the answer shown to `see`, if there is one.
    pub async fn send_seeing(&self, request: Request, see: impl FnOnce(&HeaderMap)) -> Exchange {
        let inner = &*self.0;
        let started = inner.clock.monotonic();
        let timeout = request.timeout;
        // Outside of what the deadline cuts off: what is known by then stands.
        let mut kept = Vec::new();
        let mut answered = None;
        let whole = inner.perform(request, see, &mut answered, &mut kept);
        let ended = tokio::time::timeout(timeout, whole).await;
        let mut resolver_down = false;
        let outcome = match (answered, ended) {
            // What goes wrong after the head costs the connection, not the outcome: the answer has
            // been given.
            (Some(outcome), _) => outcome,
            (None, Ok(Err(error))) => {
                resolver_down = error.resolver_down;
                outcome::of_failure(error.kind)
            }
            (None, Ok(Ok(())) | Err(_)) => outcome::of_failure(FailureKind::TimeoutTotal),
        };
        let took = inner.clock.monotonic().saturating_sub(started);
        Exchange {
            outcome,
            response: Bytes::from(kept),
            duration_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            broke_early: outcome::redials(&outcome, took, false),
            resolver_down,
        }
    }

    /// Open connections in the pool: idle and shared ones.
    pub fn pooled(&self) -> usize {
        self.0.pool.len()
    }
}

/// The head of an answer, and the connection its body still comes from.
struct Answer {
    head: http::Response<Incoming>,
    connection: Connection,
    origin: Arc<Origin>,
}

impl Inner {
    /// Request, head, body: the outcome is there as soon as the head is, and what was read of the
    /// body stays, whenever this is dropped.
    async fn perform(
        &self,
        request: Request,
        see: impl FnOnce(&HeaderMap),
        answered: &mut Option<Outcome>,
        kept: &mut Vec<u8>,
    ) -> Result<(), ConnectError> {
        let mut answer = self.answer(request).await?;
        *answered = Some(self.judge(&answer.head));
        see(answer.head.headers());
        if read(answer.head.body_mut(), &mut answer.connection, kept).await {
            answer.origin.give_back(answer.connection, &self.pool);
        }
        Ok(())
    }

    async fn answer(&self, request: Request) -> Result<Answer, ConnectError> {
        let origin = self.pool.origin(request.tenant, &request.target);
        let target = request.target;
        let mut wire = http::Request::new(Full::new(request.body));
        *wire.method_mut() = request.method;
        *wire.headers_mut() = request.headers;
        if !request.fresh {
            while let Some(connection) = origin.checkout(self.clock.monotonic()) {
                match exchange(connection, wire, &target).await {
                    Sent::Answered(head, connection) => {
                        return Ok(Answer {
                            head,
                            connection,
                            origin,
                        });
                    }
                    // It was closed while it lay idle: nothing has been sent.
                    Sent::Unsent(unsent) => wire = unsent,
                    Sent::Broken(kind) => return Err(kind.into()),
                }
            }
        }
        let connection = Box::pin(self.connect(&origin, &target, request.fresh)).await?;
        match exchange(connection, wire, &target).await {
            Sent::Answered(head, connection) => Ok(Answer {
                head,
                connection,
                origin,
            }),
            Sent::Unsent(_) => Err(FailureKind::Reset.into()),
            Sent::Broken(kind) => Err(kind.into()),
        }
    }

    async fn connect(
        &self,
        origin: &Arc<Origin>,
        target: &Target,
        fresh: bool,
    ) -> Result<Connection, ConnectError> {
        let connecting = async {
            // One at a time resolves a name, or opens a connection that the others can share.
            let gate = origin.gate().await;
            if gate.is_some() && !fresh {
                let shared = origin.checkout(self.clock.monotonic());
                if let Some(connection) = shared {
                    return Ok(connection);
                }
            }
            let now = self.clock.monotonic();
            let vetted = match origin.vetted(now) {
                Some(vetted) => vetted,
                None => origin.set_vetted(self.connector.vet(target).await, now),
            };
            let addresses = vetted.result?;
            let gate = gate.filter(|_| origin.is_multiplexed());
            let stream = self
                .connector
                .connect(target, &addresses, self.connect_timeout)
                .await?;
            let connection = pool::handshake(stream, vetted.until).await?;
            origin.opened(&connection);
            drop(gate);
            Ok(connection)
        };
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(result) => result,
            Err(_) => Err(FailureKind::TimeoutConnect.into()),
        }
    }

    fn judge<B>(&self, answer: &http::Response<B>) -> Outcome {
        let hints = answer.headers().get_all(RETRY_AFTER);
        let hints = hints.iter().map(HeaderValue::as_bytes);
        let hint = outcome::retry_after(hints, self.clock.now());
        outcome::of_status(answer.status().as_u16(), hint)
    }
}

/// Writes the request as the connection's protocol wants it and waits for the head of the answer.
async fn exchange(mut connection: Connection, mut wire: Wire, target: &Target) -> Sent {
    if connection.is_multiplexed() {
        wire.headers_mut().remove(HOST);
        *wire.uri_mut() = target.absolute_form().clone();
        *wire.version_mut() = http::Version::HTTP_2;
    } else {
        wire.headers_mut()
            .insert(HOST, target.host_header().clone());
        *wire.uri_mut() = target.origin_form().clone();
        *wire.version_mut() = http::Version::HTTP_11;
    }
    match connection.send(wire).await {
        Ok(head) => Sent::Answered(head, connection),
        Err(mut error) => match error.take_message() {
            Some(unsent) => Sent::Unsent(unsent),
            None => Sent::Broken(connection.why(error.error())),
        },
    }
}

/// Reads at most [`READ_MAX`] bytes and keeps the first [`KEPT`]; true if that was all of it. Cancel
/// safe: what was kept stays.
async fn read(body: &mut Incoming, connection: &mut Connection, kept: &mut Vec<u8>) -> bool {
    let mut seen = 0;
    let mut body = Pin::new(body);
    while !body.is_end_stream() {
        let frame = poll_fn(|cx| {
            connection.drive(cx);
            body.as_mut().poll_frame(cx)
        });
        let data = match frame.await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(), // trailers say nothing here
        };
        seen += data.len();
        let room = KEPT.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(data.get(..room).unwrap_or_default());
        if seen > READ_MAX {
            return false;
        }
    }
    true
}

/// Drops what is past its life, as long as the client exists.
async fn sweep(client: Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inner) = client.upgrade() else {
            return;
        };
        inner.pool.sweep(inner.clock.monotonic());
    }
}
