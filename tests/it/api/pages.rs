//! Lists asked for with `after` alone: they begin at that time and lead to everything after it.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::time::Duration;

use posthaste::base::Clock;
use posthaste::model::Verdict;
use serde_json::Value;

use super::history::Past;

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().unwrap().iter();
    data.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Follows `iterator` until `done`; each page, newest first.
async fn follow(past: &Past, path: &str, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut page = past.list(&format!("{path}?{query}")).await;
    loop {
        pages.push(ids(&page));
        if page["done"] == true {
            return pages;
        }
        assert!(pages.len() < 20, "it goes round in circles");
        let next = page["iterator"].as_str().unwrap();
        page = past.list(&format!("{path}?limit=2&iterator={next}")).await;
    }
}

/// Regression: the first page held the oldest messages, and its iterator led to nothing.
#[tokio::test]
async fn after_alone_leads_to_every_later_message_and_attempt() {
    let past = Past::start().await;
    past.gateway.message("acme", "a").await;
    past.gateway.clock.advance(Duration::from_secs(1));
    let after = past.gateway.clock.now();
    let mut messages = Vec::new();
    for _ in 0..5 {
        past.gateway.clock.advance(Duration::from_secs(1));
        messages.push(past.gateway.message("acme", "a").await);
    }
    let query = format!("limit=2&after={after}");
    let pages = follow(&past, "/msg", &query).await;
    let want: Vec<Vec<String>> = messages
        .chunks(2)
        .map(|page| page.iter().rev().cloned().collect())
        .collect();
    assert_eq!(
        pages, want,
        "closest to the time first, each page newest first"
    );
    let pages = follow(&past, "/endpoint/one/msg", &query).await;
    assert_eq!(pages, want);
    // `prevIterator` leads the same way, as older clients of this API expect.
    let first = past.list(&format!("/msg?{query}")).await;
    let previous = first["prevIterator"].as_str().unwrap();
    let next = past
        .list(&format!("/msg?limit=2&iterator={previous}"))
        .await;
    assert_eq!(ids(&next), want[1]);
}

#[tokio::test]
async fn after_alone_leads_through_attempts_of_a_message_and_of_an_endpoint() {
    let past = Past::start().await;
    let message = past.gateway.message("acme", "a").await;
    let after = past.gateway.clock.now();
    for no in 1..=5 {
        past.attempt(&message, "one", no, 200, Verdict::Delivered)
            .await;
    }
    for path in [
        format!("/attempt/msg/{message}"),
        "/attempt/endpoint/one".to_owned(),
    ] {
        let pages = follow(&past, &path, &format!("limit=2&after={after}")).await;
        let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 2, 1], "{path}");
        let mut all: Vec<String> = pages
            .into_iter()
            .flat_map(|page| page.into_iter().rev())
            .collect();
        let seen = all.clone();
        all.sort();
        all.dedup();
        assert_eq!(seen, all, "{path}: each once, in order of time");
    }
}

#[tokio::test]
async fn the_iterator_of_such_a_list_is_refused_where_there_is_no_after() {
    let past = Past::start().await;
    let path = format!("/app?iterator=~{}", past.gateway.app("other").await);
    let refused = past.gateway.get(&path).send().await;
    assert_eq!(
        refused.mistakes(),
        [("query.iterator".to_owned(), "value_error".to_owned())]
    );
}
