//! One provider, as its manifest says: the checked form of the file.
//!
//! The parts that describe the provider's API (`oauth2`, `key`, `api`, `actions`, `outbound`) are
//! checked for known keys and types (`outline`) and not kept: nothing uses them yet.

use std::time::Duration;

use bytes::Bytes;

use super::events;
use super::handshake::Plan;
use super::mistake::Mistake;
use super::outline;
use super::place;
use super::reader::{At, Source, Table};
use super::scheme::{Algorithm, Audience, Format, JwtAlg, Scheme, TokenPlace};
use super::template::Part;

/// How long seen event ids are kept when the manifest does not say: longer than any provider's
/// retries (SW16 wants 24 h at least).
const REPLAY: Duration = Duration::from_secs(72 * 3600);

/// The least that a manifest may say instead (SW16).
const REPLAY_SECS: std::ops::RangeInclusive<u32> = 86_400..=2_592_000;

/// What "verified" means for a provider's events. Travels with each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Integrity {
    /// Nothing is checked: the URL alone is secret.
    None,
    /// The sender knows a secret; no byte of the body is bound.
    Origin,
    /// A few fields are bound, the rest of the body is not.
    Metadata,
    /// The bytes of the body are bound.
    Body,
}

const INTEGRITIES: &[(&str, Integrity)] = &[
    ("body", Integrity::Body),
    ("metadata", Integrity::Metadata),
    ("origin", Integrity::Origin),
    ("none", Integrity::None),
];

impl Integrity {
    /// The name in manifests, in the API and in metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Metadata => "metadata",
            Self::Origin => "origin",
            Self::None => "none",
        }
    }
}

/// What a provider is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Credentials, actions and webhooks are known.
    Full,
    /// Credentials and actions are known; there are no signed webhooks.
    Api,
    /// Webhooks are known.
    Inbound,
    /// A preset for destinations.
    Outbound,
    /// Listed with the reason why nothing can be connected.
    DocOnly,
    /// A product whose webhooks follow a general scheme.
    Internal,
}

const STATUSES: &[(&str, Status)] = &[
    ("full", Status::Full),
    ("api", Status::Api),
    ("inbound", Status::Inbound),
    ("outbound", Status::Outbound),
    ("doc_only", Status::DocOnly),
    ("internal", Status::Internal),
];

impl Status {
    /// The name in manifests.
    pub fn name(self) -> &'static str {
        let known = STATUSES.iter().find(|(_, status)| *status == self);
        known.map_or("", |(name, _)| name)
    }
}

/// An exact answer for a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code, 200 to 299.
    pub status: u16,
    /// `Content-Type`, without additions.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// One provider. Immutable; the catalogue shares it.
#[derive(Debug, Clone)]
pub struct Manifest {
    id: String,
    name: String,
    category: String,
    status: Status,
    why: Option<String>,
    webhook: Option<Webhook>,
}

/// The side that receives.
#[derive(Debug, Clone)]
struct Webhook {
    integrity: Integrity,
    scheme: Scheme,
    handshake: Option<Plan>,
    events: events::Plan,
    ack_ms: Option<u32>,
    reply: Option<Reply>,
    replay: Duration,
}

impl Manifest {
    /// The name that sources, URLs and event types use: `[a-z0-9_]`, 1 to 64.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of product it is.
    pub fn category(&self) -> &str {
        &self.category
    }

    /// What the provider is good for.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why nothing can be connected; for [`Status::DocOnly`].
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// What "verified" means here; [`Integrity::None`] for a provider that sends nothing.
    pub fn integrity(&self) -> Integrity {
        let webhook = self.webhook.as_ref();
        webhook.map_or(Integrity::None, |webhook| webhook.integrity)
    }

    /// Whether a source can be made for it.
    pub fn is_receivable(&self) -> bool {
        self.webhook.is_some()
    }

    /// Names of the secrets that a source must hold.
    pub fn credentials(&self) -> Vec<&str> {
        self.scheme().map(Scheme::secrets).unwrap_or_default()
    }

    /// Names of the settings (`{config.x}`) that a source must hold.
    pub fn settings(&self) -> Vec<&str> {
        self.scheme().map(Scheme::settings).unwrap_or_default()
    }

    /// The secret that the handshake delivers: a new source does not hold it yet.
    pub fn delivered_secret(&self) -> Option<&str> {
        self.handshake_plan()?.delivers()
    }

    /// Where the key set is that tokens are checked with.
    pub fn jwks_url(&self) -> Option<&str> {
        match self.scheme()? {
            Scheme::Jwt(jwt) => match &jwt.alg {
                JwtAlg::Rs256(url) => Some(url),
                JwtAlg::Hs256(_) => None,
            },
            Scheme::Signed(_) | Scheme::Token(_) | Scheme::Basic(_) | Scheme::Unsigned => None,
        }
    }

    /// The provider wants its answer within this many milliseconds.
    pub fn ack_ms(&self) -> Option<u32> {
        self.webhook.as_ref()?.ack_ms
    }

    /// The exact answer to an accepted request, where the provider needs one.
    pub fn reply(&self) -> Option<&Reply> {
        self.webhook.as_ref()?.reply.as_ref()
    }

    /// How long the ids of seen events must be kept: longer than the provider retries.
    pub fn replay_window(&self) -> Duration {
        self.webhook
            .as_ref()
            .map_or(REPLAY, |webhook| webhook.replay)
    }

    /// The manifest's tolerance for timestamps; `None` if there is no window.
    pub fn tolerance(&self) -> Option<Duration> {
        let Scheme::Signed(signed) = self.scheme()? else {
            return None;
        };
        let tolerance = signed.timestamp.as_ref()?.tolerance;
        (!tolerance.is_zero()).then_some(tolerance)
    }

    /// Whether a signed timestamp comes with each request, so that a source can set a tolerance.
    pub fn has_timestamp(&self) -> bool {
        matches!(self.scheme(), Some(Scheme::Signed(signed)) if signed.timestamp.is_some())
    }

    /// The check in words, for lists and documents: `HMAC-SHA-256, hex`.
    pub fn scheme_words(&self) -> String {
        let Some(scheme) = self.scheme() else {
            return String::from("none");
        };
        match scheme {
            Scheme::Signed(signed) => {
                let several = match signed.format {
                    Format::Plain => "",
                    Format::Kv { .. } | Format::SpaceList { .. } => ", several signatures",
                };
                match &signed.algorithm {
                    Algorithm::Hmac { alg, .. } => format!("HMAC {}{several}", alg.name()),
                    Algorithm::EcdsaP256 => String::from("ECDSA P-256"),
                }
            }
            Scheme::Jwt(jwt) => match jwt.alg {
                JwtAlg::Rs256(_) => String::from("JWT RS256, key set"),
                JwtAlg::Hs256(_) => String::from("JWT HS256"),
            },
            Scheme::Token(token) => match token.place {
                TokenPlace::Header(_) => String::from("token in a header"),
                TokenPlace::Query(_) => String::from("token in the query"),
                TokenPlace::Json(_) | TokenPlace::JsonEach(..) => String::from("token in the body"),
            },
            Scheme::Basic(_) => String::from("HTTP Basic"),
            Scheme::Unsigned => String::from("unsigned"),
        }
    }

    /// What the check covers, in words; everything else can be changed on the way.
    pub fn covers(&self) -> String {
        match self.scheme() {
            Some(Scheme::Signed(signed)) => {
                let parts = signed.message.parts().iter();
                let named: Vec<String> = parts.filter_map(part_words).collect();
                named.join(", ")
            }
            Some(Scheme::Jwt(jwt)) => {
                let mut covered = vec!["the token's claims"];
                if matches!(jwt.audience, Some(Audience::Url)) {
                    covered.push("URL");
                }
                covered.join(", ")
            }
            Some(Scheme::Token(_) | Scheme::Basic(_) | Scheme::Unsigned) | None => {
                String::from("nothing")
            }
        }
    }

    pub(super) fn scheme(&self) -> Option<&Scheme> {
        self.webhook.as_ref().map(|webhook| &webhook.scheme)
    }

    pub(super) fn handshake_plan(&self) -> Option<&Plan> {
        self.webhook.as_ref()?.handshake.as_ref()
    }

    pub(super) fn events_plan(&self) -> Option<&events::Plan> {
        self.webhook.as_ref().map(|webhook| &webhook.events)
    }

    /// Whether the setting names a header.
    pub(super) fn is_header_setting(&self, name: &str) -> bool {
        let header = |place: &TokenPlace| matches!(place, TokenPlace::Header(place::HeaderPlace::Setting(setting)) if setting == name);
        matches!(self.scheme(), Some(Scheme::Token(token)) if header(&token.place))
    }
}

fn part_words(part: &Part) -> Option<String> {
    Some(match part {
        Part::Body => String::from("body"),
        Part::Ts => String::from("timestamp"),
        Part::Method => String::from("method"),
        Part::Url => String::from("URL"),
        Part::Form => String::from("form fields"),
        Part::Header(name) => format!("header `{name}`"),
        Part::Json(path) => format!("field `{path}`"),
        Part::Text(_) => return None,
    })
}

/// A manifest that was read; its webhook side may wait for that of another.
pub(super) struct Draft {
    manifest: Manifest,
    /// What `[webhook]` says itself.
    webhook: Option<WebhookDraft>,
    pub(super) file: String,
}

struct WebhookDraft {
    inherit: Option<At<String>>,
    line: usize,
    integrity: Option<Integrity>,
    scheme: Option<Scheme>,
    handshake: Option<Plan>,
    events: Option<events::Plan>,
    ack_ms: Option<u32>,
    reply: Option<Reply>,
    replay: Option<Duration>,
}

impl Draft {
    /// The manifest whose webhook side fills the gaps of this one.
    pub(super) fn base(&self) -> Option<&str> {
        let inherit = self.webhook.as_ref()?.inherit.as_ref()?;
        Some(&inherit.value)
    }

    /// Reads a file. What cannot be read is left out and noted.
    pub(super) fn read(id: &str, file: &str, text: &str) -> (Self, Vec<Mistake>) {
        let source = Source::new(file, text);
        let root = source.root();
        let table = Table::root(&source, &root);
        if !is_id(id) {
            table.wrong(format!(
                "the file's name {id:?}: want 1 to 64 of a-z, 0-9 and _"
            ));
        }
        if table.number("schema_version", 1..=1).is_none() && !table.has("schema_version") {
            table.wrong("schema_version is missing: want 1");
        }
        let status = table.word("status", STATUSES);
        if status.is_none() && !table.has("status") {
            table.wrong("status is missing");
        }
        let name = table.parsed_needed("name", |text| filled(text, 80));
        let category = table.parsed_needed("category", |text| filled(text, 40));
        let why = table.text("why").map(|why| why.value);
        if (status == Some(Status::DocOnly)) != why.is_some() && status.is_some() {
            table.wrong("status = \"doc_only\" and why go together");
        }
        outline::check(&table);
        let webhook = table
            .table("webhook")
            .map(|table| WebhookDraft::read(&source, table));
        if webhook.is_some() && status == Some(Status::DocOnly) {
            table.wrong("status = \"doc_only\" has no webhook");
        }
        table.finish();
        let manifest = Manifest {
            id: id.to_owned(),
            name: name.unwrap_or_default(),
            category: category.unwrap_or_default(),
            status: status.unwrap_or(Status::DocOnly),
            why,
            webhook: None,
        };
        let draft = Self {
            manifest,
            webhook,
            file: file.to_owned(),
        };
        (draft, source.into_mistakes())
    }

    /// Puts the manifest together; `base` is what [`Draft::base`] named, if it is known.
    pub(super) fn finish(&self, base: Option<&Self>) -> Result<Manifest, Vec<Mistake>> {
        let mut manifest = self.manifest.clone();
        let Some(own) = &self.webhook else {
            return Ok(manifest);
        };
        let wrong = |what: String| Mistake {
            file: self.file.clone(),
            line: own.line,
            what,
        };
        let base = match (&own.inherit, base) {
            (None, _) => None,
            (Some(named), None) => {
                let what = format!("webhook.inherit: there is no manifest {}", named.value);
                return Err(vec![wrong(what)]);
            }
            (Some(named), Some(base)) => match &base.webhook {
                Some(webhook) if webhook.inherit.is_none() => Some(webhook),
                Some(_) | None => {
                    let what =
                        format!("webhook.inherit: {} has no webhook of its own", named.value);
                    return Err(vec![wrong(what)]);
                }
            },
        };
        own.filled(base)
            .map(|webhook| {
                manifest.webhook = Some(webhook);
                manifest
            })
            .map_err(|missing| missing.into_iter().map(wrong).collect())
    }
}

impl WebhookDraft {
    fn read(source: &Source<'_>, table: Table<'_, '_>) -> Self {
        let inherit = table.text("inherit");
        let integrity = table.word("integrity", INTEGRITIES);
        let scheme = table.table("verify").and_then(Scheme::read);
        let handshake = table.table("handshake").and_then(Plan::read);
        let events = table.table("events").and_then(events::Plan::read);
        let ack = table.number("ack_s", 1..=60);
        let reply = table.table("reply").and_then(read_reply);
        let replay = table.number("replay_s", REPLAY_SECS);
        outline::check_webhook(&table);
        let line = source.line(table.place());
        table.finish();
        Self {
            inherit,
            line,
            integrity,
            scheme,
            handshake,
            events,
            ack_ms: ack.map(|secs| secs * 1000),
            reply,
            replay: replay.map(|secs| Duration::from_secs(secs.into())),
        }
    }

    fn filled(&self, base: Option<&Self>) -> Result<Webhook, Vec<String>> {
        let mut missing = Vec::new();
        let scheme = self.scheme.clone().or_else(|| base?.scheme.clone());
        let integrity = self.integrity.or_else(|| base?.integrity);
        let events = self.events.clone().or_else(|| base?.events.clone());
        for (name, absent) in [
            ("verify", scheme.is_none()),
            ("integrity", integrity.is_none()),
            ("events", events.is_none()),
        ] {
            if absent {
                missing.push(format!("webhook: {name} is missing or wrong"));
            }
        }
        let (Some(scheme), Some(integrity), Some(events)) = (scheme, integrity, events) else {
            return Err(missing);
        };
        let most = most(&scheme);
        if integrity > most || (integrity == Integrity::None) != matches!(scheme, Scheme::Unsigned)
        {
            missing.push(format!(
                "webhook.integrity: this check gives {} at most, and none only if unsigned",
                most.name()
            ));
        }
        let handshake = self.handshake.clone().or_else(|| base?.handshake.clone());
        if let Some(plan) = &handshake
            && let Err(what) = plan.fits(&scheme)
        {
            missing.push(what);
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        Ok(Webhook {
            integrity,
            scheme,
            handshake,
            events,
            ack_ms: self.ack_ms.or_else(|| base?.ack_ms),
            reply: self.reply.clone().or_else(|| base?.reply.clone()),
            replay: self.replay.or_else(|| base?.replay).unwrap_or(REPLAY),
        })
    }
}

/// The best that a check can promise.
fn most(scheme: &Scheme) -> Integrity {
    match scheme {
        Scheme::Signed(signed) if signed.binds_body() => Integrity::Body,
        Scheme::Signed(_) => Integrity::Metadata,
        Scheme::Jwt(_) | Scheme::Token(_) | Scheme::Basic(_) => Integrity::Origin,
        Scheme::Unsigned => Integrity::None,
    }
}

fn read_reply(table: Table<'_, '_>) -> Option<Reply> {
    let status = table.number("status", 200..=299).unwrap_or(200);
    let content_type = table.parsed("content_type", |text| filled(text, 100));
    let body = table
        .text("body")
        .map(|body| body.value)
        .unwrap_or_default();
    table.finish();
    Some(Reply {
        status: u16::try_from(status).ok()?,
        content_type: content_type.unwrap_or_else(|| String::from("text/plain")),
        headers: Vec::new(),
        body: Bytes::from(body),
    })
}

/// Whether the text can name a manifest.
fn is_id(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(good)
}

fn filled(text: &str, max: usize) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > max {
        return Err(format!("want 1 to {max} characters"));
    }
    Ok(text.to_owned())
}
