//! Who is working on an idempotency key or an event id at this moment.
//!
//! A claim is held from the first look into the store until the commit, so of equal requests that
//! come at the same time one is carried out and the others wait for it and find its answer in the
//! store. Requests without a key and without an event id never come here.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// An equal request waits this long at most.
const PATIENCE: Duration = Duration::from_secs(5);
const SHARDS: usize = 64;

/// 128 bits of a hash over what must not happen twice.
pub type Key = [u8; 16];

type Shard = Mutex<HashMap<Key, Arc<Semaphore>>>;

/// All claims of the process. As many entries as there are requests under way.
#[derive(Clone)]
pub struct Claims(Arc<Vec<Shard>>);

impl Default for Claims {
    fn default() -> Self {
        Self(Arc::new((0..SHARDS).map(|_| Shard::default()).collect()))
    }
}

/// Somebody else has held the claim for five seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken;

/// The right to work on a key; ends when dropped.
#[must_use]
pub struct Claim {
    claims: Claims,
    key: Key,
    /// Closed when the claim ends: whoever waits on it wakes, also one who comes late.
    ended: Arc<Semaphore>,
}

impl Claims {
    /// Waits until nobody works on `key`, five seconds at most. Cancel safe.
    pub async fn claim(&self, key: Key) -> Result<Claim, Taken> {
        let attempt = async {
            loop {
                match self.try_claim(key) {
                    Ok(claim) => return claim,
                    // The semaphore has no permits: acquiring ends when it is closed.
                    Err(other) => drop(other.acquire().await),
                }
            }
        };
        tokio::time::timeout(PATIENCE, attempt)
            .await
            .map_err(|_| Taken)
    }

    fn try_claim(&self, key: Key) -> Result<Claim, Arc<Semaphore>> {
        let Some(shard) = self.shard(key) else {
            return Err(Arc::new(Semaphore::new(0))); // there are SHARDS of them: never
        };
        match shard.lock().entry(key) {
            Entry::Occupied(other) => Err(Arc::clone(other.get())),
            Entry::Vacant(place) => {
                let ended = Arc::new(Semaphore::new(0));
                place.insert(Arc::clone(&ended));
                Ok(Claim {
                    claims: self.clone(),
                    key,
                    ended,
                })
            }
        }
    }

    fn shard(&self, key: Key) -> Option<&Shard> {
        let [first, ..] = key;
        self.0.get(usize::from(first) % SHARDS)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(shard) = self.claims.shard(self.key) {
            shard.lock().remove(&self.key);
        }
        self.ended.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, SystemClock};

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_for_the_first() {
        let claims = Claims::default();
        let first = claims.claim([1; 16]).await.unwrap();
        assert!(claims.claim([2; 16]).await.is_ok());
        let second = claims.claim([1; 16]);
        let ends = async move { drop(first) };
        let (second, ()) = tokio::join!(second, ends);
        drop(second.unwrap());
        assert!(claims.claim([1; 16]).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_after_five_seconds() {
        let claims = Claims::default();
        let _first = claims.claim([1; 16]).await.unwrap();
        let clock = SystemClock::start();
        assert_eq!(claims.claim([1; 16]).await.err(), Some(Taken));
        assert_eq!(clock.monotonic().as_secs(), 5);
    }
}
