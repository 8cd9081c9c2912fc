//! Every vector and every handshake of the fixtures, by one loop that knows no provider.

use std::collections::{BTreeMap, BTreeSet};

use posthaste::providers::{Credentials, Handshake, Integrity, Manifest, Refusal, handshake};
use serde::Deserialize;

use super::kit::{CATALOGUE, Facts, Request, URL, Vector, credentials, fixture, manifest};

#[test]
fn every_vector_gets_the_verdict_that_it_states() {
    let vectors = Vector::all();
    assert!(vectors.len() >= 159, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        let verdict = vector.verdict();
        if verdict.is_ok() != vector.valid {
            let Vector { provider, note, .. } = vector;
            wrong.push(format!("{provider}: {note}: {verdict:?}"));
        }
        if let Ok(verified) = verdict {
            assert_eq!(verified.integrity, vector.manifest().integrity());
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_provider_that_checks_anything_has_vectors_of_both_kinds() {
    let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for vector in Vector::all() {
        counts.entry(vector.provider).or_default()[usize::from(vector.valid)] += 1;
    }
    let checked: BTreeSet<_> = CATALOGUE
        .all()
        .filter(|manifest| manifest.is_receivable() && manifest.integrity() != Integrity::None)
        .map(|manifest| manifest.id())
        .collect();
    // Those that take their check over from another are covered by its vectors.
    let inherited = BTreeSet::from(["google_forms", "stripe_connect", "twilio_verify"]);
    let wanted: BTreeSet<_> = checked.difference(&inherited).copied().collect();
    let found: BTreeSet<_> = counts.keys().map(String::as_str).collect();
    assert_eq!(found, wanted);
    assert_eq!(found.len(), 38);
    for (provider, [invalid, valid]) in &counts {
        assert!(
            *valid >= 1 && *invalid >= 2,
            "{provider}: {valid} valid, {invalid} invalid"
        );
    }
}

/// An entry of `handshakes.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    provider: String,
    #[serde(rename = "kind")]
    _kind: String,
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body: String,
    secret: String,
    reply: Option<Wanted>,
    note: String,
    #[serde(rename = "origin")]
    _origin: String,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Wanted {
    status: u16,
    content_type: String,
    headers: BTreeMap<String, String>,
    body: String,
    #[serde(default)]
    store: BTreeMap<String, String>,
}

/// What the engine answers, in the form of the fixture; `nosniff` is on every answer and left out.
fn answered(
    manifest: &Manifest,
    request: &Request,
    with: &Credentials,
) -> Result<Option<Wanted>, Refusal> {
    let answer = match handshake(manifest, &request.received(), with) {
        Handshake::None => return Ok(None),
        Handshake::Refused(refusal) => return Err(refusal),
        Handshake::Answer(answer) => answer,
    };
    let mut headers: BTreeMap<_, _> = answer.reply.headers.into_iter().collect();
    let nosniff = headers.remove("x-content-type-options");
    assert_eq!(nosniff.as_deref(), Some("nosniff"));
    let store = answer.store.map(|secret| {
        let name = manifest.delivered_secret().unwrap();
        (name.to_owned(), secret.to_string())
    });
    Ok(Some(Wanted {
        status: answer.reply.status,
        content_type: answer.reply.content_type,
        headers,
        body: String::from_utf8(answer.reply.body.to_vec()).unwrap(),
        store: store.into_iter().collect(),
    }))
}

#[test]
fn every_handshake_gets_the_answer_that_it_states() {
    let cases: Vec<Case> = fixture("handshakes.json");
    assert!(cases.len() >= 12);
    let mut wrong = Vec::new();
    for case in cases {
        let mut request = Request::post(case.body).at(&case.url);
        request.method = case.method.parse().unwrap();
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        let manifest = manifest(&case.provider);
        let found = answered(manifest, &request, &credentials(manifest, &case.secret));
        let wanted = case.reply.map(|mut wanted| {
            let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
            wanted.headers = wanted.headers.into_iter().map(lower).collect();
            wanted
        });
        if found.as_ref() != Ok(&wanted) {
            let Case { provider, note, .. } = &case_names(case.provider, case.note);
            wrong.push(format!(
                "{provider}: {note}:\n found {found:?}\n wanted {wanted:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A case without anything but its names.
fn case_names(provider: String, note: String) -> Case {
    Case {
        provider,
        note,
        _kind: String::new(),
        method: String::new(),
        url: String::new(),
        headers: BTreeMap::new(),
        body: String::new(),
        secret: String::new(),
        reply: None,
        _origin: String::new(),
    }
}

#[test]
fn slack_and_zoom_want_their_signature_checked_before_the_handshake() {
    let first = |id: &str, body: &str| {
        let manifest = manifest(id);
        let with = credentials(manifest, "secret-of-the-source");
        match handshake(manifest, &Request::post(body.to_owned()).received(), &with) {
            Handshake::Answer(answer) => answer.verify_first,
            other => panic!("{other:?}"),
        }
    };
    assert!(first(
        "slack",
        r#"{"type": "url_verification", "challenge": "c"}"#
    ));
    let zoom = r#"{"event": "endpoint.url_validation", "payload": {"plainToken": "t"}}"#;
    assert!(first("zoom", zoom));
    assert!(!first("monday", r#"{"challenge": "c"}"#));
    // Without a signature nothing is answered then.
    let request = Request::post(zoom);
    let with = credentials(manifest("zoom"), "secret-of-the-source");
    let verdict = request.verify(manifest("zoom"), &with, Vector::all()[0].now());
    assert_eq!(verdict, Err(Refusal::MissingSignature));
}

#[test]
fn a_challenge_that_could_become_a_delivery_is_not_signed() {
    let with = |id| credentials(manifest(id), "secret-of-the-source");
    let long = "a".repeat(257);
    let empty = "";
    for challenge in [
        "v0:1:x",
        "{\"a\":1}",
        "a b",
        "ä",
        "a\nb",
        long.as_str(),
        empty,
    ] {
        let body = serde_json::json!({
            "event": "endpoint.url_validation",
            "payload": {"plainToken": challenge},
        });
        let request = Request::post(body.to_string());
        let found = answered(manifest("zoom"), &request, &with("zoom"));
        assert_eq!(found, Err(Refusal::BadChallenge), "zoom {challenge:?}");
        let coded: String = challenge.bytes().map(|b| format!("%{b:02x}")).collect();
        let mut request = Request::post("").at(&format!("{URL}?crc_token={coded}"));
        request.method = http::Method::GET;
        let found = answered(manifest("twitter"), &request, &with("twitter"));
        assert_eq!(found, Err(Refusal::BadChallenge), "twitter {challenge:?}");
    }
    let fits = "a".repeat(256);
    let body =
        format!(r#"{{"event": "endpoint.url_validation", "payload": {{"plainToken": "{fits}"}}}}"#);
    let found = answered(manifest("zoom"), &Request::post(body), &with("zoom"));
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
}

#[test]
fn an_echo_is_at_most_one_kib_and_escaped_where_it_stands_in_json() {
    let echo = |length: usize| {
        let url = format!("{URL}?validationToken={}", "a".repeat(length));
        let request = Request::post("").at(&url);
        answered(
            manifest("microsoft_outlook"),
            &request,
            &Credentials::default(),
        )
    };
    assert_eq!(echo(1024).unwrap().unwrap().body.len(), 1024);
    assert_eq!(echo(1025), Err(Refusal::BadChallenge));
    let challenge = "\"},\"x\":\"{mac}\\\n";
    let body = serde_json::json!({ "challenge": challenge }).to_string();
    let found = answered(
        manifest("monday"),
        &Request::post(body),
        &Credentials::default(),
    );
    let found: serde_json::Value = serde_json::from_str(&found.unwrap().unwrap().body).unwrap();
    assert_eq!(found, serde_json::json!({ "challenge": challenge }));
}

#[test]
fn a_secret_is_delivered_once_and_never_replaced() {
    let asana = manifest("asana");
    let request = Request::post("").header("X-Hook-Secret", "b537207f20cbfa02357cf448134da559");
    let found = answered(asana, &request, &Credentials::default());
    assert_eq!(found.unwrap().unwrap().store.len(), 1);
    let holds = Credentials::default().with_secret("hook_secret", "the first one");
    assert_eq!(
        answered(asana, &request, &holds),
        Err(Refusal::HandshakeClosed)
    );
    let twice = request.header("X-Hook-Secret", "another-secret");
    let found = answered(asana, &twice, &Credentials::default());
    assert_eq!(found, Err(Refusal::DuplicateHeader));
}

#[test]
fn a_source_is_saved_only_with_secrets_and_settings_that_work() {
    for vector in Vector::valid() {
        let with = vector.credentials();
        assert_eq!(with.check(vector.manifest()), Ok(()), "{}", vector.provider);
    }
    let wrong = |id: &str, with: Credentials| with.check(manifest(id)).unwrap_err();
    let secret = |name, value| Credentials::default().with_secret(name, value);
    assert_eq!(wrong("stripe", Credentials::default()).len(), 1);
    assert_eq!(wrong("stripe", secret("endpoint_secret", "")).len(), 1);
    assert_eq!(wrong("stripe", secret("endpoint_sekret", "x")).len(), 2);
    assert_eq!(
        wrong("openai", secret("signing_secret", "whsec_!!")).len(),
        1
    );
    assert_eq!(wrong("sendgrid", secret("public_key", "MFkw")).len(), 1);
    assert_eq!(wrong("pipedrive", secret("http_auth", "no colon")).len(), 1);
    assert_eq!(wrong("n8n", secret("header_value", "x")).len(), 1);
    let bad_header = secret("header_value", "x").with_setting("header", "not a header");
    assert_eq!(wrong("n8n", bad_header).len(), 1);
    let mut fast = secret("endpoint_secret", "x");
    fast.tolerance = Some(std::time::Duration::from_secs(29));
    assert_eq!(wrong("stripe", fast).len(), 1);
    let mut none = secret("webhook_secret", "x");
    none.tolerance = Some(std::time::Duration::from_secs(60));
    assert_eq!(wrong("github", none).len(), 1, "GitHub signs no timestamp");
    let asana = Credentials::default().check(manifest("asana"));
    assert_eq!(asana, Ok(()), "its secret comes with the handshake");
}

#[test]
fn what_a_source_holds_is_not_shown_by_debug() {
    let with = Credentials::default()
        .with_secret("endpoint_secret", "whsec_canary")
        .with_setting("header", "canary");
    assert!(!format!("{with:?}").contains("canary"), "{with:?}");
}

#[test]
fn any_secret_of_a_rotation_verifies_and_the_first_answers_handshakes() {
    for vector in Vector::valid() {
        let facts = Facts::of(&vector.provider);
        if facts.kind() == "jwt" && facts.text("alg") == "RS256" {
            continue; // the key set has several keys by itself
        }
        let mut with = vector.credentials();
        let other = super::mutations::other_secret(&facts, &vector.secret);
        for values in with.secrets.values_mut() {
            values.insert(0, zeroize::Zeroizing::new(other.clone()));
        }
        let verdict = vector
            .request()
            .verify(vector.manifest(), &with, vector.now());
        assert!(verdict.is_ok(), "{}: {verdict:?}", vector.provider);
    }
}

#[test]
fn the_digest_tells_repetitions_and_not_signatures() {
    let of = |header: &str| {
        let vectors = Vector::valid().into_iter();
        let mut vector = vectors
            .into_iter()
            .find(|v| v.provider == "stripe")
            .unwrap();
        let name = String::from("Stripe-Signature");
        vector.headers.insert(name, header.to_owned());
        vector.verdict().map(|verified| verified.digest)
    };
    let good = "v1=e972feea173ab86139314d3b3560eb4877e7821681d7aef4514cab0a7b17b802";
    let whole = of(&format!("t=1764000000,v1=00,{good}"));
    assert!(whole.is_ok());
    assert_eq!(whole, of(&format!("t=1764000000,{good},v0=11")));
    let digests: BTreeSet<_> = Vector::valid()
        .iter()
        .map(|vector| vector.verdict().unwrap().digest)
        .collect();
    let valid = Vector::valid().len();
    assert!(
        digests.len() > valid - 3,
        "{} digests of {valid}",
        digests.len()
    );
}
