//! Whole runs: against the stand-in, which breaks promises on purpose, and against the gateway's own
//! binary.

use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};
use crate::record::{Outcome, Record};
use crate::report::table;
use crate::scenario::Scale;
use crate::set::{self, Plan};
use crate::stub::{self, Fault};

const ONCE: Plan = Plan {
    ceilings: Duration::ZERO,
    repeat: 1,
    within: Duration::ZERO,
};

/// A short run against the stand-in; the outcome, and whether it is faultless.
fn run_against(fault: Fault, options: &str) -> (Record, bool) {
    let address = stub::start(fault);
    let line = format!(
        "loadtest run --address {address} --key k --connections 4 --warm-up 0 --duration 1 --drain 1 --verify-every 1 {options}"
    );
    let Command::Run(args) = Cli::try_parse_from(line.split_whitespace())
        .unwrap()
        .command
    else {
        unreachable!("the line says run");
    };
    let target = args.target.target().unwrap();
    let record = set::measure(&[args.scenario().unwrap()], &target, &ONCE).unwrap();
    let faultless = record.faults().is_empty();
    (record, faultless)
}

fn run_of(record: &Record) -> &Run {
    &record.results[0].runs[0]
}

fn value(record: &Record, name: &str) -> f64 {
    run_of(record).measures[name]
}

#[test]
fn an_honest_gateway_passes_with_everything_counted() {
    let (record, faultless) = run_against(Fault::None, "--rate 100 --apps 3 --endpoints 2");
    assert!(faultless, "{:?}", record.faults());
    let run = run_of(&record);
    let accepted = value(&record, "accepted_per_second");
    assert!((80.0..=101.0).contains(&accepted), "{accepted}");
    assert_eq!(
        (value(&record, "lost"), value(&record, "duplicates")),
        (0.0, 0.0)
    );
    // Everything that was accepted went to both endpoints of its application, and was verified.
    assert!(run.signatures_verified as f64 >= 2.0 * accepted);
    assert_eq!(run.signatures_verified, run.delivery.summary.count);
    assert!(value(&record, "delivery_p50_ms") > 0.0);
    assert_eq!(value(&record, "within_1s"), 1.0);
    let offered = value(&record, "offered_per_second");
    assert!((offered - 100.0).abs() < 1e-6, "{offered}");
    let text = table::detail(&record.machine, &record.results[0]);
    assert!(text.contains("event to delivery"), "{text}");
}

#[test]
fn batches_are_followed_message_by_message() {
    let (record, faultless) = run_against(Fault::None, "--batch 7 --rate 20");
    assert!(faultless, "{:?}", record.faults());
    assert!(value(&record, "accepted_per_second") >= 70.0);
    assert_eq!(value(&record, "lost"), 0.0);
}

#[test]
fn a_single_lost_delivery_fails_the_run() {
    let (record, faultless) = run_against(Fault::Loses(17), "--rate 100");
    assert_eq!((value(&record, "lost"), faultless), (1.0, false));
    assert!(value(&record, "delivered_share") < 1.0);
}

#[test]
fn a_doubled_delivery_is_counted() {
    let (record, faultless) = run_against(Fault::Doubles(17), "--rate 100 --no-keep-alive");
    assert_eq!(
        (value(&record, "duplicates"), value(&record, "lost")),
        (1.0, 0.0)
    );
    assert!(faultless, "at least once is what is promised");
}

#[test]
fn wrong_signatures_fail_the_run() {
    let (record, faultless) = run_against(Fault::SignsWrongly, "--rate 100");
    let run = run_of(&record);
    assert!(!faultless && run.signatures_bad == run.signatures_verified);
}

#[test]
fn hanging_endpoints_are_owed_nothing_and_reported_apart() {
    let (record, faultless) = run_against(
        Fault::None,
        "--rate 50 --endpoints 3 --behaviours fast,slow-20,gate",
    );
    assert!(faultless, "{:?}", record.faults());
    let by: Vec<_> = run_of(&record).by_behaviour.keys().collect();
    assert_eq!(by, ["fast", "gate", "slow-20"]);
    let slow = run_of(&record).by_behaviour["slow-20"].summary.p50_us;
    assert!(slow >= 20_000, "{slow}");
    assert!(
        run_of(&record).delivery.summary.count < 3 * 51,
        "fast ones only"
    );
}

/// A run of the stand-in as a peer of another make.
fn peer(fault: Fault) -> Record {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("peer.toml");
    std::fs::write(&adapter, stub::PEER).unwrap();
    let own = std::process::id();
    let options = format!(
        "--rate 150 --endpoints 2 --apps 1 --adapter {} --pid me={own}",
        adapter.display()
    );
    run_against(fault, &options).0
}

#[test]
fn a_peer_of_another_make_is_driven_through_its_adapter() {
    let record = peer(Fault::None);
    assert_eq!(record.faults(), Vec::<String>::new());
    assert!(value(&record, "accepted_per_second") >= 100.0);
    assert_eq!(value(&record, "delivered_share"), 1.0);
    let run = run_of(&record);
    assert_eq!(
        run.signatures_verified, 0,
        "the adapter says that there are none"
    );
    assert!(run.processes["me"].peak_memory > 0);
    assert!(record.versions.contains_key("peer"));
}

#[test]
fn a_peer_that_names_no_id_is_found_out() {
    let faults = peer(Fault::NamesNothing).faults();
    assert!(faults[0].contains("without an id"), "{faults:?}");
}

/// The gateway beside this test's binary (`target/debug/posthaste`), which a test run of the whole
/// workspace builds.
fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.ancestors().nth(2).unwrap().join("posthaste");
    assert!(
        binary.exists(),
        "{} is missing: run the tests of the whole workspace, or `cargo build` first",
        binary.display()
    );
    binary
}

fn target(dir: &Path) -> Target {
    Target {
        binary: binary(),
        address: None,
        adapter: Adapter::named("posthaste").unwrap(),
        env: Vec::new(),
        pids: Vec::new(),
        dir: dir.to_owned(),
        keep: false,
        listen: any_port(),
        seed: 5,
    }
}

fn measured(texts: &[&str], plan: &Plan) -> Record {
    let dir = tempfile::tempdir().unwrap();
    let scenarios: Vec<_> = texts
        .iter()
        .map(|text| Scenario::parse(text).unwrap())
        .collect();
    let record = set::measure(&scenarios, &target(dir.path()), plan).unwrap();
    assert_eq!(record.faults(), Vec::<String>::new());
    record
}

#[test]
fn the_gateway_carries_a_mix_and_every_figure_is_there() {
    let mix = r#"
        name = "mix"
        title = "Mix"
        about = "everything at once"
        verify_every = 1
        [load]
        pace = { kind = "ramp", from = 50.0, to = 200.0, steps = 3 }
        connections = 4
        warm_up = "200ms"
        duration = "1s"
        idempotency = true
        unwanted = 0.3
        [payload]
        size = { weighted = [[300, 3], [3000, 1]] }
        [population]
        applications = 20
        endpoints = 2
        behaviours = "fast=4,slow-5=1,500=1"
        concurrency = 20
        [gateway]
        POSTHASTE__DELIVERY__MAX_IN_FLIGHT = "200"
        [[expect]]
        measure = "lost"
        at_most = 0
        [[expect]]
        measure = "accepted_per_second"
        of = "ceiling_accept"
        at_least = 1.0
    "#;
    let plan = Plan {
        ceilings: Duration::from_millis(100),
        ..ONCE
    };
    let record = measured(&[mix], &plan);
    let outcome: &Outcome = &record.results[0];
    assert!(
        outcome
            .settings
            .contains(&"delivery.max_in_flight = 200".to_owned())
    );
    let held: Vec<_> = outcome.bars.iter().map(|judged| judged.held).collect();
    assert_eq!(
        held,
        [true, false],
        "nobody accepts faster than a bare server"
    );
    for name in [
        "accepted_per_second",
        "delivered_per_second",
        "gateway_cpu_us",
        "bytes_per_payload_byte",
        "peak_memory_mib",
        "idle_memory_mib",
        "switches_per_message",
        "generator_share",
        "ceiling_file",
        "ceiling_send",
        "setup_seconds",
    ] {
        assert!(value(&record, name) > 0.0, "{name}");
    }
    let run = run_of(&record);
    assert!(run.signatures_verified > 0 && run.turned_away > 0);
    assert!(!run.samples.is_empty() && !run.delivered_line.per_second.is_empty());
    let mean = value(&record, "payload_bytes");
    assert!((600.0..1400.0).contains(&mean), "{mean}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_gateway_is_killed_under_load() {
    let restart = r#"
        name = "restart"
        title = "Restart"
        about = "killed twice"
        [load]
        pace = { kind = "open", rate = 200.0 }
        connections = 8
        warm_up = "0s"
        duration = "2s"
        idempotency = true
        retry = true
        [population]
        applications = 2
        [restart]
        every = "700ms"
        how = "kill"
    "#;
    let record = measured(&[restart], &ONCE);
    let run = run_of(&record);
    assert!(
        run.events.iter().any(|(_, what)| what == "restart"),
        "{:?}",
        run.events
    );
    assert!(value(&record, "restart_ms") > 0.0 && value(&record, "retried") > 0.0);
    assert_eq!(value(&record, "delivered_share"), 1.0);
    assert!(value(&record, "gateway_cpu_us") > 0.0);
}

#[test]
fn a_backlog_drains_beside_the_load_however_it_was_held() {
    for how in ["paused", "down"] {
        let text = format!(
            r#"
            name = "backlog"
            title = "Backlog"
            about = "five hundred wait"
            drain = "20s"
            [load]
            pace = {{ kind = "open", rate = 50.0 }}
            connections = 2
            warm_up = "100ms"
            duration = "1s"
            [population]
            applications = 3
            [backlog]
            messages = 500
            how = "{how}"
            "#
        );
        let record = measured(&[&text], &ONCE);
        assert!(value(&record, "backlog_per_second") > 0.0, "{how}");
        let run = run_of(&record);
        assert_eq!(run.events[0].1, "backlog let go");
        assert_eq!(run.turned_away > 0, how == "down", "{how}");
        assert_eq!(value(&record, "delivered_share"), 1.0, "{how}");
    }
}

#[test]
fn a_backlog_of_which_lines_were_refused_is_made_up_and_counted_without_them() {
    let text = r#"
        name = "backlog"
        title = "Backlog"
        about = "a queue that is too short for the batches of the fill"
        drain = "30s"
        [load]
        pace = { kind = "open", rate = 200.0 }
        connections = 2
        warm_up = "100ms"
        duration = "1s"
        [population]
        applications = 3
        [backlog]
        messages = 3000
        how = "paused"
        [gateway]
        POSTHASTE__INGEST__QUEUE = "300"
        POSTHASTE__INGEST__MAX_GROUP = "64"
    "#;
    let record = measured(&[text], &ONCE);
    assert_eq!(record.faults(), Vec::<String>::new());
    let value = |name| value(&record, name);
    assert_eq!((value("lost"), value("duplicates")), (0.0, 0.0));
    assert_eq!(value("delivered_share"), 1.0);
}

#[test]
fn a_start_with_a_backlog_is_timed_to_its_first_delivery() {
    let text = r#"
        name = "pending"
        title = "Pending"
        about = "killed while two thousand drain"
        drain = "30s"
        [load]
        pace = { kind = "open", rate = 20.0 }
        connections = 2
        warm_up = "100ms"
        duration = "2s"
        idempotency = true
        retry = true
        [population]
        applications = 2
        [backlog]
        messages = 2000
        how = "paused"
        restart = true
    "#;
    let record = measured(&[text], &ONCE);
    let waited = value(&record, "first_delivery_ms");
    assert!(waited > 0.0 && waited < 60_000.0, "{waited}");
    assert!(value(&record, "restart_ms") > 0.0);
    assert_eq!(value(&record, "delivered_share"), 1.0);
    let events: Vec<_> = run_of(&record).events.iter().map(|one| &one.1).collect();
    assert_eq!(events, ["backlog let go", "killed", "started", "ready"]);
}

#[test]
fn a_sweep_over_the_history_makes_a_curve_of_stores_that_hold_more() {
    let text = r#"
        name = "stored"
        title = "Stored"
        about = "what lies there already"
        [load]
        pace = { kind = "open", rate = 50.0 }
        connections = 2
        warm_up = "0s"
        duration = "1s"
        [history]
        messages = 1
        [sweep]
        over = "history"
        values = [10, 3000]
        [[expect]]
        measure = "accepted_per_second"
        of = "scenario:first"
        at_least = 0.5
    "#;
    let dir = tempfile::tempdir().unwrap();
    let scenarios = Scenario::parse(text).unwrap().points().unwrap();
    let record = set::measure(&scenarios, &target(dir.path()), &ONCE).unwrap();
    assert_eq!(record.faults(), Vec::<String>::new());
    let (small, large) = (&record.results[0], &record.results[1]);
    assert_eq!(
        (small.name.as_str(), large.name.as_str()),
        ("stored-10", "stored-3000")
    );
    assert!(large.bars[0].held, "{:?}", large.bars);
    assert_eq!(large.point.as_ref().unwrap().value, 3000);
    // Only the load is delivered and counted.
    for outcome in [small, large] {
        assert_eq!(outcome.spread("delivered_share").unwrap().median, 1.0);
        assert!(outcome.runs[0].delivery.summary.count < 100);
    }
}

#[test]
fn a_scaled_scenario_that_refers_to_another_uses_its_rate() {
    let base = r#"
        name = "base"
        title = "Base"
        about = "closed loop"
        [load]
        pace = { kind = "closed" }
        connections = 2
        warm_up = "0s"
        duration = "10s"
        [population]
        disabled = true
    "#;
    let share = r#"
        name = "share"
        title = "Share"
        about = "a tenth of it"
        [load]
        pace = { kind = "share", of = "base", share = 0.1 }
        connections = 4
        warm_up = "0s"
        duration = "1s"
        [[expect]]
        measure = "accepted_per_second"
        of = "scenario:base"
        at_least = 0.05
        at_most = 0.15
    "#;
    let scale = Scale {
        applications: 1.0,
        backlog: 1.0,
        time: 0.1,
    };
    let dir = tempfile::tempdir().unwrap();
    let scenarios = [base, share].map(|text| Scenario::parse(text).unwrap().scaled(scale));
    let record = set::measure(&scenarios, &target(dir.path()), &ONCE).unwrap();
    let bars = &record.results[1].bars;
    assert!(bars[0].held, "{bars:?}");
    assert!(
        record
            .outcome("base")
            .unwrap()
            .spread("delivered_per_second")
            .is_none()
    );
}
