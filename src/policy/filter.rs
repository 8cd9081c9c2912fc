//! Who wants a message: event types, channels, and what its payload is like.
//!
//! [`why_not`] is the rule, one endpoint at a time; [`Routes`] is the same rule prepared for one
//! application, so that a message finds its endpoints without looking at the others. A property test
//! holds the two together. Expressions are asked last, of the endpoints that have one:
//! [`Routes::narrow`], and [`why_not_in_full`] for one endpoint.
//!
//! Disabled and paused endpoints match (their deliveries are held), deleted ones do not.

use hashbrown::HashMap;

use crate::expression::{Expression, Facts, Failure, FailureKind};
use crate::model::{Endpoint, EndpointNo, Message};

/// Why an endpoint does not get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It was deleted.
    Deleted,
    /// None of its event types is the message's.
    EventType,
    /// It wants channels, and the message names none of them.
    Channel,
    /// Its expression says no.
    Filter,
    /// Its expression comes to no answer about this payload.
    Failed(Failure),
}

/// The first reason why `endpoint` does not get a message of this type on these channels; `None` if
/// it does, as far as its expression lets it. No filter, or an empty one, means all; `*` means all; `invoice.*` means every type that
/// begins with `invoice.`.
pub fn why_not(endpoint: &Endpoint, event_type: &str, channels: &[String]) -> Option<Mismatch> {
    if endpoint.deleted.is_some() {
        return Some(Mismatch::Deleted);
    }
    let wants = filter(endpoint.event_types.as_ref());
    if !wants.is_empty() && !wants.iter().any(|p| Pattern::of(p).covers(event_type)) {
        return Some(Mismatch::EventType);
    }
    let wants = filter(endpoint.channels.as_ref());
    if !wants.is_empty() && !wants.iter().any(|channel| channels.contains(channel)) {
        return Some(Mismatch::Channel);
    }
    None
}

/// The first reason why `endpoint` does not get this message; `None` if it does.
pub fn why_not_in_full(endpoint: &Endpoint, facts: &Facts<'_>) -> Option<Mismatch> {
    if let Some(mismatch) = why_not(endpoint, facts.event_type(), facts.channels()) {
        return Some(mismatch);
    }
    match endpoint.filter.as_ref()?.matches(facts) {
        Ok(true) => None,
        Ok(false) => Some(Mismatch::Filter),
        Err(failure) => Some(Mismatch::Failed(failure)),
    }
}

/// What expressions can ask of `message`.
pub fn facts(message: &Message) -> Facts<'_> {
    Facts::new(
        &message.event_type,
        message.channels(),
        message.tags(),
        &message.payload,
    )
}

/// What expressions left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Narrowed {
    /// Endpoints whose expression said no.
    pub left_out: u32,
    /// Endpoints whose expression came to no answer, by place in [`FailureKind::ALL`].
    pub failed: [u32; FailureKind::ALL.len()],
}

/// The endpoints of one application, prepared for [`Routes::matching`]. Immutable: a changed endpoint
/// means new routes.
#[derive(Debug, Default)]
pub struct Routes {
    /// Endpoints that want every type.
    all: Vec<Entry>,
    /// Endpoints by the exact name of a type.
    exact: HashMap<Box<str>, Vec<Entry>>,
    /// Endpoints by prefix, the last dot included.
    prefix: HashMap<Box<str>, Vec<Entry>>,
    /// Sets of channels, named by their place.
    channels: Vec<Box<[String]>>,
    /// Endpoints with an expression, ascending.
    filters: Vec<(EndpointNo, Expression)>,
}

/// An endpoint stands in a list at most once, and in no two lists that one message can reach.
#[derive(Debug, Clone, Copy)]
struct Entry {
    no: EndpointNo,
    /// Place in `Routes::channels` plus 1; 0 = any.
    channels: u32,
}

impl Routes {
    /// Prepares `endpoints`, in any order.
    pub fn build<'a>(endpoints: impl IntoIterator<Item = (EndpointNo, &'a Endpoint)>) -> Self {
        let mut routes = Self::default();
        for (no, endpoint) in endpoints {
            if endpoint.deleted.is_none() {
                routes.add(no, endpoint);
            }
        }
        let lists = routes.exact.values_mut().chain(routes.prefix.values_mut());
        for list in lists.chain([&mut routes.all]) {
            list.sort_unstable_by_key(|entry| entry.no);
            list.shrink_to_fit();
        }
        routes.filters.sort_unstable_by_key(|(no, _)| *no);
        routes
    }

    /// Replaces the contents of `found` by the endpoints that want the message, ascending.
    pub fn matching(&self, event_type: &str, channels: &[String], found: &mut Vec<EndpointNo>) {
        found.clear();
        let mut lists = 0;
        let mut take = |list: &[Entry]| {
            let before = found.len();
            found.extend(
                list.iter()
                    .filter(|entry| self.wants(**entry, channels))
                    .map(|entry| entry.no),
            );
            lists += usize::from(found.len() > before);
        };
        take(&self.all);
        if let Some(list) = self.exact.get(event_type) {
            take(list);
        }
        if !self.prefix.is_empty() {
            for (dot, _) in event_type.match_indices('.') {
                let prefix = event_type.get(..=dot).unwrap_or(event_type);
                if let Some(list) = self.prefix.get(prefix) {
                    take(list);
                }
            }
        }
        if lists > 1 {
            found.sort(); // merges the runs, each of them sorted
        }
    }

    /// Whether any endpoint has an expression.
    pub const fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Takes those out of `found` whose expression does not let the message through.
    pub fn narrow(&self, facts: &Facts<'_>, found: &mut Vec<EndpointNo>) -> Narrowed {
        let mut narrowed = Narrowed::default();
        found.retain(|no| {
            let Ok(place) = self.filters.binary_search_by_key(no, |(no, _)| *no) else {
                return true;
            };
            let Some((_, filter)) = self.filters.get(place) else {
                return true;
            };
            match filter.matches(facts) {
                Ok(true) => return true,
                Ok(false) => narrowed.left_out += 1,
                Err(failure) => {
                    let kinds = narrowed.failed.iter_mut().zip(FailureKind::ALL);
                    for (count, kind) in kinds {
                        *count += u32::from(kind == failure.kind);
                    }
                }
            }
            false
        });
        narrowed
    }

    /// True if no message can match.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.exact.is_empty() && self.prefix.is_empty()
    }

    fn add(&mut self, no: EndpointNo, endpoint: &Endpoint) {
        if let Some(filter) = endpoint.filter.as_deref() {
            self.filters.push((no, filter.clone()));
        }
        let entry = Entry {
            no,
            channels: self.channel_set(filter(endpoint.channels.as_ref())),
        };
        let wants = filter(endpoint.event_types.as_ref());
        let patterns: Vec<_> = wants.iter().map(|text| Pattern::of(text)).collect();
        if patterns.is_empty() || patterns.contains(&Pattern::All) {
            self.all.push(entry);
            return;
        }
        for (at, pattern) in patterns.iter().enumerate() {
            let others = patterns.iter().enumerate();
            let is_covered = others.into_iter().any(|(other_at, other)| {
                other.includes(pattern) && (other != pattern || other_at < at)
            });
            if is_covered {
                continue;
            }
            let (map, key) = match pattern {
                Pattern::All => continue,
                Pattern::Prefix(prefix) => (&mut self.prefix, *prefix),
                Pattern::Exact(name) => (&mut self.exact, *name),
            };
            map.entry(key.into()).or_default().push(entry);
        }
    }

    fn channel_set(&mut self, channels: &[String]) -> u32 {
        if channels.is_empty() {
            return 0;
        }
        self.channels.push(channels.into());
        u32::try_from(self.channels.len()).unwrap_or(u32::MAX)
    }

    fn wants(&self, entry: Entry, channels: &[String]) -> bool {
        let Some(at) = entry.channels.checked_sub(1) else {
            return true;
        };
        let set = usize::try_from(at)
            .ok()
            .and_then(|at| self.channels.get(at));
        set.is_some_and(|set| set.iter().any(|channel| channels.contains(channel)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern<'a> {
    All,
    /// With its last dot: `invoice.`.
    Prefix(&'a str),
    Exact(&'a str),
}

impl<'a> Pattern<'a> {
    fn of(text: &'a str) -> Self {
        match text.strip_suffix('*') {
            Some("") => Self::All,
            Some(prefix) if prefix.ends_with('.') => Self::Prefix(prefix),
            Some(_) | None => Self::Exact(text),
        }
    }

    fn covers(self, event_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => event_type.starts_with(prefix),
            Self::Exact(name) => event_type == name,
        }
    }

    /// Whether every type that `other` covers is covered here as well.
    fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Prefix(prefix), Self::Prefix(text) | Self::Exact(text)) => {
                text.starts_with(prefix)
            }
            (Self::Exact(name), Self::Exact(text)) => name == text,
            (Self::Prefix(_) | Self::Exact(_), _) => false,
        }
    }
}

fn filter(wanted: Option<&Vec<String>>) -> &[String] {
    wanted.map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::{Id20, Timestamp};
    use crate::model::{AppNo, DisableReason, EndpointId, Envelope, Order, Secret};

    fn endpoint(types: Option<&[&str]>, channels: Option<&[&str]>) -> Endpoint {
        let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Endpoint {
            no: EndpointNo(1),
            id: EndpointId(Id20([0; 20])),
            app: AppNo(1),
            uid: None,
            url: String::from("https://example.com/"),
            description: String::new(),
            disabled: None,
            paused: false,
            event_types: types.map(strings),
            channels: channels.map(strings),
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
            secret: Secret::new(String::new()),
            old_secrets: Vec::new(),
            created: Timestamp::ZERO,
            updated: Timestamp::ZERO,
            tenant: None,
            exclude_pii: None,
            deleted: None,
        }
    }

    #[test]
    fn names_prefixes_and_stars_match_what_they_say() {
        for (types, event_type, wanted) in [
            (None, "invoice.paid", true),
            (Some(&[][..]), "invoice.paid", true),
            (Some(&["*"][..]), "invoice.paid", true),
            (Some(&["invoice.paid"][..]), "invoice.paid", true),
            (Some(&["invoice.paid"][..]), "invoice.paid.late", false),
            (Some(&["invoice.*"][..]), "invoice.paid", true),
            (Some(&["invoice.*"][..]), "invoice.paid.late", true),
            (Some(&["invoice.*"][..]), "invoice", false),
            (Some(&["invoice.*"][..]), "invoices.paid", false),
            (Some(&["inv*"][..]), "invoice.paid", false),
        ] {
            let endpoint = endpoint(types, None);
            let got = why_not(&endpoint, event_type, &[]);
            assert_eq!(got.is_none(), wanted, "{types:?} {event_type}");
        }
    }

    #[test]
    fn a_channel_filter_wants_one_of_its_channels() {
        let endpoint = endpoint(None, Some(&["eu", "us"]));
        assert_eq!(why_not(&endpoint, "a", &[]), Some(Mismatch::Channel));
        assert_eq!(
            why_not(&endpoint, "a", &[String::from("asia")]),
            Some(Mismatch::Channel)
        );
        assert_eq!(
            why_not(&endpoint, "a", &[String::from("asia"), String::from("us")]),
            None
        );
    }

    #[test]
    fn disabled_endpoints_match_and_deleted_ones_do_not() {
        let mut endpoint = endpoint(None, None);
        endpoint.disabled = Some(DisableReason::Gone);
        endpoint.paused = true;
        let mut found = Vec::new();
        Routes::build([(EndpointNo(4), &endpoint)]).matching("a", &[], &mut found);
        assert_eq!(found, [EndpointNo(4)]);
        endpoint.deleted = Some(Timestamp::ZERO);
        assert_eq!(why_not(&endpoint, "a", &[]), Some(Mismatch::Deleted));
        let routes = Routes::build([(EndpointNo(4), &endpoint)]);
        routes.matching("a", &[], &mut found);
        assert!(found.is_empty() && routes.is_empty());
    }

    #[test]
    fn expressions_narrow_what_types_and_channels_found() {
        let filter = |text: &str| {
            let mut made = endpoint(None, None);
            made.filter = Some(Box::new(Expression::parse(text).unwrap()));
            made
        };
        let endpoints = [
            endpoint(None, None),
            filter("payload.n > 1"),
            filter("payload.n > 5"),
            filter("payload.other > 1"),
            filter("eventType == 'a' || payload.n == 9"),
        ];
        let numbered = (0..).map(EndpointNo).zip(&endpoints);
        let routes = Routes::build(numbered.clone().collect::<Vec<_>>().into_iter().rev());
        let mut found = Vec::new();
        for (payload, want, left_out, failed) in [
            (&br#"{"n": 3}"#[..], &[0, 1, 4][..], 1, [1, 0, 0, 0, 0]),
            (br#"{"n": 9, "other": 2}"#, &[0, 1, 2, 3, 4], 0, [0; 5]),
            (b"", &[0, 4], 0, [0, 0, 0, 3, 0]),
        ] {
            let facts = Facts::new("a", &[], &[], payload);
            routes.matching("a", &[], &mut found);
            let narrowed = routes.narrow(&facts, &mut found);
            assert_eq!(narrowed, Narrowed { left_out, failed });
            assert_eq!(found.iter().map(|no| no.0).collect::<Vec<_>>(), want);
            for (no, endpoint) in numbered.clone() {
                let says = why_not_in_full(endpoint, &facts).is_none();
                assert_eq!(says, found.contains(&no), "{no:?}");
            }
        }
    }

    fn patterns() -> impl Strategy<Value = Option<Vec<&'static str>>> {
        let names = vec![
            "*", "a", "a.*", "a.b", "a.b.*", "a.b.c", "b", "b.*", "b.c", "*.x",
        ];
        prop::option::of(prop::collection::vec(prop::sample::select(names), 0..5))
    }

    fn channels() -> impl Strategy<Value = Option<Vec<&'static str>>> {
        prop::option::of(prop::collection::vec(
            prop::sample::select(vec!["x", "y", "z"]),
            0..3,
        ))
    }

    proptest! {
        #[test]
        fn routes_find_what_the_rule_says_sorted_and_once(
            wanted in prop::collection::vec((patterns(), channels(), any::<bool>()), 0..30),
            event_type in prop::sample::select(vec!["a", "a.b", "a.b.c", "b", "b.c", "c", "a.", "*"]),
            on in prop::collection::vec(prop::sample::select(vec!["x", "y"]), 0..3),
        ) {
            let endpoints: Vec<_> = wanted
                .iter()
                .map(|(types, channels, deleted)| {
                    let mut made = endpoint(types.as_deref(), channels.as_deref());
                    made.deleted = deleted.then_some(Timestamp::ZERO);
                    made
                })
                .collect();
            let on: Vec<String> = on.into_iter().map(String::from).collect();
            let numbered = || (0..).map(EndpointNo).zip(&endpoints);
            let mut found = vec![EndpointNo(99)];
            Routes::build(numbered().collect::<Vec<_>>().into_iter().rev())
                .matching(event_type, &on, &mut found);
            let want: Vec<_> = numbered()
                .filter(|(_, endpoint)| why_not(endpoint, event_type, &on).is_none())
                .map(|(no, _)| no)
                .collect();
            prop_assert_eq!(found, want);
        }
    }
}
