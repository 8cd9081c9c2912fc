//! What the embedded store makes of damaged files: it opens with all that was acknowledged, or it
//! refuses and leaves the files as they are. Silent loss is the one thing that must not happen.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use posthaste::base::{ByteSize, Timestamp};
use posthaste::config::{HighWater, Storage};
use posthaste::model::{AppNo, Delivery, EndpointNo, LaneId, Position};
use posthaste::store::fjall::{FjallReader, accept_loss, verify};
use posthaste::store::{Error, Page, Reader, Settlement, Writer};

use super::world::{accept, backlog, open, storage};

const GROUPS: u64 = 20;
const IN_GROUP: u64 = 3;

/// A store of one lane with `GROUPS` acknowledged groups, each followed by a settlement.
fn filled(high_water: HighWater) -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.high_water = high_water;
    let (mut writer, reader) = open(&options).unwrap();
    let at = Timestamp::from_millis(1_767_600_000_000);
    for group in 0..GROUPS {
        let one = |n: u64| accept(1, at, usize::try_from(40 + n).unwrap());
        let mut batch: Vec<_> = (0..IN_GROUP).map(one).collect();
        writer.append(&mut batch).unwrap();
        writer.settle(&parks(group * IN_GROUP + 1)).unwrap();
    }
    writer.append(&mut [accept(1, at, 3000)]).unwrap();
    drop((writer, reader));
    trim(dir.path());
    (dir, options)
}

/// Cuts the hole at the end of a journal, so that copies are quick.
fn trim(dir: &Path) {
    let path = journal(dir);
    let mut bytes = fs::read(&path).unwrap();
    let zeros = [0; 4096];
    let used = bytes
        .chunks(4096)
        .rposition(|chunk| chunk != &zeros[..chunk.len()]);
    bytes.truncate((used.unwrap() + 1) * 4096);
    let end = *batch_ends(&bytes).last().unwrap();
    fs::write(path, &bytes[..end]).unwrap();
}

fn parks(seq: u64) -> Settlement {
    let place = position(seq);
    Settlement {
        park: vec![backlog(1, Timestamp::ZERO, place)],
        cancelled: vec![Delivery {
            at: place,
            endpoint: EndpointNo(2),
        }],
        ..Settlement::default()
    }
}

const fn position(seq: u64) -> Position {
    Position {
        lane: LaneId(1),
        seq,
    }
}

/// Everything acknowledged is there, and the lists agree.
fn assert_whole(reader: &dyn Reader, seqs: u64) {
    let found = reader.fetch(position(0), usize::MAX).unwrap();
    let found: Vec<u64> = found.iter().map(|message| message.at.seq).collect();
    assert_eq!(found, (1..=seqs).collect::<Vec<_>>());
    let page = Page {
        from: None,
        until: None,
        newest_first: true,
        limit: usize::MAX,
    };
    let listed = reader.app_messages(AppNo(1), &page).unwrap();
    assert_eq!(listed.len(), found.len());
}

fn assert_parked(reader: &dyn Reader) {
    let rows = reader.parked(EndpointNo(1), None, Timestamp::MAX, usize::MAX);
    assert_eq!(rows.unwrap().len(), usize::try_from(GROUPS).unwrap());
}

const ALL: u64 = GROUPS * IN_GROUP + 1;

fn journal(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("db")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut journals: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

/// Where the batches of a journal end.
fn batch_ends(bytes: &[u8]) -> Vec<usize> {
    let trailer = b"FJL\x03";
    let places = bytes.windows(trailer.len()).enumerate();
    let ends = places.filter(|(_, window)| window == trailer);
    ends.map(|(at, _)| at + trailer.len()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens a copy of the store after `damage` was done to it; hands over the directory as well.
fn after(
    (dir, options): &(tempfile::TempDir, Storage),
    damage: impl FnOnce(&Path),
) -> (tempfile::TempDir, Result<Arc<FjallReader>, Error>) {
    let copied = tempfile::tempdir().unwrap();
    copy(dir.path(), copied.path());
    damage(copied.path());
    let options = Storage {
        dir: copied.path().to_owned(),
        ..options.clone()
    };
    let opened = open(&options).map(|(_, reader)| reader);
    (copied, opened)
}

fn assert_refused<T>(found: Result<T, Error>) -> String {
    match found {
        Err(Error::Regressed(damage)) => damage.to_string(),
        Err(other) => panic!("refused with another error: {other}"),
        Ok(_) => panic!("opened as if nothing was wrong"),
    }
}

#[test]
fn a_store_that_was_killed_opens_whole() {
    let store = filled(HighWater::Interval);
    let (_dir, reader) = after(&store, |_| ());
    let reader = reader.unwrap();
    assert_whole(&*reader, ALL);
    assert_parked(&*reader);
}

#[test]
fn a_flipped_byte_anywhere_in_the_journal_is_refused_or_harmless() {
    let store = filled(HighWater::EveryCommit);
    let length = fs::read(journal(store.0.path())).unwrap();
    let ends = batch_ends(&length);
    let middle = ends[ends.len() / 2];
    // Head, key lengths and value lengths of a batch in the middle byte by byte, the rest sampled.
    let around = middle..middle + 60;
    let sampled = (0..*ends.last().unwrap()).step_by(251);
    for at in around.chain(sampled) {
        let mut damaged = Vec::new();
        let (dir, found) = after(&store, |dir| {
            let path = journal(dir);
            damaged = fs::read(&path).unwrap();
            damaged[at] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
        });
        match found {
            Ok(reader) => {
                assert_whole(&*reader, ALL);
                assert_parked(&*reader);
            }
            Err(Error::Regressed(_)) => {
                let now = fs::read(journal(dir.path())).unwrap();
                assert!(
                    now == damaged,
                    "byte {at}: a refused journal is left as found"
                );
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn damage_in_the_middle_names_file_offset_and_lane() {
    let store = filled(HighWater::Interval);
    let bytes = fs::read(journal(store.0.path())).unwrap();
    let ends = batch_ends(&bytes);
    let at = ends[ends.len() / 2];
    let (_dir, found) = after(&store, |dir| {
        let path = journal(dir);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(path, bytes).unwrap();
    });
    let said = assert_refused(found);
    for part in [
        "offset",
        ".jnl",
        "lane 1",
        "accept-loss --lane 1",
        &at.to_string(),
    ] {
        assert!(said.contains(part), "{part} in: {said}");
    }
}

#[test]
fn a_zeroed_page_in_the_middle_is_refused() {
    let store = filled(HighWater::Interval);
    let (_dir, found) = after(&store, |dir| {
        let path = journal(dir);
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..8192].fill(0);
        fs::write(path, bytes).unwrap();
    });
    assert_refused(found);
}

#[test]
fn an_emptied_shortened_or_deleted_journal_is_refused() {
    let store = filled(HighWater::EveryCommit);
    let bytes = fs::read(journal(store.0.path())).unwrap();
    let ends = batch_ends(&bytes);
    let cut_at = |end: usize| {
        move |dir: &Path| {
            let file = fs::File::options().write(true).open(journal(dir)).unwrap();
            file.set_len(u64::try_from(end).unwrap()).unwrap();
        }
    };
    for end in [0, ends[0], ends[ends.len() / 2], ends[ends.len() - 2]] {
        let (_dir, found) = after(&store, cut_at(end));
        assert_refused(found);
    }
    let (_dir, found) = after(&store, |dir| fs::remove_file(journal(dir)).unwrap());
    assert_refused(found);
}

#[test]
fn a_torn_end_that_nobody_was_told_about_is_cut_and_kept_aside() {
    let store = filled(HighWater::Interval);
    let bytes = fs::read(journal(store.0.path())).unwrap();
    let ends = batch_ends(&bytes);
    let (from, to) = (ends[ends.len() - 2], ends[ends.len() - 1]);
    for cut in (from + 1..to).step_by(397) {
        let (dir, found) = after(&store, |dir| {
            let file = fs::File::options().write(true).open(journal(dir)).unwrap();
            file.set_len(u64::try_from(cut).unwrap()).unwrap();
        });
        assert_whole(&*found.unwrap(), ALL - 1);
        let kept: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("/aside-"))
            .collect();
        assert_eq!(kept.len(), 1);
        // Only what was cut: a copy of the whole journal would fill a disk that had run full.
        let aside = fs::read(&kept[0]).unwrap();
        let zeros = bytes[from..cut].len() - aside.len();
        assert_eq!([aside, vec![0; zeros]].concat(), bytes[from..cut]);
    }
}

#[test]
fn a_torn_end_that_had_been_acknowledged_is_refused() {
    let store = filled(HighWater::EveryCommit);
    let bytes = fs::read(journal(store.0.path())).unwrap();
    let ends = batch_ends(&bytes);
    let (from, to) = (ends[ends.len() - 2], ends[ends.len() - 1]);
    for cut in (from..to).step_by(397) {
        let (_dir, found) = after(&store, |dir| {
            let file = fs::File::options().write(true).open(journal(dir)).unwrap();
            file.set_len(u64::try_from(cut).unwrap()).unwrap();
        });
        assert_refused(found);
    }
}

#[test]
fn garbage_behind_the_end_is_cut() {
    let store = filled(HighWater::EveryCommit);
    let (_dir, found) = after(&store, |dir| {
        let path = journal(dir);
        let mut bytes = fs::read(&path).unwrap();
        let end = *batch_ends(&bytes).last().unwrap();
        bytes.truncate(end);
        let old = bytes[..end / 3].to_vec();
        bytes.extend_from_slice(&[0xff; 4096]);
        bytes.extend_from_slice(&old);
        fs::write(path, bytes).unwrap();
    });
    assert_whole(&*found.unwrap(), ALL);
}

#[test]
fn settlements_torn_by_a_power_cut_do_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.high_water = HighWater::Interval;
    let (mut writer, reader) = open(&options).unwrap();
    let at = Timestamp::from_millis(1_767_600_000_000);
    writer.append(&mut [accept(1, at, 10)]).unwrap();
    for seq in 0..5 {
        writer.settle(&parks(seq + 1)).unwrap();
    }
    drop((writer, reader));
    trim(dir.path());
    let store = (dir, options);
    let bytes = fs::read(journal(store.0.path())).unwrap();
    let ends = batch_ends(&bytes);
    let second = ends[ends.len() - 5];
    let (_dir, found) = after(&store, |dir| {
        let path = journal(dir);
        let mut bytes = fs::read(&path).unwrap();
        bytes[second] = 0;
        fs::write(path, bytes).unwrap();
    });
    let reader = found.unwrap();
    assert_whole(&*reader, 1);
    let rows = reader.parked(EndpointNo(1), None, Timestamp::MAX, 9);
    assert_eq!(rows.unwrap().len(), 1);
}

#[test]
fn a_missing_or_unreadable_mark_is_refused_and_one_good_slot_is_enough() {
    let store = filled(HighWater::EveryCommit);
    let (_dir, found) = after(&store, |dir| fs::remove_file(dir.join("hwm")).unwrap());
    assert!(assert_refused(found).contains("missing"));
    let flip = |slots: &'static [usize]| {
        move |dir: &Path| {
            let mut bytes = fs::read(dir.join("hwm")).unwrap();
            for slot in slots {
                bytes[slot * 64 * 1024 + 17] ^= 1;
            }
            fs::write(dir.join("hwm"), bytes).unwrap();
        }
    };
    let (_dir, found) = after(&store, flip(&[0, 1]));
    assert!(assert_refused(found).contains("damaged"));
    for slot in [&[0], &[1]] {
        let (_dir, found) = after(&store, flip(slot));
        assert_whole(&*found.unwrap(), ALL);
    }
}

#[test]
fn a_mark_without_its_store_is_refused() {
    let store = filled(HighWater::EveryCommit);
    let (_dir, found) = after(&store, |dir| fs::remove_dir_all(dir.join("db")).unwrap());
    assert_refused(found);
}

#[test]
fn an_older_copy_of_the_store_under_a_newer_mark_is_refused() {
    let (dir, options) = filled(HighWater::EveryCommit);
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());
    let (mut writer, reader) = open(&options).unwrap();
    let at = Timestamp::from_millis(1_767_600_001_000);
    writer.append(&mut [accept(1, at, 10)]).unwrap();
    drop((writer, reader));
    fs::copy(dir.path().join("hwm"), old.path().join("hwm")).unwrap();
    let options = Storage {
        dir: old.path().to_owned(),
        ..options
    };
    assert_refused(open(&options));
}

/// Flips a byte at the beginning of the middle batch; answers its offset.
fn break_the_middle(dir: &Path) -> usize {
    let path = journal(dir);
    let mut bytes = fs::read(&path).unwrap();
    let ends = batch_ends(&bytes);
    let at = ends[ends.len() / 2];
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
    at
}

fn lane_of(error: Error) -> (LaneId, u64, u64) {
    match error {
        Error::Regressed(damage) => damage.lane.unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn an_accepted_loss_is_as_large_as_reported_and_the_files_are_kept() {
    let store = filled(HighWater::EveryCommit);
    let (dir, found) = after(&store, |dir| {
        break_the_middle(dir);
    });
    let (lane, good, acked) = lane_of(found.err().unwrap());
    assert_eq!((lane, acked), (LaneId(1), ALL));
    let before = fs::read(journal(dir.path())).unwrap();
    let now = Timestamp::from_millis(77);
    for (lane, seq) in [(LaneId(1), good + 1), (LaneId(2), good)] {
        let refused = accept_loss(dir.path(), lane, seq, now);
        assert!(matches!(refused, Err(Error::NotApplied(_))), "{refused:?}");
        assert!(fs::read(journal(dir.path())).unwrap() == before);
    }
    let loss = accept_loss(dir.path(), lane, good, now).unwrap();
    assert_eq!((loss.last_good, loss.acknowledged), (good, acked));
    let kept = fs::read_dir(&loss.kept).unwrap();
    let kept: Vec<PathBuf> = kept.map(|entry| entry.unwrap().path()).collect();
    assert!(kept.iter().any(|path| fs::read(path).unwrap() == before));
    for expected_lane in [3, 4] {
        let (mut writer, reader) = open(&storage(dir.path())).unwrap();
        assert_eq!(writer.lane(), LaneId(expected_lane));
        assert_whole(&*reader, good);
        writer.close().unwrap();
    }
    let again = accept_loss(dir.path(), lane, good, now);
    assert!(matches!(again, Err(Error::NotApplied(_))), "{again:?}");
    assert!(verify(dir.path()).unwrap().is_good());
}

#[test]
fn a_lost_mark_can_be_accepted_without_losing_a_message() {
    let store = filled(HighWater::EveryCommit);
    let (dir, found) = after(&store, |dir| fs::remove_file(dir.join("hwm")).unwrap());
    let said = assert_refused(found);
    assert!(
        said.contains(&format!("--lane 1 --last-good {ALL}")),
        "{said}"
    );
    accept_loss(dir.path(), LaneId(1), ALL, Timestamp::ZERO).unwrap();
    let (_writer, reader) = open(&storage(dir.path())).unwrap();
    assert_whole(&*reader, ALL);
    assert_parked(&*reader);
}

#[test]
fn verify_counts_every_record_of_a_whole_store() {
    let store = filled(HighWater::Interval);
    let (dir, found) = after(&store, |_| ());
    drop(found.unwrap());
    let report = verify(dir.path()).unwrap();
    assert!(report.is_good(), "{report}");
    assert!(
        report.to_string().contains(&format!("lane 1: 1 to {ALL}")),
        "{report}"
    );
    assert!(report.records.contains(&("messages", ALL)), "{report}");
}

#[test]
fn verify_reports_what_an_open_refuses() {
    let store = filled(HighWater::Interval);
    let (dir, found) = after(&store, |dir| {
        break_the_middle(dir);
    });
    assert_refused(found);
    let report = verify(dir.path()).unwrap();
    assert!(!report.is_good());
    assert!(
        report.to_string().contains("damaged in the middle"),
        "{report}"
    );
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tables(&path));
        } else if path.parent().unwrap().ends_with("tables") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_flipped_bit_in_a_table_is_never_read_as_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.memtable = ByteSize::kib(64);
    // No table is summed at start, as with a store larger than that limit.
    options.verify_at_start = ByteSize::bytes(0);
    let (mut writer, reader) = open(&options).unwrap();
    let at = Timestamp::from_millis(1_767_600_000_000);
    // The first key space is that of the messages.
    let is_large = |path: &PathBuf| {
        let of_messages = path.to_string_lossy().contains("/keyspaces/1/");
        of_messages && fs::metadata(path).is_ok_and(|about| about.len() > 3000)
    };
    let mut last = 0;
    while !tables(dir.path()).iter().any(is_large) {
        assert!(last < 100_000, "tables are written while messages come in");
        let mut batch: Vec<_> = (0..50).map(|_| accept(1, at, 1500)).collect();
        writer.append(&mut batch).unwrap();
        last += 50;
    }
    writer.close().unwrap();
    drop((writer, reader));
    for path in tables(dir.path()).iter().filter(|path| is_large(path)) {
        let mut bytes = fs::read(path).unwrap();
        bytes[200] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let report = verify(dir.path());
    assert!(report.is_err() || !report.unwrap().is_good());
    if let Ok((_writer, reader)) = open(&options) {
        let unread = (1..=last).filter(|seq| reader.message(position(*seq)).is_err());
        assert!(
            unread.count() > 0,
            "a damaged block is an error, not a missing message"
        );
    }
}

#[test]
fn after_an_accepted_loss_behind_flushed_tables_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.memtable = ByteSize::kib(64);
    let (mut writer, reader) = open(&options).unwrap();
    let at = Timestamp::from_millis(1_767_600_000_000);
    for seq in 0..100 {
        let mut batch: Vec<_> = (0..20).map(|_| accept(1, at, 500)).collect();
        writer.append(&mut batch).unwrap();
        writer.settle(&parks(seq * 20 + 1)).unwrap();
    }
    drop((writer, reader));
    trim(dir.path());
    break_the_middle(dir.path());
    let (lane, good, acked) = lane_of(open(&options).err().unwrap());
    assert_eq!(acked, 2000);
    accept_loss(dir.path(), lane, good, Timestamp::ZERO).unwrap();
    for n in 1..4 {
        let (mut writer, reader) = open(&options).unwrap();
        for seq in 1..=good {
            assert!(
                reader.message(position(seq)).unwrap().is_some(),
                "message {seq}"
            );
        }
        reader.fetch(position(0), usize::MAX).unwrap();
        let mut batch = [accept(1, at, 10)];
        writer.append(&mut batch).unwrap();
        assert_eq!(batch[0].message.at.lane, LaneId(2 + n));
    }
}
