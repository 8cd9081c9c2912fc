//! The parts of a scenario that have forms of their own: pace, sizes, durations.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::payload::MIN_SIZE;
use crate::sizes::Sizes;

/// `load.pace`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PacePlan {
    /// As fast as the answers come.
    Closed {},
    /// Requests a second.
    Open { rate: f64 },
    /// A share of the accepted rate of another scenario of the set.
    Share { of: String, share: f64 },
    /// From one rate to another over the measured part; 0 steps = evenly.
    Ramp {
        from: f64,
        to: f64,
        #[serde(default)]
        steps: u32,
    },
    /// So many requests at once.
    Burst {
        count: u64,
        #[serde(deserialize_with = "seconds")]
        every: Duration,
    },
}

impl PacePlan {
    pub(super) fn mistakes(&self) -> Option<String> {
        let good = match self {
            Self::Closed {} => true,
            Self::Open { rate } => is_rate(*rate),
            Self::Share { share, .. } => is_rate(*share),
            Self::Ramp { from, to, steps } => is_rate(*from) && is_rate(*to) && *steps != 1,
            Self::Burst { count, every } => *count > 0 && !every.is_zero(),
        };
        (!good).then(|| {
            format!("load.pace: rate must be above 0, a burst too, steps 0 or 2 and more: {self:?}")
        })
    }
}

fn is_rate(rate: f64) -> bool {
    rate.is_finite() && rate > 0.0
}

/// `payload.size`: a number of bytes, or one of the distributions.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum SizePlan {
    Fixed(usize),
    Drawn(DrawnPlan),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum DrawnPlan {
    /// `[[bytes, weight], …]`
    Weighted(Vec<(usize, u32)>),
    LogNormal(LogNormal),
    /// Of JSON files.
    Folder(PathBuf),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogNormal {
    median: f64,
    sigma: f64,
    min: usize,
    max: usize,
}

impl Default for SizePlan {
    fn default() -> Self {
        Self::Fixed(1024)
    }
}

impl SizePlan {
    pub(super) fn mistakes(&self) -> Option<String> {
        let good = match self {
            Self::Fixed(size) => *size >= MIN_SIZE,
            Self::Drawn(DrawnPlan::Weighted(list)) => {
                list.iter().all(|(size, _)| *size >= MIN_SIZE)
                    && list.iter().any(|(_, weight)| *weight > 0)
            }
            Self::Drawn(DrawnPlan::LogNormal(of)) => {
                is_rate(of.median) && is_rate(of.sigma) && MIN_SIZE <= of.min && of.min <= of.max
            }
            Self::Drawn(DrawnPlan::Folder(_)) => true,
        };
        (!good).then(|| format!("payload.size: {MIN_SIZE} bytes or more, with a weight: {self:?}"))
    }

    pub(super) fn sizes(&self) -> Sizes {
        match self {
            Self::Fixed(size) => Sizes::Fixed(*size),
            Self::Drawn(DrawnPlan::Weighted(list)) => Sizes::Weighted(list.clone()),
            Self::Drawn(DrawnPlan::LogNormal(of)) => Sizes::LogNormal {
                median: of.median,
                sigma: of.sigma,
                min: of.min,
                max: of.max,
            },
            Self::Drawn(DrawnPlan::Folder(path)) => Sizes::Folder(path.clone()),
        }
    }
}

/// Reads `250ms`, `3s`, `5m`, `2h`.
pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .with_context(|| format!("`{text}` has no unit: 250ms, 3s, 5m or 2h"))?;
    let (number, unit) = text.split_at(at);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => bail!("`{text}` is no duration: 250ms, 3s, 5m or 2h"),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("`{text}` is no duration: 250ms, 3s, 5m or 2h"))?;
    let millis = number
        .checked_mul(millis)
        .filter(|all| *all <= 31_536_000_000);
    let millis = millis.with_context(|| format!("`{text}` is longer than a year"))?;
    Ok(Duration::from_millis(millis))
}

/// For serde.
pub(crate) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    duration(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sized {
        size: SizePlan,
    }

    fn size(text: &str) -> SizePlan {
        toml::from_str::<Sized>(&format!("size = {text}"))
            .unwrap()
            .size
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("3s", 3000),
            ("5m", 300_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis));
        }
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "1.5s",
            "9999999999999999999s",
            "99999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_four_forms() {
        assert_eq!(size("1024").sizes(), Sizes::Fixed(1024));
        assert_eq!(
            size("{ weighted = [[512, 3], [4096, 1]] }").sizes(),
            Sizes::Weighted(vec![(512, 3), (4096, 1)])
        );
        let log_normal =
            size("{ log-normal = { median = 1000, sigma = 1.5, min = 100, max = 9000 } }");
        assert!(matches!(
            log_normal.sizes(),
            Sizes::LogNormal { max: 9000, .. }
        ));
        assert_eq!(
            size("{ folder = 'x' }").sizes(),
            Sizes::Folder(PathBuf::from("x"))
        );
        for bad in [
            "10",
            "{ weighted = [[512, 0]] }",
            "{ weighted = [[5, 1]] }",
            "{ log-normal = { median = 0, sigma = 1, min = 100, max = 200 } }",
            "{ log-normal = { median = 9, sigma = 1, min = 300, max = 200 } }",
        ] {
            assert!(size(bad).mistakes().is_some(), "{bad}");
        }
    }
}
