//! Requests that two parsers could read differently (T22): each is followed by a marker on the same
//! connection, which must never be taken for a second request.

use super::stage::{PATIENT, Stage};

const MARKER: &str = "GET /marker HTTP/1.1\r\nHost: a\r\n\r\n";

/// Name and bytes. All are refused, nothing of them is executed, and the connection is closed.
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
    (
        "two equal lengths",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "two lengths, the first zero",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
    ),
    (
        "length zero and coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "length and coding of a GET",
        "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "length and coding in odd case",
        "POST /x HTTP/1.1\r\nHost: a\r\ncONTENT-lENGTH: 4\r\ntRANSFER-eNCODING: cHUNKED\r\n\r\n0\r\n\r\n",
    ),
    (
        "length far from coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nX-1: 1\r\nX-2: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding with a parameter",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding in quotes",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding with an empty member",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "empty coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
    ),
    (
        "blank before the colon of a coding",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "tab before the colon",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\nhello",
    ),
    (
        "length in other digits",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ５\r\n\r\nhello",
    ),
    (
        "length with a fraction",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello",
    ),
    (
        "length with a line feed",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\nX: y\r\n\r\nhello",
    ),
    ("bare LF everywhere", "GET /x HTTP/1.1\nHost: a\n\n"),
    (
        "bare LF behind the request line",
        "GET /x HTTP/1.1\nHost: a\r\n\r\n",
    ),
    (
        "bare LF at the end of the head",
        "GET /x HTTP/1.1\r\nHost: a\r\n\n",
    ),
    (
        "bare LF before the request",
        "\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "bare LF that hides a length",
        "POST /x HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 44\r\n\r\n",
    ),
    (
        "bare CR behind the request line",
        "GET /x HTTP/1.1\rHost: a\r\n\r\n",
    ),
    (
        "bare CR in a name",
        "GET /x HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n",
    ),
    (
        "folded length",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello",
    ),
    (
        "folded with a tab",
        "GET /x HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
    ),
    ("empty name", "GET /x HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    (
        "host against the target's port",
        "GET http://a:81/x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "two requests in one line",
        "GET /x HTTP/1.1 GET /y HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("no version", "GET /x\r\nHost: a\r\n\r\n"),
    (
        "HTTP/2 asked for half-heartedly",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ),
    (
        "chunk size with a plus",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunk size in 0x",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunk that ends with a bare LF",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    ),
    (
        "bare LF behind a chunk size",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    ),
    (
        "bare LF in a chunk extension",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    ),
];

/// The head is fine and the service runs; its body ends in an error.
const BROKEN_BODY: [&str; 9] = [
    "chunk size that is no number",
    "chunk size below zero",
    "chunk size beyond 64 bits",
    "chunk longer than its size",
    "chunk size with a plus",
    "chunk size in 0x",
    "chunk that ends with a bare LF",
    "bare LF behind a chunk size",
    "bare LF in a chunk extension",
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
        let runs = BROKEN_BODY.contains(name);
        assert_eq!(!seen.is_empty(), runs, "{name}: {answer}");
        if runs {
            assert!(!answer.contains("bytes"), "{name}: {answer}");
            continue;
        }
        assert_eq!(answer.get(9..12), Some("400"), "{name}: {answer:?}");
    }
    assert!(CORPUS.len() >= 60, "{}", CORPUS.len());
}

#[tokio::test]
async fn however_the_bytes_arrive_a_length_beside_a_coding_is_refused() {
    let stage = Stage::open(PATIENT);
    let bad = "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let good = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nGET\n\n\r\n";
    // Alone, behind good ones in one write, and byte by byte.
    for (before, step) in [(0, 1000), (1, 1000), (3, 1000), (2, 1)] {
        let told = stage.seen().len();
        let mut client = stage.connect().await;
        let bytes = format!("{}{bad}{MARKER}", good.repeat(before));
        for part in bytes.as_bytes().chunks(step) {
            client.say(part).await;
        }
        let answer = client.rest().await;
        assert_eq!(stage.seen().split_off(told), vec!["/x"; before], "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), before, "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    stage
        .shows("posthaste_connections_refused_total{reason=\"framing\"} 4")
        .await;
}

#[tokio::test]
async fn legal_requests_share_a_connection() {
    let stage = Stage::open(PATIENT);
    for first in [
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nhost:a\r\ncontent-length:  5\t\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\r\n\n",
        "GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-Content-Length: 5\r\nX-Transfer-Encoding: y\r\n\r\n",
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
