//! Requests that two parsers could read differently (T22): each is followed by a marker on the same
//! connection, which must never be taken for a second request.

use super::stage::{PATIENT, Stage};

const MARKER: &str = "GET /marker HTTP/1.1\r\nHost: a\r\n\r\n";

/// Name and bytes. All are refused or answered once, and the connection is closed.
const CORPUS: &[(&str, &str)] = &[
    (
        "two lengths",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ),
    (
        "two lengths in one line",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
    ),
    (
        "equal lengths in one line",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    ),
    (
        "length with plus",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "length below zero",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ),
    (
        "length in hex",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    (
        "length with a blank inside",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    ),
    (
        "empty length",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    ),
    (
        "length beyond 64 bits",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    ),
    (
        "length before coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding before length",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (
        "unknown coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding that is not last",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding within a coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding twice",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "identity coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        "coding after a vertical tab",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding in HTTP/1.0",
        "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "folded header",
        "POST /x HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "folded coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "blank before the colon",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    ),
    (
        "blank before the first header",
        "POST /x HTTP/1.1\r\n Host: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "header without a colon",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length\r\n\r\n",
    ),
    (
        "NUL in a value",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
    ),
    (
        "NUL in a name",
        "GET /x HTTP/1.1\r\nHost: a\r\nX\0A: b\r\n\r\n",
    ),
    ("NUL in the target", "GET /x\0y HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "bare CR in a value",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\rContent-Length: 5\r\n\r\n",
    ),
    (
        "chunk size that is no number",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunk size below zero",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunk size beyond 64 bits",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunk longer than its size",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    ),
    ("no host", "GET /x HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (
        "host against the target",
        "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "blank in the target",
        "GET /x /y HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("unknown version", "GET /x HTTP/1.9\r\nHost: a\r\n\r\n"),
];

/// Cases that are well-formed as far as hyper lets us see: answered once, and closed (RFC 9112
/// section 6.1 asks for that).
const ANSWERED: [&str; 2] = ["length before coding", "coding before length"];
/// The head is fine and the service runs; its body ends in an error.
const BROKEN_BODY: [&str; 4] = [
    "chunk size that is no number",
    "chunk size below zero",
    "chunk size beyond 64 bits",
    "chunk longer than its size",
];

#[tokio::test]
async fn ambiguous_requests_are_refused_and_nothing_behind_them_is_executed() {
    let stage = Stage::open(PATIENT);
    for (name, bytes) in CORPUS {
        let before = stage.seen().len();
        let mut client = stage.connect().await;
        client.say(format!("{bytes}{MARKER}")).await;
        let answer = client.rest().await;
        let seen = stage.seen().split_off(before);
        assert!(!seen.contains(&String::from("/marker")), "{name}: {answer}");
        assert!(answer.matches("HTTP/1.").count() <= 1, "{name}: {answer}");
        let runs = ANSWERED.contains(name) || BROKEN_BODY.contains(name);
        assert_eq!(!seen.is_empty(), runs, "{name}: {answer}");
        if ANSWERED.contains(name) {
            assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
        } else if BROKEN_BODY.contains(name) {
            assert!(!answer.contains("bytes"), "{name}: {answer}");
        } else {
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(
                refused || answer.starts_with("HTTP/1.0 4"),
                "{name}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn legal_requests_share_a_connection() {
    let stage = Stage::open(PATIENT);
    for first in [
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let before = stage.seen().len();
        let mut client = stage.connect().await;
        client.say(first).await;
        client.answer("bytes").await;
        client.say(MARKER).await;
        client.answer("0 bytes").await;
        let seen = stage.seen().split_off(before);
        assert_eq!(seen, ["/x", "/marker"], "{first}");
    }
}

#[tokio::test]
async fn a_chunked_body_is_read_and_its_connection_closed() {
    let stage = Stage::open(PATIENT);
    let mut client = stage.connect().await;
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client
        .say(format!("{chunked}5\r\nhello\r\n0\r\n\r\n{MARKER}"))
        .await;
    let answer = client.rest().await;
    assert!(answer.ends_with("5 bytes"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(stage.seen(), ["/x"]);
}
