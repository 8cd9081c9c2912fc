//! Text to tokens.

use std::borrow::Cow;

use super::Mistake;

/// A token with the byte where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) at: usize,
    pub(super) kind: Kind<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind<'a> {
    Name(&'a str),
    Text(Cow<'a, str>),
    Whole(i64),
    Real(f64),
    /// `&&`, `==`, `(` …
    Sign(&'static str),
}

/// Longer signs first: `<=` is not `<` and `=`.
const SIGNS: [&str; 22] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ".", ",", "-", "+", "*",
    "/", "%", "?", ":",
];

/// Cuts a text into tokens.
pub(super) fn tokens(source: &str) -> Result<Vec<Token<'_>>, Mistake> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (kind, length) = token(rest, first).map_err(|what| Mistake { at, what })?;
        found.push(Token { at, kind });
        at += length;
    }
    Ok(found)
}

fn token(rest: &str, first: char) -> Result<(Kind<'_>, usize), &'static str> {
    if first.is_ascii_alphabetic() || first == '_' {
        let length = length(rest, |c| c.is_ascii_alphanumeric() || c == '_');
        return Ok((Kind::Name(rest.get(..length).unwrap_or(rest)), length));
    }
    if first.is_ascii_digit() {
        return number(rest);
    }
    if first == '"' || first == '\'' {
        return text(rest, first);
    }
    let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
    let sign = sign.ok_or("this character has no place here")?;
    Ok((Kind::Sign(sign), sign.len()))
}

fn length(rest: &str, belongs: impl Fn(char) -> bool) -> usize {
    rest.find(|c| !belongs(c)).unwrap_or(rest.len())
}

fn number(rest: &str) -> Result<(Kind<'_>, usize), &'static str> {
    let digits = |rest: &str| length(rest, |c| c.is_ascii_digit());
    let mut end = digits(rest);
    let mut is_real = false;
    if let Some(part) = rest.get(end..).and_then(|rest| rest.strip_prefix('.')) {
        let count = digits(part);
        if count == 0 {
            return Err("digits are wanted behind the point");
        }
        (end, is_real) = (end + 1 + count, true);
    }
    if let Some(part) = rest
        .get(end..)
        .and_then(|rest| rest.strip_prefix(['e', 'E']))
    {
        let sign = usize::from(part.starts_with(['+', '-']));
        let count = digits(part.get(sign..).unwrap_or(""));
        if count == 0 {
            return Err("digits are wanted in the exponent");
        }
        (end, is_real) = (end + 1 + sign + count, true);
    }
    let digits = rest.get(..end).unwrap_or(rest);
    let kind = if is_real {
        let real: f64 = digits.parse().map_err(|_| "no number")?;
        if !real.is_finite() {
            return Err("the number is too large");
        }
        Kind::Real(real)
    } else {
        Kind::Whole(digits.parse().map_err(|_| "the number is too large")?)
    };
    Ok((kind, end))
}

fn text(rest: &str, quote: char) -> Result<(Kind<'_>, usize), &'static str> {
    let inner = rest.get(1..).unwrap_or("");
    let mut owned: Option<String> = None;
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let whole = owned.map_or_else(
                || Cow::Borrowed(inner.get(..at).unwrap_or(inner)),
                Cow::Owned,
            );
            return Ok((Kind::Text(whole), at + 2));
        }
        if c == '\n' || c == '\r' {
            return Err("a text ends in its line");
        }
        let real = if c == '\\' {
            let escape = chars.next().map(|(_, c)| c);
            owned.get_or_insert_with(|| inner.get(..at).unwrap_or("").to_owned());
            escaped(escape, &mut chars)?
        } else {
            c
        };
        if let Some(owned) = &mut owned {
            owned.push(real);
        }
    }
    Err("the text does not end")
}

fn escaped(
    escape: Option<char>,
    chars: &mut std::str::CharIndices<'_>,
) -> Result<char, &'static str> {
    match escape {
        Some(c @ ('\\' | '"' | '\'' | '/')) => Ok(c),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('u') => {
            let mut code = 0;
            for _ in 0..4 {
                let digit = chars.next().and_then(|(_, c)| c.to_digit(16));
                code = code * 16 + digit.ok_or("four hex digits are wanted behind \\u")?;
            }
            char::from_u32(code).ok_or("not a character")
        }
        Some(_) | None => Err("no such escape"),
    }
}
