//! Sources: create, list, read, put, patch, delete, rotate the token, rotate a secret (`api.md` 9, 10).
//!
//! Secrets go in and never come out. The token of the URL is in the answer that made it and nowhere else:
//! only its hash is stored. Answers that hold one are not stored for `Idempotency-Key` either.

pub(super) mod receipts;
mod shown;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use super::ApiState;
use super::application::merge;
use super::error::{Code, Problem};
use super::page::{List, Paging, select};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::Draft;
use crate::inbound::{self, Token};
use crate::ingest::fields::{any, sized};
use crate::ingest::{Item, ItemKind};
use crate::model::{AppNo, HeldSecret, OldToken, Secret, Source, SourceId, SourceNo};

use shown::{Out, with_token};
pub(super) use wanted::network;
use wanted::{MAX_SECRET, Wanted};

/// Sources of one application at most.
const MAX_SOURCES: usize = 1000;
/// Old tokens, and old secrets of one name, that may be alive at the same time.
const MAX_OLD: usize = 10;
const DEFAULT_GRACE_SECS: u64 = 86_400;
const MAX_GRACE_SECS: u64 = 604_800;

/// GET `/source`
pub(super) async fn list(cx: Cx) -> Answer {
    let query = cx.query();
    let paging = Paging::of(&query, true, |text| SourceId::parse(text).ok())?;
    let app = query
        .get("app_id")
        .map(|app| cx.find_app(app))
        .transpose()?;
    let app = app.map(|entry| entry.app.no);
    let provider = query.get("provider");
    let snapshot = cx.state.directory.snapshot();
    let wanted = snapshot.sources().filter(|source| {
        cx.principal.sees(source.app)
            && app.is_none_or(|app| app == source.app)
            && provider.is_none_or(|provider| provider == source.provider)
    });
    let (page, done) = select(&paging, wanted, |source| source.id);
    let data: Vec<_> = page
        .iter()
        .map(|source| Out::of(&snapshot, source))
        .collect();
    Ok(List::of(data, done, |out| out.id.to_string()).reply())
}

/// POST `/source`: the only answer, beside a rotation's, that shows the URL.
pub(super) async fn create(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    fields.alias("app_id", "appId");
    let provider = fields.required("provider", sized(1, 64));
    let named = fields.text("appId", any).value();
    let wanted = Wanted::read(fields)?;
    let app = owner(&cx, named.as_deref())?;
    let token = Token::new(cx.state.entropy.bytes());
    let mut source = wanted::blank(app, cx.now);
    source.id = SourceId::new(cx.now, cx.state.entropy.bytes());
    source.provider = provider.unwrap_or_default();
    source.token = token.hash();
    wanted.apply(&mut source, &cx)?;
    let state = Arc::clone(&cx.state);
    let made = cx
        .carry_out(move |draft| {
            if draft.app_by_no(app).is_none() {
                return Err(Problem::not_found("application"));
            }
            let siblings = draft.sources().filter(|other| other.app == app);
            if siblings.count() >= MAX_SOURCES {
                let detail = format!("An application has at most {MAX_SOURCES} sources.");
                return Err(Problem::new(Code::Quota, detail));
            }
            source.no = draft.next_source();
            put(draft, source, &state)
        })
        .await?;
    let snapshot = cx.state.directory.snapshot();
    let base = cx.state.inbound.base();
    Ok(Reply::created(&with_token(
        &Out::of(&snapshot, &made),
        &token,
        base,
    )))
}

/// The application of a new source: the caller's own one, or the one that is named.
fn owner(cx: &Cx, named: Option<&str>) -> Result<AppNo, Problem> {
    match (named, cx.principal.app) {
        (Some(app), _) => cx.find_app(app).map(|entry| entry.app.no).map_err(|_| {
            let msg = "no application with this id";
            Item::body("appId", ItemKind::ValueError, msg).into()
        }),
        (None, Some(own)) => Ok(own),
        (None, None) => {
            Err(Item::body("appId", ItemKind::Missing, "this field is required").into())
        }
    }
}

/// Stores a source, if it goes together with its manifest and with the other sources.
fn put(draft: &mut Draft, source: Source, state: &ApiState) -> Result<Arc<Source>, Problem> {
    state
        .inbound
        .check(&source)
        .map_err(|mistakes| -> Problem {
            let items = mistakes
                .into_iter()
                .map(|inbound::Mistake { field, what }| {
                    Item::body(field, ItemKind::ValueError, what)
                });
            items.collect::<Vec<_>>().into()
        })?;
    if source.is_shared {
        let other = draft.shared_source(&source.provider);
        if other.is_some_and(|other| other.no != source.no) {
            let detail = "Another source of this provider is bound to its shared URL.";
            return Err(Problem::new(Code::Conflict, detail));
        }
    }
    Ok(draft.put_source(source)?)
}

/// The source of the path, if the caller sees it.
pub(super) fn find(cx: &Cx) -> Result<Arc<Source>, Problem> {
    let missing = || Problem::not_found("source");
    let id = SourceId::parse(cx.param("source_id")).map_err(|_| missing())?;
    let found = cx.state.directory.peek().source(id).cloned();
    let seen = found.filter(|source| cx.principal.sees(source.app));
    seen.ok_or_else(missing)
}

/// GET `/source/{source_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    let source = find(&cx)?;
    Ok(Reply::ok(&Out::of(&cx.state.directory.snapshot(), &source)))
}

/// PUT `/source/{source_id}`: everything but the secrets that are not named. Makes nothing: an id is given
/// by the gateway.
pub(super) async fn put_whole(mut cx: Cx) -> Answer {
    let current = find(&cx)?;
    let mut fields = cx.fields().await?;
    fields.alias("app_id", "appId");
    wanted::fixed(&mut fields, &cx, &current);
    let wanted = Wanted::read(fields)?;
    changed(&cx, current.no, move |source, cx| wanted.apply(source, cx)).await
}

/// PATCH `/source/{source_id}`: JSON merge patch; a secret that is null is forgotten.
pub(super) async fn patch(mut cx: Cx) -> Answer {
    let current = find(&cx)?;
    let mut patch = cx.json().await?;
    let secrets = patch
        .as_object_mut()
        .and_then(|patch| patch.remove("secrets"));
    let mut whole = wanted::as_sent(&cx.state.directory.snapshot(), &current);
    merge(&mut whole, patch);
    if let (Some(whole), Some(secrets)) = (whole.as_object_mut(), secrets) {
        whole.insert(String::from("secrets"), secrets);
    }
    let mut fields = crate::ingest::fields::Fields::body(whole)?;
    wanted::fixed(&mut fields, &cx, &current);
    let wanted = Wanted::read(fields)?;
    changed(&cx, current.no, move |source, cx| wanted.apply(source, cx)).await
}

/// DELETE `/source/{source_id}`: its URL leads nowhere from now on; what it took in stays.
pub(super) async fn delete(cx: Cx) -> Answer {
    let now = cx.now;
    let no = find(&cx)?.no;
    edit(&cx, no, move |source| {
        source.deleted = Some(now);
        source.secrets.clear();
        Ok(())
    })
    .await?;
    cx.state.inbound.forget(no);
    Ok(Reply::empty())
}

/// POST `/source/{source_id}/token/rotate`: `{gracePeriodSeconds = 86400}`; the old URL works for that long.
pub(super) async fn rotate_token(mut cx: Cx) -> Answer {
    let no = find(&cx)?.no;
    let mut fields = cx.fields_or_none().await?;
    let grace = fields.number("gracePeriodSeconds", 0..=MAX_GRACE_SECS);
    fields.finish()?;
    let grace = Duration::from_secs(grace.value().unwrap_or(DEFAULT_GRACE_SECS));
    let token = Token::new(cx.state.entropy.bytes());
    let (hash, now) = (token.hash(), cx.now);
    let source = edit(&cx, no, move |source| {
        source.old_tokens.retain(|old| now < old.expires);
        let old = std::mem::replace(&mut source.token, hash);
        if !grace.is_zero() {
            room(source.old_tokens.len(), "tokens")?;
            source.old_tokens.push(OldToken {
                token: old,
                expires: now.plus(grace),
            });
        }
        Ok(())
    })
    .await?;
    let snapshot = cx.state.directory.snapshot();
    let base = cx.state.inbound.base();
    Ok(Reply::ok(&with_token(
        &Out::of(&snapshot, &source),
        &token,
        base,
    )))
}

/// POST `/source/{source_id}/secret/rotate`: `{name, secret, gracePeriodSeconds = 86400}`; the old secret
/// verifies along for that long.
pub(super) async fn rotate_secret(mut cx: Cx) -> Answer {
    let no = find(&cx)?.no;
    let mut fields = cx.fields().await?;
    let name = fields.required("name", sized(1, 64));
    let secret = fields.required("secret", sized(1, MAX_SECRET));
    let grace = fields.number("gracePeriodSeconds", 0..=MAX_GRACE_SECS);
    fields.finish()?;
    let grace = Duration::from_secs(grace.value().unwrap_or(DEFAULT_GRACE_SECS));
    let (name, secret) = (name.unwrap_or_default(), secret.unwrap_or_default());
    let now = cx.now;
    edit(&cx, no, move |source| {
        let held = source.secrets.entry(name).or_default();
        held.retain(|old| old.expires.is_none_or(|end| now < end));
        if grace.is_zero() {
            held.clear();
        }
        room(held.len(), "secrets of this name")?;
        for old in held.iter_mut() {
            let end = now.plus(grace);
            old.expires = Some(old.expires.map_or(end, |before| before.min(end)));
        }
        let secret = Secret::new(secret);
        let expires = None;
        held.insert(0, HeldSecret { secret, expires });
        Ok(())
    })
    .await?;
    Ok(Reply::empty())
}

fn room(alive: usize, what: &str) -> Result<(), Problem> {
    if alive < MAX_OLD {
        return Ok(());
    }
    let detail = format!("{MAX_OLD} old {what} are alive; wait until one expires.");
    Err(Problem::new(Code::LimitReached, detail))
}

async fn changed(
    cx: &Cx,
    no: SourceNo,
    with: impl FnOnce(&mut Source, &Cx) -> Result<(), Problem>,
) -> Answer {
    // What is checked against the caller is checked before the change is made.
    let mut wanted = Source::clone(
        cx.state
            .directory
            .peek()
            .source_by_no(no)
            .ok_or_else(|| Problem::not_found("source"))?,
    );
    let before = wanted.updated;
    with(&mut wanted, cx)?;
    let now = cx.now;
    let source = edit(cx, no, move |source| {
        if source.updated != before {
            let detail = "The source was changed meanwhile; look at it again.";
            return Err(Problem::new(Code::Conflict, detail));
        }
        *source = wanted;
        source.updated = later(before, now);
        Ok(())
    })
    .await?;
    let snapshot = cx.state.directory.snapshot();
    Ok(Reply::ok(&Out::of(&snapshot, &source)))
}

/// A time of change that is never that of the change before.
fn later(before: Timestamp, now: Timestamp) -> Timestamp {
    now.max(before.plus(Duration::from_millis(1)))
}

/// Changes a source in one step.
async fn edit(
    cx: &Cx,
    no: SourceNo,
    with: impl FnOnce(&mut Source) -> Result<(), Problem> + Send + 'static,
) -> Result<Arc<Source>, Problem> {
    let state = Arc::clone(&cx.state);
    let now = cx.now;
    cx.carry_out(move |draft| {
        let current = draft.source_by_no(no).cloned();
        let current = current.ok_or_else(|| Problem::not_found("source"))?;
        let mut source = Source::clone(&current);
        with(&mut source)?;
        source.updated = later(current.updated, now).max(source.updated);
        if source.deleted.is_some() {
            return Ok(draft.put_source(source)?);
        }
        put(draft, source, &state)
    })
    .await
}
