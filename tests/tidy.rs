//! Rules that the compiler cannot check: layering, owners of outside crates, purity, headers, size,
//! honest tests, dependencies, the metric list.
//!
//! Each rule is a function from text to complaints, so each has a test beside it that feeds it a
//! doctored snippet and sees it complain. Text search on purpose: a rule that needs a parser is a
//! rule nobody can predict. Paths are relative to the repository.

#![expect(
    clippy::string_slice,
    clippy::expect_used,
    reason = "offsets come from match_indices, and a repository that cannot be read is a failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Outside crates that shape the design, and the files or folders that may name them.
const OWNERS: &[(&str, &[&str])] = &[
    ("anyhow", &["src/cli", "src/main.rs"]),
    ("axum", &["src/api", "src/app", "src/dashboard"]),
    ("chacha20poly1305", &["src/vault"]),
    ("clap", &["src/cli", "src/main.rs"]),
    ("crc32c", &["src/store"]),
    ("crossbeam_channel", &["src/lane", "src/store"]),
    ("fjall", &["src/store/fjall"]),
    ("governor", &["src/policy", "src/schedule"]),
    ("hickory_resolver", &["src/client"]),
    ("hyper", &["src/client", "src/server"]),
    ("hyper_util", &["src/client", "src/server"]),
    ("jiff", &["src/base"]),
    ("jsonschema", &["src/policy"]),
    ("listenfd", &["src/server"]),
    ("lsm_tree", &["src/store/fjall"]),
    (
        "metrics",
        &[
            "src/api",
            "src/client",
            "src/deliver",
            "src/inbound",
            "src/ingest",
            "src/metrics",
            "src/schedule",
            "src/telemetry",
        ],
    ),
    ("metrics_exporter_prometheus", &["src/telemetry"]),
    ("mimalloc", &["src/main.rs"]),
    ("ring", &["src/providers"]),
    ("rustls", &["src/client", "src/server"]),
    ("saphyr_parser", &["src/base/yaml.rs"]),
    ("sd_notify", &["src/server"]),
    ("shuttle", &["src/base/task.rs", "src/lane/sync.rs"]),
    ("std::env", &["src/cli", "src/config"]),
    ("tokio_rustls", &["src/client", "src/server"]),
    ("toml", &["src/catalogs", "src/config", "src/providers"]),
    (
        "tower",
        &["src/api", "src/app", "src/dashboard", "src/server"],
    ),
    ("tracing_subscriber", &["src/telemetry"]),
    ("webpki_roots", &["src/client"]),
];

/// Modules that know no runtime, no socket, no disk, no clock and no dice.
const PURE: &[&str] = &[
    "src/config/",
    "src/policy/",
    "src/metrics/",
    "src/model/",
    "src/expression/",
    "src/base/",
];
/// The two files of `base` that exist to own a clock and the spawning.
const NOT_PURE: &[&str] = &["src/base/clock.rs", "src/base/task.rs"];
/// What a pure module must not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "hyper::",
    "fjall::",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
    "rand::random",
    "OsRng",
    "getrandom",
];

/// Lines of a source file without its tests.
const MAX_LINES: usize = 600;

struct Source {
    /// Relative to the repository, with forward slashes.
    path: String,
    /// The first directory or file below `src/`; empty for `lib.rs` and `main.rs`.
    module: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let below = path.strip_prefix("src/").unwrap_or_default();
        let first = below.split('/').next().unwrap_or_default();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        Self {
            path: path.to_owned(),
            module: if matches!(module, "lib" | "main") {
                String::new()
            } else {
                module.to_owned()
            },
            text: text.to_owned(),
        }
    }

    /// The text without lines that are comments.
    fn code(&self) -> String {
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let lines: Vec<_> = self.text.lines().filter(is_code).collect();
        lines.join("\n")
    }

    /// The text before the unit tests.
    fn without_tests(&self) -> &str {
        let mut tests = self.text.match_indices("\n#[cfg(test)]\nmod ");
        tests
            .next()
            .map_or(self.text.as_str(), |(at, _)| &self.text[..at])
    }

    fn is_in(&self, owner: &str) -> bool {
        self.path == owner || self.path.starts_with(&format!("{owner}/"))
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("sources are readable");
                found.push(Source::new(&path, &text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds sources");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file of the repository.
fn all_sources() -> Vec<Source> {
    let mut all = sources("src");
    all.extend(sources("tests"));
    all.extend(sources("loadtest/src"));
    if Path::new("benches").exists() {
        all.extend(sources("benches"));
    }
    all
}

/// The modules of `lib.rs`, from top to bottom.
fn layers(lib: &str) -> Vec<&str> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

// ---- the rules ----

/// A module may import only modules that stand below it.
fn direction(source: &Source, layers: &[&str]) -> Vec<String> {
    let rank = |name: &str| layers.iter().position(|layer| *layer == name);
    let Some(from) = rank(&source.module) else {
        return Vec::new(); // main.rs and lib.rs see everything
    };
    let (path, code) = (&source.path, source.code());
    let mut wrong = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
        // An unknown name is a re-export at the root, or a group: refused too.
        if rank(name).is_none_or(|to| to < from) {
            wrong.push(format!("{path} must not name crate::{name}"));
        }
    }
    if code.contains("super::super") {
        wrong.push(format!("{path} climbs with super::super: start at crate::"));
    }
    let is_top = *path == format!("src/{}/mod.rs", source.module)
        || *path == format!("src/{}.rs", source.module);
    let own = Source::new(path, source.without_tests()).code();
    if is_top && own.contains("super::") {
        wrong.push(format!("{path} reaches the crate root with super::"));
    }
    wrong
}

/// An outside crate is named by its owners only.
fn owners(source: &Source, layers: &[&str]) -> Vec<String> {
    let code = source.code();
    let named = OWNERS
        .iter()
        .filter(|(name, _)| names(&code, name, layers.contains(name) || imports(&code, name)));
    named
        .filter(|(_, owners)| !owners.iter().any(|owner| source.is_in(owner)))
        .map(|(name, owners)| {
            format!(
                "{} names {name}, which belongs to {}",
                source.path,
                owners.join(", ")
            )
        })
        .collect()
}

/// Whether `code` has a module of ours under this name in scope.
fn imports(code: &str, name: &str) -> bool {
    let uses = code.split("use crate::").skip(1);
    let of_ours = uses.filter_map(|rest| rest.split(';').next());
    let mut words = of_ours.flat_map(|rest| rest.split(|c| !is_name(c)));
    words.any(|word| word == name) || code.contains(&format!("mod {name};"))
}

/// A metric's name is written once, in the list.
fn metric_names(source: &Source) -> Vec<String> {
    let outside = source.path.starts_with("src/") && !source.path.starts_with("src/metrics/");
    let own = Source::new(&source.path, source.without_tests()).code();
    if outside && own.contains("\"posthaste_") {
        return vec![format!(
            "{} spells a metric's name: use crate::metrics",
            source.path
        )];
    }
    Vec::new()
}

/// Whether `code` names the outside crate `name`. Where a module of ours has the same name, only
/// `::name::` means the crate.
fn names(code: &str, name: &str, is_ours_too: bool) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let ends = after.starts_with("::")
            || (after.starts_with(';') || after.starts_with(" as ")) && before.ends_with("use ");
        let rooted = before
            .strip_suffix("::")
            .map(|outer| !outer.ends_with(|c: char| is_name(c) || c == '>'));
        ends && rooted.unwrap_or_else(|| !is_ours_too && !before.ends_with(is_name))
    })
}

/// Pure modules, every `core.rs` and what stands below it name nothing that acts.
fn purity(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let is_pure = PURE.iter().any(|pure| path.starts_with(pure)) && !NOT_PURE.contains(&path);
    if !is_pure && !path.ends_with("/core.rs") && !path.contains("/core/") {
        return Vec::new();
    }
    let code = source.code();
    let found = IMPURE.iter().filter(|word| {
        code.match_indices(**word)
            .any(|(at, _)| !code[..at].ends_with(is_name))
    });
    found
        .map(|word| format!("{path} is pure and names {word}"))
        .collect()
}

/// A design note comes first.
fn header(source: &Source) -> Vec<String> {
    let starts_well = source.text.starts_with("//! ") || source.text.starts_with("#!/");
    if starts_well {
        return Vec::new();
    }
    vec![format!("{} does not begin with a //! header", source.path)]
}

/// Nobody reads a file of more than 600 lines.
fn size(source: &Source) -> Vec<String> {
    let lines = source.without_tests().lines().count();
    let is_test = source.path.starts_with("tests/") || source.path.ends_with("/tests.rs");
    if is_test || lines <= MAX_LINES {
        return Vec::new();
    }
    vec![format!(
        "{} has {lines} lines without tests, at most {MAX_LINES}",
        source.path
    )]
}

/// Tests can fail, run, and wait for conditions.
fn honesty(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = &source.path;
    let in_kit = path.starts_with("tests/it/kit");
    // There time is virtual: sleeping costs nothing and is the same in every run.
    let is_simulated = path.starts_with("tests/it/simulation/");
    let mut before = "";
    for (no, line) in source.text.lines().enumerate() {
        let code = line.trim();
        let no = no + 1;
        if code.starts_with("matches!(")
            && code.ends_with(");")
            && before.ends_with([';', '{', '}'])
        {
            wrong.push(format!(
                "{path}:{no}: a bare matches! checks nothing: use assert!"
            ));
        }
        if code.starts_with("#[ignore") {
            wrong.push(format!("{path}:{no}: an ignored test: fix it or delete it"));
        }
        if path.starts_with("tests/it/")
            && !(in_kit || is_simulated)
            && code.contains("sleep(")
            && !code.starts_with("//")
        {
            wrong.push(format!("{path}:{no}: a test sleeps: wait for a condition"));
        }
        if !code.is_empty() {
            before = code;
        }
    }
    wrong
}

/// Words that end a review before it starts.
fn habits(source: &Source) -> Vec<String> {
    const UNFINISHED: [&str; 3] = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    const NAMES: [&str; 6] = ["utils", "util", "helpers", "common", "misc", "manager"];
    let mut wrong = Vec::new();
    for word in UNFINISHED {
        let whole = source
            .text
            .split(|c| !is_name(c))
            .any(|found| found == word);
        if whole {
            wrong.push(format!("{} leaves a {word} behind", source.path));
        }
    }
    let parts = source.path.trim_end_matches(".rs").split('/');
    for part in parts.filter(|part| NAMES.contains(part)) {
        wrong.push(format!(
            "{}: {part} says nothing about what is inside",
            source.path
        ));
    }
    wrong
}

/// What the lock file must not hold: other TLS stacks, two versions of one foundation, old fjall.
fn dependencies(lock: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("", |value| value.trim_matches([' ', '=', '"']))
        };
        versions
            .entry(field("name"))
            .or_default()
            .push(field("version"));
    }
    let mut wrong = Vec::new();
    for banned in ["openssl-sys", "native-tls", "aws-lc-sys", "mockall"] {
        if versions.contains_key(banned) {
            wrong.push(format!("Cargo.lock holds {banned}"));
        }
    }
    for single in ["tokio", "hyper", "http", "rustls"] {
        match versions.get(single).map(Vec::as_slice) {
            Some([_]) => {}
            found => wrong.push(format!("want one version of {single}, found {found:?}")),
        }
    }
    let number = |version: &str| -> Vec<u64> {
        version
            .split('.')
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    for version in versions.get("fjall").into_iter().flatten() {
        if number(version) < vec![3, 1, 13] {
            wrong.push(format!(
                "fjall {version} loses acknowledged batches: 3.1.13 or newer"
            ));
        }
    }
    wrong
}

/// `tests/` links two binaries, this one and `it`.
fn test_binaries(names: &[String], manifest: &str) -> Vec<String> {
    let mut wrong: Vec<_> = names
        .iter()
        .filter(|name| name.ends_with(".rs") && name.as_str() != "tidy.rs")
        .filter(|name| name.as_str() != "it/main.rs")
        .map(|name| format!("tests/{name} links a test binary of its own: move it into tests/it"))
        .collect();
    if manifest.contains("[[test]]") {
        wrong.push(String::from("Cargo.toml declares a test binary"));
    }
    wrong
}

/// Names as Prometheus wants them, each once, each explained in the operations page.
fn metric_list(metrics: &[(&str, &str, &str)], page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, kind, help) in metrics {
        if !seen.insert(name) {
            wrong.push(format!("metric {name} is listed twice"));
        }
        let lower = |c: char| c.is_ascii_lowercase() || c == '_';
        if !name.starts_with("posthaste_") || !name.chars().all(lower) {
            wrong.push(format!("metric {name} wants the form posthaste_lower_case"));
        }
        if (*kind == "counter") != name.ends_with("_total") {
            wrong.push(format!(
                "metric {name} is a {kind}: counters end in _total, others do not"
            ));
        }
        if !page.contains(&format!("| `{name}` | {kind} | {} |", help.trim())) {
            wrong.push(format!(
                "docs/OPERATIONS.md lacks: | `{name}` | {kind} | {} |",
                help.trim()
            ));
        }
    }
    wrong
}

// ---- the rules over the repository ----

fn assert_clean(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<_> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn imports_point_down_the_module_list() {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs is readable");
    let layers = layers(&lib);
    assert!(layers.len() > 10, "the module list is found");
    assert_clean(
        sources("src")
            .iter()
            .flat_map(|source| direction(source, &layers)),
    );
}

#[test]
fn every_folder_stands_in_the_module_list() {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs is readable");
    let listed: BTreeSet<String> = layers(&lib).into_iter().map(String::from).collect();
    let mut there: BTreeSet<_> = sources("src")
        .into_iter()
        .map(|source| source.module)
        .collect();
    there.remove("");
    assert_eq!(listed, there);
}

#[test]
fn outside_crates_have_owners() {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs is readable");
    let layers = layers(&lib);
    assert_clean(
        sources("src")
            .iter()
            .flat_map(|source| owners(source, &layers)),
    );
}

#[test]
fn metric_names_come_from_the_list() {
    assert_clean(sources("src").iter().flat_map(metric_names));
}

#[test]
fn pure_modules_stay_pure() {
    assert_clean(sources("src").iter().flat_map(purity));
}

#[test]
fn every_file_begins_with_a_design_note() {
    assert_clean(all_sources().iter().flat_map(header));
}

#[test]
fn files_stay_readable_in_one_sitting() {
    assert_clean(all_sources().iter().flat_map(size));
}

#[test]
fn tests_are_honest() {
    let tests = sources("src").into_iter().chain(sources("tests/it"));
    assert_clean(tests.flat_map(|source| honesty(&source)));
}

#[test]
fn nothing_is_left_behind() {
    assert_clean(all_sources().iter().flat_map(habits));
}

#[test]
fn the_lock_file_is_sound() {
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock is committed");
    assert_clean(dependencies(&lock));
}

#[test]
fn builds_broken_on_purpose_are_asked_for_by_name_only() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    for (name, turns_on) in features {
        let turns_on = turns_on.as_array().unwrap();
        let breaks = |on: &toml::Value| on.as_str().unwrap().starts_with("broken-");
        assert!(!turns_on.iter().any(breaks), "{name}");
    }
    assert_eq!(features["default"].as_array().unwrap().len(), 0);
    assert_eq!(posthaste::base::broken::names(), [""; 0]);
}

#[test]
fn tests_link_one_binary() {
    let all = sources("tests");
    let names: Vec<_> = all
        .iter()
        .filter_map(|source| source.path.strip_prefix("tests/"))
        .filter(|name| !name.contains('/') || name.ends_with("/main.rs"))
        .map(String::from)
        .collect();
    let manifest = fs::read_to_string("Cargo.toml").expect("Cargo.toml is readable");
    assert_clean(test_binaries(&names, &manifest));
}

#[test]
fn metrics_are_well_named_and_documented() {
    let kind = |kind| match kind {
        posthaste::metrics::Kind::Counter => "counter",
        posthaste::metrics::Kind::Gauge => "gauge",
        posthaste::metrics::Kind::Histogram => "histogram",
    };
    let list: Vec<_> = posthaste::metrics::ALL
        .iter()
        .map(|metric| (metric.name, kind(metric.kind), metric.help))
        .collect();
    let page = fs::read_to_string("docs/OPERATIONS.md").expect("the page is readable");
    assert_clean(metric_list(&list, &page));
}

// ---- every rule can fail ----

mod doctored {
    use super::*;

    const LAYERS: [&str; 4] = ["api", "store", "metrics", "base"];

    fn count(complaints: &[String]) -> usize {
        complaints.len()
    }

    #[test]
    fn an_import_that_points_up_is_seen() {
        let check = |path: &str, text: &str| count(&direction(&Source::new(path, text), &LAYERS));
        assert_eq!(check("src/api/mod.rs", "use crate::store::Error;"), 0);
        assert_eq!(
            check("src/store/mod.rs", "use crate::store::model::Model;"),
            0
        );
        assert_eq!(check("src/store/mod.rs", "use crate::api::Error;"), 1);
        assert_eq!(check("src/store/mod.rs", "// crate::api is above"), 0);
        assert_eq!(check("src/api/mod.rs", "use crate::{base, store};"), 1);
        assert_eq!(check("src/api/mod.rs", "use crate::Elsewhere;"), 1);
        assert_eq!(
            check("src/store/row.rs", "use super::super::api::Error;"),
            1
        );
        assert_eq!(check("src/store/mod.rs", "use super::api::Error;"), 1);
        assert_eq!(check("src/store/row.rs", "use super::Error;"), 0);
        let in_tests = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
        assert_eq!(check("src/store/mod.rs", in_tests), 0);
        assert_eq!(check("src/main.rs", "use crate::api::Error;"), 0);
    }

    #[test]
    fn a_borrowed_crate_is_seen() {
        let check = |path: &str, text: &str| count(&owners(&Source::new(path, text), &LAYERS));
        assert_eq!(check("src/store/fjall/mod.rs", "use ::fjall::Database;"), 0);
        assert_eq!(check("src/store/mod.rs", "use fjall::Database;"), 1);
        assert_eq!(check("src/store/mod.rs", "pub use self::fjall::Store;"), 0);
        assert_eq!(check("src/api/mod.rs", "use hyper::body::Incoming;"), 1);
        assert_eq!(
            check("src/api/mod.rs", "fn f(x: hyper_util::rt::TokioIo<()>) {}"),
            1
        );
        assert_eq!(check("src/api/mod.rs", "use axum as web;"), 0);
        assert_eq!(check("src/store/mod.rs", "use axum as web;"), 1);
        assert_eq!(check("src/store/mod.rs", "use axum;"), 1);
        assert_eq!(
            check("src/store/mod.rs", "use crate::metrics::ALL; metrics::x();"),
            0
        );
        assert_eq!(check("src/store/mod.rs", "::metrics::counter!(\"x\");"), 1);
        assert_eq!(check("src/store/mod.rs", "std::env::var(\"HOME\")"), 1);
        assert_eq!(
            check("src/store/mod.rs", "my_hyper::x(); hyperspace::y();"),
            0
        );
    }

    #[test]
    fn a_spelled_metric_name_is_seen() {
        let check = |path: &str| {
            let text = "counter!(\"posthaste_x_total\").increment(1);";
            count(&metric_names(&Source::new(path, text)))
        };
        assert_eq!(check("src/lane/mod.rs"), 1);
        assert_eq!(check("src/metrics/mod.rs"), 0);
    }

    #[test]
    fn an_impure_core_is_seen() {
        let check = |path: &str, text: &str| count(&purity(&Source::new(path, text)));
        assert_eq!(check("src/schedule/core.rs", "tokio::spawn(f)"), 1);
        assert_eq!(check("src/schedule/core/ready.rs", "tokio::spawn(f)"), 1);
        assert_eq!(check("src/schedule/mod.rs", "tokio::spawn(f)"), 0);
        assert_eq!(check("src/policy/retry.rs", "let now = Instant::now();"), 1);
        assert_eq!(check("src/model/x.rs", "rand::random::<u8>() + OsRng"), 2);
        assert_eq!(check("src/base/clock.rs", "tokio::time::Instant::now()"), 0);
        assert_eq!(check("src/base/time.rs", "std::fs::read(x)"), 1);
        assert_eq!(check("src/base/time.rs", "// tokio::time\nlet x = 1;"), 0);
    }

    #[test]
    fn a_missing_header_is_seen() {
        let check = |text: &str| count(&header(&Source::new("src/x.rs", text)));
        assert_eq!(check("//! What it is.\n"), 0);
        assert_eq!(check("// Copyright\n//! What it is.\n"), 1);
        assert_eq!(check("use std::fs;\n"), 1);
    }

    #[test]
    fn a_long_file_is_seen_and_its_tests_do_not_count() {
        let check = |path: &str, text: &str| count(&size(&Source::new(path, text)));
        let long = "x\n".repeat(601);
        assert_eq!(check("src/x.rs", &long), 1);
        assert_eq!(check("src/x.rs", &"x\n".repeat(600)), 0);
        assert_eq!(
            check(
                "src/x.rs",
                &format!("x\n\n#[cfg(test)]\nmod tests {{\n{long}}}")
            ),
            0
        );
        assert_eq!(check("tests/it/x.rs", &long), 0);
    }

    #[test]
    fn dishonest_tests_are_seen() {
        let check = |path: &str, text: &str| count(&honesty(&Source::new(path, text)));
        assert_eq!(check("src/x.rs", "let a = b;\nmatches!(a, Some(_));"), 1);
        assert_eq!(check("src/x.rs", "assert!(\nmatches!(a, Some(_)));"), 0);
        assert_eq!(
            check("src/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}"),
            1
        );
        assert_eq!(check("tests/it/x.rs", "tokio::time::sleep(a).await;"), 1);
        assert_eq!(
            check("tests/it/kit/wait.rs", "tokio::time::sleep(a).await;"),
            0
        );
        assert_eq!(check("src/x.rs", "tokio::time::sleep(a).await;"), 0);
    }

    #[test]
    fn unfinished_work_and_empty_names_are_seen() {
        let check = |path: &str, text: &str| count(&habits(&Source::new(path, text)));
        assert_eq!(check("src/x.rs", concat!("// TO", "DO: later")), 1);
        assert_eq!(check("src/x.rs", "let method = 1;"), 0);
        assert_eq!(check("src/store/utils.rs", ""), 1);
    }

    #[test]
    fn bad_dependencies_are_seen() {
        let package = |name: &str, version: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")
        };
        let mut good = String::new();
        for name in ["tokio", "hyper", "http", "rustls"] {
            good += &package(name, "1.0.0");
        }
        assert_eq!(
            count(&dependencies(&(good.clone() + &package("fjall", "3.1.13")))),
            0
        );
        assert_eq!(
            count(&dependencies(&(good.clone() + &package("fjall", "3.1.9")))),
            1
        );
        assert_eq!(
            count(&dependencies(
                &(good.clone() + &package("openssl-sys", "0.9.1"))
            )),
            1
        );
        assert_eq!(
            count(&dependencies(&(good + &package("http", "0.2.12")))),
            1
        );
        assert_eq!(count(&dependencies("")), 4);
    }

    #[test]
    fn a_second_test_binary_is_seen() {
        let names = |list: &[&str]| list.iter().copied().map(String::from).collect::<Vec<_>>();
        assert_eq!(
            count(&test_binaries(&names(&["tidy.rs", "it/main.rs"]), "")),
            0
        );
        assert_eq!(
            count(&test_binaries(&names(&["tidy.rs", "extra.rs"]), "")),
            1
        );
        assert_eq!(
            count(&test_binaries(&names(&["more/main.rs"]), "[[test]]")),
            2
        );
    }

    #[test]
    fn a_badly_kept_metric_is_seen() {
        let page = "| `posthaste_a_total` | counter | A. |\n| `posthaste_b` | gauge | B. |";
        let check = |list: &[(&str, &str, &str)]| count(&metric_list(list, page));
        let good = ("posthaste_a_total", "counter", " A.");
        assert_eq!(check(&[good, ("posthaste_b", "gauge", "B.")]), 0);
        assert_eq!(check(&[good, good]), 1);
        assert_eq!(check(&[("posthaste_b", "gauge", "Other.")]), 1);
        assert_eq!(check(&[("posthaste_a", "counter", "A.")]), 2);
        assert_eq!(check(&[("Other_total", "counter", "A.")]), 2);
    }
}
