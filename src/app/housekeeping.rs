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
use crate::store::Space;

/// Space and clock are looked at this often.
const EVERY: Duration = Duration::from_secs(2);
/// Whether a quota is used up is looked at this often.
const QUOTAS: Duration = Duration::from_secs(10);
/// When keys were last used is stored this often.
const KEY_USE: Duration = Duration::from_secs(600);
/// What the instance takes is sampled this often.
const SAMPLE: Duration = Duration::from_secs(60);
/// A clock that moved further than this is taken over (`reliability.md` 6, Clock).
const STEP: i64 = 2_000;

pub(super) fn start(engine: &Engine, config: &Config, tasks: &Tasks, stop: &Stop) {
    let (lane, clock) = (engine.lane.clone(), engine.clock.as_ref().clone());
    let reserve = config.storage.reserve.get();
    tasks.spawn(
        "housekeeping",
        OnExit::Log,
        keep(
            lane,
            clock,
            Arc::clone(&engine.backups),
            reserve,
            stop.clone(),
        ),
    );
}

async fn keep(lane: Lane, clock: SystemClock, backups: Arc<Backups>, reserve: u64, mut stop: Stop) {
    let metrics = StoreMetrics::register();
    let mut short = false;
    loop {
        if let Ok(space) = lane.space().await {
            show(&metrics, &space);
            short = judge(&lane, &space, reserve, short);
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

/// Below the reserve new messages are refused; deliveries and their outcomes go on (D3).
fn judge(lane: &Lane, space: &Space, reserve: u64, was_short: bool) -> bool {
    let short = space.free < reserve;
    lane.refuse_messages(short);
    match (was_short, short) {
        (false, true) => warn!(
            free = space.free,
            reserve, "disk space is low: ingest is refused"
        ),
        (true, false) => info!(free = space.free, "disk space is back: ingest goes on"),
        (true, true) | (false, false) => {}
    }
    short
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
