//! From a provider's event to a message: its name, its place, and where it comes from.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use crate::directory::Snapshot;
use crate::ingest::{EventIn, Signed};
use crate::model::{AppNo, Source};
use crate::providers::{Event, Integrity, Manifest, Verified};

/// Longest value of a header that is kept.
const MAX_VALUE: usize = 256;
/// Headers of every provider that are kept, beside those its manifest lists.
const KEPT: &[&str] = &["content-type", "user-agent", "date", "x-request-id"];

/// The engine's word for what "verified" means, as receipts and metadata show it.
pub(super) const fn integrity(integrity: Integrity) -> &'static str {
    match integrity {
        Integrity::Body => "body",
        Integrity::Metadata => "metadata",
        Integrity::Origin => "origin",
        Integrity::None => "none",
    }
}

/// The events of a verified request that cannot be read: one event that holds the body as it came. It is
/// the provider's, and some send it once only.
pub(super) fn unread(manifest: &Manifest, body: &Bytes) -> Event {
    let payload = match std::str::from_utf8(body) {
        Ok(text) => json!({ "raw": text }),
        Err(_) => json!({ "rawBase64": STANDARD.encode(body) }),
    };
    Event {
        event_type: format!("{}.event", manifest.id()),
        id: None,
        account: None,
        payload: payload.to_string().into(),
        raw: None,
        headers: BTreeMap::new(),
    }
}

/// The message that an event becomes.
pub(super) fn message(
    source: &Source,
    (verified, hops): (&Verified, u8),
    apps: &Snapshot,
    (place, event): (usize, Event),
    headers: &HeaderMap,
) -> EventIn {
    let is_bound = matches!(verified.integrity, Integrity::Body | Integrity::Metadata);
    let signed = is_bound.then_some(Signed {
        source: source.no,
        digest: verified.digest,
        place,
    });
    let ours = source.event_types.get(&event.event_type);
    let metadata = metadata(source, verified.integrity, &event, headers);
    EventIn {
        app: application(source, event.account.as_deref(), apps),
        event_type: ours.cloned().unwrap_or(event.event_type),
        event_id: event.id,
        signed,
        payload: event.payload,
        metadata,
        tags: vec![source.id.to_string()],
        hops,
    }
}

/// The application of an account at the provider; the source's own one for all others, and for those
/// whose application was deleted.
fn application(source: &Source, account: Option<&str>, apps: &Snapshot) -> AppNo {
    let named = account.and_then(|account| source.accounts.get(account));
    let there = named.filter(|no| apps.app_by_no(**no).is_some());
    there.copied().unwrap_or(source.app)
}

fn metadata(
    source: &Source,
    bound: Integrity,
    event: &Event,
    headers: &HeaderMap,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        (String::from("source"), source.id.to_string()),
        (String::from("provider"), source.provider.clone()),
        (String::from("integrity"), integrity(bound).to_owned()),
    ]);
    if let Some(account) = &event.account {
        out.insert(String::from("account"), short(account));
    }
    let common = KEPT.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    let listed = event.headers.iter();
    let listed = listed.map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in common.chain(listed) {
        // A manifest may list the header that a token stands in.
        if !holds_secret(source, &value) {
            out.insert(format!("header.{name}"), short(&value));
        }
    }
    if let Some(raw) = &event.raw {
        let (name, text) = match std::str::from_utf8(raw) {
            Ok(text) => ("raw", text.to_owned()),
            Err(_) => ("rawBase64", STANDARD.encode(raw)),
        };
        // A token in a form field is the provider's proof, not ours to spread; the parsed payload has
        // what it says.
        if !holds_secret(source, &text) {
            out.insert(name.to_owned(), text);
        }
    }
    out
}

fn holds_secret(source: &Source, text: &str) -> bool {
    let held = source.secrets.values().flatten();
    let mut texts = held.map(|held| held.secret.reveal());
    texts.any(|secret| secret.len() >= 4 && text.contains(secret))
}

fn short(text: &str) -> String {
    text.chars().take(MAX_VALUE).collect()
}
