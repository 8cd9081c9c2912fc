//! Parts that stand still: the watchdog falls silent and readiness falls, in time (T42); what does
//! not need the part goes on (T31).

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use posthaste::base::task;
use serde_json::json;

use super::{Load, accepted, reasons};
use crate::kit::{
    Answer, Gateway, Launch, Manager, Receiver, SOON, Stall, Thread, endpoint, eventually, message,
    now, pause, send,
};

const WATCHDOG: Duration = Duration::from_secs(2);
/// Within this a standstill shows (`reliability.md` T42).
const NOTICED: Duration = Duration::from_secs(15);
const FOR_EVER: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_disk_that_stalls_is_refused_to_producers_and_seen_by_everybody() {
    let manager = Manager::start();
    // A small queue, so that few producers fill it.
    let launch = Launch::new(&[("ingest.queue", "4"), ("ingest.max_group", "4")]);
    let gateway = manager.watch(launch, WATCHDOG).start().await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let load = Load::start(gateway.api(), "acme", 12, Duration::from_millis(50));
    receiver.delivered("/hook", 5, SOON).await;

    let stall = Stall::begin(&gateway, Thread::Commit, FOR_EVER).await;
    let begun = now();
    let body = Bytes::from(message(json!({"n": 0})).to_string());
    let refusal = eventually("ingest refuses", NOTICED, async || {
        let post = gateway
            .api()
            .send(Method::POST, "/api/v1/app/acme/msg", &[], body.clone());
        let reply = tokio::time::timeout(Duration::from_millis(500), post)
            .await
            .ok()?
            .ok()?;
        (reply.status == 503).then_some(reply)
    })
    .await;
    let after: u32 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(refusal.json()["code"], "overloaded");
    eventually("readiness falls", NOTICED, async || {
        let asked = now();
        let said = reasons(gateway.api()).await;
        gateway.api().get("/metrics").await.expect_text(200);
        let took = asked.elapsed();
        assert!(
            took < Duration::from_secs(1),
            "health and metrics took {took:?}"
        );
        said.contains(&String::from("the commit thread does not answer"))
            .then_some(())
    })
    .await;
    assert!(begun.elapsed() < NOTICED);
    manager.silence(WATCHDOG, NOTICED).await;

    // The disk comes back: everything goes on by itself, and nothing that was taken in is lost.
    stall.end();
    eventually("it is ready again", SOON, async || {
        reasons(gateway.api()).await.is_empty().then_some(())
    })
    .await;
    let pings = manager.times("WATCHDOG=1").len();
    manager.heard("WATCHDOG=1", pings + 2, SOON).await;
    let sent = load.stop().await;
    let ids = accepted(&sent);
    assert!(sent.len() > ids.len(), "some were refused");
    eventually("all accepted have arrived", SOON, async || {
        let all = receiver.at("/hook");
        ids.iter()
            .all(|id| all.iter().any(|one| one.id == *id && one.is_success()))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_stands_still_silences_the_watchdog_and_the_restart_goes_on() {
    let manager = Manager::start();
    let gateway = manager.watch(Launch::new(&[]), WATCHDOG).start().await;
    let receiver = Receiver::scripted(|_| Answer::status(500)).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;
    manager.heard("WATCHDOG=1", 2, SOON).await;
    let stall = Stall::begin(&gateway, Thread::Runtime, FOR_EVER).await;
    manager.silence(WATCHDOG, NOTICED).await;
    stall.end();
    // What the service manager does then.
    let gateway = gateway.kill().start().await;
    let next = send(&gateway, "acme", 2).await;
    eventually("both are tried again", SOON, async || {
        let all = receiver.at("/hook");
        let tried = |id: &str| all.iter().any(|one| one.id == id);
        let again = all.iter().filter(|one| one.id == id).count() > 1;
        (tried(&next) && again).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_scheduler_that_stands_still_is_seen_although_the_rest_answers() {
    // A log that nobody reads holds whoever writes to it. Here that is the scheduler, which must
    // say that an endpoint cannot be called any more.
    let manager = Manager::start();
    let config = |networks: &str| {
        format!("[delivery]\nallow_networks = [{networks}]\n[log]\nlevel = \"warn\"\n")
    };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut plug = writer.try_clone().unwrap();
    let launch = Launch::with_file(&config("\"127.0.0.0/8\""), &[]).log_to(writer);
    let gateway = manager.watch(launch, WATCHDOG).start().await;
    let receiver = Receiver::start().await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    send(&gateway, "acme", 1).await;
    receiver.delivered("/hook", 1, SOON).await;

    // Fills the pipe; the last write never ends and holds no room.
    let filling = task::thread("filling", move || {
        if plug.write_all(&[b'.'; 1 << 20]).is_err() {} // ends with the reader
    });
    gateway.launch().write("posthaste.toml", &config(""));
    pause(Duration::from_millis(300)).await;
    gateway.signal("HUP");
    manager.heard("RELOADING=1", 1, SOON).await;
    pause(Duration::from_millis(300)).await;
    gateway
        .api()
        .patch(&hook.path(), &json!({"description": "changed"}))
        .await
        .expect(200);
    eventually("readiness falls", NOTICED, async || {
        reasons(gateway.api())
            .await
            .contains(&String::from("the scheduler does not answer"))
            .then_some(())
    })
    .await;
    manager.silence(WATCHDOG, NOTICED).await;

    // Somebody reads again.
    let drain = task::thread("drain", move || {
        if std::io::copy(&mut reader, &mut std::io::sink()).is_err() {} // ends with the writers
    });
    eventually("it is ready again", SOON, async || {
        reasons(gateway.api()).await.is_empty().then_some(())
    })
    .await;
    filling.unwrap().join().unwrap();
    drop(gateway);
    drop(drain);
}

#[tokio::test]
async fn a_stop_during_a_stall_of_the_disk_is_heard() {
    let mut gateway = Gateway::start(&[
        ("delivery.timeout", "1s"),
        ("delivery.connect_timeout", "500ms"),
        ("server.drain_timeout", "1s"),
    ])
    .await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let stall = Stall::begin(&gateway, Thread::Commit, Duration::from_secs(3)).await;
    let load = Load::start(gateway.api(), "acme", 2, Duration::from_millis(50));
    pause(Duration::from_millis(500)).await;
    let begun = now();
    gateway.signal("TERM");
    eventually("it drains", Duration::from_secs(2), async || {
        gateway.log().contains("draining").then_some(())
    })
    .await;
    pause(Duration::from_millis(600)).await;
    gateway.signal("TERM");
    let status = gateway.wait_end(Duration::from_secs(10)).await;
    assert!(matches!(status.code(), Some(0 | 70)), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    stall.end();
    load.stop().await;
}
