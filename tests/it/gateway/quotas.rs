//! Quotas of applications where they end in sockets: attempts at the same time, and the operator's news.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Answer, Gateway, Received, Receiver, SOON, endpoint, send};

/// The most requests that were under way at the same time.
fn overlap(requests: &[Received]) -> usize {
    let during = |one: &Received| {
        let begun = requests.iter().filter(|other| other.start <= one.start);
        begun
            .filter(|other| other.end.is_none_or(|end| end > one.start))
            .count()
    };
    requests.iter().map(during).max().unwrap_or(0)
}

async fn set(gateway: &Gateway, quotas: Value) {
    let patch = json!({"quotas": quotas});
    let path = "/api/v1/app/acme";
    gateway.api().patch(path, &patch).await.expect(200);
}

#[tokio::test]
async fn an_application_has_no_more_attempts_under_way_than_its_quota() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_millis(60))).await;
    for path in ["/one", "/two"] {
        endpoint(&gateway, "acme", &receiver, path, json!({})).await;
    }
    set(&gateway, json!({"concurrency": 3})).await;
    let other = endpoint(&gateway, "beta", &receiver, "/other", json!({})).await;
    for n in 0..20 {
        send(&gateway, "acme", n).await;
    }
    receiver.delivered("/one", 20, SOON).await;
    receiver.delivered("/two", 20, SOON).await;
    assert_eq!(overlap(&receiver.all()), 3, "the quota is kept, and used");
    // Kept over a restart, and another application has nothing to do with it.
    let gateway = gateway.stop().await.1.start().await;
    let before = receiver.count();
    for n in 0..20 {
        send(&gateway, "acme", n).await;
        send(&gateway, &other.app, n).await;
    }
    receiver.delivered("/other", 20, SOON).await;
    receiver.delivered("/one", 40, SOON).await;
    receiver.delivered("/two", 40, SOON).await;
    let all = receiver.all().split_off(before);
    let (others, own): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.path == "/other");
    assert_eq!(overlap(&own), 3);
    assert!(overlap(&others) > 3, "{}", overlap(&others));
    // Taken back while there are endpoints: it holds at once.
    set(&gateway, Value::Null).await;
    let before = receiver.count();
    for n in 0..20 {
        send(&gateway, "acme", n).await;
    }
    receiver.delivered("/one", 60, SOON).await;
    receiver.delivered("/two", 60, SOON).await;
    let free = receiver.all().split_off(before);
    assert!(overlap(&free) > 3, "{}", overlap(&free));
    let usage = gateway
        .api()
        .get("/api/v1/app/acme/usage")
        .await
        .expect(200);
    assert_eq!(usage["concurrency"], Value::Null);
}

/// Nothing comes in after the change, and nothing would: all of it is refused.
#[tokio::test]
async fn a_quota_that_is_lowered_below_what_is_used_is_told_of_without_a_further_message() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let wanted = json!({"eventTypes": ["quota.reached"]});
    endpoint(
        &gateway,
        "posthaste-operator",
        &receiver,
        "/operator",
        wanted,
    )
    .await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let quota = |most: u64| json!({"quotas": {"deliveriesPerMonth": most}});
    let path = "/api/v1/app/acme";
    gateway.api().patch(path, &quota(9)).await.expect(200);
    for n in 0..2 {
        send(&gateway, "acme", n).await;
    }
    receiver.delivered("/hook", 2, SOON).await;
    gateway.api().patch(path, &quota(1)).await.expect(200);
    let told = receiver.delivered("/operator", 1, SOON).await;
    let event: Value = serde_json::from_slice(&told[0].body).unwrap();
    assert_eq!(event["data"]["limit"], 1, "{event}");
}

#[tokio::test]
async fn the_operator_gets_one_webhook_when_a_monthly_quota_is_used_up() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let operator = "posthaste-operator";
    let wanted = json!({"eventTypes": ["quota.reached"]});
    endpoint(&gateway, operator, &receiver, "/operator", wanted).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let limited = json!({"plan": "professional", "quotas": {"deliveriesPerMonth": 2}});
    let path = "/api/v1/app/acme";
    let shown = gateway.api().patch(path, &limited).await.expect(200);
    for n in 0..2 {
        send(&gateway, "acme", n).await;
    }
    let third = json!({"eventType": "test.event", "payload": {}});
    let path = "/api/v1/app/acme/msg";
    let refused = gateway.api().post(path, &third).await.expect(403);
    assert_eq!(refused["code"], "quota_exceeded");
    let told = receiver.delivered("/operator", 1, SOON).await;
    let event: Value = serde_json::from_slice(&told[0].body).unwrap();
    let usage = gateway
        .api()
        .get("/api/v1/app/acme/usage")
        .await
        .expect(200);
    assert_eq!(
        event,
        json!({"type": "quota.reached", "data": {
            "appId": shown["id"], "appUid": "acme", "plan": "professional",
            "quota": "deliveriesPerMonth", "limit": 2, "resetsAt": usage["resetsAt"],
        }})
    );
    assert!(told[0].header("webhook-signature").starts_with("v1,"));
    // Once a month: what is refused later, and a restart, tell nothing.
    let gateway = gateway.stop().await.1.start().await;
    gateway.api().post(path, &third).await.expect(403);
    crate::kit::pause(Duration::from_secs(1)).await;
    let list = gateway.list("/api/v1/app/posthaste-operator/msg").await;
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(receiver.at("/operator").len(), 1);
}
