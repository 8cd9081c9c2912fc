//! The real resolver against name servers that fail, lie and rebind (T08, T67).
//!
//! 127.0.0.2 is allowed here and stands for a public address; 127.0.0.1 is not and counts who comes.

use std::sync::Arc;
use std::time::Duration;

use posthaste::client::{Exchange, SystemResolver};
use posthaste::model::FailureKind;

use super::kit::{Bench, Moved, Receiver, Reply as Answer, request};
use super::name_server::{NameServer, Question, Record, Reply};

const PUBLIC: &str = "127.0.0.2";
const PRIVATE: &str = "127.0.0.1";

struct Scene {
    bench: Bench,
    server: NameServer,
    public: Receiver,
    private: Receiver,
}

impl Scene {
    async fn set(script: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Self {
        let public = Receiver::bind("127.0.0.2:0".parse().unwrap(), |_| Answer::ok()).await;
        let port = public.addr.port();
        let private = Receiver::bind(([127, 0, 0, 1], port).into(), |_| Answer::ok()).await;
        let server = NameServer::start(script).await;
        let resolver = SystemResolver::asking(server.addr, Moved::start()).unwrap();
        let bench = Bench::with(&["127.0.0.2/32"], |options| {
            options.resolver = Arc::new(resolver);
        });
        Self {
            bench,
            server,
            public,
            private,
        }
    }

    async fn send(&self, name: &str) -> Exchange {
        let url = format!("http://{name}:{}/", self.public.addr.port());
        self.bench.client.send(request(&url)).await
    }

    async fn kind(&self, name: &str) -> Option<FailureKind> {
        self.send(name).await.outcome.failure
    }
}

fn at(address: &'static str) -> Vec<Record> {
    vec![Record::Address(address)]
}

fn alias(name: &str) -> Record {
    Record::Alias(name.to_owned())
}

/// Every name stands for one kind of answer.
fn liar(question: &Question) -> Reply {
    let first = question.name.split('.').next().unwrap();
    match first {
        "good" => Reply::Records(at(PUBLIC)),
        "good-alias" => Reply::Records(vec![alias("good.example"), Record::Address(PUBLIC)]),
        "long" => Reply::TooLong((0..100).map(|_| Record::Address(PUBLIC)).collect()),
        "private" => Reply::Records(at(PRIVATE)),
        "mixed" => Reply::Records(vec![Record::Address(PUBLIC), Record::Address("::1")]),
        "mapped" => Reply::Records(at("::ffff:127.0.0.1")),
        "alias" => Reply::Records(vec![alias("private.example"), Record::Address(PRIVATE)]),
        "chain" => Reply::Records(vec![alias("next.example")]),
        "next" => Reply::Records(vec![alias("private.example")]),
        "hundred" => {
            let public = (0..99).map(|_| Record::Address(PUBLIC));
            let all = public.chain([Record::Address(PRIVATE)]);
            Reply::TooLong(all.collect())
        }
        "none" => Reply::Records(Vec::new()),
        "absent" => Reply::Code(3),
        "broken" => Reply::Code(2),
        "refused" => Reply::Code(5),
        "circle" => Reply::Records(vec![alias("circle.example")]),
        "garbage" => Reply::Raw(vec![0xff; 40]),
        "short" => Reply::Raw(vec![0; 3]),
        "stranger" => Reply::WrongId,
        "cut" if question.over_tcp => Reply::Silence,
        "cut" => Reply::TooLong(Vec::new()),
        "slow" => Reply::Late(Duration::from_secs(5), at(PUBLIC)),
        _ => Reply::Silence,
    }
}

#[tokio::test]
async fn every_way_to_fail_is_a_dns_failure_within_its_budget() {
    let scene = Arc::new(Scene::set(liar).await);
    for name in ["good.example", "good-alias.example", "long.example"] {
        assert_eq!(scene.kind(name).await, None, "{name}");
    }
    let mut sends = tokio::task::JoinSet::new();
    for name in [
        "none", "absent", "broken", "refused", "circle", "garbage", "short", "stranger", "cut",
        "slow", "silent",
    ] {
        let scene = Arc::clone(&scene);
        sends.spawn(async move { (name, scene.send(&format!("{name}.example")).await) });
    }
    for (name, exchange) in sends.join_all().await {
        assert_eq!(exchange.outcome.failure, Some(FailureKind::Dns), "{name}");
        assert_eq!(exchange.outcome.status, 0, "{name}");
        let took = exchange.duration_ms;
        assert!(took < 3500, "{name} took {took} ms, the budget is 3 s");
        if ["none", "absent", "refused", "circle"].contains(&name) {
            assert!(took < 1000, "{name}: an answer was not believed: {took} ms");
        }
        // A name server answered others a moment ago: this is the name's fault.
        assert!(!exchange.resolver_down, "{name}");
    }
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn forbidden_addresses_are_found_however_the_name_server_wraps_them() {
    let scene = Scene::set(liar).await;
    for name in ["private", "mixed", "mapped", "alias", "chain", "hundred"] {
        let kind = scene.kind(&format!("{name}.example")).await;
        assert_eq!(kind, Some(FailureKind::BlockedAddress), "{name}");
    }
    assert_eq!(scene.public.connections(), 0);
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn a_name_that_flips_without_time_to_live_is_judged_again_after_the_pool() {
    let scene = Scene::set(|question| match question.nth {
        _ if question.wants_v6 => Reply::Records(Vec::new()),
        0 => Reply::Records(at(PUBLIC)),
        _ => Reply::Records(at(PRIVATE)),
    })
    .await;
    for _ in 0..5 {
        assert_eq!(scene.kind("flip.example").await, None);
    }
    assert_eq!(scene.server.asked().len(), 2, "once for each family");
    scene.bench.clock.advance(posthaste::client::POOL_LIFE);
    let blocked = Some(FailureKind::BlockedAddress);
    assert_eq!(scene.kind("flip.example").await, blocked);
    assert_eq!(scene.bench.client.pooled(), 0);
    assert_eq!(scene.public.connections(), 1);
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn an_error_followed_by_a_private_address_stays_closed() {
    let scene = Scene::set(|question| match question.nth {
        // Each failed lookup is tried again at once.
        0..=2 => Reply::Code(2),
        _ => Reply::Records(at(PRIVATE)),
    })
    .await;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&Some(FailureKind::BlockedAddress)) {
        kinds.push(scene.kind("later.example").await);
        assert!(kinds.len() < 10, "{kinds:?}");
        // A failed lookup is remembered for a second.
        scene.bench.clock.advance(Duration::from_secs(1));
    }
    let before = &kinds[..kinds.len() - 1];
    assert!(!before.is_empty() && before.iter().all(|kind| *kind == Some(FailureKind::Dns)));
    assert_eq!(scene.private.connections(), 0);
}

#[tokio::test]
async fn a_name_server_that_is_gone_is_told_from_a_name_that_is() {
    // Nobody listens: refused at once.
    let gone = NameServer::start(liar).await;
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 77], gone.addr.port()));
    for silent in [false, true] {
        let server = NameServer::start(|_| Reply::Silence).await;
        let addr = if silent { server.addr } else { nowhere };
        let resolver = SystemResolver::asking(addr, Moved::start()).unwrap();
        let bench = Bench::with(&[], |options| options.resolver = Arc::new(resolver));
        let exchange = bench.client.send(request("http://hook.example/")).await;
        assert_eq!(exchange.outcome.failure, Some(FailureKind::Dns));
        assert!(exchange.resolver_down, "silent: {silent}");
        assert!(exchange.duration_ms < 3500, "{exchange:?}");
    }
}
