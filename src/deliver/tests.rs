//! Attempts over a made-up network.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use super::*;
use crate::base::{Id20, SystemClock, Timestamp};
use crate::model::{
    AppNo, Endpoint, EndpointId, EndpointNo, Envelope, LaneId, Order, Position, Profile, Secret,
};
use crate::policy::own::Own;
use crate::policy::sign::generate;
use crate::policy::target::TargetRules;

enum Answer {
    Outcome(Outcome, u32),
    Panic,
}

#[derive(Clone, Default)]
struct FakeNet(Arc<Mutex<(VecDeque<Answer>, Vec<Request>)>>);

impl FakeNet {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new((
            answers.into_iter().collect(),
            Vec::new(),
        ))))
    }

    fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.lock().1)
    }
}

impl Net for FakeNet {
    async fn send(&self, request: Request) -> Exchange {
        let answer = {
            let mut state = self.0.lock();
            state.1.push(request);
            state.0.pop_front().unwrap()
        };
        tokio::task::yield_now().await;
        match answer {
            Answer::Panic => panic!("the network fell over"),
            Answer::Outcome(outcome, duration_ms) => Exchange {
                outcome,
                response: Bytes::from_static(b"ok"),
                duration_ms,
                broke_early: false,
                resolver_down: false,
            },
        }
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        no: EndpointNo(3),
        id: EndpointId(Id20([1; 20])),
        app: AppNo(9),
        uid: None,
        url: String::from("https://example.com/hook?a=1"),
        description: String::new(),
        disabled: None,
        paused: false,
        event_types: None,
        channels: None,
        filter: None,
        throttle_rate: None,
        max_concurrency: None,
        timeout_ms: Some(2000),
        retry_schedule: None,
        disable_policy: None,
        signature: None,
        envelope: Envelope::Raw,
        order: Order::None,
        headers: [("X-Token".to_owned(), "t0k".to_owned())].into(),
        sensitive_headers: vec![String::from("x-token")],
        metadata: BTreeMap::new(),
        secret: generate([5; 32]),
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
        timeout: Duration::from_secs(15),
        rules: TargetRules::default(),
    }
}

fn job(no: AttemptNo) -> Job {
    let at = Position {
        lane: LaneId(2),
        seq: 77,
    };
    Job {
        marked: None,
        delivery: Delivery {
            at,
            endpoint: EndpointNo(3),
        },
        endpoint: Arc::new(Prepared::new(&endpoint(), "acme", &defaults()).unwrap()),
        message: Arc::new(Message {
            at,
            accepted: Timestamp::from_millis(1_767_600_930_120),
            app: AppNo(9),
            event_type: Arc::from("invoice.paid"),
            content_type: ContentType::Json,
            payload: Bytes::from_static(b"{ \"a\": 1 }"),
            targets: Vec::new(),
            labels: None,
        }),
        no,
        total: 10,
    }
}

fn deliver(net: &FakeNet) -> Deliver<FakeNet> {
    Deliver::new(net.clone(), Arc::new(SystemClock::start()))
}

fn answer(outcome: Outcome, duration_ms: u32) -> Answer {
    Answer::Outcome(outcome, duration_ms)
}

#[tokio::test]
async fn a_request_carries_exactly_the_documented_headers() {
    let net = FakeNet::answering([answer(outcome::of_status(200, None), 3)]);
    let finished = deliver(&net).attempt(&job(3)).await;
    assert_eq!(finished.outcome.failure, None);
    assert_eq!(finished.response, "ok");
    let [request] = net.seen().try_into().map_err(|_| "one request").unwrap();
    let header = |name: &str| {
        let mut all = request.headers.get_all(name).iter();
        let value = all.next().unwrap().to_str().unwrap().to_owned();
        assert!(all.next().is_none(), "{name} is there twice");
        value
    };
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("webhook-attempt"), "3/10");
    assert_eq!(header("webhook-hops"), "1");
    assert_eq!(header("x-token"), "t0k");
    assert_eq!(header("webhook-id"), job(3).message.id().to_string());
    assert!(header("user-agent").starts_with("Posthaste/"));
    assert!(header("webhook-signature").starts_with("v1,"));
    let trace = header("traceparent");
    assert_eq!(trace.len(), 55);
    assert!(trace.ends_with("-0000000000030003-00"), "{trace}");
    assert!(header("webhook-timestamp").parse::<u64>().unwrap() > 1_700_000_000);
    assert_eq!(request.headers.len(), 9);
    assert!(request.headers["x-token"].is_sensitive());
    assert_eq!(request.body, "{ \"a\": 1 }");
    assert_eq!(request.timeout, Duration::from_secs(2));
    assert_eq!(request.tenant, AppNo(9));
}

#[tokio::test]
async fn a_message_that_came_with_hops_goes_on_with_one_more() {
    let net = FakeNet::answering([answer(outcome::of_status(200, None), 3)]);
    let mut relayed = job(1);
    let labels = crate::model::Labels {
        hops: 2,
        ..crate::model::Labels::default()
    };
    Arc::make_mut(&mut relayed.message).labels = Some(Box::new(labels));
    deliver(&net).attempt(&relayed).await;
    assert_eq!(net.seen()[0].headers["webhook-hops"], "3");
}

#[tokio::test]
async fn a_connection_that_broke_at_once_is_dialled_once_more_within_the_same_time() {
    let reset = outcome::of_failure(FailureKind::Reset);
    let net = FakeNet::answering([answer(reset, 400), answer(outcome::of_status(200, None), 5)]);
    let finished = deliver(&net).attempt(&job(1)).await;
    assert_eq!(finished.outcome.failure, None);
    assert!(finished.redialled);
    let seen = net.seen();
    assert_eq!(seen.len(), 2);
    assert!(!seen[0].fresh && seen[1].fresh);
    assert_eq!(seen[1].timeout, Duration::from_millis(1600));
    assert_eq!(seen[0].headers["webhook-id"], seen[1].headers["webhook-id"]);

    let net = FakeNet::answering([answer(reset, 400), answer(reset, 5)]);
    let finished = deliver(&net).attempt(&job(1)).await;
    assert_eq!(finished.outcome, reset);
    assert_eq!(net.seen().len(), 2);

    let net = FakeNet::answering([answer(reset, 1000)]);
    assert!(!deliver(&net).attempt(&job(1)).await.redialled);
}

#[tokio::test]
async fn a_panic_costs_one_attempt() {
    let net = FakeNet::answering([Answer::Panic, answer(outcome::of_status(204, None), 1)]);
    let deliver = deliver(&net);
    let finished = deliver.attempt(&job(1)).await;
    assert_eq!(finished.outcome.failure, Some(FailureKind::Reset));
    assert_eq!(deliver.attempt(&job(2)).await.outcome.failure, None);
}

#[test]
fn an_endpoint_that_cannot_be_called_says_why() {
    let prepare = |change: fn(&mut Endpoint)| {
        let mut endpoint = endpoint();
        change(&mut endpoint);
        Prepared::new(&endpoint, "acme", &defaults()).map(drop)
    };
    assert_eq!(prepare(|_| {}), Ok(()));
    let blocked = prepare(|e| e.url = String::from("https://127.0.0.1/")).unwrap_err();
    assert!(matches!(blocked, BadEndpoint::Target(_)));
    assert_eq!(
        BadEndpoint::OUTCOME.failure,
        Some(FailureKind::BlockedAddress)
    );
    let unsigned = prepare(|e| e.secret = Secret::new(String::from("short")));
    assert!(matches!(unsigned, Err(BadEndpoint::Signer(_))));
    let header = prepare(|e| {
        e.headers.insert(String::from("Host"), String::from("evil"));
    });
    assert!(matches!(header, Err(BadEndpoint::Header(_))));
}

#[test]
fn defaults_name_a_built_in_profile_or_a_preset() {
    let mut config = crate::config::Delivery::default();
    assert_eq!(
        Defaults::of(&config, Own::default()).unwrap().profile,
        Profile::Standard
    );
    config.signature = String::from("acme");
    assert_eq!(
        Defaults::of(&config, Own::default()).err(),
        Some(BadDefaults::Unknown(String::from("acme")))
    );
    let preset = serde_json::json!({"profile": "timestamped", "header": "Acme-Signature"});
    config
        .signature_presets
        .insert(String::from("acme"), preset);
    assert!(matches!(
        Defaults::of(&config, Own::default()).unwrap().profile,
        Profile::Timestamped { .. }
    ));
    let wrong = serde_json::json!({"profile": "timestamped", "header": "Host"});
    config.signature_presets.insert(String::from("acme"), wrong);
    assert!(matches!(
        Defaults::of(&config, Own::default()),
        Err(BadDefaults::Header { .. })
    ));
}
