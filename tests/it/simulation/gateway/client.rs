//! The clients: producers that send and send again, owners who change and meddle.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::{BodyExt, Limited};
use posthaste::api::Front;
use posthaste::base::{Clock, task};
use posthaste::model::{Delivery, MessageId, Order};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::history::Publish;
use super::net::{Mood, Peer};
use super::process::{ADMIN, Process};
use super::world::{GRACE, World};

/// The operator's application and endpoint stand first.
pub(crate) const APPS: usize = 3;
pub(crate) const PEERS: usize = 8;

/// One request; `None` = the process died first.
pub(crate) async fn call(
    world: &World,
    front: &Front,
    (method, path): (&str, &str),
    key: Option<&str>,
    body: String,
) -> Option<(u16, Value)> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"))
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-type", "application/json")
        .header("content-length", body.len());
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(body)).unwrap();
    let response = front.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = Limited::new(response.into_body(), 16 << 20)
        .collect()
        .await
        .unwrap()
        .to_bytes();
    if world.is_dead() {
        return None;
    }
    Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

pub(crate) fn app_uid(app: usize) -> String {
    if app == 0 {
        String::from(posthaste::schedule::OPERATOR)
    } else {
        format!("app-{app}")
    }
}

pub(crate) fn secret(world: &World) -> String {
    use base64::Engine as _;
    let mut bytes = [0_u8; 24];
    bytes.fill_with(|| world.roll(0..=u8::MAX));
    let base64 = base64::engine::general_purpose::STANDARD;
    format!("whsec_{}", base64.encode(bytes))
}

/// Makes what is missing of applications and endpoints; asks until the answer is there.
pub(crate) async fn prepare(world: &Arc<World>, process: &Process) {
    for app in 0..APPS {
        let body = json!({"name": "a", "uid": app_uid(app)}).to_string();
        let post = ("POST", "/app?get_if_exists=true");
        while !matches!(
            call(world, &process.front, post, None, body.clone()).await,
            Some((200 | 201, _))
        ) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    while world.peers.lock().len() < PEERS {
        create(world, process).await;
    }
}

async fn create(world: &Arc<World>, process: &Process) {
    let peer = {
        let mut peers = world.peers.lock();
        let no = peers.len();
        let order = match no {
            1 => Order::Endpoint,
            2 => Order::Key,
            _ => Order::None,
        };
        let schedule = match world.roll(0..3) {
            0 => vec![1, 2],
            1 => vec![1, 4, 10, 25],
            _ => vec![2; 8],
        };
        let limit = world.roll(1..6);
        let app = if no == 0 { 0 } else { 1 + no % (APPS - 1) };
        peers.push(Peer {
            app,
            id: None,
            no: None,
            order,
            schedule,
            mood: Mood::Answers(200),
            takes: (1, 80),
            under_way: 0,
            limits: vec![(0, limit)],
            secrets: vec![(secret(world), 0, u64::MAX)],
            off: None,
            deleted: None,
            unsure: false,
        });
        peers[no].clone()
    };
    let no = world.peers.lock().len() - 1;
    let body = json!({
        "url": format!("https://ep{no}.example/in"),
        "uid": format!("ep-{no}"),
        "secret": peer.secrets[0].0,
        "order": match peer.order { Order::None => "none", Order::Endpoint => "endpoint", Order::Key => "key" },
        "retrySchedule": peer.schedule,
        "maxConcurrency": peer.limits[0].1,
        "disablePolicy": {"policy": "never"},
    });
    let path = format!("/app/{}/endpoint", app_uid(peer.app));
    loop {
        let made = call(
            world,
            &process.front,
            ("POST", &path),
            None,
            body.to_string(),
        )
        .await;
        match made {
            // Its uid is taken if an earlier request was carried out without an answer.
            Some((201 | 409, _)) => return,
            // 500: the store is failing, and the process with it.
            Some((500 | 503, _)) | None => tokio::time::sleep(Duration::from_millis(100)).await,
            Some((404, _)) => return, // the application is gone
            Some((status, body)) => {
                world.broke("API", format!("endpoint not made: {status} {body}"));
                return;
            }
        }
    }
}

/// What the store says of each endpoint at the start of a life must be what was acknowledged.
pub(crate) fn resync(world: &World, process: &Process) {
    let snapshot = process.directory.snapshot();
    let now = world.clock.passed();
    for (no, peer) in world.peers.lock().iter_mut().enumerate() {
        let url = format!("https://ep{no}.example/in");
        let found = snapshot.endpoints().find(|endpoint| endpoint.url == url);
        let Some(endpoint) = found else {
            if peer.no.is_some() {
                world.broke(
                    "C1 no loss",
                    format!("endpoint {no} is not configured any more"),
                );
            }
            continue;
        };
        let limit = endpoint.max_concurrency.unwrap();
        let wanted = peer.limits.last().unwrap().1;
        if !peer.unsure {
            if limit != wanted {
                world.broke(
                    "C1 no loss",
                    format!("endpoint {no}: limit {limit}, set {wanted}"),
                );
            }
            if peer.off.is_some() && endpoint.is_sending() {
                world.broke(
                    "C1 no loss",
                    format!("endpoint {no} was switched off and is on"),
                );
            }
            if peer.deleted.is_some() != endpoint.deleted.is_some() {
                world.broke("C1 no loss", format!("endpoint {no}: its deletion is lost"));
            }
        }
        peer.unsure = false;
        peer.id = Some(endpoint.id.to_string());
        peer.no = Some(endpoint.no);
        peer.limits = vec![(0, limit)];
        peer.off = (!endpoint.is_sending()).then_some(now);
        peer.deleted = endpoint.deleted.map(|_| now);
        let current = endpoint.secret.reveal();
        let old: Vec<_> = endpoint
            .old_secrets
            .iter()
            .map(|old| old.secret.reveal())
            .collect();
        peer.secrets
            .retain(|(text, ..)| text == current || old.contains(&text.as_str()));
    }
}

/// One thing that somebody does.
pub(crate) async fn act(world: &Arc<World>, process: &Process) {
    let peer = world.roll(1..world.peers.lock().len());
    match world.roll(0..100) {
        0..=44 => {
            let app = world.roll(1..APPS);
            for _ in 0..world.roll(1..8) {
                publish(world, process, app, world.newer);
            }
        }
        45..=49 => repeat(world, process),
        50..=67 => mood(world, peer),
        68..=82 => change(world, process, peer).await,
        83..=88 => again(world, process, peer).await,
        89..=91 => cancel(world, process).await,
        92..=94 => recover(world, process, peer).await,
        95..=97 => step(world),
        _ => delete(world, process, peer).await,
    }
    let pause = if world.chance(20) {
        world.roll(1000..9000)
    } else {
        world.roll(1..400)
    };
    tokio::time::sleep(Duration::from_millis(pause)).await;
}

fn step(world: &World) {
    // Retries that were waiting come as much later as the clock went back: the run must outlast that.
    let by = if world.chance(50) {
        world.roll(2_000..3_600_000_i64)
    } else {
        -world.roll(2_000..60_000_i64)
    };
    world.clock.step(by);
    world.history.lock().steps.push(by);
    world.saw(if by > 0 {
        "a clock stepped forward"
    } else {
        "a clock stepped back"
    });
}

/// Sends an event without waiting for the answer, with what came later than the first regression seeds
/// if it is `newer`: in those no dice are rolled for it.
pub(crate) fn publish(world: &Arc<World>, process: &Process, app: usize, newer: bool) {
    let op = world.history.lock().publishes.len();
    let pad = "x".repeat(world.roll(0..40));
    // Spaces where a serialiser would put none: the bytes must arrive as they are.
    let payload = format!("{{ \"op\":{op} ,\"pad\": \"{pad}\"}}");
    let ordering = world.chance(70).then(|| format!("k{}", world.roll(0..3)));
    let key = world.chance(80).then(|| format!("op-{op}"));
    let name = ordering
        .as_ref()
        .map_or_else(String::new, |key| format!(",\"orderingKey\":\"{key}\""));
    let deliver_at = (newer && world.chance(12)).then(|| {
        let ahead = Duration::from_millis(world.roll(60_000..200_000));
        world.clock.now().plus(ahead)
    });
    let time = deliver_at.map_or_else(String::new, |at| {
        world.saw("a delayed message");
        format!(",\"deliverAt\":\"{}\"", at.rfc3339())
    });
    let collapse = (newer && world.chance(25)).then(|| format!("c{}", world.roll(0..3)));
    let collapses = collapse
        .as_ref()
        .map_or_else(String::new, |key| format!(",\"collapseKey\":\"{key}\""));
    let body =
        format!("{{\"eventType\":\"invoice.paid\",\"payload\":{payload}{name}{time}{collapses}}}");
    world.history.lock().publishes.push(Publish {
        app,
        body,
        payload,
        key,
        deliver_at: deliver_at.map(|at| at.millis()),
        unknown: 0,
        accepted: std::collections::BTreeMap::new(),
        refused: false,
    });
    send(world, process, op);
}

/// Sends an event again whose answer is not known, or known: with the same key it must be the same.
fn repeat(world: &Arc<World>, process: &Process) {
    let len = world.history.lock().publishes.len();
    if len == 0 {
        return;
    }
    let op = world.roll(0..len);
    if world.history.lock().publishes[op].key.is_some() {
        send(world, process, op);
    }
}

fn send(world: &Arc<World>, process: &Process, op: usize) {
    let (world, front) = (Arc::clone(world), process.front.clone());
    let publish = world.history.lock().publishes[op].clone();
    let Publish { app, body, key, .. } = publish;
    let delayed = publish.deliver_at.is_some();
    // Until there is an answer there is none: a killed process leaves it so.
    world.history.lock().publishes[op].unknown += 1;
    task::detach(async move {
        let path = format!("/app/{}/msg", app_uid(app));
        let answer = call(&world, &front, ("POST", &path), key.as_deref(), body).await;
        let mut history = world.history.lock();
        let publish = &mut history.publishes[op];
        match answer {
            Some((202, answer)) => {
                publish.unknown -= 1;
                let id = answer["id"].as_str().unwrap().to_owned();
                let names = answer["endpoints"].as_array().unwrap().iter();
                let targets = names.map(|id| id.as_str().unwrap().to_owned()).collect();
                if publish.accepted.insert(id, targets).is_some() {
                    world.saw("an idempotency key that brought the first answer");
                }
            }
            // Its time is too near by now: it was never accepted, or it would be answered as before.
            Some((422, _)) if delayed => {
                publish.unknown -= 1;
                publish.refused = true;
            }
            Some((404, _)) => {
                publish.unknown -= 1;
                publish.refused = true;
            }
            Some((409 | 429, _)) => publish.unknown -= 1,
            Some((503, _)) => world.saw("a 503 instead of a message"),
            Some((status, answer)) if status >= 500 => {
                drop(history);
                world.saw("a 5xx while the store was failing");
                if !gateway_may_fail(&answer) {
                    world.broke("API", format!("{status} {answer}"));
                }
            }
            Some((status, answer)) => world.broke("API", format!("{status} {answer}")),
            None => {}
        }
    });
}

/// A failed store is the only reason for a 5xx other than 503.
fn gateway_may_fail(answer: &Value) -> bool {
    answer["code"] == "storage_failed" || answer["code"] == "server_error"
}

fn mood(world: &World, peer: usize) {
    let mood = match world.roll(0..14) {
        0..=3 => Mood::Answers(200),
        4 => Mood::Answers(500),
        5 => Mood::Answers(404),
        6 => Mood::Asks(429, world.roll(0..20)),
        7 => Mood::Asks(503, world.roll(0..40)),
        8 => Mood::Hangs,
        9 => Mood::Refuses,
        10 => Mood::Breaks { acts: true },
        11 => Mood::Breaks { acts: false },
        12 => Mood::Flaps,
        _ if world.chance(40) => Mood::Answers(410),
        _ => Mood::Answers(302),
    };
    let takes = match world.roll(0..4) {
        0 => (1, 10),
        1 | 2 => (1, 800),
        _ => (500, 16_000),
    };
    let peer = &mut world.peers.lock()[peer];
    peer.mood = mood;
    peer.takes = takes;
}

/// Changes one endpoint and waits for the answer.
async fn change(world: &Arc<World>, process: &Process, peer: usize) {
    let it = world.peers.lock()[peer].clone();
    if it.deleted.is_some() || it.id.is_none() {
        return;
    }
    let path = format!("/app/{}/endpoint/ep-{peer}", app_uid(it.app));
    let asked = world.clock.passed();
    world.peers.lock()[peer].unsure = true;
    match world.roll(0..4) {
        0 => {
            let limit = world.roll(1..6);
            world.peers.lock()[peer].limit_asked(asked, limit);
            let body = json!({"maxConcurrency": limit}).to_string();
            if done(world, process, ("PATCH", &path), body).await {
                let now = world.clock.passed();
                let it = &mut world.peers.lock()[peer];
                it.limit_set(now, limit);
                it.unsure = false;
            }
        }
        1 => {
            let new = secret(world);
            let grace = world.roll(0..40_u64);
            world.peers.lock()[peer]
                .secrets
                .push((new.clone(), asked, u64::MAX));
            let body = json!({"key": new, "gracePeriodSeconds": grace}).to_string();
            let path = format!("{path}/secret/rotate");
            if done(world, process, ("POST", &path), body).await {
                let now = world.clock.passed();
                let until = now + grace * 1000 + GRACE;
                let it = &mut world.peers.lock()[peer];
                // A step of the wall clock moves the end of the grace period, so only an immediate
                // end is held against it.
                let until = if grace == 0 { until } else { u64::MAX };
                let last = it.secrets.len() - 1;
                for (_, _, end) in &mut it.secrets[..last] {
                    *end = until.min(*end);
                }
                it.unsure = false;
            }
        }
        2 => switch(world, process, peer, &path).await,
        _ => {
            let on = world.chance(60);
            let verb = if on { "resume" } else { "pause" };
            let disabled = world.peers.lock()[peer].off.is_some();
            if done(
                world,
                process,
                ("POST", &format!("{path}/{verb}")),
                String::new(),
            )
            .await
            {
                let now = world.clock.passed();
                let it = &mut world.peers.lock()[peer];
                it.unsure = false;
                if !on {
                    it.off = Some(now);
                } else if disabled {
                    // It may be disabled as well: ask what holds.
                    it.off = None;
                    it.unsure = true;
                }
            }
        }
    }
}

async fn switch(world: &Arc<World>, process: &Process, peer: usize, path: &str) {
    let off = world.chance(45);
    if !off {
        world.peers.lock()[peer].off = None;
    }
    let body = json!({"disabled": off}).to_string();
    if done(world, process, ("PATCH", path), body).await {
        let now = world.clock.passed();
        let it = &mut world.peers.lock()[peer];
        it.unsure = false;
        if off {
            it.off = Some(now);
            world.saw("an endpoint switched off");
        }
    }
}

/// Whether the change is acknowledged.
async fn done(world: &World, process: &Process, what: (&str, &str), body: String) -> bool {
    match call(world, &process.front, what, None, body).await {
        Some((200..=204, _)) => true,
        Some((400..=499, answer)) => {
            world.broke("API", format!("{} {}: {answer}", what.0, what.1));
            false
        }
        Some(_) | None => false,
    }
}

/// Endpoints go, sometimes with their application.
async fn delete(world: &Arc<World>, process: &Process, peer: usize) {
    let it = world.peers.lock()[peer].clone();
    if it.deleted.is_some() || it.id.is_none() || !world.chance(40) {
        return;
    }
    let whole = world.chance(15);
    let gone: Vec<usize> = {
        let peers = world.peers.lock();
        let all = peers.iter().enumerate();
        all.filter(|(no, other)| *no == peer || (whole && other.app == it.app))
            .filter(|(_, other)| other.deleted.is_none())
            .map(|(no, _)| no)
            .collect()
    };
    for no in &gone {
        world.peers.lock()[*no].unsure = true;
    }
    let path = if whole {
        format!("/app/{}", app_uid(it.app))
    } else {
        format!("/app/{}/endpoint/ep-{peer}", app_uid(it.app))
    };
    if done(world, process, ("DELETE", &path), String::new()).await {
        let now = world.clock.passed();
        world.saw(if whole {
            "an application deleted"
        } else {
            "an endpoint deleted"
        });
        for no in gone {
            let it = &mut world.peers.lock()[no];
            it.deleted = Some(now);
            it.unsure = false;
        }
    }
}

/// A message that was acknowledged: its id and place.
fn some_message(world: &World) -> Option<(usize, String, Delivery)> {
    let history = world.history.lock();
    let len = history.publishes.len();
    let publish = (len > 0).then(|| &history.publishes[world.roll(0..len)])?;
    let (id, targets) = publish.accepted.iter().next()?;
    let peers = world.peers.lock();
    let target = targets.iter().nth(world.roll(0..targets.len().max(1)))?;
    let (no, peer) = peers
        .iter()
        .enumerate()
        .find(|(_, peer)| peer.id.as_ref() == Some(target))?;
    if peer.deleted.is_some() {
        return None;
    }
    let (_, at) = MessageId::parse(id).unwrap().place();
    let endpoint = peer.no?;
    Some((no, id.clone(), Delivery { at, endpoint }))
}

async fn again(world: &Arc<World>, process: &Process, _peer: usize) {
    let Some((no, id, delivery)) = some_message(world) else {
        return;
    };
    *world.history.lock().again.entry(delivery).or_default() += 1;
    let app = app_uid(world.peers.lock()[no].app);
    let path = format!("/app/{app}/msg/{id}/endpoint/ep-{no}/resend");
    if done(world, process, ("POST", &path), String::new()).await {
        world.saw("a resend");
    }
}

async fn cancel(world: &Arc<World>, process: &Process) {
    let Some((no, id, delivery)) = some_message(world) else {
        return;
    };
    world.history.lock().cancelled.insert(delivery);
    let app = app_uid(world.peers.lock()[no].app);
    let path = format!("/app/{app}/msg/{id}/endpoint/ep-{no}/cancel");
    if done(world, process, ("POST", &path), String::new()).await {
        world.saw("a cancellation");
    }
}

/// Everything dead, or everything missing, of one endpoint once more.
async fn recover(world: &Arc<World>, process: &Process, peer: usize) {
    let it = world.peers.lock()[peer].clone();
    let (Some(endpoint), None) = (it.no, it.deleted) else {
        return;
    };
    *world.history.lock().recovered.entry(endpoint).or_default() += 1;
    let verb = if world.chance(70) {
        "recover"
    } else {
        "replay-missing"
    };
    let path = format!("/app/{}/endpoint/ep-{peer}/{verb}", app_uid(it.app));
    let body = json!({"since": "2026-01-05T00:00:00Z"}).to_string();
    if done(world, process, ("POST", &path), body).await {
        world.saw("a recovery of what was dead");
    }
}
