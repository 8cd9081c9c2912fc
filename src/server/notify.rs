//! Telling the service manager how things stand (`sd_notify`); silent where there is none.
//!
//! Every function is a no-op without `NOTIFY_SOCKET`, and a message that cannot be sent is logged and
//! otherwise ignored: the manager draws its own conclusions from silence.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything is recovered and verified, sockets are open: requests are served.
pub fn ready() {
    send("ready", &[NotifyState::Ready]);
}

/// The drain has begun.
pub fn stopping() {
    send("stopping", &[NotifyState::Stopping]);
}

/// Configuration and certificates are being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send("reloading", &[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic time for the service manager"),
    }
}

/// Start or stop takes longer: not before `further` has passed is it stuck. To be repeated within that
/// time for as long as it goes on.
pub fn extend_timeout(further: Duration) {
    let micros = u32::try_from(further.as_micros()).unwrap_or(u32::MAX);
    send("extend timeout", &[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send("status", &[NotifyState::Status(text)]);
}

/// Still alive. To be sent only by whoever knows that deliveries move, every
/// [`watchdog_limit`] or more often.
pub fn watchdog() {
    send("watchdog", &[NotifyState::Watchdog]);
}

/// For how long the manager bears silence between two calls of [`watchdog`]. `None` = it does not
/// listen.
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

fn send(what: &str, state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, what, "the service manager could not be told");
    }
}
