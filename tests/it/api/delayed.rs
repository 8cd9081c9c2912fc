//! `deliverAt`: its bounds, where it is shown, repeats.

use std::time::Duration;

use posthaste::base::{Clock, Timestamp};
use serde_json::{Value, json};

use super::kit::Gateway;

fn ahead(gateway: &Gateway, ms: i64) -> String {
    let at = gateway.clock.now().millis().saturating_add_signed(ms);
    Timestamp::from_millis(at).rfc3339()
}

fn body(at: &str) -> Value {
    json!({"eventType": "a", "payload": {}, "deliverAt": at})
}

#[tokio::test]
async fn a_time_of_delivery_lies_between_a_minute_and_a_day_ahead() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let day = 86_400_000;
    for (ms, good) in [
        (59_999, false),
        (60_000, true),
        (day, true),
        (day + 1, false),
        (-60_000, false),
    ] {
        let at = ahead(&gateway, ms);
        let sent = gateway.post("/app/acme/msg", &body(&at)).send().await;
        if good {
            assert_eq!(
                (sent.status.as_u16(), &sent.json()["deliverAt"]),
                (202, &json!(at))
            );
        } else {
            let wrong = ("body.deliverAt".to_owned(), "value_error".to_owned());
            assert_eq!(sent.mistakes(), [wrong], "{ms}");
        }
    }
    let none = gateway.post(
        "/app/acme/msg",
        &json!({"eventType": "a", "payload": {}, "deliverAt": null}),
    );
    assert!(none.expect(202).await.json().get("deliverAt").is_none());
}

#[tokio::test]
async fn the_time_is_shown_with_the_message_and_by_explain() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let at = ahead(&gateway, 90_000);
    let made = gateway.post("/app/acme/msg", &body(&at)).expect(202).await;
    let path = format!("/app/acme/msg/{}", made.json()["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/explain")] {
        let read = gateway.get(&path).expect(200).await.json();
        assert_eq!(read["deliverAt"], json!(at), "{path}");
    }
    let list = gateway.get("/app/acme/msg").expect(200).await.json();
    assert_eq!(list["data"][0]["deliverAt"], json!(at));
    let dry = gateway
        .post("/app/acme/msg/explain", &body(&at))
        .expect(200)
        .await;
    assert_eq!(dry.json()["deliverAt"], json!(at));
}

#[tokio::test]
async fn a_repeat_is_answered_as_before_when_the_time_is_near_or_past() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = body(&ahead(&gateway, 60_000));
    let send = async || {
        let call = gateway
            .post("/app/acme/msg", &body)
            .header("idempotency-key", "k");
        call.expect(202).await.json()["id"].clone()
    };
    let first = send().await;
    gateway.clock.advance(Duration::from_secs(90));
    assert_eq!(send().await, first);
}

#[tokio::test]
async fn a_collapse_key_is_shown_and_has_its_length() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = |key: &str| json!({"eventType": "a", "payload": {}, "collapseKey": key});
    let longest = "x".repeat(256);
    let made = gateway
        .post("/app/acme/msg", &body(&longest))
        .expect(202)
        .await;
    assert_eq!(made.json()["collapseKey"], json!(longest));
    let path = format!("/app/acme/msg/{}", made.json()["id"].as_str().unwrap());
    let read = gateway.get(&path).expect(200).await.json();
    assert_eq!(read["collapseKey"], json!(longest));
    for bad in ["", &"x".repeat(257)] {
        let refused = gateway.post("/app/acme/msg", &body(bad)).send().await;
        assert_eq!(refused.mistakes().len(), 1, "{bad}");
    }
}
