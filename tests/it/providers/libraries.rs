//! Official libraries of providers on the other side: what they sign verifies here, and what is signed
//! here after the manifest's file verifies there.
//!
//! npm: `@octokit/webhooks-methods`, `stripe`, `standardwebhooks`, `svix`, `@hubspot/api-client`, and
//! `@sendgrid/eventwebhook`, which verifies only. PyPI: `slack-sdk`, `twilio`, and `pyjwt` for the tokens of
//! Google and monday.com. All of it offline.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use posthaste::base::Timestamp;
use posthaste::providers::{Credentials, Jwks, Refusal};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::kit::{Facts, Request, manifest};
use super::properties::{NOW, Sender};
use crate::kit::{dependency, repository};

/// They have what goes wrong: escapes, line ends, white space, non-ASCII, braces.
const BODIES: &[&str] = &[
    r#"{"id":"evt_1","type":"invoice.paid"}"#,
    "{ \"a\" : \"\\u003c\", \"b\": 1.10 }\r\n",
    r#"[{"name":"Zoë","emoji":"🦀"}]"#,
    r#"{"text":"{ts}.{body} v1,x t=1"}"#,
];

const FORMS: &[&str] = &[
    "CallSid=CA1&From=%2B14158675309&Caller=a+b",
    "b=2&a=1&b=1&b=2&c=",
    "name=Zo%C3%AB&empty=&x=%26%3D",
];

/// Runs the jobs in one process of `program`; the answers come in their order.
fn run(mut program: Command, jobs: &[Value]) -> Vec<Value> {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
    let text = Value::from(jobs.to_vec()).to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program:?} failed: run scripts/install-test-deps"
    );
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), jobs.len());
    answers
}

fn node(jobs: &[Value]) -> Vec<Value> {
    for package in [
        "@hubspot/api-client",
        "@octokit/webhooks-methods",
        "@sendgrid/eventwebhook",
        "standardwebhooks",
        "stripe",
        "svix",
    ] {
        dependency(repository("tests/node/node_modules").join(package));
    }
    let mut command = Command::new("node");
    command.arg(repository("tests/node/providers.mjs"));
    run(command, jobs)
}

fn python(jobs: &[Value]) -> Vec<Value> {
    let mut command = Command::new(dependency(repository("target/test-venv/bin/python")));
    command.arg(repository("tests/python/providers.py"));
    run(command, jobs)
}

const URL: &str = "https://gw.example.com/in/x?a=b%3Ac";

fn secret_of(provider: &str) -> &'static str {
    match Facts::of(provider).text("secret_encoding") {
        "whsec" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        _ => "the secret of this test, long enough for all",
    }
}

fn bodies(provider: &str) -> &'static [&'static str] {
    if provider == "twilio" { FORMS } else { BODIES }
}

/// Whose webhooks a library knows.
fn provider_of(library: &str) -> &str {
    match library {
        "svix" => "standard_webhooks",
        same => same,
    }
}

fn jobs_to_sign(libraries: &[&str]) -> Vec<Value> {
    let mut jobs = Vec::new();
    for library in libraries {
        let provider = provider_of(library);
        for body in bodies(provider) {
            jobs.push(json!({
                "library": library, "provider": provider, "task": "sign", "secret": secret_of(provider),
                "url": URL, "body": body, "now": NOW,
            }));
        }
    }
    jobs
}

/// What the source holds: the secret, or what came with the answer.
fn source(provider: &str, headers: &BTreeMap<String, String>) -> Credentials {
    let mut with = Credentials::default();
    for name in manifest(provider).credentials() {
        let given = headers.get(name);
        with = with.with_secret(
            name,
            given.map_or_else(|| secret_of(provider), String::as_str),
        );
    }
    if let Some(keys) = headers.get("jwks") {
        with.jwks = Some(Arc::new(Jwks::parse(keys).unwrap()));
        with = with.with_setting(
            "push_service_account",
            "push@example.iam.gserviceaccount.com",
        );
    }
    with
}

#[test]
fn what_official_libraries_sign_verifies_and_a_changed_request_does_not() {
    let by_node = ["github", "stripe", "standard_webhooks", "svix", "hubspot"];
    let by_python = ["slack", "twilio", "monday", "gmail"];
    let mut jobs = jobs_to_sign(&by_node);
    let mut answers = node(&jobs);
    let more = jobs_to_sign(&by_python);
    answers.extend(python(&more));
    jobs.extend(more);
    assert_eq!(jobs.len(), 8 * BODIES.len() + FORMS.len());
    for (job, answer) in jobs.iter().zip(answers) {
        let provider = job["provider"].as_str().unwrap();
        let headers: BTreeMap<String, String> = serde_json::from_value(answer).unwrap();
        assert!(!headers.contains_key("error"), "{provider}: {headers:?}");
        let with = source(provider, &headers);
        let body = job["body"].as_str().unwrap();
        let mut request = Request::post(body.to_owned()).at(URL);
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str() != "jwks") {
            request = request.header(name, value);
        }
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let verdict = request.verify(manifest(provider), &with, at(NOW));
        assert!(verdict.is_ok(), "{provider}: {verdict:?} for {body:?}");
        let changed = match manifest(provider).integrity().name() {
            "body" => Request {
                body: format!("{body}x").into(),
                ..request.clone()
            },
            _ => request.clone().at("https://gw.example.com/in/y"),
        };
        let verdict = changed.verify(manifest(provider), &with, at(NOW));
        let wanted = match manifest(provider).integrity().name() {
            "body" => Refusal::BadSignature,
            _ => Refusal::BadClaim,
        };
        assert_eq!(verdict, Err(wanted), "{provider}");
    }
}

#[test]
fn official_libraries_verify_what_is_signed_after_the_manifest() {
    let mut jobs = Vec::new();
    let senders = Sender::all().into_iter();
    let known = [
        "github",
        "stripe",
        "standard_webhooks",
        "hubspot",
        "slack",
        "twilio",
    ];
    for sender in senders.filter(|sender| known.contains(&sender.manifest.id())) {
        let provider = sender.manifest.id();
        for body in bodies(provider) {
            let request = sender.send(body.as_bytes(), 0);
            let headers: BTreeMap<_, _> = request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            let libraries = ["svix", provider].into_iter();
            for library in libraries.filter(|library| provider_of(library) == provider) {
                for (body, good) in [((*body).to_owned(), true), (format!("{body}&x=1"), false)] {
                    jobs.push((
                        good,
                        json!({
                            "library": library, "task": "verify", "secret": sender.secret(),
                            "url": request.url, "body": body, "now": NOW, "headers": headers,
                        }),
                    ));
                }
            }
        }
    }
    let is_python = |job: &Value| ["slack", "twilio"].contains(&job["library"].as_str().unwrap());
    let (there, here): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(_, job)| is_python(job));
    assert_eq!(here.len(), 2 * 5 * BODIES.len());
    for (jobs, run) in [(here, node as fn(&[Value]) -> Vec<Value>), (there, python)] {
        let values: Vec<_> = jobs.iter().map(|(_, job)| job.clone()).collect();
        for ((good, job), answer) in jobs.iter().zip(run(&values)) {
            let accepted = answer == Value::Bool(true);
            assert_eq!(accepted, *good, "{answer} for {job}");
        }
    }
}

/// A verification key as SendGrid shows it, and what signs for it.
fn sendgrid_key(random: &SystemRandom) -> (EcdsaKeyPair, String) {
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), random).unwrap();
    // SubjectPublicKeyInfo of P-256 up to the point (RFC 5480).
    let mut spki = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00".to_vec();
    spki.extend_from_slice(pair.public_key().as_ref());
    (pair, STANDARD.encode(spki))
}

#[test]
fn sendgrid_s_library_and_the_gateway_agree_about_every_request() {
    let random = SystemRandom::new();
    let (pair, key) = sendgrid_key(&random);
    let (_, other) = sendgrid_key(&random);
    let mut cases = Vec::new();
    for body in BODIES {
        // SendGrid ends its bodies with CR LF, and signs that too.
        let body = format!("{body}\r\n");
        let message = format!("{NOW}{body}");
        let signature = STANDARD.encode(pair.sign(&random, message.as_bytes()).unwrap());
        let trimmed = body.trim_end().to_owned();
        let cut = signature.get(8..).unwrap().to_owned();
        cases.push((true, body.clone(), NOW, signature.clone(), key.clone()));
        cases.push((false, trimmed, NOW, signature.clone(), key.clone()));
        cases.push((
            false,
            format!("{body} "),
            NOW,
            signature.clone(),
            key.clone(),
        ));
        cases.push((false, body.clone(), NOW + 1, signature.clone(), key.clone()));
        cases.push((false, body.clone(), NOW, signature, other.clone()));
        cases.push((false, body, NOW, cut, key.clone()));
    }
    let names = [
        "x-twilio-email-event-webhook-timestamp",
        "x-twilio-email-event-webhook-signature",
    ];
    let jobs: Vec<_> = cases
        .iter()
        .map(|(_, body, at, signature, key)| {
            json!({
                "library": "sendgrid", "task": "verify", "secret": key, "body": body, "now": at,
                "headers": {names[0]: at.to_string(), names[1]: signature},
            })
        })
        .collect();
    for ((good, body, at, signature, key), there) in cases.iter().zip(node(&jobs)) {
        let accepted = there == Value::Bool(true);
        assert_eq!(accepted, *good, "the library: {there} for {body:?} at {at}");
        let request = Request::post(body.clone())
            .header(names[0], &at.to_string())
            .header(names[1], signature);
        let with = Credentials::default().with_secret("public_key", key);
        let now = Timestamp::from_millis(NOW * 1000);
        let verdict = request.verify(manifest("sendgrid"), &with, now).map(drop);
        let wanted = if *good {
            Ok(())
        } else {
            Err(Refusal::BadSignature)
        };
        assert_eq!(verdict, wanted, "the gateway: {body:?} at {at}");
    }
}
