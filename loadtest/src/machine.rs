//! What the operating system tells: CPU time, memory, bytes written, and the disk's sync latency.
//!
//! Linux only, from `/proc`. What cannot be read counts as zero: a report with a hole is better
//! than a run that fails at its end.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::hist::{Histogram, Summary};

/// Kernel clock ticks of `/proc/<pid>/stat`; 100 on every Linux platform we run on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the calling thread.
pub(crate) fn own_thread_cpu() -> Duration {
    first_number("/proc/thread-self/schedstat").map_or(Duration::ZERO, Duration::from_nanos)
}

/// A process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time, also of threads that have ended.
    pub(crate) cpu: Duration,
    /// Bytes handed to the disk.
    pub(crate) written: u64,
    /// Resident memory now and at its peak, bytes.
    pub(crate) memory: u64,
    pub(crate) peak_memory: u64,
    /// Threads now.
    pub(crate) threads: u64,
    /// Context switches of the threads that live now.
    pub(crate) switches: u64,
}

impl Usage {
    /// What was used since `before`; levels (memory, threads) stay as they are.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
            switches: self.switches.saturating_sub(before.switches),
            ..self
        }
    }

    /// Together with a process that has ended: sums, and the higher level.
    pub(crate) fn and_ended(self, ended: Self) -> Self {
        Self {
            cpu: self.cpu + ended.cpu,
            written: self.written + ended.written,
            memory: self.memory,
            peak_memory: self.peak_memory.max(ended.peak_memory),
            threads: self.threads.max(ended.threads),
            switches: self.switches + ended.switches,
        }
    }
}

/// Reads the usage of a process.
pub(crate) fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Usage {
        cpu: process_cpu(pid),
        written: field(&io, "write_bytes:"),
        memory: field(&status, "VmRSS:") * 1024,
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// Of one minute, before the run: others on the same machine show here.
    pub(crate) load_average: f64,
    pub(crate) memory_bytes: u64,
    /// Appending 4 KiB and fdatasync, one after another.
    pub(crate) fdatasync: Summary,
}

impl Machine {
    /// Looks around; the sync probe writes 1 MiB into `dir`.
    pub(crate) fn look(dir: &Path) -> anyhow::Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let model = cpu.lines().find(|line| line.starts_with("model name"));
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cpu: model
                .and_then(|line| line.split_once(": "))
                .map_or_else(String::new, |(_, name)| name.to_owned()),
            load_average: load
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field(&memory, "MemTotal:") * 1024,
            fdatasync: fdatasync(dir)?,
        })
    }
}

fn fdatasync(dir: &Path) -> anyhow::Result<Summary> {
    let mut file = tempfile::tempfile_in(dir)?;
    let block = [7_u8; 4096];
    let mut latencies = Histogram::default();
    for _ in 0..256 {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(begin.elapsed());
    }
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
    fn the_usage_of_a_restarted_process_is_the_sum_of_both() {
        let usage = |seconds, peak_memory| Usage {
            cpu: Duration::from_secs(seconds),
            written: seconds,
            peak_memory,
            ..Usage::default()
        };
        let all = usage(2, 10).and_ended(usage(3, 20)).since(usage(1, 0));
        assert_eq!(all, usage(4, 20));
    }

    #[test]
    fn fields_are_found_at_line_starts_only() {
        let text = "xVmHWM:\t1 kB\nVmHWM:\t  420 kB\n";
        assert_eq!(field(text, "VmHWM:"), 420);
        assert_eq!(field(text, "Absent:"), 0);
    }
}
