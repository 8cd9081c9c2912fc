//! Messages for several endpoints that were read lately: a backlog of a hundred endpoints reads each of its
//! messages a hundred times within a short while.
//!
//! Invariant: nothing is found here that a reader who began now would not find in the store. Records are
//! written again only to take their payload away ([`super::expunge`], [`super::ending`]); after each such
//! commit the number of changes grows, and what was read under an earlier number counts no more.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::message;
use crate::model::{Message, Position};

/// Bytes of all messages together.
const BYTES: u64 = 4 << 20;
/// About as many are there.
const ENTRIES: usize = 4096;
/// A larger message is read each time.
const LARGEST: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    cache: Cache<Position, Found, Weight>,
    changes: AtomicU64,
}

/// A message, and how many changes there were before it was read.
#[derive(Debug, Clone)]
struct Found(u64, Message);

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Position, Found> for Weight {
    fn weight(&self, _: &Position, found: &Found) -> u64 {
        weight(&found.1)
    }
}

/// About what it takes in memory, bytes: its record, with everything that has no bound of its own, and its parts.
fn weight(message: &Message) -> u64 {
    let length = size_of::<Message>() + message::size(message);
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            cache: Cache::with_weighter(ENTRIES, BYTES, Weight),
            changes: AtomicU64::new(0),
        }
    }
}

impl Recent {
    /// The message at `at`, if it was read lately and not changed since.
    pub(super) fn get(&self, at: Position) -> Option<Message> {
        let Found(read, message) = self.cache.get(&at)?;
        (read == self.changes()).then_some(message)
    }

    /// How many changes there were; asked before the store is read.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Keeps a message that was read when there had been so many changes, if others will want it too.
    pub(super) fn keep(&self, changes: u64, message: &Message) {
        if message.targets.len() > 1 && weight(message) <= LARGEST {
            self.cache
                .insert(message.at, Found(changes, message.clone()));
        }
    }

    /// Records were written again: called after the commit, before anybody is told of it.
    pub(super) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.cache.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::base::Timestamp;
    use crate::model::{AppNo, ContentType, EndpointNo, Labels, LaneId};

    fn message(seq: u64, targets: u32, length: usize) -> Message {
        Message {
            at: Position {
                lane: LaneId(1),
                seq,
            },
            accepted: Timestamp::from_millis(1),
            app: AppNo(1),
            event_type: Arc::from("a.b"),
            content_type: ContentType::Json,
            payload: vec![b'x'; length].into(),
            targets: (1..=targets).map(EndpointNo).collect(),
            labels: None,
        }
    }

    #[test]
    fn messages_for_several_endpoints_are_kept_unless_they_are_long() {
        let recent = Recent::default();
        let (one, two, long) = (message(1, 1, 9), message(2, 2, 9), message(3, 2, 1 << 16));
        let mut tagged = message(4, 2, 9);
        tagged.labels = Some(Box::new(Labels {
            tags: vec!["t".repeat(1 << 16)],
            ..Labels::default()
        }));
        for message in [&one, &two, &long, &tagged] {
            recent.keep(recent.changes(), message);
        }
        let found = [one.at, two.at, long.at, tagged.at].map(|at| recent.get(at));
        assert_eq!(found, [None, Some(two), None, None]);
    }

    #[test]
    fn what_was_read_before_a_payload_was_taken_away_is_not_found_after_it() {
        let recent = Recent::default();
        let full = message(1, 2, 9);
        recent.keep(recent.changes(), &full);
        // Another reader is amid the store when the record is written again.
        let began = recent.changes();
        recent.forget();
        assert_eq!(recent.get(full.at), None);
        recent.keep(began, &full);
        assert_eq!(recent.get(full.at), None);
        let mut empty = full;
        empty.payload = Bytes::new();
        recent.keep(recent.changes(), &empty);
        assert_eq!(recent.get(empty.at), Some(empty));
    }

    #[test]
    fn no_more_is_kept_than_four_mebibytes() {
        let recent = Recent::default();
        for seq in 0..100_000 {
            recent.keep(0, &message(seq, 100, 1024));
        }
        assert!(recent.cache.weight() <= BYTES, "{}", recent.cache.weight());
        assert!(recent.cache.len() > 1000);
    }
}
