//! The body of a request, read to its limit. Of a longer one a little more is read and thrown away.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::base::task;

/// A first frame at least this long is kept as it is; shorter bodies are copied once into memory of
/// their own, since a slice would keep the connection's whole read buffer alive.
const KEEP_FRAME: usize = 16 << 10;
/// A body of unknown length gets room for so many times what is there of it. Room that nothing was written to
/// costs no memory; doubling leaves as much behind in smaller pieces as the body is long.
const GROWS: usize = 4;

/// So much of a body that is too long is read and thrown away, beside the answer. A connection that is closed
/// with bytes unread is reset, and whoever still sends finds that in place of the answer.
const LINGER: usize = 4 << 20;
/// And for so long.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Longer than the limit, as announced or as sent.
    TooLarge,
    /// The connection broke off before its end.
    BrokenOff,
}

/// The whole body, at most `limit` bytes. Not cancel safe: what was read is gone. Call it inside the runtime.
pub(super) async fn whole(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
) -> Result<Bytes, Unread> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = announced.filter(|length| *length > limit) {
        // Whoever waits to be asked for the body sends none.
        if length - limit <= LINGER && !headers.contains_key(header::EXPECT) {
            task::detach(linger(body));
        }
        return Err(Unread::TooLarge);
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::BrokenOff)?.into_data() else {
            continue;
        };
        let length = all.len() + data.len();
        if length > limit {
            task::detach(linger(body));
            return Err(Unread::TooLarge);
        }
        if all.is_empty() && data.len() >= KEEP_FRAME && announced == Some(data.len()) {
            return Ok(data);
        }
        if length > all.capacity() {
            all.reserve(capacity(length, announced, limit) - all.len());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Reads what is still coming of a body, to its bounds.
async fn linger(mut body: Body) {
    let reading = async {
        let mut left = LINGER;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(read) else {
                return;
            };
            left = rest;
        }
    };
    // Late is as good as done: dropping the body closes the connection.
    let _late = tokio::time::timeout(LINGER_TIME, reading).await;
}

/// Room to make for a body of which `length` bytes are there; never less than those.
fn capacity(length: usize, announced: Option<usize>, limit: usize) -> usize {
    let expected = match announced {
        Some(announced) => announced,
        None => length.saturating_mul(GROWS).min(limit),
    };
    expected.max(length)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use http::HeaderValue;
    use http_body::Frame;

    use super::*;

    /// Frames of these lengths, of unknown number; counts the bytes that were asked for.
    struct Frames(VecDeque<usize>, Arc<AtomicUsize>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let data = self.0.pop_front().map(|length| vec![b'x'; length]);
            let length = data.as_ref().map_or(0, Vec::len);
            self.1.fetch_add(length, Ordering::Relaxed);
            Poll::Ready(data.map(|data| Ok(Frame::data(Bytes::from(data)))))
        }
    }

    async fn read(
        announced: Option<usize>,
        frames: &[usize],
        limit: usize,
    ) -> Result<Bytes, Unread> {
        let mut headers = HeaderMap::new();
        if let Some(length) = announced {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let frames = Frames(frames.iter().copied().collect(), Arc::default());
        whole(&headers, Body::new(frames), limit).await
    }

    #[tokio::test]
    async fn a_body_is_whole_up_to_its_limit_and_refused_one_byte_beyond_it() {
        for announced in [false, true] {
            for frames in [&[][..], &[1], &[100, 200], &[40_000], &[70_000, 1, 70_000]] {
                let sum = frames.iter().sum::<usize>();
                let announced = announced.then_some(sum);
                for limit in [sum, sum + 1, 16 << 20] {
                    let body = read(announced, frames, limit).await.unwrap();
                    assert_eq!(body.len(), sum, "{frames:?}, limit {limit}");
                }
                if sum > 0 {
                    let refused = read(announced, frames, sum - 1).await;
                    assert_eq!(refused, Err(Unread::TooLarge), "{frames:?}");
                }
            }
        }
    }

    /// How much is read of a body of mebibytes, beyond a limit of one, that says these headers.
    async fn read_in_all(mebibytes: usize, headers: &[(header::HeaderName, usize)]) -> usize {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), (*value).into()));
        let count = Arc::new(AtomicUsize::new(0));
        let frames = Frames(vec![1 << 20; mebibytes].into(), Arc::clone(&count));
        let read = whole(&headers.collect(), Body::new(frames), 1 << 20).await;
        assert_eq!(read, Err(Unread::TooLarge));
        while Arc::strong_count(&count) > 1 {
            tokio::task::yield_now().await; // until the body is dropped
        }
        count.load(Ordering::Relaxed) >> 20
    }

    #[tokio::test]
    async fn what_is_still_coming_is_thrown_away_to_a_bound_unless_it_is_not_sent_or_far_too_long()
    {
        let length = |mebibytes: usize| (header::CONTENT_LENGTH, mebibytes << 20);
        assert_eq!(read_in_all(3, &[length(3)]).await, 3);
        assert_eq!(read_in_all(5, &[length(5)]).await, 5);
        assert_eq!(read_in_all(6, &[length(6)]).await, 0);
        assert_eq!(read_in_all(3, &[length(3), (header::EXPECT, 100)]).await, 0);
        // In chunks: the limit, what goes beyond it, and no more than four mebibytes and a frame.
        assert_eq!(read_in_all(3, &[]).await, 3);
        assert_eq!(read_in_all(100, &[]).await, 2 + 4 + 1);
    }

    #[test]
    fn room_is_made_for_what_was_announced_and_else_for_no_more_than_the_limit() {
        let limit = 16 << 20;
        assert_eq!(capacity(100, Some(5_000), limit), 5_000);
        assert_eq!(capacity(100, None, limit), 400);
        assert_eq!(capacity(5 << 20, None, limit), limit);
        assert_eq!(capacity(limit, None, limit), limit);
        // More than was announced: the connection is refused elsewhere, memory is not mislaid here.
        assert_eq!(capacity(6_000, Some(5_000), limit), 6_000);
    }
}
