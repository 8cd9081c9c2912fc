//! The portal, as a tenant's browser gets it: the page from the running gateway, driven with jsdom.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::process::Command;

use serde_json::{Value, json};

use crate::kit::{
    Answer, Gateway, Received, Receiver, SOON, dependency, endpoint, repository, say,
};

const APP: &str = "acme";

async fn link(gateway: &Gateway, body: Value) -> String {
    let path = format!("/api/v1/auth/app-portal-access/{APP}");
    let made = gateway.api().post(&path, &body).await.expect(200);
    let (url, token) = (
        made["url"].as_str().unwrap(),
        made["token"].as_str().unwrap(),
    );
    assert!(url.ends_with(&format!("/portal#key={token}")), "{url}");
    url.to_owned()
}

async fn post(gateway: &Gateway, path: &str, body: Value, status: u16) -> Value {
    let path = format!("/api/v1{path}");
    gateway.api().post(&path, &body).await.expect(status)
}

/// Fails what says so, and thanks for the rest as a page would.
fn answer(received: &Received) -> Answer {
    if received.field("fail") == true {
        Answer::status(500).body("no")
    } else {
        Answer::status(200).body("<b>thanks</b>")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_adds_lists_switches_off_and_sends_again_in_the_portal() {
    dependency(repository("tests/node/node_modules/jsdom"));
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::scripted(answer).await;
    let schema = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
    for name in ["order.paid", "order.sent"] {
        let body = json!({"name": name, "description": "x", "schemas": {"1": schema}});
        post(&gateway, "/event-type", body, 201).await;
    }
    let hostile = json!({
        "description": "<img src=x onerror=alert(1)>", "retrySchedule": [3600],
    });
    let first = endpoint(&gateway, APP, &receiver, "/first", hostile).await;
    // Sent as text: the digits are those that arrive.
    let paid = r#"{"eventType":"order.paid","payload":{"n":12345678901234567890.10,"s":"a\"}{","e":{},"l":[]}}"#;
    let path = format!("/api/v1/app/{APP}/msg");
    let sent = gateway
        .api()
        .send(http::Method::POST, &path, &[], paid.into());
    sent.await.unwrap().expect(202);
    let failing = json!({"eventType": "order.sent", "payload": {"fail": true}});
    post(&gateway, &format!("/app/{APP}/msg"), failing, 202).await;
    receiver.finished("/first", 2, SOON).await;

    let full = link(&gateway, json!({})).await;
    let world = json!({
        "full": full,
        "reading": link(&gateway, json!({"capabilities": ["ViewBase"]})).await,
        "ended": ended(&gateway).await,
        "first": {"id": first.id, "url": receiver.url("/first")},
        "second": receiver.url("/second"),
        "third": receiver.url("/third"),
        "shown": "{\n  \"n\": 12345678901234567890.10,\n  \"s\": \"a\\\"}{\",\n  \"e\": {},\n  \"l\": []\n}",
    });
    let mut tour = Command::new("node");
    tour.arg(repository("tests/node/portal_tour.mjs"))
        .arg(format!("http://{}", gateway.address))
        .arg(world.to_string());
    let done = tokio::task::spawn_blocking(move || tour.output()).await;
    let output = done.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    let last = told.trim_end().lines().last().unwrap();
    assert_eq!(last, "done 18", "{told}");
    say(&format!("the portal: {last}"));

    // What the page said was done was done.
    let list = gateway.list(&format!("/api/v1/app/{APP}/endpoint")).await;
    let mut seen: Vec<(String, bool, &str)> = list
        .iter()
        .map(|one| {
            let url = one["url"].as_str().unwrap().to_owned();
            (
                url,
                one["disabled"] == true,
                one["description"].as_str().unwrap(),
            )
        })
        .collect();
    seen.sort();
    let expected = [
        (
            receiver.url("/first"),
            false,
            "<img src=x onerror=alert(1)>",
        ),
        (receiver.url("/second"), true, "the second one"),
    ];
    assert_eq!(seen, expected);
    assert_eq!(receiver.finished("/first", 5, SOON).await.len(), 5);
    let log = gateway.log();
    assert!(!log.contains("pt_"), "a token stands in the log: {log}");
}

/// A link whose session was ended.
async fn ended(gateway: &Gateway) -> String {
    let ended = link(gateway, json!({"sessionId": "gone"})).await;
    let path = format!("/auth/app/{APP}/expire-all");
    post(
        gateway,
        &path,
        json!({"sessionIds": ["gone"], "expiry": 0}),
        204,
    )
    .await;
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_served_without_a_credential_and_refuses_other_methods_like_the_api() {
    let gateway = Gateway::start(&[]).await;
    let bare = crate::kit::Client::new(gateway.address, None);
    let page = bare.get("/portal").await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert_eq!(policy, posthaste::dashboard::POLICY);
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    for (path, kind) in [
        ("/portal/portal.js", "text/javascript; charset=utf-8"),
        ("/portal/portal.css", "text/css; charset=utf-8"),
    ] {
        let file = bare.get(path).await;
        assert_eq!(
            (file.status.as_u16(), file.header("content-type")),
            (200, Some(kind))
        );
        assert_eq!(file.header("content-security-policy"), Some(policy));
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    }
    let refused = bare.post("/portal", &json!({})).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (405, &json!("method_not_allowed"))
    );
    let missing = bare.get("/portal/other.js").await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["code"]),
        (404, &json!("not_found"))
    );
}
