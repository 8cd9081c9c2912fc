//! Quarantine: dead deliveries grouped by endpoint and failure, retried or discarded together.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use posthaste::model::{Delivery, Verdict};
use serde_json::{Value, json};

use super::history::{DEAD, Past, finished, position, retry};
use super::kit::Asked;

/// Two deliveries that died of a 500, one that was blocked, one that got through at last, one that waits.
async fn past() -> (Past, Vec<String>) {
    let past = Past::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(past.gateway.message("acme", "a").await);
    }
    past.attempt(&ids[0], "one", 1, 500, DEAD).await;
    past.attempt(&ids[1], "one", 1, 503, DEAD).await;
    past.attempt(&ids[2], "one", 1, 0, DEAD).await;
    past.attempt(&ids[3], "one", 1, 500, DEAD).await;
    past.attempt(&ids[3], "one", 2, 200, Verdict::Delivered)
        .await;
    past.attempt(&ids[4], "one", 1, 500, retry()).await;
    (past, ids)
}

fn groups(list: &Value) -> Vec<(String, u64)> {
    let data = list["data"].as_array().unwrap().iter();
    data.map(|one| {
        let failure = one["failure"].as_str().unwrap().to_owned();
        (failure, one["deliveries"].as_u64().unwrap())
    })
    .collect()
}

fn bucket(list: &Value, failure: &str) -> String {
    let data = list["data"].as_array().unwrap().iter();
    let found = data.into_iter().find(|one| one["failure"] == failure);
    format!("/quarantine/{}", found.unwrap()["id"].as_str().unwrap())
}

#[tokio::test]
async fn dead_deliveries_are_grouped_by_endpoint_and_failure() {
    let (past, ids) = past().await;
    let list = past.list("/quarantine").await;
    assert_eq!(list["complete"], true);
    let mut found = groups(&list);
    found.sort();
    assert_eq!(
        found,
        [("blocked_address".into(), 1), ("status_5xx".into(), 2)]
    );
    let path = bucket(&list, "status_5xx");
    let rows = past.list(&path).await;
    let rows = rows["data"].as_array().unwrap();
    let listed: Vec<&Value> = rows.iter().map(|row| &row["msgId"]).collect();
    assert_eq!(listed, [&json!(ids[1]), &json!(ids[0])], "newest first");
    assert_eq!(rows[0]["responseStatusCode"], 503);
    assert_eq!(
        (&rows[0]["attempts"], &rows[0]["hasPayload"]),
        (&json!(1), &json!(true))
    );
    let first = past.list(&format!("{path}?limit=1")).await;
    assert_eq!(first["done"], false);
    let next = format!(
        "{path}?limit=1&iterator={}",
        first["iterator"].as_str().unwrap()
    );
    let second = past.list(&next).await;
    assert_eq!(second["data"][0]["msgId"], json!(ids[0]));
}

#[tokio::test]
async fn a_bucket_is_retried_as_a_task_and_nothing_else_is() {
    let (past, ids) = past().await;
    let path = bucket(&past.list("/quarantine").await, "status_5xx");
    let path = format!("/app/acme{path}/retry");
    let begun = past
        .gateway
        .post(&path, &json!({}))
        .expect(202)
        .await
        .json();
    assert_eq!(begun["task"], "endpoint.recover");
    let task = finished(&past.gateway, &begun).await;
    assert_eq!(task["data"]["deliveries"], 2);
    let endpoint = past.endpoint("one");
    let of = |id: &String| Delivery {
        at: position(id),
        endpoint,
    };
    let asked = past.gateway.asked.lock().clone();
    assert_eq!(asked, [Asked::Recover(vec![of(&ids[0]), of(&ids[1])])]);
}

#[tokio::test]
async fn what_is_discarded_counts_as_cancelled_and_is_recovered_no_more() {
    let (past, ids) = past().await;
    let path = bucket(&past.list("/quarantine").await, "status_5xx");
    let discard = format!("/app/acme{path}/discard");
    let begun = past
        .gateway
        .post(&discard, &json!({}))
        .expect(202)
        .await
        .json();
    assert_eq!(begun["task"], "quarantine.discard");
    let task = finished(&past.gateway, &begun).await;
    assert_eq!(
        (&task["status"], &task["data"]["deliveries"]),
        (&json!("finished"), &json!(2))
    );
    assert_eq!(
        groups(&past.list("/quarantine").await),
        [("blocked_address".into(), 1)]
    );
    assert_eq!(past.list(&path).await["data"], json!([]));
    let places = past
        .list(&format!("/msg/{}/endpoint?expanded_statuses=true", ids[0]))
        .await;
    assert_eq!(places["data"][0]["status"], 4, "cancelled");
    let since = json!({"since": "2026-01-05T00:00:00Z"});
    let recover = past.gateway.post("/app/acme/endpoint/one/recover", &since);
    let task = finished(&past.gateway, &recover.expect(202).await.json()).await;
    assert_eq!(task["data"]["deliveries"], 1, "the blocked one alone");
}

#[tokio::test]
async fn keys_of_one_application_see_one_bucket_for_targets_that_cannot_be_reached() {
    let (past, _) = past().await;
    let key = past.gateway.make_key(&["app:acme:*"], None).await;
    let list = past.gateway.get("/app/acme/quarantine").key(&key);
    let list = list.expect(200).await.json();
    let mut found = groups(&list);
    found.sort();
    assert_eq!(found, [("status_5xx".into(), 2), ("target".into(), 1)]);
    let path = format!("/app/acme{}", bucket(&list, "target"));
    let rows = past.gateway.get(&path).key(&key).expect(200).await.json();
    assert_eq!(rows["data"][0]["failure"], "target");
    let hidden = path.replace(".target", ".blocked_address");
    past.gateway.get(&hidden).key(&key).expect(404).await;
}

#[tokio::test]
async fn buckets_that_cannot_be_are_not_found_and_times_are_checked() {
    let (past, _) = past().await;
    for path in ["x", "one.nonsense", "none.status_5xx", "one"] {
        let path = format!("/app/acme/quarantine/{path}");
        past.gateway.get(&path).expect(404).await;
        past.gateway
            .post(&format!("{path}/retry"), &json!({}))
            .expect(404)
            .await;
    }
    let path = "/app/acme/quarantine/one.status_5xx/discard";
    let backwards = json!({"since": "2026-01-05T00:00:00Z", "until": "2026-01-04T00:00:00Z"});
    let refused = past.gateway.post(path, &backwards).send().await;
    assert_eq!(
        refused.mistakes(),
        [("body.until".into(), "value_error".into())]
    );
    let later = json!({"since": "2026-02-05T00:00:00Z"});
    let begun = past.gateway.post(path, &later).expect(202).await.json();
    assert_eq!(
        finished(&past.gateway, &begun).await["data"]["deliveries"],
        0
    );
}
