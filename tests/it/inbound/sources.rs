//! Sources over the API: made, listed, changed, deleted; whose they are; what is never shown.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use posthaste::auth::{self, NewKey};
use posthaste::base::Timestamp;
use posthaste::model::Scope;
use serde_json::{Value, json};

use super::kit::{SECRET, Stage};

fn hidden_part() -> &'static str {
    SECRET.strip_prefix("whsec_").unwrap()
}

fn wanted() -> Value {
    json!({
        "name": "Billing", "provider": "standard_webhooks", "app_id": "acme", "secrets": {"secret": SECRET},
        "toleranceSeconds": 60, "allowedIps": ["203.0.113.9", "2001:db8::/32"],
        "eventTypes": {"standard_webhooks.a": "b.c"}, "ratePerSecond": 7,
        "response": {"status": 201, "contentType": "text/plain", "body": "ok"},
        "publicUrl": "https://hooks.acme.example/x",
    })
}

#[tokio::test]
async fn no_source_is_made_where_ids_are_forgotten_before_its_provider_has_stopped_sending_again() {
    let day = 86_400;
    let stage = Stage::with(|config| {
        config.retention.messages = std::time::Duration::from_secs(2 * day);
    })
    .await;
    let made = stage.gateway.call("POST", "/source").json(&wanted());
    let text = made.expect(422).await.text().to_owned();
    assert!(
        text.contains("provider") && text.contains("retention.messages"),
        "{text}"
    );
    let stage = Stage::with(|config| {
        config.retention.messages = std::time::Duration::from_secs(3 * day);
    })
    .await;
    stage
        .gateway
        .call("POST", "/source")
        .json(&wanted())
        .expect(201)
        .await;
}

#[tokio::test]
async fn a_source_shows_everything_but_its_secrets_and_its_token_once() {
    let stage = Stage::with(|config| {
        config.server.public_urls = vec!["https://hooks.example.com".parse().unwrap()];
    })
    .await;
    let made = stage
        .gateway
        .call("POST", "/source")
        .json(&wanted())
        .expect(201)
        .await
        .json();
    let token = made["token"].as_str().unwrap();
    assert!(token.len() >= 43, "at least 128 bits: {token}");
    assert_eq!(made["url"], format!("https://hooks.example.com/in/{token}"));
    let id = made["id"].as_str().unwrap();
    let read = stage
        .gateway
        .get(&format!("/source/{id}"))
        .expect(200)
        .await;
    for hidden in [token, SECRET, hidden_part()] {
        assert!(!read.text().contains(hidden), "{}", read.text());
    }
    let mut shown = read.json();
    let fields = shown.as_object_mut().unwrap();
    let app = fields.remove("appId").unwrap();
    assert!(app.as_str().unwrap().starts_with("app_"));
    for name in ["id", "createdAt", "updatedAt"] {
        assert!(fields.remove(name).is_some(), "{name}");
    }
    let expected = json!({
        "name": "Billing", "provider": "standard_webhooks", "disabled": false, "secrets": {"secret": 1},
        "config": {}, "toleranceSeconds": 60, "allowedIps": ["203.0.113.9/32", "2001:db8::/32"],
        "eventTypes": {"standard_webhooks.a": "b.c"}, "ratePerSecond": 7,
        "response": {"status": 201, "contentType": "text/plain", "body": "ok"},
        "publicUrl": "https://hooks.acme.example/x", "shared": false,
    });
    assert_eq!(shown, expected);
    let list = stage
        .gateway
        .get("/source?provider=standard_webhooks&app_id=acme")
        .expect(200)
        .await;
    assert_eq!(list.json()["data"][0]["id"], id);
    assert_eq!(
        stage
            .gateway
            .get("/source?provider=github")
            .expect(200)
            .await
            .json()["data"],
        json!([])
    );
    // What the store holds of it is sealed.
    let (_, rows) = stage.gateway.reader.config().unwrap();
    for row in rows {
        let text = String::from_utf8_lossy(&row.value).into_owned();
        assert!(
            !text.contains(hidden_part()) && !text.contains(token),
            "{text}"
        );
    }
}

#[tokio::test]
async fn put_and_patch_change_what_they_name_and_keep_secrets_that_they_do_not() {
    let stage = Stage::open().await;
    let made = stage
        .gateway
        .call("POST", "/source")
        .json(&wanted())
        .expect(201)
        .await
        .json();
    let path = format!("/source/{}", made["id"].as_str().unwrap());
    let put = json!({"name": "Plain", "provider": "standard_webhooks"});
    let put = stage
        .gateway
        .call("PUT", &path)
        .json(&put)
        .expect(200)
        .await
        .json();
    assert_eq!(
        (put["name"].as_str(), put["allowedIps"].clone()),
        (Some("Plain"), json!([]))
    );
    assert_eq!(put["secrets"], json!({"secret": 1}));
    assert_eq!(put.get("ratePerSecond"), None);
    let patch = json!({"ratePerSecond": 9, "allowedIps": ["10.0.0.0/8"]});
    let patched = stage
        .gateway
        .call("PATCH", &path)
        .json(&patch)
        .expect(200)
        .await
        .json();
    assert_eq!(
        (patched["name"].as_str(), patched["ratePerSecond"].as_u64()),
        (Some("Plain"), Some(9))
    );
    let patch = json!({"ratePerSecond": null});
    let patched = stage
        .gateway
        .call("PATCH", &path)
        .json(&patch)
        .expect(200)
        .await
        .json();
    assert_eq!(patched.get("ratePerSecond"), None);
    assert_eq!(patched["allowedIps"], json!(["10.0.0.0/8"]));
    // Without its secret it could verify nothing.
    let patch = json!({"secrets": {"secret": null}});
    let refused = stage.gateway.call("PATCH", &path).json(&patch).send().await;
    assert_eq!(
        refused.mistakes(),
        [(String::from("body.secrets"), String::from("value_error"))]
    );
    for (change, place) in [
        (json!({"name": "x", "provider": "github"}), "body.provider"),
        (json!({"name": "x", "appId": "nobody"}), "body.appId"),
    ] {
        let refused = stage.gateway.call("PUT", &path).json(&change).send().await;
        assert_eq!(
            refused.mistakes(),
            [(place.to_owned(), String::from("value_error"))]
        );
    }
}

#[tokio::test]
async fn all_mistakes_are_named_and_no_secret_is_repeated() {
    let stage = Stage::open().await;
    let hidden = "not-base64-and-not-to-be-shown!";
    for (field, value, kind) in [
        ("name", json!(""), "limit"),
        ("provider", json!("nobody"), "value_error"),
        ("provider", json!("slack"), "value_error"),
        ("secrets", json!({"secret": hidden}), "value_error"),
        ("secrets", json!({}), "value_error"),
        ("secrets", json!({"secret": ""}), "limit"),
        ("secrets", json!({"secret": 5}), "type_error"),
        (
            "secrets",
            json!({"secret": SECRET, "other": hidden}),
            "value_error",
        ),
        ("config", json!({"unknown": "x"}), "value_error"),
        ("toleranceSeconds", json!(29), "value_error"),
        ("toleranceSeconds", json!(901), "value_error"),
        ("allowedIps", json!(["203.0.113.0/33"]), "value_error"),
        ("eventTypes", json!({"a": "no blanks"}), "value_error"),
        ("ratePerSecond", json!(0), "value_error"),
        ("response", json!({"status": 500}), "value_error"),
        ("response", json!({"contentType": "a\nb"}), "value_error"),
        ("response", json!({"body": "x".repeat(5000)}), "limit"),
        ("publicUrl", json!("ftp://x"), "value_error"),
        ("publicUrl", json!("https://u:p@x/"), "value_error"),
        ("accounts", json!({"acct": "nobody"}), "value_error"),
        ("extra", json!(1), "unknown_field"),
    ] {
        let mut body = wanted();
        body[field] = value.clone();
        let answer = stage
            .gateway
            .call("POST", "/source")
            .json(&body)
            .send()
            .await;
        let mistakes = answer.mistakes();
        let (place, found) = &mistakes[0];
        let is_right = place.starts_with(&format!("body.{field}")) || field == "provider";
        assert!(is_right && found == kind, "{field} {value}: {mistakes:?}");
        assert!(!answer.text().contains(hidden), "{}", answer.text());
    }
    assert_eq!(
        stage.gateway.get("/source").expect(200).await.json()["data"],
        json!([])
    );
}

/// A key with these scopes, bound to `app` if it is named.
async fn key(stage: &Stage, scopes: &[&str], app: Option<&str>) -> String {
    let app = app.map(|app| stage.gateway.directory.peek().app(app).unwrap().app.no);
    let new = NewKey {
        name: String::from("test"),
        scopes: scopes
            .iter()
            .map(|scope| Scope::from((*scope).to_owned()))
            .collect(),
        app,
        expires: None,
        prefix: posthaste::model::KeyPrefix::default(),
        allowed_ips: Vec::new(),
    };
    let random = [u8::try_from(scopes.len()).unwrap() + u8::from(app.is_some()); auth::KEY_RANDOM];
    let (key, text) = auth::mint(random, new, Timestamp::ZERO);
    let put = stage
        .gateway
        .directory
        .change(move |draft| draft.put_key(key));
    put.await.unwrap();
    text
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one source, tried by each credential"
)]
async fn another_applications_source_is_not_there_and_scopes_are_asked_for() {
    let stage = Stage::open().await;
    let other = json!({"name": "Other", "uid": "other"});
    stage
        .gateway
        .call("POST", "/app")
        .json(&other)
        .expect(201)
        .await;
    let made = stage
        .gateway
        .call("POST", "/source")
        .json(&wanted())
        .expect(201)
        .await
        .json();
    let path = format!("/source/{}", made["id"].as_str().unwrap());
    let stranger = key(&stage, &["inbound:write", "webhooks:read"], Some("other")).await;
    for (method, path) in [
        ("GET", path.clone()),
        ("PUT", path.clone()),
        ("PATCH", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/token/rotate")),
        ("POST", format!("{path}/secret/rotate")),
        ("GET", format!("{path}/receipts")),
        ("GET", format!("{path}/stats")),
    ] {
        let call = stage
            .gateway
            .call(method, &path)
            .key(&stranger)
            .json(&json!({}));
        assert_eq!(
            call.expect(404).await.problem().1,
            "not_found",
            "{method} {path}"
        );
    }
    let list = stage
        .gateway
        .get("/source")
        .key(&stranger)
        .expect(200)
        .await;
    assert_eq!(list.json()["data"], json!([]));
    let taken = stage
        .gateway
        .call("POST", "/source")
        .key(&stranger)
        .json(&wanted())
        .send()
        .await;
    assert_eq!(taken.mistakes()[0].0, "body.appId");
    let mut own = wanted();
    own.as_object_mut().unwrap().remove("app_id");
    let own = stage
        .gateway
        .call("POST", "/source")
        .key(&stranger)
        .json(&own)
        .expect(201)
        .await;
    assert_ne!(own.json()["appId"], made["appId"]);
    let mut shared = wanted();
    shared["app_id"] = json!("other");
    shared["shared"] = json!(true);
    stage
        .gateway
        .call("POST", "/source")
        .key(&stranger)
        .json(&shared)
        .expect(403)
        .await;

    let reader = key(&stage, &["read"], None).await;
    stage.gateway.get(&path).key(&reader).expect(200).await;
    stage
        .gateway
        .call("DELETE", &path)
        .key(&reader)
        .expect(403)
        .await;
}

#[tokio::test]
async fn lists_are_paged_and_the_sources_of_a_deleted_application_are_silent() {
    let stage = Stage::open().await;
    let mut paths = Vec::new();
    for n in 0..5 {
        let mut one = wanted();
        one["name"] = json!(format!("n{n}"));
        one["allowedIps"] = json!([]);
        let made = stage
            .gateway
            .call("POST", "/source")
            .json(&one)
            .expect(201)
            .await
            .json();
        paths.push(made["path"].as_str().unwrap().to_owned());
        stage
            .gateway
            .clock
            .advance(std::time::Duration::from_millis(1));
    }
    let mut seen = Vec::new();
    let mut next = String::from("/source?limit=2");
    loop {
        let page = stage.gateway.get(&next).expect(200).await.json();
        let data = page["data"].as_array().unwrap();
        seen.extend(
            data.iter()
                .map(|one| one["name"].as_str().unwrap().to_owned()),
        );
        if page["done"] == true {
            break;
        }
        next = format!(
            "/source?limit=2&iterator={}",
            page["iterator"].as_str().unwrap()
        );
    }
    assert_eq!(seen, ["n4", "n3", "n2", "n1", "n0"]);
    stage.gateway.call("DELETE", "/app/acme").expect(204).await;
    let answer = stage.send(&paths[0], "evt_1", "{}").await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        stage.gateway.get("/source").expect(200).await.json()["data"],
        json!([])
    );
}

#[tokio::test]
async fn the_vault_is_rotated_over_the_api_and_names_keys_by_their_ids_only() {
    let stage = Stage::open().await;
    stage.standard(json!({})).await;
    let state = stage.gateway.get("/admin/vault").expect(200).await;
    assert!(!state.text().contains(crate::kit::VAULT_KEY));
    let state = state.json();
    assert_eq!(
        (
            state["clear"].as_u64(),
            state["masterKeys"][0]["dataKeys"].as_u64()
        ),
        (Some(0), Some(1))
    );
    let done = stage
        .gateway
        .call("POST", "/admin/vault/rotate")
        .json(&json!({"dataKeys": true}));
    let done = done.expect(200).await.json();
    assert_eq!(done, json!({"wrapped": 0, "made": 1, "sealed": 1}));
    let bound = key(&stage, &["app:acme:*"], Some("acme")).await;
    stage
        .gateway
        .get("/admin/vault")
        .key(&bound)
        .expect(403)
        .await;
}
