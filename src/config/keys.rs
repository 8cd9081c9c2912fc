//! Every key: where it lives, what it takes, and which range it has.
//!
//! One table serves file, environment, printed result, documentation and suggestions for mistyped names.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::duration;
use super::sections::{Config, HighWater, LogFormat};
use super::value::{Raw, schedule_name};
use crate::base::ByteSize;
use crate::model::DisablePolicy;
use crate::policy::own::PublicUrl;
use crate::policy::retry::SCHEDULES;

/// A configuration under way: the policy for failing endpoints is still in its single keys.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) disable: DisableWord,
    pub(super) disable_after: Duration,
    pub(super) disable_span: Duration,
    pub(super) disable_failures: u64,
}

/// The value of `delivery.disable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DisableWord {
    Duration,
    Consecutive,
    Never,
}

impl Draft {
    /// The draft that leads to `config`; numbers of policies that it does not use are defaults.
    pub(super) fn of(config: &Config) -> Self {
        let mut draft = Self {
            config: config.clone(),
            disable: DisableWord::Never,
            disable_after: Duration::from_secs(5 * 86_400),
            disable_span: Duration::from_secs(12 * 3600),
            disable_failures: 10,
        };
        match config.delivery.disable {
            DisablePolicy::Duration {
                failing_secs,
                span_secs,
            } => {
                draft.disable = DisableWord::Duration;
                draft.disable_after = Duration::from_secs(failing_secs);
                draft.disable_span = Duration::from_secs(span_secs);
            }
            DisablePolicy::Consecutive { failures } => {
                draft.disable = DisableWord::Consecutive;
                draft.disable_failures = u64::from(failures);
            }
            DisablePolicy::Never => {}
        }
        draft
    }

    /// Puts the policy together.
    pub(super) fn finish(self) -> Config {
        let mut config = self.config;
        config.delivery.disable = match self.disable {
            DisableWord::Duration => DisablePolicy::Duration {
                failing_secs: self.disable_after.as_secs(),
                span_secs: self.disable_span.as_secs(),
            },
            DisableWord::Consecutive => DisablePolicy::Consecutive {
                failures: u32::try_from(self.disable_failures).unwrap_or(u32::MAX),
            },
            DisableWord::Never => DisablePolicy::Never,
        };
        config
    }
}

type Get<T> = fn(&mut Draft) -> &mut T;

/// What a key takes, and where it is kept.
pub(super) enum Slot {
    Address(Get<SocketAddr>),
    OptionalAddress(Get<Option<SocketAddr>>),
    Path(Get<PathBuf>),
    OptionalPath(Get<Option<PathBuf>>),
    Count(Get<usize>, RangeInclusive<u64>),
    Number(Get<u64>, RangeInclusive<u64>),
    Small(Get<u16>, RangeInclusive<u64>),
    Share(Get<f64>, RangeInclusive<f64>),
    Time(Get<Duration>, RangeInclusive<Duration>),
    Size(Get<ByteSize>, RangeInclusive<ByteSize>),
    Flag(Get<bool>),
    Text(Get<String>),
    Networks(Get<Vec<IpNet>>),
    Urls(Get<Vec<PublicUrl>>),
    Ports(Get<Vec<u16>>),
    Names(Get<Vec<String>>),
    Schedule(Get<Vec<Duration>>),
    HighWater(Get<HighWater>),
    LogFormat(Get<LogFormat>),
    Disable(Get<DisableWord>),
    Presets,
}

const HIGH_WATER: &[(&str, HighWater)] = &[
    ("interval", HighWater::Interval),
    ("every-commit", HighWater::EveryCommit),
];
const LOG_FORMAT: &[(&str, LogFormat)] = &[("human", LogFormat::Human), ("json", LogFormat::Json)];
const DISABLE: &[(&str, DisableWord)] = &[
    ("duration", DisableWord::Duration),
    ("consecutive", DisableWord::Consecutive),
    ("never", DisableWord::Never),
];

/// One key of one section.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) slot: Slot,
}

impl Key {
    /// `section.name`
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `POSTHASTE__SECTION__NAME`
    pub(super) fn variable(&self) -> String {
        format!("POSTHASTE__{}__{}", self.section, self.name).to_uppercase()
    }

    /// Reads `raw` into the draft. The error says what is wrong with the value.
    pub(super) fn set(&self, draft: &mut Draft, raw: &Raw) -> Result<(), String> {
        let unset = matches!(raw, Raw::Plain(text) if text.trim().is_empty());
        match &self.slot {
            Slot::Address(at) => *at(draft) = raw.parsed(ADDRESS)?,
            Slot::OptionalAddress(at) if unset => *at(draft) = None,
            Slot::OptionalAddress(at) => *at(draft) = Some(raw.parsed(ADDRESS)?),
            Slot::Path(at) => *at(draft) = raw.path()?,
            Slot::OptionalPath(at) if unset => *at(draft) = None,
            Slot::OptionalPath(at) => *at(draft) = Some(raw.path()?),
            Slot::Count(at, range) => {
                *at(draft) = usize::try_from(raw.whole(range)?).unwrap_or(usize::MAX);
            }
            Slot::Number(at, range) => *at(draft) = raw.whole(range)?,
            Slot::Small(at, range) => {
                *at(draft) = u16::try_from(raw.whole(range)?).unwrap_or(u16::MAX);
            }
            Slot::Share(at, range) => *at(draft) = raw.real(range)?,
            Slot::Time(at, range) => *at(draft) = raw.time(range)?,
            Slot::Size(at, range) => *at(draft) = raw.size(range)?,
            Slot::Flag(at) => *at(draft) = raw.flag()?,
            Slot::Text(at) => raw.text()?.trim().clone_into(at(draft)),
            Slot::Networks(at) => {
                let one = |item: &Raw| item.parsed("a network such as 10.0.0.0/8");
                *at(draft) = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
            }
            Slot::Urls(at) => {
                let one = |item: &Raw| item.parsed("a URL such as https://hooks.example.com");
                *at(draft) = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
            }
            Slot::Ports(at) => {
                let one = |item: &Raw| item.whole(&(1..=65_535));
                let ports: Vec<u64> = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
                *at(draft) = ports
                    .into_iter()
                    .filter_map(|n| n.try_into().ok())
                    .collect();
            }
            Slot::Names(at) => {
                let one = |item: &Raw| item.text().map(str::to_owned);
                *at(draft) = raw.list()?.iter().map(one).collect::<Result<_, _>>()?;
            }
            Slot::Schedule(at) => *at(draft) = raw.schedule()?,
            Slot::HighWater(at) => *at(draft) = raw.word(HIGH_WATER)?,
            Slot::LogFormat(at) => *at(draft) = raw.word(LOG_FORMAT)?,
            Slot::Disable(at) => *at(draft) = raw.word(DISABLE)?,
            Slot::Presets => {
                let serde_json::Value::Object(presets) = raw.json()? else {
                    return Err(String::from("want a table of named profiles"));
                };
                draft.config.delivery.signature_presets = presets.into_iter().collect();
            }
        }
        Ok(())
    }

    /// The value as TOML; `None` = not set.
    pub(super) fn show(&self, draft: &Draft) -> Option<String> {
        let draft = &mut draft.clone();
        Some(match &self.slot {
            Slot::Address(at) => quoted(*at(draft)),
            Slot::OptionalAddress(at) => quoted((*at(draft))?),
            Slot::Path(at) => quoted(at(draft).display()),
            Slot::OptionalPath(at) => quoted(at(draft).as_ref()?.display()),
            Slot::Count(at, _) => at(draft).to_string(),
            Slot::Number(at, _) => at(draft).to_string(),
            Slot::Small(at, _) => at(draft).to_string(),
            Slot::Share(at, _) => format!("{:?}", at(draft)),
            Slot::Time(at, _) => quoted(duration::show(*at(draft))),
            Slot::Size(at, _) => quoted(*at(draft)),
            Slot::Flag(at) => at(draft).to_string(),
            Slot::Text(at) => quoted(&*at(draft)),
            Slot::Networks(at) => listed(at(draft).iter().map(quoted)),
            Slot::Urls(at) => listed(at(draft).iter().map(quoted)),
            Slot::Ports(at) => listed(at(draft).iter().map(ToString::to_string)),
            Slot::Names(at) => listed(at(draft).iter().map(quoted)),
            Slot::Schedule(at) => {
                let delays = at(draft);
                schedule_name(delays).map_or_else(
                    || listed(delays.iter().map(|delay| quoted(duration::show(*delay)))),
                    quoted,
                )
            }
            Slot::HighWater(at) => quoted(name_in(HIGH_WATER, *at(draft))),
            Slot::LogFormat(at) => quoted(name_in(LOG_FORMAT, *at(draft))),
            Slot::Disable(at) => quoted(name_in(DISABLE, *at(draft))),
            Slot::Presets => return None, // tables, shown behind their section
        })
    }

    /// What it takes, in words, for the documentation.
    pub(super) fn takes(&self) -> String {
        match &self.slot {
            Slot::Address(_) => String::from(ADDRESS),
            Slot::OptionalAddress(_) => format!("{ADDRESS}, or absent"),
            Slot::Path(_) => String::from("a path"),
            Slot::OptionalPath(_) => String::from("a path, or absent"),
            Slot::Count(_, range) | Slot::Number(_, range) | Slot::Small(_, range) => {
                format!("{} to {}", range.start(), range.end())
            }
            Slot::Share(_, range) => format!("{:?} to {:?}", range.start(), range.end()),
            Slot::Time(_, range) => format!(
                "{} to {}",
                duration::show(*range.start()),
                duration::show(*range.end())
            ),
            Slot::Size(_, range) => format!("{} to {}", range.start(), range.end()),
            Slot::Flag(_) => String::from("true, false"),
            Slot::Text(_) => String::from("text"),
            Slot::Networks(_) => String::from("a list of networks"),
            Slot::Urls(_) => String::from("a list of URLs"),
            Slot::Ports(_) => String::from("a list of ports"),
            Slot::Names(_) => String::from("a list of names"),
            Slot::Schedule(_) => {
                let names: Vec<_> = SCHEDULES.iter().map(|(name, _)| *name).collect();
                format!("{}, or a list of delays", names.join(", "))
            }
            Slot::HighWater(_) => words(HIGH_WATER),
            Slot::LogFormat(_) => words(LOG_FORMAT),
            Slot::Disable(_) => words(DISABLE),
            Slot::Presets => String::from("tables of signature profiles"),
        }
    }
}

const ADDRESS: &str = "an address with port such as 127.0.0.1:8071";

fn quoted(text: impl std::fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn listed(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn words<T>(words: &[(&str, T)]) -> String {
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    names.join(", ")
}

fn name_in<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let known = words.iter().find(|(_, meaning)| *meaning == value);
    known.map_or("", |(word, _)| word)
}
