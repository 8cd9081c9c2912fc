//! Event type names, each kept once: a hundred thousand messages in memory share a few names.

use std::sync::Arc;

use hashbrown::HashSet;
use parking_lot::RwLock;

/// Names kept at most; further ones are not shared, which costs memory and nothing else.
const MAX: usize = 10_000;

/// The shared names.
#[derive(Default)]
pub(super) struct Names(RwLock<HashSet<Arc<str>>>);

impl Names {
    pub(super) fn shared(&self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.read().get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        let mut names = self.0.write();
        if names.len() >= MAX {
            return new;
        }
        Arc::clone(names.get_or_insert(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_and_the_table_has_an_end() {
        let names = Names::default();
        assert!(Arc::ptr_eq(&names.shared("a"), &names.shared("a")));
        for n in 0..=MAX {
            assert_eq!(*names.shared(&n.to_string()), n.to_string());
        }
        assert_eq!(names.0.read().len(), MAX);
    }
}
