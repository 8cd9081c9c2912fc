//! A map for snapshots, in parts: cheap to copy and to change in one place, however much is in it. (A shard is
//! something else: what an owner owns.)

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};

/// A map in 256 parts, each shared until it changes: a copy costs pointers, a change one part.
pub struct Parted<K, V> {
    hasher: DefaultHashBuilder,
    parts: Vec<Arc<HashMap<K, V>>>,
}

impl<K, V> Default for Parted<K, V> {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            parts: vec![Arc::default(); 256],
        }
    }
}

impl<K, V> Clone for Parted<K, V> {
    fn clone(&self) -> Self {
        Self {
            hasher: self.hasher.clone(),
            parts: self.parts.clone(),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Parted<K, V> {
    /// The value of `key`.
    pub fn get<Q: Hash + hashbrown::Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        self.parts.get(self.part(key))?.get(key)
    }

    /// The value of `key`, to be changed: copies its part if a copy of the map shares it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let part = self.part(key);
        Arc::make_mut(self.parts.get_mut(part)?).get_mut(key)
    }

    /// Sets the value of `key`; costs as [`Parted::get_mut`].
    pub fn put(&mut self, key: K, value: V) {
        let part = self.part(&key);
        if let Some(map) = self.parts.get_mut(part) {
            Arc::make_mut(map).insert(key, value);
        }
    }

    /// Forgets `key`; costs as [`Parted::get_mut`].
    pub fn remove<Q: Hash + hashbrown::Equivalent<K> + ?Sized>(&mut self, key: &Q) {
        let part = self.part(key);
        if let Some(map) = self.parts.get_mut(part) {
            Arc::make_mut(map).remove(key);
        }
    }

    /// Everything in it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        usize::try_from(self.hasher.hash_one(key) % 256).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_sees_nothing_of_later_changes_and_shares_all_parts_but_theirs() {
        let mut map = Parted::default();
        for key in 0..10_000_u32 {
            map.put(key, key);
        }
        let copy = map.clone();
        map.put(7, 70);
        map.remove(&8);
        if let Some(value) = map.get_mut(&9) {
            *value = 90;
        }
        let of = |map: &Parted<u32, u32>| [7, 8, 9].map(|key| map.get(&key).copied());
        assert_eq!(of(&copy), [Some(7), Some(8), Some(9)]);
        assert_eq!(of(&map), [Some(70), None, Some(90)]);
        assert_eq!(copy.values().count(), 10_000);
        assert_eq!(map.values().count(), 9_999);
        let parts = copy.parts.iter().zip(&map.parts);
        let own = parts.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!((1..=3).contains(&own), "{own} parts were copied");
    }
}
