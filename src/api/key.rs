//! API keys: make, list, rotate, revoke (`api.md` 7.2). The text of a key is in one answer and nowhere else.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::error::{Code, Problem};
use super::reply::Reply;
use super::request::{Answer, Cx};
use super::source::network;
use crate::auth::{NewKey, mint};
use crate::ingest::fields::{any, sized};
use crate::ingest::{Item, ItemKind};
use crate::model::{ApiKey, AppNo, KeyId, KeyPrefix, Scope};

const MAX_SCOPES: usize = 50;
/// Addresses and networks of one key.
const MAX_NETWORKS: usize = 200;
/// For how long a rotated key still works: unless something else is said, and at most.
const DEFAULT_GRACE_SECS: u64 = 86_400;
const MAX_GRACE_SECS: u64 = 604_800;

/// POST `/api-keys`
pub(super) async fn create(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    let name = fields.required("name", sized(1, 256));
    let scopes = fields.set("scopes", 1..=MAX_SCOPES, sized(1, 256));
    let expires = fields.time("expiresAt").value();
    let app_id = fields.text("appId", any).value();
    let ips = fields.set("allowedIps", 0..=MAX_NETWORKS, |text| {
        network(text).map(drop)
    });
    if !matches!(scopes, crate::ingest::fields::Given::Value(_)) {
        fields.wrong(
            "scopes",
            (ItemKind::Missing, "this field is required".into()),
        );
    }
    fields.finish()?;
    if expires.is_some_and(|end| end <= cx.now) {
        return Err(Item::body("expiresAt", ItemKind::ValueError, "lies in the past").into());
    }
    let scopes: Vec<Scope> = scopes
        .value()
        .unwrap_or_default()
        .into_iter()
        .map(Scope::from)
        .collect();
    let app = bound_to(&cx, &scopes, app_id.as_deref())?;
    if let Some(scope) = scopes.iter().find(|scope| !may_give(&cx, scope)) {
        return Err(cannot_give(scope));
    }
    let ips = ips.value().unwrap_or_default();
    let ips = ips.iter().filter_map(|text| network(text).ok()).collect();
    let new = NewKey {
        prefix: prefix(&cx, app),
        name: name.unwrap_or_default(),
        scopes,
        app,
        expires,
        allowed_ips: within_own(&cx, ips)?,
    };
    let (key, text) = mint(cx.state.entropy.bytes(), new, cx.now);
    let shown = shown_once(&cx, &key, text);
    cx.carry_out(move |draft| Ok::<_, Problem>(draft.put_key(key)?))
        .await?;
    Ok(Reply::created(&json!({ "success": true, "apiKey": shown })))
}

/// What a new key begins with.
fn prefix(cx: &Cx, app: Option<AppNo>) -> KeyPrefix {
    let snapshot = cx.state.directory.peek();
    let entry = app.and_then(|no| snapshot.app_by_no(no));
    entry
        .map(|entry| entry.app.new_key_prefix())
        .unwrap_or_default()
}

/// The one answer that holds the text of a key.
fn shown_once(cx: &Cx, key: &ApiKey, text: String) -> Value {
    let mut shown = shown(cx, key);
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("prefix");
        fields.insert(String::from("key"), Value::String(text));
    }
    shown
}

fn cannot_give(scope: &Scope) -> Problem {
    let detail = format!(
        "A key cannot give the scope {} that it does not have.",
        String::from(scope.clone())
    );
    Problem::new(Code::Forbidden, detail)
}

/// A key gives what it has; scopes of the caller's own product open nothing and may be given freely.
fn may_give(cx: &Cx, scope: &Scope) -> bool {
    matches!(scope, Scope::Other(_)) || cx.principal.may(scope)
}

/// From where a new key may be used: a key that is bound to addresses gives no other ones.
fn within_own(cx: &Cx, wanted: Vec<IpNet>) -> Result<Vec<IpNet>, Problem> {
    let own = &cx.principal.allowed_ips;
    if own.is_empty() {
        return Ok(wanted);
    }
    if wanted.is_empty() {
        return Ok(own.clone());
    }
    let is_held = |net: &IpNet| own.iter().any(|held| held.contains(net));
    match wanted.iter().find(|net| !is_held(net)) {
        None => Ok(wanted),
        Some(net) => {
            let msg = format!("the key that calls may itself not be used from {net}");
            Err(Item::body("allowedIps", ItemKind::ValueError, msg).into())
        }
    }
}

/// The application a new key is bound to: the maker's own, or the one that is named.
fn bound_to(cx: &Cx, scopes: &[Scope], app_id: Option<&str>) -> Result<Option<AppNo>, Problem> {
    let mut named: Vec<&str> = app_id.into_iter().collect();
    for scope in scopes {
        if let Scope::Other(text) = scope {
            let app = text.strip_prefix("app:").and_then(|t| t.strip_suffix(":*"));
            named.extend(app);
        }
    }
    let mut bound = cx.principal.app;
    for app in named {
        let no = cx.find_app(app).map_err(|_| -> Problem {
            Item::body(
                "scopes",
                ItemKind::ValueError,
                "no application with this id",
            )
            .into()
        })?;
        if bound.is_some_and(|bound| bound != no.app.no) {
            let msg = "a key is bound to one application at most";
            return Err(Item::body("scopes", ItemKind::ValueError, msg).into());
        }
        bound = Some(no.app.no);
    }
    Ok(bound)
}

fn shown(cx: &Cx, key: &ApiKey) -> Value {
    let scopes: Vec<String> = key.scopes.iter().cloned().map(String::from).collect();
    let mut shown = json!({
        "id": key.id, "name": key.name, "scopes": scopes, "createdAt": key.created,
        "prefix": key.id.0.text(key.prefix.as_str()), "allowedIps": key.allowed_ips,
    });
    let times = [
        ("expiresAt", key.expires),
        ("lastUsedAt", cx.state.auth.last_use(key)),
    ];
    for (name, time) in times {
        if let (Some(fields), Some(time)) = (shown.as_object_mut(), time) {
            fields.insert(String::from(name), json!(time));
        }
    }
    shown
}

/// Whether the caller sees a key: instance keys see all, others those of their application.
fn sees(cx: &Cx, key: &ApiKey) -> bool {
    key.revoked.is_none() && (cx.principal.app.is_none() || cx.principal.app == key.app)
}

/// GET `/api-keys`
pub(super) async fn list(cx: Cx) -> Answer {
    let snapshot = cx.state.directory.snapshot();
    let mut keys: Vec<_> = snapshot.keys().filter(|key| sees(&cx, key)).collect();
    keys.sort_unstable_by_key(|key| key.id);
    let keys: Vec<_> = keys.into_iter().map(|key| shown(&cx, key)).collect();
    Ok(Reply::ok(
        &json!({ "success": true, "count": keys.len(), "apiKeys": keys }),
    ))
}

/// POST `/api-keys/{key_id}/rotate`: another key that opens the same; the old one ends after the grace.
pub(super) async fn rotate(mut cx: Cx) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let grace = fields.number("gracePeriodSeconds", 0..=MAX_GRACE_SECS);
    fields.finish()?;
    let grace = Duration::from_secs(grace.value().unwrap_or(DEFAULT_GRACE_SECS));
    let missing = || Problem::not_found("API key");
    let id = KeyId::parse(cx.param("key_id")).map_err(|_| missing())?;
    let known = cx.state.directory.peek().key(&id).cloned();
    let known = known.filter(|key| sees(&cx, key) && key.expires.is_none_or(|at| at > cx.now));
    let known = known.ok_or_else(missing)?;
    if let Some(scope) = known.scopes.iter().find(|scope| !may_give(&cx, scope)) {
        return Err(cannot_give(scope));
    }
    let new = NewKey {
        prefix: prefix(&cx, known.app),
        name: known.name.clone(),
        scopes: known.scopes.clone(),
        app: known.app,
        expires: known.expires,
        allowed_ips: known.allowed_ips.clone(),
    };
    let (key, text) = mint(cx.state.entropy.bytes(), new, cx.now);
    let shown = shown_once(&cx, &key, text);
    let end = cx.now.plus(grace);
    cx.carry_out(move |draft| {
        let mut old = ApiKey::clone(draft.key(&id).ok_or_else(missing)?);
        old.expires = Some(old.expires.map_or(end, |own| own.min(end)));
        draft.put_key(old)?;
        Ok::<_, Problem>(draft.put_key(key)?)
    })
    .await?;
    Ok(Reply::created(&json!({ "success": true, "apiKey": shown })))
}

/// DELETE `/api-keys/{key_id}`: refused from the next request on.
pub(super) async fn revoke(cx: Cx) -> Answer {
    let missing = || Problem::not_found("API key");
    let id = KeyId::parse(cx.param("key_id")).map_err(|_| missing())?;
    let known = cx.state.directory.peek().key(&id).cloned();
    known.filter(|key| sees(&cx, key)).ok_or_else(missing)?;
    let now = cx.now;
    cx.carry_out(move |draft| {
        let known = draft.key(&id).ok_or_else(missing)?;
        let mut key = ApiKey::clone(known);
        key.revoked = Some(now);
        Ok::<_, Problem>(draft.put_key(key)?)
    })
    .await?;
    Ok(Reply::ok(
        &json!({ "success": true, "message": "The key is revoked." }),
    ))
}
