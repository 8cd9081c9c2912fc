//! The official Svix clients, unmodified and pinned, against a running gateway: each walks through every
//! first-wave operation and verifies a real delivery. A client that is not installed fails the test
//! and names what is missing. The examples of `docs/api.md` run here as well, as they are written.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::kit::{Gateway, dependency, repository, say};

/// Runs a tour to its end, away from the async threads.
async fn tour(program: PathBuf, script: Option<&str>) -> Output {
    let gateway = Gateway::start(&[]).await;
    let mut command = Command::new(program);
    command
        .args(script.map(repository))
        .arg(format!("http://{}", gateway.address))
        .arg(gateway.key());
    let done = tokio::task::spawn_blocking(move || command.output());
    let output = done.await.unwrap().unwrap();
    drop(gateway);
    output
}

fn passed(name: &str, least: usize, output: &Output) {
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}\n{errors}");
    let last = told.trim_end().lines().last().unwrap_or_default();
    let steps: usize = last.strip_prefix("done ").unwrap().parse().unwrap();
    assert!(steps >= least, "{name} took {steps} steps only");
    say(&format!("{name}: {steps} steps"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_passes_its_tour() {
    dependency(repository("tests/node/node_modules/svix"));
    let output = tour(PathBuf::from("node"), Some("tests/node/sdk_tour.mjs")).await;
    passed("svix for JavaScript", 30, &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_passes_its_tour() {
    let python = dependency(repository("target/test-venv/bin/python"));
    let output = tour(python, Some("tests/python/sdk_tour.py")).await;
    passed("svix for Python", 50, &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_passes_its_tour() {
    let program = dependency(repository("target/test-rust/debug/svix-tour"));
    let output = tour(program, None).await;
    passed("svix for Rust", 55, &output);
}

/// The shell blocks of a page, one after the other.
fn blocks(page: &str) -> String {
    let mut script = String::from("set -euo pipefail\n");
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_api_page_run_as_written() {
    let page = std::fs::read_to_string(repository("docs/api.md")).unwrap();
    let script = blocks(&page);
    let calls = script.matches("$POSTHASTE/").count();
    assert!(calls > 30, "only {calls} examples");
    let gateway = Gateway::start(&[]).await;
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(script)
        .env("POSTHASTE", format!("http://{}/api/v1", gateway.address))
        .env("POSTHASTE_ADMIN_KEY", gateway.key())
        // Nobody listens there, and nothing leaves the machine.
        .env(
            "HOOK",
            format!("http://127.0.0.1:{}/hook", crate::kit::free_port()),
        );
    let done = tokio::task::spawn_blocking(move || command.output());
    let output = done.await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
}
