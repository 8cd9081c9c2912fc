//! Redirects lead nowhere (T09).

use posthaste::model::FailureKind;

use crate::wire::kit::{Bench, Receiver, Reply, request};

#[tokio::test]
async fn redirects_are_failures_and_never_followed() {
    let inner = Receiver::start(|_| Reply::ok()).await;
    let to = inner.url();
    let outer = Receiver::start(move |n| {
        let status = [301, 302, 303, 307, 308, 300, 304][n];
        Reply::Keep(
            format!("HTTP/1.1 {status} x\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into(),
        )
    })
    .await;
    let bench = Bench::allowing(&["127.0.0.0/8"]);
    for status in [301, 302, 303, 307, 308, 300, 304] {
        let outcome = bench.client.send(request(&outer.url())).await.outcome;
        assert_eq!(outcome.status, status);
        assert_eq!(outcome.failure, Some(FailureKind::Redirect));
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn a_refresh_header_and_an_alternative_service_are_ignored() {
    let inner = Receiver::start(|_| Reply::ok()).await;
    let (url, port) = (inner.url(), inner.addr.port());
    let outer = Receiver::start(move |_| {
        Reply::Keep(
            format!(
                "HTTP/1.1 200 OK\r\nrefresh: 0; url={url}\r\nalt-svc: h2=\":{port}\"\r\n\
                 content-length: 0\r\n\r\n"
            )
            .into(),
        )
    })
    .await;
    let bench = Bench::allowing(&["127.0.0.0/8"]);
    for _ in 0..3 {
        let outcome = bench.client.send(request(&outer.url())).await.outcome;
        assert_eq!(outcome.failure, None);
    }
    assert_eq!((outer.connections(), inner.connections()), (1, 0));
}
