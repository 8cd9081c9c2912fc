//! SourceIn: what a caller says about a source, checked and put in place.

use std::collections::BTreeMap;

use http::HeaderValue;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use url::Url;

use crate::api::error::Problem;
use crate::api::request::Cx;
use crate::base::Timestamp;
use crate::directory::Snapshot;
use crate::ingest::fields::{self, Fields, Given, Wrong, sized};
use crate::ingest::{Item, ItemKind};
use crate::model::{AppNo, HeldSecret, Secret, Source, SourceId, SourceNo, SourceResponse};

/// Longest secret: a JSON Web Key Set, or a PEM key.
pub(super) const MAX_SECRET: usize = 16_384;
const MAX_SECRETS: usize = 10;
const MAX_SETTINGS: usize = 50;
const MAX_TYPES: usize = 500;
const MAX_NETWORKS: usize = 200;
const MAX_ACCOUNTS: usize = 1000;
const MAX_RESPONSE: usize = 4096;

/// All fields but provider and application, which never change.
pub(super) struct Wanted {
    name: String,
    disabled: bool,
    secrets: BTreeMap<String, Option<String>>,
    settings: BTreeMap<String, String>,
    tolerance_secs: Option<u16>,
    allowed_ips: Vec<IpNet>,
    event_types: BTreeMap<String, String>,
    rate_per_second: Option<u16>,
    response: Option<SourceResponse>,
    public_url: Option<String>,
    is_shared: bool,
    accounts: BTreeMap<String, String>,
}

impl Wanted {
    pub(super) fn read(mut fields: Fields) -> Result<Self, Vec<Item>> {
        let name = fields.required("name", sized(1, 256));
        let disabled = fields.flag("disabled").value().unwrap_or(false);
        let secrets = fields.read("secrets", secrets).value();
        let settings = bag(&mut fields, "config", MAX_SETTINGS, |key, value| {
            sized(1, 64)(key)?;
            sized(0, 4096)(value)
        });
        let tolerance = fields.number("toleranceSeconds", 30..=900).value();
        let ips = fields.set("allowedIps", 0..=MAX_NETWORKS, |text| {
            network(text).map(drop)
        });
        let types = bag(&mut fields, "eventTypes", MAX_TYPES, |theirs, ours| {
            sized(1, 256)(theirs)?;
            fields::event_type(ours)
        });
        let rate = fields.number("ratePerSecond", 1..=65_535).value();
        let response = fields.read("response", response).value();
        let public_url = fields.text("publicUrl", public_url).value();
        let is_shared = fields.flag("shared").value().unwrap_or(false);
        let accounts = bag(&mut fields, "accounts", MAX_ACCOUNTS, |account, _| {
            sized(1, 256)(account)
        });
        fields.finish()?;
        let ips = ips.value().unwrap_or_default();
        let u16_of = |n: u64| u16::try_from(n).ok();
        Ok(Self {
            name: name.unwrap_or_default(),
            disabled,
            secrets: secrets.unwrap_or_default(),
            settings,
            tolerance_secs: tolerance.and_then(u16_of),
            allowed_ips: ips.iter().filter_map(|text| network(text).ok()).collect(),
            event_types: types,
            rate_per_second: rate.and_then(u16_of),
            response,
            public_url,
            is_shared,
            accounts,
        })
    }

    /// Puts everything into `source`. Being shared, and sending on to other applications, takes a key
    /// that is not bound to one.
    pub(super) fn apply(self, source: &mut Source, cx: &Cx) -> Result<(), Problem> {
        let is_new = (self.is_shared && !source.is_shared) || !self.accounts.is_empty();
        if is_new {
            cx.instance_wide()?;
        }
        let mut accounts = BTreeMap::new();
        for (account, app) in self.accounts {
            let entry = cx.find_app(&app).map_err(|_| -> Problem {
                let msg = "no application with this id";
                let item = Item::body("accounts", ItemKind::ValueError, msg);
                item.under(account.clone()).into()
            })?;
            accounts.insert(account, entry.app.no);
        }
        for (name, secret) in self.secrets {
            match secret {
                None => {
                    source.secrets.remove(&name);
                }
                Some(text) => {
                    let secret = Secret::new(text);
                    let expires = None;
                    source
                        .secrets
                        .insert(name, vec![HeldSecret { secret, expires }]);
                }
            }
        }
        source.name = self.name;
        source.disabled = self.disabled;
        source.settings = self.settings;
        source.tolerance_secs = self.tolerance_secs;
        source.allowed_ips = self.allowed_ips;
        source.event_types = self.event_types;
        source.rate_per_second = self.rate_per_second;
        source.response = self.response;
        source.public_url = self.public_url;
        source.is_shared = self.is_shared;
        source.accounts = accounts;
        Ok(())
    }
}

/// A source with nothing in it.
pub(super) fn blank(app: AppNo, now: Timestamp) -> Source {
    Source {
        no: SourceNo(0),
        id: SourceId::new(now, [0; 14]),
        app,
        name: String::new(),
        provider: String::new(),
        disabled: false,
        secrets: BTreeMap::new(),
        settings: BTreeMap::new(),
        tolerance_secs: None,
        allowed_ips: Vec::new(),
        event_types: BTreeMap::new(),
        rate_per_second: None,
        response: None,
        public_url: None,
        is_shared: false,
        accounts: BTreeMap::new(),
        token: [0; 32],
        old_tokens: Vec::new(),
        created: now,
        updated: now,
        deleted: None,
    }
}

/// Notes it if provider or application are named and are others: both are for life.
pub(super) fn fixed(fields: &mut Fields, cx: &Cx, current: &Source) {
    let fixed = |msg| (ItemKind::ValueError, std::borrow::Cow::Borrowed(msg));
    if let Given::Value(provider) = fields.text("provider", fields::any)
        && provider != current.provider
    {
        let msg = "a source keeps its provider: make another one";
        fields.wrong("provider", fixed(msg));
    }
    if let Given::Value(app) = fields.text("appId", fields::any)
        && cx.find_app(&app).ok().map(|entry| entry.app.no) != Some(current.app)
    {
        let msg = "a source keeps its application: make another one";
        fields.wrong("appId", fixed(msg));
    }
}

/// What a PUT would say to leave everything as it is.
pub(super) fn as_sent(snapshot: &Snapshot, source: &Source) -> Value {
    let accounts: BTreeMap<&str, String> = accounts(snapshot, source);
    json!({
        "name": source.name, "disabled": source.disabled, "config": source.settings,
        "toleranceSeconds": source.tolerance_secs, "allowedIps": source.allowed_ips,
        "eventTypes": source.event_types, "ratePerSecond": source.rate_per_second,
        "response": source.response.as_ref().map(response_shown),
        "publicUrl": source.public_url, "shared": source.is_shared, "accounts": accounts,
    })
}

/// Accounts with the ids of their applications; those of deleted ones are left out.
pub(super) fn accounts<'a>(snapshot: &Snapshot, source: &'a Source) -> BTreeMap<&'a str, String> {
    let known = source.accounts.iter().filter_map(|(account, no)| {
        let entry = snapshot.app_by_no(*no)?;
        Some((account.as_str(), entry.app.id.to_string()))
    });
    known.collect()
}

pub(super) fn response_shown(response: &SourceResponse) -> Value {
    json!({
        "status": response.status, "contentType": response.content_type, "body": response.body,
    })
}

fn wrong(kind: ItemKind, msg: impl Into<std::borrow::Cow<'static, str>>) -> Wrong {
    (kind, msg.into())
}

/// An object of texts that each pass `check`.
fn bag(
    fields: &mut Fields,
    name: &str,
    max: usize,
    check: impl Fn(&str, &str) -> Result<(), Wrong>,
) -> BTreeMap<String, String> {
    let bag = fields.texts(name).value().unwrap_or_default();
    if bag.len() > max {
        fields.wrong(
            name,
            wrong(ItemKind::Limit, format!("at most {max} entries")),
        );
        return BTreeMap::new();
    }
    for (key, value) in &bag {
        if let Err(bad) = check(key, value) {
            fields.wrong(name, bad);
        }
    }
    bag
}

/// Secrets by name; null forgets one. What they are is never repeated in an error.
fn secrets(value: Value) -> Result<BTreeMap<String, Option<String>>, Wrong> {
    let form = || wrong(ItemKind::TypeError, "an object of strings is wanted");
    let Value::Object(map) = value else {
        return Err(form());
    };
    if map.len() > MAX_SECRETS {
        return Err(wrong(
            ItemKind::Limit,
            format!("at most {MAX_SECRETS} secrets"),
        ));
    }
    let mut out = BTreeMap::new();
    for (name, value) in map {
        sized(1, 64)(&name)?;
        let text = match value {
            Value::Null => None,
            Value::String(text) => {
                sized(1, MAX_SECRET)(&text)?;
                Some(text)
            }
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return Err(form());
            }
        };
        out.insert(name, text);
    }
    Ok(out)
}

/// A network, or one address.
pub(in crate::api) fn network(text: &str) -> Result<IpNet, Wrong> {
    let read = text.parse::<IpNet>().ok();
    let read = read.or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    let msg = "an address or a network such as 203.0.113.0/24 is wanted";
    read.ok_or_else(|| wrong(ItemKind::ValueError, msg))
}

/// `{status = 200, contentType = "application/json", body = ""}`
fn response(value: Value) -> Result<SourceResponse, Wrong> {
    let form = |msg: &'static str| wrong(ItemKind::ValueError, msg);
    let Value::Object(mut map) = value else {
        return Err(wrong(ItemKind::TypeError, "an object is wanted"));
    };
    let status = match map.remove("status") {
        None | Some(Value::Null) => 200,
        Some(value) => fields::whole(&value, &(200..=299))?,
    };
    let content_type = text(&mut map, "contentType", "application/json")?;
    let is_header = HeaderValue::from_str(&content_type).is_ok();
    if !is_header || !content_type.contains('/') || content_type.len() > 128 {
        return Err(form("contentType is no media type"));
    }
    let body = text(&mut map, "body", "")?;
    if body.len() > MAX_RESPONSE {
        return Err(wrong(
            ItemKind::Limit,
            format!("a body has at most {MAX_RESPONSE} bytes"),
        ));
    }
    if !map.is_empty() {
        return Err(wrong(
            ItemKind::UnknownField,
            "status, contentType and body are wanted",
        ));
    }
    Ok(SourceResponse {
        status: u16::try_from(status).unwrap_or(200),
        content_type,
        body,
    })
}

fn text(map: &mut Map<String, Value>, name: &str, default: &str) -> Result<String, Wrong> {
    match map.remove(name) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong(ItemKind::TypeError, "a string is wanted")),
    }
}

/// The URL a provider calls: absolute, without user, query and fragment.
fn public_url(text: &str) -> Result<(), Wrong> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if url.is_none() || text.len() > 2048 {
        let msg = "an http or https URL without user, query and fragment is wanted";
        return Err(wrong(ItemKind::ValueError, msg));
    }
    Ok(())
}
