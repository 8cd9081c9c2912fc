//! From text and variables to a checked configuration.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check;
use super::keys::{Draft, Key};
use super::mistakes::{Mistake, Mistakes, Place};
use super::sections::Config;
use super::suggest;
use super::table::{self, KEYS};
use super::value::Raw;

/// What every variable of ours starts with.
const PREFIX: &str = "POSTHASTE__";

impl Config {
    /// Reads `file` (its name for messages, and its text), then the variables among `environment`
    /// that begin with `POSTHASTE__`, which win. Other variables are none of ours.
    ///
    /// # Errors
    /// All mistakes at once, each with its line or variable: unreadable TOML, unknown sections, keys
    /// and variables, values of a wrong type or outside their range, keys that contradict each other.
    pub fn load(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        let mut load = Load {
            draft: Draft::of(&Self::default()),
            origins: BTreeMap::new(),
            mistakes: Vec::new(),
        };
        if let Some((name, text)) = file {
            load.file(name, text);
        }
        // Sorted, so that two runs report alike.
        let sorted: BTreeMap<String, String> = environment.into_iter().collect();
        for (name, value) in sorted {
            load.variable(&name, &value);
        }
        load.finish()
    }
}

/// Where each key was set, and whether well.
pub(super) type Origins = BTreeMap<String, Origin>;

/// What is known of a key that was set.
pub(super) struct Origin {
    pub(super) place: Place,
    /// False if its value was refused, so that nothing is concluded from it.
    pub(super) good: bool,
}

struct Load {
    draft: Draft,
    origins: Origins,
    mistakes: Vec<Mistake>,
}

impl Load {
    fn file(&mut self, name: &str, text: &str) {
        let place = |at: usize| Place::File {
            name: name.to_owned(),
            line: line_of(text, at),
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(place(at), format!("not TOML: {}", error.message()));
        }
        for (section, value) in root.get_ref() {
            let place_of_section = place(section.span().start);
            let Some(known) = table::sections()
                .into_iter()
                .find(|k| k == section.get_ref())
            else {
                let hint = hint(section.get_ref(), table::sections());
                self.wrong(
                    place_of_section,
                    format!("unknown section [{}]{hint}", section.get_ref()),
                );
                continue;
            };
            let DeValue::Table(table) = value.get_ref() else {
                self.wrong(
                    place_of_section,
                    format!("{known} is a section: write [{known}]"),
                );
                continue;
            };
            self.section(known, table, &place);
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) {
        let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let place = place(name.span().start);
            let name: &str = name.get_ref();
            if let Some(key) = table::find(section, name) {
                self.set(key, place, Ok(Raw::of_toml(value.get_ref())));
                continue;
            }
            let near = hint(
                name,
                KEYS.iter().filter(|k| k.section == section).map(|k| k.name),
            );
            let hint = if near.is_empty() {
                elsewhere(name)
            } else {
                near
            };
            self.wrong(place, format!("unknown key {section}.{name}{hint}"));
        }
    }

    fn variable(&mut self, name: &str, value: &str) {
        let known = KEYS.iter().find(|key| key.variable() == name);
        let place = Place::Environment(name.to_owned());
        if let Some(key) = known {
            self.set(key, place, Raw::of_environment(value));
        } else if is_meant_for_us(name) {
            let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
            let hint = hint(name, variables.iter().map(String::as_str));
            self.wrong(place, format!("unknown variable{hint}"));
        }
    }

    fn set(&mut self, key: &Key, place: Place, raw: Result<Raw, String>) {
        let done = raw.and_then(|raw| key.set(&mut self.draft, &raw));
        let origin = Origin {
            place: place.clone(),
            good: done.is_ok(),
        };
        self.origins.insert(key.path(), origin);
        if let Err(why) = done {
            self.wrong(place, format!("{}: {why}", key.path()));
        }
    }

    fn wrong(&mut self, place: Place, what: String) {
        self.mistakes.push(Mistake { place, what });
    }

    fn finish(mut self) -> Result<Config, Mistakes> {
        if !self.origins.contains_key("retention.attempts") {
            // Whoever says only how long messages stay means their attempts as well.
            let retention = &mut self.draft.config.retention;
            retention.attempts = retention.attempts.max(retention.messages);
        }
        let config = self.draft.clone().finish();
        check::related(&config, &self.draft, &self.origins, &mut self.mistakes);
        if self.mistakes.is_empty() {
            return Ok(config);
        }
        self.mistakes.sort();
        Err(Mistakes(self.mistakes))
    }
}

/// Ours by prefix, or so near to it that it must be a slip of the pen.
fn is_meant_for_us(name: &str) -> bool {
    let upper = name.to_uppercase();
    upper.starts_with(PREFIX)
        || (upper.starts_with("POSTHASTE_") && upper.matches("__").count() == 1)
}

fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    suggest::closest(word, candidates)
        .map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// A key of this very name in another section.
fn elsewhere(name: &str) -> String {
    KEYS.iter()
        .find(|key| key.name == name)
        .map_or_else(String::new, |key| {
            format!("; it belongs in [{}]", key.section)
        })
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
