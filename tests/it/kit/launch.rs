//! How a gateway is started: its settings, its configuration file, and what stands in front of it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::process::{KEY, append_to};
use super::{Gateway, free_port};

/// The name of the configuration file in the gateway's directory.
const FILE: &str = "posthaste.toml";

/// Everything needed to start a gateway, and to start it again on the same data.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(super) dir: Arc<TempDir>,
    pub(super) address: SocketAddr,
    settings: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    before: Vec<String>,
    has_file: bool,
    handed: Option<Arc<Handed>>,
    log_to: Option<Arc<std::io::PipeWriter>>,
}

/// A socket that outlives the gateway, and what the gateway is told of it.
struct Handed {
    socket: TcpListener,
    count: usize,
    names: String,
}

impl Launch {
    /// Short retries, plain HTTP to loopback allowed, and `settings` on top: pairs of a key such as
    /// `delivery.retry_schedule` and its value. All of it by environment, on a directory of its own.
    pub(crate) fn new(settings: &[(&str, &str)]) -> Self {
        let mut launch = Self::bare(settings);
        let defaults = [
            ("delivery.allow_networks", "127.0.0.0/8"),
            ("delivery.retry_schedule", "1,1,2"),
            ("log.level", "info"),
        ];
        let defaults = defaults.map(|(key, value)| (key.to_owned(), value.to_owned()));
        launch.settings.splice(0..0, defaults);
        launch
    }

    /// With a configuration file; `settings` by environment win over it, and nothing else is set
    /// but the address and the place and reserve of the store.
    pub(crate) fn with_file(text: &str, settings: &[(&str, &str)]) -> Self {
        let mut launch = Self::bare(settings);
        launch.has_file = true;
        launch.write("posthaste.toml", text);
        launch
    }

    fn bare(settings: &[(&str, &str)]) -> Self {
        Self {
            dir: Arc::new(tempfile::tempdir().unwrap()),
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            settings: settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            variables: Vec::new(),
            before: Vec::new(),
            has_file: false,
            handed: None,
            log_to: None,
        }
    }

    /// An environment variable.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// A program and its arguments that start the gateway and become it, such as `prlimit`.
    pub(crate) fn behind(mut self, program: &[&str]) -> Self {
        self.before = program.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// Hands the socket over under `name`, as a service manager does; it stays open without the
    /// gateway.
    pub(crate) fn socket(self, socket: TcpListener, name: &str) -> Self {
        self.handed(socket, 1, name)
    }

    /// Hands the socket over twice, as descriptors 3 and 4, and says that there are `count` with
    /// these `names`.
    pub(crate) fn handed(mut self, socket: TcpListener, count: usize, names: &str) -> Self {
        self.address = socket.local_addr().unwrap();
        self.handed = Some(Arc::new(Handed {
            socket,
            count,
            names: names.to_owned(),
        }));
        self
    }

    /// Writes the log into a pipe instead of the file.
    pub(crate) fn log_to(mut self, pipe: std::io::PipeWriter) -> Self {
        self.log_to = Some(Arc::new(pipe));
        self
    }

    /// The directory that holds the store (`data`), the log and the configuration file.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file beside the store.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir().join(name), text).unwrap();
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(self) -> Gateway {
        let mut gateway = self.spawn();
        gateway.wait_ready().await;
        gateway
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(self) -> Gateway {
        let child = self.child(&self.dir().join("gateway.log"));
        Gateway::of(self, child)
    }

    /// Another launch on the same data that listens elsewhere.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            handed: None,
            ..self.clone()
        }
    }

    pub(super) fn child(&self, log: &Path) -> Child {
        let mut command = self.command();
        let file = append_to(log);
        command.stdout(file.try_clone().unwrap());
        match &self.log_to {
            Some(pipe) => command.stderr(pipe.try_clone().unwrap()),
            None => command.stderr(file),
        };
        command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_posthaste").to_owned();
        let mut words = self.before.clone();
        let mut stdin = Stdio::null();
        if let Some(Handed {
            socket,
            count,
            names,
        }) = self.handed.as_deref()
        {
            // The shell becomes the gateway, so LISTEN_PID is right.
            let script = format!(
                "exec 3<&0 4<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS={count} \
                 LISTEN_FDNAMES={names}; exec \"$0\" \"$@\""
            );
            words.extend([String::from("sh"), String::from("-c"), script]);
            stdin = Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
        }
        words.extend([binary, String::from("serve")]);
        if self.has_file {
            let path = self.dir().join(FILE).display().to_string();
            words.extend([String::from("--config"), path]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(stdin);
        self.equip(&mut command);
        command
    }

    /// Runs a sub-command on the same directory and settings to its end; answers exit code and output.
    pub(crate) fn cli(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.args(args).stdin(Stdio::null());
        self.equip(&mut command);
        let output = command.output().unwrap();
        let code = output.status.code().expect("it ends by itself");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (code, text + &String::from_utf8_lossy(&output.stderr))
    }

    /// The same with another value for a key.
    pub(crate) fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    fn equip(&self, command: &mut Command) {
        command.current_dir(self.dir());
        command.env("POSTHASTE_ADMIN_KEY", KEY);
        // Backups are restored elsewhere in tests; whose subject is the key file sets this to nothing.
        command.env("POSTHASTE_VAULT_KEY", super::VAULT_KEY);
        let places = [
            ("server.listen", self.address.to_string()),
            ("storage.dir", self.data().display().to_string()),
            ("storage.reserve", "1MiB".to_owned()),
        ];
        let places = places.map(|(key, value)| (key.to_owned(), value));
        for (key, value) in places.iter().chain(&self.settings) {
            command.env(variable(key), value);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Where the store is.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir().join("data")
    }
}

/// `delivery.timeout` to `POSTHASTE__DELIVERY__TIMEOUT`.
fn variable(key: &str) -> String {
    format!("POSTHASTE__{}", key.to_uppercase().replace('.', "__"))
}
