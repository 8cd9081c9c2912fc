//! The parts of a manifest that describe the provider's API: known keys, right types, nothing kept.
//!
//! Connecting to providers is not built yet. Their facts stand in the manifests already, so what is
//! written there is held to a schema from the start; whoever uses a part gives it a checked type.

use super::json;
use super::reader::{Kind, Table};

type Keys = &'static [(&'static str, Kind)];

const ROOT: Keys = &[
    ("auth", Kind::Texts),
    ("alias", Kind::Text),
    ("confidence", Kind::Text),
    ("needs_code", Kind::Texts),
];

const OAUTH2: Keys = &[
    ("grant", Kind::Text),
    ("authorize_url", Kind::Text),
    ("token_url", Kind::Text),
    ("refresh_url", Kind::Text),
    ("introspect_url", Kind::Text),
    ("pkce", Kind::Text),
    ("scope_sep", Kind::Text),
    ("scope_param", Kind::Text),
    ("user_scope_param", Kind::Text),
    ("scopes", Kind::Texts),
    ("optional_scopes", Kind::Texts),
    ("optional_scope_param", Kind::Text),
    ("broader_scopes", Kind::Texts),
    ("authorize_params", Kind::Pairs),
    ("token_params", Kind::Pairs),
    ("refresh_params", Kind::Pairs),
    ("client_auth", Kind::Text),
    ("body_format", Kind::Text),
    ("code_ttl_s", Kind::Number),
    ("access_ttl_s", Kind::Number),
    ("refresh", Kind::Text),
    ("refresh_idle_ttl_s", Kind::Number),
    ("refresh_ttl_s", Kind::Number),
    ("token_meta", Kind::Texts),
    ("callback_meta", Kind::Texts),
    ("error_in_200", Kind::Text),
    ("expires_field", Kind::Text),
    ("sandbox_host", Kind::Text),
    ("sandbox_authorize_url", Kind::Text),
    ("login_hosts", Kind::Texts),
    ("data_centers", Kind::Lists),
    ("inherit", Kind::Text),
];

const KEY: Keys = &[
    ("header", Kind::Text),
    ("headers", Kind::Text),
    ("basic", Kind::Text),
    ("basic_alt", Kind::Text),
    ("query", Kind::Text),
];

const API: Keys = &[
    ("base_url", Kind::Text),
    ("base_url_eu", Kind::Text),
    ("base_url_sandbox", Kind::Text),
    ("auth_header", Kind::Text),
    ("headers", Kind::Pairs),
    ("api_version", Kind::Text),
    ("regions", Kind::Texts),
    ("rate_status", Kind::Numbers),
    ("error_code", Kind::Text),
    ("error_message", Kind::Text),
    ("error_in_200", Kind::Text),
    ("auth_errors", Kind::Texts),
    ("identify", Kind::Text),
];

const ACTION: Keys = &[
    ("id", Kind::Text),
    ("method", Kind::Text),
    ("path", Kind::Text),
    ("content_type", Kind::Text),
    ("body", Kind::Text),
    ("success", Kind::Numbers),
    ("id_path", Kind::Text),
    ("scopes", Kind::Texts),
];

const OUTBOUND: Keys = &[
    ("url_pattern", Kind::Text),
    ("header", Kind::Text),
    ("success", Kind::Numbers),
    ("gone", Kind::Numbers),
    ("rate_status", Kind::Numbers),
    ("sync_suffix", Kind::Text),
];

/// How often a provider may be asked for missed deliveries, seconds.
const RECONCILE_SECS: std::ops::RangeInclusive<u32> = 60..=86_400;

/// Checks everything beside `[webhook]`.
pub(super) fn check(root: &Table<'_, '_>) {
    expect(root, ROOT);
    for (name, keys) in [
        ("oauth2", OAUTH2),
        ("key", KEY),
        ("api", API),
        ("outbound", OUTBOUND),
    ] {
        section(root.table(name), keys);
    }
    for action in root.tables("actions") {
        for key in ["id", "method", "path"] {
            if !action.has(key) {
                action.wrong(format!("{key} is missing"));
            }
        }
        section(Some(action), ACTION);
    }
}

/// Checks what stands in `[webhook]` for later use.
pub(super) fn check_webhook(webhook: &Table<'_, '_>) {
    expect(webhook, &[("ip_list", Kind::Text)]);
    if let Some(table) = webhook.table("reconcile") {
        reconcile(table);
    }
}

/// How missed deliveries are found at a provider that does not resend them: declared for later use, and
/// held to its form now, so that what is written today can be used then.
fn reconcile(table: Table<'_, '_>) {
    table.parsed_needed("list", call);
    table.parsed("again", call);
    table.parsed_needed("id_path", json::Path::parse);
    table.parsed("failed_if", condition);
    table.number("every_s", RECONCILE_SECS);
    table.finish();
}

/// `GET /path`
fn call(text: &str) -> Result<(), String> {
    let good = text.split_once(' ').is_some_and(|(method, path)| {
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method);
        known && path.starts_with('/') && !path.contains(' ')
    });
    if good {
        return Ok(());
    }
    Err(format!("{text:?}: want METHOD /path"))
}

/// `status_code >= 400`
fn condition(text: &str) -> Result<(), String> {
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        [path, "==" | "!=" | ">=" | "<=" | ">" | "<", _] => json::Path::parse(path).map(drop),
        _ => Err(format!("{text:?}: want PATH OPERATOR VALUE")),
    }
}

fn section(table: Option<Table<'_, '_>>, keys: Keys) {
    if let Some(table) = table {
        expect(&table, keys);
        table.finish();
    }
}

fn expect(table: &Table<'_, '_>, keys: Keys) {
    for (key, kind) in keys {
        table.expect(key, *kind);
    }
}
