//! Child processes of the demonstration, and the records they write.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::base::{Clock, SystemClock};

/// Longer than the gateway's own drain limit.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// This binary once more, under another sub-command. Killed when it is dropped.
pub(super) struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts it; its output goes to `<name>.log` in `dir`.
    pub(super) fn start(
        name: &'static str,
        dir: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?;
        let log = File::create(dir.join(format!("{name}.log")))?;
        let child = Command::new(&binary)
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self { name, child })
    }

    /// Whether it is no longer running.
    pub(super) fn has_ended(&mut self) -> std::io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// The address that a sink prints first.
    pub(super) async fn announced(&mut self, dir: &Path) -> anyhow::Result<SocketAddr> {
        let log = dir.join(format!("{}.log", self.name));
        for _ in 0..250 {
            let text = std::fs::read_to_string(&log)?;
            let line = text.lines().find_map(|line| line.split_once("http://"));
            if let Some((_, address)) = line.filter(|_| text.ends_with('\n')) {
                return Ok(address.trim().parse()?);
            }
            if self.has_ended()? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!(
            "the {} receiver did not start: see {}",
            self.name,
            log.display()
        )
    }

    /// SIGTERM; answers whether it ended with exit code 0 in time.
    pub(super) async fn stop(&mut self, clock: &SystemClock) -> anyhow::Result<bool> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)
            .with_context(|| format!("cannot signal the {}", self.name))?;
        let deadline = clock.monotonic() + STOP_WITHIN;
        while clock.monotonic() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell.
        if self.child.kill().is_ok() && self.child.wait().is_err() {}
    }
}

/// The growing record of a sink.
pub(super) struct Record {
    path: PathBuf,
    read: u64,
}

impl Record {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// The complete lines since the last call.
    pub(super) fn news(&mut self) -> anyhow::Result<Vec<Value>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let complete = text.rfind('\n').map_or(0, |at| at + 1);
        let (text, _) = text.split_at(complete);
        self.read += u64::try_from(complete)?;
        text.lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }
}

/// A port of the loopback interface that nobody listens on just now.
pub(super) fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_record_is_read_line_by_line_and_never_half_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let mut file = File::create(&path).expect("a file");
        let mut record = Record::new(path);
        file.write_all(b"{\"n\":1}\n{\"n\":").expect("written");
        let numbers =
            |lines: Vec<Value>| -> Vec<_> { lines.iter().map(|line| line["n"].as_u64()).collect() };
        assert_eq!(numbers(record.news().expect("lines")), [Some(1)]);
        assert!(record.news().expect("lines").is_empty());
        file.write_all(b"2}\n").expect("written");
        assert_eq!(numbers(record.news().expect("lines")), [Some(2)]);
    }
}
