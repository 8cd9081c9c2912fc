//! What the fuzzer and the replay of its seeds run (`src/fuzzing.rs`).

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::catalogue::Catalogue;
use super::credentials::Credentials;
use super::events::events;
use super::handshake::handshake;
use super::manifest::{Draft, Integrity};
use super::place::{Content, Where};
use super::received::Received;
use super::verify::verify;
use crate::base::Timestamp;

/// A request as any provider could send it: the first line is the query, then `name: value` lines, and
/// behind an empty line the body. Every manifest sees it; nobody who lacks the secret is believed.
pub fn request(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (data.get(..end), data.get(end + 2..)),
        None => (Some(data), None),
    };
    let mut lines = head.unwrap_or_default().split(|byte| *byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let name = HeaderName::from_bytes(name.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    let body = Bytes::copy_from_slice(body.unwrap_or_default());
    let url = format!("https://gateway.example/in/x?{query}");
    let received = Received {
        method: &Method::POST,
        public_url: &url,
        query: &query,
        headers: &headers,
        body: &body,
    };
    with_every_manifest(&received);
}

/// Read once: an input is a request, not a start.
static CATALOGUE: LazyLock<Option<Catalogue>> = LazyLock::new(|| Catalogue::builtin().ok());

fn with_every_manifest(received: &Received<'_>) {
    let Some(catalogue) = CATALOGUE.as_ref() else {
        return;
    };
    let now = Timestamp::from_millis(1_764_000_000_000);
    for manifest in catalogue.all().filter(|manifest| manifest.is_receivable()) {
        let mut with = Credentials::default();
        for name in manifest.credentials() {
            // 24 bytes that no seed signs with, as text and as base64.
            with = with.with_secret(name, "ZnV6emluZy1rZXktdGhhdC1zaWducy1ub3Q=");
        }
        let verdict = verify(manifest, received, &with, now);
        let open = manifest.integrity() == Integrity::None;
        assert!(
            verdict.is_err() || open,
            "{} takes a forgery",
            manifest.id()
        );
        for method in [&Method::POST, &Method::GET] {
            let asked = Received {
                method,
                ..*received
            };
            drop(handshake(manifest, &asked, &with));
        }
        for event in events(manifest, received).unwrap_or_default() {
            assert!(event.payload.starts_with(b"{"), "no object");
            assert!(event.event_type.len() <= 256 && event.id.is_none_or(|id| id.len() <= 256));
        }
    }
}

/// A manifest, or the first line as where-expression over the rest.
pub fn manifest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (draft, mistakes) = Draft::read("fuzz", "fuzz.toml", &text);
    if mistakes.is_empty() {
        drop(draft.finish(None));
    }
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(place) = Where::parse(first) {
        let content = Content {
            headers: &HeaderMap::new(),
            json: Some(rest.as_bytes()),
            form: &[(String::from("a"), rest.to_owned())],
            xml: Some(rest),
        };
        let (one, all) = (place.find(content, false), place.find(content, true));
        assert_eq!(one.is_some(), all.is_some(), "{first}");
    }
}
