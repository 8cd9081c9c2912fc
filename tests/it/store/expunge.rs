//! Content that is taken away leaves the disk, and nothing else does.

use std::path::Path;

use bytes::Bytes;
use posthaste::base::Timestamp;
use posthaste::model::{Delivery, EXPUNGED, EndpointNo};
use posthaste::store::fjall::{Store, verify};
use posthaste::store::{Content, Ended, PayloadEnd, Reader, Settlement, Writer};

use super::world::{accept, attempt, open, storage};

const NOW: Timestamp = Timestamp::from_millis(1_767_600_000_000);
/// Nothing that compresses, so it stands in a file as it is.
const PAYLOAD: &str = r#"{"k":"9fK2xQ7vLw0ZtB3nYc8HsR5mJd1GpA6eUi4oVkXq"}"#;
const ANSWER: &str = "answer-Zp4Wc7Rk1Ty9Lm2Qx8Vb5Nh3Jd6Fg0Sa";
/// Too long for the record of its attempt.
const LONG_ANSWER: &str = "long-Qd7Lw3Xr9Ty2Kp6Vb1Nf8Mz4Hc5Jg0Sa-uE3iR7oT1yW9qP5lK2jH8gF4dS6aZ0xC-vB3nM7bV1cX9zL5kJ2hG8fD4sA6pO0iU-yT3rE7wQ1aS9dF5gH2jK8lZ4xC6vB0nM-mN3bV7cX1zA9sD5fG2hJ8kL4qW6eR0tY-uI3oP7aS1dF9gH5jK2lZ8xC4vB6nM0qW-eR3tY7uI1oP9aS5dF2gH8jK4lZ6xC0vB-nM3qW7eR1tY9uI5oP2aS8dF4gH6jK0lZ-end";
const KEPT: &str = r#"{"k":"Tr6Yb1Nc9Xz4Qw7Le2Kj5Hg8Fd3Sa0Pm"}"#;

/// How many files under `dir` hold `text`.
pub(super) fn holding(dir: &Path, text: &str) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += holding(&path, text);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes());
            count += usize::from(found);
        }
    }
    count
}

fn fill(writer: &mut dyn Writer) -> (Delivery, Delivery) {
    let mut batch = vec![accept(1, NOW, 0), accept(1, NOW, 0)];
    batch[0].message.payload = Bytes::from_static(PAYLOAD.as_bytes());
    batch[1].message.payload = Bytes::from_static(KEPT.as_bytes());
    writer.append(&mut batch).unwrap();
    let delivery = |n: usize| Delivery {
        at: batch[n].message.at,
        endpoint: EndpointNo(1),
    };
    let mut answered = attempt(delivery(0).at, 1, 1, NOW, 0);
    answered.response = Bytes::from_static(ANSWER.as_bytes());
    let mut at_length = attempt(delivery(0).at, 1, 2, NOW, 0);
    at_length.response = Bytes::from_static(LONG_ANSWER.as_bytes());
    let settlement = Settlement {
        attempts: vec![answered, at_length],
        ..Settlement::default()
    };
    writer.settle(&settlement).unwrap();
    writer.sync().unwrap();
    (delivery(0), delivery(1))
}

#[test]
fn what_was_expunged_stands_in_no_file_after_a_scrub() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let (mut writer, reader) = open(&options).unwrap();
    let (gone, kept) = fill(&mut writer);
    assert_eq!(
        reader.attempts(gone.at, None).unwrap()[1].response,
        LONG_ANSWER
    );
    for text in [PAYLOAD, ANSWER, LONG_ANSWER, KEPT] {
        assert!(
            holding(dir.path(), text) > 0,
            "{text} is there to begin with"
        );
    }
    let contents = [
        Content::Payload(gone.at),
        Content::Response(gone, 1),
        Content::Response(gone, 2),
    ];
    assert_eq!(writer.expunge(&contents).unwrap(), [true, true, true]);
    let message = reader.message(gone.at).unwrap().unwrap();
    assert!(message.is_expunged() && &*message.event_type == "invoice.paid");
    let attempts = reader.attempts(gone.at, None).unwrap();
    let answers: Vec<_> = attempts.iter().map(|one| &one.response[..]).collect();
    assert_eq!(answers, [EXPUNGED, EXPUNGED]);
    while writer.turn_over().unwrap() {}
    reader.scrub().unwrap();
    let (begin, end) = (
        LONG_ANSWER.get(..40).unwrap(),
        LONG_ANSWER.get(210..).unwrap(),
    );
    for text in [PAYLOAD, ANSWER, begin, end] {
        assert_eq!(holding(dir.path(), text), 0, "{text}");
    }
    let message = reader.message(kept.at).unwrap().unwrap();
    assert_eq!(message.payload, KEPT);

    // The log is whole, and goes on.
    writer.append(&mut [accept(1, NOW, 10)]).unwrap();
    writer.close().unwrap();
    drop((writer, reader));
    let report = verify(&options.dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let (_, reader) = open(&options).unwrap();
    assert!(reader.message(gone.at).unwrap().unwrap().is_expunged());
    assert_eq!(reader.message(kept.at).unwrap().unwrap().payload, KEPT);
}

#[test]
fn expunging_what_is_not_there_answers_so_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(&storage(dir.path())).unwrap();
    let (there, _) = fill(&mut writer);
    let mut none = there;
    none.at.seq = 99;
    let contents = [
        Content::Payload(none.at),
        Content::Response(there, 3),
        Content::Response(there, 0),
    ];
    assert_eq!(writer.expunge(&contents).unwrap(), [false, false, false]);
    assert_eq!(reader.message(there.at).unwrap().unwrap().payload, PAYLOAD);
}

/// A process that dies right after the commit has expunged: it needs no scrub for that.
#[test]
fn an_expunged_payload_stays_away_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let (mut writer, reader) = open(&options).unwrap();
    let (gone, _) = fill(&mut writer);
    writer.expunge(&[Content::Payload(gone.at)]).unwrap();
    drop((writer, reader)); // without a close
    let opened = Store::open(&options, &posthaste::config::Retention::default()).unwrap();
    assert!(
        opened
            .reader
            .message(gone.at)
            .unwrap()
            .unwrap()
            .is_expunged()
    );
}

#[test]
fn a_payload_that_many_endpoints_have_just_read_is_gone_for_them_at_once() {
    for by_time in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, reader) = open(&storage(dir.path())).unwrap();
        let mut batch = vec![accept(1, NOW, 0), accept(1, NOW, 0)];
        for accept in &mut batch {
            accept.message.targets = vec![EndpointNo(1), EndpointNo(2)];
            accept.message.payload = Bytes::from_static(PAYLOAD.as_bytes());
        }
        writer.append(&mut batch).unwrap();
        let [gone, kept] = [0, 1].map(|n: usize| batch[n].message.at);
        for _ in 0..3 {
            for at in [gone, kept] {
                assert_eq!(reader.message(at).unwrap().unwrap().payload, PAYLOAD);
            }
        }
        if by_time {
            let end = PayloadEnd {
                due: NOW,
                at: gone,
                further: Vec::new(),
            };
            writer.end_payloads(&[(end, Ended::TakenAway)]).unwrap();
        } else {
            let contents = [Content::Payload(gone)];
            assert_eq!(writer.expunge(&contents).unwrap(), [true]);
        }
        for _ in 0..2 {
            assert!(reader.message(gone).unwrap().unwrap().is_expunged());
            assert_eq!(reader.message(kept).unwrap().unwrap().payload, PAYLOAD);
        }
    }
}
