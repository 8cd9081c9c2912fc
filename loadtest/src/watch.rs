//! Looks at a run while it goes on: progress for whoever waits, samples of the gateway for the time
//! line.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::gateway::Gateway;
use crate::machine::Usage;
use crate::receiver::Receiver;
use crate::record::Sample;

/// Between two samples; a sample costs a few reads of `/proc`.
const EVERY: Duration = Duration::from_millis(500);
/// Between two lines where a line cannot be overwritten.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is watched.
pub(crate) struct Watched<'a> {
    pub(crate) label: &'a str,
    /// Planned length of the load.
    pub(crate) length: Duration,
    pub(crate) gateway: &'a Gateway,
    pub(crate) receiver: &'a Receiver,
    /// Messages acknowledged so far.
    pub(crate) accepted: &'a AtomicU64,
    pub(crate) over: &'a AtomicBool,
}

impl Watched<'_> {
    /// Until `over` is set. Call it when the load begins.
    pub(crate) fn watch(&self) -> Vec<Sample> {
        let begin = Instant::now();
        let first = self.usage();
        let mut before = (begin, first);
        let mut counted = (0, 0);
        let mut said = begin;
        let mut samples = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(EVERY);
            let (now, usage) = (Instant::now(), self.usage());
            if usage.cpu < before.1.cpu {
                continue; // it is being restarted
            }
            let seconds = now.duration_since(before.0).as_secs_f64();
            samples.push(Sample {
                at: now.duration_since(begin).as_secs_f64(),
                cores: usage.cpu.saturating_sub(before.1.cpu).as_secs_f64() / seconds,
                memory_mib: mebi(usage.memory),
                written_mib: mebi(usage.written.saturating_sub(first.written)),
            });
            before = (now, usage);
            let delivered = self.receiver.with_ledger(|ledger| ledger.delivered);
            let accepted = self.accepted.load(Ordering::Relaxed);
            let rate = |count: u64, before: u64| count.saturating_sub(before) as f64 / seconds;
            let line = format!(
                "{}: {:.0} of {:.0} s, accepted {:.0}/s, delivered {:.0}/s, {accepted} and {delivered} in all",
                self.label,
                begin.elapsed().as_secs_f64(),
                self.length.as_secs_f64(),
                rate(accepted, counted.0),
                rate(delivered, counted.1),
            );
            counted = (accepted, delivered);
            if std::io::stderr().is_terminal() {
                progress(&format!("\r\x1b[K{line}"));
            } else if said.elapsed() >= LINE_EVERY {
                said = Instant::now();
                progress(&format!("{line}\n"));
            }
        }
        if std::io::stderr().is_terminal() {
            progress("\r\x1b[K");
        }
        samples
    }

    fn usage(&self) -> Usage {
        let usages = self.gateway.usages().into_values();
        usages.fold(Usage::default(), |sum, one| Usage {
            memory: sum.memory + one.memory,
            ..sum.and_ended(one)
        })
    }
}

/// Says what is going on, apart from the results.
pub(crate) fn progress(text: &str) {
    let mut out = std::io::stderr().lock();
    // A closed terminal must not end a measurement.
    if out.write_all(text.as_bytes()).is_ok() && out.flush().is_err() {}
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
