//! Bodies of HTML forms: `application/x-www-form-urlencoded` and `multipart/form-data`.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;

/// The media type of the request, lower case and without parameters; empty if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = content_type(headers);
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Whether the body is a form with percent-encoding.
pub(super) fn is_urlencoded(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/x-www-form-urlencoded"
}

/// Whether the body is a form in parts.
pub(super) fn is_multipart(headers: &HeaderMap) -> bool {
    media_type(headers) == "multipart/form-data"
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// The fields of an urlencoded form or of a query string, decoded, in their order. Empty pieces are
/// left out, a piece without `=` has an empty value.
pub(super) fn fields(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let pieces = text.split(|byte| *byte == b'&');
    pieces.filter(|piece| !piece.is_empty()).map(|piece| {
        let at = piece.iter().position(|byte| *byte == b'=');
        let (key, value) = piece.split_at(at.unwrap_or(piece.len()));
        (decode(key), decode(value.get(1..).unwrap_or_default()))
    })
}

/// The one value of `name` in an urlencoded form or query; `Err` if it stands there twice.
pub(super) fn field(text: &[u8], name: &str) -> Result<Option<Vec<u8>>, Twice> {
    let mut found = fields(text).filter(|(key, _)| key == name.as_bytes());
    match (found.next(), found.next()) {
        (first, None) => Ok(first.map(|(_, value)| value)),
        (_, Some(_)) => Err(Twice),
    }
}

/// A field that may stand once stands twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twice;

/// The form as Twilio signs it: keys sorted, the distinct values of each sorted, key and value
/// joined without anything between.
pub(super) fn sorted(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = fields(body).collect();
    fields.sort();
    fields.dedup();
    let mut out = Vec::with_capacity(body.len());
    for (key, value) in fields {
        out.extend_from_slice(&key);
        out.extend_from_slice(&value);
    }
    out
}

/// The content of the part `name` of a multipart body, as a slice of it; `Err` if there are two.
/// Parts that are cut off have no end and do not count.
pub(super) fn part<'b>(
    headers: &HeaderMap,
    body: &'b [u8],
    name: &str,
) -> Result<Option<&'b [u8]>, Twice> {
    let Some(boundary) = boundary(content_type(headers)) else {
        return Ok(None);
    };
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    let mut found = None;
    // The first delimiter may stand at the very beginning, without the line end before it.
    let opening = delimiter.get(2..).unwrap_or_default();
    let mut rest = match body.strip_prefix(opening) {
        Some(rest) => rest,
        None => match split_once(body, &delimiter) {
            Some((_, rest)) => rest,
            None => return Ok(None),
        },
    };
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let Some((part, after)) = split_once(part, &delimiter) else {
            break;
        };
        rest = after;
        let Some((head, content)) = split_once(part, b"\r\n\r\n") else {
            continue;
        };
        if part_name(head).as_deref() == Some(name) && found.replace(content).is_some() {
            return Err(Twice);
        }
    }
    Ok(found)
}

/// RFC 2046: 1 to 70 characters, quoted or not.
fn boundary(content_type: &str) -> Option<Cow<'_, str>> {
    let value = parameter(content_type, "boundary")?;
    (1..=70).contains(&value.len()).then_some(value)
}

fn part_name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.trim().eq_ignore_ascii_case("content-disposition");
        is_it.then_some(value)
    })?;
    parameter(disposition, "name").map(Cow::into_owned)
}

/// A parameter of a header value; a semicolon within quotes is not understood.
fn parameter<'v>(value: &'v str, name: &str) -> Option<Cow<'v, str>> {
    value.split(';').skip(1).find_map(|piece| {
        let (key, value) = piece.split_once('=')?;
        let value = value.trim();
        let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let is_it = key.trim().eq_ignore_ascii_case(name);
        is_it.then_some(Cow::Borrowed(quoted.unwrap_or(value)))
    })
}

fn split_once<'b>(bytes: &'b [u8], by: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = find(bytes, by)?;
    let (before, rest) = bytes.split_at(at);
    Some((before, rest.get(by.len()..).unwrap_or_default()))
}

/// The first place of `needle`. Jumps from one first byte to the next.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = from + rest.iter().position(|byte| *byte == first)?;
        if bytes.get(at..).is_some_and(|rest| rest.starts_with(needle)) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn decode(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multipart(boundary: &str) -> HeaderMap {
        let value = format!("multipart/form-data; boundary={boundary}");
        HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())])
    }

    #[test]
    fn the_sorted_form_has_each_value_once() {
        let body = b"b=2&a=x+y&b=1&b=2&c&=z";
        assert_eq!(sorted(body), b"zax yb1b2c");
    }

    #[test]
    fn a_part_is_a_slice_of_the_body_and_cut_off_parts_do_not_count() {
        let body =
            b"--B\r\ncontent-disposition: form-data; name=\"json\"\r\n\r\n{\"a\":\r\n1}\r\n--B--";
        let headers = multipart("B");
        assert_eq!(
            part(&headers, body, "json"),
            Ok(Some(&b"{\"a\":\r\n1}"[..]))
        );
        assert_eq!(part(&headers, body, "other"), Ok(None));
        assert_eq!(part(&headers, &body[..body.len() - 6], "json"), Ok(None));
        assert_eq!(
            part(&multipart("\"B\""), body, "json"),
            Ok(Some(&b"{\"a\":\r\n1}"[..]))
        );
        assert_eq!(part(&multipart("C"), body, "json"), Ok(None));
    }

    #[test]
    fn what_stands_twice_is_refused() {
        let one = "--B\r\nContent-Disposition: form-data; name=json\r\n\r\n1\r\n";
        let body = format!("{one}{one}--B--\r\n");
        assert_eq!(part(&multipart("B"), body.as_bytes(), "json"), Err(Twice));
        assert_eq!(field(b"a=1&b=2&a=1", "a"), Err(Twice));
        assert_eq!(field(b"a=1&b=2&a=1", "b"), Ok(Some(b"2".to_vec())));
    }
}
