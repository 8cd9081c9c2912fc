//! Attempts and deliveries: lists, filters, resend, cancel, recover, replay-missing, explain.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use bytes::Bytes;
use posthaste::base::{Clock, Timestamp};
use posthaste::model::{
    Attempt, DeadReason, Delivery, EndpointNo, FailureKind, MessageId, Outcome, Position, Trigger,
    Verdict,
};
use posthaste::store::Settlement;
use serde_json::{Value, json};

use super::kit::{Asked, Gateway};

/// An application with an endpoint; `attempt` writes what a scheduler would write.
pub(super) struct Past {
    pub(super) gateway: Gateway,
}

impl Past {
    pub(super) async fn start() -> Self {
        Self::over(Gateway::start().await).await
    }

    pub(super) async fn over(gateway: Gateway) -> Self {
        gateway.app("acme").await;
        gateway.endpoint("acme", "one").await;
        Self { gateway }
    }

    pub(super) fn endpoint(&self, uid: &str) -> EndpointNo {
        let snapshot = self.gateway.directory.snapshot();
        snapshot.app("acme").unwrap().endpoint(uid).unwrap().no
    }

    pub(super) async fn attempt(
        &self,
        message: &str,
        uid: &str,
        no: u16,
        status: u16,
        verdict: Verdict,
    ) {
        self.gateway.clock.advance(Duration::from_secs(1));
        let delivered = verdict == Verdict::Delivered;
        let failure = if delivered {
            None
        } else {
            Some(FailureKind::Status5xx)
        };
        let attempt = Attempt {
            at: position(message),
            endpoint: self.endpoint(uid),
            app: self
                .gateway
                .directory
                .snapshot()
                .app("acme")
                .unwrap()
                .app
                .no,
            no,
            accepted: Some(MessageId::parse(message).unwrap().place().0),
            ended: self.gateway.clock.now(),
            duration_ms: 42,
            outcome: Outcome {
                status,
                failure: if status == 0 {
                    Some(FailureKind::BlockedAddress)
                } else {
                    failure
                },
                retry_after_secs: None,
            },
            trigger: Trigger::Scheduled,
            verdict,
            response: Bytes::from_static(b"answer"),
        };
        let settlement = Settlement {
            attempts: vec![attempt],
            ..Settlement::default()
        };
        settle(&self.gateway, settlement).await;
    }

    pub(super) async fn list(&self, path: &str) -> Value {
        self.gateway
            .get(&format!("/app/acme{path}"))
            .expect(200)
            .await
            .json()
    }
}

pub(super) async fn settle(gateway: &Gateway, settlement: Settlement) {
    let done = gateway.lane.settle(settlement, true);
    done.expect("there is room").await.unwrap().unwrap();
}

pub(super) fn position(message: &str) -> Position {
    MessageId::parse(message).unwrap().place().1
}

fn numbers(list: &Value) -> Vec<u64> {
    let data = list["data"].as_array().unwrap().iter();
    data.map(|attempt| attempt["attempt"].as_u64().unwrap())
        .collect()
}

pub(super) const DEAD: Verdict = Verdict::Dead(DeadReason::Exhausted);

pub(super) fn retry() -> Verdict {
    Verdict::RetryAt(Timestamp::from_millis(super::kit::START + 3_600_000))
}

#[tokio::test]
async fn attempts_are_listed_newest_first_with_filters() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    past.attempt(&message, "one", 1, 500, retry()).await;
    past.attempt(&message, "one", 2, 0, retry()).await;
    past.attempt(&message, "one", 3, 204, Verdict::Delivered)
        .await;
    for path in [
        format!("/attempt/msg/{message}"),
        "/attempt/endpoint/one".to_owned(),
    ] {
        for (query, want) in [
            ("", vec![3, 2, 1]),
            ("status=0", vec![3]),
            ("status=2", vec![2, 1]),
            ("status=1", vec![]),
            ("status_code_class=500", vec![1]),
            ("status_code_class=0", vec![2]),
            ("event_types=b", vec![]),
            ("event_types=a", vec![3, 2, 1]),
            ("before=2026-01-05T08:15:32.120Z", vec![1]),
            ("after=2026-01-05T08:15:32.120Z", vec![3]),
            ("after=2026-01-05T08:15:30.120Z&limit=2", vec![2, 1]),
        ] {
            let list = past.list(&format!("{path}?{query}")).await;
            assert_eq!(numbers(&list), want, "{path} {query}");
        }
        let first = past.list(&format!("{path}?limit=1")).await;
        let next = format!(
            "{path}?limit=1&iterator={}",
            first["iterator"].as_str().unwrap()
        );
        let second = past.list(&next).await;
        assert_eq!(
            (numbers(&second), &second["done"]),
            (vec![2], &json!(false))
        );
        let back = format!(
            "{path}?limit=5&iterator={}",
            second["prevIterator"].as_str().unwrap()
        );
        assert_eq!(numbers(&past.list(&back).await), [3], "{path}");
    }
    let list = past.list("/attempt/endpoint/one?with_msg=true").await;
    insta::assert_json_snapshot!("attempt", list["data"][2]);
    let bare = past.list("/attempt/endpoint/one?with_content=false").await;
    assert_eq!(bare["data"][0]["response"], "{}");
    let id = list["data"][0]["id"].as_str().unwrap();
    let one = past.list(&format!("/msg/{message}/attempt/{id}")).await;
    assert_eq!(
        (&one["id"], &one["response"]),
        (&json!(id), &json!("answer"))
    );
    let other = past.gateway.message("acme", "a").await;
    let path = format!("/app/acme/msg/{other}/attempt/{id}");
    past.gateway.get(&path).expect(404).await;
}

#[tokio::test]
async fn attempts_of_one_millisecond_page_without_loss() {
    let past = Past::start().await;
    let mut messages = Vec::new();
    for _ in 0..5 {
        messages.push(past.gateway.message("acme", "a").await);
    }
    let no = past.endpoint("one");
    let app = past
        .gateway
        .directory
        .snapshot()
        .app("acme")
        .unwrap()
        .app
        .no;
    let attempts = messages.iter().map(|message| Attempt {
        at: position(message),
        endpoint: no,
        app,
        no: 1,
        accepted: None,
        ended: past.gateway.clock.now(),
        duration_ms: 1,
        outcome: Outcome {
            status: 200,
            failure: None,
            retry_after_secs: None,
        },
        trigger: Trigger::Scheduled,
        verdict: Verdict::Delivered,
        response: Bytes::new(),
    });
    let settlement = Settlement {
        attempts: attempts.collect(),
        ..Settlement::default()
    };
    settle(&past.gateway, settlement).await;
    let mut seen = Vec::new();
    let mut query = String::from("limit=2");
    for _ in 0..4 {
        let page = past.list(&format!("/attempt/endpoint/one?{query}")).await;
        for attempt in page["data"].as_array().unwrap() {
            seen.push(attempt["msgId"].as_str().unwrap().to_owned());
        }
        if page["done"] == true {
            break;
        }
        query = format!("limit=2&iterator={}", page["iterator"].as_str().unwrap());
    }
    messages.reverse();
    assert_eq!(seen, messages);
}

#[tokio::test]
async fn states_are_shown_in_the_words_of_the_sdks() {
    let past = Past::start().await;
    past.gateway.clock.advance(Duration::from_secs(1));
    past.gateway.endpoint("acme", "two").await;
    let message = past.gateway.message("acme", "a").await;
    past.attempt(&message, "one", 1, 500, retry()).await;
    past.attempt(&message, "two", 1, 500, DEAD).await;
    let to = past.list(&format!("/msg/{message}/endpoint")).await;
    let shown = |n: usize| (&to["data"][n]["uid"], &to["data"][n]["statusText"]);
    assert_eq!(shown(0), (&json!("one"), &json!("pending")));
    assert_eq!(shown(1), (&json!("two"), &json!("fail")));
    assert_eq!(to["data"][0]["nextAttempt"], "2026-01-05T09:15:30.120Z");
    assert!(to["data"][0].get("metadata").is_none());
    let messages = past.list("/endpoint/two/msg?status=2").await;
    assert_eq!(messages["data"][0]["id"], message);
    assert_eq!(messages["data"][0]["status"], 2);
    assert_eq!(
        past.list("/endpoint/two/msg?status=0").await["data"],
        json!([])
    );
    let explained = past.list(&format!("/msg/{message}/explain")).await;
    insta::assert_json_snapshot!("explain", explained);
}

#[tokio::test]
async fn application_keys_do_not_learn_about_blocked_addresses() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    past.attempt(&message, "one", 1, 0, retry()).await;
    let path = format!("/app/acme/attempt/msg/{message}");
    let key = past.gateway.make_key(&["app:acme:*"], None).await;
    let seen = past.gateway.get(&path).key(&key).expect(200).await.json();
    assert_eq!(seen["data"][0]["failure"], "target");
    let seen = past.gateway.get(&path).expect(200).await.json();
    assert_eq!(seen["data"][0]["failure"], "blocked_address");
}

#[tokio::test]
async fn resend_and_cancel_answer_an_empty_object() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    let delivery = Delivery {
        at: position(&message),
        endpoint: past.endpoint("one"),
    };
    for action in ["resend", "cancel"] {
        let path = format!("/app/acme/msg/{message}/endpoint/one/{action}");
        let answer = past.gateway.call("POST", &path).expect(202).await;
        assert_eq!(answer.text(), "{}");
    }
    let asked = past.gateway.asked.lock().clone();
    assert_eq!(
        asked,
        [Asked::Resend(vec![delivery]), Asked::Cancel(vec![delivery])]
    );
}

pub(super) async fn finished(gateway: &Gateway, started: &Value) -> Value {
    let path = format!("/background-task/{}", started["id"].as_str().unwrap());
    loop {
        let task = gateway.get(&path).expect(200).await.json();
        if task["status"] != "running" {
            return task;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn cancel_pending_is_a_task_that_says_how_far_it_is() {
    let past = Past::start().await;
    let path = "/app/acme/endpoint/one/cancel-pending";
    let started = past.gateway.call("POST", path).expect(202).await.json();
    assert_eq!(
        (&started["status"], &started["task"]),
        (&json!("running"), &json!("endpoint.cancel_pending"))
    );
    let task = finished(&past.gateway, &started).await;
    assert_eq!(
        (&task["status"], &task["data"]),
        (
            &json!("finished"),
            &json!({"deliveries": 300, "sending": 2})
        )
    );
    let one = past.endpoint("one");
    assert_eq!(*past.gateway.asked.lock(), [Asked::CancelPending(one)]);
    let unknown = past
        .gateway
        .post(path, &json!({"since": "now"}))
        .send()
        .await;
    assert_eq!(
        unknown.mistakes(),
        [("body.since".to_owned(), "unknown_field".to_owned())]
    );
    let none = "/app/acme/endpoint/none/cancel-pending";
    let none = past.gateway.post(none, &json!({})).send().await;
    assert_eq!(none.problem(), (404, "not_found".to_owned()));
    let reader = past.gateway.make_key(&["msg:read"], None).await;
    let refused = past.gateway.call("POST", path).key(&reader).send().await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn recover_takes_dead_deliveries_since_then_and_no_others() {
    let past = Past::start().await;
    let old = past.gateway.message("acme", "a").await;
    past.gateway.clock.advance(Duration::from_secs(60));
    let since = past.gateway.clock.now();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(past.gateway.message("acme", "a").await);
    }
    past.attempt(&old, "one", 1, 500, DEAD).await;
    past.attempt(&ids[0], "one", 1, 500, DEAD).await;
    past.attempt(&ids[1], "one", 1, 500, DEAD).await;
    past.attempt(&ids[1], "one", 2, 200, Verdict::Delivered)
        .await;
    past.attempt(&ids[2], "one", 1, 500, retry()).await;
    let path = "/app/acme/endpoint/one/recover";
    let started = past
        .gateway
        .post(path, &json!({"since": since}))
        .expect(202)
        .await
        .json();
    assert_eq!(
        (&started["status"], &started["task"]),
        (&json!("running"), &json!("endpoint.recover"))
    );
    let task = finished(&past.gateway, &started).await;
    assert_eq!(
        (&task["status"], &task["data"]["deliveries"]),
        (&json!("finished"), &json!(1))
    );
    let want = Delivery {
        at: position(&ids[0]),
        endpoint: past.endpoint("one"),
    };
    assert_eq!(*past.gateway.asked.lock(), [Asked::Recover(vec![want])]);
    let list = past
        .gateway
        .get("/background-task?status=finished")
        .expect(200)
        .await
        .json();
    assert_eq!(list["data"][0]["id"], started["id"]);
    let refused = past
        .gateway
        .post(path, &json!({"since": "2020-01-01T00:00:00Z"}))
        .send()
        .await;
    assert_eq!(
        refused.mistakes(),
        [("body.since".to_owned(), "value_error".to_owned())]
    );
    let missing = past.gateway.post(path, &json!({})).send().await;
    assert_eq!(
        missing.mistakes(),
        [("body.since".to_owned(), "missing".to_owned())]
    );
}

#[tokio::test]
async fn replay_missing_takes_what_was_never_meant_for_the_endpoint() {
    let past = Past::start().await;
    let before = past.gateway.message("acme", "a").await;
    let other = past.gateway.message("acme", "b").await;
    let body = json!({"url": "https://late.example/", "uid": "late", "eventTypes": ["a"]});
    past.gateway
        .post("/app/acme/endpoint", &body)
        .expect(201)
        .await;
    past.gateway.message("acme", "a").await;
    let since = json!({"since": "2026-01-05T00:00:00Z"});
    let path = "/app/acme/endpoint/late/replay-missing";
    let started = past.gateway.post(path, &since).expect(202).await.json();
    assert_eq!(started["task"], "endpoint.replay");
    finished(&past.gateway, &started).await;
    let want = Delivery {
        at: position(&before),
        endpoint: past.endpoint("late"),
    };
    assert_eq!(
        *past.gateway.asked.lock(),
        [Asked::Recover(vec![want])],
        "not {other}"
    );
}

#[tokio::test]
async fn a_dry_run_says_who_would_get_it() {
    let past = Past::start().await;
    let body = json!({"url": "https://x.example/", "uid": "x", "channels": ["eu"]});
    past.gateway.clock.advance(Duration::from_secs(1));
    past.gateway
        .post("/app/acme/endpoint", &body)
        .expect(201)
        .await;
    past.gateway
        .call("POST", "/app/acme/endpoint/one/pause")
        .expect(204)
        .await;
    let message = json!({"eventType": "a", "payload": {}});
    let told = past
        .gateway
        .post("/app/acme/msg/explain", &message)
        .expect(200)
        .await
        .json();
    assert_eq!(told["endpoints"][0]["heldBy"], "paused");
    assert_eq!(told["endpoints"][1]["mismatch"], "channel");
    assert_eq!(
        past.list("/msg").await["data"],
        json!([]),
        "nothing was accepted"
    );
    let active = json!({"eventType": "a"});
    let path = "/app/acme/msg/precheck/active";
    let active = past.gateway.post(path, &active).expect(200).await.json();
    assert_eq!(active, json!({"active": true}));
}

#[tokio::test]
async fn the_switch_that_shows_blocked_addresses_does_so_in_one_position_only() {
    for (is_on, shown) in [(false, "target"), (true, "blocked_address")] {
        let gateway = Gateway::with(|config| config.delivery.show_blocked_addresses = is_on).await;
        let past = Past::over(gateway).await;
        let message = past.gateway.message("acme", "a").await;
        past.attempt(&message, "one", 1, 0, DEAD).await;
        let key = past.gateway.make_key(&["app:acme:*"], None).await;
        let path = format!("/app/acme/attempt/msg/{message}");
        for (key, want) in [
            (key.as_str(), shown),
            (super::kit::ADMIN, "blocked_address"),
        ] {
            let seen = past.gateway.get(&path).key(key).expect(200).await.json();
            assert_eq!(seen["data"][0]["failure"], want, "switch {is_on}");
        }
    }
}
