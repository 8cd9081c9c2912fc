//! No secret is anywhere but in the answer that made it: the store's files, logs, metrics, answers and
//! backups of a real gateway are searched for it, as it is, in base64 and in hex (P12, T24, T25).
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Method;
use posthaste::base::{Clock, SystemClock};
use serde_json::json;

use super::kit::signed_at;
use crate::kit::{Answer, Client, Launch, Receiver, eventually, pause};

/// A text that occurs nowhere else; fit as a secret of any kind.
fn canary(n: u8) -> String {
    format!("canary{n}Zq7vW3xK9pL2mN8rT4sY6uB1")
}

/// The forms in which a secret could have been left: as it is, hex, base64 at every offset.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![bytes.to_vec(), hex.to_uppercase().into(), hex.into()];
    for skip in 0..3 {
        // Whole groups of three only: what stands around a secret changes the ends.
        let middle = &bytes[skip..];
        let middle = &middle[..middle.len() / 3 * 3];
        forms.push(STANDARD_NO_PAD.encode(middle).into());
        forms.push(URL_SAFE_NO_PAD.encode(middle).into());
    }
    forms
}

/// Places below `dir` and in `texts` that hold one of `secrets` in any form. `grep` searches: the files are
/// large.
fn leaks(dir: &Path, texts: &[(String, String)], secrets: &[(&str, String)]) -> Vec<String> {
    let work = tempfile::tempdir().unwrap();
    let shown = work.path().join("texts");
    std::fs::create_dir(&shown).unwrap();
    for (name, text) in texts {
        std::fs::write(shown.join(name.replace('/', "_")), text).unwrap();
    }
    let mut found = Vec::new();
    for (what, secret) in secrets {
        let patterns = work.path().join("patterns");
        std::fs::write(&patterns, forms(secret).join(&b'\n')).unwrap();
        let output = Command::new("grep")
            .args([
                "--recursive",
                "--text",
                "--fixed-strings",
                "--files-with-matches",
            ])
            .arg("--exclude=data.vault-key")
            .arg(format!("--file={}", patterns.display()))
            .args([dir, &shown])
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "grep: {output:?}");
        let places = String::from_utf8_lossy(&output.stdout).into_owned();
        found.extend(places.lines().map(|place| format!("{what} in {place}")));
    }
    found
}

#[test]
fn the_search_finds_what_is_there_in_every_form() {
    let secret = canary(0);
    for (n, form) in forms(&secret).into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let inside = [b"..".as_slice(), &form, b".."].concat();
        std::fs::write(dir.path().join("file"), inside).unwrap();
        let found = leaks(dir.path(), &[], &[("it", secret.clone())]);
        assert!(!found.is_empty(), "form {n}");
    }
    for lead in ["", "x", "xy"] {
        let dir = tempfile::tempdir().unwrap();
        let text = STANDARD.encode(format!("{lead}{secret}tail"));
        std::fs::write(dir.path().join("file"), text).unwrap();
        assert!(
            !leaks(dir.path(), &[], &[("it", secret.clone())]).is_empty(),
            "{lead}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn no_secret_is_in_files_logs_metrics_answers_or_backups() {
    let receiver = Receiver::scripted(|_| Answer::ok()).await;
    let launch = Launch::new(&[("log.level", "trace,hyper=info,h2=info,mio=info")])
        .variable("POSTHASTE_VAULT_KEY", "");
    let backups = launch.dir().join("backups").display().to_string();
    let gateway = launch.setting("storage.backup_dir", &backups).start().await;
    let api = gateway.api();
    let whsec = |n: u8| format!("whsec_{}", STANDARD.encode(canary(n)));
    let (signing, rotated, header) = (canary(1), canary(2), canary(3));
    let (hook, hook_rotated, basic) = (canary(4), canary(5), canary(6));

    // An endpoint: its secret, a rotated one, a header that is a credential.
    api.post("/api/v1/app", &json!({"name": "Acme", "uid": "acme"}))
        .await
        .expect(201);
    let endpoint = json!({
        "uid": "ep", "url": receiver.url("/hook"), "secret": whsec(1),
        "headers": {"x-credential": header},
    });
    api.post("/api/v1/app/acme/endpoint", &endpoint)
        .await
        .expect(201);
    let path = "/api/v1/app/acme/endpoint/ep/secret/rotate";
    api.post(path, &json!({"key": whsec(2)})).await.expect(200);
    // Sources: a secret, a rotated one, a credential that comes with each request.
    let source = |provider: &str, name: &str, secret: &str| json!({"name": provider, "provider": provider, "appId": "acme", "secrets": {name: secret}});
    let made = source("standard_webhooks", "secret", &whsec(4));
    let made = api.post("/api/v1/source", &made).await.expect(201);
    let (id, token) = (
        made["id"].as_str().unwrap(),
        made["token"].as_str().unwrap(),
    );
    let path = format!("/api/v1/source/{id}/secret/rotate");
    api.post(&path, &json!({"name": "secret", "secret": whsec(5)}))
        .await
        .expect(204);
    let other = api
        .post(
            "/api/v1/source",
            &source("pipedrive", "http_auth", &format!("user:{basic}")),
        )
        .await
        .expect(201);
    let key = api
        .post(
            "/api/v1/api-keys",
            &json!({"name": "k", "scopes": ["read"]}),
        )
        .await
        .expect(201);
    let key = key["apiKey"]["key"].as_str().unwrap().to_owned();

    // Traffic: good, forged, and with the credential itself in a header.
    let now = SystemClock::start().now().millis() / 1000;
    let body = r#"{"type":"a.b","data":{"n":1}}"#;
    let anonymous = Client::new(gateway.address, None);
    for (secret, event, wanted) in [
        (whsec(4), "e1", 200),
        (whsec(5), "e2", 200),
        (whsec(9), "e3", 401),
    ] {
        let headers = signed_at(&secret, event, now, body);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let path = format!("/in/{token}");
        let answer = anonymous
            .send(Method::POST, &path, &headers, Bytes::from(body))
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), wanted, "{}", answer.text());
    }
    let credential = format!("Basic {}", STANDARD.encode(format!("user:{basic}")));
    let pipedrive = r#"{"meta":{"action":"change","entity":"deal","id":"m1"},"data":{}}"#;
    let headers = [
        ("authorization", credential.as_str()),
        ("content-type", "application/json"),
    ];
    let path = other["path"].as_str().unwrap();
    let answer = anonymous
        .send(Method::POST, path, &headers, Bytes::from(pipedrive))
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    eventually("the events are delivered", crate::kit::SOON, async || {
        (receiver.all().len() >= 3).then_some(())
    })
    .await;

    let mut texts = Vec::new();
    for path in [
        "/metrics",
        "/api/v1/source",
        &format!("/api/v1/source/{id}"),
        &format!("/api/v1/source/{id}/receipts"),
        &format!("/api/v1/source/{id}/stats"),
        "/api/v1/app/acme/endpoint",
        "/api/v1/app/acme/endpoint/ep",
        "/api/v1/app/acme/endpoint/ep/headers",
        "/api/v1/app/acme/msg",
        "/api/v1/app/acme/attempt/endpoint/ep",
        "/api/v1/api-keys",
        "/api/v1/admin/vault",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
        texts.push((path.to_owned(), answer.text()));
    }
    let (code, said) = gateway.cli(&["backup", "one"]);
    assert_eq!(code, 0, "{said}");
    texts.push((String::from("the command's output"), said));
    let (code, said) = gateway.cli(&["vault", "rotate", "--data-keys"]);
    assert_eq!(code, 0, "{said}");
    texts.push((String::from("the rotation's output"), said));
    let status = format!("/proc/{}", gateway.pid());
    for name in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("{status}/{name}")).unwrap();
        texts.push((
            name.to_owned(),
            String::from_utf8_lossy(&bytes).into_owned(),
        ));
    }

    let launched = gateway.launch().clone();
    let file = launched.dir().join("data.vault-key");
    let master = std::fs::read_to_string(&file).unwrap();
    let master = master
        .lines()
        .find(|line| line.starts_with("phv_"))
        .unwrap()
        .to_owned();
    let secrets = [
        ("the endpoint's secret", signing),
        ("its rotated secret", rotated),
        ("the source's secret", hook),
        ("its rotated secret", hook_rotated),
        ("the basic credential", basic),
        ("the source's token", token.to_owned()),
        ("the API key", key),
        (
            "the master key",
            master.strip_prefix("phv_").unwrap().to_owned(),
        ),
    ];
    // The header stands in the endpoint's headers for its owner, and nowhere else.
    let stored = leaks(launched.dir(), &[], &[("the header", header)]);
    assert_eq!(stored, Vec::<String>::new());
    assert_eq!(
        leaks(launched.dir(), &texts, &secrets),
        Vec::<String>::new()
    );
    let (status, stopped) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        leaks(launched.dir(), &texts, &secrets),
        Vec::<String>::new(),
        "after the end"
    );

    // Another key does not open it, no key does not either; with the right one everything is there.
    let kept = std::fs::read(&file).unwrap();
    for wrong in [Some(crate::kit::VAULT_KEY), None] {
        match wrong {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let mut refused = stopped.launch.clone().spawn();
        let status = refused.wait_end(crate::kit::SOON).await;
        assert_eq!(status.code(), Some(78), "{}", refused.log());
        assert!(refused.log().contains("master key"), "{}", refused.log());
        assert!(
            !file.exists() || wrong.is_some(),
            "no new key over sealed secrets"
        );
        let (code, said) = launched.cli(&["vault", "status"]);
        assert_eq!(code, 78, "{said}");
    }
    std::fs::write(&file, kept).unwrap();
    let again = stopped.start().await;
    let shown = again
        .api()
        .get("/api/v1/app/acme/endpoint/ep/secret")
        .await
        .expect(200);
    assert_eq!(shown["key"], whsec(2));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_keys_are_rotated_under_load_by_restarts_and_a_kill() {
    let receiver = Receiver::scripted(|_| Answer::ok()).await;
    let new = "1111111111111111111111111111111111111111111111111111111111111111";
    let both = format!("{new},{}", crate::kit::VAULT_KEY);
    let gateway = crate::kit::Gateway::start(&[]).await;
    let mut sent = Vec::new();
    crate::kit::endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let before = gateway
        .api()
        .get("/api/v1/app/acme/endpoint")
        .await
        .expect(200);
    let path = format!(
        "/api/v1/app/acme/endpoint/{}/secret",
        before["data"][0]["id"].as_str().unwrap()
    );
    let secret = gateway.api().get(&path).await.expect(200)["key"].clone();
    sent.push(crate::kit::send(&gateway, "acme", 1).await);
    // The new key in front of the old one; killed while it rotates.
    let mut stopped = gateway.kill();
    stopped.launch = stopped.launch.variable("POSTHASTE_VAULT_KEY", both.clone());
    let gateway = stopped.start().await;
    sent.push(crate::kit::send(&gateway, "acme", 2).await);
    let api = gateway.api().clone();
    let mut rotating = tokio::task::JoinSet::new();
    rotating.spawn(async move {
        let body = Bytes::from_static(b"{\"dataKeys\":true}");
        let kind = [("content-type", "application/json")];
        drop(
            api.send(Method::POST, "/api/v1/admin/vault/rotate", &kind, body)
                .await,
        );
    });
    // Somewhere in its midst, or just before or after: whatever it is, nothing may be lost.
    pause(Duration::from_millis(3)).await;
    let stopped = gateway.kill();
    while rotating.join_next().await.is_some() {}
    let (code, said) = stopped.cli(&["vault", "rotate"]);
    assert_eq!(code, 0, "{said}");
    let old = said
        .lines()
        .filter(|line| line.starts_with("master key"))
        .count();
    assert_eq!(old, 1, "one master key wraps everything: {said}");
    // The old key is not needed any more.
    let mut stopped = stopped;
    stopped.launch = stopped.launch.variable("POSTHASTE_VAULT_KEY", new);
    let gateway = stopped.start().await;
    sent.push(crate::kit::send(&gateway, "acme", 3).await);
    assert_eq!(gateway.api().get(&path).await.expect(200)["key"], secret);
    eventually("all are delivered", crate::kit::SOON, async || {
        let all = receiver.all();
        let is_there = |id: &String| all.iter().any(|one| one.id == *id && one.is_success());
        sent.iter().all(is_there).then_some(())
    })
    .await;
    gateway.stop().await;
}
