//! The configuration as text: what `config check --effective` prints, and the list of keys.

use std::fmt::Write;

use super::keys::{self, Draft};
use super::sections::Config;
use super::table::{self, KEYS};

/// A key as the documentation shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// `section.name`
    pub path: String,
    /// The variable that sets it.
    pub variable: String,
    /// Its default as TOML; `None` = not set.
    pub default: Option<String>,
    /// What it takes: range or words.
    pub takes: String,
}

impl Config {
    /// Every key with default and range, in the order of `config/default.toml`.
    pub fn keys() -> Vec<KeyInfo> {
        let draft = Draft::of(&Self::default());
        let info = |key: &keys::Key| KeyInfo {
            path: key.path(),
            variable: key.variable(),
            default: key.show(&draft),
            takes: key.takes(),
        };
        KEYS.iter().map(info).collect()
    }

    /// This configuration as a TOML file that loads to an equal one.
    pub fn effective_toml(&self) -> String {
        let draft = Draft::of(self);
        let mut out = String::new();
        for section in table::sections() {
            let blank = if out.is_empty() { "" } else { "\n" };
            push(&mut out, format_args!("{blank}[{section}]\n"));
            for key in KEYS.iter().filter(|key| key.section == section) {
                match key.show(&draft) {
                    Some(value) => push(&mut out, format_args!("{} = {value}\n", key.name)),
                    None if key.name == "signature_presets" => {}
                    None => push(&mut out, format_args!("# {} is not set\n", key.name)),
                }
            }
            if section == "delivery" {
                self.push_presets(&mut out);
            }
        }
        out
    }

    /// The keys whose value differs in `other`, as `section.name`, in the order of [`Config::keys`].
    pub fn changed_keys(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (Draft::of(self), Draft::of(other));
        let presets = self.delivery.signature_presets != other.delivery.signature_presets;
        KEYS.iter()
            .filter(|key| match key.slot {
                keys::Slot::Presets => presets, // tables, which have no one-line form
                _ => key.show(&ours) != key.show(&theirs),
            })
            .map(keys::Key::path)
            .collect()
    }

    fn push_presets(&self, out: &mut String) {
        for (name, preset) in &self.delivery.signature_presets {
            let name = toml::Value::String(name.clone());
            push(out, format_args!("\n[delivery.signature_presets.{name}]\n"));
            for (field, value) in preset.as_object().into_iter().flatten() {
                // A profile holds strings and booleans only, and those read alike in TOML.
                push(out, format_args!("{field} = {value}\n"));
            }
        }
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    if out.write_fmt(text).is_err() {}
}
