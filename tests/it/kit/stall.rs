//! Standing still on demand: `strace` holds system calls of a running gateway's threads.
//!
//! It attaches to single threads of the unchanged binary, so one part stands while the others run.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Gateway, SOON, dependency, eventually};

/// Whom to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Thread {
    /// The commit thread, at its next sync.
    Commit,
    /// All threads of the runtime, at their next system call.
    Runtime,
}

/// Threads that stand still until this is ended or dropped.
pub(crate) struct Stall {
    tracer: Child,
    threads: Vec<String>,
}

impl Stall {
    /// Each of the calls takes `delay` longer from now on.
    pub(crate) async fn begin(gateway: &Gateway, thread: Thread, delay: Duration) -> Self {
        let (name, calls) = match thread {
            Thread::Commit => ("lane", "fdatasync,fsync"),
            Thread::Runtime => ("tokio-rt-worker", "all"),
        };
        let tasks = format!("/proc/{}/task", gateway.pid());
        let mut threads = Vec::new();
        for entry in std::fs::read_dir(&tasks).unwrap() {
            let path = entry.unwrap().path();
            if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
                threads.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
        assert!(!threads.is_empty(), "no thread is called {name}");
        let mut command = Command::new(dependency("/usr/bin/strace"));
        command.args(["-qq", "-o", "/dev/null", "-e"]);
        command.arg(format!("trace={calls}"));
        command.arg("-e");
        command.arg(format!("inject={calls}:delay_enter={}", delay.as_micros()));
        for thread in &threads {
            command.args(["-p", thread]);
        }
        let tracer = command.stdin(Stdio::null()).spawn().unwrap();
        let stall = Self { tracer, threads };
        eventually("strace holds the threads", SOON, async || {
            let held = stall.threads.iter().all(|thread| {
                std::fs::read_to_string(format!("{tasks}/{thread}/status"))
                    .is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
            });
            held.then_some(())
        })
        .await;
        stall
    }

    /// Lets them go on.
    pub(crate) fn end(self) {
        drop(self);
    }
}

/// Ends the `strace` behind which a gateway was started: a held thread also holds the end of its
/// process.
pub(crate) fn release(gateway: &Gateway) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let mut lines = status.lines();
    let tracer = lines
        .find_map(|line| line.strip_prefix("TracerPid:"))
        .unwrap()
        .trim();
    assert_ne!(tracer, "0", "nobody traces the gateway");
    let killed = Command::new("kill")
        .args(["-KILL", tracer])
        .status()
        .unwrap();
    assert!(killed.success(), "kill -KILL {tracer}");
}

impl Drop for Stall {
    fn drop(&mut self) {
        // A tracer that is gone holds nobody.
        if let Ok(None) = self.tracer.try_wait() {
            self.tracer.kill().unwrap();
            self.tracer.wait().unwrap();
        }
    }
}
