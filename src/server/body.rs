//! Bodies of requests and answers that note when they begin and end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::{Activity, SharedBody};

/// Why a request's body ends early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or what came is no body.
    #[error("the body cannot be read")]
    Http(#[from] hyper::Error),
    /// Its time is over (HTTP/2; over HTTP/1 the connection is closed instead).
    #[error("the body took longer than server.body_timeout")]
    TooSlow,
}

/// The body of a request, as handlers get it.
pub struct RequestBody {
    inner: Incoming,
    /// Until the last byte is there.
    open: Option<Arc<Activity>>,
    /// Its deadline, where the connection has others beside it.
    shared: Option<Arc<SharedBody>>,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, activity: &Arc<Activity>, is_shared: bool) -> Self {
        let open = (!inner.is_end_stream()).then(|| Arc::clone(activity));
        let mut shared = None;
        if let Some(activity) = &open {
            if is_shared {
                shared = Some(activity.shared_body_begins());
            } else {
                activity.body_begins();
            }
        }
        Self {
            inner,
            open,
            shared,
        }
    }

    fn close(&mut self) {
        let Some(activity) = self.open.take() else {
            return;
        };
        match self.shared.take() {
            Some(shared) => activity.shared_body_ends(&shared),
            None => activity.body_ends(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(shared) = &self.shared
            && shared.is_late(cx.waker())
        {
            self.close();
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(_))) => self.inner.is_end_stream(),
            Poll::Pending => false,
        };
        if ended {
            self.close();
        }
        polled.map(|frame| frame.map(|read| read.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.close();
    }
}

/// Counts a request as under way until it is dropped.
pub(super) struct InService(Arc<Activity>);

impl InService {
    pub(super) fn begin(activity: &Arc<Activity>, is_shared: bool) -> Self {
        activity.begin(is_shared);
        Self(Arc::clone(activity))
    }
}

impl Drop for InService {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// The body of an answer; its request is under way until the last byte is produced. An empty one
/// stands in for the service's own where the server itself refuses.
pub(super) struct AnswerBody<B> {
    pub(super) inner: Option<B>,
    pub(super) _in_service: InService,
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.inner
            .as_mut()
            .map_or(Poll::Ready(None), |inner| Pin::new(inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let empty = || SizeHint::with_exact(0);
        self.inner.as_ref().map_or_else(empty, Body::size_hint)
    }
}
