//! Payload filters: who gets what, what is refused, what explain and the test route say.

use serde_json::{Value, json};

use super::kit::Gateway;

async fn filtered(gateway: &Gateway, uid: &str, filter: &str) -> Value {
    let body = json!({"url": "https://a.example/", "uid": uid, "filter": filter});
    let made = gateway.post("/app/acme/endpoint", &body).expect(201).await;
    made.json()["id"].clone()
}

async fn sent(gateway: &Gateway, payload: Value) -> Value {
    let body = json!({"eventType": "invoice.paid", "payload": payload, "tags": ["a"]});
    let made = gateway.post("/app/acme/msg", &body).expect(202).await;
    made.json()
}

#[tokio::test]
async fn a_message_goes_to_endpoints_whose_filter_its_payload_passes() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let all = gateway.endpoint("acme", "all").await;
    let large = filtered(&gateway, "large", "payload.amount > 100").await;
    let tagged = filtered(
        &gateway,
        "tagged",
        "'a' in tags && eventType == 'invoice.paid'",
    )
    .await;
    let both = sent(&gateway, json!({"amount": 101})).await;
    let named = |made: &Value| made["endpoints"].as_array().unwrap().len();
    assert_eq!(named(&both), 3);
    let small = sent(&gateway, json!({"amount": 100})).await;
    let without_large = json!([all, tagged]);
    assert_eq!(small["endpoints"], without_large, "not {large}");
    let without = sent(&gateway, json!({"n": 1})).await;
    assert_eq!(without["endpoints"], without_large);
    let lines = "{\"eventType\":\"a\",\"payload\":{\"amount\":500}}\n{\"eventType\":\"a\",\"payload\":{}}\n";
    let batch = gateway.call("POST", "/app/acme/msg/batch").body(lines);
    batch.expect(202).await;
    let handed = gateway.handed_on(5).await;
    let got: Vec<usize> = handed.iter().map(|m| m.targets.len()).collect();
    assert_eq!(got, [3, 2, 2, 2, 1]);
}

#[tokio::test]
async fn a_filter_is_shown_changed_and_cleared() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    filtered(&gateway, "e", "payload.a == 1").await;
    let path = "/app/acme/endpoint/e";
    let read = gateway.get(path).expect(200).await.json();
    assert_eq!(read["filter"], "payload.a == 1");
    let patch = async |body: Value| {
        let patched = gateway.call("PATCH", path).json(&body).expect(200).await;
        patched.json()
    };
    let kept = patch(json!({"description": "x"})).await;
    assert_eq!(kept["filter"], "payload.a == 1");
    let changed = patch(json!({"filter": "payload.a == 2"})).await;
    assert_eq!(changed["filter"], "payload.a == 2");
    assert_eq!(
        sent(&gateway, json!({"a": 1})).await["endpoints"],
        json!([])
    );
    let cleared = patch(json!({"filter": null})).await;
    assert!(cleared.get("filter").is_none());
    assert_eq!(
        sent(&gateway, json!({"a": 1})).await["endpoints"],
        json!([read["id"]])
    );
}

#[tokio::test]
async fn what_is_no_expression_is_refused_with_its_place() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let long = format!("'{}' == 'x'", "x".repeat(2048));
    for (filter, kind) in [
        (json!("payload.a = 1"), "value_error"),
        (json!(""), "value_error"),
        (json!("("), "value_error"),
        (json!("(".repeat(500)), "value_error"),
        (json!(long), "limit"),
        (json!(5), "type_error"),
    ] {
        let body = json!({"url": "https://a.example/", "filter": filter});
        let refused = gateway.post("/app/acme/endpoint", &body).send().await;
        let want = ("body.filter".to_owned(), kind.to_owned());
        assert_eq!(refused.mistakes(), std::slice::from_ref(&want), "{filter}");
        let body = json!({"filter": filter, "payload": {}});
        let refused = gateway.post("/app/acme/filter/test", &body).send().await;
        assert_eq!(refused.mistakes(), [want], "{filter}");
    }
    let body = json!({"url": "https://a.example/", "filter": "payload.a = 1"});
    let refused = gateway.post("/app/acme/endpoint", &body).expect(422).await;
    let msg = refused.json()["detail"][0]["msg"].clone();
    assert!(msg.as_str().unwrap().starts_with("at byte 10: "), "{msg}");
}

#[tokio::test]
async fn the_test_route_says_what_an_expression_says() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let test = async |body: Value| {
        let answer = gateway.post("/app/acme/filter/test", &body).expect(200);
        answer.await.json()
    };
    let yes = test(json!({"filter": "payload.a == 1", "payload": {"a": 1}})).await;
    assert_eq!(yes, json!({"matches": true}));
    let no = json!({"filter": "payload.a == 1 || 'x' in channels", "payload": {"a": 2}});
    assert_eq!(test(no).await, json!({"matches": false}));
    let failed = test(json!({"filter": "true && payload.b == 1", "payload": {}})).await;
    let error = json!({"kind": "missing", "at": 15});
    assert_eq!(failed, json!({"matches": false, "error": error}));
    let named = json!({
        "filter": "eventType == 'a' && 'eu' in channels && tags == ['t']", "payload": {},
        "eventType": "a", "channels": ["eu"], "tags": ["t"],
    });
    assert_eq!(test(named).await, json!({"matches": true}));
    let nothing = gateway
        .post("/app/acme/filter/test", &json!({}))
        .send()
        .await;
    let missing = |field: &str| (format!("body.{field}"), "missing".to_owned());
    assert_eq!(nothing.mistakes(), [missing("filter"), missing("payload")]);
    assert!(gateway.handed.lock().is_empty(), "nothing was accepted");
}

#[tokio::test]
async fn explain_names_the_filter_and_why_it_failed() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    filtered(&gateway, "no", "payload.amount > 100").await;
    filtered(&gateway, "failed", "payload.customer.vip").await;
    filtered(&gateway, "yes", "payload.amount == 1").await;
    let body = json!({"eventType": "a", "payload": {"amount": 1}});
    let dry = gateway
        .post("/app/acme/msg/explain", &body)
        .expect(200)
        .await;
    let id = gateway
        .post("/app/acme/msg", &body)
        .expect(202)
        .await
        .json()["id"]
        .clone();
    let path = format!("/app/acme/msg/{}/explain", id.as_str().unwrap());
    let said = gateway.get(&path).expect(200).await;
    for answer in [dry.json(), said.json()] {
        let lines = answer["endpoints"].as_array().unwrap();
        let of = |uid: &str| lines.iter().find(|line| line["uid"] == uid).unwrap();
        let (no, failed, yes) = (of("no"), of("failed"), of("yes"));
        assert_eq!(
            (&no["matches"], &no["mismatch"], &no["filter"]),
            (
                &json!(false),
                &json!("filter"),
                &json!("payload.amount > 100")
            )
        );
        assert!(no.get("filterError").is_none());
        assert_eq!(failed["mismatch"], "filter_error");
        assert_eq!(failed["filterError"], json!({"kind": "missing", "at": 7}));
        assert_eq!((&yes["matches"], yes.get("mismatch")), (&json!(true), None));
    }
}
