//! `posthaste serve`: the gateway itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{complain, config, say};
use crate::app;
use crate::config::Config;
use crate::vault;

/// Runs the gateway; the answer is its exit code.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    let config = match config::load(file.as_deref()) {
        Ok(config) => config,
        Err(error) => return complain(&error, 78),
    };
    let runtime = match runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    let run = app::Run {
        admin_key: admin_key(),
        vault: vault_keys(&config),
        reread: Box::new(move || reread(file.as_deref())),
        say,
        config,
    };
    let ended = runtime.block_on(app::run(run));
    // Attempts that were cut off must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => complain(&error, error.code()),
    }
}

fn reread(file: Option<&Path>) -> Result<Config, String> {
    config::load(file).map_err(|error| error.to_string())
}

fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.worker_threads > 0 {
        builder.worker_threads(config.server.worker_threads);
    }
    builder.enable_all().build()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line reads the environment"
)]
pub(super) fn admin_key() -> Option<String> {
    std::env::var("POSTHASTE_ADMIN_KEY").ok()
}

/// Where the master keys of the vault may be.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line reads the environment"
)]
pub(super) fn vault_keys(config: &Config) -> vault::Given {
    let beside = || vault::Given::beside(&config.storage.dir);
    vault::Given {
        variable: std::env::var("POSTHASTE_VAULT_KEY").ok().map(Into::into),
        credentials: std::env::var("CREDENTIALS_DIRECTORY")
            .ok()
            .map(PathBuf::from),
        file: config.vault.key_file.clone().unwrap_or_else(beside),
    }
}
