//! Rules that hold for any request: what the vectors sample, tried with made-up input.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use posthaste::base::Timestamp;
use posthaste::providers::{Credentials, Integrity, Manifest, Refusal, events, handshake};
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Map, Value, json};

use super::kit::{CATALOGUE, Facts, Request, Vector, credentials};

/// The moment of every request of this kind.
pub(super) const NOW: u64 = 1_764_000_000;

/// A sender that knows the manifest's file and a secret, and nothing of the engine.
pub(super) struct Sender {
    pub(super) manifest: &'static Manifest,
    facts: Facts,
    key: Vec<u8>,
    with: Credentials,
}

static VALID: LazyLock<Vec<Vector>> = LazyLock::new(Vector::valid);

/// Read once: a property has hundreds of cases.
static EVERYBODY: LazyLock<Vec<Sender>> = LazyLock::new(Sender::everybody);

impl Sender {
    /// One for each provider with a MAC.
    pub(super) fn all() -> Vec<&'static Self> {
        EVERYBODY
            .iter()
            .filter(|sender| sender.facts.kind() == "hmac")
            .collect()
    }

    /// One for each provider that sends anything.
    fn everybody() -> Vec<Self> {
        let receivable = CATALOGUE.all().filter(|manifest| manifest.is_receivable());
        let senders = receivable.map(|manifest| Self::new(manifest, Facts::of(manifest.id())));
        senders.collect()
    }

    fn new(manifest: &'static Manifest, facts: Facts) -> Self {
        let key: Vec<u8> = (40..72).collect();
        let secret = match facts.text("secret_encoding") {
            "whsec" => format!("whsec_{}", STANDARD.encode(&key)),
            _ => String::from_utf8(key.clone()).unwrap(),
        };
        let with = match manifest.jwks_url() {
            Some(_) => Credentials::default(),
            None => credentials(manifest, &secret),
        };
        Self {
            manifest,
            facts,
            key,
            with,
        }
    }

    /// A signed request around `body`; the timestamp lies `age` seconds before [`NOW`].
    pub(super) fn send(&self, body: &[u8], age: i64) -> Request {
        let seconds = NOW.checked_add_signed(-age).unwrap();
        let ts = match self.facts.text("ts_unit") {
            "ms" => format!("{seconds}000"),
            "iso" => Timestamp::from_millis(seconds * 1000).rfc3339(),
            _ => seconds.to_string(),
        };
        let mut request = Request::post(body.to_vec()).at("https://gw.example.com/in/x?a=b%3Ac");
        if self.facts.message().contains("{form}") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        if self.is_in_payload() {
            return self.sign_payload(request, seconds);
        }
        if let Some(name) = self.facts.header_at("timestamp") {
            request = request.header(&name, &ts);
        }
        for part in self.facts.message().split("{header:").skip(1) {
            request = request.header(part.split('}').next().unwrap(), "id.1");
        }
        let message = self.message(&request, &ts);
        let sign = self.sign(&message);
        let value = match self.facts.text("format") {
            "kv" => format!(
                "{}={ts},{}={sign}",
                self.facts.text("kv_ts"),
                self.facts.first("kv_sig")
            ),
            "space_list" => format!("{},{sign}", self.facts.first("kv_sig")),
            _ => format!("{}{sign}", self.facts.text("prefix")),
        };
        let name = self.facts.header_at("signature").unwrap();
        request.header(&name, &value)
    }

    /// The secret's text.
    pub(super) fn secret(&self) -> &str {
        let name = self.manifest.credentials()[0];
        self.with.secrets[name][0].as_str()
    }

    fn is_in_payload(&self) -> bool {
        self.facts.text("signature").starts_with("json:")
    }

    fn sign(&self, message: &[u8]) -> String {
        let alg = match self.facts.text("alg") {
            "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "sha256" => hmac::HMAC_SHA256,
            other => panic!("{other}"),
        };
        let tag = hmac::sign(&hmac::Key::new(alg, &self.key), message);
        match self.facts.text("encoding") {
            "base64" => STANDARD.encode(tag),
            _ => tag
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }

    /// Whether the signed message is a text that the provider's handshake has signed for a stranger.
    fn may_be_a_challenge(&self, request: &Request) -> bool {
        let message = match self.manifest.id() {
            "twitter" | "linkedin" => self.message(request, ""),
            _ => return false,
        };
        let harmless = |b: &u8| b.is_ascii_alphanumeric() || b"._~+/=-".contains(b);
        (1..=256).contains(&message.len()) && message.iter().all(harmless)
    }

    /// The template read from left to right.
    fn message(&self, request: &Request, ts: &str) -> Vec<u8> {
        let mut message = Vec::new();
        let mut rest = self.facts.message();
        while let Some((text, after)) = rest.split_once('{') {
            message.extend_from_slice(text.as_bytes());
            let (name, after) = after.split_once('}').unwrap();
            match name {
                "body" => message.extend_from_slice(&request.body),
                "ts" => message.extend_from_slice(ts.as_bytes()),
                "method" => message.extend_from_slice(b"POST"),
                "url" if self.facts.first("url_decode") == "%3A" => {
                    message.extend_from_slice(
                        request
                            .url
                            .replace("%3A", ":")
                            .replace("%3a", ":")
                            .as_bytes(),
                    );
                }
                "url" => message.extend_from_slice(request.url.as_bytes()),
                "form" => message.extend_from_slice(&sorted(&request.body)),
                header => {
                    let name = header.strip_prefix("header:").unwrap();
                    message.extend_from_slice(request.headers[name].as_bytes());
                }
            }
            rest = after;
        }
        message.extend_from_slice(rest.as_bytes());
        message
    }

    /// Signature, and what is signed, as fields of a JSON body (or of a form's field `json`).
    fn sign_payload(&self, request: Request, seconds: u64) -> Request {
        let mut document = json!({});
        let mut message = String::new();
        for (no, part) in self.facts.message().split("{json:").skip(1).enumerate() {
            let path = part.split('}').next().unwrap();
            let value = format!("{}{no}", seconds * 1000);
            message.push_str(&value);
            put(&mut document, path, &value);
        }
        let path = self.facts.text("signature").strip_prefix("json:").unwrap();
        put(&mut document, path, &self.sign(message.as_bytes()));
        let text = document.to_string();
        if self.facts.text("payload") == "multipart:json" {
            let body = format!(
                "--B\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{text}\r\n--B--\r\n"
            );
            let request = Request::post(body).at(&request.url);
            return request.header("content-type", "multipart/form-data; boundary=B");
        }
        Request::post(text).at(&request.url)
    }

    fn verdict(&self, request: &Request) -> Result<(), Refusal> {
        let now = Timestamp::from_millis(NOW * 1000);
        request.verify(self.manifest, &self.with, now).map(drop)
    }
}

fn put(document: &mut Value, path: &str, value: &str) {
    let mut here = document;
    for step in path.split('.') {
        let object = match here {
            Value::Object(object) => object,
            other => {
                *other = Value::Object(Map::new());
                other.as_object_mut().unwrap()
            }
        };
        here = object.entry(step).or_insert(Value::Null);
    }
    *here = Value::from(value);
}

/// The form with its fields sorted, by another crate than the engine's own reader.
fn sorted(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = url::form_urlencoded::parse(body).into_owned().collect();
    fields.sort();
    fields.dedup();
    fields
        .into_iter()
        .flat_map(|(key, value)| (key + &value).into_bytes())
        .collect()
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[a-z]{1,4}=[a-z+]{0,4}(&[a-c]=[0-9]{1,2}){0,6}".prop_map(String::into_bytes),
        r#"\{"(ts|body|a)": ?"(\{ts\}|\{body\}|x)"\}"#.prop_map(String::into_bytes),
    ]
}

/// Cases to try; more with `POSTHASTE_CASES`.
fn config() -> ProptestConfig {
    let cases = std::env::var("POSTHASTE_CASES");
    ProptestConfig {
        cases: cases.ok().and_then(|n| n.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn what_a_sender_signs_verifies_and_no_changed_byte_does(
        body in bodies(), age in -300_i64..=300, at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let senders = Sender::all();
        prop_assert!(senders.len() > 25);
        for sender in &senders {
            let id = sender.manifest.id();
            let is_form = sender.facts.message().contains("{form}");
            if is_form && std::str::from_utf8(&body).is_err() {
                continue; // no form has such bytes without escapes
            }
            let tolerance = sender.manifest.tolerance().map_or(300, |t| t.as_secs());
            let age = age * i64::try_from(tolerance).unwrap() / 300;
            let request = sender.send(&body, age);
            if sender.may_be_a_challenge(&request) {
                prop_assert_eq!(sender.verdict(&request), Err(Refusal::BadSignature), "{}", id);
                continue;
            }
            prop_assert_eq!(sender.verdict(&request), Ok(()), "{}", id);
            if request.body.is_empty() || sender.manifest.integrity() != Integrity::Body || is_form {
                continue;
            }
            let mut changed = request.body.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            let mut request = request;
            request.body = changed.into();
            prop_assert!(sender.verdict(&request).is_err(), "{} byte {}", id, at);
        }
    }

    #[test]
    fn the_case_and_the_order_of_headers_make_no_difference(turn in 0..20_usize, upper in any::<bool>()) {
        for vector in VALID.iter() {
            let mut headers: Vec<_> = vector.headers.clone().into_iter().collect();
            headers.push((String::from("X-Unrelated"), String::from("1")));
            let turn = turn % headers.len();
            headers.rotate_left(turn);
            let mut request = Request::post(vector.body.clone()).at(&vector.url);
            request.headers = HeaderMap::new();
            for (name, value) in headers {
                let name = if upper { name.to_uppercase() } else { name.to_lowercase() };
                request = request.header(&name, &value);
            }
            let verdict = request.verify(vector.manifest(), &vector.credentials(), vector.now());
            prop_assert!(verdict.is_ok(), "{}: {verdict:?}", vector.provider);
        }
    }

    #[test]
    fn nothing_panics_and_nothing_verifies_by_chance(
        body in prop::collection::vec(any::<u8>(), 0..300),
        json in r#"\{"(token|signature|event|value|events|challenge|ids)": ?("x"|1e9|null|\[\{"clientState":"x"\}\]|\{"event_hash":"00"\})\}"#,
        as_json in any::<bool>(),
        value in "[ -~]{0,80}",
        bytes in prop::collection::vec(0x80..=0xff_u8, 1..8),
        query in "[!-~]{0,60}",
        media in prop::sample::select(vec![
            "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=B",
            "multipart/form-data", "text/xml", "text/xml; charset=utf-8", "",
        ]),
    ) {
        let now = Timestamp::from_millis(NOW * 1000);
        for sender in EVERYBODY.iter() {
            let Sender { manifest, facts, .. } = sender;
            let body = if as_json { json.clone().into_bytes() } else { body.clone() };
            let mut request = Request::post(body).at(&format!("https://gw.example.com/in?{query}"));
            request = request.header("content-type", media);
            for name in facts.headers() {
                let name: HeaderName = name.parse().unwrap();
                let value = [value.as_bytes(), &bytes].concat();
                let value = if as_json { value } else { bytes.clone() };
                request.headers.insert(name, value.as_slice().try_into().unwrap());
            }
            let with = sender.with_any();
            let verdict = request.verify(manifest, &with, now);
            prop_assert!(
                verdict.is_err() || manifest.integrity() == Integrity::None,
                "{} takes {request:?}", manifest.id()
            );
            drop(handshake(manifest, &request.received(), &with));
            for event in events(manifest, &request.received()).unwrap_or_default() {
                let payload: Result<Map<String, Value>, _> = serde_json::from_slice(&event.payload);
                prop_assert!(payload.is_ok(), "{}: {event:?}", manifest.id());
                prop_assert!(is_name(&event.event_type), "{}", event.event_type);
                prop_assert!(event.id.as_deref().is_none_or(is_name), "{:?}", event.id);
            }
        }
    }
}

impl Sender {
    /// What the source holds, with settings where the manifest wants some. The secrets are of a kind
    /// that no generated request holds.
    fn with_any(&self) -> Credentials {
        let mut with = self.with.clone();
        for name in self.manifest.settings() {
            with = with.with_setting(name, "X-Setting");
        }
        with
    }
}

fn is_name(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=256).contains(&text.len()) && text.bytes().all(good)
}
