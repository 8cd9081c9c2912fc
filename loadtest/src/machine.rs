//! What the operating system tells: CPU time, memory, bytes written, and the disk's sync latency.
//!
//! Linux only, from `/proc`. What cannot be read counts as zero: a report with a hole is better
//! than a run that fails at its end.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::hist::{Histogram, Summary};

/// Kernel clock ticks of `/proc/<pid>/stat`; 100 on every Linux platform we run on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the calling thread.
pub(crate) fn own_thread_cpu() -> Duration {
    first_number("/proc/thread-self/schedstat").map_or(Duration::ZERO, Duration::from_nanos)
}

/// A process at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Usage {
    /// User and system time, also of threads that have ended.
    #[serde(skip)]
    pub(crate) cpu: Duration,
    /// Bytes handed to the disk.
    pub(crate) written: u64,
    /// Peak resident memory, bytes.
    pub(crate) peak_memory: u64,
    /// Threads now.
    pub(crate) threads: u64,
    /// Context switches of the threads that live now.
    pub(crate) switches: u64,
}

/// Reads the usage of a process.
pub(crate) fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Usage {
        cpu: process_cpu(pid),
        written: field(&io, "write_bytes:"),
        peak_memory: field(&status, "VmHWM:") * 1024,
        threads: field(&status, "Threads:"),
        switches: switches(pid),
    }
}

fn process_cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks; utime and stime are fields 12 and 13 behind it.
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<u32>().ok())
        .sum();
    TICK * ticks
}

fn switches(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .map(|status| {
            field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:")
        })
        .sum()
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn first_number(path: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The machine, as far as it explains a figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// Appending 4 KiB and fdatasync, one after another.
    pub(crate) fdatasync: Summary,
}

impl Machine {
    /// Looks around; the sync probe writes 1 MiB into `dir`.
    pub(crate) fn look(dir: &Path) -> anyhow::Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field(&memory, "MemTotal:") * 1024,
            fdatasync: fdatasync(dir)?,
        })
    }
}

fn fdatasync(dir: &Path) -> anyhow::Result<Summary> {
    let path = dir.join("sync-probe");
    let mut file = fs::File::create(&path)?;
    let block = [7_u8; 4096];
    let mut latencies = Histogram::default();
    for _ in 0..256 {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(begin.elapsed());
    }
    fs::remove_file(&path)?;
    Ok(latencies.summary())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_threads_and_memory() {
        let own = usage(std::process::id());
        assert!(own.threads >= 1 && own.peak_memory > 1 << 20, "{own:?}");
    }

    #[test]
    fn fields_are_found_at_line_starts_only() {
        let text = "xVmHWM:\t1 kB\nVmHWM:\t  420 kB\n";
        assert_eq!(field(text, "VmHWM:"), 420);
        assert_eq!(field(text, "Absent:"), 0);
    }
}
