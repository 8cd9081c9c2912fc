//! Log lines: for people, or one JSON object a line. Written to standard error.
//!
//! Values are escaped in both forms, so no field can start a line of its own (T52). The level can be
//! changed while running; the form cannot.

use std::borrow::Cow;
use std::io;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use super::Error;
use crate::config::{Log, LogFormat};

/// The installed log; changes its level.
#[derive(Clone)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Installs the log for the whole process.
///
/// # Errors
/// The level is not understood, or a log is installed already.
pub fn install(log: &Log) -> Result<Logs, Error> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let subscriber = Registry::default()
        .with(filter)
        .with(lines(log.format, io::stderr));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Installed {
        what: "a log subscriber",
    })?;
    Ok(Logs { filter: handle })
}

impl Logs {
    /// Takes another level from now on.
    ///
    /// # Errors
    /// It is not understood; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), Error> {
        self.filter
            .reload(filter(level)?)
            .map_err(|error| Error::Level {
                level: level.to_owned(),
                why: error.to_string(),
            })
    }
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    // h2 warns once for every connection that floods it, so whoever can connect could fill the log;
    // posthaste_connections_refused_total counts floods. Directives and louder levels show all.
    let directives = match level {
        "warn" | "info" => Cow::Owned(format!("{level},h2=error")),
        _ => Cow::Borrowed(level),
    };
    EnvFilter::try_new(directives).map_err(|error| Error::Level {
        level: level.to_owned(),
        why: error.to_string(),
    })
}

fn lines<S, W>(format: LogFormat, out: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(out);
    match format {
        LogFormat::Human => Box::new(layer.with_ansi(false)),
        LogFormat::Json => Box::new(
            layer
                .fmt_fields(JsonFields::new())
                .event_format(tracing_subscriber::fmt::format().json().flatten_event(true)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: &str, write: impl FnOnce()) -> String {
        let page = Page::default();
        let out = page.clone();
        let subscriber = Registry::default()
            .with(filter(level).expect("a level"))
            .with(lines(format, move || out.clone()));
        tracing::subscriber::with_default(subscriber, write);
        String::from_utf8(page.0.lock().clone()).expect("UTF-8")
    }

    const HOSTILE: &str = "a\r\nb\u{1b}[31m\0\"}\u{2028}c";

    #[test]
    fn json_is_one_valid_object_a_line_whatever_is_in_a_field() {
        let text = written(LogFormat::Json, "info", || {
            tracing::info!(field = HOSTILE, "first");
            tracing::debug!("left out");
            tracing::warn!(field = %HOSTILE, "second");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["field"], HOSTILE);
            assert!(line["timestamp"].is_string() && line["level"].is_string());
        }
    }

    #[test]
    fn human_lines_stay_lines() {
        let text = written(LogFormat::Human, "info", || {
            tracing::info!(field = HOSTILE, "first");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn whoever_floods_a_connection_does_not_flood_the_log() {
        let warn = || {
            tracing::warn!(target: "h2::proto", "a flood");
            tracing::warn!("ours");
        };
        for (level, shown) in [("info", false), ("warn", false), ("debug", true)] {
            let text = written(LogFormat::Human, level, warn);
            assert!(text.contains("ours"), "{level}: {text}");
            assert_eq!(text.contains("a flood"), shown, "{level}: {text}");
        }
    }

    #[test]
    fn directives_choose_by_module() {
        let text = written(LogFormat::Json, "warn,posthaste::telemetry=debug", || {
            tracing::debug!("ours");
            tracing::info!(target: "elsewhere", "theirs");
        });
        assert!(text.contains("ours") && !text.contains("theirs"), "{text}");
        assert!(filter("loud=very").is_err());
    }
}
