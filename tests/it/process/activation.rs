//! The listening socket belongs to the service manager (T20): a restart refuses nobody, and what is
//! handed over wrongly is named.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use super::{Load, accepted};
use crate::kit::{Gateway, Launch, Receiver, SOON, endpoint, eventually, now, say};

/// `POSTHASTE_RESTARTS` in the environment for more.
const RESTARTS: usize = 20;
const PRODUCERS: usize = 6;

fn socket() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_refuse_and_reset_nobody() {
    let restarts = restarts();
    let launch = Launch::new(&[("log.level", "warn")]).socket(socket(), "ingest");
    let mut gateway = launch.start().await;
    let receiver = Receiver::start().await;
    endpoint(
        &gateway,
        "acme",
        &receiver,
        "/hook",
        json!({"maxConcurrency": 50}),
    )
    .await;
    let load = Load::start(gateway.api(), "acme", PRODUCERS, Duration::from_millis(10));
    let begun = now();
    let mut busy = 0;
    for _ in 0..restarts {
        let before = load.count();
        eventually("the load goes on", SOON, async || {
            (load.count() > before + 2 * PRODUCERS).then_some(())
        })
        .await;
        let (status, stopped) = gateway.stop().await;
        assert_eq!(status.code(), Some(0));
        let down = load.count();
        gateway = stopped.start().await;
        busy += usize::from(load.count() <= down + PRODUCERS); // they waited in the socket
    }
    let took = begun.elapsed();
    let sent = load.stop().await;
    let broken: Vec<_> = sent
        .iter()
        .filter_map(|one| one.answer.clone().err())
        .collect();
    assert_eq!(broken, Vec::<String>::new(), "of {} requests", sent.len());
    let ids = accepted(&sent);
    assert_eq!(ids.len(), sent.len(), "every request was accepted");
    assert!(
        busy > restarts / 2,
        "requests came while it was down: {busy}"
    );
    eventually("all accepted have arrived", SOON, async || {
        let arrived: std::collections::HashSet<_> =
            receiver.all().into_iter().map(|one| one.id).collect();
        ids.iter().all(|id| arrived.contains(id)).then_some(())
    })
    .await;
    say(&format!(
        "{restarts} restarts in {took:.1?}: {} requests, all accepted",
        sent.len()
    ));
}

fn restarts() -> usize {
    crate::kit::variable("POSTHASTE_RESTARTS").map_or(RESTARTS, |text| text.parse().unwrap())
}

#[tokio::test]
async fn a_single_socket_without_a_name_is_the_one_of_the_api() {
    let launch = Launch::new(&[]).socket(socket(), "unknown");
    let gateway = launch.start().await;
    gateway.api().get("/api/v1/app").await.expect(200);
}

#[tokio::test]
async fn sockets_that_do_not_fit_their_names_are_named_and_nothing_starts() {
    for (count, names, said) in [
        (1, "ingest:admin", "invalid LISTEN_FDNAMES"),
        (2, "ingest:web", "`web` is neither `ingest` nor `admin`"),
        (2, "ingest:ingest", "`ingest` is there twice"),
        (3, "ingest:admin:ingest", "are not usable"), // the third was never passed
    ] {
        let mut gateway = Launch::new(&[]).handed(socket(), count, names).spawn();
        let status = gateway.wait_end(SOON).await;
        let log = gateway.log();
        assert_eq!(status.code(), Some(78), "{names}: {log}");
        assert!(
            log.contains("handed over by the service manager"),
            "{names}: {log}"
        );
        assert!(log.contains(said), "{names}: {log}");
        assert!(
            !gateway.launch().data().exists(),
            "{names}: nothing was touched"
        );
    }
}

#[tokio::test]
async fn a_socket_meant_for_another_process_is_left_alone() {
    let launch = Launch::new(&[])
        .variable("LISTEN_PID", "1")
        .variable("LISTEN_FDS", "1")
        .variable("LISTEN_FDNAMES", "ingest");
    let gateway: Gateway = launch.start().await;
    gateway.api().get("/api/v1/app").await.expect(200);
}
