//! Ends of payloads in the embedded store: they are found when they are due, survive whatever ends the
//! process, and what is taken away leaves the disk.

use std::time::Duration;

use bytes::Bytes;
use posthaste::base::Timestamp;
use posthaste::config::Retention;
use posthaste::model::{Delivery, EndpointNo, Labels, LaneId, Position};
use posthaste::store::fjall::{Opened, Store, verify};
use posthaste::store::{Accept, Ended, PayloadEnd, Reader, Settlement, Writer};

use super::expunge::holding;
use super::world::{accept, open, storage};

const NOW: Timestamp = Timestamp::from_millis(1_767_600_000_000);
const HOUR: Duration = Duration::from_secs(3600);
/// Nothing that compresses, so it stands in a file as it is.
const ENDS: &str = r#"{"k":"Wm3Xc8Vn1Bq6Lz9Kj4Hg7Fd2Sa5Po0Iu-Yt8Re3Wq"}"#;
const STAYS: &str = r#"{"k":"Qp2Ow7Ie1Ur5Yt9Ra4Ls8Dk3Fj6Gh0Zm-Xn7Cb2Vv"}"#;

fn kept(payload: &'static str, hours: u16) -> Accept {
    let mut one = accept(1, NOW, 0);
    one.message.payload = Bytes::from_static(payload.as_bytes());
    one.message.labels = Some(Box::new(Labels {
        payload_hours: hours,
        ..Labels::default()
    }));
    one
}

const fn at(seq: u64) -> Position {
    Position {
        lane: LaneId(1),
        seq,
    }
}

fn end(hours: u32, seq: u64) -> PayloadEnd {
    PayloadEnd {
        due: NOW.plus(HOUR * hours),
        at: at(seq),
        further: Vec::new(),
    }
}

fn all(reader: &dyn Reader) -> Vec<PayloadEnd> {
    reader.payload_ends(None, Timestamp::MAX, 99).unwrap()
}

#[test]
fn a_payload_that_ended_stands_in_no_file_after_a_scrub() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let (mut writer, reader) = open(&options).unwrap();
    let mut batch = [kept(ENDS, 1), kept(STAYS, 2)];
    writer.append(&mut batch).unwrap();
    for text in [ENDS, STAYS] {
        assert!(holding(dir.path(), text) > 0, "{text} is there");
    }
    let due = reader.payload_ends(None, NOW.plus(HOUR), 9).unwrap();
    assert_eq!(due, [end(1, 1)]);
    let ends = [(end(1, 1), Ended::TakenAway)];
    writer.end_payloads(&ends).unwrap();
    let message = reader.message(at(1)).unwrap().unwrap();
    assert!(message.is_expunged() && message.payload_ends() == Some(NOW.plus(HOUR)));
    while writer.turn_over().unwrap() {}
    reader.scrub().unwrap();
    assert_eq!(holding(dir.path(), ENDS), 0);
    assert_eq!(reader.message(at(2)).unwrap().unwrap().payload, STAYS);
    assert_eq!(all(&*reader), [end(2, 2)]);
    writer.close().unwrap();
    drop((writer, reader));
    let report = verify(&options.dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let (_, reader) = open(&options).unwrap();
    assert!(reader.message(at(1)).unwrap().unwrap().is_expunged());
    assert_eq!(all(&*reader), [end(2, 2)]);
}

#[test]
fn ends_are_found_in_their_order_page_by_page_with_what_was_sent_beside_the_targets() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(&storage(dir.path())).unwrap();
    let mut batch = [3, 1, 0, 2, 1].map(|hours| kept(ENDS, hours));
    writer.append(&mut batch).unwrap();
    let further = |seq, endpoint, hours| {
        let delivery = Delivery {
            at: at(seq),
            endpoint: EndpointNo(endpoint),
        };
        (delivery, NOW.plus(HOUR * hours))
    };
    let asked = Settlement {
        further: vec![further(2, 9, 1), further(4, 0, 2), further(2, 7, 1)],
        ..Settlement::default()
    };
    for _ in 0..2 {
        writer.settle(&asked).unwrap(); // twice leaves the same
    }
    let mut want = [end(1, 2), end(1, 5), end(2, 4), end(3, 1)];
    want[0].further = vec![EndpointNo(7), EndpointNo(9)];
    want[2].further = vec![EndpointNo(0)];
    assert_eq!(all(&*reader), want);
    let until = NOW.plus(HOUR * 3 - Duration::from_millis(1));
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = reader.payload_ends(after, until, 1).unwrap();
        let Some(last) = page.last() else { break };
        assert_eq!(page.len(), 1);
        after = Some((last.due, last.at));
        seen.extend(page);
    }
    assert_eq!(seen, want[..3]);
    assert!(reader.payload_ends(None, until, 0).unwrap().is_empty());
    let late = Some((NOW.plus(HOUR * 9), at(1)));
    assert!(reader.payload_ends(late, until, 9).unwrap().is_empty());

    let ends = [
        (want[0].clone(), Ended::PutOff(NOW.plus(HOUR * 5))),
        (want[1].clone(), Ended::Gone),
        (want[2].clone(), Ended::TakenAway),
        (want[3].clone(), Ended::PutOff(want[3].due)),
    ];
    writer.end_payloads(&ends).unwrap();
    let put_off = PayloadEnd {
        due: NOW.plus(HOUR * 5),
        ..want[0].clone()
    };
    assert_eq!(all(&*reader), [want[3].clone(), put_off]);
    let has = |seq| !reader.message(at(seq)).unwrap().unwrap().is_expunged();
    assert_eq!([1, 2, 3, 4, 5].map(has), [true, true, true, false, true]);
}

/// Whatever ends the process between accepting and taking away, the end is found again.
#[test]
fn an_end_is_found_again_after_a_crash_before_and_after_it_was_put_off() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let (mut writer, reader) = open(&options).unwrap();
    writer.append(&mut [kept(ENDS, 1)]).unwrap();
    drop((writer, reader)); // without a close
    let (mut writer, reader) = open(&options).unwrap();
    assert_eq!(all(&*reader), [end(1, 1)]);
    let later = Ended::PutOff(NOW.plus(HOUR * 2));
    writer.end_payloads(&[(end(1, 1), later)]).unwrap();
    drop((writer, reader));
    let (mut writer, reader) = open(&options).unwrap();
    assert_eq!(all(&*reader), [end(2, 1)]);
    assert_eq!(reader.message(at(1)).unwrap().unwrap().payload, ENDS);
    writer
        .end_payloads(&[(end(2, 1), Ended::TakenAway)])
        .unwrap();
    drop((writer, reader));
    let (_, reader) = open(&options).unwrap();
    assert!(all(&*reader).is_empty());
    assert!(reader.message(at(1)).unwrap().unwrap().is_expunged());
}

#[test]
fn an_end_goes_with_its_message_if_that_leaves_first() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let retention = Retention {
        messages: HOUR * 24,
        ..Retention::default()
    };
    let Opened {
        mut writer, reader, ..
    } = Store::open(&options, &retention).unwrap();
    writer.append(&mut [kept(ENDS, 2160)]).unwrap();
    let mut later = kept(STAYS, 2160);
    later.message.accepted = NOW.plus(HOUR * 40);
    let due = later.message.payload_ends().unwrap();
    writer.append(&mut [later]).unwrap();
    let done = Settlement {
        checkpoint: vec![(LaneId(1), 2)],
        ..Settlement::default()
    };
    writer.settle(&done).unwrap();
    writer.tend(NOW.plus(HOUR * 25)).unwrap();
    assert!(reader.message(at(1)).unwrap().is_none());
    reader.scrub().unwrap();
    let left = PayloadEnd { due, ..end(0, 2) };
    assert_eq!(all(&*reader), [left], "a compaction has left it out");
    // Where none has come by yet it is forgotten when its time comes.
    writer
        .end_payloads(&[(end(2160, 1), Ended::TakenAway)])
        .unwrap();
    assert!(reader.message(at(1)).unwrap().is_none());
}

#[test]
fn messages_without_a_time_of_their_own_leave_no_row_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(&storage(dir.path())).unwrap();
    writer
        .append(&mut [accept(1, NOW, 9), kept(ENDS, 0)])
        .unwrap();
    assert!(all(&*reader).is_empty());
}
