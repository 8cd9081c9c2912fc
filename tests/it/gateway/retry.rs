//! What follows a failed attempt.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Answer, Gateway, Receiver, SOON, endpoint, eventually, pause, send};

#[tokio::test]
async fn an_attempt_that_got_a_500_is_repeated_with_the_same_id_and_body() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::scripted(|request| match request.nth {
        1 => Answer::status(500),
        _ => Answer::ok(),
    })
    .await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;

    let requests = receiver.finished("/hook", 2, SOON).await;
    assert_eq!([&requests[0].id, &requests[1].id], [&id, &id]);
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(requests[0].body, r#"{"n":1}"#);
    assert_eq!(requests[0].header("webhook-attempt"), "1/4");
    assert_eq!(requests[1].header("webhook-attempt"), "2/4");

    let attempts = eventually("both attempts are listed", SOON, async || {
        let all = gateway
            .list(&format!("/api/v1/app/acme/attempt/msg/{id}"))
            .await;
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!(attempts[0]["responseStatusCode"], 204, "newest first");
    assert_eq!(attempts[0]["status"], 0);
    assert_eq!(attempts[1]["responseStatusCode"], 500);
}

#[tokio::test]
async fn the_schedule_is_kept_and_a_delivery_is_dead_after_its_last_delay() {
    let settings = [
        ("delivery.retry_schedule", "300ms,600ms"),
        ("delivery.jitter", "0.0"),
    ];
    let gateway = Gateway::start(&settings).await;
    let receiver = Receiver::scripted(|_| Answer::status(500)).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;

    let requests = receiver.finished("/hook", 3, SOON).await;
    let gap = |n: usize| requests[n].start - requests[n - 1].end.unwrap();
    for (n, delay) in [(1, 300), (2, 600)] {
        let delay = Duration::from_millis(delay);
        assert!(
            gap(n) + Duration::from_millis(10) >= delay,
            "gap {n}: {:?}",
            gap(n)
        );
        assert!(
            gap(n) < delay + Duration::from_secs(1),
            "gap {n}: {:?}",
            gap(n)
        );
    }
    let path = format!("/api/v1/app/acme/msg/{id}/endpoint");
    eventually("the delivery is shown as failed", SOON, async || {
        let states = gateway.list(&path).await;
        (states[0]["status"] == 2).then_some(())
    })
    .await;
    pause(Duration::from_secs(1)).await;
    assert_eq!(receiver.count(), 3, "no attempt after the last");
}

#[tokio::test]
async fn the_wait_is_at_least_as_long_as_retry_after_says() {
    let gateway = Gateway::start(&[("delivery.retry_schedule", "100ms,100ms")]).await;
    let receiver = Receiver::scripted(|request| match request.nth {
        1 => Answer::status(503).header("retry-after", "2"),
        _ => Answer::ok(),
    })
    .await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    send(&gateway, "acme", 1).await;

    let requests = receiver.delivered("/hook", 1, SOON).await;
    let first = &receiver.at("/hook")[0];
    let waited = requests[0].start - first.end.unwrap();
    assert!(waited >= Duration::from_millis(1990), "{waited:?}");
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn a_410_disables_the_endpoint_at_once_and_nothing_more_is_sent() {
    let gateway = Gateway::start(&[("delivery.retry_schedule", "100ms,100ms")]).await;
    let receiver = Receiver::scripted(|_| Answer::status(410)).await;
    let gone = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    send(&gateway, "acme", 1).await;

    receiver.finished("/hook", 1, SOON).await;
    eventually("the endpoint is disabled", SOON, async || {
        (gone.get(&gateway).await["disabled"] == true).then_some(())
    })
    .await;
    send(&gateway, "acme", 2).await;
    pause(Duration::from_secs(1)).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn an_endpoint_that_fails_so_many_times_in_a_row_is_disabled_and_its_messages_are_held() {
    let settings = [
        ("delivery.retry_schedule", "100ms,100ms,100ms,100ms,100ms"),
        ("delivery.disable", "consecutive"),
        ("delivery.disable_failures", "3"),
    ];
    let gateway = Gateway::start(&settings).await;
    let receiver = Receiver::scripted(|_| Answer::status(500)).await;
    let failing = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;

    eventually("the endpoint is disabled", SOON, async || {
        (failing.get(&gateway).await["disabled"] == true).then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 3);
    let states = gateway
        .list(&format!("/api/v1/app/acme/msg/{id}/endpoint"))
        .await;
    assert_eq!(states[0]["status"], 1, "held counts as pending: {states:?}");
    pause(Duration::from_millis(700)).await;
    assert_eq!(receiver.count(), 3, "a held delivery is not sent");
}

#[tokio::test]
async fn a_resend_by_hand_goes_out_under_the_same_id() {
    let gateway = Gateway::start(&[("delivery.retry_schedule", "")]).await;
    let receiver = Receiver::scripted(|request| match request.nth {
        1 => Answer::status(500),
        _ => Answer::ok(),
    })
    .await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;
    receiver.finished("/hook", 1, SOON).await;
    let path = format!("/api/v1/app/acme/msg/{id}/endpoint");
    eventually("the only attempt has failed", SOON, async || {
        (gateway.list(&path).await[0]["status"] == 2).then_some(())
    })
    .await;

    let resend = format!("{path}/{}/resend", hook.id);
    let answer = gateway.api().post(&resend, &json!({})).await;
    assert_eq!(answer.expect(202), json!({}));
    let delivered = receiver.delivered("/hook", 1, SOON).await;
    assert_eq!(delivered[0].id, id);
}
