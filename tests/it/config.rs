//! Configuration: the shipped files, both sources, and the report of everything that is wrong.

use std::time::Duration;

use posthaste::base::ByteSize;
use posthaste::config::{Config, HighWater, LogFormat, Mistake, Mistakes, Place};
use posthaste::model::DisablePolicy;

const DEFAULT: &str = include_str!("../../config/default.toml");
const DEV: &str = include_str!("../../config/dev.toml");
const PRODUCTION: &str = include_str!("../../config/production.toml");
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");

fn file(text: &str) -> Result<Config, Mistakes> {
    Config::load(Some(("my.toml", text)), [])
}

fn variables(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let owned = pairs
        .iter()
        .map(|(k, v)| (String::from(*k), String::from(*v)));
    Config::load(None, owned)
}

/// The report of a configuration that must be refused.
fn report(result: Result<Config, Mistakes>) -> String {
    match result {
        Ok(_) => String::from("was accepted"),
        Err(mistakes) => mistakes.to_string(),
    }
}

/// `key = value`, and not a sentence with an equals sign in it.
fn is_setting(line: &str) -> bool {
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    line.split_once(" = ").is_some_and(|(key, _)| is_key(key))
}

/// Lines of `text` that set a key, with their section; commented ones included if asked for.
fn settings(text: &str, commented: bool) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let line = match line.strip_prefix("# ") {
            Some(rest) if commented => rest,
            _ => line,
        };
        if let Some((key, value)) = line.split_once(" = ").filter(|_| is_setting(line)) {
            found.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    found
}

#[test]
fn the_default_file_says_what_the_code_says() {
    assert_eq!(file(DEFAULT), Ok(Config::default()));
    assert_eq!(Config::load(None, []), Ok(Config::default()));
}

#[test]
fn the_default_file_shows_every_key_with_its_default() {
    let active = settings(DEFAULT, false);
    let all = settings(DEFAULT, true);
    for key in Config::keys() {
        if key.path == "delivery.signature_presets" {
            assert!(
                DEFAULT.contains("# [delivery.signature_presets."),
                "presets"
            );
            continue;
        }
        let shown = all.iter().filter(|(path, _)| *path == key.path).count();
        assert_eq!(shown, 1, "{} must be shown once", key.path);
        let set = active.iter().any(|(path, _)| *path == key.path);
        assert_eq!(
            set,
            key.default.is_some(),
            "{} set if it has a default",
            key.path
        );
    }
}

#[test]
fn the_commented_lines_of_the_default_file_are_good_too() {
    let uncommented = DEFAULT
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || is_setting(rest) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    let config = file(&uncommented).expect("every example loads");
    assert!(config.server.tls_key.is_some());
    assert!(
        config
            .delivery
            .signature_presets
            .contains_key("webhooks-hex")
    );
}

#[test]
fn the_development_file_opens_loopback_and_nothing_else() {
    let config = file(DEV).expect("loads");
    let networks: Vec<_> = config
        .delivery
        .allow_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["127.0.0.0/8", "::1/128"]);
}

#[test]
fn the_production_file_loads() {
    let config = file(PRODUCTION).expect("loads");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.storage.high_water, HighWater::EveryCommit);
    assert!(config.delivery.allow_networks.is_empty());
}

#[test]
fn the_operations_page_lists_every_key_as_it_is() {
    for key in Config::keys() {
        let default = key
            .default
            .as_deref()
            .map_or_else(String::new, |d| format!("`{d}`"));
        let row = format!("| `{}` | {default} | {} |", key.path, key.takes);
        assert!(
            OPERATIONS.contains(&row),
            "docs/OPERATIONS.md lacks the row\n{row}"
        );
    }
}

#[test]
fn the_effective_configuration_loads_to_itself() {
    let config = Config::load(
        Some((
            "my.toml",
            r#"
                [server]
                metrics_listen = "[::1]:9000"
                public_urls = ["https://hooks.example.com", "http://203.0.113.7:8080/in"]
                tls_cert = "a \"quoted\" name.pem"
                tls_key = 'back\slash.pem'
                [delivery]
                allow_networks = ["10.1.0.0/16"]
                retry_schedule = ["250ms", 5, "1h30m"]
                disable = "consecutive"
                disable_failures = 3
                signature = "acme"
                [delivery.signature_presets.acme]
                profile = "hex"
                header = "X-Acme"
                prefix = "sha256="
                alsoStandard = false
            "#,
        )),
        [],
    )
    .expect("loads");
    assert_eq!(
        config.delivery.disable,
        DisablePolicy::Consecutive { failures: 3 }
    );
    assert_eq!(file(&config.effective_toml()), Ok(config));
    assert_eq!(
        file(&Config::default().effective_toml()),
        Ok(Config::default())
    );
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in Config::keys() {
        let value = key
            .default
            .as_deref()
            .unwrap_or("")
            .trim_matches('"')
            .to_owned();
        let loaded = Config::load(None, [(key.variable.clone(), value)]);
        match key.path.as_str() {
            "delivery.signature_presets" => {
                assert!(report(loaded).contains("table of named profiles"));
            }
            _ => assert_eq!(loaded, Ok(Config::default()), "{}", key.variable),
        }
    }
}

#[test]
fn variables_win_over_the_file_and_are_read_by_type() {
    let pairs = [
        ("POSTHASTE__SERVER__LISTEN", "127.0.0.1:1"),
        ("POSTHASTE__DELIVERY__TIMEOUT", "7s"),
        (
            "POSTHASTE__DELIVERY__ALLOW_NETWORKS",
            "127.0.0.0/8, ::1/128",
        ),
        ("POSTHASTE__DELIVERY__DENY_PORTS", "[8080, 8081]"),
        ("POSTHASTE__DELIVERY__RETRY_SCHEDULE", "1,2s,500ms"),
        ("POSTHASTE__DELIVERY__ALLOW_HTTP", "true"),
        ("POSTHASTE__INGEST__MAX_BODY", "64KiB"),
        ("POSTHASTE__INGEST__SOFT_WATERMARK", "0.5"),
        (
            "POSTHASTE__DELIVERY__SIGNATURE_PRESETS",
            "{ acme = { profile = 'timestamped', header = 'Acme-Signature' } }",
        ),
        ("PATH", "/usr/bin"),
        ("POSTHASTE_ADMIN_KEY", "is no setting"),
    ];
    let owned = pairs.map(|(k, v)| (String::from(k), String::from(v)));
    let config =
        Config::load(Some(("my.toml", "[delivery]\ntimeout = \"9s\"\n")), owned).expect("loads");
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.delivery.timeout, Duration::from_secs(7));
    assert_eq!(config.delivery.allow_networks.len(), 2);
    assert_eq!(config.delivery.deny_ports, [8080, 8081]);
    assert_eq!(
        config.delivery.retry_schedule,
        [1000, 2000, 500].map(Duration::from_millis)
    );
    assert!(config.delivery.allow_http);
    assert_eq!(config.ingest.max_body, ByteSize::kib(64));
    assert!((config.ingest.soft_watermark - 0.5).abs() < f64::EPSILON);
    assert!(config.delivery.signature_presets.contains_key("acme"));
}

#[test]
fn an_empty_variable_unsets_what_may_be_absent() {
    let text = "[server]\nmetrics_listen = \"127.0.0.1:9\"\n";
    let pair = (
        String::from("POSTHASTE__SERVER__METRICS_LISTEN"),
        String::new(),
    );
    let config = Config::load(Some(("my.toml", text)), [pair]).expect("loads");
    assert_eq!(config.server.metrics_listen, None);
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places() {
    let text = "\
[server]
lisen = \"127.0.0.1:1\"
max_connections = 0

[delivry]
timeout = \"1s\"

[delivery]
timeout = \"40s\"
jitter = \"a lot\"
allow_networks = [\"10.0.0.0/8\", \"ten\"]
";
    let pairs = [
        (String::from("POSTHASTE__LOG__LEVL"), String::from("info")),
        (
            String::from("POSTHASTE__SERVER__LISTEN"),
            String::from("here"),
        ),
    ];
    let Mistakes(all) = Config::load(Some(("my.toml", text)), pairs).expect_err("refused");
    let line = |line, what: &str| Mistake {
        place: Place::File {
            name: String::from("my.toml"),
            line,
        },
        what: what.to_owned(),
    };
    let variable = |name: &str, what: &str| Mistake {
        place: Place::Environment(name.to_owned()),
        what: what.to_owned(),
    };
    assert_eq!(
        all,
        [
            line(2, "unknown key server.lisen; did you mean listen?"),
            line(3, "server.max_connections: 0 is outside 1 to 1000000"),
            line(5, "unknown section [delivry]; did you mean delivery?"),
            line(9, "delivery.timeout: 40s is outside 100ms to 30s"),
            line(10, "delivery.jitter: want a number, found a string"),
            line(
                11,
                "delivery.allow_networks: `ten` is not a network such as 10.0.0.0/8"
            ),
            variable(
                "POSTHASTE__LOG__LEVL",
                "unknown variable; did you mean POSTHASTE__LOG__LEVEL?"
            ),
            variable(
                "POSTHASTE__SERVER__LISTEN",
                "server.listen: `here` is not an address with port such as 127.0.0.1:8071"
            ),
        ]
    );
    let shown = Mistakes(all).to_string();
    assert!(shown.starts_with("8 mistakes in the configuration:\n  my.toml:2: unknown key"));
}

#[test]
fn text_that_is_no_toml_is_named_with_its_line() {
    let shown = report(file("[server]\nlisten = \n[log]\nlevel = \"loud\"\n"));
    assert!(shown.contains("my.toml:2: not TOML"), "{shown}");
    assert!(shown.contains("my.toml:4: log.level: `loud`"), "{shown}");
}

#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    let shown = report(file("[server]\njitter = 0.1\n"));
    assert!(
        shown.contains("unknown key server.jitter; it belongs in [delivery]"),
        "{shown}"
    );
}

#[test]
fn a_variable_with_one_underscore_too_few_is_not_passed_over() {
    let shown = report(variables(&[("POSTHASTE_DELIVERY__TIMEOUT", "5s")]));
    assert!(
        shown.contains("did you mean POSTHASTE__DELIVERY__TIMEOUT?"),
        "{shown}"
    );
    let shown = report(variables(&[("posthaste__delivery__timeout", "5s")]));
    assert!(
        shown.contains("did you mean POSTHASTE__DELIVERY__TIMEOUT?"),
        "{shown}"
    );
}

/// Each value at the edge of its range is good and the one beyond is not.
#[test]
fn ranges_end_where_they_say() {
    for (key, good, bad) in [
        ("SERVER__HEADER_TIMEOUT", "100ms", "99ms"),
        ("SERVER__IDLE_TIMEOUT", "1h", "3601s"),
        ("DELIVERY__TIMEOUT", "25s", "31s"),
        ("DELIVERY__ENDPOINT_CONCURRENCY", "1000", "1001"),
        ("DELIVERY__JITTER", "0.5", "0.51"),
        ("INGEST__MAX_BODY", "1MiB", "1048577B"),
        ("INGEST__MAX_JSON_DEPTH", "127", "128"),
        ("INGEST__SOFT_WATERMARK", "1", "1.01"),
        ("STORAGE__MAX_JOURNAL", "64MiB", "63MiB"),
        ("DELIVERY__DENY_PORTS", "65535", "65536"),
        ("DELIVERY__RETRY_SCHEDULE", "30d", "721h"),
    ] {
        let name = format!("POSTHASTE__{key}");
        let load = |value: &str| variables(&[(name.as_str(), value)]);
        if let Err(mistakes) = load(good) {
            // Only rules between keys may speak against the edge itself.
            assert!(!mistakes.to_string().contains("is outside"), "{mistakes}");
        }
        let shown = report(load(bad));
        assert!(shown.contains("is outside"), "{name}={bad}: {shown}");
    }
}

/// A file with one contradiction, and a part of its report.
const CONTRADICTIONS: &[(&str, &str)] = &[
    (
        "[delivery]\ntimeout = \"4s\"",
        "delivery.connect_timeout: 5s must be below delivery.timeout (4s)",
    ),
    (
        "[server]\nheader_timeout = \"31s\"",
        "server.header_timeout: 31s must not be above server.body_timeout (30s)",
    ),
    (
        "[server]\ndrain_timeout = \"14s\"",
        "delivery.timeout: 15s must not be above server.drain_timeout (14s)",
    ),
    ("[server]\ntls_cert = \"a.pem\"", "go together"),
    (
        "[server]\nmetrics_listen = \"127.0.0.1:8071\"",
        "is server.listen as well",
    ),
    (
        "[delivery]\nmax_in_flight = 9",
        "delivery.endpoint_concurrency: 10 must not be above",
    ),
    (
        "[delivery]\nmax_in_memory = 1000",
        "delivery.max_in_flight: 1024 must not be above",
    ),
    (
        "[ingest]\nmax_pending = 10",
        "ingest.max_pending_per_app: 5000000 must not be above",
    ),
    (
        "[ingest]\nmax_pending_bytes = \"1GiB\"",
        "ingest.max_pending_bytes_per_app: 8GiB must not be",
    ),
    (
        "[ingest]\nmax_batch_body = \"1KiB\"",
        "ingest.max_body: 256KiB must not be above",
    ),
    (
        "[ingest]\nqueue_bytes = \"1MiB\"",
        "ingest.max_batch_body: 16MiB must not be above",
    ),
    (
        "[ingest]\nqueue = 5",
        "ingest.max_group: 1024 must not be above ingest.queue (5)",
    ),
    (
        "[storage]\nmemtable = \"128MiB\"",
        "must be at least four times",
    ),
    (
        "[delivery]\ndisable_span = \"6d\"",
        "delivery.disable_span: 6d must not be above",
    ),
    (
        "[retention]\nattempts = \"89d\"",
        "retention.messages: 90d must not be above retention.attempts (89d)",
    ),
    (
        "[retention]\nmessages = \"4d\"",
        "must be at least the retry window",
    ),
    (
        "[delivery]\nsignature = \"acme\"",
        "`acme` is none of standard, dual",
    ),
    (
        "[delivery.signature_presets.dual]\nprofile = \"standard\"",
        "built-in profile",
    ),
    (
        "[delivery.signature_presets.x]\nprofile = \"hex\"",
        "delivery.signature_presets.x",
    ),
    (
        "[delivery.signature_presets.x]\nprofile = \"timestamped\"\nheader = \"a b\"",
        "no header name",
    ),
    ("[log]\nlevel = \"info,=debug\"", "log.level"),
];

#[test]
fn attempts_stay_as_long_as_messages_unless_they_are_told_to_stay_longer() {
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let kept = |text: &str| {
        let retention = file(text).unwrap().retention;
        (retention.messages, retention.attempts)
    };
    for (text, messages, attempts) in [
        ("[retention]\nmessages = \"30d\"", 30, 90),
        ("[retention]\nmessages = \"365d\"", 365, 365),
        (
            "[retention]\nmessages = \"30d\"\nattempts = \"30d\"",
            30,
            30,
        ),
        ("[retention]\nattempts = \"400d\"", 90, 400),
    ] {
        assert_eq!(kept(text), (days(messages), days(attempts)), "{text}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (text, part) in CONTRADICTIONS {
        let shown = report(file(text));
        assert!(shown.contains(part), "{text}\n{shown}");
        assert!(shown.starts_with("1 mistake in"), "{text}\n{shown}");
    }
}

#[test]
fn a_public_url_has_a_scheme_and_a_host() {
    let shown = report(file("[server]\npublic_urls = [\"hooks.example.com\"]"));
    let wanted = "`hooks.example.com` is not a URL such as https://hooks.example.com";
    assert!(shown.contains(wanted), "{shown}");
}

#[test]
fn a_refused_value_draws_no_second_complaint() {
    let shown = report(file(
        "[delivery]\ntimeout = \"ten\"\nconnect_timeout = \"20s\"\n",
    ));
    assert!(shown.starts_with("1 mistake in"), "{shown}");
}

#[test]
fn schedules_are_names_or_lists() {
    let schedule = |text: &str| file(&format!("[delivery]\nretry_schedule = {text}\n"));
    let seconds = |result: Result<Config, Mistakes>| -> Vec<u64> {
        let config = result.expect("loads");
        config
            .delivery
            .retry_schedule
            .iter()
            .map(Duration::as_secs)
            .collect()
    };
    assert_eq!(seconds(schedule("\"geometric-3\"")), [60, 180, 540]);
    assert_eq!(seconds(schedule("[]")), Vec::<u64>::new());
    assert_eq!(seconds(schedule("[1, \"2m\"]")), [1, 120]);
    let shown = report(schedule("\"often\""));
    assert!(
        shown.contains("write one of geometric-3, ladder-5, standard-10, steps-8"),
        "{shown}"
    );
    for bad in ["[-1]", "[0]", "[\"31d\"]", "[true]", "7"] {
        assert!(schedule(bad).is_err(), "{bad}");
    }
    let many = format!("[{}]", vec!["1"; 51].join(","));
    assert!(report(schedule(&many)).contains("has 51 delays, at most 50"));
}

#[test]
fn idle_connections_take_what_open_files_are_left_over() {
    let mut config = Config::default();
    let need = config.open_files();
    let in_flight = config.delivery.max_in_flight;
    assert_eq!(config.idle_connections(0), in_flight);
    assert_eq!(config.idle_connections(need), in_flight);
    assert_eq!(config.idle_connections(need + 100), in_flight + 100);
    assert_eq!(
        config.idle_connections(u64::MAX),
        config.delivery.max_idle_connections
    );
    config.delivery.max_idle_connections = 7;
    assert_eq!(config.idle_connections(u64::MAX), 7);
}

#[test]
fn the_budget_of_open_files_covers_both_sides() {
    let config = Config::default();
    let connections = config.server.max_connections + 2 * config.delivery.max_in_flight;
    assert!(config.open_files() > u64::try_from(connections).expect("small"));
}
