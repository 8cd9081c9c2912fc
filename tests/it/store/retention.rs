//! Retention of the embedded store: what is old and done goes, what is undelivered stays.

use std::time::Duration;

use posthaste::base::{ByteSize, Id20, Timestamp};
use posthaste::config::{Retention, Storage};
use posthaste::model::{AppNo, Attempt, AuditId, EXPUNGED, EndpointNo, Labels, LaneId, Position};
use posthaste::store::fjall::{Opened, Store, verify};
use posthaste::store::{
    Accept, AuditPage, ConfigKind, ConfigRow, ListedAttempt, Page, Reader, Settlement, Writer,
};

use super::world::{accept, attempt, backlog, storage};

const START: Timestamp = Timestamp::from_millis(1_767_600_000_000);

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

fn open(options: &Storage) -> Opened {
    let retention = Retention {
        messages: days(90),
        ..Retention::default()
    };
    Store::open(options, &retention).unwrap()
}

/// Ten messages accepted at the start, ten more ten days later.
fn two_tens(writer: &mut dyn Writer) {
    for at in [START, START.plus(days(10))] {
        let mut batch: Vec<_> = (0..10).map(|_| accept(1, at, 50)).collect();
        let labels = Labels {
            event_id: Some(at.to_string()),
            ..Labels::default()
        };
        batch[0].message.labels = Some(Box::new(labels));
        writer.append(&mut batch).unwrap();
    }
}

fn checkpoint(writer: &mut dyn Writer, seq: u64) {
    let settlement = Settlement {
        checkpoint: vec![(writer.lane(), seq)],
        ..Settlement::default()
    };
    writer.settle(&settlement).unwrap();
}

const fn at(seq: u64) -> Position {
    Position {
        lane: LaneId(1),
        seq,
    }
}

fn retained(reader: &dyn Reader) -> Vec<u64> {
    let found: Vec<u64> = (1..=20)
        .filter(|seq| reader.message(at(*seq)).unwrap().is_some())
        .collect();
    let fetched = reader.fetch(at(0), 99).unwrap();
    let fetched: Vec<u64> = fetched.iter().map(|message| message.at.seq).collect();
    assert_eq!(found, fetched);
    let page = Page {
        from: None,
        until: None,
        newest_first: false,
        limit: 99,
    };
    let listed = reader.app_messages(AppNo(1), &page).unwrap();
    let listed: Vec<u64> = listed.iter().map(|entry| entry.key.at.seq).collect();
    assert_eq!(found, listed);
    found
}

#[test]
fn old_settled_messages_go_and_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let Opened {
        mut writer, reader, ..
    } = open(&options);
    two_tens(&mut writer);
    checkpoint(&mut writer, 20);
    writer.tend(START.plus(days(89))).unwrap();
    assert_eq!(retained(&*reader).len(), 20);
    writer.tend(START.plus(days(95))).unwrap();
    assert_eq!(retained(&*reader), (11..=20).collect::<Vec<_>>());
    let by_id = |at: Timestamp| reader.by_event_id(AppNo(1), &at.to_string()).unwrap();
    assert_eq!(
        (by_id(START), by_id(START.plus(days(10)))),
        (None, Some(at(11)))
    );
    drop((writer, reader));
    let Opened { writer, reader, .. } = open(&options);
    assert_eq!(retained(&*reader), (11..=20).collect::<Vec<_>>());
    drop((writer, reader));
}

#[test]
fn undelivered_messages_stay_however_old() {
    let dir = tempfile::tempdir().unwrap();
    let Opened {
        mut writer, reader, ..
    } = open(&storage(dir.path()));
    two_tens(&mut writer);
    checkpoint(&mut writer, 5);
    let parked = backlog(1, Timestamp::ZERO, at(3));
    let park = Settlement {
        park: vec![parked.clone()],
        ..Settlement::default()
    };
    writer.settle(&park).unwrap();
    let late = START.plus(days(1000));
    writer.tend(late).unwrap();
    assert_eq!(retained(&*reader), (3..=20).collect::<Vec<_>>());
    let unpark = Settlement {
        unpark: vec![parked.key],
        ..Settlement::default()
    };
    writer.settle(&unpark).unwrap();
    // What was parked since the last walk still counts in the next one.
    writer.tend(late).unwrap();
    writer.tend(late).unwrap();
    assert_eq!(retained(&*reader), (6..=20).collect::<Vec<_>>());
}

#[test]
fn a_lane_whose_messages_are_all_gone_is_no_longer_listed() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let Opened {
        mut writer, reader, ..
    } = open(&options);
    two_tens(&mut writer);
    checkpoint(&mut writer, 20);
    drop((writer, reader));
    let Opened {
        mut writer, reader, ..
    } = open(&options);
    assert_eq!(reader.lanes().unwrap().len(), 2);
    writer.tend(START.plus(days(200))).unwrap();
    let lanes: Vec<_> = reader.lanes().unwrap().iter().map(|lane| lane.id).collect();
    assert_eq!(lanes, [LaneId(2)]);
    assert!(retained(&*reader).is_empty());
    writer.close().unwrap();
    drop((writer, reader));
    let Opened { reader, .. } = open(&options);
    assert!(retained(&*reader).is_empty());
}

#[test]
fn whole_tables_of_expired_messages_leave_the_disk_and_journals_stay_few() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.memtable = ByteSize::kib(256);
    let Opened {
        mut writer, reader, ..
    } = open(&options);
    let mut seq = 0;
    for minute in 0..40 {
        let now = START.plus(Duration::from_secs(60 * minute));
        let one = |n: u64| {
            let mut accept = accept(1, now, 4000);
            // Noise that does not compress.
            let noise =
                (0..4000_u64).map(|i| ((i * i * (n + minute * 64 + 7919)) >> 5).to_le_bytes()[0]);
            accept.message.payload = noise.collect::<Vec<u8>>().into();
            accept
        };
        let mut batch: Vec<_> = (0..64).map(one).collect();
        seq += 64;
        writer.append(&mut batch).unwrap();
        checkpoint(&mut writer, seq);
        writer.tend(now).unwrap();
    }
    let tables = |writer: &dyn Writer| {
        let space = writer.space().unwrap();
        assert!(space.journals <= 8, "{space:?}");
        space.used.saturating_sub(space.journal_bytes)
    };
    let before = tables(&writer);
    writer.tend(START.plus(days(365))).unwrap();
    let after = tables(&writer);
    assert!(after * 2 < before, "{before} bytes before, {after} after");
    assert!(reader.fetch(at(0), 9).unwrap().is_empty());
    let mut batch = [accept(1, START.plus(days(366)), 5)];
    writer.append(&mut batch).unwrap();
    assert_eq!(reader.fetch(at(0), 9).unwrap().len(), 1);
    drop((writer, reader));
    let Opened { reader, .. } = open(&options);
    assert_eq!(reader.fetch(at(0), 9).unwrap().len(), 1);
    let rows = reader
        .parked(EndpointNo(1), None, Timestamp::MAX, 9)
        .unwrap();
    assert!(rows.is_empty());
}

#[test]
fn entries_of_the_audit_log_are_no_configuration_and_stay_as_long_as_messages() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let Opened {
        mut writer, reader, ..
    } = open(&options);
    for (n, at) in [START, START.plus(days(10))].into_iter().enumerate() {
        let id = AuditId::new(at, [7; 14]);
        let row = ConfigRow {
            kind: ConfigKind::Audit,
            key: id.0.0.to_vec(),
            value: "{}".into(),
        };
        let revision = writer.commit_config(u64::try_from(n).unwrap(), &[row]);
        assert_eq!(revision.unwrap(), u64::try_from(n + 1).unwrap());
    }
    let all = AuditPage {
        from: None,
        newest_first: true,
        limit: 9,
    };
    let days_of = |reader: &dyn Reader| -> Vec<Timestamp> {
        let rows = reader.audit(&all).unwrap();
        rows.iter().map(|(id, _)| Id20(*id).at()).collect()
    };
    assert_eq!(days_of(&*reader), [START.plus(days(10)), START]);
    assert_eq!(reader.config().unwrap().1, [], "they are no configuration");
    drop((writer, reader));
    let Opened {
        mut writer, reader, ..
    } = open(&options);
    two_tens(&mut writer);
    writer.tend(START.plus(days(89))).unwrap();
    assert_eq!(days_of(&*reader).len(), 2);
    drop((writer, reader));
}

/// Messages 30 days, attempts 60, what was answered 7.
fn open_apart(options: &Storage) -> Opened {
    let retention = Retention {
        messages: days(30),
        attempts: days(60),
        attempt_bodies: days(7),
        ..Retention::default()
    };
    Store::open(options, &retention).unwrap()
}

/// Bytes that do not compress; different for each `n`.
fn noise(n: u64, len: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A message for one endpoint.
fn sent(size: usize) -> Accept {
    let mut one = accept(1, START, size);
    one.message.targets = vec![EndpointNo(1)];
    one
}

/// The attempt `no` at message `seq`, accepted at the start.
fn answered(seq: u64, no: u16, ended: Timestamp, response: Vec<u8>) -> Attempt {
    Attempt {
        accepted: Some(START),
        response: response.into(),
        ..attempt(at(seq), 1, no, ended, 0)
    }
}

fn settle(writer: &mut dyn Writer, attempts: Vec<Attempt>, checkpoint: u64) {
    let settlement = Settlement {
        attempts,
        checkpoint: vec![(LaneId(1), checkpoint)],
        ..Settlement::default()
    };
    writer.settle(&settlement).unwrap();
}

/// Message, message of the list entry, and answer of each attempt that is shown at endpoint 1.
fn shown(reader: &dyn Reader) -> Vec<(u64, bool, Vec<u8>)> {
    let page = Page {
        from: None,
        until: None,
        newest_first: false,
        limit: 99,
    };
    let listed = reader.endpoint_attempts(EndpointNo(1), &page).unwrap();
    let one = |entry: &ListedAttempt| {
        let place = entry.key.at;
        assert_eq!(entry.has_message, reader.message(place).unwrap().is_some());
        let found = reader.attempts(place, Some(EndpointNo(1))).unwrap();
        let attempt = found.into_iter().find(|one| one.no == entry.key.no);
        let attempt = attempt.unwrap();
        assert_eq!(attempt.accepted, Some(START));
        (place.seq, entry.has_message, attempt.response.to_vec())
    };
    listed.iter().map(one).collect()
}

fn assert_whole(options: &Storage) {
    let report = verify(&options.dir).unwrap();
    assert!(report.is_good(), "{report}");
}

#[test]
fn an_attempt_outlives_its_message_and_what_was_answered_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let (short, long) = (noise(1, 20), noise(2, 2000));
    let none = EXPUNGED.to_vec();
    let mut opened = open_apart(&options);
    opened.writer.append(&mut [sent(50), sent(50)]).unwrap();
    let attempts = vec![
        answered(1, 1, START, short.clone()),
        answered(2, 1, START, long.clone()),
        answered(2, 2, START.plus(days(1)), Vec::new()),
    ];
    settle(&mut opened.writer, attempts, 2);
    // The day, whether the messages are there, the answers that are shown; none at all = no attempt.
    let whole = vec![short, long, Vec::new()];
    let hidden = vec![none.clone(), none, Vec::new()];
    let table = [
        (6, true, whole),
        (8, true, hidden.clone()),
        (29, true, hidden.clone()),
        (31, false, hidden),
        (60, false, vec![Vec::new()]),
        (62, false, Vec::new()),
    ];
    for (day, there, answers) in table {
        let now = START.plus(days(day)).plus(Duration::from_secs(1));
        opened.writer.tend(now).unwrap();
        for round in ["at once", "after the tables went", "after a restart"] {
            let found = shown(&*opened.reader);
            let found: Vec<_> = found
                .into_iter()
                .map(|(_, m, answer)| (m, answer))
                .collect();
            let expected: Vec<_> = answers.iter().map(|one| (there, one.clone())).collect();
            assert_eq!(found, expected, "day {day}, {round}");
            opened.reader.scrub().unwrap();
            if round == "after the tables went" {
                opened.writer.close().unwrap();
                drop(opened);
                assert_whole(&options);
                opened = open_apart(&options);
                opened.writer.tend(now).unwrap();
            }
        }
    }
}

#[test]
fn what_ended_late_stays_although_its_message_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let mut opened = open_apart(&options);
    let mut batch: Vec<_> = (0..5).map(|_| sent(50)).collect();
    opened.writer.append(&mut batch).unwrap();
    let early = (1..=5).map(|seq| answered(seq, 1, START, noise(seq, 10)));
    settle(&mut opened.writer, early.collect(), 5);
    // The second one waits for a hundred days.
    let parked = backlog(1, START.plus(days(100)), at(2));
    let park = Settlement {
        park: vec![parked.clone()],
        ..Settlement::default()
    };
    opened.writer.settle(&park).unwrap();
    for day in [35, 99] {
        let now = START.plus(days(day));
        opened.writer.tend(now).unwrap();
        opened.reader.scrub().unwrap();
        drop(opened);
        opened = open_apart(&options);
        opened.writer.tend(now).unwrap();
        // In the list by their own time; with their message as long as that is held.
        let expected = if day == 35 { 5 } else { 0 };
        assert_eq!(shown(&*opened.reader).len(), expected, "day {day}");
        for seq in 2..=5 {
            assert!(opened.reader.message(at(seq)).unwrap().is_some(), "{seq}");
            assert_eq!(opened.reader.attempts(at(seq), None).unwrap().len(), 1);
        }
        let page = Page {
            from: None,
            until: None,
            newest_first: false,
            limit: 99,
        };
        let listed = opened.reader.app_messages(AppNo(1), &page).unwrap();
        assert_eq!(listed.len(), 4, "what waits stays in its list: day {day}");
        let row = opened.reader.parked_row(parked.key).unwrap();
        assert_eq!(row.as_ref(), Some(&parked));
        drop(opened);
        assert_whole(&options);
        opened = open_apart(&options);
    }
    let late = answered(2, 2, START.plus(days(100)), noise(9, 300));
    let done = Settlement {
        unpark: vec![parked.key],
        attempts: vec![late],
        ..Settlement::default()
    };
    opened.writer.settle(&done).unwrap();
    for (day, shows) in [(101, true), (108, true), (159, true), (161, false)] {
        let now = START.plus(days(day));
        opened.writer.tend(now).unwrap();
        opened.writer.tend(now).unwrap();
        opened.reader.scrub().unwrap();
        drop(opened);
        opened = open_apart(&options);
        opened.writer.tend(now).unwrap();
        assert!(opened.reader.fetch(at(0), 9).unwrap().is_empty());
        let found = shown(&*opened.reader);
        let found: Vec<_> = found.iter().map(|(seq, ..)| *seq).collect();
        let expected: &[u64] = if shows { &[2] } else { &[] };
        assert_eq!(found, expected, "day {day}");
    }
}

/// All in one table, which lies below the floor of the messages as a whole.
#[test]
fn a_table_stays_while_an_attempt_in_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_apart(&storage(dir.path()));
    let mut batch: Vec<_> = (0..5).map(|_| sent(50)).collect();
    opened.writer.append(&mut batch).unwrap();
    let early = [1, 3, 4, 5].map(|seq| answered(seq, 1, START, noise(seq, 10)));
    settle(&mut opened.writer, early.to_vec(), 5);
    let parked = backlog(1, START.plus(days(50)), at(2));
    let park = Settlement {
        park: vec![parked.clone()],
        ..Settlement::default()
    };
    opened.writer.settle(&park).unwrap();
    opened.writer.tend(START.plus(days(49))).unwrap();
    let done = Settlement {
        unpark: vec![parked.key],
        attempts: vec![answered(2, 1, START.plus(days(50)), noise(2, 10))],
        ..Settlement::default()
    };
    opened.writer.settle(&done).unwrap();
    opened.writer.tend(START.plus(days(51))).unwrap();
    opened.reader.scrub().unwrap();
    for (day, shows) in [(80, true), (109, true), (111, false)] {
        opened.writer.tend(START.plus(days(day))).unwrap();
        assert!(opened.reader.fetch(at(0), 9).unwrap().is_empty());
        let found = shown(&*opened.reader);
        let found: Vec<_> = found.iter().map(|(seq, ..)| *seq).collect();
        let expected: &[u64] = if shows { &[2] } else { &[] };
        assert_eq!(found, expected, "day {day}");
    }
}

/// A record of before attempts had a life of their own does not outlive its message.
#[test]
fn an_attempt_of_an_earlier_version_goes_with_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_apart(&storage(dir.path()));
    opened.writer.append(&mut [sent(5)]).unwrap();
    let old = Attempt {
        accepted: None,
        ..attempt(at(1), 1, 1, START, 0)
    };
    settle(&mut opened.writer, vec![old], 1);
    for (day, there) in [(29, 1), (31, 0)] {
        opened.writer.tend(START.plus(days(day))).unwrap();
        let found = opened.reader.attempts(at(1), None).unwrap();
        assert_eq!(found.len(), there, "day {day}");
    }
}

/// Bytes of all tables, when everything stands in tables.
fn in_tables(opened: &Opened) -> u64 {
    let space = opened.writer.space().unwrap();
    space.used.saturating_sub(space.journal_bytes)
}

#[test]
fn tables_of_expired_attempts_leave_the_disk_after_those_of_their_messages() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.memtable = ByteSize::kib(256);
    let mut opened = open_apart(&options);
    for round in 0..40 {
        let mut batch: Vec<_> = (0..100).map(|_| sent(0)).collect();
        opened.writer.append(&mut batch).unwrap();
        let last = batch.last().unwrap().message.at.seq;
        let one = |seq| answered(seq, 1, START, noise(seq, 250));
        let attempts = (last - 99..=last).map(one).collect();
        settle(&mut opened.writer, attempts, last);
        opened
            .writer
            .tend(START.plus(Duration::from_secs(round)))
            .unwrap();
    }
    let before = in_tables(&opened);
    opened.writer.tend(START.plus(days(31))).unwrap();
    let without_messages = in_tables(&opened);
    assert!(opened.reader.fetch(at(0), 9).unwrap().is_empty());
    assert_eq!(opened.reader.attempts(at(1), None).unwrap().len(), 1);
    assert!(
        without_messages * 3 > before * 2,
        "{before} bytes before, {without_messages} without messages"
    );
    opened.writer.tend(START.plus(days(62))).unwrap();
    let after = in_tables(&opened);
    assert!(opened.reader.attempts(at(1), None).unwrap().is_empty());
    assert!(after * 2 < before, "{before} bytes before, {after} after");
}

#[test]
fn long_answers_leave_the_disk_by_the_day_while_their_attempts_stay() {
    let dir = tempfile::tempdir().unwrap();
    let options = storage(dir.path());
    let mut opened = open_apart(&options);
    let mut batch: Vec<_> = (0..200).map(|_| sent(10)).collect();
    opened.writer.append(&mut batch).unwrap();
    let one = |seq| answered(seq, 1, START.plus(days(seq / 100)), noise(seq, 9000));
    settle(&mut opened.writer, (1..=200).map(one).collect(), 200);
    opened.reader.scrub().unwrap();
    let before = in_tables(&opened);
    assert!(before > 1_600_000, "{before}");
    // The answers of the first day are gone, those of the two after it are not.
    opened.writer.tend(START.plus(days(8))).unwrap();
    settle(&mut opened.writer, Vec::new(), 200);
    opened.reader.scrub().unwrap();
    let half = in_tables(&opened);
    assert!(
        (before / 3..before * 2 / 3).contains(&half),
        "{before} {half}"
    );
    let answer = |opened: &Opened, seq| {
        let found = opened.reader.attempts(at(seq), None).unwrap();
        found.first().unwrap().response.to_vec()
    };
    assert_eq!(answer(&opened, 99), EXPUNGED);
    assert_eq!(answer(&opened, 101), noise(101, 9000));
    opened.writer.tend(START.plus(days(20))).unwrap();
    opened.reader.scrub().unwrap();
    let after = in_tables(&opened);
    assert!(after * 10 < before, "{before} bytes before, {after} after");
    assert_eq!(answer(&opened, 101), EXPUNGED);
    drop(opened);
    assert_whole(&options);
}
