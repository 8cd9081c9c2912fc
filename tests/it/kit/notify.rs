//! A service manager as far as a service sees it: the socket behind `NOTIFY_SOCKET`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use super::{Launch, eventually};

/// One datagram.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

/// Listens until it is dropped.
pub(crate) struct Manager {
    dir: TempDir,
    said: Arc<Mutex<Vec<Said>>>,
    listening: JoinHandle<()>,
}

impl Manager {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&said);
        let listening = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let at = Instant::now();
                record.lock().push(Said { at, text });
            }
        });
        Self {
            dir,
            said,
            listening,
        }
    }

    /// Tells a gateway where to report, and that it is watched: silence for `watchdog` means dead.
    pub(crate) fn watch(&self, launch: Launch, watchdog: Duration) -> Launch {
        let socket = self.dir.path().join("notify").display().to_string();
        launch
            .variable("NOTIFY_SOCKET", socket)
            .variable("WATCHDOG_USEC", watchdog.as_micros().to_string())
    }

    /// Everything so far.
    pub(crate) fn all(&self) -> Vec<Said> {
        self.said.lock().clone()
    }

    /// When each message that holds the line `line` came.
    pub(crate) fn times(&self, line: &str) -> Vec<Instant> {
        let all = self.all();
        let with = all.iter().filter(|said| said.has(line));
        with.map(|said| said.at).collect()
    }

    /// Waits until `count` messages with `line` have come; answers the last of them.
    pub(crate) async fn heard(&self, line: &str, count: usize, within: Duration) -> Said {
        eventually(&format!("{count} times {line}"), within, async || {
            let all = self.all();
            all.into_iter().filter(|said| said.has(line)).nth(count - 1)
        })
        .await
    }

    /// Waits until no ping has come for `time`.
    pub(crate) async fn silence(&self, time: Duration, within: Duration) {
        eventually("the watchdog is silent", within, async || {
            let last = *self.times("WATCHDOG=1").last()?;
            (last.elapsed() > time).then_some(())
        })
        .await
    }
}

impl Said {
    /// Whether one of its lines is `line`; a line that ends with `=` may have any value.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.text
            .lines()
            .any(|one| one == line || (line.ends_with('=') && one.starts_with(line)))
    }

    /// The value of a variable.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.listening.abort();
        if std::thread::panicking() {
            for said in self.all() {
                eprintln!("--- said {:?} ago: {:?}", said.at.elapsed(), said.text);
            }
        }
    }
}
