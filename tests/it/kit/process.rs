//! The real binary as a child process, and other programs a test needs.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Client, Launch, Reply, SOON, eventually};

pub(super) const KEY: &str = "sk_test_0123456789abcdefghijklmnopqrst";

/// A running gateway on a data directory of its own.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    launch: Launch,
    api: Client,
}

impl Gateway {
    /// Starts with short retries, plain HTTP to loopback allowed, and `settings` on top: pairs of
    /// a key such as `delivery.retry_schedule` and its value.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Launch::new(settings).start().await
    }

    pub(super) fn of(launch: Launch, child: Child) -> Self {
        Self {
            child,
            address: launch.address,
            api: Client::new(launch.address, Some(KEY)),
            launch,
        }
    }

    /// Restores `backup` to `data` by command and starts there.
    pub(crate) async fn restored(backup: &Path, data: &str) -> Self {
        let launch = Launch::new(&[]);
        let from = backup.display().to_string();
        let (code, said) = launch.cli(&["restore", &from, "--to", data]);
        assert_eq!(code, 0, "{said}");
        launch.setting("storage.dir", data).start().await
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it was started.
    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    pub(crate) async fn wait_ready(&mut self) {
        let api = self.api.clone();
        let log = self.log_path();
        let child = &mut self.child;
        eventually("the gateway is ready", SOON, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the gateway ended with {status}:\n{}", tail(&log));
            }
            let reply = api
                .send(http::Method::GET, "/ready", &[], bytes::Bytes::new())
                .await;
            matches!(reply, Ok(Reply { status, .. }) if status == 200).then_some(())
        })
        .await;
    }

    /// The management API with the admin key.
    pub(crate) fn api(&self) -> &Client {
        &self.api
    }

    /// The admin key.
    pub(crate) fn key(&self) -> &'static str {
        KEY
    }

    /// Another sub-command with the settings of this gateway; answers exit code and output.
    pub(crate) fn cli(&self, args: &[&str]) -> (i32, String) {
        self.launch.cli(args)
    }

    /// Pages through a list and answers all items.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut iterator = String::new();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = self
                .api
                .get(&format!("{path}{sign}limit=250{iterator}"))
                .await
                .expect(200);
            all.extend(page["data"].as_array().expect("a list has data").clone());
            match page["iterator"].as_str() {
                Some(at) if page["done"] == false => iterator = format!("&iterator={at}"),
                _ => return all,
            }
        }
    }

    /// Memory of the process in KiB: `VmRSS` now, `VmHWM` at its highest so far.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let figure = line.unwrap().trim_matches(|c: char| !c.is_ascii_digit());
        figure.parse().unwrap()
    }

    /// The sum of all series of a metric, or the one series named with its labels; 0 if there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.api.get("/metrics").await.expect_text(200);
        let of_this = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let values = page.lines().filter(of_this);
        values
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// SIGTERM, then the exit status.
    pub(crate) async fn stop(mut self) -> (ExitStatus, Stopped) {
        self.signal("TERM");
        let status = self.wait_end(Duration::from_secs(40)).await;
        (status, self.stopped())
    }

    /// SIGKILL: no goodbye.
    pub(crate) fn kill(mut self) -> Stopped {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.stopped()
    }

    /// Starts another process on the same data, on another port, and waits for its end; answers its
    /// status and what it said.
    pub(crate) async fn second_start(&self) -> (ExitStatus, String) {
        let log = self.launch.dir().join("second.log");
        let mut child = self.launch.elsewhere().child(&log);
        let ended = eventually("the second gateway gives up", SOON, async || {
            child.try_wait().unwrap()
        });
        (ended.await, std::fs::read_to_string(log).unwrap())
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for the end of the process.
    pub(crate) async fn wait_end(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually("the gateway ends", within, async || {
            child.try_wait().unwrap()
        })
        .await
    }

    fn stopped(&self) -> Stopped {
        Stopped {
            launch: self.launch.clone(),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.launch.dir().join("gateway.log")
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("--- gateway log\n{}", tail(&self.log_path()));
        }
    }
}

/// A gateway that is down; its data stays.
pub(crate) struct Stopped {
    pub(crate) launch: Launch,
}

impl Stopped {
    /// Its data directory, unless `storage.dir` says otherwise.
    pub(crate) fn data(&self) -> PathBuf {
        self.launch.data()
    }

    /// A sub-command on its directory; answers exit code and output.
    pub(crate) fn cli(&self, args: &[&str]) -> (i32, String) {
        self.launch.cli(args)
    }

    /// The same with another value for a key.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.launch = self.launch.setting(key, value);
        self
    }

    /// Starts again on the same data and the same address.
    pub(crate) async fn start(self) -> Gateway {
        self.launch.start().await
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Starts a program with both outputs appended to `log`.
pub(crate) fn spawn_logged(command: &mut Command, log: &Path) -> Child {
    let log = append_to(log);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

pub(super) fn append_to(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// What a finished program left.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) text: String,
}

/// Runs a program with `input` on its standard input.
pub(crate) fn run_to_end(command: &mut Command, input: &[u8]) -> Output {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, input).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let output = command
        .stdin(Stdio::from(file))
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Output {
        success: output.status.success(),
        text: String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    }
}
