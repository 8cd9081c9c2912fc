//! Accepting a message takes a short way past the router (`api::front`). A path with something to
//! decode takes the router to the same handler: both ways must answer alike.

use serde_json::{Value, json};

use super::kit::{Answer, Call, Gateway};

const SHORT: &str = "/app/acme/msg";
const ROUTED: &str = "/app/%61cme/msg";

/// What must be the same whichever way it came.
fn essence(answer: &Answer) -> (u16, Option<String>, Option<String>, Value) {
    let mut body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    if let Some(object) = body.as_object_mut() {
        for own in ["id", "timestamp", "instance"] {
            object.remove(own);
        }
    }
    let header = |name| answer.header(name).map(ToOwned::to_owned);
    (
        answer.status.as_u16(),
        header("content-type"),
        header("x-posthaste-warning"),
        body,
    )
}

async fn alike(gateway: &Gateway, status: u16, shape: impl Fn(Call<'_>) -> Call<'_>) {
    let short = shape(gateway.call("POST", SHORT)).send().await;
    let routed = shape(gateway.call("POST", ROUTED)).send().await;
    assert_eq!(short.status, status, "{}", short.text());
    assert_eq!(essence(&short), essence(&routed));
}

#[tokio::test]
async fn a_message_is_answered_alike_on_the_short_way_and_through_the_router() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "in").await;
    let message = json!({"eventType": "a.b", "payload": {"n": 1}});
    alike(&gateway, 202, |call| call.json(&message)).await;
    let stranger = gateway.make_key(&["message:read"], None).await;
    alike(&gateway, 403, |call| call.key(&stranger).json(&message)).await;
    alike(&gateway, 401, |call| call.anonymous().json(&message)).await;
    alike(&gateway, 400, |call| call.body("{")).await;
    alike(&gateway, 415, |call| call.kind("text/plain").body("{}")).await;
    alike(&gateway, 422, |call| call.json(&json!({"payload": {}}))).await;
    let large = vec![b' '; 2 << 20];
    alike(&gateway, 413, |call| call.body(large.clone())).await;
    let mut ids = Vec::new();
    for path in [SHORT, SHORT, "/app/acme/msg/"] {
        let call = gateway.call("POST", path).json(&message);
        let answer = call.header("idempotency-key", "one").expect(202).await;
        ids.push(answer.json()["id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn the_short_way_knows_no_application_that_the_router_does_not() {
    let gateway = Gateway::start().await;
    let message = json!({"eventType": "a.b", "payload": {}});
    for path in [
        "/app/nobody/msg",
        "/app/%6Eobody/msg",
        "/app/nobody/msg/",
        "/app/no body/msg",
    ] {
        let path = path.replace(' ', "%20");
        let answer = gateway.call("POST", &path).json(&message).send().await;
        assert_eq!(answer.problem(), (404, "not_found".to_owned()), "{path}");
    }
}
