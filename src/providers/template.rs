//! The message that a provider signs, as parts.
//!
//! A template is parsed once when the manifest is loaded; at a request its parts are fed to the MAC one
//! by one. Nothing is ever substituted into a text and read again, so a body that holds `{ts}` is
//! just a body.

use http::HeaderName;

use super::json;

/// `{body}`, `{ts}` and the others, with the text between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

/// One part of a signed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The body's bytes as received.
    Body,
    /// The timestamp's text as received.
    Ts,
    /// The method, in capitals.
    Method,
    /// The public URL.
    Url,
    /// The sorted form.
    Form,
    /// The value of a header.
    Header(HeaderName),
    /// A scalar of the payload.
    Json(json::Path),
    /// Text that stands in every message.
    Text(String),
}

impl Template {
    /// `{body}` alone.
    pub(super) fn body() -> Self {
        Self(vec![Part::Body])
    }

    /// Reads a template; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("{text:?} has a {{ without its }}"));
            };
            push_text(&mut parts, before);
            parts.push(Part::parse(name)?);
            rest = after;
        }
        push_text(&mut parts, rest);
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return Err(String::from("signs nothing of the request"));
        }
        if text.replace(['{', '}'], "").len() + 2 * parts.iter().filter(|p| p.is_variable()).count()
            != text.len()
        {
            return Err(format!("{text:?} has a }} without its {{"));
        }
        Ok(Self(parts))
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    pub(super) fn holds(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        match (name, name.split_once(':')) {
            ("body", _) => Ok(Self::Body),
            ("ts", _) => Ok(Self::Ts),
            ("method", _) => Ok(Self::Method),
            ("url", _) => Ok(Self::Url),
            ("form", _) => Ok(Self::Form),
            (_, Some(("header", header))) => HeaderName::try_from(header)
                .map(Self::Header)
                .map_err(|_| format!("{header:?} is no name of a header")),
            (_, Some(("json", path))) => json::Path::parse(path).map(Self::Json),
            _ => Err(format!(
                "{{{name}}} is unknown: want body, ts, method, url, form, header:NAME or json:PATH"
            )),
        }
    }

    const fn is_variable(&self) -> bool {
        !matches!(self, Self::Text(_))
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_parts_and_the_text_between() {
        let parsed = Template::parse("v0:{ts}:{body}").unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        let wanted = [text("v0:"), Part::Ts, text(":"), Part::Body];
        assert_eq!(parsed.parts(), wanted);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "x",
            "{bod}",
            "{body",
            "body}",
            "{body}}",
            "{{body}",
            "{header:a b}",
            "{json:}",
        ] {
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
    }
}
