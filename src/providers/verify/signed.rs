//! `hmac` and `ecdsa_p256`: a signature over a message.
//!
//! The order: candidates, prefix, timestamp, message, compare. Any candidate may match under any secret
//! of the source (rotation on either side); lists are capped, so that a request cannot ask for more
//! work than it is worth.

use std::borrow::Cow;

use http::HeaderName;

use super::{Proof, stamp};
use crate::base::Timestamp;
use crate::providers::credentials::Credentials;
use crate::providers::form;
use crate::providers::handshake::Plan;
use crate::providers::key::{self, Alg, Key, Point};
use crate::providers::place::Place;
use crate::providers::received::Received;
use crate::providers::refusal::Refusal;
use crate::providers::scheme::{Algorithm, Format, Signed};
use crate::providers::template::Part;
use crate::providers::url;

/// Entries of one header that are looked at.
const MAX_ENTRIES: usize = 10;

/// Characters of a candidate at most: the longest code, SHA-512 in hex, has 128.
const MAX_CANDIDATE: usize = 512;

pub(super) fn check(
    signed: &Signed,
    request: &Received<'_>,
    credentials: &Credentials,
    (now, handshake): (Timestamp, Option<&Plan>),
) -> Result<Proof, Refusal> {
    let payload = signed.payload.of(request)?;
    let reading = Reading {
        signed,
        request,
        payload: payload.as_deref(),
    };
    let found = reading.candidates()?;
    let decoded = reading.decoded(&found.texts)?;
    let text = reading.timestamp(found.timestamp)?;
    let timestamp = match (&signed.timestamp, &text) {
        (Some(rule), Some(text)) => stamp::judge(rule, text, credentials.tolerance, now)?,
        (Some(_), None) => return Err(Refusal::MissingTimestamp),
        (None, _) => None,
    };
    reading.bound_by_query()?;
    let message = reading.message(text.as_deref().unwrap_or_default())?;
    let is_challenge = |parts: Vec<&[u8]>| handshake.is_some_and(|one| one.may_have_signed(&parts));
    if message.variants().any(is_challenge) {
        return Err(Refusal::BadSignature);
    }
    let matched = match &signed.algorithm {
        Algorithm::Hmac { secret, .. } => {
            let alg = reading.alg()?;
            let keys = credentials.keys(&signed.secret, |text| Key::decode(text, *secret));
            some(&keys)?;
            message.variants().any(|parts| {
                let matches = |key: &Key| any_code(key, alg, &parts, &decoded);
                keys.iter().any(matches)
            })
        }
        Algorithm::EcdsaP256 => {
            let points = credentials.keys(&signed.secret, Point::decode);
            some(&points)?;
            message.variants().any(|parts| {
                let whole = parts.concat();
                let matches = |point: &Point| decoded.iter().any(|s| point.verifies(&whole, s));
                points.iter().any(matches)
            })
        }
    };
    if !matched {
        return Err(Refusal::BadSignature);
    }
    Ok(Proof {
        message: message.variants().next().map(key::fingerprint),
        timestamp,
    })
}

fn some<T>(keys: &[T]) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Err(Refusal::NotConfigured);
    }
    Ok(())
}

fn any_code(key: &Key, alg: Alg, parts: &[&[u8]], candidates: &[Vec<u8>]) -> bool {
    let right = key.mac(alg, parts.iter().copied());
    candidates
        .iter()
        .any(|given| key::same_code(right.as_ref(), given))
}

struct Reading<'a> {
    signed: &'a Signed,
    request: &'a Received<'a>,
    payload: Option<&'a [u8]>,
}

/// What the signature's place holds.
#[derive(Default)]
struct Found<'a> {
    texts: Vec<Cow<'a, str>>,
    /// The timestamp of a `kv` header.
    timestamp: Option<&'a str>,
}

impl<'a> Reading<'a> {
    fn candidates(&self) -> Result<Found<'a>, Refusal> {
        let mut found = Found::default();
        match &self.signed.signature {
            Place::Header(name) => self.header(name, &mut found)?,
            Place::Numbered(stem) => {
                for n in 1..=self.signed.numbered_max {
                    if let Ok(name) = HeaderName::try_from(format!("{stem}{n}")) {
                        self.header(&name, &mut found)?;
                    }
                }
            }
            Place::Json(path) => {
                let value = path.scalar(self.payload.ok_or(Refusal::BadBody)?);
                found.texts.extend(value.map_err(|_| Refusal::BadBody)?);
            }
        }
        let prefix = self.signed.prefix.as_str();
        found.texts = found
            .texts
            .into_iter()
            .filter_map(|text| strip(text, prefix))
            .filter(|text| (1..=MAX_CANDIDATE).contains(&text.len()))
            .collect();
        if found.texts.is_empty() {
            return Err(Refusal::MissingSignature);
        }
        Ok(found)
    }

    fn header(&self, name: &HeaderName, found: &mut Found<'a>) -> Result<(), Refusal> {
        let Some(value) = self.request.header_text(name)? else {
            return Ok(());
        };
        match &self.signed.format {
            Format::Plain => found.texts.push(Cow::Borrowed(value)),
            Format::Kv {
                separator,
                signatures,
                timestamp,
            } => {
                for entry in value.split(*separator).take(MAX_ENTRIES) {
                    let Some((key, value)) = entry.trim().split_once('=') else {
                        continue;
                    };
                    if signatures.iter().any(|name| name == key) {
                        found.texts.push(Cow::Borrowed(value));
                    } else if timestamp.as_deref() == Some(key) && found.timestamp.is_none() {
                        found.timestamp = Some(value);
                    }
                }
            }
            Format::SpaceList { versions } => {
                let entries = value.split(' ').filter(|entry| !entry.is_empty());
                for entry in entries.take(MAX_ENTRIES) {
                    if let Some((version, value)) = entry.split_once(',')
                        && versions.iter().any(|name| name == version)
                    {
                        found.texts.push(Cow::Borrowed(value));
                    }
                }
            }
        }
        Ok(())
    }

    fn decoded(&self, texts: &[Cow<'_, str>]) -> Result<Vec<Vec<u8>>, Refusal> {
        let decode = |text: &Cow<'_, str>| self.signed.encoding.decode(text);
        let decoded: Vec<_> = texts.iter().filter_map(decode).collect();
        if decoded.is_empty() {
            return Err(Refusal::BadEncoding);
        }
        Ok(decoded)
    }

    fn timestamp(&self, of_list: Option<&'a str>) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        let Some(rule) = &self.signed.timestamp else {
            return Ok(None);
        };
        Ok(match &rule.place {
            None => of_list.map(|text| Cow::Borrowed(text.as_bytes())),
            Some(Place::Header(name)) => self.request.header(name)?.map(Cow::Borrowed),
            Some(Place::Json(path)) => {
                let value = path.scalar(self.payload.ok_or(Refusal::BadBody)?);
                let value = value.map_err(|_| Refusal::BadBody)?;
                value.map(|text| Cow::Owned(text.into_owned().into_bytes()))
            }
            Some(Place::Numbered(_)) => None,
        })
    }

    /// The hash of the manifest, or the one that a header chooses among those of the manifest.
    fn alg(&self) -> Result<Alg, Refusal> {
        let Algorithm::Hmac { alg, choice, .. } = &self.signed.algorithm else {
            return Err(Refusal::BadAlgorithm);
        };
        let Some((header, map)) = choice else {
            return Ok(*alg);
        };
        match self.request.header(header)? {
            None => Ok(*alg),
            Some(word) => std::str::from_utf8(word)
                .ok()
                .and_then(|word| map.get(word).copied())
                .ok_or(Refusal::BadAlgorithm),
        }
    }

    /// A body that the message does not hold must be a form that it holds, or be bound by its hash in
    /// the query, which is signed with the URL.
    fn bound_by_query(&self) -> Result<(), Refusal> {
        let body: &[u8] = self.request.body;
        let mut bound = false;
        if let Some(name) = &self.signed.body_hash
            && let Some(hash) = self.request.parameter(name)?
        {
            let given = hash.to_ascii_lowercase();
            if !key::same(&given, key::sha256_hex(body).as_bytes()) {
                return Err(Refusal::BadBody);
            }
            bound = self.signed.message.holds(&Part::Url);
        }
        let message = &self.signed.message;
        let in_form = message.holds(&Part::Form) && !message.holds(&Part::Body);
        let is_form = form::is_urlencoded(self.request.headers);
        if in_form && !body.is_empty() && !is_form && !bound {
            return Err(Refusal::BadBody);
        }
        Ok(())
    }

    fn message(&self, ts: &[u8]) -> Result<Message<'_>, Refusal> {
        let mut parts = Vec::new();
        let mut urls = Vec::new();
        for part in self.signed.message.parts() {
            let part = match part {
                Part::Body => Cow::Borrowed(self.request.body.as_ref()),
                Part::Ts => Cow::Owned(ts.to_vec()),
                Part::Method => Cow::Borrowed(self.request.method.as_str().as_bytes()),
                Part::Url => {
                    urls.push(parts.len());
                    Cow::Borrowed(&b""[..])
                }
                Part::Form if form::is_urlencoded(self.request.headers) => {
                    Cow::Owned(form::sorted(self.request.body))
                }
                Part::Form => Cow::Borrowed(&b""[..]),
                Part::Header(name) => {
                    let value = self.request.header(name)?;
                    Cow::Borrowed(value.ok_or(Refusal::MissingField)?)
                }
                Part::Json(path) => {
                    let value = path.scalar(self.payload.ok_or(Refusal::BadBody)?);
                    let value = value.map_err(|_| Refusal::BadBody)?;
                    let value = value.ok_or(Refusal::MissingField)?;
                    Cow::Owned(value.into_owned().into_bytes())
                }
                Part::Text(text) => Cow::Borrowed(text.as_bytes()),
            };
            parts.push(part);
        }
        let forms = self.signed.variants.iter().map(|variant| {
            let url = variant.of(self.request.public_url);
            url::decode(&url, &self.signed.decoded)
        });
        let forms = if urls.is_empty() {
            vec![Vec::new()] // no URL in the message: one form of it
        } else {
            forms.collect()
        };
        Ok(Message { parts, urls, forms })
    }
}

/// A message with the places where the URL goes, and the forms of the URL.
struct Message<'a> {
    parts: Vec<Cow<'a, [u8]>>,
    urls: Vec<usize>,
    forms: Vec<Vec<u8>>,
}

impl Message<'_> {
    /// The message with each form of the URL.
    fn variants(&self) -> impl Iterator<Item = Vec<&[u8]>> {
        self.forms.iter().map(|url| {
            let parts = self.parts.iter().enumerate();
            parts
                .map(|(at, part)| match self.urls.contains(&at) {
                    true => url.as_slice(),
                    false => part.as_ref(),
                })
                .collect()
        })
    }
}

fn strip<'t>(text: Cow<'t, str>, prefix: &str) -> Option<Cow<'t, str>> {
    match text {
        Cow::Borrowed(text) => text.strip_prefix(prefix).map(Cow::Borrowed),
        Cow::Owned(text) => text
            .strip_prefix(prefix)
            .map(|rest| Cow::Owned(rest.to_owned())),
    }
}
