//! `posthaste backup` and `posthaste restore`.
//!
//! A running gateway is asked over its API, because the store belongs to one process; a stopped one's
//! directory is opened here. Which of the two it is, the directory's lock tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::http::Api;
use super::{complain, config, in_runtime, offline, say, serve};
use crate::base::{Clock, SystemClock};
use crate::config::Config;
use crate::store::fjall as embedded;
use crate::store::fjall::backup as files;

/// How often a running backup is asked how far it is.
const ASK: Duration = Duration::from_millis(200);

/// Arguments of `posthaste backup`.
#[derive(Debug, Clone, clap::Args)]
pub struct BackupArgs {
    /// Folder to be made. While the gateway runs: a name, which is made below `storage.backup_dir`,
    /// or a path there. While it does not run: any path.
    dest: PathBuf,
    /// Where the running gateway's API listens, if it is not `server.listen`.
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<SocketAddr>,
}

/// Arguments of `posthaste restore`.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArgs {
    /// The backup: a folder with a manifest.
    backup: PathBuf,
    /// The data directory to be made: absent or empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// `posthaste backup`: 0 when it is complete, 78 if the stopped store would not start, 74 if the disk
/// fails, 1 for everything else.
pub(super) fn backup(args: BackupArgs, file: Option<&Path>) -> ExitCode {
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
        return in_runtime(ask(args, config));
    }
    let now = SystemClock::start().now();
    match files::offline(dir, &args.dest, env!("CARGO_PKG_VERSION"), now) {
        Ok(written) => {
            let manifest = &written.manifest;
            say(&format!(
                "backup of the stopped gateway in {}: up to lane {}, message {}; {} files, {} bytes",
                args.dest.display(),
                manifest.tail.lane,
                manifest.tail.seq,
                manifest.files.len(),
                manifest.bytes()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, code(&error)),
    }
}

/// Asks the running gateway and waits for the end.
async fn ask(args: BackupArgs, config: Config) -> anyhow::Result<ExitCode> {
    let name = name_of(&args.dest, config.storage.backup_dir.as_deref())?;
    let address = args.gateway.unwrap_or_else(|| local(config.server.listen));
    let path = "/api/v1/admin/backup";
    if config.server.tls_cert.is_some() {
        bail!(
            "the gateway speaks TLS, which this command does not; ask it yourself: \
             curl -X POST https://HOST{path} -H \"Authorization: Bearer $POSTHASTE_ADMIN_KEY\" \
             -H 'Content-Type: application/json' -d '{{\"name\":\"{name}\"}}'"
        );
    }
    let key = serve::admin_key()
        .context("the gateway is running: its admin key is wanted in POSTHASTE_ADMIN_KEY")?;
    let api = Api::new(address, key);
    let (status, answer) = api
        .call("POST", path, Some(&json!({ "name": name })))
        .await?;
    if status != 202 {
        bail!("the gateway refused ({status}): {}", told(&answer));
    }
    let id = answer.get("id").and_then(Value::as_str);
    let id = id.context("the gateway's answer names no task")?;
    let task = format!("/api/v1/background-task/{id}");
    loop {
        let answer = api.must("GET", &task, None, 200).await?;
        let data = answer.get("data").cloned().unwrap_or_default();
        match answer.get("status").and_then(Value::as_str) {
            Some("running") => tokio::time::sleep(ASK).await,
            Some("finished") => {
                say(&finished(&data));
                return Ok(ExitCode::SUCCESS);
            }
            _ => bail!("the backup failed: {}", told(&data)),
        }
    }
}

fn finished(data: &Value) -> String {
    let text = |name: &str| match data.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::from("?"),
    };
    format!(
        "backup in {}: up to lane {}, message {} at {}; {} files, {} bytes, {} of them copied; commits paused for {} ms",
        text("path"),
        text("lane"),
        text("seq"),
        text("created"),
        text("files"),
        text("bytes"),
        text("copiedBytes"),
        text("pauseMs"),
    )
}

/// What a refusal says.
fn told(answer: &Value) -> String {
    let parts = ["code", "detail", "error"].map(|name| answer.get(name));
    let parts = parts.into_iter().flatten().map(|part| match part {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    parts.collect::<Vec<_>>().join(": ")
}

/// The name below `storage.backup_dir` that `dest` stands for.
fn name_of(dest: &Path, backup_dir: Option<&Path>) -> anyhow::Result<String> {
    let name = dest.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is no name for a backup", dest.display()))?;
    let parent = dest
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let Some(parent) = parent else {
        return Ok(name.to_owned());
    };
    let same = |dir: &Path| match (parent.canonicalize(), dir.canonicalize()) {
        (Ok(parent), Ok(dir)) => parent == dir,
        (Ok(_) | Err(_), _) => parent == dir,
    };
    match backup_dir {
        Some(dir) if same(dir) => Ok(name.to_owned()),
        Some(dir) => bail!(
            "the gateway is running and writes backups below storage.backup_dir only, which is {}",
            dir.display()
        ),
        None => bail!(
            "the gateway is running and storage.backup_dir is not set: set it and restart, or stop the gateway"
        ),
    }
}

/// An address to reach a listener on this machine.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// `posthaste restore`: 0 when the result is checked, 78 for a damaged or incomplete backup, 74 if the
/// disk fails, 1 for a target that is taken or too small.
pub(super) fn restore(args: &RestoreArgs) -> ExitCode {
    let now = SystemClock::start().now();
    match files::restore(&args.backup, &args.to, now) {
        Ok(restored) => {
            let manifest = &restored.manifest;
            say(&restored.report.to_string());
            say(&format!(
                "restored to {}: everything up to lane {}, message {}, acknowledged by {}; nothing later. \
                 The next start opens lane {}. Never run it beside the gateway the backup was taken from",
                args.to.display(),
                manifest.tail.lane,
                manifest.tail.seq,
                manifest.created,
                restored.lane.0.saturating_add(1)
            ));
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error, code(&error)),
    }
}

/// A folder that holds a manifest is a backup: its files are summed. 0 or 78.
pub(super) fn verify(backup: &Path, as_json: bool) -> ExitCode {
    match files::check(backup) {
        Ok(manifest) => {
            let (files, bytes) = (manifest.files.len(), manifest.bytes());
            if as_json {
                let tail = json!({ "lane": manifest.tail.lane, "seq": manifest.tail.seq });
                let created = manifest.created;
                say(&json!({ "good": true, "backup": true, "created": created, "tail": tail, "files": files, "bytes": bytes, "problems": [] }).to_string());
            } else {
                say(&format!(
                    "a backup of {}: up to lane {}, message {}; {files} files, {bytes} bytes\n0 problems",
                    manifest.created, manifest.tail.lane, manifest.tail.seq
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            if as_json {
                let problems = [error.to_string()];
                say(&json!({ "good": false, "backup": true, "problems": problems }).to_string());
            }
            complain(&error, code(&error))
        }
    }
}

/// 78 = a human must decide, 74 = the disk, 1 = try again.
const fn code(error: &files::Error) -> u8 {
    match error {
        files::Error::Refused { .. } | files::Error::Unsound { .. } => 78,
        files::Error::Io { .. } => 74,
        files::Error::Taken(_) | files::Error::NoSpace { .. } => 1,
        files::Error::Store(error) => offline::code(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_gateway_gets_a_name_below_its_folder_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("x");
        assert_eq!(name_of(Path::new("x"), None).unwrap(), "x");
        assert_eq!(name_of(&below, Some(dir.path())).unwrap(), "x");
        assert!(name_of(&below, None).is_err());
        assert!(name_of(Path::new("/elsewhere/x"), Some(dir.path())).is_err());
        assert!(name_of(&below.join("y"), Some(dir.path())).is_err());
        assert!(name_of(Path::new(".."), Some(dir.path())).is_err());
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_this_machine() {
        let shown = |text: &str| local(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(shown("[::]:80"), "[::1]:80");
        assert_eq!(shown("10.0.0.1:80"), "10.0.0.1:80");
    }
}
