//! Finding the endpoints of a message: once per message, with 10, 1,000 and 100,000 endpoints.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use posthaste::base::{Id20, Timestamp};
use posthaste::model::{AppNo, Endpoint, EndpointId, EndpointNo, Envelope, Order, Secret};
use posthaste::policy::filter::Routes;

fn endpoint(no: u32, event_type: String) -> Endpoint {
    Endpoint {
        no: EndpointNo(no),
        id: EndpointId(Id20([0; 20])),
        app: AppNo(1),
        uid: None,
        url: String::from("https://example.com/"),
        description: String::new(),
        disabled: None,
        paused: false,
        event_types: Some(vec![event_type]),
        channels: None,
        filter: None,
        throttle_rate: None,
        max_concurrency: None,
        timeout_ms: None,
        retry_schedule: None,
        disable_policy: None,
        signature: None,
        envelope: Envelope::Raw,
        order: Order::None,
        headers: BTreeMap::new(),
        sensitive_headers: Vec::new(),
        metadata: BTreeMap::new(),
        secret: Secret::new(String::new()),
        old_secrets: Vec::new(),
        created: Timestamp::ZERO,
        updated: Timestamp::ZERO,
        tenant: None,
        exclude_pii: None,
        deleted: None,
    }
}

/// Nine of ten endpoints want one of many types, the tenth a prefix: a message finds about ten of them
/// whatever their number.
fn endpoints(count: u32) -> Vec<Endpoint> {
    let groups = (count / 10).max(1);
    (0..count)
        .map(|no| {
            let group = no % groups;
            let pattern = if no / groups == 9 {
                format!("group-{group}.*")
            } else {
                format!("group-{group}.paid")
            };
            endpoint(no, pattern)
        })
        .collect()
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10, 1000, 100_000] {
        let endpoints = endpoints(count);
        let numbered = endpoints.iter().map(|endpoint| (endpoint.no, endpoint));
        let routes = Routes::build(numbered);
        let mut found = Vec::new();
        routes.matching("group-0.paid", &[], &mut found);
        assert_eq!(found.len(), 10);
        group.bench_function(BenchmarkId::new("matching", count), |bencher| {
            bencher.iter(|| {
                routes.matching(black_box("group-0.paid"), &[], &mut found);
                black_box(found.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);
