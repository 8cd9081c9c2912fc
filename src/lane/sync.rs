//! What the hand-over between requests, commit thread and waiters is made of.
//!
//! Ordinarily crossbeam's channel and the standard atomics. With the feature `shuttle` the same names
//! stand for types whose every operation is a place where another thread may run, so that the
//! interleavings of the very code of the lane can be tried out (`tests/it/interleavings`).

use tokio::sync::mpsc;

#[cfg(not(feature = "shuttle"))]
use crossbeam_channel::Receiver;
#[cfg(not(feature = "shuttle"))]
pub(super) use crossbeam_channel::{RecvTimeoutError, Sender, TrySendError, bounded};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
#[cfg(feature = "shuttle")]
use shuttle::sync::mpsc::Receiver;
#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::mpsc::{
    RecvTimeoutError, SyncSender as Sender, TrySendError, sync_channel as bounded,
};

/// The receiving end of a queue, for one at a time.
#[cfg(not(feature = "shuttle"))]
pub(super) struct Inbox<T>(parking_lot::Mutex<Receiver<T>>);

#[cfg(not(feature = "shuttle"))]
impl<T> Inbox<T> {
    pub(super) const fn new(receiver: Receiver<T>) -> Self {
        Self(parking_lot::Mutex::new(receiver))
    }

    /// Waits until nobody else has it.
    pub(super) fn take(&self) -> impl std::ops::Deref<Target = Receiver<T>> + '_ {
        self.0.lock()
    }
}

/// The receiving end of a queue, for one at a time.
#[cfg(feature = "shuttle")]
pub(super) struct Inbox<T>(shuttle::sync::Mutex<Receiver<T>>);

#[cfg(feature = "shuttle")]
impl<T> Inbox<T> {
    pub(super) const fn new(receiver: Receiver<T>) -> Self {
        Self(shuttle::sync::Mutex::new(receiver))
    }

    /// Waits until nobody else has it.
    pub(super) fn take(&self) -> impl std::ops::Deref<Target = Receiver<T>> + '_ {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Hands a value to a task, waiting for room; false = nobody takes it any more.
pub(super) fn hand<T>(to: &mpsc::Sender<T>, value: T) -> bool {
    // With room to spare there is nothing to wait for; waiting is for a thread of its own.
    match to.try_send(value) {
        #[cfg(not(feature = "shuttle"))]
        Err(mpsc::error::TrySendError::Full(value)) => to.blocking_send(value).is_ok(),
        #[cfg(feature = "shuttle")]
        Err(mpsc::error::TrySendError::Full(value)) => {
            shuttle::future::block_on(to.send(value)).is_ok()
        }
        handed => handed.is_ok(),
    }
}
