//! The URL as a provider signs it: which escapes are decoded, which forms are tried.

/// The forms of a URL that are tried, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// As it is.
    AsIs,
    /// Without a port.
    NoPort,
    /// With a port: the default one of the scheme if it has none.
    WithPort,
}

/// The words of `url_variants`.
pub(super) const VARIANTS: &[(&str, Variant)] = &[
    ("as_is", Variant::AsIs),
    ("no_port", Variant::NoPort),
    ("with_port", Variant::WithPort),
];

impl Variant {
    /// The URL in this form; as it is if it has no authority.
    pub(super) fn of(self, url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else {
            return url.to_owned();
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        // A colon within brackets belongs to an IPv6 address.
        let port = authority
            .rsplit_once(':')
            .filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        let host = port.map_or(authority, |(host, _)| host);
        match (self, port) {
            (Self::AsIs, _) | (Self::WithPort, Some(_)) => url.to_owned(),
            (Self::NoPort, _) => format!("{scheme}://{host}{tail}"),
            (Self::WithPort, None) => {
                let port = if scheme == "http" { 80 } else { 443 };
                format!("{scheme}://{host}:{port}{tail}")
            }
        }
    }
}

/// Decodes exactly the escapes of `table`, in either case, and nothing else; what a decoded escape
/// makes is not looked at again.
pub(super) fn decode(url: &str, table: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.len());
    let mut rest = url.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                hex_pair(*high, *low).map(|decoded| (decoded, after))
            }
            _ => None,
        };
        match escaped {
            Some((decoded, after)) if table.contains(&decoded) => {
                out.push(decoded);
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// Reads an entry of `url_decode`: `%3A`.
pub(super) fn escape(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'%', high, low] => hex_pair(*high, *low),
        _ => None,
    }
    .ok_or_else(|| format!("{text:?}: want an escape such as %3A"))
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

/// The value of a hex digit in either case.
pub(super) const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_differ_in_the_port_only() {
        let of = |variant: Variant, url: &str| variant.of(url);
        assert_eq!(
            of(Variant::NoPort, "https://a.b:8443/x?y=1:2"),
            "https://a.b/x?y=1:2"
        );
        assert_eq!(of(Variant::NoPort, "https://a.b/x"), "https://a.b/x");
        assert_eq!(of(Variant::WithPort, "https://a.b?x"), "https://a.b:443?x");
        assert_eq!(of(Variant::WithPort, "http://a.b/"), "http://a.b:80/");
        assert_eq!(of(Variant::NoPort, "https://[::1]/x"), "https://[::1]/x");
        assert_eq!(
            of(Variant::WithPort, "https://[::1]/x"),
            "https://[::1]:443/x"
        );
        assert_eq!(of(Variant::AsIs, "https://a.b:1/"), "https://a.b:1/");
    }

    #[test]
    fn only_listed_escapes_are_decoded_and_only_once() {
        let table = [b':', b'/'];
        assert_eq!(decode("a%3ab%3A%20%2F%", &table), b"a:b:%20/%");
        assert_eq!(decode("%253A", &table), b"%253A");
        let table = [b':', b'%'];
        assert_eq!(decode("%253A", &table), b"%3A");
    }
}
