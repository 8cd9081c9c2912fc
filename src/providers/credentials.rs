//! What a source holds for the check of its requests: secrets, settings, tolerance, key set.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use zeroize::Zeroizing;

use super::jwks::Jwks;
use super::manifest::Manifest;

/// What a source may set as tolerance for timestamps (SW15).
pub const TOLERANCE: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(900);

/// Secrets of one name at most; during a rotation two are enough.
const MAX_VALUES: usize = 10;

/// Characters of one secret at most.
const MAX_SECRET: usize = 8192;

/// Secrets and settings of one source. `Debug` prints names and counts, never a value.
#[derive(Clone, Default)]
pub struct Credentials {
    /// By name; several values of a name are a rotation under way, the newest first. Any of them may
    /// verify, the first answers handshakes.
    pub secrets: BTreeMap<String, Vec<Zeroizing<String>>>,
    /// Values for `{config.x}` of the manifest.
    pub config: BTreeMap<String, String>,
    /// Replaces the manifest's tolerance; within [`TOLERANCE`].
    pub tolerance: Option<Duration>,
    /// The provider's key set, for schemes that have one ([`Manifest::jwks_url`]). Who fetches it also
    /// caches it.
    pub jwks: Option<Arc<Jwks>>,
}

impl Credentials {
    /// Adds a value for the secret `name`, older than those that are there.
    #[must_use]
    pub fn with_secret(mut self, name: &str, value: &str) -> Self {
        let values = self.secrets.entry(name.to_owned()).or_default();
        values.push(Zeroizing::new(value.to_owned()));
        self
    }

    /// Sets a value for `{config.name}`.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.config.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Checks all of it against the manifest, for the moment when a source is saved: a secret that
    /// does not decode is refused here and not at the first delivery.
    ///
    /// # Errors
    /// Everything that is missing, not known to the manifest, or not usable. No text holds a secret.
    pub fn check(&self, manifest: &Manifest) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        let names = manifest.credentials();
        for name in &names {
            let absent = self.values(name).is_empty();
            if absent && manifest.delivered_secret() != Some(name) {
                wrong.push(format!("{}: the secret {name} is missing", manifest.id()));
            }
        }
        for (name, values) in &self.secrets {
            if !names.contains(&name.as_str()) {
                wrong.push(format!("{} has no secret {name}", manifest.id()));
            } else if let Some(why) = self.bad_values(values, manifest) {
                wrong.push(format!("{name}: {why}"));
            }
        }
        self.check_settings(manifest, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The values of the secret `name`, newest first.
    pub(super) fn values(&self, name: &str) -> &[Zeroizing<String>] {
        self.secrets.get(name).map_or(&[], Vec::as_slice)
    }

    /// The keys of the secret `name`; values that do not decode are left out, they were refused when
    /// the source was saved.
    pub(super) fn keys<T>(
        &self,
        name: &str,
        decode: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Vec<T> {
        let values = self.values(name).iter().take(MAX_VALUES);
        values.filter_map(|value| decode(value).ok()).collect()
    }

    fn bad_values(&self, values: &[Zeroizing<String>], manifest: &Manifest) -> Option<String> {
        if values.len() > MAX_VALUES {
            return Some(format!("at most {MAX_VALUES} values"));
        }
        let scheme = manifest.scheme()?;
        values.iter().find_map(|value| {
            if value.is_empty() {
                return Some(String::from("an empty secret protects nothing"));
            }
            if value.len() > MAX_SECRET {
                return Some(format!("at most {MAX_SECRET} characters"));
            }
            scheme.check_secret(value).err().map(str::to_owned)
        })
    }

    fn check_settings(&self, manifest: &Manifest, wrong: &mut Vec<String>) {
        let names = manifest.settings();
        for name in &names {
            if self.config.get(*name).is_none_or(String::is_empty) {
                wrong.push(format!("{}: the setting {name} is missing", manifest.id()));
            }
        }
        for (name, value) in &self.config {
            if !names.contains(&name.as_str()) {
                wrong.push(format!("{} has no setting {name}", manifest.id()));
            } else if manifest.is_header_setting(name) && HeaderName::try_from(value).is_err() {
                wrong.push(format!("{name}: want the name of a header"));
            }
        }
        let Some(tolerance) = self.tolerance else {
            return;
        };
        if !TOLERANCE.contains(&tolerance) {
            let (least, most) = (TOLERANCE.start().as_secs(), TOLERANCE.end().as_secs());
            wrong.push(format!("tolerance: want {least} to {most} seconds"));
        }
        if !manifest.has_timestamp() {
            wrong.push(format!("tolerance: {} signs no timestamp", manifest.id()));
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: BTreeMap<_, _> = self.secrets.iter().map(|(n, v)| (n, v.len())).collect();
        f.debug_struct("Credentials")
            .field("secrets", &counts)
            .field("config", &self.config.keys())
            .field("tolerance", &self.tolerance)
            .field("jwks", &self.jwks.is_some())
            .finish()
    }
}
