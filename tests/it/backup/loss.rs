//! Going on after an accepted loss: the command of the message, and the event that tells of it.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::kit::{Gateway, Receiver, SOON, endpoint, send};

/// Flips a byte three quarters into the batches of the newest journal.
fn damage(data: &Path) {
    let entries = fs::read_dir(data.join("db")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let journal = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "jnl"))
        .max()
        .unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    let ends: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window == b"FJL\x03")
        .map(|(at, _)| at + 4)
        .collect();
    let at = ends[ends.len() * 3 / 4];
    bytes[at] ^= 0x40;
    fs::write(journal, bytes).unwrap();
}

/// The number behind `word` in a message.
fn after(said: &str, word: &str) -> u64 {
    let rest = said
        .split(word)
        .nth(1)
        .unwrap_or_else(|| panic!("{word} in: {said}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[tokio::test]
async fn an_accepted_loss_is_announced_once_with_its_range() {
    let gateway = Gateway::start(&[("storage.high_water", "every-commit")]).await;
    let receiver = Receiver::start().await;
    let operator = "posthaste-operator";
    endpoint(&gateway, operator, &receiver, "/operator", json!({})).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    for n in 0..40 {
        send(&gateway, "acme", n).await;
    }
    let stopped = gateway.kill();
    damage(&stopped.data());
    let (code, said) = stopped.cli(&["serve"]);
    assert_eq!(code, 78, "{said}");
    let lane = after(&said, "--lane ");
    let last_good = after(&said, "--last-good ");
    let acked = after(&said, "acknowledged ");
    assert!(last_good < acked, "{said}");
    // Other numbers than those of the message change nothing.
    let wrong = format!("{lane}:{}", last_good + 1);
    let (code, _) = stopped.cli(&["accept-loss", "--accept-loss-after", &wrong]);
    assert_eq!(code, 1);
    let position = format!("{lane}:{last_good}");
    let (code, said) = stopped.cli(&["accept-loss", "--accept-loss-after", &position]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("lost-"), "{said}");

    let gateway = stopped.start().await;
    let told = receiver.delivered("/operator", 1, SOON).await;
    let event: serde_json::Value = serde_json::from_slice(&told[0].body).unwrap();
    assert_eq!(event["type"], "store.loss_accepted");
    assert_eq!(
        event["data"]["ranges"],
        json!([{"lane": lane, "from": last_good + 1, "to": acked}])
    );
    assert_eq!(event["data"]["atMost"], acked - last_good);
    let (_, stopped) = gateway.stop().await;
    // Told once: after another start only what is new arrives.
    let gateway = stopped.start().await;
    let id = send(&gateway, operator, 1).await;
    let told = receiver.delivered("/operator", 2, SOON).await;
    assert_eq!(told[1].id, id);
    gateway.stop().await;
}
