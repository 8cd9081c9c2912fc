//! Who got what: a cell per (message, slot) counts the 2xx answers, so losses and duplicates are
//! exact; latencies by behaviour, and a time line.

use crate::clock::Window;
use crate::hist::Histogram;
use crate::payload::Stamp;
use crate::receiver::Behaviour;
use crate::timeline::Timeline;

/// Numbers from here on are none of ours: a cell for them would take all memory.
const NUMBERS: u64 = 1 << 32;

/// The receiver's book.
#[derive(Default)]
pub(crate) struct Ledger {
    window: Option<Window>,
    /// 2xx answers per `number * slots + slot`, saturating.
    cells: Vec<u8>,
    slots: u64,
    /// 2xx answers in all, and cells filled.
    pub(crate) delivered: u64,
    pub(crate) distinct: u64,
    /// Within the window.
    pub(crate) in_window: u64,
    pub(crate) timeline: Timeline,
    /// From the time in the payload to the request's last byte; sent within the window, first time.
    pub(crate) latency: Histogram,
    /// The same by behaviour, in the order of appearance.
    pub(crate) by_behaviour: Vec<(Behaviour, Histogram)>,
    /// First and last delivery through the gate, unix microseconds, and how many.
    pub(crate) gate: Option<Passed>,
    /// First delivery through the gate at or after the time that [`Ledger::watch`] was told.
    pub(crate) first_after: Option<u64>,
    watched_from: Option<u64>,
    /// Requests that got no 2xx.
    pub(crate) turned_away: u64,
    /// Requests whose body or path is none of ours.
    pub(crate) foreign: u64,
    pub(crate) verified: u64,
    pub(crate) bad_signatures: u64,
    /// Why the first of them was bad.
    pub(crate) first_bad: Option<String>,
    /// Unix microseconds of the last delivery.
    pub(crate) last: u64,
}

/// What went through the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: u64,
}

/// Result of comparing the producer's record with the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Deliveries that had to arrive.
    pub(crate) expected: u64,
    /// Those that did not.
    pub(crate) lost: u64,
    /// Further 2xx of the same delivery.
    pub(crate) duplicates: u64,
}

impl Ledger {
    /// For applications with so many endpoints.
    pub(crate) fn new(slots: u64) -> Self {
        Self {
            slots,
            cells: vec![0; 1 << 20],
            ..Self::default()
        }
    }

    /// From now on deliveries are measured against this window; the time line begins now.
    pub(crate) fn measure(&mut self, window: Window) {
        self.timeline = Timeline::new(window.begin, window.to);
        self.window = Some(window);
    }

    /// Notes the next delivery through the gate from this time on, unix microseconds.
    pub(crate) fn watch(&mut self, from: u64) {
        self.watched_from = Some(from);
        self.first_after = None;
    }

    /// Counts the 2xx of this endpoint for a message.
    pub(crate) fn delivered(
        &mut self,
        stamp: Stamp,
        (behaviour, slot): (Behaviour, u64),
        now: u64,
    ) {
        if slot >= self.slots || stamp.number >= NUMBERS {
            self.foreign += 1;
            return;
        }
        self.delivered += 1;
        self.last = now;
        let is_first = self.fill(stamp.number, slot);
        self.distinct += u64::from(is_first);
        if behaviour == Behaviour::Gate {
            let passed = self.gate.get_or_insert(Passed {
                first: now,
                last: now,
                count: 0,
            });
            passed.last = now;
            passed.count += 1;
            if self.watched_from.is_some_and(|from| now >= from) {
                self.first_after.get_or_insert(now);
            }
        }
        let Some(window) = self.window else { return };
        self.timeline.count(now, 1);
        self.in_window += u64::from(window.contains(now));
        if is_first && window.contains(stamp.sent) {
            let latency = now.saturating_sub(stamp.sent);
            self.latency.record_micros(latency);
            self.timeline.latency(now, latency);
            self.of(behaviour).record_micros(latency);
        }
    }

    /// Whether it is the first 2xx for this cell.
    fn fill(&mut self, number: u64, slot: u64) -> bool {
        let cell = usize::try_from(number * self.slots + slot).unwrap_or(usize::MAX);
        if self.cells.len() <= cell {
            self.cells.resize((cell + 1).next_power_of_two(), 0);
        }
        match self.cells.get_mut(cell) {
            Some(count) => {
                *count = count.saturating_add(1);
                *count == 1
            }
            None => false,
        }
    }

    fn of(&mut self, behaviour: Behaviour) -> &mut Histogram {
        let known = self.by_behaviour.iter().position(|(b, _)| *b == behaviour);
        let at = known.unwrap_or_else(|| {
            self.by_behaviour.push((behaviour, Histogram::default()));
            self.by_behaviour.len() - 1
        });
        match self.by_behaviour.get_mut(at) {
            Some((_, histogram)) => histogram,
            None => &mut self.latency, // cannot be: it was found or pushed just now
        }
    }

    fn count(&self, number: u64, slot: u64) -> u8 {
        let cell = usize::try_from(number * self.slots + slot).unwrap_or(usize::MAX);
        self.cells.get(cell).copied().unwrap_or(0)
    }

    /// Missing and surplus deliveries of the acknowledged messages; `owed` says which slots of a
    /// message must have one.
    pub(crate) fn check(&self, acked: &[u64], owed: impl Fn(u64, u64) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        for &number in acked {
            for slot in (0..self.slots).filter(|slot| owed(number, *slot)) {
                let count = self.count(number, slot);
                verdict.expected += 1;
                verdict.lost += u64::from(count == 0);
                verdict.duplicates += u64::from(count.saturating_sub(1));
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp { sent: 5, number }
    }

    #[test]
    fn the_check_finds_a_lost_and_a_doubled_delivery() {
        let mut ledger = Ledger::new(2);
        for (number, slot) in [(0, 0), (0, 1), (1, 0), (1, 0), (7, 1)] {
            ledger.delivered(stamp(number), (Behaviour::Fast, slot), 9);
        }
        let verdict = ledger.check(&[0, 1], |_, _| true);
        assert_eq!(
            verdict,
            Verdict {
                expected: 4,
                lost: 1,
                duplicates: 1
            }
        );
        let only_first = ledger.check(&[0, 1], |_, slot| slot == 0);
        assert_eq!((only_first.expected, only_first.lost), (2, 0));
        assert_eq!((ledger.delivered, ledger.distinct), (5, 4));
    }

    #[test]
    fn the_first_delivery_after_a_restart_is_noted() {
        let mut ledger = Ledger::new(1);
        ledger.delivered(stamp(0), (Behaviour::Gate, 0), 5);
        assert_eq!(ledger.first_after, None);
        ledger.watch(10);
        ledger.delivered(stamp(1), (Behaviour::Gate, 0), 9);
        ledger.delivered(stamp(2), (Behaviour::Fast, 0), 11);
        ledger.delivered(stamp(3), (Behaviour::Gate, 0), 12);
        ledger.delivered(stamp(4), (Behaviour::Gate, 0), 13);
        assert_eq!(ledger.first_after, Some(12));
    }

    #[test]
    fn only_what_was_sent_in_the_window_counts_for_latency() {
        let mut ledger = Ledger::new(1);
        ledger.measure(Window {
            begin: 5,
            from: 10,
            to: 20,
        });
        for (number, sent) in [(0, 9), (1, 10), (2, 19), (3, 20)] {
            ledger.delivered(Stamp { sent, number }, (Behaviour::Fast, 0), 21);
        }
        assert_eq!(ledger.latency.summary().count, 2);
        assert_eq!(ledger.in_window, 0);
    }

    #[test]
    fn latencies_are_kept_by_behaviour_and_the_gate_by_time() {
        let mut ledger = Ledger::new(1);
        ledger.measure(Window {
            begin: 0,
            from: 0,
            to: 1000,
        });
        for (number, behaviour, now) in [
            (0, Behaviour::Fast, 10),
            (1, Behaviour::Gate, 500),
            (2, Behaviour::Fast, 12),
            (3, Behaviour::Gate, 900),
        ] {
            ledger.delivered(stamp(number), (behaviour, 0), now);
        }
        let counts: Vec<_> = ledger
            .by_behaviour
            .iter()
            .map(|(behaviour, latency)| (*behaviour, latency.summary().max_us))
            .collect();
        assert_eq!(counts, [(Behaviour::Fast, 7), (Behaviour::Gate, 895)]);
        assert_eq!(
            ledger.gate,
            Some(Passed {
                first: 500,
                last: 900,
                count: 2
            })
        );
    }

    #[test]
    fn a_slot_or_a_number_that_does_not_exist_is_foreign() {
        let mut ledger = Ledger::new(1);
        ledger.delivered(stamp(0), (Behaviour::Fast, 1), 9);
        ledger.delivered(stamp(999_999_999_999), (Behaviour::Fast, 0), 9);
        assert_eq!((ledger.foreign, ledger.delivered), (2, 0));
    }
}
