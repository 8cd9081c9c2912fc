//! What a source holds, as the engine wants it: secrets that are alive, settings, tolerance.

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::base::Timestamp;
use crate::model::{Secret, Source};
use crate::providers::Credentials;

pub(super) fn of(source: &Source, now: Timestamp) -> Credentials {
    let mut secrets = BTreeMap::new();
    for name in source.secrets.keys() {
        let alive = source.secrets_of(name, now).map(Secret::reveal);
        let alive: Vec<_> = alive.map(|text| Zeroizing::new(text.to_owned())).collect();
        if !alive.is_empty() {
            secrets.insert(name.clone(), alive);
        }
    }
    Credentials {
        secrets,
        config: source.settings.clone(),
        tolerance: source
            .tolerance_secs
            .map(|secs| Duration::from_secs(secs.into())),
        jwks: None,
    }
}
