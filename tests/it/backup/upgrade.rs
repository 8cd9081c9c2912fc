//! A data directory of an earlier format under the present binary.

use std::collections::BTreeSet;

use crate::kit::Gateway;
use crate::store::upgrade::{FIRST, FORMAT_1, nth, unpack};

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
