//! Who is sent what, how much at a time, and in which order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Answer, Gateway, Receiver, SOON, endpoint, eventually, now, pause, send};

#[tokio::test]
async fn never_more_attempts_at_a_time_than_the_endpoint_allows() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_millis(40))).await;
    let limit = json!({"maxConcurrency": 3});
    endpoint(&gateway, "acme", &receiver, "/hook", limit).await;
    for n in 0..60 {
        send(&gateway, "acme", n).await;
    }
    let requests = receiver.delivered("/hook", 60, SOON).await;
    let most = requests.iter().map(|one| one.concurrent).max();
    assert_eq!(most, Some(3), "the limit is kept, and used");
}

#[tokio::test]
async fn a_rate_limit_is_kept_and_everything_still_arrives() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let limit = json!({"throttleRate": 10});
    endpoint(&gateway, "acme", &receiver, "/hook", limit).await;
    for n in 0..30 {
        send(&gateway, "acme", n).await;
    }
    let requests = receiver.delivered("/hook", 30, SOON).await;
    let took = requests[29].start - requests[0].start;
    // 30 at 10 a second: a full burst of 10 first, then 2 s for the other 20.
    assert!(took >= Duration::from_millis(1800), "{took:?}");
}

#[tokio::test]
async fn the_backlog_of_a_disabled_endpoint_is_held_and_delivered_after_enabling() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let held = endpoint(
        &gateway,
        "acme",
        &receiver,
        "/hook",
        json!({"disabled": true}),
    )
    .await;
    let mut sent = Vec::new();
    for n in 0..25 {
        sent.push(send(&gateway, "acme", n).await);
    }
    pause(Duration::from_millis(500)).await;
    assert_eq!(receiver.count(), 0);
    let states = gateway
        .list(&format!("/api/v1/app/acme/endpoint/{}/msg", held.id))
        .await;
    assert_eq!(states.len(), 25, "held deliveries are listed");

    let change = json!({"disabled": false});
    gateway.api().patch(&held.path(), &change).await.expect(200);
    let requests = receiver.delivered("/hook", 25, SOON).await;
    let mut arrived: Vec<_> = requests.into_iter().map(|one| one.id).collect();
    arrived.sort();
    sent.sort();
    assert_eq!(arrived, sent);
}

#[tokio::test]
async fn a_paused_endpoint_collects_and_sends_when_resumed() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let pause_path = format!("{}/pause", hook.path());
    gateway
        .api()
        .post(&pause_path, &json!({}))
        .await
        .expect(204);
    for n in 0..5 {
        send(&gateway, "acme", n).await;
    }
    pause(Duration::from_millis(500)).await;
    assert_eq!(receiver.count(), 0);
    let resume_path = format!("{}/resume", hook.path());
    gateway
        .api()
        .post(&resume_path, &json!({}))
        .await
        .expect(204);
    receiver.delivered("/hook", 5, SOON).await;
}

#[tokio::test]
async fn an_ordered_endpoint_gets_its_messages_in_the_order_of_acceptance_also_with_failures() {
    let settings = [("delivery.retry_schedule", "50ms,50ms,50ms,50ms")];
    let gateway = Gateway::start(&settings).await;
    // Every third message fails twice before it is taken.
    let receiver = Receiver::scripted(|request| {
        let failing = request.field("n").as_u64().unwrap() % 3 == 0;
        if failing && request.nth <= 2 {
            Answer::status(500)
        } else {
            Answer::ok().after(Duration::from_millis(3))
        }
    })
    .await;
    let ordered = json!({"order": "endpoint"});
    endpoint(&gateway, "acme", &receiver, "/hook", ordered).await;
    for n in 0..30 {
        send(&gateway, "acme", n).await;
    }
    let requests = receiver.delivered("/hook", 30, SOON).await;
    let order: Vec<_> = requests
        .iter()
        .map(|one| one.field("n").as_u64().unwrap())
        .collect();
    assert_eq!(order, (0..30).collect::<Vec<_>>());
    assert!(receiver.all().iter().all(|one| one.concurrent == 1));
}

#[tokio::test]
async fn an_endpoint_that_hangs_does_not_slow_the_others() {
    let settings = [("delivery.timeout", "10s")];
    let gateway = Gateway::start(&settings).await;
    let hanging = Receiver::scripted(|_| Answer::ok().after(Duration::from_secs(60))).await;
    let healthy = Receiver::start().await;
    endpoint(&gateway, "acme", &hanging, "/hang", json!({})).await;
    endpoint(&gateway, "acme", &healthy, "/fine", json!({})).await;
    let begin = now();
    for n in 0..100 {
        send(&gateway, "acme", n).await;
    }
    let sending = begin.elapsed();
    healthy.delivered("/fine", 100, SOON).await;
    let all = begin.elapsed();
    assert!(
        all < sending + Duration::from_secs(3),
        "{sending:?} {all:?}"
    );
    eventually("the hanging one was tried", SOON, async || {
        (hanging.count() > 0).then_some(())
    })
    .await;
    assert!(
        hanging.count() <= 10,
        "its own slots only: {}",
        hanging.count()
    );
}

#[tokio::test]
async fn a_large_backlog_of_one_application_lets_another_one_pass() {
    // Few slots in all, so that they must be shared.
    let settings = [
        ("delivery.max_in_flight", "16"),
        ("delivery.endpoint_concurrency", "16"),
    ];
    let gateway = Gateway::start(&settings).await;
    let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_millis(50))).await;
    endpoint(&gateway, "loud", &receiver, "/loud", json!({})).await;
    endpoint(&gateway, "quiet", &receiver, "/quiet", json!({})).await;
    let lines: Vec<String> = (0..2000)
        .map(|n| json!({"eventType": "test.event", "payload": {"n": n}}).to_string())
        .collect();
    let batch = gateway
        .api()
        .send(
            http::Method::POST,
            "/api/v1/app/loud/msg/batch",
            &[("content-type", "application/x-ndjson")],
            lines.join("\n").into(),
        )
        .await
        .unwrap();
    assert_eq!(batch.status, 202, "{}", batch.text());
    for n in 0..20 {
        send(&gateway, "quiet", n).await;
    }
    receiver.delivered("/quiet", 20, SOON).await;
    let loud = receiver.at("/loud").len();
    assert!(
        loud < 1500,
        "the quiet one did not wait for the loud one: {loud}"
    );
}

#[tokio::test]
async fn only_the_wanted_event_types_arrive() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    for (path, types) in [
        ("/paid", json!(["invoice.paid"])),
        ("/all", Value::Null),
        ("/none", json!(["order.made"])),
    ] {
        let mut fields = json!({});
        if !types.is_null() {
            fields["eventTypes"] = types;
        }
        endpoint(&gateway, "acme", &receiver, path, fields).await;
    }
    for kind in ["invoice.paid", "invoice.sent"] {
        let message = json!({"eventType": kind, "payload": {"kind": kind}});
        let made = gateway.api().post("/api/v1/app/acme/msg", &message).await;
        made.expect(202);
    }
    receiver.delivered("/all", 2, SOON).await;
    let paid = receiver.delivered("/paid", 1, SOON).await;
    assert_eq!(paid[0].field("kind"), "invoice.paid");
    pause(Duration::from_millis(300)).await;
    assert_eq!(receiver.at("/paid").len(), 1);
    assert!(receiver.at("/none").is_empty());
}
