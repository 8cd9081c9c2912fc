//! Where something stands in a request: single places, and where-expressions that find the type, the id
//! and the account of an event.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

use super::json;
use super::xml;

/// Where a signature or a timestamp is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `header:NAME`
    Header(HeaderName),
    /// `header:NAME-{n}`: the name up to the number.
    Numbered(String),
    /// `json:PATH`
    Json(json::Path),
}

impl Place {
    /// Reads a place; the error says what is wanted.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => match name.strip_suffix("{n}") {
                Some(stem) => header_name(&format!("{stem}1"))
                    .map(|_| Self::Numbered(stem.to_ascii_lowercase())),
                None => header_name(name).map(Self::Header),
            },
            Some(("json", path)) => json::Path::parse(path).map(Self::Json),
            _ => Err(String::from(
                "want header:NAME, header:NAME-{n} or json:PATH",
            )),
        }
    }
}

/// A header whose name the manifest or the source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderPlace {
    /// Its name.
    Name(HeaderName),
    /// The setting with its name.
    Setting(String),
}

impl HeaderPlace {
    /// Reads `NAME` or `{config.x}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match setting(text) {
            Some(name) => Ok(Self::Setting(name)),
            None => header_name(text).map(Self::Name),
        }
    }
}

/// The name within `{config.x}`.
pub(super) fn setting(text: &str) -> Option<String> {
    let name = text.strip_prefix("{config.")?.strip_suffix('}')?;
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (!name.is_empty() && name.bytes().all(good)).then(|| name.to_owned())
}

/// Reads the name of a header.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_| format!("{text:?} is no name of a header"))
}

/// A where-expression: terms joined by `+`, each a list of alternatives joined by `|`, of which the
/// first that is there counts. A term that is not there makes the whole absent: an id of which a part
/// is missing could belong to two events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Where(Vec<Vec<Lookup>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Lookup {
    /// `json:PATH`
    Json(json::Path),
    /// `json_b64:PATH#PATH`
    JsonInBase64(json::Path, json::Path),
    /// `key:PATTERN`: the name of the first member that fits.
    Key(String),
    /// `header:NAME`
    Header(HeaderName),
    /// `form:FIELD`
    Form(String),
    /// `xml:PATH`
    Xml(xml::Path),
    /// `const:TEXT`
    Const(String),
    /// `path`: the source itself tells, by its URL.
    Path,
}

/// What a where-expression looks at: one event of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The event as JSON, if it is.
    pub(super) json: Option<&'a [u8]>,
    /// The fields of the form, if the body is one.
    pub(super) form: &'a [(String, String)],
    /// The body, if it is XML.
    pub(super) xml: Option<&'a str>,
}

impl Where {
    /// Reads an expression; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let terms = text.split('+').map(|term| {
            let alternatives = term.split('|');
            alternatives.map(|one| Lookup::parse(one.trim())).collect()
        });
        terms.collect::<Result<_, _>>().map(Self)
    }

    /// The text found, terms joined by a dot. Where a term finds several values, `all` joins them
    /// by commas, otherwise the first counts.
    pub(super) fn find(&self, content: Content<'_>, all: bool) -> Option<String> {
        let mut text = String::new();
        for (no, term) in self.0.iter().enumerate() {
            let mut found = term.iter().map(|one| one.find(content));
            let values = found.find(|values| !values.is_empty())?;
            if no > 0 {
                text.push('.');
            }
            if all {
                text.push_str(&values.join(","));
            } else {
                text.push_str(values.first()?);
            }
        }
        Some(text)
    }

    /// Whether the source's own URL is the answer.
    pub(super) fn is_path(&self) -> bool {
        self.0 == [[Lookup::Path]]
    }
}

impl Lookup {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return match text {
                "path" => Ok(Self::Path),
                _ => Err(format!("{text:?}: {WANTED}")),
            };
        };
        if rest.is_empty() {
            return Err(format!("{text:?}: {WANTED}"));
        }
        match kind {
            "json" => json::Path::parse(rest).map(Self::Json),
            "json_b64" => {
                let (outer, inner) = rest
                    .split_once('#')
                    .ok_or_else(|| format!("{text:?}: want json_b64:PATH#PATH"))?;
                let (outer, inner) = (json::Path::parse(outer)?, json::Path::parse(inner)?);
                Ok(Self::JsonInBase64(outer, inner))
            }
            "key" => json::Path::parse(rest).map(|_| Self::Key(rest.to_owned())),
            "header" => header_name(rest).map(Self::Header),
            "form" => Ok(Self::Form(rest.to_owned())),
            "xml" => xml::Path::parse(rest).map(Self::Xml),
            "const" => Ok(Self::Const(rest.to_owned())),
            _ => Err(format!("{text:?}: {WANTED}")),
        }
    }

    /// The values, none of them empty.
    fn find(&self, content: Content<'_>) -> Vec<String> {
        let mut values = match self {
            Self::Json(path) => json_texts(path, content.json),
            Self::JsonInBase64(outer, inner) => json_texts(outer, content.json)
                .iter()
                .filter_map(|text| STANDARD.decode(text).ok())
                .flat_map(|document| json_texts(inner, Some(&document)))
                .collect(),
            Self::Key(pattern) => key_of(pattern, content.json).into_iter().collect(),
            Self::Header(name) => {
                let value = content.headers.get(name);
                let text = value.and_then(|value| value.to_str().ok());
                text.map(str::to_owned).into_iter().collect()
            }
            Self::Form(name) => {
                let fields = content.form.iter();
                let values = fields.filter(|(key, _)| key == name);
                values.map(|(_, value)| value.clone()).collect()
            }
            Self::Xml(path) => content.xml.map(|xml| path.find(xml)).unwrap_or_default(),
            Self::Const(text) => vec![text.clone()],
            Self::Path => Vec::new(),
        };
        values.retain(|value| !value.is_empty());
        values
    }
}

const WANTED: &str = "want json:PATH, json_b64:PATH#PATH, key:PATTERN, header:NAME, form:FIELD, \
                      xml:PATH, const:TEXT or path";

fn json_texts(path: &json::Path, document: Option<&[u8]>) -> Vec<String> {
    let found = document.map(|document| path.find(document));
    let Some(Ok(values)) = found else {
        return Vec::new();
    };
    let scalars = values.into_iter().filter_map(json::scalar);
    scalars.map(Cow::into_owned).collect()
}

fn key_of(pattern: &str, document: Option<&[u8]>) -> Option<String> {
    let members = json::members(json::whole(document?)?).ok()?;
    let mut names = members.into_iter().map(|(name, _)| name);
    let name = names.find(|name| json::matches(pattern, name))?;
    Some(name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, json: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(header_name("x-id").unwrap(), "7".parse().unwrap())]);
        let content = Content {
            headers: &headers,
            json: Some(json.as_bytes()),
            form: &[(String::from("a"), String::from("form"))],
            xml: Some("<a><b>xml</b></a>"),
        };
        Where::parse(text).unwrap().find(content, true)
    }

    #[test]
    fn alternatives_bind_tighter_than_joins() {
        let json = r#"{"b": 2, "c": "x", "list": [1, 2], "o": {}, "n": null}"#;
        assert_eq!(
            find("json:a|json:b + header:X-Id", json).as_deref(),
            Some("2.7")
        );
        assert_eq!(
            find("json:c+form:a+xml:b", json).as_deref(),
            Some("x.form.xml")
        );
        assert_eq!(find("json:list.*", json).as_deref(), Some("1,2"));
        assert_eq!(find("key:li*", json).as_deref(), Some("list"));
        assert_eq!(find("json:o|json:n|const:y", json).as_deref(), Some("y"));
        assert_eq!(find("path", json), None);
    }

    #[test]
    fn a_missing_part_makes_the_whole_absent() {
        assert_eq!(find("json:a+json:b", r#"{"b": 1}"#), None);
        assert_eq!(find("json:a", "not JSON"), None);
    }

    #[test]
    fn a_field_within_base64_is_found() {
        // {"emailAddress":"a@b"}
        let json = r#"{"m": {"data": "eyJlbWFpbEFkZHJlc3MiOiJhQGIifQ=="}}"#;
        let found = find("json_b64:m.data#emailAddress", json);
        assert_eq!(found.as_deref(), Some("a@b"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "json",
            "json:",
            "jsn:a",
            "header:a b",
            "json:a||json:b",
            "json_b64:a",
            "+",
        ] {
            assert!(Where::parse(text).is_err(), "{text:?}");
        }
    }
}
