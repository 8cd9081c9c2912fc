//! Who is told how far the cancelling of an endpoint's deliveries is.

use hashbrown::HashMap;
use tokio::sync::watch;

use super::core::Cancelled;
use crate::model::EndpointNo;

/// Walks of the core (`core::cancel`) and their listeners; one walk per endpoint at a time.
#[derive(Default)]
pub(super) struct Walks {
    /// Not begun yet. As many as the API runs background tasks at a time.
    wanted: Vec<(EndpointNo, watch::Sender<Cancelled>)>,
    /// Dropped at the end of the walk: that ends the wait of whoever listens.
    running: HashMap<EndpointNo, watch::Sender<Cancelled>>,
    /// True once the settlement of this number is applied.
    news: Vec<(EndpointNo, Cancelled, u64)>,
}

impl Walks {
    /// Somebody wants a walk.
    pub(super) fn wanted(&mut self, endpoint: EndpointNo, told: watch::Sender<Cancelled>) {
        self.wanted.push((endpoint, told));
    }

    /// The next endpoint whose walk may begin.
    pub(super) fn begin(&mut self) -> Option<EndpointNo> {
        let free = |(endpoint, _): &(EndpointNo, _)| !self.running.contains_key(endpoint);
        let place = self.wanted.iter().position(free)?;
        let (endpoint, told) = self.wanted.remove(place);
        self.running.insert(endpoint, told);
        Some(endpoint)
    }

    /// The core says how far a walk is.
    pub(super) fn heard(&mut self, endpoint: EndpointNo, so_far: Cancelled, settled: u64) {
        self.news.push((endpoint, so_far, settled));
    }

    /// Tells what is in the store.
    pub(super) fn tell(&mut self, applied: u64) {
        let Self { running, news, .. } = self;
        news.retain(|(endpoint, so_far, settled)| {
            if *settled > applied {
                return true;
            }
            if let Some(told) = running.get(endpoint) {
                told.send_replace(*so_far);
            }
            if so_far.done {
                running.remove(endpoint);
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_has_one_walk_at_a_time_and_is_told_what_is_stored() {
        let mut walks = Walks::default();
        let (first, mut listens) = watch::channel(Cancelled::default());
        let (second, mut waits) = watch::channel(Cancelled::default());
        let (other, _) = watch::channel(Cancelled::default());
        walks.wanted(EndpointNo(1), first);
        walks.wanted(EndpointNo(1), second);
        walks.wanted(EndpointNo(2), other);
        assert_eq!(walks.begin(), Some(EndpointNo(1)));
        assert_eq!(walks.begin(), Some(EndpointNo(2)));
        assert_eq!(walks.begin(), None);
        let done = Cancelled {
            cancelled: 3,
            sending: 0,
            done: true,
        };
        walks.heard(EndpointNo(1), done, 7);
        walks.tell(6);
        assert!(!listens.has_changed().unwrap());
        walks.tell(7);
        assert_eq!(*listens.borrow_and_update(), done);
        assert!(listens.has_changed().is_err(), "nothing more comes");
        assert_eq!(walks.begin(), Some(EndpointNo(1)));
        assert!(!waits.borrow_and_update().done);
    }
}
