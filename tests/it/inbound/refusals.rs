//! What is refused, with which status, and that it leaves nothing in the store.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::kit::{SECRET, Stage};
use crate::kit::say;

const BODY: &str = r#"{"type":"a.b","data":{}}"#;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_is_forged_or_malformed_is_401_and_stores_nothing() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({})).await;
    let good = stage.signed(SECRET, "evt_1", BODY);
    let with = |name: &str, value: Option<&str>| {
        let mut headers = good.clone();
        headers.retain(|(known, _)| known != name);
        headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        headers
    };
    let signature = &good
        .iter()
        .find(|(name, _)| name == "webhook-signature")
        .unwrap()
        .1;
    let mut doubled = good.clone();
    doubled.push((String::from("webhook-timestamp"), String::from("1")));
    let other = stage.signed(
        "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "evt_1",
        BODY,
    );
    let swapped = {
        let mut headers = with("webhook-id", Some("evt_2"));
        headers.rotate_left(1);
        headers
    };
    let before = stage.counts();
    for (what, headers, body) in [
        ("no signature", with("webhook-signature", None), BODY),
        (
            "an empty signature",
            with("webhook-signature", Some("")),
            BODY,
        ),
        (
            "only a version",
            with("webhook-signature", Some("v1,")),
            BODY,
        ),
        (
            "cut off",
            with("webhook-signature", Some(signature.get(..30).unwrap())),
            BODY,
        ),
        ("another secret", other, BODY),
        ("another id", swapped, BODY),
        ("no timestamp", with("webhook-timestamp", None), BODY),
        (
            "a timestamp that is none",
            with("webhook-timestamp", Some("soon")),
            BODY,
        ),
        ("two timestamps", doubled, BODY),
        ("another body", good.clone(), r#"{"type":"a.b","data":{} }"#),
    ] {
        let answer = stage
            .raw("POST", &source.path, &headers, body.as_bytes())
            .await;
        let reason = stage.receipts(&source).await[0]["reason"].clone();
        say(&format!("{what}: {} {reason}", answer.status));
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(stage.counts(), before, "{what}");
        assert!(answer.text().contains("not_verified"), "{}", answer.text());
        assert!(
            !answer
                .text()
                .contains(source.path.strip_prefix("/in/").unwrap()),
            "the token is not repeated"
        );
    }
    let stats = format!("/source/{}/stats", source.id);
    let stats = stage.gateway.get(&stats).expect(200).await.json();
    assert_eq!(
        (stats["refused"].as_u64(), stats["accepted"].as_u64()),
        (Some(10), Some(0))
    );
}

#[tokio::test]
async fn unknown_and_expired_tokens_are_404_and_old_ones_work_for_their_grace() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({})).await;
    let before = stage.counts();
    for path in [
        "/in/nothing",
        "/in/",
        "/webhooks/stripe/",
        "/webhooks/stripe",
        "/webhooks/x/y",
    ] {
        let answer = stage.send(path, "evt", BODY).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    // The provider in the path must be the source's.
    let token = source.path.strip_prefix("/in/").unwrap();
    let wrong = stage
        .send(&format!("/webhooks/stripe/{token}"), "evt", BODY)
        .await;
    assert_eq!((wrong.status, stage.counts()), (404, before));
    let named = format!("/webhooks/standard_webhooks/{token}");
    assert_eq!(stage.send(&named, "evt_0", BODY).await.status, 200);

    let rotate = format!("/source/{}/token/rotate", source.id);
    let rotated = stage.gateway.call("POST", &rotate);
    let rotated = rotated
        .json(&json!({"gracePeriodSeconds": 60}))
        .expect(200)
        .await
        .json();
    let new = rotated["path"].as_str().unwrap();
    assert_ne!(new, source.path);
    assert_eq!(stage.send(new, "evt_1", BODY).await.status, 200);
    assert_eq!(stage.send(&source.path, "evt_2", BODY).await.status, 200);
    stage.gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(stage.send(&source.path, "evt_3", BODY).await.status, 404);
    assert_eq!(stage.send(new, "evt_4", BODY).await.status, 200);
    // Without grace the old one ends at once.
    let rotated = stage.gateway.call("POST", &rotate);
    rotated
        .json(&json!({"gracePeriodSeconds": 0}))
        .expect(200)
        .await;
    assert_eq!(stage.send(new, "evt_5", BODY).await.status, 404);
    assert_eq!(stage.messages().await.len(), 4);
}

#[tokio::test]
async fn an_old_secret_verifies_along_until_its_grace_is_over() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({})).await;
    let new = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    let path = format!("/source/{}/secret/rotate", source.id);
    let body = json!({"name": "secret", "secret": new, "gracePeriodSeconds": 100});
    stage
        .gateway
        .call("POST", &path)
        .json(&body)
        .expect(204)
        .await;
    let send = async |secret: &str, id: &str| {
        let headers = stage.signed(secret, id, BODY);
        stage
            .raw("POST", &source.path, &headers, BODY.as_bytes())
            .await
            .status
    };
    assert_eq!((send(SECRET, "a").await, send(new, "b").await), (200, 200));
    stage.gateway.clock.advance(Duration::from_secs(100));
    assert_eq!((send(SECRET, "c").await, send(new, "d").await), (401, 200));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413_unread_and_one_at_the_limit_is_taken() {
    let stage =
        Stage::with(|config| config.inbound.max_body = posthaste::base::ByteSize::kib(1)).await;
    let source = stage.standard(json!({})).await;
    let sized = |size: usize| {
        let frame = r#"{"type":"a","x":""}"#.len();
        format!(r#"{{"type":"a","x":"{}"}}"#, "y".repeat(size - frame))
    };
    for size in [1023, 1024] {
        let answer = stage
            .send(&source.path, &format!("evt_{size}"), &sized(size))
            .await;
        assert_eq!(answer.status, 200, "{size}");
    }
    let before = stage.counts();
    assert_eq!(
        stage.send(&source.path, "evt", &sized(1025)).await.status,
        413
    );
    // Announced, and never sent: the answer does not wait for it.
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nconnection: close\r\n\r\n",
        source.path
    );
    assert_eq!(stage.exchange(head.as_bytes()).await.status, 413);
    // Not announced: cut off at the limit.
    let chunk = "x".repeat(2000);
    let chunked = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         7d0\r\n{chunk}\r\n0\r\n\r\n",
        source.path
    );
    assert_eq!(stage.exchange(chunked.as_bytes()).await.status, 413);
    assert_eq!(stage.counts(), before);
    assert_eq!(stage.receipts(&source).await[0]["reason"], "body_too_large");
}

#[tokio::test]
async fn more_than_the_sources_rate_is_429_with_retry_after() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({"ratePerSecond": 3})).await;
    let other = stage.standard(json!({"ratePerSecond": 3})).await;
    for n in 0..3 {
        assert_eq!(
            stage
                .send(&source.path, &format!("evt_{n}"), BODY)
                .await
                .status,
            200
        );
    }
    let before = stage.counts();
    let refused = stage.send(&source.path, "evt_3", BODY).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("1"))
    );
    assert_eq!(stage.counts(), before);
    assert_eq!(
        stage.send(&other.path, "evt_0", BODY).await.status,
        200,
        "another source"
    );
    stage.gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.send(&source.path, "evt_4", BODY).await.status, 200);
}

#[tokio::test]
async fn the_address_is_the_peers_unless_a_trusted_proxy_says_otherwise() {
    let forwarded = |stage: &Stage, id: &str, value: &str| {
        let mut headers = stage.signed(SECRET, id, BODY);
        headers.push((String::from("x-forwarded-for"), value.to_owned()));
        headers
    };
    let list = json!({"allowedIps": ["203.0.113.0/24", "2001:db8::7"]});
    // Nobody is trusted: the header is a stranger's word, the peer is loopback.
    let stage = Stage::open().await;
    let source = stage.standard(list.clone()).await;
    let local = stage.standard(json!({"allowedIps": ["127.0.0.1"]})).await;
    let before = stage.counts();
    let headers = forwarded(&stage, "a", "203.0.113.9");
    let answer = stage
        .raw("POST", &source.path, &headers, BODY.as_bytes())
        .await;
    assert_eq!((answer.status, stage.counts()), (403, before));
    assert!(answer.text().contains("ip_not_allowed"));
    assert_eq!(stage.receipts(&source).await[0]["ip"], "127.0.0.1");
    let answer = stage
        .raw("POST", &local.path, &headers, BODY.as_bytes())
        .await;
    assert_eq!(answer.status, 200);

    // The peer is a trusted proxy: its word counts, and only what it wrote last.
    let stage = Stage::with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let source = stage.standard(list).await;
    for (n, (value, wanted)) in [
        ("203.0.113.9", 200),
        ("2001:db8::7", 200),
        ("198.51.100.1, 203.0.113.9", 200),
        ("203.0.113.9, 198.51.100.1", 403),
        ("2001:db8::8", 403),
        ("203.0.113.9, 127.0.0.2", 200),
        ("nonsense", 403),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = forwarded(&stage, &format!("evt_{n}"), value);
        let answer = stage
            .raw("POST", &source.path, &headers, BODY.as_bytes())
            .await;
        assert_eq!(answer.status, wanted, "{value}");
    }
    let seen = stage.receipts(&source).await[1]["ip"]
        .as_str()
        .unwrap()
        .parse::<IpAddr>();
    assert_eq!(seen.unwrap().to_string(), "203.0.113.9");
}

#[tokio::test]
async fn a_source_answers_as_it_is_told_and_never_by_an_unknown_method() {
    let stage = Stage::open().await;
    let response = json!({"status": 202, "contentType": "text/xml", "body": "<Response/>"});
    let source = stage.standard(json!({"response": response})).await;
    let answer = stage.send(&source.path, "evt_1", BODY).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (202, "<Response/>")
    );
    assert_eq!(answer.header("content-type"), Some("text/xml"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let before = stage.counts();
    for method in ["DELETE", "PATCH", "OPTIONS"] {
        let answer = stage.raw(method, &source.path, &[], b"").await;
        assert_eq!(
            (answer.status, stage.counts()),
            (405, before.clone()),
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_source_that_is_switched_off_or_deleted_is_not_there() {
    let stage = Stage::open().await;
    let source = stage.standard(json!({})).await;
    let path = format!("/source/{}", source.id);
    stage
        .gateway
        .call("PATCH", &path)
        .json(&json!({"disabled": true}))
        .expect(200)
        .await;
    assert_eq!(stage.send(&source.path, "evt_1", BODY).await.status, 404);
    stage
        .gateway
        .call("PATCH", &path)
        .json(&json!({"disabled": false}))
        .expect(200)
        .await;
    assert_eq!(stage.send(&source.path, "evt_1", BODY).await.status, 200);
    stage.gateway.call("DELETE", &path).expect(204).await;
    assert_eq!(stage.send(&source.path, "evt_2", BODY).await.status, 404);
    stage.gateway.get(&path).expect(404).await;
}

#[tokio::test]
async fn a_shared_source_sends_each_account_to_its_application() {
    let stage = Stage::open().await;
    let other = json!({"name": "Other", "uid": "other"});
    stage
        .gateway
        .call("POST", "/app")
        .json(&other)
        .expect(201)
        .await;
    let fields = json!({
        "shared": true, "accounts": {"acct_other": "other"}, "secrets": {"endpoint_secret": "s3cret-of-stripe"},
    });
    let source = stage.source("stripe", fields).await;
    let twin = json!({
        "name": "twin", "provider": "stripe", "appId": "acme", "shared": true,
        "secrets": {"endpoint_secret": "x"},
    });
    let twin = stage
        .gateway
        .call("POST", "/source")
        .json(&twin)
        .expect(409)
        .await;
    assert_eq!(twin.json()["code"], "conflict");
    for (n, account) in ["acct_other", "acct_unknown"].into_iter().enumerate() {
        let body = json!({"id": format!("evt_{n}"), "type": "invoice.paid", "account": account})
            .to_string();
        let headers = stripe(&stage, "s3cret-of-stripe", &body);
        let answer = stage
            .raw("POST", "/webhooks/stripe/", &headers, body.as_bytes())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let of = async |app: &str| {
        let page = stage
            .gateway
            .get(&format!("/app/{app}/msg"))
            .expect(200)
            .await;
        let data = page.json()["data"].as_array().unwrap().clone();
        data.iter()
            .map(|one| one["eventId"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("other").await, ["stripe-evt_0"]);
    assert_eq!(of("acme").await, ["stripe-evt_1"]);
    assert_eq!(stage.receipts(&source).await.len(), 2);
    // The account's application is gone: its events are kept with the source's own.
    stage.gateway.call("DELETE", "/app/other").expect(204).await;
    let body = json!({"id": "evt_9", "type": "invoice.paid", "account": "acct_other"}).to_string();
    let headers = stripe(&stage, "s3cret-of-stripe", &body);
    let answer = stage
        .raw("POST", "/webhooks/stripe", &headers, body.as_bytes())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(of("acme").await, ["stripe-evt_9", "stripe-evt_1"]);
}

fn stripe(stage: &Stage, secret: &str, body: &str) -> Vec<(String, String)> {
    use hmac::{Hmac, KeyInit, Mac};
    use posthaste::base::Clock;
    let now = stage.gateway.clock.now().millis() / 1000;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{now}.{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        (
            String::from("content-type"),
            String::from("application/json"),
        ),
        (
            String::from("stripe-signature"),
            format!("t={now},v1={hex}"),
        ),
    ]
}

#[tokio::test]
async fn a_delivered_secret_is_taken_once_and_soon_or_never() {
    let stage = Stage::open().await;
    let hook = |secret: &str| vec![(String::from("x-hook-secret"), secret.to_owned())];
    let source = stage.source("asana", json!({})).await;
    let answer = stage
        .raw("POST", &source.path, &hook("delivered-0123456789"), b"")
        .await;
    assert_eq!(
        (answer.status, answer.header("x-hook-secret")),
        (200, Some("delivered-0123456789"))
    );
    let shown = stage
        .gateway
        .get(&format!("/source/{}", source.id))
        .expect(200)
        .await;
    assert!(!shown.text().contains("delivered-0123456789"));
    assert_eq!(shown.json()["secrets"], json!({"hook_secret": 1}));
    let before = stage.counts();
    let again = stage
        .raw("POST", &source.path, &hook("attacker-0123456789"), b"")
        .await;
    assert_eq!((again.status, stage.counts()), (401, before));
    let late = stage.source("asana", json!({})).await;
    stage.gateway.clock.advance(Duration::from_secs(3601));
    let before = stage.counts();
    let answer = stage
        .raw("POST", &late.path, &hook("delivered-0123456789"), b"")
        .await;
    assert_eq!((answer.status, stage.counts()), (401, before));
}

/// X and LinkedIn ask for a code over a text of their choice, made with the key that signs deliveries.
/// Whoever knows the URL can ask too; what comes back must sign no delivery.
#[tokio::test]
async fn a_signed_challenge_is_no_signature_of_a_delivery() {
    let stage = Stage::open().await;
    let form = "application/x-www-form-urlencoded";
    for (provider, secret, asked, body, reply, header) in [
        (
            "twitter",
            "consumer_secret",
            "crc_token=type=forged",
            "type=forged",
            "response_token",
            "x-twitter-webhooks-signature",
        ),
        (
            "linkedin",
            "client_secret",
            "challengeCode=hmacsha256=type=forged",
            "type=forged",
            "challengeResponse",
            "x-li-signature",
        ),
    ] {
        let secrets = json!({"secrets": {secret: "not known to the forger"}});
        let source = stage.source(provider, secrets).await;
        let before = stage.counts();
        let path = format!("{}?{asked}", source.path);
        let answer = stage.raw("GET", &path, &[], b"").await;
        assert_eq!(answer.status, 200, "{provider}: {}", answer.text());
        let signed: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let headers = [
            ("content-type", form),
            (header, signed[reply].as_str().unwrap()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let answer = stage
            .raw("POST", &source.path, &headers, body.as_bytes())
            .await;
        assert_eq!(answer.status, 401, "{provider}: {}", answer.text());
        assert_eq!(stage.receipts(&source).await[0]["reason"], "bad_signature");
        assert_eq!(stage.counts(), before, "{provider}");
    }
}
