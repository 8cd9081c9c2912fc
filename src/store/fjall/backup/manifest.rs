//! What a backup holds, in one file that is written last.
//!
//! JSON in two layers: `{"sha256": "…", "manifest": {…}}`, the sum over the bytes of the inner
//! object as they stand there. Pure but for nothing: reading and writing the file is in
//! [`mod@super::write`] and [`mod@super::restore`].

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::base::Timestamp;
use crate::model::{LaneId, Position};
use crate::store::Standing;
use crate::store::fjall::format::Format;
use crate::store::fjall::hwm::Mark;

/// The file's name.
pub const MANIFEST: &str = "manifest.json";
/// The form of the manifest and of what stands beside it.
pub(super) const BACKUP_FORMAT: u32 = 1;

/// What stands in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub(super) backup_format: u32,
    /// Version of the binary that wrote it.
    pub product: String,
    /// What is needed to read the store in it.
    pub(super) store_format: Format,
    /// The gateway it was taken from; absent if the store never ran.
    pub instance: Option<String>,
    /// The instant it stands for.
    pub created: Timestamp,
    /// The last commit in it.
    pub batch: u64,
    /// Hash of that commit, in hex.
    pub hash: String,
    /// The end of the log.
    pub tail: Place,
    /// The highest lane opened up to then.
    pub highest_lane: u32,
    /// Commits below this number are not verified: a loss was accepted before it.
    pub verify_from: u64,
    /// Per lane that holds messages its last one.
    pub lanes: Vec<Place>,
    /// Everything but the manifest itself.
    pub files: Vec<FileEntry>,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The lane.
    pub lane: u32,
    /// The sequence number in it; 0 = no message yet.
    pub seq: u64,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it stands in the backup and in the data directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// The outer layer.
#[derive(Deserialize)]
struct Sealed<'a> {
    sha256: &'a str,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The file's bytes.
    pub(super) fn seal(&self) -> Result<Vec<u8>, serde_json::Error> {
        let inner = serde_json::to_string(self)?;
        let sum = hex(Sha256::digest(inner.as_bytes()).as_slice());
        Ok(format!("{{\"sha256\":\"{sum}\",\"manifest\":{inner}}}\n").into_bytes())
    }

    /// Reads the file's bytes; the error says what is wrong with them.
    pub(super) fn unseal(bytes: &[u8]) -> Result<Self, String> {
        let sealed: Sealed<'_> =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
        let sum = hex(Sha256::digest(sealed.manifest.get().as_bytes()).as_slice());
        if sum != sealed.sha256 {
            return Err(String::from("its checksum is wrong"));
        }
        // The form first: a newer manifest may lack or rename what this version expects.
        #[derive(Deserialize)]
        struct Form {
            backup_format: u32,
        }
        let form: Form = serde_json::from_str(sealed.manifest.get())
            .map_err(|error| format!("it is no manifest: {error}"))?;
        if form.backup_format > BACKUP_FORMAT {
            return Err(format!(
                "it has form {}, this version reads up to {BACKUP_FORMAT}; use the newer version",
                form.backup_format
            ));
        }
        let manifest: Self = serde_json::from_str(sealed.manifest.get())
            .map_err(|error| format!("it cannot be read: {error}"))?;
        manifest.sound()?;
        Ok(manifest)
    }

    /// Names stay inside of the backup and are unique, and a journal is among them (a database
    /// without one would come up empty).
    fn sound(&self) -> Result<(), String> {
        let mut names = std::collections::BTreeSet::new();
        for file in &self.files {
            let good = file
                .path
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..");
            if !good || !file.path.starts_with("db/") || file.path.contains('\0') {
                return Err(format!("it names a file outside of a store: {}", file.path));
            }
            if !names.insert(file.path.as_str()) {
                return Err(format!("it names {} twice", file.path));
            }
        }
        if !names.iter().any(|name| name.ends_with(".jnl")) {
            return Err(String::from("it names no journal"));
        }
        unhex(&self.hash).ok_or("the hash of its last commit is bad")?;
        Ok(())
    }

    /// The numbers of `standing`.
    pub(super) fn position(standing: &Standing) -> (Place, Vec<Place>) {
        let lanes = standing.lanes.iter();
        let lanes = lanes.map(|(lane, seq)| Place {
            lane: lane.0,
            seq: *seq,
        });
        let tail = Place {
            lane: standing.tail.lane.0,
            seq: standing.tail.seq,
        };
        (tail, lanes.collect())
    }

    /// The high-water mark of the restored store; lanes go on behind `highest`.
    pub(super) fn mark(&self, highest: LaneId) -> Mark {
        Mark {
            batch: self.batch,
            hash: unhex(&self.hash).unwrap_or_default(),
            highest_lane: highest,
            at: self.created,
            verify_from: self.verify_from,
            lanes: self
                .lanes
                .iter()
                .map(|place| (LaneId(place.lane), place.seq))
                .collect(),
            ..Mark::default()
        }
    }
}

impl From<Place> for Position {
    fn from(place: Place) -> Self {
        Self {
            lane: LaneId(place.lane),
            seq: place.seq,
        }
    }
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        if write!(out, "{byte:02x}").is_err() {}
    }
    out
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    (text.len() == 32).then_some(())?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fjall::format::CURRENT;

    fn manifest() -> Manifest {
        Manifest {
            backup_format: BACKUP_FORMAT,
            product: String::from("0.1.0"),
            store_format: CURRENT,
            instance: Some(String::from("org_1")),
            created: Timestamp::from_millis(1_767_600_000_000),
            batch: 7,
            hash: hex(&[9; 16]),
            tail: Place { lane: 2, seq: 5 },
            highest_lane: 2,
            verify_from: 0,
            lanes: vec![Place { lane: 2, seq: 5 }],
            files: vec![FileEntry {
                path: String::from("db/0.jnl"),
                size: 3,
                sha256: hex(&[1; 32]),
            }],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_gives_the_mark_that_belongs_to_it() {
        let one = manifest();
        let found = Manifest::unseal(&one.seal().unwrap()).unwrap();
        assert_eq!(found, one);
        let mark = found.mark(LaneId(99));
        assert_eq!((mark.batch, mark.hash), (7, [9; 16]));
        assert_eq!(mark.highest_lane, LaneId(99));
        assert_eq!(mark.lanes, [(LaneId(2), 5)].into());
    }

    #[test]
    fn every_flipped_byte_of_a_manifest_is_seen() {
        let bytes = manifest().seal().unwrap();
        for at in 0..bytes.len() - 1 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let found = Manifest::unseal(&damaged);
            assert!(found.is_err(), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn a_manifest_cut_anywhere_is_refused() {
        let bytes = manifest().seal().unwrap();
        for end in 0..bytes.len() - 1 {
            assert!(Manifest::unseal(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn names_outside_of_the_backup_and_newer_forms_are_refused() {
        for path in [
            "/etc/passwd",
            "db/../../x",
            "../x",
            "db//x",
            "hwm",
            "",
            "db/./x",
        ] {
            let mut one = manifest();
            one.files[0].path = path.to_owned();
            let said = Manifest::unseal(&one.seal().unwrap()).unwrap_err();
            assert!(said.contains("outside"), "{path}: {said}");
        }
        let mut twice = manifest();
        twice.files.push(twice.files[0].clone());
        let said = Manifest::unseal(&twice.seal().unwrap()).unwrap_err();
        assert!(said.contains("twice"), "{said}");
        let mut newer = manifest();
        newer.backup_format += 1;
        let said = Manifest::unseal(&newer.seal().unwrap()).unwrap_err();
        assert!(said.contains("newer version"), "{said}");
        let mut empty = manifest();
        empty.files.clear();
        assert!(
            Manifest::unseal(&empty.seal().unwrap())
                .unwrap_err()
                .contains("no journal")
        );
    }
}
