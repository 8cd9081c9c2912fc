//! Every small record reads back, and no flipped bit goes unnoticed.

use proptest::prelude::*;

use super::*;
use crate::model::{AppNo, DeadReason, FailureKind, Outcome};
use crate::store::fjall::attempt::{self, Body};

fn opt_time() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of(any::<u64>().prop_map(Timestamp::from_millis))
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from)
}

fn long() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 250..300).prop_map(Bytes::from)
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u32>(), any::<u64>()).prop_map(|(lane, seq)| Position {
        lane: LaneId(lane),
        seq,
    })
}

prop_compose! {
    fn an_attempt()(
        at in position(), ep: u32, app: u32, no: u16, accepted in opt_time(), ended: u64,
        duration_ms: u32,
        status: u16, failure in proptest::option::of(0..FailureKind::ALL.len()),
        retry_after_secs: Option<u32>, manual: bool, verdict in 0..4_u8, retry: u64,
        response in prop_oneof![bytes(), long()],
    ) -> Attempt {
        Attempt {
            at, endpoint: EndpointNo(ep), app: AppNo(app), no, accepted,
            ended: Timestamp::from_millis(ended), duration_ms,
            outcome: Outcome {
                status, failure: failure.map(|n| FailureKind::ALL[n]), retry_after_secs,
            },
            trigger: if manual { Trigger::Manual } else { Trigger::Scheduled },
            verdict: match verdict {
                0 => Verdict::Delivered,
                1 => Verdict::RetryAt(Timestamp::from_millis(retry)),
                2 => Verdict::Dead(DeadReason::Exhausted),
                _ => Verdict::Dead(DeadReason::Manual),
            },
            response,
        }
    }
}

prop_compose! {
    fn a_parked_row()(
        ep: u32, due: u64, at in position(), attempts: u16, base: u16, reason in 0..4_usize,
        manual: bool, bytes: u32, order_key: u64,
    ) -> Parked {
        let reasons =
            [ParkReason::Backlog, ParkReason::Retry, ParkReason::Behind, ParkReason::Once];
        Parked {
            key: ParkedKey { endpoint: EndpointNo(ep), due: Timestamp::from_millis(due), at },
            attempts, base, reason: reasons[reason],
            trigger: if manual { Trigger::Manual } else { Trigger::Scheduled },
            bytes, order_key,
        }
    }
}

proptest! {
    #[test]
    fn attempts_read_back(one in an_attempt()) {
        let key = keys::attempt(one.at, one.endpoint, one.no);
        let value = Bytes::from(attempt::write(&key, &one));
        let (mut back, body) = attempt::read(&key, &value).unwrap();
        let expected = match (one.accepted, one.response.len()) {
            (Some(_), 257..) => Body::Apart,
            _ => Body::Here,
        };
        prop_assert_eq!((body, attempt::body_of(&one)), (expected, expected));
        if body == Body::Apart {
            prop_assert!(value.len() < 80 && back.response.is_empty());
            let key = keys::body(one.ended, one.at, one.endpoint, one.no);
            let answer = Bytes::from(attempt::answer(&key, &one.response));
            back.response = attempt::read_answer(&key, &answer).unwrap();
        }
        prop_assert_eq!(back, one);
    }

    #[test]
    fn parked_rows_read_back(row in a_parked_row()) {
        let key = keys::parked(row.key);
        prop_assert_eq!(read_parked(&key, &parked(&key, &row)).unwrap(), row);
    }

    #[test]
    fn endpoint_states_read_back(
        failures: u32, first_failure in opt_time(), last_failure in opt_time(),
        last_success in opt_time(), announced: bool, rows: u64, parked_bytes: u64,
    ) {
        let health = Health { failures, first_failure, last_failure, last_success, announced };
        let one = EndpointState { health, parked: rows, parked_bytes };
        let key = keys::state(EndpointNo(7));
        prop_assert_eq!(read_state(&key, &state(&key, &one)).unwrap(), (EndpointNo(7), one));
    }

    #[test]
    fn idempotency_records_read_back(
        body: [u8; 16], ms: u64, at in position(), status in 1..600_u16, answer in bytes(),
        whole: bool,
    ) {
        let answer = if whole {
            StoredAnswer::Whole { status, body: answer }
        } else {
            StoredAnswer::Message(at)
        };
        let one = IdempotencyRecord { body, at: Timestamp::from_millis(ms), answer };
        let key = keys::idempotency(3, &[9; 16]);
        let value = Bytes::from(idempotency(&key, &one));
        prop_assert_eq!(read_idempotency(&key, &value).unwrap(), one);
    }

    #[test]
    fn list_rows_read_back(first in 0..u64::MAX / 2, gaps in proptest::collection::vec(1..1000_u64, 0..50)) {
        let at = Position { lane: LaneId(1), seq: first };
        let mut row = AppRow::new(at);
        let mut seqs = vec![first];
        for gap in gaps {
            seqs.push(seqs.last().unwrap() + gap);
            row.push(*seqs.last().unwrap());
        }
        prop_assert_eq!(read_app_row(b"key", &row.seal(b"key"), first).unwrap(), seqs);
    }

    #[test]
    fn attempt_lists_read_back(attempts in proptest::collection::vec(an_attempt(), 1..20)) {
        let slot = keys::slot(attempts[0].ended);
        let same = attempts.iter().filter(|one| keys::slot(one.ended) == slot);
        let key = keys::endpoint_row(EndpointNo(1), slot, 9, 0);
        let value = endpoint_row(&key, same.clone());
        let mut found = Vec::new();
        read_endpoint_row(&key, &value, |entry| found.push(entry.key)).unwrap();
        let expected = same.map(|one| ListKey { time: one.ended, at: one.at, no: one.no });
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_flipped_bit_in_a_small_record_is_found(
        row in a_parked_row(), at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let key = keys::parked(row.key);
        let mut value = parked(&key, &row);
        let at = at.index(value.len());
        value[at] ^= 1_u8 << bit;
        let refused = matches!(read_parked(&key, &value), Err(Error::Corrupt { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn varints_read_back(n: u64) {
        let mut out = Vec::new();
        put_varint(&mut out, n);
        prop_assert_eq!(varint(&mut out.as_slice()), Some(n));
    }
}

#[test]
fn a_record_under_another_key_is_refused() {
    let value = number(b"R", 5);
    assert_eq!(read_number(b"R", &value).unwrap(), 5);
    assert!(read_number(b"T", &value).is_err());
}
