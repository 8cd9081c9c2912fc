//! A connection's bytes: counted, so that one answer cannot be endless, and gauged while open.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{HEAD_MAX, READ_MAX};
use crate::base::frames::Frames;
use crate::base::frames::kind::{DATA, WINDOW_UPDATE};
use crate::metrics::CONNECTIONS_OUT;

/// Plain bytes that one answer may take on an HTTP/1.1 connection. Interim answers, chunk extensions
/// and trailers are seen by nobody above, so they are bounded here: room for the head, the body, and
/// as much again for framing (T10).
const ANSWER_MAX: usize = 2 * READ_MAX + HEAD_MAX;

/// Frames other than those of flow control (`DATA`, `WINDOW_UPDATE`) that an HTTP/2 connection may take since its last request: heads, interim
/// answers, `PING`, `SETTINGS` and the like. A hundred answers at once need a few each; without a
/// bound h2 would keep every interim answer, and answer every `PING`, until the deadline (T10).
const FRAMES_MAX: usize = 1000;

/// What is left for the current answer, in bytes or in frames. Shared by the connection and whoever uses it.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    left: Arc<AtomicUsize>,
    full: usize,
}

impl Budget {
    /// In bytes: for a connection with one answer at a time.
    pub(super) fn per_answer() -> Self {
        Self::of(ANSWER_MAX)
    }

    /// In frames: for a connection that many answers share. HTTP/2 has flow control for its bodies.
    pub(super) fn of_frames() -> Self {
        Self::of(FRAMES_MAX)
    }

    fn of(full: usize) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(full)),
            full,
        }
    }

    /// The next answer begins.
    pub(super) fn refill(&self) {
        self.left.store(self.full, Ordering::Relaxed);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, amount: usize) {
        let left = self.left.load(Ordering::Relaxed);
        self.left
            .store(left.saturating_sub(amount), Ordering::Relaxed);
    }
}

/// A stream that stops when its budget is spent.
pub(super) struct Metered<S> {
    stream: S,
    budget: Budget,
    /// Where frames are counted instead of bytes.
    frames: Option<Frames>,
    _open: Open,
}

impl<S> Metered<S> {
    /// HTTP/1: counts bytes.
    pub(super) fn bytes(stream: S, budget: Budget) -> Self {
        Self {
            stream,
            budget,
            frames: None,
            _open: Open::new(),
        }
    }

    /// HTTP/2: counts frames other than those of flow control.
    pub(super) fn frames(stream: S, budget: Budget) -> Self {
        Self {
            stream,
            budget,
            frames: Some(Frames::default()),
            _open: Open::new(),
        }
    }

    fn count(&mut self, came: &[u8]) {
        let Some(frames) = &mut self.frames else {
            return self.budget.spend(came.len());
        };
        let mut others = 0;
        frames.feed(came, |kind| {
            others += usize::from(kind != DATA && kind != WINDOW_UPDATE);
        });
        self.budget.spend(others);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget.is_spent() {
            return Poll::Ready(Err(io::Error::other("the answer is too large")));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.count(buf.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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

/// Counts in the gauge of open connections while it lives.
struct Open;

impl Open {
    fn new() -> Self {
        ::metrics::gauge!(CONNECTIONS_OUT).increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        ::metrics::gauge!(CONNECTIONS_OUT).decrement(1.0);
    }
}
