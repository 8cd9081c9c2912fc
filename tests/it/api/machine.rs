//! Random operations against a reference (T57): after every step the API shows what the reference
//! says, over the reference store and over the embedded one, across crashes.
//!
//! The reference is a handful of ordered maps and knows nothing of the gateway. Requests go through
//! the real router; sizes come from `POSTHASTE_CASES`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "test kit: a failure is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use posthaste::config::{Retention, Storage};
use posthaste::store::fjall::Store;
use posthaste::store::model::{Crash, Model};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::kit::{Asked, Disk, Gateway};

/// Few of everything, so that operations meet.
const APPS: u8 = 3;
const ENDPOINTS: u8 = 3;
const TYPES: u8 = 3;

/// One request, or the end of the process.
#[derive(Debug, Clone)]
enum Step {
    CreateApp(u8),
    RenameApp(u8, u8),
    DeleteApp(u8),
    CreateEndpoint(u8, u8, Fields),
    ChangeEndpoint(u8, u8, Fields),
    DeleteEndpoint(u8, u8),
    Pause(u8, u8, bool),
    Rotate(u8, u8, u8),
    CreateType(u8),
    DescribeType(u8, u8),
    DeleteType(u8, bool),
    MakeKey(Option<u8>),
    RevokeKey(Index),
    Publish {
        app: u8,
        of: u8,
        event: Option<u8>,
        key: Option<u8>,
    },
    Resend(Index, u8),
    Crash,
}

/// What an endpoint is made or changed with.
#[derive(Debug, Clone, PartialEq)]
struct Fields {
    limit: u16,
    disabled: bool,
    types: Option<u8>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    apps: BTreeMap<u8, App>,
    /// Description, archived.
    types: BTreeMap<u8, (String, bool)>,
    /// Made in this order; the application they are bound to, and whether they still open anything.
    keys: Vec<(Option<u64>, bool)>,
    /// Applications ever made, for what belongs to a deleted one.
    made: u64,
    resends: usize,
}

#[derive(Debug, Clone)]
struct App {
    serial: u64,
    name: String,
    endpoints: BTreeMap<u8, Endpoint>,
    /// Oldest first: event type, event id, endpoints it goes to (by uid and serial).
    messages: Vec<Message>,
    /// `Idempotency-Key` to body and message.
    answers: BTreeMap<u8, (u8, Option<u8>, usize)>,
    endpoints_made: u64,
}

#[derive(Debug, Clone)]
struct Endpoint {
    serial: u64,
    fields: Fields,
    paused: bool,
    secret: String,
}

#[derive(Debug, Clone)]
struct Message {
    of: u8,
    event: Option<u8>,
    targets: BTreeSet<u64>,
}

fn secret(no: u8) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.encode([no; 24]);
    format!("whsec_{bytes}")
}

/// What the reference says an answer is: the status, and what else can be said of it.
#[derive(Debug, PartialEq)]
enum Expected {
    Status(u16),
    /// A message: 202 with its endpoints; the place in its application's list.
    Message(usize),
}

impl Known {
    fn endpoint(&mut self, app: u8, endpoint: u8) -> Option<&mut Endpoint> {
        self.apps.get_mut(&app)?.endpoints.get_mut(&endpoint)
    }

    /// Carries a step out and says what the gateway must answer.
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    fn carry_out(&mut self, step: &Step) -> Expected {
        Expected::Status(match step {
            Step::CreateApp(app) => self.create_app(*app),
            Step::RenameApp(app, name) => match self.apps.get_mut(app) {
                Some(known) => {
                    known.name = format!("name {name}");
                    200
                }
                None => 404,
            },
            Step::DeleteApp(app) => self.delete_app(*app),
            Step::CreateEndpoint(app, uid, fields) => self.create_endpoint(*app, *uid, fields),
            Step::ChangeEndpoint(app, uid, fields) => match self.endpoint(*app, *uid) {
                Some(known) => {
                    known.fields = fields.clone();
                    200
                }
                None => 404,
            },
            Step::DeleteEndpoint(app, uid) => {
                let known = self.apps.get_mut(app);
                match known.and_then(|known| known.endpoints.remove(uid)) {
                    Some(_) => 204,
                    None => 404,
                }
            }
            Step::Pause(app, uid, paused) => match self.endpoint(*app, *uid) {
                Some(known) => {
                    known.paused = *paused;
                    204
                }
                None => 404,
            },
            Step::Rotate(app, uid, to) => match self.endpoint(*app, *uid) {
                Some(known) => {
                    known.secret = secret(*to);
                    200
                }
                None => 404,
            },
            Step::CreateType(of) => match self.types.get(of) {
                Some((_, false)) => 409,
                _ => {
                    self.types.insert(*of, (String::from("made"), false));
                    201
                }
            },
            Step::DescribeType(of, text) => match self.types.get_mut(of) {
                Some(known) => {
                    known.0 = format!("text {text}");
                    200
                }
                None => 404,
            },
            Step::DeleteType(of, expunge) => match self.types.get_mut(of) {
                Some(_) if *expunge => {
                    self.types.remove(of);
                    204
                }
                Some(known) => {
                    known.1 = true;
                    204
                }
                None => 404,
            },
            Step::MakeKey(app) => match app.map(|app| self.apps.get(&app)) {
                Some(None) => 422,
                bound => {
                    let bound = bound.flatten().map(|app| app.serial);
                    self.keys.push((bound, true));
                    201
                }
            },
            Step::RevokeKey(nth) => {
                if self.keys.is_empty() {
                    return Expected::Status(0);
                }
                let len = self.keys.len();
                let key = &mut self.keys[nth.index(len)];
                // A revoked key is not seen any more.
                if std::mem::take(&mut key.1) { 200 } else { 404 }
            }
            Step::Publish {
                app,
                of,
                event,
                key,
            } => return self.publish(*app, *of, *event, *key),
            Step::Resend(nth, uid) => self.resend(nth, *uid),
            Step::Crash => 0,
        })
    }

    fn create_app(&mut self, app: u8) -> u16 {
        if self.apps.contains_key(&app) {
            return 409;
        }
        self.made += 1;
        let made = App {
            serial: self.made,
            name: String::from("made"),
            endpoints: BTreeMap::new(),
            messages: Vec::new(),
            answers: BTreeMap::new(),
            endpoints_made: 0,
        };
        self.apps.insert(app, made);
        201
    }

    fn delete_app(&mut self, app: u8) -> u16 {
        if self.apps.remove(&app).is_some() {
            204
        } else {
            404
        }
    }

    fn create_endpoint(&mut self, app: u8, uid: u8, fields: &Fields) -> u16 {
        let Some(known) = self.apps.get_mut(&app) else {
            return 404;
        };
        if known.endpoints.contains_key(&uid) {
            return 409;
        }
        known.endpoints_made += 1;
        let made = Endpoint {
            serial: known.endpoints_made,
            fields: fields.clone(),
            paused: false,
            secret: secret(0),
        };
        known.endpoints.insert(uid, made);
        201
    }

    fn publish(&mut self, app: u8, of: u8, event: Option<u8>, key: Option<u8>) -> Expected {
        let Some(known) = self.apps.get_mut(&app) else {
            return Expected::Status(404);
        };
        if let Some((body, id, place)) = key.and_then(|key| known.answers.get(&key)) {
            return if (*body, *id) == (of, event) {
                Expected::Message(*place)
            } else {
                Expected::Status(422)
            };
        }
        let place = known.messages.len();
        if event.is_some() && known.messages.iter().any(|m| m.event == event) {
            return Expected::Status(409);
        }
        let wants = |endpoint: &&Endpoint| endpoint.fields.types.is_none_or(|types| types == of);
        let targets = known.endpoints.values().filter(wants);
        let targets = targets.map(|endpoint| endpoint.serial).collect();
        known.messages.push(Message { of, event, targets });
        if let Some(key) = key {
            known.answers.insert(key, (of, event, place));
        }
        Expected::Message(place)
    }

    /// The message that a step means: application and place.
    fn message(&self, nth: &Index) -> Option<(u8, usize)> {
        let all: Vec<_> = self
            .apps
            .iter()
            .flat_map(|(app, known)| (0..known.messages.len()).map(|place| (*app, place)))
            .collect();
        (!all.is_empty()).then(|| *nth.get(&all))
    }

    fn resend(&mut self, nth: &Index, uid: u8) -> u16 {
        let Some((app, _)) = self.message(nth) else {
            return 0;
        };
        if self.endpoint(app, uid).is_none() {
            return 404;
        }
        self.resends += 1;
        202
    }
}

struct Machine;

fn fields() -> impl Strategy<Value = Fields> {
    (1..9_u16, any::<bool>(), proptest::option::of(0..TYPES)).prop_map(
        |(limit, disabled, types)| Fields {
            limit,
            disabled,
            types,
        },
    )
}

impl ReferenceStateMachine for Machine {
    type State = Known;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Known> {
        Just(Known::default()).boxed()
    }

    fn transitions(_: &Known) -> BoxedStrategy<Step> {
        let (app, uid, of) = (0..APPS, 0..ENDPOINTS, 0..TYPES);
        let rare = || proptest::option::weighted(0.4, 0..4_u8);
        prop_oneof![
            4 => app.clone().prop_map(Step::CreateApp),
            2 => (app.clone(), 0..9_u8).prop_map(|(a, n)| Step::RenameApp(a, n)),
            1 => app.clone().prop_map(Step::DeleteApp),
            6 => (app.clone(), uid.clone(), fields())
                .prop_map(|(a, u, f)| Step::CreateEndpoint(a, u, f)),
            4 => (app.clone(), uid.clone(), fields())
                .prop_map(|(a, u, f)| Step::ChangeEndpoint(a, u, f)),
            2 => (app.clone(), uid.clone()).prop_map(|(a, u)| Step::DeleteEndpoint(a, u)),
            2 => (app.clone(), uid.clone(), any::<bool>())
                .prop_map(|(a, u, on)| Step::Pause(a, u, on)),
            2 => (app.clone(), uid.clone(), 1..99_u8).prop_map(|(a, u, to)| Step::Rotate(a, u, to)),
            2 => of.clone().prop_map(Step::CreateType),
            1 => (of.clone(), 0..9_u8).prop_map(|(t, n)| Step::DescribeType(t, n)),
            1 => (of.clone(), any::<bool>()).prop_map(|(t, gone)| Step::DeleteType(t, gone)),
            2 => proptest::option::of(app.clone()).prop_map(Step::MakeKey),
            1 => any::<Index>().prop_map(Step::RevokeKey),
            9 => (app, of, rare(), rare())
                .prop_map(|(app, of, event, key)| Step::Publish { app, of, event, key }),
            3 => (any::<Index>(), uid).prop_map(|(nth, uid)| Step::Resend(nth, uid)),
            2 => Just(Step::Crash),
        ]
        .boxed()
    }

    fn apply(mut known: Known, step: &Step) -> Known {
        known.carry_out(step);
        known
    }
}

/// Where the state outlives the process.
enum Medium {
    Reference(Model),
    Embedded(tempfile::TempDir),
}

impl Medium {
    fn open(&self) -> Disk {
        match self {
            Self::Reference(model) => {
                let (writer, reader) = model.open();
                (Box::new(writer), reader)
            }
            Self::Embedded(dir) => {
                let options = Storage {
                    dir: dir.path().to_owned(),
                    ..Storage::default()
                };
                let opened = Store::open(&options, &Retention::default()).unwrap();
                (Box::new(opened.writer), opened.reader)
            }
        }
    }
}

/// The gateway, process after process.
struct Lives {
    medium: Medium,
    /// The process: its runtime goes after everything that runs in it.
    running: Option<(Gateway, Runtime)>,
    count: u8,
    /// What the gateway made up: ids of messages by application (serial) and place, and of keys.
    messages: BTreeMap<(u64, usize), String>,
    endpoints: BTreeMap<(u64, u64), String>,
    keys: Vec<(String, String)>,
    /// Before this step; `Known` is after it.
    known: Known,
    resends: usize,
}

impl Lives {
    fn new(medium: Medium) -> Self {
        let mut lives = Self {
            medium,
            running: None,
            count: 0,
            messages: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            keys: Vec::new(),
            known: Known::default(),
            resends: 0,
        };
        lives.start();
        lives
    }

    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        self.count += 1;
        let disk = self.medium.open();
        let gateway = runtime.block_on(async { Gateway::by_hand(disk, self.count) });
        gateway
            .clock
            .advance(Duration::from_secs(60 * u64::from(self.count)));
        self.running = Some((gateway, runtime));
    }

    fn crash(&mut self) {
        if let Some((gateway, runtime)) = self.running.take() {
            self.resends += resends(&gateway);
            drop(gateway);
            drop(runtime);
        }
        if let Medium::Reference(model) = &self.medium {
            model.crash(Crash::Process);
        }
        self.start();
    }

    fn call(&self, method: &str, path: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
        let (gateway, runtime) = self.running.as_ref().unwrap();
        runtime.block_on(async {
            let mut call = gateway.call(method, path);
            if !body.is_null() {
                call = call.json(body);
            }
            if let Some(key) = key {
                call = call.header("idempotency-key", key);
            }
            let answer = call.send().await;
            let value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
            (answer.status.as_u16(), value)
        })
    }

    fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, &Value::Null, None);
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// The request of a step; `None` = there is nothing to ask for.
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    fn request(&self, step: &Step) -> Option<(&'static str, String, Value, Option<String>)> {
        let ep = |app: &u8, uid: &u8| format!("/app/app-{app}/endpoint/ep-{uid}");
        let bare = |method, path| Some((method, path, Value::Null, None));
        let with = |method, path, body| Some((method, path, body, None));
        match step {
            Step::CreateApp(app) => {
                let body = json!({"name": "made", "uid": format!("app-{app}")});
                with("POST", String::from("/app"), body)
            }
            Step::RenameApp(app, name) => {
                let body = json!({"name": format!("name {name}")});
                with("PATCH", format!("/app/app-{app}"), body)
            }
            Step::DeleteApp(app) => bare("DELETE", format!("/app/app-{app}")),
            Step::CreateEndpoint(app, uid, fields) => {
                let mut body = sent(fields);
                body["uid"] = format!("ep-{uid}").into();
                body["url"] = format!("https://ep-{uid}.example/in").into();
                body["secret"] = secret(0).into();
                with("POST", format!("/app/app-{app}/endpoint"), body)
            }
            Step::ChangeEndpoint(app, uid, fields) => with("PATCH", ep(app, uid), sent(fields)),
            Step::DeleteEndpoint(app, uid) => bare("DELETE", ep(app, uid)),
            Step::Pause(app, uid, paused) => {
                let verb = if *paused { "pause" } else { "resume" };
                bare("POST", format!("{}/{verb}", ep(app, uid)))
            }
            Step::Rotate(app, uid, to) => {
                // Without a grace period: more than ten old secrets may not be alive.
                let body = json!({"key": secret(*to), "gracePeriodSeconds": 0});
                with("POST", format!("{}/secret/rotate", ep(app, uid)), body)
            }
            Step::CreateType(of) => {
                let body = json!({"name": name(*of), "description": "made"});
                with("POST", String::from("/event-type"), body)
            }
            Step::DescribeType(of, text) => {
                let body = json!({"description": format!("text {text}")});
                with("PATCH", format!("/event-type/{}", name(*of)), body)
            }
            Step::DeleteType(of, expunge) => bare(
                "DELETE",
                format!("/event-type/{}?expunge={expunge}", name(*of)),
            ),
            Step::MakeKey(app) => {
                let mut body = json!({"name": "k", "scopes": ["webhooks:read"]});
                if let Some(app) = app {
                    body["appId"] = format!("app-{app}").into();
                }
                with("POST", String::from("/api-keys"), body)
            }
            Step::RevokeKey(nth) => {
                let (id, _) = (!self.keys.is_empty()).then(|| nth.get(&self.keys))?;
                bare("DELETE", format!("/api-keys/{id}"))
            }
            Step::Publish {
                app,
                of,
                event,
                key,
            } => {
                let mut body = json!({"eventType": name(*of), "payload": {"of": of}});
                if let Some(event) = event {
                    body["eventId"] = format!("event-{event}").into();
                }
                let key = key.map(|key| format!("key-{key}"));
                Some(("POST", format!("/app/app-{app}/msg"), body, key))
            }
            Step::Resend(nth, uid) => {
                let (app, place) = self.known.message(nth)?;
                let id = &self.messages[&(self.known.apps[&app].serial, place)];
                bare(
                    "POST",
                    format!("/app/app-{app}/msg/{id}/endpoint/ep-{uid}/resend"),
                )
            }
            Step::Crash => None,
        }
    }

    /// Does a step and compares the answer.
    fn step(&mut self, step: &Step) {
        let request = self.request(step);
        let mut after = self.known.clone();
        let expected = after.carry_out(step);
        self.known = after;
        if matches!(step, Step::Crash) {
            return self.crash();
        }
        let Some((method, path, body, key)) = request else {
            assert_eq!(expected, Expected::Status(0), "{step:?}");
            return;
        };
        let (status, answer) = self.call(method, &path, &body, key.as_deref());
        match expected {
            Expected::Status(wanted) => assert_eq!(status, wanted, "{step:?}: {answer}"),
            Expected::Message(place) => {
                assert_eq!(status, 202, "{step:?}: {answer}");
                self.note_message(step, place, &answer);
            }
        }
        match step {
            Step::MakeKey(_) if status == 201 => {
                let text = |name: &str| answer["apiKey"][name].as_str().unwrap().to_owned();
                self.keys.push((text("id"), text("key")));
            }
            Step::CreateEndpoint(app, uid, _) if status == 201 => {
                let known = &self.known.apps[app];
                let pair = (known.serial, known.endpoints[uid].serial);
                let id = answer["id"].as_str().unwrap().to_owned();
                assert!(self.endpoints.insert(pair, id).is_none());
            }
            _ => {}
        }
    }

    /// A repeated key brings the same message; a new one has a new id and the right endpoints.
    fn note_message(&mut self, step: &Step, place: usize, answer: &Value) {
        let Step::Publish { app, .. } = step else {
            return;
        };
        let known = &self.known.apps[app];
        let id = answer["id"].as_str().unwrap().to_owned();
        let targets = &known.messages[place].targets;
        let wanted: BTreeSet<&str> = targets
            .iter()
            .map(|serial| self.endpoints[&(known.serial, *serial)].as_str())
            .collect();
        let shown: BTreeSet<&str> = answer["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap())
            .collect();
        assert_eq!(shown, wanted, "{step:?}");
        let first = self
            .messages
            .entry((known.serial, place))
            .or_insert_with(|| id.clone());
        assert_eq!(*first, id, "{step:?}");
    }

    /// Everything that can be seen is what the reference says.
    fn compare(&self) {
        let listed = self.get("/app?limit=250");
        let shown: BTreeMap<String, String> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|app| (text(&app["uid"]), text(&app["name"])))
            .collect();
        let known = self.known.apps.iter();
        let wanted = known.map(|(app, known)| (format!("app-{app}"), known.name.clone()));
        assert_eq!(shown, wanted.collect());
        for (app, known) in &self.known.apps {
            self.compare_endpoints(*app, known);
            self.compare_messages(*app, known);
        }
        self.compare_types();
        self.compare_keys();
        let (gateway, _) = self.running.as_ref().unwrap();
        assert_eq!(self.resends + resends(gateway), self.known.resends);
    }

    fn compare_endpoints(&self, app: u8, known: &App) {
        let listed = self.get(&format!("/app/app-{app}/endpoint?limit=250"));
        let shown: BTreeMap<String, Value> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let seen = json!({
                    "id": one["id"], "limit": one["maxConcurrency"], "disabled": one["disabled"],
                    "paused": one["paused"], "types": one["eventTypes"],
                });
                (text(&one["uid"]), seen)
            })
            .collect();
        let wanted = known.endpoints.iter().map(|(uid, one)| {
            let types = one.fields.types.map(|of| vec![name(of)]);
            let seen = json!({
                "id": self.endpoints[&(known.serial, one.serial)], "limit": one.fields.limit,
                "disabled": one.fields.disabled, "paused": one.paused, "types": types,
            });
            (format!("ep-{uid}"), seen)
        });
        assert_eq!(shown, wanted.collect());
        for (uid, one) in &known.endpoints {
            let secret = self.get(&format!("/app/app-{app}/endpoint/ep-{uid}/secret"));
            assert_eq!(text(&secret["key"]), one.secret);
        }
    }

    fn compare_messages(&self, app: u8, known: &App) {
        let listed = self.get(&format!("/app/app-{app}/msg?limit=250"));
        let shown: Vec<(String, String, Value)> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                assert_eq!(
                    text(&one["eventType"]),
                    name(u8::try_from(one["payload"]["of"].as_u64().unwrap()).unwrap())
                );
                (
                    text(&one["id"]),
                    text(&one["eventType"]),
                    one["eventId"].clone(),
                )
            })
            .collect();
        let all = known.messages.iter().enumerate().rev();
        let wanted: Vec<_> = all
            .map(|(place, message)| {
                let event = message.event.map(|event| format!("event-{event}"));
                let id = self.messages[&(known.serial, place)].clone();
                (id, name(message.of), json!(event))
            })
            .collect();
        assert_eq!(shown, wanted, "newest first");
    }

    fn compare_types(&self) {
        let listed = self.get("/event-type?limit=250&include_archived=true");
        let shown: BTreeMap<String, (String, bool)> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let archived = one["archived"].as_bool().unwrap_or(false);
                (text(&one["name"]), (text(&one["description"]), archived))
            })
            .collect();
        let known = self.known.types.iter();
        assert_eq!(
            shown,
            known.map(|(of, seen)| (name(*of), seen.clone())).collect()
        );
    }

    fn compare_keys(&self) {
        let listed = self.get("/api-keys");
        let shown: BTreeSet<String> = listed["apiKeys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| text(&one["id"]))
            .collect();
        let known = self.known.keys.iter().zip(&self.keys);
        let wanted = known
            .filter(|((_, opens), _)| *opens)
            .map(|(_, (id, _))| id.clone());
        assert_eq!(shown, wanted.collect());
        let (gateway, runtime) = self.running.as_ref().unwrap();
        for ((bound, opens), (_, key)) in self.known.keys.iter().zip(&self.keys) {
            for (app, known) in &self.known.apps {
                let call = gateway.get(&format!("/app/app-{app}")).key(key);
                let answer = runtime.block_on(call.send());
                let wanted = match (opens, bound) {
                    (false, _) => 401,
                    (true, Some(serial)) if *serial != known.serial => 404,
                    (true, _) => 200,
                };
                assert_eq!(
                    answer.status.as_u16(),
                    wanted,
                    "key bound to {bound:?}, app-{app}"
                );
            }
        }
    }
}

fn sent(fields: &Fields) -> Value {
    json!({
        "maxConcurrency": fields.limit,
        "disabled": fields.disabled,
        "eventTypes": fields.types.map(|of| vec![name(of)]),
    })
}

fn name(of: u8) -> String {
    format!("type.t{of}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn resends(gateway: &Gateway) -> usize {
    let asked = gateway.asked.lock();
    asked
        .iter()
        .filter(|asked| matches!(asked, Asked::Resend(_)))
        .count()
}

struct OverReference;
struct OverEmbedded;

impl StateMachineTest for OverReference {
    type SystemUnderTest = Lives;
    type Reference = Machine;

    fn init_test(_: &Known) -> Lives {
        Lives::new(Medium::Reference(Model::new()))
    }

    fn apply(mut lives: Lives, _: &Known, step: Step) -> Lives {
        lives.step(&step);
        lives.compare();
        lives
    }
}

impl StateMachineTest for OverEmbedded {
    type SystemUnderTest = Lives;
    type Reference = Machine;

    fn init_test(_: &Known) -> Lives {
        Lives::new(Medium::Embedded(tempfile::tempdir().unwrap()))
    }

    fn apply(mut lives: Lives, _: &Known, step: Step) -> Lives {
        lives.step(&step);
        lives.compare();
        lives
    }
}

/// Histories to try; more with `POSTHASTE_CASES`.
fn config(usual: u32) -> Config {
    let cases = std::env::var("POSTHASTE_CASES");
    Config {
        cases: cases.ok().and_then(|n| n.parse().ok()).unwrap_or(usual),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest_state_machine::prop_state_machine! {
    #![proptest_config(config(24))]
    #[test]
    fn the_api_shows_what_the_reference_says_over_the_reference_store(
        sequential 1..60 => OverReference
    );
}

proptest_state_machine::prop_state_machine! {
    #![proptest_config(config(8))]
    #[test]
    fn the_api_shows_what_the_reference_says_over_the_embedded_store(
        sequential 1..60 => OverEmbedded
    );
}
