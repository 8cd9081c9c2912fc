//! Applications (tenants): create, list, read, put, patch, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::{Code, Problem};
use super::page::{List, Paging, select};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::{Id20, Timestamp};
use crate::directory::{AppEntry, Draft};
use crate::ingest::ApplicationIn;
use crate::ingest::fields::{self, Given, Item, ItemKind};
use crate::model::{AppId, Application, KeyPrefix, Quotas};
use crate::schedule::OPERATOR;

/// ApplicationOut, with the SDK 1.x name of the rate beside the new one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out<'a> {
    id: AppId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_rate: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<u16>,
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quotas: Option<Quotas>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_prefix: Option<&'a KeyPrefix>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> Out<'a> {
    fn of(app: &'a Application) -> Self {
        Self {
            id: app.id,
            name: &app.name,
            uid: app.uid.as_deref(),
            throttle_rate: app.throttle_rate,
            rate_limit: app.throttle_rate,
            metadata: &app.metadata,
            plan: app.plan.as_deref(),
            quotas: Some(app.quotas).filter(|quotas| !quotas.is_empty()),
            key_prefix: app.key_prefix.as_ref(),
            created_at: app.created,
            updated_at: app.updated,
        }
    }
}

/// GET `/app`
pub(super) async fn list(cx: Cx) -> Answer {
    let query = cx.query();
    let paging = Paging::of(&query, false, |text| AppId::parse(text).ok())?;
    let no_endpoints = query.flag("exclude_apps_with_no_endpoints", false)?;
    let disabled = query.flag("exclude_apps_with_disabled_endpoints", false)?;
    query.flag("exclude_apps_with_svix_play_endpoints", false)?; // there are none
    let snapshot = cx.state.directory.snapshot();
    let wanted = snapshot.apps().filter(|entry| {
        cx.principal.sees(entry.app.no)
            && !(no_endpoints && entry.endpoints.is_empty())
            && !(disabled && entry.endpoints.iter().any(|ep| ep.disabled.is_some()))
    });
    let (page, done) = select(&paging, wanted, |entry| entry.app.id);
    let data: Vec<_> = page.iter().map(|entry| Out::of(&entry.app)).collect();
    Ok(List::of(data, done, |out| out.id.to_string()).reply())
}

/// POST `/app`
pub(super) async fn create(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let exists_is_fine = cx.query().flag("get_if_exists", false)?;
    let wanted = ApplicationIn::read(cx.json().await?, &["body"])?;
    let (random, now) = (cx.state.entropy.bytes(), cx.now);
    let (app, is_new) = cx
        .carry_out(move |draft| {
            let uid = wanted.uid.clone().value();
            let known = uid.as_deref().and_then(|uid| draft.app(uid)).cloned();
            match known {
                Some(entry) if exists_is_fine => Ok((Arc::clone(&entry.app), false)),
                Some(_) => Err(uid_taken()),
                None => {
                    let made = wanted.create(draft, uid, random, now)?;
                    Ok((Arc::new(made), true))
                }
            }
        })
        .await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(status, &Out::of(&app)))
}

/// GET `/app/{app_id}`
pub(super) async fn read(cx: Cx) -> Answer {
    Ok(Reply::ok(&Out::of(&cx.app()?.app)))
}

/// PUT `/app/{app_id}`: changes it, or makes it if the path is a free uid.
pub(super) async fn put(mut cx: Cx) -> Answer {
    let wanted = ApplicationIn::read(cx.json().await?, &["body"])?;
    let path = cx.param("app_id").to_owned();
    let found = cx.find_app(&path).ok().map(|entry| entry.app.no);
    if found.is_none() {
        creatable(&cx, &path, "application")?;
    }
    let (random, now) = (cx.state.entropy.bytes(), cx.now);
    let is_bound = cx.principal.app.is_some();
    let (app, is_new) = cx
        .carry_out(move |draft| {
            let Some(entry) = found.and_then(|no| draft.app_by_no(no)).cloned() else {
                let uid = made_under(path, &wanted.uid)?;
                if draft.app(&uid).is_some() {
                    return Err(uid_taken());
                }
                return Ok((wanted.create(draft, Some(uid), random, now)?, true));
            };
            Ok((change(draft, &entry, wanted, (now, is_bound))?, false))
        })
        .await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(status, &Out::of(&app)))
}

/// The uid of an object that a PUT makes: the name in the path. Another one in the body would make
/// what the path does not lead to, and the same PUT again would be a conflict.
pub(super) fn made_under(path: String, named: &Given<String>) -> Result<String, Problem> {
    if named.clone().value().is_some_and(|uid| uid != path) {
        let msg = "must be the uid in the path, or be left out, when the object does not exist";
        return Err(Item::body("uid", ItemKind::ValueError, msg).into());
    }
    Ok(path)
}

/// A PUT may make an object only under a name that is a uid, and only if the key sees it then.
pub(super) fn creatable(cx: &Cx, name: &str, what: &str) -> Result<(), Problem> {
    let is_id = ["app_", "ep_"]
        .iter()
        .any(|prefix| Id20::parse(prefix, name).is_ok());
    let is_hidden = what == "application" && cx.principal.app.is_some();
    if is_id || is_hidden || fields::uid(name).is_err() {
        return Err(Problem::not_found(what));
    }
    Ok(())
}

/// PATCH `/app/{app_id}`: JSON merge patch.
pub(super) async fn patch(mut cx: Cx) -> Answer {
    let patch = cx.json().await?;
    let no = cx.app()?.app.no;
    let (now, is_bound) = (cx.now, cx.principal.app.is_some());
    let app = cx
        .carry_out(move |draft| {
            let found = draft.app_by_no(no).cloned();
            let entry = found.ok_or_else(|| Problem::not_found("application"))?;
            let app = &entry.app;
            let mut whole = json!({
                "name": app.name, "uid": app.uid, "throttleRate": app.throttle_rate,
                "metadata": app.metadata, "plan": app.plan, "quotas": app.quotas,
                "keyPrefix": app.key_prefix,
            });
            merge(&mut whole, patch);
            null_without_uid(&mut whole);
            let wanted = ApplicationIn::read(whole, &["body"])?;
            change(draft, &entry, wanted, (now, is_bound))
        })
        .await?;
    Ok(Reply::ok(&Out::of(&app)))
}

/// GET `/app/{app_id}/usage`
pub(super) async fn usage(cx: Cx) -> Answer {
    let entry = cx.app()?;
    let used = entry.load.usage().used(cx.now);
    let limit = entry.load.usage().limit();
    let month = used.month;
    Ok(Reply::ok(&json!({
        "plan": entry.app.plan, "month": month.name(), "deliveries": limit.map(|_| used.deliveries),
        "deliveriesPerMonth": limit, "resetsAt": month.end(),
        "endpoints": entry.endpoints.len(), "maxEndpoints": entry.app.quotas.endpoints,
        "concurrency": entry.app.quotas.concurrency,
    })))
}

/// JSON merge patch (RFC 7396), with the old names of fields and a rate of 0 meaning "none".
pub(super) fn merge(target: &mut Value, mut patch: Value) {
    if let Value::Object(fields) = &mut patch {
        for (old, new) in [("rateLimit", "throttleRate"), ("filterTypes", "eventTypes")] {
            if let Some(value) = fields.remove(old) {
                fields.entry(new).or_insert(value);
            }
        }
        if fields.get("throttleRate").and_then(Value::as_u64) == Some(0) {
            fields.insert(String::from("throttleRate"), Value::Null);
        }
    }
    apply(target, patch);
}

/// After a merge an absent uid means "clear", which a PUT would read as "keep".
pub(super) fn null_without_uid(whole: &mut Value) {
    if let Value::Object(fields) = whole {
        fields.entry("uid").or_insert(Value::Null);
    }
}

fn apply(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(into) = target else { return };
    for (name, value) in fields {
        if value.is_null() {
            into.remove(&name);
        } else {
            apply(into.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn change(
    draft: &mut Draft,
    entry: &AppEntry,
    wanted: ApplicationIn,
    (now, is_bound): (Timestamp, bool),
) -> Result<Application, Problem> {
    let mut app = Application::clone(&entry.app);
    // A tenant does not say what is allowed to it, nor what its keys look like; what it leaves out stays.
    let says_nothing =
        wanted.plan.is_none() && wanted.quotas.is_empty() && wanted.key_prefix.is_none();
    if !(is_bound && says_nothing) {
        let said = (&wanted.plan, wanted.quotas, &wanted.key_prefix);
        if is_bound && said != (&app.plan, app.quotas, &app.key_prefix) {
            let detail =
                "Plan, quotas and keyPrefix want a key that is not bound to one application.";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        app.plan.clone_from(&wanted.plan);
        app.quotas = wanted.quotas;
        app.key_prefix.clone_from(&wanted.key_prefix);
    }
    if let Given::Value(uid) = &wanted.uid
        && draft.app(uid).is_some_and(|other| other.app.no != app.no)
    {
        return Err(uid_taken());
    }
    let is_operator = is_operator(&app);
    app.uid = wanted.uid.or_keep(app.uid);
    if is_operator && app.uid.as_deref() != Some(OPERATOR) {
        let detail = "The operator application keeps its uid: operational events find it by that.";
        return Err(Problem::new(Code::Conflict, detail));
    }
    app.name = wanted.name;
    app.throttle_rate = wanted.throttle_rate;
    app.metadata = wanted.metadata;
    app.updated = now;
    draft.put_app(app.clone())?;
    Ok(app)
}

/// The application that gets the operational events; made at every start, found by its uid.
fn is_operator(app: &Application) -> bool {
    app.uid.as_deref() == Some(OPERATOR)
}

pub(super) fn uid_taken() -> Problem {
    Problem::new(Code::Conflict, "This uid is taken.")
}

/// DELETE `/app/{app_id}`: its endpoints go with it, what they still had to deliver is cancelled.
pub(super) async fn delete(cx: Cx) -> Answer {
    let no = cx.app()?.app.no;
    let now = cx.now;
    let silent = cx
        .carry_out(move |draft| {
            let found = draft.app_by_no(no).cloned();
            let entry = found.ok_or_else(|| Problem::not_found("application"))?;
            if is_operator(&entry.app) {
                let detail = "The operator application cannot be deleted; delete its endpoints.";
                return Err(Problem::new(Code::Conflict, detail));
            }
            for endpoint in &entry.endpoints {
                let mut endpoint = crate::model::Endpoint::clone(endpoint);
                endpoint.deleted = Some(now);
                draft.put_endpoint(endpoint)?;
            }
            let sources: Vec<_> = draft
                .sources()
                .filter(|one| one.app == no)
                .cloned()
                .collect();
            for source in &sources {
                let mut source = crate::model::Source::clone(source);
                source.deleted = Some(now);
                source.secrets.clear();
                draft.put_source(source)?;
            }
            let mut app = Application::clone(&entry.app);
            app.deleted = Some(now);
            draft.put_app(app)?;
            Ok::<_, Problem>(sources)
        })
        .await?;
    for source in silent {
        cx.state.inbound.forget(source.no);
    }
    Ok(Reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patch_follows_the_rfc() {
        for (target, patch, want) in [
            (json!({"a": 1}), json!({}), json!({"a": 1})),
            (json!({"a": 1}), json!({"a": null}), json!({})),
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": null}}),
                json!({"a": {"c": 2}}),
            ),
            (
                json!({"a": [1]}),
                json!({"a": {"b": 1}}),
                json!({"a": {"b": 1}}),
            ),
            (
                json!({"throttleRate": 5}),
                json!({"rateLimit": 7}),
                json!({"throttleRate": 7}),
            ),
            (
                json!({"throttleRate": 5}),
                json!({"throttleRate": 0}),
                json!({}),
            ),
            (
                json!({"eventTypes": ["a"]}),
                json!({"filterTypes": null}),
                json!({}),
            ),
            (json!({"a": 1}), json!(5), json!(5)),
        ] {
            let mut merged = target;
            merge(&mut merged, patch);
            assert_eq!(merged, want);
        }
    }
}
