//! Who gets what: applications, their endpoints and how each endpoint behaves; and the set-up of all
//! of them through the gateway's API, many at a time.
//!
//! Behaviours are dealt out by weight over all endpoints (`fast=9,hang=1`: every tenth hangs), so a
//! message's number alone says which deliveries are owed.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::Value;

use crate::adapter::{Adapter, Call, Choice, Values};
use crate::connection::{Connection, Template, local_runtime};
use crate::receiver::Behaviour;

/// Signs every endpoint of a run.
pub(crate) const SECRET: &str = "whsec_bG9hZHRlc3QtbG9hZHRlc3QtbG9hZHRlc3QtMDE=";
/// Connections of the set-up: each change is a commit of its own, and commits group.
const PARALLEL: u64 = 64;

/// What to prepare in the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Population {
    pub(crate) applications: u64,
    /// Endpoints of each application.
    pub(crate) endpoints: u64,
    pub(crate) mix: Mix,
    /// Attempts at a time for each endpoint, if not the gateway's default.
    pub(crate) concurrency: Option<u16>,
    pub(crate) choices: Vec<Choice>,
    /// Each application has a source.
    pub(crate) source: bool,
    /// The first application's endpoints are behind the receiver's gate.
    pub(crate) gated: bool,
}

/// Behaviours in the order in which they are dealt out.
#[derive(Debug, Clone)]
pub(crate) struct Mix(Vec<(String, Behaviour)>);

impl Mix {
    /// Reads `fast=9,hang=1`; a missing weight is 1.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut wheel = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight: usize = weight
                .parse()
                .with_context(|| format!("weight in `{part}`"))?;
            if weight > 1000 {
                bail!("the weight in `{part}` is above 1000");
            }
            let behaviour = name
                .parse()
                .with_context(|| format!("no behaviour `{name}`"))?;
            wheel.extend(std::iter::repeat_n((name.to_owned(), behaviour), weight));
        }
        if wheel.is_empty() {
            bail!("the behaviours have no weight");
        }
        Ok(Self(wheel))
    }

    fn at(&self, endpoint: u64) -> Option<&(String, Behaviour)> {
        let len = u64::try_from(self.0.len()).ok()?;
        self.0
            .get(usize::try_from(endpoint.checked_rem(len)?).ok()?)
    }
}

impl Population {
    fn behaviour(&self, app: u64, slot: u64) -> Option<(&str, Behaviour)> {
        if self.gated && app == 0 {
            return Some(("gate", Behaviour::Gate));
        }
        let (name, behaviour) = self.mix.at(app * self.endpoints + slot)?;
        Some((name, *behaviour))
    }

    /// Whether a wanted message of this application must reach this endpoint.
    pub(crate) fn is_owed(&self, app: u64, slot: u64) -> bool {
        !self.choices.contains(&Choice::Disabled)
            && slot < self.endpoints
            && self
                .behaviour(app, slot)
                .is_some_and(|(_, behaviour)| behaviour.is_healthy())
    }

    /// Makes all of it; answers what is known of each application, to fill paths with.
    pub(crate) fn make(
        &self,
        adapter: &Adapter,
        (address, key): (SocketAddr, &str),
        receiver: SocketAddr,
    ) -> anyhow::Result<Vec<Values>> {
        let parallel = self.applications.min(PARALLEL);
        let user = |first: u64| async move {
            let mut made = Vec::new();
            if adapter.setup.is_none() {
                return Ok((first..self.applications)
                    .step_by(usize::try_from(parallel)?)
                    .map(|app| (app, Adapter::values(key, app, SECRET)))
                    .collect());
            }
            let mut api = Api::open(adapter, address, key).await?;
            for app in (first..self.applications).step_by(usize::try_from(parallel)?) {
                made.push((
                    app,
                    self.application(adapter, &mut api, receiver, app).await?,
                ));
            }
            anyhow::Ok(made)
        };
        let mut made = local_runtime()?.block_on(async {
            let users = (0..parallel).map(user);
            let mut all = Vec::new();
            for made in futures_joined(users).await {
                all.extend(made?);
            }
            anyhow::Ok(all)
        })?;
        made.sort_by_key(|(app, _)| *app);
        Ok(made.into_iter().map(|(_, values)| values).collect())
    }

    async fn application(
        &self,
        adapter: &Adapter,
        api: &mut Api,
        receiver: SocketAddr,
        app: u64,
    ) -> anyhow::Result<Values> {
        let setup = adapter.setup.clone().unwrap_or_default();
        let mut values = Adapter::values(&api.key, app, SECRET);
        for step in &setup.application {
            let (status, answer) = api.call(&step.call(&values)?).await?;
            step.learn(status, &answer, &mut values)?;
        }
        for slot in 0..self.endpoints {
            let (behaviour, _) = self.behaviour(app, slot).context("no behaviour")?;
            let mut of_endpoint = values.clone();
            let mut put = |name: &str, value: String| of_endpoint.insert(name.to_owned(), value);
            put("slot", slot.to_string());
            put("url", format!("http://{receiver}/{behaviour}/{slot}"));
            put("concurrency", self.concurrency.unwrap_or(0).to_string());
            let mut choices = self.choices.clone();
            if self.concurrency.is_some() {
                choices.push(Choice::Concurrency);
            }
            if self.gated && app == 0 {
                choices.push(Choice::Patient);
            }
            let options = adapter.options(&choices, &of_endpoint)?;
            of_endpoint.insert("options".to_owned(), options);
            for step in &setup.endpoint {
                let (status, answer) = api.call(&step.call(&of_endpoint)?).await?;
                step.learn(status, &answer, &mut of_endpoint)?;
            }
        }
        if self.source {
            for step in adapter.source_steps()? {
                let (status, answer) = api.call(&step.call(&values)?).await?;
                step.learn(status, &answer, &mut values)?;
            }
        }
        Ok(values)
    }
}

/// Polls all of them in this task.
async fn futures_joined<T, F: Future<Output = T>>(all: impl Iterator<Item = F>) -> Vec<T> {
    let mut running: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (future, done) in running.iter_mut().filter(|(_, done)| done.is_none()) {
            match future.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => *done = Some(value),
                std::task::Poll::Pending => waiting = true,
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    running.into_iter().filter_map(|(_, done)| done).collect()
}

/// One connection to the gateway's API.
pub(crate) struct Api {
    connection: Connection,
    headers: http::HeaderMap,
    key: String,
}

impl Api {
    pub(crate) async fn open(
        adapter: &Adapter,
        address: SocketAddr,
        key: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(address, true).await?,
            headers: adapter.dialect(key, false)?.headers,
            key: key.to_owned(),
        })
    }

    /// Status and body, `Null` if it is not JSON.
    pub(crate) async fn call(&mut self, call: &Call) -> anyhow::Result<(u16, Value)> {
        let address = self.connection.address();
        let template = Template::new(call.method.clone(), address, &call.path, None)?
            .with_headers(&self.headers);
        let body = Bytes::copy_from_slice(call.body.as_bytes());
        let answer = self.connection.send(template.request(body)).await?;
        let value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        Ok((answer.status.as_u16(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(mix: &str) -> Population {
        Population {
            applications: 4,
            endpoints: 2,
            mix: Mix::parse(mix).unwrap(),
            concurrency: None,
            choices: Vec::new(),
            source: false,
            gated: false,
        }
    }

    #[test]
    fn a_mix_is_dealt_out_by_weight_over_all_endpoints() {
        let dealt = population("fast=3,hang");
        let owed: Vec<_> = (0..4)
            .flat_map(|app| [dealt.is_owed(app, 0), dealt.is_owed(app, 1)])
            .collect();
        assert_eq!(owed, [true, true, true, false, true, true, true, false]);
        for bad in ["nothing", "fast=x", "fast=0", "fast=2000"] {
            assert!(Mix::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn disabled_endpoints_are_owed_nothing_and_gated_ones_everything() {
        let disabled = Population {
            choices: vec![Choice::Disabled],
            ..population("fast")
        };
        assert!(!disabled.is_owed(0, 0));
        let gated = Population {
            gated: true,
            ..population("hang")
        };
        assert!(gated.is_owed(0, 1) && !gated.is_owed(1, 0));
        assert!(!gated.is_owed(0, 2), "there is no third slot");
    }
}
