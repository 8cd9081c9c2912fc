//! Every row of the error table has a request that produces it, as JSON.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use posthaste::base::{Clock, Timestamp};
use posthaste::schedule::Status;
use serde_json::json;

use super::kit::{Answer, Gateway};

fn is_problem(answer: &Answer, status: u16, code: &str, path: &str) {
    assert_eq!(answer.problem(), (status, code.to_owned()), "{path}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{path}"
    );
    let body = answer.json();
    let kind = format!("/problems/{}", code.replace(' ', "_"));
    assert_eq!(body["type"], kind);
    assert_eq!(body["status"], status);
    assert_eq!(body["instance"], path);
    assert!(!body["detail"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_answer_json() {
    let gateway = Gateway::start().await;
    for path in ["/nothing", "//nothing", "//"] {
        let answer = gateway.get(path).send().await;
        assert_eq!(answer.status, 404);
        let body = answer.json();
        assert_eq!(body["code"], "not_found");
    }
    let answer = gateway.call("POST", "/app/x").send().await;
    is_problem(&answer, 405, "method_not_allowed", "/api/v1/app/x");
    let answer = gateway.get("/diagnosis").send().await;
    is_problem(&answer, 501, "not_implemented", "/api/v1/diagnosis");
    let answer = gateway.call("POST", "/config").send().await;
    assert_eq!(answer.problem().0, 501);
}

#[tokio::test]
async fn bodies_that_cannot_be_read_have_their_own_codes() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    for path in ["/app", "/app/acme/msg"] {
        let answer = gateway.call("POST", path).body("{\"name\":").send().await;
        is_problem(&answer, 400, "bad_json", &format!("/api/v1{path}"));
        let answer = gateway
            .call("POST", path)
            .kind("text/plain")
            .body("{}")
            .send()
            .await;
        is_problem(
            &answer,
            415,
            "unsupported_media_type",
            &format!("/api/v1{path}"),
        );
        let answer = gateway.call("POST", path).body("[]").send().await;
        assert_eq!(
            answer.mistakes(),
            [("body".to_owned(), "type_error".to_owned())]
        );
        let charset = gateway
            .call("POST", path)
            .kind("application/json; charset=utf-8");
        assert_eq!(charset.body("{}").send().await.status, 422);
    }
}

#[tokio::test]
async fn queries_are_checked() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    for (query, name, kind) in [
        ("limit=0", "limit", "limit"),
        ("limit=251", "limit", "limit"),
        ("iterator=nonsense", "iterator", "value_error"),
        ("before=yesterday", "before", "value_error"),
        ("with_content=maybe", "with_content", "type_error"),
        ("order=sideways", "order", "value_error"),
    ] {
        let answer = gateway.get(&format!("/app/acme/msg?{query}")).send().await;
        assert_eq!(
            answer.mistakes(),
            [(format!("query.{name}"), kind.to_owned())],
            "{query}"
        );
    }
    gateway
        .get("/app/acme/msg?limit=250&unknown=1")
        .expect(200)
        .await;
}

#[tokio::test]
async fn a_uid_in_the_form_of_an_id_is_refused() {
    let gateway = Gateway::start().await;
    let uid = format!("app_{}", "1".repeat(27));
    let answer = gateway
        .post("/app", &json!({"name": "x", "uid": uid}))
        .send()
        .await;
    assert_eq!(
        answer.mistakes(),
        [("body.uid".to_owned(), "value_error".to_owned())]
    );
}

#[tokio::test]
async fn problem_pages_say_what_to_do() {
    let gateway = Gateway::start().await;
    let page = gateway
        .get("//problems/insufficient_access")
        .anonymous()
        .expect(200)
        .await;
    assert!(page.text().contains("Status 403"));
    let none = gateway.get("//problems/nonsense").anonymous().send().await;
    is_problem(&none, 404, "not_found", "/problems/nonsense");
}

#[tokio::test]
async fn health_is_open_and_the_sdks_get_their_204() {
    let gateway = Gateway::start().await;
    for path in ["//health", "//healthz"] {
        let answer = gateway.get(path).anonymous().expect(200).await;
        assert_eq!(answer.json(), json!({"status": "ok"}));
    }
    let answer = gateway.get("/health").anonymous().expect(204).await;
    assert!(answer.bytes.is_empty());
    gateway.get("//metrics").anonymous().expect(401).await;
    let metrics = gateway.get("//metrics").expect(200).await;
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
}

#[tokio::test]
async fn readiness_falls_when_due_deliveries_stand_still() {
    let gateway = Gateway::start().await;
    let now = gateway.clock.now();
    let good = Status {
        recovered: true,
        last_turn: now,
        ..Status::default()
    };
    let ago = |secs: u64| now.minus(Duration::from_secs(secs));
    for (status, reason) in [
        (good, None),
        (
            Status {
                recovered: false,
                ..good
            },
            Some("last run"),
        ),
        (
            Status {
                last_turn: ago(9),
                ..good
            },
            Some("scheduler"),
        ),
        (
            Status {
                last_turn: ago(8),
                ..good
            },
            None,
        ),
        (
            Status {
                oldest_runnable: Some(ago(61)),
                last_progress: ago(61),
                ..good
            },
            Some("do not move"),
        ),
        (
            Status {
                oldest_runnable: Some(ago(61)),
                last_progress: ago(1),
                ..good
            },
            None,
        ),
        (
            Status {
                oldest_runnable: Some(ago(60)),
                last_progress: Timestamp::ZERO,
                ..good
            },
            None,
        ),
    ] {
        gateway.status.send_replace(status);
        let answer = gateway.get("//ready").anonymous().send().await;
        match reason {
            None => assert_eq!(answer.json(), json!({"status": "ready"}), "{status:?}"),
            Some(reason) => {
                assert_eq!(answer.status, 503);
                let reasons = answer.json()["reasons"].to_string();
                assert!(reasons.contains(reason), "{reasons}");
            }
        }
    }
}
