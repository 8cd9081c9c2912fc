//! The official Svix clients, unmodified and pinned, against a running gateway: each walks through every
//! first-wave operation and verifies a real delivery. A client that is not installed fails the test
//! and names what is missing. The examples of `docs/API.md` run here as well, as they are written.
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

/// Method and path of every call in a script.
fn calls(script: &str) -> Vec<(String, String)> {
    let script = script.replace("\\\n", " ");
    let words = ["api ", "tenant ", "curl "].map(|word| script.match_indices(word));
    let is_first = |at: &usize| {
        let before = script.split_at(*at).0.chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || c == '(')
    };
    let starts = words.into_iter().flatten().map(|(at, _)| at);
    let mut starts: Vec<usize> = starts.filter(is_first).collect();
    starts.sort_unstable();
    starts.push(script.len());
    let call = |ends: &[usize]| {
        let command = script.get(ends[0]..ends[1])?;
        let (_, path) = command.split_once("$POSTHASTE/")?;
        let path = path.split([' ', '"', '?', ')', '\n']).next()?;
        let method = match command.split_once("-X ") {
            Some((_, rest)) => rest.split_whitespace().next()?,
            None if command.contains("--json") || command.contains("--data") => "POST",
            None => "GET",
        };
        Some((method.to_owned(), format!("/{path}")))
    };
    starts.windows(2).filter_map(call).collect()
}

#[test]
fn every_operation_has_an_example_on_the_api_page() {
    let page = std::fs::read_to_string(repository("docs/API.md")).unwrap();
    let calls = calls(&blocks(&page));
    let operations = posthaste::api::openapi::operations();
    // How many parts of a path are as the operation writes them, if it is one of its paths.
    let fit = |template: &str, path: &str| {
        let (parts, given) = (template.split('/'), path.split('/'));
        let same: Option<Vec<bool>> = parts
            .clone()
            .zip(given.clone())
            .map(|(part, given)| {
                let named = part == given;
                (named || part.starts_with('{')).then_some(named)
            })
            .collect();
        let is_one = parts.count() == given.count();
        same.filter(|_| is_one)
            .map(|same| same.into_iter().filter(|named| *named).count())
    };
    let shown: Vec<&str> = calls
        .iter()
        .map(|(method, path)| {
            let fitting = operations.iter().filter(|one| one.method == method);
            let best = fitting.filter_map(|one| Some((fit(one.path, path)?, one.id)));
            best.max().map(|(_, id)| id)
        })
        .map(|id| id.unwrap_or("an example calls what the description does not know"))
        .collect();
    let missing: Vec<_> = operations
        .iter()
        .filter(|one| !shown.contains(&one.id))
        .map(|one| format!("{} {}", one.method, one.path))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let strange = calls.iter().zip(&shown).find(|(_, id)| id.contains(' '));
    assert!(strange.is_none(), "{strange:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_api_page_run_as_written() {
    let page = std::fs::read_to_string(repository("docs/API.md")).unwrap();
    let script = blocks(&page);
    let backups = tempfile::tempdir().unwrap();
    let backups = backups.path().display().to_string();
    let gateway = Gateway::start(&[("storage.backup_dir", &backups)]).await;
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
