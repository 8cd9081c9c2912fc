//! `token` and `basic`: a shared value that comes with every request. It proves who sends, and nothing
//! about what is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::AUTHORIZATION;

use crate::providers::credentials::Credentials;
use crate::providers::json;
use crate::providers::key;
use crate::providers::place::HeaderPlace;
use crate::providers::received::Received;
use crate::providers::refusal::Refusal;
use crate::providers::scheme::{Token, TokenPlace};

pub(super) fn check(
    token: &Token,
    request: &Received<'_>,
    credentials: &Credentials,
) -> Result<(), Refusal> {
    let body: &[u8] = request.body;
    match &token.place {
        TokenPlace::Header(place) => {
            let name = header_name(place, credentials)?;
            let value = request.header(&name)?.ok_or(Refusal::MissingToken)?;
            compare(&token.secret, value, credentials)
        }
        TokenPlace::Query(name) => {
            let value = request.parameter(name)?.ok_or(Refusal::MissingToken)?;
            compare(&token.secret, &value, credentials)
        }
        TokenPlace::Json(path) => {
            let value = path.scalar(body).map_err(|_| Refusal::BadBody)?;
            let value = value.ok_or(Refusal::MissingToken)?;
            compare(&token.secret, value.as_bytes(), credentials)
        }
        TokenPlace::JsonEach(list, field) => {
            let found = list.find(body).map_err(|_| Refusal::BadBody)?;
            let [list] = found.as_slice() else {
                return Err(Refusal::MissingToken);
            };
            let elements = json::elements(list).map_err(|_| Refusal::BadBody)?;
            if elements.is_empty() {
                return Err(Refusal::MissingToken);
            }
            for element in elements {
                let value = field.scalar(element.get().as_bytes());
                let value = value.map_err(|_| Refusal::BadBody)?;
                let value = value.ok_or(Refusal::MissingToken)?;
                compare(&token.secret, value.as_bytes(), credentials)?;
            }
            Ok(())
        }
    }
}

/// HTTP Basic (RFC 7617) with the secret as `user:password`.
pub(super) fn basic(
    secret: &str,
    request: &Received<'_>,
    credentials: &Credentials,
) -> Result<(), Refusal> {
    let value = request
        .header(&AUTHORIZATION)?
        .ok_or(Refusal::MissingToken)?;
    let value = std::str::from_utf8(value).map_err(|_| Refusal::BadToken)?;
    let (scheme, coded) = value.split_once(' ').ok_or(Refusal::BadToken)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Refusal::BadToken);
    }
    let given = STANDARD.decode(coded).map_err(|_| Refusal::BadToken)?;
    compare(secret, &given, credentials)
}

fn header_name(place: &HeaderPlace, credentials: &Credentials) -> Result<HeaderName, Refusal> {
    match place {
        HeaderPlace::Name(name) => Ok(name.clone()),
        HeaderPlace::Setting(setting) => credentials
            .config
            .get(setting)
            .and_then(|name| HeaderName::try_from(name).ok())
            .ok_or(Refusal::NotConfigured),
    }
}

fn compare(secret: &str, given: &[u8], credentials: &Credentials) -> Result<(), Refusal> {
    let values = credentials.values(secret);
    let mut usable = values.iter().filter(|value| !value.is_empty()).peekable();
    if usable.peek().is_none() {
        return Err(Refusal::NotConfigured);
    }
    if usable.any(|value| key::same(value.as_bytes(), given)) {
        return Ok(());
    }
    Err(Refusal::BadToken)
}
