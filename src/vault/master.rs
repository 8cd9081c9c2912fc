//! Master keys: where they come from, how they are written, and the one that is made when there is none.
//!
//! The first place that has keys is taken, and it alone: the environment, the credential of the service
//! manager, the key file. The first key of it is the primary one and wraps; the others only open.
#![deny(clippy::indexing_slicing)]

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::KEY;
use super::ring::Cipher;

/// What a key text may begin with; made ones do.
const PREFIX: &str = "phv_";
/// Keys of one place at most: more is no rotation but a mistake.
const MAX_KEYS: usize = 16;
/// A longer file is not one of keys.
const MAX_FILE: u64 = 16 << 10;

/// A master key. Prints as its id.
pub struct MasterKey {
    id: String,
    cipher: Cipher,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

impl MasterKey {
    /// From 32 random bytes.
    pub fn new(bytes: [u8; KEY]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"posthaste master key id\0");
        hash.update(bytes);
        let hash: [u8; 32] = hash.finalize().into();
        let id = hash.iter().take(4).map(|byte| format!("{byte:02x}"));
        Self {
            id: id.collect(),
            cipher: Cipher::new(bytes),
        }
    }

    /// Reads a key: 32 bytes as base64 (either alphabet), with or without `phv_`, or 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = if text.len() == 2 * KEY {
            hex(text)?
        } else {
            let text = text.trim_end_matches('=');
            let read = URL_SAFE_NO_PAD.decode(text);
            Zeroizing::new(read.or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?)
        };
        <[u8; KEY]>::try_from(bytes.as_slice()).ok().map(Self::new)
    }

    /// Its id: eight hex digits of a hash, which say nothing about the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The text form, for the file it is kept in.
    pub fn text(&self) -> Zeroizing<String> {
        let text = URL_SAFE_NO_PAD.encode(self.cipher.bytes());
        Zeroizing::new(format!("{PREFIX}{text}"))
    }

    pub(super) const fn cipher(&self) -> &Cipher {
        &self.cipher
    }
}

fn hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.as_bytes().as_chunks::<2>().0.iter();
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

/// The master keys of a process, primary first.
#[derive(Debug)]
pub struct Masters {
    primary: MasterKey,
    others: Vec<MasterKey>,
}

impl Masters {
    /// One key.
    pub const fn one(primary: MasterKey) -> Self {
        Self {
            primary,
            others: Vec::new(),
        }
    }

    /// Reads keys, one a line or separated by commas; `#` begins a comment. `place` names them in errors.
    pub fn parse(text: &str, place: &str) -> Result<Self, KeyError> {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or(""));
        let words = lines.flat_map(|line| line.split([',', ' ', '\t']));
        let words = words.map(str::trim).filter(|word| !word.is_empty());
        let mut keys = Vec::new();
        for word in words {
            let key = MasterKey::parse(word);
            keys.push(key.ok_or_else(|| KeyError::NoKey(place.to_owned()))?);
        }
        if keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany(place.to_owned()));
        }
        let mut keys = keys.into_iter();
        let primary = keys.next();
        let primary = primary.ok_or_else(|| KeyError::Empty(place.to_owned()))?;
        Ok(Self {
            primary,
            others: keys.collect(),
        })
    }

    /// The one that wraps.
    pub const fn primary(&self) -> &MasterKey {
        &self.primary
    }

    /// The one with this id.
    pub fn get(&self, id: &str) -> Option<&MasterKey> {
        std::iter::once(&self.primary)
            .chain(&self.others)
            .find(|key| key.id == id)
    }

    /// All ids, the primary one first.
    pub fn ids(&self) -> Vec<String> {
        let all = std::iter::once(&self.primary).chain(&self.others);
        all.map(|key| key.id.clone()).collect()
    }
}

/// Why there are no master keys. Never shows one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Something in it is no key.
    #[error(
        "{0} holds something that is no master key: 32 bytes as base64 or hex are wanted, one a line \
         (`posthaste vault new-key` makes one)"
    )]
    NoKey(String),
    /// Nothing is in it.
    #[error("{0} holds no master key")]
    Empty(String),
    /// Too much is in it.
    #[error("{0} holds more than {MAX_KEYS} master keys")]
    TooMany(String),
    /// The store is sealed and no key is to be found.
    #[error(
        "the store holds sealed secrets, and there is no master key: no POSTHASTE_VAULT_KEY, no credential \
         vault-key, and no file {}. Give the key back; without it the secrets are lost (see \"Vault\" in \
         docs/OPERATIONS.md)", .0.display()
    )]
    Missing(PathBuf),
    /// A file cannot be read or made.
    #[error("the master key in {} cannot be {what}: {cause}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
}

/// Where master keys may be.
#[derive(Clone, Default)]
pub struct Given {
    /// The text of `POSTHASTE_VAULT_KEY`.
    pub variable: Option<Zeroizing<String>>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// The key file.
    pub file: PathBuf,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Master keys and where they were found.
#[derive(Debug)]
pub struct Found {
    /// The keys.
    pub masters: Masters,
    /// In words.
    pub place: String,
    /// The key file was made just now.
    pub is_new: bool,
    /// The file may be read by others than its owner and group.
    pub is_open: bool,
}

impl Given {
    /// The key file beside a data directory: `/srv/data` has `/srv/data.vault-key`.
    pub fn beside(dir: &Path) -> PathBuf {
        let mut name = dir.components().as_path().as_os_str().to_owned();
        name.push(".vault-key");
        PathBuf::from(name)
    }

    /// Takes the keys of the first place that has any. If none has and nothing is sealed yet, a key of
    /// `random` is written to the key file, for its owner only, and is on the disk when this returns.
    ///
    /// # Errors
    /// What is given is no key, cannot be read, or is missing although `is_sealed`.
    pub fn find(&self, is_sealed: bool, random: [u8; KEY]) -> Result<Found, KeyError> {
        if let Some(text) = self
            .variable
            .as_ref()
            .filter(|text| !text.trim().is_empty())
        {
            return found(text, String::from("POSTHASTE_VAULT_KEY"), false);
        }
        let credential = self.credentials.as_ref().map(|dir| dir.join("vault-key"));
        for file in credential.iter().chain([&self.file]) {
            if let Some((text, is_open)) = read(file)? {
                let is_open = is_open && credential.as_ref() != Some(file);
                return found(&text, file.display().to_string(), is_open);
            }
        }
        if is_sealed {
            return Err(KeyError::Missing(self.file.clone()));
        }
        let key = MasterKey::new(random);
        make(&self.file, &key)?;
        Ok(Found {
            masters: Masters::one(key),
            place: self.file.display().to_string(),
            is_new: true,
            is_open: false,
        })
    }
}

fn found(text: &str, place: String, is_open: bool) -> Result<Found, KeyError> {
    Ok(Found {
        masters: Masters::parse(text, &place)?,
        place,
        is_new: false,
        is_open,
    })
}

/// The text of a key file and whether everybody may read it; `None` if there is no such file.
fn read(file: &Path) -> Result<Option<(Zeroizing<String>, bool)>, KeyError> {
    let failed = |cause| KeyError::File {
        file: file.to_owned(),
        what: "read",
        cause,
    };
    let meta = match fs::metadata(file) {
        Ok(meta) => meta,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    if meta.len() > MAX_FILE {
        return Err(KeyError::TooMany(file.display().to_string()));
    }
    let text = fs::read_to_string(file).map_err(failed)?;
    Ok(Some((Zeroizing::new(text), meta.mode() & 0o007 != 0)))
}

/// Writes a new key file: whole or not at all, never over another one, synced with its directory.
fn make(file: &Path, key: &MasterKey) -> Result<(), KeyError> {
    let failed = |cause| KeyError::File {
        file: file.to_owned(),
        what: "made; set vault.key_file, POSTHASTE_VAULT_KEY or the credential vault-key",
        cause,
    };
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    };
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = (|| {
        let mut open = fs::OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600);
        let mut out = open.open(&part)?;
        let text = Zeroizing::new(format!(
            "# Master key {} of this gateway's secrets. Keep a copy elsewhere: without it they are lost.\n{}\n",
            key.id(),
            key.text().as_str()
        ));
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::hard_link(&part, file)?;
        fs::remove_file(&part)?;
        fs::File::open(dir)?.sync_all()
    })();
    written.map_err(failed)
}
