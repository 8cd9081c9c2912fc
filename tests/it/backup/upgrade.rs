//! A data directory of an earlier format under the present binary.

use std::collections::BTreeSet;

use crate::kit::Gateway;
use crate::store::upgrade::{FIRST, FORMAT_1, FORMAT_1_DATED, nth, unpack};

#[tokio::test]
async fn the_gateway_starts_on_a_directory_of_format_1_and_shows_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    unpack(FORMAT_1, &data);
    let path = data.display().to_string();
    let settings = [
        ("storage.dir", path.as_str()),
        // As long as there are fixtures.
        ("retention.messages", "3650d"),
    ];
    let gateway = Gateway::start(&settings).await;
    let mut found = BTreeSet::new();
    for app in 1..=3 {
        for one in gateway.list(&format!("/api/v1/app/app-{app}/msg")).await {
            let n = one["payload"]["n"].as_u64().unwrap();
            let expected: serde_json::Value =
                serde_json::from_slice(&nth(n).message.payload).unwrap();
            assert_eq!(one["payload"], expected);
            assert_eq!(one["eventType"], format!("type.number-{}", n % 4));
            assert!(found.insert((one["id"].as_str().unwrap().to_owned(), n)));
        }
    }
    assert_eq!(found.len(), usize::try_from(2 * FIRST + 1).unwrap());
    // Open deliveries are held: the endpoints are switched off in the fixture.
    let shown = gateway
        .api()
        .get("/api/v1/app/app-1/endpoint/ep-2/msg?expanded_statuses=true")
        .await
        .expect(200);
    assert!(!shown["data"].as_array().unwrap().is_empty(), "{shown}");
    // Its secrets are in the clear, and sealed on demand; they stay what they are.
    let secret = "/api/v1/app/app-1/endpoint/ep-2/secret";
    let before = gateway.api().get(secret).await.expect(200);
    let clear = async || {
        let state = gateway.api().get("/api/v1/admin/vault").await.expect(200);
        state["clear"].as_u64().unwrap()
    };
    assert_eq!(clear().await, 3);
    let (code, said) = gateway.cli(&["vault", "rotate"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(clear().await, 0, "{said}");
    assert_eq!(gateway.api().get(secret).await.expect(200), before);
    let (status, stopped) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
    let (code, said) = stopped.cli(&["verify", &path, "--json"]);
    assert_eq!(code, 0, "{said}");
    let gateway = stopped.start().await;
    assert_eq!(gateway.api().get(secret).await.expect(200), before);
    gateway.stop().await;
}

/// The fixture is of January 2026. What fell out of retention since is hidden before the first request, not
/// ten seconds later.
#[tokio::test]
async fn what_fell_out_of_retention_while_nothing_ran_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    unpack(FORMAT_1_DATED, &data);
    let path = data.display().to_string();
    let settings = [
        ("storage.dir", path.as_str()),
        ("retention.messages", "30d"),
        ("retention.attempts", "3650d"),
        ("retention.attempt_bodies", "1h"),
    ];
    let gateway = Gateway::start(&settings).await;
    // The first two messages were settled; the third waits, and all behind it.
    let list = "/api/v1/app/app-1/attempt/endpoint/ep-1?with_msg=true";
    let list = gateway.api().get(list).await.expect(200);
    let attempts = list["data"].as_array().unwrap();
    let shown: Vec<_> = attempts
        .iter()
        .map(|one| (one["response"].as_str().unwrap(), one.get("msg").is_some()))
        .collect();
    assert_eq!(
        shown,
        [
            ("EXPUNGED", true),
            ("EXPUNGED", false),
            ("EXPUNGED", false),
            ("EXPUNGED", false)
        ]
    );
    for (attempt, app) in [(&attempts[0], Some("app-1")), (&attempts[3], None)] {
        let id = attempt["msgId"].as_str().unwrap();
        for app_of in ["app-1", "app-2", "app-3"] {
            let path = format!("/api/v1/app/{app_of}/msg/{id}");
            let status = if app == Some(app_of) { 200 } else { 404 };
            gateway.api().get(&path).await.expect(status);
        }
    }
    gateway.stop().await;
}
