//! Which headers an endpoint's owner may add to a request, and which stay ours.
//!
//! The names that carry our signature, frame the message or belong to one connection can be replaced
//! by nobody: neither by custom headers nor by the names of a signature profile (SW2, T27). Nothing is
//! repaired; what does not fit the grammar of RFC 9110 is refused when it is set.

use std::collections::BTreeMap;

use crate::model::{HexProfile, Profile};

/// Longest value, in bytes (`api.md` 2.1).
pub const VALUE_MAX: usize = 4096;
/// Longest name, in bytes.
pub const NAME_MAX: usize = 256;
/// Custom headers of one endpoint at most.
pub const COUNT_MAX: usize = 64;

/// Why a header is refused. Says the name, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// No token of RFC 9110 5.6.2, or too long.
    #[error("`{0}` is no header name: want 1 to {NAME_MAX} letters, digits or !#$%&'*+-.^_`|~")]
    Name(String),
    /// Set by the gateway or part of the message framing.
    #[error("`{0}` is set by the gateway and cannot be replaced")]
    Reserved(String),
    /// One of the names of the endpoint's signature profile.
    #[error("`{0}` carries the endpoint's signature and cannot be replaced")]
    Profile(String),
    /// Bytes that are no visible ASCII, blank or tab, or blanks at an end.
    #[error("the value of `{0}` has characters other than visible ASCII and inner blanks")]
    Value(String),
    /// Longer than [`VALUE_MAX`].
    #[error("the value of `{0}` is longer than {VALUE_MAX} bytes")]
    TooLong(String),
    /// The same name twice, in different case.
    #[error("`{0}` is there twice: header names do not differ by case")]
    Twice(String),
    /// More than [`COUNT_MAX`].
    #[error("more than {COUNT_MAX} headers")]
    TooMany,
}

/// Lower-case names nobody may set, beside the prefixes. Alphabetical.
static RESERVED: &[&str] = &[
    "accept-encoding", // nothing is decompressed here, so nothing compressed is asked for
    "connection",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// Lower-case beginnings of names nobody may set. `x-svix-` is what old receivers read as well.
static RESERVED_PREFIXES: &[&str] = &["content-", "svix-", "webhook-", "x-svix-"];

/// Whether an endpoint with `profile` may send the custom header `name: value`.
pub fn check_header(name: &str, value: &str, profile: &Profile) -> Result<(), BadHeader> {
    check_name(name)?;
    if profile_names(profile).any(|taken| taken.eq_ignore_ascii_case(name)) {
        return Err(BadHeader::Profile(name.to_owned()));
    }
    check_value(name, value)
}

/// The same for all custom headers of an endpoint.
pub fn check_headers(
    headers: &BTreeMap<String, String>,
    profile: &Profile,
) -> Result<(), BadHeader> {
    if headers.len() > COUNT_MAX {
        return Err(BadHeader::TooMany);
    }
    for (name, value) in headers {
        check_header(name, value, profile)?;
    }
    let mut lower: Vec<String> = headers.keys().map(|n| n.to_ascii_lowercase()).collect();
    lower.sort_unstable();
    let twice = lower.windows(2).find(|pair| pair.first() == pair.last());
    match twice.and_then(<[String]>::first) {
        Some(name) => Err(BadHeader::Twice(name.clone())),
        None => Ok(()),
    }
}

/// Whether the header names and texts of a signature profile can be sent.
pub fn check_profile(profile: &Profile) -> Result<(), BadHeader> {
    let names: Vec<&str> = profile_names(profile).collect();
    for (at, name) in names.iter().enumerate() {
        check_name(name)?;
        let mut later = names.iter().skip(at + 1);
        if later.any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(BadHeader::Twice((*name).to_owned()));
        }
    }
    match profile {
        Profile::Hex(HexProfile { header, prefix, .. }) if !prefix.is_empty() => {
            // A blank at its end is followed by hex digits, so it is an inner one.
            check_value(header, prefix.trim_end_matches(' '))
        }
        Profile::Hex(_) | Profile::Standard | Profile::Dual | Profile::Timestamped { .. } => Ok(()),
    }
}

fn profile_names(profile: &Profile) -> impl Iterator<Item = &str> {
    let names = match profile {
        Profile::Standard | Profile::Dual => [None, None, None, None],
        Profile::Hex(hex) => [
            Some(hex.header.as_str()),
            hex.type_header.as_deref(),
            hex.id_header.as_deref(),
            hex.timestamp_header.as_deref(),
        ],
        Profile::Timestamped { header } => [Some(header.as_str()), None, None, None],
    };
    names.into_iter().flatten()
}

fn check_name(name: &str) -> Result<(), BadHeader> {
    let is_token = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if name.is_empty() || name.len() > NAME_MAX || !is_token {
        return Err(BadHeader::Name(name.chars().take(64).collect()));
    }
    let lower = name.to_ascii_lowercase();
    let is_reserved = RESERVED.binary_search(&lower.as_str()).is_ok()
        || RESERVED_PREFIXES.iter().any(|p| lower.starts_with(p));
    if is_reserved {
        return Err(BadHeader::Reserved(name.to_owned()));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<(), BadHeader> {
    if value.len() > VALUE_MAX {
        return Err(BadHeader::TooLong(name.to_owned()));
    }
    let fits = value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    if !fits || value.trim_matches([' ', '\t']) != value {
        return Err(BadHeader::Value(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::HexKey;

    fn hex() -> HexProfile {
        HexProfile {
            header: String::from("X-Webhook-Signature"),
            prefix: String::from("sha256="),
            type_header: Some(String::from("X-Webhook-Event-Type")),
            id_header: None,
            timestamp_header: None,
            key: HexKey::Text,
            also_standard: true,
        }
    }

    #[test]
    fn the_list_of_reserved_names_is_sorted() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn nobody_replaces_what_is_ours() {
        for name in [
            "webhook-id",
            "Webhook-Signature",
            "webhook-attempt",
            "Webhook-Hops",
            "svix-id",
            "X-Svix-Id",
            "Host",
            "connection",
            "Content-Type",
            "content-length",
            "Content-Encoding",
            "TE",
            "transfer-encoding",
            "Expect",
            "Upgrade",
            "Keep-Alive",
            "Trailer",
            "Proxy-Authorization",
            "User-Agent",
            "traceparent",
            "accept-encoding",
        ] {
            assert_eq!(
                check_header(name, "x", &Profile::Standard),
                Err(BadHeader::Reserved(name.to_owned()))
            );
        }
        let profile = Profile::Hex(hex());
        for name in ["x-webhook-signature", "X-Webhook-Event-Type"] {
            assert_eq!(
                check_header(name, "x", &profile),
                Err(BadHeader::Profile(name.to_owned()))
            );
        }
        assert_eq!(check_header("x-webhook-event-id", "x", &profile), Ok(()));
    }

    #[test]
    fn ordinary_headers_pass() {
        for (name, value) in [
            ("Authorization", "Bearer abc.def"),
            ("X-Api-Key", ""),
            ("x-note", "a\tb  c"),
            ("x-long", &"v".repeat(VALUE_MAX)),
        ] {
            assert_eq!(check_header(name, value, &Profile::Dual), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_same_name_in_two_cases_and_too_many_are_refused() {
        let mut headers: BTreeMap<String, String> = [("X-A", "1"), ("x-a", "2")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into();
        assert_eq!(
            check_headers(&headers, &Profile::Standard),
            Err(BadHeader::Twice(String::from("x-a")))
        );
        headers.remove("x-a");
        headers.extend((1..COUNT_MAX).map(|n| (format!("x-{n}"), String::new())));
        assert_eq!(check_headers(&headers, &Profile::Standard), Ok(()));
        headers.insert(String::from("x-more"), String::new());
        assert_eq!(
            check_headers(&headers, &Profile::Standard),
            Err(BadHeader::TooMany)
        );
    }

    #[test]
    fn profiles_are_held_to_the_same_rules() {
        assert_eq!(check_profile(&Profile::Hex(hex())), Ok(()));
        let same_twice = HexProfile {
            type_header: Some(String::from("x-webhook-signature")),
            ..hex()
        };
        let reserved = HexProfile {
            header: String::from("webhook-signature"),
            ..hex()
        };
        let split = HexProfile {
            prefix: String::from("a\r\nx: "),
            ..hex()
        };
        for bad in [same_twice, reserved, split] {
            assert!(
                check_profile(&Profile::Hex(bad.clone())).is_err(),
                "{bad:?}"
            );
        }
        let header = String::from("Content-Length");
        assert!(check_profile(&Profile::Timestamped { header }).is_err());
    }

    proptest! {
        #[test]
        fn what_passes_is_one_well_formed_header_line(name in "\\PC{0,20}|[a-zA-Z-]{1,20}", value: String) {
            if check_header(&name, &value, &Profile::Standard).is_ok() {
                prop_assert!(http::HeaderName::try_from(name.as_str()).is_ok());
                let parsed = http::HeaderValue::try_from(value.as_str());
                prop_assert!(parsed.is_ok());
                prop_assert!(!value.contains(['\r', '\n', '\0', '\x7f']) && value.is_ascii());
            }
        }

        #[test]
        fn bytes_that_could_end_a_line_never_pass(
            head in "[a-z]{0,5}", tail in "[a-z]{0,5}",
            bad in prop::sample::select(vec!['\r', '\n', '\0', '\x7f', '\x1b', 'é', '\u{2028}']),
        ) {
            let text = format!("{head}{bad}{tail}");
            prop_assert!(check_header("x-a", &text, &Profile::Standard).is_err());
            prop_assert!(check_header(&text, "v", &Profile::Standard).is_err());
        }
    }
}
