//! Connections that are kept, that break, and that never come about (T44, T67).

use std::sync::Arc;
use std::time::Duration;

use posthaste::client::{POOL_LIFE, Resolve, Resolving};
use posthaste::model::{AppNo, FailureKind};

use super::kit::{Bench, Receiver, Reply, request};

const LOCAL: &[&str] = &["127.0.0.0/8"];

#[tokio::test]
async fn one_connection_serves_many_requests_and_dies_after_a_minute() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let bench = Bench::allowing(LOCAL);
    for _ in 0..20 {
        let exchange = bench.client.send(request(&receiver.url())).await;
        assert_eq!(exchange.outcome.status, 200);
        assert_eq!(exchange.response, "ok");
    }
    assert_eq!(receiver.connections(), 1);
    assert_eq!(bench.client.pooled(), 1);
    bench.clock.advance(POOL_LIFE);
    bench.client.send(request(&receiver.url())).await;
    assert_eq!(receiver.connections(), 2);
    assert_eq!(bench.client.pooled(), 1);
}

#[tokio::test]
async fn tenants_share_no_connection() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let bench = Bench::allowing(LOCAL);
    for tenant in [1, 2, 1, 2] {
        let mut request = request(&receiver.url());
        request.tenant = AppNo(tenant);
        assert_eq!(bench.client.send(request).await.outcome.status, 200);
    }
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_fresh_request_takes_no_idle_connection() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let bench = Bench::allowing(LOCAL);
    bench.client.send(request(&receiver.url())).await;
    let mut fresh = request(&receiver.url());
    fresh.fresh = true;
    bench.client.send(fresh).await;
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_receiver_that_closes_after_each_answer_costs_no_failure() {
    let receiver = Receiver::start(|n| match n % 2 {
        0 => Reply::close("HTTP/1.1 204 No Content\r\n\r\n"),
        _ => Reply::close("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end"),
    })
    .await;
    let bench = Bench::allowing(LOCAL);
    for n in 0..50 {
        let exchange = bench.client.send(request(&receiver.url())).await;
        // A request may meet a connection whose end has not been seen yet; nothing but that.
        let kind = exchange.outcome.failure;
        assert!(
            kind.is_none() || exchange.broke_early,
            "request {n}: {kind:?}"
        );
        let again = bench.client.send(request(&receiver.url())).await;
        assert!(again.outcome.failure.is_none() || again.broke_early);
    }
    assert!(receiver.requests().len() >= 50);
}

#[tokio::test]
async fn broken_exchanges_are_named_for_what_they_are() {
    let bench = Bench::allowing(LOCAL);
    let broken = |reply: Reply| {
        let bench = &bench;
        async move {
            let receiver = Receiver::start(move |_| reply.clone()).await;
            let mut request = request(&receiver.url());
            request.timeout = Duration::from_millis(300);
            bench.client.send(request).await
        }
    };
    let reset = broken(Reply::Reset).await;
    assert_eq!(reset.outcome.failure, Some(FailureKind::Reset));
    assert!(reset.broke_early);
    let silent = broken(Reply::close("")).await;
    assert_eq!(silent.outcome.failure, Some(FailureKind::Reset));
    let half = broken(Reply::close("HTTP/1.1 200 OK\r\ncontent-le")).await;
    assert_eq!(half.outcome.failure, Some(FailureKind::Reset));
    let garbage = broken(Reply::close("SSH-2.0-OpenSSH_9.2\r\n")).await;
    assert_eq!(garbage.outcome.failure, Some(FailureKind::Reset));
    let hang = broken(Reply::Hang).await;
    assert_eq!(hang.outcome.failure, Some(FailureKind::TimeoutTotal));
    assert!((300..1300).contains(&hang.duration_ms) && !hang.broke_early);
    let cut = broken(Reply::close(
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\npart",
    ))
    .await;
    assert_eq!((cut.outcome.status, cut.outcome.failure), (200, None));
    assert_eq!(cut.response, "part");
    let cut = broken(Reply::close(
        "HTTP/1.1 500 Oh\r\ncontent-length: 99\r\n\r\npart",
    ))
    .await;
    assert_eq!(cut.outcome.failure, Some(FailureKind::Status5xx));
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    // Nothing listens on the other loopback address.
    let url = format!("http://127.0.0.77:{}/", receiver.addr.port());
    let exchange = Bench::allowing(LOCAL).client.send(request(&url)).await;
    assert_eq!(exchange.outcome.failure, Some(FailureKind::Refused));
    assert!(!exchange.broke_early && !exchange.resolver_down);
}

#[tokio::test]
async fn cancelled_requests_leave_no_connection_behind() {
    let receiver = Receiver::start(|_| Reply::Hang).await;
    let bench = Bench::allowing(LOCAL);
    for _ in 0..10 {
        let send = bench.client.send(request(&receiver.url()));
        let cancelled = tokio::time::timeout(Duration::from_millis(20), send).await;
        assert!(cancelled.is_err());
    }
    assert_eq!(bench.client.pooled(), 0);
}

/// Never answers.
struct Silent {
    down: bool,
}

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(std::future::pending())
    }

    fn is_down(&self) -> bool {
        self.down
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_takes_three_seconds_at_most_and_tells_our_trouble_from_theirs() {
    for down in [true, false] {
        let bench = Bench::with(&[], |options| options.resolver = Arc::new(Silent { down }));
        let exchange = bench.client.send(request("http://slow.example/")).await;
        assert_eq!(exchange.outcome.failure, Some(FailureKind::Dns));
        assert_eq!(exchange.duration_ms, 3000);
        assert_eq!(exchange.resolver_down, down);
    }
}
