//! Replaying a range of time: what endpoints had to get is sent again, to them or to another URL.
//!
//! Owns: what is asked for, the rate, and sending elsewhere. The walk through the history, its background
//! task and its going on after a restart are `walk`'s. Sent elsewhere, a delivery is one request as its
//! endpoint would get it (profile, secret, envelope, headers but credentials), through the same address
//! guard; nothing of it is stored, and no state changes. What of a page was sent before a restart may be
//! sent again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attempt::status;
use super::endpoint::moved;
use super::error::Problem;
use super::history::MessageFilter;
use super::request::{Answer, Cx};
use super::walk::{self, Error, Filter, Kind, Walk};
use super::{ApiState, Rules};
use crate::directory::AppEntry;
use crate::ingest::fields::{self, Given, Wrong};
use crate::ingest::{Item, ItemKind};
use crate::model::{Delivery, Endpoint, EndpointNo, Message, Outcome, TaskId};
use crate::policy::target::Target;

/// Requests a second, if a target is named and no rate.
const DEFAULT_RATE: u32 = 10;
/// Requests a second at most.
const MAX_RATE: u64 = 1000;
/// Endpoints that can be named.
const MAX_ENDPOINTS: usize = 100;

/// Makes a request that belongs to no delivery.
pub trait Elsewhere: Send + Sync {
    /// Sends `message` once, as `endpoint` would get it if it were stored like this. The organisation is
    /// what envelopes name. Nothing is recorded.
    fn send(&self, endpoint: Endpoint, organization: String, message: Arc<Message>) -> Sending<'_>;
}

/// A request under way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// What a replay is, beside its range and filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replay {
    /// Only of these; none = all.
    endpoints: Vec<EndpointNo>,
    /// Deliveries a second.
    rate: Option<u32>,
    /// Where to, if not to the endpoints.
    url: Option<String>,
    /// Requests to `url` that were not answered by 2xx.
    pub(super) failed: u64,
}

impl Replay {
    pub(super) const fn is_elsewhere(&self) -> bool {
        self.url.is_some()
    }
}

/// POST `/app/{app_id}/replay`
pub(super) async fn replay(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let range = walk::read_range(&mut fields);
    let endpoints = fields.set("endpointIds", 1..=MAX_ENDPOINTS, fields::any);
    let types = fields.set("eventTypes", 0..=500, fields::event_type);
    let wanted = fields.number("status", 0..=4).value();
    let rate = fields.number("ratePerSecond", 1..=MAX_RATE).value();
    let rules = cx.state.rules();
    let target = fields.read("target", |value| Ok(target(&value, &rules)));
    fields.finish()?;
    let url = match target {
        Given::Value(url) => Some(url?),
        Given::Absent | Given::Null => None,
    };
    let range = walk::check_range(&cx, range)?;
    let app = cx.app()?;
    let endpoints = named(&app, &endpoints.value().unwrap_or_default())?;
    let rate = rate.and_then(|rate| u32::try_from(rate).ok());
    let replay = Replay {
        endpoints,
        rate: rate.or_else(|| url.as_ref().map(|_| DEFAULT_RATE)),
        url,
        failed: 0,
    };
    let filter = Filter {
        messages: MessageFilter::new(Vec::new(), Vec::new(), types.value().unwrap_or_default()),
        status: wanted.and_then(|n| u8::try_from(n).ok()),
        ..Filter::default()
    };
    let what = (Kind::Replay, Some(replay));
    walk::begin(cx, what, (app.app.no, None), range, filter).await
}

/// The URL of `{url}`, if it may be called.
fn target(value: &Value, rules: &Rules) -> Result<String, Problem> {
    let wrong =
        |(kind, msg): Wrong| -> Problem { Item::body("target", kind, msg).under("url").into() };
    let fields = value.as_object().filter(|fields| fields.len() == 1);
    let url = fields.and_then(|fields| fields.get("url"));
    let Some(url) = url.and_then(Value::as_str) else {
        let msg = "an object with a `url` and nothing else is wanted";
        return Err(Item::body("target", ItemKind::TypeError, msg).into());
    };
    if url.len() > 65_536 {
        return Err(wrong((ItemKind::Limit, "at most 65536 bytes".into())));
    }
    match Target::parse(url, &rules.targets) {
        Ok(_) => Ok(url.to_owned()),
        Err(bad) => Err(wrong((
            super::endpoint::target_kind(&bad),
            bad.to_string().into(),
        ))),
    }
}

/// The endpoints of these ids or uids.
fn named(app: &AppEntry, names: &[String]) -> Result<Vec<EndpointNo>, Problem> {
    let mut found = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let Some(endpoint) = app.endpoint(name) else {
            let msg = "no endpoint with this id in this application";
            let item = Item::body("endpointIds", ItemKind::ValueError, msg);
            return Err(item.under(place.to_string()).into());
        };
        found.push(endpoint.no);
    }
    Ok(found)
}

/// Sends the deliveries of a page, at the rate that was asked for; answers how many there were.
pub(super) async fn send(
    state: &ApiState,
    id: TaskId,
    walk: &mut Walk,
    found: &[Message],
) -> Result<usize, Error> {
    let mut replay = walk.replay.clone().unwrap_or_default();
    let mut taken = 0;
    for message in found.iter().filter(|m| walk.filter.messages.keeps(m)) {
        for endpoint in wanted(state, walk, &replay, message).await? {
            if state.tasks.is_cancelled(id) || message.has_ended(state.clock.now()) {
                break;
            }
            match replay.url.clone() {
                None => {
                    let delivery = Delivery {
                        at: message.at,
                        endpoint: endpoint.no,
                    };
                    taken += walk::hand_over(state, vec![delivery]).await?;
                }
                Some(url) => {
                    taken += 1;
                    let sent = elsewhere(state, &endpoint, url, message).await;
                    replay.failed += u64::from(!sent);
                }
            }
            if let Some(rate) = replay.rate {
                tokio::time::sleep(Duration::from_secs(1) / rate).await;
            }
        }
    }
    walk.replay = Some(replay);
    Ok(taken)
}

/// The endpoints whose delivery of this message is asked for.
async fn wanted(
    state: &ApiState,
    walk: &Walk,
    replay: &Replay,
    message: &Message,
) -> Result<Vec<Arc<Endpoint>>, Error> {
    let snapshot = state.directory.snapshot();
    let mut found = Vec::new();
    for no in &message.targets {
        let named = replay.endpoints.is_empty() || replay.endpoints.contains(no);
        let endpoint = snapshot.endpoint(*no).filter(|ep| ep.deleted.is_none());
        let Some(endpoint) = endpoint.filter(|_| named) else {
            continue;
        };
        if let Some(wanted) = walk.filter.status {
            let delivery = Delivery {
                at: message.at,
                endpoint: *no,
            };
            let view = state.schedule.delivery(delivery).await?;
            if status(view.state, true).0 != wanted {
                continue;
            }
        }
        found.push(Arc::clone(endpoint));
    }
    Ok(found)
}

/// One request to another URL; true = answered by 2xx.
async fn elsewhere(state: &ApiState, endpoint: &Endpoint, url: String, message: &Message) -> bool {
    let Some(outgoing) = &state.elsewhere else {
        return false;
    };
    let snapshot = state.directory.snapshot();
    let Some(app) = snapshot.app_by_no(endpoint.app) else {
        return false;
    };
    let uid = app.app.uid.clone();
    let organization = uid.unwrap_or_else(|| app.app.id.to_string());
    let moved = moved(endpoint, url);
    let message = Arc::new(message.clone());
    let outcome = outgoing.send(moved, organization, message).await;
    outcome.failure.is_none()
}
