//! An HTTP/1.1 connection of the pool: one request at a time, and next to nothing while it lies idle.
//!
//! It has no task of its own: whoever uses it drives it, so that an exchange wakes one task and not two.
//! While it lies idle nobody does; that the other side has closed it is seen at the next look
//! ([`H1::is_open`]). Asleep it is the bare stream: hyper's buffers for a request and an answer, 16 KiB
//! and more, go back to the allocator, and are made anew when it wakes. Ten thousand idle connections
//! cost some MiB instead of some hundred.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::{Budget, Metered};
use super::{HEAD_LINES_MAX, HEAD_MAX, Wire};

/// A stream of bytes, with TLS or without.
pub(super) trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Link for S {}

type Io = Metered<Box<dyn Link>>;
type Body = Full<Bytes>;

/// A connection that can send.
pub(super) struct H1 {
    sender: http1::SendRequest<Body>,
    /// hyper's half; `None` once it has ended.
    driven: Option<Box<http1::Connection<TokioIo<Io>, Body>>>,
    budget: Budget,
    until: Duration,
}

impl H1 {
    /// Speaks HTTP/1.1 on a fresh stream; the connection may be used until `until` (monotonic time).
    /// `None` if hyper refuses, which it has no reason for.
    pub(super) fn open(stream: Box<dyn Link>, until: Duration) -> Option<Self> {
        let budget = Budget::per_answer();
        Self::on(Metered::bytes(stream, budget.clone()), budget, until)
    }

    fn on(io: Io, budget: Budget, until: Duration) -> Option<Self> {
        let handshake = pin!(
            http1::Builder::new()
                .title_case_headers(true)
                .max_headers(HEAD_LINES_MAX)
                .max_buf_size(2 * HEAD_MAX)
                .max_header_size(HEAD_MAX)
                .handshake(TokioIo::new(io))
        );
        // Nothing is exchanged: it makes the two halves and is done.
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok((sender, connection))) = handshake.poll(&mut cx) else {
            return None;
        };
        Some(Self {
            sender,
            driven: Some(Box::new(connection)),
            budget,
            until,
        })
    }

    /// Whether the answer took more than an answer may.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }

    /// Moves bytes. Errors reach whoever waits for the answer.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.driven
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.driven = None;
        }
    }

    /// Puts the last exchange away and looks whether the other side has closed it.
    pub(super) fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driven.is_some() && !self.sender.is_closed()
    }

    /// Sends; if it has closed meanwhile, sending says so and gives the request back.
    pub(super) async fn send(
        &mut self,
        wire: Wire,
    ) -> Result<http::Response<Incoming>, TrySendError<Wire>> {
        self.budget.refill();
        poll_fn(|cx| {
            self.drive(cx);
            let ready = self.sender.poll_ready(cx).is_ready() || self.driven.is_none();
            if ready {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let mut answer = pin!(self.sender.try_send_request(wire));
        poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// A connection that lies idle.
pub(super) enum Idle {
    /// As it was used: ready at once.
    Awake {
        h1: H1,
        /// A sweep has found it here before.
        seen: bool,
    },
    /// The bare stream.
    Asleep(Sleeper),
}

/// What is left of a connection that sleeps.
pub(super) struct Sleeper {
    io: Io,
    budget: Budget,
    until: Duration,
}

impl Idle {
    /// Keeps a connection whose exchange is over as it is.
    pub(super) const fn awake(h1: H1) -> Self {
        Self::Awake { h1, seen: false }
    }

    /// Puts a connection to sleep whose exchange is over; `None` if it must be closed, for it holds bytes
    /// that no request asked for. One that hyper is not done with stays awake.
    pub(super) fn asleep(h1: H1) -> Option<Self> {
        let is_done = h1.sender.is_ready();
        match h1 {
            H1 {
                driven: Some(connection),
                budget,
                until,
                ..
            } if is_done => {
                let parts = connection.into_parts();
                let io = parts.io.into_inner();
                parts
                    .read_buf
                    .is_empty()
                    .then_some(Self::Asleep(Sleeper { io, budget, until }))
            }
            busy => Some(Self::awake(busy)),
        }
    }

    /// What a sweep makes of it: it sleeps once it has lain idle from one sweep to the next. `None` as
    /// for [`Idle::asleep`].
    pub(super) fn rest(self) -> Option<Self> {
        match self {
            Self::Awake { h1, seen: true } => Self::asleep(h1),
            Self::Awake { h1, seen: false } => Some(Self::Awake { h1, seen: true }),
            sleeper @ Self::Asleep(_) => Some(sleeper),
        }
    }

    /// Whether it has hyper's buffers.
    pub(super) const fn is_awake(&self) -> bool {
        matches!(self, Self::Awake { .. })
    }

    /// Until when it may be used, monotonic time.
    pub(super) const fn until(&self) -> Duration {
        match self {
            Self::Awake { h1, .. } => h1.until,
            Self::Asleep(sleeper) => sleeper.until,
        }
    }

    /// Whether the other side has neither closed it nor said something unasked.
    pub(super) fn is_open(&mut self) -> bool {
        match self {
            Self::Awake { h1, .. } => h1.is_open(),
            Self::Asleep(sleeper) => {
                let mut byte = [0];
                let mut unasked = ReadBuf::new(&mut byte);
                let mut cx = Context::from_waker(Waker::noop());
                let io = Pin::new(&mut sleeper.io);
                io.poll_read(&mut cx, &mut unasked).is_pending()
            }
        }
    }

    /// Makes it fit to send.
    pub(super) fn wake(self) -> Option<H1> {
        match self {
            Self::Awake { h1, .. } => Some(h1),
            Self::Asleep(sleeper) => H1::on(sleeper.io, sleeper.budget, sleeper.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    fn pair() -> (H1, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let h1 = H1::open(Box::new(ours), Duration::MAX).unwrap();
        (h1, theirs)
    }

    async fn exchange(h1: &mut H1, theirs: &mut DuplexStream) -> Bytes {
        let wire = http::Request::post("/in").body(Full::default()).unwrap();
        let answering = async {
            let mut head = [0; 512];
            assert!(theirs.read(&mut head).await.unwrap() > 0);
            theirs.write_all(ANSWER).await.unwrap();
        };
        let (answer, ()) = tokio::join!(h1.send(wire), answering);
        let mut body = answer.unwrap_or_else(|_| panic!("no answer")).into_body();
        let mut body = pin!(body.frame());
        let frame = poll_fn(|cx| {
            h1.drive(cx);
            body.as_mut().poll(cx)
        });
        frame.await.unwrap().unwrap().into_data().unwrap()
    }

    async fn asleep() -> (Idle, DuplexStream) {
        let (mut h1, mut theirs) = pair();
        assert_eq!(exchange(&mut h1, &mut theirs).await, "ok");
        assert!(h1.is_open());
        let idle = Idle::asleep(h1).unwrap();
        assert!(matches!(idle, Idle::Asleep(_)));
        (idle, theirs)
    }

    #[tokio::test]
    async fn a_connection_that_slept_sends_again_over_the_same_stream() {
        let (mut idle, mut theirs) = asleep().await;
        for _ in 0..3 {
            assert!(idle.is_open());
            let mut h1 = idle.wake().unwrap();
            assert_eq!(exchange(&mut h1, &mut theirs).await, "ok");
            assert!(h1.is_open());
            idle = Idle::asleep(h1).unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_sleeps_once_it_lay_idle_from_one_sweep_to_the_next() {
        let (mut h1, mut theirs) = pair();
        for _ in 0..3 {
            assert_eq!(exchange(&mut h1, &mut theirs).await, "ok");
            assert!(h1.is_open());
            // Used again after a sweep: it stays awake.
            let idle = Idle::awake(h1).rest().unwrap();
            assert!(idle.is_awake());
            h1 = idle.wake().unwrap();
        }
        assert_eq!(exchange(&mut h1, &mut theirs).await, "ok");
        assert!(h1.is_open());
        let idle = Idle::awake(h1).rest().unwrap().rest().unwrap();
        assert!(!idle.is_awake());
        assert!(!idle.rest().unwrap().is_awake());
    }

    #[tokio::test]
    async fn a_sleeper_that_was_closed_is_not_open() {
        let (mut idle, theirs) = asleep().await;
        assert!(idle.is_open());
        drop(theirs);
        assert!(!idle.is_open());
    }

    #[tokio::test]
    async fn a_sleeper_that_was_sent_something_unasked_is_not_open() {
        let (mut idle, mut theirs) = asleep().await;
        theirs.write_all(ANSWER).await.unwrap();
        assert!(!idle.is_open());
    }

    #[tokio::test]
    async fn a_connection_amid_an_exchange_does_not_sleep() {
        let (mut h1, _theirs) = pair();
        let wire = http::Request::post("/in").body(Full::default()).unwrap();
        let send = tokio::time::timeout(Duration::from_millis(20), h1.send(wire));
        assert!(send.await.is_err(), "nobody answers");
        assert!(matches!(Idle::asleep(h1), Some(Idle::Awake { .. }) | None));
    }
}
