//! A connection's bytes: counted, so that one answer cannot be endless, and gauged while open.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{HEAD_MAX, READ_MAX};
use crate::metrics::CONNECTIONS_OUT;

/// Plain bytes that one answer may take on an HTTP/1.1 connection. Interim answers, chunk extensions
/// and trailers are seen by nobody above, so they are bounded here: room for the head, the body, and
/// as much again for framing (T10).
const ANSWER_MAX: usize = 2 * READ_MAX + HEAD_MAX;

/// Bytes left for the current answer. Shared by the connection and whoever uses it.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// For a connection with one answer at a time.
    pub(super) fn per_answer() -> Self {
        Self(Arc::new(AtomicUsize::new(ANSWER_MAX)))
    }

    /// For a connection that many answers share: HTTP/2 has flow control per stream instead.
    pub(super) fn unlimited() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    /// The next answer begins.
    pub(super) fn refill(&self) {
        self.0.store(ANSWER_MAX, Ordering::Relaxed);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        if left != usize::MAX {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }
}

/// A stream that stops when its budget is spent.
pub(super) struct Metered<S> {
    stream: S,
    budget: Budget,
    _open: Open,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, budget: Budget) -> Self {
        Self {
            stream,
            budget,
            _open: Open::new(),
        }
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
        self.budget.spend(buf.filled().len() - before);
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
