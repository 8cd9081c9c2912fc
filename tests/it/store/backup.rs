//! Backup and restore of the embedded store, below the gateway: what a copy holds, what is refused,
//! and that neither side disturbs the other afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use posthaste::base::{ByteSize, Timestamp};
use posthaste::config::{Retention, Storage};
use posthaste::model::{EndpointNo, LaneId, Position};
use posthaste::store::fjall::backup::{
    About, Error, MANIFEST, Manifest, Written, check, offline, restore,
};
use posthaste::store::fjall::{FjallWriter, Opened, Store, verify};
use posthaste::store::{
    Accept, ConfigKind, ConfigRow, IdempotencyKey, Reader, Settlement, Writer as _,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::world::{accept, backlog, storage};
use crate::kit::{say, seed};

const T0: Timestamp = Timestamp::from_millis(1_767_600_000_000);
/// Later than any lane of a test store in seconds since 2025.
const LATER: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn small(dir: &Path) -> Storage {
    Storage {
        memtable: ByteSize::mib(1),
        ..storage(dir)
    }
}

fn open(options: &Storage) -> Opened {
    Store::open(options, &Retention::default()).unwrap()
}

fn about() -> About {
    About {
        product: String::from("test"),
        instance: Some(String::from("org_test")),
        created: T0,
    }
}

/// A hot backup, with `between` done while it is under way.
fn hot(opened: &mut Opened, to: &Path, mut between: impl FnMut(&mut FjallWriter)) -> Written {
    for _ in 0..9 {
        let mut capture = opened.source.begin().unwrap();
        between(&mut opened.writer);
        let standing = opened.writer.standing().unwrap();
        if capture.still().unwrap() {
            between(&mut opened.writer);
            capture.fits(to.parent().unwrap(), 0).unwrap();
            return capture.write(&standing, to, &about()).unwrap();
        }
    }
    panic!("journals come and go faster than they can be held");
}

/// Restores and opens; the directory is handed over too.
fn restored(backup: &Path, now: Timestamp) -> (tempfile::TempDir, Opened) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data");
    let done = restore(backup, &to, now).unwrap();
    assert!(done.report.is_good(), "{}", done.report);
    let opened = open(&small(&to));
    (dir, opened)
}

fn seqs(reader: &dyn Reader, lane: LaneId) -> Vec<u64> {
    let found = reader.fetch(Position { lane, seq: 0 }, usize::MAX);
    found.unwrap().iter().map(|m| m.at.seq).collect()
}

/// One message with everything that may stand beside one, as a function of its number.
fn numbered(n: u64, size: usize) -> Accept {
    let mut one = accept(1, T0, 0);
    one.message.payload = Bytes::from(n.to_be_bytes().repeat(size / 8));
    one.idempotency = Some(IdempotencyKey {
        key: u128::from(n).to_be_bytes(),
        body: [7; 16],
    });
    one
}

fn assert_numbered(reader: &dyn Reader, lane: LaneId, upto: u64, size: usize) {
    assert_eq!(seqs(reader, lane), (1..=upto).collect::<Vec<_>>());
    for seq in 1..=upto {
        let at = Position { lane, seq };
        let found = reader.message(at).unwrap().unwrap();
        let expected = numbered(seq, size).message.payload;
        assert!(found.payload == expected, "message {seq}");
        let key = u128::from(seq).to_be_bytes();
        assert!(reader.idempotent(&key, Timestamp::ZERO).unwrap().is_some());
    }
    let beyond = u128::from(upto + 1).to_be_bytes();
    assert!(
        reader
            .idempotent(&beyond, Timestamp::ZERO)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_backup_holds_exactly_what_was_committed_when_the_writer_stood_still() {
    const SIZE: usize = 40_000;
    let mut random = ChaCha8Rng::seed_from_u64(seed("POSTHASTE_BACKUP_SEED"));
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&small(&dir.path().join("data")));
    let lane = opened.writer.lane();
    let mut last = 0;
    for round in 0..3 {
        let to = dir.path().join(format!("backup-{round}"));
        let mut groups = random.random_range(5..20_u64);
        let written = hot(&mut opened, &to, |writer| {
            for _ in 0..groups {
                let mut batch: Vec<_> = (1..=3).map(|n| numbered(last + n, SIZE)).collect();
                writer.append(&mut batch).unwrap();
                last += 3;
                let at = Position { lane, seq: last };
                writer
                    .settle(&Settlement {
                        park: vec![backlog(1, Timestamp::ZERO, at)],
                        ..Settlement::default()
                    })
                    .unwrap();
            }
            groups = 7;
        });
        let upto = written.manifest.tail.seq;
        assert!(upto > 0 && upto < last, "{upto} of {last}");
        let (_dir, copy) = restored(&to, LATER);
        assert_numbered(&*copy.reader, lane, upto, SIZE);
        let rows = copy
            .reader
            .parked(EndpointNo(1), None, Timestamp::MAX, usize::MAX)
            .unwrap();
        let rows: Vec<u64> = rows.iter().map(|row| row.key.at.seq).collect();
        assert_eq!(rows, (1..=upto / 3).map(|n| n * 3).collect::<Vec<_>>());
    }
    assert_numbered(&*opened.reader, lane, last, SIZE);
}

#[test]
fn journals_may_rotate_and_tables_may_be_compacted_while_a_backup_is_taken() {
    const SIZE: usize = 250_000;
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&small(&dir.path().join("data")));
    let lane = opened.writer.lane();
    let mut last = 0;
    let mut fill = |writer: &mut FjallWriter, groups: u64| {
        for _ in 0..groups {
            let mut batch: Vec<_> = (1..=4).map(|n| numbered(last + n, SIZE)).collect();
            writer.append(&mut batch).unwrap();
            last += 4;
        }
    };
    // 64 MiB, which are 67.1 MB, make a journal full: the three groups that are written while the backup is
    // under way go beyond that, however quick it is.
    fill(&mut opened.writer, 66);
    let to = dir.path().join("backup");
    let written = hot(&mut opened, &to, |writer| fill(writer, 3));
    let journals = journals(&to);
    let tables = written.manifest.files.iter();
    let tables = tables.filter(|file| file.path.contains("/tables/")).count();
    say(&format!(
        "{} journals, {tables} tables, {} of {} bytes copied",
        journals.len(),
        written.copied,
        written.manifest.bytes()
    ));
    assert!(journals.len() > 1, "a journal was sealed");
    assert!(tables > 20, "the memory tables were flushed");
    let upto = written.manifest.tail.seq;
    let (_dir, copy) = restored(&to, LATER);
    assert_eq!(seqs(&*copy.reader, lane), (1..=upto).collect::<Vec<_>>());
    // Everything the source does later leaves the backup alone.
    fill(&mut opened.writer, 5);
    check(&to).unwrap();
}

fn journals(backup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(backup.join("db")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "jnl"))
        .collect()
}

/// A backup of a small store with one of everything.
fn sample() -> (tempfile::TempDir, PathBuf, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&small(&dir.path().join("data")));
    let lane = opened.writer.lane();
    let rows = [ConfigRow {
        kind: ConfigKind::Instance,
        key: b"id".to_vec(),
        value: Bytes::from_static(b"\"org_test\""),
    }];
    opened.writer.commit_config(0, &rows).unwrap();
    for n in 1..=8 {
        opened.writer.append(&mut [numbered(n, 300_000)]).unwrap();
    }
    let park = vec![backlog(1, Timestamp::ZERO, Position { lane, seq: 2 })];
    let settlement = Settlement {
        park,
        ..Settlement::default()
    };
    opened.writer.settle(&settlement).unwrap();
    let backup = dir.path().join("backup");
    let written = hot(&mut opened, &backup, |_| ());
    (dir, backup, written.manifest)
}

fn said(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

#[test]
fn a_damaged_missing_longer_or_linked_file_is_refused_by_name_and_nothing_is_written() {
    let (dir, backup, manifest) = sample();
    let to = dir.path().join("restored");
    let kinds = ["/current", ".jnl", "/tables/", "/v", "db/version"];
    for kind in kinds {
        assert!(
            manifest.files.iter().any(|file| file.path.contains(kind)),
            "the sample has {kind}"
        );
    }
    for file in &manifest.files {
        let path = backup.join(&file.path);
        let whole = fs::read(&path).unwrap();
        let middle = whole.len() / 2;
        // In place of the file: those in the backup may be links to those of the store.
        let replace = |bytes: &[u8]| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        let refused = |how: &str| {
            for found in [
                check(&backup).map(drop),
                restore(&backup, &to, LATER).map(drop),
            ] {
                let error = found.expect_err(how);
                assert!(matches!(error, Error::Refused { .. }), "{how}: {error:?}");
                assert!(error.to_string().contains(&file.path), "{how}: {error}");
            }
            assert!(!to.exists(), "{how}: the target was made");
        };
        let mut flipped = whole.clone();
        flipped[middle] ^= 1;
        replace(&flipped);
        refused("one bit flipped");
        replace(&whole[..whole.len() - 1]);
        refused("cut");
        replace(&[&whole[..], b"x"].concat());
        refused("longer");
        fs::remove_file(&path).unwrap();
        refused("missing");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, &whole).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        refused("a symbolic link to the right content");
        fs::remove_file(&path).unwrap();
        fs::write(&path, &whole).unwrap();
    }
    restore(&backup, &to, LATER).unwrap();
}

#[test]
fn a_backup_that_was_cut_short_has_no_manifest_and_is_refused() {
    let (dir, backup, _) = sample();
    let to = dir.path().join("restored");
    let manifest = backup.join(MANIFEST);
    fs::rename(&manifest, backup.join("manifest.unfinished")).unwrap();
    let error = restore(&backup, &to, LATER).unwrap_err();
    assert!(said(&error).contains("never finished"), "{error}");
    assert!(!to.exists());
    let whole = fs::read(backup.join("manifest.unfinished")).unwrap();
    for end in [0, 1, whole.len() / 2, whole.len() - 2] {
        fs::write(&manifest, &whole[..end]).unwrap();
        let error = restore(&backup, &to, LATER).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "cut at {end}");
    }
    assert!(!to.exists());
}

#[test]
fn a_target_that_holds_anything_is_left_alone() {
    let (dir, backup, _) = sample();
    let to = dir.path().join("restored");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("precious"), b"data").unwrap();
    let error = restore(&backup, &to, LATER).unwrap_err();
    assert!(matches!(error, Error::Taken(_)), "{error}");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    fs::remove_file(to.join("precious")).unwrap();
    restore(&backup, &to, LATER).unwrap();
    let again = restore(&backup, &to, LATER).unwrap_err();
    assert!(matches!(again, Error::Taken(_)), "{again}");
}

#[test]
fn a_second_backup_does_not_touch_the_first() {
    let (dir, backup, _) = sample();
    let mut opened = open(&small(&dir.path().join("data")));
    let mut capture = opened.source.begin().unwrap();
    let standing = opened.writer.standing().unwrap();
    assert!(capture.still().unwrap());
    let error = capture.write(&standing, &backup, &about()).unwrap_err();
    assert!(matches!(error, Error::Taken(_)), "{error}");
    check(&backup).unwrap();
}

#[test]
fn a_disk_without_room_is_refused_before_anything_is_written() {
    let (dir, backup, _) = sample();
    let opened = open(&small(&dir.path().join("data")));
    let capture = opened.source.begin().unwrap();
    let error = capture.fits(dir.path(), u64::MAX).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    capture.fits(dir.path(), 0).unwrap();
    check(&backup).unwrap();
}

#[test]
fn a_backup_is_no_data_directory() {
    let (_dir, backup, _) = sample();
    let error = Store::open(&storage(&backup), &Retention::default());
    match error.err().unwrap() {
        posthaste::store::Error::Regressed(damage) => {
            assert!(damage.to_string().contains("format marker"), "{damage}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_restored_store_and_its_original_never_give_out_the_same_number() {
    let (dir, backup, manifest) = sample();
    let mut lanes = std::collections::BTreeSet::new();
    // The original goes on, in the lane that was open and in new ones.
    for _ in 0..3 {
        let mut opened = open(&small(&dir.path().join("data")));
        opened.writer.append(&mut [numbered(1, 10)]).unwrap();
        assert!(lanes.insert(opened.writer.lane()));
    }
    // So do two restores of the same backup, a second apart, each started several times, and one of
    // a backup of a restored store.
    for seconds in [0, 5] {
        let to = dir.path().join(format!("restored-{seconds}"));
        let now = LATER.plus(std::time::Duration::from_secs(seconds));
        let done = restore(&backup, &to, now).unwrap();
        assert!(done.lane.0 > manifest.highest_lane);
        for _ in 0..3 {
            let mut opened = open(&small(&to));
            assert!(lanes.insert(opened.writer.lane()), "a lane twice");
            opened.writer.append(&mut [numbered(1, 10)]).unwrap();
            assert!(opened.writer.lane() > done.lane);
        }
    }
    let second = dir.path().join("second");
    let from = dir.path().join("restored-0");
    offline(&from, &second, "test", LATER).unwrap();
    let to = dir.path().join("restored-again");
    let now = LATER.plus(std::time::Duration::from_secs(60));
    restore(&second, &to, now).unwrap();
    assert!(lanes.insert(open(&small(&to)).writer.lane()));
}

#[test]
fn a_stopped_store_is_backed_up_without_beginning_a_lane() {
    let (dir, _, hot) = sample();
    let data = dir.path().join("data");
    let before = verify(&data).unwrap();
    for name in ["cold-1", "cold-2"] {
        let to = dir.path().join(name);
        let written = offline(&data, &to, "test", T0).unwrap();
        let manifest = &written.manifest;
        assert_eq!((manifest.batch, manifest.tail), (hot.batch, hot.tail));
        assert_eq!(manifest.hash, hot.hash);
        assert_eq!(manifest.highest_lane, hot.highest_lane);
        assert_eq!(manifest.instance.as_deref(), Some("org_test"));
        let (_dir, copy) = restored(&to, LATER);
        assert_eq!(
            seqs(&*copy.reader, LaneId(hot.tail.lane)),
            (1..=8).collect::<Vec<_>>()
        );
    }
    assert_eq!(verify(&data).unwrap(), before);
}

#[test]
fn a_store_in_use_or_one_that_would_not_start_is_not_backed_up_offline() {
    let (dir, _, _) = sample();
    let data = dir.path().join("data");
    let to = dir.path().join("cold");
    let held = open(&small(&data));
    let error = offline(&data, &to, "test", T0).unwrap_err();
    assert!(said(&error).contains("another process"), "{error}");
    drop(held);
    let journal = fs::read_dir(data.join("db")).unwrap();
    let journal = journal
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ext| ext == "jnl"));
    let journal = journal.unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    bytes[5000] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let error = offline(&data, &to, "test", T0).unwrap_err();
    assert!(
        matches!(error, Error::Store(posthaste::store::Error::Regressed(_))),
        "{error}"
    );
    assert!(!to.exists());
}
