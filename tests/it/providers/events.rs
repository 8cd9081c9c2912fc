//! From requests to events: types, ids, payloads.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use bytes::Bytes;
use posthaste::providers::{Event, MAX_EVENTS, Refusal, events};
use serde_json::{Value, json};

use super::kit::{Request, Vector, manifest};

fn of(id: &str, request: &Request) -> Vec<Event> {
    events(manifest(id), &request.received()).unwrap()
}

fn json_of(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Type and id of each event of the first valid vector of each provider, as one line.
#[test]
fn the_valid_vectors_map_to_these_events() {
    let mut lines = Vec::new();
    let mut last = String::new();
    for vector in Vector::valid() {
        if vector.provider == last {
            continue;
        }
        last.clone_from(&vector.provider);
        for event in of(&vector.provider, &vector.request()) {
            let id = event.id.unwrap_or_else(|| String::from("none"));
            let account = event.account.unwrap_or_else(|| String::from("none"));
            lines.push(format!("{} | {id} | {account}", event.event_type));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_json_body_is_the_payload_byte_for_byte() {
    let body = " {\"id\" :\"evt_1\",  \"type\":\"invoice.paid\",\"amount\":1.10,\"big\":12345678901234567890123,\"x\":\"\\u003c\"}\r\n";
    let request = Request::post(body);
    let [event] = &of("stripe", &request)[..] else {
        panic!("one event");
    };
    assert_eq!(event.event_type, "stripe.invoice.paid");
    assert_eq!(event.id.as_deref(), Some("stripe-evt_1"));
    assert_eq!(event.payload, body.trim());
    assert!(
        request
            .body
            .as_ptr_range()
            .contains(&event.payload.as_ptr()),
        "a copy"
    );
    assert_eq!(event.raw, None);
}

#[test]
fn a_batch_is_split_into_slices_of_the_body() {
    let body =
        r#"[ {"event":"open", "sg_event_id":"a", "n": 1.0} ,{"event":"click","sg_event_id":"b"}]"#;
    let request = Request::post(body);
    let found = of("sendgrid", &request);
    let payloads: Vec<_> = found.iter().map(|event| event.payload.clone()).collect();
    let wanted = [
        r#"{"event":"open", "sg_event_id":"a", "n": 1.0}"#,
        r#"{"event":"click","sg_event_id":"b"}"#,
    ];
    assert_eq!(payloads, wanted);
    assert!(
        payloads
            .iter()
            .all(|p| request.body.as_ptr_range().contains(&p.as_ptr()))
    );
    let types: Vec<_> = found
        .iter()
        .map(|event| event.event_type.as_str())
        .collect();
    assert_eq!(types, ["sendgrid.open", "sendgrid.click"]);
    let ids: Vec<_> = found.iter().flat_map(|event| &event.id).collect();
    assert_eq!(ids, ["sendgrid-a", "sendgrid-b"]);
}

#[test]
fn hubspot_events_that_share_an_event_id_are_told_apart_and_a_retry_is_not() {
    let event = |object: u64, at: u64, attempt: u64| {
        json!({
            "eventId": 100, "subscriptionId": 12, "objectId": object, "occurredAt": at,
            "subscriptionType": "contact.creation", "attemptNumber": attempt,
        })
    };
    let list = [
        event(1, 5, 0),
        event(2, 5, 0),
        event(1, 6, 0),
        event(1, 5, 1),
    ];
    let body = Value::from(list.to_vec()).to_string();
    let found = of("hubspot", &Request::post(body));
    let ids: Vec<_> = found
        .iter()
        .map(|event| event.id.as_deref().unwrap())
        .collect();
    let wanted = ["1.5", "2.5", "1.6", "1.5"].map(|end| format!("hubspot-100.12.{end}"));
    assert_eq!(ids, wanted);
}

#[test]
fn the_body_of_a_list_that_is_kept_is_kept_once() {
    // With every event it would make a gigabyte of a megabyte.
    let body = format!(r#"["{}",{}{{}}]"#, "x".repeat(10_000), "1,".repeat(998));
    let found = of("sendgrid", &Request::post(body.clone()));
    assert_eq!(found.len(), 1000);
    assert_eq!(found[0].raw.as_deref(), Some(body.as_bytes()));
    assert_eq!(found.iter().filter(|event| event.raw.is_some()).count(), 1);
    assert_eq!(json_of(&found[1].payload), json!({"payload": 1}));
}

#[test]
fn an_empty_batch_is_a_heart_beat_and_an_absent_one_a_single_event() {
    assert_eq!(of("asana", &Request::post(r#"{"events":[]}"#)), []);
    let single = of("asana", &Request::post(r#"{"other":1}"#));
    assert_eq!(single[0].event_type, "asana.event");
    let single = of(
        "hubspot",
        &Request::post(r#"{"example_field":"example_value"}"#),
    );
    assert_eq!(single.len(), 1);
}

#[test]
fn a_batch_beyond_the_limit_is_refused_as_a_whole() {
    let body = format!("[{}{{}}]", "{},".repeat(MAX_EVENTS));
    let found = events(manifest("hubspot"), &Request::post(body).received());
    assert_eq!(found, Err(Refusal::BadBody));
    let body = format!("[{}{{}}]", "{},".repeat(MAX_EVENTS - 1));
    assert_eq!(of("hubspot", &Request::post(body)).len(), MAX_EVENTS);
}

#[test]
fn a_form_becomes_json_with_the_body_beside_it() {
    let body = "MessageStatus=delivered&MessageSid=SM1&AccountSid=AC1&To=%2B1&To=%2B2";
    let request = Request::post(body)
        .header(
            "content-type",
            "application/x-www-form-urlencoded; charset=UTF-8",
        )
        .header("I-Twilio-Idempotency-Token", "t-1");
    let [event] = &of("twilio", &request)[..] else {
        panic!("one event");
    };
    assert_eq!(event.event_type, "twilio.delivered");
    assert_eq!(event.id.as_deref(), Some("twilio-SM1.t-1"));
    assert_eq!(event.account.as_deref(), Some("AC1"));
    assert_eq!(event.raw.as_deref(), Some(body.as_bytes()));
    let wanted = json!({"MessageStatus": "delivered", "MessageSid": "SM1", "AccountSid": "AC1", "To": ["+1", "+2"]});
    assert_eq!(json_of(&event.payload), wanted);
    // Without the token every status of a message would have one id.
    let request = Request::post(body).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(of("twilio", &request)[0].id, None);
}

#[test]
fn what_is_no_json_object_is_put_into_one() {
    let text = of(
        "github",
        &Request::post("Hello, World!").header("content-type", "text/plain"),
    );
    let wanted = json!({"content_type": "text/plain", "body": "Hello, World!"});
    assert_eq!(json_of(&text[0].payload), wanted);
    assert_eq!(text[0].raw.as_deref(), Some(&b"Hello, World!"[..]));
    let binary = of("github", &Request::post(&[0xff_u8, 0][..]));
    assert_eq!(json_of(&binary[0].payload)["body_base64"], "/wA=");
    let scalar = of("github", &Request::post("[1.0,  2]"));
    assert_eq!(scalar[0].payload, "{\"payload\":[1.0,  2]}");
    let empty = Request::post("").header("X-Goog-Resource-State", "exists");
    let event = &of("google_calendar", &empty)[0];
    assert_eq!(event.event_type, "google_calendar.exists");
    let wanted = json!({"headers": {"x-goog-resource-state": "exists"}});
    assert_eq!(json_of(&event.payload), wanted);
}

#[test]
fn the_field_of_a_form_is_the_payload_where_the_manifest_says_so() {
    let vectors = Vector::valid()
        .into_iter()
        .filter(|v| v.provider == "dropbox_sign");
    for vector in vectors {
        let request = vector.request();
        let [event] = &of("dropbox_sign", &request)[..] else {
            panic!("one event");
        };
        assert!(
            event.event_type.starts_with("dropbox_sign."),
            "{}",
            event.event_type
        );
        assert!(json_of(&event.payload)["event"].is_object());
        assert_eq!(event.raw.as_ref(), Some(&request.body));
    }
    let none = events(manifest("dropbox_sign"), &Request::post("{}").received());
    assert_eq!(none, Err(Refusal::BadBody));
}

#[test]
fn soap_notifications_are_named_by_what_they_are_about() {
    let body = r#"<soapenv:Envelope><soapenv:Body><notifications><OrganizationId>00D1</OrganizationId>
        <Notification><Id>04l1</Id><sObject xsi:type="sf:Lead"/></Notification>
        <Notification><Id>04l2</Id><sObject xsi:type="sf:Lead"/></Notification></notifications></soapenv:Body></soapenv:Envelope>"#;
    let request = Request::post(body).header("content-type", "text/xml; charset=utf-8");
    let [event] = &of("salesforce", &request)[..] else {
        panic!("one event");
    };
    assert_eq!(event.event_type, "salesforce.Lead");
    assert!(
        event
            .id
            .as_deref()
            .is_some_and(|id| id.starts_with("salesforce-sha256."))
    );
    assert_eq!(event.account.as_deref(), Some("00D1"));
    assert_eq!(json_of(&event.payload)["body"], body);
    let reply = manifest("salesforce").reply().unwrap();
    assert!(reply.body.starts_with(b"<?xml") && reply.content_type == "text/xml");
}

#[test]
fn two_events_never_share_an_id_where_the_provider_reuses_its_own() {
    let calendly = |event: &str| {
        let body = json!({"event": event, "created_at": "t", "payload": {"uri": "https://a/1"}});
        of("calendly", &Request::post(body.to_string()))[0]
            .id
            .clone()
    };
    assert_ne!(calendly("invitee.created"), calendly("invitee.canceled"));
    let zoho = |at: u64| {
        let body =
            json!({"operation": "update", "ids": ["1"], "channel_id": "c", "server_time": at});
        of("zoho_crm", &Request::post(body.to_string()))[0]
            .id
            .clone()
    };
    assert_ne!(zoho(1), zoho(2));
    let sign = |request: &str| {
        let document = json!({
            "event": {"event_type": "signature_request_signed", "event_hash": "h"},
            "signature_request": {"signature_request_id": request},
        });
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("json", &document.to_string())
            .finish();
        let request =
            Request::post(body).header("content-type", "application/x-www-form-urlencoded");
        of("dropbox_sign", &request)[0].id.clone()
    };
    assert_ne!(sign("a"), sign("b"));
}
