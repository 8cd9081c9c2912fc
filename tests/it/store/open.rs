//! Opening the embedded store: who may, what number the lane gets, how long it takes.

use std::fs;
use std::time::Duration;

use posthaste::base::{Clock as _, SystemClock, Timestamp};
use posthaste::model::{EndpointNo, LaneId, Position};
use posthaste::store::{Error, Reader as _, Settlement, Writer as _};

use super::world::{accept, backlog, open, storage};

#[test]
fn a_second_process_is_refused_and_a_stale_lock_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&storage(dir.path())).unwrap();
    match open(&storage(dir.path())) {
        Err(Error::Unavailable(why)) => assert!(why.contains("another process"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two processes on one store"),
    }
    drop(first);
    assert!(dir.path().join("lock").exists());
    open(&storage(dir.path())).map(drop).unwrap();
}

#[test]
fn a_lane_number_is_used_once_even_if_nothing_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..4 {
        let (mut writer, reader) = open(&storage(dir.path())).unwrap();
        assert_eq!(writer.lane(), LaneId(n));
        if n == 2 {
            let at = Timestamp::from_millis(5);
            writer.append(&mut [accept(1, at, 1)]).unwrap();
            writer.close().unwrap();
        }
        let lanes = reader.lanes().unwrap();
        let expected = if n == 1 { vec![1] } else { vec![2, n] };
        let mut ids: Vec<u32> = lanes.iter().map(|lane| lane.id.0).collect();
        ids.dedup();
        assert!(ids == expected || ids == [n], "{ids:?}");
    }
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&storage(dir.path())).unwrap());
    let marker = r#"{"product_format":9,"fjall_format":3,"min_reader":9}"#;
    fs::write(dir.path().join("format"), marker).unwrap();
    let before = tree(dir.path());
    match open(&storage(dir.path())) {
        Err(Error::Regressed(damage)) => assert!(damage.to_string().contains("format 9")),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened a newer format"),
    }
    assert_eq!(tree(dir.path()), before);
}

/// Names, lengths and times of change of all files.
fn tree(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            found.extend(tree(&entry.path()));
        } else {
            found.push((entry.path(), about.len(), about.modified().unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_large_backlog_does_not_slow_the_start() {
    // Unoptimised code replays a journal some fifteen times slower.
    const ROWS: u64 = if cfg!(debug_assertions) {
        40_000
    } else {
        1_000_000
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(&storage(dir.path())).unwrap();
    let lane = writer.lane();
    for start in (0..ROWS).step_by(20_000) {
        let row = |seq| backlog(1, Timestamp::ZERO, Position { lane, seq });
        let settlement = Settlement {
            park: (start..start + 20_000).map(row).collect(),
            ..Settlement::default()
        };
        writer.settle(&settlement).unwrap();
    }
    drop((writer, reader));
    let clock = SystemClock::start();
    let (_writer, reader) = open(&storage(dir.path())).unwrap();
    assert!(clock.monotonic() < Duration::from_secs(5));
    let page = reader.parked(EndpointNo(1), None, Timestamp::MAX, 3);
    assert_eq!(page.unwrap().len(), 3);
}

#[test]
fn the_dead_writer_of_a_closed_store_writes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = open(&storage(dir.path())).unwrap();
    writer.close().unwrap();
    let mut batch = [accept(1, Timestamp::from_millis(5), 1)];
    assert!(matches!(writer.append(&mut batch), Err(Error::Doubtful(_))));
}

#[test]
fn space_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _reader) = open(&storage(dir.path())).unwrap();
    let space = writer.space().unwrap();
    assert!(space.free > 0 && space.journals >= 1);
}
