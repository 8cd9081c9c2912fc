//! Every limit of every field at n - 1, n and n + 1 (T50), and custom headers nobody may set (T27).

use std::collections::BTreeMap;

use posthaste::base::ByteSize;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Value, json};

use super::kit::Gateway;

/// One limit: what a request with `n` of it looks like, and how n + 1 is refused.
struct Limit {
    what: &'static str,
    path: &'static str,
    n: usize,
    status: u16,
    loc: &'static str,
    kind: &'static str,
    body: fn(usize) -> Value,
}

fn endpoint(field: &str, value: Value) -> Value {
    let mut body = json!({"url": "https://a.example/"});
    body[field] = value;
    body
}

fn message(field: &str, value: Value) -> Value {
    let mut body = json!({"eventType": "a", "payload": {}});
    body[field] = value;
    body
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("n{n}")).collect()
}

fn headers(n: usize) -> BTreeMap<String, &'static str> {
    (0..n).map(|n| (format!("x-{n}"), "v")).collect()
}

const fn limit(
    (what, path, n): (&'static str, &'static str, usize),
    (status, loc, kind): (u16, &'static str, &'static str),
    body: fn(usize) -> Value,
) -> Limit {
    Limit {
        what,
        path,
        n,
        status,
        loc,
        kind,
        body,
    }
}

const ENDPOINT: &str = "/app/acme/endpoint";
const MESSAGE: &str = "/app/acme/msg";

const LIMITS: &[Limit] = &[
    limit(
        ("description", ENDPOINT, 4096),
        (201, "body.description", "limit"),
        |n| endpoint("description", json!("é".repeat(n))),
    ),
    limit(("uid", ENDPOINT, 256), (201, "body.uid", "limit"), |n| {
        endpoint("uid", json!("u".repeat(n)))
    }),
    limit(
        ("event types", ENDPOINT, 500),
        (201, "body.eventTypes", "limit"),
        |n| endpoint("eventTypes", json!(names(n))),
    ),
    limit(
        ("length of a type", ENDPOINT, 256),
        (201, "body.eventTypes.0", "limit"),
        |n| endpoint("eventTypes", json!(["t".repeat(n)])),
    ),
    limit(
        ("channels", ENDPOINT, 10),
        (201, "body.channels", "limit"),
        |n| endpoint("channels", json!(names(n))),
    ),
    limit(
        ("length of a channel", ENDPOINT, 128),
        (201, "body.channels.0", "limit"),
        |n| endpoint("channels", json!(["c".repeat(n)])),
    ),
    limit(
        ("metadata", ENDPOINT, 4096),
        (201, "body.metadata", "limit"),
        |n| endpoint("metadata", json!({"k": "v".repeat(n - 7)})),
    ),
    limit(
        ("time-out", ENDPOINT, 30_000),
        (201, "body.timeoutMs", "value_error"),
        |n| endpoint("timeoutMs", json!(n)),
    ),
    limit(
        ("concurrency", ENDPOINT, 1000),
        (201, "body.maxConcurrency", "value_error"),
        |n| endpoint("maxConcurrency", json!(n)),
    ),
    limit(
        ("rate", ENDPOINT, 65_535),
        (201, "body.throttleRate", "value_error"),
        |n| endpoint("throttleRate", json!(n)),
    ),
    limit(
        ("delays", ENDPOINT, 50),
        (201, "body.retrySchedule", "limit"),
        |n| endpoint("retrySchedule", json!(vec![1; n])),
    ),
    limit(
        ("delay", ENDPOINT, 604_800),
        (201, "body.retrySchedule", "value_error"),
        |n| endpoint("retrySchedule", json!([n])),
    ),
    limit(
        ("headers", ENDPOINT, 64),
        (201, "body.headers", "value_error"),
        |n| endpoint("headers", json!(headers(n))),
    ),
    limit(
        ("name of a header", ENDPOINT, 256),
        (201, "body.headers", "value_error"),
        |n| endpoint("headers", json!({"x".repeat(n): "v"})),
    ),
    limit(
        ("value of a header", ENDPOINT, 4096),
        (201, "body.headers", "value_error"),
        |n| endpoint("headers", json!({"x": "v".repeat(n)})),
    ),
    limit(
        ("application's name", "/app", 1024),
        (201, "body.name", "limit"),
        |n| json!({"name": "ü".repeat(n)}),
    ),
    limit(
        ("application's uid", "/app", 256),
        (201, "body.uid", "limit"),
        |n| json!({"name": "a", "uid": "x".repeat(n)}),
    ),
    limit(
        ("application's rate", "/app", 65_535),
        (201, "body.throttleRate", "value_error"),
        |n| json!({"name": "a", "throttleRate": n}),
    ),
    limit(
        ("type's name", "/event-type", 256),
        (201, "body.name", "limit"),
        |n| json!({"name": "t".repeat(n), "description": "d"}),
    ),
    limit(
        ("type's description", "/event-type", 65_536),
        (201, "body.description", "limit"),
        |n| json!({"name": format!("n{n}"), "description": "d".repeat(n)}),
    ),
    limit(
        ("key's name", "/api-keys", 256),
        (201, "body.name", "limit"),
        |n| json!({"name": "k".repeat(n), "scopes": ["read"]}),
    ),
    limit(
        ("message's type", MESSAGE, 256),
        (202, "body.eventType", "limit"),
        |n| message("eventType", json!("t".repeat(n))),
    ),
    limit(
        ("message's channels", MESSAGE, 10),
        (202, "body.channels", "limit"),
        |n| message("channels", json!(names(n))),
    ),
    limit(
        ("message's channel", MESSAGE, 128),
        (202, "body.channels.0", "limit"),
        |n| message("channels", json!(["c".repeat(n)])),
    ),
    limit(("tags", MESSAGE, 5), (202, "body.tags", "limit"), |n| {
        message("tags", json!(names(n)))
    }),
    limit(("tag", MESSAGE, 128), (202, "body.tags.0", "limit"), |n| {
        message("tags", json!(["t".repeat(n)]))
    }),
    limit(
        ("ordering key", MESSAGE, 256),
        (202, "body.orderingKey", "limit"),
        |n| message("orderingKey", json!("k".repeat(n))),
    ),
    limit(
        ("event id", MESSAGE, 256),
        (202, "body.eventId", "limit"),
        |n| message("eventId", json!("e".repeat(n))),
    ),
];

#[tokio::test]
async fn every_field_takes_as_much_as_its_limit_and_not_one_more() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    for limit in LIMITS {
        let send = |n: usize| gateway.post(limit.path, &(limit.body)(n)).send();
        for n in [limit.n - 1, limit.n] {
            let answer = send(n).await;
            let (what, status) = (limit.what, limit.status);
            assert_eq!(answer.status, status, "{what} {n}: {}", answer.text());
        }
        let over = send(limit.n + 1).await;
        let want = (limit.loc.to_owned(), limit.kind.to_owned());
        assert_eq!(over.mistakes(), [want], "{}", limit.what);
    }
}

#[tokio::test]
async fn a_url_may_have_65536_characters_and_not_one_more() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let send = |n: usize| {
        let url = format!("https://a.example/{}", "u".repeat(n - 18));
        gateway.post(ENDPOINT, &json!({ "url": url })).send()
    };
    for n in [65_535, 65_536] {
        let answer = send(n).await;
        assert_eq!(answer.status, 201, "{n}: {}", answer.text());
    }
    let over = send(65_537).await;
    assert_eq!(
        over.mistakes(),
        [("body.url".to_owned(), "limit".to_owned())]
    );
}

#[tokio::test]
async fn keys_pages_and_old_secrets_end_where_they_say() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    for (n, good) in [(255, true), (256, true), (257, false)] {
        let call = gateway.post("/app", &json!({"name": format!("n{n}")}));
        let answer = call.header("idempotency-key", &"k".repeat(n)).send().await;
        assert_eq!(answer.status, if good { 201 } else { 422 }, "key of {n}");
    }
    for (n, good) in [
        (0, false),
        (1, true),
        (249, true),
        (250, true),
        (251, false),
    ] {
        let answer = gateway.get(&format!("/app?limit={n}")).send().await;
        assert_eq!(answer.status, if good { 200 } else { 422 }, "page of {n}");
    }
    let rotate = |grace: u64| {
        let path = "/app/acme/endpoint/one/secret/rotate";
        gateway
            .post(path, &json!({"gracePeriodSeconds": grace}))
            .send()
    };
    for (n, grace) in [604_799, 604_800].into_iter().cycle().take(10).enumerate() {
        let answer = rotate(grace).await;
        assert_eq!(answer.status, 200, "rotation {n}: {}", answer.text());
    }
    let eleventh = rotate(60).await;
    assert_eq!(eleventh.problem().1, "limit_reached", "{}", eleventh.text());
    let too_long = rotate(604_801).await;
    let want = (
        "body.gracePeriodSeconds".to_owned(),
        "value_error".to_owned(),
    );
    assert_eq!(too_long.mistakes(), [want]);
}

#[tokio::test]
async fn pending_bytes_end_exactly_at_their_limit() {
    for of_one in [true, false] {
        let gateway = Gateway::with(|config| {
            let limit = ByteSize::bytes(1000);
            if of_one {
                config.ingest.max_pending_bytes_per_app = limit;
            } else {
                config.ingest.max_pending_bytes = limit;
            }
        })
        .await;
        gateway.app("acme").await;
        gateway.endpoint("acme", "one").await;
        let send = |n: usize| {
            let pad = "x".repeat(n - r#"{"a":""}"#.len());
            let body = format!(r#"{{"eventType":"a","payload":{{"a":"{pad}"}}}}"#);
            gateway.call("POST", MESSAGE).body(body).send()
        };
        assert_eq!(send(989).await.status, 202);
        let over = send(12).await;
        assert_eq!(
            over.problem(),
            (503, "overloaded".to_owned()),
            "1001 of 1000"
        );
        assert!(over.header("retry-after").is_some());
        assert_eq!(send(10).await.status, 202, "999 of 1000");
        let snapshot = gateway.directory.snapshot();
        snapshot.app("acme").unwrap().load.remove(1, 10);
        assert_eq!(send(11).await.status, 202, "1000 of 1000");
        let full = send(8).await;
        assert_eq!(full.problem(), (503, "overloaded".to_owned()));
    }
}

#[tokio::test]
async fn batch_bodies_end_exactly_at_their_limit() {
    let line = "{\"eventType\":\"a\",\"payload\":{}}\n";
    let limit = u64::try_from(3 * line.len()).unwrap();
    let gateway = Gateway::with(|config| {
        config.ingest.max_batch_body = ByteSize::bytes(limit);
    })
    .await;
    gateway.app("acme").await;
    let send = |body: String| {
        let call = gateway.call("POST", "/app/acme/msg/batch");
        call.kind("application/x-ndjson").body(body).send()
    };
    assert_eq!(send(line.repeat(3).trim_end().to_owned()).await.status, 202);
    assert_eq!(send(line.repeat(3)).await.status, 202);
    let over = send(line.repeat(3) + " ").await;
    assert_eq!(over.problem(), (413, "payload_too_large".to_owned()));
}

#[tokio::test]
async fn an_application_has_ten_thousand_endpoints_and_not_one_more() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "first").await;
    // All but the last ones in one change: each costs a copy of the snapshot.
    let first = gateway.directory.snapshot();
    let first = first
        .app("acme")
        .unwrap()
        .endpoint("first")
        .unwrap()
        .clone();
    let fill = gateway.directory.change(|draft| {
        for n in 2..9_999_u16 {
            let [high, low] = n.to_be_bytes();
            let mut next = (*first).clone();
            next.no = draft.next_endpoint();
            next.uid = Some(format!("e{n}"));
            next.id.0.0[17] ^= 1; // none of them is the first one's
            next.id.0.0[18..].copy_from_slice(&[high, low]);
            draft.put_endpoint(next)?;
        }
        Ok::<_, posthaste::directory::Error>(())
    });
    fill.await.unwrap();
    let url = json!({"url": "https://a.example/"});
    for n in 9_999..=10_000 {
        let answer = gateway.post(ENDPOINT, &url).send().await;
        assert_eq!(answer.status, 201, "{n}: {}", answer.text());
    }
    let over = gateway.post(ENDPOINT, &url).send().await;
    assert_eq!(over.problem().1, "quota_exceeded", "{}", over.text());
}

/// A header that nobody may set: name and value.
fn hostile_header() -> impl Strategy<Value = (String, String)> {
    let hostile = prop::sample::select(vec![
        "\r", "\n", "\r\n", "\0", "\x7f", "\x1b", "é", "\u{a0}", "\u{2028}", "\u{ff1a}",
    ]);
    let ours = prop::sample::select(vec![
        "webhook-id",
        "Webhook-Signature",
        "WEBHOOK-X",
        "svix-id",
        "Host",
        "host",
        "Content-Length",
        "content-type",
        "TE",
        "Transfer-Encoding",
        "Connection",
        "Expect",
        "Upgrade",
        "Keep-Alive",
        "Trailer",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Via",
        "Forwarded",
        "User-Agent",
        "traceparent",
        "Accept-Encoding",
        "HTTP2-Settings",
    ]);
    let split = ("[a-z]{0,4}", hostile, "[a-z]{0,4}").prop_map(|(a, bad, b)| a + bad + &b);
    prop_oneof![
        split.clone().prop_map(|name| (name, String::from("v"))),
        split.prop_map(|value| (String::from("x-a"), value)),
        (ours, "[a-z]{0,4}").prop_map(|(name, value)| (name.to_owned(), value)),
        (4097_usize..8193).prop_map(|n| (String::from("x-a"), "v".repeat(n))),
        (257_usize..400).prop_map(|n| ("n".repeat(n), String::from("v"))),
        Just((String::new(), String::from("v"))),
        Just((String::from("a b"), String::from("v"))),
        Just((String::from("a:b"), String::from("v"))),
        Just((String::from("x-a"), String::from(" v"))),
    ]
}

#[test]
fn hostile_custom_headers_are_refused_when_they_are_set() {
    let bad = hostile_header();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let gateway = Gateway::start().await;
        gateway.app("acme").await;
        gateway.endpoint("acme", "one").await;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..300 {
            let (name, value) = bad.new_tree(&mut runner).unwrap().current();
            // Beside good ones, which are not taken either.
            let all = json!({"x-good": "v", name.clone(): value.clone()});
            let what = format!("{name:?}: {value:?}");
            let made = gateway
                .post(ENDPOINT, &endpoint("headers", all.clone()))
                .send()
                .await;
            assert_eq!(made.status, 422, "{what}");
            for method in ["PUT", "PATCH"] {
                let path = "/app/acme/endpoint/one/headers";
                let call = gateway.call(method, path).json(&json!({ "headers": all }));
                let answer = call.send().await;
                assert_eq!(answer.status, 422, "{method} {what}: {}", answer.text());
            }
        }
        let path = "/app/acme/endpoint/one/headers";
        let shown = gateway.get(path).expect(200).await.json();
        assert_eq!(shown["headers"], json!({}));
        let many = json!({"headers": headers(100)});
        gateway.call("PUT", path).json(&many).expect(422).await;
    });
}
