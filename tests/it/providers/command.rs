//! `posthaste providers` as an operator uses it.

use std::fs;
use std::process::Command;

const BIN: &str = env!("CARGO_BIN_EXE_posthaste");

#[test]
fn the_command_reports_all_mistakes_of_a_directory_and_exits_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let check = || {
        let mut command = Command::new(BIN);
        let done = command
            .args(["providers", "check"])
            .arg(directory.path())
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    assert_eq!(
        check(),
        (Some(0), String::from("all 57 manifests are good\n"))
    );
    fs::write(
        directory.path().join("acme.toml"),
        "schema_version = 1\nnaem = \"Acme\"\n",
    )
    .unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(78));
    for line in [
        "4 mistakes in the manifests:",
        "acme.toml:1: status is missing",
        "acme.toml:2: naem: unknown key",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn the_command_lists_every_provider_with_what_is_covered() {
    let done = Command::new(BIN)
        .args(["providers", "list"])
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success());
    assert_eq!(text.lines().count(), 57);
    let hubspot = "HubSpot: HMAC SHA-256; covers method, URL, body, timestamp; integrity body";
    assert!(text.contains(hubspot), "{text}");
    assert!(text.contains("Glassdoor: public API closed"), "{text}");
}
