//! Rules between keys: time-outs that contain each other, limits that contain each other.

use std::time::Duration;

use super::duration;
use super::keys::{DisableWord, Draft};
use super::load::Origins;
use super::mistakes::{Mistake, Place};
use super::sections::{Config, Delivery};
use crate::model::Profile;

/// Descriptors beside connections: listeners, the store's tables, logs, timers (`reliability.md` 6).
const OTHER_FILES: u64 = 512;

impl Config {
    /// Open files the gateway may need at once under these limits. The start compares it with what
    /// the system grants and refuses when that is less.
    pub fn open_files(&self) -> u64 {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        // Idle connections kept for re-use count beside the attempts under way.
        let outgoing = wide(self.delivery.max_in_flight).saturating_mul(2);
        wide(self.server.max_connections)
            .saturating_add(outgoing)
            .saturating_add(OTHER_FILES)
    }

    /// Idle outgoing connections that may be kept when the system grants so many open files: those
    /// that the limits count on, and what is granted beyond the limits.
    pub fn idle_connections(&self, granted: u64) -> usize {
        let spare = granted.saturating_sub(self.open_files());
        let spare = usize::try_from(spare).unwrap_or(usize::MAX);
        let room = self.delivery.max_in_flight.saturating_add(spare);
        self.delivery.max_idle_connections.min(room)
    }
}

/// Adds what keys get wrong about each other. Rules over a key that was refused are left out: its
/// mistake is reported already, and its value is not the one that was meant.
pub(super) fn related(
    config: &Config,
    draft: &Draft,
    origins: &Origins,
    mistakes: &mut Vec<Mistake>,
) {
    let mut rules = Rules { origins, mistakes };
    times(config, draft, &mut rules);
    limits(config, &mut rules);
    tls(config, &mut rules);
    log_level(config, &mut rules);
    signatures(&config.delivery, &mut rules);
}

struct Rules<'a> {
    origins: &'a Origins,
    mistakes: &'a mut Vec<Mistake>,
}

impl Rules<'_> {
    /// Reports `what` at the place of the first of `keys` that was set, unless `holds`.
    fn rule(&mut self, holds: bool, keys: &[&str], what: impl FnOnce() -> String) {
        let origin = |key: &&str| self.origins.get(*key);
        let refused = keys.iter().any(|key| origin(key).is_some_and(|o| !o.good));
        if holds || refused {
            return;
        }
        let place = keys.iter().find_map(origin);
        self.mistakes.push(Mistake {
            place: place.map_or(Place::Default, |origin| origin.place.clone()),
            what: what(),
        });
    }

    /// Two ordered values: `small` must be at most `large`.
    fn at_most<T: PartialOrd + Copy>(
        &mut self,
        small: (&str, T),
        large: (&str, T),
        show: impl Fn(T) -> String,
    ) {
        self.rule(small.1 <= large.1, &[small.0, large.0], || {
            format!(
                "{}: {} must not be above {} ({})",
                small.0,
                show(small.1),
                large.0,
                show(large.1)
            )
        });
    }
}

fn times(config: &Config, draft: &Draft, rules: &mut Rules<'_>) {
    let (server, delivery) = (&config.server, &config.delivery);
    rules.rule(
        delivery.connect_timeout < delivery.timeout,
        &["delivery.connect_timeout", "delivery.timeout"],
        || {
            format!(
                "delivery.connect_timeout: {} must be below delivery.timeout ({}), which contains it",
                duration::show(delivery.connect_timeout),
                duration::show(delivery.timeout)
            )
        },
    );
    rules.at_most(
        ("server.header_timeout", server.header_timeout),
        ("server.body_timeout", server.body_timeout),
        duration::show,
    );
    // Otherwise every stop cuts off attempts that would have ended, and they are made twice.
    rules.at_most(
        ("delivery.timeout", delivery.timeout),
        ("server.drain_timeout", server.drain_timeout),
        duration::show,
    );
    if draft.disable == DisableWord::Duration {
        rules.at_most(
            ("delivery.disable_span", draft.disable_span),
            ("delivery.disable_after", draft.disable_after),
            duration::show,
        );
    }
    // The state of a delivery is told from its attempts: without them it would be made again.
    rules.at_most(
        ("retention.messages", config.retention.messages),
        ("retention.attempts", config.retention.attempts),
        duration::show,
    );
    let window = retry_window(delivery);
    let need = window + Duration::from_secs(86_400);
    rules.rule(
        config.retention.messages >= need,
        &[
            "retention.messages",
            "delivery.retry_schedule",
            "delivery.jitter",
        ],
        || {
            format!(
                "retention.messages: {} must be at least the retry window ({} with jitter) plus 1d",
                duration::show(config.retention.messages),
                duration::show(Duration::from_secs(window.as_secs()))
            )
        },
    );
}

/// Longest time from the first to the last attempt without `Retry-After`.
fn retry_window(delivery: &Delivery) -> Duration {
    let delays: Duration = delivery.retry_schedule.iter().sum();
    delays.mul_f64(1.0 + delivery.jitter)
}

fn limits(config: &Config, rules: &mut Rules<'_>) {
    let (ingest, delivery) = (&config.ingest, &config.delivery);
    let number = |n: u64| n.to_string();
    let count = |n: usize| n.to_string();
    let size = |n: crate::base::ByteSize| n.to_string();
    rules.at_most(
        (
            "delivery.endpoint_concurrency",
            usize::from(delivery.endpoint_concurrency),
        ),
        ("delivery.max_in_flight", delivery.max_in_flight),
        count,
    );
    rules.at_most(
        ("delivery.max_in_flight", delivery.max_in_flight),
        ("delivery.max_in_memory", delivery.max_in_memory),
        count,
    );
    rules.at_most(
        ("ingest.max_pending_per_app", ingest.max_pending_per_app),
        ("ingest.max_pending", ingest.max_pending),
        number,
    );
    rules.at_most(
        (
            "ingest.max_pending_bytes_per_app",
            ingest.max_pending_bytes_per_app,
        ),
        ("ingest.max_pending_bytes", ingest.max_pending_bytes),
        size,
    );
    rules.at_most(
        ("ingest.max_body", ingest.max_body),
        ("ingest.max_batch_body", ingest.max_batch_body),
        size,
    );
    rules.at_most(
        ("ingest.max_body", ingest.max_body),
        (
            "ingest.max_pending_bytes_per_app",
            ingest.max_pending_bytes_per_app,
        ),
        size,
    );
    // A batch that can never find room would be refused for ever with "try again".
    rules.at_most(
        ("ingest.max_batch_body", ingest.max_batch_body),
        ("ingest.queue_bytes", ingest.queue_bytes),
        size,
    );
    rules.at_most(
        ("ingest.max_group", ingest.max_group),
        ("ingest.queue", ingest.queue),
        count,
    );
    // The same for what a provider sends: its events are one commit.
    rules.at_most(
        ("inbound.max_body", config.inbound.max_body),
        ("ingest.queue_bytes", ingest.queue_bytes),
        size,
    );
    // Four sealed tables make the store wait; the journals must hold more than that.
    rules.rule(
        config.storage.max_journal.get() >= config.storage.memtable.get().saturating_mul(4),
        &["storage.max_journal", "storage.memtable"],
        || {
            format!(
                "storage.max_journal: {} must be at least four times storage.memtable ({})",
                config.storage.max_journal, config.storage.memtable
            )
        },
    );
}

fn tls(config: &Config, rules: &mut Rules<'_>) {
    let server = &config.server;
    rules.rule(
        server.tls_cert.is_some() == server.tls_key.is_some(),
        &["server.tls_cert", "server.tls_key"],
        || String::from("server.tls_cert and server.tls_key go together: name both or neither"),
    );
    rules.rule(
        server.metrics_listen != Some(server.listen) || server.listen.port() == 0,
        &["server.metrics_listen", "server.listen"],
        || {
            format!(
                "server.metrics_listen: {} is server.listen as well",
                server.listen
            )
        },
    );
}

/// A level, or directives `target=level`, separated by commas.
fn log_level(config: &Config, rules: &mut Rules<'_>) {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_target = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        !text.is_empty() && text.chars().all(allowed)
    };
    let is_directive = |text: &str| match text.trim().split_once('=') {
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
        None => LEVELS.contains(&text.trim()),
    };
    let level = &config.log.level;
    rules.rule(level.split(',').all(is_directive), &["log.level"], || {
        format!(
            "log.level: `{level}` is not understood: write one of {}, or directives such as \
             info,posthaste::deliver=debug",
            LEVELS.join(", ")
        )
    });
}

fn signatures(delivery: &Delivery, rules: &mut Rules<'_>) {
    let presets = &delivery.signature_presets;
    for (name, value) in presets {
        let wrong = preset_mistake(name, value);
        rules.rule(wrong.is_none(), &["delivery.signature_presets"], || {
            let why = wrong.unwrap_or_default();
            format!("delivery.signature_presets.{name}: {why}")
        });
    }
    let signature = delivery.signature.as_str();
    let known = matches!(signature, "standard" | "dual") || presets.contains_key(signature);
    rules.rule(
        known,
        &["delivery.signature", "delivery.signature_presets"],
        || {
            let mut names = vec!["standard", "dual"];
            names.extend(presets.keys().map(String::as_str));
            format!(
                "delivery.signature: `{signature}` is none of {}",
                names.join(", ")
            )
        },
    );
}

/// What is wrong with a preset, if anything.
fn preset_mistake(name: &str, value: &serde_json::Value) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Some(String::from("a name has 1 to 64 of a-z, 0-9, - and _"));
    }
    if matches!(name, "standard" | "dual" | "hex" | "timestamped") {
        return Some(String::from("this name is that of a built-in profile"));
    }
    let headers = match serde_json::from_value(value.clone()) {
        Err(error) => return Some(error.to_string()),
        Ok(Profile::Standard | Profile::Dual) => Vec::new(),
        Ok(Profile::Timestamped { header }) => vec![header],
        Ok(Profile::Hex(hex)) => {
            let optional = [hex.type_header, hex.id_header, hex.timestamp_header];
            std::iter::once(hex.header)
                .chain(optional.into_iter().flatten())
                .collect()
        }
    };
    let bad = |header: &String| http::HeaderName::from_bytes(header.as_bytes()).is_err();
    headers
        .into_iter()
        .find(bad)
        .map(|header| format!("`{header}` is no header name"))
}
