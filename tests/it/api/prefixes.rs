//! What API keys begin with: set for each application, shown in lists, old keys go on working.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use posthaste::auth;
use posthaste::base::Timestamp;
use posthaste::directory;
use posthaste::model::{KeyPrefix, Scope};
use serde_json::{Value, json};

use super::kit::Gateway;

async fn set(gateway: &Gateway, prefix: Value) {
    let patch = json!({"keyPrefix": prefix});
    let shown = gateway.call("PATCH", "/app/acme").json(&patch);
    let shown = shown.expect(200).await.json();
    assert_eq!(shown.get("keyPrefix").unwrap_or(&Value::Null), &prefix);
}

async fn works(gateway: &Gateway, key: &str, status: u16) {
    gateway.get("/app/acme").key(key).expect(status).await;
}

/// What the list shows of each key, by the beginning of its text.
async fn listed(gateway: &Gateway) -> Vec<String> {
    let list = gateway.get("/api-keys").expect(200).await.json();
    let keys = list["apiKeys"].as_array().unwrap().iter();
    keys.map(|key| key["prefix"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn keys_begin_with_the_prefix_of_their_application_and_old_ones_go_on_working() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let instance = gateway.make_key(&["admin"], None).await;
    let plain = gateway.make_key(&["webhooks:read"], Some("acme")).await;
    set(&gateway, json!("riq_live_")).await;
    let named = gateway.make_key(&["webhooks:read"], Some("acme")).await;
    let scoped = gateway.make_key(&["app:acme:*"], None).await;
    set(&gateway, json!("riq_test_")).await;
    let renamed = gateway.make_key(&["webhooks:read"], Some("acme")).await;
    set(&gateway, Value::Null).await;
    let again = gateway.make_key(&["webhooks:read"], Some("acme")).await;
    let all = [
        ("sk_", &instance),
        ("sk_app_", &plain),
        ("riq_live_", &named),
        ("riq_live_", &scoped),
        ("riq_test_", &renamed),
        ("sk_app_", &again),
    ];
    let shown = listed(&gateway).await;
    assert_eq!(shown.len(), all.len());
    for (prefix, key) in all {
        let rest = key.strip_prefix(prefix).unwrap();
        assert_eq!(rest.len(), 27 + 1 + 43, "{key}");
        assert!(!key.contains('.'), "{key}");
        works(&gateway, key, 200).await;
        let begins = shown.iter().filter(|begin| key.starts_with(begin.as_str()));
        assert_eq!(begins.count(), 1, "{key} among {shown:?}");
        // The rest under another prefix is another text.
        works(&gateway, &format!("other_{rest}"), 401).await;
    }
}

#[tokio::test]
async fn a_rotated_key_takes_the_prefix_of_now() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let old = gateway.make_key(&["webhooks:read"], Some("acme")).await;
    set(&gateway, json!("riq_live_")).await;
    let list = gateway.get("/api-keys").expect(200).await.json();
    let id = list["apiKeys"][0]["id"].as_str().unwrap();
    let rotated = gateway.post(&format!("/api-keys/{id}/rotate"), &json!({}));
    let rotated = rotated.expect(201).await.json();
    let new = rotated["apiKey"]["key"].as_str().unwrap();
    assert!(old.starts_with("sk_app_") && new.starts_with("riq_live_"));
    works(&gateway, &old, 200).await;
    works(&gateway, new, 200).await;
}

#[tokio::test]
async fn a_key_of_before_there_were_prefixes_is_listed_and_works() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let new = auth::NewKey {
        prefix: KeyPrefix::default(),
        name: String::from("old"),
        scopes: vec![Scope::WebhooksRead],
        app: gateway
            .directory
            .peek()
            .app("acme")
            .map(|entry| entry.app.no),
        expires: None,
        allowed_ips: Vec::new(),
    };
    let (key, text) = auth::mint([5; auth::KEY_RANDOM], new, Timestamp::ZERO);
    let put = gateway
        .directory
        .change::<(), directory::Error>(move |draft| draft.put_key(key));
    put.await.unwrap();
    assert!(text.starts_with("sk_") && !text.starts_with("sk_app_"));
    works(&gateway, &text, 200).await;
    assert!(text.starts_with(&listed(&gateway).await[0]));
}

#[tokio::test]
async fn a_prefix_has_its_form_and_is_set_by_the_operator_alone() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mistake = [("body.keyPrefix".to_owned(), "value_error".to_owned())];
    for wrong in [
        "",
        "a_",
        "riq",
        "Riq_",
        "riq.live_",
        "abcdefghijklmnopqrst_",
        "sk_",
        "pt_x_",
        "whsec_",
    ] {
        let body = json!({"name": "b", "keyPrefix": wrong});
        let refused = gateway.post("/app", &body).send().await;
        assert_eq!(refused.mistakes(), mistake, "{wrong}");
        let patch = gateway
            .call("PATCH", "/app/acme")
            .json(&json!({"keyPrefix": wrong}));
        assert_eq!(patch.send().await.mistakes(), mistake, "{wrong}");
    }
    let made = json!({"name": "b", "uid": "b", "keyPrefix": "b2_"});
    let made = gateway.post("/app", &made).expect(201).await.json();
    assert_eq!(made["keyPrefix"], "b2_");
    set(&gateway, json!("riq_live_")).await;
    let tenant = gateway.make_key(&["app:acme:*"], None).await;
    let patch = gateway
        .call("PATCH", "/app/acme")
        .json(&json!({"keyPrefix": "mine_"}));
    patch.key(&tenant).expect(403).await;
    let put = gateway.call("PUT", "/app/acme").json(&json!({"name": "c"}));
    let kept = put.key(&tenant).expect(200).await.json();
    assert_eq!(
        (&kept["name"], &kept["keyPrefix"]),
        (&json!("c"), &json!("riq_live_"))
    );
}
