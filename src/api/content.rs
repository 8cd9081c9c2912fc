//! Taking content away on request: payloads of messages, answers to attempts (ADR 0321).
//!
//! Before the answer the record is written again without its content, so nobody reads it any more, and
//! what of the message was not delivered is cancelled. The bytes of the older version leave the disk
//! with a scrub, which housekeeping begins within ten minutes; that one is wanted is stored first, so a
//! restart does not lose it. Backups keep what they copied.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::ApiState;
use super::attempt;
use super::error::Problem;
use super::message;
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::walk::payloads;
use crate::base::task;
use crate::ingest::ItemKind;
use crate::ingest::fields::{Given, sized};
use crate::model::{Delivery, Message};
use crate::store::Content;

/// Messages of one request at most.
const MAX_IDS: usize = 500;
/// The setting that says which scrub is wanted and which was done last.
const SETTING: &str = "scrub";

/// Whether a scrub is under way. Whoever takes content away holds it for reading, so that a scrub never
/// begins between the note that one is wanted and the commit.
#[derive(Default)]
pub(super) struct Scrub(RwLock<bool>);

/// Numbers of the scrub that is wanted and of the last one done.
fn numbers(setting: Option<&Value>) -> (u64, u64) {
    let number = |name| setting.and_then(|s| s[name].as_u64()).unwrap_or(0);
    (number("wanted"), number("done"))
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
        self.want_scrub(*running).await?;
        let contents = payloads(messages).chain(further).collect();
        Ok(self.lane.expunge(contents).await?)
    }

    async fn want_scrub(&self, running: bool) -> Result<(), Problem> {
        let (wanted, done) = numbers(self.directory.peek().instance(SETTING));
        if wanted > done && !running {
            return Ok(());
        }
        self.directory
            .carry_out(move |draft| {
                let (wanted, done) = numbers(draft.instance(SETTING));
                let next = json!({ "wanted": wanted + 1, "done": done });
                Ok(draft.put_instance(SETTING, next)?)
            })
            .await
    }

    /// Makes the disk forget what was taken away, if anything was since the last time. Takes as long
    /// as rewriting the store does. Not cancel safe: a scrub that was cut off is done again.
    pub async fn scrub(&self) {
        let wanted = {
            let mut running = self.scrub.0.write().await;
            let (wanted, done) = numbers(self.directory.peek().instance(SETTING));
            if wanted == done || *running {
                return;
            }
            *running = true;
            wanted
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
                let (newest, done) = numbers(draft.instance(SETTING));
                let next = json!({ "wanted": newest, "done": done.max(wanted) });
                Ok::<_, Problem>(draft.put_instance(SETTING, next)?)
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
