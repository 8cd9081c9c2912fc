//! SIGHUP: configuration and certificates are read again; what can change while running does.
//!
//! Everything is read and checked before anything is exchanged, so a mistake leaves all of it as it
//! is. What was changed and takes a restart is named in one warning, again with each reload until
//! the restart. [`taken_over`] is the list of what can change; `docs/OPERATIONS.md` says the same.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::outgoing::Outgoing;
use crate::api::ApiState;
use crate::config::Config;
use crate::schedule;
use crate::server::{Tls, notify};
use crate::telemetry::logs::Logs;

/// Everything that a reload reaches.
pub(super) struct Reload {
    pub(super) reread: Box<dyn Fn() -> Result<Config, String> + Send + Sync>,
    /// What is in force: the configuration of the start with what was taken over since.
    pub(super) running: Mutex<Config>,
    pub(super) logs: Logs,
    pub(super) tls: Option<Tls>,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) api: Arc<ApiState>,
    pub(super) schedule: schedule::Handle,
}

impl Reload {
    /// Takes over what it can.
    pub(super) fn reload(&self) {
        notify::reloading();
        match self.try_reload() {
            Ok(Changes { applied, restart }) => {
                info!(changed = %applied.join(" "), "configuration and certificates read again");
                if !restart.is_empty() {
                    warn!(keys = %restart.join(" "), "changed, and in force only after a restart");
                }
            }
            Err(why) => error!(why, "not reloaded; the old configuration stays"),
        }
        notify::ready();
    }

    fn try_reload(&self) -> Result<Changes, String> {
        let new = (self.reread)()?;
        let mut running = self.running.lock();
        let next = taken_over(&running, &new);
        let changes = Changes {
            applied: running.changed_keys(&next),
            restart: next.changed_keys(&new),
        };
        let renewal = match &self.tls {
            // The files in force are read even if the new configuration switches TLS off.
            Some(tls) => tls.renew(&next.server).map_err(text)?,
            None => None,
        };
        let defaults = self.outgoing.defaults(&next.delivery).map_err(text)?;
        let schedule = self.schedule.defaults().map_err(text)?;
        // The last step that can fail is the first that changes something.
        self.logs.set_level(&next.log.level).map_err(text)?;
        if let Some(renewal) = renewal {
            renewal.adopt();
        }
        self.api.adopt(&next.delivery, defaults.rules.clone());
        self.outgoing.adopt(defaults);
        schedule(next.delivery.clone());
        *running = next;
        Ok(changes)
    }
}

/// Keys whose value is another one.
struct Changes {
    applied: Vec<String>,
    restart: Vec<String>,
}

/// `running` with everything of `new` that can change while running.
fn taken_over(running: &Config, new: &Config) -> Config {
    let mut next = running.clone();
    next.log.level.clone_from(&new.log.level);
    // Other files can be read; switching TLS on or off is a matter of the listeners.
    if running.server.tls_cert.is_some() == new.server.tls_cert.is_some() {
        next.server.tls_cert.clone_from(&new.server.tls_cert);
        next.server.tls_key.clone_from(&new.server.tls_key);
    }
    let (to, from) = (&mut next.delivery, &new.delivery);
    to.allow_networks.clone_from(&from.allow_networks);
    to.deny_ports.clone_from(&from.deny_ports);
    to.allow_http = from.allow_http;
    to.timeout = from.timeout;
    to.endpoint_concurrency = from.endpoint_concurrency;
    to.retry_schedule.clone_from(&from.retry_schedule);
    to.jitter = from.jitter;
    to.max_retry_after = from.max_retry_after;
    to.disable = from.disable;
    to.signature.clone_from(&from.signature);
    to.signature_presets.clone_from(&from.signature_presets);
    next
}

fn text(cause: impl std::fmt::Display) -> String {
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    /// Keys that a reload from `old` to `new` applies, and those that take a restart.
    fn reload(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
        let next = taken_over(old, new);
        (old.changed_keys(&next), next.changed_keys(new))
    }

    #[test]
    fn what_can_change_does_and_the_rest_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.log.level = String::from("debug");
        new.delivery.allow_networks = vec!["10.0.0.0/8".parse().unwrap()];
        new.delivery.deny_ports = vec![8080];
        new.delivery.allow_http = true;
        new.delivery.timeout = Duration::from_secs(7);
        new.delivery.signature = String::from("house");
        let preset = serde_json::json!({"kind": "dual"});
        new.delivery
            .signature_presets
            .insert(String::from("house"), preset);
        new.delivery.endpoint_concurrency += 1;
        new.delivery.retry_schedule = vec![Duration::from_secs(7)];
        new.delivery.jitter = 0.1;
        new.delivery.max_retry_after = Duration::from_secs(7);
        new.delivery.disable = crate::model::DisablePolicy::Never;
        new.delivery.max_in_flight += 1;
        new.storage.dir = PathBuf::from("elsewhere");
        new.server.max_connections += 1;
        let (applied, restart) = reload(&old, &new);
        assert_eq!(
            applied,
            [
                "delivery.allow_networks",
                "delivery.deny_ports",
                "delivery.allow_http",
                "delivery.timeout",
                "delivery.endpoint_concurrency",
                "delivery.retry_schedule",
                "delivery.jitter",
                "delivery.max_retry_after",
                "delivery.disable",
                "delivery.signature",
                "delivery.signature_presets",
                "log.level"
            ]
        );
        assert_eq!(
            restart,
            [
                "server.max_connections",
                "storage.dir",
                "delivery.max_in_flight"
            ]
        );
        // Named again until the restart; what was applied is not.
        let (again, still) = reload(&taken_over(&old, &new), &new);
        assert_eq!((again, still), (Vec::new(), restart));
    }

    #[test]
    fn other_tls_files_are_taken_over_but_tls_is_not_switched() {
        let with = |stem: &str| {
            let mut config = Config::default();
            config.server.tls_cert = Some(PathBuf::from(format!("{stem}.pem")));
            config.server.tls_key = Some(PathBuf::from(format!("{stem}.key")));
            config
        };
        let keys = ["server.tls_cert", "server.tls_key"].map(String::from);
        let (applied, restart) = reload(&with("a"), &with("b"));
        assert_eq!((applied, restart), (keys.to_vec(), Vec::new()));
        for (old, new) in [
            (with("a"), Config::default()),
            (Config::default(), with("a")),
        ] {
            assert_eq!(reload(&old, &new), (Vec::new(), keys.to_vec()));
        }
    }

    #[test]
    fn an_unchanged_configuration_changes_nothing() {
        let config = Config::default();
        assert_eq!(reload(&config, &config), (Vec::new(), Vec::new()));
    }
}
