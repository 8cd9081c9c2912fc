//! Stores that earlier versions wrote: every format that was ever released is opened, with all of its
//! contents right.
//!
//! `tests/fixtures/store-format-N` is a data directory in one file ([`pack`]). The fixture of the
//! present format is made by the test that checks it:
//!
//! ```text
//! POSTHASTE_WRITE_FIXTURE=tests/fixtures/NAME cargo nextest run -E 'test(present_format)'
//! ```
//!
//! A fixture that is committed is never made again: what it proves is that later code reads it. A
//! change of a record's layout that keeps the old one readable keeps its format number and adds a
//! fixture of its own beside it.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use posthaste::base::{ByteSize, Timestamp};
use posthaste::config::{Retention, Storage};
use posthaste::model::{
    AppNo, Attempt, DeadReason, Delivery, EndpointNo, EndpointState, FailureKind, Health, Labels,
    LaneId, Outcome, ParkReason, Parked, ParkedKey, Position, Trigger, Verdict,
};
use posthaste::store::fjall::{Opened, Store, verify};
use posthaste::store::{
    Accept, ConfigKind, ConfigRow, IdempotencyKey, Page, Reader, Settlement, StoredAnswer,
    Writer as _,
};

use super::world::{accept, storage};
use crate::kit::variable;

pub(crate) const FORMAT_1: &[u8] = include_bytes!("../../fixtures/store-format-1");
/// As of when attempts say when their message was accepted, and long answers stand in rows of their own.
pub(crate) const FORMAT_1_DATED: &[u8] = include_bytes!("../../fixtures/store-format-1-dated");
const T0: Timestamp = Timestamp::from_millis(1_767_600_000_000);
/// As long as there are fixtures.
const KEPT: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 86_400);
/// Messages of the first lane; the second has one more.
pub(crate) const FIRST: u64 = 12;

fn open(dir: &Path) -> Opened {
    let options = Storage {
        memtable: ByteSize::mib(1),
        ..storage(dir)
    };
    let retention = Retention {
        messages: KEPT,
        attempt_bodies: KEPT,
        ..Retention::default()
    };
    Store::open(&options, &retention).unwrap()
}

/// The n-th message: sizes and labels differ; some are large, so that there are table files.
pub(crate) fn nth(n: u64) -> Accept {
    let size = if n.is_multiple_of(2) { 200_000 } else { 100 };
    let mut one = accept(u32::try_from(n % 3).unwrap() + 1, T0, 0);
    let payload = format!(r#"{{"n":{n},"pad":"{}"}}"#, "x".repeat(size));
    one.message.payload = Bytes::from(payload);
    one.message.event_type = format!("type.number-{}", n % 4).as_str().into();
    one.message.targets = (1..=n % 4)
        .map(|e| EndpointNo(u32::try_from(e).unwrap()))
        .collect();
    if n.is_multiple_of(3) {
        one.message.labels = Some(Box::new(Labels {
            event_id: Some(format!("evt-{n}")),
            ..Labels::default()
        }));
    }
    one.idempotency = n.is_multiple_of(4).then(|| key(n));
    one
}

fn key(n: u64) -> IdempotencyKey {
    IdempotencyKey {
        key: u128::from(n).to_be_bytes(),
        body: u128::from(n + 1).to_be_bytes(),
    }
}

const fn first(seq: u64) -> Position {
    Position {
        lane: LaneId(1),
        seq,
    }
}

/// Attempts as the first version recorded them; `dated` as they are since they may outlive their message.
fn attempts(dated: bool) -> Vec<Attempt> {
    let response = |no: u16| match (dated, no) {
        (true, 2) => "long answer ".repeat(100),
        _ => String::from("answer"),
    };
    let one = |seq: u64, endpoint: u32, no: u16, verdict: Verdict| Attempt {
        at: first(seq),
        endpoint: EndpointNo(endpoint),
        app: AppNo(1),
        no,
        accepted: dated.then_some(T0),
        ended: T0.plus(std::time::Duration::from_secs(seq)),
        duration_ms: 7,
        outcome: Outcome {
            status: if verdict == Verdict::Delivered {
                200
            } else {
                0
            },
            failure: (verdict != Verdict::Delivered).then_some(FailureKind::Reset),
            retry_after_secs: Some(3),
        },
        trigger: Trigger::Scheduled,
        verdict,
        response: response(no).into(),
    };
    vec![
        one(1, 1, 1, Verdict::Delivered),
        one(
            2,
            1,
            1,
            Verdict::RetryAt(T0.plus(std::time::Duration::from_secs(9))),
        ),
        one(2, 1, 2, Verdict::Dead(DeadReason::Exhausted)),
        one(2, 2, 1, Verdict::Delivered),
        one(3, 1, 1, Verdict::RetryAt(T0)),
    ]
}

fn parked() -> Vec<Parked> {
    let one = |seq: u64, endpoint: u32, due: Timestamp, reason: ParkReason| Parked {
        key: ParkedKey {
            endpoint: EndpointNo(endpoint),
            due,
            at: first(seq),
        },
        attempts: 1,
        base: 0,
        reason,
        trigger: Trigger::Manual,
        bytes: 100,
        order_key: 77,
    };
    vec![
        one(
            3,
            1,
            T0.plus(std::time::Duration::from_secs(60)),
            ParkReason::Retry,
        ),
        one(3, 2, Timestamp::ZERO, ParkReason::Backlog),
        one(6, 2, T0, ParkReason::Behind),
        one(7, 1, T0, ParkReason::Once),
    ]
}

fn state() -> EndpointState {
    EndpointState {
        health: Health {
            failures: 4,
            first_failure: Some(T0),
            last_failure: Some(T0.plus(std::time::Duration::from_secs(5))),
            last_success: None,
            announced: true,
        },
        parked: 2,
        parked_bytes: 200,
    }
}

/// Objects as the first version wrote them, letter by letter: later code may write others.
fn rows() -> Vec<ConfigRow> {
    let times =
        r#""created":"2026-01-05T08:00:00Z","updated":"2026-01-05T08:00:00Z","deleted":null"#;
    let app = |no: u32| {
        format!(
            r#"{{"no":{no},"id":"app_00000000000000000000000000{no}","uid":"app-{no}","name":"App","throttle_rate":null,"metadata":{{}},{times}}}"#
        )
    };
    let endpoint = |no: u32| {
        format!(
            r#"{{"no":{no},"id":"ep_00000000000000000000000000{no}","app":1,"uid":"ep-{no}","url":"https://example.com/{no}","description":"","disabled":"manual","paused":false,"event_types":null,"channels":null,"throttle_rate":null,"max_concurrency":null,"timeout_ms":null,"retry_schedule":null,"disable_policy":null,"signature":null,"envelope":"raw","order":"none","headers":{{}},"sensitive_headers":[],"metadata":{{}},"secret":"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=","old_secrets":[],{times}}}"#
        )
    };
    let object = |kind, no: u32, value: String| ConfigRow {
        kind,
        key: no.to_be_bytes().to_vec(),
        value: value.into(),
    };
    let apps = (1..=3).map(|no| object(ConfigKind::Application, no, app(no)));
    let endpoints = (1..=3).map(|no| object(ConfigKind::Endpoint, no, endpoint(no)));
    let instance = ConfigRow {
        kind: ConfigKind::Instance,
        key: b"id".to_vec(),
        value: Bytes::from_static(b"\"org_000000000000000000000000001\""),
    };
    apps.chain(endpoints).chain([instance]).collect()
}

/// Two lives of a store with everything that can be stored; the second ends without a goodbye.
fn write_all(dir: &Path) {
    let Opened {
        mut writer,
        reader,
        source,
        ..
    } = open(dir);
    assert_eq!(writer.commit_config(0, &rows()).unwrap(), 1);
    for n in 1..=FIRST {
        writer.append(&mut [nth(n)]).unwrap();
    }
    let settlement = Settlement {
        attempts: attempts(true),
        park: parked(),
        cancelled: vec![Delivery {
            at: first(7),
            endpoint: EndpointNo(3),
        }],
        states: vec![(EndpointNo(1), state())],
        // Above it deliveries without a trace are pending.
        checkpoint: vec![(LaneId(1), 2)],
        ..Settlement::default()
    };
    writer.settle(&settlement).unwrap();
    let whole = StoredAnswer::Whole {
        status: 201,
        body: Bytes::from_static(b"{\"id\":1}"),
    };
    writer.remember(key(1000), T0, whole).unwrap();
    writer.tend(T0).unwrap();
    writer.close().unwrap();
    drop((writer, reader, source));
    let mut opened = open(dir);
    for n in 1..=FIRST + 1 {
        opened.writer.append(&mut [nth(n)]).unwrap();
    }
}

fn assert_all(reader: &dyn Reader, dated: bool) {
    assert_log(reader);
    assert_deliveries(reader, dated);
    assert_lists(reader);
}

/// Messages, idempotency records, event ids.
fn assert_log(reader: &dyn Reader) {
    for (lane, messages) in [(1, FIRST), (2, FIRST + 1)] {
        let lane = LaneId(lane);
        let found = reader.fetch(Position { lane, seq: 0 }, usize::MAX).unwrap();
        assert_eq!(found.len(), usize::try_from(messages).unwrap());
        for (seq, found) in (1..).zip(found) {
            let mut expected = nth(seq).message;
            expected.at = Position { lane, seq };
            assert_eq!(found, expected, "{:?}", expected.at);
        }
    }
    for n in (4..=FIRST).step_by(4) {
        let found = reader
            .idempotent(&key(n).key, Timestamp::ZERO)
            .unwrap()
            .unwrap();
        assert_eq!(found.body, key(n).body);
        let at = Position {
            lane: LaneId(2),
            seq: n,
        };
        assert_eq!(
            found.answer,
            StoredAnswer::Message(at),
            "the later one holds"
        );
    }
    let whole = reader
        .idempotent(&key(1000).key, Timestamp::ZERO)
        .unwrap()
        .unwrap();
    assert!(matches!(
        whole.answer,
        StoredAnswer::Whole { status: 201, .. }
    ));
    for n in (3..=FIRST).step_by(3) {
        let app = AppNo(u32::try_from(n % 3).unwrap() + 1);
        let found = reader.by_event_id(app, &format!("evt-{n}")).unwrap();
        assert_eq!(found.map(|at| at.seq), Some(n));
    }
}

/// Attempts, parked rows, cancellations, states of endpoints, checkpoints.
fn assert_deliveries(reader: &dyn Reader, dated: bool) {
    let mut found = Vec::new();
    for seq in 1..=FIRST {
        found.extend(reader.attempts(first(seq), None).unwrap());
    }
    assert_eq!(found, attempts(dated));
    let mut found = Vec::new();
    for endpoint in 1..=2 {
        let all = reader.parked(EndpointNo(endpoint), None, Timestamp::MAX, 99);
        found.extend(all.unwrap());
    }
    let mut expected = parked();
    expected.sort_by_key(|row| row.key);
    assert_eq!(found, expected);
    let cancelled = Delivery {
        at: first(7),
        endpoint: EndpointNo(3),
    };
    assert!(reader.is_cancelled(cancelled).unwrap());
    assert_eq!(
        reader.endpoint_states().unwrap(),
        [(EndpointNo(1), state())]
    );
    let lane = reader
        .lanes()
        .unwrap()
        .into_iter()
        .find(|lane| lane.id == LaneId(1));
    assert_eq!(
        lane.map(|lane| (lane.checkpoint, lane.last)),
        Some((2, FIRST))
    );
}

/// Configuration and lists.
fn assert_lists(reader: &dyn Reader) {
    let (revision, mut found) = reader.config().unwrap();
    let mut expected = rows();
    for rows in [&mut found, &mut expected] {
        rows.sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
    }
    assert_eq!((revision, found), (1, expected));
    let page = Page {
        from: None,
        until: None,
        newest_first: true,
        limit: 99,
    };
    let listed: usize = (1..=3)
        .map(|app| reader.app_messages(AppNo(app), &page).unwrap().len())
        .sum();
    assert_eq!(listed, usize::try_from(2 * FIRST + 1).unwrap());
    assert_eq!(
        reader
            .endpoint_attempts(EndpointNo(1), &page)
            .unwrap()
            .len(),
        4
    );
}

/// A directory as one file: per file its name, its length, and what it holds but for the zeros at its
/// end; all of it compressed.
fn pack(dir: &Path) -> Vec<u8> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<u8>) {
        let mut entries: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(root, &path, out);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |n| n + 1);
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            for part in [name.as_bytes(), &bytes[..used]] {
                out.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
                out.extend(part);
            }
            out.extend(u64::try_from(bytes.len()).unwrap().to_be_bytes());
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    lz4_flex::compress_prepend_size(&out)
}

pub(crate) fn unpack(packed: &[u8], dir: &Path) {
    let bytes = lz4_flex::decompress_size_prepended(packed).unwrap();
    let mut rest = &bytes[..];
    let part = |rest: &mut &[u8]| {
        let (len, tail) = rest.split_first_chunk::<4>().unwrap();
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap();
        let (part, tail) = tail.split_at(len);
        *rest = tail;
        part.to_vec()
    };
    while !rest.is_empty() {
        let name = String::from_utf8(part(&mut rest)).unwrap();
        let content = part(&mut rest);
        let (length, tail) = rest.split_first_chunk::<8>().unwrap();
        rest = tail;
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(u64::from_be_bytes(*length)).unwrap();
    }
}

fn table_files(dir: &Path) -> usize {
    let spaces = fs::read_dir(dir.join("db/keyspaces")).unwrap();
    let tables = spaces.map(|space| space.unwrap().path().join("tables"));
    // The first holds the names of the others.
    let tables = tables.filter(|path| !path.ends_with("0/tables"));
    // Empty folders are not packed.
    tables
        .map(|path| fs::read_dir(path).map_or(0, Iterator::count))
        .sum()
}

#[test]
fn a_store_of_the_present_format_packs_unpacks_and_opens_whole() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let packed = pack(dir.path());
    if let Some(path) = variable("POSTHASTE_WRITE_FIXTURE") {
        fs::write(path, &packed).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    unpack(&packed, copy.path());
    assert_all(&*open(copy.path()).reader, true);
}

#[test]
fn a_store_of_format_1_opens_with_all_that_is_in_it_and_goes_on() {
    opens_and_goes_on(FORMAT_1, false);
}

#[test]
fn a_store_whose_attempts_are_dated_opens_with_all_that_is_in_it_and_goes_on() {
    opens_and_goes_on(FORMAT_1_DATED, true);
}

fn opens_and_goes_on(fixture: &[u8], dated: bool) {
    let dir = tempfile::tempdir().unwrap();
    unpack(fixture, dir.path());
    assert!(table_files(dir.path()) > 0, "the fixture has table files");
    let mut opened = open(dir.path());
    assert_all(&*opened.reader, dated);
    assert_eq!(opened.writer.lane(), LaneId(3));
    opened.writer.append(&mut [nth(1)]).unwrap();
    opened.writer.tend(T0).unwrap();
    opened.writer.close().unwrap();
    drop(opened);
    let report = verify(dir.path()).unwrap();
    assert!(report.is_good(), "{report}");
    let reader = open(dir.path()).reader;
    assert_log(&*reader);
    assert_deliveries(&*reader, dated);
}
