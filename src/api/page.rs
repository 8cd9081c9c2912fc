//! Pages of lists (`api.md` 2.4): limit, iterator, order, and the shape of the answer.
//!
//! An iterator is the id of a list entry, `-` before it means "the page before this one", `~` that a
//! list asked for with `after` alone goes on towards newer entries (ADR 0320). No offsets, no counts.

use std::cmp::Ordering;

use serde::Serialize;

use super::error::Problem;
use super::query::{Query, wrong};
use super::reply::Reply;
use crate::ingest::ItemKind;

const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 250;

/// Where a page lies, in the order of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<K> {
    /// At the beginning.
    First,
    /// Behind this entry.
    Behind(K),
    /// Before this entry: the entries closest to it.
    Before(K),
}

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Paging<K> {
    pub(super) limit: usize,
    pub(super) place: Place<K>,
    pub(super) descending: bool,
    /// `iterator` leads to entries before the page: a list asked for with `after` alone begins at that
    /// time and goes on from there, each page newest first.
    pub(super) upwards: bool,
}

impl<K> Paging<K> {
    /// Reads `limit`, `iterator` and `order`; `parse` reads the id in an iterator.
    pub(super) fn of(
        query: &Query,
        descending: bool,
        parse: impl Fn(&str) -> Option<K>,
    ) -> Result<Self, Problem> {
        Self::read(query, descending, false, parse)
    }

    /// The same for a list that is shown newest first and takes `after`; `from_below` = it is asked for
    /// with that alone.
    pub(super) fn of_history(
        query: &Query,
        from_below: bool,
        parse: impl Fn(&str) -> Option<K>,
    ) -> Result<Self, Problem> {
        let mut paging = Self::read(query, true, true, parse)?;
        paging.upwards |= paging.descending && from_below && paging.is_first();
        Ok(paging)
    }

    const fn is_first(&self) -> bool {
        matches!(self.place, Place::First)
    }

    fn read(
        query: &Query,
        descending: bool,
        goes_upwards: bool,
        parse: impl Fn(&str) -> Option<K>,
    ) -> Result<Self, Problem> {
        let descending = match query.get("order") {
            None => descending,
            Some("ascending") => false,
            Some("descending") => true,
            Some(_) => {
                let msg = "ascending or descending is wanted";
                return Err(wrong("order", ItemKind::ValueError, msg));
            }
        };
        let bad = || {
            wrong(
                "iterator",
                ItemKind::ValueError,
                "not an iterator of this list",
            )
        };
        let iterator = query.get("iterator").unwrap_or_default();
        let upwards = iterator.strip_prefix('~').filter(|_| goes_upwards);
        let place = match (upwards.or_else(|| iterator.strip_prefix('-')), iterator) {
            (Some(id), _) => Place::Before(parse(id).ok_or_else(bad)?),
            (None, "") => Place::First,
            (None, id) => Place::Behind(parse(id).ok_or_else(bad)?),
        };
        Ok(Self {
            limit: limit(query)?,
            place,
            descending,
            upwards: upwards.is_some() && descending,
        })
    }
}

fn limit(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else {
        return Ok(DEFAULT_LIMIT.into());
    };
    let read = text
        .parse::<u16>()
        .ok()
        .filter(|n| (1..=MAX_LIMIT).contains(n));
    read.map(usize::from).ok_or_else(|| {
        let msg = format!("a whole number from 1 to {MAX_LIMIT} is wanted");
        wrong("limit", ItemKind::Limit, msg)
    })
}

/// A page of `items` that are all in memory, in no order; and whether it is the last one in its
/// direction.
pub(super) fn select<T, K: Ord>(
    paging: &Paging<K>,
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> (Vec<T>, bool) {
    let in_order = |a: &K, b: &K| {
        let order = a.cmp(b);
        if paging.descending {
            order.reverse()
        } else {
            order
        }
    };
    let mut found: Vec<T> = items
        .filter(|item| match &paging.place {
            Place::First => true,
            Place::Behind(at) => in_order(&key(item), at) == Ordering::Greater,
            Place::Before(at) => in_order(&key(item), at) == Ordering::Less,
        })
        .collect();
    let backwards = matches!(paging.place, Place::Before(_));
    let nearest = |a: &T, b: &T| {
        let order = in_order(&key(a), &key(b));
        if backwards { order.reverse() } else { order }
    };
    let done = found.len() <= paging.limit;
    if !done {
        found.select_nth_unstable_by(paging.limit, nearest);
        found.truncate(paging.limit);
    }
    found.sort_unstable_by(|a, b| in_order(&key(a), &key(b)));
    (found, done)
}

/// A list as it is answered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    pub(super) iterator: Option<String>,
    pub(super) prev_iterator: Option<String>,
    pub(super) done: bool,
}

impl<T: Serialize> List<T> {
    /// The page `data`; `id` names an entry.
    pub(super) fn of(data: Vec<T>, done: bool, id: impl Fn(&T) -> String) -> Self {
        Self {
            iterator: data.last().map(&id),
            prev_iterator: data.first().map(|first| format!("-{}", id(first))),
            data,
            done,
        }
    }

    /// Makes `iterator` lead to what stands before the page.
    pub(super) fn upwards(mut self) -> Self {
        self.iterator = upwards(self.prev_iterator.as_deref());
        self
    }

    pub(super) fn reply(&self) -> Reply {
        Reply::ok(self)
    }
}

/// The iterator that goes on upwards from where `previous` leads to.
pub(super) fn upwards(previous: Option<&str>) -> Option<String> {
    let id = previous?.strip_prefix('-')?;
    Some(format!("~{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(place: Place<u32>, descending: bool) -> (Vec<u32>, bool) {
        let paging = Paging {
            limit: 3,
            place,
            descending,
            upwards: false,
        };
        select(&paging, [5, 1, 4, 2, 3, 7, 6].into_iter(), |n| *n)
    }

    #[test]
    fn pages_lead_through_a_list_in_both_directions_and_orders() {
        assert_eq!(page(Place::First, false), (vec![1, 2, 3], false));
        assert_eq!(page(Place::Behind(3), false), (vec![4, 5, 6], false));
        assert_eq!(page(Place::Behind(6), false), (vec![7], true));
        assert_eq!(page(Place::Before(6), false), (vec![3, 4, 5], false));
        assert_eq!(page(Place::Before(4), false), (vec![1, 2, 3], true));
        assert_eq!(page(Place::First, true), (vec![7, 6, 5], false));
        assert_eq!(page(Place::Behind(5), true), (vec![4, 3, 2], false));
        assert_eq!(page(Place::Before(4), true), (vec![7, 6, 5], true));
    }

    #[test]
    fn limits_are_1_to_250_and_50_when_silent() {
        let read = |text: &str| limit(&Query::of(Some(text))).ok();
        assert_eq!(read(""), Some(50));
        assert_eq!(read("limit=1"), Some(1));
        assert_eq!(read("limit=250"), Some(250));
        for bad in ["limit=0", "limit=251", "limit=-1", "limit=x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
