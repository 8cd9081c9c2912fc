//! What is looked at every few seconds: room on the disk, the size of the store, the age of the newest
//! backup, the system's clock, quotas that are used up. And every ten minutes: when keys were last used,
//! payloads whose time is over, and what the disk is to forget.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::build::Engine;
use crate::api::ApiState;
use crate::backup::Backups;
use crate::base::task::{OnExit, Stop, Tasks};
use crate::base::{Clock, SystemClock};
use crate::config::Config;
use crate::directory::Directory;
use crate::lane::Lane;
use crate::metrics::StoreMetrics;
use crate::policy::watermark::{self, Level, Room};
use crate::schedule::{QuotaNews, StoreNews};
use crate::store::Space;

/// Space and clock are looked at this often.
const EVERY: Duration = Duration::from_secs(2);
/// The same while nothing comes in and there is room: an idle process is to wake no more than it must.
const EVERY_IDLE: Duration = Duration::from_secs(10);
/// All applications are asked no more often than this whether their quota is used up.
const EVERY_QUOTA: Duration = Duration::from_secs(4);
/// Payloads whose time is over are taken away this often, and the disk forgets what was expunged.
const CONTENT: Duration = Duration::from_secs(600);
/// For the first time after this.
const FIRST_CONTENT: Duration = Duration::from_secs(60);
/// When keys were last used is stored this often.
const KEY_USE: Duration = Duration::from_secs(600);
/// What the instance takes is sampled this often.
const SAMPLE: Duration = Duration::from_secs(60);
/// A clock that moved further than this is taken over (`reliability.md` 6, Clock).
const STEP: i64 = 2_000;

pub(super) fn start(engine: &Engine, config: &Config, tasks: &Tasks, stop: &Stop) {
    let clock = engine.clock.as_ref().clone();
    let guard = Guard {
        lane: engine.lane.clone(),
        news: engine.store_news.clone(),
        reserve: config.storage.reserve.get(),
        budget: config.storage.budget.get(),
        level: Level::Ok,
    };
    let backups = Arc::clone(&engine.backups);
    tasks.spawn(
        "housekeeping",
        OnExit::Log,
        keep(guard, Quotas::of(engine), clock, backups, stop.clone()),
    );
}

async fn keep(
    mut guard: Guard,
    mut quotas: Quotas,
    clock: SystemClock,
    backups: Arc<Backups>,
    mut stop: Stop,
) {
    let metrics = StoreMetrics::register();
    let mut commits = guard.lane.commits();
    loop {
        let came = commits.has_changed().unwrap_or(false);
        commits.mark_unchanged();
        if let Ok(space) = guard.lane.space().await {
            show(&metrics, &space);
            guard.judge(&space);
            metrics.watermark.set(f64::from(guard.level as u8));
        }
        backups.show_age();
        let moved = clock.resync();
        if moved.abs() > STEP {
            warn!(moved_ms = moved, "the system's clock was stepped");
        }
        quotas.look();
        let rests = !came && guard.level == Level::Ok;
        tokio::select! {
            () = pause(rests, &mut commits) => {}
            () = stop.stopped() => return,
        }
    }
}

/// Until the next look: soon after something came in, or after the longer time.
async fn pause(rests: bool, commits: &mut watch::Receiver<()>) {
    if rests {
        let came = tokio::time::timeout(EVERY_IDLE, commits.changed()).await;
        if !matches!(came, Ok(Ok(()))) {
            return;
        }
        commits.mark_changed();
    }
    tokio::time::sleep(EVERY).await;
}

/// What needs the API: figures that are stored or sampled now and then.
pub(super) fn with_api(api: &Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    sample_capacity(Arc::clone(api), tasks, stop);
    note_keys(Arc::clone(api), tasks, stop);
    take_content_away(Arc::clone(api), tasks, stop);
}

/// Takes payloads away whose time is over, and lets the disk forget what was expunged.
fn take_content_away(api: Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    let mut stop = stop.clone();
    tasks.spawn("content", OnExit::Log, async move {
        let mut wait = FIRST_CONTENT;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.stopped() => return,
            }
            api.end_payloads(&stop).await;
            if !stop.is_stopped() {
                api.scrub().await;
            }
            wait = CONTENT;
        }
    });
}

/// Stores when keys were last used, every ten minutes and at the end.
fn note_keys(api: Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    let mut stop = stop.clone();
    tasks.spawn("key use", OnExit::Log, async move {
        while !stop.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(KEY_USE) => {}
                () = stop.stopped() => {}
            }
            api.store_last_use().await;
        }
    });
}

/// Samples what the instance takes, once a minute.
fn sample_capacity(api: Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    let mut stop = stop.clone();
    tasks.spawn("capacity", OnExit::Log, async move {
        loop {
            api.sample_capacity().await;
            tokio::select! {
                () = tokio::time::sleep(SAMPLE) => {}
                () = stop.stopped() => return,
            }
        }
    });
}

/// Tells once a month of each application that has used up its deliveries.
struct Quotas {
    directory: Arc<Directory>,
    clock: Arc<SystemClock>,
    news: QuotaNews,
    /// When they were looked at last, on the monotonic clock.
    looked: Duration,
}

impl Quotas {
    fn of(engine: &Engine) -> Self {
        Self {
            directory: Arc::clone(&engine.directory),
            clock: Arc::clone(&engine.clock),
            news: engine.quota_news.clone(),
            looked: Duration::ZERO,
        }
    }

    /// Looks unless the last look is too recent. Also when nothing came in: a quota that was lowered may be
    /// used up already, and refuses whatever would come.
    fn look(&mut self) {
        let passed = self.clock.monotonic();
        if passed.saturating_sub(self.looked) >= EVERY_QUOTA {
            self.looked = passed;
            self.tell();
        }
    }

    fn tell(&self) {
        let now = self.clock.now();
        for entry in self.directory.snapshot().apps() {
            let usage = entry.load.usage();
            if let (Some(limit), true) = (usage.limit(), usage.is_news(now)) {
                warn!(app = %entry.app.id, limit, "the deliveries of this month are used up");
                let until = usage.used(now).month.end();
                self.news.reached(entry.app.no, limit, until);
            }
        }
    }
}

/// Watches the room on the disk.
struct Guard {
    lane: Lane,
    news: StoreNews,
    reserve: u64,
    budget: u64,
    level: Level,
}

impl Guard {
    /// Below the reserve or above the budget new messages are refused; deliveries and their outcomes go
    /// on (D3). What is not delivered is never dropped to make room.
    fn judge(&mut self, space: &Space) {
        let room = Room {
            used: space.used,
            free: space.free,
            budget: self.budget,
            reserve: self.reserve,
        };
        let level = watermark::level(room, self.level);
        self.lane.refuse_messages(level == Level::Hard);
        if level == self.level {
            return;
        }
        let (free, used) = (space.free, space.used);
        match (self.level, level) {
            (_, Level::Hard) => warn!(
                free,
                used,
                reserve = self.reserve,
                budget = self.budget,
                "disk space is low: ingest is refused"
            ),
            (Level::Ok, _) => warn!(free, used, "disk space is running low"),
            (Level::Hard, _) => info!(free, used, "disk space is back: ingest goes on"),
            (Level::Soft, _) => info!(free, used, "there is enough disk space again"),
        }
        self.level = level;
        self.news.watermark(level, room);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floats; byte counts below 2^53 are exact"
)]
fn show(metrics: &StoreMetrics, space: &Space) {
    metrics.bytes.set(space.used as f64);
    metrics.free_bytes.set(space.free as f64);
    metrics.journals.set(space.journals as f64);
    metrics.journal_bytes.set(space.journal_bytes as f64);
}

/// Ends streams of events as soon as the process shall end.
pub(super) fn end_tails(api: Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    let mut stop = stop.clone();
    tasks.spawn("tails", OnExit::Log, async move {
        stop.stopped().await;
        api.end_tails();
    });
}
