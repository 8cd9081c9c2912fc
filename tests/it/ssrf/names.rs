//! Names that change their mind (T08). 127.0.0.2 is allowed here and stands for a public address;
//! 127.0.0.1 with the same port is not and counts who comes.

use std::time::Duration;

use posthaste::client::{POOL_LIFE, ResolveError};
use posthaste::model::FailureKind;
use tokio::net::TcpListener;

use crate::wire::kit::{Bench, Receiver, Reply, ips, request};

struct Scene {
    bench: Bench,
    public: Receiver,
    private: Receiver,
    url: String,
}

impl Scene {
    async fn set() -> Self {
        let (public, private) = one_port().await;
        let port = public.local_addr().unwrap().port();
        let public = Receiver::on(public, |_| Reply::ok());
        let private = Receiver::on(private, |_| Reply::ok());
        Self {
            bench: Bench::allowing(&["127.0.0.2/32"]),
            public,
            private,
            url: format!("http://hook.example:{port}/"),
        }
    }

    async fn send(&self) -> Option<FailureKind> {
        self.bench
            .client
            .send(request(&self.url))
            .await
            .outcome
            .failure
    }
}

/// Listeners on one port of both addresses. The system chooses it for the first and may have given it
/// away on the second: then another one.
async fn one_port() -> (TcpListener, TcpListener) {
    loop {
        let public = TcpListener::bind((PUBLIC, 0)).await.unwrap();
        let port = public.local_addr().unwrap().port();
        match TcpListener::bind((PRIVATE, port)).await {
            Ok(private) => return (public, private),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        }
    }
}

const PUBLIC: &str = "127.0.0.2";
const PRIVATE: &str = "127.0.0.1";

#[tokio::test]
async fn a_name_that_is_rebound_is_blocked_and_its_pool_is_not_used_any_more() {
    let scene = Scene::set().await;
    let answers = [&[PUBLIC][..], &[PRIVATE]].map(|list| Ok(ips(list)));
    scene.bench.names.set("hook.example", answers);
    for _ in 0..5 {
        assert_eq!(scene.send().await, None);
    }
    // One lookup and one connection for all of them, as long as the pool lives.
    assert_eq!(scene.bench.names.asked(), ["hook.example"]);
    assert_eq!(scene.public.connections(), 1);
    scene.bench.clock.advance(POOL_LIFE);
    assert_eq!(scene.send().await, Some(FailureKind::BlockedAddress));
    assert_eq!(scene.bench.client.pooled(), 0);
    assert_eq!(scene.public.requests().len(), 5);
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn one_forbidden_answer_rejects_all() {
    let scene = Scene::set().await;
    let many: Vec<&str> = [PUBLIC]
        .into_iter()
        .cycle()
        .take(99)
        .chain([PRIVATE])
        .collect();
    for answer in [
        &[PUBLIC, PRIVATE][..],
        &[PRIVATE, PUBLIC],
        &[PUBLIC, "::1"],
        &[PUBLIC, "::ffff:127.0.0.1"],
        &[PUBLIC, "169.254.169.254"],
        &[PUBLIC, "64:ff9b::a00:1"],
        &many,
    ] {
        scene.bench.names.point("hook.example", answer);
        assert_eq!(
            scene.send().await,
            Some(FailureKind::BlockedAddress),
            "{answer:?}"
        );
        scene.bench.clock.advance(Duration::from_secs(2));
    }
    assert_eq!(scene.public.connections(), 0);
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn a_long_answer_without_a_forbidden_address_is_good() {
    let scene = Scene::set().await;
    scene.bench.names.point("hook.example", &[PUBLIC; 100]);
    assert_eq!(scene.send().await, None);
}

#[tokio::test]
async fn the_next_address_is_tried_but_at_most_sixteen() {
    let scene = Scene::set().await;
    let bench = Bench::allowing(&["127.0.0.0/8"]);
    let dead: Vec<String> = (100..116).map(|n| format!("127.0.0.{n}")).collect();
    let mut answer: Vec<&str> = dead.iter().map(String::as_str).collect();
    answer.insert(15, PUBLIC);
    bench.names.point("hook.example", &answer);
    let outcome = bench.client.send(request(&scene.url)).await.outcome;
    assert_eq!(outcome.failure, None);
    answer.remove(15);
    answer.push(PUBLIC);
    bench.names.point("other.example", &answer);
    let url = scene.url.replace("hook", "other");
    let outcome = bench.client.send(request(&url)).await.outcome;
    assert_eq!(outcome.failure, Some(FailureKind::Refused));
}

#[tokio::test]
async fn errors_fail_closed_and_what_follows_is_judged() {
    let scene = Scene::set().await;
    let answers = [
        Err(ResolveError::Failed),
        Ok(Vec::new()),
        Ok(ips(&[PRIVATE])),
        Err(ResolveError::NotFound),
        Ok(ips(&[PUBLIC])),
    ];
    scene.bench.names.set("hook.example", answers);
    for want in [
        Some(FailureKind::Dns),
        Some(FailureKind::Dns),
        Some(FailureKind::BlockedAddress),
        Some(FailureKind::Dns),
        None,
    ] {
        assert_eq!(scene.send().await, want);
        // A failed lookup is remembered for a second, so that a burst asks once.
        scene.bench.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn a_burst_asks_once() {
    let scene = Scene::set().await;
    scene.bench.names.point("hook.example", &[PRIVATE]);
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, request) = (scene.bench.client.clone(), request(&scene.url));
        sends.spawn(async move { client.send(request).await.outcome.failure });
    }
    let kinds = sends.join_all().await;
    assert_eq!(kinds, [Some(FailureKind::BlockedAddress); 50]);
    assert_eq!(scene.bench.names.asked().len(), 1);
}

#[tokio::test]
async fn changed_rules_count_at_once_for_pooled_connections_too() {
    let scene = Scene::set().await;
    scene.bench.names.point("hook.example", &[PUBLIC]);
    assert_eq!(scene.send().await, None);
    scene.bench.client.set_rules(crate::wire::kit::rules(&[]));
    assert_eq!(scene.send().await, Some(FailureKind::BlockedAddress));
}

#[tokio::test]
async fn vetting_a_target_judges_without_calling() {
    let scene = Scene::set().await;
    scene.bench.names.point("hook.example", &[PRIVATE]);
    let target = request(&scene.url).target;
    let vetted = scene.bench.client.vet(&target).await;
    assert_eq!(vetted, Err(FailureKind::BlockedAddress));
    assert_eq!(scene.private.connections(), 0);
}
