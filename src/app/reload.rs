//! SIGHUP: configuration and certificates are read again; what can change while running does.

use std::sync::Arc;

use tracing::{error, info};

use super::outgoing::Outgoing;
use crate::config::Config;
use crate::server::{Tls, notify};
use crate::telemetry::logs::Logs;

/// What can be changed while running: log level, certificates, the address rules, the default
/// signature profile and time-out. Everything else takes a restart.
pub(super) struct Reload {
    pub(super) reread: Box<dyn Fn() -> Result<Config, String> + Send + Sync>,
    pub(super) logs: Logs,
    pub(super) tls: Option<Tls>,
    pub(super) outgoing: Arc<Outgoing>,
}

impl Reload {
    /// Takes over what it can. A mistake leaves everything as it is.
    pub(super) fn reload(&self) {
        notify::reloading();
        match self.try_reload() {
            Ok(()) => info!("configuration and certificates read again"),
            Err(why) => error!(why, "not reloaded; the old configuration stays"),
        }
        notify::ready();
    }

    fn try_reload(&self) -> Result<(), String> {
        let config = (self.reread)()?;
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|cause| cause.to_string())?;
        }
        self.outgoing
            .reload(&config.delivery)
            .map_err(|cause| cause.to_string())?;
        self.logs
            .set_level(&config.log.level)
            .map_err(|cause| cause.to_string())
    }
}
