//! Raw values, as the file or the environment has them, and how each type is read from one.
//!
//! The environment knows only text, so [`Raw::Plain`] is read by the type of the key; what starts
//! with a bracket is taken for a TOML list or table. Errors are sentences for people without the
//! place, which the caller adds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value as Json;
use toml::de::DeValue;

use super::duration;
use crate::base::ByteSize;
use crate::policy::retry::{RetryPlan, SCHEDULES};

/// A value before its type is known.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    /// From the environment: nothing says what it is.
    Plain(String),
    /// A quoted string.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Real(f64),
    /// `true` or `false`.
    Flag(bool),
    /// `[…]`
    List(Vec<Raw>),
    /// `{…}` or a section.
    Table(Vec<(String, Raw)>),
    /// Something no key wants.
    Other(&'static str),
}

impl Raw {
    /// Takes over a value of the file.
    pub(super) fn of_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("a number beyond 64 bits"), Self::Whole),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map_or(Self::Other("an unreadable number"), Self::Real),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Array(list) => Self::List(
                list.iter()
                    .map(|item| Self::of_toml(item.get_ref()))
                    .collect(),
            ),
            DeValue::Table(table) => Self::Table(
                table
                    .iter()
                    .map(|(name, item)| (name.get_ref().to_string(), Self::of_toml(item.get_ref())))
                    .collect(),
            ),
        }
    }

    /// Takes over the value of a variable.
    pub(super) fn of_environment(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with(['[', '{']) {
            return Ok(Self::Plain(text.to_owned()));
        }
        DeValue::parse(text.trim())
            .map(|value| Self::of_toml(value.get_ref()))
            .map_err(|error| format!("is no TOML value: {}", error.message()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Plain(_) | Self::Text(_) => "a string",
            Self::Whole(_) => "a whole number",
            Self::Real(_) => "a number with a fraction",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    fn instead_of<T>(&self, want: &str) -> Result<T, String> {
        Err(format!("want {want}, found {}", self.kind()))
    }

    /// A string.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Plain(text) | Self::Text(text) => Ok(text),
            Self::Whole(_)
            | Self::Real(_)
            | Self::Flag(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Other(_) => self.instead_of("a string"),
        }
    }

    /// A path.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        match self.text()? {
            "" => Err(String::from("is empty")),
            text => Ok(PathBuf::from(text)),
        }
    }

    /// A string that `T` reads.
    pub(super) fn parsed<T: FromStr>(&self, want: &str) -> Result<T, String> {
        let text = self.text()?.trim();
        text.parse().map_err(|_| format!("`{text}` is not {want}"))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?.trim();
        let known = words.iter().find(|(word, _)| *word == text);
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Result<bool, String> {
        match self {
            Self::Flag(flag) => Ok(*flag),
            Self::Plain(_) => self.parsed("`true` or `false`"),
            Self::Text(_)
            | Self::Whole(_)
            | Self::Real(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Other(_) => self.instead_of("true or false"),
        }
    }

    /// A whole number within a range.
    pub(super) fn whole(&self, range: &RangeInclusive<u64>) -> Result<u64, String> {
        let number = match self {
            Self::Whole(number) => u64::try_from(*number).map_err(|_| outside(number, range))?,
            Self::Plain(_) => self.parsed("a whole number")?,
            Self::Text(_)
            | Self::Real(_)
            | Self::Flag(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Other(_) => return self.instead_of("a whole number"),
        };
        within(number, range)
    }

    /// A number within a range.
    pub(super) fn real(&self, range: &RangeInclusive<f64>) -> Result<f64, String> {
        let number: f64 = match self {
            Self::Real(number) => *number,
            // Only 0 and 1 are of use here; both are exact.
            Self::Whole(number) => number.to_string().parse().unwrap_or(f64::NAN),
            Self::Plain(_) => self.parsed("a number")?,
            Self::Text(_) | Self::Flag(_) | Self::List(_) | Self::Table(_) | Self::Other(_) => {
                return self.instead_of("a number");
            }
        };
        within(number, range)
    }

    /// A duration with a unit.
    pub(super) fn time(&self, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
        let time = match self {
            Self::Whole(number) => duration::parse(&number.to_string())?,
            Self::Plain(_)
            | Self::Text(_)
            | Self::Real(_)
            | Self::Flag(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Other(_) => duration::parse(self.text()?)?,
        };
        if range.contains(&time) {
            return Ok(time);
        }
        let (least, most) = (duration::show(*range.start()), duration::show(*range.end()));
        Err(outside(
            &duration::show(time),
            &RangeInclusive::new(least, most),
        ))
    }

    /// A byte count with a unit.
    pub(super) fn size(&self, range: &RangeInclusive<ByteSize>) -> Result<ByteSize, String> {
        let size: ByteSize = match self {
            Self::Whole(number) => number.to_string().parse(),
            Self::Plain(_)
            | Self::Text(_)
            | Self::Real(_)
            | Self::Flag(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Other(_) => self.text()?.parse(),
        }
        .map_err(|error: crate::base::size::BadSize| error.to_string())?;
        within(size, range)
    }

    /// A list; the environment separates its items by commas.
    pub(super) fn list(&self) -> Result<Vec<Self>, String> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Plain(text) if text.trim().is_empty() => Ok(Vec::new()),
            Self::Plain(text) => Ok(text
                .split(',')
                .map(|item| Self::Plain(item.trim().to_owned()))
                .collect()),
            Self::Text(_)
            | Self::Whole(_)
            | Self::Real(_)
            | Self::Flag(_)
            | Self::Table(_)
            | Self::Other(_) => self.instead_of("a list"),
        }
    }

    /// A schedule's name, or its delays: durations or whole seconds.
    pub(super) fn schedule(&self) -> Result<Vec<Duration>, String> {
        if let Self::Plain(text) | Self::Text(text) = self {
            if let Some(delays) = RetryPlan::named(text.trim()) {
                return Ok(delays);
            }
            let starts_with_digit = text.trim().starts_with(|c: char| c.is_ascii_digit());
            if matches!(self, Self::Text(_)) || !(text.trim().is_empty() || starts_with_digit) {
                let names: Vec<_> = SCHEDULES.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "`{text}` is no schedule: write one of {} or a list of delays",
                    names.join(", ")
                ));
            }
        }
        let items = self.list()?;
        if items.len() > MAX_DELAYS {
            return Err(format!("has {} delays, at most {MAX_DELAYS}", items.len()));
        }
        items.iter().map(Self::delay).collect()
    }

    fn delay(&self) -> Result<Duration, String> {
        let seconds = match self {
            Self::Whole(number) => u64::try_from(*number).ok(),
            Self::Plain(text) => text.parse().ok(),
            Self::Text(_)
            | Self::Real(_)
            | Self::Flag(_)
            | Self::List(_)
            | Self::Table(_)
            | Self::Other(_) => None,
        };
        let text =
            seconds.map_or_else(|| self.text().map(str::to_owned), |n| Ok(format!("{n}s")))?;
        Self::Text(text).time(&(Duration::from_millis(1)..=MAX_DELAY))
    }

    /// A table as JSON.
    pub(super) fn json(&self) -> Result<Json, String> {
        Ok(match self {
            Self::Plain(text) | Self::Text(text) => Json::from(text.clone()),
            Self::Whole(number) => Json::from(*number),
            Self::Real(number) => Json::from(*number),
            Self::Flag(flag) => Json::from(*flag),
            Self::List(items) => items.iter().map(Self::json).collect::<Result<_, _>>()?,
            Self::Table(items) => items
                .iter()
                .map(|(name, item)| Ok((name.clone(), item.json()?)))
                .collect::<Result<_, String>>()?,
            Self::Other(_) => return self.instead_of("a string, number, list or table"),
        })
    }
}

/// The name of the schedule with exactly these delays.
pub(super) fn schedule_name(delays: &[Duration]) -> Option<&'static str> {
    let mut names = SCHEDULES.iter().map(|(name, _)| *name);
    names.find(|name| RetryPlan::named(name).as_deref() == Some(delays))
}

/// Entries of a schedule at most.
const MAX_DELAYS: usize = 50;
/// Longest delay of a schedule.
const MAX_DELAY: Duration = Duration::from_secs(30 * 86_400);

fn within<T: PartialOrd + Display>(value: T, range: &RangeInclusive<T>) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(outside(&value, range))
    }
}

fn outside<T: Display>(value: &impl Display, range: &RangeInclusive<T>) -> String {
    format!("{value} is outside {} to {}", range.start(), range.end())
}
