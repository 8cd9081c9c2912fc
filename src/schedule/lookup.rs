//! What the store says of the deliveries that a request can act on: read beside the driver, which
//! takes nothing in meanwhile that changes them.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::core::{Input, Stored, order_key};
use super::pages::find_row;
use super::{Error, Request};
use crate::base::{Timestamp, task};
use crate::directory::Snapshot;
use crate::model::{Delivery, Order, ParkReason};
use crate::store::{self, Reader};

/// Who asked, and for what.
pub(super) struct Asked {
    pub(super) deliveries: Vec<Delivery>,
    /// `Some` = try again, with a new schedule or not; `None` = cancel.
    pub(super) retry: Option<bool>,
    pub(super) reply: oneshot::Sender<Result<usize, Error>>,
}

impl Asked {
    /// The part of a request that needs the store.
    pub(super) fn of(request: Request) -> Option<Self> {
        match request {
            Request::Retry {
                deliveries,
                fresh,
                reply,
            } => Some(Self {
                deliveries,
                retry: Some(fresh),
                reply,
            }),
            Request::Cancel(deliveries, reply) => Some(Self {
                deliveries,
                retry: None,
                reply,
            }),
            Request::Live(..)
            | Request::Open(..)
            | Request::Sending(..)
            | Request::CancelPending(..)
            | Request::Defaults(..) => None,
        }
    }
}

/// A reading under way.
pub(super) struct Lookup {
    pub(super) asked: Asked,
    found: oneshot::Receiver<Result<Vec<Stored>, store::Error>>,
}

impl Lookup {
    /// Begins to read. `in_memory` are found without the store.
    pub(super) fn begin(
        mut asked: Asked,
        in_memory: impl Fn(Delivery) -> bool,
        reader: Arc<dyn Reader>,
        (snapshot, now): (Arc<Snapshot>, Timestamp),
    ) -> Self {
        let (there, elsewhere) = std::mem::take(&mut asked.deliveries)
            .into_iter()
            .partition::<Vec<_>, _>(|delivery| in_memory(*delivery));
        let is_retry = asked.retry.is_some();
        let retry_at = is_retry.then_some(now);
        let (to, found) = oneshot::channel();
        let read = task::blocking(move || {
            // In memory: nothing to try again; to be cancelled it needs no row.
            let there = there.into_iter().filter(|_| !is_retry);
            let there = there.map(Stored::in_memory).map(|stored| Ok(Some(stored)));
            let read = elsewhere
                .into_iter()
                .map(|delivery| stored(reader.as_ref(), &snapshot, delivery, retry_at));
            let all: Result<Vec<Option<Stored>>, store::Error> = there.chain(read).collect();
            task::answer(to, all.map(|all| all.into_iter().flatten().collect()));
        });
        task::detach(async move {
            if read.await.is_none() {
                tracing::error!("the store could not be asked for what a request is about");
            }
        });
        Self { asked, found }
    }
}

/// Resolves when a reading is done; never, if there is none. Cancel safe.
pub(super) async fn looked_up(lookup: &mut Option<Lookup>) -> Result<Vec<Stored>, Error> {
    match lookup {
        Some(lookup) => match (&mut lookup.found).await {
            Ok(found) => found.map_err(Error::Store),
            Err(_) => Err(Error::Busy), // the reading panicked
        },
        None => std::future::pending().await,
    }
}

/// What the core must do, for what was found.
pub(super) fn input(retry: Option<bool>, found: Vec<Stored>) -> Input {
    match retry {
        Some(fresh) => Input::Retry {
            deliveries: found,
            fresh,
        },
        None => Input::Cancel(found),
    }
}

fn stored(
    reader: &dyn Reader,
    snapshot: &Snapshot,
    delivery: Delivery,
    retry_at: Option<Timestamp>,
) -> Result<Option<Stored>, store::Error> {
    let Some(message) = reader.message(delivery.at)? else {
        return Ok(None);
    };
    if retry_at.is_some_and(|now| message.has_ended(now)) {
        return Ok(None); // nothing new begins after the end of its payload
    }
    let attempts = reader.attempts(delivery.at, Some(delivery.endpoint))?;
    let last = attempts.last();
    let endpoint = snapshot.endpoint(delivery.endpoint);
    let by_key = endpoint.is_some_and(|endpoint| endpoint.order == Order::Key);
    let verdict = last.map(|attempt| attempt.verdict);
    let row = find_row(reader, delivery, verdict, by_key)?;
    if retry_at.is_none() && row.is_none() {
        return Ok(None);
    }
    let is_further = last.is_none() && !message.targets.contains(&delivery.endpoint);
    let ends = message.payload_ends().filter(|_| is_further);
    // Without a row it came to its end: delivered, dead or cancelled.
    let finished = row
        .as_ref()
        .is_none_or(|row| row.reason == ParkReason::Once);
    Ok(Some(Stored {
        delivery,
        row,
        attempts: last.map_or(0, |attempt| attempt.no),
        finished,
        bytes: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
        order_key: message.ordering_key().map_or(0, order_key),
        ends,
    }))
}
