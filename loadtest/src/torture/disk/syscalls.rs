//! System calls that fail, and the record of all that were made, by strace.
//!
//! Each thread logs into a file of its own, so no line is torn by another; the times are wall time.
//! With `-D` the gateway stays the harness's child, and signals and exit codes are its own. strace
//! counts the calls of each thread by itself. Elsewhere: calls that are slow ([`super::super::tracer`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::until;

/// A traced run of the gateway: put [`Tracing::wrapper`] before its binary, [`Tracing::read`] after.
pub(super) struct Tracing {
    dir: PathBuf,
}

/// One traced call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Traced {
    /// Unix microseconds when it began.
    pub(super) at: u64,
    pub(super) name: String,
    /// Of the first argument, if that is a file.
    pub(super) path: Option<String>,
    pub(super) injected: bool,
    pub(super) failed: bool,
    pub(super) line: String,
}

impl Tracing {
    /// Logs go to `dir`, which must be new.
    pub(super) fn to(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// The words before the binary: traces what writes and syncs files; `inject` is an expression of
    /// strace such as `fdatasync:error=EIO:when=3`, `only` names files for `write` (whose calls are
    /// mostly those of sockets).
    pub(super) fn wrapper(&self, inject: Option<&str>, only: &[PathBuf]) -> Vec<String> {
        let log = self.dir.join("trace").display().to_string();
        let traced = "trace=fsync,fdatasync,write,pwrite64,ftruncate,rename,sync_file_range";
        let mut words: Vec<String> = [
            "strace",
            "-D",
            "-ff",
            "-q",
            "-y",
            "-ttt",
            "-T",
            "-s",
            "0",
            "-o",
            &log,
            "-e",
            traced,
            "-e",
            "signal=none",
        ]
        .map(str::to_owned)
        .into();
        for path in only {
            words.extend(["-P".to_owned(), path.display().to_string()]);
        }
        if let Some(inject) = inject {
            words.extend(["-e".to_owned(), format!("inject={inject}")]);
        }
        words
    }

    /// All traced calls, in the order they began. The gateway must have ended.
    pub(super) fn read(&self) -> anyhow::Result<Vec<Traced>> {
        // strace ends after its tracee; every thread's log has a last line.
        let logs = until(
            "strace has written its logs",
            Duration::from_secs(10),
            || {
                let mut logs = Vec::new();
                for entry in fs::read_dir(&self.dir)? {
                    let text = fs::read(entry?.path())?;
                    logs.push(String::from_utf8_lossy(&text).into_owned());
                }
                let ended = |log: &String| log.trim_end().ends_with("+++");
                Ok((!logs.is_empty() && logs.iter().all(ended)).then_some(logs))
            },
        )?;
        let lines = logs.iter().flat_map(|log| log.lines());
        let mut all: Vec<_> = lines.filter_map(parse).collect();
        all.sort_by_key(|call| call.at);
        Ok(all)
    }
}

/// `1795315280.364802 fdatasync(13</data/db/0.jnl>) = -1 EIO (Input/output error) (INJECTED) <0.1>`
fn parse(line: &str) -> Option<Traced> {
    let (time, rest) = line.split_once(' ')?;
    let (seconds, micros) = time.split_once('.')?;
    let at = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let (name, arguments) = rest.split_once('(')?;
    let path = arguments
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix('<')
        .and_then(|path| path.split_once('>'))
        .map(|(path, _)| path.to_owned());
    let (_, result) = rest.rsplit_once(" = ").unwrap_or((rest, ""));
    Some(Traced {
        at,
        name: name.to_owned(),
        path,
        injected: result.contains("(INJECTED)"),
        failed: result.starts_with("-1"),
        line: line.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_strace_is_taken_apart() {
        let line = "1795315280.364802 fdatasync(13</data/db/0.jnl>) = -1 EIO (Input/output error) (INJECTED) <0.000100>";
        let call = parse(line).unwrap();
        assert_eq!(call.at, 1_795_315_280_364_802);
        assert_eq!(
            (call.name.as_str(), call.injected, call.failed),
            ("fdatasync", true, true)
        );
        assert_eq!(call.path.as_deref(), Some("/data/db/0.jnl"));
        let line = r#"1795315280.364802 write(9</d/a>, ""..., 12) = 12 <0.000100>"#;
        let call = parse(line).unwrap();
        assert_eq!((call.injected, call.failed), (false, false));
        assert_eq!(call.path.as_deref(), Some("/d/a"));
        assert_eq!(parse("+++ exited with 74 +++"), None);
    }
}
