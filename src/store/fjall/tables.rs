//! Looks at the database's manifests and tables before it may open them.
//!
//! Owns: what is known of those files (`fjall` 3.1.13, `lsm-tree` 3.1.10). The database itself
//! believes a manifest without looking at its sum, deletes every table and every key space that it
//! does not find named there, and sums a block only when it is read: one flipped bit could cost a
//! whole key space. So: every manifest must have its sum, every table it names must be there, and
//! tables are summed as a whole, the newest first, as far as the budget goes. Changes nothing.
//!
//! ```text
//! db/version                 FJL 3
//! db/keyspaces/N/current     version M u64 | xxh3-128 of vM | 0
//! db/keyspaces/N/vM          archive; its part `tables`: levels u8 { runs u8 { tables u32
//!                            { id u64 | 0 | xxh3-128 of the file | seqno u64 } } }
//! db/keyspaces/N/tables/ID   blocks: LSM 3 | type | xxh3-128 u128 | stored u32 | length u32 | sum u32
//! archive                    parts | TOC! count u32 { pos u64 | len u64 | name } | SFA! 1 0 …
//! ```
//!
//! Numbers are little-endian. Elsewhere: journals ([`super::preflight`]), single records ([`mod@super::verify`]).
#![deny(clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::store::{Damage, Error};

use super::keys::take;
use super::on_disk;
use super::spaces::Space;

/// What the database's own marker holds.
const MARKER: [u8; 4] = *b"FJL\x03";
const ARCHIVE: [u8; 4] = *b"SFA!";
/// Bytes at the end of an archive that say where its table of contents begins.
const ARCHIVE_END: usize = 38;
const CONTENTS: [u8; 4] = *b"TOC!";
const BLOCK: [u8; 4] = *b"LSM\x03";
/// No manifest of a store that works is larger: it is read as a whole.
const MANIFEST_LIMIT: u64 = 64 * 1024 * 1024;

/// The tables that the manifests name, the newest first.
#[derive(Debug)]
pub(super) struct Tables {
    found: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    sum: u128,
    bytes: u64,
    written: SystemTime,
}

/// Reads every manifest of the database and finds every table. Only for a store that has been used:
/// the files of one that is being made may be half there.
pub(super) fn look(database: &Path) -> Result<Tables, Error> {
    marker(&database.join("version"))?;
    let spaces = database.join("keyspaces");
    let listed = fs::read_dir(&spaces).map_err(|error| unread(&spaces, &error))?;
    let mut found = Vec::new();
    let mut spaces_found = 0;
    for entry in listed {
        let path = entry.map_err(|error| unread(&spaces, &error))?.path();
        let number = path.file_name().and_then(|name| name.to_str());
        // The database takes every name here for a number, and panics if it is none.
        if number.is_none_or(|name| name.parse::<u64>().is_err()) || !path.is_dir() {
            return Err(refuse("a file that is not the database's", &path, None));
        }
        spaces_found += 1;
        found.extend(of_space(&path)?);
    }
    // The database keeps names and options of its key spaces in one more.
    let expected = Space::ALL.len() + 1;
    if spaces_found < expected {
        let what = format!("{spaces_found} of {expected} key spaces are there");
        return Err(refuse(&what, &spaces, None));
    }
    found.sort_by_key(|table| std::cmp::Reverse(table.written));
    Ok(Tables { found })
}

impl Tables {
    /// Sums tables until `budget` bytes are read; answers how many bytes were left out. The table
    /// that goes over the budget is still read.
    pub(super) fn check(&self, budget: u64) -> Result<u64, Error> {
        let mut read = 0_u64;
        let mut left = 0_u64;
        for table in &self.found {
            if read >= budget {
                left = left.saturating_add(table.bytes);
                continue;
            }
            table.check()?;
            read = read.saturating_add(table.bytes);
        }
        Ok(left)
    }

    /// Sums every table; answers what is wrong with each that is damaged.
    pub(super) fn check_all(&self) -> Result<Vec<Damage>, Error> {
        let mut damages = Vec::new();
        for table in &self.found {
            match table.check() {
                Ok(()) => {}
                Err(Error::Regressed(damage)) => damages.push(*damage),
                Err(other) => return Err(other),
            }
        }
        Ok(damages)
    }
}

impl Table {
    fn check(&self) -> Result<(), Error> {
        let sum = sum(&self.path).map_err(|error| unread(&self.path, &error))?;
        if sum == self.sum {
            return Ok(());
        }
        let bytes = fs::read(&self.path).map_err(|error| unread(&self.path, &error))?;
        let at = first_bad_block(&bytes);
        Err(refuse("a table file is damaged", &self.path, Some(at)))
    }
}

fn marker(path: &Path) -> Result<(), Error> {
    let found = fs::read(path).map_err(|error| unread(path, &error))?;
    if found == MARKER {
        return Ok(());
    }
    let what = "the database's marker is damaged or of another format";
    Err(refuse(what, path, Some(0)))
}

fn of_space(path: &Path) -> Result<Vec<Table>, Error> {
    let current = path.join("current");
    let bytes = small(&current)?;
    let mut from = bytes.as_slice();
    let parsed = || -> Option<(u64, u128)> {
        let version = u64::from_le_bytes(take(&mut from)?);
        let sum = u128::from_le_bytes(take(&mut from)?);
        (from == [0]).then_some((version, sum))
    };
    let mut parsed = parsed;
    let Some((version, sum)) = parsed() else {
        return Err(refuse("a manifest's name is damaged", &current, Some(0)));
    };
    let manifest = path.join(format!("v{version}"));
    let bytes = small(&manifest)?;
    if xxh3_128(&bytes) != sum {
        let what = format!("a manifest is damaged, or {} is", current.display());
        return Err(refuse(&what, &manifest, Some(0)));
    }
    let Some(named) = part(&bytes, b"tables").and_then(tables) else {
        return Err(refuse("a manifest cannot be read", &manifest, Some(0)));
    };
    let table = |(id, sum): (u64, u128)| {
        let path = path.join("tables").join(id.to_string());
        let about = fs::metadata(&path).map_err(|error| unread(&path, &error))?;
        let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let bytes = about.len();
        Ok(Table {
            path,
            sum,
            bytes,
            written,
        })
    };
    named.into_iter().map(table).collect()
}

/// A part of an archive whose sum was right.
fn part<'a>(archive: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut end = archive.get(archive.len().checked_sub(ARCHIVE_END)?..)?;
    (take(&mut end)? == ARCHIVE).then_some(())?;
    (take(&mut end)? == [1, 0]).then_some(())?;
    let _sum_of_contents: [u8; 16] = take(&mut end)?;
    let at = usize::try_from(u64::from_le_bytes(take(&mut end)?)).ok()?;
    let mut contents = archive.get(at..)?;
    (take(&mut contents)? == CONTENTS).then_some(())?;
    for _ in 0..u32::from_le_bytes(take(&mut contents)?) {
        let at = usize::try_from(u64::from_le_bytes(take(&mut contents)?)).ok()?;
        let len = usize::try_from(u64::from_le_bytes(take(&mut contents)?)).ok()?;
        let name_len = usize::from(u16::from_le_bytes(take(&mut contents)?));
        let (name, rest) = contents.split_at_checked(name_len)?;
        contents = rest;
        if name == wanted {
            return archive.get(at..at.checked_add(len)?);
        }
    }
    None
}

/// Numbers and sums of the tables in a manifest.
fn tables(mut from: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut found = Vec::new();
    let [levels] = take(&mut from)?;
    for _ in 0..levels {
        let [runs] = take(&mut from)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(take(&mut from)?) {
                let id = u64::from_le_bytes(take(&mut from)?);
                (take(&mut from)? == [0]).then_some(())?;
                let sum = u128::from_le_bytes(take(&mut from)?);
                let _seqno: [u8; 8] = take(&mut from)?;
                found.push((id, sum));
            }
        }
    }
    Some(found)
}

/// The sum of a whole file.
fn sum(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 256 * 1024];
    let mut sum = Xxh3::new();
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(sum.digest128());
        }
        sum.update(chunk.get(..n).unwrap_or_default());
    }
}

/// Where the first block begins that does not have its sum; behind the blocks if all have.
fn first_bad_block(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(len) = bytes.get(at..).and_then(good_block) {
        at += len;
    }
    at
}

/// The length of the block at the beginning, if it has its sum.
fn good_block(bytes: &[u8]) -> Option<usize> {
    let mut from = bytes;
    (take(&mut from)? == BLOCK).then_some(())?;
    let _kind: [u8; 1] = take(&mut from)?;
    let sum = u128::from_le_bytes(take(&mut from)?);
    let stored = usize::try_from(u32::from_le_bytes(take(&mut from)?)).ok()?;
    let _length: [u8; 4] = take(&mut from)?;
    let head = bytes.get(..bytes.len() - from.len())?;
    let [a, b, c, d, ..] = xxh3_128(head).to_le_bytes();
    (take(&mut from)? == [a, b, c, d]).then_some(())?;
    let (data, rest) = from.split_at_checked(stored)?;
    (xxh3_128(data) == sum).then_some(bytes.len() - rest.len())
}

/// A file that is read as a whole because it is small.
fn small(path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?.take(MANIFEST_LIMIT);
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    read().map_err(|error| unread(path, &error))
}

fn unread(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            refuse("a file of the database is missing", path, None)
        }
        _ => on_disk(&format!("read {}", path.display()), error),
    }
}

fn refuse(found: &str, path: &Path, offset: Option<usize>) -> Error {
    let offset = offset.map_or_else(String::new, |at| format!(", offset {at}"));
    Error::Regressed(Box::new(Damage {
        found: found.to_owned(),
        place: Some(format!("{}{offset}", path.display())),
        lane: None,
        remedy: String::from(
            "Restore a backup; nothing was touched. `posthaste verify` tells what else is damaged",
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Vec<u8> {
        let mut bytes = b"other".to_vec();
        let at = bytes.len();
        bytes.extend([2, 1]);
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(7_u64.to_le_bytes());
        bytes.push(0);
        bytes.extend(9_u128.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.push(0);
        let contents = bytes.len();
        bytes.extend(CONTENTS);
        bytes.extend(2_u32.to_le_bytes());
        for (at, end, name) in [(0, at, "first"), (at, contents, "tables")] {
            bytes.extend(u64::try_from(at).unwrap().to_le_bytes());
            bytes.extend(u64::try_from(end - at).unwrap().to_le_bytes());
            bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        bytes.extend(ARCHIVE);
        bytes.extend([1, 0]);
        bytes.extend([0; 16]);
        bytes.extend(u64::try_from(contents).unwrap().to_le_bytes());
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn the_tables_of_a_manifest_are_found() {
        let bytes = manifest();
        let found = part(&bytes, b"tables").and_then(tables);
        assert_eq!(found, Some(vec![(7, 9)]));
        assert_eq!(part(&bytes, b"absent"), None);
    }

    #[test]
    fn a_manifest_cut_anywhere_is_no_manifest_and_never_a_panic() {
        let bytes = manifest();
        for end in 0..bytes.len() {
            let found = part(&bytes[..end], b"tables").and_then(tables);
            assert_eq!(found, None, "cut at {end}");
        }
    }

    #[test]
    fn any_flipped_bit_of_a_manifest_is_read_without_a_panic() {
        let whole = manifest();
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            // What it says does not matter here: its sum is looked at first.
            let named = part(&bytes, b"tables").and_then(tables);
            assert!(named.is_none_or(|named| named.len() <= 1));
        }
    }

    #[test]
    fn the_first_bad_block_is_found() {
        let block = |data: &[u8]| {
            let mut bytes = BLOCK.to_vec();
            bytes.push(0);
            bytes.extend(xxh3_128(data).to_le_bytes());
            for _ in 0..2 {
                bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            }
            let [a, b, c, d, ..] = xxh3_128(&bytes).to_le_bytes();
            bytes.extend([a, b, c, d]);
            bytes.extend(data);
            bytes
        };
        let mut bytes = block(b"one");
        let second = bytes.len();
        bytes.extend(block(b"two"));
        assert_eq!(first_bad_block(&bytes), bytes.len());
        for at in second..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            // The kind and the length are covered by the head's own sum.
            assert_eq!(first_bad_block(&bytes), second, "byte {at}");
        }
    }
}
