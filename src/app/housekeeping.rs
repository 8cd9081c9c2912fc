//! What is looked at every few seconds: room on the disk, the size of the store, the age
//! of the newest backup, the system's clock.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::build::Engine;
use crate::api::ApiState;
use crate::backup::Backups;
use crate::base::task::{OnExit, Stop, Tasks};
use crate::base::{Clock, SystemClock};
use crate::config::Config;
use crate::lane::Lane;
use crate::metrics::StoreMetrics;
use crate::policy::watermark::{self, Level, Room};
use crate::schedule::StoreNews;
use crate::store::Space;

/// Space and clock are looked at this often.
const EVERY: Duration = Duration::from_secs(2);
/// Whether a quota is used up is looked at this often.
const QUOTAS: Duration = Duration::from_secs(5);
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
        keep(guard, clock, backups, stop.clone()),
    );
}

async fn keep(mut guard: Guard, clock: SystemClock, backups: Arc<Backups>, mut stop: Stop) {
    let metrics = StoreMetrics::register();
    loop {
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
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.stopped() => return,
        }
    }
}

/// What needs the API: figures that are stored or sampled now and then, and quotas.
pub(super) fn with_api(engine: &Engine, api: &Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    sample_capacity(Arc::clone(api), tasks, stop);
    watch_quotas(engine, tasks, stop);
    note_keys(Arc::clone(api), tasks, stop);
}

/// Stores when keys were last used, every ten minutes and at the end; lets the disk forget what was
/// expunged.
fn note_keys(api: Arc<ApiState>, tasks: &Tasks, stop: &Stop) {
    let mut stop = stop.clone();
    tasks.spawn("key use", OnExit::Log, async move {
        while !stop.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(KEY_USE) => {}
                () = stop.stopped() => {}
            }
            api.store_last_use().await;
            if !stop.is_stopped() {
                api.scrub().await;
            }
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
fn watch_quotas(engine: &Engine, tasks: &Tasks, stop: &Stop) {
    let (directory, clock) = (Arc::clone(&engine.directory), Arc::clone(&engine.clock));
    let (news, mut stop) = (engine.quota_news.clone(), stop.clone());
    tasks.spawn("quotas", OnExit::Log, async move {
        loop {
            let now = clock.now();
            for entry in directory.snapshot().apps() {
                let usage = entry.load.usage();
                if let (Some(limit), true) = (usage.limit(), usage.is_news(now)) {
                    warn!(app = %entry.app.id, limit, "the deliveries of this month are used up");
                    news.reached(entry.app.no, limit, usage.used(now).month.end());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(QUOTAS) => {}
                () = stop.stopped() => return,
            }
        }
    });
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
