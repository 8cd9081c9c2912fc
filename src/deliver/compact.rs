//! JSON as JavaScript prints it: `JSON.stringify(JSON.parse(text))`, byte for byte (R-25).
//!
//! ECMA-262: numbers are doubles printed with the fewest digits that read back
//! (Number::toString), beyond the range they become null; keys that are array indices come first and
//! ascending, the others in the order of their first appearance; of equal keys the last value wins;
//! only quotes, backslashes, control characters and lone surrogates are escaped (well-formed
//! stringify).
//!
//! A lone surrogate is kept as its three-byte form (WTF-8) until it is printed.

#![deny(clippy::indexing_slicing)]

/// Deeper nesting is not rewritten; ingest refuses it long before.
const DEPTH: usize = 128;

/// Rewrites one JSON text; `None` if it is not JSON.
pub(super) fn rewrite(json: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { rest: json };
    let mut out = Vec::with_capacity(json.len());
    reader.value(&mut out, DEPTH)?;
    reader.blank();
    reader.rest.is_empty().then_some(out)
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// Decoded key and printed value.
type Member = (Vec<u8>, Vec<u8>);

impl Reader<'_> {
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.blank();
        match self.rest.first()? {
            b'{' => self.object(out, depth),
            b'[' => self.array(out, depth),
            b'"' => {
                let text = self.string()?;
                print_string(&text, out);
                Some(())
            }
            b'-' | b'0'..=b'9' => self.number(out),
            _ => {
                let word: &[u8] = [&b"true"[..], b"false", b"null"]
                    .into_iter()
                    .find(|word| self.rest.starts_with(word))?;
                self.rest = self.rest.get(word.len()..)?;
                out.extend_from_slice(word);
                Some(())
            }
        }
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.take(b'[')?;
        out.push(b'[');
        self.blank();
        if self.take(b']').is_none() {
            loop {
                self.value(out, depth)?;
                self.blank();
                if self.take(b']').is_some() {
                    break;
                }
                self.take(b',')?;
                out.push(b',');
            }
        }
        out.push(b']');
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.take(b'{')?;
        let mut members = Members::default();
        self.blank();
        if self.take(b'}').is_none() {
            loop {
                self.blank();
                let key = self.string()?;
                self.blank();
                self.take(b':')?;
                let mut value = Vec::new();
                self.value(&mut value, depth)?;
                members.set(key, value);
                self.blank();
                if self.take(b'}').is_some() {
                    break;
                }
                self.take(b',')?;
            }
        }
        members.print(out);
        Some(())
    }

    /// A string without its quotes, decoded.
    fn string(&mut self) -> Option<Vec<u8>> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => self.escape(&mut text)?,
                0..0x20 => return None,
                byte => text.push(byte),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let byte = match self.next()? {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            same @ (b'"' | b'\\' | b'/') => same,
            b'u' => {
                let unit = self.unit()?;
                let code = self.low_half(unit).unwrap_or(unit);
                push_code(code, text);
                return Some(());
            }
            _ => return None,
        };
        text.push(byte);
        Some(())
    }

    /// The code point of a surrogate pair, if `high` begins one and the text goes on with the other.
    fn low_half(&mut self, high: u32) -> Option<u32> {
        if !(0xd800..0xdc00).contains(&high) || !self.rest.starts_with(b"\\u") {
            return None;
        }
        let before = self.rest;
        self.rest = self.rest.get(2..)?;
        match self.unit() {
            Some(low @ 0xdc00..0xe000) => Some(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
            _ => {
                self.rest = before;
                None
            }
        }
    }

    fn unit(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        digits.iter().try_fold(0, |sum, &digit| {
            char::from(digit).to_digit(16).map(|d| sum * 16 + d)
        })
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let is_part = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
        let len = self.rest.iter().take_while(|b| is_part(b)).count();
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        print_number(number, out);
        Some(())
    }

    fn blank(&mut self) {
        while let Some((b' ' | b'\t' | b'\n' | b'\r', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == wanted).then(|| self.rest = rest)
    }
}

/// The members of an object in JavaScript's order.
#[derive(Default)]
struct Members {
    indices: std::collections::BTreeMap<u32, Vec<u8>>,
    named: Vec<Member>,
    places: hashbrown::HashMap<Vec<u8>, usize>,
}

impl Members {
    fn set(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if let Some(index) = array_index(&key) {
            self.indices.insert(index, value);
        } else if let Some(member) = self.places.get(&key).and_then(|&at| self.named.get_mut(at)) {
            member.1 = value;
        } else {
            self.places.insert(key.clone(), self.named.len());
            self.named.push((key, value));
        }
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut comma = false;
        let mut member = |out: &mut Vec<u8>, key: &[u8], value: &[u8]| {
            if std::mem::replace(&mut comma, true) {
                out.push(b',');
            }
            print_string(key, out);
            out.push(b':');
            out.extend_from_slice(value);
        };
        for (index, value) in &self.indices {
            member(out, index.to_string().as_bytes(), value);
        }
        for (key, value) in &self.named {
            member(out, key, value);
        }
        out.push(b'}');
    }
}

/// Canonical decimal below 2^32 - 1.
fn array_index(key: &[u8]) -> Option<u32> {
    let canonical = key == b"0" || key.first().is_some_and(|d| (b'1'..=b'9').contains(d));
    if !canonical || !key.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let index: u32 = std::str::from_utf8(key).ok()?.parse().ok()?;
    (index != u32::MAX).then_some(index)
}

/// UTF-8, and the same scheme for lone surrogates.
fn push_code(code: u32, text: &mut Vec<u8>) {
    if let Some(c) = char::from_u32(code) {
        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let [_, _, hi, lo] = code.to_be_bytes();
        text.push(0xe0 | (hi >> 4));
        text.push(0x80 | ((hi & 0x0f) << 2) | (lo >> 6));
        text.push(0x80 | (lo & 0x3f));
    }
}

fn print_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| HEX.get(usize::from(n & 0x0f)).copied().unwrap_or(b'0');
    out.push(b'"');
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend([digit(byte >> 4), digit(byte)]);
            }
            // ED A0..BF xx: a surrogate, which UTF-8 proper never holds.
            0xed if tail.first().is_some_and(|next| *next >= 0xa0) => {
                let &[second, third, ref after @ ..] = tail else {
                    continue;
                };
                rest = after;
                out.extend_from_slice(b"\\ud");
                out.extend([
                    digit((second & 0x3f) >> 2),
                    digit((second << 2) | ((third >> 4) & 0x03)),
                    digit(third),
                ]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Number::toString of ECMA-262 for radix 10.
fn print_number(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    if number == 0.0 {
        out.push(b'0'); // minus zero as well
        return;
    }
    // Rust prints the fewest digits that read back: `-d.ddde±x`.
    let text = format!("{number:e}");
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text.as_str()),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let digits = mantissa.replace('.', "");
    let count = i32::try_from(digits.len()).unwrap_or(0);
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let split = |at: i32| digits.split_at(usize::try_from(at).unwrap_or(0));
    let printed = if (count..=21).contains(&point) {
        format!("{digits}{}", zeros(point - count))
    } else if (1..=21).contains(&point) {
        let (whole, part) = split(point);
        format!("{whole}.{part}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, part) = split(1);
        let dot = if part.is_empty() { "" } else { "." };
        format!("{first}{dot}{part}e{:+}", point - 1)
    };
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(printed.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(json: &str) -> Option<String> {
        rewrite(json.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// Expected texts were printed by Node.js: `JSON.stringify(JSON.parse(text))`.
    #[test]
    fn prints_what_javascript_prints() {
        for (json, want) in [
            ("{ \"b\" : 1 , \"a\" : [ 1 , 2 ] }", r#"{"b":1,"a":[1,2]}"#),
            ("[1.0, -0, 0.10, 1e2, 1E-7]", "[1,0,0.1,100,1e-7]"),
            (
                "[1e21, 1e20, 123456789012345678901234]",
                "[1e+21,100000000000000000000,1.2345678901234569e+23]",
            ),
            (
                "[0.000001, 0.0000012, 1.5e-10, -2.5]",
                "[0.000001,0.0000012,1.5e-10,-2.5]",
            ),
            (
                "[9007199254740993, 1e400, -1e400, 5e-324]",
                "[9007199254740992,null,null,5e-324]",
            ),
            (
                r#"{"10":1,"b":2,"2":3,"01":4,"-1":5,"4294967295":6}"#,
                r#"{"2":3,"10":1,"b":2,"01":4,"-1":5,"4294967295":6}"#,
            ),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            (
                r#"["\u0041\/\u00e9\ud83d\ude00\u001f\u007f"]"#,
                "[\"A/é😀\\u001f\u{7f}\"]",
            ),
            (
                r#"["\ud800","\udc00x","\ud800\u0041","\ud83d\ud83d\ude00"]"#,
                r#"["\ud800","\udc00x","\ud800A","\ud83d😀"]"#,
            ),
            (
                "[\"\\b\\f\\n\\r\\t\\\"\\\\\u{2028}\"]",
                "[\"\\b\\f\\n\\r\\t\\\"\\\\\u{2028}\"]",
            ),
            ("{\"\":{},\"x\":[]}", "{\"\":{},\"x\":[]}"),
            (" true ", "true"),
        ] {
            assert_eq!(printed(json).as_deref(), Some(want), "{json}");
        }
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        for json in [
            "",
            "{",
            "[1,]",
            "{\"a\":}",
            "nul",
            "\"\\x\"",
            "1 2",
            "\"\n\"",
            "{1:2}",
            "\"\\u12\"",
        ] {
            assert_eq!(printed(json), None, "{json}");
        }
        assert_eq!(printed(&"[".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn rewriting_twice_changes_nothing_and_keeps_every_number(number: f64, text: String, key: String) {
            prop_assume!(number.is_finite());
            let json = serde_json::json!({ key: [number, text, null, { "a": true }] });
            let once = printed(&serde_json::to_string_pretty(&json).unwrap()).unwrap();
            let twice = printed(&once).unwrap();
            prop_assert_eq!(twice, once);
            let alone = printed(&format!("{number:?}")).unwrap();
            prop_assert_eq!(alone.parse::<f64>().unwrap(), number);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            prop_assert!(rewrite(&bytes).is_none_or(|out| !out.is_empty()));
        }
    }
}
