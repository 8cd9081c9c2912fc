//! Catalogues of event types: import, and samples that are never empty.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use serde_json::{Value, json};

use super::kit::Gateway;

async fn names(gateway: &Gateway) -> Vec<String> {
    let listed = gateway
        .get("/event-type?limit=250")
        .expect(200)
        .await
        .json();
    let all = listed["data"].as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn sample(gateway: &Gateway, path: &str) -> Vec<Value> {
    let answer = gateway.get(path).expect(200).await.json();
    answer["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_catalogue_is_imported_whole_and_a_dry_run_changes_nothing() {
    let gateway = Gateway::start().await;
    let path = "/event-type/import/catalogue";
    let dry = json!({"name": "phone", "dryRun": true});
    let dry = gateway.post(path, &dry).expect(200).await.json();
    assert_eq!(dry["data"]["to_modify"].as_array().unwrap().len(), 6);
    assert!(names(&gateway).await.is_empty());

    let own = json!({"name": "call.started", "description": "mine", "featureFlags": ["calls"]});
    gateway.post("/event-type", &own).expect(201).await;
    let done = gateway.post(path, &json!({"name": "phone"}));
    let done = done.expect(200).await.json();
    assert_eq!(done["data"]["modified"].as_array().unwrap().len(), 6);
    assert_eq!(names(&gateway).await.len(), 6);
    let call = gateway
        .get("/event-type/call.started")
        .expect(200)
        .await
        .json();
    assert_eq!(call["description"], "A call was answered.");
    assert_eq!(call["groupName"], "call");
    assert_eq!(call["featureFlags"], json!(["calls"]), "kept");
    let callers = &call["schemas"]["1"]["properties"]["callerNumber"];
    assert_eq!(callers["x-pii"], true);
}

#[tokio::test]
async fn a_catalogue_that_does_not_exist_and_a_bound_key_are_refused() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let path = "/event-type/import/catalogue";
    let unknown = gateway
        .post(path, &json!({"name": "none"}))
        .expect(404)
        .await;
    let detail = unknown.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("ats, builtin, hiring, phone, sourcing"),
        "{detail}"
    );
    let key = gateway.make_key(&["app:acme:*"], None).await;
    let bound = gateway.post(path, &json!({"name": "ats"})).key(&key);
    bound.expect(403).await;
    let mistakes = gateway.post(path, &json!({})).send().await.mistakes();
    assert_eq!(mistakes, [("body.name".into(), "missing".into())]);
}

#[tokio::test]
async fn samples_are_real_payloads_then_the_schema_then_the_catalogue_and_never_empty() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let lead = "/event-type/lead.captured/sample";
    let listed = sample(&gateway, lead).await;
    assert_eq!(listed[0]["from"], "catalogue", "not even imported");
    assert_eq!(listed[0]["payload"]["source"], "AI_CALL");

    let schema = json!({"type": "object", "examples": [{"n": 1}, {"n": 2}]});
    let own = json!({"name": "own", "description": "", "schemas": {"1": schema}});
    gateway.post("/event-type", &own).expect(201).await;
    let made = sample(&gateway, "/event-type/own/sample").await;
    let made: Vec<_> = made.iter().map(|one| &one["payload"]).collect();
    assert_eq!(made, [&json!({"n": 1}), &json!({"n": 2})]);

    let bare = json!({"name": "bare", "description": ""});
    gateway.post("/event-type", &bare).expect(201).await;
    let made = sample(&gateway, "/event-type/bare/sample").await;
    assert_eq!((made.len(), &made[0]["from"]), (1, &json!("none")));

    gateway.message("acme", "other").await;
    for _ in 0..4 {
        gateway.message("acme", "own").await;
    }
    let real = sample(&gateway, "/event-type/own/sample?app_id=acme").await;
    assert_eq!(real.len(), 3);
    assert!(real.iter().all(|one| one["from"] == "message"));
    assert!(
        real[0]["id"].as_str() > real[1]["id"].as_str(),
        "newest first"
    );
    let one = sample(&gateway, "/event-type/own/sample?app_id=acme&limit=1").await;
    assert_eq!(one.len(), 1);
    gateway
        .get("/event-type/nobody.knows/sample")
        .expect(404)
        .await;
    for limit in ["0", "11", "x"] {
        let path = format!("/event-type/own/sample?limit={limit}");
        let mistakes = gateway.get(&path).send().await.mistakes();
        assert_eq!(mistakes, [("query.limit".into(), "limit".into())]);
    }
}

#[tokio::test]
async fn real_payloads_are_for_who_may_read_messages_of_that_application() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("other").await;
    gateway.message("acme", "lead.captured").await;
    let path = "/event-type/lead.captured/sample";
    let from = async |key: &str, path: &str| {
        let answer = gateway.get(path).key(key).expect(200).await.json();
        answer["data"][0]["from"].as_str().unwrap().to_owned()
    };
    let acme = gateway.make_key(&["app:acme:*"], None).await;
    assert_eq!(from(&acme, path).await, "message", "its own application");
    let narrow = gateway.make_key(&["webhooks:read"], Some("acme")).await;
    assert_eq!(
        from(&narrow, path).await,
        "catalogue",
        "no scope for messages"
    );
    let other = gateway.make_key(&["app:other:*"], None).await;
    assert_eq!(from(&other, path).await, "catalogue");
    let foreign = format!("{path}?app_id=acme");
    gateway.get(&foreign).key(&other).expect(404).await;
}

#[tokio::test]
async fn what_is_excluded_is_checked_shown_and_kept() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let path = "/app/acme/endpoint";
    let with = |exclude: Value| json!({"url": "https://a.example/", "excludePii": exclude});
    for (wanted, shown) in [
        (json!(null), json!(false)),
        (json!(false), json!(false)),
        (json!([]), json!(false)),
        (json!(true), json!(true)),
        (json!(["/a", "/b/*/c", "/a"]), json!(["/a", "/b/*/c"])),
    ] {
        let made = gateway.post(path, &with(wanted.clone())).expect(201).await;
        assert_eq!(made.json()["excludePii"], shown, "{wanted}");
        let one = format!("{path}/{}", made.json()["id"].as_str().unwrap());
        let patched = gateway
            .call("PATCH", &one)
            .json(&json!({"description": "x"}));
        let patched = patched.expect(200).await.json();
        assert_eq!(
            patched["excludePii"], shown,
            "a patch of something else keeps it"
        );
    }
    let long = format!("/{}", "x".repeat(256));
    for (wanted, kind) in [
        (json!("/a"), "type_error"),
        (json!([1]), "type_error"),
        (json!([""]), "value_error"),
        (json!(["a"]), "value_error"),
        (json!(["/~2"]), "value_error"),
        (json!([long]), "limit"),
        (json!(vec!["/a"; 101]), "limit"),
    ] {
        let refused = gateway.post(path, &with(wanted.clone())).send().await;
        let mistakes = [("body.excludePii".to_owned(), kind.to_owned())];
        assert_eq!(refused.mistakes(), mistakes, "{wanted}");
    }
    let key = gateway.make_key(&["app:acme:*"], None).await;
    let hook = json!({"url": "https://b.example/", "events": ["a"], "excludePii": ["/p"]});
    let made = gateway
        .post("/api/webhooks", &hook)
        .key(&key)
        .expect(201)
        .await;
    let made = made.json()["webhook"].clone();
    assert_eq!(made["exclude_pii"], json!(["/p"]));
    let one = format!("/api/webhooks/{}", made["id"].as_str().unwrap());
    let off = gateway
        .call("PUT", &one)
        .json(&json!({"excludePii": false}));
    let off = off.key(&key).expect(200).await.json();
    assert_eq!(off["webhook"]["exclude_pii"], false);
}
