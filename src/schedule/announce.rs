//! Operational events: what the operator is told, as ordinary messages of the operator application.
//!
//! They are stored, delivered, retried and listed like every other message. What happens to
//! deliveries of the operator application itself is not announced: it would never end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{error, info, warn};

use super::core::{Announcement, AttemptReport};
use crate::base::{Clock, Timestamp};
use crate::directory::{Directory, Snapshot};
use crate::expression::Facts;
use crate::lane::{self, Lane};
use crate::model::{
    AppNo, ContentType, DisableReason, Endpoint, EndpointNo, Message, Position, SourceNo,
};
use crate::policy::watermark::{Level, Room};
use crate::store::{Accept, AcceptedLoss};

/// Uid of the application that operational events belong to.
pub const OPERATOR: &str = "posthaste-operator";

/// One thing to do for the operator.
enum Errand {
    Announce(Announcement),
    Disable(EndpointNo, DisableReason),
    Loss(AcceptedLoss),
    Source(SourceNo, &'static str, u64),
    Quota(AppNo, u64, Timestamp),
    Watermark(Level, Room),
}

/// Hands announcements over without waiting.
#[derive(Clone)]
pub struct Announcer {
    /// Bounded; when it is full the announcement is dropped and logged: telling must never hold up
    /// delivering. A switched-off endpoint stays off in memory and is judged again after a restart.
    errands: mpsc::Sender<Errand>,
}

/// Tells of sources that fail. Does not keep the teller running: that ends with the scheduler.
#[derive(Clone)]
pub struct SourceNews(mpsc::WeakSender<Errand>);

/// Tells of the room on the disk. Does not keep the teller running.
#[derive(Clone)]
pub struct StoreNews(mpsc::WeakSender<Errand>);

impl StoreNews {
    /// Tells of a level that was reached or left.
    pub fn watermark(&self, level: Level, room: Room) {
        if let Some(errands) = self.0.upgrade() {
            Announcer { errands }.hand(Errand::Watermark(level, room));
        }
    }
}

impl SourceNews {
    /// Tells of a source that has refused so many requests in a row, the last of them for `reason`.
    pub fn failing(&self, source: SourceNo, reason: &'static str, in_a_row: u64) {
        if let Some(errands) = self.0.upgrade() {
            Announcer { errands }.hand(Errand::Source(source, reason, in_a_row));
        }
    }
}

/// Tells of quotas that are used up. Does not keep the teller running.
#[derive(Clone)]
pub struct QuotaNews(mpsc::WeakSender<Errand>);

impl QuotaNews {
    /// Tells that an application has used up its deliveries; the next month begins at `until`.
    pub fn reached(&self, app: AppNo, limit: u64, until: Timestamp) {
        if let Some(errands) = self.0.upgrade() {
            Announcer { errands }.hand(Errand::Quota(app, limit, until));
        }
    }
}

/// Writes announcements: a task of its own, since it waits for the store.
pub struct Teller {
    errands: mpsc::Receiver<Errand>,
    lane: Lane,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
}

impl Announcer {
    /// The two ends.
    pub fn new(lane: Lane, directory: Arc<Directory>, clock: Arc<dyn Clock>) -> (Self, Teller) {
        let (sender, errands) = mpsc::channel(4096);
        (
            Self { errands: sender },
            Teller {
                errands,
                lane,
                directory,
                clock,
            },
        )
    }

    pub(super) fn announce(&self, announcement: Announcement) {
        self.hand(Errand::Announce(announcement));
    }

    pub(super) fn disable(&self, endpoint: EndpointNo, reason: DisableReason) {
        self.hand(Errand::Disable(endpoint, reason));
    }

    /// Tells of an accepted loss, unless that was done before.
    pub fn loss_accepted(&self, loss: AcceptedLoss) {
        self.hand(Errand::Loss(loss));
    }

    /// For whoever knows of failing sources.
    pub fn source_news(&self) -> SourceNews {
        SourceNews(self.errands.downgrade())
    }

    /// For whoever knows of quotas.
    pub fn quota_news(&self) -> QuotaNews {
        QuotaNews(self.errands.downgrade())
    }

    /// For whoever knows of the room on the disk.
    pub fn store_news(&self) -> StoreNews {
        StoreNews(self.errands.downgrade())
    }

    fn hand(&self, errand: Errand) {
        match self.errands.try_send(errand) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                warn!("too many operational events wait; one is dropped");
            }
            Err(TrySendError::Closed(_)) => {
                warn!("the process is ending; an operational event is dropped");
            }
        }
    }
}

impl Teller {
    /// Runs until the announcers are gone: attempts that end during the drain still have their say.
    pub async fn run(mut self) {
        while let Some(errand) = self.errands.recv().await {
            match errand {
                Errand::Announce(announcement) => self.publish(&announcement).await,
                Errand::Disable(endpoint, reason) => self.disable(endpoint, reason).await,
                Errand::Loss(loss) => self.loss(&loss).await,
                Errand::Source(source, reason, in_a_row) => {
                    self.source(source, reason, in_a_row).await;
                }
                Errand::Quota(app, limit, until) => self.quota(app, limit, until).await,
                Errand::Watermark(level, room) => self.watermark(level, room).await,
            }
        }
    }

    /// Writes down that an endpoint is off.
    async fn disable(&self, no: EndpointNo, reason: DisableReason) {
        let now = self.clock.now();
        let changed: Result<(), crate::directory::Error> = self
            .directory
            .change(|draft| {
                let Some(endpoint) = draft.endpoint(no).cloned() else {
                    return Ok(());
                };
                if endpoint.disabled.is_some() || endpoint.deleted.is_some() {
                    return Ok(());
                }
                let endpoint = Endpoint {
                    disabled: Some(reason),
                    updated: now,
                    ..Endpoint::clone(&endpoint)
                };
                draft.put_endpoint(endpoint).map(drop)
            })
            .await;
        match changed {
            Ok(()) => info!(endpoint = no.0, reason = ?reason, "endpoint disabled"),
            Err(cause) => error!(%cause, endpoint = no.0, "endpoint cannot be marked disabled"),
        }
    }

    /// Announces an accepted loss once (`reliability.md` D6): the note that it was is written after
    /// the event, so a crash between the two tells it twice.
    async fn loss(&self, loss: &AcceptedLoss) {
        let name = format!("loss_accepted/{}/{}", loss.lane, loss.at.millis());
        if self.directory.snapshot().instance(&name).is_some() {
            return;
        }
        let range = json!({
            "lane": loss.lane.0,
            "from": loss.last_good.saturating_add(1),
            "to": loss.acknowledged,
        });
        let lost = loss.acknowledged.saturating_sub(loss.last_good);
        let data = json!({ "acceptedAt": loss.at, "atMost": lost, "ranges": [range] });
        if !self.tell("store.loss_accepted", data).await {
            return; // said in the log; the next start tries again
        }
        let noted: Result<(), crate::directory::Error> = self
            .directory
            .change(|draft| draft.put_instance(&name, json!(true)))
            .await;
        if let Err(cause) = noted {
            warn!(%cause, "an accepted loss was announced and will be announced again");
        }
    }

    async fn source(&self, no: SourceNo, reason: &str, in_a_row: u64) {
        let snapshot = self.directory.snapshot();
        let Some(source) = snapshot.source_by_no(no) else {
            return;
        };
        let app = snapshot.app_by_no(source.app).map(|entry| &entry.app);
        let mut data = json!({
            "appId": app.map(|app| app.id), "sourceId": source.id, "provider": source.provider,
            "reason": reason, "failures": in_a_row,
        });
        if let Some(uid) = app.and_then(|app| app.uid.as_ref()) {
            put(&mut data, "appUid", json!(uid));
        }
        self.tell("source.verification_failed", data).await;
    }

    async fn quota(&self, app: AppNo, limit: u64, until: Timestamp) {
        let snapshot = self.directory.snapshot();
        let Some(entry) = snapshot.app_by_no(app) else {
            return;
        };
        let mut data = json!({
            "appId": entry.app.id, "quota": "deliveriesPerMonth", "limit": limit, "resetsAt": until,
        });
        if let Some(uid) = &entry.app.uid {
            put(&mut data, "appUid", json!(uid));
        }
        if let Some(plan) = &entry.app.plan {
            put(&mut data, "plan", json!(plan));
        }
        self.tell("quota.reached", data).await;
    }

    /// Dropped while messages are refused at a disk that is full: the log and the metric say it then.
    async fn watermark(&self, level: Level, room: Room) {
        let mut data = json!({
            "level": level.name(), "usedBytes": room.used, "freeBytes": room.free,
            "reserveBytes": room.reserve,
        });
        if room.budget > 0 {
            put(&mut data, "budgetBytes", json!(room.budget));
        }
        self.tell("store.watermark", data).await;
    }

    async fn publish(&self, announcement: &Announcement) {
        let snapshot = self.directory.snapshot();
        let operator = snapshot.app(OPERATOR).map(|entry| entry.app.no);
        let described = operator.and_then(|no| describe(&snapshot, announcement, no));
        if let Some((kind, data)) = described {
            self.tell(kind, data).await;
        }
    }

    /// Writes an operational event; false if it could not be stored.
    async fn tell(&self, kind: &'static str, data: Value) -> bool {
        let snapshot = self.directory.snapshot();
        let Some(operator) = snapshot.app(OPERATOR) else {
            warn!(
                kind,
                "there is no operator application; an operational event is dropped"
            );
            return false;
        };
        let now = self.clock.now();
        let payload = json!({ "type": kind, "data": data }).to_string();
        let mut targets = Vec::new();
        operator.routes().matching(kind, &[], &mut targets);
        let facts = Facts::new(kind, &[], &[], payload.as_bytes());
        operator.routes().narrow(&facts, &mut targets);
        let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let deliveries = u64::try_from(targets.len()).unwrap_or(u64::MAX);
        let message = Message {
            at: Position::START,
            accepted: now,
            app: operator.app.no,
            event_type: Arc::from(kind),
            content_type: ContentType::Json,
            payload: payload.into(),
            targets,
            labels: None,
        };
        let bytes = bytes.saturating_mul(deliveries);
        operator.load.add(deliveries, bytes);
        self.append(message, kind).await
    }

    /// Patient: a full queue means load, and the operator wants to know of it.
    async fn append(&self, message: Message, kind: &str) -> bool {
        for _ in 0..50 {
            let accept = Accept {
                message: message.clone(),
                idempotency: None,
            };
            let appended = match self.lane.append(vec![accept]) {
                Ok(ticket) => ticket.committed().await.map(drop),
                Err(error) => Err(error),
            };
            match appended {
                Ok(()) => return true,
                Err(lane::Error::Busy) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(cause) => {
                    warn!(%cause, kind, "operational event not stored");
                    return false;
                }
            }
        }
        warn!(kind, "operational event not stored: the store is too busy");
        false
    }
}

/// Type and data of the event (`api.md` section 11); `None` for the operator's own deliveries.
fn describe(
    snapshot: &Snapshot,
    announcement: &Announcement,
    operator: AppNo,
) -> Option<(&'static str, Value)> {
    let (kind, endpoint) = match announcement {
        Announcement::Failing(report) => ("message.attempt.failing", report.endpoint),
        Announcement::Exhausted(report) => ("message.attempt.exhausted", report.endpoint),
        Announcement::Recovered(report) => ("message.attempt.recovered", report.endpoint),
        Announcement::Disabled { endpoint, .. } => ("endpoint.disabled", *endpoint),
    };
    let endpoint = snapshot.endpoint(endpoint)?;
    let app = snapshot.app_by_no(endpoint.app)?;
    if endpoint.app == operator {
        return None;
    }
    let mut data = json!({
        "appId": app.app.id,
        "endpointId": endpoint.id,
    });
    if let Some(uid) = &app.app.uid {
        put(&mut data, "appUid", json!(uid));
    }
    match announcement {
        Announcement::Failing(report)
        | Announcement::Exhausted(report)
        | Announcement::Recovered(report) => attempt_data(&mut data, report),
        Announcement::Disabled { reason, since, .. } => {
            if let Some(uid) = &endpoint.uid {
                put(&mut data, "endpointUid", json!(uid));
            }
            let trigger = if *reason == DisableReason::Manual {
                "manual"
            } else {
                "automatic"
            };
            put(&mut data, "trigger", json!(trigger));
            if let Some(since) = since {
                put(&mut data, "failSince", json!(since));
            }
        }
    }
    Some((kind, data))
}

fn attempt_data(data: &mut Value, report: &AttemptReport) {
    put(data, "msgId", json!(report.message.id()));
    if let Some(event_id) = report.message.event_id() {
        put(data, "msgEventId", json!(event_id));
    }
    let timestamp: Timestamp = report.at;
    let last = json!({
        "id": report.attempt,
        "responseStatusCode": report.status,
        "timestamp": timestamp,
    });
    put(data, "lastAttempt", last);
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}
