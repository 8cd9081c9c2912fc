//! EndpointIn, EndpointUpsertIn: what a caller says about an endpoint, checked and put in place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::headers;
use crate::api::ApiState;
use crate::api::error::Problem;
use crate::base::{Id20, Timestamp};
use crate::expression::{self, Expression};
use crate::ingest::fields::{self, Fields, Given, Wrong, sized, whole};
use crate::ingest::{Item, ItemKind};
use crate::model::{
    AppNo, DisablePolicy, DisableReason, Endpoint, EndpointId, EndpointNo, Envelope, ExcludePii,
    Order, Profile, Secret,
};
use crate::policy::exclude;
use crate::policy::header::{check_headers, check_profile};
use crate::policy::retry::RetryPlan;
use crate::policy::sign::{check_secret, generate};
use crate::policy::target::{BadTarget, Target};

const MAX_DESCRIPTION: usize = 4096;
const MAX_EVENT_TYPES: usize = 500;
/// Delays of a schedule at most, and the longest of them in seconds.
const MAX_DELAYS: usize = 50;
const MAX_DELAY_SECS: u64 = 7 * 86_400;

/// All fields but secret and headers.
pub(super) struct Wanted {
    url: String,
    description: String,
    pub(super) uid: Given<String>,
    disabled: bool,
    event_types: Option<Vec<String>>,
    channels: Option<Vec<String>>,
    filter: Option<Expression>,
    throttle_rate: Option<u16>,
    metadata: BTreeMap<String, String>,
    signature: Option<Profile>,
    envelope: Envelope,
    order: Order,
    timeout_ms: Option<u32>,
    max_concurrency: Option<u16>,
    retry_schedule: Option<Vec<u32>>,
    disable_policy: Option<DisablePolicy>,
    exclude_pii: Option<ExcludePii>,
}

impl Wanted {
    pub(super) fn read(mut fields: Fields, state: &ApiState) -> Result<Self, Vec<Item>> {
        fields.alias("filterTypes", "eventTypes");
        fields.alias("rateLimit", "throttleRate");
        let url = fields.required("url", sized(1, 65_536));
        let description = fields.text("description", sized(0, MAX_DESCRIPTION));
        let uid = fields.uid();
        let disabled = fields.flag("disabled").value();
        let types = fields.set("eventTypes", 0..=MAX_EVENT_TYPES, fields::event_filter);
        let channels = fields.set("channels", 1..=10, fields::channel).value();
        let filter = fields.read("filter", expression).value();
        let rate = fields.number("throttleRate", 1..=65_535).value();
        let metadata = fields.metadata();
        let signature = fields
            .read("signature", |value| profile(value, state))
            .value();
        let envelope = fields.read("envelope", one_of::<Envelope>).value();
        let order = fields.read("order", one_of::<Order>).value();
        let timeout_ms = fields.number("timeoutMs", 1000..=30_000).value();
        let max_concurrency = fields.number("maxConcurrency", 1..=1000).value();
        let retry_schedule = fields.read("retrySchedule", schedule).value();
        let disable_policy = fields.read("disablePolicy", policy).value();
        // SDK 1.x sends a version of the endpoint; it never meant anything.
        fields.number("version", 0..=u64::MAX);
        let exclude_pii = fields.read("excludePii", exclude_pii).value().flatten();
        fields.unsupported("action");
        for name in ["paused", "disabledReason"] {
            if !matches!(fields.raw(name), Given::Absent) {
                let msg = Cow::Borrowed("this field is read only");
                fields.wrong(name, (ItemKind::ValueError, msg));
            }
        }
        fields.finish()?;
        let u16_of = |n: u64| u16::try_from(n).ok();
        Ok(Self {
            url: url.unwrap_or_default(),
            description: description.value().unwrap_or_default(),
            uid,
            disabled: disabled.unwrap_or(false),
            event_types: types.value().filter(|types| !types.is_empty()),
            channels,
            filter,
            throttle_rate: rate.and_then(u16_of),
            metadata,
            signature,
            envelope: envelope.unwrap_or_default(),
            order: order.unwrap_or_default(),
            timeout_ms: timeout_ms.and_then(|n| u32::try_from(n).ok()),
            max_concurrency: max_concurrency.and_then(u16_of),
            retry_schedule,
            disable_policy,
            exclude_pii,
        })
    }

    /// Puts everything but the uid into `endpoint`, after checking what can only be checked together:
    /// the URL (if it is another one), and profile, secret and headers with each other.
    pub(super) fn apply(
        self,
        endpoint: &mut Endpoint,
        state: &ApiState,
        now: Timestamp,
    ) -> Result<(), Problem> {
        if self.url != endpoint.url {
            Target::parse(&self.url, &state.rules().targets).map_err(|bad| bad_url(&bad))?;
            if !same_origin(&self.url, &endpoint.url) {
                headers::forget_sensitive(endpoint);
            }
            endpoint.url = self.url;
        }
        endpoint.description = self.description;
        endpoint.disabled = match (self.disabled, endpoint.disabled) {
            (false, _) => None,
            (true, Some(reason)) => Some(reason),
            (true, None) => Some(DisableReason::Manual),
        };
        endpoint.event_types = self.event_types;
        endpoint.channels = self.channels;
        endpoint.filter = self.filter.map(Box::new);
        endpoint.throttle_rate = self.throttle_rate;
        endpoint.metadata = self.metadata;
        endpoint.signature = self.signature.map(Box::new);
        endpoint.envelope = self.envelope;
        endpoint.order = self.order;
        endpoint.timeout_ms = self.timeout_ms;
        endpoint.max_concurrency = self.max_concurrency;
        endpoint.retry_schedule = self.retry_schedule;
        endpoint.disable_policy = self.disable_policy;
        endpoint.exclude_pii = self.exclude_pii.map(Box::new);
        endpoint.updated = now;
        check(endpoint, state)
    }
}

/// Whether profile, secret and headers of an endpoint go together.
pub(super) fn check(endpoint: &Endpoint, state: &ApiState) -> Result<(), Problem> {
    let profile = effective(endpoint, state);
    let wrong = |name, msg: String| Item::body(name, ItemKind::ValueError, msg).into();
    check_profile(&profile).map_err(|bad| -> Problem { wrong("signature", bad.to_string()) })?;
    check_headers(&endpoint.headers, &profile)
        .map_err(|bad| -> Problem { wrong("headers", bad.to_string()) })?;
    check_secret(&endpoint.secret, &profile)
        .map_err(|bad| -> Problem { wrong("secret", bad.to_string()) })
}

/// The profile that an endpoint signs with.
pub(in crate::api) fn effective(endpoint: &Endpoint, state: &ApiState) -> Profile {
    let own = endpoint.signature.as_deref().cloned();
    own.or_else(|| preset(&state.rules().signature, state))
        .unwrap_or(Profile::Standard)
}

fn preset(name: &str, state: &ApiState) -> Option<Profile> {
    match name {
        "standard" => Some(Profile::Standard),
        "dual" => Some(Profile::Dual),
        _ => {
            let rules = state.rules();
            let object = rules.presets.get(name)?;
            serde_json::from_value(object.clone()).ok()
        }
    }
}

/// What only EndpointIn has.
#[derive(Default)]
pub(super) struct Extra {
    secret: Option<Secret>,
    headers: BTreeMap<String, String>,
}

impl Extra {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let secret = fields
            .text("secret", sized(1, 256))
            .value()
            .map(Secret::new);
        let headers = fields.texts("headers").value().unwrap_or_default();
        Self { secret, headers }
    }

    pub(super) const fn with_secret(secret: Option<Secret>) -> Self {
        Self {
            secret,
            headers: BTreeMap::new(),
        }
    }

    pub(super) fn apply(self, endpoint: &mut Endpoint, random: [u8; 32]) {
        endpoint.secret = self.secret.unwrap_or_else(|| generate(random));
        headers::set(endpoint, self.headers);
    }
}

/// An endpoint with nothing set.
pub(super) fn blank(app: AppNo, no: EndpointNo, now: Timestamp) -> Endpoint {
    Endpoint {
        no,
        id: EndpointId(Id20([0; 20])),
        app,
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
        envelope: Envelope::default(),
        order: Order::default(),
        headers: BTreeMap::new(),
        sensitive_headers: Vec::new(),
        metadata: BTreeMap::new(),
        secret: Secret::new(String::new()),
        old_secrets: Vec::new(),
        created: now,
        updated: now,
        tenant: None,
        exclude_pii: None,
        deleted: None,
    }
}

/// The EndpointUpsertIn that would make `endpoint` what it is: what a merge patch is laid over.
pub(super) fn as_sent(endpoint: &Endpoint) -> Value {
    json!({
        "url": endpoint.url,
        "description": endpoint.description,
        "uid": endpoint.uid,
        "disabled": endpoint.disabled.is_some(),
        "eventTypes": endpoint.event_types,
        "channels": endpoint.channels,
        "filter": endpoint.filter.as_deref().map(Expression::source),
        "throttleRate": endpoint.throttle_rate,
        "metadata": endpoint.metadata,
        "signature": endpoint.signature,
        "envelope": endpoint.envelope,
        "order": endpoint.order,
        "timeoutMs": endpoint.timeout_ms,
        "maxConcurrency": endpoint.max_concurrency,
        "retrySchedule": endpoint.retry_schedule,
        "disablePolicy": endpoint.disable_policy.map(policy_as_sent),
        "excludePii": exclude_pii_as_sent(endpoint.exclude_pii.as_deref()),
    })
}

fn bad_url(bad: &BadTarget) -> Problem {
    Item::body("url", target_kind(bad), bad.to_string()).into()
}

/// The kind of mistake in a URL.
pub(in crate::api) const fn target_kind(bad: &BadTarget) -> ItemKind {
    match bad {
        BadTarget::HttpsRequired => ItemKind::HttpsRequired,
        BadTarget::Blocked(_) | BadTarget::Own => ItemKind::BlockedAddress,
        BadTarget::Syntax(_) | BadTarget::Scheme | BadTarget::Credentials | BadTarget::Port(_) => {
            ItemKind::ValueError
        }
    }
}

/// An endpoint as it would be at another URL: without the headers that are credentials for its own.
pub(in crate::api) fn moved(endpoint: &Endpoint, url: String) -> Endpoint {
    let mut moved = endpoint.clone();
    if !same_origin(&url, &endpoint.url) {
        headers::forget_sensitive(&mut moved);
    }
    moved.url = url;
    moved
}

fn same_origin(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin(),
        _ => false,
    }
}

fn one_of<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Wrong> {
    serde_json::from_value(value)
        .map_err(|error| (ItemKind::ValueError, Cow::Owned(error.to_string())))
}

/// A payload filter, compiled.
pub(in crate::api) fn expression(value: Value) -> Result<Expression, Wrong> {
    let Value::String(source) = value else {
        let msg = "a string is wanted: an expression such as `payload.amount > 100`";
        return Err((ItemKind::TypeError, Cow::Borrowed(msg)));
    };
    if source.len() > expression::MAX_LENGTH {
        let msg = format!("at most {} bytes", expression::MAX_LENGTH);
        return Err((ItemKind::Limit, Cow::Owned(msg)));
    }
    let parsed = Expression::parse(&source);
    parsed.map_err(|mistake| (ItemKind::ValueError, Cow::Owned(mistake.to_string())))
}

fn profile(value: Value, state: &ApiState) -> Result<Profile, Wrong> {
    let Value::String(name) = &value else {
        return one_of(value);
    };
    preset(name, state).ok_or_else(|| {
        let msg = format!("there is no signature preset `{name}`");
        (ItemKind::ValueError, Cow::Owned(msg))
    })
}

fn schedule(value: Value) -> Result<Vec<u32>, Wrong> {
    let wrong = |msg: &'static str| (ItemKind::ValueError, Cow::Borrowed(msg));
    let seconds = |delay: &Duration| u32::try_from(delay.as_secs()).ok();
    match value {
        Value::String(name) => {
            let named = RetryPlan::named(&name);
            let delays = named.ok_or_else(|| wrong("there is no schedule with this name"))?;
            Ok(delays.iter().filter_map(seconds).collect())
        }
        Value::Array(delays) if delays.len() > MAX_DELAYS => {
            let msg = format!("at most {MAX_DELAYS} delays");
            Err((ItemKind::Limit, Cow::Owned(msg)))
        }
        Value::Array(delays) => delays
            .iter()
            .map(|delay| {
                let delay = whole(delay, &(0..=MAX_DELAY_SECS))?;
                u32::try_from(delay).map_err(|_| wrong("too long a delay"))
            })
            .collect(),
        _ => Err((
            ItemKind::TypeError,
            Cow::Borrowed("a name or a list of seconds is wanted"),
        )),
    }
}

/// `true` = what schemas mark; otherwise a list of JSON Pointers.
pub(in crate::api) fn exclude_pii(value: Value) -> Result<Option<ExcludePii>, Wrong> {
    let wrong = |kind, msg: String| (kind, Cow::Owned(msg));
    let pointers = match value {
        Value::Bool(false) => return Ok(None),
        Value::Bool(true) => return Ok(Some(ExcludePii::Marked)),
        Value::Array(pointers) => pointers,
        _ => {
            let msg = "true, false or a list of JSON Pointers is wanted";
            return Err(wrong(ItemKind::TypeError, msg.into()));
        }
    };
    if pointers.len() > exclude::MAX_POINTERS {
        let msg = format!("at most {} pointers", exclude::MAX_POINTERS);
        return Err(wrong(ItemKind::Limit, msg));
    }
    let mut all = Vec::with_capacity(pointers.len());
    for pointer in pointers {
        let Value::String(pointer) = pointer else {
            return Err(wrong(
                ItemKind::TypeError,
                "a JSON Pointer is a text".into(),
            ));
        };
        if let Err(why) = exclude::parse(&pointer) {
            let kind = match why {
                exclude::BadPointer::Long => ItemKind::Limit,
                exclude::BadPointer::Start | exclude::BadPointer::Escape => ItemKind::ValueError,
            };
            return Err(wrong(kind, format!("{pointer:?}: {why}")));
        }
        if !all.contains(&pointer) {
            all.push(pointer);
        }
    }
    Ok(Some(all)
        .filter(|all| !all.is_empty())
        .map(ExcludePii::Fields))
}

pub(in crate::api) fn exclude_pii_as_sent(of: Option<&ExcludePii>) -> Value {
    match of {
        None => json!(false),
        Some(ExcludePii::Marked) => json!(true),
        Some(ExcludePii::Fields(pointers)) => json!(pointers),
    }
}

/// A disable policy in the API's spelling.
#[derive(Serialize, Deserialize)]
#[serde(
    tag = "policy",
    rename_all = "snake_case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
enum Policy {
    Duration {
        failing_seconds: u64,
        span_seconds: u64,
    },
    Consecutive {
        failures: u32,
    },
    Never,
}

fn policy(value: Value) -> Result<DisablePolicy, Wrong> {
    Ok(match one_of(value)? {
        Policy::Duration {
            failing_seconds,
            span_seconds,
        } => DisablePolicy::Duration {
            failing_secs: failing_seconds,
            span_secs: span_seconds,
        },
        Policy::Consecutive { failures: 0 } => {
            return Err((ItemKind::ValueError, Cow::Borrowed("at least one failure")));
        }
        Policy::Consecutive { failures } => DisablePolicy::Consecutive { failures },
        Policy::Never => DisablePolicy::Never,
    })
}

pub(super) fn policy_as_sent(policy: DisablePolicy) -> Value {
    json!(match policy {
        DisablePolicy::Duration {
            failing_secs,
            span_secs,
        } => Policy::Duration {
            failing_seconds: failing_secs,
            span_seconds: span_secs,
        },
        DisablePolicy::Consecutive { failures } => Policy::Consecutive { failures },
        DisablePolicy::Never => Policy::Never,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_names_or_lists_of_seconds() {
        assert_eq!(schedule(json!("ladder-5")).unwrap(), [30, 120, 600, 1800]);
        assert_eq!(schedule(json!([1, 2])).unwrap(), [1, 2]);
        assert_eq!(schedule(json!([])).unwrap(), [0_u32; 0]);
        for bad in [
            json!("weekly"),
            json!([-1]),
            json!(["5"]),
            json!([604_801]),
            json!(5),
        ] {
            assert!(schedule(bad.clone()).is_err(), "{bad}");
        }
        assert!(schedule(json!(vec![1; 51])).is_err());
    }

    #[test]
    fn disable_policies_read_back() {
        for sent in [
            json!({"policy": "consecutive", "failures": 10}),
            json!({"policy": "duration", "failingSeconds": 432_000, "spanSeconds": 43_200}),
            json!({"policy": "never"}),
        ] {
            assert_eq!(policy_as_sent(policy(sent.clone()).unwrap()), sent);
        }
        assert!(policy(json!({"policy": "consecutive", "failures": 0})).is_err());
        assert!(policy(json!({"policy": "often"})).is_err());
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        assert!(same_origin(
            "https://a.example/x",
            "https://A.example:443/y?z"
        ));
        for other in [
            "http://a.example/",
            "https://b.example/",
            "https://a.example:8443/",
        ] {
            assert!(!same_origin("https://a.example/", other), "{other}");
        }
    }
}
