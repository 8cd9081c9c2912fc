//! Tests of the checker: it accepts what is honest and rejects what is doctored.

use std::io::Write;

use super::{Rule, judge_dir};
use crate::oracle::doctored::self_test;
use crate::oracle::history::{PRODUCER, RECEIVER};
use crate::oracle::honest::{delivery, honest, ms};

#[test]
fn each_doctored_history_is_rejected_by_its_own_rule_and_the_honest_one_by_none() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = self_test(dir.path()).unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_honest_history_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    honest().write(dir.path()).unwrap();
    let verdict = judge_dir(dir.path()).unwrap();
    assert_eq!((verdict.acknowledged, verdict.pairs), (10, 19));
    assert_eq!((verdict.lost, verdict.duplicates), (0, 3));
    assert_eq!(verdict.unknown, 1);
    assert_eq!(verdict.delivered, 23);
}

/// Appends bytes to a file of an honest history and judges it.
fn with_tail(file: &str, tail: &[u8]) -> anyhow::Result<usize> {
    let dir = tempfile::tempdir()?;
    honest().write(dir.path())?;
    let path = dir.path().join(file);
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(tail)?;
    Ok(judge_dir(dir.path())?.violations.len())
}

#[test]
fn a_torn_last_line_is_what_a_killed_recorder_leaves() {
    assert_eq!(with_tail(RECEIVER, b"{\"start\":17, \"en").unwrap(), 0);
    assert_eq!(with_tail(PRODUCER, b"{\"step\"").unwrap(), 0);
}

#[test]
fn any_other_line_that_cannot_be_read_is_an_error_that_names_it() {
    let error = with_tail(RECEIVER, b"{\"start\":17, \"en\n").unwrap_err();
    assert!(
        format!("{error:#}").contains("receiver.jsonl:30"),
        "{error:#}"
    );
    assert!(with_tail(PRODUCER, b"\xff\n").is_err());
}

#[test]
fn a_delivery_of_an_earlier_history_on_the_same_data_is_no_forgery() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    honest().write(&first).unwrap();
    let mut later = honest();
    // The same data again: everything that was sent before may still arrive, and nothing is asked.
    later.calls.clear();
    later.write(&second).unwrap();
    let rules = |verdict: super::Verdict| {
        let mut rules: Vec<Rule> = verdict.violations.iter().map(|one| one.rule).collect();
        rules.dedup();
        rules
    };
    let alone = rules(judge_dir(&second).unwrap());
    assert!(alone.contains(&Rule::C2), "{alone:?}");
    let term = br#"{"term":"earlier","dir":"../first"}"#;
    let terms = second.join("terms.jsonl");
    let mut terms = std::fs::OpenOptions::new()
        .append(true)
        .open(terms)
        .unwrap();
    terms.write_all(term).unwrap();
    terms.write_all(b"\n").unwrap();
    let verdict = rules(judge_dir(&second).unwrap());
    assert!(!verdict.contains(&Rule::C2), "{verdict:?}");
}

#[test]
fn a_call_that_never_ended_has_an_unknown_fate() {
    let dir = tempfile::tempdir().unwrap();
    let mut raw = honest();
    // The harness died before it could note the end of the call that was acknowledged as msg_0.
    raw.calls.remove(1);
    raw.terms
        .retain(|term| !matches!(term, crate::oracle::history::Term::Rules(_)));
    raw.write(dir.path()).unwrap();
    let verdict = judge_dir(dir.path()).unwrap();
    assert_eq!((verdict.acknowledged, verdict.unknown), (9, 2));
    let rules: Vec<_> = verdict.violations.iter().map(|one| one.rule).collect();
    assert!(
        !rules.contains(&Rule::C1) && !rules.contains(&Rule::C2),
        "{rules:?}"
    );
}

/// Whether a probe is called late that arrives at `arrives` ms (10 s after its 202 is 16 020 ms) at an
/// endpoint that answered nothing but `failures` failures between 6.1 and 8.1 s.
fn is_late(arrives: u64, failures: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut raw = honest();
    for one in &mut raw.deliveries {
        if one.id == "msg_6" && one.endpoint == "well" {
            (one.start, one.end) = (ms(arrives - 5), ms(arrives));
        }
    }
    for nth in 0..failures {
        let at = 6100 + nth * 2000 / (failures - 1);
        raw.deliveries
            .push(delivery(at - 5, at, "well", 1, Some(500)));
    }
    raw.write(dir.path()).unwrap();
    let verdict = judge_dir(dir.path()).unwrap();
    verdict.violations.iter().any(|one| one.rule == Rule::C10)
}

#[test]
fn a_probe_may_wait_for_an_endpoint_that_rests_as_long_again_as_it_had_failed() {
    assert!(!is_late(16_000, 9));
    assert!(is_late(17_000, 9));
    assert!(!is_late(18_000, 10));
    assert!(is_late(18_100, 10));
}
