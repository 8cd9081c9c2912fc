//! Providers of a trial: they sign events as Stripe, GitHub, Standard Webhooks and HubSpot do, post
//! them to the URLs of sources, and send again what got no 2xx. Recorded as the calls of the
//! [`producer`](super::producer): one call for each event of a request.
//!
//! Own code for the signatures, so that a fault in the gateway's verification is not mirrored here.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use sha2::Sha256;

use super::history::Outcome;
use super::producer::{Asked, Caller};
use crate::connection::{Answer, Connection, Template, local_runtime};

/// `server.public_urls` of a gateway whose sources are called here: a signature may cover it.
pub(crate) const PUBLIC: &str = "https://gateway.torture.test";
/// Events of a request of a provider that sends lists.
const BATCH: u64 = 5;
/// Events that each connection keeps, to send them once more.
const KEPT: usize = 8;
/// After an answer that was no 2xx.
const PAUSE: Duration = Duration::from_millis(20);
/// The key of all of them.
const SECRET: &str = "dG9ydHVyZS10b3J0dXJlLXRvcnR1cmUtMDEyMzQ1Njc=";

/// How a provider signs, and what it does when it gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HMAC over time and body, hex, in one header; the id in the body.
    Stripe,
    /// HMAC over the body, hex; the id in a header that is not signed. Never sends anything again.
    GitHub,
    /// HMAC over id, time and body, Base64.
    Standard,
    /// HMAC over method, URL, body and time, Base64; a list of events.
    HubSpot,
}

impl Scheme {
    pub(crate) const ALL: [Self; 4] = [Self::Stripe, Self::GitHub, Self::Standard, Self::HubSpot];

    /// The provider's id at the gateway.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::GitHub => "github",
            Self::Standard => "standard_webhooks",
            Self::HubSpot => "hubspot",
        }
    }

    /// What a source of it holds.
    pub(crate) fn secrets(self) -> Value {
        match self {
            Self::Stripe => json!({"endpoint_secret": SECRET}),
            Self::GitHub => json!({"webhook_secret": SECRET}),
            Self::Standard => json!({"secret": format!("whsec_{SECRET}")}),
            Self::HubSpot => json!({"client_secret": SECRET}),
        }
    }

    fn resends(self) -> bool {
        self != Self::GitHub
    }

    /// The headers of a request with this body at `now`, unix microseconds.
    fn headers(self, path: &str, id: &str, body: &[u8], now: u64) -> anyhow::Result<HeaderMap> {
        let (seconds, millis) = ((now / 1_000_000).to_string(), (now / 1000).to_string());
        let seconds_at = seconds.as_bytes();
        let text = SECRET.as_bytes();
        let pairs: Vec<(&'static str, String)> = match self {
            Self::Stripe => {
                let mac = hex(&mac(text, &[seconds_at, b".", body])?);
                vec![("stripe-signature", format!("t={seconds},v1={mac}"))]
            }
            Self::GitHub => {
                let mac = hex(&mac(text, &[body])?);
                vec![
                    ("x-github-event", "push".to_owned()),
                    ("x-github-delivery", id.to_owned()),
                    ("x-hub-signature-256", format!("sha256={mac}")),
                ]
            }
            Self::Standard => {
                let parts = [id.as_bytes(), b".", seconds_at, b".", body];
                let mac = STANDARD.encode(mac(&STANDARD.decode(SECRET)?, &parts)?);
                vec![
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", seconds),
                    ("webhook-signature", format!("v1,{mac}")),
                ]
            }
            Self::HubSpot => {
                let url = format!("{PUBLIC}{path}");
                let parts = [b"POST".as_slice(), url.as_bytes(), body, millis.as_bytes()];
                let mac = STANDARD.encode(mac(text, &parts)?);
                vec![
                    ("x-hubspot-request-timestamp", millis),
                    ("x-hubspot-signature-v3", mac),
                ]
            }
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_str(&value)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> anyhow::Result<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).context("the secret cannot be a key")?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A source at the gateway, and who calls it.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) scheme: Scheme,
    /// Uid of its application.
    pub(crate) app: String,
    /// `/in/…`
    pub(crate) path: String,
    /// Bytes of filling in an event.
    pub(crate) size: usize,
}

/// One request of a provider: its events and the body they stand in.
#[derive(Debug, Clone)]
pub(crate) struct Shipment {
    provider: Provider,
    events: Vec<Asked>,
    /// The provider's id of the request, or of its one event.
    id: String,
    body: Bytes,
}

impl Provider {
    /// New events.
    fn ship(&self, caller: &Caller) -> Shipment {
        let count = match self.scheme {
            Scheme::HubSpot => BATCH,
            Scheme::Stripe | Scheme::GitHub | Scheme::Standard => 1,
        };
        let events: Vec<Asked> = (0..count).map(|_| self.event(caller)).collect();
        let bodies: Vec<&[u8]> = events.iter().map(|one| one.payload.as_ref()).collect();
        let body = match self.scheme {
            Scheme::HubSpot => [b"[".as_slice(), &bodies.join(&b", "[..]), b"]"].concat(),
            Scheme::Stripe | Scheme::GitHub | Scheme::Standard => bodies.concat(),
        };
        let first = events.first().and_then(|one| one.key.clone());
        Shipment {
            provider: self.clone(),
            id: first.unwrap_or_default(),
            events,
            body: body.into(),
        }
    }

    fn event(&self, caller: &Caller) -> Asked {
        let (request, now) = (caller.number(), caller.clock.now());
        // Unique over histories on the same data directory.
        let id = format!("{now}-{request}");
        let pad = "x".repeat(self.size);
        let payload = match self.scheme {
            Scheme::Stripe => json!({"id": id, "type": "torture.event", "pad": pad}),
            Scheme::GitHub => json!({"action": "torture", "at": id, "pad": pad}),
            Scheme::Standard => json!({"type": "torture.event", "data": {"at": id, "pad": pad}}),
            Scheme::HubSpot => {
                json!({
                    "eventId": id, "subscriptionId": 1, "objectId": request, "occurredAt": now,
                    "subscriptionType": "contact.creation", "pad": pad,
                })
            }
        };
        Asked {
            request,
            app: self.app.clone(),
            payload: Bytes::from(payload.to_string()),
            key: Some(id),
            probe: false,
        }
    }
}

impl Shipment {
    /// Sends it once, signed anew, and records that; `id` is what an unsigned header says it is.
    async fn send(
        &self,
        caller: &Caller,
        connection: &mut Option<Connection>,
        id: &str,
    ) -> anyhow::Result<Outcome> {
        let provider = &self.provider;
        let now = caller.clock.now();
        let headers = provider
            .scheme
            .headers(&provider.path, id, &self.body, now)?;
        let template = Template::new(Method::POST, caller.address, &provider.path, None)?;
        let request = template.with_headers(&headers).request(self.body.clone());
        let exchange = async {
            if connection.is_none() {
                *connection = Some(Connection::open(caller.address, true).await?);
            }
            let open = connection.as_mut().context("not connected")?;
            open.send(request).await
        };
        let outcome = caller.recorded(&self.events, exchange, outcome).await?;
        if outcome != Outcome::Taken {
            *connection = None;
        }
        Ok(outcome)
    }

    /// Sends what was taken once more, as a provider that missed the answer does; or, where the id is
    /// not signed, as a thief of one request who gives it another.
    async fn replay(
        &self,
        caller: &Caller,
        connection: &mut Option<Connection>,
    ) -> anyhow::Result<Outcome> {
        let id = match self.provider.scheme {
            Scheme::GitHub => format!("stolen-{}", self.id),
            Scheme::Stripe | Scheme::Standard | Scheme::HubSpot => self.id.clone(),
        };
        self.send(caller, connection, &id).await
    }
}

fn outcome(answer: &Answer) -> Outcome {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return Outcome::Taken;
    }
    if answer.status.is_client_error() {
        return Outcome::Refused { status };
    }
    let text = String::from_utf8_lossy(&answer.body);
    Outcome::Unknown {
        why: format!("{status}: {text}"),
    }
}

/// What providers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Shipments that were taken, the oldest of each connection.
    pub(crate) taken: Vec<Shipment>,
    /// Requests with a 4xx, although they were signed well.
    pub(crate) refused: Vec<(Scheme, Outcome)>,
}

impl Seen {
    /// Whether something of every scheme was taken.
    pub(crate) fn all_schemes(&self) -> bool {
        let taken = |scheme| self.taken.iter().any(|one| one.provider.scheme == scheme);
        Scheme::ALL.into_iter().all(taken)
    }
}

/// Providers that send until they are stopped.
pub(crate) struct Providers {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<Seen>>>,
}

impl Providers {
    /// Starts `connections` of each provider on a thread of their own, with a pause after each request.
    pub(crate) fn start(
        caller: &Caller,
        providers: &[Provider],
        connections: usize,
        pause: Duration,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (caller, told) = (caller.clone(), Arc::clone(&stop));
        let all: Vec<Provider> = providers
            .iter()
            .flat_map(|one| std::iter::repeat_n(one.clone(), connections))
            .collect();
        let thread = std::thread::Builder::new()
            .name("oracle-providers".to_owned())
            .spawn(move || provide(&caller, &all, pause, &told))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Lets requests under way end and stops. An error means that the record is incomplete.
    pub(crate) fn stop(mut self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread
            .join()
            .map_err(|_| anyhow!("the providers' thread panicked"))?
    }
}

impl Drop for Providers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends what was taken before once more; answers what was not taken again.
pub(crate) fn replay(caller: &Caller, taken: &[Shipment]) -> anyhow::Result<Vec<Outcome>> {
    local_runtime()?.block_on(async {
        let (mut connection, mut wrong) = (None, Vec::new());
        for shipment in taken {
            let outcome = shipment.replay(caller, &mut connection).await?;
            wrong.extend((outcome != Outcome::Taken).then_some(outcome));
        }
        Ok(wrong)
    })
}

fn provide(
    caller: &Caller,
    providers: &[Provider],
    pause: Duration,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Seen> {
    let seen: Rc<RefCell<Seen>> = Rc::default();
    local_runtime()?.block_on(async {
        let users: Vec<_> = providers
            .iter()
            .map(|provider| {
                let (caller, provider) = (caller.clone(), provider.clone());
                let (stop, seen) = (Arc::clone(stop), Rc::clone(&seen));
                tokio::task::spawn_local(async move {
                    user(&caller, &provider, pause, &stop, &seen).await
                })
            })
            .collect();
        for user in users {
            user.await??;
        }
        anyhow::Ok(())
    })?;
    Ok(seen.take())
}

async fn user(
    caller: &Caller,
    provider: &Provider,
    pause: Duration,
    stop: &AtomicBool,
    seen: &RefCell<Seen>,
) -> anyhow::Result<()> {
    let (mut connection, mut kept) = (None, 0);
    while !stop.load(Ordering::Relaxed) {
        let shipment = provider.ship(caller);
        loop {
            let outcome = shipment.send(caller, &mut connection, &shipment.id).await?;
            match outcome {
                Outcome::Taken if kept < KEPT => {
                    kept += 1;
                    seen.borrow_mut().taken.push(shipment.clone());
                }
                Outcome::Refused { .. } => {
                    let refused = (provider.scheme, outcome.clone());
                    seen.borrow_mut().refused.push(refused);
                }
                _ => {}
            }
            let is_unknown = matches!(outcome, Outcome::Unknown { .. });
            if !is_unknown || !provider.scheme.resends() || stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_s_own_example_has_github_s_signature() {
        // docs.github.com, "Validating webhook deliveries".
        let mac = mac(b"It's a Secret to Everybody", &[b"Hello, World!"]).unwrap();
        assert_eq!(
            hex(&mac),
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn each_provider_signs_what_its_scheme_covers_and_nothing_else() {
        let signed = |scheme: Scheme, path: &str, id: &str, body: &[u8], now: u64| {
            let headers = scheme.headers(path, id, body, now).unwrap();
            let signature = headers
                .iter()
                .find(|(name, _)| name.as_str().contains("signature"));
            signature.unwrap().1.clone()
        };
        for scheme in Scheme::ALL {
            let first = signed(scheme, "/in/a", "1", b"{}", 1_000_000);
            let differs = |path, id, body, now| signed(scheme, path, id, body, now) != first;
            assert!(differs("/in/a", "1", b"[]", 1_000_000), "{scheme:?}");
            let has_time = scheme != Scheme::GitHub;
            assert_eq!(differs("/in/a", "1", b"{}", 9_000_000), has_time);
            assert_eq!(
                differs("/in/b", "1", b"{}", 1_000_000),
                scheme == Scheme::HubSpot
            );
            assert_eq!(
                differs("/in/a", "2", b"{}", 1_000_000),
                scheme == Scheme::Standard
            );
        }
    }
}
