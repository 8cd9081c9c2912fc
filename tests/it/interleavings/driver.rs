//! The scheduler's driver between the lane, the attempts and those who ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use posthaste::base::task::Stopper;
use posthaste::config;
use posthaste::directory::Directory;
use posthaste::lane::Lane;
use posthaste::model::{
    AppNo, Delivery, DisablePolicy, Endpoint, EndpointNo, Order, Outcome, Verdict,
};
use posthaste::policy::outcome;
use posthaste::policy::retry::RetryPlan;
use posthaste::schedule::core::{Core, Failing, Input, Job, Plan, Settings};
use posthaste::schedule::{Announcer, Attempts, Driver, Exchange, Inbox, Parts, Request, Status};
use posthaste::store::Reader;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use shuttle::future::{block_on, yield_now};
use shuttle::thread;
use tokio::sync::{mpsc, oneshot, watch};

use super::{accept, bench, explore};

const HERE: EndpointNo = EndpointNo(1);

/// Answers 500 to the first `failing` attempts, 200 afterwards.
struct Peer {
    failing: usize,
    made: AtomicUsize,
    under_way: AtomicUsize,
}

impl Attempts for Peer {
    async fn attempt(&self, _: Job) -> Exchange {
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        assert!(others < 2, "over the limit of two at a time");
        yield_now().await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let made = self.made.fetch_add(1, Ordering::SeqCst);
        let status = if made < self.failing { 500 } else { 200 };
        let outcome: Outcome = outcome::of_status(status, None);
        Exchange {
            outcome,
            response: bytes::Bytes::new(),
            duration_ms: 1,
            resolver_down: false,
        }
    }
}

/// A running driver over a lane.
struct Engine {
    lane: Lane,
    reader: Arc<dyn Reader>,
    requests: mpsc::Sender<Request>,
    stopper: Stopper,
    driver: thread::JoinHandle<()>,
    peer: Arc<Peer>,
    // Held for those who send into them.
    _status: watch::Receiver<Status>,
    _changed: mpsc::Sender<Arc<Endpoint>>,
}

fn engine(failing: usize) -> Engine {
    let bench = bench(8, 1);
    let (changed_to, changed) = mpsc::channel(4);
    let directory = Directory::load(
        bench.reader.as_ref(),
        bench.lane.clone(),
        changed_to.clone(),
        crate::kit::vault(),
    )
    .unwrap();
    let directory = Arc::new(directory);
    let peer = Arc::new(Peer {
        failing,
        made: AtomicUsize::new(0),
        under_way: AtomicUsize::new(0),
    });
    let (announcer, _) = Announcer::new(
        bench.lane.clone(),
        Arc::clone(&directory),
        Arc::clone(&bench.clock),
    );
    let mut core = Core::new(Settings::default());
    let plan = Plan {
        endpoint: HERE,
        app: AppNo(1),
        destination: 0,
        sending: true,
        disabled_by_hand: false,
        deleted: false,
        concurrency: 2,
        rate: None,
        failing: Arc::new(Failing {
            retry: RetryPlan {
                delays: vec![Duration::from_millis(5); 4].into(),
                jitter: 0.0,
                max_retry_after: Duration::from_secs(60),
            },
            disable: DisablePolicy::Never,
        }),
        order: Order::None,
    };
    core.step(
        bench.clock.now(),
        Input::Endpoint(Box::new(plan)),
        &mut Vec::new(),
    );
    let parts = Parts {
        attempts: Arc::clone(&peer),
        lane: bench.lane.clone(),
        reader: Arc::clone(&bench.reader),
        directory,
        clock: bench.clock,
        config: Arc::new(config::Delivery::default()),
        random: ChaCha8Rng::seed_from_u64(1),
        announcer,
    };
    let (status_to, status) = watch::channel(Status::default());
    let (requests, requests_in) = mpsc::channel(1);
    let (_, recovered) = mpsc::channel(1); // there was no earlier run
    let inbox = Inbox {
        committed: bench.committed,
        changed,
        requests: requests_in,
        recovered,
    };
    let (stopper, stop) = Stopper::new();
    let driver = Driver::new(core, parts, inbox, status_to).run(stop);
    Engine {
        lane: bench.lane,
        reader: bench.reader,
        requests,
        stopper,
        driver: thread::spawn(move || block_on(driver)),
        peer,
        _status: status,
        _changed: changed_to,
    }
}

impl Engine {
    fn publish(&self, mark: u64) -> thread::JoinHandle<Delivery> {
        let lane = self.lane.clone();
        thread::spawn(move || {
            let batch = vec![accept(mark, &[HERE])];
            let messages = block_on(lane.append(batch).unwrap().committed()).unwrap();
            Delivery {
                at: messages[0].at,
                endpoint: HERE,
            }
        })
    }

    /// Asks and waits for the answer.
    fn retry(&self, of: Delivery) -> usize {
        let (reply, answer) = oneshot::channel();
        let request = Request::Retry {
            deliveries: vec![of],
            fresh: false,
            reply,
        };
        block_on(self.requests.send(request))
            .map_err(|_| ())
            .unwrap();
        block_on(answer).unwrap().unwrap()
    }

    /// Delivered, or cancelled.
    fn is_over(&self, delivery: Delivery) -> bool {
        let attempts = self.reader.attempts(delivery.at, Some(HERE)).unwrap();
        attempts.iter().any(|a| a.verdict == Verdict::Delivered)
            || self.reader.is_cancelled(delivery).unwrap()
    }

    fn wait_for(&self, what: impl Fn() -> bool) {
        while !what() {
            thread::yield_now();
        }
    }

    fn end(self) {
        self.stopper.stop();
        self.driver.join().unwrap();
        block_on(self.lane.close()).unwrap();
        assert_eq!(self.peer.under_way.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn what_is_committed_is_delivered_once_and_a_cancellation_ends_it_or_comes_too_late() {
    explore(600, || {
        let engine = engine(1);
        let published: Vec<_> = (0..2).map(|mark| engine.publish(mark)).collect();
        let deliveries: Vec<Delivery> = published.into_iter().map(|p| p.join().unwrap()).collect();
        let (reply, answer) = oneshot::channel();
        block_on(
            engine
                .requests
                .send(Request::Cancel(vec![deliveries[0]], reply)),
        )
        .map_err(|_| ())
        .unwrap();
        let cancelled = block_on(answer).unwrap().unwrap();
        engine.wait_for(|| deliveries.iter().all(|d| engine.is_over(*d)));
        for delivery in &deliveries {
            let attempts = engine.reader.attempts(delivery.at, Some(HERE)).unwrap();
            let successes = attempts
                .iter()
                .filter(|a| a.verdict == Verdict::Delivered)
                .count();
            let gone = engine.reader.is_cancelled(*delivery).unwrap();
            assert_eq!(
                successes + usize::from(gone),
                1,
                "{delivery:?} is in exactly one state"
            );
            if *delivery == deliveries[0] && cancelled == 1 && successes == 1 {
                assert!(attempts.len() <= 2, "at most the one under way");
            }
            if *delivery != deliveries[0] {
                assert!(!gone, "nobody cancelled it");
            }
        }
        engine.end();
    });
}

#[test]
fn a_resend_that_meets_an_ending_attempt_is_one_attempt_more_or_none() {
    explore(600, || {
        let engine = engine(0);
        let delivery = engine.publish(1).join().unwrap();
        let taken = engine.retry(delivery);
        engine.wait_for(|| {
            let attempts = engine.reader.attempts(delivery.at, Some(HERE)).unwrap();
            attempts.len() == 1 + taken
        });
        let other = engine.publish(2);
        let again = engine.retry(delivery);
        assert_eq!(again, 1, "it was delivered: a resend is always taken on");
        let other = other.join().unwrap();
        engine.wait_for(|| {
            let attempts = engine.reader.attempts(delivery.at, Some(HERE)).unwrap();
            attempts.len() == 2 + taken && engine.is_over(other)
        });
        let rows = engine
            .reader
            .parked(HERE, None, posthaste::base::Timestamp::MAX, 9)
            .unwrap();
        assert!(rows.is_empty() || rows.len() == 1, "{rows:?}");
        engine.end();
    });
}

#[test]
fn stopping_waits_for_what_is_under_way_and_answers_everyone() {
    explore(600, || {
        let engine = engine(0);
        let published = engine.publish(1);
        let asking = {
            let requests = engine.requests.clone();
            thread::spawn(move || {
                let (reply, answer) = oneshot::channel();
                let delivery = Delivery {
                    at: posthaste::model::Position::START,
                    endpoint: HERE,
                };
                let asked = block_on(requests.send(Request::Live(vec![delivery], reply)));
                // The driver answers, or is gone and says so by that: nobody waits for ever.
                asked.is_ok().then(|| block_on(answer).ok())
            })
        };
        engine.stopper.stop();
        let delivery = published.join().unwrap();
        asking.join().unwrap();
        let reader = Arc::clone(&engine.reader);
        let made = Arc::clone(&engine.peer);
        engine.end();
        let stored = reader.attempts(delivery.at, Some(HERE)).unwrap().len();
        assert_eq!(
            stored,
            made.made.load(Ordering::SeqCst),
            "what was made is recorded"
        );
    });
}
