//! Text with `{name}` in it. A name is of small letters and underscores, so the braces of JSON, which
//! are followed by a quote, a blank or a brace, stand for themselves.

use std::collections::BTreeMap;

use anyhow::Context;

/// Values by name.
pub(crate) type Values = BTreeMap<String, String>;

/// Pieces of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Puts the values in; a name without a value is an error.
pub(crate) fn fill(template: &str, values: &Values) -> anyhow::Result<String> {
    let mut filled = String::with_capacity(template.len());
    for piece in pieces(template) {
        filled += match piece {
            Piece::Text(text) => text,
            Piece::Name(name) => values
                .get(name)
                .with_context(|| format!("nothing to put for {{{name}}} in `{template}`"))?,
        };
    }
    Ok(filled)
}

/// The names of a template.
pub(super) fn names(template: &str) -> Vec<&str> {
    let names = pieces(template)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Name(name) => Some(name),
        });
    names.collect()
}

fn pieces(template: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for (no, part) in template.split('{').enumerate() {
        let named = part.split_once('}').filter(|(name, _)| {
            no > 0 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        });
        match named {
            Some((name, rest)) => {
                pieces.push(Piece::Name(name));
                pieces.push(Piece::Text(rest));
            }
            None if no == 0 => pieces.push(Piece::Text(part)),
            None => {
                pieces.push(Piece::Text("{"));
                pieces.push(Piece::Text(part));
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_and_braces_of_json_stay() {
        let values = Values::from([("app".to_owned(), "a1".to_owned())]);
        for (template, filled) in [
            ("/x/{app}/y{app}", "/x/a1/ya1"),
            (
                r#"{"a":{"b":"{app}"},"c":{}}"#,
                r#"{"a":{"b":"a1"},"c":{}}"#,
            ),
            ("{App} {a1} {", "{App} {a1} {"),
            ("", ""),
        ] {
            assert_eq!(fill(template, &values).unwrap(), filled);
        }
        assert!(fill("{other}", &values).is_err());
        assert_eq!(names("{app}{\"x\":{other}}"), ["app", "other"]);
    }
}
