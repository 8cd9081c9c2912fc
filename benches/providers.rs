//! Verifying a provider's request, by scheme: once per request on the inbound route, before anything
//! else that costs.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark may stop")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, Method};
use posthaste::base::Timestamp;
use posthaste::providers::{Catalogue, Credentials, Jwks, Manifest, Received, events, verify};
use serde::Deserialize;

/// One provider for each scheme.
const SCHEMES: &[(&str, &str)] = &[
    ("github", "hmac-sha256-hex"),
    ("stripe", "hmac-sha256-list"),
    ("standard_webhooks", "standard-webhooks"),
    ("docusign", "hmac-sha256-numbered"),
    ("hubspot", "hmac-sha256-url"),
    ("twilio", "hmac-sha1-form"),
    ("dropbox_sign", "hmac-sha256-multipart"),
    ("sendgrid", "ecdsa-p256"),
    ("gmail", "jwt-rs256"),
    ("monday", "jwt-hs256"),
    ("microsoft_outlook", "token-in-each"),
    ("google_calendar", "token-in-header"),
    ("pipedrive", "basic"),
];

#[derive(Deserialize)]
struct Vector {
    provider: String,
    secret: String,
    #[serde(default)]
    url: String,
    headers: BTreeMap<String, String>,
    body: String,
    now: u64,
    #[serde(default)]
    config: BTreeMap<String, String>,
    valid: bool,
}

struct Request {
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    fn received(&self) -> Received<'_> {
        Received {
            method: &Method::POST,
            public_url: &self.url,
            query: self.url.split_once('?').map_or("", |(_, query)| query),
            headers: &self.headers,
            body: &self.body,
        }
    }
}

fn request(vector: &Vector) -> Request {
    let header = |(name, value): (&String, &String)| {
        let name: HeaderName = name.parse().expect("a name");
        (name, value.parse().expect("a value"))
    };
    Request {
        url: vector.url.clone(),
        headers: vector.headers.iter().map(header).collect(),
        body: Bytes::from(vector.body.clone()),
    }
}

fn credentials(manifest: &Manifest, vector: &Vector) -> Credentials {
    let mut with = Credentials {
        config: vector.config.clone(),
        ..Credentials::default()
    };
    if manifest.jwks_url().is_some() {
        with.jwks = Some(Arc::new(Jwks::parse(&vector.secret).expect("a key set")));
    }
    for name in manifest.credentials() {
        with = with.with_secret(name, &vector.secret);
    }
    with
}

fn providers(criterion: &mut Criterion) {
    let catalogue = Catalogue::builtin().expect("good manifests");
    let text = include_str!("../tests/fixtures/providers/vectors.json");
    let vectors: Vec<Vector> = serde_json::from_str(text).expect("vectors");
    let mut group = criterion.benchmark_group("providers");
    for (provider, scheme) in SCHEMES {
        let mut found = vectors.iter();
        let vector = found.find(|vector| vector.valid && vector.provider == *provider);
        let vector = vector.unwrap_or_else(|| panic!("no vector of {provider}"));
        let manifest = catalogue.get(provider).expect("a manifest");
        let (request, with) = (request(vector), credentials(manifest, vector));
        let now = Timestamp::from_millis(vector.now * 1000);
        group.bench_function(*scheme, |bencher| {
            bencher.iter(|| {
                let verdict = verify(manifest, &black_box(request.received()), &with, now);
                assert!(verdict.is_ok(), "{provider}: {verdict:?}");
            });
        });
    }
    let manifest = catalogue.get("sendgrid").expect("a manifest");
    let event = r#"{"event":"delivered","sg_event_id":"ZHJvcC0xMDk5NDkx","email":"a@example.com"}"#;
    let request = Request {
        url: String::new(),
        headers: HeaderMap::new(),
        body: Bytes::from(format!("[{}{event}]", format!("{event},").repeat(99))),
    };
    group.bench_function("events-of-a-batch-of-100", |bencher| {
        bencher.iter(|| {
            let events = events(manifest, &black_box(request.received()));
            assert_eq!(events.map(|events| events.len()), Ok(100));
        });
    });
    group.finish();
}

criterion_group!(benches, providers);
criterion_main!(benches);
