//! Walking through stored lists: pages in both directions, filters, and an end to the work.
//!
//! A page is found by reading the list from its place on until it is full, the list ends, or
//! [`BUDGET`] entries were looked at; then it may be short or empty, with `done: false` and an
//! iterator to go on (`api.md` 2.4).

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::page::{List, Paging, Place, upwards};
use super::query::Query;
use crate::base::Timestamp;
use crate::model::{LaneId, Message, Position};
use crate::store::{self, ListKey, Listed, ListedAttempt, Page};

/// Entries looked at for one page.
const BUDGET: usize = 2000;

/// `before` and `after`, both exclusive. An iterator wins over them.
pub(super) struct Bounds {
    before: Option<Timestamp>,
    after: Option<Timestamp>,
}

impl Bounds {
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            before: query.time("before")?,
            after: query.time("after")?,
        })
    }

    /// The beginning, if one was named.
    pub(super) fn start(&self) -> Timestamp {
        self.after.unwrap_or(Timestamp::ZERO)
    }

    /// Whether an instant lies within both.
    pub(super) fn hold(&self, at: Timestamp) -> bool {
        self.before.is_none_or(|end| at < end) && self.after.is_none_or(|start| at > start)
    }

    /// With `after` alone the page holds what is closest to it.
    pub(super) const fn is_from_below(&self) -> bool {
        self.after.is_some() && self.before.is_none()
    }
}

/// The first place at or after an instant.
pub(super) const fn start_of(time: Timestamp) -> ListKey {
    ListKey {
        time,
        at: Position::START,
        no: 0,
    }
}

/// The last place of an instant.
pub(super) const fn end_of(time: Timestamp) -> ListKey {
    ListKey {
        time,
        at: Position {
            lane: LaneId(u32::MAX),
            seq: u64::MAX,
        },
        no: u16::MAX,
    }
}

/// One walk.
pub(super) struct Scan {
    from: Option<ListKey>,
    until: Option<ListKey>,
    newest_first: bool,
    /// Read against the order in which the page is shown.
    backwards: bool,
    upwards: bool,
    limit: usize,
}

/// An entry of a stored list.
pub(super) trait Keyed {
    /// Its place.
    fn key(&self) -> ListKey;
}

impl Keyed for Listed {
    fn key(&self) -> ListKey {
        self.key
    }
}

impl Keyed for ListedAttempt {
    fn key(&self) -> ListKey {
        self.key
    }
}

/// The ends of a page, for its iterators.
pub(super) struct Edges {
    first: Option<ListKey>,
    last: Option<ListKey>,
    reached: Option<ListKey>,
    done: bool,
    upwards: bool,
}

impl Scan {
    /// Lists are shown newest first unless `paging` says otherwise.
    pub(super) fn new(paging: &Paging<ListKey>, bounds: &Bounds) -> Self {
        let shown_newest_first = paging.descending;
        let (newest_first, from, until) = match paging.place {
            Place::Behind(key) => (shown_newest_first, Some(key), None),
            Place::Before(key) => (!shown_newest_first, Some(key), None),
            Place::First => {
                let newest_first = shown_newest_first && !bounds.is_from_below();
                let (low, high) = (bounds.after.map(end_of), bounds.before.map(start_of));
                if newest_first {
                    (true, high, low)
                } else {
                    (false, low, high)
                }
            }
        };
        Self {
            from,
            until,
            newest_first,
            backwards: newest_first != shown_newest_first,
            upwards: paging.upwards,
            limit: paging.limit,
        }
    }

    /// Reads with `fetch`, keeps what `keep` answers; the entries in the order they are shown.
    pub(super) fn run<E: Keyed, T>(
        self,
        mut fetch: impl FnMut(&Page) -> Result<Vec<E>, store::Error>,
        mut keep: impl FnMut(&E) -> Result<Option<T>, store::Error>,
    ) -> Result<(Vec<(ListKey, T)>, Edges), Problem> {
        let mut found = Vec::new();
        let mut from = self.from;
        let mut seen = 0;
        let done = 'walk: loop {
            let wanted = self.limit + 1;
            let page = Page {
                from,
                until: self.until,
                newest_first: self.newest_first,
                limit: wanted,
            };
            let keys = fetch(&page)?;
            let is_end = keys.len() < wanted;
            for entry in keys {
                if found.len() == self.limit || seen == BUDGET {
                    break 'walk false;
                }
                seen += 1;
                from = Some(entry.key());
                if let Some(item) = keep(&entry)? {
                    found.push((entry.key(), item));
                }
            }
            if is_end {
                break true;
            }
        };
        let looked_at = from.filter(|_| seen > 0);
        // Where this walk came to, if that is further than what it found.
        let reached = if done { None } else { from };
        let mut edges = Edges {
            first: found.first().map(|(key, _)| *key).or(reached),
            last: found.last().map(|(key, _)| *key),
            reached: looked_at,
            done,
            upwards: self.upwards,
        };
        if found.len() < self.limit {
            edges.last = reached.or(edges.last);
        }
        if self.backwards {
            found.reverse();
            std::mem::swap(&mut edges.first, &mut edges.last);
        }
        Ok((found, edges))
    }
}

impl Edges {
    /// How far the walk came; `None` = it found nothing to look at.
    pub(super) const fn reached(&self) -> Option<ListKey> {
        self.reached
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// Writes the fields of a list behind its data; `id` names a place.
    pub(super) fn write(&self, out: &mut Vec<u8>, id: impl Fn(&ListKey) -> String) {
        let (next, previous) = self.iterators(id);
        super::body::field(out, "iterator", &next);
        super::body::field(out, "prevIterator", &previous);
        super::body::field(out, "done", &self.done);
    }

    fn iterators(&self, id: impl Fn(&ListKey) -> String) -> (Option<String>, Option<String>) {
        let previous = self.first.as_ref().map(|key| format!("-{}", id(key)));
        let next = if self.upwards {
            upwards(previous.as_deref())
        } else {
            self.last.as_ref().map(id)
        };
        (next, previous)
    }

    /// `data` as a list.
    pub(super) fn list<T>(&self, data: Vec<T>, id: impl Fn(&ListKey) -> String) -> List<T> {
        let (iterator, prev_iterator) = self.iterators(id);
        List {
            data,
            iterator,
            prev_iterator,
            done: self.done,
        }
    }
}

/// Filters that look at a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageFilter {
    channels: Vec<String>,
    tags: Vec<String>,
    event_types: Vec<String>,
}

impl MessageFilter {
    pub(super) fn of(query: &Query) -> Self {
        let list = |name| query.list(name).into_iter().map(str::to_owned).collect();
        Self {
            channels: list("channel"),
            tags: list("tag"),
            event_types: list("event_types"),
        }
    }

    /// Each list: any of them; empty = all.
    pub(super) const fn new(
        channels: Vec<String>,
        tags: Vec<String>,
        event_types: Vec<String>,
    ) -> Self {
        Self {
            channels,
            tags,
            event_types,
        }
    }

    /// The filters of a feed, where `channels` is the name of the list.
    pub(super) fn of_feed(query: &Query) -> Self {
        let list = |name| query.list(name).into_iter().map(str::to_owned).collect();
        Self::new(list("channels"), Vec::new(), list("event_types"))
    }

    /// The event types it keeps; none = all.
    pub(super) fn event_types(&self) -> &[String] {
        &self.event_types
    }

    /// The channels it keeps; none = all.
    pub(super) fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Nothing is filtered.
    pub(super) const fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.tags.is_empty() && self.event_types.is_empty()
    }

    pub(super) fn keeps(&self, message: &Message) -> bool {
        let any = |wanted: &[String], of: &[String]| {
            wanted.is_empty() || wanted.iter().any(|one| of.contains(one))
        };
        any(&self.channels, message.channels())
            && any(&self.tags, message.tags())
            && (self.event_types.is_empty()
                || self
                    .event_types
                    .iter()
                    .any(|name| **name == *message.event_type))
    }
}
