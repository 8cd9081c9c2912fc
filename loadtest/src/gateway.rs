//! The gateway under test: a child process in a temporary directory, or one that runs already; and
//! the few API calls that prepare it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::connection::{Connection, Template, local_runtime};
use crate::machine::{self, Usage};

/// Long enough for a store with a backlog to open.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longer than the gateway's own drain limit.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// A gateway that can be called.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    child: Option<Child>,
    log: PathBuf,
}

/// What to prepare in it.
#[derive(Debug, Clone)]
pub(crate) struct Population {
    pub(crate) applications: u64,
    /// One entry per endpoint of an application: the path at the receiver, without the slot.
    pub(crate) behaviours: Vec<String>,
    pub(crate) concurrency: Option<u16>,
    pub(crate) disabled: bool,
    pub(crate) secret: String,
}

impl Gateway {
    /// Starts `binary` on a free port with its data under `dir`; `extra` is further environment.
    pub(crate) fn start(
        binary: &Path,
        dir: &Path,
        extra: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let address = free_port()?;
        let key = "sk_loadtest_0123456789abcdefghijklmnop".to_owned();
        let log = dir.join("gateway.log");
        // The child starts elsewhere, so a relative path must be made whole first.
        let binary = std::fs::canonicalize(binary)
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let child = Command::new(&binary)
            .arg("serve")
            .current_dir(dir)
            .env("POSTHASTE_ADMIN_KEY", &key)
            .env("POSTHASTE__SERVER__LISTEN", address.to_string())
            .env("POSTHASTE__STORAGE__DIR", dir.join("data"))
            .env("POSTHASTE__DELIVERY__ALLOW_NETWORKS", "127.0.0.0/8")
            .env("POSTHASTE__LOG__LEVEL", "warn")
            .envs(extra.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(File::create(dir.join("gateway.out"))?)
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut gateway = Self {
            address,
            key,
            child: Some(child),
            log,
        };
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// One that somebody else started and will stop.
    pub(crate) fn running(address: SocketAddr, key: String) -> Self {
        Self {
            address,
            key,
            child: None,
            log: PathBuf::new(),
        }
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("the gateway ended with {status}:\n{}", self.log_tail());
            }
            if let Ok((StatusCode::OK, _)) = self.call(Method::GET, "/ready", None) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the gateway is not ready after {READY_WITHIN:?}:\n{}",
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// CPU, memory and bytes written so far; zeros if the process is not ours.
    pub(crate) fn usage(&self) -> Usage {
        self.child
            .as_ref()
            .map_or_else(Usage::default, |child| machine::usage(child.id()))
    }

    /// SIGTERM, then waits for a clean end.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let told = Command::new("kill").arg(child.id().to_string()).status()?;
        if !told.success() {
            bail!("cannot signal the gateway");
        }
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

    /// One API call on a connection of its own.
    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        in_place(async {
            let mut connection = Connection::open(self.address, false).await?;
            call(&mut connection, &self.key, method, path, body).await
        })
    }

    /// Creates applications `load-0`, `load-1`, … and their endpoints; answers the ingest paths.
    pub(crate) fn populate(
        &self,
        population: &Population,
        receiver: SocketAddr,
    ) -> anyhow::Result<Vec<String>> {
        let user = |app: u64, step: u64| {
            let (address, key) = (self.address, self.key.clone());
            let population = population.clone();
            async move {
                let mut connection = Connection::open(address, true).await?;
                for app in (app..population.applications).step_by(usize::try_from(step)?) {
                    application(&mut connection, &key, &population, receiver, app).await?;
                }
                anyhow::Ok(())
            }
        };
        in_place(async {
            let parallel = population.applications.min(32);
            let users: Vec<_> = (0..parallel)
                .map(|first| tokio::task::spawn_local(user(first, parallel)))
                .collect();
            for user in users {
                user.await??;
            }
            anyhow::Ok(())
        })?;
        Ok((0..population.applications)
            .map(|app| format!("/api/v1/app/load-{app}/msg"))
            .collect())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Only after an error elsewhere; nothing further can be done about one here.
            if child.kill().is_ok() && child.wait().is_err() {}
        }
    }
}

/// A port of the loopback interface that nobody listens on just now.
pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

async fn application(
    connection: &mut Connection,
    key: &str,
    population: &Population,
    receiver: SocketAddr,
    app: u64,
) -> anyhow::Result<()> {
    let body = json!({"name": format!("load {app}"), "uid": format!("load-{app}")});
    made(call(connection, key, Method::POST, "/api/v1/app", Some(&body)).await?)?;
    for (slot, behaviour) in population.behaviours.iter().enumerate() {
        let mut body = json!({
            "url": format!("http://{receiver}/{behaviour}/{slot}"),
            "uid": format!("ep-{slot}"),
            "secret": population.secret,
            "disabled": population.disabled,
        });
        if let (Some(limit), Some(fields)) = (population.concurrency, body.as_object_mut()) {
            fields.insert("maxConcurrency".to_owned(), json!(limit));
        }
        let path = format!("/api/v1/app/load-{app}/endpoint");
        made(call(connection, key, Method::POST, &path, Some(&body)).await?)?;
    }
    Ok(())
}

fn made((status, answer): (StatusCode, Value)) -> anyhow::Result<()> {
    if status == StatusCode::CREATED || status == StatusCode::CONFLICT {
        return Ok(());
    }
    bail!("the gateway refused the set-up: {status} {answer}")
}

async fn call(
    connection: &mut Connection,
    key: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(StatusCode, Value)> {
    let template = Template::new(method, connection.address(), path, Some(key))?;
    let bytes = match body {
        Some(body) => Bytes::from(serde_json::to_vec(body)?),
        None => Bytes::new(),
    };
    let answer = connection.send(template.request(bytes)).await?;
    let value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    Ok((answer.status, value))
}

fn in_place<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    local_runtime()?.block_on(work)
}
