//! Backups of the running gateway: who may write where, one at a time, and what is told of them.
//!
//! A backup goes into a folder of its own below `storage.backup_dir`; a client names that folder and
//! nothing else, so no request reaches another path. The steps: hold the files there are, let the
//! commit thread stand still for a moment ([`crate::lane::Lane::hold`]) to complete them, then copy
//! beside the traffic.
//!
//! Invariant: one backup at a time; a refusal has written nothing. Elsewhere: the form of a backup and
//! how it is restored (`store::fjall::backup`), the route (`api`), the command (`cli`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::base::{Clock, Timestamp, task};
use crate::lane::{self, Lane};
use crate::metrics::BackupMetrics;
use crate::store::fjall::backup as files;
use crate::store::fjall::backup::{About, Capture, Written};

pub use crate::store::fjall::backup::Source;

/// Longest name of a backup.
const MAX_NAME: usize = 100;
/// Captures begun anew because journals came and went meanwhile.
const TRIES: usize = 5;
/// Commits should not wait longer than this for a backup (`reliability.md` D10).
pub const PAUSE_BUDGET: Duration = Duration::from_millis(100);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator has not said where backups may go.
    #[error("storage.backup_dir is not set: the running gateway writes no backups")]
    NotConfigured,
    /// The name is no plain file name.
    #[error(
        "the name of a backup is 1 to {MAX_NAME} letters, digits, '.', '_' or '-', and begins with none of '.', '-'"
    )]
    BadName,
    /// Another one is not finished yet.
    #[error("another backup is under way")]
    Running,
    /// Copying failed, or was refused.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The commit thread.
    #[error(transparent)]
    Lane(#[from] lane::Error),
    /// The thread that copied is gone.
    #[error("the backup was interrupted")]
    Interrupted,
    /// It was begun several times, and journals came and went each time.
    #[error("the journals change too fast; try again")]
    Restless,
}

/// What backups need.
pub struct Parts {
    /// The store's files.
    pub source: Source,
    /// The commit thread.
    pub lane: Lane,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// `storage.backup_dir`.
    pub dir: Option<PathBuf>,
    /// `storage.reserve`: left free on the disk that is written to.
    pub reserve: u64,
    /// Version of the binary.
    pub version: &'static str,
}

/// Takes backups of this process's store.
pub struct Backups {
    parts: Parts,
    metrics: BackupMetrics,
    running: Arc<AtomicBool>,
    newest: Mutex<Option<Timestamp>>,
}

/// A backup that was let in: its place is free and large enough. Dropping it gives up.
pub struct Begun {
    name: String,
    to: PathBuf,
    capture: Capture,
    _turn: Turn,
}

impl Begun {
    /// The folder below `storage.backup_dir`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The right to be the one backup under way.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A backup that is complete.
#[derive(Debug)]
pub struct Done {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub written: Written,
    /// For how long commits had to wait.
    pub pause: Duration,
    /// From the pause to the end.
    pub took: Duration,
}

/// Whether `name` can be the folder of a backup.
///
/// # Errors
/// [`Error::BadName`].
pub fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.chars().all(plain);
    good.then_some(()).ok_or(Error::BadName)
}

/// The name of a backup that was not given one: `posthaste-20261122T023000Z`.
pub fn name_for(now: Timestamp) -> String {
    let kept = |c: &char| c.is_ascii_digit() || *c == 'T';
    let time = now.rfc3339();
    let whole = time.split('.').next().unwrap_or_default();
    let digits: String = whole.chars().filter(kept).collect();
    format!("posthaste-{digits}Z")
}

impl Backups {
    /// Looks for the newest backup of any kind in the folder, for its age. Reads the disk.
    pub fn new(parts: Parts) -> Self {
        let newest = parts.dir.as_deref().and_then(files::newest);
        Self {
            parts,
            metrics: BackupMetrics::register(),
            running: Arc::new(AtomicBool::new(false)),
            newest: Mutex::new(newest),
        }
    }

    /// Lets a backup in if none is under way and its place is free and large enough; holds the files
    /// there are. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::NotConfigured`], [`Error::BadName`], [`Error::Running`]; [`Error::Files`] if the place
    /// is taken, too small or cannot be used. Nothing is written.
    pub fn begin(&self, name: &str) -> Result<Begun, Error> {
        let dir = self.parts.dir.as_deref().ok_or(Error::NotConfigured)?;
        check_name(name)?;
        if self.running.swap(true, Ordering::AcqRel) {
            return Err(Error::Running);
        }
        let turn = Turn(Arc::clone(&self.running));
        let parent = files::make_folder(dir)?;
        let to = parent.join(name);
        if to.symlink_metadata().is_ok() {
            return Err(files::Error::Taken(to).into());
        }
        let capture = self.parts.source.begin()?;
        capture.fits(&parent, self.parts.reserve)?;
        Ok(Begun {
            name: name.to_owned(),
            to,
            capture,
            _turn: turn,
        })
    }

    /// Completes and copies it. `instance` goes into the manifest. Not cancel safe: a dropped future
    /// leaves the copying thread to its end, without a trace in log and metrics.
    ///
    /// # Errors
    /// As [`Error`] says; what was begun is removed.
    pub async fn finish(&self, begun: Begun, instance: Option<String>) -> Result<Done, Error> {
        let path = begun.to.clone();
        info!(path = %path.display(), "backup begun");
        let done = self.copy(begun, instance).await;
        match &done {
            Ok(done) => self.tell(done),
            Err(cause) => {
                self.metrics.failed.increment(1);
                error!(%cause, reason = because(cause), path = %path.display(), "backup failed");
            }
        }
        done
    }

    async fn copy(&self, begun: Begun, instance: Option<String>) -> Result<Done, Error> {
        let Begun {
            to, capture, _turn, ..
        } = begun;
        let began = self.parts.clock.monotonic();
        let (capture, held) = self.still(capture).await?;
        let about = About {
            product: self.parts.version.to_owned(),
            instance,
            created: held.value,
        };
        let (standing, pause) = (held.standing, held.pause);
        self.metrics.pause.record(pause.as_secs_f64());
        let place = to.clone();
        // The turn goes along: the next backup waits for the thread, not for this future.
        let written = beside(move || {
            let written = capture.write(&standing, &place, &about);
            drop(_turn);
            written
        });
        Ok(Done {
            path: to,
            written: written.await??,
            pause,
            took: self.parts.clock.monotonic().saturating_sub(began),
        })
    }

    /// Completes the capture while nothing is written; answers the instant.
    async fn still(&self, mut capture: Capture) -> Result<(Capture, lane::Held<Timestamp>), Error> {
        for _ in 0..TRIES {
            let clock = Arc::clone(&self.parts.clock);
            let held = self.parts.lane.hold(move || {
                let complete = capture.still();
                (capture, complete, clock.now())
            });
            let lane::Held {
                value: (done, complete, now),
                standing,
                pause,
            } = held.await?;
            if complete? {
                let held = lane::Held {
                    value: now,
                    standing,
                    pause,
                };
                return Ok((done, held));
            }
            drop(done);
            let source = self.parts.source.clone();
            capture = beside(move || source.begin()).await??;
        }
        Err(Error::Restless)
    }

    fn tell(&self, done: &Done) {
        let manifest = &done.written.manifest;
        self.metrics.finished.increment(1);
        *self.newest.lock() = Some(manifest.created);
        let pause_ms = u64::try_from(done.pause.as_millis()).unwrap_or(u64::MAX);
        info!(
            path = %done.path.display(),
            batch = manifest.batch,
            lane = manifest.tail.lane,
            seq = manifest.tail.seq,
            files = manifest.files.len(),
            bytes = manifest.bytes(),
            copied = done.written.copied,
            pause_ms,
            took_ms = u64::try_from(done.took.as_millis()).unwrap_or(u64::MAX),
            "backup finished"
        );
        if done.pause > PAUSE_BUDGET {
            warn!(
                pause_ms,
                "the backup held up commits for longer than 100 ms"
            );
        }
    }

    /// Shows how old the newest backup is. Called every few seconds.
    pub fn show_age(&self) {
        let newest = *self.newest.lock();
        let age = newest.map(|newest| self.parts.clock.now().since(newest));
        self.metrics
            .age
            .set(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
    }

    /// Whether backups of the running gateway are possible at all.
    pub fn folder(&self) -> Option<&Path> {
        self.parts.dir.as_deref()
    }
}

/// The innermost cause, which says most.
fn because(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Runs blocking work on a thread for it.
async fn beside<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    task::blocking(body).await.ok_or(Error::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_folder() {
        for good in ["a", "posthaste-20261122T023000Z", "x.1_2", &"a".repeat(100)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "a/b",
            "a b",
            "a\0",
            "ä",
            &"a".repeat(101),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unnamed_backup_is_named_by_its_second() {
        let now = Timestamp::from_millis(1_767_600_000_123);
        let name = name_for(now);
        assert_eq!(name, "posthaste-20260105T080000Z");
        assert!(check_name(&name).is_ok());
    }
}
