//! YAML 1.2 read into the values of JSON, within limits.
//!
//! Scalars are what the core schema says (`no` and `2024-02-01` are texts). What JSON cannot say is refused
//! with its line: tags beyond the core schema, keys that are no scalars, `.inf` and `.nan`, several
//! documents; and so are merge keys, which YAML 1.2 does not have, and a key that stands twice.
//!
//! An alias puts a copy in place that counts as if it were written there, and every anchor keeps one that
//! counts among its like: a document of aliases of aliases ends at a limit, not at the end of memory.

#![deny(clippy::indexing_slicing)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// How much is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all scalars, keys included, and one for each of them.
    pub bytes: usize,
    /// Scalars, lists and objects; keys are not counted.
    pub values: usize,
    /// Lists and objects within each other.
    pub depth: usize,
}

/// Why a text was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Error {
    /// From 1 on.
    pub line: usize,
    /// For people.
    pub why: Cow<'static, str>,
    /// It is larger or deeper than [`Limits`] allow.
    pub beyond: bool,
}

type Done = Result<(), Cow<'static, str>>;

/// Reads one document.
///
/// # Errors
/// The text is not YAML, says what JSON cannot, or is beyond `limits`.
pub fn read(text: &str, limits: Limits) -> Result<Value, Error> {
    let mut builder = Builder::new(limits);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Error {
            line: error.marker().line(),
            why: Cow::Owned(error.info().to_owned()),
            // What the parser says of more than 255 lists and objects on one line.
            beyond: error.info() == "recursion limit exceeded",
        })?;
        builder.take(event).map_err(|why| Error {
            line: span.start.line(),
            why,
            beyond: builder.beyond,
        })?;
    }
    builder.root.ok_or(Error {
        line: 1,
        why: Cow::Borrowed("the document is empty"),
        beyond: false,
    })
}

/// What a value takes.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: usize,
    values: usize,
    /// Lists and objects within each other.
    height: usize,
}

/// A list or an object that is being read.
struct Open {
    anchor: usize,
    size: Size,
    into: Into,
}

enum Into {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Object(Map<String, Value>, Option<String>),
}

struct Builder {
    limits: Limits,
    open: Vec<Open>,
    /// What anchors stand for.
    anchors: BTreeMap<usize, (Value, Size)>,
    /// Of the whole, and of what anchors keep.
    read: Size,
    kept: Size,
    documents: usize,
    root: Option<Value>,
    beyond: bool,
}

impl Builder {
    const fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            read: Size {
                bytes: 0,
                values: 0,
                height: 0,
            },
            kept: Size {
                bytes: 0,
                values: 0,
                height: 0,
            },
            documents: 0,
            root: None,
            beyond: false,
        }
    }

    fn take(&mut self, event: Event<'_>) -> Done {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("one document is wanted".into());
                }
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                known(tag.as_deref(), &["seq"])?;
                self.begin(anchor, Into::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                known(tag.as_deref(), &["map"])?;
                self.begin(anchor, Into::Object(Map::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Scalar(text, style, anchor, tag) => {
                if self.wants_key() {
                    return self.key(text, style, anchor);
                }
                let size = Size {
                    bytes: text.len() + 1,
                    values: 1,
                    height: 0,
                };
                self.count(size)?;
                self.put(scalar(text, style, tag.as_deref())?, size, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn wants_key(&self) -> bool {
        let into = self.open.last().map(|open| &open.into);
        matches!(into, Some(Into::Object(_, None)))
    }

    fn begin(&mut self, anchor: usize, into: Into) -> Done {
        if self.wants_key() {
            return Err("a key must be a scalar".into());
        }
        self.check_depth(1)?;
        let size = Size {
            bytes: 1,
            values: 1,
            height: 0,
        };
        self.count(size)?;
        self.open.push(Open { anchor, size, into });
        Ok(())
    }

    fn end(&mut self) -> Done {
        let Some(open) = self.open.pop() else {
            return Err("an end without a beginning".into());
        };
        let value = match open.into {
            Into::List(values) => Value::Array(values),
            Into::Object(fields, _) => Value::Object(fields),
        };
        let size = Size {
            height: open.size.height + 1,
            ..open.size
        };
        self.put(value, size, open.anchor)
    }

    fn key(&mut self, text: Cow<'_, str>, style: ScalarStyle, anchor: usize) -> Done {
        if style == ScalarStyle::Plain && text == "<<" {
            return Err("merge keys (`<<`) are not part of YAML 1.2".into());
        }
        let size = Size {
            bytes: text.len() + 1,
            ..Size::default()
        };
        self.count(size)?;
        let text = text.into_owned();
        if anchor != 0 {
            self.keep(anchor, Value::String(text.clone()), size)?;
        }
        let Some(Open {
            into: Into::Object(fields, key),
            size: whole,
            ..
        }) = self.open.last_mut()
        else {
            return Err("a key outside an object".into());
        };
        if fields.contains_key(&text) {
            return Err(format!("the key `{text}` stands here twice").into());
        }
        whole.bytes += size.bytes;
        *key = Some(text);
        Ok(())
    }

    fn alias(&mut self, anchor: usize) -> Done {
        if self.wants_key() {
            return Err("a key must be a scalar".into());
        }
        let Some(&(_, size)) = self.anchors.get(&anchor) else {
            return Err("an alias within what it stands for".into());
        };
        // Counted before it is copied.
        self.check_depth(size.height)?;
        self.count(size)?;
        let value = self.anchors.get(&anchor).map(|(value, _)| value.clone());
        self.put(value.unwrap_or_default(), size, 0)
    }

    /// A whole value, in its place.
    fn put(&mut self, value: Value, size: Size, anchor: usize) -> Done {
        if anchor != 0 {
            self.keep(anchor, value.clone(), size)?;
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        open.size.bytes += size.bytes;
        open.size.values += size.values;
        open.size.height = open.size.height.max(size.height);
        match &mut open.into {
            Into::List(values) => values.push(value),
            Into::Object(fields, key) => {
                let key = key.take().ok_or("a value without a key")?;
                fields.insert(key, value);
            }
        }
        Ok(())
    }

    /// What an alias of `anchor` will stand for.
    fn keep(&mut self, anchor: usize, value: Value, size: Size) -> Done {
        self.kept.bytes += size.bytes;
        self.kept.values += size.values;
        self.within(self.kept)?;
        self.anchors.insert(anchor, (value, size));
        Ok(())
    }

    fn count(&mut self, size: Size) -> Done {
        self.read.bytes += size.bytes;
        self.read.values += size.values;
        self.within(self.read)
    }

    fn within(&mut self, size: Size) -> Done {
        let Limits { bytes, values, .. } = self.limits;
        if size.bytes <= bytes && size.values <= values {
            return Ok(());
        }
        self.beyond = true;
        let why =
            format!("more than {values} values or {bytes} bytes, with every alias in its place");
        Err(why.into())
    }

    /// Whether `more` lists and objects may stand within those that are open.
    fn check_depth(&mut self, more: usize) -> Done {
        let depth = self.limits.depth;
        if self.open.len() + more <= depth {
            return Ok(());
        }
        self.beyond = true;
        Err(format!("more than {depth} lists and objects within each other").into())
    }
}

/// Refuses tags that are none of `names` in the core schema.
fn known(tag: Option<&Tag>, names: &[&str]) -> Done {
    let is_known = |tag: &Tag| tag.is_yaml_core_schema() && names.contains(&tag.suffix.as_str());
    match tag {
        Some(tag) if !is_known(tag) => {
            Err(format!("the tag `{}{}` is not known here", tag.handle, tag.suffix).into())
        }
        _ => Ok(()),
    }
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
) -> Result<Value, Cow<'static, str>> {
    known(tag, &["str", "null", "bool", "int", "float"])?;
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => plain(text),
            _ => Ok(Value::String(text.into_owned())),
        };
    };
    if tag.suffix == "str" {
        return Ok(Value::String(text.into_owned()));
    }
    let value = plain(text)?;
    let fits = match tag.suffix.as_str() {
        "null" => value.is_null(),
        "bool" => value.is_boolean(),
        "int" => value.is_i64() || value.is_u64(),
        _ => value.is_number(),
    };
    if fits {
        return Ok(value);
    }
    Err(format!("`{value}` is no {}", tag.suffix).into())
}

/// A plain scalar, as the core schema (YAML 1.2.2, 10.3.2) takes it.
fn plain(text: Cow<'_, str>) -> Result<Value, Cow<'static, str>> {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Err("JSON has no `.nan`".into()),
        _ => {}
    }
    let bare = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if matches!(bare, ".inf" | ".Inf" | ".INF") {
        return Err("JSON has no `.inf`".into());
    }
    match number(&text, bare) {
        Some(Some(number)) => Ok(Value::Number(number)),
        Some(None) => Err(format!("the number `{text}` is too large").into()),
        None => Ok(Value::String(text.into_owned())),
    }
}

/// A number; the outer `None` = it is none, the inner one = it is too large.
fn number(text: &str, bare: &str) -> Option<Option<Number>> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return is_number.then(|| u64::from_str_radix(digits, radix).ok().map(Number::from));
        }
    }
    let is_digit = |byte: u8| byte.is_ascii_digit();
    if !bare.is_empty() && bare.bytes().all(is_digit) {
        let signed = text.strip_prefix('+').unwrap_or(text);
        let whole = signed.parse::<i64>().map(Number::from);
        if let Ok(number) = whole.or_else(|_| signed.parse::<u64>().map(Number::from)) {
            return Some(Some(number));
        }
    }
    let could_be = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !bare.bytes().any(is_digit) || !bare.bytes().all(could_be) {
        return None; // `inf` and `nan`, which Rust would read, are texts
    }
    let float: f64 = text.parse().ok()?;
    Some(Number::from_f64(float))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 1 << 20,
        values: 1000,
        depth: 16,
    };

    fn fails(text: &str, line: usize, why: &str) -> bool {
        let error = read(text, LIMITS).expect_err(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.why.contains(why), "{text:?}: {error}");
        error.beyond
    }

    #[test]
    fn scalars_are_what_the_core_schema_says() {
        for (text, value) in [
            ("a: b", json!({"a": "b"})),
            (
                "200: x\ntrue: y\n~: z",
                json!({"200": "x", "true": "y", "~": "z"}),
            ),
            ("[~, null, NULL, '']", json!([null, null, null, ""])),
            (
                "[true, False, yes, no, on]",
                json!([true, false, "yes", "no", "on"]),
            ),
            (
                "[1, -1, +7, 0o17, 0x1F, 010]",
                json!([1, -1, 7, 15, 31, 10]),
            ),
            (
                "[1.5, .5, 5., 1e3, -2.5E-1]",
                json!([1.5, 0.5, 5.0, 1000.0, -0.25]),
            ),
            (
                "[1.2.3, 2024-02-01, 1_000, inf, e5, 0x, '1']",
                json!(["1.2.3", "2024-02-01", "1_000", "inf", "e5", "0x", "1"]),
            ),
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!(18446744073709551616.0)),
            (
                "a: |\n  one\n  two\nb: >-\n  one\n  two\n",
                json!({"a": "one\ntwo\n", "b": "one two"}),
            ),
            ("a:\n- 1\n-\n  b: 2\n", json!({"a": [1, {"b": 2}]})),
            ("!!str 5", json!("5")),
            (
                "[!!int '5', !!float 5, !!seq [], !!map {}]",
                json!([5, 5, [], {}]),
            ),
            ("\"\\u0041\\n\"", json!("A\n")),
            (
                "a: &x {b: 1}\nc: *x\nd: [*x, *x]",
                json!({"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}),
            ),
            ("# only\n---\na: 1\n...\n", json!({"a": 1})),
            ("'<<': 1", json!({"<<": 1})),
        ] {
            assert_eq!(read(text, LIMITS).as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn what_json_cannot_say_is_refused_with_its_line() {
        for (text, line, why) in [
            ("", 1, "empty"),
            ("# nothing\n", 1, "empty"),
            ("a: 1\n---\nb: 2\n", 2, "one document"),
            ("a: 1\nb: 2\na: 3\n", 3, "`a` stands here twice"),
            ("a: 1\n? [b]\n: 2\n", 2, "a key must be a scalar"),
            ("a: &x 1\n*x : 2\n", 2, "a key must be a scalar"),
            ("a:\n  - !secret b\n", 2, "tag"),
            ("a: !!int b\n", 1, "is no int"),
            ("a: !!binary aGk=\n", 1, "tag"),
            ("a: 1\nb: .inf\n", 2, ".inf"),
            ("a: -.INF\n", 1, ".inf"),
            ("a: .NaN\n", 1, ".nan"),
            ("a: 1e999\n", 1, "too large"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys"),
            ("a: &x [1, *x]\n", 1, "within what it stands for"),
            ("a: *x\n", 1, "anchor"),
            ("a: [1, 2\nb: 3\n", 2, ""),
            ("a: 'open\n", 1, "end of stream"),
        ] {
            assert!(!fails(text, line, why), "{text}");
        }
    }

    #[test]
    fn depth_ends_at_its_limit_also_where_aliases_make_it() {
        let nested = |count: usize| format!("{}1{}", "[".repeat(count), "]".repeat(count));
        assert!(read(&nested(16), LIMITS).is_ok());
        assert!(fails(&nested(17), 1, "16 lists and objects"));
        assert!(fails(&nested(200_000), 1, "recursion limit"));
        assert!(fails(&"- ".repeat(100_000), 1, "16 lists and objects"));
        assert!(fails(&"{a: ".repeat(100_000), 1, "recursion limit"));
        let chain = |height: usize| format!("a: &x {}\nb: {}", nested(height), "[".repeat(8));
        let close = format!("*x{}", "]".repeat(8));
        assert!(read(&format!("{}{close}", chain(7)), LIMITS).is_ok());
        assert!(fails(
            &format!("{}{close}", chain(8)),
            2,
            "16 lists and objects"
        ));
    }

    #[test]
    fn aliases_of_aliases_end_at_the_limit() {
        let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for n in 1..12 {
            let of = format!("*a{},", n - 1).repeat(9);
            bomb.push_str(&format!("a{n}: &a{n} [{of}]\n"));
        }
        assert!(fails(&bomb, 4, "more than 1000 values"));
        let long = format!("a: &x {}\nb: [{}]\n", "x".repeat(100_000), "*x,".repeat(20));
        assert!(fails(&long, 2, "1048576 bytes"));
        // Anchors within anchors keep copies: those end as well.
        let begin: String = (0..12).map(|n| format!("&n{n} [")).collect();
        let kept = format!("{begin}{}{}", "1,".repeat(500), "]".repeat(12));
        assert!(fails(&kept, 1, "more than 1000 values"));
    }

    #[test]
    fn the_number_of_values_ends_at_its_limit() {
        assert!(read(&"- 1\n".repeat(999), LIMITS).is_ok());
        assert!(fails(&"- 1\n".repeat(1000), 1000, "more than 1000 values"));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|n: f64| json!(n)),
            "[ -~äß€\\n\\t]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,8}", inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_read_as_what_it_is(value in json_value()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(read(&text, LIMITS), Ok(value.clone()), "{}", text);
            }
        }
    }
}
