//! `posthaste config check [--effective]`, and how every sub-command gets its configuration.
//!
//! The one place that reads the configuration file and the environment for it; the rules are in
//! [`crate::config`]. Mistakes go to standard error in one report, and the exit code is 78: a
//! service manager should not try again.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::serve;
use crate::app::{self, BadAdminKey};
use crate::config::{Config, Mistakes};

/// The sub-commands of `posthaste config`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConfigCommand {
    /// Checks the configuration and reports all mistakes.
    Check {
        /// Prints what results from defaults, file and environment.
        #[arg(long)]
        effective: bool,
    },
}

/// There is no usable configuration. Exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{} cannot be read: {cause}", .path.display())]
    Unreadable {
        /// The file named on the command line.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// It can be read, and is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// The configuration is good, the admin key of the environment is not.
    #[error(transparent)]
    AdminKey(#[from] BadAdminKey),
    /// The result cannot be printed.
    #[error("writing the result failed: {0}")]
    Output(std::io::Error),
}

/// Defaults, then `file` if one is named, then the environment; checked.
///
/// # Errors
/// The file cannot be read, or anything in file or environment is wrong.
pub fn load(file: Option<&Path>) -> Result<Config, Error> {
    let text = file.map(read).transpose()?;
    let named = file.map(|path| path.display().to_string());
    let both = named.as_deref().zip(text.as_deref());
    // A variable that is no text is none of ours; `vars()` would panic on it.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Config::load(both, variables)?)
}

/// Runs the sub-command: checks, and prints to `out`.
///
/// # Errors
/// As [`load`], the admin key is not taken, or `out` fails.
pub fn run(command: &ConfigCommand, file: Option<&Path>, out: &mut dyn Write) -> Result<(), Error> {
    let ConfigCommand::Check { effective } = command;
    let config = load(file)?;
    if let Some(key) = serve::admin_key() {
        app::check_admin_key(&key)?;
    }
    let text = if *effective {
        config.effective_toml()
    } else {
        String::from("the configuration is good\n")
    };
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|cause| Error::Unreadable {
        path: path.to_owned(),
        cause,
    })
}
