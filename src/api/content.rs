//! Taking content away on request: payloads of messages, answers to attempts (ADR 0321).
//!
//! Before the answer the record is written again without its content, so nobody reads it any more, and
//! what of the message was not delivered is cancelled. The bytes of the older version leave the disk
//! with a scrub, which housekeeping begins within ten minutes; that one is wanted is stored first, so a
//! restart does not lose it. What went by its time alone ([`super::ending`]) asks for one once a day at most.
//! Backups keep what they copied.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::ApiState;
use super::attempt;
use super::error::{Code, Problem};
use super::message;
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::walk::payloads;
use crate::base::{Timestamp, task};
use crate::directory::Snapshot;
use crate::ingest::ItemKind;
use crate::ingest::fields::{Given, sized};
use crate::model::{Delivery, Message};
use crate::store::{Content, Ended, PayloadEnd};

/// Messages of one request at most.
const MAX_IDS: usize = 500;
/// The setting that says which scrub is wanted and which was done last.
const SETTING: &str = "scrub";

/// What was taken away by time alone makes the store be rewritten this often at most.
const BY_TIME: Duration = Duration::from_secs(86_400);

/// Whether a scrub is under way. Whoever takes content away holds it for reading, so that a scrub never
/// begins between the note that one is wanted and the commit.
#[derive(Default)]
pub(super) struct Scrub(RwLock<bool>);

/// Why content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked for it.
    Request,
    /// The payload's time is over.
    Time,
}

/// Numbers of the scrub that is wanted and of the last one done, and the same for what was taken away
/// by time alone, which waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    #[serde(default)]
    wanted: u64,
    #[serde(default)]
    done: u64,
    #[serde(default, skip_serializing_if = "is_none")]
    ended: u64,
    #[serde(default, skip_serializing_if = "is_none")]
    ended_done: u64,
    /// When the store was last rewritten; stored if payloads have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewritten: Option<Timestamp>,
}

const fn is_none(number: &u64) -> bool {
    *number == 0
}

impl Numbers {
    fn of(snapshot: &Snapshot) -> Self {
        let setting = snapshot.instance(SETTING).cloned();
        let read = setting.map(serde_json::from_value);
        read.and_then(Result::ok).unwrap_or_default()
    }

    /// Asks for a scrub, unless one is asked for that does not run yet.
    const fn want(mut self, why: Why, running: bool) -> Option<Self> {
        let (wanted, done) = match why {
            Why::Request => (&mut self.wanted, self.done),
            Why::Time => (&mut self.ended, self.ended_done),
        };
        if *wanted > done && !running {
            return None;
        }
        *wanted += 1;
        Some(self)
    }

    /// Whether a scrub should begin. A clock that went back does not put it off.
    fn is_due(self, now: Timestamp) -> bool {
        let waited = |last: Timestamp| now < last || now.since(last) >= BY_TIME;
        let by_time = self.ended != self.ended_done && self.rewritten.is_none_or(waited);
        self.wanted != self.done || by_time
    }

    /// After a scrub that began at `began`, when the numbers were `then`.
    fn scrubbed(mut self, then: Self, began: Timestamp) -> Self {
        self.done = self.done.max(then.wanted);
        self.ended_done = self.ended_done.max(then.ended);
        self.rewritten = (self.ended > 0).then_some(began);
        self
    }

    fn value(self) -> Result<Value, Problem> {
        serde_json::to_value(self)
            .map_err(|_| Problem::new(Code::Server, "The number of a scrub cannot be stored."))
    }
}

impl ApiState {
    /// Cancels what of these messages is not finished and takes their payloads away, and `further`
    /// content with them; answers for each whether it was there.
    pub(super) async fn expunge(
        &self,
        messages: &[Message],
        further: Vec<Content>,
    ) -> Result<Vec<bool>, Problem> {
        let mut open = Vec::new();
        for message in messages {
            let at = message.at;
            let targets = message.targets.iter();
            open.extend(targets.map(|&endpoint| Delivery { at, endpoint }));
            let tried = self.reader.attempts(at, None)?;
            let others = tried.iter().map(|attempt| attempt.endpoint);
            open.extend(others.map(|endpoint| Delivery { at, endpoint }));
        }
        open.sort_unstable();
        open.dedup();
        for page in open.chunks(100) {
            self.schedule.cancel(page.to_vec()).await?;
        }
        let running = self.scrub.0.read().await;
        self.want_scrub(Why::Request, *running).await?;
        let contents = payloads(messages).chain(further).collect();
        Ok(self.lane.expunge(contents).await?)
    }

    /// Deals with ends of payloads; what is taken away asks for a scrub before.
    pub(super) async fn end(&self, ends: Vec<(PayloadEnd, Ended)>) -> Result<(), Problem> {
        let running = self.scrub.0.read().await;
        if ends.iter().any(|(_, ended)| *ended == Ended::TakenAway) {
            self.want_scrub(Why::Time, *running).await?;
        }
        Ok(self.lane.end_payloads(ends).await?)
    }

    async fn want_scrub(&self, why: Why, running: bool) -> Result<(), Problem> {
        let numbers = Numbers::of(&self.directory.peek());
        if numbers.want(why, running).is_none() {
            return Ok(());
        }
        self.directory
            .carry_out(move |draft| match Numbers::of(draft).want(why, running) {
                Some(next) => Ok(draft.put_instance(SETTING, next.value()?)?),
                None => Ok(()),
            })
            .await
    }

    /// Makes the disk forget what was taken away, if anything was since the last time; what went by its
    /// time alone waits until the last rewriting is a day old. Takes as long as rewriting the store does.
    /// Not cancel safe: a scrub that was cut off is done again.
    pub async fn scrub(&self) {
        let at = self.clock.now();
        let then = {
            let mut running = self.scrub.0.write().await;
            let then = Numbers::of(&self.directory.peek());
            if !then.is_due(at) || *running {
                return;
            }
            *running = true;
            then
        };
        let began = self.clock.monotonic();
        let scrubbed = self.rewrite().await;
        *self.scrub.0.write().await = false;
        if let Err(why) = scrubbed {
            tracing::warn!(why, "the store was not rewritten; it is tried again");
            return;
        }
        let noted = self
            .directory
            .carry_out(move |draft| {
                let next = Numbers::of(draft).scrubbed(then, at);
                Ok::<_, Problem>(draft.put_instance(SETTING, next.value()?)?)
            })
            .await;
        let took = self.clock.monotonic().saturating_sub(began);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match noted {
            Ok(()) => tracing::info!(took_ms, "what was expunged has left the disk"),
            Err(_) => tracing::warn!(took_ms, "the store was rewritten; it will be once more"),
        }
    }

    async fn rewrite(&self) -> Result<(), String> {
        while self.lane.turn_over().await.map_err(|e| e.to_string())? {
            tokio::task::yield_now().await;
        }
        let reader = std::sync::Arc::clone(&self.reader);
        let done = task::blocking(move || reader.scrub()).await;
        match done {
            Some(done) => done.map_err(|error| error.to_string()),
            None => Err(String::from("the rewriting ended early")),
        }
    }
}

/// DELETE `/app/{app_id}/msg/{msg_id}/content`
pub(super) async fn of_message(cx: Cx) -> Answer {
    let app = cx.app()?;
    let message = message::find(&cx, &app)?;
    cx.state.expunge(&[message], Vec::new()).await?;
    Ok(Reply::empty())
}

/// DELETE `/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content`
pub(super) async fn of_attempt(cx: Cx) -> Answer {
    let app = cx.app()?;
    let (_, attempt, _) = attempt::find(&cx, &app)?;
    let delivery = Delivery {
        at: attempt.at,
        endpoint: attempt.endpoint,
    };
    let content = Content::Response(delivery, attempt.no);
    cx.state.expunge(&[], vec![content]).await?;
    Ok(Reply::empty())
}

/// POST `/app/{app_id}/msg/bulk-expunge`: `{ids}`, 1 to 500, ids or event ids.
pub(super) async fn bulk(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let ids = fields.set("ids", 1..=MAX_IDS, sized(1, 256));
    if matches!(ids, Given::Absent | Given::Null) && !fields.has_mistake("ids") {
        fields.wrong("ids", (ItemKind::Missing, "this field is required".into()));
    }
    fields.finish()?;
    let app = cx.app()?;
    let mut results = BTreeMap::new();
    let mut found = Vec::new();
    for id in ids.value().unwrap_or_default() {
        match message::find_by(&cx, &app, &id)? {
            Some(message) => {
                found.push(message);
                results.insert(id, "expunged");
            }
            None => {
                results.insert(id, "not-found");
            }
        }
    }
    cx.state.expunge(&found, Vec::new()).await?;
    let shown = json!({ "results": results });
    Ok(Reply::json(StatusCode::OK, &shown))
}
