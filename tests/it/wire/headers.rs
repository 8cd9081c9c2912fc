//! What stands on the wire: our headers, each exactly once, whatever an endpoint's owner tries (T27).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::base::{Clock, Id20, SystemClock, Timestamp};
use posthaste::client::Client;
use posthaste::deliver::{Defaults, Deliver, Job, Prepared};
use posthaste::model::{
    AppNo, ContentType, Delivery, Endpoint, EndpointId, EndpointNo, Envelope, LaneId, Message,
    Order, Position, Profile,
};
use posthaste::policy::sign::generate;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::kit::{Bench, Receiver, Reply, rules};

fn endpoint(url: &str, headers: BTreeMap<String, String>) -> Endpoint {
    Endpoint {
        no: EndpointNo(1),
        id: EndpointId(Id20([1; 20])),
        app: AppNo(1),
        uid: None,
        url: url.to_owned(),
        description: String::new(),
        disabled: None,
        paused: false,
        event_types: None,
        channels: None,
        filter: None,
        throttle_rate: None,
        max_concurrency: None,
        timeout_ms: None,
        retry_schedule: None,
        disable_policy: None,
        signature: Some(Box::new(Profile::Dual)),
        envelope: Envelope::Raw,
        order: Order::None,
        headers,
        sensitive_headers: Vec::new(),
        metadata: BTreeMap::new(),
        secret: generate([1; 32]),
        old_secrets: Vec::new(),
        created: Timestamp::ZERO,
        updated: Timestamp::ZERO,
        tenant: None,
        exclude_pii: None,
        deleted: None,
    }
}

fn defaults() -> Defaults {
    Defaults {
        profile: Profile::Standard,
        timeout: Duration::from_secs(5),
        rules: rules(&["127.0.0.0/8"]),
    }
}

async fn deliver(client: Client, prepared: Prepared) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let at = Position {
        lane: LaneId(1),
        seq: 1,
    };
    let job = Job {
        marked: None,
        delivery: Delivery {
            at,
            endpoint: EndpointNo(1),
        },
        endpoint: Arc::new(prepared),
        message: Arc::new(Message {
            at,
            accepted: clock.now(),
            app: AppNo(1),
            event_type: Arc::from("a.b"),
            content_type: ContentType::Json,
            payload: Bytes::from_static(b"{\"x\": 1.0 }"),
            targets: Vec::new(),
            labels: None,
        }),
        no: 1,
        total: 10,
    };
    let finished = Deliver::new(client, clock).attempt(&job).await;
    assert_eq!(finished.outcome.failure, None, "{finished:?}");
}

/// Header lines of a raw request, names as written.
fn lines(request: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(request).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"x\": 1.0 }");
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("POST /hook HTTP/1.1"));
    lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

const OURS: [&str; 13] = [
    "Content-Length",
    "Content-Type",
    "Host",
    "Svix-Id",
    "Svix-Signature",
    "Svix-Timestamp",
    "Traceparent",
    "User-Agent",
    "Webhook-Attempt",
    "Webhook-Hops",
    "Webhook-Id",
    "Webhook-Signature",
    "Webhook-Timestamp",
];

#[test]
fn the_wire_carries_our_headers_once_and_the_accepted_custom_ones() {
    let name = prop_oneof![
        "[a-zA-Z][a-zA-Z0-9-]{0,20}",
        prop::sample::select(vec![
            "webhook-id",
            "Webhook-Signature",
            "svix-id",
            "Host",
            "Content-Length",
            "TE",
            "Transfer-Encoding",
            "Connection",
            "Expect",
            "Upgrade",
            "Keep-Alive",
            "User-Agent",
            "Traceparent",
            "Content-Type",
            "X-Ok",
            "Authorization",
        ])
        .prop_map(String::from),
        ".{1,6}",
    ];
    let value = prop_oneof!["[ -~]{0,40}", ".{0,10}", "[a-z]{0,5}\r\nx-evil: 1"];
    let headers_of_an_owner = prop::collection::btree_map(name, value, 0..6);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (receiver, client) = runtime.block_on(async {
        let receiver = Receiver::start(|_| Reply::ok()).await;
        (receiver, Bench::allowing(&["127.0.0.0/8"]).client)
    });
    let mut accepted = 0;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..300 {
        let headers = headers_of_an_owner.new_tree(&mut runner).unwrap().current();
        let endpoint = endpoint(&receiver.url(), headers.clone());
        let Ok(prepared) = Prepared::new(&endpoint, "acme", &defaults()) else {
            continue;
        };
        accepted += 1;
        runtime.block_on(deliver(client.clone(), prepared));
        let sent = lines(receiver.requests().last().unwrap());
        for ours in OURS {
            let n = sent
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(ours))
                .count();
            assert_eq!(n, 1, "{ours} in {sent:?}");
        }
        assert_eq!(sent.len(), OURS.len() + headers.len(), "{sent:?}");
        for (name, value) in &headers {
            let found = sent
                .iter()
                .find(|(other, _)| other.eq_ignore_ascii_case(name));
            assert_eq!(found.map(|(_, value)| value), Some(value));
        }
    }
    assert!(accepted > 20, "only {accepted} header sets were accepted");
    assert_eq!(receiver.requests().len(), accepted);
}

#[tokio::test]
async fn names_are_written_canonically_on_http_1() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let endpoint = endpoint(&receiver.url(), BTreeMap::new());
    let prepared = Prepared::new(&endpoint, "acme", &defaults()).unwrap();
    deliver(Bench::allowing(&["127.0.0.0/8"]).client, prepared).await;
    let sent = lines(&receiver.requests()[0]);
    let mut names: Vec<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, OURS);
    let host = sent.iter().find(|(name, _)| name == "Host").unwrap();
    assert_eq!(host.1, receiver.addr.to_string());
}
