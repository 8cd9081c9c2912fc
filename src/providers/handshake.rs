//! Handshakes: what a provider asks before it sends events, answered from the manifest alone.
//!
//! Two kinds are dangerous and fenced in here. `hmac_*` signs a text that a stranger chose, with the key
//! that signs deliveries: only short texts of a harmless alphabet are signed, and a delivery whose signed
//! message is such a text is refused, so that none can be made of a challenge. `echo_*` reflects input: at most 1 KiB, with an exact content type and `nosniff`.
//! Elsewhere: the rate limit of the route, and storing a delivered secret (`inbound`).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, Method};
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::json;
use super::key::{self, Alg, Encoding, Key, SecretEncoding};
use super::manifest::{Manifest, Reply};
use super::place;
use super::reader::Table;
use super::received::Received;
use super::refusal::Refusal;
use super::scheme::{Algorithm, Scheme};

/// Bytes of an echo at most.
const MAX_ECHO: usize = 1024;

/// Characters of a challenge that is signed.
const CHALLENGE: std::ops::RangeInclusive<usize> = 1..=256;

/// Characters of a secret that a handshake delivers.
const DELIVERED: std::ops::RangeInclusive<usize> = 8..=256;

/// What a request is, seen as a handshake.
#[derive(Debug)]
pub enum Handshake {
    /// An ordinary delivery.
    None,
    /// A handshake with its answer.
    Answer(Answer),
    /// A handshake that is not answered.
    Refused(Refusal),
}

/// The answer to a handshake.
pub struct Answer {
    /// What to send.
    pub reply: Reply,
    /// Whether the signature must be good first ([`super::verify()`]).
    pub verify_first: bool,
    /// A secret that came with the handshake: to be stored before the answer is sent, under the name
    /// that [`Manifest::delivered_secret`] says.
    pub store: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.reply.status; // headers and body may hold the delivered secret
        f.debug_struct("Answer")
            .field("status", &status)
            .field("verify_first", &self.verify_first)
            .field("stores", &self.store.is_some())
            .finish()
    }
}

/// Whether the request is a handshake, and its answer. Takes no secret but the first of those that
/// sign; never looks at the clock or the store, so providers with 3 seconds are served from memory.
pub fn handshake(
    manifest: &Manifest,
    request: &Received<'_>,
    credentials: &Credentials,
) -> Handshake {
    let Some(plan) = manifest.handshake_plan() else {
        return Handshake::None;
    };
    match plan.answer(manifest, request, credentials) {
        Ok(None) => Handshake::None,
        Ok(Some(answer)) => Handshake::Answer(answer),
        Err(refusal) => Handshake::Refused(refusal),
    }
}

/// The checked form of `[webhook.handshake]`.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    kind: Kind,
    /// All must hold.
    test: Option<Test>,
    methods: Vec<Method>,
    verify_first: bool,
    status: u16,
    content_type: String,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Nothing but a status.
    Probe,
    /// A field of the body, as text or within a template.
    EchoJson(json::Path, Option<Filling>),
    /// A parameter of the query as text.
    EchoQuery(String),
    /// A header, which is stored as secret too.
    EchoHeader(HeaderName, String),
    /// The code of a parameter of the query, within a template.
    HmacQuery(String, Code),
    /// The code of a field of the body, within a template.
    HmacJson(json::Path, Code),
}

#[derive(Debug, Clone)]
struct Code {
    alg: Alg,
    encoding: Encoding,
    filling: Filling,
}

/// A JSON text with `{value}` and `{mac}` in strings.
#[derive(Debug, Clone)]
struct Filling(String);

#[derive(Debug, Clone)]
enum Test {
    Method(Method),
    Field(json::Path, Option<String>),
    Header(HeaderName, String),
}

impl Plan {
    /// Reads `[webhook.handshake]`. What is wrong is noted in the table's source.
    pub(super) fn read(table: Table<'_, '_>) -> Option<Self> {
        let kind_word = table.needed("kind")?;
        let test = table.parsed("match", Test::parse);
        let filling = table.parsed("reply_json", Filling::parse);
        let kind = match kind_word.value.as_str() {
            "probe" => Some(Kind::Probe),
            "echo_json" => table
                .parsed_needed("field", json::Path::parse)
                .map(|field| Kind::EchoJson(field, filling.clone())),
            "echo_query" => parameter(&table).map(Kind::EchoQuery),
            "echo_header" => {
                let header = table.parsed_needed("header", place::header_name);
                let name = table.needed("store_as").map(|name| name.value);
                header
                    .zip(name)
                    .map(|(header, name)| Kind::EchoHeader(header, name))
            }
            "hmac_query" => parameter(&table)
                .zip(Code::read(&table, filling.clone()))
                .map(|(parameter, code)| Kind::HmacQuery(parameter, code)),
            "hmac_json" => table
                .parsed_needed("field", json::Path::parse)
                .zip(Code::read(&table, filling.clone()))
                .map(|(field, code)| Kind::HmacJson(field, code)),
            _ => {
                let what = "handshake.kind: want echo_json, echo_query, echo_header, hmac_query, \
                            hmac_json or probe";
                table.wrong_at(kind_word.at, what);
                return None; // no telling which keys would be right
            }
        };
        if matches!(kind, Some(Kind::Probe)) && !table.has("match") {
            table.wrong("match is missing: every request would be a probe");
        }
        let status = table.number("reply_status", 200..=299).unwrap_or(200);
        let content_type = table.text("reply_content_type").map(|text| text.value);
        let methods = methods(&table);
        let verify_first = table.flag("verify_first");
        table.number("deadline_s", 1..=60);
        table.finish();
        let is_json = filling.is_some();
        let plain = if is_json {
            "application/json"
        } else {
            "text/plain"
        };
        Some(Self {
            kind: kind?,
            test,
            methods,
            verify_first,
            status: u16::try_from(status).unwrap_or(200),
            content_type: content_type.unwrap_or_else(|| plain.to_owned()),
        })
    }

    /// The name of the secret that comes with the handshake.
    pub(super) fn delivers(&self) -> Option<&str> {
        match &self.kind {
            Kind::EchoHeader(_, name) => Some(name),
            Kind::Probe
            | Kind::EchoJson(..)
            | Kind::EchoQuery(_)
            | Kind::HmacQuery(..)
            | Kind::HmacJson(..) => None,
        }
    }

    /// Whether this message of a delivery may have been signed here for a stranger, who asked for it as a
    /// challenge: then its signature proves nothing.
    pub(super) fn may_have_signed(&self, message: &[&[u8]]) -> bool {
        let signs = matches!(self.kind, Kind::HmacQuery(..) | Kind::HmacJson(..));
        let len: usize = message.iter().map(|part| part.len()).sum();
        signs && CHALLENGE.contains(&len) && is_challenge(&message.concat())
    }

    /// Whether the handshake goes with the check: what it needs of it must be there.
    pub(super) fn fits(&self, scheme: &Scheme) -> Result<(), String> {
        let secrets = scheme.secrets();
        let signs = matches!(
            scheme,
            Scheme::Signed(signed) if matches!(signed.algorithm, Algorithm::Hmac { .. })
        );
        match &self.kind {
            Kind::HmacQuery(..) | Kind::HmacJson(..) if !signs => Err(String::from(
                "webhook.handshake: hmac_query and hmac_json want verify.kind = \"hmac\"",
            )),
            Kind::EchoHeader(_, name) if !secrets.contains(&name.as_str()) => Err(format!(
                "webhook.handshake.store_as: the check has no secret {name}"
            )),
            _ => Ok(()),
        }
    }

    fn answer(
        &self,
        manifest: &Manifest,
        request: &Received<'_>,
        credentials: &Credentials,
    ) -> Result<Option<Answer>, Refusal> {
        let wanted = self.methods.is_empty() || self.methods.contains(request.method);
        if !wanted || !self.test.as_ref().is_none_or(|test| test.holds(request)) {
            return Ok(None);
        }
        match &self.kind {
            Kind::Probe => Ok(Some(self.reply(Bytes::new()))),
            Kind::EchoJson(field, filling) => {
                let Ok(Some(value)) = field.scalar(request.body) else {
                    return Ok(None);
                };
                let body = filling.as_ref().map_or_else(
                    || value.as_bytes().to_vec(),
                    |filling| filling.fill(&value, "").into_bytes(),
                );
                self.echo(body)
            }
            Kind::EchoQuery(name) => match request.parameter(name)? {
                Some(value) => self.echo(value),
                None => Ok(None),
            },
            Kind::EchoHeader(header, name) => match request.header(header)? {
                Some(value) => self.deliver(header, name, value, credentials).map(Some),
                None => Ok(None),
            },
            Kind::HmacQuery(name, code) => match request.parameter(name)? {
                Some(value) => {
                    let value = String::from_utf8(value).map_err(|_| Refusal::BadChallenge)?;
                    self.signed(code, &value, manifest, credentials).map(Some)
                }
                None => Ok(None),
            },
            Kind::HmacJson(field, code) => match field.scalar(request.body) {
                Ok(Some(value)) => self.signed(code, &value, manifest, credentials).map(Some),
                Ok(None) | Err(_) => Err(Refusal::BadChallenge),
            },
        }
    }

    fn echo(&self, body: Vec<u8>) -> Result<Option<Answer>, Refusal> {
        if body.is_empty() || body.len() > MAX_ECHO {
            return Err(Refusal::BadChallenge);
        }
        Ok(Some(self.reply(Bytes::from(body))))
    }

    /// Takes over the secret: once, never in place of another (asana would let anybody replace it).
    fn deliver(
        &self,
        header: &HeaderName,
        name: &str,
        value: &[u8],
        credentials: &Credentials,
    ) -> Result<Answer, Refusal> {
        if !credentials.values(name).is_empty() {
            return Err(Refusal::HandshakeClosed);
        }
        let text = std::str::from_utf8(value).map_err(|_| Refusal::BadChallenge)?;
        let good = DELIVERED.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            return Err(Refusal::BadChallenge);
        }
        let mut answer = self.reply(Bytes::new());
        let echoed = (header.as_str().to_owned(), text.to_owned());
        answer.reply.headers.push(echoed);
        answer.store = Some(Zeroizing::new(text.to_owned()));
        Ok(answer)
    }

    fn signed(
        &self,
        code: &Code,
        value: &str,
        manifest: &Manifest,
        credentials: &Credentials,
    ) -> Result<Answer, Refusal> {
        if !is_challenge(value.as_bytes()) {
            return Err(Refusal::BadChallenge);
        }
        let key = signing_key(manifest, credentials).ok_or(Refusal::NotConfigured)?;
        let mac = key.mac(code.alg, [value.as_bytes()]);
        let mac = code.encoding.encode(mac.as_ref());
        Ok(self.reply(Bytes::from(code.filling.fill(value, &mac))))
    }

    fn reply(&self, body: Bytes) -> Answer {
        let nosniff = ("x-content-type-options", "nosniff");
        Answer {
            reply: Reply {
                status: self.status,
                content_type: self.content_type.clone(),
                headers: vec![(nosniff.0.to_owned(), nosniff.1.to_owned())],
                body,
            },
            verify_first: self.verify_first,
            store: None,
        }
    }
}

/// Whether a text is one of those that are signed for a stranger.
fn is_challenge(text: &[u8]) -> bool {
    let harmless = |b: &u8| b.is_ascii_alphanumeric() || b"._~+/=-".contains(b);
    CHALLENGE.contains(&text.len()) && text.iter().all(harmless)
}

/// The newest secret that signs deliveries.
fn signing_key(manifest: &Manifest, credentials: &Credentials) -> Option<Key> {
    let Scheme::Signed(signed) = manifest.scheme()? else {
        return None;
    };
    let encoding = match &signed.algorithm {
        Algorithm::Hmac { secret, .. } => *secret,
        Algorithm::EcdsaP256 => SecretEncoding::Utf8,
    };
    let keys = credentials.keys(&signed.secret, |text| Key::decode(text, encoding));
    keys.into_iter().next()
}

impl Code {
    fn read(table: &Table<'_, '_>, filling: Option<Filling>) -> Option<Self> {
        let alg = table.word("alg", key::ALGS);
        let encoding = table.word("encoding", key::ENCODINGS);
        for key in ["alg", "encoding", "reply_json"] {
            if !table.has(key) {
                table.wrong(format!("{key} is missing"));
            }
        }
        Some(Self {
            alg: alg?,
            encoding: encoding?,
            filling: filling?,
        })
    }
}

impl Filling {
    fn parse(text: &str) -> Result<Self, String> {
        let filled = Self(text.to_owned()).fill("v", "m");
        if !json::is_json(filled.as_bytes()) {
            return Err(String::from(
                "want JSON with \"{value}\" or \"{mac}\" in strings",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Fills both in, once: what is filled in is not looked at again.
    fn fill(&self, value: &str, mac: &str) -> String {
        let mut out = String::with_capacity(self.0.len() + value.len() + mac.len());
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix("value}") {
                out.push_str(&escaped(value));
                rest = after;
            } else if let Some(after) = after.strip_prefix("mac}") {
                out.push_str(&escaped(mac));
                rest = after;
            } else {
                out.push('{');
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }
}

/// The text as it stands within a JSON string.
fn escaped(text: &str) -> Cow<'_, str> {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = quoted.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    Cow::Owned(inner.unwrap_or_default().to_owned())
}

impl Test {
    /// Reads `method == GET`, `json:P == v`, `json:P exists`, `header:H == v`.
    fn parse(text: &str) -> Result<Self, String> {
        let wanted = "want method == M, json:PATH == TEXT, json:PATH exists or header:NAME == TEXT";
        if let Some(field) = text.strip_suffix(" exists") {
            let path = field.strip_prefix("json:").ok_or(wanted)?;
            return Ok(Self::Field(json::Path::parse(path)?, None));
        }
        let (left, right) = text.split_once(" == ").ok_or(wanted)?;
        match left.split_once(':') {
            None if left == "method" => method(right).map(Self::Method),
            Some(("json", path)) => Ok(Self::Field(
                json::Path::parse(path)?,
                Some(right.to_owned()),
            )),
            Some(("header", name)) => Ok(Self::Header(place::header_name(name)?, right.to_owned())),
            _ => Err(wanted.to_owned()),
        }
    }

    fn holds(&self, request: &Received<'_>) -> bool {
        match self {
            Self::Method(method) => request.method == method,
            Self::Field(path, wanted) => match path.scalar(request.body) {
                Ok(Some(found)) => wanted.as_ref().is_none_or(|wanted| *wanted == found),
                Ok(None) | Err(_) => false,
            },
            Self::Header(name, wanted) => {
                matches!(request.header(name), Ok(Some(found)) if found == wanted.as_bytes())
            }
        }
    }
}

fn parameter(table: &Table<'_, '_>) -> Option<String> {
    table.needed("param").map(|name| name.value)
}

fn methods(table: &Table<'_, '_>) -> Vec<Method> {
    let mut methods = Vec::new();
    for word in table.texts("methods") {
        match method(&word.value) {
            Ok(method) => methods.push(method),
            Err(why) => table.wrong_at(word.at, format!("handshake.methods: {why}")),
        }
    }
    methods
}

fn method(text: &str) -> Result<Method, String> {
    match text {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        _ => Err(format!("{text:?}: want GET, HEAD, POST or PUT")),
    }
}
