//! `docs/SOURCES.md` says what the manifests say.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use posthaste::providers::Manifest;

use super::kit::CATALOGUE;

const SOURCES: &str = include_str!("../../../docs/SOURCES.md");

/// The lines between two markers.
fn between(from: &str, to: &str) -> String {
    let (_, rest) = SOURCES.split_once(from).unwrap();
    rest.split_once(to).unwrap().0.trim().to_owned()
}

fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(String::new, |ms| format!("{} s", ms / 1000))
}

fn row(manifest: &Manifest) -> String {
    let window = manifest.tolerance().map(|t| t.as_secs() * 1000);
    format!(
        "| `{}` | {} | {} | {} | {} | {} | {} |",
        manifest.id(),
        manifest.name(),
        manifest.scheme_words(),
        manifest.integrity().name(),
        manifest.covers(),
        seconds(window),
        seconds(manifest.ack_ms().map(u64::from)),
    )
}

#[test]
fn the_page_of_sources_lists_every_provider_as_its_manifest_has_it() {
    let mut wanted = vec![
        String::from("| id | provider | check | integrity | covers | window | answer |"),
        String::from("|---|---|---|---|---|---|---|"),
    ];
    let receivable = || CATALOGUE.all().filter(|manifest| manifest.is_receivable());
    wanted.extend(receivable().map(|manifest| row(manifest)));
    let wanted = wanted.join("\n");
    let found = between("<!-- table -->", "<!-- end of table -->");
    assert_eq!(found, wanted, "the table must be\n{wanted}");
    for manifest in CATALOGUE.all().filter(|manifest| !manifest.is_receivable()) {
        let id = manifest.id();
        assert!(SOURCES.contains(&format!("`{id}`")), "{id} is not named");
    }
}

#[test]
fn the_page_of_sources_names_the_secrets_and_settings_of_each_provider() {
    let names = |names: Vec<&str>| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let receivable = CATALOGUE.all().filter(|manifest| manifest.is_receivable());
    let rows: Vec<_> = receivable
        .map(|manifest| {
            let secrets = match manifest.delivered_secret() {
                Some(name) => format!("`{name}`, delivered by the handshake"),
                None => names(manifest.credentials()),
            };
            format!(
                "| `{}` | {secrets} | {} |",
                manifest.id(),
                names(manifest.settings())
            )
        })
        .collect();
    let head = "| provider | secrets | settings |\n|---|---|---|";
    let wanted = format!("{head}\n{}", rows.join("\n"));
    let found = between("<!-- secrets -->", "<!-- end of secrets -->");
    assert_eq!(found, wanted, "the table must be\n{wanted}");
}
