//! The command line: one file per sub-command.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod backup;
pub mod config;
pub mod demo;
pub mod http;
pub mod keys;
pub mod offline;
pub mod providers;
pub mod serve;
pub mod sink;
pub mod vault;
pub mod verdict;

/// Webhook delivery gateway.
#[derive(Debug, Parser)]
#[command(name = "posthaste", version, about)]
pub struct Cli {
    /// Configuration file (TOML). Environment variables POSTHASTE__SECTION__KEY win over it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway (the default).
    Serve,
    /// Shows the gateway at work: healthy, flaky and dead endpoints, in a temporary directory.
    Demo(demo::Args),
    /// A test receiver that judges signatures.
    Sink(sink::Args),
    /// Looks at the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Checks and lists the manifests of providers whose webhooks are received.
    #[command(subcommand)]
    Providers(providers::ProvidersCommand),
    /// Makes, lists and revokes API keys in the data directory of a stopped gateway.
    Keys(keys::KeysArgs),
    /// The keys that secrets in the store are sealed under: look at them, rotate them, make one.
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Copies the store, of the running gateway (with its admin key) or of a stopped one.
    Backup(backup::BackupArgs),
    /// Makes a data directory from a backup, after checking all of it.
    Restore(backup::RestoreArgs),
    /// Checks every record of the data directory of a stopped gateway, or every file of a backup.
    Verify(offline::VerifyArgs),
    /// Accepts the loss that a refused start has named, after the data was copied aside.
    AcceptLoss(offline::LossArgs),
}

impl Cli {
    /// Does what was asked; answers the exit code.
    pub fn run(self) -> ExitCode {
        let file = self.config.as_deref();
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(self.config.clone()),
            Command::Demo(args) => in_runtime(demo::run(args)),
            Command::Sink(args) => in_runtime(sink::run(args)),
            Command::Config(command) => {
                match config::run(&command, file, &mut std::io::stdout().lock()) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => complain(&error, 78),
                }
            }
            Command::Providers(command) => {
                match providers::run(&command, file, &mut std::io::stdout().lock()) {
                    Ok(code) => code,
                    Err(error) => complain(&error, 78),
                }
            }
            Command::Keys(args) => match config::load(file) {
                Ok(config) => in_runtime(offline::keys(args, config)),
                Err(error) => complain(&error, 78),
            },
            Command::Vault(command) => vault::run(&command, file),
            Command::Backup(args) => backup::backup(args, file),
            Command::Restore(args) => backup::restore(&args),
            Command::Verify(args) => offline::verify(args, file),
            Command::AcceptLoss(args) => offline::accept_loss(&args, file),
        }
    }
}

/// Runs a sub-command that needs the async runtime.
fn in_runtime(body: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(body))
    {
        Ok(code) => code,
        Err(error) => complain(AsRef::<dyn std::error::Error>::as_ref(&error), 1),
    }
}

/// Tells the person what went wrong, with all causes; answers the exit code.
fn complain(error: &(dyn std::error::Error + 'static), code: u8) -> ExitCode {
    let mut text = format!("posthaste: {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    match writeln!(std::io::stderr(), "{text}") {
        Ok(()) | Err(_) => ExitCode::from(code), // if nobody listens, the code still tells
    }
}

/// Prints a line for the person at the terminal.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {} // nobody listens
}
