//! What the hand-over between requests, commit thread and waiters is made of.
//!
//! Ordinarily crossbeam's channel and the standard atomics. With the feature `shuttle` the same names
//! stand for types whose every operation is a place where another thread may run, so that the
//! interleavings of the very code of the lane can be tried out (`tests/it/interleavings`).

use tokio::sync::mpsc;

#[cfg(not(feature = "shuttle"))]
pub(super) use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender as Sender, TrySendError, sync_channel as bounded,
};

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
