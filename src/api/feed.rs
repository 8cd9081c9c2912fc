//! The messages of an application as they come: what tails and consumers read from.
//!
//! Owns: reading on from a place in the application's list, oldest first, with filters and an end to the
//! work; and waiting until there is something new. Reads the store, so nothing is buffered that is not
//! read: whoever is slow is behind in the log, not in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::history::MessageFilter;
use crate::model::{AppNo, Message, MessageId, Position};
use crate::store::{self, ListKey, Page, Reader};

/// Entries looked at for one page.
const BUDGET: usize = 1000;
/// Payload bytes of one page; the first message may be larger.
const PAGE_BYTES: usize = 256 << 10;
/// Commits within this time wake a reader once.
const GATHER: Duration = Duration::from_millis(20);
/// A reader looks at least this often, whatever it was told.
const LOOK: Duration = Duration::from_secs(5);

/// A place to read on from.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    pub(super) app: AppNo,
    pub(super) filter: MessageFilter,
    /// Everything up to here was read.
    pub(super) after: ListKey,
}

/// What was read.
pub(super) struct Found {
    pub(super) messages: Vec<Message>,
    /// Everything up to here was looked at.
    pub(super) reached: ListKey,
    /// There is nothing behind it yet.
    pub(super) done: bool,
}

/// The place in front of everything.
pub(super) const START: ListKey = ListKey {
    time: crate::base::Timestamp::ZERO,
    at: Position::START,
    no: 0,
};

/// The place of a message.
pub(super) fn place(id: MessageId) -> ListKey {
    let (time, at) = id.place();
    ListKey { time, at, no: 0 }
}

/// The id that leads back to a place.
pub(super) fn id(place: ListKey) -> MessageId {
    MessageId::of(place.time, place.at)
}

/// The place behind everything that an application has.
pub(super) fn end(reader: &dyn Reader, app: AppNo) -> Result<ListKey, store::Error> {
    let page = Page {
        from: None,
        until: None,
        newest_first: true,
        limit: 1,
    };
    let newest = reader.app_messages(app, &page)?;
    Ok(newest.first().map_or(START, |newest| newest.key))
}

impl Feed {
    /// At most `limit` messages behind the place. Blocks on the store.
    pub(super) fn read(&self, reader: &dyn Reader, limit: usize) -> Result<Found, store::Error> {
        let page = Page {
            from: Some(self.after),
            until: None,
            newest_first: false,
            limit: BUDGET,
        };
        let listed = reader.app_messages(self.app, &page)?;
        let mut found = Found {
            messages: Vec::new(),
            reached: self.after,
            done: listed.len() < BUDGET,
        };
        let mut bytes = 0;
        for entry in listed {
            if found.messages.len() == limit || bytes >= PAGE_BYTES {
                found.done = false;
                break;
            }
            let message = reader.message(entry.key.at)?;
            found.reached = entry.key;
            if let Some(message) = message.filter(|m| self.filter.keeps(m)) {
                bytes += message.payload.len();
                found.messages.push(message);
            }
        }
        Ok(found)
    }
}

/// Resolves soon after something was committed, and now and then without. Cancel safe.
pub(super) async fn news(commits: &mut watch::Receiver<()>) {
    let told = tokio::time::timeout(LOOK, commits.changed()).await;
    match told {
        Ok(Ok(())) => tokio::time::sleep(GATHER).await,
        Ok(Err(_)) => tokio::time::sleep(LOOK).await, // the lane is gone: the process is ending
        Err(_) => {}
    }
}

/// A page is read beside the async threads.
pub(super) async fn read(
    reader: Arc<dyn Reader>,
    feed: Feed,
    limit: usize,
) -> Option<Result<Found, store::Error>> {
    crate::base::task::blocking(move || feed.read(reader.as_ref(), limit)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LaneId;

    #[test]
    fn the_place_of_a_message_leads_back_to_its_id() {
        let at = Position {
            lane: LaneId(3),
            seq: 9,
        };
        let one = MessageId::of(crate::base::Timestamp::from_millis(1_767_600_000_000), at);
        assert_eq!(id(place(one)), one);
    }
}
