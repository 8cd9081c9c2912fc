//! What is out of retention, and what of it leaves with the compactions of its key space.
//!
//! Event ids stand under the hash of the id, in no order of time, so no range of them can be dropped; and
//! removing them one by one would write as much as accepting messages does. A compaction reads and
//! rewrites its rows anyway: what it leaves out costs nothing and keeps up with any rate, since the
//! more ids are written the more is compacted. The slow sweep of [`super::expire`] is for stores that
//! compact no more.
//!
//! Ends of payloads stand in the order of that time: those of messages below the floor are left out, too.
//!
//! Lists lie in order of time within their kind, and whole tables of them are dropped. But several kinds
//! share the key space, and in a small store a table holds some of each, so none is ever old as a whole:
//! what the days in [`Days`] no longer keep is left out as well.
//!
//! Invariant: nothing is left out that readers still show ([`Floors::is_retained`], [`Cuts`]). Before the
//! floors are read from the store, and the days are told by housekeeping, nothing is left out. Only rows
//! of event ids and of lists are looked at; a row that cannot be read stays, to be found by who reads it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use parking_lot::RwLock;

use super::spaces::Space;
use super::{keys, record};
use crate::base::Timestamp;
use crate::config::Retention;
use crate::model::{LaneId, Position};

/// Per lane the first message that is retained, and what is kept of the lists.
#[derive(Debug, Default)]
pub(super) struct Floors {
    lanes: RwLock<BTreeMap<LaneId, u64>>,
    days: RwLock<Days>,
}

impl From<BTreeMap<LaneId, u64>> for Floors {
    fn from(floors: BTreeMap<LaneId, u64>) -> Self {
        Self {
            lanes: RwLock::new(floors),
            days: RwLock::default(),
        }
    }
}

/// By kind of list row the first day that is kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days {
    /// Of the lists of messages.
    pub(super) messages: u32,
    /// Of the lists of attempts.
    pub(super) attempts: u32,
    /// Of long answers.
    pub(super) bodies: u32,
    /// Of the audit log.
    pub(super) audit: u32,
}

impl Days {
    /// Everything in the lists that has a day.
    pub(super) const KINDS: [u8; 5] = [
        keys::OF_APP,
        keys::OF_BODY,
        keys::OF_DAY,
        keys::OF_ENDPOINT,
        keys::OF_AUDIT,
    ];

    /// The first day of which rows of a kind are kept.
    pub(super) const fn of(self, kind: u8) -> u32 {
        match kind {
            keys::OF_APP => self.messages,
            keys::OF_BODY => self.bodies,
            keys::OF_DAY | keys::OF_ENDPOINT => self.attempts,
            keys::OF_AUDIT => self.audit,
            _ => 0,
        }
    }
}

/// From when on attempts and what was answered to them are shown; milliseconds. They never go back while
/// the process lives.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    attempts: AtomicU64,
    bodies: AtomicU64,
}

impl Cuts {
    /// Nothing that ended before is shown any more, as of `now`.
    pub(super) fn raise(&self, now: Timestamp, retention: &Retention) {
        let cut = |kept| now.minus(kept).millis();
        let (attempts, bodies) = (cut(retention.of_attempts()), cut(retention.of_bodies()));
        self.attempts.fetch_max(attempts, Ordering::Relaxed);
        self.bodies.fetch_max(bodies, Ordering::Relaxed);
    }

    /// Attempts that ended earlier are out of retention.
    pub(super) fn attempts(&self) -> Timestamp {
        Timestamp::from_millis(self.attempts.load(Ordering::Relaxed))
    }

    /// Answers to attempts that ended earlier are out of retention.
    pub(super) fn bodies(&self) -> Timestamp {
        Timestamp::from_millis(self.bodies.load(Ordering::Relaxed))
    }
}

impl Floors {
    /// Takes over what the store says.
    pub(super) fn set(&self, floors: BTreeMap<LaneId, u64>) {
        *self.lanes.write() = floors;
    }

    /// Messages of the lane below `floor` are out of retention.
    pub(super) fn raise(&self, lane: LaneId, floor: u64) {
        self.lanes.write().insert(lane, floor);
    }

    pub(super) fn of(&self, lane: LaneId) -> Option<u64> {
        self.lanes.read().get(&lane).copied()
    }

    pub(super) fn all(&self) -> BTreeMap<LaneId, u64> {
        self.lanes.read().clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.read().is_empty()
    }

    pub(super) fn is_retained(&self, at: Position) -> bool {
        self.of(at.lane).is_none_or(|floor| at.seq >= floor)
    }

    /// Rows of lists of earlier days are out of retention.
    pub(super) fn set_days(&self, days: Days) {
        *self.days.write() = days;
    }

    fn days(&self) -> Days {
        *self.days.read()
    }
}

/// Answers the filter of a key space by its name, as the database wants it.
type Filters = Arc<dyn Fn(&str) -> Option<Arc<dyn Factory>> + Send + Sync>;

/// Which key spaces have a filter.
pub(super) fn filters(floors: &Arc<Floors>) -> Filters {
    let floors = Arc::clone(floors);
    Arc::new(move |space| {
        let floors = || AssertUnwindSafe(Arc::clone(&floors));
        let gone = || Arc::new(Gone(floors())) as Arc<dyn Factory>;
        let past = || Arc::new(Past(floors())) as Arc<dyn Factory>;
        match space {
            idem if idem == Space::Idem.name() => Some(gone()),
            lists if lists == Space::Lists.name() => Some(past()),
            _ => None,
        }
    })
}

/// Days are looked at once per compaction as well.
struct Past(AssertUnwindSafe<Arc<Floors>>);

impl Factory for Past {
    fn name(&self) -> &'static str {
        "list rows out of retention"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Kept(self.0.days(), self.0.all()))
    }
}

struct Kept(Days, BTreeMap<LaneId, u64>);

impl Kept {
    /// Whether this is the end of a payload that went with its message.
    fn is_of_none(&self, key: &[u8]) -> bool {
        keys::read_payload_end(key).is_some_and(|(_, at, _)| {
            let floor = self.1.get(&at.lane);
            floor.is_some_and(|floor| at.seq < *floor)
        })
    }
}

impl CompactionFilter for Kept {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> ::fjall::compaction::filter::CompactionFilterResult {
        let key = item.key();
        let kind = key.first().copied().unwrap_or_default();
        let day = keys::read_list_day(key, kind);
        let is_past = day.is_some_and(|day| day < self.0.of(kind));
        Ok(if is_past || self.is_of_none(key) {
            Verdict::Remove
        } else {
            Verdict::Keep
        })
    }
}

/// Looked at once per compaction: the floors only rise, so an older view leaves out less.
struct Gone(AssertUnwindSafe<Arc<Floors>>);

impl Factory for Gone {
    fn name(&self) -> &'static str {
        "event ids out of retention"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(View(self.0.all()))
    }
}

struct View(BTreeMap<LaneId, u64>);

impl CompactionFilter for View {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> ::fjall::compaction::filter::CompactionFilterResult {
        let key = item.key();
        if self.0.is_empty() || key.first() != Some(&keys::EVENT_ID) {
            return Ok(Verdict::Keep);
        }
        let Ok((at, _)) = record::read_event_id(key, &item.value()?) else {
            return Ok(Verdict::Keep);
        };
        let floor = self.0.get(&at.lane);
        let is_gone = floor.is_some_and(|floor| at.seq < *floor);
        Ok(if is_gone {
            Verdict::Remove
        } else {
            Verdict::Keep
        })
    }
}

#[cfg(test)]
mod tests {
    use ::fjall::Readable as _;

    use super::*;
    use crate::base::Timestamp;
    use crate::config::Storage;
    use crate::model::AppNo;
    use crate::store::fjall::spaces::Spaces;

    fn open() -> (tempfile::TempDir, Arc<Floors>, Spaces) {
        let dir = tempfile::tempdir().unwrap();
        let floors = Arc::new(Floors::default());
        let options = Storage {
            dir: dir.path().to_owned(),
            ..crate::config::Config::default().storage
        };
        let spaces = Spaces::open_expiring(&dir.path().join("db"), &options, &floors).unwrap();
        (dir, floors, spaces)
    }

    #[test]
    fn a_compaction_leaves_out_event_ids_below_the_floor_and_nothing_else() {
        let (_dir, floors, spaces) = open();
        let idem = spaces.of(Space::Idem);
        let at = |lane, seq| Position {
            lane: LaneId(lane),
            seq,
        };
        let event_id = |lane: u32, seq: u64| {
            let hash = (u128::from(seq) << 32 | u128::from(lane)).to_be_bytes();
            keys::event_id(AppNo(1), &hash)
        };
        for seq in 1..=4000 {
            for lane in [1, 2] {
                let key = event_id(lane, seq);
                let row = record::event_id(&key, at(lane, seq), Timestamp::from_millis(seq));
                idem.insert(key, row).unwrap();
            }
        }
        idem.insert([keys::EVENT_ID, 9], [1, 2, 3]).unwrap(); // damaged: not ours to judge
        let other = keys::idempotency_bucket(7);
        idem.insert(other, [0; 8]).unwrap();
        let compact = || {
            idem.rotate_memtable_and_wait().unwrap();
            idem.major_compact().unwrap();
            spaces.snapshot().iter(idem).count()
        };
        assert_eq!(compact(), 8002, "nothing is out of retention yet");

        floors.raise(LaneId(1), 3001);
        idem.insert([0xfe], [0]).unwrap(); // something to flush
        assert_eq!(compact(), 8003 - 3000);
        for (lane, seq, stays) in [(1, 3000, false), (1, 3001, true), (2, 1, true)] {
            let key = event_id(lane, seq);
            assert_eq!(idem.get(key).unwrap().is_some(), stays, "{lane} {seq}");
        }
        assert!(idem.get(other).unwrap().is_some());
        assert!(idem.get([keys::EVENT_ID, 9]).unwrap().is_some());
    }

    #[test]
    fn a_compaction_leaves_out_ends_of_payloads_below_the_floor_and_no_other() {
        let (_dir, floors, spaces) = open();
        let lists = spaces.of(Space::Lists);
        let key = |lane, seq, endpoint: Option<u32>| {
            let at = Position {
                lane: LaneId(lane),
                seq,
            };
            let due = Timestamp::from_millis(seq * keys::DAY_MS);
            keys::payload_end(due, at, endpoint.map(crate::model::EndpointNo))
        };
        let all = [
            (key(1, 2, None), false),
            (key(1, 2, Some(7)), false),
            (key(1, 3, None), true),
            (key(2, 1, None), true),
        ];
        for (key, _) in all {
            lists.insert(key, record::number(&key, 0)).unwrap();
        }
        floors.raise(LaneId(1), 3);
        floors.set_days(Days {
            messages: 99,
            attempts: 99,
            bodies: 99,
            audit: 99,
        });
        lists.rotate_memtable_and_wait().unwrap();
        lists.major_compact().unwrap();
        for (key, stays) in all {
            assert_eq!(lists.contains_key(key).unwrap(), stays, "{key:?}");
        }
    }

    #[test]
    fn a_compaction_leaves_out_the_days_of_each_list_that_are_past_and_no_marker() {
        let (_dir, floors, spaces) = open();
        let lists = spaces.of(Space::Lists);
        let (days, kinds) = (1..=9_u32, Days::KINDS);
        for day in days.clone() {
            for kind in kinds {
                lists.insert(keys::list_day(kind, day, 7), [0; 40]).unwrap();
            }
        }
        lists.insert(keys::marker(1), [0; 8]).unwrap();
        lists.insert([keys::OF_BODY, 0], [0; 8]).unwrap(); // no row of ours: not ours to judge
        let left = |kind: u8| -> Vec<u32> {
            let there = |day: &u32| lists.contains_key(keys::list_day(kind, *day, 7)).unwrap();
            days.clone().filter(there).collect()
        };
        let compact = || {
            lists.rotate_memtable_and_wait().unwrap();
            lists.major_compact().unwrap();
        };
        compact();
        for kind in kinds {
            assert_eq!(left(kind).len(), 9, "no day is past yet");
        }
        floors.set_days(Days {
            messages: 3,
            attempts: 2,
            bodies: 8,
            audit: 5,
        });
        lists.insert([0xfe], [0]).unwrap(); // something to flush
        compact();
        let first = kinds.map(|kind| left(kind).first().copied());
        assert_eq!(first, [3, 8, 2, 2, 5].map(Some));
        assert_eq!(left(keys::OF_BODY), [8, 9]);
        assert!(lists.contains_key(keys::marker(1)).unwrap());
        assert!(lists.contains_key([keys::OF_BODY, 0]).unwrap());
    }
}
