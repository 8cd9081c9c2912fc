//! How large payloads are: one size, a weighted list, a log-normal distribution, or real files.
//!
//! Drawn once, from a seed, into a table that the generator walks through: a run is the same work
//! every time, and drawing costs nothing while it runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::hist::whole;

/// Entries of the table. Prime, so that a round of applications does not fall into step with it.
const TABLE: usize = 4093;

/// Bytes of payloads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sizes {
    Fixed(usize),
    /// Size and weight.
    Weighted(Vec<(usize, u32)>),
    /// `ln(size)` is normal around `ln(median)` with this deviation; cut at both ends.
    LogNormal {
        median: f64,
        sigma: f64,
        min: usize,
        max: usize,
    },
    /// Every file of a folder, each a JSON value.
    Folder(PathBuf),
}

/// The table.
pub(crate) enum Shapes {
    Sizes(Vec<usize>),
    Files(Vec<Bytes>),
}

impl Sizes {
    /// Draws the table. Fails if a folder holds nothing usable.
    pub(crate) fn draw(&self, seed: u64) -> anyhow::Result<Shapes> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Ok(match self {
            Self::Fixed(size) => Shapes::Sizes(vec![*size]),
            Self::Weighted(list) => {
                let all: u64 = list.iter().map(|(_, weight)| u64::from(*weight)).sum();
                if all == 0 {
                    bail!("the weighted sizes have no weight");
                }
                let mut draw = || weighted(list, random.random_range(0..all));
                Shapes::Sizes((0..TABLE).map(|_| draw()).collect())
            }
            Self::LogNormal {
                median,
                sigma,
                min,
                max,
            } => {
                let mut draw = || {
                    let size = median * (sigma * normal(&mut random)).exp();
                    usize::try_from(whole(size))
                        .unwrap_or(*max)
                        .clamp(*min, *max)
                };
                Shapes::Sizes((0..TABLE).map(|_| draw()).collect())
            }
            Self::Folder(folder) => {
                let mut files = read(folder)?;
                files.shuffle(&mut random);
                Shapes::Files(files)
            }
        })
    }
}

fn weighted(list: &[(usize, u32)], mut at: u64) -> usize {
    for (size, weight) in list {
        match at.checked_sub(u64::from(*weight)) {
            Some(rest) => at = rest,
            None => return *size,
        }
    }
    list.last().map_or(0, |(size, _)| *size)
}

/// Box and Muller; the first argument of the logarithm is never 0.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius: f64 = 1.0 - random.random::<f64>();
    let angle: f64 = random.random();
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

fn read(folder: &Path) -> anyhow::Result<Vec<Bytes>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    // The order of a directory is the file system's; the seed alone decides.
    paths.sort();
    let mut files = Vec::new();
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read(&path)?;
        let value: serde_json::Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        // On one line, or an NDJSON batch would break within it.
        files.push(Bytes::from(serde_json::to_vec(&value)?));
    }
    if files.is_empty() {
        bail!("{} holds no payloads", folder.display());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sizes: &Sizes, seed: u64) -> Vec<usize> {
        match sizes.draw(seed).unwrap() {
            Shapes::Sizes(sizes) => sizes,
            Shapes::Files(files) => files.iter().map(Bytes::len).collect(),
        }
    }

    #[test]
    fn weights_are_kept_and_a_seed_repeats_the_table() {
        let sizes = Sizes::Weighted(vec![(100, 3), (9000, 1)]);
        let drawn = table(&sizes, 7);
        let small = drawn.iter().filter(|size| **size == 100).count();
        assert!((2900..3250).contains(&small), "{small} of {TABLE}");
        assert_eq!(drawn, table(&sizes, 7));
        assert_ne!(drawn, table(&sizes, 8));
    }

    #[test]
    fn a_log_normal_table_has_its_median_its_spread_and_its_ends() {
        let sizes = Sizes::LogNormal {
            median: 2000.0,
            sigma: 1.0,
            min: 200,
            max: 30_000,
        };
        let mut drawn = table(&sizes, 1);
        drawn.sort_unstable();
        let at = |share: usize| drawn[TABLE * share / 100];
        assert!((1850..2150).contains(&at(50)), "{}", at(50));
        // One deviation above the median is a factor of e.
        assert!((4900..6000).contains(&at(84)), "{}", at(84));
        assert!(drawn[0] >= 200 && drawn[TABLE - 1] <= 30_000);
    }

    #[test]
    fn a_folder_gives_each_of_its_files_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.json"), "{\n  \"a\": [1,\n 2]\n}\n").unwrap();
        std::fs::write(dir.path().join("b.json"), "{\"b\": \"two\"}").unwrap();
        let Shapes::Files(mut files) = Sizes::Folder(dir.path().to_owned()).draw(3).unwrap() else {
            panic!("a folder gives files");
        };
        files.sort();
        assert_eq!(files, [&b"{\"a\":[1,2]}"[..], b"{\"b\":\"two\"}"]);
    }

    #[test]
    fn a_folder_without_payloads_or_with_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Sizes::Folder(dir.path().to_owned());
        assert!(folder.draw(1).is_err());
        std::fs::write(dir.path().join("a.json"), "not JSON").unwrap();
        let text = format!("{:#}", folder.draw(1).err().unwrap());
        assert!(text.contains("a.json is not JSON"), "{text}");
        assert!(Sizes::Weighted(vec![(1, 0)]).draw(1).is_err());
    }
}
