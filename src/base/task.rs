//! Named tasks and threads: the only place that spawns.
//!
//! Every task says by name what it is and what its end means. [`Tasks::join_until`] waits for all of
//! them up to a deadline and names whoever is late. [`Stop`] is how they are told.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Told to stop or not yet. Cheap to clone; every loop holds one.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The other end of [`Stop`].
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// A fresh pair.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Tells everyone who holds the [`Stop`]. Telling twice is harmless.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// True once told.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once told (or once the [`Stopper`] is gone). Cancel safe.
    pub async fn stopped(&mut self) {
        // An error means that the stopper is gone, which is an end as well.
        if self.0.wait_for(|stopped| *stopped).await.is_err() {}
    }
}

/// What the end of a task means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// The node cannot work without it: an end before the stop, or a panic, stops the node.
    StopNode,
    /// Its end is an ordinary event and only logged.
    Log,
}

/// The set of everything that runs. Clones share the set.
#[derive(Clone)]
pub struct Tasks {
    running: Arc<Mutex<Vec<Named>>>,
    /// Name of the first task whose end stops the node.
    failed: watch::Sender<Option<&'static str>>,
}

/// A task that was started, and what it is called.
type Named = (&'static str, JoinHandle<()>);

impl Default for Tasks {
    fn default() -> Self {
        Self {
            running: Arc::default(),
            failed: watch::Sender::new(None),
        }
    }
}

impl Tasks {
    /// Runs `future` under `name` until it ends.
    #[expect(clippy::disallowed_methods, reason = "this is the task set")]
    pub fn spawn(
        &self,
        name: &'static str,
        on_exit: OnExit,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let guard = EndGuard {
            name,
            on_exit,
            failed: self.failed.clone(),
        };
        let handle = tokio::spawn(async move {
            let _guard = guard;
            future.await;
        });
        self.running.lock().push((name, handle));
    }

    /// Returns the name of a task whose end must stop the node, once there is one. Cancel safe.
    pub async fn failure(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or("unknown task"),
            Err(_) => "task set",
        }
    }

    /// Waits for all tasks, at most `limit`; answers the names of those still running. They go on
    /// until [`Tasks::abort`], so that they can be asked what they are at. Not cancel safe.
    pub async fn join_until(&self, limit: Duration) -> Vec<&'static str> {
        let mut running: Vec<_> = std::mem::take(&mut *self.running.lock());
        let all = async {
            for (_, handle) in &mut running {
                if handle.await.is_err() {} // a panic was reported by its guard
            }
        };
        if tokio::time::timeout(limit, all).await.is_ok() {
            return Vec::new();
        }
        running.retain(|(_, handle)| !handle.is_finished());
        let names = running.iter().map(|(name, _)| *name).collect();
        self.running.lock().append(&mut running);
        names
    }

    /// Ends all tasks at their next await.
    pub fn abort(&self) {
        for (_, handle) in self.running.lock().drain(..) {
            handle.abort();
        }
    }
}

struct EndGuard {
    name: &'static str,
    on_exit: OnExit,
    failed: watch::Sender<Option<&'static str>>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if self.on_exit == OnExit::StopNode {
            self.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                if first {
                    *failed = Some(self.name);
                }
                first
            });
        }
    }
}

/// Detached work that ends by itself (one connection, one attempt): its owner tracks it, not the set.
#[cfg(not(feature = "shuttle"))]
#[expect(clippy::disallowed_methods, reason = "this is the module that spawns")]
pub fn detach(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// Detached work, as a task of the schedule explorer.
#[cfg(feature = "shuttle")]
pub fn detach(future: impl Future<Output = ()> + Send + 'static) {
    drop(shuttle::future::spawn(future));
}

/// Answers a caller that may have gone away in the meantime: its work stands all the same.
pub fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::trace!("a caller went away before its answer");
    }
}

/// Runs a future that blocks now and then (on reads of the store) beside the async threads; `None` if
/// it panicked. On a runtime of one thread it runs in place, as [`blocking`] does. Not cancel safe: it
/// goes on when the caller does not wait.
#[cfg(not(feature = "shuttle"))]
pub async fn beside<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let runtime = tokio::runtime::Handle::current();
    if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
        return Some(future.await);
    }
    tokio::task::spawn_blocking(move || runtime.block_on(future))
        .await
        .ok()
}

/// A short piece of blocking work (a read from the store) beside the async threads; `None` if it
/// panicked or the runtime is ending. On a runtime of one thread, as tests and simulations have it,
/// it is done in place: what follows what is then decided by the seed alone. Cancel safe: the work
/// goes on and its result is dropped.
#[cfg(not(feature = "shuttle"))]
pub async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let flavor = tokio::runtime::Handle::current().runtime_flavor();
    if flavor == tokio::runtime::RuntimeFlavor::CurrentThread {
        return Some(body());
    }
    tokio::task::spawn_blocking(body).await.ok()
}

/// Runs a future that reads the store: others may run before it.
#[cfg(feature = "shuttle")]
pub async fn beside<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    shuttle::future::yield_now().await;
    Some(future.await)
}

/// A short piece of blocking work: others may run before it and after it.
#[cfg(feature = "shuttle")]
pub async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    shuttle::future::yield_now().await;
    let done = body();
    shuttle::future::yield_now().await;
    Some(done)
}

/// Waits. Cancel safe.
#[cfg(not(feature = "shuttle"))]
pub async fn pause(for_so_long: Duration) {
    tokio::time::sleep(for_so_long).await;
}

/// Lets others run: the schedule explorer has no time.
#[cfg(feature = "shuttle")]
pub async fn pause(_: Duration) {
    shuttle::future::yield_now().await;
}

/// A thread that was started.
#[cfg(not(feature = "shuttle"))]
pub type Thread = std::thread::JoinHandle<()>;
/// A thread of the schedule explorer.
#[cfg(feature = "shuttle")]
pub type Thread = shuttle::thread::JoinHandle<()>;

/// An operating-system thread with a name, for work that blocks (the commit thread, the watchdog).
#[cfg(not(feature = "shuttle"))]
#[expect(clippy::disallowed_methods, reason = "this is the module that spawns")]
pub fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
}

/// A thread of the schedule explorer.
#[cfg(feature = "shuttle")]
pub fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    shuttle::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_who_is_late() {
        let tasks = Tasks::default();
        tasks.spawn("quick", OnExit::Log, async {});
        tasks.spawn("stuck", OnExit::Log, std::future::pending());
        for _ in 0..2 {
            assert_eq!(tasks.join_until(Duration::from_secs(1)).await, ["stuck"]);
        }
        tasks.abort();
        assert!(tasks.join_until(Duration::from_secs(1)).await.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_reported() {
        let tasks = Tasks::default();
        tasks.spawn("vital", OnExit::StopNode, async {});
        assert_eq!(tasks.failure().await, "vital");
    }
}
