//! Interleavings of the hand-over between requests, commit thread, scheduler and waiters (T61).
//!
//! The real lane, directory and driver; only what they are made of (channel, atomics, threads, tasks)
//! is shuttle's, which runs one thread at a time and decides by a seed which one goes on at every
//! step. A lost wake-up is a deadlock, and shuttle finds deadlocks.
//!
//! Built with `--features shuttle`; `POSTHASTE_SCHEDULES` sets how many schedules each test tries. A
//! failure prints a schedule that `shuttle::replay` takes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test kit: a failure is a failed test"
)]

mod directory;
mod driver;
mod lane;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use posthaste::base::{Clock, Timestamp};
use posthaste::lane::{Committed, Lane, Options};
use posthaste::model::{AppNo, ContentType, EndpointNo, Message, Position};
use posthaste::store::model::{Model, ModelWriter};
use posthaste::store::{Accept, Reader};
use shuttle::Config;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use tokio::sync::mpsc;

/// Tries out many schedules: half of them random, half with few switches at the worst places.
fn explore(usual: usize, test: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("POSTHASTE_SCHEDULES");
    let schedules = schedules.ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let test = Arc::new(test);
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    let random = Arc::clone(&test);
    let runner = shuttle::Runner::new(RandomScheduler::new(schedules / 2), config.clone());
    runner.run(move || random());
    let runner = shuttle::Runner::new(PctScheduler::new(3, schedules / 2), config);
    runner.run(move || test());
}

/// Every look moves it on by a millisecond, so that whatever waits for a time comes to its turn.
#[derive(Default)]
struct TickingClock(AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        let passed = self.0.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_millis(1_767_600_000_000 + passed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// A lane with its thread over a fresh store.
struct Bench {
    model: Model,
    lane: Lane,
    reader: Arc<dyn Reader>,
    committed: mpsc::Receiver<Committed>,
    clock: Arc<dyn Clock>,
}

/// `queue` messages may wait; `room` groups fit between the lane and the scheduler.
fn bench(queue: usize, room: usize) -> Bench {
    let model = Model::new();
    let (writer, reader): (ModelWriter, _) = model.open();
    let (committed_to, committed) = mpsc::channel(room);
    let clock: Arc<dyn Clock> = Arc::new(TickingClock::default());
    let options = Options {
        queue,
        queue_bytes: 1 << 20,
        max_group: 2,
    };
    let lane = Lane::start(Box::new(writer), Arc::clone(&clock), options, committed_to).unwrap();
    Bench {
        model,
        lane,
        reader,
        committed,
        clock,
    }
}

fn accept(mark: u64, targets: &[EndpointNo]) -> Accept {
    Accept {
        message: Message {
            at: Position::START,
            accepted: Timestamp::ZERO,
            app: AppNo(1),
            event_type: Arc::from("invoice.paid"),
            content_type: ContentType::Json,
            payload: bytes::Bytes::from(mark.to_string()),
            targets: targets.to_vec(),
            labels: None,
        },
        idempotency: None,
    }
}

fn mark(message: &Message) -> u64 {
    std::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

/// Everything in the store, oldest first.
fn stored(reader: &dyn Reader, lane: &Lane) -> Vec<u64> {
    let start = Position {
        lane: lane.id(),
        seq: 0,
    };
    let messages = reader.fetch(start, usize::MAX).unwrap();
    messages.iter().map(mark).collect()
}
