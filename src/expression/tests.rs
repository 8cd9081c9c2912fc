//! The language: what matches, what fails, what is refused.

use proptest::prelude::*;

use super::*;

const PAYLOAD: &str = r#"{"amount": 120, "big": 9007199254740993, "rate": 0.5, "paid": true,
    "currency": "EUR", "note": null, "customer": {"name": "Ada", "tags": ["vip", "eu"]},
    "items": [{"sku": "a-1", "n": 2}, {"sku": "b-2", "n": 0}], "odd key": 1}"#;

fn run(source: &str) -> Result<bool, FailureKind> {
    let channels = [String::from("eu"), String::from("web")];
    let tags = [String::from("a/b")];
    let facts = Facts::new("invoice.paid", &channels, &tags, PAYLOAD.as_bytes());
    let expression = Expression::parse(source).unwrap_or_else(|bad| panic!("{source}: {bad}"));
    expression.matches(&facts).map_err(|failure| failure.kind)
}

#[test]
fn expressions_say_what_cel_says() {
    for (source, want) in [
        ("payload.amount > 100", true),
        ("payload.amount >= 120 && payload.amount <= 120.0", true),
        ("payload.amount < 119.5", false),
        ("payload.big == 9007199254740993", true),
        ("payload.big == 9007199254740992.0", false),
        ("payload.rate == 0.5 && -1 < payload.rate", true),
        ("payload.currency == 'EUR'", true),
        ("payload.currency == \"\\u0045UR\"", true),
        ("payload.currency != 'USD' && payload.paid", true),
        ("payload.currency in ['USD', 'EUR']", true),
        ("payload.amount in [1, 2]", false),
        ("payload.amount == 'EUR'", false),
        ("payload.note == null", true),
        ("payload['odd key'] == 1", true),
        ("payload.items[1].sku.startsWith('b')", true),
        ("payload.items[0].sku.endsWith('-1')", true),
        ("payload.customer.name.contains('d')", true),
        ("'vip' in payload.customer.tags", true),
        ("'name' in payload.customer", true),
        ("payload.customer.tags == ['vip', 'eu']", true),
        ("has(payload.customer.name) && !has(payload.other)", true),
        (
            "size(payload.items) == 2 && payload.currency.size() == 3",
            true,
        ),
        ("payload.items.exists(i, i.n == 0 && i.sku != 'a-1')", true),
        ("payload.items.all(i, i.n > 0)", false),
        (
            "payload.items.all(i, payload.items.exists(j, i == j))",
            true,
        ),
        ("payload.customer.exists(k, k == 'tags')", true),
        ("eventType == 'invoice.paid' && 'eu' in channels", true),
        ("tags.exists(t, t.startsWith('a/')) || false", true),
        ("channels[1] == 'web'", true),
        ("false || !(true && false)", true),
        // One part that decides makes up for another that fails.
        ("payload.other == 1 || payload.paid", true),
        ("payload.other == 1 && !payload.paid", false),
        ("payload.items.exists(i, i.other == 1 || i.n == 2)", true),
    ] {
        assert_eq!(run(source), Ok(want), "{source}");
    }
}

#[test]
fn failures_name_their_kind() {
    for (source, want) in [
        ("payload.other == 1", FailureKind::Missing),
        ("payload.items[2].n == 1", FailureKind::Missing),
        ("payload.items[-1].n == 1", FailureKind::Type),
        ("payload.amount", FailureKind::Type),
        ("payload.amount.x == 1", FailureKind::Type),
        ("payload.currency > 1", FailureKind::Type),
        ("!payload.currency", FailureKind::Type),
        ("payload.amount.startsWith('1')", FailureKind::Type),
        ("1 in payload.customer", FailureKind::Type),
        ("payload.amount.exists(x, true)", FailureKind::Type),
        ("size(payload.amount) == 1", FailureKind::Type),
    ] {
        assert_eq!(run(source), Err(want), "{source}");
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    for (source, at) in [
        ("", 0),
        ("payload.", 8),
        ("payload.a ==", 12),
        ("payload.a = 1", 10),
        ("payload.a == 1 payload", 15),
        ("other.a", 0),
        ("payload.a.matches('x')", 9),
        ("has(payload)", 0),
        ("(true", 5),
        ("[1, 2", 5),
        ("'abc", 0),
        ("'\\q'", 0),
        ("99999999999999999999", 0),
        ("1e999 > 0", 0),
        ("1. > 0", 0),
        ("payload.a + 1 > 2", 10),
        ("i.exists(i, true)", 0),
        ("-payload.a", 1),
        ("true ? true : false", 5),
        ("payload.ä", 8),
    ] {
        let bad = Expression::parse(source).expect_err(source);
        assert_eq!(bad.at, at, "{source}: {bad}");
    }
}

#[test]
fn depth_and_length_are_limited_whatever_nests() {
    for (open, close) in [
        ("(", ")"),
        ("!", ""),
        ("[", "]"),
        ("payload[", "]"),
        ("size(", ")"),
    ] {
        let nested = |n: usize| format!("{}true{}", open.repeat(n), close.repeat(n));
        assert!(Expression::parse(&nested(MAX_DEPTH - 1)).is_ok(), "{open}");
        assert!(Expression::parse(&nested(MAX_DEPTH + 1)).is_err(), "{open}");
        assert!(Expression::parse(&nested(200)).is_err(), "{open}");
    }
    let path = |n: usize| format!("payload{}", ".a".repeat(n));
    assert!(Expression::parse(&path(MAX_DEPTH - 1)).is_ok());
    assert!(Expression::parse(&path(MAX_DEPTH)).is_err());
    let long = |n: usize| format!("'{}' == ''", "x".repeat(n - 8));
    assert!(Expression::parse(&long(MAX_LENGTH)).is_ok());
    assert!(Expression::parse(&long(MAX_LENGTH + 1)).is_err());
    // Chains are no nesting.
    assert!(Expression::parse(&vec!["true"; 200].join(" && ")).is_ok());
}

#[test]
fn nested_loops_end_at_their_cost() {
    let list: Vec<u32> = (0..1000).collect();
    let payload = serde_json::json!({"l": list, "t": "x".repeat(1_000_000)}).to_string();
    let facts = Facts::new("a", &[], &[], payload.as_bytes());
    for source in [
        "payload.l.all(a, payload.l.all(b, payload.l.all(c, a <= 1000)))",
        "payload.l.exists(a, payload != payload)",
        "payload.l.exists(a, payload.t.contains('y'))",
        "payload.l.exists(a, size(payload.t) == 1)",
        "payload.l.exists(a, payload.t < payload.t)",
        "payload.l.exists(a, 'y' in [payload.t]) || payload.l.exists(a, 5000 in payload.l)",
    ] {
        let failure = Expression::parse(source).unwrap().matches(&facts);
        assert_eq!(
            failure.map_err(|f| f.kind),
            Err(FailureKind::Cost),
            "{source}"
        );
    }
}

#[test]
fn the_payload_is_read_only_when_it_is_asked_for() {
    let facts = Facts::new("a", &[], &[], b"no json");
    let plain = Expression::parse("eventType == 'a'").unwrap();
    assert_eq!(plain.matches(&facts), Ok(true));
    assert!(!plain.needs_payload() && facts.parsed.get().is_none());
    let asking = Expression::parse("eventType == 'b' && payload.x == 1").unwrap();
    assert!(asking.needs_payload());
    assert_eq!(asking.matches(&facts), Ok(false));
    assert!(facts.parsed.get().is_none());
    let failure = Expression::parse("payload.x == 1").unwrap().matches(&facts);
    assert_eq!(failure.map_err(|f| f.kind), Err(FailureKind::Payload));
    let beyond = Facts::new("a", &[], &[], br#"{"x": 1e400}"#);
    let failure = Expression::parse("payload.x > 1").unwrap().matches(&beyond);
    assert_eq!(failure.map_err(|f| f.kind), Err(FailureKind::Payload));
}

#[test]
fn a_stored_expression_that_cannot_be_read_matches_nothing_and_stays_as_it_is() {
    let stored: Expression = serde_json::from_str("\"payload ~ 1\"").unwrap();
    let failure = stored.matches(&Facts::new("a", &[], &[], b"{}"));
    assert_eq!(failure.map_err(|f| f.kind), Err(FailureKind::Invalid));
    assert_eq!(serde_json::to_string(&stored).unwrap(), "\"payload ~ 1\"");
}

proptest! {
    #[test]
    fn no_text_and_no_payload_make_it_panic(source: String, payload in "\\PC{0,40}") {
        if let Ok(expression) = Expression::parse(&source) {
            let facts = Facts::new("a", &[], &[], payload.as_bytes());
            if expression.matches(&facts).is_ok() {}
        }
    }

    #[test]
    fn parts_of_the_language_in_any_order_make_no_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "payload", ".a", "[0]", "['a']", " == ", " && ", " || ", "!", "(", ")", "1", "-", "2.5",
            "'x'", " in ", "[", "]", ",", "has(", "size(", ".exists(i, ", "i", ".all(j, ", "true",
            "null", ".startsWith(", " < ", "channels", "eventType",
        ]), 0..24),
    ) {
        if let Ok(expression) = Expression::parse(&parts.concat()) {
            let facts = Facts::new("a", &[], &[], br#"{"a":[{"a":1},2,"x"]}"#);
            if expression.matches(&facts).is_ok() {}
        }
    }
}
