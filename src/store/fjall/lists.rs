//! Lists of messages and attempts, a page at a time, in either direction.
//!
//! Owns: the walk over day buckets. A row holds several entries; rows are read one group at a time
//! and only as far as the page needs. A group is a single row of messages, or all rows of attempts
//! of one slot (they may interleave, so they are sorted together; of two entries for the same
//! attempt the later written counts); and what one group commit adds to the lists of messages
//! ([`AppLists`]). Invariant: groups of rows do not overlap and sort as their keys do.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use ::fjall::{Readable as _, Snapshot};
use bytes::Bytes;

use crate::base::Timestamp;
use crate::model::{AppNo, EndpointNo, Position};
use crate::store::{AuditPage, AuditRow, Error, ListKey, Listed, ListedAttempt, Page};

use super::reader::row;
use super::record::AppRow;
use super::spaces::{Space, Spaces};
use super::{keys, record};

type Row = (Bytes, Bytes);

/// A page of an application's messages. Entries that `keep` refuses are left out.
pub(super) fn of_app(
    spaces: &Spaces,
    app: AppNo,
    page: &Page,
    keep: impl Fn(Position) -> bool,
) -> Result<Vec<Listed>, Error> {
    let walk = Walk {
        spaces,
        view: spaces.snapshot(),
        page,
        kind: keys::OF_APP,
        owner: app.0,
    };
    let near = |from: ListKey| {
        let low = keys::app_row(app, from.time, Position { seq: 0, ..from.at });
        (
            low.to_vec(),
            keys::app_row(app, from.time, from.at).to_vec(),
        )
    };
    let read = |group: &[Row]| {
        let mut entries = Vec::new();
        for (key, value) in group {
            let (_, time, first) = keys::read_app_row(key)
                .ok_or_else(|| record::corrupt("list row", key, "bad key"))?;
            for seq in record::read_app_row(key, value, first.seq)? {
                let at = Position { seq, ..first };
                if keep(at) {
                    let key = ListKey { time, at, no: 0 };
                    entries.push(Listed { key });
                }
            }
        }
        Ok(entries)
    };
    walk.run(near, |_, _| false, read, |entry| entry.key)
}

/// A page of the attempts at an endpoint. Entries that `keep` refuses are left out; it also says of the
/// others what their rows do not know.
pub(super) fn of_endpoint(
    spaces: &Spaces,
    endpoint: EndpointNo,
    page: &Page,
    keep: impl Fn(&mut ListedAttempt) -> bool,
) -> Result<Vec<ListedAttempt>, Error> {
    let walk = Walk {
        spaces,
        view: spaces.snapshot(),
        page,
        kind: keys::OF_ENDPOINT,
        owner: endpoint.0,
    };
    let near = |from: ListKey| {
        let slot = keys::slot(from.time);
        let low = keys::endpoint_row(endpoint, slot, 0, 0);
        let high = keys::endpoint_row(endpoint, slot, u64::MAX, u16::MAX);
        (low.to_vec(), high.to_vec())
    };
    let together = |a: &[u8], b: &[u8]| keys::read_endpoint_row(a) == keys::read_endpoint_row(b);
    let read = |group: &[Row]| {
        let mut rows: Vec<&Row> = group.iter().collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut entries = BTreeMap::new();
        for (key, value) in rows {
            record::read_endpoint_row(key, value, |mut entry| {
                if keep(&mut entry) {
                    entries.insert(entry.key, entry);
                }
            })?;
        }
        Ok(entries.into_values().collect())
    };
    walk.run(near, together, read, |entry| entry.key)
}

/// Entries of the audit log.
pub(super) fn of_audit(spaces: &Spaces, page: &AuditPage) -> Result<Vec<AuditRow>, Error> {
    let view = spaces.snapshot();
    let (mut low, mut high) = (
        Bound::Included(vec![keys::OF_AUDIT]),
        Bound::Excluded(vec![keys::OF_AUDIT + 1]),
    );
    if let Some(from) = page.from.and_then(|id| keys::audit_entry(&id)) {
        let end = if page.newest_first {
            &mut high
        } else {
            &mut low
        };
        *end = Bound::Excluded(from.to_vec());
    }
    let mut rows = view.range::<Vec<u8>, _>(spaces.of(Space::Lists), (low, high));
    let mut out = Vec::new();
    while out.len() < page.limit {
        let next = if page.newest_first {
            rows.next_back()
        } else {
            rows.next()
        };
        let Some((key, value)) = next.map(row).transpose()? else {
            break;
        };
        let id = keys::read_audit_entry(&key);
        let id = id.ok_or_else(|| record::corrupt("audit entry", &key, "the key is bad"))?;
        out.push((id, record::read_object(&key, &value)?));
    }
    Ok(out)
}

/// The list rows of one group: one per application and time.
#[derive(Default)]
pub(super) struct AppLists {
    pub(super) rows: Vec<(AppNo, Timestamp, AppRow)>,
    places: HashMap<(AppNo, Timestamp), usize>,
}

impl AppLists {
    pub(super) fn push(&mut self, app: AppNo, time: Timestamp, at: Position) {
        let next = self.rows.len();
        let same_as_last = self
            .rows
            .last()
            .is_some_and(|(last, when, _)| (*last, *when) == (app, time));
        let place = if same_as_last {
            next - 1
        } else {
            *self.places.entry((app, time)).or_insert(next)
        };
        match self.rows.get_mut(place) {
            Some((_, _, row)) => row.push(at.seq),
            None => self.rows.push((app, time, AppRow::new(at))),
        }
    }
}

struct Walk<'a> {
    spaces: &'a Spaces,
    view: Snapshot,
    page: &'a Page,
    kind: u8,
    owner: u32,
}

impl Walk<'_> {
    /// `near` answers the first and the last row that may hold the entries around a place,
    /// `together` whether two rows are of one group, `read` the entries of a group, ascending.
    fn run<E>(
        &self,
        near: impl Fn(ListKey) -> (Vec<u8>, Vec<u8>),
        together: impl Fn(&[u8], &[u8]) -> bool,
        read: impl Fn(&[Row]) -> Result<Vec<E>, Error>,
        place: impl Fn(&E) -> ListKey,
    ) -> Result<Vec<E>, Error> {
        let mut out = Vec::new();
        if self.page.limit == 0 {
            return Ok(out);
        }
        let backwards = self.page.newest_first;
        let mut day = match self.page.from {
            Some(from) => Some(keys::day(from.time)),
            None => self.next_day(None)?,
        };
        while let Some(today) = day {
            let mut rows = self.rows(today, &near);
            let mut group: Vec<Row> = Vec::new();
            loop {
                let next = if backwards {
                    rows.next_back()
                } else {
                    rows.next()
                };
                let next = next.map(row).transpose()?;
                let goes_on = match (&next, group.last()) {
                    (Some((key, _)), Some((last, _))) => together(key, last),
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if !goes_on {
                    if !self.emit(read(&group)?, &mut out, &place) {
                        return Ok(out);
                    }
                    group.clear();
                }
                match next {
                    Some(next) => group.push(next),
                    None => break,
                }
            }
            day = self.next_day(Some(today))?;
        }
        Ok(out)
    }

    /// Moves what the page wants; false when it is full or its end is reached.
    fn emit<E>(
        &self,
        mut entries: Vec<E>,
        out: &mut Vec<E>,
        place: impl Fn(&E) -> ListKey,
    ) -> bool {
        let page = self.page;
        if page.newest_first {
            entries.reverse();
        }
        for entry in entries {
            let key = place(&entry);
            let (early, late) = if page.newest_first {
                (
                    page.from.is_some_and(|from| key >= from),
                    page.until.is_some_and(|until| key <= until),
                )
            } else {
                (
                    page.from.is_some_and(|from| key <= from),
                    page.until.is_some_and(|until| key >= until),
                )
            };
            if late {
                return false;
            }
            if !early {
                out.push(entry);
                if out.len() >= page.limit {
                    return false;
                }
            }
        }
        true
    }

    /// The owner's rows of a day, from where the page starts.
    fn rows(
        &self,
        day: u32,
        near: impl Fn(ListKey) -> (Vec<u8>, Vec<u8>),
    ) -> impl DoubleEndedIterator<Item = ::fjall::Guard> {
        let mut low = keys::list_day(self.kind, day, self.owner).to_vec();
        let mut high = low.clone();
        high.extend_from_slice(&[0xff; 18]);
        if let Some(from) = self.page.from.filter(|from| keys::day(from.time) == day) {
            let (first, last) = near(from);
            if self.page.newest_first {
                high = last;
            } else {
                low = first;
            }
        }
        let range = (Bound::Included(low), Bound::Included(high));
        self.view.range(self.spaces.of(Space::Lists), range)
    }

    /// The next day that has rows of this kind, of whomever, and that the page still wants.
    fn next_day(&self, after: Option<u32>) -> Result<Option<u32>, Error> {
        let lists = self.spaces.of(Space::Lists);
        let start = vec![self.kind];
        let end = vec![self.kind + 1];
        let found = if self.page.newest_first {
            let high = after.map_or(end, |day| keys::list_days(self.kind, day).to_vec());
            self.view.range(lists, start..high).next_back()
        } else {
            let low = match after.map(|day| day.checked_add(1)) {
                None => start,
                Some(Some(day)) => keys::list_days(self.kind, day).to_vec(),
                Some(None) => return Ok(None),
            };
            self.view.range(lists, low..end).next()
        };
        let found = found.map(row).transpose()?;
        let day = found.and_then(|(key, _)| keys::read_list_day(&key, self.kind));
        let until = self.page.until.map(|until| keys::day(until.time));
        Ok(day.filter(|day| match until {
            None => true,
            Some(until) if self.page.newest_first => *day >= until,
            Some(until) => *day <= until,
        }))
    }
}
