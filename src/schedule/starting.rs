//! Attempts between their start and the first look at them.
//!
//! An attempt is a task. It waits in the run queue of the runtime until a thread looks at it for the first
//! time; in that look the request goes out, if a connection is open. Without a bound, an endpoint that
//! comes back to a backlog puts a hundred of them there at once, and accepting, commits and other
//! endpoints' attempts stand behind: their p99 doubles (docs/PERFORMANCE.md, S9). What waits for a network
//! counts no more, however long it takes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Attempts that may wait for their first look, for each thread of the runtime.
const EACH: usize = 16;

/// The count of them, and who waits for room.
pub(super) struct Starting {
    most: usize,
    count: AtomicUsize,
    /// The driver has more to start, and is to be told when half have begun.
    wanted: AtomicBool,
    news: Notify,
}

/// One attempt that waits for its first look; dropped after it.
pub(super) struct Waiting(Arc<Starting>);

impl Starting {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            most: EACH * threads.max(1),
            count: AtomicUsize::new(0),
            wanted: AtomicBool::new(false),
            news: Notify::new(),
        }
    }

    /// Attempts that may be started now.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.count.load(Ordering::SeqCst))
    }

    /// An attempt is started.
    pub(super) fn start(self: &Arc<Self>) -> Waiting {
        self.count.fetch_add(1, Ordering::SeqCst);
        Waiting(Arc::clone(self))
    }

    /// There is more to start than there was room for. True = there is room again; false =
    /// [`Starting::has_room`] will tell.
    pub(super) fn want(&self) -> bool {
        // First said, then looked: whoever begins meanwhile either is seen here or sees this.
        self.wanted.store(true, Ordering::SeqCst);
        self.room() >= self.most.div_ceil(2)
    }

    /// Resolves once there is room that was wanted. Cancel safe.
    pub(super) async fn has_room(&self) {
        self.news.notified().await;
    }
}

impl Waiting {
    /// Waits no longer once `attempt` was looked at for the first time; goes on with it to its end. As
    /// cancel safe as the attempt.
    pub(super) async fn until_begun<T>(self, attempt: impl Future<Output = T>) -> T {
        let mut waiting = Some(self);
        let mut attempt = pin!(attempt);
        poll_fn(|cx| {
            let looked = attempt.as_mut().poll(cx);
            drop(waiting.take());
            looked
        })
        .await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Self(starting) = self;
        let left = starting.count.fetch_sub(1, Ordering::SeqCst) - 1;
        // Told at half, so that the driver turns once for many of them.
        if left <= starting.most / 2
            && starting.wanted.load(Ordering::SeqCst)
            && starting.wanted.swap(false, Ordering::SeqCst)
        {
            starting.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_told(starting: &Starting) -> bool {
        let told = pin!(starting.has_room());
        matches!(
            told.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(())
        )
    }

    #[test]
    fn what_has_begun_makes_room_and_no_more_than_that_is_started() {
        let starting = Arc::new(Starting::new(2));
        let mut waiting: Vec<_> = (0..starting.room()).map(|_| starting.start()).collect();
        assert_eq!((waiting.len(), starting.room()), (2 * EACH, 0));
        waiting.truncate(5);
        assert_eq!(starting.room(), 2 * EACH - 5);
        drop(waiting);
        assert_eq!(starting.room(), 2 * EACH);
        // A thread count that nobody knows is one, not none: something must be able to start.
        assert_eq!(Starting::new(0).room(), EACH);
    }

    #[test]
    fn an_attempt_waits_until_it_was_looked_at_and_no_longer() {
        let starting = Arc::new(Starting::new(1));
        let mut looks = 0;
        let attempt = starting.start().until_begun(poll_fn(|_| {
            looks += 1;
            if looks == 3 {
                Poll::Ready(7)
            } else {
                Poll::Pending
            }
        }));
        let mut attempt = pin!(attempt);
        assert_eq!(starting.room(), EACH - 1);
        let mut look = || {
            attempt
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        };
        assert_eq!(look(), Poll::Pending);
        assert_eq!(starting.room(), EACH);
        assert_eq!((look(), look()), (Poll::Pending, Poll::Ready(7)));
        // One that was never looked at, because the runtime ends, takes no room either.
        drop(starting.start().until_begun(std::future::pending::<()>()));
        assert_eq!(starting.room(), EACH);
    }

    #[test]
    fn who_wants_room_is_told_once_when_half_have_begun() {
        let starting = Arc::new(Starting::new(1));
        let mut waiting: Vec<_> = (0..EACH).map(|_| starting.start()).collect();
        assert!(!starting.want());
        while starting.room() < EACH / 2 {
            assert!(!is_told(&starting), "room for {}", starting.room());
            waiting.pop();
        }
        assert!(is_told(&starting));
        waiting.clear();
        assert!(!is_told(&starting), "nobody wants more");
        // Room that is there already needs no telling.
        assert!(starting.want());
    }

    #[test]
    fn room_that_is_made_between_the_question_and_the_wait_is_told_of() {
        for round in 0..2_000 {
            let starting = Arc::new(Starting::new(1));
            let waiting: Vec<_> = (0..EACH).map(|_| starting.start()).collect();
            let seen = std::thread::scope(|scope| {
                scope.spawn(move || drop(waiting));
                starting.want()
            });
            assert!(seen || is_told(&starting), "round {round}");
        }
    }
}
