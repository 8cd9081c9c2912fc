//! What was open when the last run ended.
//!
//! The log is the truth: behind each lane's checkpoint, a delivery with neither an attempt nor a
//! parked row nor a cancellation is open and is handed to the core again. That is seconds of traffic,
//! never the whole store; parked rows are not read, only counted from the endpoints' states.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, info};

use super::core::{Core, Input};
use super::pages::{put_off, waiting_row};
use super::plan;
use crate::base::Timestamp;
use crate::config;
use crate::directory::Directory;
use crate::model::{Delivery, EndpointNo, Message, Order, ParkedKey, Position};
use crate::store::{self, Lane, Reader};

/// Messages looked at in one step.
const PAGE: usize = 256;

/// What is left to read after [`begin`].
pub struct Recovery {
    lanes: Vec<Lane>,
    reader: Arc<dyn Reader>,
    directory: Arc<Directory>,
}

/// Tells the core of all endpoints, their states and the lanes of earlier runs, and counts what is
/// parked into the load of the applications.
pub fn begin(
    core: &mut Core,
    now: Timestamp,
    reader: &Arc<dyn Reader>,
    directory: &Arc<Directory>,
    config: &config::Delivery,
) -> Result<Recovery, store::Error> {
    let mut none = Vec::new();
    let snapshot = directory.snapshot();
    let mut endpoints: Vec<_> = snapshot.endpoints().collect();
    endpoints.sort_unstable_by_key(|endpoint| endpoint.no); // the first to come is the first served
    for endpoint in endpoints {
        core.step(
            now,
            Input::Endpoint(Box::new(plan::of(endpoint, config))),
            &mut none,
        );
    }
    for entry in snapshot.apps() {
        if let Some(quota) = plan::quota(&snapshot, entry.app.no) {
            core.step(now, Input::Quota(entry.app.no, Some(quota)), &mut none);
        }
    }
    for (no, state) in reader.endpoint_states()? {
        core.step(now, Input::State(no, state), &mut none);
        let app = snapshot
            .endpoint(no)
            .and_then(|ep| snapshot.app_by_no(ep.app));
        if let Some(entry) = app {
            entry.load.add(state.parked, state.parked_bytes);
        }
    }
    let lanes = reader.lanes()?;
    for lane in &lanes {
        core.step(now, Input::Lane(lane.id, lane.checkpoint), &mut none);
    }
    Ok(Recovery {
        lanes,
        reader: Arc::clone(reader),
        directory: Arc::clone(directory),
    })
}

impl Recovery {
    /// Reads what is open and hands it over; blocks. When it returns the sender is dropped, which
    /// tells the driver that recovery is done. The channel is bounded: a slow driver slows this.
    pub fn run(self, recovered: &mpsc::Sender<Input>) -> Result<(), store::Error> {
        let mut messages = 0_u64;
        let mut deliveries = 0_usize;
        for lane in self.lanes.iter().filter(|lane| lane.last > lane.checkpoint) {
            let mut after = Position {
                lane: lane.id,
                seq: lane.checkpoint,
            };
            while after.seq < lane.last {
                let page = self.reader.fetch(after, PAGE)?;
                let Some(last) = page.last().map(|message| message.at.seq) else {
                    break;
                };
                let mut open = Vec::new();
                for message in page {
                    messages += 1;
                    let endpoints = self.open_targets(&message)?;
                    deliveries += endpoints.len();
                    if !endpoints.is_empty() {
                        self.count(&message, endpoints.len());
                        open.push((Arc::new(message), endpoints));
                    }
                }
                after.seq = last;
                let input = Input::Recovered {
                    lane: lane.id,
                    last,
                    open,
                };
                if recovered.blocking_send(input).is_err() {
                    error!("recovery was cut off; the rest is recovered at the next start");
                    return Ok(());
                }
            }
        }
        info!(messages, deliveries, "recovered what was open");
        Ok(())
    }

    fn open_targets(&self, message: &Message) -> Result<Vec<EndpointNo>, store::Error> {
        let snapshot = self.directory.peek();
        open_deliveries(self.reader.as_ref(), message, |endpoint| {
            snapshot
                .endpoint(endpoint)
                .is_some_and(|ep| ep.order == Order::Key)
        })
    }

    fn count(&self, message: &Message, deliveries: usize) {
        let deliveries = u64::try_from(deliveries).unwrap_or(u64::MAX);
        let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        let snapshot = self.directory.peek();
        let app = snapshot.app_by_no(message.app);
        if let Some(entry) = app {
            let bytes = bytes.saturating_mul(deliveries);
            entry.load.add(deliveries, bytes);
        }
    }
}

/// The endpoints for which a message behind the checkpoint is open: nothing in the store says that
/// its delivery was tried, parked or cancelled. `by_key` tells endpoints with `order: key`.
pub fn open_deliveries(
    reader: &dyn Reader,
    message: &Message,
    by_key: impl Fn(EndpointNo) -> bool,
) -> Result<Vec<EndpointNo>, store::Error> {
    if message.targets.is_empty() {
        return Ok(Vec::new());
    }
    let attempts = reader.attempts(message.at, None)?;
    let mut open = Vec::new();
    for &endpoint in &message.targets {
        let at = message.at;
        let backlog = ParkedKey {
            endpoint,
            due: Timestamp::ZERO,
            at,
        };
        let settled = attempts.iter().any(|attempt| attempt.endpoint == endpoint)
            || reader.parked_row(backlog)?.is_some()
            || put_off(reader, message, endpoint)?.is_some()
            || reader.is_cancelled(Delivery { at, endpoint })?
            || (by_key(endpoint) && waiting_row(reader, Delivery { at, endpoint })?.is_some());
        if !settled {
            open.push(endpoint);
        }
    }
    Ok(open)
}
