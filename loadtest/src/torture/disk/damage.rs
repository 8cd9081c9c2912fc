//! Damage to one place of a data directory.
//!
//! Which file, where and how comes from the random numbers of the sample. Kinds of files are equally
//! likely however many files they have, so that a manifest of 300 bytes is hit as often as a journal.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What lies in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// The newest journal.
    Journal,
    /// Older ones.
    SealedJournal,
    Table,
    /// `current` and `v*` of a key space.
    Manifest,
    /// `hwm`.
    HighWater,
    /// `format`, and `version` of the database.
    Marker,
    /// The empty `lock` files.
    Lock,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Journal,
        Self::SealedJournal,
        Self::Table,
        Self::Manifest,
        Self::HighWater,
        Self::Marker,
        Self::Lock,
    ];

    /// Of a file, by its place in the data directory.
    ///
    /// None for what a killed process left half made: nobody ever reads it.
    fn of(path: &Path, newest_journal: &Path) -> anyhow::Result<Option<Self>> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.context("files have names")?;
        let is_version = |name: &str| {
            let number = name.strip_prefix('v');
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        };
        Ok(Some(match name {
            _ if name.starts_with(".tmp") => return Ok(None),
            "lock" => Self::Lock,
            "hwm" => Self::HighWater,
            "format" | "version" => Self::Marker,
            "current" => Self::Manifest,
            _ if path == newest_journal => Self::Journal,
            _ if name.ends_with(".jnl") => Self::SealedJournal,
            _ if path.parent().is_some_and(|dir| dir.ends_with("tables")) => Self::Table,
            _ if is_version(name) => Self::Manifest,
            _ => bail!("{} is a file of a kind that nobody knows", path.display()),
        }))
    }
}

/// What happens to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// This bit of the byte.
    Flip(u8),
    /// The sector of 512 bytes around it becomes zero.
    ZeroSector,
    /// The page of 4096 bytes around it becomes zero.
    ZeroPage,
    /// The file ends there.
    Cut,
    /// The file is empty.
    Empty,
    /// The file is gone.
    Delete,
}

/// One harm at one place.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    /// Within the data directory.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) harm: Harm,
    pub(super) at: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, harm, at, .. } = self;
        write!(f, "{harm:?} at {at} of {}", path.display())
    }
}

impl Damage {
    /// Some damage to the directory `data`.
    ///
    /// A store that has sealed journals was made for them: there they are hit more often.
    pub(super) fn choose(data: &Path, random: &mut ChaCha8Rng) -> anyhow::Result<Self> {
        let files = files(data)?;
        let newest = newest_journal(&files)?;
        let mut of_kind = Vec::new();
        while of_kind.is_empty() {
            let kind = if journals(&files).len() > 1 && random.random_bool(0.6) {
                Kind::SealedJournal
            } else {
                *pick(&Kind::ALL, random)?
            };
            for path in &files {
                if Kind::of(path, &newest)? == Some(kind) {
                    of_kind.push((path, kind));
                }
            }
        }
        let (path, kind) = *pick(&of_kind, random)?;
        let used = used(path)?;
        let harm = match random.random_range(0..10) {
            _ if used == 0 => Harm::Delete,
            0..=4 => Harm::Flip(random.random_range(0..8)),
            5 => Harm::ZeroSector,
            6 => Harm::ZeroPage,
            7 => Harm::Cut,
            8 => Harm::Empty,
            _ => Harm::Delete,
        };
        // Torn ends are worth a closer look than their share of a journal gives them.
        let from = match harm {
            Harm::Cut if random.random_ratio(1, 2) => used.saturating_sub(2000),
            _ => 0,
        };
        Ok(Self {
            path: path.strip_prefix(data)?.to_owned(),
            kind,
            harm,
            at: random.random_range(from..used.max(from + 1)),
        })
    }

    /// Does it to the directory `data`; answers whether a byte was changed.
    pub(super) fn inflict(&self, data: &Path) -> anyhow::Result<bool> {
        let path = data.join(&self.path);
        let open = || File::options().read(true).write(true).open(&path);
        match self.harm {
            Harm::Flip(bit) => {
                let mut byte = [0];
                open()?.read_exact_at(&mut byte, self.at)?;
                open()?.write_all_at(&byte.map(|byte| byte ^ (1 << bit)), self.at)?;
                Ok(true)
            }
            Harm::ZeroSector => self.zero(&open()?, 512),
            Harm::ZeroPage => self.zero(&open()?, 4096),
            Harm::Cut => {
                open()?.set_len(self.at)?;
                Ok(true)
            }
            Harm::Empty => {
                open()?.set_len(0)?;
                Ok(true)
            }
            Harm::Delete => {
                fs::remove_file(&path)?;
                Ok(true)
            }
        }
    }

    fn zero(&self, file: &File, size: u64) -> anyhow::Result<bool> {
        let from = self.at / size * size;
        let to = file.metadata()?.len().min(from + size);
        let mut before = vec![0; usize::try_from(to - from)?];
        file.read_exact_at(&mut before, from)?;
        file.write_all_at(&vec![0; before.len()], from)?;
        Ok(before.iter().any(|byte| *byte != 0))
    }
}

/// All files below `dir`, sorted.
pub(super) fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Journals of a data directory, the oldest first.
pub(super) fn journals(files: &[PathBuf]) -> Vec<PathBuf> {
    let number = |path: &PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        name.strip_suffix(".jnl")?.parse().ok()
    };
    let mut found: Vec<_> = files.iter().filter(|path| number(path).is_some()).collect();
    found.sort_by_key(|path| number(path));
    found.into_iter().cloned().collect()
}

fn newest_journal(files: &[PathBuf]) -> anyhow::Result<PathBuf> {
    journals(files).pop().context("the store has a journal")
}

/// Bytes of a file without the zeros at its end: journals are made long and mostly holes.
pub(super) fn used(path: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(path)?;
    let last = bytes.iter().rposition(|byte| *byte != 0);
    Ok(last.map_or(0, |last| last as u64 + 1))
}

fn pick<'a, T>(all: &'a [T], random: &mut ChaCha8Rng) -> anyhow::Result<&'a T> {
    let index = random.random_range(0..all.len().max(1));
    all.get(index).context("there is something to choose from")
}
