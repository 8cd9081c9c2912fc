//! The few API calls almost every test begins with.

use serde_json::{Value, json};

use super::{Gateway, Receiver};

/// An endpoint that was created.
#[derive(Debug, Clone)]
pub(crate) struct EndpointRef {
    pub(crate) app: String,
    pub(crate) id: String,
}

impl EndpointRef {
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/app/{}/endpoint/{}", self.app, self.id)
    }

    /// The endpoint as the API shows it now.
    pub(crate) async fn get(&self, gateway: &Gateway) -> Value {
        gateway.api().get(&self.path()).await.expect(200)
    }
}

/// Creates the application `app` (if it is not there) and an endpoint at `path` of `receiver` with
/// `fields` on top of the URL.
pub(crate) async fn endpoint(
    gateway: &Gateway,
    app: &str,
    receiver: &Receiver,
    path: &str,
    fields: Value,
) -> EndpointRef {
    let created = gateway
        .api()
        .post(
            "/api/v1/app?get_if_exists=true",
            &json!({"name": app, "uid": app}),
        )
        .await;
    assert!(created.status.is_success(), "{}", created.text());
    let mut body = fields;
    body["url"] = json!(receiver.url(path));
    let made = gateway
        .api()
        .post(&format!("/api/v1/app/{app}/endpoint"), &body)
        .await
        .expect(201);
    EndpointRef {
        app: app.to_owned(),
        id: made["id"].as_str().unwrap().to_owned(),
    }
}

/// A `MessageIn` of type `test.event`.
pub(crate) fn message(payload: Value) -> Value {
    json!({"eventType": "test.event", "payload": payload})
}

/// Sends `{"n": n}` to `app`; answers the message's id.
pub(crate) async fn send(gateway: &Gateway, app: &str, n: usize) -> String {
    let made = gateway
        .api()
        .post(&format!("/api/v1/app/{app}/msg"), &message(json!({"n": n})))
        .await
        .expect(202);
    made["id"].as_str().unwrap().to_owned()
}
