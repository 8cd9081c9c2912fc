//! `jwt`: a signed token of JSON (RFC 7519, RFC 7515). The body is not bound.
//!
//! The algorithm is the manifest's. A token that names another one (`none`, or HS256 keyed with a public
//! key) is refused before any key is looked at (RFC 8725 section 3.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::base::Timestamp;
use crate::providers::credentials::Credentials;
use crate::providers::key::{self, Alg, Key, SecretEncoding};
use crate::providers::received::Received;
use crate::providers::refusal::Refusal;
use crate::providers::scheme::{Audience, Claim, Jwt, JwtAlg};

/// Characters of a token at most.
const MAX_TOKEN: usize = 8192;

/// How far clocks may differ, seconds.
const LEEWAY: f64 = 60.0;

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 section 4.1.11): none is.
    crit: Option<Value>,
}

pub(super) fn check(
    jwt: &Jwt,
    request: &Received<'_>,
    credentials: &Credentials,
    now: Timestamp,
) -> Result<(), Refusal> {
    let token = token(jwt, request)?;
    let (signed, sign) = token.rsplit_once('.').ok_or(Refusal::BadToken)?;
    let (head, claims) = signed.split_once('.').ok_or(Refusal::BadToken)?;
    let head: Head = part(head)?;
    let sign = URL_SAFE_NO_PAD
        .decode(sign)
        .map_err(|_| Refusal::BadEncoding)?;
    if head.crit.is_some() {
        return Err(Refusal::BadToken);
    }
    match &jwt.alg {
        JwtAlg::Rs256(_) => rs256(&head, signed, &sign, credentials)?,
        JwtAlg::Hs256(secret) => hs256(&head, signed, &sign, secret, credentials)?,
    }
    let claims: Map<String, Value> = part(claims)?;
    times(jwt, &claims, now)?;
    audience(jwt, &claims, request)?;
    issuer(jwt, &claims)?;
    for (name, want) in &jwt.claims {
        claim(&claims, name, want, credentials)?;
    }
    Ok(())
}

fn token<'a>(jwt: &Jwt, request: &Received<'a>) -> Result<&'a str, Refusal> {
    let name = jwt.header.as_ref().unwrap_or(&AUTHORIZATION);
    let value = request.header(name)?.ok_or(Refusal::MissingToken)?;
    let value = std::str::from_utf8(value).map_err(|_| Refusal::BadToken)?;
    let token = match jwt.header {
        Some(_) => value,
        None => value.strip_prefix("Bearer ").ok_or(Refusal::MissingToken)?,
    };
    if token.len() > MAX_TOKEN {
        return Err(Refusal::BadToken);
    }
    Ok(token)
}

fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refusal::BadToken)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::BadToken)
}

fn rs256(head: &Head, signed: &str, sign: &[u8], with: &Credentials) -> Result<(), Refusal> {
    if head.alg != "RS256" {
        return Err(Refusal::BadAlgorithm);
    }
    let kid = head.kid.as_deref().ok_or(Refusal::UnknownKey)?;
    let set = with.jwks.as_ref().ok_or(Refusal::UnknownKey)?;
    let key = set.key(kid).ok_or(Refusal::UnknownKey)?;
    if !key.verifies(signed.as_bytes(), sign) {
        return Err(Refusal::BadSignature);
    }
    Ok(())
}

fn hs256(
    head: &Head,
    signed: &str,
    sign: &[u8],
    secret: &str,
    with: &Credentials,
) -> Result<(), Refusal> {
    if head.alg != "HS256" {
        return Err(Refusal::BadAlgorithm);
    }
    let keys = with.keys(secret, |text| Key::decode(text, SecretEncoding::Utf8));
    if keys.is_empty() {
        return Err(Refusal::NotConfigured);
    }
    let right = |key: &Key| {
        let code = key.mac(Alg::Sha256, [signed.as_bytes()]);
        key::same_code(code.as_ref(), sign)
    };
    if !keys.iter().any(right) {
        return Err(Refusal::BadSignature);
    }
    Ok(())
}

/// `exp` is required where keys are public and tokens travel far (RS256); where it stands it holds.
fn times(jwt: &Jwt, claims: &Map<String, Value>, now: Timestamp) -> Result<(), Refusal> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds fit 48 bits, a double holds 53"
    )]
    let now = now.millis() as f64 / 1000.0;
    let instant = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Refusal::BadClaim),
    };
    match instant("exp")? {
        None if matches!(jwt.alg, JwtAlg::Rs256(_)) => return Err(Refusal::BadClaim),
        Some(exp) if now >= exp + LEEWAY => return Err(Refusal::ExpiredToken),
        Some(_) | None => {}
    }
    match instant("nbf")? {
        Some(nbf) if now < nbf - LEEWAY => Err(Refusal::ExpiredToken),
        Some(_) | None => Ok(()),
    }
}

/// The source's URL, with or without the query that came with it: both are ours.
fn audience(jwt: &Jwt, claims: &Map<String, Value>, to: &Received<'_>) -> Result<(), Refusal> {
    let Some(want) = &jwt.audience else {
        return Ok(());
    };
    let path = to.public_url.split('?').next().unwrap_or_default();
    let fits = |given: &Value| match (want, given.as_str()) {
        (Audience::Url, Some(given)) => given == to.public_url || given == path,
        (Audience::Text(want), Some(given)) => given == want,
        (_, None) => false,
    };
    let good = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(fits),
        Some(one) => fits(one),
        None => false,
    };
    if good { Ok(()) } else { Err(Refusal::BadClaim) }
}

fn issuer(jwt: &Jwt, claims: &Map<String, Value>) -> Result<(), Refusal> {
    let given = claims.get("iss").and_then(Value::as_str);
    let known = given.is_some_and(|given| jwt.issuers.iter().any(|known| known == given));
    if jwt.issuers.is_empty() || known {
        return Ok(());
    }
    Err(Refusal::BadClaim)
}

fn claim(
    claims: &Map<String, Value>,
    name: &str,
    want: &Claim,
    with: &Credentials,
) -> Result<(), Refusal> {
    let want = match want {
        Claim::Text(text) => text,
        Claim::Setting(setting) => with
            .config
            .get(setting)
            .filter(|text| !text.is_empty())
            .ok_or(Refusal::NotConfigured)?,
    };
    let given = match claims.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {
            return Err(Refusal::BadClaim);
        }
    };
    if given == *want {
        Ok(())
    } else {
        Err(Refusal::BadClaim)
    }
}
