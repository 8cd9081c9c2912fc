//! Dead deliveries of an application, grouped by endpoint and failure, and what can be done with a group.
//!
//! A bucket is named `{endpoint id}.{failure}`. Nothing is stored for it: the list of attempts says which
//! were the last ones, so a bucket is empty once its deliveries were retried or discarded. Retry and
//! discard are background tasks, the walks of [`super::walk`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::attempt::{attempt_scan, failure_name};
use super::error::Problem;
use super::history::Bounds;
use super::page::Paging;
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::walk::{self, Kind};
use crate::base::Timestamp;
use crate::directory::AppEntry;
use crate::model::{
    Attempt, AttemptId, Delivery, Endpoint, EndpointId, EndpointNo, FailureKind, Message,
    MessageId, Verdict,
};
use crate::store::{self, ListKey, ListedAttempt, Page, Reader};

/// Attempts looked at for the groups of one application; beyond them the counts are lower bounds.
const BUDGET: usize = 20_000;
/// Attempts read at a time.
const STEP: usize = 500;
/// An attempt in a list that left its delivery dead.
const DEAD: u8 = 2;

#[derive(Serialize)]
struct Groups {
    data: Vec<Group>,
    /// False if there are more attempts than were looked at: the counts are lower bounds then.
    complete: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    id: String,
    endpoint_id: EndpointId,
    failure: &'static str,
    deliveries: u64,
    oldest: Timestamp,
    newest: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    msg_id: MessageId,
    attempt_id: AttemptId,
    event_type: String,
    failure: &'static str,
    response_status_code: u16,
    attempts: u16,
    ended_at: Timestamp,
    accepted_at: Timestamp,
    /// Without it there is nothing to retry.
    has_payload: bool,
}

/// The attempt that left a delivery dead, if it is dead still: no attempt came after it, nobody discarded
/// it, and its message is retained.
pub(super) fn still_dead(
    reader: &dyn Reader,
    endpoint: EndpointNo,
    listed: &ListedAttempt,
) -> Result<Option<Attempt>, store::Error> {
    if listed.verdict != DEAD || !listed.has_message {
        return Ok(None);
    }
    let (at, no) = (listed.key.at, listed.key.no);
    let attempts = reader.attempts(at, Some(endpoint))?;
    let last = attempts.into_iter().max_by_key(|attempt| attempt.no);
    let last = last.filter(|last| last.no == no && matches!(last.verdict, Verdict::Dead(_)));
    if last.is_none() || reader.is_cancelled(Delivery { at, endpoint })? {
        return Ok(None);
    }
    Ok(last)
}

fn failure_of(cx: &Cx, attempt: &Attempt) -> &'static str {
    let kind = attempt.outcome.failure;
    kind.map_or("none", |kind| failure_name(cx, kind))
}

/// GET `/app/{app_id}/quarantine`
pub(super) async fn list(cx: Cx) -> Answer {
    let app = cx.app()?;
    let mut left = BUDGET;
    let mut groups = BTreeMap::new();
    for endpoint in &app.endpoints {
        if !collect(&cx, endpoint, &mut left, &mut groups)? {
            break;
        }
    }
    let mut data: Vec<Group> = groups.into_values().collect();
    data.sort_by_key(|group| std::cmp::Reverse(group.newest));
    let complete = left > 0;
    Ok(Reply::ok(&Groups { data, complete }))
}

/// Adds the dead deliveries of an endpoint, newest first; false when the budget is used up.
fn collect(
    cx: &Cx,
    endpoint: &Endpoint,
    left: &mut usize,
    groups: &mut BTreeMap<(EndpointId, &'static str), Group>,
) -> Result<bool, Problem> {
    let reader = &cx.state.reader;
    let mut from = None;
    loop {
        let page = Page {
            from,
            until: None,
            newest_first: true,
            limit: STEP.min(*left),
        };
        let listed = reader.endpoint_attempts(endpoint.no, &page)?;
        *left = left.saturating_sub(listed.len());
        for entry in &listed {
            let Some(attempt) = still_dead(reader.as_ref(), endpoint.no, entry)? else {
                continue;
            };
            let failure = failure_of(cx, &attempt);
            let group = groups
                .entry((endpoint.id, failure))
                .or_insert_with(|| Group {
                    id: format!("{}.{failure}", endpoint.id),
                    endpoint_id: endpoint.id,
                    failure,
                    deliveries: 0,
                    oldest: attempt.ended,
                    newest: attempt.ended,
                });
            group.deliveries += 1;
            group.oldest = group.oldest.min(attempt.ended);
            group.newest = group.newest.max(attempt.ended);
        }
        if listed.len() < page.limit {
            return Ok(true);
        }
        if *left == 0 {
            return Ok(false);
        }
        from = listed.last().map(|last| last.key);
    }
}

/// A bucket's endpoint, and the failures behind its name.
fn bucket(cx: &Cx, app: &AppEntry) -> Result<(Arc<Endpoint>, Vec<FailureKind>), Problem> {
    let missing = || Problem::not_found("bucket");
    let (endpoint, failure) = cx.param("bucket").split_once('.').ok_or_else(missing)?;
    let endpoint = app.endpoint(endpoint).cloned().ok_or_else(missing)?;
    let all = FailureKind::ALL.into_iter();
    let kinds: Vec<_> = all
        .filter(|kind| failure_name(cx, *kind) == failure)
        .collect();
    if kinds.is_empty() {
        return Err(missing());
    }
    Ok((endpoint, kinds))
}

/// GET `/app/{app_id}/quarantine/{bucket}`: its deliveries, newest first.
pub(super) async fn read(cx: Cx) -> Answer {
    let app = cx.app()?;
    let (endpoint, kinds) = bucket(&cx, &app)?;
    let query = cx.query();
    let bounds = Bounds::of(&query)?;
    let from_below = bounds.is_from_below();
    let paging = Paging::of_history(&query, from_below, |text| AttemptId::parse(text).ok())?;
    let reader = &cx.state.reader;
    let (scan, mut skip) = attempt_scan(&paging, &bounds);
    let keep = |listed: &ListedAttempt| {
        if skip.skips(&listed.key) {
            return Ok(None);
        }
        let attempt = still_dead(reader.as_ref(), endpoint.no, listed)?;
        let attempt =
            attempt.filter(|a| a.outcome.failure.is_some_and(|kind| kinds.contains(&kind)));
        match attempt {
            Some(attempt) => Ok(reader
                .message(attempt.at)?
                .map(|message| (attempt, message))),
            None => Ok(None),
        }
    };
    let (found, edges) = scan.run(|page| reader.endpoint_attempts(endpoint.no, page), keep)?;
    let data = found.into_iter();
    let data = data.map(|(_, (attempt, message))| row(&cx, &attempt, &message));
    let id = |key: &ListKey| AttemptId::of(key.time, endpoint.no, key.at, key.no).to_string();
    Ok(edges.list(data.collect(), id).reply())
}

fn row(cx: &Cx, attempt: &Attempt, message: &Message) -> Row {
    Row {
        msg_id: message.id(),
        attempt_id: attempt.id(),
        event_type: message.event_type.to_string(),
        failure: failure_of(cx, attempt),
        response_status_code: attempt.outcome.status,
        attempts: attempt.no,
        ended_at: attempt.ended,
        accepted_at: message.accepted,
        has_payload: !message.is_expunged(),
    }
}

/// POST `…/quarantine/{bucket}/retry`: each gets a new schedule.
pub(super) async fn retry(cx: Cx) -> Answer {
    all(cx, Kind::Dead).await
}

/// POST `…/quarantine/{bucket}/discard`: each counts as cancelled from then on.
pub(super) async fn discard(cx: Cx) -> Answer {
    all(cx, Kind::Discard).await
}

async fn all(cx: Cx, kind: Kind) -> Answer {
    let app = cx.app()?;
    let (endpoint, kinds) = bucket(&cx, &app)?;
    let failures = kinds.into_iter().map(|kind| kind.name().to_owned());
    walk::of_failures(cx, kind, (app.app.no, endpoint.no), failures.collect()).await
}
