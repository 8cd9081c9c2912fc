//! Hops of a message: what a request says of them, and what is refused (S14).

use posthaste::policy::hop;
use serde_json::{Value, json};

use super::kit::{Call, Gateway};
use crate::kit::{SOON, eventually};

const BODY: &str = r#"{"eventType": "a", "payload": {"n": 1}, "tags": ["t"]}"#;

/// One message each, alone and as a batch of two.
fn ways(gateway: &Gateway) -> [Call<'_>; 2] {
    let lines = format!("{BODY}\n{BODY}\n");
    [
        gateway.call("POST", "/app/acme/msg").body(BODY),
        gateway
            .call("POST", "/app/acme/msg/batch")
            .kind("application/x-ndjson")
            .body(lines),
    ]
}

#[tokio::test]
async fn a_message_takes_its_hops_from_the_request_that_brings_it() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "all").await;
    for (header, hops) in [(None, 0), (Some("0"), 0), (Some("1"), 1), (Some("2"), 2)] {
        for call in ways(&gateway) {
            let before = gateway.handed.lock().len();
            let call = match header {
                Some(header) => call.header(hop::HEADER, header),
                None => call,
            };
            call.expect(202).await;
            // The answer does not wait for the scheduler to take the message up.
            let handed = eventually("the message is handed on", SOON, async || {
                let handed = gateway.handed.lock().clone();
                (handed.len() > before).then_some(handed)
            });
            let handed = handed.await;
            for message in &handed[before..] {
                assert_eq!(message.hops(), hops);
                assert_eq!(message.tags(), ["t"]);
                let stored = gateway.reader.message(message.at).unwrap().unwrap();
                assert_eq!(stored.hops(), hops, "the record keeps them");
            }
        }
    }
}

#[tokio::test]
async fn a_message_that_made_three_hops_is_refused_before_its_body_is_read() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    for header in ["3", "4", "999"] {
        for call in ways(&gateway) {
            let answer = call.header(hop::HEADER, header).send().await;
            assert_eq!(answer.problem(), (400, "too_many_hops".to_owned()));
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(header), "{detail}");
        }
    }
    let no_body = gateway.call("POST", "/app/acme/msg").body("{");
    let answer = no_body.header(hop::HEADER, "3").send().await;
    assert_eq!(answer.problem().1, "too_many_hops");
    let list = gateway.get("/app/acme/msg").expect(200).await.json();
    assert_eq!(list["data"], json!([]), "nothing was accepted");
    let page = gateway.get("//problems/too_many_hops").expect(200).await;
    assert!(page.text().contains("webhook-hops"));
}

#[tokio::test]
async fn hops_that_are_no_single_number_are_a_mistake_in_the_header() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mistake = [("header.webhook-hops".to_owned(), "value_error".to_owned())];
    for header in ["", "-1", "one", "1, 1", "1.5", "1000000000"] {
        for call in ways(&gateway) {
            let answer = call.header(hop::HEADER, header).send().await;
            assert_eq!(answer.mistakes(), mistake, "{header:?}");
        }
    }
    for call in ways(&gateway) {
        let twice = call.header(hop::HEADER, "1").header(hop::HEADER, "1");
        assert_eq!(twice.send().await.mistakes(), mistake);
    }
}

#[tokio::test]
async fn nobody_sets_the_hops_of_a_delivery() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({"url": "https://a.example/", "headers": {"Webhook-Hops": "0"}});
    let answer = gateway.post("/app/acme/endpoint", &body).send().await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let signature = json!({"profile": "timestamped", "header": "webhook-hops"});
    let body = json!({"url": "https://a.example/", "signature": signature});
    let answer = gateway.post("/app/acme/endpoint", &body).send().await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let list: Value = gateway.get("/app/acme/endpoint").expect(200).await.json();
    assert_eq!(list["data"], json!([]));
}
