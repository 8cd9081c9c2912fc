//! Query strings under arbitrary input (`crate::fuzzing`).

use super::message;
use super::page::Paging;
use super::query::Query;
use crate::model::AttemptId;

/// The query string of a list.
pub fn query(text: &str) {
    let query = Query::of(Some(text));
    if let Ok(paging) = Paging::of(&query, true, |text| AttemptId::parse(text).ok()) {
        assert!((1..=250).contains(&paging.limit));
    }
    drop(Paging::of(&query, true, message::list_key));
    drop(Paging::of(&query, false, |text| Some(text.to_owned())));
    let _after = query.time("after");
    let _flag = query.flag("with_content", true);
    assert!(
        query
            .list("event_types")
            .iter()
            .all(|part| !part.is_empty())
    );
}
