//! How a provider proves that a request is its own: the checked form of `[webhook.verify]`.
//!
//! Everything that can be wrong with a scheme is found here, when the manifest is loaded; what the
//! checks in `verify` get has no holes.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use super::json;
use super::key::{self, Alg, Encoding, Key, Point, SecretEncoding};
use super::place::{self, HeaderPlace, Place};
use super::reader::{self, Table};
use super::received::Payload;
use super::template::{Part, Template};
use super::url::{self, Variant};

/// Headers of a numbered family (`X-Signature-{n}`) that are looked at, unless the manifest says more.
const NUMBERED: u32 = 10;

/// One of the kinds of checks.
#[derive(Debug, Clone)]
pub(super) enum Scheme {
    /// `hmac` and `ecdsa_p256`
    Signed(Box<Signed>),
    /// `jwt`
    Jwt(Box<Jwt>),
    /// `token`
    Token(Token),
    /// `basic`: the secret is `user:password`.
    Basic(String),
    /// `unsigned`
    Unsigned,
}

/// A signature over a message.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) algorithm: Algorithm,
    /// Name of the secret.
    pub(super) secret: String,
    pub(super) encoding: Encoding,
    pub(super) signature: Place,
    pub(super) format: Format,
    pub(super) prefix: String,
    pub(super) numbered_max: u32,
    pub(super) timestamp: Option<Stamp>,
    pub(super) message: Template,
    pub(super) variants: Vec<Variant>,
    /// Escapes of the URL that are decoded.
    pub(super) decoded: Vec<u8>,
    /// The parameter of the query that holds the SHA-256 of the body.
    pub(super) body_hash: Option<String>,
    pub(super) payload: Payload,
}

/// What the signature is made with.
#[derive(Debug, Clone)]
pub(super) enum Algorithm {
    /// A MAC.
    Hmac {
        alg: Alg,
        /// The header that may choose, and among what.
        choice: Option<(HeaderName, BTreeMap<String, Alg>)>,
        secret: SecretEncoding,
    },
    /// ECDSA on P-256 with SHA-256; the secret is a public key.
    EcdsaP256,
}

/// How the header with the signature is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// The value is the signature.
    Plain,
    /// `t=1,v1=…`
    Kv {
        separator: char,
        signatures: Vec<String>,
        timestamp: Option<String>,
    },
    /// `v1,… v1a,…`
    SpaceList { versions: Vec<String> },
}

/// A signed timestamp.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    /// `None`: the field of a `kv` header.
    pub(super) place: Option<Place>,
    pub(super) unit: Unit,
    /// Zero: no window.
    pub(super) tolerance: Duration,
}

/// How a timestamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Iso,
    /// Not all digits: ISO; 13 digits or more: milliseconds; else seconds.
    Auto,
}

const UNITS: &[(&str, Unit)] = &[
    ("s", Unit::Seconds),
    ("ms", Unit::Millis),
    ("iso", Unit::Iso),
    ("auto", Unit::Auto),
];

/// A signed token of JSON (RFC 7519).
#[derive(Debug, Clone)]
pub(super) struct Jwt {
    /// `None`: `Authorization: Bearer`.
    pub(super) header: Option<HeaderName>,
    pub(super) alg: JwtAlg,
    pub(super) issuers: Vec<String>,
    pub(super) audience: Option<Audience>,
    pub(super) claims: Vec<(String, Claim)>,
}

/// The one algorithm that is taken, with where its key comes from.
#[derive(Debug, Clone)]
pub(super) enum JwtAlg {
    /// The URL of the key set.
    Rs256(String),
    /// The name of the secret.
    Hs256(String),
}

/// What `aud` must be.
#[derive(Debug, Clone)]
pub(super) enum Audience {
    /// The source's public URL.
    Url,
    Text(String),
}

/// What a claim must be.
#[derive(Debug, Clone)]
pub(super) enum Claim {
    /// A setting of the source.
    Setting(String),
    Text(String),
}

/// A shared value that comes with every request.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) place: TokenPlace,
    pub(super) secret: String,
}

/// Where it is.
#[derive(Debug, Clone)]
pub(super) enum TokenPlace {
    Header(HeaderPlace),
    Query(String),
    Json(json::Path),
    /// The list, and the path within each element.
    JsonEach(json::Path, json::Path),
}

impl Scheme {
    /// Reads `[webhook.verify]`. What is wrong is noted in the table's source.
    pub(super) fn read(table: Table<'_, '_>) -> Option<Self> {
        let kind = table.needed("kind")?;
        let scheme = match kind.value.as_str() {
            "hmac" => Signed::hmac(&table).map(|s| Self::Signed(Box::new(s))),
            "ecdsa_p256" => Signed::ecdsa(&table).map(|s| Self::Signed(Box::new(s))),
            "jwt" => Jwt::read(&table).map(|jwt| Self::Jwt(Box::new(jwt))),
            "token" => Token::read(&table).map(Self::Token),
            "basic" => secret(&table).map(Self::Basic),
            "unsigned" => {
                table.text("confirm");
                Some(Self::Unsigned)
            }
            _ => {
                let what = "verify.kind: want hmac, ecdsa_p256, jwt, token, basic or unsigned";
                table.wrong_at(kind.at, what);
                return None; // no telling which keys would be right
            }
        };
        table.finish();
        scheme
    }

    /// Names of the secrets that a source must hold.
    pub(super) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Signed(signed) => vec![&signed.secret],
            Self::Jwt(jwt) => match &jwt.alg {
                JwtAlg::Rs256(_) => Vec::new(),
                JwtAlg::Hs256(secret) => vec![secret],
            },
            Self::Token(token) => vec![&token.secret],
            Self::Basic(secret) => vec![secret],
            Self::Unsigned => Vec::new(),
        }
    }

    /// Names of the settings that a source must hold.
    pub(super) fn settings(&self) -> Vec<&str> {
        match self {
            Self::Jwt(jwt) => {
                let claims = jwt.claims.iter();
                claims
                    .filter_map(|(_, claim)| match claim {
                        Claim::Setting(name) => Some(name.as_str()),
                        Claim::Text(_) => None,
                    })
                    .collect()
            }
            Self::Token(Token {
                place: TokenPlace::Header(HeaderPlace::Setting(name)),
                ..
            }) => vec![name],
            Self::Token(_) | Self::Signed(_) | Self::Basic(_) | Self::Unsigned => Vec::new(),
        }
    }

    /// Whether a secret's text can be used; the error says what is wanted.
    pub(super) fn check_secret(&self, text: &str) -> Result<(), &'static str> {
        match self {
            Self::Signed(signed) => match &signed.algorithm {
                Algorithm::Hmac { secret, .. } => Key::decode(text, *secret).map(drop),
                Algorithm::EcdsaP256 => Point::decode(text).map(drop),
            },
            Self::Basic(_) if !text.contains(':') => Err("want user:password"),
            Self::Basic(_) | Self::Jwt(_) | Self::Token(_) | Self::Unsigned => Ok(()),
        }
    }
}

fn secret(table: &Table<'_, '_>) -> Option<String> {
    table.parsed_needed("secret", |text| {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if (1..=64).contains(&text.len()) && text.bytes().all(good) {
            return Ok(text.to_owned());
        }
        Err(String::from("want 1 to 64 of a-z, 0-9 and _"))
    })
}

impl Signed {
    fn hmac(table: &Table<'_, '_>) -> Option<Self> {
        let alg = table.word("alg", key::ALGS);
        if alg.is_none() && !table.has("alg") {
            table.wrong("alg is missing");
        }
        let choice = Self::choice(table);
        let encoding = table.word("secret_encoding", key::SECRET_ENCODINGS);
        let algorithm = alg.map(|alg| Algorithm::Hmac {
            alg,
            choice,
            secret: encoding.unwrap_or_default(),
        });
        Self::read(table, algorithm)
    }

    fn ecdsa(table: &Table<'_, '_>) -> Option<Self> {
        let encodings = &[("spki_base64", ())];
        if table.word("secret_encoding", encodings).is_none() && !table.has("secret_encoding") {
            table.wrong("secret_encoding is missing: want spki_base64");
        }
        Self::read(table, Some(Algorithm::EcdsaP256))
    }

    fn choice(table: &Table<'_, '_>) -> Option<(HeaderName, BTreeMap<String, Alg>)> {
        let header = table.parsed("alg_header", place::header_name);
        let mut map = BTreeMap::new();
        for (word, alg) in table.pairs("alg_map") {
            match reader::one_of(&alg.value, key::ALGS) {
                Ok(known) => {
                    map.insert(word, known);
                }
                Err(why) => table.wrong_at(alg.at, format!("verify.alg_map.{word}: {why}")),
            }
        }
        if table.has("alg_header") != table.has("alg_map") {
            table.wrong("alg_header and alg_map go together");
        }
        header.map(|header| (header, map))
    }

    fn read(table: &Table<'_, '_>, algorithm: Option<Algorithm>) -> Option<Self> {
        let encoding = table.word("encoding", key::ENCODINGS);
        if encoding.is_none() && !table.has("encoding") {
            table.wrong("encoding is missing");
        }
        let secret = secret(table);
        let signature = table.parsed_needed("signature", Place::parse);
        let format = Format::read(table);
        let prefix = table.text("prefix").map(|prefix| prefix.value);
        let numbered_max = table.number("numbered_max", 1..=100);
        let timestamp = Stamp::read(table, format.as_ref());
        let message = match table.has("message") {
            true => table.parsed("message", Template::parse),
            false => Some(Template::body()),
        };
        let (variants, decoded) = url_rules(table);
        let body_hash = table.text("body_sha256_query").map(|name| name.value);
        let payload = table.parsed("payload", Payload::parse).unwrap_or_default();
        let signed = Self {
            algorithm: algorithm?,
            secret: secret?,
            encoding: encoding?,
            signature: signature?,
            format: format?,
            prefix: prefix.unwrap_or_default(),
            numbered_max: numbered_max.unwrap_or(NUMBERED),
            timestamp,
            message: message?,
            variants,
            decoded,
            body_hash,
            payload,
        };
        signed.check(table);
        Some(signed)
    }

    /// What the keys must be to each other.
    fn check(&self, table: &Table<'_, '_>) {
        let signs_ts = self.message.holds(&Part::Ts);
        match &self.timestamp {
            None if signs_ts => table.wrong("message has {ts}, but timestamp is missing"),
            Some(stamp) if !signs_ts && !self.signs(stamp) => {
                table.wrong("the timestamp is not signed: message wants {ts}");
            }
            Some(_) | None => {}
        }
        let by_url = table.has("url_variants") || table.has("url_decode");
        if by_url && !self.message.holds(&Part::Url) {
            table.wrong("url_variants and url_decode want {url} in message");
        }
        if table.has("numbered_max") && !matches!(self.signature, Place::Numbered(_)) {
            table.wrong("numbered_max wants header:NAME-{n} as signature");
        }
    }

    /// Whether the timestamp's own place is part of the message.
    fn signs(&self, stamp: &Stamp) -> bool {
        match &stamp.place {
            Some(Place::Json(path)) => self.message.holds(&Part::Json(path.clone())),
            Some(Place::Header(name)) => self.message.holds(&Part::Header(name.clone())),
            Some(Place::Numbered(_)) | None => false,
        }
    }

    /// Whether the bytes of the body are bound by the signature.
    pub(super) fn binds_body(&self) -> bool {
        self.message.holds(&Part::Body) || self.message.holds(&Part::Form)
    }
}

fn url_rules(table: &Table<'_, '_>) -> (Vec<Variant>, Vec<u8>) {
    let mut variants = Vec::new();
    for word in table.texts("url_variants") {
        match reader::one_of(&word.value, url::VARIANTS) {
            Ok(variant) => variants.push(variant),
            Err(why) => table.wrong_at(word.at, format!("verify.url_variants: {why}")),
        }
    }
    if variants.is_empty() {
        variants.push(Variant::AsIs);
    }
    let mut decoded = Vec::new();
    for text in table.texts("url_decode") {
        match url::escape(&text.value) {
            Ok(byte) => decoded.push(byte),
            Err(why) => table.wrong_at(text.at, format!("verify.url_decode: {why}")),
        }
    }
    (variants, decoded)
}

impl Format {
    fn read(table: &Table<'_, '_>) -> Option<Self> {
        const WORDS: &[(&str, u8)] = &[("plain", 0), ("kv", 1), ("space_list", 2)];
        let word = match table.has("format") {
            true => table.word("format", WORDS)?,
            false => 0,
        };
        let names: Vec<String> = table.texts("kv_sig").into_iter().map(|n| n.value).collect();
        let separator = table.parsed("kv_sep", |text| {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(one), None) if one != '=' => Ok(one),
                _ => Err(String::from("want one character")),
            }
        });
        let timestamp = table.text("kv_ts").map(|name| name.value);
        if word != 0 && names.is_empty() {
            table.wrong("kv_sig is missing: which entries are signatures?");
        }
        if word != 1 && (timestamp.is_some() || separator.is_some())
            || word == 0 && !names.is_empty()
        {
            table
                .wrong("kv_sig, kv_sep and kv_ts want format = \"kv\", kv_sig also \"space_list\"");
        }
        Some(match word {
            0 => Self::Plain,
            1 => Self::Kv {
                separator: separator.unwrap_or(','),
                signatures: names,
                timestamp,
            },
            _ => Self::SpaceList { versions: names },
        })
    }
}

impl Stamp {
    fn read(table: &Table<'_, '_>, format: Option<&Format>) -> Option<Self> {
        let unit = table.word("ts_unit", UNITS);
        let tolerance = table.number("tolerance_s", 0..=86_400);
        let text = table.text("timestamp");
        let Some(text) = text else {
            if table.has("ts_unit") || tolerance.is_some_and(|s| s > 0) {
                table.wrong("ts_unit and tolerance_s want timestamp");
            }
            return None;
        };
        let place = if text.value == "kv" {
            let named = matches!(
                format,
                Some(Format::Kv {
                    timestamp: Some(_),
                    ..
                })
            );
            if !named {
                table.wrong_at(
                    text.at,
                    "verify.timestamp: \"kv\" wants format = \"kv\" and kv_ts",
                );
            }
            None
        } else {
            match Place::parse(&text.value) {
                Ok(place @ (Place::Header(_) | Place::Json(_))) => Some(place),
                Ok(Place::Numbered(_)) | Err(_) => {
                    let what = "verify.timestamp: want kv, header:NAME or json:PATH";
                    table.wrong_at(text.at, what);
                    None
                }
            }
        };
        if unit.is_none() && !table.has("ts_unit") {
            table.wrong("ts_unit is missing");
        }
        Some(Self {
            place,
            unit: unit.unwrap_or(Unit::Auto),
            tolerance: Duration::from_secs(tolerance.unwrap_or(0).into()),
        })
    }
}

impl Jwt {
    fn read(table: &Table<'_, '_>) -> Option<Self> {
        let header = table.parsed_needed("token", |text| match text.split_once(':') {
            None if text == "bearer" => Ok(None),
            Some(("header", name)) => place::header_name(name).map(Some),
            _ => Err(String::from("want bearer or header:NAME")),
        });
        let rs256 = table.word("alg", &[("RS256", true), ("HS256", false)]);
        if rs256.is_none() && !table.has("alg") {
            table.wrong("alg is missing: want RS256 or HS256");
        }
        let alg = match rs256? {
            true => JwtAlg::Rs256(table.parsed_needed("jwks_url", |url| {
                let good = url.starts_with("https://");
                good.then(|| url.to_owned())
                    .ok_or_else(|| String::from("want an https URL"))
            })?),
            false => JwtAlg::Hs256(secret(table)?),
        };
        let audience = table.text("aud").map(|aud| match aud.value.as_str() {
            "{url}" => Audience::Url,
            _ => Audience::Text(aud.value),
        });
        let mut claims = Vec::new();
        for (name, want) in table.pairs("claims") {
            let setting = place::setting(&want.value);
            let claim = setting.map_or(Claim::Text(want.value.clone()), Claim::Setting);
            claims.push((name, claim));
        }
        Some(Self {
            header: header?,
            alg,
            issuers: table.texts("iss").into_iter().map(|i| i.value).collect(),
            audience,
            claims,
        })
    }
}

impl Token {
    fn read(table: &Table<'_, '_>) -> Option<Self> {
        let place = table.parsed_needed("token", TokenPlace::parse);
        let secret = secret(table);
        Some(Self {
            place: place?,
            secret: secret?,
        })
    }
}

impl TokenPlace {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => HeaderPlace::parse(name).map(Self::Header),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("json", path)) => json::Path::parse(path).map(Self::Json),
            Some(("json_each", path)) => json::Path::parse(path)?
                .split_last()
                .map(|(list, last)| Self::JsonEach(list, last))
                .ok_or_else(|| String::from("want json_each:LIST.FIELD")),
            _ => Err(String::from(
                "want header:NAME, query:NAME, json:PATH or json_each:LIST.FIELD",
            )),
        }
    }
}
