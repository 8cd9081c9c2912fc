//! REST hooks: one generic route (`/api/webhooks`), driven as each of the four automation platforms drives
//! it: subscribe, handshake, deliver, verify, pause, 404, poll, 410, unsubscribe (R-184).
//!
//! What differs between the platforms stands in [`Platform`]: whether they look before they subscribe, how
//! they return the token of a handshake, what they answer, how they verify.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::kit::{Answer, Client, Gateway, Received, Receiver, SOON, eventually};

const EVENT: &str = "lead.captured";

/// How a platform returns the token of a handshake.
#[derive(Clone, Copy, PartialEq)]
enum Returns {
    /// It is asked for none.
    Nothing,
    /// `X-Hook-Secret` of the answer (its trigger declares a handshake by that header).
    Header,
    /// `challenge` of a JSON answer (its webhook module answers a verification so).
    Body,
}

/// What a platform verifies.
#[derive(Clone, Copy, PartialEq)]
enum Verifies {
    /// `X-Webhook-Signature: sha256=<hex>` over the raw body (R-30, R-33).
    Hex,
    /// The Standard Webhooks headers.
    Standard,
}

#[derive(Clone, Copy)]
struct Platform {
    name: &'static str,
    /// It lists the webhooks and looks for its URL before it subscribes.
    looks_first: bool,
    returns: Returns,
    /// What its hook answers to a delivery.
    answers: &'static str,
    verifies: Verifies,
    /// It asks for the fields it does not want to see.
    excludes: bool,
}

const ZAPIER: Platform = Platform {
    name: "Zapier",
    looks_first: false,
    returns: Returns::Nothing,
    answers: r#"{"status":"success","attempt":"1","id":"1","request_id":"1"}"#,
    verifies: Verifies::Hex,
    excludes: false,
};
const MAKE: Platform = Platform {
    name: "Make",
    looks_first: false,
    returns: Returns::Body,
    answers: "Accepted",
    verifies: Verifies::Hex,
    excludes: true,
};
const N8N: Platform = Platform {
    name: "n8n",
    looks_first: true,
    returns: Returns::Nothing,
    answers: r#"{"message":"Workflow was started"}"#,
    verifies: Verifies::Standard,
    excludes: false,
};
const ACTIVEPIECES: Platform = Platform {
    name: "ActivePieces",
    looks_first: false,
    returns: Returns::Header,
    answers: "{}",
    verifies: Verifies::Hex,
    excludes: false,
};

/// A platform with a hook of its own and the key of its tenant.
struct Flow {
    platform: Platform,
    gateway: Gateway,
    api: Client,
    app: String,
    hook: Receiver,
    /// What the hook answers to deliveries.
    status: Arc<AtomicU16>,
    id: String,
    secret: String,
}

fn answer(platform: Platform, status: u16, received: &Received) -> Answer {
    let token = received.headers.get("x-hook-secret");
    let Some(token) = token.map(|value| value.to_str().unwrap()) else {
        return Answer::status(status).body(platform.answers);
    };
    assert_eq!(
        received.field("challenge"),
        token,
        "the token stands in both"
    );
    match platform.returns {
        Returns::Nothing => Answer::status(200).body(platform.answers),
        Returns::Header => Answer::status(200).header("x-hook-secret", token),
        Returns::Body => Answer::status(200).body(&json!({ "challenge": token }).to_string()),
    }
}

/// A tenant with a key that is bound to it.
async fn tenant(gateway: &Gateway) -> Client {
    let app = json!({"name": "Acme", "uid": "acme"});
    gateway.api().post("/api/v1/app", &app).await.expect(201);
    let key = json!({"name": "connector", "scopes": ["app:acme:*"]});
    let made = gateway
        .api()
        .post("/api/v1/api-keys", &key)
        .await
        .expect(201);
    Client::new(gateway.address, made["apiKey"]["key"].as_str())
}

impl Flow {
    /// Enables the trigger.
    async fn subscribe(platform: Platform) -> Self {
        let gateway = Gateway::start(&[]).await;
        let api = tenant(&gateway).await;
        let status = Arc::new(AtomicU16::new(200));
        let told = Arc::clone(&status);
        let script =
            move |received: &Received| answer(platform, told.load(Ordering::SeqCst), received);
        let hook = Receiver::scripted(script).await;
        // The connection test of a platform: who am I?
        let who = api.get("/api/v1/auth/whoami").await.expect(200);
        let app = who["appId"].as_str().unwrap().to_owned();
        // What the editor shows while a flow is built, before anything has happened.
        let path = format!("/api/v1/event-type/{EVENT}/sample");
        let samples = api.get(&path).await.expect(200);
        assert!(samples["data"][0]["payload"]["email"].is_string());

        let url = hook.url("/catch");
        if platform.looks_first {
            let listed = api.get("/api/webhooks").await.expect(200);
            let known = listed["webhooks"].as_array().unwrap().iter();
            assert!(!known.into_iter().any(|one| one["url"] == *url));
        }
        let mut wanted = json!({
            "url": url, "events": [EVENT], "description": platform.name,
        });
        if platform.returns != Returns::Nothing {
            wanted["handshake"] = json!(true);
        }
        if platform.excludes {
            wanted["excludePii"] = json!(["/phone", "/name"]);
        }
        let made = api.post("/api/webhooks", &wanted).await.expect(201);
        let (id, secret) = (&made["webhook"]["id"], &made["webhook"]["secret"]);
        let asked = usize::from(platform.returns != Returns::Nothing);
        assert_eq!(hook.count(), asked, "{}: handshakes", platform.name);
        // A platform that lost its answer subscribes again and must not get everything twice.
        let again = api.post("/api/webhooks", &wanted).await.expect(200);
        assert_eq!(
            (&again["webhook"]["id"], &again["webhook"]["secret"]),
            (id, secret)
        );
        let (id, secret) = (
            id.as_str().unwrap().to_owned(),
            secret.as_str().unwrap().to_owned(),
        );
        Self {
            platform,
            gateway,
            api,
            app,
            hook,
            status,
            id,
            secret,
        }
    }

    fn path(&self) -> String {
        format!("/api/webhooks/{}", self.id)
    }

    /// The product publishes an event.
    async fn publish(&self, n: usize) -> String {
        let payload = json!({
            "leadId": format!("lead-{n}"), "name": "Ada", "phone": "1", "email": "a@b.example",
        });
        let message = json!({"eventType": EVENT, "payload": payload});
        let path = format!("/api/v1/app/{}/msg", self.app);
        let made = self.gateway.api().post(&path, &message).await.expect(202);
        made["id"].as_str().unwrap().to_owned()
    }

    async fn webhook(&self) -> Value {
        self.api.get(&self.path()).await.expect(200)["webhook"].clone()
    }

    async fn set_active(&self, is_active: bool) {
        let body = json!({ "isActive": is_active }).to_string().into();
        let path = self.path();
        let changed = self.api.send(http::Method::PUT, &path, &[], body);
        changed.await.unwrap().expect(200);
    }

    /// Whatever came to the hook under this id.
    fn arrived(&self, id: &str) -> Vec<Received> {
        let mut all = self.hook.at("/catch");
        all.retain(|one| one.id == id && one.end.is_some());
        all
    }

    async fn arrives(&self, id: &str) -> Received {
        let what = format!("{id} at {}", self.platform.name);
        let mut found = eventually(&what, SOON, async || {
            let arrived = self.arrived(id);
            (!arrived.is_empty()).then_some(arrived)
        })
        .await;
        found.remove(0)
    }

    /// The state of an event as the webhook's list shows it.
    async fn is(&self, id: &str, status: &str) -> Value {
        let what = format!("{id} is {status}");
        eventually(&what, SOON, async || {
            let path = format!("{}/events", self.path());
            let listed = self.api.get(&path).await.expect(200);
            let events = listed["events"].as_array().unwrap().clone();
            events
                .into_iter()
                .find(|one| one["id"] == *id && one["status"] == *status)
        })
        .await
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the platform's own code takes the delivery for genuine.
fn verifies(how: Verifies, secret: &str, received: &Received, body: &[u8]) -> bool {
    match how {
        Verifies::Hex => {
            let want = format!("sha256={}", hex(&hmac(secret.as_bytes(), &[body])));
            received.header("x-webhook-signature") == want
        }
        Verifies::Standard => {
            let base64 = base64::engine::general_purpose::STANDARD;
            let key = base64
                .decode(secret.strip_prefix("whsec_").unwrap())
                .unwrap();
            let (id, at) = (
                received.header("webhook-id"),
                received.header("webhook-timestamp"),
            );
            let signed = hmac(&key, &[id.as_bytes(), b".", at.as_bytes(), b".", body]);
            let want = format!("v1,{}", base64.encode(signed));
            let mut all = received.header("webhook-signature").split(' ');
            all.any(|one| one == want)
        }
    }
}

/// Whether the Standard Webhooks headers hold for what was received.
pub(crate) fn is_genuine(secret: &str, received: &Received) -> bool {
    verifies(Verifies::Standard, secret, received, &received.body)
}

/// The whole life of a trigger.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
async fn drive(platform: Platform) {
    let flow = Flow::subscribe(platform).await;

    // Deliver and verify: what is genuine passes, one byte more does not.
    let first = flow.publish(1).await;
    let got = flow.arrives(&first).await;
    assert!(verifies(platform.verifies, &flow.secret, &got, &got.body));
    let forged = [&got.body[..], b" "].concat();
    assert!(!verifies(platform.verifies, &flow.secret, &got, &forged));
    assert_eq!(got.header("x-webhook-event-type"), EVENT);
    assert_eq!(
        (got.field("id"), got.field("type")),
        (json!(first), json!(EVENT))
    );
    let data = got.field("data");
    assert_eq!(data["leadId"], "lead-1");
    assert_eq!(data.get("name").is_none(), platform.excludes);
    assert_eq!(data["email"], "a@b.example");
    flow.is(&first, "delivered").await;

    // Pause: nothing comes, nothing is lost.
    flow.set_active(false).await;
    let held = flow.publish(2).await;
    flow.is(&held, "pending").await;
    assert!(flow.arrived(&held).is_empty());
    flow.set_active(true).await;
    flow.arrives(&held).await;

    // 404 is an ordinary failure: the platform is redeploying, the subscription stays.
    flow.status.store(404, Ordering::SeqCst);
    let lost = flow.publish(3).await;
    let row = flow.is(&lost, "failed").await;
    assert_eq!(row["response_status"], 404);
    assert!(row["next_retry_at"].is_string(), "{row}");
    flow.status.store(200, Ordering::SeqCst);
    assert_eq!(flow.webhook().await["is_active"], true);
    let after = flow.publish(4).await;
    flow.arrives(&after).await;

    // Polling with a cursor sees every event once, the failed one included.
    let mut seen = Vec::new();
    let mut iterator = String::new();
    loop {
        let path = format!(
            "/api/v1/app/{}/events/subscription/{}?limit=2&iterator={iterator}",
            flow.app, flow.id
        );
        let page = flow.api.get(&path).await.expect(200);
        let data = page["data"].as_array().unwrap();
        seen.extend(
            data.iter()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        page["iterator"].as_str().unwrap().clone_into(&mut iterator);
        if page["done"] == true {
            break;
        }
    }
    assert_eq!(seen, [first, held, lost, after]);

    // 410: the flow was deleted over there. From then on nothing is sent.
    flow.status.store(410, Ordering::SeqCst);
    let gone = flow.publish(5).await;
    flow.arrives(&gone).await;
    eventually("410 unsubscribes", SOON, async || {
        (flow.webhook().await["is_active"] == false).then_some(())
    })
    .await;
    let unheard = flow.publish(6).await;
    flow.is(&unheard, "pending").await;
    assert!(flow.arrived(&unheard).is_empty());

    // Unsubscribe; a second time there is nothing, which a platform takes for done.
    let path = flow.path();
    let delete = async || {
        let sent = flow.api.send(http::Method::DELETE, &path, &[], "".into());
        sent.await.unwrap()
    };
    assert_eq!(delete().await.expect(200)["success"], true);
    let twice = delete().await.expect(404);
    assert_eq!(
        (&twice["success"], &twice["code"]),
        (&json!(false), &json!("not_found"))
    );
    let listed = flow.api.get("/api/webhooks").await.expect(200);
    assert_eq!(listed["count"], 0);
}

#[tokio::test]
async fn zapier_drives_a_subscription_from_its_start_to_its_end() {
    drive(ZAPIER).await;
}

#[tokio::test]
async fn make_drives_a_subscription_from_its_start_to_its_end() {
    drive(MAKE).await;
}

#[tokio::test]
async fn n8n_drives_a_subscription_from_its_start_to_its_end() {
    drive(N8N).await;
}

#[tokio::test]
async fn activepieces_drives_a_subscription_from_its_start_to_its_end() {
    drive(ACTIVEPIECES).await;
}

#[tokio::test]
async fn who_does_not_return_the_token_of_a_handshake_is_not_subscribed() {
    let gateway = Gateway::start(&[]).await;
    let api = tenant(&gateway).await;
    for (status, body, why) in [
        (200, "{}", "does not send the token back"),
        (
            200,
            r#"{"challenge":"another"}"#,
            "does not send the token back",
        ),
        (500, "", "the answer was 500"),
    ] {
        let hook = Receiver::scripted(move |_| Answer::status(status).body(body)).await;
        let wanted = json!({"url": hook.url("/"), "events": ["a"], "handshake": true});
        let refused = api.post("/api/webhooks", &wanted).await.expect(422);
        let item = &refused["detail"][0];
        assert_eq!(item["loc"], json!(["body", "url"]));
        assert!(item["msg"].as_str().unwrap().contains(why), "{item}");
        assert_eq!(hook.count(), 1, "asked once");
    }
    // Nobody is asked at an address that is never called.
    let inside = json!({"url": "http://169.254.169.254/", "events": ["a"], "handshake": true});
    api.post("/api/webhooks", &inside).await.expect(422);
    let listed = api.get("/api/webhooks").await.expect(200);
    assert_eq!(listed["count"], 0);
}
