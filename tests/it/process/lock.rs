//! One process for one data directory (T66).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::kit::{Gateway, Receiver, SOON, endpoint, hash, send};

/// Names and contents of all files but those that the running gateway writes into.
fn fingerprint(dir: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let sum = hash(&std::fs::read(&path).unwrap());
                files.insert(path.display().to_string(), sum);
            }
        }
    }
    files
}

#[tokio::test]
async fn a_second_process_is_refused_before_it_touches_anything() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    send(&gateway, "acme", 1).await;
    receiver.delivered("/hook", 1, SOON).await;
    // Stopped, so that every change of a file would be the second one's.
    gateway.signal("STOP");
    let data = gateway.launch().data();
    let before = fingerprint(&data);
    let (status, said) = gateway.second_start().await;
    assert_eq!(fingerprint(&data), before);
    gateway.signal("CONT");
    assert!(
        matches!(status.code(), Some(1 | 74 | 78)),
        "{status}: {said}"
    );
    assert!(said.contains(&data.display().to_string()), "{said}");
    assert!(said.contains("another process"), "{said}");
    assert!(!said.contains("panic"), "{said}");
    send(&gateway, "acme", 2).await;
    receiver.delivered("/hook", 2, SOON).await;
}

#[tokio::test]
async fn the_lock_of_a_killed_process_is_taken_over() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    send(&gateway, "acme", 1).await;
    receiver.delivered("/hook", 1, SOON).await;
    let (refused, _) = gateway.second_start().await;
    assert!(!refused.success());
    let gateway = gateway.kill().start().await;
    let again = send(&gateway, "acme", 2).await;
    let all = receiver.delivered("/hook", 2, SOON).await;
    assert_eq!(all.last().unwrap().id, again);
}
