//! What is open in a lane, and so how far its checkpoint may move.

use std::collections::VecDeque;

/// Open deliveries per message behind the checkpoint.
#[derive(Debug, Default)]
pub(super) struct OpenLane {
    /// Every delivery of a message up to here is settled or parked.
    base: u64,
    /// Open deliveries of the messages `base + 1`, `base + 2` …
    open: VecDeque<u32>,
    reported: u64,
}

impl OpenLane {
    pub(super) const fn at(checkpoint: u64) -> Self {
        Self {
            base: checkpoint,
            open: VecDeque::new(),
            reported: checkpoint,
        }
    }

    /// Messages up to `seq` are known.
    pub(super) fn extend(&mut self, seq: u64) {
        let wanted = usize::try_from(seq.saturating_sub(self.base)).unwrap_or(usize::MAX);
        if wanted > self.open.len() {
            self.open.resize(wanted, 0);
        }
    }

    /// The newest message known.
    pub(super) fn last(&self) -> u64 {
        let open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        self.base.saturating_add(open)
    }

    /// A delivery of message `seq` is in memory.
    pub(super) fn open(&mut self, seq: u64) {
        if let Some(count) = self.slot(seq) {
            *count += 1;
        }
    }

    /// A delivery of message `seq` left memory.
    pub(super) fn close(&mut self, seq: u64) {
        if let Some(count) = self.slot(seq) {
            *count = count.saturating_sub(1);
        }
    }

    /// The checkpoint, if it moved since the last call.
    pub(super) fn moved(&mut self) -> Option<u64> {
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.base += 1;
        }
        (self.base > self.reported).then(|| {
            self.reported = self.base;
            self.base
        })
    }

    fn slot(&mut self, seq: u64) -> Option<&mut u32> {
        let place = seq.checked_sub(self.base + 1)?;
        self.open.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_stops_before_the_first_open_delivery() {
        let mut lane = OpenLane::at(10);
        lane.extend(14);
        lane.open(12);
        lane.open(12);
        lane.open(13);
        assert_eq!(lane.moved(), Some(11));
        lane.close(13);
        lane.close(12);
        assert_eq!(lane.moved(), None);
        lane.close(12);
        assert_eq!(lane.moved(), Some(14));
        assert_eq!(lane.moved(), None);
    }
}
