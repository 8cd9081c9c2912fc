//! A gateway without a network: requests go into the front, the scheduler is a stand-in.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test kit: a failure is a failed test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use posthaste::api::{self, ApiState, Front};
use posthaste::auth::{self, Auth, Entropy};
use posthaste::base::{Clock, Timestamp, task};
use posthaste::catalogs::Catalogs;
use posthaste::config::Config;
use posthaste::directory::Directory;
use posthaste::inbound::{self, FetchKeys, Fetching, Inbound};
use posthaste::ingest::{self, Ingest};
use posthaste::lane::{Committed, Lane, Options};
use posthaste::model::{Delivery, Endpoint, EndpointNo, FailureKind, Message, Outcome};
use posthaste::policy::target::TargetRules;
use posthaste::providers::Catalogue;
use posthaste::schedule::core::Cancelled;
use posthaste::schedule::{self, Status};
use posthaste::store::model::Model;
use posthaste::store::{Reader, Writer};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::kit::{SOON, eventually};

pub(crate) const ADMIN: &str = "an-operator-key-of-more-than-32-characters";
/// 2026-01-05T08:15:30.120Z
pub(crate) const START: u64 = 1_767_600_930_120;

/// A clock that is moved by hand.
pub(crate) struct TestClock {
    now: AtomicU64,
    monotonic: AtomicU64,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.now.fetch_add(by, Ordering::SeqCst);
        self.monotonic.fetch_add(by, Ordering::SeqCst);
    }

    /// Sets the time of day, which says nothing about the time that has passed.
    pub(crate) fn set(&self, now: Timestamp) {
        self.now.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic.load(Ordering::SeqCst))
    }
}

/// An opened store.
pub(crate) type Disk = (Box<dyn Writer>, Arc<dyn Reader>);

/// What the scheduler was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Resend(Vec<Delivery>),
    Recover(Vec<Delivery>),
    Cancel(Vec<Delivery>),
    CancelPending(EndpointNo),
}

pub(crate) struct Gateway {
    pub(crate) front: Front,
    pub(crate) state: Arc<ApiState>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) lane: Lane,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// What the lane handed to the scheduler.
    pub(crate) handed: Arc<Mutex<Vec<Arc<Message>>>>,
    /// What providers' key sets are.
    pub(crate) key_set: Arc<KeySet>,
    pub(crate) elsewhere: Arc<Elsewhere>,
}

/// A provider's key set: the document, and how often it was asked for.
#[derive(Default)]
pub(crate) struct KeySet {
    pub(crate) document: Mutex<String>,
    pub(crate) asked: AtomicU64,
}

impl FetchKeys for KeySet {
    fn fetch<'a>(&'a self, _url: &'a str) -> Fetching<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let document = self.document.lock().clone();
        Box::pin(async move { Ok(document.into()) })
    }
}

/// What was sent to other URLs: the endpoint as it would have to be, and the message. `fails.example`
/// answers 500.
#[derive(Default)]
pub(crate) struct Elsewhere(pub(crate) Mutex<Vec<(Endpoint, String)>>);

impl api::Elsewhere for Elsewhere {
    fn send(
        &self,
        endpoint: Endpoint,
        _organization: String,
        message: Arc<Message>,
    ) -> api::Sending<'_> {
        let fails = endpoint.url.contains("fails.example");
        self.0.lock().push((endpoint, message.id().to_string()));
        Box::pin(async move {
            Outcome {
                status: if fails { 500 } else { 200 },
                failure: fails.then_some(FailureKind::Status5xx),
                retry_after_secs: None,
            }
        })
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and problem code.
    pub(crate) fn problem(&self) -> (u16, String) {
        let code = self.json()["code"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), code)
    }

    /// `loc` and `type` of each mistake of a 422.
    pub(crate) fn mistakes(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, 422, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        let items = body["detail"].as_array().unwrap().iter();
        let item = |item: &Value| {
            let loc = item["loc"]
                .as_array()
                .unwrap()
                .iter()
                .map(|part| part.as_str().unwrap());
            let loc: Vec<_> = loc.collect();
            assert!(!item["msg"].as_str().unwrap().is_empty());
            (loc.join("."), item["type"].as_str().unwrap().to_owned())
        };
        items.map(item).collect()
    }
}

/// A request in the making.
pub(crate) struct Call<'a> {
    gateway: &'a Gateway,
    request: http::request::Builder,
    key: Option<String>,
    body: Vec<u8>,
    kind: Option<&'static str>,
}

impl Call<'_> {
    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = serde_json::to_vec(body).unwrap();
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) const fn kind(mut self, kind: &'static str) -> Self {
        self.kind = Some(kind);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn anonymous(mut self) -> Self {
        self.key = None;
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let (parts, body) = self.open().await.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes: read(body).await,
        }
    }

    /// The answer with its body still to be read.
    pub(crate) async fn open(self) -> http::Response<Body> {
        let mut request = self.request;
        if let Some(key) = self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(kind) = self.kind {
            request = request.header("content-type", kind);
        }
        request = request.header("content-length", self.body.len());
        let request = request.body(Body::from(self.body)).unwrap();
        self.gateway.front.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn expect(self, status: u16) -> Answer {
        let answer = self.send().await;
        assert_eq!(
            answer.status,
            status,
            "{}",
            String::from_utf8_lossy(&answer.bytes)
        );
        answer
    }
}

#[expect(clippy::disallowed_methods, reason = "capped by Limited")]
async fn read(body: Body) -> Vec<u8> {
    let all = Limited::new(body, 64 << 20).collect().await.unwrap();
    all.to_bytes().to_vec()
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut Config)) -> Self {
        Self::over(&Model::new(), set)
    }

    /// A process over `store`; a second one over the same store is a restart.
    pub(crate) fn over(store: &Model, set: impl FnOnce(&mut Config)) -> Self {
        let (writer, reader) = store.open();
        let start = |writer, clock, options, committed| {
            Lane::start(writer, clock, options, committed).unwrap()
        };
        Self::on((Box::new(writer), reader), 7, start, set)
    }

    /// A process whose commits are made on its own runtime: when that is dropped, so is the store.
    /// `seed` decides the ids it makes up.
    pub(crate) fn by_hand(disk: Disk, seed: u8) -> Self {
        let start = |writer, clock, options, committed| {
            let (lane, mut rounds) = Lane::by_hand(writer, clock, options, committed);
            task::detach(async move {
                while rounds.turn() {
                    tokio::task::yield_now().await;
                }
            });
            lane
        };
        Self::on(disk, seed, start, |_| ())
    }

    #[expect(clippy::too_many_lines, reason = "every part, from the store upwards")]
    fn on(
        (writer, reader): Disk,
        seed: u8,
        start: impl FnOnce(Box<dyn Writer>, Arc<dyn Clock>, Options, mpsc::Sender<Committed>) -> Lane,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::default();
        set(&mut config);
        let clock = Arc::new(TestClock {
            now: AtomicU64::new(START),
            monotonic: AtomicU64::new(0),
        });
        let handed = Arc::new(Mutex::new(Vec::new()));
        let options = Options {
            queue: config.ingest.queue,
            queue_bytes: config.ingest.queue_bytes.get(),
            max_group: config.ingest.max_group,
        };
        let shared: Arc<dyn Clock> = clock.clone();
        let lane = start(writer, Arc::clone(&shared), options, collector(&handed));
        let (changed, mut changes) = mpsc::channel(64);
        task::detach(async move { while changes.recv().await.is_some() {} });
        let directory =
            Directory::load(reader.as_ref(), lane.clone(), changed, crate::kit::vault()).unwrap();
        let directory = Arc::new(directory);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (status, watched) = watch::channel(Status {
            recovered: true,
            last_turn: clock.now(),
            ..Status::default()
        });
        let schedule = schedule::Handle::new(
            scheduler(&asked),
            watched,
            Arc::clone(&reader),
            Arc::clone(&directory),
        );
        let entropy = Arc::new(Entropy::from_seed([seed; 32]));
        let ingest = Arc::new(Ingest::new(ingest::Parts {
            config: config.ingest.clone(),
            remember_for: config.retention.idempotency,
            directory: Arc::clone(&directory),
            lane: lane.clone(),
            reader: Arc::clone(&reader),
            clock: Arc::clone(&shared),
            entropy: Arc::clone(&entropy),
        }));
        let key_set = Arc::new(KeySet::default());
        let elsewhere = Arc::new(Elsewhere::default());
        let base = config.server.public_urls.first().map(ToString::to_string);
        let inbound = Inbound::new(inbound::Parts {
            config: config.inbound.clone(),
            ids_kept: config.retention.messages,
            base,
            trusted: config.server.trusted_proxies.clone(),
            catalogue: Arc::new(Catalogue::builtin().unwrap()),
            directory: Arc::clone(&directory),
            ingest: Arc::clone(&ingest),
            clock: Arc::clone(&shared),
            news: None,
            keys: key_set.clone(),
        });
        let state = ApiState::new(api::Parts {
            auth: Auth::new(Arc::clone(&directory), Some(auth::hash(ADMIN))),
            ingest,
            inbound,
            directory: Arc::clone(&directory),
            lane: lane.clone(),
            reader: Arc::clone(&reader),
            schedule,
            clock: shared,
            entropy,
            delivery: config.delivery,
            retention: config.retention,
            targets: TargetRules::default(),
            catalogs: Arc::new(Catalogs::load(None, &[]).unwrap()),
            handshake: None,
            reserve: 0,
            elsewhere: Some(elsewhere.clone()),
            backups: None,
            metrics: Box::new(|| String::from("# metrics\n")),
        });
        let state = Arc::new(state);
        Self {
            front: api::front(Arc::clone(&state)),
            state,
            directory,
            lane,
            reader,
            clock,
            status,
            asked,
            handed,
            elsewhere,
            key_set,
        }
    }

    /// What was handed to the scheduler, once it is `least` messages: an answer may overtake them.
    pub(crate) async fn handed_on(&self, least: usize) -> Vec<Arc<Message>> {
        eventually("messages are handed on", SOON, async || {
            let handed = self.handed.lock().clone();
            (handed.len() >= least).then_some(handed)
        })
        .await
    }

    /// A call with the operator's key. Paths are below `/api/v1` unless they begin with `/api/`, or
    /// with `//` for the root.
    pub(crate) fn call(&self, method: &str, path: &str) -> Call<'_> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let uri = match path.strip_prefix('/') {
            Some(bare) if bare.starts_with('/') => bare.to_owned(),
            _ if path.starts_with("/api/") => path.to_owned(),
            _ => format!("/api/v1{path}"),
        };
        Call {
            gateway: self,
            request: Request::builder().method(method).uri(uri),
            key: Some(ADMIN.to_owned()),
            body: Vec::new(),
            kind: Some("application/json"),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.call("GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Call<'_> {
        self.call("POST", path).json(body)
    }

    /// An application with this uid.
    pub(crate) async fn app(&self, uid: &str) -> String {
        let made = self.post("/app", &serde_json::json!({"name": uid, "uid": uid}));
        made.expect(201).await.json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// An endpoint for everything.
    pub(crate) async fn endpoint(&self, app: &str, uid: &str) -> String {
        let body = serde_json::json!({"url": format!("https://{uid}.example/in"), "uid": uid});
        let made = self.post(&format!("/app/{app}/endpoint"), &body);
        made.expect(201).await.json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A message; answers its id.
    pub(crate) async fn message(&self, app: &str, event_type: &str) -> String {
        let body = serde_json::json!({"eventType": event_type, "payload": {"n": 1}});
        let made = self
            .post(&format!("/app/{app}/msg"), &body)
            .expect(202)
            .await;
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// A key with these scopes, bound to an application or not.
    pub(crate) async fn make_key(&self, scopes: &[&str], app: Option<&str>) -> String {
        let mut body = serde_json::json!({"name": "test", "scopes": scopes});
        if let Some(app) = app {
            body["appId"] = app.into();
        }
        let made = self.post("/api-keys", &body).expect(201).await.json();
        made["apiKey"]["key"].as_str().unwrap().to_owned()
    }
}

fn collector(handed: &Arc<Mutex<Vec<Arc<Message>>>>) -> mpsc::Sender<Committed> {
    let (sender, mut receiver) = mpsc::channel::<Committed>(16);
    let handed = Arc::clone(handed);
    task::detach(async move {
        while let Some(committed) = receiver.recv().await {
            handed.lock().extend(committed.messages);
        }
    });
    sender
}

/// Holds nothing in memory, takes everything on.
fn scheduler(asked: &Arc<Mutex<Vec<Asked>>>) -> mpsc::Sender<schedule::Request> {
    let (sender, mut requests) = mpsc::channel(64);
    let asked = Arc::clone(asked);
    task::detach(async move {
        while let Some(request) = requests.recv().await {
            match request {
                schedule::Request::Live(of, reply) => drop(reply.send(vec![None; of.len()])),
                schedule::Request::Retry {
                    deliveries,
                    fresh,
                    reply,
                } => {
                    let count = deliveries.len();
                    asked.lock().push(if fresh {
                        Asked::Recover(deliveries)
                    } else {
                        Asked::Resend(deliveries)
                    });
                    drop(reply.send(Ok(count)));
                }
                schedule::Request::Defaults(_) => {}
                schedule::Request::Cancel(deliveries, reply) => {
                    let count = deliveries.len();
                    asked.lock().push(Asked::Cancel(deliveries));
                    drop(reply.send(Ok(count)));
                }
                schedule::Request::CancelPending(endpoint, told) => {
                    asked.lock().push(Asked::CancelPending(endpoint));
                    // Two pages, then the end.
                    for (cancelled, done) in [(256, false), (300, true)] {
                        told.send_replace(Cancelled {
                            cancelled,
                            sending: 2,
                            done,
                        });
                    }
                }
                schedule::Request::Open(_, reply) => {
                    let (waiting, sending) = (3, 1);
                    task::answer(reply, schedule::Open { waiting, sending });
                }
                schedule::Request::Sending(_, reply) => drop(reply.send((Vec::new(), 0))),
            }
        }
    });
    sender
}
