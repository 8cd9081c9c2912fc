//! The endpoints: healthy, slow, broken, hostile. They judge what they see as they see it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use posthaste::base::Clock;
use posthaste::client::{Exchange, Net, Request};
use posthaste::model::{EndpointNo, FailureKind, Order};
use posthaste::policy::outcome;
use posthaste::policy::target::TargetHost;
use sha2::Sha256;

use super::history::Received;
use super::world::{GRACE, World};

/// What an endpoint does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers(u16),
    /// With `Retry-After`, in seconds.
    Asks(u16, u32),
    Hangs,
    Refuses,
    /// Reads the request, acts on it or not, and breaks the connection.
    Breaks {
        acts: bool,
    },
    /// Now 200, now 500.
    Flaps,
}

/// Everything about one endpoint, whoever knows it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) app: usize,
    /// Its id in the API, once it is known.
    pub(crate) id: Option<String>,
    pub(crate) no: Option<EndpointNo>,
    pub(crate) order: Order,
    pub(crate) schedule: Vec<u64>,
    pub(crate) mood: Mood,
    /// Shortest and longest answer, milliseconds.
    pub(crate) takes: (u64, u64),
    pub(crate) under_way: usize,
    /// Attempts it may see at the same time, from which millisecond on.
    pub(crate) limits: Vec<(u64, u16)>,
    /// Secrets that may sign: from when, until when.
    pub(crate) secrets: Vec<(String, u64, u64)>,
    /// The answer to its switching off came at this millisecond.
    pub(crate) off: Option<u64>,
    pub(crate) deleted: Option<u64>,
    /// A change was asked for whose answer never came.
    pub(crate) unsure: bool,
}

impl Peer {
    pub(crate) fn limit_at(&self, at: u64) -> u16 {
        let mut inside = self.limits.iter().rev();
        inside.find(|(from, _)| *from <= at).map_or(0, |(_, n)| *n)
    }

    /// A change is asked for: until it is known to be in force, either limit may hold.
    pub(crate) fn limit_asked(&mut self, at: u64, wanted: u16) {
        let before = self.limit_at(at);
        self.limits.push((at, before.max(wanted)));
    }

    pub(crate) fn limit_set(&mut self, at: u64, limit: u16) {
        self.limits.push((at + GRACE, limit));
    }
}

/// The network between the gateway and its endpoints.
pub(crate) struct FakeNet(pub(crate) Arc<World>);

impl Net for FakeNet {
    fn send(&self, request: Request) -> impl Future<Output = Exchange> + Send {
        let world = Arc::clone(&self.0);
        async move {
            if world.is_dead() {
                std::future::pending::<()>().await;
            }
            exchange(&world, request).await
        }
    }
}

async fn exchange(world: &World, request: Request) -> Exchange {
    let peer = number(&request);
    let (entry, mood, takes) = arrive(world, peer, &request);
    let timeout = u64::try_from(request.timeout.as_millis()).unwrap();
    let (takes, mood) = match mood {
        Mood::Hangs => (timeout, Mood::Hangs),
        _ if takes >= timeout => (timeout, Mood::Hangs),
        mood => (takes, mood),
    };
    tokio::time::sleep(Duration::from_millis(takes)).await;
    if world.is_dead() {
        std::future::pending::<()>().await;
    }
    let (sent, outcome) = match mood {
        Mood::Answers(status) => (status, outcome::of_status(status, None)),
        Mood::Asks(status, secs) => (status, outcome::of_status(status, Some(secs))),
        Mood::Flaps => {
            let status = if world.chance(50) { 200 } else { 500 };
            (status, outcome::of_status(status, None))
        }
        Mood::Hangs => (0, outcome::of_failure(FailureKind::TimeoutTotal)),
        Mood::Refuses => (0, outcome::of_failure(FailureKind::Refused)),
        Mood::Breaks { acts } => (
            if acts { 200 } else { 0 },
            outcome::of_failure(FailureKind::Reset),
        ),
    };
    let now = world.clock.passed();
    let mut history = world.history.lock();
    let received = &mut history.received[entry];
    received.end = Some(now);
    received.sent = sent;
    received.seen = outcome.status != 0;
    drop(history);
    world.peers.lock()[peer].under_way -= 1;
    if matches!(mood, Mood::Breaks { acts: true }) {
        world.saw("a 2xx that the gateway never saw");
    }
    Exchange {
        outcome,
        response: Bytes::from_static(b"ok"),
        duration_ms: u32::try_from(takes).unwrap(),
        broke_early: outcome.failure == Some(FailureKind::Reset) && takes < 1000,
        resolver_down: false,
    }
}

/// The host is `ep7.example`.
fn number(request: &Request) -> usize {
    let host = match request.target.host() {
        TargetHost::Name(name) | TargetHost::Localhost(name) => name.to_string(),
        TargetHost::Ip(ip) => ip.to_string(),
    };
    let digits: String = host.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[expect(clippy::too_many_lines, reason = "one arm per mood of a receiver")]
fn arrive(world: &World, peer: usize, request: &Request) -> (usize, Mood, u64) {
    let now = world.clock.passed();
    let header = |name: &str| {
        let value = request.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (id, stamp) = (header("webhook-id"), header("webhook-timestamp"));
    let wall = world.clock.now().seconds();
    if stamp
        .parse::<u64>()
        .map_or(true, |at| at.abs_diff(wall) > 5)
    {
        world.broke(
            "C4 authenticity",
            format!("timestamp {stamp}, it is {wall}"),
        );
    }
    let mut peers = world.peers.lock();
    let it = &mut peers[peer];
    it.under_way += 1;
    let limit = usize::from(it.limit_at(now));
    if it.under_way > limit {
        let under_way = it.under_way;
        world.broke(
            "C5 concurrency",
            format!("endpoint {peer}: {under_way} attempts, at most {limit}"),
        );
    }
    if it.under_way == limit {
        world.saw("an endpoint at its limit");
    }
    if it.off.or(it.deleted).is_some_and(|off| off + GRACE < now) {
        world.broke(
            "C9 agreement",
            format!("endpoint {peer} is off and was called"),
        );
    }
    let live: Vec<_> = it
        .secrets
        .iter()
        .filter(|(_, from, until)| (*from..=*until).contains(&now))
        .collect();
    let signed = format!("{id}.{stamp}.");
    let signatures = header("webhook-signature");
    let verifies = live.iter().any(|(secret, ..)| {
        let wanted = signature(secret, signed.as_bytes(), &request.body);
        signatures.split(' ').any(|one| one == wanted)
    });
    if !verifies {
        world.broke(
            "C4 authenticity",
            format!(
                "endpoint {peer}: no signature by one of {} keys",
                live.len()
            ),
        );
    }
    if signatures.contains(' ') {
        world.saw("a request signed with an old secret too");
    }
    let takes = world.roll(it.takes.0..=it.takes.1);
    let mood = it.mood;
    drop(peers);
    let mut history = world.history.lock();
    history.received.push(Received {
        peer,
        id,
        body: request.body.clone(),
        start: now,
        end: None,
        sent: 0,
        seen: false,
        cut: false,
    });
    (history.received.len() - 1, mood, takes)
}

/// Standard Webhooks `v1`, made by other code than the gateway's.
fn signature(secret: &str, head: &[u8], body: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = base64
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(head);
    mac.update(body);
    format!("v1,{}", base64.encode(mac.finalize().into_bytes()))
}
