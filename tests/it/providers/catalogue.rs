//! The manifests themselves: those compiled in, and those of a directory.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use posthaste::base::Timestamp;
use posthaste::providers::{Catalogue, Credentials, Integrity, Refusal, Status, events};
use ring::hmac;

use super::kit::{CATALOGUE, Request};
use crate::kit::repository;

#[test]
fn all_fifty_seven_manifests_are_compiled_in() {
    let listed: BTreeSet<_> = CATALOGUE
        .all()
        .map(|manifest| manifest.id().to_owned())
        .collect();
    let folder = fs::read_dir(repository("src/providers/manifests")).unwrap();
    let files: BTreeSet<_> = folder
        .map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".toml").unwrap().to_owned()
        })
        .collect();
    assert_eq!(listed, files);
    assert_eq!(listed.len(), 57);
    let closed = CATALOGUE
        .all()
        .filter(|manifest| manifest.status() == Status::DocOnly);
    let closed: Vec<_> = closed
        .map(|manifest| (manifest.id(), manifest.why().is_some()))
        .collect();
    let wanted = ["glassdoor", "google_data_studio", "verifications_io"];
    assert_eq!(closed, wanted.map(|id| (id, true)));
}

/// A provider that the product does not know, with a scheme that it does.
pub(crate) const ACME: &str = r#"
schema_version = 1
name = "Acme"
category = "generic"
status = "inbound"

[webhook]
integrity = "body"

[webhook.events]
type = "json:kind"
id = "json:no"

[webhook.verify]
kind = "hmac"
alg = "sha512"
encoding = "base64url"
signature = "header:X-Acme-Sign"
timestamp = "header:X-Acme-Time"
ts_unit = "s"
tolerance_s = 60
message = "{ts}|{header:X-Acme-Key}|{body}"
secret = "shared"
secret_encoding = "hex"
"#;

#[test]
fn a_provider_with_a_known_scheme_is_added_by_a_file_and_verifies() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("acme.toml"), ACME).unwrap();
    fs::write(directory.path().join("README"), "no manifest").unwrap();
    let catalogue = Catalogue::load(Some(directory.path())).unwrap();
    assert_eq!(catalogue.all().count(), 58);
    let acme = catalogue.get("acme").unwrap();
    let with = Credentials::default().with_secret("shared", "00ff10");
    assert_eq!(with.check(acme), Ok(()));

    let body = br#"{"kind": "order/made", "no": 17}"#;
    let key = hmac::Key::new(hmac::HMAC_SHA512, &[0, 255, 16]);
    let tag = hmac::sign(&key, &[&b"1764000000|k1|"[..], body].concat());
    let sign = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, tag);
    let request = Request::post(&body[..])
        .header("X-Acme-Sign", &sign)
        .header("X-Acme-Time", "1764000000")
        .header("X-Acme-Key", "k1");
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
    let verified = request.verify(acme, &with, at(1_764_000_060)).unwrap();
    assert_eq!(verified.integrity, Integrity::Body);
    let stale = request.verify(acme, &with, at(1_764_000_061));
    assert_eq!(stale, Err(Refusal::StaleTimestamp));
    let mut wide = with;
    wide.tolerance = Some(std::time::Duration::from_secs(900));
    assert!(request.verify(acme, &wide, at(1_764_000_900)).is_ok());
    let events = events(acme, &request.received()).unwrap();
    assert_eq!(events[0].event_type, "acme.order.made");
    assert_eq!(events[0].id.as_deref(), Some("acme-17"));
}

#[test]
fn a_file_replaces_the_manifest_of_its_id() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("github.toml"), ACME).unwrap();
    let catalogue = Catalogue::load(Some(directory.path())).unwrap();
    assert_eq!(catalogue.all().count(), 57);
    assert_eq!(catalogue.get("github").unwrap().name(), "Acme");
}

/// Every mistake as `file:line: text`, the directory left out.
fn mistakes(directory: &Path) -> Vec<String> {
    let found = Catalogue::load(Some(directory)).unwrap_err();
    let prefix = format!("{}/", directory.display());
    found
        .iter()
        .map(|mistake| mistake.to_string().replace(&prefix, ""))
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_bad_directory_is_told_with_all_its_mistakes_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("Upper.toml", ACME);
    write(
        "a_keys.toml",
        &ACME
            .replace("integrity", "integritty")
            .replace("name =", "nam ="),
    );
    write("b_toml.toml", &format!("{ACME}\nkind = "));
    write(
        "c_values.toml",
        &ACME
            .replace("\"sha512\"", "\"md5\"")
            .replace("60", "\"60\"")
            .replace("{ts}|", "{time}|")
            .replace("json:no", "jsn:no"),
    );
    write("d_unsigned_time.toml", &ACME.replace("{ts}|", ""));
    write(
        "e_promise.toml",
        &ACME.replace("{ts}|{header:X-Acme-Key}|{body}", "{ts}"),
    );
    write(
        "f_inherit.toml",
        "schema_version = 1\nname = \"F\"\ncategory = \"x\"\nstatus = \"api\"\n[webhook]\ninherit = \"nobody\"\n",
    );
    write(
        "g_version.toml",
        &ACME.replace("schema_version = 1", "schema_version = 2"),
    );
    write(
        "h_api.toml",
        &format!(
            "{ACME}\n[api]\nbase_ur = \"x\"\nrate_status = [\"429\"]\n[[actions]]\nid = \"a\"\n"
        ),
    );
    write(
        "i_reason.toml",
        &ACME.replace("\"inbound\"", "\"doc_only\""),
    );
    write(
        "j_reconcile.toml",
        &format!(
            "{ACME}\n[webhook.reconcile]\nagain = \"again\"\nid_path = \"\"\nfailed_if = \"status\"\nevery_s = 5\nsince = 1\n"
        ),
    );
    let wanted = [
        "Upper.toml:1: the file's name \"Upper\": want 1 to 64 of a-z, 0-9 and _",
        "a_keys.toml:1: name is missing",
        "a_keys.toml:3: nam: unknown key; did you mean name?",
        "a_keys.toml:8: webhook.integritty: unknown key; did you mean integrity?",
        "b_toml.toml:26: not TOML: duplicate key",
        "b_toml.toml:26: not TOML: string values must be quoted",
        "c_values.toml:12: webhook.events.id: \"jsn:no\": want json:PATH",
        "c_values.toml:16: webhook.verify.alg: want one of sha1, sha256, sha384, sha512",
        "c_values.toml:21: webhook.verify.tolerance_s: want a whole number",
        "c_values.toml:22: webhook.verify.message: {time} is unknown",
        "d_unsigned_time.toml:14: webhook.verify: the timestamp is not signed",
        "e_promise.toml:7: webhook.integrity: this check gives metadata at most",
        "f_inherit.toml:5: webhook.inherit: there is no manifest nobody",
        "g_version.toml:2: schema_version: want 1 to 1",
        "h_api.toml:27: api.base_ur: unknown key; did you mean base_url?",
        "h_api.toml:28: api.rate_status: want a list of whole numbers",
        "h_api.toml:29: actions: method is missing",
        "h_api.toml:29: actions: path is missing",
        "i_reason.toml:1: status = \"doc_only\" and why go together",
        "i_reason.toml:1: status = \"doc_only\" has no webhook",
        "j_reconcile.toml:26: webhook.reconcile: list is missing",
        "j_reconcile.toml:27: webhook.reconcile.again: \"again\": want METHOD /path",
        "j_reconcile.toml:28: webhook.reconcile.id_path: ",
        "j_reconcile.toml:29: webhook.reconcile.failed_if: \"status\": want PATH OPERATOR VALUE",
        "j_reconcile.toml:30: webhook.reconcile.every_s: want 60 to 86400",
        "j_reconcile.toml:31: webhook.reconcile.since: unknown key",
    ];
    let found = mistakes(directory.path());
    let missing: Vec<_> = wanted
        .iter()
        .filter(|wanted| !found.iter().any(|found| found.starts_with(**wanted)))
        .collect();
    let all = found.join("\n");
    assert!(missing.is_empty(), "missing {missing:#?}\nin\n{all}");
    assert_eq!(found.len(), wanted.len(), "{all}");
}

#[test]
fn a_directory_that_is_not_there_is_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let found = Catalogue::load(Some(&directory.path().join("gone"))).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].to_string().contains("gone: cannot be read"),
        "{}",
        found[0]
    );
}
