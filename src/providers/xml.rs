//! Finding texts in an XML body, as far as SOAP notifications need it.
//!
//! Not a parser of XML: it walks tags in their order and knows no namespaces, no entities beyond the
//! five predefined ones, and refuses documents with a DTD. What it finds names an event; nothing that
//! protects anything rests on it.

/// `Notification/Id` or `sObject@type`: local names, the path may begin at any depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    names: Vec<String>,
    attribute: Option<String>,
}

/// Elements nested at most; deeper ones are not looked at.
const MAX_DEPTH: usize = 64;

impl Path {
    /// Reads a path; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (path, attribute) = match text.split_once('@') {
            Some((path, attribute)) => (path, Some(attribute.to_owned())),
            None => (text, None),
        };
        let names: Vec<_> = path.split('/').map(str::to_owned).collect();
        let empty = |name: &String| name.is_empty();
        if names.iter().any(empty) || attribute.as_ref().is_some_and(empty) {
            return Err(format!(
                "{text:?} has an empty name: want Element/Element@attribute"
            ));
        }
        Ok(Self { names, attribute })
    }

    /// All texts at the path, in their order.
    pub(super) fn find(&self, document: &str) -> Vec<String> {
        let mut found = Vec::new();
        if document.contains("<!DOCTYPE") {
            return found;
        }
        let mut open: Vec<&str> = Vec::new();
        let mut rest = document;
        while let Some((text, after)) = rest.split_once('<') {
            if self.attribute.is_none() && self.ends(&open) && !text.trim().is_empty() {
                found.push(unescape(text.trim()));
            }
            let Some((tag, after)) = split_tag(after) else {
                break;
            };
            rest = after;
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if tag.starts_with('/') {
                open.pop();
                continue;
            }
            let closed = tag.ends_with('/');
            let tag = tag.trim_end_matches('/');
            let name = tag.split_ascii_whitespace().next().unwrap_or_default();
            open.push(local(name));
            if open.len() > MAX_DEPTH {
                break;
            }
            if let Some(attribute) = &self.attribute
                && self.ends(&open)
            {
                found.extend(value_of(tag, attribute));
            }
            if closed {
                open.pop();
            }
        }
        found
    }

    fn ends(&self, open: &[&str]) -> bool {
        let from = open.len().checked_sub(self.names.len());
        from.and_then(|from| open.get(from..))
            .is_some_and(|tail| tail.iter().eq(self.names.iter()))
    }
}

/// A tag up to its `>`, and what follows; comments and CDATA end where they say.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    if text.starts_with("!--") {
        return text.split_once("-->");
    }
    if text.starts_with("![CDATA[") {
        return text.split_once("]]>");
    }
    text.split_once('>')
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// The value of an attribute by its local name, without its own prefix (`sf:Lead` is `Lead`).
fn value_of(tag: &str, attribute: &str) -> Option<String> {
    tag.split_ascii_whitespace().skip(1).find_map(|piece| {
        let (name, value) = piece.split_once('=')?;
        let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = quoted('"').or_else(|| quoted('\''))?;
        (local(name) == attribute).then(|| unescape(local(value)))
    })
}

fn unescape(text: &str) -> String {
    let plain = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
    ];
    let mut text = text.to_owned();
    for (escaped, plain) in plain {
        text = text.replace(escaped, plain);
    }
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOAP: &str = r#"<?xml version="1.0"?><soapenv:Envelope><soapenv:Body>
        <notifications><OrganizationId>00D1</OrganizationId>
        <Notification><Id>04l1</Id><sObject xsi:type="sf:Lead"><sf:Id>00Q1</sf:Id></sObject></Notification>
        <Notification><Id>04l&amp;2</Id><empty/></Notification></notifications></soapenv:Body></soapenv:Envelope>"#;

    #[test]
    fn texts_and_attributes_are_found_by_local_names() {
        let find = |path: &str| Path::parse(path).unwrap().find(SOAP);
        assert_eq!(find("Notification/Id"), ["04l1", "04l&2"]);
        assert_eq!(find("sObject@type"), ["Lead"]);
        assert_eq!(find("OrganizationId"), ["00D1"]);
        assert!(find("Nothing").is_empty());
    }

    #[test]
    fn a_document_with_a_dtd_is_not_read() {
        let path = Path::parse("a").unwrap();
        assert!(path.find("<!DOCTYPE a><a>x</a>").is_empty());
        assert_eq!(path.find("<a>x</a"), ["x"]);
    }
}
