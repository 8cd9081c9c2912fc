//! Finding values in a JSON document without changing a byte of it.
//!
//! A path is walked over the raw text: values come back as slices of the document, so a number keeps
//! its digits and an element of a batch its bytes. A name that stands twice in an object is refused
//! where a path needs it, since two readers would disagree on which one counts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Steps of one path at most.
const MAX_STEPS: usize = 16;

/// `a.b.0`, where `*` within a step stands for any text and a step `*` for every element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// The name of a member; it may hold one `*`.
    name: String,
    /// The same as place in a list.
    index: Option<usize>,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The document is not JSON.
    NotJson,
    /// A name that the path needs stands twice.
    Ambiguous,
}

impl Path {
    /// Reads a path; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let steps: Vec<Step> = text.split('.').map(Step::new).collect();
        if steps.iter().any(|step| step.name.is_empty()) {
            return Err(format!("{text:?} has an empty step: want a.b.0"));
        }
        if steps.iter().any(|step| step.name.matches('*').count() > 1) {
            return Err(format!("{text:?} has a step with more than one *"));
        }
        if steps.len() > MAX_STEPS {
            return Err(format!("{text:?} has more than {MAX_STEPS} steps"));
        }
        Ok(Self(steps))
    }

    /// All values at the path, as slices of `document`, in its order.
    pub(super) fn find<'d>(&self, document: &'d [u8]) -> Result<Vec<&'d RawValue>, Lost> {
        let root: &RawValue = serde_json::from_slice(document).map_err(|_| Lost::NotJson)?;
        let mut here = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in here {
                step.enter(value, &mut next)?;
            }
            here = next;
        }
        Ok(here)
    }

    /// The one scalar at the path.
    pub(super) fn scalar<'d>(&self, document: &'d [u8]) -> Result<Option<Cow<'d, str>>, Lost> {
        match self.find(document)?.as_slice() {
            [one] => Ok(scalar(one)),
            _ => Ok(None),
        }
    }

    /// Everything but the last step, and the last step as a path of its own.
    pub(super) fn split_last(&self) -> Option<(Self, Self)> {
        match self.0.as_slice() {
            [before @ .., last] if !before.is_empty() => {
                Some((Self(before.to_vec()), Self(vec![last.clone()])))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.0.iter().map(|step| step.name.as_str()).collect();
        f.write_str(&steps.join("."))
    }
}

impl Step {
    fn new(text: &str) -> Self {
        Self {
            name: text.to_owned(),
            index: text.parse().ok(),
        }
    }

    fn matches(&self, key: &str) -> bool {
        matches(&self.name, key)
    }

    fn is_pattern(&self) -> bool {
        self.name.contains('*')
    }

    /// Adds what stands one step below `value`.
    fn enter<'d>(&self, value: &'d RawValue, found: &mut Vec<&'d RawValue>) -> Result<(), Lost> {
        let before = found.len();
        match value.get().bytes().next() {
            Some(b'{') => {
                let members = members(value)?;
                found.extend(
                    members
                        .iter()
                        .filter(|(key, _)| self.matches(key))
                        .map(|(_, value)| *value),
                );
                if !self.is_pattern() && found.len() > before + 1 {
                    return Err(Lost::Ambiguous);
                }
            }
            Some(b'[') => {
                let elements = elements(value)?;
                if self.name == "*" {
                    found.extend(elements);
                } else if let Some(index) = self.index {
                    found.extend(elements.get(index));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether `text` fits a pattern with at most one `*`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail)
        }
    }
}

/// The members of an object in their order, names decoded. Empty for anything else.
pub(super) fn members(value: &RawValue) -> Result<Vec<(Cow<'_, str>, &RawValue)>, Lost> {
    if !value.get().starts_with('{') {
        return Ok(Vec::new());
    }
    let Members(members) = serde_json::from_str(value.get()).map_err(|_| Lost::NotJson)?;
    Ok(members)
}

/// The elements of a list. Empty for anything else.
pub(super) fn elements(value: &RawValue) -> Result<Vec<&RawValue>, Lost> {
    if !value.get().starts_with('[') {
        return Ok(Vec::new());
    }
    serde_json::from_str(value.get()).map_err(|_| Lost::NotJson)
}

/// The text of a scalar: strings decoded, numbers with the digits of the document, booleans as
/// `true` and `false`. `None` for null, lists and objects.
pub(super) fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.bytes().next()? {
        b'"' => {
            let Text(text) = serde_json::from_str(text).ok()?;
            Some(text)
        }
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(text)),
    }
}

/// Whether the bytes are one JSON value; gives it without the white space around it.
pub(super) fn whole(document: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(document).ok()
}

/// Whether the bytes are JSON at all.
pub(super) fn is_json(document: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(document).is_ok()
}

/// A string that is borrowed where it holds no escape.
struct Text<'d>(Cow<'d, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

struct Members<'d>(Vec<(Cow<'d, str>, &'d RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            members.push((key, value));
        }
        Ok(Members(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom("an object is wanted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str, document: &str) -> Result<Vec<String>, Lost> {
        let found = Path::parse(path).unwrap().find(document.as_bytes())?;
        Ok(found.iter().map(|value| value.get().to_owned()).collect())
    }

    #[test]
    fn a_path_gives_the_bytes_of_the_document() {
        let document = r#" {"a": {"b": [1.10, {"c":  "x"}]}, "n": 10000000000000000000001} "#;
        assert_eq!(find("a.b.0", document), Ok(vec!["1.10".into()]));
        assert_eq!(find("a.b.*.c", document), Ok(vec![r#""x""#.into()]));
        assert_eq!(
            find("n", document),
            Ok(vec!["10000000000000000000001".into()])
        );
        assert_eq!(find("a.x.c", document), Ok(vec![]));
        assert_eq!(find("a", "{"), Err(Lost::NotJson));
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_where_it_counts() {
        let document = r#"{"a": 1, "b": 2, "\u0061": 3}"#;
        assert_eq!(find("a", document), Err(Lost::Ambiguous));
        assert_eq!(find("b", document), Ok(vec!["2".into()]));
    }

    #[test]
    fn one_star_in_a_name_matches_any_text() {
        let document = r#"{"tweet_create_events": [{"id_str": "1"}, {"id_str": "2"}]}"#;
        let found = find("*_events.*.id_str", document);
        assert_eq!(found, Ok(vec![r#""1""#.into(), r#""2""#.into()]));
    }
}
