//! Every implementation shows the same after the same calls, also when calls fail and processes end.

use posthaste::store::faults::Fault;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::world::{Op, World, op};

/// Histories to try; more with `POSTHASTE_CASES`.
fn config() -> Config {
    #[expect(
        clippy::disallowed_methods,
        reason = "the size of a test run is set from outside"
    )]
    let cases = std::env::var("POSTHASTE_CASES");
    Config {
        cases: cases.ok().and_then(|n| n.parse().ok()).unwrap_or(12),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_embedded_store_shows_what_the_reference_shows(
        history in proptest::collection::vec(op(), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path());
        for op in &history {
            world.run(op);
        }
        world.compare();
        world.run(&Op::Crash);
        world.compare();
    }
}

/// A history without faults, the same in every run.
fn history() -> Vec<Op> {
    let mut runner = TestRunner::deterministic();
    let ops = proptest::collection::vec(op(), 24);
    let history = ops.new_tree(&mut runner).unwrap().current();
    let calm = |op: &Op| !matches!(op, Op::Fault(_) | Op::Crash | Op::Close | Op::Wait(_));
    history.into_iter().filter(calm).collect()
}

#[test]
fn a_doubtful_call_is_all_or_nothing_wherever_it_happens() {
    let history = history();
    let dir = tempfile::tempdir().unwrap();
    let calls = {
        let mut world = World::new(dir.path());
        history.iter().for_each(|op| world.run(op));
        world.compare();
        world.calls()
    };
    assert!(calls >= 10, "the history is long enough to mean something");
    for call in 0..calls {
        for fault in [Fault::DoubtfulApplied, Fault::DoubtfulLost] {
            let dir = tempfile::tempdir().unwrap();
            let mut world = World::new(dir.path());
            world.plan(call, fault);
            history.iter().for_each(|op| world.run(op));
            world.compare();
        }
    }
}

#[test]
fn a_call_that_was_not_applied_leaves_no_trace() {
    let history = history();
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path());
    for op in &history {
        world.plan(0, Fault::NotApplied);
        world.run(op);
        world.run(op);
    }
    world.compare();
}
