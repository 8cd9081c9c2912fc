//! A provider that the product does not know: a file makes it one, on the real gateway, without Rust.

use bytes::Bytes;
use http::Method;
use posthaste::base::{Clock, SystemClock};
use ring::hmac;
use serde_json::json;

use crate::kit::{Client, Gateway, Receiver, SOON, endpoint};
use crate::providers::catalogue::ACME;

const BODY: &[u8] = br#"{"kind": "order/made", "no": 17}"#;

/// Headers of a request for [`BODY`], as Acme signs it.
fn signed(at: u64, key: &[u8]) -> Vec<(&'static str, String)> {
    let key = hmac::Key::new(hmac::HMAC_SHA512, key);
    let text = [format!("{at}|k1|").as_bytes(), BODY].concat();
    let tag = hmac::sign(&key, &text);
    let sign = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, tag);
    vec![
        ("x-acme-sign", sign),
        ("x-acme-time", at.to_string()),
        ("x-acme-key", "k1".to_owned()),
    ]
}

#[tokio::test]
async fn a_provider_added_by_a_file_sends_events_that_are_verified_stored_and_delivered() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("acme.toml"), ACME).unwrap();
    let manifests = directory.path().to_str().unwrap();
    let gateway = Gateway::start(&[("providers.manifests", manifests)]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "shop", &receiver, "/in", json!({})).await;
    let source = json!({
        "name": "s", "provider": "acme", "appId": "shop", "secrets": {"shared": "00ff10"},
    });
    let made = gateway
        .api()
        .post("/api/v1/source", &source)
        .await
        .expect(201);
    let path = made["path"].as_str().unwrap();
    let provider = Client::new(gateway.address, None);
    let post = async |headers: Vec<(&'static str, String)>, body: &'static [u8]| {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let sent = provider.send(Method::POST, path, &headers, Bytes::from_static(body));
        sent.await.unwrap().status.as_u16()
    };
    let now = SystemClock::start().now().millis() / 1000;
    let right = [0, 255, 16];
    assert_eq!(
        post(signed(now, &[1, 255, 16]), BODY).await,
        401,
        "another secret"
    );
    assert_eq!(post(signed(now - 120, &right), BODY).await, 401, "stale");
    assert_eq!(post(signed(now, &right), b"{}").await, 401, "another body");
    assert_eq!(post(Vec::new(), BODY).await, 401, "no signature");
    assert!(gateway.list("/api/v1/app/shop/msg").await.is_empty());
    assert_eq!(post(signed(now, &right), BODY).await, 200);
    let delivered = receiver.delivered("/in", 1, SOON).await;
    assert_eq!(delivered[0].body, BODY, "byte for byte");
    let stored = gateway.list("/api/v1/app/shop/msg").await;
    assert_eq!(stored[0]["eventType"], "acme.order.made");
    assert_eq!(stored[0]["eventId"], "acme-17");
    assert_eq!(post(signed(now, &right), BODY).await, 200, "sent once more");
    assert_eq!(gateway.list("/api/v1/app/shop/msg").await.len(), 1);
}
