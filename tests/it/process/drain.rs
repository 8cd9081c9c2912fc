//! SIGTERM under load with endpoints of every speed (T19).

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::{Load, accepted};
use crate::kit::{Answer, Launch, Received, Receiver, SOON, endpoint, eventually, now, pause, say};

const DRAIN: Duration = Duration::from_secs(3);

/// `/quick` answers at once, `/slow` within the drain, `/stuck` never, until the restart.
fn answer(request: &Received, restarted: bool) -> Answer {
    match request.path.as_str() {
        "/slow" => Answer::ok().after(Duration::from_millis(1_500)),
        "/stuck" if !restarted => Answer::ok().after(Duration::from_secs(60)),
        _ => Answer::ok(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one run, told from start to end")]
async fn a_drain_ends_in_time_keeps_every_202_and_repeats_only_what_was_cut_off() {
    let restarted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = std::sync::Arc::clone(&restarted);
    let receiver = Receiver::scripted(move |request| {
        answer(request, switch.load(std::sync::atomic::Ordering::Relaxed))
    })
    .await;
    let launch = Launch::new(&[
        ("delivery.timeout", "3s"),
        ("delivery.connect_timeout", "1s"),
        ("server.drain_timeout", "3s"),
    ]);
    let gateway = launch.start().await;
    for path in ["/quick", "/slow", "/stuck"] {
        let fields = json!({"maxConcurrency": 20, "timeoutMs": 30_000});
        endpoint(&gateway, "acme", &receiver, path, fields).await;
    }
    let load = Load::start(gateway.api(), "acme", 8, Duration::from_millis(20));
    eventually("every endpoint is busy", SOON, async || {
        let busy = |path| receiver.at(path).iter().any(|one| one.end.is_none());
        (busy("/slow") && busy("/stuck") && receiver.at("/quick").len() > 50).then_some(())
    })
    .await;
    let begun = now();
    let (status, stopped) = gateway.stop().await;
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < DRAIN + Duration::from_secs(2), "{took:?}");
    assert!(
        took > Duration::from_millis(500),
        "there was something to wait for: {took:?}"
    );
    let cut: Vec<_> = receiver
        .at("/stuck")
        .into_iter()
        .map(|one| one.id)
        .collect();
    pause(Duration::from_millis(100)).await; // the receiver sees the ends
    let finished = receiver
        .at("/slow")
        .into_iter()
        .filter(Received::is_success)
        .count();
    assert!(finished > 0, "running attempts got their answers");

    restarted.store(true, std::sync::atomic::Ordering::Relaxed);
    let gateway = stopped.start().await;
    let sent = load.stop().await;
    let ids = accepted(&sent);
    let paths = ["/quick", "/slow", "/stuck"];
    eventually(
        "every 202 has arrived everywhere",
        Duration::from_secs(25),
        async || {
            let mut done: HashMap<String, usize> = HashMap::new();
            for path in paths {
                let ok = receiver.at(path).into_iter().filter(Received::is_success);
                let ids: std::collections::HashSet<_> = ok.map(|one| one.id).collect();
                for id in ids {
                    *done.entry(id).or_default() += 1;
                }
            }
            ids.iter()
                .all(|id| done.get(id) == Some(&paths.len()))
                .then_some(())
        },
    )
    .await;
    let tries = |path: &str, id: &str| receiver.at(path).iter().filter(|one| one.id == id).count();
    assert!(!cut.is_empty());
    for id in &cut {
        assert_eq!(
            tries("/stuck", id),
            2,
            "{id} was cut off and is sent again, once"
        );
    }
    let twice = |path: &str| {
        let all = receiver.at(path);
        let of = all.iter().filter(|one| one.nth > 1 && one.is_success());
        of.count()
    };
    assert_eq!(twice("/quick"), 0, "what got its answer is not sent again");
    assert_eq!(twice("/slow"), 0, "what got its answer is not sent again");
    say(&format!(
        "{} accepted, {} cut off, drained in {took:.1?}",
        ids.len(),
        cut.len()
    ));
    drop(gateway);
}
