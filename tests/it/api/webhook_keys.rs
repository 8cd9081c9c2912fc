//! The public keys of endpoints that sign with Ed25519, as a JSON Web Key Set.

use std::time::Duration;

use serde_json::{Value, json};

use super::kit::Gateway;

const PATH: &str = "//.well-known/webhook-keys";
/// Seed 00 01 … 1f.
const FIRST: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// Its public key, as other implementations of Ed25519 (RFC 8032) make it.
const FIRST_X: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
/// The seed of RFC 8037, appendix A.1, and its public key of appendix A.2.
const SECOND: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
/// Its thumbprint, as another implementation of RFC 7638 makes it.
const FIRST_KID: &str = "1IG2tMH7J2wbJZnOf8LJzQitKf7LMvoAElsuDMVM54Y";
/// That of the key of RFC 8037, from its appendix A.3.
const SECOND_KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
const SECOND_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

async fn set(gateway: &Gateway) -> Vec<(String, String)> {
    let answer = gateway.get(PATH).anonymous().expect(200).await;
    let cache = answer.header("cache-control");
    assert_eq!(cache, Some("public, max-age=300"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let keys = answer.json()["keys"].as_array().cloned();
    let pair = |key: &Value| {
        let fixed = json!([key["kty"], key["crv"], key["use"], key["alg"]]);
        assert_eq!(fixed, json!(["OKP", "Ed25519", "sig", "EdDSA"]));
        assert!(key.get("d").is_none(), "the private part is never shown");
        let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        (text("kid"), text("x"))
    };
    keys.unwrap_or_default().iter().map(pair).collect()
}

#[tokio::test]
async fn the_key_set_follows_secrets_and_their_rotation() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "symmetric").await;
    assert_eq!(set(&gateway).await, []);
    let body = json!({"url": "https://a.example/", "uid": "a", "secret": FIRST});
    let made = gateway.post("/app/acme/endpoint", &body).expect(201).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let key = |thumbprint: &str, x: &str| (format!("{id}.{thumbprint}"), x.to_owned());
    let (first, second) = (key(FIRST_KID, FIRST_X), key(SECOND_KID, SECOND_X));
    assert_eq!(set(&gateway).await, std::slice::from_ref(&first));

    let body = json!({"key": SECOND, "gracePeriodSeconds": 3600});
    let rotate = gateway.post("/app/acme/endpoint/a/secret/rotate", &body);
    rotate.expect(200).await;
    // A rotation leads no kept `kid` to another key.
    assert_eq!(set(&gateway).await, [second.clone(), first]);
    gateway.clock.advance(Duration::from_secs(3601));
    assert_eq!(set(&gateway).await, [second], "the old one expired");

    let delete = gateway.call("DELETE", "/app/acme/endpoint/a");
    delete.expect(204).await;
    assert_eq!(set(&gateway).await, []);
}

#[tokio::test]
async fn a_secret_that_is_the_key_of_an_hmac_has_no_public_key() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({
        "url": "https://a.example/", "secret": FIRST,
        "signature": {"profile": "timestamped", "header": "x-signature"},
    });
    gateway.post("/app/acme/endpoint", &body).expect(201).await;
    assert_eq!(set(&gateway).await, []);
}
