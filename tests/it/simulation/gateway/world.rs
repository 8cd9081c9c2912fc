//! What outlives a process: the disk, the endpoints, the clients' memory, the time, the dice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use posthaste::base::{Clock, Timestamp};
use posthaste::store::faults::Faults;
use posthaste::store::model::Model;
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::history::History;
use super::net::Peer;

/// 2026-01-05T08:15:30.120Z
const START: u64 = 1_767_600_930_120;
/// Virtual milliseconds after its answer until a change of an endpoint must be in force: an attempt
/// that had begun may be dialled a second time within a second.
pub(crate) const GRACE: u64 = 1200;

/// Virtual time over all lives of the process, and a wall clock that can be stepped.
pub(crate) struct SimClock {
    /// Milliseconds passed before this life, and when it began.
    life: Mutex<(u64, Option<tokio::time::Instant>)>,
    /// How far the wall clock was stepped, milliseconds.
    step: AtomicI64,
}

impl SimClock {
    /// Virtual milliseconds since the beginning of the run; no step moves them.
    pub(crate) fn passed(&self) -> u64 {
        let (before, began) = *self.life.lock();
        let here = began.map_or(Duration::ZERO, |began| {
            tokio::time::Instant::now().duration_since(began)
        });
        before + u64::try_from(here.as_millis()).unwrap()
    }

    /// What the wall clock says after so many virtual milliseconds, if it is never stepped.
    pub(crate) fn wall(&self, passed: u64) -> Timestamp {
        Timestamp::from_millis(START + passed)
    }

    pub(crate) fn begin(&self) {
        self.life.lock().1 = Some(tokio::time::Instant::now());
    }

    /// The process is gone for `down` milliseconds.
    pub(crate) fn end(&self, down: u64) {
        let passed = self.passed();
        *self.life.lock() = (passed + down, None);
    }

    pub(crate) fn step(&self, by_ms: i64) {
        self.step.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// How far the wall clock stands from virtual time.
    pub(crate) fn stepped(&self) -> i64 {
        self.step.load(Ordering::SeqCst)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let wall = (START + self.passed()).saturating_add_signed(self.stepped());
        Timestamp::from_millis(wall)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.passed())
    }
}

/// Everything of one run.
pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) peers: Mutex<Vec<Peer>>,
    pub(crate) history: Mutex<History>,
    pub(crate) counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Rules that were broken, with what broke them.
    pub(crate) broken: Mutex<Vec<String>>,
    /// The process was killed: nothing of it acts any more, nobody hears of it.
    pub(crate) dead: AtomicBool,
    /// Polls of the engine's tasks left until it is killed between two of them.
    pub(crate) polls_left: AtomicU64,
    /// What clients do since seeds were first kept that found a defect.
    pub(crate) newer: bool,
    dice: Mutex<ChaCha8Rng>,
}

impl World {
    pub(crate) fn new(seed: u64, newer: bool) -> Arc<Self> {
        Arc::new(Self {
            model: Model::with_faults(Faults::none()),
            clock: Arc::new(SimClock {
                life: Mutex::new((0, None)),
                step: AtomicI64::new(0),
            }),
            peers: Mutex::default(),
            history: Mutex::default(),
            counts: Mutex::default(),
            broken: Mutex::default(),
            dead: AtomicBool::new(false),
            polls_left: AtomicU64::new(u64::MAX),
            newer,
            dice: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        })
    }

    pub(crate) fn roll<T: SampleUniform>(&self, range: impl SampleRange<T>) -> T {
        self.dice.lock().random_range(range)
    }

    pub(crate) fn chance(&self, percent: u32) -> bool {
        self.roll(0..100) < percent
    }

    /// Something that must happen sometimes, did.
    pub(crate) fn saw(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    pub(crate) fn broke(&self, rule: &str, how: impl std::fmt::Display) {
        let at = self.clock.passed();
        self.broken.lock().push(format!("{rule} at {at} ms: {how}"));
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}
