//! What is taken in, what is refused, and what a repetition is answered.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::kit::{Gateway, Receiver, SOON, endpoint, eventually, message};

const MESSAGES: &str = "/api/v1/app/acme/msg";

#[tokio::test]
async fn equal_requests_at_once_make_one_message_and_get_the_same_answer_also_after_a_restart() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let body = Bytes::from(message(json!({"n": 1})).to_string());
    let headers = [("idempotency-key", "order-4711")];

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (api, body) = (gateway.api().clone(), body.clone());
        calls.spawn(async move {
            // 409 says that the first one is still running: a client asks again.
            loop {
                let reply = api
                    .send(Method::POST, MESSAGES, &headers, body.clone())
                    .await
                    .unwrap();
                if reply.status != 409 {
                    return reply;
                }
                assert_eq!(reply.json()["code"], "idempotency_in_progress");
            }
        });
    }
    let answers = calls.join_all().await;
    let first = &answers[0];
    assert_eq!(first.status, 202, "{}", first.text());
    assert!(
        answers
            .iter()
            .all(|one| one.body == first.body && one.status == 202)
    );
    let id = first.json()["id"].clone();
    receiver.delivered("/hook", 1, SOON).await;

    let (status, stopped) = gateway.stop().await;
    assert_eq!(status.code(), Some(0));
    let gateway = stopped.start().await;
    let again = gateway
        .api()
        .send(Method::POST, MESSAGES, &headers, body)
        .await
        .unwrap();
    assert_eq!((again.status, &again.body), (first.status, &first.body));

    let other = Bytes::from(message(json!({"n": 2})).to_string());
    let other = gateway
        .api()
        .send(Method::POST, MESSAGES, &headers, other)
        .await
        .unwrap()
        .expect(422);
    assert_eq!(other["detail"][0]["type"], "idempotency_mismatch");
    assert_eq!(
        other["detail"][0]["loc"],
        json!(["header", "idempotency-key"])
    );
    let listed = gateway.list(MESSAGES).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn an_event_id_is_taken_once_in_an_application_and_free_in_another() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    endpoint(&gateway, "other", &receiver, "/other", json!({})).await;
    let mut body = message(json!({"n": 1}));
    body["eventId"] = json!("evt-1");

    let first = gateway.api().post(MESSAGES, &body).await.expect(202);
    let second = gateway.api().post(MESSAGES, &body).await;
    assert_eq!(
        second.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(second.expect(409)["code"], "conflict");
    let path = format!("{MESSAGES}?on_duplicate=return");
    let asked = gateway.api().post(&path, &body).await.expect(202);
    assert_eq!(
        (&asked["id"], &asked["duplicate"]),
        (&first["id"], &json!(true))
    );
    let elsewhere = gateway.api().post("/api/v1/app/other/msg", &body).await;
    assert_ne!(elsewhere.expect(202)["id"], first["id"]);
    let by_event = gateway.api().get(&format!("{MESSAGES}/evt-1")).await;
    assert_eq!(by_event.expect(200)["id"], first["id"]);
    assert_eq!(gateway.list(MESSAGES).await.len(), 1);
}

#[tokio::test]
async fn a_body_at_the_limit_is_taken_and_one_byte_more_is_413() {
    let gateway = Gateway::start(&[("ingest.max_body", "4KiB")]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let payload = |size: usize| {
        let body = json!({"p": "x".repeat(size - r#"{"p":""}"#.len())});
        assert_eq!(body.to_string().len(), size);
        message(body)
    };
    gateway
        .api()
        .post(MESSAGES, &payload(4096))
        .await
        .expect(202);
    let refused = gateway.api().post(MESSAGES, &payload(4097)).await;
    assert_eq!(refused.expect(413)["code"], "payload_too_large");
    let huge = gateway.api().post(MESSAGES, &payload(3 << 20)).await;
    assert_eq!(huge.expect(413)["code"], "payload_too_large");
    let delivered = receiver.delivered("/hook", 1, SOON).await;
    assert_eq!(delivered[0].body.len(), 4096);
    assert_eq!(gateway.list(MESSAGES).await.len(), 1);
}

#[tokio::test]
async fn bad_input_is_refused_with_the_documented_shapes() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let raw = async |body: &'static str| {
        gateway
            .api()
            .send(
                Method::POST,
                MESSAGES,
                &[],
                Bytes::from_static(body.as_bytes()),
            )
            .await
            .unwrap()
    };
    assert_eq!(
        raw("{\"eventType\": ").await.expect(400)["code"],
        "bad_json"
    );
    for (body, kind) in [
        (json!({"payload": {}}), "missing"),
        (json!({"eventType": "a b", "payload": {}}), "value_error"),
        (
            json!({"eventType": "a", "payload": {}, "nonsense": 1}),
            "unknown_field",
        ),
    ] {
        let answer = gateway.api().post(MESSAGES, &body).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.expect(422)["detail"][0]["type"], kind, "{body}");
    }
    let unknown = gateway
        .api()
        .post("/api/v1/app/nobody/msg", &message(json!({})))
        .await;
    assert_eq!(unknown.expect(404)["code"], "not_found");
    let stranger =
        crate::kit::Client::new(gateway.address, Some("sk_wrong_0123456789012345678901234"));
    let refused = stranger.post(MESSAGES, &message(json!({}))).await;
    assert_eq!(refused.expect(401)["code"], "authentication_failed");
    assert!(gateway.list(MESSAGES).await.is_empty());
}

#[tokio::test]
async fn a_batch_is_answered_line_by_line_and_a_bad_line_spoils_no_other() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let lines = [
        message(json!({"n": 0})).to_string(),
        "{\"eventType\":".to_owned(),
        message(json!({"n": 2})).to_string(),
        json!({"eventType": "no spaces allowed", "payload": {}}).to_string(),
        message(json!({"n": 4})).to_string(),
    ];
    let reply = gateway
        .api()
        .send(
            Method::POST,
            &format!("{MESSAGES}/batch"),
            &[("content-type", "application/x-ndjson")],
            Bytes::from(lines.join("\n") + "\n"),
        )
        .await
        .unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let results: Vec<Value> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), 5);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["index"], n);
        assert_eq!(result["status"] == 202, n % 2 == 0, "{result}");
        assert_eq!(result["id"].is_string(), n % 2 == 0, "{result}");
    }
    let delivered = receiver.delivered("/hook", 3, SOON).await;
    let mut numbers: Vec<_> = delivered
        .iter()
        .map(|one| one.field("n").as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 2, 4]);
}

#[tokio::test]
async fn a_message_that_nobody_wants_is_stored_listed_and_says_so() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let picky = json!({"eventTypes": ["invoice.paid"]});
    let picky = endpoint(&gateway, "acme", &receiver, "/hook", picky).await;
    let made = gateway
        .api()
        .post(MESSAGES, &message(json!({"n": 1})))
        .await
        .expect(202);
    let listed = gateway.list(MESSAGES).await;
    assert_eq!(listed[0]["id"], made["id"]);
    let id = made["id"].as_str().unwrap();
    assert!(
        gateway
            .list(&format!("{MESSAGES}/{id}/endpoint"))
            .await
            .is_empty()
    );
    assert!(
        !made.to_string().contains(&picky.id),
        "the answer names matched endpoints only: {made}"
    );
    eventually("the metric counts it", SOON, async || {
        let page = gateway.api().get("/metrics").await.text();
        page.lines()
            .any(|line| line == "posthaste_ingest_unmatched_total 1")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_application_in_the_body_is_created_on_the_fly() {
    let gateway = Gateway::start(&[]).await;
    let mut body = message(json!({"n": 1}));
    body["application"] = json!({"name": "Fresh", "uid": "fresh"});
    let made = gateway.api().post("/api/v1/app/fresh/msg", &body).await;
    made.expect(202);
    let app = gateway.api().get("/api/v1/app/fresh").await.expect(200);
    assert_eq!(app["name"], "Fresh");
}

#[tokio::test]
async fn payload_bytes_arrive_as_they_were_written() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let payloads = [
        r#"{ "b" : 1.0 , "a":1e2,  "b": -0 }"#,
        r#"{"text":"\u00e9é\ud83d\ude00 \/ /","n":12345678901234567890123}"#,
        "{\n\t\"deep\": [[[[1]]]]\r\n}",
    ];
    for payload in payloads {
        let body = format!(r#"{{"payload":{payload},"eventType":"test.event"}}"#);
        let reply = gateway
            .api()
            .send(Method::POST, MESSAGES, &[], Bytes::from(body))
            .await
            .unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
    }
    let delivered = receiver.delivered("/hook", payloads.len(), SOON).await;
    let mut bodies: Vec<_> = delivered.iter().map(|one| one.body.clone()).collect();
    bodies.sort();
    let mut wanted: Vec<_> = payloads.map(Bytes::from).to_vec();
    wanted.sort();
    assert_eq!(bodies, wanted);
    assert!(
        delivered
            .iter()
            .all(|one| one.header("content-type").starts_with("application/json"))
    );
}
