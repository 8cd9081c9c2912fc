//! Rows that are gone although a page may still show them.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashSet;

use crate::model::ParkedKey;
use crate::store::Settlement;

/// Rows that were taken out in a settlement which the store has not applied yet, or which a page may
/// still hold that was asked for before it was: such a page must not bring them back.
#[derive(Default)]
pub(super) struct Unapplied {
    last_taken: u64,
    keys: HashSet<ParkedKey>,
    batches: VecDeque<Batch>,
    /// Every settlement up to this number is applied.
    applied: u64,
    /// Number of the last page asked for.
    last_read: u64,
    /// Pages that were asked for and did not come yet.
    reads: BTreeSet<u64>,
}

/// Rows taken out by one settlement.
struct Batch {
    settlement: u64,
    /// The last page asked for before it was applied; grows until it is.
    read: u64,
    keys: Vec<ParkedKey>,
}

impl Unapplied {
    /// A settlement left; its number.
    pub(super) fn taken(&mut self, settlement: &Settlement) -> u64 {
        self.last_taken += 1;
        self.batches.push_back(Batch {
            settlement: self.last_taken,
            read: u64::MAX,
            keys: settlement.unpark.clone(),
        });
        self.last_taken
    }

    /// A page is asked for; its number.
    pub(super) fn asked(&mut self) -> u64 {
        self.last_read += 1;
        self.reads.insert(self.last_read);
        self.last_read
    }

    /// The page with this number came, and was dealt with.
    pub(super) fn came(&mut self, read: u64) {
        self.reads.remove(&read);
        self.forget();
    }

    /// The number of the last settlement that left.
    pub(super) const fn last_taken(&self) -> u64 {
        self.last_taken
    }

    /// A row is taken out by the settlement being gathered.
    pub(super) fn take_out(&mut self, key: ParkedKey) {
        self.keys.insert(key);
    }

    /// A row is put in (again).
    pub(super) fn put_in(&mut self, key: &ParkedKey) {
        self.keys.remove(key);
    }

    /// Whether the row is taken out already, whatever a page says.
    pub(super) fn contains(&self, key: &ParkedKey) -> bool {
        self.keys.contains(key)
    }

    /// The store has applied everything up to `number`.
    pub(super) fn applied(&mut self, number: u64) {
        let applied = |batch: &&mut Batch| batch.settlement <= number;
        for batch in self.batches.iter_mut().take_while(applied) {
            batch.read = batch.read.min(self.last_read);
        }
        self.applied = number;
        self.forget();
    }

    /// Forgets what no page can bring back any more.
    fn forget(&mut self) {
        let first = self.reads.first().copied().unwrap_or(u64::MAX);
        while let Some(batch) = self.batches.front()
            && batch.settlement <= self.applied
            && batch.read < first
        {
            let keys = self.batches.pop_front().map(|batch| batch.keys);
            for key in keys.into_iter().flatten() {
                self.keys.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Timestamp;
    use crate::model::{EndpointNo, LaneId, Position};

    fn key(seq: u64) -> ParkedKey {
        ParkedKey {
            endpoint: EndpointNo(1),
            due: Timestamp::ZERO,
            at: Position {
                lane: LaneId(1),
                seq,
            },
        }
    }

    fn take(unapplied: &mut Unapplied, seq: u64) -> u64 {
        unapplied.take_out(key(seq));
        unapplied.taken(&Settlement {
            unpark: vec![key(seq)],
            ..Settlement::default()
        })
    }

    #[test]
    fn a_row_that_was_taken_out_is_known_until_the_store_has_applied_it() {
        let mut unapplied = Unapplied::default();
        let (first, second) = (take(&mut unapplied, 1), take(&mut unapplied, 2));
        unapplied.applied(first);
        assert!(!unapplied.contains(&key(1)) && unapplied.contains(&key(2)));
        unapplied.applied(second);
        assert!(!unapplied.contains(&key(2)));
    }

    #[test]
    fn a_page_that_was_asked_for_before_that_brings_nothing_back() {
        let mut unapplied = Unapplied::default();
        let slow = unapplied.asked();
        let number = take(&mut unapplied, 1);
        unapplied.applied(number);
        let later = unapplied.asked();
        assert!(unapplied.contains(&key(1)), "the slow page may hold it");
        unapplied.came(later);
        assert!(unapplied.contains(&key(1)));
        unapplied.came(slow);
        assert!(!unapplied.contains(&key(1)));
        // A page asked for since cannot hold it.
        let other = unapplied.asked();
        assert!(!unapplied.contains(&key(1)));
        unapplied.came(other);
    }
}
