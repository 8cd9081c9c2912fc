//! Connections that can be used again.
//!
//! Kept per tenant, scheme, host and port, to addresses that were judged; used until the lookup behind
//! them is a minute old, never longer, so a pool outlives no re-resolve and crosses no tenants (S6).
//! HTTP/1.1 connections are handed out whole, HTTP/2 ones are shared.
//!
//! Locks: one per shard of the table, one per origin; held for a few pushes and pops, never both, and
//! never across an await. A connection belongs to whoever checked it out; dropping it closes it.

use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::connect::{ConnectError, Stream};
use super::h1::{H1, Idle, Link};
use super::io::{Budget, Metered};
use super::{HEAD_MAX, POOL_LIFE, Wire};
use crate::base::task;
use crate::model::{AppNo, FailureKind};
use crate::policy::target::{Target, TargetHost};

/// Tables that are locked apart from each other.
const SHARDS: usize = 16;
/// Answers at the same time on one HTTP/2 connection; further ones open another.
const STREAMS_MAX: usize = 100;
/// So many idle connections stay awake between two sweeps, the others sleep at once: some 25 MiB of buffers.
const AWAKE: usize = 1024;
/// A failed lookup is remembered this long, so that a burst asks once.
const FAILED_LIFE: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    shards: Box<[Mutex<HashTable<Arc<Origin>>>]>,
    hasher: DefaultHashBuilder,
    /// Of all origins.
    counts: Arc<Counts>,
    max_idle: usize,
    max_idle_per_origin: usize,
}

impl Pool {
    pub(super) fn new(max_idle: usize, max_idle_per_origin: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            counts: Arc::default(),
            max_idle,
            max_idle_per_origin,
        }
    }

    /// The connections of a tenant to a target's origin.
    pub(super) fn origin(&self, tenant: AppNo, target: &Target) -> Arc<Origin> {
        let key = (tenant, target.is_secure(), target.port(), target.host());
        let hash = self.hasher.hash_one(key);
        let place = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(place) else {
            return Arc::new(Origin::new(tenant, target, self)); // place < SHARDS: cannot happen
        };
        let rehash = |origin: &Arc<Origin>| self.hasher.hash_one(origin.key());
        shard
            .lock()
            .entry(hash, |origin| origin.key() == key, rehash)
            .or_insert_with(|| Arc::new(Origin::new(tenant, target, self)))
            .get()
            .clone()
    }

    /// Drops connections past their life and origins that nobody uses; lets connections sleep.
    pub(super) fn sweep(&self, now: Duration) {
        for shard in &self.shards {
            let origins: Vec<_> = shard.lock().iter().cloned().collect();
            for origin in &origins {
                origin.sweep(now);
            }
            drop(origins);
            shard
                .lock()
                .retain(|origin| Arc::strong_count(origin) > 1 || !origin.is_unused(now));
        }
    }

    /// Drops all idle connections and everything known of names.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let origins: Vec<_> = shard.lock().iter().cloned().collect();
            for origin in origins {
                origin.clear();
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        let count = |shard: &Mutex<HashTable<Arc<Origin>>>| -> usize {
            shard.lock().iter().map(|origin| origin.len()).sum()
        };
        self.shards.iter().map(count).sum()
    }
}

/// How many HTTP/1.1 connections lie idle.
#[derive(Default)]
struct Counts {
    idle: AtomicUsize,
    /// Of those: awake.
    awake: AtomicUsize,
}

impl Counts {
    fn put(&self, idle: &Idle) {
        self.idle.fetch_add(1, Ordering::Relaxed);
        self.awake
            .fetch_add(idle.is_awake().into(), Ordering::Relaxed);
    }

    fn take(&self, idle: &Idle) {
        self.idle.fetch_sub(1, Ordering::Relaxed);
        self.awake
            .fetch_sub(idle.is_awake().into(), Ordering::Relaxed);
    }
}

type Key<'a> = (AppNo, bool, u16, &'a TargetHost);

/// Where connections of one tenant lead.
pub(super) struct Origin {
    tenant: AppNo,
    secure: bool,
    port: u16,
    host: TargetHost,
    state: Mutex<State>,
    /// Held while a name is resolved, or a connection is opened that others will share.
    gate: tokio::sync::Mutex<()>,
    of_all: Arc<Counts>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    shared: Vec<Arc<H2>>,
    vetted: Option<Vetted>,
    /// The last connection spoke HTTP/2, so the next one probably will.
    multiplexed: bool,
}

/// What a lookup brought, and how long it counts (monotonic time).
#[derive(Clone)]
pub(super) struct Vetted {
    pub(super) result: Result<Arc<[IpAddr]>, ConnectError>,
    pub(super) until: Duration,
}

impl Origin {
    fn new(tenant: AppNo, target: &Target, pool: &Pool) -> Self {
        Self {
            tenant,
            secure: target.is_secure(),
            port: target.port(),
            host: target.host().clone(),
            state: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            of_all: Arc::clone(&pool.counts),
        }
    }

    fn key(&self) -> Key<'_> {
        (self.tenant, self.secure, self.port, &self.host)
    }

    /// A live connection, if there is one. The newest first: the others may then grow old together.
    pub(super) fn checkout(&self, now: Duration) -> Option<Connection> {
        loop {
            let mut state = self.state.lock();
            let shared = state.shared.iter().find(|h2| h2.is_free(now));
            if let Some(h2) = shared {
                return Some(Connection::H2(Share::new(h2)));
            }
            let mut idle = state.idle.pop()?;
            drop(state); // looked at, and closed if it must be, without the lock
            self.of_all.take(&idle);
            if idle.until() > now
                && idle.is_open()
                && let Some(h1) = idle.wake()
            {
                return Some(Connection::H1(h1));
            }
        }
    }

    /// Takes a connection back whose answer was read to its end.
    pub(super) fn give_back(&self, connection: Connection, pool: &Pool) {
        let Connection::H1(mut h1) = connection else {
            return; // a share ends by being dropped
        };
        let others = self.of_all.idle.load(Ordering::Relaxed);
        if !h1.is_open() || others >= pool.max_idle {
            return;
        }
        let idle = if self.of_all.awake.load(Ordering::Relaxed) < AWAKE {
            Some(Idle::awake(h1))
        } else {
            Idle::asleep(h1)
        };
        let Some(idle) = idle else { return };
        let mut state = self.state.lock();
        let counts = state.vetted.as_ref();
        let counts = counts.is_some_and(|vetted| vetted.until == idle.until());
        if counts && state.idle.len() < pool.max_idle_per_origin {
            self.of_all.put(&idle);
            state.idle.push(idle);
        }
    }

    /// A connection was opened: shared ones are known to all from now on.
    pub(super) fn opened(&self, connection: &Connection) {
        let mut state = self.state.lock();
        match connection {
            Connection::H1(_) => state.multiplexed = false,
            Connection::H2(share) => {
                state.multiplexed = true;
                state.shared.push(Arc::clone(&share.0));
            }
        }
    }

    /// Waits for whoever resolves or opens a shared connection; `None` where nobody has to wait.
    pub(super) async fn gate(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let is_name = matches!(self.host, TargetHost::Name(_));
        if is_name || self.is_multiplexed() {
            return Some(self.gate.lock().await);
        }
        None
    }

    pub(super) fn is_multiplexed(&self) -> bool {
        self.state.lock().multiplexed
    }

    /// What is known of the addresses, while it counts.
    pub(super) fn vetted(&self, now: Duration) -> Option<Vetted> {
        let state = self.state.lock();
        state.vetted.clone().filter(|vetted| vetted.until > now)
    }

    /// Remembers a lookup begun at `now`. What came before it is used no more.
    pub(super) fn set_vetted(
        &self,
        result: Result<Arc<[IpAddr]>, ConnectError>,
        now: Duration,
    ) -> Vetted {
        let life = if result.is_ok() {
            POOL_LIFE
        } else {
            FAILED_LIFE
        };
        let vetted = Vetted {
            result,
            until: now + life,
        };
        let mut state = self.state.lock();
        state.vetted = Some(vetted.clone());
        let late = state.take_all(&self.of_all);
        drop(state);
        drop(late);
        vetted
    }

    /// Closes what is past its life, and puts to sleep what nobody used since the last sweep.
    fn sweep(&self, now: Duration) {
        let mut state = self.state.lock();
        let (mut kept, mut late) = (Vec::with_capacity(state.idle.len()), Vec::new());
        for mut idle in std::mem::take(&mut state.idle) {
            self.of_all.take(&idle);
            if idle.until() <= now || !idle.is_open() {
                late.push(idle);
            } else if let Some(idle) = idle.rest() {
                self.of_all.put(&idle);
                kept.push(idle);
            }
        }
        state.idle = kept;
        let old: Vec<_> = state.shared.extract_if(.., |h2| !h2.is_live(now)).collect();
        drop(state);
        drop((late, old));
    }

    fn clear(&self) {
        let mut state = self.state.lock();
        state.vetted = None;
        let late = state.take_all(&self.of_all);
        drop(state);
        drop(late);
    }

    fn is_unused(&self, now: Duration) -> bool {
        let state = self.state.lock();
        let is_known = state.vetted.as_ref().is_some_and(|v| v.until > now);
        state.idle.is_empty() && state.shared.is_empty() && !is_known
    }

    fn len(&self) -> usize {
        let state = self.state.lock();
        state.idle.len() + state.shared.len()
    }
}

impl State {
    fn take_all(&mut self, of_all: &Counts) -> (Vec<Idle>, Vec<Arc<H2>>) {
        self.idle.iter().for_each(|idle| of_all.take(idle));
        (
            std::mem::take(&mut self.idle),
            std::mem::take(&mut self.shared),
        )
    }
}

/// What came of handing a request to a connection.
pub(super) enum Sent {
    Answered(http::Response<Incoming>, Connection),
    /// The connection was closed before anything of the request was written.
    Unsent(Wire),
    Broken(FailureKind),
}

/// A connection in use.
pub(super) enum Connection {
    H1(H1),
    H2(Share),
}

/// An HTTP/2 connection: many requests at a time.
pub(super) struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    budget: Budget,
    streams: AtomicUsize,
    until: Duration,
    _alive: Alive,
}

/// Dropping it ends the task of an HTTP/2 connection, and with it the connection.
type Alive = oneshot::Sender<Infallible>;

/// One of the requests on a shared connection.
pub(super) struct Share(Arc<H2>);

impl Share {
    fn new(h2: &Arc<H2>) -> Self {
        h2.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(h2))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl H2 {
    fn is_live(&self, now: Duration) -> bool {
        self.until > now && !self.sender.is_closed()
    }

    fn is_free(&self, now: Duration) -> bool {
        self.is_live(now) && self.streams.load(Ordering::Relaxed) < STREAMS_MAX
    }
}

impl Connection {
    pub(super) const fn is_multiplexed(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// Hands the request over and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        wire: Wire,
    ) -> Result<http::Response<Incoming>, TrySendError<Wire>> {
        match self {
            Self::H1(h1) => h1.send(wire).await,
            Self::H2(share) => {
                share.0.budget.refill();
                share.0.sender.clone().try_send_request(wire).await
            }
        }
    }

    /// Moves the bytes of an answer whose body is being read.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::H1(h1) = self {
            h1.drive(cx);
        }
    }

    /// What an error on this connection means.
    pub(super) fn why(&self, error: &hyper::Error) -> FailureKind {
        let is_spent = match self {
            Self::H1(h1) => h1.is_spent(),
            Self::H2(share) => share.0.budget.is_spent(),
        };
        if is_spent || error.is_parse_too_large() {
            FailureKind::ResponseTooLarge
        } else {
            FailureKind::Reset
        }
    }
}

/// Speaks HTTP on a fresh stream; the connection may be used until `until`.
pub(super) async fn handshake(stream: Stream, until: Duration) -> Result<Connection, ConnectError> {
    match stream {
        Stream::Plain(stream) => http1(Box::new(stream), until),
        Stream::Tls(stream) => http1(stream, until),
        Stream::H2(stream) => http2(*stream, until).await,
    }
}

fn http1(stream: Box<dyn Link>, until: Duration) -> Result<Connection, ConnectError> {
    let h1 = H1::open(stream, until).ok_or(FailureKind::Reset)?;
    Ok(Connection::H1(h1))
}

async fn http2<S>(stream: S, until: Duration) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let budget = Budget::of_frames();
    let io = TokioIo::new(Metered::frames(stream, budget.clone()));
    let header_list = u32::try_from(HEAD_MAX).unwrap_or(u32::MAX);
    let (sender, connection) = http2::Builder::new(Detach)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(header_list)
        .handshake(io)
        .await
        .map_err(|_| FailureKind::Reset)?;
    let h2 = Arc::new(H2 {
        sender,
        budget,
        streams: AtomicUsize::new(0),
        until,
        _alive: drive(connection),
    });
    Ok(Connection::H2(Share::new(&h2)))
}

/// Runs a connection until it ends by itself or the returned value is dropped.
fn drive<C>(connection: C) -> Alive
where
    C: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let (alive, dropped) = oneshot::channel();
    task::detach(async move {
        tokio::select! {
            // Errors reach whoever waits for an answer; an idle connection that ends is no event.
            _ended = connection => {}
            _dropped = dropped => {}
        }
    });
    alive
}

/// Runs the inner tasks of HTTP/2 connections; they end with their connection.
#[derive(Clone, Copy)]
struct Detach;

impl<F> hyper::rt::Executor<F> for Detach
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        task::detach(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::target::TargetRules;

    const LIFE: Duration = Duration::from_secs(3600);

    fn counted(pool: &Pool) -> (usize, usize) {
        let (idle, awake) = (&pool.counts.idle, &pool.counts.awake);
        (idle.load(Ordering::Relaxed), awake.load(Ordering::Relaxed))
    }

    /// Connections to this origin, with what keeps the other sides open.
    fn opened(count: usize) -> (Vec<Connection>, Vec<tokio::io::DuplexStream>) {
        (0..count)
            .map(|_| {
                let (ours, theirs) = tokio::io::duplex(64);
                let h1 = H1::open(Box::new(ours), LIFE).unwrap();
                (Connection::H1(h1), theirs)
            })
            .unzip()
    }

    #[tokio::test]
    async fn what_no_attempt_used_between_two_sweeps_sleeps_and_makes_room_for_others() {
        let pool = Pool::new(2 * AWAKE, 2 * AWAKE);
        let target = Target::parse("https://example.com/in", &TargetRules::default()).unwrap();
        let origin = pool.origin(AppNo(1), &target);
        origin.set_vetted(Ok(Arc::from([])), LIFE.saturating_sub(POOL_LIFE));
        let (connections, mut others) = opened(AWAKE + 5);
        for connection in connections {
            origin.give_back(connection, &pool);
        }
        assert_eq!(counted(&pool), (AWAKE + 5, AWAKE));
        pool.sweep(Duration::ZERO);
        assert_eq!(counted(&pool), (AWAKE + 5, AWAKE));
        // Those used meanwhile, the five sleepers on top among them: one finds room to stay awake.
        let used = [(); 6].map(|()| origin.checkout(Duration::ZERO).unwrap());
        assert_eq!(counted(&pool), (AWAKE - 1, AWAKE - 1));
        for connection in used {
            origin.give_back(connection, &pool);
        }
        assert_eq!(counted(&pool), (AWAKE + 5, AWAKE));
        pool.sweep(Duration::ZERO);
        assert_eq!(counted(&pool), (AWAKE + 5, 1));
        // Closed by the other side, and past their life.
        others.truncate(AWAKE);
        pool.sweep(Duration::ZERO);
        assert_eq!(counted(&pool), (AWAKE, 0));
        pool.sweep(LIFE);
        assert_eq!(counted(&pool), (0, 0));
        assert!(origin.checkout(Duration::ZERO).is_none());
    }
}
