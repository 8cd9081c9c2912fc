//! A row taken out of a store behind its back is a hole that an open refuses.
//!
//! Rings have 16 slots here, so that they come round.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::base::Timestamp;
use crate::config::{HighWater, Retention, Storage};
use crate::model::{
    AppNo, Attempt, ContentType, Delivery, EndpointNo, EndpointState, Message, Outcome, ParkReason,
    Parked, ParkedKey, Trigger, Verdict,
};
use crate::store::fjall::hwm::MarkFile;
use crate::store::fjall::{Store, open_mark};
use crate::store::{Accept, IdempotencyKey, Settlement, Writer as _};

fn options(dir: &Path) -> Storage {
    Storage {
        dir: dir.to_owned(),
        high_water: HighWater::EveryCommit,
        ..Storage::default()
    }
}

fn accept(key: u8) -> Accept {
    Accept {
        message: Message {
            at: Position::START,
            accepted: Timestamp::from_millis(5),
            app: AppNo(1),
            event_type: "invoice.paid".into(),
            content_type: ContentType::Json,
            payload: Bytes::from_static(b"{}"),
            targets: Vec::new(),
            labels: None,
        },
        idempotency: Some(IdempotencyKey {
            key: [key; 16],
            body: [0; 16],
        }),
    }
}

/// A settlement that touches every key space it can.
fn settlement(at: Position) -> Settlement {
    let endpoint = EndpointNo(1);
    let attempt = |no| Attempt {
        at,
        endpoint,
        app: AppNo(1),
        no,
        accepted: Some(Timestamp::from_millis(5)),
        ended: Timestamp::from_millis(9),
        duration_ms: 1,
        outcome: Outcome {
            status: 200,
            failure: None,
            retry_after_secs: None,
        },
        trigger: Trigger::Scheduled,
        verdict: Verdict::Delivered,
        response: Bytes::new(),
    };
    let key = ParkedKey {
        endpoint,
        due: Timestamp::ZERO,
        at,
    };
    Settlement {
        attempts: vec![attempt(1), attempt(2)],
        park: vec![Parked {
            key,
            attempts: 1,
            base: 0,
            reason: ParkReason::Retry,
            trigger: Trigger::Scheduled,
            bytes: 2,
            order_key: 0,
        }],
        cancelled: vec![Delivery { at, endpoint }],
        states: vec![(endpoint, EndpointState::default())],
        checkpoint: vec![(at.lane, at.seq)],
        ..Settlement::default()
    }
}

/// A store of ten commits in lane 1: an append of two and a settlement in turn.
fn filled(dir: &Path) {
    let opened = Store::open(&options(dir), &Retention::default()).unwrap();
    let mut writer = opened.writer;
    for n in 0..5 {
        let mut batch = [accept(n), accept(n + 100)];
        writer.append(&mut batch).unwrap();
        writer.settle(&settlement(batch[0].message.at)).unwrap();
    }
    writer.append(&mut [accept(50)]).unwrap();
}

fn checked(dir: &Path) -> Result<Found, Error> {
    let (_, mark) = open_mark(&dir.join("hwm"), Position::START).unwrap();
    let spaces = Spaces::open(&dir.join("db"), &options(dir)).unwrap();
    check(&spaces, &mark)
}

/// What a check says after one row was taken out.
fn without(space: Space, key: &[u8]) -> Result<Found, Error> {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let spaces = Spaces::open(&dir.path().join("db"), &options(dir.path())).unwrap();
    assert!(
        spaces.of(space).contains_key(key).unwrap(),
        "the row was there"
    );
    spaces
        .of(space)
        .remove(Bytes::copy_from_slice(key))
        .unwrap();
    drop(spaces);
    checked(dir.path())
}

fn refused(found: Result<Found, Error>) -> bool {
    matches!(found, Err(Error::Regressed(_)))
}

const fn at(seq: u64) -> Position {
    Position {
        lane: LaneId(1),
        seq,
    }
}

#[test]
fn a_whole_store_is_found_as_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let found = checked(dir.path()).unwrap();
    assert_eq!((found.batch.number, found.batch.tail), (12, at(11)));
    assert_eq!(found.lanes[&LaneId(1)].last, 11);
    assert_eq!(found.highest_lane, LaneId(1));
}

#[test]
fn a_missing_batch_record_is_a_hole_wherever_it_stood() {
    for number in 1..=12 {
        assert!(
            refused(without(Space::Meta, &keys::batch(number))),
            "{number}"
        );
    }
}

/// Settlements until the newest batch has this number.
fn filled_up_to(dir: &Path, number: u64) {
    let opened = Store::open(&options(dir), &Retention::default()).unwrap();
    let mut writer = opened.writer;
    writer.append(&mut [accept(1)]).unwrap();
    for _ in 2..number {
        writer.settle(&settlement(at(1))).unwrap();
    }
    writer.sync().unwrap();
}

#[test]
fn rings_that_have_come_round_are_verified_as_well() {
    for number in [
        RING - 1,
        RING,
        RING + 1,
        2 * RING - 1,
        2 * RING,
        2 * RING + 5,
    ] {
        let dir = tempfile::tempdir().unwrap();
        filled_up_to(dir.path(), number);
        assert_eq!(checked(dir.path()).unwrap().batch.number, number);
    }
    let last = 2 * RING + 5;
    let dir = tempfile::tempdir().unwrap();
    filled_up_to(dir.path(), last);
    for missing in last - RING + 1..=last {
        for (space, key) in [
            (Space::Meta, keys::batch(missing)),
            (Space::Parked, keys::marker(missing)),
        ] {
            let spaces = Spaces::open(&dir.path().join("db"), &options(dir.path())).unwrap();
            let kept = spaces.of(space).get(key).unwrap().unwrap();
            spaces
                .of(space)
                .remove(Bytes::copy_from_slice(&key))
                .unwrap();
            drop(spaces);
            assert!(refused(checked(dir.path())), "{space:?} {missing}");
            let spaces = Spaces::open(&dir.path().join("db"), &options(dir.path())).unwrap();
            spaces
                .of(space)
                .insert(Bytes::copy_from_slice(&key), kept)
                .unwrap();
        }
    }
    checked(dir.path()).unwrap();
}

#[test]
fn a_missing_marker_is_a_hole_in_every_key_space() {
    // Batch 1 opens the lane, even ones append, odd ones settle.
    for space in [Space::Parked, Space::AttemptsLate, Space::State] {
        assert!(refused(without(space, &keys::marker(5))), "{space:?}");
    }
    for space in [Space::Lists, Space::Idem] {
        assert!(refused(without(space, &keys::marker(4))), "{space:?}");
    }
    let among_attempts = keys::attempts_marker(at(4), 5);
    assert!(refused(without(Space::Attempts, &among_attempts)));
}

#[test]
fn a_missing_message_is_a_hole() {
    for seq in 1..=11 {
        assert!(refused(without(Space::Messages, &at(seq).bytes())), "{seq}");
    }
}

#[test]
fn a_store_behind_its_mark_or_with_another_history_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let path = dir.path().join("hwm");
    let mark = MarkFile::peek(&path).unwrap().unwrap();
    let ahead = Mark {
        batch: 13,
        ..mark.clone()
    };
    let elsewhere = Mark {
        hash: [7; 16],
        ..mark.clone()
    };
    let longer = Mark {
        lanes: [(LaneId(1), 12)].into(),
        ..mark
    };
    for other in [ahead, elsewhere, longer] {
        let (mut file, _) = MarkFile::open(&path).unwrap();
        file.write(&other).unwrap();
        assert!(refused(checked(dir.path())), "{other:?}");
    }
    let (mut file, _) = MarkFile::open(&path).unwrap();
    file.write(&mark).unwrap();
    checked(dir.path()).unwrap();
}

#[test]
fn numbers_of_ring_slots_are_those_of_the_last_round() {
    let chain = |number| Chain {
        last: BatchRecord {
            number,
            ..BatchRecord::GENESIS
        },
        touched: Vec::new(),
        attempts: Vec::new(),
    };
    assert_eq!(chain(5).number(5), 5);
    assert_eq!(chain(5).number(6), 0, "not yet written");
    assert_eq!(chain(RING + 5).number(5), RING + 5);
    assert_eq!(chain(RING + 5).number(6), 6);
    assert_eq!(chain(3 * RING).number(0), 3 * RING);
    assert_eq!(chain(3 * RING).number(RING - 1), 3 * RING - 1);
}
