//! Replaying a range of time, to the endpoints and elsewhere.
#![expect(
    clippy::panic,
    reason = "outside the test functions a failure is a failed test too"
)]

use posthaste::model::{Delivery, Verdict};
use posthaste::store::model::Model;
use serde_json::{Value, json};

use super::history::{DEAD, Past, finished, position};
use super::kit::{Asked, Gateway};

const SINCE: &str = "2026-01-05T00:00:00Z";

async fn replayed(past: &Past, mut body: Value) -> Value {
    past.gateway.asked.lock().clear();
    past.gateway.elsewhere.0.lock().clear();
    body["since"] = json!(SINCE);
    let begun = past
        .gateway
        .post("/app/acme/replay", &body)
        .expect(202)
        .await;
    assert_eq!(begun.json()["task"], "application.replay");
    let task = finished(&past.gateway, &begun.json()).await;
    assert_eq!(task["status"], "finished", "{task}");
    task["data"].clone()
}

fn asked(past: &Past) -> Vec<Delivery> {
    let asked = past.gateway.asked.lock().clone();
    let recovered = asked.into_iter().flat_map(|one| match one {
        Asked::Recover(deliveries) => deliveries,
        other => panic!("{other:?}"),
    });
    recovered.collect()
}

#[tokio::test]
async fn what_endpoints_had_to_get_is_tried_again() {
    let past = Past::start().await;
    past.gateway.endpoint("acme", "two").await;
    let (one, two) = (past.endpoint("one"), past.endpoint("two"));
    let first = past.gateway.message("acme", "a").await;
    past.attempt(&first, "one", 1, 200, Verdict::Delivered)
        .await;
    past.attempt(&first, "two", 1, 500, DEAD).await;
    let second = past.gateway.message("acme", "b").await;
    let of = |id: &str, endpoint| Delivery {
        at: position(id),
        endpoint,
    };
    for (filter, want) in [
        (
            json!({"eventTypes": ["b"]}),
            vec![of(&second, one), of(&second, two)],
        ),
        (
            json!({"endpointIds": ["two"]}),
            vec![of(&first, two), of(&second, two)],
        ),
        (json!({"status": 0}), vec![of(&first, one)]),
        (
            json!({"status": 2, "ratePerSecond": 1000}),
            vec![of(&first, two)],
        ),
        (json!({"until": "2026-01-05T00:00:01Z"}), vec![]),
    ] {
        let data = replayed(&past, filter.clone()).await;
        assert_eq!(asked(&past), want, "{filter}");
        assert_eq!(data, json!({"deliveries": want.len()}), "{filter}");
    }
}

#[tokio::test]
async fn to_another_url_nothing_of_the_state_changes() {
    let past = Past::start().await;
    let put = past.gateway.call("PUT", "/app/acme/endpoint/one/headers");
    let headers = json!({"headers": {"x-team": "a", "authorization": "Bearer x"}});
    put.json(&headers).expect(204).await;
    let first = past.gateway.message("acme", "a").await;
    past.attempt(&first, "one", 1, 200, Verdict::Delivered)
        .await;
    let second = past.gateway.message("acme", "a").await;
    let before = past
        .gateway
        .reader
        .attempts(position(&first), None)
        .unwrap();
    let body = json!({"target": {"url": "https://new.example/hook"}, "ratePerSecond": 500});
    let data = replayed(&past, body).await;
    assert_eq!(data, json!({"deliveries": 2, "failed": 0}));
    let sent = past.gateway.elsewhere.0.lock().clone();
    let ids: Vec<_> = sent.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    for (endpoint, _) in &sent {
        assert_eq!(endpoint.url, "https://new.example/hook");
        assert_eq!(endpoint.no, past.endpoint("one"), "signed as this one");
        assert_eq!(endpoint.headers.keys().collect::<Vec<_>>(), ["x-team"]);
    }
    assert!(
        past.gateway.asked.lock().is_empty(),
        "the scheduler knows nothing"
    );
    let after = past
        .gateway
        .reader
        .attempts(position(&first), None)
        .unwrap();
    assert_eq!(after, before);
    let fails = json!({"target": {"url": "https://fails.example/"}, "ratePerSecond": 500});
    let data = replayed(&past, fails).await;
    assert_eq!(data, json!({"deliveries": 2, "failed": 2}));
}

#[tokio::test]
async fn a_url_that_may_not_be_called_is_refused() {
    let past = Past::start().await;
    let at = |kind: &str| ("body.target.url".to_owned(), kind.to_owned());
    for (target, want) in [
        (json!({"url": "https://127.0.0.1/"}), at("blocked_address")),
        (
            json!({"url": "https://169.254.169.254/x"}),
            at("blocked_address"),
        ),
        (json!({"url": "http://a.example/"}), at("https_required")),
        (json!({"url": "file:///etc/passwd"}), at("value_error")),
        (
            json!({"url": 5}),
            ("body.target".to_owned(), "type_error".to_owned()),
        ),
        (
            json!({"url": "https://a.example/", "method": "PUT"}),
            ("body.target".to_owned(), "type_error".to_owned()),
        ),
    ] {
        let body = json!({"since": SINCE, "target": target});
        let refused = past.gateway.post("/app/acme/replay", &body).send().await;
        assert_eq!(refused.mistakes(), [want], "{target}");
    }
    let body = json!({"since": SINCE, "endpointIds": ["one", "none"]});
    let refused = past.gateway.post("/app/acme/replay", &body).send().await;
    let want = ("body.endpointIds.1".to_owned(), "value_error".to_owned());
    assert_eq!(refused.mistakes(), [want]);
    let refused = past
        .gateway
        .post("/app/acme/replay", &json!({}))
        .send()
        .await;
    assert_eq!(
        refused.mistakes(),
        [("body.since".to_owned(), "missing".to_owned())]
    );
}

#[tokio::test]
async fn a_replay_keeps_to_its_rate_and_ends_when_it_is_cancelled() {
    let past = Past::start().await;
    for _ in 0..5 {
        past.gateway.message("acme", "a").await;
    }
    let body =
        json!({"since": SINCE, "ratePerSecond": 1, "target": {"url": "https://new.example/"}});
    let begun = past
        .gateway
        .post("/app/acme/replay", &body)
        .expect(202)
        .await
        .json();
    let sent = async || (!past.gateway.elsewhere.0.lock().is_empty()).then_some(());
    crate::kit::eventually("the first is sent", crate::kit::SOON, sent).await;
    let path = format!("/background-task/{}/cancel", begun["id"].as_str().unwrap());
    past.gateway.call("POST", &path).expect(202).await;
    let task = finished(&past.gateway, &begun).await;
    assert_eq!(task["status"], "failed");
    assert_eq!(task["data"]["cancelled"], true);
    let sent = past.gateway.elsewhere.0.lock().len();
    assert!(sent < 5, "{sent} within the time of two");
}

#[tokio::test]
async fn a_replay_elsewhere_goes_on_after_a_restart() {
    let store = Model::new();
    let past = Past::over(Gateway::over(&store, |_| ())).await;
    let message = past.gateway.message("acme", "a").await;
    let app = past
        .gateway
        .directory
        .snapshot()
        .app("acme")
        .unwrap()
        .app
        .no;
    let id = "qtask_2mZ5mU7iXvJ0hWmJcLcV2Vq7RdB";
    let row = json!({
        "task": {"id": id, "status": "running", "task": "application.replay",
                 "updatedAt": "2026-01-05T08:00:00Z", "data": {}},
        "app": app,
        "walk": {
            "kind": "replay", "app": app, "since": SINCE, "until": "2026-01-06T00:00:00Z",
            "at": [SINCE, 0, 0, 0], "taken": 3,
            "replay": {"endpoints": [], "rate": 100, "url": "https://new.example/", "failed": 1},
        },
    });
    let change = past
        .gateway
        .directory
        .change(move |draft| draft.put_instance("task/000", row));
    change.await.unwrap();
    drop(past);
    let after = Gateway::over(&store, |_| ());
    after.state.resume();
    let done = finished(&after, &json!({ "id": id })).await;
    assert_eq!(done["data"], json!({"deliveries": 4, "failed": 1}));
    let sent = after.elsewhere.0.lock().clone();
    assert_eq!((sent.len(), sent[0].1.as_str()), (1, message.as_str()));
}
