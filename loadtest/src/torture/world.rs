//! The gateway of a trial: the real binary on a data directory, started as often as wanted.
//!
//! Port and data directory stay the same over restarts. A wrapper (`strace …`, `unshare …`) may stand
//! before the binary; signals go to the gateway itself, found among the wrapper's descendants. Every
//! process is started, known and ended by its id.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::connection::{Connection, Template, local_runtime};
use crate::gateway::free_port;

/// The admin key of every gateway the harness starts.
pub(crate) const KEY: &str = "sk_torture_0123456789abcdefghijklmnop";
/// The master key of every vault: 32 bytes as hex.
const VAULT_KEY: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
/// Between two looks at something that is awaited.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// An API call without an answer for so long has failed.
const CALL: Duration = Duration::from_secs(10);

/// A gateway that can be started, hit, and started again.
pub(crate) struct World {
    binary: PathBuf,
    /// Logs, and the current directory of the gateway.
    dir: PathBuf,
    /// `storage.dir`; anything may be done to it while the gateway is down.
    pub(crate) data: PathBuf,
    pub(crate) address: SocketAddr,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    child: Option<Child>,
    exit: Option<ExitStatus>,
}

impl World {
    /// A gateway with logs in `dir` and data in `data`; nothing is started yet. `dir` is made.
    pub(crate) fn new(binary: &Path, dir: &Path, data: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let address = free_port()?;
        let mut world = Self {
            // The child starts elsewhere, so relative paths must be made whole.
            binary: std::fs::canonicalize(binary)
                .with_context(|| format!("no gateway at {}", binary.display()))?,
            dir: std::fs::canonicalize(dir)?,
            data: std::path::absolute(data)?,
            address,
            env: Vec::new(),
            wrapper: Vec::new(),
            child: None,
            exit: None,
        };
        for (key, value) in [
            ("server.listen", address.to_string()),
            ("storage.dir", world.data.display().to_string()),
            ("storage.reserve", "1MiB".to_owned()),
            ("delivery.allow_networks", "127.0.0.0/8".to_owned()),
            ("log.level", "info".to_owned()),
        ] {
            world.set(key, &value);
        }
        Ok(world)
    }

    /// Sets a configuration key such as `delivery.timeout` from the next start on.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let name = format!("POSTHASTE__{}", key.to_uppercase().replace('.', "__"));
        self.env(&name, value);
    }

    /// Sets a variable of the environment from the next start on.
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts with this command before the binary from the next start on; empty for none.
    pub(crate) fn wrap(&mut self, wrapper: &[String]) {
        self.wrapper = wrapper.to_vec();
    }

    /// Starts and waits until it is ready; answers how long that took. An error if it ends first
    /// or is not ready `within`; [`World::exit`] then tells how it ended.
    pub(crate) fn start(&mut self, within: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.launch()?;
        self.wait_ready(within)?;
        Ok(begun.elapsed())
    }

    /// Starts without waiting.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("the gateway runs already");
        }
        self.exit = None;
        let mut words = self.wrapper.iter().map(String::as_str);
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        let log = |name: &str| -> anyhow::Result<File> {
            let path = self.dir.join(name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("cannot open {}", path.display()))
        };
        let child = command
            .arg("serve")
            .current_dir(&self.dir)
            .env("POSTHASTE_ADMIN_KEY", KEY)
            // Stores are restored and copied elsewhere; the key file beside them is not.
            .env("POSTHASTE_VAULT_KEY", VAULT_KEY)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log("gateway.out")?)
            .stderr(log("gateway.log")?)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/ready` answers 200.
    pub(crate) fn wait_ready(&mut self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                bail!("the gateway ended with {status}:\n{}", self.log_tail());
            }
            if let Ok((StatusCode::OK, _)) = self.api(Method::GET, "/ready", None) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the gateway is not ready after {within:?}:\n{}",
                    self.log_tail()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Process id of the gateway itself, also behind a wrapper.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let child = self.child.as_ref().context("the gateway does not run")?;
        let mut open = vec![child.id()];
        while let Some(pid) = open.pop() {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
            if exe.is_ok_and(|exe| exe == self.binary) {
                return Ok(pid);
            }
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let children = std::fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                open.extend(
                    children
                        .split_whitespace()
                        .filter_map(|one| one.parse::<u32>().ok()),
                );
            }
        }
        bail!("no process of {} runs", self.binary.display())
    }

    /// Sends a signal by name (`KILL`, `TERM`, `STOP`, `CONT`) to the gateway.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.pid()?.to_string();
        let told = Command::new("kill").args(["-s", name, &pid]).status()?;
        if !told.success() {
            bail!("cannot send {name} to process {pid}");
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone. Fine if it is gone already.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if self.ended()?.is_none() {
            let pid = self.pid();
            let told = match &mut self.child {
                // Without a program in between: the instant matters.
                Some(child) if pid.as_ref().is_ok_and(|pid| *pid == child.id()) => {
                    child.kill().map_err(anyhow::Error::from)
                }
                // It may be about to end by itself: a process that exits shows no binary any more.
                _ => self.signal("KILL"),
            };
            let ended = self.wait_exit(Duration::from_secs(10));
            told.or_else(|error| ended.as_ref().map(drop).map_err(|_| error))?;
            ended?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait_exit(within)
    }

    /// Waits for the end of the process.
    pub(crate) fn wait_exit(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "the gateway still runs after {within:?}:\n{}",
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How it ended, if it has ended since the last start.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            self.exit = Some(status);
        }
        Ok(self.exit)
    }

    /// Exit code of the last process, or the number of the signal that ended it plus 128.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        let exit = self.exit?;
        exit.code()
            .or_else(|| exit.signal().map(|signal| signal + 128))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.ended(), Ok(None)) && self.child.is_some()
    }

    /// The last lines it logged, over all starts.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// One call of the management API on a connection of its own.
    pub(crate) fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let (status, body) = self.bytes(method, path, body)?;
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((status, value))
    }

    /// The same, with the body of the answer as it came.
    pub(crate) fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let template = Template::new(method, self.address, path, Some(KEY))?;
        let bytes = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body)?),
            None => Bytes::new(),
        };
        let answer = local_runtime()?.block_on(async {
            tokio::time::timeout(CALL, async {
                let mut connection = Connection::open(self.address, false).await?;
                connection.send(template.request(bytes)).await
            })
            .await
            .with_context(|| format!("no answer to {path} within {CALL:?}"))?
        })?;
        Ok((answer.status, answer.body))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Only after an error elsewhere; nothing further can be done about one here.
        if !self.is_running() || self.kill().is_ok() {
            return;
        }
        if let Some(child) = &mut self.child
            && child.kill().is_ok()
            && child.wait().is_err()
        {}
    }
}
