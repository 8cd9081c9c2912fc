//! What the API may ask of the scheduler.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::core::Cancelled;
use super::pages::find_row;
use crate::base::Timestamp;
use crate::config;
use crate::directory::Directory;
use crate::model::{
    Attempt, Delivery, DeliveryState, EndpointNo, Message, MessageId, Order, Verdict,
};
use crate::store::{self, Reader};

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error("the history cannot be read")]
    Store(#[from] store::Error),
    /// The scheduler is busy with earlier requests, or ending. Try again in a moment.
    #[error("the scheduler does not take requests at the moment")]
    Busy,
    /// The change could not be stored.
    #[error("the change was not stored")]
    NotStored,
}

/// What the scheduler is asked. Each carries the way back.
pub enum Request {
    /// States of deliveries that are in memory; `None` for those that are not.
    Live(Vec<Delivery>, oneshot::Sender<Vec<Option<DeliveryState>>>),
    /// Try these again now, whatever came of them; answers how many were taken on. Deliveries that
    /// are waiting in memory or sending are left as they are. `fresh` starts the schedule anew.
    Retry {
        /// Which.
        deliveries: Vec<Delivery>,
        /// A new schedule (recover, replay) instead of one attempt (resend).
        fresh: bool,
        /// Number of deliveries taken on, once that is on stable storage.
        reply: oneshot::Sender<Result<usize, Error>>,
    },
    /// Endpoints that do not say otherwise go by these defaults from now on.
    Defaults(Arc<config::Delivery>),
    /// Cancel these if they are not finished; answers how many were.
    Cancel(Vec<Delivery>, oneshot::Sender<Result<usize, Error>>),
    /// Cancel everything of an endpoint that is not finished, page by page. Tells how far it is; the
    /// sender is dropped when it is done, or when the scheduler ends before.
    CancelPending(EndpointNo, watch::Sender<Cancelled>),
    /// How much an endpoint has that is not finished.
    Open(EndpointNo, oneshot::Sender<Open>),
    /// Attempts under way: the longest ones, so many at most, and how many there are in all.
    Sending(usize, oneshot::Sender<UnderWay>),
}

/// Attempts under way, each with its message and its start, and the number of all.
pub type UnderWay = (Vec<(Delivery, MessageId, Timestamp)>, usize);

/// What an endpoint has that is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Open {
    /// Deliveries that wait: for a slot, for their time, or for the endpoint to be enabled.
    pub waiting: u64,
    /// Attempts under way.
    pub sending: u64,
}

/// Live figures for readiness, metrics and the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// When the driver last finished a turn.
    pub last_turn: Timestamp,
    /// Acceptance or due time of the oldest delivery that could start now, were there a slot.
    pub oldest_runnable: Option<Timestamp>,
    /// When an attempt last started or ended.
    pub last_progress: Timestamp,
    /// Deliveries in memory.
    pub in_memory: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// Deliveries in the store.
    pub parked: u64,
    /// Whether recovery of the last run is done.
    pub recovered: bool,
    /// When a settlement was last handed over, or there was none.
    pub last_settled: Timestamp,
}

/// A delivery with everything the API shows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// Where it goes.
    pub endpoint: EndpointNo,
    /// The one state it is in.
    pub state: DeliveryState,
    /// When the next attempt is due, while it is retrying.
    pub next_attempt: Option<Timestamp>,
    /// The message that took its place, if it is superseded and that one is still there.
    pub superseded_by: Option<MessageId>,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// Cheap handle to the scheduler.
#[derive(Clone)]
pub struct Handle {
    /// Bounded; when it is full the caller gets [`Error::Busy`] after a second.
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    reader: Arc<dyn Reader>,
    directory: Arc<Directory>,
}

impl Handle {
    /// Made by the composition root together with the driver's ends of the channels.
    pub fn new(
        requests: mpsc::Sender<Request>,
        status: watch::Receiver<Status>,
        reader: Arc<dyn Reader>,
        directory: Arc<Directory>,
    ) -> Self {
        Self {
            requests,
            status,
            reader,
            directory,
        }
    }

    /// Makes room for changed defaults (SIGHUP) and answers how to hand them in, which cannot fail:
    /// so whoever changes several things at once can check this one first. They hold from the next
    /// attempt on; a retry that has its time keeps it.
    ///
    /// # Errors
    /// [`Error::Busy`]: too many requests wait.
    pub fn defaults(&self) -> Result<impl FnOnce(config::Delivery) + use<>, Error> {
        let room = self.requests.clone().try_reserve_owned();
        let room = room.map_err(|_| Error::Busy)?;
        Ok(move |defaults| drop(room.send(Request::Defaults(Arc::new(defaults)))))
    }

    /// Live figures.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// State and attempts of each delivery of a message, in the order of its targets.
    pub async fn deliveries(&self, message: &Message) -> Result<Vec<DeliveryView>, Error> {
        let targets: Vec<_> = message
            .targets
            .iter()
            .map(|&endpoint| Delivery {
                at: message.at,
                endpoint,
            })
            .collect();
        // Live first: what leaves memory in between is found in the store afterwards.
        let live = self.live(targets.clone()).await?;
        let mut attempts = self.reader.attempts(message.at, None)?;
        let mut views = Vec::with_capacity(targets.len());
        for (delivery, live) in targets.into_iter().zip(live) {
            let (mine, rest) = attempts
                .into_iter()
                .partition(|a| a.endpoint == delivery.endpoint);
            attempts = rest;
            views.push(self.view(delivery, live, mine)?);
        }
        Ok(views)
    }

    /// State and attempts of one delivery.
    pub async fn delivery(&self, delivery: Delivery) -> Result<DeliveryView, Error> {
        let live = self
            .live(vec![delivery])
            .await?
            .into_iter()
            .next()
            .flatten();
        let attempts = self.reader.attempts(delivery.at, Some(delivery.endpoint))?;
        self.view(delivery, live, attempts)
    }

    /// For each of these whether it is still to be delivered.
    pub async fn unfinished(&self, of: &[Delivery]) -> Result<Vec<bool>, Error> {
        const AT_ONCE: usize = 1000;
        let mut found = Vec::with_capacity(of.len());
        for page in of.chunks(AT_ONCE) {
            let live = self.live(page.to_vec()).await?;
            for (&delivery, live) in page.iter().zip(live) {
                let is_open = match live {
                    Some(_) => true,
                    None => {
                        let attempts =
                            self.reader.attempts(delivery.at, Some(delivery.endpoint))?;
                        !self.view(delivery, None, attempts)?.state.is_finished()
                    }
                };
                found.push(is_open);
            }
        }
        Ok(found)
    }

    /// Tries one delivery again, once; see [`Request::Retry`].
    pub async fn resend(&self, delivery: Delivery) -> Result<usize, Error> {
        self.retry(vec![delivery], false).await
    }

    /// Tries deliveries again with a new schedule; see [`Request::Retry`]. Callers hand in at most
    /// a page (100) at a time.
    pub async fn recover(&self, deliveries: Vec<Delivery>) -> Result<usize, Error> {
        self.retry(deliveries, true).await
    }

    /// Cancels deliveries that are not finished; answers how many were.
    pub async fn cancel(&self, deliveries: Vec<Delivery>) -> Result<usize, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Cancel(deliveries, reply)).await?;
        answer.await.unwrap_or(Err(Error::Busy))
    }

    /// Cancels everything of an endpoint that is not finished and was accepted until now. The answer
    /// shows how far it is; it ends without `done` if the scheduler ends first.
    pub async fn cancel_pending(
        &self,
        endpoint: EndpointNo,
    ) -> Result<watch::Receiver<Cancelled>, Error> {
        let (told, progress) = watch::channel(Cancelled::default());
        self.ask(Request::CancelPending(endpoint, told)).await?;
        Ok(progress)
    }

    /// How much an endpoint has that is not finished.
    pub async fn open(&self, endpoint: EndpointNo) -> Result<Open, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Open(endpoint, reply)).await?;
        answer.await.map_err(|_| Error::Busy)
    }

    /// Attempts under way, the longest first, `most` at most, and the number of all.
    pub async fn sending(&self, most: usize) -> Result<UnderWay, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Sending(most, reply)).await?;
        answer.await.map_err(|_| Error::Busy)
    }

    async fn retry(&self, deliveries: Vec<Delivery>, fresh: bool) -> Result<usize, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Retry {
            deliveries,
            fresh,
            reply,
        })
        .await?;
        answer.await.unwrap_or(Err(Error::Busy))
    }

    async fn live(&self, of: Vec<Delivery>) -> Result<Vec<Option<DeliveryState>>, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Live(of, reply)).await?;
        answer.await.map_err(|_| Error::Busy)
    }

    async fn ask(&self, request: Request) -> Result<(), Error> {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.requests
            .send_timeout(request, PATIENCE)
            .await
            .map_err(|_| Error::Busy)
    }

    fn view(
        &self,
        delivery: Delivery,
        live: Option<DeliveryState>,
        attempts: Vec<Attempt>,
    ) -> Result<DeliveryView, Error> {
        let snapshot = self.directory.snapshot();
        let endpoint = snapshot.endpoint(delivery.endpoint);
        let gone = endpoint.is_none_or(|ep| ep.deleted.is_some());
        let sending = endpoint.is_some_and(|ep| ep.is_sending());
        let by_key = endpoint.is_some_and(|ep| ep.order == Order::Key);
        let last = attempts.last().map(|attempt| attempt.verdict);
        let row = match live {
            Some(_) => None,
            None => find_row(self.reader.as_ref(), delivery, last, by_key)?,
        };
        let (mut next_attempt, mut superseded_by) = (None, None);
        let state = match (live, row, last) {
            (Some(live), _, _) => live,
            // Rows of a deleted endpoint are only waiting to be taken out.
            (None, Some(row), _) if !gone => {
                let due = Some(row.key.due).filter(|due| *due > Timestamp::ZERO);
                next_attempt = due.filter(|_| sending);
                match (sending, row.attempts) {
                    (false, _) => DeliveryState::Held,
                    (true, 0) => DeliveryState::Pending,
                    (true, _) => DeliveryState::Retrying,
                }
            }
            (None, _, Some(Verdict::Delivered)) => DeliveryState::Delivered,
            (None, _, _) if self.reader.is_cancelled(delivery)? => {
                superseded_by = match self.reader.superseded_by(delivery)? {
                    Some(by) => Some(self.reader.message(by)?.map(|message| message.id())),
                    None => None,
                };
                match superseded_by {
                    Some(_) => DeliveryState::Superseded,
                    None => DeliveryState::Cancelled,
                }
            }
            (None, _, Some(Verdict::Dead(_))) => DeliveryState::Dead,
            (None, _, _) if gone => DeliveryState::Cancelled,
            // Between memory and store: its settlement is being written at this moment.
            (None, _, Some(Verdict::RetryAt(due))) => {
                next_attempt = Some(due).filter(|_| sending);
                if sending {
                    DeliveryState::Retrying
                } else {
                    DeliveryState::Held
                }
            }
            (None, _, None) if sending => DeliveryState::Pending,
            (None, _, None) => DeliveryState::Held,
        };
        Ok(DeliveryView {
            endpoint: delivery.endpoint,
            state,
            next_attempt,
            superseded_by: superseded_by.flatten(),
            attempts,
        })
    }
}
