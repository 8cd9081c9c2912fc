//! One function for each parser that sees foreign bytes: what the fuzzer runs, and what a test
//! replays the committed seeds with (`fuzz/README.md`, T62).
//!
//! No part of the product calls this and nothing outside may rely on it. Each function must return
//! for every input, soon and without taking more than a multiple of it in memory; what it asserts is
//! what the parser promises beside that. Elsewhere: the fuzzer (`fuzz/`), the replay
//! (`tests/it/seeds.rs`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::IgnoredAny;

use crate::api;
use crate::base::{Id20, Timestamp, yaml};
use crate::cli::verdict::{Delivery, Judge, Verdict};
use crate::config::Config;
use crate::expression::{Expression, Facts};
use crate::ingest::{self, fields, parse};
use crate::model::{
    AppNo, AttemptId, Endpoint, EndpointId, EndpointNo, Envelope, MessageId, Order, Profile,
};
use crate::policy::target::{Target, TargetRules};
use crate::policy::{address, filter, header, outcome, sign};
use crate::providers;
use crate::server;
use crate::store::fjall;

/// A parser under test: takes any bytes and returns.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also the name of its folder of seeds.
pub const TARGETS: &[(&str, Body)] = &[
    ("address", address_bits),
    ("batch", batch),
    ("config", config),
    ("cursor", cursor),
    ("expression", expression),
    ("filter", filter_patterns),
    ("framing", framing),
    ("header", custom_headers),
    ("journal", fjall::fuzzing::journal),
    ("manifest", providers::fuzzing::manifest),
    ("message", message),
    ("provider", providers::fuzzing::request),
    ("record", fjall::fuzzing::record),
    ("retry_after", retry_after),
    ("signature", signature),
    ("target", target),
    ("yaml", yaml_document),
];

/// 2026-01-05T08:15:30.120Z
const NOW: Timestamp = Timestamp::from_millis(1_767_600_930_120);

const LIMITS: parse::Limits = parse::Limits {
    max_payload: 256 * 1024,
    max_depth: 64,
};

/// The body of a message: what is accepted is a JSON object cut out of the input as it stood there.
pub fn message(data: &[u8]) {
    let Ok(read) = parse::message(data, &LIMITS) else {
        return;
    };
    let payload = read.payload.as_bytes();
    assert!(payload.starts_with(b"{") && payload.len() <= LIMITS.max_payload);
    assert!(data.as_ptr_range().contains(&payload.as_ptr()), "a copy");
    assert!(serde_json::from_slice::<IgnoredAny>(payload).is_ok());
    assert!(fields::event_type(&read.event_type).is_ok());
}

/// An NDJSON batch: lines are cuts of the body, none of them empty or with a line end.
pub fn batch(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let lines = ingest::lines(&body);
    for line in &lines {
        assert!(!line.is_empty() && !line.contains(&b'\n'));
        assert!(body.as_ptr_range().contains(&line.as_ptr()), "a copy");
        message(line);
    }
    let bytes: usize = lines.iter().map(Bytes::len).sum();
    assert!(bytes <= data.len());
}

/// The configuration: the first half of the text as file, lines behind a NUL as variables.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (file, variables) = text.split_once('\0').unwrap_or((&text, ""));
    let variables = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    if let Err(mistakes) = Config::load(Some(("fuzz.toml", file)), variables) {
        assert!(!mistakes.to_string().is_empty());
    }
}

/// Query strings of lists, ids, and times.
pub fn cursor(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    api::fuzzing::query(&text);
    if let Ok(id) = MessageId::parse(&text) {
        let (at, position) = id.place();
        let back = MessageId::of(at, position).place();
        assert_eq!(back, (at, position));
        assert_eq!(MessageId::parse(&id.to_string()).ok(), Some(id));
    }
    if let Ok(id) = AttemptId::parse(&text) {
        let (_endpoint, _seq, _no) = id.parts();
        assert_eq!(AttemptId::parse(&id.to_string()).ok(), Some(id));
    }
    if let Some(at) = Timestamp::parse_rfc3339(&text) {
        assert_eq!(Timestamp::parse_rfc3339(&at.rfc3339()), Some(at));
    }
}

/// Payload filters: the first line is the expression, the rest is the payload. What is accepted comes to
/// the same answer twice, and reads back from the store as it was.
pub fn expression(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (source, payload) = text.split_once('\n').unwrap_or((&text, "{}"));
    let Ok(filter) = Expression::parse(source) else {
        return;
    };
    let said = filter.matches(&Facts::new("a.b", &[], &[], payload.as_bytes()));
    let stored = serde_json::to_string(&filter).unwrap_or_default();
    let back = serde_json::from_str::<Expression>(&stored).ok();
    let again = back.map(|back| back.matches(&Facts::new("a.b", &[], &[], payload.as_bytes())));
    assert_eq!(again, Some(said), "{stored}");
}

/// A YAML document: what is read is no deeper and no larger than the limits, aliases in place.
pub fn yaml_document(data: &[u8]) {
    let limits = yaml::Limits {
        bytes: 1 << 13,
        values: 500,
        depth: 32,
    };
    let text = String::from_utf8_lossy(data);
    match yaml::read(&text, limits) {
        Ok(value) => {
            let (values, height) = measured(&value);
            assert!(values <= limits.values && height <= limits.depth);
        }
        Err(error) => assert!(error.line >= 1 && !error.why.is_empty()),
    }
}

/// Values in a value, itself included, and lists and objects within each other.
fn measured(value: &serde_json::Value) -> (usize, usize) {
    let of = |parts: Vec<(usize, usize)>| {
        let values: usize = parts.iter().map(|part| part.0).sum();
        let height = parts.iter().map(|part| part.1).max().unwrap_or(0);
        (values + 1, height + 1)
    };
    match value {
        serde_json::Value::Array(list) => of(list.iter().map(measured).collect()),
        serde_json::Value::Object(map) => of(map.values().map(measured).collect()),
        _ => (1, 0),
    }
}

/// Filters: the first line is an event type, the others are patterns of one endpoint. The prepared
/// routes must say what the plain rule says.
pub fn filter_patterns(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let event_type = lines.next().unwrap_or_default();
    let patterns: Vec<String> = lines
        .filter(|line| fields::event_filter(line).is_ok())
        .map(str::to_owned)
        .collect();
    if fields::event_type(event_type).is_err() {
        return;
    }
    let endpoint = Endpoint {
        event_types: Some(patterns),
        ..endpoint()
    };
    let routes = filter::Routes::build([(endpoint.no, &endpoint)]);
    let mut found = Vec::new();
    routes.matching(event_type, &[], &mut found);
    let wanted = filter::why_not(&endpoint, event_type, &[]).is_none();
    assert_eq!(found.len(), usize::from(wanted), "{event_type}");
}

/// Heads of HTTP/1 requests and frames of HTTP/2: the first byte says how the bytes are cut into
/// reads, which must make no difference.
pub fn framing(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else {
        return;
    };
    let whole = server::fuzzing::watch([bytes]);
    let parts = server::fuzzing::watch(bytes.chunks(usize::from(cut).max(1)));
    assert_eq!(whole, parts, "the verdict depends on how the bytes came");
}

/// Custom headers, one `name: value` in a line: what is accepted is a header line of HTTP.
pub fn custom_headers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let headers: BTreeMap<String, String> = text
        .split('\n')
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let profile = Profile::Timestamped {
        header: String::from("X-Signature"),
    };
    let good = header::check_headers(&headers, &profile).is_ok();
    for (name, value) in &headers {
        if header::check_header(name, value, &profile).is_ok() {
            assert!(HeaderName::try_from(name.as_str()).is_ok(), "{name:?}");
            let sent = HeaderValue::try_from(value.as_str());
            assert!(sent.is_ok_and(|sent| sent.to_str().is_ok()), "{value:?}");
            assert!(!name.to_ascii_lowercase().starts_with("webhook-"));
        } else {
            assert!(!good, "{name:?} was accepted among others");
        }
    }
}

/// `Retry-After`, one in a line.
pub fn retry_after(data: &[u8]) {
    let hint = outcome::retry_after(data.split(|byte| *byte == b'\n'), NOW);
    assert!(hint.is_none_or(|secs| secs <= outcome::RETRY_AFTER_MAX));
    for status in data.chunks_exact(2) {
        let status = status
            .iter()
            .fold(0, |sum, byte| sum << 8 | u16::from(*byte));
        let judged = outcome::of_status(status, hint);
        assert_eq!(judged.failure.is_none(), (200..300).contains(&status));
    }
}

/// Signature headers as a receiver sees them, one `name: value` in a line, the body behind an empty
/// line. Nobody who lacks the secret finds a signature that is good.
pub fn signature(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => data.split_at(end),
        None => (data, &[][..]),
    };
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let name = HeaderName::from_bytes(name.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    // 24 bytes that no seed signs with.
    let secrets = [String::from("whsec_ZnV6emluZy1rZXktdGhhdC1zaWducy1ub3Q=")];
    let Ok(mut judge) = Judge::new(&secrets) else {
        return;
    };
    let delivery = Delivery {
        path: "/",
        headers: &headers,
        body,
    };
    let verdict = judge.judge(delivery, NOW);
    assert!(!verdict.to_string().is_empty());
    assert!(!matches!(verdict, Verdict::Good), "a forged signature");
    let secret = String::from_utf8_lossy(data).into_owned();
    drop(Judge::new(&[secret]));
}

/// URLs: what is a target has no forbidden address, and the same under a second reading.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rules = TargetRules {
        allow_http: true,
        ..TargetRules::default()
    };
    let Ok(target) = Target::parse(&text, &rules) else {
        return;
    };
    for ip in target.host().known() {
        assert!(address::judge(*ip, &[]).is_ok(), "{text:?} leads to {ip}");
    }
    assert!(rules.allows_port(target.port()));
    let again = target.absolute_form().to_string();
    let again = Target::parse(&again, &rules);
    assert!(
        again.is_ok_and(|again| again.host() == target.host() && again.port() == target.port()),
        "{text:?} reads differently the second time"
    );
}

/// IPv6 addresses by their bits, against what the standard library knows, and with the IPv4 address
/// that may be hidden in them.
pub fn address_bits(data: &[u8]) {
    for bits in data.as_chunks::<16>().0 {
        let v6 = Ipv6Addr::from(*bits);
        if address::judge(v6.into(), &[]).is_err() {
            continue;
        }
        let local = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast();
        assert!(
            !local && !v6.is_unique_local() && !v6.is_unicast_link_local(),
            "{v6}"
        );
        assert!(v6.to_ipv4().is_none(), "{v6} is an IPv4 address");
        let [a, b, ..] = v6.segments();
        let [.., q, r, s, t] = v6.octets();
        if (a, b) == (0x64, 0xff9b) {
            let inner = IpAddr::from([q, r, s, t]);
            assert!(address::judge(inner, &[]).is_ok(), "{v6} hides {inner}");
        }
        assert!(a != 0x2002, "{v6} is a 6to4 address");
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        no: EndpointNo(1),
        id: EndpointId(Id20([1; 20])),
        app: AppNo(1),
        uid: None,
        url: String::new(),
        description: String::new(),
        disabled: None,
        paused: false,
        event_types: None,
        channels: None,
        filter: None,
        throttle_rate: None,
        max_concurrency: None,
        timeout_ms: None,
        retry_schedule: None,
        disable_policy: None,
        signature: None,
        envelope: Envelope::Raw,
        order: Order::None,
        headers: BTreeMap::new(),
        sensitive_headers: Vec::new(),
        metadata: BTreeMap::new(),
        secret: sign::generate([1; 32]),
        old_secrets: Vec::new(),
        created: Timestamp::ZERO,
        updated: Timestamp::ZERO,
        tenant: None,
        exclude_pii: None,
        deleted: None,
    }
}
