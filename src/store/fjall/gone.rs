//! Event ids of messages that are out of retention leave with the compactions of their key space.
//!
//! They stand under the hash of the id, in no order of time, so no range of them can be dropped; and
//! removing them one by one would write as much as accepting messages does. A compaction reads and
//! rewrites its rows anyway: what it leaves out costs nothing and keeps up with any rate, since the
//! more ids are written the more is compacted. The slow sweep of [`super::expire`] is for stores that
//! compact no more.
//!
//! Invariant: the same rule as for readers ([`Floors::is_retained`]), so what is left out had not been
//! visible any more. Before the floors are read from the store nothing is left out. Only rows of event
//! ids are looked at; a row that cannot be read stays, to be found by who reads it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ::fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use parking_lot::RwLock;

use super::spaces::Space;
use super::{keys, record};
use crate::model::{LaneId, Position};

/// Per lane the first message that is retained.
#[derive(Debug, Default)]
pub(super) struct Floors(RwLock<BTreeMap<LaneId, u64>>);

impl From<BTreeMap<LaneId, u64>> for Floors {
    fn from(floors: BTreeMap<LaneId, u64>) -> Self {
        Self(RwLock::new(floors))
    }
}

impl Floors {
    /// Takes over what the store says.
    pub(super) fn set(&self, floors: BTreeMap<LaneId, u64>) {
        *self.0.write() = floors;
    }

    /// Messages of the lane below `floor` are out of retention.
    pub(super) fn raise(&self, lane: LaneId, floor: u64) {
        self.0.write().insert(lane, floor);
    }

    pub(super) fn of(&self, lane: LaneId) -> Option<u64> {
        self.0.read().get(&lane).copied()
    }

    pub(super) fn all(&self) -> BTreeMap<LaneId, u64> {
        self.0.read().clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    pub(super) fn is_retained(&self, at: Position) -> bool {
        self.of(at.lane).is_none_or(|floor| at.seq >= floor)
    }
}

/// Answers the filter of a key space by its name, as the database wants it.
type Filters = Arc<dyn Fn(&str) -> Option<Arc<dyn Factory>> + Send + Sync>;

/// Which key spaces have a filter.
pub(super) fn filters(floors: &Arc<Floors>) -> Filters {
    let floors = Arc::clone(floors);
    Arc::new(move |space| {
        let gone = || Arc::new(Gone(AssertUnwindSafe(Arc::clone(&floors)))) as Arc<dyn Factory>;
        (space == Space::Idem.name()).then(gone)
    })
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

    #[test]
    fn a_compaction_leaves_out_event_ids_below_the_floor_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let floors = Arc::new(Floors::default());
        let options = Storage {
            dir: dir.path().to_owned(),
            ..crate::config::Config::default().storage
        };
        let spaces = Spaces::open_expiring(&dir.path().join("db"), &options, &floors).unwrap();
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
}
