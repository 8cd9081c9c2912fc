//! Leaving personal data out of a payload, per subscription (R-128).
//!
//! What is left out is named by JSON Pointers (RFC 6901) into the payload, or marked `"x-pii": true` in
//! the JSON Schema of the event type. A segment `*` means every element of an array or member of an
//! object. A member that is named is gone with its name; an element of an array becomes `null`, so that
//! the others keep their places. Everything else keeps its bytes, numbers and order included.
//!
//! Fails closed: of a payload that cannot be read nothing is sent but `{}`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Pointers of one subscription at most.
pub const MAX_POINTERS: usize = 100;
/// Characters of one pointer.
pub const MAX_LENGTH: usize = 256;
/// Schemas within schemas that are looked through.
const DEPTH: usize = 16;

/// A text that is no pointer to a part of a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPointer {
    /// It does not begin with a slash; the payload as a whole cannot be left out.
    #[error("a JSON Pointer begins with `/`")]
    Start,
    /// A tilde that is neither `~0` nor `~1`.
    #[error("`~` stands before 0 or 1 only")]
    Escape,
    /// Beyond [`MAX_LENGTH`].
    #[error("at most {MAX_LENGTH} characters")]
    Long,
}

/// Names that lead to what is left out, as a tree: one walk through a payload serves all pointers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exclusion {
    /// What is left out ends here.
    whole: bool,
    below: BTreeMap<String, Exclusion>,
}

/// The names in a pointer.
///
/// # Errors
/// It is no pointer, or leads to the payload as a whole.
pub fn parse(pointer: &str) -> Result<Vec<String>, BadPointer> {
    if pointer.chars().count() > MAX_LENGTH {
        return Err(BadPointer::Long);
    }
    let names = pointer.strip_prefix('/').ok_or(BadPointer::Start)?;
    names.split('/').map(unescaped).collect()
}

fn unescaped(name: &str) -> Result<String, BadPointer> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        out.push(match (c, c == '~') {
            (_, false) => c,
            (_, true) => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(BadPointer::Escape),
            },
        });
    }
    Ok(out)
}

impl Exclusion {
    /// What these pointers name; those that are none are passed over (they were refused when they were
    /// set).
    pub fn of<'a>(pointers: impl IntoIterator<Item = &'a String>) -> Self {
        let mut all = Self::default();
        for names in pointers.into_iter().filter_map(|text| parse(text).ok()) {
            all.add(&names);
        }
        all
    }

    /// What a JSON Schema marks with `"x-pii": true`, in `properties` and `items` and in the parts of
    /// `allOf`, `anyOf` and `oneOf`, up to 16 deep; local references are followed.
    pub fn marked(schema: &Value) -> Self {
        let mut all = Self::default();
        all.mark(schema, schema, DEPTH);
        all
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.below.is_empty()
    }

    fn add(&mut self, names: &[String]) {
        match names {
            [] => self.whole = true,
            [name, rest @ ..] => self.at(name).add(rest),
        }
    }

    fn at(&mut self, name: &str) -> &mut Self {
        self.below.entry(name.to_owned()).or_default()
    }

    fn mark(&mut self, root: &Value, schema: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        if schema.get("x-pii") == Some(&Value::Bool(true)) {
            self.whole = true;
            return;
        }
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) = reference.and_then(|name| root.pointer(name.strip_prefix('#')?)) {
            self.mark(root, target, depth);
        }
        for name in ["allOf", "anyOf", "oneOf"] {
            let parts = schema.get(name).and_then(Value::as_array);
            for part in parts.into_iter().flatten() {
                self.mark(root, part, depth);
            }
        }
        let named = schema.get("properties").and_then(Value::as_object);
        for (name, part) in named.into_iter().flatten() {
            self.mark_below(name, (root, part), depth);
        }
        for name in ["items", "additionalProperties"] {
            if let Some(part @ Value::Object(_)) = schema.get(name) {
                self.mark_below("*", (root, part), depth);
            }
        }
    }

    fn mark_below(&mut self, name: &str, (root, schema): (&Value, &Value), depth: usize) {
        let mut below = Self::default();
        below.mark(root, schema, depth);
        if !below.is_empty() {
            self.at(name).join(below);
        }
    }

    fn join(&mut self, other: Self) {
        self.whole |= other.whole;
        for (name, below) in other.below {
            self.at(&name).join(below);
        }
    }

    /// The payload without what is named.
    pub fn apply(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len());
        let read = serde_json::from_slice::<&RawValue>(payload);
        if !read.is_ok_and(|raw| copy(&[self], raw.get(), &mut out)) {
            out.clear();
            out.extend_from_slice(b"{}");
        }
        out
    }
}

/// What of `nodes` holds for the member or element `name`.
fn below<'a>(nodes: &[&'a Exclusion], name: &str) -> Vec<&'a Exclusion> {
    let all = nodes.iter().flat_map(|node| node.below.iter());
    let named = all.filter(|(known, _)| *known == name || *known == "*");
    named.map(|(_, below)| below).collect()
}

/// Writes a value without what is left out; false if it cannot be read.
fn copy(nodes: &[&Exclusion], value: &str, out: &mut Vec<u8>) -> bool {
    match value.as_bytes().first() {
        _ if nodes.is_empty() => out.extend_from_slice(value.as_bytes()),
        Some(b'{') => {
            let Ok(Members(members)) = serde_json::from_str(value) else {
                return false;
            };
            out.push(b'{');
            let start = out.len();
            for (name, value) in &members {
                let below = below(nodes, name);
                if below.iter().any(|node| node.whole) {
                    continue;
                }
                if out.len() > start {
                    out.push(b',');
                }
                out.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                out.push(b':');
                if !copy(&below, value.get(), out) {
                    return false;
                }
            }
            out.push(b'}');
        }
        Some(b'[') => {
            let Ok(Elements(elements)) = serde_json::from_str(value) else {
                return false;
            };
            out.push(b'[');
            for (place, value) in elements.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                let below = below(nodes, &place.to_string());
                if below.iter().any(|node| node.whole) {
                    out.extend_from_slice(b"null");
                } else if !copy(&below, value.get(), out) {
                    return false;
                }
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(value.as_bytes()),
    }
    true
}

/// The members of an object in the order in which they stand, doubles included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        from.deserialize_map(Read)
    }
}

struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(element) = list.next_element()? {
                    all.push(element);
                }
                Ok(Elements(all))
            }
        }
        from.deserialize_seq(Read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn without(pointers: &[&str], payload: &str) -> String {
        let pointers: Vec<String> = pointers.iter().map(|text| (*text).to_owned()).collect();
        let out = Exclusion::of(&pointers).apply(payload.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_named_is_gone_and_the_rest_keeps_its_bytes() {
        let payload =
            r#"{"z": 1.0, "p" : {"email":"a","n":10000000000000000000001,"x": [ 1 ]}, "a":2}"#;
        for (pointers, want) in [
            (
                &["/p/email"][..],
                r#"{"z":1.0,"p":{"n":10000000000000000000001,"x":[ 1 ]},"a":2}"#,
            ),
            (&["/p"], r#"{"z":1.0,"a":2}"#),
            (
                &["/none", "/z/deeper"],
                r#"{"z":1.0,"p":{"email":"a","n":10000000000000000000001,"x": [ 1 ]},"a":2}"#,
            ),
            (&["/p/email", "/p"], r#"{"z":1.0,"a":2}"#),
            (&["/*"], "{}"),
            (&["/p/*"], r#"{"z":1.0,"p":{},"a":2}"#),
            (
                &["/p/x/0"],
                r#"{"z":1.0,"p":{"email":"a","n":10000000000000000000001,"x":[null]},"a":2}"#,
            ),
        ] {
            assert_eq!(without(pointers, payload), want, "{pointers:?}");
        }
    }

    #[test]
    fn every_element_of_a_list_loses_its_member() {
        let payload = r#"{"l":[{"e":1,"k":2},{"k":3},4]}"#;
        assert_eq!(
            without(&["/l/*/e"], payload),
            r#"{"l":[{"k":2},{"k":3},4]}"#
        );
        assert_eq!(
            without(&["/l/1"], payload),
            r#"{"l":[{"e":1,"k":2},null,4]}"#
        );
    }

    #[test]
    fn names_are_compared_as_text_however_they_are_written() {
        let payload = r#"{"em\u0061il":1,"a/b":2,"m~n":3,"email":4}"#;
        assert_eq!(without(&["/email", "/a~1b", "/m~0n"], payload), "{}");
        assert_eq!(without(&["/x"], r#"{"\u00e9\n":1}"#), "{\"é\\n\":1}");
    }

    #[test]
    fn what_is_no_json_is_not_sent() {
        for payload in ["", "{", "{\"a\":1,}", "nonsense", "{\"a\":1} {"] {
            assert_eq!(without(&["/a"], payload), "{}", "{payload}");
        }
    }

    #[test]
    fn pointers_are_checked() {
        for (text, want) in [
            ("", BadPointer::Start),
            ("a", BadPointer::Start),
            ("/a~2", BadPointer::Escape),
            ("/a~", BadPointer::Escape),
        ] {
            assert_eq!(parse(text), Err(want), "{text}");
        }
        assert_eq!(
            parse(&format!("/{}", "x".repeat(256))),
            Err(BadPointer::Long)
        );
        assert_eq!(parse("/a//b").unwrap(), ["a", "", "b"]);
    }

    #[test]
    fn a_schema_says_what_is_personal() {
        let schema = json!({
            "properties": {
                "name": {"type": "string", "x-pii": true},
                "contact": {"$ref": "#/$defs/contact"},
                "people": {"items": {"allOf": [{"properties": {"phone": {"x-pii": true}}}]}},
                "n": {"x-pii": false},
            },
            "$defs": {"contact": {"properties": {"email": {"x-pii": true}}}},
        });
        let out = Exclusion::marked(&schema).apply(
            br#"{"name":"A","contact":{"email":"a","k":1},"people":[{"phone":"1","id":2}],"n":3}"#,
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"contact":{"k":1},"people":[{"id":2}],"n":3}"#
        );
        let round = json!({"properties": {"a": {"$ref": "#"}, "b": {"x-pii": true}}});
        assert!(!Exclusion::marked(&round).is_empty(), "a circle ends");
        assert!(Exclusion::marked(&json!({"type": "object"})).is_empty());
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c~/\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c~/]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The plain way: take it out of a parsed value.
    fn taken_out(value: &mut Value, names: &[String]) {
        match (value, names) {
            (Value::Object(map), [last]) => {
                map.remove(last);
            }
            (Value::Array(list), [last]) => {
                if let Some(element) = last.parse().ok().and_then(|n: usize| list.get_mut(n)) {
                    *element = Value::Null;
                }
            }
            (Value::Object(map), [name, rest @ ..]) => {
                map.get_mut(name)
                    .into_iter()
                    .for_each(|v| taken_out(v, rest));
            }
            (Value::Array(list), [name, rest @ ..]) => {
                let element = name.parse().ok().and_then(|n: usize| list.get_mut(n));
                element.into_iter().for_each(|v| taken_out(v, rest));
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn leaving_out_is_what_removing_from_the_parsed_value_is(
            members in prop::collection::btree_map("[a-c~/]{0,2}", json_values(), 0..5),
            names in prop::collection::vec("[a-c~/0-2]{0,2}", 1..4),
        ) {
            let mut value = Value::Object(members.into_iter().collect());
            let text = names.iter().map(|name| {
                format!("/{}", name.replace('~', "~0").replace('/', "~1"))
            });
            let pointer: String = text.collect();
            let out = Exclusion::of([&pointer]).apply(value.to_string().as_bytes());
            // `00` and `+1` are no places of an array.
            prop_assume!(names.iter().all(|name| name.len() < 2 || !name.starts_with('0')));
            taken_out(&mut value, &names);
            let read: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
