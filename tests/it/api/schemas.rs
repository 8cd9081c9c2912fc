//! Payloads against the schema of their event type.

use serde_json::{Value, json};

use super::kit::Gateway;

async fn event_type(gateway: &Gateway, validation: &str) {
    let body = json!({
        "description": "", "payloadValidation": validation,
        "schemas": {"1": {"required": ["old"]}, "2": {
            "required": ["id"],
            "properties": {"items": {"items": {"properties": {"sku": {"type": "string"}}}}},
        }},
    });
    let put = gateway.call("PUT", "/event-type/order.made").json(&body);
    let put = put.send().await;
    assert!(put.status.is_success(), "{}", put.text());
    assert_eq!(put.json()["payloadValidation"], validation);
}

fn order(payload: Value) -> Value {
    json!({"eventType": "order.made", "payload": payload})
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_refused_under_its_pointer() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "all").await;
    event_type(&gateway, "reject").await;
    let good = order(json!({"id": 1, "items": [{"sku": "a"}]}));
    gateway.post("/app/acme/msg", &good).expect(202).await;
    let bad = order(json!({"id": 1, "items": [{"sku": "a"}, {"sku": 7}]}));
    let refused = gateway.post("/app/acme/msg", &bad).send().await;
    let at = (
        "body.payload.items.1.sku".to_owned(),
        "value_error".to_owned(),
    );
    assert_eq!(refused.mistakes(), [at]);
    let missing = gateway
        .post("/app/acme/msg", &order(json!({})))
        .send()
        .await;
    let at = ("body.payload".to_owned(), "value_error".to_owned());
    assert_eq!(missing.mistakes(), [at]);
    let other = json!({"eventType": "order.unmade", "payload": {}});
    gateway.post("/app/acme/msg", &other).expect(202).await;
    let lines = format!("{good}\n{bad}\n");
    let batch = gateway.call("POST", "/app/acme/msg/batch").body(lines);
    let batch = batch.expect(202).await;
    let lines: Vec<Value> = batch
        .text()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["status"], &lines[1]["status"]),
        (&json!(202), &json!(422))
    );
    assert_eq!(gateway.handed_on(3).await.len(), 3);
}

#[tokio::test]
async fn a_warning_lets_the_message_through_and_explain_shows_it() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    event_type(&gateway, "warn").await;
    let bad = order(json!({"items": [{"sku": 7}]}));
    let made = gateway.post("/app/acme/msg", &bad).expect(202).await.json();
    let dry = gateway
        .post("/app/acme/msg/explain", &bad)
        .expect(200)
        .await;
    let path = format!("/app/acme/msg/{}/explain", made["id"].as_str().unwrap());
    let said = gateway.get(&path).expect(200).await;
    for schema in [dry.json()["schema"].clone(), said.json()["schema"].clone()] {
        assert_eq!(
            (&schema["mode"], &schema["valid"]),
            (&json!("warn"), &json!(false))
        );
        let errors = schema["errors"].as_array().unwrap().iter();
        let mut pointers: Vec<_> = errors.map(|e| e["pointer"].as_str().unwrap()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["", "/items/0/sku"]);
    }
    event_type(&gateway, "off").await;
    let off = gateway.get(&path).expect(200).await;
    assert!(off.json().get("schema").is_none());
}

#[tokio::test]
async fn a_repeat_is_answered_as_before_whatever_the_schema_says_now() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mut body = order(json!({}));
    let send = async |body: &Value| {
        let call = gateway.post("/app/acme/msg", body);
        call.header("idempotency-key", "k").send().await
    };
    let first = send(&body).await.json();
    event_type(&gateway, "reject").await;
    let again = send(&body).await;
    assert_eq!(
        (again.status.as_u16(), again.json()["id"].clone()),
        (202, first["id"].clone())
    );
    body["eventId"] = json!("e");
    let fresh = gateway.post("/app/acme/msg", &body).send().await;
    assert_eq!(fresh.mistakes().len(), 1);
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_refused_where_it_would_be() {
    let gateway = Gateway::start().await;
    let body = |schemas: Value, mode: &str| json!({"description": "", "schemas": schemas, "payloadValidation": mode});
    let path = "/event-type/a";
    for schemas in [
        json!({"1": {"type": "objekt"}}),
        json!({"1": {"$ref": "http://127.0.0.1:9/x"}}),
        json!({}),
        Value::Null,
    ] {
        let put = gateway
            .call("PUT", path)
            .json(&body(schemas.clone(), "reject"));
        let at = ("body.schemas".to_owned(), "value_error".to_owned());
        assert_eq!(put.send().await.mistakes(), [at], "{schemas}");
        let put = gateway.call("PUT", path).json(&body(schemas, "off"));
        assert!(put.send().await.status.is_success());
    }
    let patch = gateway
        .call("PATCH", path)
        .json(&json!({"payloadValidation": "warn"}));
    assert_eq!(patch.send().await.mistakes().len(), 1);
    let patch = gateway
        .call("PATCH", path)
        .json(&json!({"payloadValidation": "often"}));
    let at = (
        "body.payloadValidation".to_owned(),
        "value_error".to_owned(),
    );
    assert_eq!(patch.send().await.mistakes(), [at]);
}
