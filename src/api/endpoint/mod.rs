//! Endpoints: create, list, read, put, patch, delete, pause, resume.
//!
//! Only configuration changes here; the scheduler sees a changed endpoint before its next attempt
//! and looks after what follows (held deliveries, failures in a row, a slow start).

pub(super) mod headers;
pub(super) mod secret;
mod shown;
pub(super) mod transformation;
mod wanted;

use std::sync::Arc;

use http::StatusCode;

use super::ApiState;
use super::application::{creatable, made_under, merge, null_without_uid, uid_taken};
use super::error::{Code, Problem};
use super::page::{List, Paging, select};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::{AppEntry, Draft};
use crate::ingest::fields::{Fields, Given};
use crate::ingest::{Item, ItemKind};
use crate::model::{AppNo, Endpoint, EndpointId, EndpointNo, Secret, TenantMark};

pub(super) use shown::Out;
use wanted::{Extra, Wanted};
pub(super) use wanted::{
    effective, exclude_pii, exclude_pii_as_sent, expression, moved, target_kind,
};

/// Endpoints of one application at most (`reliability.md` 3).
const MAX_ENDPOINTS: usize = 10_000;

/// GET `/app/{app_id}/endpoint`
pub(super) async fn list(cx: Cx) -> Answer {
    let app = cx.app()?;
    let paging = Paging::of(&cx.query(), true, |text| EndpointId::parse(text).ok())?;
    let (page, done) = select(&paging, app.endpoints.iter(), |endpoint| endpoint.id);
    let data: Vec<_> = page.iter().map(|endpoint| Out::of(endpoint)).collect();
    Ok(List::of(data, done, |out| out.id.to_string()).reply())
}

/// POST `/app/{app_id}/endpoint`
pub(super) async fn create(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let extra = Extra::read(&mut fields);
    let wanted = Wanted::read(fields, &cx.state)?;
    let app = cx.app()?.app.no;
    let uid = wanted.uid.clone().value();
    let new = New::of(&cx, app, uid, extra);
    let state = Arc::clone(&cx.state);
    let made = cx
        .carry_out(move |draft| new.put(draft, wanted, &state))
        .await?;
    Ok(Reply::created(&Out::of(&made)))
}

/// An endpoint that is about to be made.
struct New {
    app: AppNo,
    uid: Option<String>,
    extra: Extra,
    id_random: [u8; 14],
    secret_random: [u8; 32],
    now: Timestamp,
}

impl New {
    fn of(cx: &Cx, app: AppNo, uid: Option<String>, extra: Extra) -> Self {
        Self {
            app,
            uid,
            extra,
            id_random: cx.state.entropy.bytes(),
            secret_random: cx.state.entropy.bytes(),
            now: cx.now,
        }
    }

    fn put(
        self,
        draft: &mut Draft,
        wanted: Wanted,
        state: &ApiState,
    ) -> Result<Arc<Endpoint>, Problem> {
        let entry = app_of(draft, self.app)?;
        let quota = entry.app.quotas.endpoints;
        let quota = quota.and_then(|quota| usize::try_from(quota).ok());
        let most = quota.map_or(MAX_ENDPOINTS, |quota| quota.min(MAX_ENDPOINTS));
        if entry.endpoints.len() >= most {
            let detail = format!("This application may have {most} endpoints.");
            return Err(Problem::new(Code::Quota, detail));
        }
        if self
            .uid
            .as_deref()
            .is_some_and(|uid| entry.endpoint(uid).is_some())
        {
            return Err(uid_taken());
        }
        let mut endpoint = wanted::blank(self.app, draft.next_endpoint(), self.now);
        endpoint.id = EndpointId::new(self.now, self.id_random);
        endpoint.uid = self.uid;
        self.extra.apply(&mut endpoint, self.secret_random);
        wanted.apply(&mut endpoint, state, self.now)?;
        few_event_types(&entry, &endpoint)?;
        Ok(draft.put_endpoint(endpoint)?)
    }
}

/// An endpoint that another route makes or changes in the words of EndpointUpsertIn.
pub(super) struct Sent {
    pub(super) app: AppNo,
    pub(super) fields: serde_json::Value,
    pub(super) secret: Option<Secret>,
    pub(super) uid: Option<String>,
    pub(super) mark: TenantMark,
}

impl Sent {
    /// Makes it.
    pub(super) fn make(
        self,
        draft: &mut Draft,
        cx: (&ApiState, Timestamp),
    ) -> Result<Arc<Endpoint>, Problem> {
        let (state, now) = cx;
        let wanted = Wanted::read(Fields::body(self.fields)?, state)?;
        let new = New {
            app: self.app,
            uid: self.uid,
            extra: Extra::with_secret(self.secret),
            id_random: state.entropy.bytes(),
            secret_random: state.entropy.bytes(),
            now,
        };
        let made = new.put(draft, wanted, state)?;
        let mut made = Endpoint::clone(&made);
        made.tenant = Some(Box::new(self.mark));
        Ok(draft.put_endpoint(made)?)
    }

    /// Lays it over the endpoint `no` as a merge patch; a secret replaces the one it has.
    pub(super) fn lay_over(
        self,
        draft: &mut Draft,
        no: EndpointNo,
        cx: (&ApiState, Timestamp),
    ) -> Result<Arc<Endpoint>, Problem> {
        let (state, now) = cx;
        edit(draft, self.app, no, |_, endpoint| {
            let mut whole = wanted::as_sent(endpoint);
            merge(&mut whole, self.fields);
            let wanted = Wanted::read(Fields::body(whole)?, state)?;
            if let Some(secret) = self.secret {
                endpoint.secret = secret;
            }
            endpoint.tenant = Some(Box::new(self.mark));
            wanted.apply(endpoint, state, now)
        })
    }
}

/// Takes an endpoint out: what it still had to get is cancelled.
pub(super) fn remove(
    draft: &mut Draft,
    app: AppNo,
    no: EndpointNo,
    now: Timestamp,
) -> Result<(), Problem> {
    let gone = edit(draft, app, no, |_, endpoint| {
        endpoint.deleted = Some(now);
        Ok(())
    });
    gone.map(drop)
}

/// GET `/app/{app_id}/endpoint/{endpoint_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    let (_, endpoint) = cx.endpoint()?;
    Ok(Reply::ok(&Out::of(&endpoint)))
}

/// PUT `…/endpoint/{endpoint_id}`: changes it, or makes it if the path is a free uid.
pub(super) async fn put(mut cx: Cx) -> Answer {
    let wanted = Wanted::read(cx.fields().await?, &cx.state)?;
    let app = cx.app()?;
    let path = cx.param("endpoint_id").to_owned();
    let found = app.endpoint(&path).map(|endpoint| endpoint.no);
    if found.is_none() {
        creatable(&cx, &path, "endpoint")?;
    }
    let uid = match found {
        Some(_) => path,
        None => made_under(path, &wanted.uid)?,
    };
    let new = New::of(&cx, app.app.no, Some(uid), Extra::default());
    let state = Arc::clone(&cx.state);
    let (endpoint, is_new) = cx
        .carry_out(move |draft| {
            let (app, now) = (new.app, new.now);
            let Some(no) = found else {
                return Ok((new.put(draft, wanted, &state)?, true));
            };
            let changed = edit(draft, app, no, |entry, endpoint| {
                rename(entry, endpoint, &wanted.uid)?;
                wanted.apply(endpoint, &state, now)
            })?;
            Ok::<_, Problem>((changed, false))
        })
        .await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(status, &Out::of(&endpoint)))
}

/// PATCH `…/endpoint/{endpoint_id}`: JSON merge patch over what a PUT would say.
pub(super) async fn patch(mut cx: Cx) -> Answer {
    let patch = cx.json().await?;
    let state = Arc::clone(&cx.state);
    let now = cx.now;
    let changed = change(&cx, move |entry, endpoint| {
        let mut whole = wanted::as_sent(endpoint);
        merge(&mut whole, patch);
        null_without_uid(&mut whole);
        let wanted = Wanted::read(Fields::body(whole)?, &state)?;
        rename(entry, endpoint, &wanted.uid)?;
        wanted.apply(endpoint, &state, now)
    });
    Ok(Reply::ok(&Out::of(&*changed.await?)))
}

/// DELETE `…/endpoint/{endpoint_id}`: what it still had to get is cancelled, history stays.
pub(super) async fn delete(cx: Cx) -> Answer {
    let now = cx.now;
    let set = change(&cx, move |_, endpoint| {
        endpoint.deleted = Some(now);
        Ok(())
    });
    set.await?;
    Ok(Reply::empty())
}

/// POST `…/endpoint/{endpoint_id}/pause`
pub(super) async fn pause(cx: Cx) -> Answer {
    set_paused(cx, true).await
}

/// POST `…/endpoint/{endpoint_id}/resume`
pub(super) async fn resume(cx: Cx) -> Answer {
    set_paused(cx, false).await
}

async fn set_paused(cx: Cx, paused: bool) -> Answer {
    let now = cx.now;
    let set = change(&cx, move |_, endpoint| {
        endpoint.paused = paused;
        endpoint.updated = now;
        Ok(())
    });
    set.await?;
    Ok(Reply::empty())
}

/// Changes the endpoint of the path in one step.
pub(super) async fn change(
    cx: &Cx,
    with: impl FnOnce(&AppEntry, &mut Endpoint) -> Result<(), Problem> + Send + 'static,
) -> Result<Arc<Endpoint>, Problem> {
    let (app, endpoint) = cx.endpoint()?;
    let (app, no) = (app.app.no, endpoint.no);
    cx.carry_out(move |draft| edit(draft, app, no, with)).await
}

fn edit(
    draft: &mut Draft,
    app: AppNo,
    no: EndpointNo,
    with: impl FnOnce(&AppEntry, &mut Endpoint) -> Result<(), Problem>,
) -> Result<Arc<Endpoint>, Problem> {
    let entry = app_of(draft, app)?;
    let current = draft.endpoint(no).filter(|ep| ep.deleted.is_none());
    let current = current.ok_or_else(|| Problem::not_found("endpoint"))?;
    let mut endpoint = Endpoint::clone(current);
    with(&entry, &mut endpoint)?;
    if current.event_types != endpoint.event_types {
        few_event_types(&entry, &endpoint)?;
    }
    Ok(draft.put_endpoint(endpoint)?)
}

/// An endpoint may name as many event types as the application's quota allows.
fn few_event_types(entry: &AppEntry, endpoint: &Endpoint) -> Result<(), Problem> {
    let quota = entry.app.quotas.event_types_per_endpoint;
    let quota = quota.and_then(|quota| usize::try_from(quota).ok());
    let named = endpoint.event_types.as_ref().map_or(0, Vec::len);
    match quota {
        Some(most) if named > most => {
            let msg = format!("at most {most} event types, by the quota of the application");
            Err(Item::body("eventTypes", ItemKind::Limit, msg).into())
        }
        _ => Ok(()),
    }
}

fn app_of(draft: &Draft, app: AppNo) -> Result<Arc<AppEntry>, Problem> {
    let found = draft.app_by_no(app).cloned();
    found.ok_or_else(|| Problem::not_found("application"))
}

/// Gives the endpoint another uid, if that is free.
fn rename(entry: &AppEntry, endpoint: &mut Endpoint, uid: &Given<String>) -> Result<(), Problem> {
    if let Given::Value(uid) = uid
        && entry
            .endpoint(uid)
            .is_some_and(|other| other.no != endpoint.no)
    {
        return Err(uid_taken());
    }
    endpoint.uid = uid.clone().or_keep(endpoint.uid.take());
    Ok(())
}
