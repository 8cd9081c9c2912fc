//! How far back the attempts of a day reach.
//!
//! Attempts stand in the order of their messages, and their retention counts from when each ended: a
//! message that waited for a year may have ended yesterday. So there is a row for each day and lane with
//! the lowest message of which an attempt ended on that day, written in the commit of the attempt that
//! lowers it: one row a day where messages are delivered in order. From these rows follows up to where
//! the attempts of a lane may be dropped.
//!
//! Invariants: what is in memory is what is stored; attempts of messages that are retained are never
//! below the answer. A row that cannot be read holds everything of its lane.

use std::collections::BTreeMap;

use ::fjall::{Readable as _, Snapshot};

use super::reader::row;
use super::spaces::{Space, Spaces};
use super::writer::Commit;
use super::{keys, record};
use crate::model::{Attempt, LaneId};
use crate::store::Error;

/// By day and lane the lowest sequence number.
pub(super) type Lowered = BTreeMap<(u32, LaneId), u64>;

/// All rows of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach(Lowered);

impl Reach {
    /// Reads the rows.
    pub(super) fn read(spaces: &Spaces, view: &Snapshot) -> Result<Self, Error> {
        let mut all = Lowered::new();
        for guard in view.prefix(spaces.of(Space::Lists), [keys::OF_DAY]) {
            let (key, value) = row(guard)?;
            if let Some(place) = keys::read_first_of_day(&key) {
                all.insert(place, record::read_number(&key, &value).unwrap_or(0));
            }
        }
        Ok(Self(all))
    }

    /// What these attempts lower.
    pub(super) fn lowered(&self, attempts: &[Attempt]) -> Lowered {
        let mut lowered = Lowered::new();
        // Mostly all of one lane and day.
        let mut last = None;
        for attempt in attempts {
            let place = (keys::day(attempt.ended), attempt.at.lane);
            let known = match last {
                Some((known, seq)) if known == place => seq,
                _ => {
                    let known = lowered.get(&place).or_else(|| self.0.get(&place));
                    known.copied().unwrap_or(u64::MAX)
                }
            };
            let seq = known.min(attempt.at.seq);
            if seq < known {
                lowered.insert(place, seq);
            }
            last = Some((place, seq));
        }
        lowered
    }

    /// Takes over what was written.
    pub(super) fn lower(&mut self, lowered: Lowered) {
        self.0.extend(lowered);
    }

    /// Days before `day` hold nothing any more.
    pub(super) fn forget_before(&mut self, day: u32) {
        self.0 = self.0.split_off(&(day, LaneId(0)));
    }

    /// Per lane up to where no attempt is kept: `floors` are those of the messages, `day` is the first
    /// whose attempts are kept.
    pub(super) fn floors(&self, floors: &BTreeMap<LaneId, u64>, day: u32) -> BTreeMap<LaneId, u64> {
        let mut floors = floors.clone();
        for ((_, lane), seq) in self.0.range((day, LaneId(0))..) {
            if let Some(floor) = floors.get_mut(lane) {
                *floor = (*floor).min(*seq);
            }
        }
        floors
    }
}

/// Writes the rows of what is lowered.
pub(super) fn put(lowered: &Lowered, commit: &mut Commit, spaces: &Spaces) {
    for ((day, lane), seq) in lowered {
        let key = keys::first_of_day(*day, *lane);
        commit.put(spaces, Space::Lists, &key, record::number(&key, *seq));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::Timestamp;
    use crate::model::{AppNo, EndpointNo, Outcome, Position, Trigger, Verdict};

    fn ended(day: u64, lane: u32, seq: u64) -> Attempt {
        Attempt {
            at: Position {
                lane: LaneId(lane),
                seq,
            },
            endpoint: EndpointNo(1),
            app: AppNo(1),
            no: 1,
            accepted: None,
            ended: Timestamp::from_millis(day * keys::DAY_MS + 7),
            duration_ms: 1,
            outcome: Outcome {
                status: 204,
                failure: None,
                retry_after_secs: None,
            },
            trigger: Trigger::Scheduled,
            verdict: Verdict::Delivered,
            response: Bytes::new(),
        }
    }

    #[test]
    fn a_row_is_written_only_for_what_lies_lower_than_ever_that_day() {
        let mut reach = Reach::default();
        let first = reach.lowered(&[ended(3, 1, 20), ended(3, 1, 21), ended(3, 2, 9)]);
        let expected = [((3, LaneId(1)), 20), ((3, LaneId(2)), 9)];
        assert_eq!(first, Lowered::from(expected));
        reach.lower(first);
        assert_eq!(
            reach.lowered(&[ended(3, 1, 22), ended(3, 2, 9)]),
            Lowered::new()
        );
        let mixed = [
            ended(3, 1, 8),
            ended(3, 2, 10),
            ended(3, 1, 12),
            ended(4, 1, 30),
        ];
        let expected = [((3, LaneId(1)), 8), ((4, LaneId(1)), 30)];
        assert_eq!(reach.lowered(&mixed), Lowered::from(expected));
    }

    #[test]
    fn attempts_go_up_to_the_lowest_of_the_days_that_are_kept_and_never_beyond_their_messages() {
        let mut reach = Reach::default();
        let all = [
            ended(3, 1, 5),
            ended(4, 1, 40),
            ended(5, 1, 30),
            ended(4, 2, 7),
        ];
        reach.lower(reach.lowered(&all));
        let messages = BTreeMap::from([(LaneId(1), 35), (LaneId(3), 9)]);
        let of = |reach: &Reach, day| {
            let floors = reach.floors(&messages, day);
            [1, 3].map(|lane| floors.get(&LaneId(lane)).copied())
        };
        assert_eq!(of(&reach, 3), [Some(5), Some(9)]);
        assert_eq!(of(&reach, 4), [Some(30), Some(9)]);
        assert_eq!(of(&reach, 6), [Some(35), Some(9)]);
        assert_eq!(reach.floors(&messages, 3).get(&LaneId(2)), None);
        reach.forget_before(4);
        assert_eq!(of(&reach, 0), [Some(30), Some(9)]);
    }
}
