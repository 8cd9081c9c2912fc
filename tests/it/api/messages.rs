//! Accepting, listing and reading messages.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::kit::Gateway;

#[tokio::test]
async fn a_message_is_accepted_and_names_who_gets_it() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let all = gateway.endpoint("acme", "all").await;
    let paid = json!({"url": "https://b.example/", "uid": "paid", "filterTypes": ["invoice.*"]});
    let paid = gateway
        .post("/app/acme/endpoint", &paid)
        .expect(201)
        .await
        .json();
    let other = json!({"url": "https://c.example/", "eventTypes": ["user.made"]});
    gateway.post("/app/acme/endpoint", &other).expect(201).await;
    let body = json!({
        "eventType": "invoice.paid", "payload": {"amount": 1}, "eventId": "e-1",
        "channels": ["eu"], "tags": ["a\\b#c"], "orderingKey": "k \"1\"",
    });
    let made = gateway.post("/app/acme/msg", &body).expect(202).await;
    assert_eq!(made.json()["endpoints"], json!([all, paid["id"]]));
    insta::assert_json_snapshot!("message_created", made.json());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let read = gateway
        .get(&format!("/app/acme/msg/{id}"))
        .expect(200)
        .await
        .json();
    assert_eq!(read["payload"], json!({"amount": 1}));
    assert_eq!(
        gateway.get("/app/acme/msg/e-1").expect(200).await.json(),
        read
    );
    let bare = gateway
        .get("/app/acme/msg/e-1?with_content=false")
        .expect(200)
        .await;
    assert_eq!(bare.json()["payload"], json!({}));
}

#[tokio::test]
async fn a_message_that_nobody_wants_is_stored_and_says_so() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({"eventType": "a", "payload": {}});
    let made = gateway
        .post("/app/acme/msg", &body)
        .expect(202)
        .await
        .json();
    assert_eq!(made["endpoints"], json!([]));
    let list = gateway.get("/app/acme/msg").expect(200).await.json();
    assert_eq!(list["data"][0]["id"], made["id"]);
}

#[tokio::test]
async fn an_event_id_is_accepted_once() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("other").await;
    let body = json!({"eventType": "a", "payload": {"n": 1}, "eventId": "e-1"});
    let first = gateway
        .post("/app/acme/msg", &body)
        .expect(202)
        .await
        .json();
    let again = gateway.post("/app/acme/msg", &body).send().await;
    assert_eq!(again.problem(), (409, "conflict".to_owned()));
    let changed = json!({"eventType": "b", "payload": {"n": 2}, "eventId": "e-1"});
    let path = "/app/acme/msg?on_duplicate=return";
    let returned = gateway.post(path, &changed).expect(202).await.json();
    assert_eq!(returned["id"], first["id"]);
    assert_eq!(returned["payload"], json!({"n": 1}));
    assert_eq!(returned["duplicate"], json!(true));
    let other = gateway
        .post("/app/other/msg", &body)
        .expect(202)
        .await
        .json();
    assert_ne!(other["id"], first["id"]);
}

#[tokio::test]
async fn a_message_makes_its_application_on_the_fly() {
    let gateway = Gateway::start().await;
    let body = json!({
        "eventType": "a", "payload": {}, "application": {"name": "Acme", "uid": "acme"},
    });
    gateway.post("/app/acme/msg", &body).expect(202).await;
    gateway.post("/app/acme/msg", &body).expect(202).await;
    let apps = gateway.get("/app").expect(200).await.json();
    assert_eq!(apps["data"].as_array().unwrap().len(), 1);
    assert_eq!(apps["data"][0]["uid"], "acme");
    let nameless = json!({"eventType": "a", "payload": {}, "application": {"name": "X"}});
    gateway
        .post("/app/by-path/msg", &nameless)
        .expect(202)
        .await;
    gateway.get("/app/by-path").expect(200).await;
    let without = json!({"eventType": "a", "payload": {}});
    let missing = gateway.post("/app/nobody/msg", &without).send().await;
    assert_eq!(missing.problem(), (404, "not_found".to_owned()));
    let key = gateway.make_key(&["msg:write"], None).await;
    let body = json!({"eventType": "a", "payload": {}, "application": {"name": "N", "uid": "n"}});
    gateway
        .post("/app/n/msg", &body)
        .key(&key)
        .expect(404)
        .await;
}

#[tokio::test]
async fn the_path_decides_whose_message_it_is() {
    let gateway = Gateway::start().await;
    gateway.app("tenant").await;
    let message = |uid: &str| json!({"eventType": "a", "payload": {}, "application": {"name": "N", "uid": uid}});
    let want = [("body.application.uid".to_owned(), "value_error".to_owned())];
    for uid in ["tenant", "new"] {
        let refused = gateway.post("/app/typo/msg", &message(uid)).send().await;
        assert_eq!(refused.mistakes(), want, "{uid}");
        let line = message(uid).to_string();
        let batch = gateway
            .call("POST", "/app/typo/msg/batch")
            .kind("application/x-ndjson")
            .body(line);
        let line = batch.expect(202).await.json();
        assert_eq!(line["status"], 422);
        let loc = json!(["body", "application", "uid"]);
        assert_eq!(line["detail"][0]["loc"], loc);
    }
    let apps = gateway.get("/app").expect(200).await.json();
    assert_eq!(apps["data"].as_array().unwrap().len(), 1, "none was made");
    let list = gateway.get("/app/tenant/msg").expect(200).await.json();
    assert_eq!(list["data"], json!([]));
    gateway
        .post("/app/typo/msg", &message("typo"))
        .expect(202)
        .await;
    let null = json!({"eventType": "a", "payload": {}, "application": {"name": "N", "uid": null}});
    gateway.post("/app/null/msg", &null).expect(202).await;
    gateway.get("/app/null").expect(200).await;
}

#[tokio::test]
async fn lists_page_in_both_directions() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        gateway.clock.advance(std::time::Duration::from_secs(1));
        ids.push(gateway.message("acme", "a").await);
    }
    ids.reverse(); // newest first
    let page = async |query: String| -> Value {
        gateway
            .get(&format!("/app/acme/msg?limit=3{query}"))
            .expect(200)
            .await
            .json()
    };
    let ids_of = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().unwrap().iter();
        data.map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = page(String::new()).await;
    assert_eq!(ids_of(&first), ids[..3]);
    assert_eq!(first["done"], false);
    let second = page(format!("&iterator={}", first["iterator"].as_str().unwrap())).await;
    assert_eq!(ids_of(&second), ids[3..6]);
    let third = page(format!(
        "&iterator={}",
        second["iterator"].as_str().unwrap()
    ))
    .await;
    assert_eq!(
        (ids_of(&third), &third["done"]),
        (ids[6..].to_vec(), &json!(true))
    );
    let back = page(format!(
        "&iterator={}",
        third["prevIterator"].as_str().unwrap()
    ))
    .await;
    assert_eq!(ids_of(&back), ids[3..6]);
    let start = page(format!(
        "&iterator={}",
        back["prevIterator"].as_str().unwrap()
    ))
    .await;
    assert_eq!(
        (ids_of(&start), &start["done"]),
        (ids[..3].to_vec(), &json!(true))
    );
    let times: Vec<_> = (1..=7)
        .map(|n| format!("2026-01-05T08:15:{}.120Z", 30 + n))
        .collect();
    let after = page(format!("&after={}", times[1])).await;
    assert_eq!(ids_of(&after), ids[2..5], "closest to it, newest first");
    let before = page(format!("&before={}", times[1])).await;
    assert_eq!(ids_of(&before), ids[6..], "exclusive");
}

#[tokio::test]
async fn lists_are_filtered_by_type_channel_and_tag() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    for (event_type, channel, tag) in [("a", "x", "t1"), ("b", "y", "t2"), ("c", "x", "t2")] {
        let body = json!({
            "eventType": event_type, "payload": {}, "channels": [channel], "tags": [tag],
        });
        gateway.post("/app/acme/msg", &body).expect(202).await;
    }
    for (query, want) in [
        ("event_types=a,b", vec!["b", "a"]),
        ("event_types=a&event_types=c", vec!["c", "a"]),
        ("channel=x", vec!["c", "a"]),
        ("tag=t2", vec!["c", "b"]),
        ("tag=t2&channel=x", vec!["c"]),
        ("tag=none", vec![]),
        ("event_types=", vec!["c", "b", "a"]),
    ] {
        let list = gateway
            .get(&format!("/app/acme/msg?{query}"))
            .expect(200)
            .await
            .json();
        let data = list["data"].as_array().unwrap().iter();
        let types: Vec<_> = data.map(|m| m["eventType"].as_str().unwrap()).collect();
        assert_eq!(types, want, "{query}");
        assert_eq!(list["done"], true);
    }
}

#[tokio::test]
async fn a_batch_answers_line_for_line() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let lines = [
        r#"{"eventType":"a","payload":{"n": 1.0}}"#,
        "",
        r#"{"eventType":"a b","payload":{}}"#,
        r#"{"eventType":"a","payload":{},"eventId":"e"}"#,
        r#"{"eventType":"a","payload":{},"eventId":"e"}"#,
        "not json",
        r#"{"eventType":"z","payload":{}}"#,
    ];
    let answer = gateway
        .call("POST", "/app/acme/msg/batch")
        .kind("application/x-ndjson")
        .body(lines.join("\n"))
        .expect(202)
        .await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let results: Vec<Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let statuses: Vec<_> = results
        .iter()
        .map(|r| r["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [202, 422, 202, 422, 400, 202]);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], json!(index));
        assert_eq!(result["id"].is_string(), result["status"] == 202);
    }
    let list = gateway.get("/app/acme/msg").expect(200).await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_batch_may_name_an_earlier_event_twice() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({"eventType": "a", "payload": {}, "eventId": "e"});
    let first = gateway
        .post("/app/acme/msg", &body)
        .expect(202)
        .await
        .json();
    let lines = format!("{body}\n{body}\n");
    let send = |path: &str| {
        let call = gateway.call("POST", path).kind("application/x-ndjson");
        call.body(lines.clone())
    };
    let answer = send("/app/acme/msg/batch?on_duplicate=return")
        .expect(202)
        .await;
    assert_eq!(answer.text().matches("\"duplicate\":true").count(), 2);
    assert_eq!(
        answer.text().matches(first["id"].as_str().unwrap()).count(),
        2
    );
    let answer = send("/app/acme/msg/batch").expect(202).await;
    assert_eq!(answer.text().matches("\"conflict\"").count(), 2);
}

#[tokio::test]
async fn a_batch_larger_than_one_commit_keeps_its_order() {
    let gateway = Gateway::with(|config| {
        config.ingest.max_group = 7;
        config.ingest.queue = 7;
    })
    .await;
    gateway.app("acme").await;
    let lines: Vec<_> = (0..100)
        .map(|n| format!(r#"{{"eventType":"t{n}","payload":{{}}}}"#))
        .collect();
    let answer = gateway
        .call("POST", "/app/acme/msg/batch")
        .kind("application/x-ndjson")
        .body(lines.join("\n"))
        .expect(202)
        .await;
    let ids: Vec<_> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| {
            line["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned()
        })
        .collect();
    assert!(ids.is_sorted() && ids.len() == 100);
}

/// JSON objects as text, in all the ways producers write them.
fn payloads() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", " ", "\n\t ", "\r\n"]);
    let leaf = prop::sample::select(vec![
        "1e400",
        "-0",
        "1.0",
        "1E-7",
        "123456789012345678901234567890",
        "null",
        "true",
        r#""\ud800""#,
        r#""\u0041\/""#,
        r#""häß€𝄞""#,
        r#"{"a":1,"a":2}"#,
        "[ ]",
        r#""""#,
    ]);
    prop::collection::vec((r"[a-c]{0,2}", leaf, space.clone()), 0..6).prop_map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value, space)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_payload_is_kept_byte_for_byte(payload in payloads()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gateway = Gateway::start().await;
            gateway.app("acme").await;
            gateway.endpoint("acme", "all").await;
            let body = format!(r#"{{"payload" :{payload}, "eventType":"a"}}"#);
            let made = gateway.call("POST", "/app/acme/msg").body(body).expect(202).await;
            assert!(made.text().contains(&format!(r#""payload":{payload},"#)));
            let id: Value = serde_json::from_slice(&made.bytes).unwrap_or_default();
            if let Some(id) = id["id"].as_str() {
                let read = gateway.get(&format!("/app/acme/msg/{id}")).expect(200).await;
                assert!(read.text().contains(&format!(r#""payload":{payload},"#)));
            }
            while gateway.handed.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(gateway.handed.lock()[0].payload, payload.as_bytes());
        });
    }
}
