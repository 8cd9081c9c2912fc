//! How deep a JSON text nests, without parsing it.
//!
//! The payload is skipped by the JSON reader without a recursion limit, so depth is bounded here, in
//! one pass over the bytes. The text need not be valid; whether it is, the reader says.

/// True if `text` opens more than `max` brackets at once, outside strings.
pub(super) fn is_deeper_than(text: &[u8], max: usize) -> bool {
    // Few openings can nest no deeper: counting them is many times cheaper than the walk.
    openings(text) > max && walk(text, max)
}

/// Opening brackets, those in strings included. Sums of at most 255 bytes fit a byte, which lets the
/// compiler count many at once.
fn openings(text: &[u8]) -> usize {
    let count = |part: &[u8]| -> u8 {
        let ones = part
            .iter()
            .map(|&b| u8::from(b == b'{') + u8::from(b == b'['));
        ones.fold(0, u8::wrapping_add)
    };
    text.chunks(255).map(|part| usize::from(count(part))).sum()
}

fn walk(text: &[u8], max: usize) -> bool {
    let mut depth = 0_usize;
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            // The whole string at once: what is in it opens nothing.
            b'"' => loop {
                match rest.next() {
                    None => return false,
                    Some(b'"') => break,
                    Some(b'\\') => {
                        rest.next();
                    }
                    Some(_) => {}
                }
            },
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn depth(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
            serde_json::Value::Object(all) => 1 + all.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            r#"[\[\]{}"\\a-z]{0,20}"#.prop_map(serde_json::Value::String),
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
                prop::collection::vec((r#"[\["\\a]{0,9}"#, inner), 0..4)
                    .prop_map(|all| all.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_the_depth_that_a_parser_finds(value in json()) {
            let text = serde_json::to_vec(&value).unwrap();
            let depth = depth(&value);
            prop_assert!(!walk(&text, depth));
            prop_assert!(depth == 0 || walk(&text, depth - 1));
            prop_assert_eq!(is_deeper_than(&text, 2), depth > 2);
        }
    }

    #[test]
    fn counts_exactly_and_survives_broken_text() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(!is_deeper_than(nested(64).as_bytes(), 64));
        assert!(is_deeper_than(nested(65).as_bytes(), 64));
        for broken in ["\"", "\"\\", "[[[\"\\\"[[[", "]]]][[", "\"abcdefgh\\"] {
            assert!(!is_deeper_than(broken.as_bytes(), 3), "{broken}");
        }
    }
}
