//! Payloads and answers that are taken away on request.

use posthaste::model::{Delivery, Verdict};
use serde_json::json;

use super::history::{DEAD, Past, finished, position, retry};
use super::kit::Asked;

#[tokio::test]
async fn an_expunged_payload_is_shown_nowhere_and_cannot_be_sent_again() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    past.attempt(&message, "one", 1, 500, retry()).await;
    let path = format!("/app/acme/msg/{message}");
    for _ in 0..2 {
        let answer = past
            .gateway
            .call("DELETE", &format!("{path}/content"))
            .expect(204)
            .await;
        assert!(answer.bytes.is_empty() && answer.header("content-type").is_none());
    }
    for path in [
        format!("/msg/{message}"),
        "/msg".to_owned(),
        "/endpoint/one/msg".to_owned(),
    ] {
        let seen = past.list(&path).await;
        let one = if seen["data"].is_array() {
            &seen["data"][0]
        } else {
            &seen
        };
        assert_eq!(one["payload"], json!({}), "{path}");
        assert_eq!(one["eventType"], "a", "{path}: the rest stays");
    }
    let delivery = Delivery {
        at: position(&message),
        endpoint: past.endpoint("one"),
    };
    let asked = past.gateway.asked.lock().clone();
    assert_eq!(
        asked.first(),
        Some(&Asked::Cancel(vec![delivery])),
        "it is not tried again"
    );
    let resend = format!("{path}/endpoint/one/resend");
    let refused = past.gateway.call("POST", &resend).send().await;
    assert_eq!(refused.problem(), (400, "missing_payload".to_owned()));
    let unknown = past
        .gateway
        .call("DELETE", "/app/acme/msg/none/content")
        .send()
        .await;
    assert_eq!(unknown.problem(), (404, "not_found".to_owned()));
    let reader = past.gateway.make_key(&["read"], None).await;
    let refused = past
        .gateway
        .call("DELETE", &format!("{path}/content"))
        .key(&reader);
    refused.expect(403).await;
}

#[tokio::test]
async fn an_expunged_answer_says_so() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    past.attempt(&message, "one", 1, 500, retry()).await;
    past.attempt(&message, "one", 2, 200, Verdict::Delivered)
        .await;
    let list = past.list(&format!("/attempt/msg/{message}")).await;
    let first = list["data"][1]["id"].as_str().unwrap();
    let path = format!("/app/acme/msg/{message}/attempt/{first}");
    past.gateway
        .call("DELETE", &format!("{path}/content"))
        .expect(204)
        .await;
    let list = past.list(&format!("/attempt/msg/{message}")).await;
    assert_eq!(list["data"][1]["response"], "EXPUNGED");
    assert_eq!(list["data"][1]["responseStatusCode"], 500, "the rest stays");
    assert_eq!(
        list["data"][0]["response"], "answer",
        "the other one as well"
    );
    assert_eq!(
        past.list(&format!("/msg/{message}")).await["payload"],
        json!({"n": 1})
    );
}

#[tokio::test]
async fn many_are_expunged_by_id_or_event_id() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    let body = json!({"eventType": "a", "payload": {"n": 2}, "eventId": "order-1"});
    past.gateway.post("/app/acme/msg", &body).expect(202).await;
    let path = "/app/acme/msg/bulk-expunge";
    let ids = json!({"ids": [message, "order-1", "none", "none"]});
    let done = past.gateway.post(path, &ids).expect(200).await.json();
    assert_eq!(
        done,
        json!({"results": {(message.as_str()): "expunged", "order-1": "expunged", "none": "not-found"}})
    );
    for one in past.list("/msg").await["data"].as_array().unwrap() {
        assert_eq!(one["payload"], json!({}));
    }
    let too_many: Vec<String> = (0..501).map(|n| n.to_string()).collect();
    for (body, kind) in [
        (json!({"ids": too_many}), "limit"),
        (json!({"ids": []}), "limit"),
        (json!({}), "missing"),
    ] {
        let refused = past.gateway.post(path, &body).send().await;
        assert_eq!(
            refused.mistakes(),
            [("body.ids".to_owned(), kind.to_owned())]
        );
    }
}

#[tokio::test]
async fn all_contents_of_one_application_go_and_no_others() {
    let past = Past::start().await;
    past.gateway.app("other").await;
    let kept = past.gateway.message("other", "a").await;
    for _ in 0..3 {
        past.gateway.message("acme", "a").await;
    }
    let path = "/app/acme/msg/expunge-all-contents";
    let started = past.gateway.call("POST", path).expect(202).await.json();
    assert_eq!(started["task"], "application.purge_content");
    let task = finished(&past.gateway, &started).await;
    assert_eq!(
        (&task["status"], &task["data"]),
        (&json!("finished"), &json!({"messages": 3}))
    );
    for one in past.list("/msg").await["data"].as_array().unwrap() {
        assert_eq!(one["payload"], json!({}));
    }
    let other = past
        .gateway
        .get(&format!("/app/other/msg/{kept}"))
        .expect(200)
        .await
        .json();
    assert_eq!(other["payload"], json!({"n": 1}));
}

#[tokio::test]
async fn what_has_no_payload_is_neither_recovered_nor_replayed() {
    let past = Past::start().await;
    let (gone, there) = (
        past.gateway.message("acme", "a").await,
        past.gateway.message("acme", "a").await,
    );
    for message in [&gone, &there] {
        past.attempt(message, "one", 1, 500, DEAD).await;
    }
    past.gateway
        .call("DELETE", &format!("/app/acme/msg/{gone}/content"))
        .expect(204)
        .await;
    past.gateway.asked.lock().clear();
    for route in ["recover", "bulk-replay"] {
        let path = format!("/app/acme/endpoint/one/{route}");
        let since = json!({"since": "2026-01-05T00:00:00Z"});
        let started = past.gateway.post(&path, &since).expect(202).await.json();
        finished(&past.gateway, &started).await;
    }
    let want = Asked::Recover(vec![Delivery {
        at: position(&there),
        endpoint: past.endpoint("one"),
    }]);
    assert_eq!(*past.gateway.asked.lock(), [want.clone(), want]);
}

#[tokio::test]
async fn a_scrub_is_wanted_until_it_was_done() {
    let past = Past::start().await;
    let wanted = || past.gateway.directory.snapshot().instance("scrub").cloned();
    past.gateway.state.scrub().await;
    assert_eq!(wanted(), None, "nothing was taken away");
    for _ in 0..2 {
        let message = past.gateway.message("acme", "a").await;
        past.gateway
            .call("DELETE", &format!("/app/acme/msg/{message}/content"))
            .expect(204)
            .await;
        assert_eq!(wanted(), Some(json!({"wanted": 1, "done": 0})));
    }
    past.gateway.state.scrub().await;
    assert_eq!(wanted(), Some(json!({"wanted": 1, "done": 1})));
}
