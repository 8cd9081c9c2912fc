//! Retention of the embedded store: what is old and done goes, what is undelivered stays.

use std::time::Duration;

use posthaste::base::{ByteSize, Id20, Timestamp};
use posthaste::config::{Retention, Storage};
use posthaste::model::{AppNo, AuditId, EndpointNo, Labels, LaneId, Position};
use posthaste::store::fjall::{Opened, Store};
use posthaste::store::{AuditPage, ConfigKind, ConfigRow, Page, Reader, Settlement, Writer};

use super::world::{accept, backlog, storage};

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
