//! Faults at system calls, by strace: kill at the n-th, or delay each.
//!
//! strace counts the calls of each thread by itself, so `when` is the n-th call of whichever thread
//! makes that many first. A kill takes effect when the call is entered: it is not carried out.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::world::LOOK;

/// A wrapper that kills the gateway when a thread of it enters its `when`-th call of `syscall`.
pub(crate) fn kill_at(syscall: &str, when: u64) -> Vec<String> {
    let trace = format!("trace={syscall}");
    let inject = format!("inject={syscall}:signal=KILL:when={when}");
    // Not --seccomp-bpf: with it strace 6.1 counts calls, but injects at the first only.
    // -DD: strace steps aside, so that the gateway is the child and its end is seen as it was.
    [
        "strace",
        "-f",
        "-qqq",
        "-DD",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// strace on a gateway that runs already. Dropped, it lets go.
pub(crate) struct Tracer {
    child: Child,
}

impl Tracer {
    /// Follows all threads of `pid`; returns when it holds them. `inject` is an injection of
    /// strace, such as `fdatasync:delay_enter=50000`.
    pub(crate) fn attach(pid: u32, inject: &str) -> anyhow::Result<Self> {
        let syscall = inject.split(':').next().unwrap_or_default();
        let child = Command::new("strace")
            .args(["-f", "-qqq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={syscall}")])
            .args(["-e", &format!("inject={inject}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start strace (scripts/install-test-deps installs it)")?;
        let mut tracer = Self { child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !all_traced(pid) {
            if let Some(status) = tracer.child.try_wait()? {
                bail!("strace ended with {status} before it held process {pid}");
            }
            if Instant::now() > deadline {
                bail!("strace does not hold all threads of process {pid}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // TERM makes strace let its process go on; KILL would take the process along.
        let told = Command::new("kill")
            .arg(self.child.id().to_string())
            .stderr(Stdio::null())
            .status();
        if told.is_ok() && self.child.wait().is_err() {}
    }
}

/// Whether every thread has a tracer. A process that is gone counts as held.
fn all_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    let Ok(tasks) = tasks else { return true };
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let mut lines = status.lines();
        let tracer = lines.find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_some_and(|tracer| tracer.trim() == "0") {
            return false;
        }
    }
    true
}
