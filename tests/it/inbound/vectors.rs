//! Every vector and every handshake of the providers' fixtures through the real route: one table each,
//! nothing left out.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit, Mac};
use posthaste::base::Clock;
use posthaste::providers::Catalogue;
use serde_json::{Value, json};
use sha2::Sha256;

use super::kit::{Answer, SourceRef, Stage};
use crate::kit::{repository, say};

fn fixtures(name: &str) -> Vec<Value> {
    let path = repository("tests/fixtures/providers").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap_or_default()
}

/// A source for the vector, or what the API says against it.
async fn source(stage: &Stage, vector: &Value, catalogue: &Catalogue) -> Result<SourceRef, String> {
    let provider = text(vector, "provider");
    let manifest = catalogue.get(provider).expect("there is a manifest");
    let mut secrets = BTreeMap::new();
    if manifest.jwks_url().is_some() {
        // The vector's secret is the document at that URL.
        *stage.gateway.key_set.document.lock() = text(vector, "secret").to_owned();
    } else if manifest.delivered_secret().is_none() || !text(vector, "secret").is_empty() {
        for name in manifest.credentials() {
            secrets.insert(name.to_owned(), text(vector, "secret").to_owned());
        }
    }
    let url = text(vector, "url").split('?').next().unwrap_or_default();
    let mut body = json!({
        "name": text(vector, "note"), "provider": provider, "appId": "acme", "secrets": secrets,
        "config": vector.get("config").cloned().unwrap_or_else(|| json!({})),
    });
    if !url.is_empty() {
        body["publicUrl"] = json!(url);
    }
    let made = stage
        .gateway
        .call("POST", "/source")
        .json(&body)
        .send()
        .await;
    if made.status != 201 {
        return Err(made.text().to_owned());
    }
    Ok(SourceRef {
        id: made.json()["id"].as_str().unwrap().to_owned(),
        path: made.json()["path"].as_str().unwrap().to_owned(),
    })
}

async fn send(stage: &Stage, vector: &Value, source: &SourceRef) -> Answer {
    let headers = vector["headers"].as_object().unwrap();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let query = text(vector, "url").split_once('?');
    let path = match query {
        Some((_, query)) => format!("{}?{query}", source.path),
        None => source.path.clone(),
    };
    let body = text(vector, "body").as_bytes();
    stage
        .raw(text(vector, "method"), &path, &headers, body)
        .await
}

#[tokio::test]
async fn every_vector_has_its_verdict_through_the_real_route() {
    let catalogue = Catalogue::builtin().unwrap();
    let vectors = fixtures("vectors.json");
    let mut mismatches = Vec::new();
    let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for vector in &vectors {
        // A gateway of its own: no vector is another one's replay, and key sets are not remembered.
        let stage = Stage::open().await;
        let (provider, note) = (text(vector, "provider"), text(vector, "note"));
        let valid = vector["valid"].as_bool().unwrap();
        let counts = seen.entry(provider).or_default();
        if valid {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
        let source = source(&stage, vector, &catalogue).await;
        let before = stage.counts();
        let verdict = match &source {
            // What can never verify is refused when it is saved.
            Err(said) => format!("refused when saved: {said}"),
            Ok(source) => {
                stage.set_time(vector["now"].as_u64().unwrap());
                let answer = send(&stage, vector, source).await;
                let kept = stage.counts().messages() - before.messages();
                let receipts = stage.receipts(source).await;
                let reason = receipts[0]["reason"].as_str().unwrap_or("-").to_owned();
                let refused = answer.status == 401 && stage.counts() == before;
                if !refused && (!(200..300).contains(&answer.status) || kept == 0) {
                    mismatches.push(format!("{provider}: {note}: {} {kept}", answer.status));
                }
                if refused {
                    format!("refused {} {reason}", answer.status)
                } else {
                    format!("accepted {}", answer.status)
                }
            }
        };
        say(&format!("{provider} | {note} | {verdict}"));
        if verdict.starts_with("accepted") != valid {
            mismatches.push(format!("{provider}: {note}: want {valid}, got {verdict}"));
        }
    }
    say(&format!(
        "{} vectors, {} providers",
        vectors.len(),
        seen.len()
    ));
    assert_eq!(mismatches, Vec::<String>::new());
    // The set: 159 vectors, and for each provider that verifies at least one good and two bad ones.
    assert_eq!(vectors.len(), 159);
    let verifying: BTreeSet<&str> = catalogue
        .all()
        .filter(|manifest| manifest.is_receivable() && !manifest.credentials().is_empty())
        .map(|manifest| manifest.id())
        .collect();
    let lacking = verifying.iter().filter(|id| {
        let (good, bad) = seen.get(*id).copied().unwrap_or_default();
        good < 1 || bad < 2
    });
    let lacking: Vec<_> = lacking.collect();
    say(&format!(
        "providers that verify without vectors of their own: {lacking:?}"
    ));
    assert_eq!(seen.len(), 38);
}

#[tokio::test]
async fn every_handshake_is_answered_as_stated_through_the_real_route() {
    let catalogue = Catalogue::builtin().unwrap();
    let all = fixtures("handshakes.json");
    let mut mismatches = Vec::new();
    for one in &all {
        let stage = Stage::open().await;
        let (provider, note) = (text(one, "provider"), text(one, "note"));
        let mut vector = one.clone();
        let manifest = catalogue.get(provider).unwrap();
        if text(one, "secret").is_empty() && manifest.delivered_secret().is_none() {
            vector["secret"] = json!("a-secret-that-the-handshake-does-not-need");
        }
        vector["config"] = settings(manifest);
        let made = source(&stage, &vector, &catalogue).await.unwrap();
        let before = stage.counts();
        if ["slack", "zoom"].contains(&provider) && !one["reply"].is_null() {
            // The signature counts first: without one nothing is answered.
            let unsigned = send(&stage, &vector, &made).await;
            assert_eq!((unsigned.status, stage.counts()), (401, before.clone()));
            sign(&stage, provider, &mut vector);
        }
        let answer = send(&stage, &vector, &made).await;
        let receipts = stage.receipts(&made).await;
        let verdict = receipts[0]["verdict"].as_str().unwrap();
        let reason = receipts[0]["reason"].as_str().unwrap_or("-");
        say(&format!(
            "{provider} | {note} | {} {verdict} {reason}",
            answer.status
        ));
        let wanted = &one["reply"];
        if wanted.is_null() {
            // An ordinary event.
            if verdict == "handshake" {
                mismatches.push(format!("{provider}: {note}: answered {}", answer.status));
            }
            continue;
        }
        let headers = wanted["headers"].as_object().unwrap();
        let all_there = headers.iter().all(|(name, value)| {
            let value = value.as_str().unwrap().to_ascii_lowercase();
            answer.header(name) == Some(&value)
        });
        let kind = answer.header("content-type").unwrap_or_default();
        let wanted_kind = wanted["content_type"].as_str().unwrap_or_default();
        let same = verdict == "handshake"
            && Some(u64::from(answer.status)) == wanted["status"].as_u64()
            && answer.text() == text(wanted, "body")
            && (wanted_kind.is_empty() || kind.starts_with(wanted_kind))
            && answer.header("x-content-type-options") == Some("nosniff")
            && all_there;
        if !same {
            mismatches.push(format!(
                "{provider}: {note}: {answer:?} instead of {wanted}"
            ));
        }
        let stores = wanted.get("store").is_some_and(|store| !store.is_null());
        let after = stage.counts();
        if after.messages() != before.messages() || (after != before) != stores {
            mismatches.push(format!("{provider}: {note}: {before:?} became {after:?}"));
        }
    }
    assert_eq!(mismatches, Vec::<String>::new());
    assert_eq!(all.len(), 12);
}

/// Signs a handshake whose signature counts first, as these two providers do: `v0:{ts}:{body}`.
fn sign(stage: &Stage, provider: &str, vector: &mut Value) {
    let now = stage.gateway.clock.now().millis() / 1000;
    let mut mac = Hmac::<Sha256>::new_from_slice(text(vector, "secret").as_bytes()).unwrap();
    mac.update(format!("v0:{now}:{}", text(vector, "body")).as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let names = match provider {
        "slack" => ["x-slack-signature", "x-slack-request-timestamp"],
        _ => ["x-zm-signature", "x-zm-request-timestamp"],
    };
    vector["headers"][names[0]] = json!(format!("v0={hex}"));
    vector["headers"][names[1]] = json!(now.to_string());
}

/// A value for every setting the manifest wants.
fn settings(manifest: &posthaste::providers::Manifest) -> Value {
    let names = manifest.settings().into_iter();
    let map: serde_json::Map<String, Value> = names
        .map(|name| (name.to_owned(), json!("x-a-setting")))
        .collect();
    Value::Object(map)
}
