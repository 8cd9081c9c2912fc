//! `posthaste vault status|rotate|new-key`: the keys that secrets in the store are sealed under.
//!
//! A running gateway is asked over its API, because the store belongs to one process; a stopped one's
//! directory is opened here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::{Value, json};

use super::http::Api;
use super::{complain, config, in_runtime, offline, say, serve};
use crate::config::Config;
use crate::directory::Snapshot;
use crate::store::fjall as embedded;
use crate::vault::MasterKey;

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum VaultCommand {
    /// Says how many data keys each master key wraps, and how many rows are still in the clear.
    Status(Ask),
    /// Wraps all data keys by the primary master key (the first of those given) and seals what is in the
    /// clear. Afterwards the other master keys are not needed any more.
    Rotate {
        /// Gives every application a new data key as well, and seals all its secrets under it.
        #[arg(long)]
        data_keys: bool,
        /// Whom to ask.
        #[command(flatten)]
        ask: Ask,
    },
    /// Prints a new master key, for the first line of the key file.
    NewKey,
}

/// Whom to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Ask {
    /// Where the running gateway's API listens, if it is not `server.listen`.
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<SocketAddr>,
}

/// `posthaste vault`: 78 if the stopped store would not start (a missing master key, say), 1 for
/// everything else that fails.
pub(super) fn run(command: &VaultCommand, file: Option<&Path>) -> ExitCode {
    let (ask, rotate) = match command {
        VaultCommand::NewKey => return new_key(),
        VaultCommand::Status(ask) => (ask, None),
        VaultCommand::Rotate { data_keys, ask } => (ask, Some(*data_keys)),
    };
    let config = match config::load(file) {
        Ok(config) => config,
        Err(error) => return complain(&error, 78),
    };
    let dir = &config.storage.dir;
    if !dir.is_dir() {
        say(&format!("there is no store in {}", dir.display()));
        return ExitCode::from(78);
    }
    if embedded::in_use(dir) {
        return in_runtime(over_api(ask.clone(), config, rotate));
    }
    in_runtime(offline::opened(config, async move |directory, _| {
        let mut lines = Vec::new();
        if let Some(data_keys) = rotate {
            let done = directory.rotate(data_keys).await?;
            lines.push(rotated(done.wrapped, done.made, done.sealed));
        }
        lines.push(status(&directory.snapshot()));
        Ok(lines.join("\n"))
    }))
}

fn new_key() -> ExitCode {
    let mut bytes = [0; 32];
    if let Err(error) = SysRng.try_fill_bytes(&mut bytes) {
        return complain(&error, 1);
    }
    say(&MasterKey::new(bytes).text());
    ExitCode::SUCCESS
}

fn rotated(
    wrapped: impl std::fmt::Display,
    made: impl std::fmt::Display,
    sealed: impl std::fmt::Display,
) -> String {
    format!("{wrapped} data keys wrapped again, {made} made, {sealed} rows sealed")
}

fn status(snapshot: &Snapshot) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for (_, master) in snapshot.keyring().keys() {
        *counts.entry(master).or_insert(0_usize) += 1;
    }
    let lines = counts
        .into_iter()
        .map(|(id, count)| format!("master key {id} wraps {count} data keys"));
    let clear = format!("{} rows are in the clear", snapshot.in_the_clear());
    lines.chain([clear]).collect::<Vec<_>>().join("\n")
}

async fn over_api(ask: Ask, config: Config, rotate: Option<bool>) -> anyhow::Result<ExitCode> {
    let address = ask.gateway.unwrap_or(config.server.listen);
    if config.server.tls_cert.is_some() {
        bail!(
            "the gateway speaks TLS, which this command does not; ask it yourself: \
             GET /api/v1/admin/vault, POST /api/v1/admin/vault/rotate {{\"dataKeys\": false}}"
        );
    }
    let key = serve::admin_key()
        .context("the gateway is running: its admin key is wanted in POSTHASTE_ADMIN_KEY")?;
    let api = Api::new(address, key);
    let number = |answer: &Value, name: &str| answer.get(name).cloned().unwrap_or_default();
    if let Some(data_keys) = rotate {
        let body = json!({ "dataKeys": data_keys });
        let path = "/api/v1/admin/vault/rotate";
        let done = api.must("POST", path, Some(&body), 200).await?;
        say(&rotated(
            number(&done, "wrapped"),
            number(&done, "made"),
            number(&done, "sealed"),
        ));
    }
    let state = api.must("GET", "/api/v1/admin/vault", None, 200).await?;
    for key in state
        .get("masterKeys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let id = key.get("id").and_then(Value::as_str).unwrap_or_default();
        say(&format!(
            "master key {id} wraps {} data keys",
            number(key, "dataKeys")
        ));
    }
    say(&format!(
        "{} rows are in the clear",
        number(&state, "clear")
    ));
    Ok(ExitCode::SUCCESS)
}
