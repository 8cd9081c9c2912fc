//! Metrics of the routes: by what the description calls them, and no more series than it has.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::collections::{BTreeMap, BTreeSet};

use posthaste::telemetry::exposition::scoped;
use serde_json::json;

use super::kit::{ADMIN, Gateway};

/// The page after `calls`, which all run on this thread.
pub(super) fn page(calls: impl AsyncFnOnce()) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (page, ()) = scoped(|| runtime.block_on(calls())).unwrap();
    page.render()
}

/// Values of the series of `metric`, by their labels.
fn series(page: &str, metric: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
        labels
            .starts_with('{')
            .then(|| (labels.to_owned(), value.parse().unwrap()))
    });
    lines.collect()
}

fn of(method: &str, route: &str, status: u16) -> String {
    format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}")
}

#[test]
fn calls_are_counted_by_method_route_and_status_however_they_are_written() {
    let page = page(async || {
        let gateway = Gateway::start().await;
        gateway.app("acme").await;
        gateway.app("beta").await;
        for path in [
            "/app/acme",
            "/app/beta",
            "/app/acme/",
            "/api/app/acme",
            "/app/ac%6De",
        ] {
            gateway.get(path).expect(200).await;
        }
        gateway.get("/app/none").expect(404).await;
        gateway.get("/app/acme").key("wrong").expect(401).await;
        gateway.post("/app", &json!({"uid": 5})).expect(422).await;
        gateway.call("HEAD", "/app/acme").expect(200).await;
        // Neither a path that nobody has nor a method that a path has not makes a series.
        gateway.get("/nothing/here").expect(404).await;
        gateway.call("BREW", "/app/acme").expect(405).await;
    });
    let counted = series(&page, "posthaste_api_requests_total");
    let expected = BTreeMap::from([
        (of("GET", "/app/{app_id}", 200), 5.0),
        (of("GET", "/app/{app_id}", 404), 1.0),
        (of("GET", "/app/{app_id}", 401), 1.0),
        (of("HEAD", "/app/{app_id}", 200), 1.0),
        (of("POST", "/app", 201), 2.0),
        (of("POST", "/app", 422), 1.0),
    ]);
    assert_eq!(counted, expected);
    let took = series(&page, "posthaste_api_seconds_count");
    let read = "{method=\"GET\",route=\"/app/{app_id}\"}";
    assert_eq!(took.get(read), Some(&7.0), "{took:?}");
    let ends = series(&page, "posthaste_api_seconds_bucket");
    let within = format!("{},le=\"0.02\"}}", read.strip_suffix('}').unwrap());
    assert!(ends.contains_key(&within), "{within} in {ends:?}");
}

#[test]
fn accepting_messages_makes_no_series_of_its_own() {
    let page = page(async || {
        let gateway = Gateway::start().await;
        gateway.app("acme").await;
        gateway.message("acme", "a").await;
        // The same past the short way, by the router.
        let body = json!({"eventType": "a", "payload": {}});
        gateway.post("/app/ac%6De/msg", &body).expect(202).await;
        gateway.get("/app/acme/msg").expect(200).await;
    });
    let counted = series(&page, "posthaste_api_requests_total");
    assert_eq!(
        counted.get(&of("GET", "/app/{app_id}/msg", 200)),
        Some(&1.0)
    );
    assert!(!counted.contains_key(&of("POST", "/app/{app_id}/msg", 202)));
    let accepted = page
        .lines()
        .any(|line| line == "posthaste_ingest_messages_total 2");
    assert!(accepted, "{page}");
}

#[test]
fn there_are_no_more_series_than_the_description_has_operations() {
    let page = page(async || {
        let gateway = Gateway::start().await;
        gateway.app("acme").await;
        for n in 0..3 {
            for operation in posthaste::api::openapi::operations() {
                let path = operation.path.replace("{app_id}", "acme");
                let path = path.replace('{', "").replace('}', &n.to_string());
                // Whatever it answers; streams are not waited for.
                let call = gateway.call(operation.method, &path).key(ADMIN);
                drop(call.json(&json!({})).open().await);
            }
        }
    });
    let label = |labels: &str, name: &str| {
        let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let operations = posthaste::api::openapi::operations();
    let described: BTreeSet<(String, String)> = operations
        .iter()
        .map(|one| (one.method.to_owned(), one.path.to_owned()))
        .collect();
    let counted = series(&page, "posthaste_api_requests_total");
    let seen: BTreeSet<(String, String)> = counted
        .keys()
        .map(|labels| (label(labels, "method"), label(labels, "route")))
        .collect();
    let strange: Vec<_> = seen.difference(&described).collect();
    assert!(strange.is_empty(), "{strange:?}");
    // Health and the description have no credential and no meter; messages have meters of their own.
    assert!(
        seen.len() + 3 >= described.len(),
        "{:?}",
        described.difference(&seen)
    );
    let bodies = page
        .lines()
        .filter(|line| line.starts_with("posthaste_api_"))
        .count();
    assert!(bodies < 20 * described.len(), "{bodies} lines");
}
