//! Background tasks: filters of bulk-replay, cancelling, and what a restart makes of them.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use posthaste::model::{Delivery, Verdict};
use posthaste::store::model::Model;
use serde_json::{Value, json};

use super::history::{DEAD, Past, finished, position, retry};
use super::kit::{Asked, Gateway};

async fn replayed(past: &Past, body: Value) -> Vec<Delivery> {
    past.gateway.asked.lock().clear();
    let path = "/app/acme/endpoint/one/bulk-replay";
    let started = past.gateway.post(path, &body).expect(202).await.json();
    assert_eq!(started["task"], "endpoint.bulk-replay");
    let task = finished(&past.gateway, &started).await;
    let asked = past.gateway.asked.lock().clone();
    let all: Vec<Delivery> = asked
        .into_iter()
        .flat_map(|one| match one {
            Asked::Recover(deliveries) => deliveries,
            Asked::Resend(_) | Asked::Cancel(_) | Asked::CancelPending(_) => Vec::new(),
        })
        .collect();
    assert_eq!(task["data"]["deliveries"], all.len());
    all
}

#[tokio::test]
async fn bulk_replay_takes_what_its_filters_let_through() {
    let past = Past::start().await;
    let one = past.endpoint("one");
    let delivered = past.gateway.message("acme", "a").await;
    past.attempt(&delivered, "one", 1, 200, Verdict::Delivered)
        .await;
    let dead = past.gateway.message("acme", "b").await;
    past.attempt(&dead, "one", 1, 503, DEAD).await;
    let body = json!({"eventType": "a", "payload": {}, "channels": ["eu"], "tags": ["t"]});
    let tagged = past
        .gateway
        .post("/app/acme/msg", &body)
        .expect(202)
        .await
        .json();
    let tagged = tagged["id"].as_str().unwrap().to_owned();
    past.attempt(&tagged, "one", 1, 404, retry()).await;
    let since = "2026-01-05T00:00:00Z";
    for (filter, want) in [
        (json!({}), vec![&delivered, &dead, &tagged]),
        (json!({"eventTypes": ["a"]}), vec![&delivered, &tagged]),
        (json!({"channel": "eu"}), vec![&tagged]),
        (json!({"tag": "t"}), vec![&tagged]),
        (json!({"status": 0}), vec![&delivered]),
        (json!({"status": 2}), vec![&dead]),
        (json!({"statusCodeClass": 500}), vec![&dead]),
        (json!({"statusCodeClass": 400, "eventTypes": ["b"]}), vec![]),
    ] {
        let mut body = filter.clone();
        body["since"] = json!(since);
        let want: Vec<Delivery> = want
            .iter()
            .map(|id| Delivery {
                at: position(id),
                endpoint: one,
            })
            .collect();
        assert_eq!(replayed(&past, body).await, want, "{filter}");
    }
    let wrong = json!({"since": since, "statusCodeClass": 250, "status": 9, "extra": 1});
    let refused = past
        .gateway
        .post("/app/acme/endpoint/one/bulk-replay", &wrong)
        .send()
        .await;
    let fields: Vec<String> = refused.mistakes().into_iter().map(|(loc, _)| loc).collect();
    assert_eq!(
        fields,
        ["body.status", "body.statusCodeClass", "body.extra"]
    );
}

#[tokio::test]
async fn a_task_that_has_ended_stays_as_it_is_when_cancelled() {
    let past = Past::start().await;
    let since = json!({"since": "2026-01-05T00:00:00Z"});
    let path = "/app/acme/endpoint/one/recover";
    let started = past.gateway.post(path, &since).expect(202).await.json();
    let done = finished(&past.gateway, &started).await;
    let path = format!(
        "/background-task/{}/cancel",
        started["id"].as_str().unwrap()
    );
    let answer = past.gateway.call("POST", &path).expect(202).await.json();
    assert_eq!(answer, done);
    let other = past.gateway.make_key(&["app:acme:*"], None).await;
    past.gateway
        .call("POST", &path)
        .key(&other)
        .expect(202)
        .await;
    past.gateway.app("beta").await;
    let foreign = past.gateway.make_key(&["app:beta:*"], None).await;
    past.gateway
        .call("POST", &path)
        .key(&foreign)
        .expect(404)
        .await;
}

#[tokio::test]
async fn lists_of_tasks_refuse_names_that_do_not_exist() {
    let gateway = Gateway::start().await;
    for (query, name) in [
        ("status=done", "query.status"),
        ("task=nothing", "query.task"),
    ] {
        let refused = gateway
            .get(&format!("/background-task?{query}"))
            .send()
            .await;
        assert_eq!(
            refused.mistakes(),
            [(name.to_owned(), "value_error".to_owned())]
        );
    }
}

/// What the process before has stored of a task that was running when it ended.
async fn leave_running(gateway: &Gateway, walk: Option<Value>) -> String {
    let id = "qtask_2mZ5mU7iXvJ0hWmJcLcV2Vq7RdB".to_owned();
    let app = gateway.directory.snapshot().app("acme").unwrap().app.no;
    let mut row = json!({
        "task": {"id": id, "status": "running", "task": "endpoint.recover",
                 "updatedAt": "2026-01-05T08:00:00Z", "data": {"deliveries": 7}},
        "app": app,
    });
    if let Some(walk) = walk {
        row["walk"] = walk;
    }
    let change = gateway
        .directory
        .change(move |draft| draft.put_instance("task/000", row));
    change.await.unwrap();
    id
}

#[tokio::test]
async fn a_walk_goes_on_after_a_restart_where_it_was_stored() {
    let store = Model::new();
    let past = Past::over(Gateway::over(&store, |_| ())).await;
    let message = past.gateway.message("acme", "a").await;
    past.attempt(&message, "one", 1, 500, DEAD).await;
    let (app, endpoint) = {
        let snapshot = past.gateway.directory.snapshot();
        (snapshot.app("acme").unwrap().app.no, past.endpoint("one"))
    };
    let since = "2026-01-05T08:00:00Z";
    let walk = json!({
        "kind": "dead", "app": app, "endpoint": endpoint, "since": since,
        "until": "2026-01-06T00:00:00Z", "at": [since, 0, 0, 0], "taken": 7,
    });
    let id = leave_running(&past.gateway, Some(walk)).await;
    let want = Asked::Recover(vec![Delivery {
        at: position(&message),
        endpoint,
    }]);
    drop(past);

    let after = Gateway::over(&store, |_| ());
    let path = format!("/background-task/{id}");
    let seen = after.get(&path).expect(200).await.json();
    assert_eq!(
        (&seen["status"], &seen["data"]),
        (&json!("running"), &json!({"deliveries": 7}))
    );
    after.state.resume();
    let done = finished(&after, &json!({ "id": id })).await;
    assert_eq!(
        (&done["status"], &done["data"]),
        (&json!("finished"), &json!({"deliveries": 8}))
    );
    assert_eq!(*after.asked.lock(), [want]);
    // Its end is stored as well.
    drop(after);
    let later = Gateway::over(&store, |_| ());
    let seen = later.get(&path).expect(200).await.json();
    assert_eq!(seen["status"], "finished");
}

#[tokio::test]
async fn a_task_that_cannot_go_on_after_a_restart_has_failed_and_says_why() {
    let store = Model::new();
    let past = Past::over(Gateway::over(&store, |_| ())).await;
    let id = leave_running(&past.gateway, None).await;
    drop(past);
    let after = Gateway::over(&store, |_| ());
    let task = after
        .get(&format!("/background-task/{id}"))
        .expect(200)
        .await
        .json();
    assert_eq!(task["status"], "failed");
    assert!(
        task["data"]["error"]
            .as_str()
            .unwrap()
            .contains("restarted")
    );
}
