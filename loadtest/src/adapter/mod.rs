//! How the generator speaks to a gateway: a file with templates for the requests, so that a peer is
//! driven by the same generator and judged by the same receiver as Posthaste itself.
//!
//! A template holds `{name}` where a value belongs. An unknown name is an error when the file is
//! read, not when it is first used; braces of JSON are no names, since a name is letters only.
//!
//! Elsewhere: what is set up with it (`population`).

mod template;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::payload::Envelope;
pub(crate) use template::{Values, fill};

/// The event type that endpoints want, and the one that none wants.
const WANTED: &str = "load.test";
const UNWANTED: &str = "load.nobody";

/// Compiled in, by name.
const BUILT_IN: [(&str, &str); 2] = [
    ("posthaste", include_str!("../../adapters/posthaste.toml")),
    ("svix", include_str!("../../adapters/svix.toml")),
];

/// One gateway's interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adapter {
    pub(crate) name: String,
    #[serde(rename = "about")]
    _about: String,
    /// Path that answers 2xx when the gateway can be used.
    pub(crate) ready: Option<String>,
    pub(crate) signature: Signature,
    /// Sent with every request.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    message: Message,
    batch: Option<Batch>,
    /// How signed events of a provider come in; absent: they cannot.
    source: Option<Source>,
    /// Absent: the operator has made applications and endpoints already.
    pub(crate) setup: Option<Setup>,
    pub(crate) pause: Option<Step>,
    pub(crate) resume: Option<Step>,
    /// Calls of the management API that a scenario can make beside its load.
    #[serde(default)]
    pub(crate) manage: Vec<Step>,
}

/// What deliveries are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Signature {
    /// Verified with the secret that the set-up gave.
    StandardWebhooks,
    /// Not verified.
    None,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    path: String,
    body: String,
    /// Statuses that acknowledge; none = every 2xx.
    #[serde(default)]
    accepted: Vec<u16>,
    /// JSON pointer of the message's id in the answer; looked at in a sample of the answers.
    id: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    path: String,
    content_type: String,
    line: String,
    /// A line of the answer that holds this text acknowledges the line of the request.
    accepted_line: String,
}

/// A URL that takes events signed by Standard Webhooks with `{secret}`, the payload as the body.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    path: String,
    /// Statuses that acknowledge; none = every 2xx.
    #[serde(default)]
    accepted: Vec<u16>,
    /// For each application, after its endpoints.
    #[serde(default)]
    setup: Vec<Step>,
}

/// Requests that prepare the gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setup {
    /// For each application, in this order.
    #[serde(default)]
    pub(crate) application: Vec<Step>,
    /// For each endpoint of it.
    #[serde(default)]
    pub(crate) endpoint: Vec<Step>,
    /// Text for `{options}` of an endpoint's body, by what a scenario asks for.
    #[serde(default)]
    pub(crate) options: BTreeMap<Choice, String>,
}

/// What a scenario can ask of an endpoint beside its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Choice {
    /// Gets nothing.
    Disabled,
    /// So many attempts at a time, `{concurrency}`.
    Concurrency,
    /// Wants `{event}` only.
    Filtered,
    /// Is tried again soon and never switched off.
    Patient,
}

/// One request of the set-up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    method: String,
    path: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    accepted: Vec<u16>,
    /// Values of later templates, taken from the answer by JSON pointer.
    #[serde(default)]
    pub(crate) capture: BTreeMap<String, String>,
}

/// A step with its values put in.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// What the generator needs of an adapter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialect {
    pub(crate) headers: HeaderMap,
    /// Statuses that acknowledge; none = every 2xx.
    pub(crate) accepted: Vec<u16>,
    pub(crate) id: Option<String>,
    pub(crate) accepted_line: Vec<u8>,
}

impl Adapter {
    /// One that is compiled in, or a file.
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(text).with_context(|| format!("adapter {name}"));
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).with_context(|| {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            format!(
                "no adapter {name}: neither built in ({}) nor a file",
                names.join(", ")
            )
        })?;
        Self::parse(&text).with_context(|| format!("adapter {name}"))
    }

    /// Reads a file's text; reports all mistakes at once.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let adapter: Self = toml::from_str(text)?;
        let mistakes = adapter.mistakes();
        if !mistakes.is_empty() {
            bail!("{}", mistakes.join("; "));
        }
        Ok(adapter)
    }

    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut known: Vec<&str> = vec!["key", "app", "event", "secret"];
        let mut look = |at: &str, text: &str, known: &[&str]| {
            let unknown = template::names(text).into_iter();
            for name in unknown.filter(|name| !known.contains(name)) {
                wrong.push(format!("{at} names {{{name}}}, which nothing sets"));
            }
        };
        for text in self.headers.values() {
            look("headers", text, &["key"]);
        }
        let setup = self.setup.clone().unwrap_or_default();
        for step in &setup.application {
            look("setup.application", &step.path, &known);
            look("setup.application", &step.body, &known);
        }
        let captured = setup
            .application
            .iter()
            .flat_map(|step| step.capture.keys());
        known.extend(captured.map(String::as_str));
        let of_endpoint = [known.as_slice(), &["url", "slot", "options"]].concat();
        for step in &setup.endpoint {
            look("setup.endpoint", &step.path, &of_endpoint);
            look("setup.endpoint", &step.body, &of_endpoint);
        }
        for text in setup.options.values() {
            look("setup.options", text, &["concurrency", "event"]);
        }
        for step in [&self.pause, &self.resume].into_iter().flatten() {
            look("pause and resume", &step.path, &of_endpoint);
        }
        for step in &self.manage {
            look("manage", &step.path, &known);
            look("manage", &step.body, &known);
        }
        look("message.path", &self.message.path, &known);
        if let Some(source) = &self.source {
            for step in &source.setup {
                look("source.setup", &step.path, &known);
                look("source.setup", &step.body, &known);
            }
            let captured = source.setup.iter().flat_map(|step| step.capture.keys());
            let known = [known.clone(), captured.map(String::as_str).collect()].concat();
            look("source.path", &source.path, &known);
        }
        let mut bodies = vec![("message.body", &self.message.body)];
        if let Some(batch) = &self.batch {
            look("batch.path", &batch.path, &known);
            bodies.push(("batch.line", &batch.line));
        }
        for (at, body) in &bodies {
            look(at, body, &["event", "payload"]);
        }
        for (at, body) in bodies {
            if body.matches("{payload}").count() != 1 {
                wrong.push(format!("{at} must hold {{payload}} once"));
            }
        }
        wrong
    }

    /// Whether it can send batches.
    pub(crate) fn knows_batches(&self) -> bool {
        self.batch.is_some()
    }

    /// The path that takes messages (or batches) of an application.
    pub(crate) fn path(&self, values: &Values, batch: bool) -> anyhow::Result<String> {
        let path = match (&self.batch, batch) {
            (_, false) => &self.message.path,
            (Some(batch), true) => &batch.path,
            (None, true) => bail!("the adapter {} knows no batches", self.name),
        };
        fill(path, values)
    }

    fn source(&self) -> anyhow::Result<&Source> {
        let source = self.source.as_ref();
        source.with_context(|| format!("the adapter {} knows no sources", self.name))
    }

    /// What makes a source of an application.
    pub(crate) fn source_steps(&self) -> anyhow::Result<&[Step]> {
        self.source().map(|source| source.setup.as_slice())
    }

    /// The path that takes a provider's events for an application.
    pub(crate) fn source_path(&self, values: &Values) -> anyhow::Result<String> {
        fill(&self.source()?.path, values)
    }

    /// The same as [`Adapter::dialect`] for a source: without a key, for the signature is what counts.
    pub(crate) fn source_dialect(&self) -> anyhow::Result<Dialect> {
        Ok(Dialect {
            accepted: self.source()?.accepted.clone(),
            ..Dialect::default()
        })
    }

    /// What stands around wanted and unwanted payloads.
    pub(crate) fn envelopes(&self, batch: bool) -> anyhow::Result<(Envelope, Envelope)> {
        let body = match (&self.batch, batch) {
            (_, false) => &self.message.body,
            (Some(batch), true) => &batch.line,
            (None, true) => bail!("the adapter {} knows no batches", self.name),
        };
        let envelope = |event: &str| {
            let body = body.replace("{event}", event);
            let (before, after) = body.split_once("{payload}").unwrap_or((&body, ""));
            Envelope {
                before: Bytes::copy_from_slice(before.as_bytes()),
                after: Bytes::copy_from_slice(after.as_bytes()),
            }
        };
        Ok((envelope(WANTED), envelope(UNWANTED)))
    }

    /// Headers and acknowledgements, for the generator.
    pub(crate) fn dialect(&self, key: &str, batch: bool) -> anyhow::Result<Dialect> {
        let mut headers = HeaderMap::new();
        let values = Values::from([("key".to_owned(), key.to_owned())]);
        let content_type = match &self.batch {
            Some(with) if batch => with.content_type.as_str(),
            _ => "application/json",
        };
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_str(content_type)?,
        );
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(&fill(value, &values)?)?;
            headers.insert(name.parse::<HeaderName>()?, value);
        }
        Ok(Dialect {
            headers,
            accepted: self.message.accepted.clone(),
            id: self.message.id.clone().filter(|_| !batch),
            accepted_line: self
                .batch
                .as_ref()
                .map(|batch| batch.accepted_line.clone().into_bytes())
                .unwrap_or_default(),
        })
    }

    /// Values that every application starts with.
    pub(crate) fn values(key: &str, app: u64, secret: &str) -> Values {
        [
            ("key", key.to_owned()),
            ("app", format!("load-{app}")),
            ("event", WANTED.to_owned()),
            ("secret", secret.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// The text for `{options}`; fails if the adapter cannot express one of them.
    pub(crate) fn options(&self, wanted: &[Choice], values: &Values) -> anyhow::Result<String> {
        let mut text = String::new();
        let known = self.setup.as_ref().map(|setup| &setup.options);
        for choice in wanted {
            let option = known
                .and_then(|options| options.get(choice))
                .with_context(|| {
                    format!(
                        "the scenario wants endpoints that are {choice:?}; the adapter {} has no such option",
                        self.name
                    )
                })?;
            text += &fill(option, values)?;
        }
        Ok(text)
    }
}

impl Step {
    /// Puts the values in.
    pub(crate) fn call(&self, values: &Values) -> anyhow::Result<Call> {
        Ok(Call {
            method: self.method.parse()?,
            path: fill(&self.path, values)?,
            body: fill(&self.body, values)?,
        })
    }

    /// Whether this status is what was wanted.
    pub(crate) fn accepts(&self, status: u16) -> bool {
        match self.accepted.as_slice() {
            [] => (200..300).contains(&status),
            accepted => accepted.contains(&status),
        }
    }

    /// Takes from the answer what later steps need.
    pub(crate) fn learn(
        &self,
        status: u16,
        answer: &Value,
        values: &mut Values,
    ) -> anyhow::Result<()> {
        if !self.accepts(status) {
            bail!(
                "the gateway refused the set-up at {} {}: {status} {answer}",
                self.method,
                self.path
            );
        }
        for (name, pointer) in &self.capture {
            let value = match answer.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => bail!("the answer of {} has no {pointer}: {answer}", self.path),
            };
            values.insert(name.clone(), value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        name = "small"
        about = "for tests"
        signature = "none"
        [message]
        path = "/in/{app}"
        body = '{"kind":"{event}","data":{payload}}'
    "#;

    fn refusal(text: &str) -> String {
        format!("{:#}", Adapter::parse(text).unwrap_err())
    }

    #[test]
    fn every_built_in_adapter_reads_and_is_a_file_of_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let names: Vec<_> = BUILT_IN
            .iter()
            .map(|(name, _)| format!("{name}.toml"))
            .collect();
        assert_eq!(files, names);
        for (name, _) in BUILT_IN {
            assert_eq!(Adapter::named(name).unwrap().name, name);
        }
    }

    #[test]
    fn a_message_is_split_around_its_payload() {
        let adapter = Adapter::parse(SMALL).unwrap();
        let (wanted, unwanted) = adapter.envelopes(false).unwrap();
        assert_eq!(wanted.before, r#"{"kind":"load.test","data":"#);
        assert_eq!(unwanted.before, r#"{"kind":"load.nobody","data":"#);
        assert_eq!((wanted.after, unwanted.after), ("}".into(), "}".into()));
        let values = Adapter::values("k", 3, "s");
        assert_eq!(adapter.path(&values, false).unwrap(), "/in/load-3");
        assert!(adapter.path(&values, true).is_err(), "no batches");
    }

    #[test]
    fn all_mistakes_of_a_file_are_reported_at_once() {
        let text = refusal(&SMALL.replace("{app}", "{aap}").replace("{payload}", "{}"));
        assert!(text.contains("message.path names {aap}"), "{text}");
        assert!(text.contains("must hold {payload} once"), "{text}");
        assert!(refusal(&format!("{SMALL}\nretries = 3")).contains("unknown field"));
        assert!(Adapter::named("nobody").is_err());
    }

    #[test]
    fn a_source_is_made_and_called_without_the_key() {
        let adapter = Adapter::named("posthaste").unwrap();
        let mut values = Adapter::values("k", 3, "whsec_x");
        let [step] = adapter.source_steps().unwrap() else {
            panic!("one step makes it");
        };
        assert!(step.call(&values).unwrap().body.contains("whsec_x"));
        let answer = serde_json::json!({"path": "/in/abc"});
        step.learn(201, &answer, &mut values).unwrap();
        assert_eq!(adapter.source_path(&values).unwrap(), "/in/abc");
        assert!(adapter.source_dialect().unwrap().headers.is_empty());
        let error = Adapter::named("svix")
            .unwrap()
            .source_dialect()
            .unwrap_err();
        assert!(error.to_string().contains("knows no sources"), "{error}");
    }

    #[test]
    fn an_option_the_adapter_cannot_express_is_refused() {
        let adapter = Adapter::named("svix").unwrap();
        let values = Values::new();
        assert_eq!(
            adapter.options(&[Choice::Disabled], &values).unwrap(),
            r#","disabled":true"#
        );
        let error = adapter.options(&[Choice::Filtered], &values).unwrap_err();
        assert!(error.to_string().contains("Filtered"), "{error}");
    }

    #[test]
    fn a_step_keeps_what_later_steps_need() {
        let adapter = Adapter::named("svix").unwrap();
        let setup = adapter.setup.as_ref().unwrap();
        let mut values = Adapter::values("k", 0, "s");
        let step = &setup.application[0];
        let answer = serde_json::json!({"id": "app_1"});
        assert!(step.learn(500, &answer, &mut values).is_err());
        assert!(step.learn(201, &Value::Null, &mut values).is_err());
        step.learn(201, &answer, &mut values).unwrap();
        assert_eq!(
            adapter.path(&values, false).unwrap(),
            "/api/v1/app/app_1/msg/"
        );
    }
}
