//! A scenario that is run at several sizes of one thing: work against cost as a curve.
//!
//! `[sweep]` names the thing and its values; each value becomes a scenario of its own, called
//! `name-value`. In its bars `first` stands for the name of the first of them, so that a bar says what
//! the largest may cost compared to the smallest.

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::{PacePlan, Scenario};

/// What is swept over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    pub(crate) over: Over,
    pub(crate) values: Vec<u64>,
}

/// The thing that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Over {
    /// Messages in the store before the load.
    History,
    /// Messages that wait for their endpoint.
    Backlog,
    Applications,
    /// Endpoints of each application.
    Endpoints,
    Connections,
    /// Offered messages a second.
    Rate,
}

/// One value of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Name of the scenario that was swept.
    pub(crate) curve: String,
    /// What grows, in words.
    pub(crate) over: String,
    pub(crate) value: u64,
}

impl Over {
    const fn words(self) -> &'static str {
        match self {
            Self::History => "messages stored before",
            Self::Backlog => "messages pending",
            Self::Applications => "applications",
            Self::Endpoints => "endpoints of the application",
            Self::Connections => "connections",
            Self::Rate => "messages offered a second",
        }
    }

    /// Whether the scenario has the thing at all.
    const fn fits(self, scenario: &Scenario) -> bool {
        match self {
            Self::History => scenario.history.is_some(),
            Self::Backlog => scenario.backlog.is_some(),
            Self::Rate => matches!(scenario.load.pace, PacePlan::Open { .. }),
            Self::Applications | Self::Endpoints | Self::Connections => true,
        }
    }
}

impl Sweep {
    pub(super) fn mistakes(&self, scenario: &Scenario) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.values.len() < 2 || self.values.contains(&0) {
            wrong.push("sweep.values: two or more numbers above 0".to_owned());
        }
        if !self.values.is_sorted_by(|a, b| a < b) {
            wrong.push("sweep.values must grow".to_owned());
        }
        if !self.over.fits(scenario) {
            wrong.push(format!(
                "sweep.over: the scenario has no {}",
                self.over.words()
            ));
        }
        wrong
    }
}

impl Scenario {
    /// The scenarios that a sweep stands for; itself if it is none.
    pub(crate) fn points(&self) -> anyhow::Result<Vec<Self>> {
        let Some(sweep) = &self.sweep else {
            return Ok(vec![self.clone()]);
        };
        let first = sweep.values.first().copied().unwrap_or_default();
        sweep
            .values
            .iter()
            .map(|value| self.point(sweep.over, *value, first))
            .collect()
    }

    fn point(&self, over: Over, value: u64, first: u64) -> anyhow::Result<Self> {
        let mut one = Self {
            name: format!("{}-{value}", self.name),
            title: format!("{}: {value} {}", self.title, over.words()),
            sweep: None,
            point: Some(Point {
                curve: self.name.clone(),
                over: over.words().to_owned(),
                value,
            }),
            ..self.clone()
        };
        match over {
            Over::History => {
                if let Some(history) = &mut one.history {
                    history.messages = value;
                }
            }
            Over::Backlog => {
                if let Some(backlog) = &mut one.backlog {
                    backlog.messages = value;
                }
            }
            Over::Applications => one.population.applications = value,
            Over::Endpoints => one.population.endpoints = value,
            Over::Connections => one.load.connections = usize::try_from(value)?,
            Over::Rate => one.load.pace = PacePlan::Open { rate: value as f64 },
        }
        // The first cannot be compared with itself.
        let compared = |of: &Option<String>| {
            let of = of.as_deref();
            of.is_some_and(|of| of == "scenario:first" || of.starts_with("scenario:first/"))
        };
        one.expect
            .retain(|bar| value != first || !compared(&bar.of));
        for bar in one.expect.iter_mut().filter(|bar| compared(&bar.of)) {
            bar.of = bar
                .of
                .as_ref()
                .map(|of| of.replacen("first", &format!("{}-{first}", self.name), 1));
        }
        let mistakes = one.mistakes();
        if !mistakes.is_empty() {
            bail!("{} at {value}: {}", self.name, mistakes.join("; "));
        }
        Ok(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::tests::SMALL;

    fn swept(sweep: &str) -> anyhow::Result<Vec<Scenario>> {
        let text = format!(
            "{SMALL}\n[history]\nmessages = 1\n[sweep]\n{sweep}\n[[expect]]\nmeasure = 'accepted_per_second'\nof = 'scenario:first'\nat_least = 0.8\n[[expect]]\nmeasure = 'lost'\nat_most = 0"
        );
        Scenario::parse(&text)?.points()
    }

    #[test]
    fn each_value_becomes_a_scenario_that_is_compared_with_the_first() {
        let points = swept("over = 'history'\nvalues = [10, 1000]").unwrap();
        let names: Vec<_> = points.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["small-10", "small-1000"]);
        assert_eq!(points[1].history.unwrap().messages, 1000);
        assert_eq!(points[1].point.as_ref().unwrap().curve, "small");
        let bars: Vec<_> = points.iter().map(|one| one.expect.len()).collect();
        assert_eq!(bars, [1, 2]);
        assert_eq!(points[1].needs(), ["small-10"]);
    }

    #[test]
    fn a_sweep_over_what_is_not_there_is_refused() {
        let refusal = |sweep: &str| swept(sweep).unwrap_err().to_string();
        let backlog = refusal("over = 'backlog'\nvalues = [1, 2]");
        assert!(backlog.contains("no messages pending"), "{backlog}");
        assert!(refusal("over = 'rate'\nvalues = [5, 5]").contains("must grow"));
        assert!(refusal("over = 'history'\nvalues = [5]").contains("two or more"));
    }
}
