//! The operator is told of a source that refuses everything, once, and the metrics say why.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::kit::{SECRET, signed_at};
use crate::kit::{Client, Gateway, Receiver, SOON, endpoint};

#[tokio::test]
async fn ten_refusals_in_a_row_are_one_operational_event_and_ten_counts() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(
        &gateway,
        "posthaste-operator",
        &receiver,
        "/operator",
        json!({}),
    )
    .await;
    let api = gateway.api();
    api.post("/api/v1/app", &json!({"name": "Acme", "uid": "acme"}))
        .await
        .expect(201);
    let source = json!({
        "name": "s", "provider": "standard_webhooks", "appId": "acme", "secrets": {"secret": SECRET},
    });
    let made = api.post("/api/v1/source", &source).await.expect(201);
    let path = made["path"].as_str().unwrap();
    let client = Client::new(gateway.address, None);
    for n in 0..25 {
        let headers = signed_at(SECRET, &format!("e{n}"), 1_000_000_000, "{}");
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = client
            .send(Method::POST, path, &headers, Bytes::from("{}"))
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), 401);
    }
    let told = receiver.delivered("/operator", 1, SOON).await;
    let event: serde_json::Value = serde_json::from_slice(&told[0].body).unwrap();
    assert_eq!(event["type"], "source.verification_failed");
    assert_eq!(event["data"]["appUid"], "acme");
    assert_eq!(event["data"]["sourceId"], made["id"]);
    assert_eq!(event["data"]["provider"], "standard_webhooks");
    assert_eq!(event["data"]["reason"], "stale_timestamp");
    assert_eq!(event["data"]["failures"], 10);
    let refused = "posthaste_inbound_refused_total{reason=\"stale_timestamp\"}";
    assert!((gateway.metric(refused).await - 25.0).abs() < f64::EPSILON);
    let receipts = format!("/api/v1/source/{}/receipts", made["id"].as_str().unwrap());
    let receipts = api.get(&receipts).await.expect(200);
    assert_eq!(receipts["data"].as_array().unwrap().len(), 1, "{receipts}");
    assert_eq!(receipts["data"][0]["count"], 25);
    // Nothing but the operational event was stored for all of it.
    assert_eq!(
        gateway.list("/api/v1/app/acme/msg").await,
        Vec::<serde_json::Value>::new()
    );
    assert_eq!(
        gateway
            .list("/api/v1/app/posthaste-operator/msg")
            .await
            .len(),
        1
    );
    gateway.stop().await;
}
