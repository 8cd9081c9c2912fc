//! A scenario: one shape of load with the bars it must reach, as it stands in a TOML file.
//!
//! Strict: an unknown key is an error, and all mistakes of a file are reported at once. The format is
//! described in `docs/LOADTEST.md`. What is measured and how bars are judged: `measure`; the files
//! that are compiled in: `library`; the parts that need reading of their own: `plan`.

pub(crate) mod library;
pub(crate) mod measure;
mod plan;
mod sweep;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;

use crate::adapter::Choice;
use crate::gateway::End;
use crate::pace::{Pace, Ramp};
use crate::payload::Filling;
use crate::population::{Mix, Population};
use crate::sizes::Sizes;
use measure::Bar;
pub(crate) use plan::{PacePlan, SizePlan, duration, seconds};
pub(crate) use sweep::{Point, Sweep};

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) about: String,
    /// Part of the standard set.
    #[serde(default)]
    pub(crate) standard: bool,
    pub(crate) load: LoadPlan,
    #[serde(default)]
    pub(crate) payload: PayloadPlan,
    #[serde(default)]
    pub(crate) population: PopulationPlan,
    /// Environment of the gateway, beyond its defaults.
    #[serde(default)]
    pub(crate) gateway: BTreeMap<String, String>,
    pub(crate) restart: Option<RestartPlan>,
    pub(crate) management: Option<ManagementPlan>,
    pub(crate) backlog: Option<BacklogPlan>,
    pub(crate) history: Option<HistoryPlan>,
    /// The scenario stands for several, one for each value.
    pub(crate) sweep: Option<Sweep>,
    /// Which of them this one is.
    #[serde(skip)]
    pub(crate) point: Option<Point>,
    /// Longest wait for the rest after the load.
    #[serde(default = "default_drain", deserialize_with = "seconds")]
    pub(crate) drain: Duration,
    /// Every so many-th delivery's signature is verified; 0 = none.
    #[serde(default = "default_verify")]
    pub(crate) verify_every: u64,
    #[serde(default)]
    pub(crate) expect: Vec<Bar>,
}

/// How it is sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadPlan {
    pub(crate) pace: PacePlan,
    #[serde(default = "default_connections")]
    pub(crate) connections: usize,
    #[serde(default = "default_threads")]
    pub(crate) threads: usize,
    #[serde(default = "default_warm_up", deserialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    #[serde(deserialize_with = "seconds")]
    pub(crate) duration: Duration,
    /// NDJSON batches of so many messages; 0 = single messages.
    #[serde(default)]
    pub(crate) batch: u64,
    #[serde(default = "yes")]
    pub(crate) keep_alive: bool,
    #[serde(default)]
    pub(crate) idempotency: bool,
    #[serde(default)]
    pub(crate) retry: bool,
    /// Signed events to a source of each application instead of messages through the API.
    #[serde(default)]
    pub(crate) source: bool,
    /// Share of the messages that no endpoint wants, 0 to 1, to a thousandth.
    #[serde(default)]
    pub(crate) unwanted: f64,
}

/// What is sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayloadPlan {
    #[serde(default)]
    pub(crate) size: SizePlan,
    #[serde(default)]
    pub(crate) filling: Filling,
}

/// To whom.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PopulationPlan {
    pub(crate) applications: u64,
    /// Of each application.
    pub(crate) endpoints: u64,
    /// Behaviours with weights, dealt out over all endpoints.
    pub(crate) behaviours: String,
    pub(crate) concurrency: Option<u16>,
    pub(crate) disabled: bool,
}

impl Default for PopulationPlan {
    fn default() -> Self {
        Self {
            applications: 1,
            endpoints: 1,
            behaviours: "fast".to_owned(),
            concurrency: None,
            disabled: false,
        }
    }
}

/// The gateway is restarted under the load.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestartPlan {
    #[serde(deserialize_with = "seconds")]
    pub(crate) every: Duration,
    pub(crate) how: End,
}

/// The management API is called beside the load: the adapter's calls, one after another.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManagementPlan {
    /// Calls a second, planned ahead: one that comes late is charged for it.
    pub(crate) rate: f64,
}

impl ManagementPlan {
    fn mistakes(self) -> Option<String> {
        let good = self.rate > 0.0 && self.rate <= 1000.0;
        (!good).then(|| "management.rate must lie above 0, up to 1000".to_owned())
    }
}

/// Messages of the first application, accepted before the load while its endpoints take nothing;
/// they are let go when the measured part begins.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BacklogPlan {
    pub(crate) messages: u64,
    pub(crate) how: Hold,
    /// The gateway is killed and started again when the backlog has begun to drain.
    #[serde(default)]
    pub(crate) restart: bool,
}

/// Messages that nobody wants, accepted before the load: what the store holds already.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryPlan {
    pub(crate) messages: u64,
}

/// Why the endpoints of a backlog take nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hold {
    /// They are paused through the gateway's API, and resumed.
    Paused,
    /// The receiver answers 503, and then no longer.
    Down,
}

/// How a set is shortened, or a backlog made smaller, without another file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// Of applications, where there are more than two.
    pub(crate) applications: f64,
    pub(crate) backlog: f64,
    /// Of warm-up and duration; never below a second together.
    pub(crate) time: f64,
}

fn default_drain() -> Duration {
    Duration::from_secs(120)
}

fn default_verify() -> u64 {
    100
}

fn default_connections() -> usize {
    64
}

fn default_threads() -> usize {
    1
}

fn default_warm_up() -> Duration {
    Duration::from_secs(2)
}

fn yes() -> bool {
    true
}

impl Scenario {
    /// Reads a file's text; reports all mistakes at once.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        let mistakes = scenario.mistakes();
        if !mistakes.is_empty() {
            bail!("{}", mistakes.join("; "));
        }
        Ok(scenario)
    }

    /// Everything that is wrong although it parses.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |good: bool, what: &str| {
            if !good {
                wrong.push(what.to_owned());
            }
        };
        let name_is_good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        check(
            !self.name.is_empty() && self.name.chars().all(name_is_good),
            "name: letters, digits and hyphens only",
        );
        let load = &self.load;
        check(load.connections > 0, "load.connections must not be 0");
        check(load.threads > 0, "load.threads must not be 0");
        check(
            load.duration >= Duration::from_millis(100),
            "load.duration must be 100ms or more",
        );
        check(
            (0.0..=1.0).contains(&load.unwanted),
            "load.unwanted is a share: 0 to 1",
        );
        check(
            !load.source || load.batch == 0 && !load.idempotency && load.unwanted == 0.0,
            "load.source excludes batch, idempotency and unwanted",
        );
        check(
            !load.source || self.backlog.is_none(),
            "load.source and backlog exclude each other",
        );
        check(
            self.population.applications > 0,
            "population.applications must not be 0",
        );
        check(
            self.backlog.is_none() || self.population.applications > 1,
            "a backlog wants a second application for the load beside it",
        );
        check(
            self.backlog.is_none() || self.population.endpoints > 0,
            "a backlog wants an endpoint",
        );
        check(
            self.backlog.is_none() || self.restart.is_none(),
            "backlog and restart exclude each other",
        );
        let every = self.restart.map(|restart| restart.every);
        check(
            every.is_none_or(|every| every >= Duration::from_millis(100)),
            "restart.every must be 100ms or more",
        );
        check(
            self.management.is_none() || self.restart.is_none(),
            "management and restart exclude each other",
        );
        check(
            self.history.is_none_or(|history| history.messages > 0),
            "history.messages must not be 0",
        );
        if let Some(sweep) = &self.sweep {
            wrong.extend(sweep.mistakes(self));
        }
        wrong.extend(self.management.and_then(ManagementPlan::mistakes));
        wrong.extend(load.pace.mistakes());
        wrong.extend(self.payload.size.mistakes());
        if let Err(error) = Mix::parse(&self.population.behaviours) {
            wrong.push(format!("population.behaviours: {error:#}"));
        }
        wrong.extend(self.expect.iter().flat_map(Bar::mistakes));
        wrong
    }

    /// Other scenarios that must run before this one, or with it.
    pub(crate) fn needs(&self) -> Vec<String> {
        let pace = match &self.load.pace {
            PacePlan::Share { of, .. } => Some(of.clone()),
            _ => None,
        };
        let bars = self.expect.iter().filter_map(Bar::other_scenario);
        pace.into_iter().chain(bars).collect()
    }

    /// The same, shorter or smaller.
    pub(crate) fn scaled(mut self, scale: Scale) -> Self {
        let count = |n: u64, by: f64| crate::hist::whole(n as f64 * by).max(1);
        let population = &mut self.population;
        if population.applications > 2 {
            population.applications = count(population.applications, scale.applications).max(2);
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.messages = count(backlog.messages, scale.backlog);
        }
        if let Some(history) = &mut self.history {
            history.messages = count(history.messages, scale.backlog);
        }
        let shortest = Duration::from_secs(1);
        let load = &mut self.load;
        load.duration = load
            .duration
            .mul_f64(scale.time)
            .max(shortest.min(load.duration));
        load.warm_up = load.warm_up.mul_f64(scale.time.min(1.0));
        if let Some(restart) = &mut self.restart {
            // At least one restart lies within the run.
            restart.every = restart.every.mul_f64(scale.time).min(load.duration / 2);
        }
        self
    }

    /// The pace; `rate_of` answers the accepted rate of another scenario of the same set.
    pub(crate) fn pace(&self, rate_of: impl Fn(&str) -> Option<f64>) -> anyhow::Result<Pace> {
        Ok(match &self.load.pace {
            PacePlan::Closed {} => Pace::Closed,
            PacePlan::Open { rate } => Pace::Open(*rate),
            PacePlan::Share { of, share } => match rate_of(of) {
                Some(rate) if rate > 0.0 => Pace::Open(rate * share),
                _ => bail!("{} wants a rate of {of}, which has none", self.name),
            },
            PacePlan::Ramp { from, to, steps } => Pace::Ramp(Ramp {
                from: *from,
                to: *to,
                hold: self.load.warm_up,
                over: self.load.duration,
                steps: *steps,
            }),
            PacePlan::Burst { count, every } => Pace::Burst {
                count: *count,
                every: *every,
            },
        })
    }

    /// Who gets what.
    pub(crate) fn population(&self) -> anyhow::Result<Population> {
        let mut choices = Vec::new();
        if self.population.disabled {
            choices.push(Choice::Disabled);
        }
        if self.load.unwanted > 0.0 || self.history.is_some() {
            choices.push(Choice::Filtered);
        }
        Ok(Population {
            applications: self.population.applications,
            endpoints: self.population.endpoints,
            mix: Mix::parse(&self.population.behaviours)?,
            concurrency: self.population.concurrency,
            choices,
            source: self.load.source,
            gated: self.backlog.is_some(),
        })
    }

    /// How large the payloads are.
    pub(crate) fn sizes(&self) -> Sizes {
        self.payload.size.sizes()
    }

    /// Seconds that one run of it takes when nothing goes wrong, set-up, ceilings (so many seconds
    /// each) and drain guessed.
    pub(crate) fn estimate(&self, ceilings: Duration) -> Duration {
        let set_up = Duration::from_millis(2 * self.population.applications);
        let backlog = self.backlog.map_or(0, |backlog| backlog.messages);
        // Filled at 50,000 a second, drained at 10,000.
        let backlog = Duration::from_micros(backlog * 120);
        let history = self.history.map_or(0, |history| history.messages);
        let backlog = backlog + Duration::from_micros(history * 12);
        let around = Duration::from_secs(3);
        self.load.warm_up + self.load.duration + set_up + backlog + around + ceilings * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const SMALL: &str = r#"
        name = "small"
        title = "Small"
        about = "for tests"
        [load]
        pace = { kind = "open", rate = 50.0 }
        duration = "2s"
    "#;

    fn refusal(text: &str) -> String {
        format!("{:#}", Scenario::parse(text).unwrap_err())
    }

    #[test]
    fn a_small_file_gets_the_defaults() {
        let small = Scenario::parse(SMALL).unwrap();
        assert_eq!(small.pace(|_| None).unwrap(), Pace::Open(50.0));
        assert_eq!(small.sizes(), Sizes::Fixed(1024));
        assert_eq!(small.load.warm_up, Duration::from_secs(2));
        assert_eq!(
            (small.population.applications, small.verify_every),
            (1, 100)
        );
        assert!(small.load.keep_alive && small.needs().is_empty());
    }

    #[test]
    fn unknown_keys_are_refused_at_every_level() {
        for (before, after) in [
            ("about", "abuot"),
            ("[load]", "[load]\nconections = 3"),
            ("rate = 50.0", "rate = 50.0, speed = 1"),
            ("[load]", "[population]\nendpoint = 1\n[load]"),
            ("[load]", "[payload]\nbytes = 1\n[load]"),
            (
                "[load]",
                "[restart]\nevery = '5s'\nhow = 'kill'\nx = 1\n[load]",
            ),
            (
                "[load]",
                "[[expect]]\nmeasure = 'lost'\nat_most = 0\nis = 1\n[load]",
            ),
            (
                "kind = \"open\", rate = 50.0",
                "kind = \"closed\", rate = 3",
            ),
        ] {
            let text = SMALL.replacen(before, after, 1);
            assert_ne!(text, SMALL);
            assert!(refusal(&text).contains("unknown"), "{}", refusal(&text));
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = SMALL
            .replace("\"small\"", "\"a b\"")
            .replace("rate = 50.0", "rate = 0.0")
            .replace("[load]", "[population]\napplications = 0\nbehaviours = 'fast,sleepy'\n[load]\nunwanted = 1.5\nconnections = 0")
            + "[[expect]]\nmeasure = 'speed'\n";
        let refusal = refusal(&text);
        for part in [
            "name:",
            "rate must be above 0",
            "applications must not be 0",
            "sleepy",
            "unwanted",
            "connections",
            "no measure `speed`",
            "at_least or at_most",
        ] {
            assert!(refusal.contains(part), "{part} in {refusal}");
        }
    }

    #[test]
    fn a_share_of_another_scenario_becomes_a_rate() {
        let text = SMALL.replace(
            "{ kind = \"open\", rate = 50.0 }",
            "{ kind = \"share\", of = \"other\", share = 0.25 }",
        );
        let share = Scenario::parse(&text).unwrap();
        assert_eq!(share.needs(), ["other"]);
        assert_eq!(share.pace(|_| Some(400.0)).unwrap(), Pace::Open(100.0));
        assert!(share.pace(|_| None).is_err());
    }

    #[test]
    fn a_source_takes_single_events_only() {
        let source = SMALL.replace("[load]", "[load]\nsource = true");
        assert!(
            Scenario::parse(&source)
                .unwrap()
                .population()
                .unwrap()
                .source
        );
        for more in ["batch = 10", "idempotency = true", "unwanted = 0.5"] {
            let text = source.replace("[load]", &format!("[load]\n{more}"));
            assert!(refusal(&text).contains("load.source"), "{more}");
        }
    }

    #[test]
    fn scaling_keeps_at_least_a_second_and_two_applications() {
        let text = SMALL.replace("[load]", "[population]\napplications = 1000\n[backlog]\nmessages = 1000000\nhow = 'down'\n[load]");
        let scaled = Scenario::parse(&text).unwrap().scaled(Scale {
            applications: 0.001,
            backlog: 0.001,
            time: 0.01,
        });
        assert_eq!(scaled.population.applications, 2);
        assert_eq!(scaled.backlog.unwrap().messages, 1000);
        assert_eq!(scaled.load.duration, Duration::from_secs(1));
    }

    #[test]
    fn backlogs_want_company_and_no_restart() {
        let backlog = SMALL.replace("[load]", "[backlog]\nmessages = 5\nhow = 'paused'\n[load]");
        assert!(refusal(&backlog).contains("second application"));
        let both = backlog.replace("[load]", "[restart]\nevery = '1s'\nhow = 'term'\n[load]");
        assert!(refusal(&both).contains("exclude"));
    }
}
