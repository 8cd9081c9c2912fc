//! `posthaste providers check DIR` and `posthaste providers list`: manifests before they are used.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::config;
use crate::providers::{Catalogue, Manifest, Mistake};

/// The sub-commands of `posthaste providers`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ProvidersCommand {
    /// Checks a directory of manifests and reports all mistakes with file and line.
    Check {
        /// The directory, as `providers.manifests` would name it.
        dir: PathBuf,
    },
    /// Lists all providers: how they sign, and what is covered.
    List,
}

/// Runs the sub-command; the exit code is 78 if a manifest is wrong.
///
/// # Errors
/// The configuration is wrong (it names the directory for `list`), or `out` fails.
pub fn run(
    command: &ProvidersCommand,
    file: Option<&Path>,
    out: &mut dyn Write,
) -> Result<ExitCode, config::Error> {
    let dir = match command {
        ProvidersCommand::Check { dir } => Some(dir.clone()),
        ProvidersCommand::List => config::load(file)?.providers.manifests,
    };
    let loaded = Catalogue::load(dir.as_deref());
    let done = match (command, &loaded) {
        (_, Err(mistakes)) => told(mistakes, out),
        (ProvidersCommand::Check { .. }, Ok(all)) => {
            writeln!(out, "all {} manifests are good", all.all().count())
        }
        (ProvidersCommand::List, Ok(all)) => all.all().try_for_each(|one| line(one, out)),
    };
    done.map_err(config::Error::Output)?;
    Ok(match loaded {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(78),
    })
}

fn told(mistakes: &[Mistake], out: &mut dyn Write) -> std::io::Result<()> {
    let plural = if mistakes.len() == 1 { "" } else { "s" };
    writeln!(out, "{} mistake{plural} in the manifests:", mistakes.len())?;
    mistakes
        .iter()
        .try_for_each(|mistake| writeln!(out, "  {mistake}"))
}

fn line(manifest: &Manifest, out: &mut dyn Write) -> std::io::Result<()> {
    let (id, name) = (manifest.id(), manifest.name());
    if !manifest.is_receivable() {
        let why = manifest.why().unwrap_or("sends no webhooks");
        return writeln!(out, "{id:<24}{name}: {why}");
    }
    let integrity = manifest.integrity().name();
    let (scheme, covers) = (manifest.scheme_words(), manifest.covers());
    writeln!(
        out,
        "{id:<24}{name}: {scheme}; covers {covers}; integrity {integrity}"
    )
}
