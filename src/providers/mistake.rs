//! What is wrong with a manifest, and where.

use std::fmt;

/// One mistake in one manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file as it was named, or the directory that could not be read.
    pub file: String,
    /// Its line; the first is 1. 0 = the file as a whole.
    pub line: usize,
    /// What is wrong and what is wanted, beginning with the key where there is one.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        match line {
            0 => write!(f, "{file}: {what}"),
            _ => write!(f, "{file}:{line}: {what}"),
        }
    }
}
