//! Requests that a proxy in front could have read differently than hyper does.
//!
//! hyper refuses most of them itself with 400 and closes (conflicting or malformed `Content-Length`,
//! folded headers, blanks before a colon, NUL, bad chunks). What it lets pass and we do not:
//!
//! - `Transfer-Encoding` other than exactly `chunked` (RFC 9112 section 6.1);
//! - no `Host`, several, or one that contradicts an absolute request target (RFC 9112 section 3.2);
//! - more than 64 header lines.
//!
//! What cannot be seen here, since hyper drops or accepts it silently, is found in the bytes
//! ([`super::framing`]): `Content-Length` beside `Transfer-Encoding` above all. For the same reason a
//! chunked body is the last of its connection, as RFC 9112 section 6.1 asks for: nothing behind it is
//! ever taken for a request.

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Request, StatusCode, Version};

/// Header lines of one request.
pub(super) const MAX_HEADERS: usize = 64;

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Serve it.
    Serve,
    /// Serve it, then close the connection.
    ServeAndClose,
    /// Answer this and close the connection.
    Refuse(StatusCode),
}

/// Judges a request by its head.
pub(super) fn check<B>(request: &Request<B>) -> Verdict {
    let headers = request.headers();
    if headers.len() > MAX_HEADERS {
        return Verdict::Refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if request.version() > Version::HTTP_11 {
        return Verdict::Serve; // HTTP/2 frames its bodies, and h2 checks its own headers
    }
    if !has_one_host(request, headers) {
        return Verdict::Refuse(StatusCode::BAD_REQUEST);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Verdict::Serve,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Verdict::ServeAndClose
        }
        (Some(_), _) => Verdict::Refuse(StatusCode::BAD_REQUEST),
    }
}

fn has_one_host<B>(request: &Request<B>, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let target = request.uri().authority();
    match (host, second, target) {
        (_, Some(_), _) => false,
        (None, None, _) => request.version() < Version::HTTP_11,
        (Some(_), None, None) => true,
        (Some(host), None, Some(target)) => host
            .as_bytes()
            .eq_ignore_ascii_case(target.as_str().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a valid head")
    }

    #[test]
    fn hosts_must_be_single_and_agree() {
        let refused = Verdict::Refuse(StatusCode::BAD_REQUEST);
        for (target, headers, verdict) in [
            ("/", &[("host", "a")] as &[_], Verdict::Serve),
            ("/", &[], refused),
            ("/", &[("host", "a"), ("host", "a")], refused),
            ("http://a/", &[("host", "A")], Verdict::Serve),
            ("http://a/", &[("host", "b")], refused),
        ] {
            assert_eq!(
                check(&request(target, headers)),
                verdict,
                "{target} {headers:?}"
            );
        }
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(check(&old), Verdict::Serve);
    }

    #[test]
    fn only_plain_chunked_is_a_coding() {
        let refused = Verdict::Refuse(StatusCode::BAD_REQUEST);
        for (codings, verdict) in [
            (&["chunked"] as &[&str], Verdict::ServeAndClose),
            (&["Chunked"], Verdict::ServeAndClose),
            (&["gzip, chunked"], refused),
            (&["chunked", "chunked"], refused),
            (&["identity"], refused),
        ] {
            let mut headers = vec![("host", "a")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            assert_eq!(check(&request("/", &headers)), verdict, "{codings:?}");
        }
    }

    #[test]
    fn header_lines_are_counted() {
        let names: Vec<String> = (0..MAX_HEADERS).map(|n| format!("x-{n}")).collect();
        let mut headers = vec![("host", "a")];
        headers.extend(names.iter().map(|name| (name.as_str(), "v")));
        let too_many = Verdict::Refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(check(&request("/", &headers)), too_many);
        headers.pop();
        assert_eq!(check(&request("/", &headers)), Verdict::Serve);
    }
}
