//! SourceOut: a source as it is answered. Never a secret, never a token but once.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use super::wanted::{accounts, response_shown};
use crate::base::Timestamp;
use crate::directory::Snapshot;
use crate::inbound::Token;
use crate::model::{AppId, Source, SourceId};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Out<'a> {
    pub(super) id: SourceId,
    app_id: Option<AppId>,
    name: &'a str,
    provider: &'a str,
    disabled: bool,
    /// Name and number of the secrets that are held.
    secrets: BTreeMap<&'a str, usize>,
    config: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerance_seconds: Option<u16>,
    allowed_ips: &'a [IpNet],
    event_types: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_second: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_url: Option<&'a str>,
    shared: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    accounts: BTreeMap<&'a str, String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> Out<'a> {
    pub(super) fn of(snapshot: &Snapshot, source: &'a Source) -> Self {
        let app = snapshot.app_by_no(source.app).map(|entry| entry.app.id);
        let secrets = source.secrets.iter();
        Self {
            id: source.id,
            app_id: app,
            name: &source.name,
            provider: &source.provider,
            disabled: source.disabled,
            secrets: secrets
                .map(|(name, held)| (name.as_str(), held.len()))
                .collect(),
            config: &source.settings,
            tolerance_seconds: source.tolerance_secs,
            allowed_ips: &source.allowed_ips,
            event_types: &source.event_types,
            rate_per_second: source.rate_per_second,
            response: source.response.as_ref().map(response_shown),
            public_url: source.public_url.as_deref(),
            shared: source.is_shared,
            accounts: accounts(snapshot, source),
            created_at: source.created,
            updated_at: source.updated,
        }
    }
}

/// With the URL to give to the provider: whole if the gateway knows its public name, else its path.
pub(super) fn with_token(out: &Out<'_>, token: &Token, base: Option<&str>) -> Value {
    let mut shown = json!(out);
    if let Some(fields) = shown.as_object_mut() {
        let path = token.path();
        let url = base.map(|base| format!("{base}{path}"));
        fields.insert(String::from("token"), json!(token.reveal()));
        fields.insert(String::from("path"), json!(path));
        fields.insert(String::from("url"), json!(url));
    }
    shown
}
