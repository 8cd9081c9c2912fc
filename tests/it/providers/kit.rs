//! Requests, sources and manifests as the tests of this folder write them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use posthaste::base::Timestamp;
use posthaste::providers::{
    Catalogue, Credentials, Jwks, Manifest, Received, Refusal, Verified, verify,
};
use serde::Deserialize;

use crate::kit::repository;

/// The manifests that are compiled in.
pub(super) static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::builtin().unwrap_or_else(|mistakes| {
        let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
});

pub(super) fn manifest(id: &str) -> &'static Arc<Manifest> {
    let found = CATALOGUE.get(id);
    found.unwrap_or_else(|| panic!("there is no manifest {id}"))
}

/// The URL where a vector does not say one.
pub(super) const URL: &str = "https://gw.example.com/in/x";

/// A request that owns its parts, so that tests can change them.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn post(body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            url: URL.to_owned(),
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    #[must_use]
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    #[must_use]
    pub(super) fn at(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }

    pub(super) fn received(&self) -> Received<'_> {
        Received {
            method: &self.method,
            public_url: &self.url,
            query: self.url.split_once('?').map_or("", |(_, query)| query),
            headers: &self.headers,
            body: &self.body,
        }
    }

    pub(super) fn verify(
        &self,
        manifest: &Manifest,
        with: &Credentials,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        verify(manifest, &self.received(), with, now)
    }
}

/// An entry of `vectors.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vector {
    pub(super) provider: String,
    #[serde(rename = "scheme")]
    _scheme: String,
    pub(super) secret: String,
    pub(super) method: String,
    #[serde(default = "default_url")]
    pub(super) url: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
    pub(super) now: u64,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
    pub(super) valid: bool,
    pub(super) note: String,
    #[serde(rename = "origin")]
    _origin: String,
}

fn default_url() -> String {
    URL.to_owned()
}

impl Vector {
    pub(super) fn all() -> Vec<Self> {
        fixture("vectors.json")
    }

    /// Those that must verify.
    pub(super) fn valid() -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|vector| vector.valid)
            .collect()
    }

    pub(super) fn manifest(&self) -> &'static Manifest {
        manifest(&self.provider)
    }

    pub(super) fn request(&self) -> Request {
        let mut request = Request::post(self.body.clone()).at(&self.url);
        request.method = self.method.parse().unwrap();
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    pub(super) fn credentials(&self) -> Credentials {
        let mut with = credentials(self.manifest(), &self.secret);
        with.config.clone_from(&self.config);
        with
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now * 1000)
    }

    pub(super) fn verdict(&self) -> Result<Verified, Refusal> {
        self.request()
            .verify(self.manifest(), &self.credentials(), self.now())
    }
}

/// A source that holds `secret` under the one name that its manifest wants, or as key set.
pub(super) fn credentials(manifest: &Manifest, secret: &str) -> Credentials {
    let mut with = Credentials::default();
    if manifest.jwks_url().is_some() {
        with.jwks = Some(Arc::new(Jwks::parse(secret).unwrap()));
    }
    for name in manifest.credentials() {
        if !secret.is_empty() {
            with = with.with_secret(name, secret);
        }
    }
    with
}

pub(super) fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = repository("tests/fixtures/providers").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// `[webhook.verify]` of a manifest's file, read a second time and without the engine.
pub(super) struct Facts(toml::Table);

impl Facts {
    pub(super) fn of(id: &str) -> Self {
        let path = repository("src/providers/manifests").join(format!("{id}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        let file: toml::Table = text.parse().unwrap();
        let webhook = file["webhook"].as_table().unwrap();
        if let Some(base) = webhook.get("inherit") {
            return Self::of(base.as_str().unwrap());
        }
        Self(webhook["verify"].as_table().unwrap().clone())
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", |value| value.as_str().unwrap())
    }

    pub(super) fn first(&self, key: &str) -> &str {
        let list = self.0.get(key).and_then(|value| value.as_array());
        list.map_or("", |list| list[0].as_str().unwrap())
    }

    pub(super) fn kind(&self) -> &str {
        self.text("kind")
    }

    pub(super) fn message(&self) -> &str {
        match self.text("message") {
            "" => "{body}",
            message => message,
        }
    }

    /// The header of a place such as `header:NAME`; the first of a numbered family.
    pub(super) fn header_at(&self, key: &str) -> Option<String> {
        let name = self.text(key).strip_prefix("header:")?;
        Some(name.replace("{n}", "1").to_ascii_lowercase())
    }

    /// Every header that the check reads and that cannot be left out.
    pub(super) fn headers(&self) -> Vec<String> {
        let mut names = Vec::new();
        for key in ["signature", "timestamp", "token"] {
            names.extend(self.header_at(key).filter(|name| !name.contains('{')));
        }
        if matches!(self.kind(), "basic") || self.text("token") == "bearer" {
            names.push(String::from("authorization"));
        }
        for part in self.message().split("{header:").skip(1) {
            let name = part.split('}').next().unwrap();
            names.push(name.to_ascii_lowercase());
        }
        names
    }
}
