//! When each key was last used, to the minute.
//!
//! Kept in memory, because a write per request would cost more than the request; the composition root
//! has it stored now and then, all keys in one change ([`super::Auth::store_last_use`]). What a crash
//! loses is the use since then. One entry per key that was used since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::base::Timestamp;
use crate::model::KeyId;

/// A use is noted at most this often: a busy key costs a request one read.
const COARSE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct LastUse(RwLock<HashMap<KeyId, Use>>);

/// Milliseconds; 0 = never.
struct Use {
    at: AtomicU64,
    stored: AtomicU64,
}

impl LastUse {
    /// The key is used at `now`.
    pub(super) fn note(&self, key: KeyId, now: Timestamp) {
        if let Some(known) = self.0.read().get(&key) {
            let before = Timestamp::from_millis(known.at.load(Ordering::Relaxed));
            if now.since(before) >= COARSE {
                known.at.fetch_max(now.millis(), Ordering::Relaxed);
            }
            return;
        }
        let first = || Use {
            at: AtomicU64::new(now.millis()),
            stored: AtomicU64::new(0),
        };
        self.0.write().entry(key).or_insert_with(first);
    }

    /// When it was last used since the start.
    pub(super) fn of(&self, key: KeyId) -> Option<Timestamp> {
        let known = self.0.read();
        let at = known.get(&key)?.at.load(Ordering::Relaxed);
        Some(Timestamp::from_millis(at))
    }

    /// Uses that are not stored.
    pub(super) fn unstored(&self) -> Vec<(KeyId, Timestamp)> {
        let known = self.0.read();
        let unstored = known.iter().filter_map(|(key, used)| {
            let at = used.at.load(Ordering::Relaxed);
            (at > used.stored.load(Ordering::Relaxed)).then_some((*key, Timestamp::from_millis(at)))
        });
        unstored.collect()
    }

    /// These are stored.
    pub(super) fn stored(&self, uses: &[(KeyId, Timestamp)]) {
        let known = self.0.read();
        for (key, at) in uses {
            if let Some(used) = known.get(key) {
                used.stored.fetch_max(at.millis(), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_noted_to_the_minute_and_stored_once() {
        let (uses, key) = (LastUse::default(), KeyId::new(Timestamp::ZERO, [1; 14]));
        let at = |secs: u64| Timestamp::from_millis(1_767_600_000_000 + secs * 1000);
        assert_eq!(uses.of(key), None);
        uses.note(key, at(0));
        uses.note(key, at(59));
        assert_eq!(uses.of(key), Some(at(0)));
        uses.note(key, at(60));
        let unstored = uses.unstored();
        assert_eq!(unstored, [(key, at(60))]);
        uses.note(key, at(120)); // meanwhile
        uses.stored(&unstored);
        assert_eq!(uses.unstored(), [(key, at(120))]);
        uses.stored(&uses.unstored());
        assert_eq!(uses.unstored(), []);
        uses.note(key, at(100)); // the clock went back
        assert_eq!(uses.of(key), Some(at(120)));
    }
}
