//! The offline commands: what they print, their exit codes, and what they leave untouched.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::{Answer, Gateway, Receiver, SOON, endpoint, eventually, send};

/// Name and content of every file below `dir`.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.push((entry.path(), Vec::new()));
            found.extend(tree(&entry.path()));
        } else {
            let mut bytes = fs::read(entry.path()).unwrap();
            // Journals are made 64 MiB long; the zeros at their end say nothing.
            let length = bytes.len().to_be_bytes();
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |n| n + 1);
            bytes.truncate(used);
            bytes.extend(length);
            found.push((entry.path(), bytes));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn verify_counts_every_delivery_in_exactly_one_state() {
    const SENT: usize = 7;
    let receiver = Receiver::scripted(|request| match request.path.as_str() {
        "/good" => Answer::ok(),
        _ => Answer::status(500),
    })
    .await;
    let settings = [("delivery.retry_schedule", "1h")];
    let gateway = Gateway::start(&settings).await;
    endpoint(&gateway, "acme", &receiver, "/good", json!({})).await;
    endpoint(&gateway, "acme", &receiver, "/bad", json!({})).await;
    endpoint(
        &gateway,
        "acme",
        &receiver,
        "/off",
        json!({"disabled": true}),
    )
    .await;
    for n in 0..SENT {
        send(&gateway, "acme", n).await;
    }
    receiver.delivered("/good", SENT, SOON).await;
    eventually("all were tried at the bad one", SOON, async || {
        (receiver.at("/bad").len() >= SENT).then_some(())
    })
    .await;
    let (code, said) = gateway.cli(&["verify"]);
    assert_eq!(code, 1, "in use: {said}");
    let (_, stopped) = gateway.stop().await;
    let data = stopped.data().display().to_string();
    let (code, said) = stopped.cli(&["verify", &data, "--json"]);
    assert_eq!(code, 0, "{said}");
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["good"], true);
    assert_eq!(
        report["deliveries"],
        json!({
            "pending": 0, "retrying": SENT, "held": SENT,
            "delivered": SENT, "dead": 0, "cancelled": 0, "superseded": 0
        })
    );
    let (code, said) = stopped.cli(&["verify"]);
    assert_eq!(code, 0);
    assert!(said.contains("0 problems"), "{said}");
    assert!(said.contains("held: 7 deliveries"), "{said}");
}

#[tokio::test]
async fn a_stopped_gateway_is_backed_up_restored_and_checked_by_command() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let id = send(&gateway, "acme", 1).await;
    receiver.delivered("/hook", 1, SOON).await;
    let (_, stopped) = gateway.stop().await;
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("cold").display().to_string();
    let target = place.path().join("new").display().to_string();
    let (code, said) = stopped.cli(&["backup", &backup]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = stopped.cli(&["backup", &backup]);
    assert_eq!(code, 1, "the place is taken: {said}");
    let (code, said) = stopped.cli(&["verify", &backup, "--json"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = stopped.cli(&["restore", &backup, "--to", &target]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nothing later"), "{said}");
    let (code, said) = stopped.cli(&["restore", &backup, "--to", &target]);
    assert_eq!(code, 1, "the target is taken: {said}");
    let copy = stopped.with("storage.dir", &target).start().await;
    let listed = copy.list("/api/v1/app/acme/msg").await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(receiver.count(), 1, "what was delivered is not sent again");
    let (_, stopped) = copy.stop().await;

    // One byte of one file.
    let current = place.path().join("cold/db/keyspaces/1/current");
    let mut bytes = fs::read(&current).unwrap();
    bytes[3] ^= 1;
    fs::write(&current, bytes).unwrap();
    let third = place.path().join("third").display().to_string();
    for args in [
        &["restore", &backup, "--to", &third][..],
        &["verify", &backup],
    ] {
        let (code, said) = stopped.cli(args);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("keyspaces/1/current"), "{said}");
    }
    assert!(!Path::new(&third).exists());
}

#[tokio::test]
async fn a_newer_format_is_refused_by_every_command_without_touching_a_byte() {
    let gateway = Gateway::start(&[]).await;
    let (_, stopped) = gateway.stop().await;
    let marker = stopped.data().join("format");
    let ours = fs::read(&marker).unwrap();
    fs::write(
        &marker,
        r#"{"product_format":9,"fjall_format":3,"min_reader":9}"#,
    )
    .unwrap();
    let before = tree(&stopped.data());
    let place = tempfile::tempdir().unwrap();
    let dest = place.path().join("x").display().to_string();
    for args in [
        &["serve"][..],
        &["verify"],
        &["backup", &dest],
        &["accept-loss", "--accept-loss-after", "1:1"],
    ] {
        let (code, said) = stopped.cli(args);
        assert_eq!(code, 78, "{args:?}: {said}");
        assert!(said.contains("format 9"), "{args:?}: {said}");
        assert!(
            tree(&stopped.data()) == before,
            "{args:?} touched something"
        );
    }
    // A newer one that says that this version may read it is read.
    fs::write(
        &marker,
        r#"{"product_format":9,"fjall_format":3,"min_reader":1}"#,
    )
    .unwrap();
    let gateway = stopped.start().await;
    let (_, stopped) = gateway.stop().await;
    assert_ne!(fs::read(stopped.data().join("format")).unwrap(), ours);
}
