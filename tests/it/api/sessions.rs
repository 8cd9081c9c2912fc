//! Who is calling: whoami, portal tokens and their end; rotating API keys.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use serde_json::{Value, json};

use super::kit::Gateway;

async fn portal(gateway: &Gateway, body: &Value) -> String {
    let made = gateway
        .post("/auth/app-portal-access/acme", body)
        .expect(200)
        .await
        .json();
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(made["url"].as_str().unwrap().ends_with(&token));
    token
}

#[tokio::test]
async fn whoami_tells_kinds_of_credentials_apart() {
    let gateway = Gateway::start().await;
    let app = gateway.app("acme").await;
    let who = gateway.get("/auth/whoami").expect(200).await.json();
    assert_eq!(who["permissionSource"], "GlobalAuthToken");
    let key = gateway.make_key(&["app:acme:*"], None).await;
    let who = gateway
        .get("/auth/whoami")
        .key(&key)
        .expect(200)
        .await
        .json();
    assert_eq!(
        (&who["permissionSource"], &who["appId"]),
        (&json!("RegionalAuthToken"), &json!(app))
    );
    let token = portal(&gateway, &json!({"sessionId": "user@1"})).await;
    let who = gateway
        .get("/auth/whoami")
        .key(&token)
        .expect(200)
        .await
        .json();
    assert_eq!(
        (&who["permissionSource"], &who["sessionId"]),
        (&json!("SvixJwt"), &json!("user@1"))
    );
    gateway.get("/auth/whoami").anonymous().expect(401).await;
}

#[tokio::test]
async fn a_portal_token_opens_what_its_capabilities_say_and_no_more() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.app("beta").await;
    gateway.endpoint("acme", "one").await;
    let (app, endpoint) = ("/app/acme", "/app/acme/endpoint/one");
    let message = gateway.message("acme", "a").await;
    let resend = format!("/app/acme/msg/{message}/endpoint/one/resend");
    let calls = [
        ("ViewBase", "GET", endpoint.to_owned(), 200),
        (
            "ViewEndpointSecret",
            "GET",
            format!("{endpoint}/secret"),
            200,
        ),
        (
            "ManageEndpointSecret",
            "POST",
            format!("{endpoint}/secret/rotate"),
            200,
        ),
        ("CreateAttempts", "POST", resend, 202),
        ("ManageEndpoint", "POST", format!("{endpoint}/pause"), 204),
        ("", "DELETE", app.to_owned(), 403),
        ("", "POST", "/app/acme/msg".to_owned(), 403),
        ("", "POST", "/api-keys".to_owned(), 403),
        ("", "POST", "/auth/app-portal-access/acme".to_owned(), 403),
        ("", "GET", "/app/beta/endpoint".to_owned(), 404),
    ];
    let every = portal(&gateway, &json!({})).await;
    for (capability, method, path, status) in &calls {
        gateway.call(method, path).key(&every).expect(*status).await;
        if capability.is_empty() {
            continue;
        }
        let only = portal(&gateway, &json!({"capabilities": [capability]})).await;
        gateway.call(method, path).key(&only).expect(*status).await;
        let names = [
            "ViewBase",
            "ViewEndpointSecret",
            "ManageEndpointSecret",
            "CreateAttempts",
            "ManageEndpoint",
        ];
        let others: Vec<&str> = names
            .into_iter()
            .filter(|name| name != capability)
            .collect();
        let others = portal(&gateway, &json!({"capabilities": others})).await;
        gateway.call(method, path).key(&others).expect(403).await;
    }
}

#[tokio::test]
async fn portal_tokens_end_by_time_by_logout_and_by_expire_all() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let works =
        async |token: &str| gateway.get("/auth/whoami").key(token).send().await.status == 200;
    let short = portal(&gateway, &json!({"expiry": 3600})).await;
    gateway.clock.advance(Duration::from_secs(3599));
    assert!(works(&short).await);
    gateway.clock.advance(Duration::from_secs(1));
    assert!(!works(&short).await);

    let (one, two) = (
        portal(&gateway, &json!({})).await,
        portal(&gateway, &json!({})).await,
    );
    gateway
        .call("POST", "/auth/logout")
        .key(&one)
        .expect(204)
        .await;
    assert!(!works(&one).await && works(&two).await);
    gateway.call("POST", "/auth/logout").expect(403).await;

    let of = |session: &str| json!({ "sessionId": session });
    let (a, b) = (
        portal(&gateway, &of("a")).await,
        portal(&gateway, &of("b")).await,
    );
    let path = "/auth/app/acme/expire-all";
    gateway
        .post(path, &json!({"sessionIds": ["a"]}))
        .expect(204)
        .await;
    assert!(!works(&a).await && works(&b).await && works(&two).await);
    gateway.post(path, &json!({"expiry": 60})).expect(204).await;
    gateway.clock.advance(Duration::from_secs(59));
    assert!(works(&b).await);
    gateway.clock.advance(Duration::from_secs(1));
    assert!(!works(&b).await && !works(&two).await && !works(&a).await);
    assert!(
        works(&portal(&gateway, &json!({})).await).await,
        "later ones are good"
    );
}

#[tokio::test]
async fn portal_access_makes_the_application_and_checks_its_fields() {
    let gateway = Gateway::start().await;
    let path = "/auth/app-portal-access/fresh";
    gateway.call("POST", path).expect(404).await;
    let body = json!({"application": {"name": "Fresh"}});
    gateway.post(path, &body).expect(200).await;
    gateway.get("/app/fresh").expect(200).await;
    let wrong = json!({
        "capabilities": ["Everything"], "expiry": 3599, "sessionId": "a b",
        "featureFlags": ["x"], "extra": 1,
    });
    let refused = gateway.post(path, &wrong).send().await;
    let kinds: Vec<(String, String)> = refused.mistakes();
    let kinds: Vec<(&str, &str)> = kinds
        .iter()
        .map(|(l, k)| (l.as_str(), k.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("body.capabilities.0", "value_error"),
            ("body.featureFlags", "unsupported_field"),
            ("body.expiry", "value_error"),
            ("body.sessionId", "value_error"),
            ("body.extra", "unknown_field"),
        ]
    );
}

#[tokio::test]
async fn a_rotated_key_works_for_its_grace_and_the_new_one_opens_the_same() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({"name": "ci", "scopes": ["webhooks:read"], "appId": "acme"});
    let made = gateway.post("/api-keys", &body).expect(201).await.json();
    let (id, old) = (
        &made["apiKey"]["id"],
        made["apiKey"]["key"].as_str().unwrap(),
    );
    let path = format!("/api-keys/{}/rotate", id.as_str().unwrap());
    let rotated = gateway
        .post(&path, &json!({"gracePeriodSeconds": 60}))
        .expect(201)
        .await
        .json();
    let new = rotated["apiKey"]["key"].as_str().unwrap();
    assert_ne!(old, new);
    assert_eq!(rotated["apiKey"]["scopes"], json!(["webhooks:read"]));
    for key in [old, new] {
        gateway.get("/app/acme").key(key).expect(200).await;
    }
    gateway.clock.advance(Duration::from_secs(60));
    gateway.get("/app/acme").key(old).expect(401).await;
    gateway.get("/app/acme").key(new).expect(200).await;
    gateway.post(&path, &json!({})).expect(404).await;
    let weak = gateway.make_key(&["keys:write"], None).await;
    let own = format!(
        "/api-keys/{}/rotate",
        rotated["apiKey"]["id"].as_str().unwrap()
    );
    gateway.post(&own, &json!({})).key(&weak).expect(403).await;
}
