//! The settlement that the lane has: at most one, so they are applied in order.

use tokio::sync::oneshot;
use tracing::warn;

use super::Error;
use crate::base::task;
use crate::lane::{self, Lane};
use crate::store::Settlement;

/// Who waits for a settlement, and what they are told when it is applied.
pub(super) type Replies = Vec<(oneshot::Sender<Result<usize, Error>>, usize)>;

/// A settlement on its way into the store.
pub(super) struct UnderWay {
    /// Its number, as the core counts.
    pub(super) number: u64,
    pub(super) replies: Replies,
    /// Someone waits: it must be on stable storage before they are told.
    durable: bool,
    stage: Stage,
}

enum Stage {
    /// The lane's queue was full; it must be handed in again.
    Waiting(Box<Settlement>),
    /// The lane has it.
    Handed(oneshot::Receiver<Result<(), lane::Error>>),
}

impl UnderWay {
    /// Hands it in, or keeps it until there is room.
    pub(super) fn begin(
        lane: &Lane,
        number: u64,
        settlement: Settlement,
        replies: Replies,
    ) -> Self {
        let durable = !replies.is_empty();
        let stage = hand_in(lane, settlement, durable);
        Self {
            number,
            replies,
            durable,
            stage,
        }
    }

    /// Hands it in if that failed for want of room.
    pub(super) fn again(&mut self, lane: &Lane) {
        if let Stage::Waiting(settlement) = &mut self.stage {
            self.stage = hand_in(lane, std::mem::take(settlement.as_mut()), self.durable);
        }
    }

    /// Whether it waits for room.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting(_))
    }
}

/// Resolves when the settlement is applied; never, if there is none or it waits. Cancel safe.
pub(super) async fn applied(under_way: &mut Option<UnderWay>) -> Result<(), lane::Error> {
    match under_way.as_mut().map(|under_way| &mut under_way.stage) {
        Some(Stage::Handed(done)) => done.await.unwrap_or(Err(lane::Error::Failed)),
        Some(Stage::Waiting(_)) | None => std::future::pending().await,
    }
}

fn hand_in(lane: &Lane, settlement: Settlement, durable: bool) -> Stage {
    match lane.settle(settlement, durable) {
        Ok(done) => Stage::Handed(done),
        Err((lane::Error::Busy, settlement)) => Stage::Waiting(settlement),
        Err((cause, _)) => {
            warn!(%cause, "the lane takes no settlement any more");
            let (failed, done) = oneshot::channel();
            task::answer(failed, Err(cause));
            Stage::Handed(done)
        }
    }
}
