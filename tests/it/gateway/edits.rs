//! What is edited counts from the next attempt on, however often the endpoint was called before.

use serde_json::{Value, json};

use crate::kit::{Gateway, Receiver, SOON, endpoint, send};

fn body(received: &[u8]) -> Value {
    serde_json::from_slice(received).unwrap_or_default()
}

#[tokio::test]
async fn an_edited_url_and_the_new_uid_of_its_application_are_used_by_the_next_attempt() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let named = json!({"envelope": "id-type"});
    let hook = endpoint(&gateway, "acme", &receiver, "/before", named).await;
    send(&gateway, "acme", 0).await;
    let first = receiver.delivered("/before", 1, SOON).await;
    assert_eq!(body(&first[0].body)["organizationId"], "acme");

    let url = json!({"url": receiver.url("/after")});
    gateway.api().patch(&hook.path(), &url).await.expect(200);
    send(&gateway, "acme", 1).await;
    let second = receiver.delivered("/after", 1, SOON).await;
    assert_eq!(body(&second[0].body)["organizationId"], "acme");

    let uid = json!({"uid": "acme-2"});
    gateway
        .api()
        .patch("/api/v1/app/acme", &uid)
        .await
        .expect(200);
    send(&gateway, "acme-2", 2).await;
    let third = receiver.delivered("/after", 2, SOON).await;
    assert_eq!(body(&third[1].body)["organizationId"], "acme-2");
    assert_eq!(receiver.count(), 3);
}

#[tokio::test]
async fn more_endpoints_than_are_kept_ready_get_all_that_is_for_them() {
    const ENDPOINTS: usize = 300; // 256 are kept ready at least
    let gateway = Gateway::start(&[("delivery.max_idle_connections", "1")]).await;
    let receiver = Receiver::start().await;
    for n in 0..ENDPOINTS {
        endpoint(&gateway, "acme", &receiver, &format!("/{n}"), json!({})).await;
    }
    for n in 0..3 {
        send(&gateway, "acme", n).await;
    }
    for n in 0..ENDPOINTS {
        receiver.delivered(&format!("/{n}"), 3, SOON).await;
    }
    assert_eq!(receiver.count(), 3 * ENDPOINTS);
}
