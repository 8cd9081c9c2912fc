//! Requests made from the valid vectors by one change each: every one must be refused.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use posthaste::providers::{Credentials, Integrity, Refusal};
use serde_json::Value;

use super::kit::{Facts, Request, Vector};

/// A public key that none of the vectors is signed for.
const OTHER_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";

/// A secret of the same form as `secret`, and another one.
pub(super) fn other_secret(facts: &Facts, secret: &str) -> String {
    match facts.text("secret_encoding") {
        "spki_base64" => OTHER_KEY.to_owned(),
        "whsec" => format!("whsec_{}", STANDARD.encode([7; 24])),
        _ => format!("{secret}x"),
    }
}

/// A valid vector that is changed, and the complaints about changes that went unnoticed.
struct Bench {
    vector: Vector,
    facts: Facts,
    with: Credentials,
    tried: usize,
    wrong: Vec<String>,
}

impl Bench {
    fn new(vector: Vector) -> Self {
        let with = vector.credentials();
        Self {
            facts: Facts::of(&vector.provider),
            vector,
            with,
            tried: 0,
            wrong: Vec::new(),
        }
    }

    fn refusal(&self, request: &Request) -> Option<Refusal> {
        let (manifest, now) = (self.vector.manifest(), self.vector.now());
        request.verify(manifest, &self.with, now).err()
    }

    fn refused(&mut self, what: impl FnOnce() -> String, request: &Request) {
        self.tried += 1;
        if self.refusal(request).is_none() {
            let Vector { provider, note, .. } = &self.vector;
            self.wrong
                .push(format!("{provider}: {note}: {} is accepted", what()));
        }
    }

    /// The request with those entries of a list of signatures that it needs, so that a change is a
    /// change of what counts.
    fn minimal(&self) -> Request {
        let mut request = self.vector.request();
        let separator = match self.facts.text("format") {
            "kv" => ",",
            "space_list" => " ",
            _ => return request,
        };
        let name: HeaderName = self.facts.header_at("signature").unwrap().parse().unwrap();
        let value = request.headers[&name].to_str().unwrap().to_owned();
        let mut entries: Vec<&str> = value.split(separator).collect();
        let mut at = 0;
        while at < entries.len() {
            let mut fewer = entries.clone();
            fewer.remove(at);
            let joined = HeaderValue::from_str(&fewer.join(separator)).unwrap();
            let mut smaller = request.clone();
            smaller.headers.insert(name.clone(), joined);
            if self.refusal(&smaller).is_none() {
                (entries, request) = (fewer, smaller);
            } else {
                at += 1;
            }
        }
        request
    }

    /// Every byte of every header that counts.
    fn flip_headers(&mut self, good: &Request) {
        for name in self.facts.headers() {
            let name: HeaderName = name.parse().unwrap();
            let Some(value) = good.headers.get(&name).cloned() else {
                continue;
            };
            for at in 0..value.len() {
                let mut bytes = value.as_bytes().to_vec();
                bytes[at] ^= 1;
                if is_same_scheme(&bytes, value.as_bytes()) {
                    continue; // the word `Basic` counts in any case
                }
                if let Ok(changed) = HeaderValue::from_bytes(&bytes) {
                    let mut request = good.clone();
                    request.headers.insert(name.clone(), changed);
                    self.refused(|| format!("byte {at} of {name}"), &request);
                }
            }
            for keep in [0, value.len() / 2, value.len() - 1] {
                let mut request = good.clone();
                let cut = HeaderValue::from_bytes(&value.as_bytes()[..keep]).unwrap();
                request.headers.insert(name.clone(), cut);
                self.refused(|| format!("{name} cut to {keep}"), &request);
            }
            let mut request = good.clone();
            request.headers.append(name.clone(), value);
            self.refused(|| format!("{name} twice"), &request);
            request.headers.remove(&name);
            self.refused(|| format!("no {name}"), &request);
        }
    }

    /// Every byte of the body, or of the fields that are signed.
    fn flip_body(&mut self, good: &Request) {
        let body = good.body.to_vec();
        let places: Vec<usize> = match self.vector.manifest().integrity() {
            Integrity::Body => (0..body.len()).collect(),
            Integrity::Metadata => self.signed_places(&body),
            Integrity::Origin | Integrity::None => Vec::new(),
        };
        for at in places {
            let mut changed = body.clone();
            changed[at] ^= 1;
            let mut request = good.clone();
            request.body = Bytes::from(changed);
            self.refused(|| format!("byte {at} of the body"), &request);
        }
        if self.vector.manifest().integrity() == Integrity::Body {
            for changed in [[&body[..], b" "].concat(), [b" ", &body[..]].concat()] {
                let mut request = good.clone();
                request.body = Bytes::from(changed);
                self.refused(|| String::from("a blank beside the body"), &request);
            }
        }
    }

    /// Where the signed fields and the signature stand in the body.
    fn signed_places(&self, body: &[u8]) -> Vec<usize> {
        let text = std::str::from_utf8(body).unwrap();
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        // The JSON within a multipart form begins at its first brace; within a plain form it is coded.
        let inner = text
            .find('{')
            .and_then(|from| json(text.get(from..=text.rfind('}')?)?));
        let Some(document) = inner else {
            return Vec::new();
        };
        let message = format!(
            "{}{{{}}}",
            self.facts.message(),
            self.facts.text("signature")
        );
        let mut places = Vec::new();
        for path in message.split("{json:").skip(1) {
            let path = path.split('}').next().unwrap().replace('.', "/");
            let value = match document.pointer(&format!("/{path}")).unwrap() {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let at = text.find(&value).unwrap();
            places.extend(at..at + value.len());
        }
        places
    }

    /// Every byte of the URL, where it is signed; not those of its port, where the manifest says that
    /// the provider may leave it out.
    fn flip_url(&mut self, good: &Request) {
        if !self.facts.message().contains("{url}") {
            return;
        }
        let without_port = !self.facts.first("url_variants").is_empty();
        let after_scheme = good.url.get(8..).unwrap();
        let port = after_scheme.find(':').filter(|_| without_port);
        let port = port.map_or(usize::MAX, |at| at + 8);
        let tail = after_scheme.find('/').unwrap() + 8;
        for at in (0..good.url.len()).filter(|at| !(port..tail).contains(at)) {
            let mut bytes = good.url.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = good.clone().at(std::str::from_utf8(&bytes).unwrap());
            self.refused(|| format!("byte {at} of the URL"), &changed);
        }
        if self.facts.message().contains("{method}") {
            let mut request = good.clone();
            request.method = http::Method::PUT;
            self.refused(|| String::from("another method"), &request);
        }
    }

    fn swap_secret(&mut self, good: &Request) {
        let other = other_secret(&self.facts, &self.vector.secret);
        let mut with = self.with.clone();
        let names: Vec<_> = with.secrets.keys().cloned().collect();
        with.secrets.clear();
        for name in &names {
            with = with.with_secret(name, &other);
        }
        let own = std::mem::replace(&mut self.with, with);
        if !names.is_empty() {
            self.refused(|| String::from("another secret"), good);
        }
        let held = std::mem::take(&mut self.with.secrets);
        self.with.jwks = None;
        self.refused(|| String::from("no secret"), good);
        self.with.secrets = held;
        self.with = own;
    }

    /// Both sides of the window, and its edges, which are inside.
    fn leave_the_window(&mut self, good: &Request) {
        let manifest = self.vector.manifest();
        let Some(tolerance) = manifest.tolerance() else {
            return;
        };
        let verified = good.verify(manifest, &self.with, self.vector.now());
        let signed_at = verified.unwrap().timestamp.unwrap();
        let beyond = tolerance + Duration::from_secs(1);
        for (now, inside) in [
            (signed_at.plus(tolerance), true),
            (signed_at.minus(tolerance), true),
            (signed_at.plus(beyond), false),
            (signed_at.minus(beyond), false),
        ] {
            self.tried += 1;
            let verdict = good.verify(manifest, &self.with, now).map(drop);
            let wanted = if inside {
                Ok(())
            } else {
                Err(Refusal::StaleTimestamp)
            };
            if verdict != wanted {
                self.wrong
                    .push(format!("{}: at {now}: {verdict:?}", self.vector.provider));
            }
        }
    }
}

/// `Basic` and `basic` are one word.
fn is_same_scheme(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b) && b.starts_with(b"Basic ") && a[6..] == b[6..]
}

#[test]
fn every_change_of_a_valid_request_is_refused() {
    let mut wrong = Vec::new();
    let mut tried = 0;
    for vector in Vector::valid() {
        let mut bench = Bench::new(vector);
        let good = bench.minimal();
        assert_eq!(bench.refusal(&good), None, "{}", bench.vector.provider);
        bench.flip_headers(&good);
        bench.flip_body(&good);
        bench.flip_url(&good);
        bench.swap_secret(&good);
        bench.leave_the_window(&good);
        assert!(
            bench.tried >= 2,
            "{} has no mutations",
            bench.vector.provider
        );
        tried += bench.tried;
        wrong.append(&mut bench.wrong);
    }
    assert!(tried > 5_000, "only {tried} changes");
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
