//! The gateway under test: a child process in a temporary directory that can be restarted, or one
//! that runs already (Posthaste or a peer), with the processes that belong to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::connection::{Connection, Template, local_runtime};
use crate::machine::{self, Usage};

/// Long enough for a store with a backlog to open.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longer than the gateway's own drain limit.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// The key of gateways that are started here.
const KEY: &str = "sk_loadtest_0123456789abcdefghijklmnop";

/// A gateway that can be called.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    /// Path that answers 2xx when it can be used.
    ready: Option<String>,
    start: Option<Start>,
    child: Mutex<Option<Child>>,
    /// Usage of children that have ended.
    ended: Mutex<Usage>,
    /// Processes of a gateway that runs elsewhere, by name.
    pids: Vec<(String, u32)>,
}

/// How to start it (again).
struct Start {
    binary: PathBuf,
    dir: PathBuf,
    extra: Vec<(String, String)>,
}

/// How a restart ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// SIGKILL.
    Kill,
    /// SIGTERM, and a clean end.
    Term,
}

impl Gateway {
    /// Starts `binary` on a free port with its data under `dir`; `extra` is further environment.
    pub(crate) fn start(
        binary: &Path,
        dir: &Path,
        extra: &[(String, String)],
    ) -> anyhow::Result<Self> {
        // The child starts elsewhere, so a relative path must be made whole first.
        let binary = std::fs::canonicalize(binary)
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let gateway = Self {
            address: free_port()?,
            key: KEY.to_owned(),
            ready: Some("/ready".to_owned()),
            start: Some(Start {
                binary,
                dir: dir.to_owned(),
                extra: extra.to_vec(),
            }),
            child: Mutex::new(None),
            ended: Mutex::new(Usage::default()),
            pids: Vec::new(),
        };
        gateway.spawn()?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// One that somebody else started and will stop.
    pub(crate) fn running(
        (address, key): (SocketAddr, String),
        ready: Option<String>,
        pids: Vec<(String, u32)>,
    ) -> anyhow::Result<Self> {
        let gateway = Self {
            address,
            key,
            ready,
            start: None,
            child: Mutex::new(None),
            ended: Mutex::new(Usage::default()),
            pids,
        };
        gateway.wait_ready()?;
        Ok(gateway)
    }

    fn spawn(&self) -> anyhow::Result<()> {
        let start = self.start.as_ref().context("it was not started here")?;
        let dir = &start.dir;
        let log = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(dir.join(name))
        };
        let child = Command::new(&start.binary)
            .arg("serve")
            .current_dir(dir)
            .env("POSTHASTE_ADMIN_KEY", &self.key)
            .env("POSTHASTE__SERVER__LISTEN", self.address.to_string())
            .env("POSTHASTE__STORAGE__DIR", dir.join("data"))
            .env("POSTHASTE__DELIVERY__ALLOW_NETWORKS", "127.0.0.0/8")
            .env("POSTHASTE__LOG__LEVEL", "warn")
            .envs(start.extra.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log("gateway.out")?)
            .stderr(log("gateway.log")?)
            .spawn()
            .with_context(|| format!("cannot start {}", start.binary.display()))?;
        *self.child.lock() = Some(child);
        Ok(())
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        let Some(path) = &self.ready else {
            return Ok(());
        };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(child) = self.child.lock().as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("the gateway ended with {status}:\n{}", self.log_tail());
            }
            if self.is_ready(path).unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the gateway at {} is not ready after {READY_WITHIN:?}:\n{}",
                    self.address,
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_ready(&self, path: &str) -> anyhow::Result<bool> {
        let template = Template::new(Method::GET, self.address, path, Some(&self.key))?;
        local_runtime()?.block_on(async {
            let mut connection = Connection::open(self.address, false).await?;
            let answer = connection.send(template.request(Bytes::new())).await?;
            Ok(answer.status.is_success())
        })
    }

    fn log_tail(&self) -> String {
        let path = self
            .start
            .as_ref()
            .map(|start| start.dir.join("gateway.log"));
        let text = path.and_then(|path| std::fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Usage so far by process, restarts summed; empty if no process is known.
    pub(crate) fn usages(&self) -> BTreeMap<String, Usage> {
        let mut usages: BTreeMap<_, _> = self
            .pids
            .iter()
            .map(|(name, pid)| (name.clone(), machine::usage(*pid)))
            .collect();
        if let Some(child) = self.child.lock().as_ref() {
            let usage = machine::usage(child.id()).and_ended(*self.ended.lock());
            usages.insert("gateway".to_owned(), usage);
        }
        usages
    }

    /// Ends the process, starts it again on the same data and port, and answers how long it was
    /// until it was ready, counted from the start.
    pub(crate) fn restart(&self, end: End) -> anyhow::Result<Duration> {
        self.end(end)?;
        self.start_again()
    }

    /// Starts the process that [`Gateway::end`] ended, and answers how long it was until it was ready.
    pub(crate) fn start_again(&self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.spawn()?;
        self.wait_ready()?;
        Ok(begin.elapsed())
    }

    /// Ends the process and waits until it is gone.
    pub(crate) fn end(&self, end: End) -> anyhow::Result<()> {
        let mut child = self
            .child
            .lock()
            .take()
            .context("only a gateway that was started here can be restarted")?;
        let mut last = machine::usage(child.id());
        match end {
            End::Kill => child.kill()?,
            End::Term => terminate(&child)?,
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                bail!("the gateway did not stop within {STOP_WITHIN:?}");
            }
            let usage = machine::usage(child.id());
            // A process that is ending shows fewer and fewer of its figures.
            if usage.cpu >= last.cpu && usage.written >= last.written {
                last.cpu = usage.cpu;
                last.written = usage.written;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut ended = self.ended.lock();
        *ended = last.and_ended(*ended);
        drop(ended);
        Ok(())
    }

    /// SIGTERM, then waits for a clean end.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.lock().take() else {
            return Ok(());
        };
        terminate(&child)?;
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the gateway ended with {status}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill()?;
        bail!("the gateway did not stop within {STOP_WITHIN:?}")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(child) = self.child.lock().as_mut() {
            // Only after an error elsewhere; nothing further can be done about one here.
            if child.kill().is_ok() && child.wait().is_err() {}
        }
    }
}

fn terminate(child: &Child) -> anyhow::Result<()> {
    let told = Command::new("kill").arg(child.id().to_string()).status()?;
    if !told.success() {
        bail!("cannot signal the gateway");
    }
    Ok(())
}

/// A port of the loopback interface that nobody listens on just now.
pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// What `--version` of a binary says; empty if it does not.
pub(crate) fn version(binary: &Path) -> String {
    said(Command::new(binary).arg("--version"))
}

/// Settings of a gateway that differ from its defaults, as `section.key = value`.
pub(crate) fn differences(binary: &Path, extra: &[(String, String)]) -> Vec<String> {
    let mut check = Command::new(binary);
    check.args(["config", "check", "--effective"]);
    let default = settings(&said(&mut check));
    check.envs(extra.iter().map(|(key, value)| (key, value)));
    settings(&said(&mut check))
        .into_iter()
        .filter(|line| !default.contains(line))
        .collect()
}

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Lines of a TOML text with their section in front.
fn settings(text: &str) -> Vec<String> {
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        match line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(name) => section = name,
            None if line.is_empty() || line.starts_with('#') => {}
            None => lines.push(format!("{section}.{line}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_with_their_section() {
        let text = "[server]\nlisten = \"a\"\n# no = 1\n\n[log]\nlevel = \"info\"\n";
        assert_eq!(
            settings(text),
            ["server.listen = \"a\"", "log.level = \"info\""]
        );
    }
}
