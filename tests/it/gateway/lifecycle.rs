//! Start, stop, and what a start finds.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Answer, Gateway, Receiver, SOON, endpoint, eventually, pause, send};

#[tokio::test]
async fn sigterm_lets_running_attempts_finish_and_exits_with_zero() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_secs(1))).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    for n in 0..5 {
        send(&gateway, "acme", n).await;
    }
    eventually("all attempts are under way", SOON, async || {
        (receiver.count() == 5).then_some(())
    })
    .await;
    let (status, stopped) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
    let done = receiver.delivered("/hook", 5, SOON).await;
    assert_eq!(done.len(), 5, "the running attempts got their answers");

    // They were recorded as delivered: nothing is sent twice.
    let gateway = stopped.start().await;
    let id = send(&gateway, "acme", 99).await;
    receiver.delivered("/hook", 6, SOON).await;
    assert_eq!(receiver.count(), 6);
    assert_eq!(receiver.all()[5].id, id);
}

#[tokio::test]
async fn a_signal_that_comes_twice_at_once_is_one_and_a_later_one_exits_at_once() {
    // `timeout` signals the process and its group; whoever means it tells again later.
    for (gap, code) in [(20, 0), (1_000, 70)] {
        let mut gateway = Gateway::start(&[]).await;
        let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_secs(3))).await;
        endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
        send(&gateway, "acme", 0).await;
        eventually("the attempt is under way", SOON, async || {
            (receiver.count() == 1).then_some(())
        })
        .await;
        gateway.signal("TERM");
        pause(Duration::from_millis(gap)).await;
        gateway.signal("TERM");
        let status = gateway.wait_end(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(code), "{gap} ms apart");
    }
}

#[tokio::test]
async fn a_second_start_delivers_what_the_first_left_and_still_knows_its_configuration() {
    let settings = [(
        "delivery.retry_schedule",
        "500ms,500ms,500ms,500ms,500ms,500ms,500ms",
    )];
    let gateway = Gateway::start(&settings).await;
    let up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = std::sync::Arc::clone(&up);
    let receiver = Receiver::scripted(move |_| {
        if switch.load(std::sync::atomic::Ordering::Relaxed) {
            Answer::ok()
        } else {
            Answer::status(500)
        }
    })
    .await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(send(&gateway, "acme", n).await);
    }
    receiver.finished("/hook", 10, SOON).await;
    let (status, stopped) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));

    up.store(true, std::sync::atomic::Ordering::Relaxed);
    let gateway = stopped.start().await;
    let again = hook.get(&gateway).await;
    assert_eq!(again["url"], receiver.url("/hook"));
    let mut arrived: Vec<_> = receiver
        .delivered("/hook", 10, SOON)
        .await
        .into_iter()
        .map(|one| one.id)
        .collect();
    arrived.sort();
    sent.sort();
    assert_eq!(arrived, sent);
    let listed = gateway.list("/api/v1/app/acme/msg").await;
    assert_eq!(listed.len(), 10);
}

#[tokio::test]
async fn a_second_gateway_on_the_same_data_is_refused() {
    let gateway = Gateway::start(&[]).await;
    let (status, _) = gateway.second_start().await;
    assert!(!status.success());
    gateway.api().get("/ready").await.expect(200);
}

#[tokio::test]
async fn health_and_readiness_are_open_and_the_api_is_not() {
    let gateway = Gateway::start(&[]).await;
    let stranger = crate::kit::Client::new(gateway.address, None);
    for path in ["/health", "/healthz", "/ready", "/readyz"] {
        stranger.get(path).await.expect(200);
    }
    for path in ["/metrics", "/api/v1/app"] {
        assert_eq!(stranger.get(path).await.status, 401, "{path}");
    }
    gateway.api().get("/metrics").await;
    gateway.api().get("/api/v1/health").await.expect(204);
}

#[tokio::test]
async fn the_admin_key_is_never_logged() {
    let gateway = Gateway::start(&[("log.level", "trace")]).await;
    gateway.api().get("/api/v1/app").await.expect(200);
    assert!(!gateway.log().contains(gateway.key()));
}

#[tokio::test]
async fn the_pending_gauge_counts_what_is_open_before_and_after_a_restart() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let off = json!({"disabled": true});
    gateway.api().patch(&hook.path(), &off).await.expect(200);
    for n in 0..10 {
        send(&gateway, "acme", n).await;
    }
    pending(&gateway, 10).await;
    let gateway = gateway.kill().start().await;
    pending(&gateway, 10).await;
    for n in 10..15 {
        send(&gateway, "acme", n).await;
    }
    pending(&gateway, 15).await;
    let on = json!({"disabled": false});
    gateway.api().patch(&hook.path(), &on).await.expect(200);
    receiver.delivered("/hook", 15, SOON).await;
    pending(&gateway, 0).await;
}

async fn pending(gateway: &Gateway, count: usize) {
    let line = format!("posthaste_deliveries_pending {count}");
    let mut shown = String::new();
    for _ in 0..100 {
        let page = gateway.api().get("/metrics").await.text();
        let found = page
            .lines()
            .find(|one| one.starts_with("posthaste_deliveries_pending "));
        shown = found.unwrap_or("no such line").to_owned();
        if shown == line {
            return;
        }
        pause(Duration::from_millis(50)).await;
    }
    assert_eq!(shown, line);
}

#[tokio::test]
async fn when_a_key_was_last_used_is_still_known_after_a_restart() {
    let gateway = Gateway::start(&[]).await;
    let wanted = json!({"name": "reader", "scopes": ["read"]});
    let made = gateway.api().post("/api/v1/api-keys", &wanted).await;
    let made = made.expect(201)["apiKey"].clone();
    let key = made["key"].as_str().unwrap().to_owned();
    let shown = async |gateway: &Gateway| {
        let list = gateway.api().get("/api/v1/api-keys").await.expect(200);
        let keys = list["apiKeys"].as_array().unwrap().clone();
        keys.into_iter()
            .find(|one| one["id"] == made["id"])
            .unwrap()
    };
    assert!(shown(&gateway).await.get("lastUsedAt").is_none());
    let reader = crate::kit::Client::new(gateway.address, Some(&key));
    reader.get("/api/v1/app").await.expect(200);
    let used = shown(&gateway).await["lastUsedAt"].clone();
    assert!(used.is_string(), "{used}");
    let (status, stopped) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
    let gateway = stopped.start().await;
    assert_eq!(shown(&gateway).await["lastUsedAt"], used);
}
