//! What the database's own files of few bytes decide: manifests, their names, its marker, its key
//! spaces. The database believes them and deletes what they do not name, so the store looks first.

use std::fs;
use std::path::{Path, PathBuf};

use posthaste::base::{ByteSize, Timestamp};
use posthaste::config::Storage;
use posthaste::model::{LaneId, Position};
use posthaste::store::fjall::{accept_loss, verify};
use posthaste::store::{Error, Reader as _, Writer as _};

use super::world::{accept, open, storage};

/// A closed store with tables in the key space of the messages, and how many messages it holds.
fn flushed() -> (tempfile::TempDir, Storage, u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = storage(dir.path());
    options.memtable = ByteSize::kib(64);
    let (mut writer, reader) = open(&options).unwrap();
    let at = Timestamp::from_millis(1_767_600_000_000);
    let mut last = 0;
    while large_tables(dir.path()).is_empty() {
        assert!(last < 100_000, "tables are written while messages come in");
        let mut batch: Vec<_> = (0..50).map(|_| accept(1, at, 1500)).collect();
        writer.append(&mut batch).unwrap();
        last += 50;
    }
    writer.close().unwrap();
    drop((writer, reader));
    (dir, options, last)
}

fn large_tables(dir: &Path) -> Vec<PathBuf> {
    let all = files(dir);
    let of_messages = |path: &&PathBuf| path.to_string_lossy().contains("/keyspaces/1/tables/");
    let large = all.iter().filter(of_messages).filter(|path| {
        let about = fs::metadata(path);
        about.is_ok_and(|about| about.len() > 3000)
    });
    large.cloned().collect()
}

/// All files with their lengths, sorted; without the empty ones, which are locks.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).is_ok_and(|about| about.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn assert_refused_at(options: &Storage, place: &Path) {
    let before = files(&options.dir);
    let name = place.display().to_string();
    match open(options) {
        Err(Error::Regressed(damage)) => {
            let said = damage.to_string();
            assert!(said.contains(&name), "{name} in: {said}");
        }
        Err(other) => panic!("{name}: {other}"),
        Ok(_) => panic!("{name}: opened as if nothing was wrong"),
    }
    assert_eq!(files(&options.dir), before, "nothing is deleted or made");
    let report = verify(&options.dir).unwrap();
    assert!(report.to_string().contains(&name), "{report}");
    assert_eq!(files(&options.dir), before, "nor by the check");
}

/// The database would delete every table that a damaged manifest does not name.
#[test]
fn a_flipped_bit_in_a_manifest_or_its_name_is_refused_and_no_table_is_deleted() {
    let (_dir, options, _) = flushed();
    let space = options.dir.join("db/keyspaces/1");
    let version = fs::read(space.join("current")).unwrap();
    let version = u64::from_le_bytes(version[..8].try_into().unwrap());
    let manifest = space.join(format!("v{version}"));
    let length = fs::read(&manifest).unwrap().len();
    let mut places: Vec<_> = (0..length).map(|at| (manifest.clone(), at)).collect();
    places.extend((8..25).map(|at| (space.join("current"), at)));
    places.extend((0..4).map(|at| (options.dir.join("db/version"), at)));
    for (path, at) in places.into_iter().step_by(7) {
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 0x08;
        fs::write(&path, damaged).unwrap();
        assert_refused_at(&options, &path);
        fs::write(&path, whole).unwrap();
    }
    let mut damaged = fs::read(space.join("current")).unwrap();
    damaged[0] ^= 0x40;
    fs::write(space.join("current"), damaged).unwrap();
    assert_refused_at(&options, &space.join(format!("v{}", version ^ 0x40)));
}

/// The database takes a key space without its `current` for one that was never finished, and
/// deletes it with all its tables.
#[test]
fn a_missing_manifest_marker_or_key_space_is_refused_and_nothing_is_deleted() {
    let (_dir, options, last) = flushed();
    let spaces = options.dir.join("db/keyspaces");
    for gone in ["db/keyspaces/1/current", "db/version"] {
        let path = options.dir.join(gone);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_refused_at(&options, &path);
        fs::write(&path, whole).unwrap();
    }
    fs::rename(spaces.join("2"), options.dir.join("elsewhere")).unwrap();
    assert_refused_at(&options, &spaces);
    fs::rename(options.dir.join("elsewhere"), spaces.join("2")).unwrap();
    let (_writer, reader) = open(&options).unwrap();
    let lane = LaneId(1);
    assert!(
        reader
            .message(Position { lane, seq: last })
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_damaged_or_missing_table_stops_the_start_and_cannot_be_accepted_as_a_loss() {
    let (_dir, options, _) = flushed();
    for path in large_tables(&options.dir) {
        let whole = fs::read(&path).unwrap();
        for at in [0, 200, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_refused_at(&options, &path);
            let accepted = accept_loss(&options.dir, LaneId(1), 1, Timestamp::ZERO);
            assert!(matches!(accepted, Err(Error::Regressed(_))), "{accepted:?}");
            assert!(fs::read(&path).unwrap() == damaged, "left as found");
        }
        fs::remove_file(&path).unwrap();
        assert_refused_at(&options, &path);
        fs::write(&path, whole).unwrap();
    }
    open(&options).map(drop).unwrap();
}

#[test]
fn the_first_damaged_block_of_a_table_is_named() {
    let (_dir, options, _) = flushed();
    let path = large_tables(&options.dir).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = open(&options).err().unwrap().to_string();
    assert!(said.contains(", offset 0"), "{said}");
}

#[test]
fn a_stray_file_among_the_key_spaces_is_refused_and_not_a_panic() {
    let (_dir, options, _) = flushed();
    let stray = options.dir.join("db/keyspaces/backup of 1");
    fs::create_dir(&stray).unwrap();
    assert_refused_at(&options, &stray);
}

#[test]
fn a_lost_lock_of_the_database_is_made_again() {
    let (_dir, options, _) = flushed();
    fs::remove_file(options.dir.join("db/lock")).unwrap();
    open(&options).map(drop).unwrap();
}

/// Each of these states was left by a first start that was killed, or lost its power, before its
/// first commit; some of them refused every later start.
#[test]
fn a_first_start_that_was_cut_off_anywhere_can_be_started_again() {
    let whole = tempfile::tempdir().unwrap();
    drop(open(&storage(whole.path())).unwrap());
    let mark = fs::read(whole.path().join("hwm")).unwrap();
    let marker = fs::read(whole.path().join("format")).unwrap();
    // The older slot is of before the first commit.
    let mut first_mark = mark.clone();
    first_mark[64 * 1024..].fill(0);
    let states: [&[(&str, &[u8])]; 8] = [
        &[],
        &[("format", b"")],
        &[("format", &marker)],
        &[("format", &marker), ("hwm", b"")],
        &[("format", &marker), ("hwm", &mark[..0x30])],
        &[("db/lock", b""), ("db/0.jnl", b"")],
        &[("db/lock", b""), ("db/0.jnl", &[0; 4096])],
        &[("db/lock", b""), ("db/0.jnl", b""), ("db/version", b"")],
    ];
    for (n, state) in states.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        if n >= 5 {
            // The database is made when mark and marker are whole.
            fs::write(dir.join("format"), &marker).unwrap();
            fs::write(dir.join("hwm"), &first_mark).unwrap();
        }
        for (name, bytes) in *state {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let at = Timestamp::from_millis(5);
        for _ in 0..2 {
            let opened = open(&storage(dir));
            let (mut writer, _reader) = opened.unwrap_or_else(|e| panic!("state {n}: {e}"));
            writer.append(&mut [accept(1, at, 1)]).unwrap();
        }
    }
}
