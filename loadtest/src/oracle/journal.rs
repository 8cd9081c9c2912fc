//! Append-only files that survive the death of their writer.
//!
//! Each entry is one line and one `write` to a file opened with `O_APPEND`, without any buffer of
//! this process: after a SIGKILL of the harness the kernel still holds every line. Not synced: the
//! harness proves things about the gateway's disk, not about its own after a power cut of the host.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One file of a history, open for appending. Threads may share it.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

/// Where an entry stands: file name and line, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) file: &'static str,
    pub(crate) no: usize,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.no)
    }
}

impl Journal {
    /// Opens `name` in `dir`, made if absent, continued if there: by the same process, for another's
    /// numbers would be given twice.
    pub(crate) fn open(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let path = dir.join(name);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Appends one line by one `write`. A short write is an error: the record would be torn.
    pub(crate) fn append(&self, entry: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = (&self.file)
            .write(&line)
            .with_context(|| format!("cannot append to {}", self.path.display()))?;
        if written != line.len() {
            bail!(
                "only {written} of {} bytes went to {}",
                line.len(),
                self.path.display()
            );
        }
        Ok(())
    }
}

/// Reads all entries of `name` in `dir`; none if the file is absent. A last line without its line
/// feed is what a killed writer leaves and is passed over; any other line that cannot be read is an
/// error that names it.
pub(crate) fn read<T: DeserializeOwned>(
    dir: &Path,
    name: &'static str,
) -> anyhow::Result<Vec<(Line, T)>> {
    let path = dir.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let mut entries = Vec::new();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            break; // torn: only the last one can lack its line feed
        };
        let no = index + 1;
        let entry = serde_json::from_slice(line)
            .with_context(|| format!("{}:{no} is no entry of a history", path.display()))?;
        entries.push((Line { file: name, no }, entry));
    }
    Ok(entries)
}
