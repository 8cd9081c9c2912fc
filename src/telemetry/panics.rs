//! The panic hook: where it happened is logged and counted, what it said is not.
//!
//! A panic's text can hold anything, a payload or a secret included, so it stays out of the log.

use std::panic::PanicHookInfo;

use crate::metrics::ProcessMetrics;

/// Installs the hook for the whole process, in place of the one that prints to standard error.
pub fn install(metrics: ProcessMetrics) {
    std::panic::set_hook(Box::new(move |info| report(info, &metrics)));
}

fn report(info: &PanicHookInfo<'_>, metrics: &ProcessMetrics) {
    metrics.panics.increment(1);
    let place = info
        .location()
        .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    tracing::error!(place, thread, "panic");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition;

    #[test]
    fn a_panic_is_counted() {
        let (page, metrics) = exposition::scoped(ProcessMetrics::register).expect("a recorder");
        let before = std::panic::take_hook();
        install(metrics);
        let thread = crate::base::task::thread("doomed", || panic!("secret"));
        let ended = thread.expect("a thread starts").join();
        std::panic::set_hook(before);
        assert!(ended.is_err());
        assert!(page.render().contains("posthaste_panics_total 1"));
    }
}
