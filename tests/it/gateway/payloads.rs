//! What is sent is what is delivered, byte for byte (T14).
//!
//! The API takes JSON objects, so "arbitrary bytes" means every way to spell one: the oracle is the
//! text that was generated, never a parser.

use bytes::Bytes;
use http::Method;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::kit::{Gateway, Receiver, SOON, endpoint, message, say, seed};

/// White space between tokens, as odd as it may be.
fn blank() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A number, spelled in ways that a parser would not give back.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::from("-0")),
        Just(String::from("-0.0e-0")),
        Just(String::from("1e400")),
        Just(String::from("1E+2")),
        Just(String::from("1.00000000000000000000000000001")),
        Just(String::from("100000000000000000000000000000000000001")),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
    ]
}

/// A string with its quotes.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[^\"\\\\\\x00-\\x1f]{0,8}",
        "\\\\u[0-9a-fA-F]{4}", // lone surrogates among them
        "\\\\[\"\\\\/bfnrt]",
        Just(String::from("\u{feff}")), // a byte order mark
        Just(String::from("\\ud800")),
        Just(String::from("\u{2028}\u{7f}\u{10ffff}")),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        number(),
        text(),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(String::from),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        let list = prop::collection::vec((blank(), inner.clone(), blank()), 0..4);
        let list = list.prop_map(|items| {
            let items: Vec<_> = items.into_iter().map(|(a, v, b)| a + &v + &b).collect();
            format!("[{}]", items.join(","))
        });
        prop_oneof![list, object(inner)]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    // Few names, so that some come twice.
    let name = prop_oneof![
        prop::sample::select(vec!["\"a\"", "\"\"", "\"\\u0061\""]).prop_map(String::from),
        text()
    ];
    let field = (blank(), name, blank(), blank(), value, blank());
    prop::collection::vec(field, 0..5).prop_map(|fields| {
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_spelling_of_a_payload_arrives_byte_for_byte() {
    const CASES: usize = 400;
    let seed = seed("POSTHASTE_SEED");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let payloads = object(value());
    let mut sent: Vec<String> = (0..CASES)
        .map(|_| payloads.new_tree(&mut runner).unwrap().current())
        .collect();
    let pad = "x".repeat((1 << 20) - "{\"a\":\"\"}".len());
    sent.push(format!("{{\"a\":\"{pad}\"}}")); // exactly 1 MiB
    sent.push(String::from("{}"));

    let gateway = Gateway::start(&[("ingest.max_body", "1MiB")]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let mut bodies = std::collections::HashMap::new();
    for (n, payload) in sent.iter().enumerate() {
        let body = format!("{{\"eventType\":\"a.b\",\"payload\": {payload}\n}}");
        let reply =
            gateway
                .api()
                .send(Method::POST, "/api/v1/app/acme/msg", &[], Bytes::from(body));
        let reply = reply.await.unwrap();
        assert_eq!(reply.status, 202, "case {n}: {payload}: {}", reply.text());
        // The answer shows the payload as well: the id is all that is needed of it.
        let shown = reply.text();
        let id = shown.split('"').nth(3).unwrap().to_owned();
        assert!(id.starts_with("msg_"), "{shown}");
        bodies.insert(id, payload);
    }
    let received = receiver.delivered("/hook", sent.len(), SOON).await;
    assert_eq!(received.len(), sent.len());
    for one in &received {
        let payload = bodies.remove(&one.id).unwrap();
        assert!(
            one.body == payload.as_bytes(),
            "{} is not {payload}",
            one.id
        );
        assert_eq!(one.header("content-type"), "application/json");
        let length = payload.len().to_string();
        assert_eq!(one.header("content-length"), length);
    }
    assert!(bodies.is_empty());
    say(&format!("{} payloads", received.len()));
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_never_delivered_changed() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    for payload in [
        b"{\"a\":\"\xff\"}".as_slice(),
        b"{\"a\":\"\xed\xa0\x80\"}", // a surrogate in UTF-8
        b"{\"a\":\"\x00\"}",
        b"{\"a\":\"\n\"}",
        b"{\"a\":01}",
        b"{\"a\":NaN}",
        b"{\"a\":1,}",
        b"{a:1}",
        b"{\"a\":\"\\x41\"}",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"{\"a\":1}//",
    ] {
        let body = [b"{\"eventType\":\"a\",\"payload\":", payload, b"}"].concat();
        let path = "/api/v1/app/acme/msg";
        let reply = gateway.api().send(Method::POST, path, &[], body.into());
        let reply = reply.await.unwrap();
        let what = String::from_utf8_lossy(payload);
        assert_eq!(reply.status, 400, "{what}: {}", reply.text());
        assert_eq!(reply.json()["code"], "bad_json", "{what}");
    }
    crate::kit::send(&gateway, "acme", 7).await;
    receiver.delivered("/hook", 1, SOON).await;
    assert_eq!(receiver.count(), 1);
}

/// What arrives with this setting, once as it is and once in the envelope that the seeds want.
#[expect(clippy::unwrap_used, reason = "a failure is a failed test too")]
async fn arrives_with(exclude_pii: Value) -> (Value, Value) {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let schema = json!({"properties": {
        "name": {"type": "string", "x-pii": true},
        "people": {"items": {"properties": {"phone": {"x-pii": true}}}},
    }});
    let kind = json!({"name": "test.event", "description": "", "schemas": {"1": schema}});
    gateway
        .api()
        .post("/api/v1/event-type", &kind)
        .await
        .expect(201);
    let fields = json!({"excludePii": exclude_pii});
    let plain = endpoint(&gateway, "acme", &receiver, "/raw", fields.clone()).await;
    assert_eq!(plain.get(&gateway).await["excludePii"], exclude_pii);
    let mut wrapped = fields;
    wrapped["envelope"] = json!("id-type");
    endpoint(&gateway, "acme", &receiver, "/wrapped", wrapped).await;
    let payload = json!({
        "name": "Ada", "n": 1, "people": [{"phone": "1", "k": 2}], "ssn": "0",
    });
    let path = "/api/v1/app/acme/msg";
    gateway
        .api()
        .post(path, &message(payload))
        .await
        .expect(202);
    let raw = receiver.delivered("/raw", 1, SOON).await.remove(0);
    let wrapped = receiver.delivered("/wrapped", 1, SOON).await.remove(0);
    // Signed is what is sent.
    let secret = gateway.api().get(&format!("{}/secret", plain.path())).await;
    let secret = secret.expect(200)["key"].as_str().unwrap().to_owned();
    assert!(crate::rest_hooks::is_genuine(&secret, &raw));
    (
        serde_json::from_slice(&raw.body).unwrap(),
        wrapped.field("data"),
    )
}

#[tokio::test]
async fn what_a_subscription_excludes_is_gone_before_the_payload_is_signed() {
    for (wanted, left) in [
        (
            json!(["/ssn", "/people/*/k"]),
            json!({"name": "Ada", "n": 1, "people": [{"phone": "1"}]}),
        ),
        (
            json!(true),
            json!({"n": 1, "people": [{"k": 2}], "ssn": "0"}),
        ),
    ] {
        let (raw, data) = arrives_with(wanted).await;
        assert_eq!((&raw, &data), (&left, &left));
    }
}
