//! Attempts after their message: what the lists, the filters and the figures make of them.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use posthaste::config::{Config, Retention};
use posthaste::model::Verdict;
use posthaste::store::Settlement;
use posthaste::store::model::Model;
use serde_json::{Value, json};

use super::history::{DEAD, Past, position, settle};
use super::kit::Gateway;

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

/// Messages 30 days, attempts 60, what was answered 7.
fn retention() -> Retention {
    Retention {
        messages: days(30),
        attempts: days(60),
        attempt_bodies: days(7),
        ..Retention::default()
    }
}

/// Two messages of which one was delivered and one died.
async fn past() -> (Past, [String; 2]) {
    let store = Model::new().with_retention(retention());
    let gateway = Gateway::over(&store, |config: &mut Config| config.retention = retention());
    let past = Past::over(gateway).await;
    let delivered = past.gateway.message("acme", "a").await;
    let dead = past.gateway.message("acme", "a").await;
    past.attempt(&delivered, "one", 1, 200, Verdict::Delivered)
        .await;
    past.attempt(&dead, "one", 1, 500, DEAD).await;
    let at = position(&dead);
    let done = Settlement {
        checkpoint: vec![(at.lane, at.seq)],
        ..Settlement::default()
    };
    settle(&past.gateway, done).await;
    (past, [delivered, dead])
}

impl Past {
    /// Lets `by` pass, and housekeeping come round.
    async fn wait(&self, by: Duration) {
        self.gateway.clock.advance(by);
        for _ in 0..2 {
            settle(&self.gateway, Settlement::default()).await;
        }
    }
}

fn column<'a>(list: &'a Value, name: &str) -> Vec<&'a Value> {
    let data = list["data"].as_array().unwrap().iter();
    data.map(|one| &one[name]).collect()
}

const LIST: &str = "/attempt/endpoint/one";

#[tokio::test]
async fn an_attempt_stays_in_its_list_when_its_message_is_gone() {
    let (past, [delivered, dead]) = past().await;
    let full = past.list(&format!("{LIST}?with_msg=true")).await;
    assert_eq!(column(&full, "response"), ["answer", "answer"]);
    assert!(column(&full, "msg").iter().all(|msg| msg["id"].is_string()));

    past.wait(days(8)).await;
    let hidden = past.list(LIST).await;
    assert_eq!(column(&hidden, "response"), ["EXPUNGED", "EXPUNGED"]);
    let of_one = past.list(&format!("/attempt/msg/{dead}")).await;
    assert_eq!(column(&of_one, "response"), ["EXPUNGED"]);

    past.wait(days(23)).await;
    for path in ["", "/attempt", "/endpoint", "/explain"] {
        let path = match path {
            "/attempt" => format!("/app/acme/attempt/msg/{dead}"),
            rest => format!("/app/acme/msg/{dead}{rest}"),
        };
        past.gateway.get(&path).expect(404).await;
    }
    for query in [
        "",
        "?with_msg=true",
        "?with_content=false&expanded_statuses=true",
    ] {
        let list = past.list(&format!("{LIST}{query}")).await;
        assert_eq!(
            column(&list, "msgId"),
            [&json!(dead), &json!(delivered)],
            "{query}"
        );
        assert_eq!(column(&list, "status"), [2, 0]);
        assert!(list["data"][0].get("msg").is_none(), "{query}");
    }
    for (query, expected) in [
        ("status=2", vec![&dead]),
        ("status_code_class=200", vec![&delivered]),
        ("event_types=a", vec![]),
        ("channel=x", vec![]),
        ("tag=x&with_msg=true", vec![]),
    ] {
        let list = past.list(&format!("{LIST}?{query}")).await;
        let expected: Vec<_> = expected.into_iter().map(|id| json!(id)).collect();
        let expected: Vec<_> = expected.iter().collect();
        assert_eq!(column(&list, "msgId"), expected, "{query}");
    }
    let first = past.list(&format!("{LIST}?limit=1")).await;
    let next = first["iterator"].as_str().unwrap();
    let second = past.list(&format!("{LIST}?limit=1&iterator={next}")).await;
    assert_eq!(column(&second, "msgId"), [&json!(delivered)]);

    past.wait(days(30)).await;
    assert_eq!(past.list(LIST).await["data"], json!([]));
}

#[tokio::test]
async fn a_dead_delivery_without_its_message_is_not_in_quarantine_and_cannot_be_sent_again() {
    let (past, [_, dead]) = past().await;
    let groups = past.list("/quarantine").await;
    assert_eq!(column(&groups, "deliveries"), [1]);
    let bucket = groups["data"][0]["id"].as_str().unwrap();
    past.wait(days(31)).await;
    assert_eq!(past.list("/quarantine").await["data"], json!([]));
    let rows = past.list(&format!("/quarantine/{bucket}")).await;
    assert_eq!(rows["data"], json!([]));
    let resend = format!("/app/acme/msg/{dead}/endpoint/one/resend");
    past.gateway.post(&resend, &json!({})).expect(404).await;
    // The figures of the endpoint count attempts, and those are there.
    let now = posthaste::base::Clock::now(past.gateway.clock.as_ref());
    let since = now.minus(days(28)).rfc3339();
    past.list(&format!("/endpoint/one/stats?since={since}"))
        .await;
}
