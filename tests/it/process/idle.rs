//! With nothing to do the gateway does nothing: no write, hardly a wake-up.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Gateway, Receiver, SOON, endpoint, pause, say, send};

/// So long it is watched.
const WATCHED: Duration = Duration::from_secs(11);

/// Voluntary context switches of all threads so far, and bytes handed to the disk.
fn used(gateway: &Gateway) -> (u64, u64) {
    let number = |text: &str, key: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let process = format!("/proc/{}", gateway.pid());
    let threads = std::fs::read_dir(format!("{process}/task")).unwrap();
    let switches = threads
        .map(|thread| {
            let status = thread.unwrap().path().join("status");
            // A thread of the blocking pool may end meanwhile; its switches go with it.
            let status = std::fs::read_to_string(status).unwrap_or_default();
            if status.is_empty() {
                return 0;
            }
            number(&status, "voluntary_ctxt_switches")
        })
        .sum();
    let io = std::fs::read_to_string(format!("{process}/io")).unwrap();
    (switches, number(&io, "write_bytes"))
}

#[tokio::test]
async fn a_gateway_without_work_writes_nothing_and_hardly_wakes() {
    let receiver = Receiver::start().await;
    // The client of this test keeps its connection; the gateway lets go of it.
    let gateway = Gateway::start(&[("server.idle_timeout", "1s")]).await;
    endpoint(&gateway, "acme", &receiver, "/in", json!({})).await;
    send(&gateway, "acme", 1).await;
    receiver.delivered("/in", 1, SOON).await;
    // Housekeeping puts away what the start and the message left (every 10 s); then there is nothing
    // left to do. What is written every ten seconds would show in any window.
    let mut before = used(&gateway);
    for _ in 0..6 {
        pause(WATCHED).await;
        let now = used(&gateway);
        let (woken, written) = (now.0.saturating_sub(before.0), now.1 - before.1);
        say(&format!("{woken} wake-ups, {written} bytes in {WATCHED:?}"));
        if written == 0 && woken <= 5 * WATCHED.as_secs() {
            return;
        }
        before = now;
    }
    panic!("the gateway never comes to rest");
}
