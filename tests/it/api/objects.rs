//! Applications, endpoints and event types: shapes, merge patch, upsert, names, aliases.

use posthaste::schedule::OPERATOR;
use serde_json::{Value, json};

use super::kit::Gateway;

#[tokio::test]
async fn an_application_is_made_read_changed_and_deleted() {
    let gateway = Gateway::start().await;
    let body = json!({"name": "Acme", "uid": "acme", "rateLimit": 9, "metadata": {"a": "1"}});
    let made = gateway.post("/app", &body).expect(201).await.json();
    insta::assert_json_snapshot!("application", made);
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        gateway.get(&format!("/app/{id}/")).expect(200).await.json(),
        made
    );
    assert_eq!(gateway.get("/api/app/acme").expect(200).await.json(), made);
    let taken = gateway.post("/app", &body).send().await;
    assert_eq!(taken.problem(), (409, "conflict".to_owned()));
    let found = gateway
        .post("/app?get_if_exists=true", &body)
        .expect(200)
        .await
        .json();
    assert_eq!(found, made);
    gateway.call("DELETE", "/app/acme").expect(204).await;
    let gone = gateway.get(&format!("/app/{id}")).send().await;
    assert_eq!(gone.problem(), (404, "not_found".to_owned()));
    gateway.post("/app", &body).expect(201).await;
}

#[tokio::test]
async fn the_operator_application_stays_and_keeps_its_uid() {
    let gateway = Gateway::start().await;
    let id = gateway.app(OPERATOR).await;
    for path in [format!("/app/{OPERATOR}"), format!("/app/{id}")] {
        for (method, body) in [
            ("DELETE", json!({})),
            ("PUT", json!({"name": "x", "uid": "other"})),
            ("PUT", json!({"name": "x", "uid": null})),
            ("PATCH", json!({"uid": "other"})),
            ("PATCH", json!({"uid": null})),
        ] {
            let refused = gateway.call(method, &path).json(&body).send().await;
            let want = (409, "conflict".to_owned());
            assert_eq!(refused.problem(), want, "{method} {body}");
        }
        for (method, body) in [
            ("PUT", json!({"name": "put"})),
            ("PUT", json!({"name": "put", "uid": OPERATOR})),
            ("PATCH", json!({"name": "patched"})),
        ] {
            let changed = gateway.call(method, &path).json(&body).expect(200).await;
            assert_eq!(changed.json()["uid"], OPERATOR, "{method} {body}");
        }
    }
    let read = gateway.get(&format!("/app/{id}")).expect(200).await.json();
    assert_eq!(
        (&read["uid"], &read["name"]),
        (&json!(OPERATOR), &json!("patched"))
    );
}

#[tokio::test]
async fn a_delete_answers_without_body_and_content_type() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let answer = gateway.call("DELETE", "/app/acme").expect(204).await;
    assert!(answer.bytes.is_empty() && answer.header("content-type").is_none());
}

#[tokio::test]
async fn patch_tells_null_from_absent() {
    let gateway = Gateway::start().await;
    let body = json!({
        "name": "A", "uid": "a", "throttleRate": 5, "metadata": {"x": "1", "y": "2"},
    });
    gateway.post("/app", &body).expect(201).await;
    let patch = async |path: &str, body: Value| {
        gateway
            .call("PATCH", path)
            .json(&body)
            .expect(200)
            .await
            .json()
    };
    let kept = patch("/app/a", json!({"name": "B"})).await;
    assert_eq!(
        (&kept["uid"], &kept["throttleRate"]),
        (&json!("a"), &json!(5))
    );
    let bag = patch("/app/a", json!({"metadata": {"x": null, "z": "3"}})).await;
    assert_eq!(bag["metadata"], json!({"y": "2", "z": "3"}));
    let unlimited = patch("/app/a", json!({"rateLimit": 0})).await;
    assert!(unlimited.get("throttleRate").is_none());
    let id = kept["id"].as_str().unwrap();
    let cleared = patch("/app/a", json!({"uid": null})).await;
    assert!(cleared.get("uid").is_none());
    gateway.get("/app/a").expect(404).await;
    let nameless = gateway
        .call("PATCH", &format!("/app/{id}"))
        .json(&json!({"name": null}));
    let want = ("body.name".to_owned(), "missing".to_owned());
    assert_eq!(nameless.send().await.mistakes(), [want]);
}

#[tokio::test]
async fn put_makes_or_changes_by_uid() {
    let gateway = Gateway::start().await;
    let put = |path: &str, body: Value| gateway.call("PUT", path).json(&body);
    let made = put("/app/acme", json!({"name": "A"}))
        .expect(201)
        .await
        .json();
    assert_eq!(made["uid"], "acme");
    let changed = put("/app/acme", json!({"name": "B"}))
        .expect(200)
        .await
        .json();
    assert_eq!(
        (&changed["id"], &changed["name"]),
        (&made["id"], &json!("B"))
    );
    assert_eq!(changed["uid"], "acme", "a uid that is not named stays");
    put("/app/other", json!({"name": "O"})).expect(201).await;
    let taken = put("/app/other", json!({"name": "O", "uid": "acme"}))
        .send()
        .await;
    assert_eq!(taken.problem(), (409, "conflict".to_owned()));
    let unknown_id = format!("/app/app_{}", "0".repeat(27));
    put(&unknown_id, json!({"name": "X"})).expect(404).await;
    let url = json!({"url": "https://a.example/"});
    let made = put("/app/acme/endpoint/one", url.clone())
        .expect(201)
        .await
        .json();
    assert_eq!(made["uid"], "one");
    let again = put("/app/acme/endpoint/one", url).expect(200).await.json();
    assert_eq!(again["id"], made["id"]);
    let body = json!({"description": "d"});
    put("/event-type/a.b", body.clone()).expect(201).await;
    put("/event-type/a.b", body).expect(200).await;
}

#[tokio::test]
async fn a_put_makes_nothing_under_another_name_than_that_of_its_path() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let put = |path: &str, body: Value| gateway.call("PUT", path).json(&body);
    for (path, body) in [
        ("/app/one", json!({"name": "A", "uid": "two"})),
        (
            "/app/acme/endpoint/one",
            json!({"url": "https://a.example/", "uid": "two"}),
        ),
    ] {
        let answer = put(path, body.clone()).send().await;
        assert_eq!(answer.mistakes(), [item("uid", "value_error")], "{path}");
        let two = path.replace("one", "two");
        gateway.get(path).expect(404).await;
        gateway.get(&two).expect(404).await;
        // Under its own name it is made, and by its name it can be renamed then.
        put(&two, body.clone()).expect(201).await;
        let mut renamed = body;
        renamed["uid"] = json!("one");
        put(&two, renamed).expect(200).await;
        gateway.get(path).expect(200).await;
        gateway.get(&two).expect(404).await;
    }
}

#[tokio::test]
async fn applications_are_listed_ascending_and_filtered() {
    let gateway = Gateway::start().await;
    for uid in ["a", "b", "c"] {
        gateway.app(uid).await;
        gateway.clock.advance(std::time::Duration::from_millis(5));
    }
    gateway.endpoint("b", "on").await;
    gateway.endpoint("c", "off").await;
    let off = json!({"disabled": true});
    gateway
        .call("PATCH", "/app/c/endpoint/off")
        .json(&off)
        .expect(200)
        .await;
    let uids = async |query: &str| -> Vec<String> {
        let list = gateway
            .get(&format!("/app?{query}"))
            .expect(200)
            .await
            .json();
        let data = list["data"].as_array().unwrap().iter();
        data.map(|app| app["uid"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(uids("").await, ["a", "b", "c"]);
    assert_eq!(uids("order=descending&limit=2").await, ["c", "b"]);
    assert_eq!(
        uids("exclude_apps_with_no_endpoints=true").await,
        ["b", "c"]
    );
    assert_eq!(
        uids("exclude_apps_with_disabled_endpoints=true").await,
        ["a", "b"]
    );
}

#[tokio::test]
async fn an_endpoint_shows_all_of_itself_but_secrets() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({
        "url": "https://a.example/in", "description": "d", "uid": "one",
        "filterTypes": ["a", "b.*", "a"], "channels": ["x"], "rateLimit": 5, "version": 3,
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "metadata": {"k": "v"},
        "headers": {"x-api-key": "hidden", "x-tenant": "shown"},
        "signature": {"profile": "hex", "header": "X-Sig", "prefix": "sha256=", "key": "text"},
        "envelope": "id-type", "timeoutMs": 10_000, "maxConcurrency": 3,
        "retrySchedule": "ladder-5", "order": "key",
        "disablePolicy": {"policy": "consecutive", "failures": 10}, "excludePii": false,
    });
    let made = gateway.post("/app/acme/endpoint", &body).expect(201).await;
    insta::assert_json_snapshot!("endpoint", made.json());
    assert!(!made.text().contains("hidden") && !made.text().contains("C2FV"));
    let path = "/app/acme/endpoint/one";
    let secret = gateway
        .get(&format!("{path}/secret"))
        .expect(200)
        .await
        .json();
    assert_eq!(
        secret,
        json!({"key": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"})
    );
    let headers = gateway
        .get(&format!("{path}/headers"))
        .expect(200)
        .await
        .json();
    assert_eq!(
        headers,
        json!({"headers": {"x-tenant": "shown"}, "sensitive": ["x-api-key"]})
    );
    let same = gateway
        .call("PATCH", path)
        .json(&json!({}))
        .expect(200)
        .await
        .json();
    let strip = |mut value: Value| {
        value.as_object_mut().unwrap().remove("updatedAt");
        value
    };
    assert_eq!(
        strip(same),
        strip(made.json()),
        "an empty patch changes nothing"
    );
}

#[tokio::test]
async fn an_empty_list_of_types_means_all() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({"url": "https://a.example/", "uid": "one", "filterTypes": []});
    let made = gateway
        .post("/app/acme/endpoint", &body)
        .expect(201)
        .await
        .json();
    assert!(made.get("eventTypes").is_none());
    let patch = async |body: Value| {
        gateway
            .call("PATCH", "/app/acme/endpoint/one")
            .json(&body)
            .expect(200)
            .await
            .json()
    };
    assert_eq!(
        patch(json!({"eventTypes": ["a"]})).await["filterTypes"],
        json!(["a"])
    );
    assert!(
        patch(json!({"filterTypes": []}))
            .await
            .get("eventTypes")
            .is_none()
    );
}

#[tokio::test]
async fn mistakes_of_an_endpoint_are_named_one_by_one() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let mistakes = async |body: Value| {
        gateway
            .post("/app/acme/endpoint", &body)
            .send()
            .await
            .mistakes()
    };
    for (body, want) in wrong_endpoints() {
        assert_eq!(mistakes(body.clone()).await, [want], "{body}");
    }
    let put = gateway.call("PUT", "/app/acme/endpoint/x");
    let put = put
        .json(&json!({"url": "https://a.example/", "secret": "whsec_x"}))
        .send()
        .await;
    assert_eq!(put.mistakes(), [item("secret", "unknown_field")]);
}

#[tokio::test]
async fn headers_are_set_changed_and_hidden() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    let path = "/app/acme/endpoint/one/headers";
    let read = async || gateway.get(path).expect(200).await.json();
    let body = json!({"headers": {"X-A": "1", "X-B": "2", "Authorization": "Bearer t"}});
    gateway.call("PUT", path).json(&body).expect(204).await;
    let want = json!({"headers": {"X-A": "1", "X-B": "2"}, "sensitive": ["Authorization"]});
    assert_eq!(read().await, want);
    let body = json!({"headers": {"x-a": "9", "X-C": "3"}, "deleteHeaders": ["x-b"]});
    gateway.call("PATCH", path).json(&body).expect(204).await;
    let want = json!({"headers": {"x-a": "9", "X-C": "3"}, "sensitive": ["Authorization"]});
    assert_eq!(read().await, want);
    let body = json!({"headers": {"authorization": null}});
    gateway.call("PATCH", path).json(&body).expect(204).await;
    assert_eq!(read().await["sensitive"], json!([]));
    let body = json!({"headers": {"Host": "evil"}});
    assert_eq!(
        gateway.call("PUT", path).json(&body).send().await.status,
        422
    );
}

#[tokio::test]
async fn a_url_on_another_origin_forgets_sensitive_headers() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    let body = json!({
        "url": "https://a.example/1", "uid": "one",
        "headers": {"authorization": "Bearer t", "x-tenant": "7"},
    });
    gateway.post("/app/acme/endpoint", &body).expect(201).await;
    let (path, headers) = ("/app/acme/endpoint/one", "/app/acme/endpoint/one/headers");
    let patch = async |url: &str| {
        gateway
            .call("PATCH", path)
            .json(&json!({ "url": url }))
            .expect(200)
            .await;
        gateway.get(headers).expect(200).await.json()
    };
    assert_eq!(
        patch("https://a.example/2").await["sensitive"],
        json!(["authorization"])
    );
    let moved = patch("https://b.example/2").await;
    assert_eq!(
        moved,
        json!({"headers": {"x-tenant": "7"}, "sensitive": []})
    );
    let snapshot = gateway.directory.snapshot();
    let endpoint = snapshot.app("acme").unwrap().endpoint("one").unwrap();
    assert!(!endpoint.headers.contains_key("authorization"));
}

#[tokio::test]
async fn secrets_rotate_with_a_grace_period_and_an_end() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    let path = "/app/acme/endpoint/one/secret/rotate";
    let first = gateway
        .get("/app/acme/endpoint/one/secret")
        .expect(200)
        .await
        .json();
    assert!(first["key"].as_str().unwrap().starts_with("whsec_"));
    let made = gateway.call("POST", path).expect(200).await.json();
    assert_ne!(made["key"], first["key"]);
    let own = json!({"key": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "gracePeriodSeconds": 0});
    assert_eq!(
        gateway.post(path, &own).expect(200).await.json()["key"],
        own["key"]
    );
    let old = || {
        let snapshot = gateway.directory.snapshot();
        snapshot
            .app("acme")
            .unwrap()
            .endpoint("one")
            .unwrap()
            .old_secrets
            .len()
    };
    assert_eq!(old(), 1, "without grace nothing is kept");
    for _ in 0..9 {
        gateway.post(path, &json!({})).expect(200).await;
    }
    let full = gateway.post(path, &json!({})).send().await;
    assert_eq!(full.problem(), (400, "limit_reached".to_owned()));
    gateway
        .clock
        .advance(std::time::Duration::from_secs(86_401));
    gateway.post(path, &json!({})).expect(200).await;
    assert_eq!(old(), 1);
    let bad = gateway
        .post(path, &json!({"gracePeriodSeconds": 604_801}))
        .send()
        .await;
    assert_eq!(bad.mistakes()[0].0, "body.gracePeriodSeconds");
}

#[tokio::test]
async fn endpoints_are_disabled_paused_and_deleted() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    gateway.endpoint("acme", "one").await;
    let path = "/app/acme/endpoint/one";
    let patch = async |body: Value| {
        gateway
            .call("PATCH", path)
            .json(&body)
            .expect(200)
            .await
            .json()
    };
    assert_eq!(
        patch(json!({"disabled": true})).await["disabledReason"],
        "manual"
    );
    let on = patch(json!({"disabled": false})).await;
    assert!(on["disabled"] == false && on.get("disabledReason").is_none());
    gateway
        .call("POST", &format!("{path}/pause"))
        .expect(204)
        .await;
    assert_eq!(gateway.get(path).expect(200).await.json()["paused"], true);
    gateway
        .call("POST", &format!("{path}/resume"))
        .expect(204)
        .await;
    assert_eq!(gateway.get(path).expect(200).await.json()["paused"], false);
    let before = gateway.message("acme", "a").await;
    gateway.call("DELETE", path).expect(204).await;
    gateway.get(path).expect(404).await;
    let to = gateway.get(&format!(
        "/app/acme/msg/{before}/endpoint?expanded_statuses=true"
    ));
    let to = to.expect(200).await.json();
    assert_eq!(to["data"][0]["statusText"], "canceled");
    let after = json!({"eventType": "a", "payload": {}});
    let after = gateway
        .post("/app/acme/msg", &after)
        .expect(202)
        .await
        .json();
    assert_eq!(after["endpoints"], json!([]));
}

#[tokio::test]
async fn endpoints_are_listed_newest_first_in_pages() {
    let gateway = Gateway::start().await;
    gateway.app("acme").await;
    for uid in ["a", "b", "c"] {
        gateway.clock.advance(std::time::Duration::from_millis(5));
        gateway.endpoint("acme", uid).await;
    }
    let page = async |query: &str| -> (Vec<String>, Value) {
        let list = gateway
            .get(&format!("/app/acme/endpoint?{query}"))
            .expect(200)
            .await
            .json();
        let data = list["data"].as_array().unwrap().iter();
        (
            data.map(|ep| ep["uid"].as_str().unwrap().to_owned())
                .collect(),
            list,
        )
    };
    let (uids, list) = page("limit=2").await;
    assert_eq!(
        (uids, &list["done"]),
        (vec!["c".to_owned(), "b".to_owned()], &json!(false))
    );
    let next = format!("limit=2&iterator={}", list["iterator"].as_str().unwrap());
    let (uids, list) = page(&next).await;
    assert_eq!((uids, &list["done"]), (vec!["a".to_owned()], &json!(true)));
    let back = format!(
        "limit=2&iterator={}",
        list["prevIterator"].as_str().unwrap()
    );
    assert_eq!(page(&back).await.0, ["c", "b"]);
    assert_eq!(page("order=ascending").await.0, ["a", "b", "c"]);
    gateway.app("empty").await;
    let empty = gateway.get("/app/empty/endpoint").expect(200).await.json();
    let want = json!({"data": [], "iterator": null, "prevIterator": null, "done": true});
    assert_eq!(empty, want);
}

#[tokio::test]
async fn event_types_are_archived_revived_and_expunged() {
    let gateway = Gateway::start().await;
    let body = json!({
        "name": "invoice.paid", "description": "d", "schemas": {"1": {"type": "object"}},
        "groupName": "invoice", "featureFlags": ["beta"],
    });
    let made = gateway.post("/event-type", &body).expect(201).await.json();
    insta::assert_json_snapshot!("event_type", made);
    let twice = gateway.post("/event-type", &body).send().await;
    assert_eq!(twice.problem(), (409, "event_type_exists".to_owned()));
    let list = async |query: &str| -> Value {
        gateway
            .get(&format!("/event-type?{query}"))
            .expect(200)
            .await
            .json()["data"]
            .clone()
    };
    assert!(
        list("").await[0].get("schemas").is_none(),
        "without content unless asked"
    );
    assert_eq!(
        list("with_content=true").await[0]["schemas"],
        body["schemas"]
    );
    gateway
        .call("DELETE", "/event-type/invoice.paid")
        .expect(204)
        .await;
    assert_eq!(list("").await, json!([]));
    assert_eq!(list("include_archived=true").await[0]["archived"], true);
    gateway.get("/event-type/invoice.paid").expect(200).await;
    let revived = gateway.post("/event-type", &body).expect(201).await.json();
    assert_eq!(revived["archived"], false);
    let patch = json!({"featureFlag": "other", "schemas": null});
    let patched = gateway
        .call("PATCH", "/event-type/invoice.paid")
        .json(&patch);
    let patched = patched.expect(200).await.json();
    assert_eq!(patched["featureFlags"], json!(["other"]));
    assert!(patched.get("schemas").is_none());
    gateway
        .call("DELETE", "/event-type/invoice.paid?expunge=true")
        .expect(204)
        .await;
    gateway.get("/event-type/invoice.paid").expect(404).await;
}

fn item(loc: &str, kind: &str) -> (String, String) {
    (format!("body.{loc}"), kind.to_owned())
}

/// Bodies with one mistake each, and the mistake.
fn wrong_endpoints() -> Vec<(Value, (String, String))> {
    let good = "https://a.example/";
    vec![
        (json!({}), item("url", "missing")),
        (json!({"url": "nonsense"}), item("url", "value_error")),
        (
            json!({"url": "http://a.example/"}),
            item("url", "https_required"),
        ),
        (
            json!({"url": "https://127.0.0.1/"}),
            item("url", "blocked_address"),
        ),
        (
            json!({"url": "https://169.254.169.254/"}),
            item("url", "blocked_address"),
        ),
        (
            json!({"url": good, "uid": "a b"}),
            item("uid", "value_error"),
        ),
        (
            json!({"url": good, "eventTypes": ["a", "b c"]}),
            item("eventTypes.1", "value_error"),
        ),
        (
            json!({"url": good, "channels": []}),
            item("channels", "limit"),
        ),
        (
            json!({"url": good, "throttleRate": 0}),
            item("throttleRate", "value_error"),
        ),
        (
            json!({"url": good, "timeoutMs": 999}),
            item("timeoutMs", "value_error"),
        ),
        (
            json!({"url": good, "maxConcurrency": 1001}),
            item("maxConcurrency", "value_error"),
        ),
        (
            json!({"url": good, "retrySchedule": "never"}),
            item("retrySchedule", "value_error"),
        ),
        (
            json!({"url": good, "secret": "short"}),
            item("secret", "value_error"),
        ),
        (
            json!({"url": good, "headers": {"webhook-id": "x"}}),
            item("headers", "value_error"),
        ),
        (
            json!({"url": good, "signature": "nope"}),
            item("signature", "value_error"),
        ),
        (
            json!({"url": good, "paused": true}),
            item("paused", "value_error"),
        ),
        (
            json!({"url": good, "colour": "red"}),
            item("colour", "unknown_field"),
        ),
        (
            json!({"url": good, "metadata": {"a": "x".repeat(5000)}}),
            item("metadata", "limit"),
        ),
    ]
}
