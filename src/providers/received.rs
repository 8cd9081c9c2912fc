//! A provider's request as it came, and the views of it that checks need.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};

use super::form;
use super::refusal::Refusal;

/// A provider's request as received. Borrowed, cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The method.
    pub method: &'a Method,
    /// The configured public base with the path and the query as received; never made from `Host`.
    pub public_url: &'a str,
    /// The query as received, without `?`; empty if there is none.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body's bytes as received.
    pub body: &'a Bytes,
}

impl<'a> Received<'a> {
    /// The value of a header that may stand once.
    pub(super) fn header(&self, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
            (_, Some(_)) => Err(Refusal::DuplicateHeader),
        }
    }

    /// The same as text; `None` also if it is no visible ASCII.
    pub(super) fn header_text(&self, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
        let value = self.header(name)?;
        Ok(value.and_then(|value| std::str::from_utf8(value).ok()))
    }

    /// A parameter of the query, decoded; one that stands twice is refused.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
        form::field(self.query.as_bytes(), name).map_err(|_| Refusal::BadBody)
    }
}

/// Where the JSON payload of a request is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Payload {
    /// It is the body.
    #[default]
    Raw,
    /// A field of an urlencoded form.
    Form(String),
    /// A part of a multipart form, or a field if an urlencoded one arrives.
    Multipart(String),
}

impl Payload {
    /// Reads `raw`, `form:FIELD` or `multipart:FIELD`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "raw" => Ok(Self::Raw),
            Some(("form", field)) if !field.is_empty() => Ok(Self::Form(field.to_owned())),
            Some(("multipart", field)) if !field.is_empty() => {
                Ok(Self::Multipart(field.to_owned()))
            }
            _ => Err(String::from("want raw, form:FIELD or multipart:FIELD")),
        }
    }

    /// The payload's bytes; `None` if the request has none there.
    pub(super) fn of<'a>(&self, request: &Received<'a>) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        let body: &'a [u8] = request.body;
        let urlencoded = form::is_urlencoded(request.headers);
        let found = match self {
            Self::Raw => Ok(Some(Cow::Borrowed(body))),
            Self::Multipart(name) if form::is_multipart(request.headers) => {
                form::part(request.headers, body, name).map(|part| part.map(Cow::Borrowed))
            }
            Self::Form(name) | Self::Multipart(name) if urlencoded => {
                form::field(body, name).map(|field| field.map(Cow::Owned))
            }
            Self::Form(_) | Self::Multipart(_) => Ok(None),
        };
        found.map_err(|_| Refusal::BadBody)
    }
}
