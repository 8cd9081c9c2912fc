//! One trial: a gateway, its receiver, and the history of what happens between them.
//!
//! The usual course: [`Trial::new`], [`World::start`](super::world::World::start) through
//! [`Trial::start`], [`Trial::endpoint`] for each endpoint, [`Trial::load`], a fault
//! ([`Trial::kill`] or the scenario's own with [`Trial::fault`]), [`Trial::start`] again, stop the load,
//! [`Trial::settle`], which waits for the backlog, sends probes and asks the API for all states, and
//! [`Trial::judge`]. [`Trial::next_history`] begins a new history on the same data.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{KEY, LOOK, World};
use super::{RoundResult, Stage};
use crate::clock::Clock;
use crate::connection::local_runtime;
use crate::oracle::check::{Rule, Verdict, Violation, judge_dir};
use crate::oracle::history::{
    AtLeast, EndpointTerms, FAULTS, Fault, FaultKind, RuleTerms, STATES, State, StateEntry, TERMS,
    Term,
};
use crate::oracle::journal::Journal;
use crate::oracle::producer::{Caller, Producer, Stream};
use crate::oracle::receiver::{Behaviour, Receiver};

/// Base64 of 32 bytes; every endpoint gets its own by changing the end.
const SECRET: &str = "whsec_dG9ydHVyZS10b3J0dXJlLXRvcnR1cmUt";
/// `delivery.retry_schedule` of a trial that names no other: dead after less than a second.
const SCHEDULE_MS: &[u64] = &[50, 100, 200, 300];
/// `delivery.timeout` of a trial.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// Completions ride in batches at most 100 ms late; the rest is for a busy machine.
const SETTLE: Duration = Duration::from_millis(500);

/// Connections of a dead process end within this time.
const QUIET: Duration = Duration::from_secs(10);

/// An endpoint to be made.
#[derive(Debug, Clone)]
pub(crate) struct EndpointPlan {
    pub(crate) name: String,
    pub(crate) app: String,
    pub(crate) behaviour: Behaviour,
    /// Attempts at a time.
    pub(crate) limit: u32,
    /// Ordered delivery.
    pub(crate) ordered: bool,
    /// Disabled: its deliveries are held.
    pub(crate) disabled: bool,
    /// Host of its URL instead of the receiver's address (for name servers); the port is added.
    pub(crate) host: Option<String>,
}

impl EndpointPlan {
    pub(crate) fn new(name: &str, app: &str, behaviour: Behaviour) -> Self {
        Self {
            name: name.to_owned(),
            app: app.to_owned(),
            behaviour,
            limit: 10,
            ordered: false,
            disabled: false,
            host: None,
        }
    }
}

/// What the API says of a delivery: name of the endpoint, message, state.
pub(crate) type Listed = (String, String, State);

/// See the module.
pub(crate) struct Trial {
    pub(crate) world: World,
    pub(crate) receiver: Receiver,
    pub(crate) clock: Clock,
    /// Directory of the history that is being written.
    pub(crate) dir: PathBuf,
    caller: Caller,
    faults: Journal,
    terms: Journal,
    rules: RuleTerms,
    endpoints: Vec<EndpointTerms>,
    /// Names of endpoints that are switched off: what is pending there is held.
    held: HashSet<String>,
    /// When the history began, for asking the API for its part only.
    begun: u64,
    /// Messages of earlier histories that the API may list again, for it is asked from a second
    /// before the beginning: its clock is another one.
    before: HashSet<String>,
    /// Messages that the API listed at the end of this history.
    listed: Vec<String>,
    schedule_ms: Vec<u64>,
}

impl Trial {
    /// A trial with its first history in `stage.dir/history-0000` and the data in `data`.
    pub(crate) fn new(stage: &Stage, data: &Path) -> anyhow::Result<Self> {
        let mut world = World::new(&stage.gateway, &stage.dir, data)?;
        world.set("delivery.timeout", &format!("{}ms", TIMEOUT.as_millis()));
        world.set("delivery.connect_timeout", "1s");
        world.set("delivery.disable", "never");
        let clock = stage.clock;
        let receiver = Receiver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), clock)?;
        let dir = stage.dir.join("history-0000");
        std::fs::create_dir_all(&dir)?;
        receiver.record_in(&dir)?;
        let rules = RuleTerms {
            timeout_ms: u64::try_from(TIMEOUT.as_millis())?,
            jitter: 0.2,
            settle_ms: u64::try_from(SETTLE.as_millis())?,
            probe_ms: 10_000,
            probes: 0,
            at_least: AtLeast::default(),
            without_states: false,
        };
        let mut trial = Self {
            caller: Caller::new(world.address, KEY, clock, &dir)?,
            faults: Journal::open(&dir, FAULTS)?,
            terms: Journal::open(&dir, TERMS)?,
            begun: clock.now(),
            world,
            receiver,
            clock,
            dir,
            rules,
            endpoints: Vec::new(),
            held: HashSet::new(),
            before: HashSet::new(),
            listed: Vec::new(),
            schedule_ms: Vec::new(),
        };
        trial.schedule(SCHEDULE_MS);
        trial.terms.append(&Term::Rules(trial.rules.clone()))?;
        Ok(trial)
    }

    /// Another retry schedule. Only before the first start.
    pub(crate) fn schedule(&mut self, delays_ms: &[u64]) {
        let texts: Vec<_> = delays_ms.iter().map(|ms| format!("{ms}ms")).collect();
        self.world.set("delivery.retry_schedule", &texts.join(","));
        self.schedule_ms = delays_ms.to_vec();
    }

    /// The API is asked for all messages, not for those of the history only: for trials that move the
    /// gateway's clock. Such a trial has one history.
    pub(crate) fn lists_from_the_beginning(&mut self) {
        self.begun = 0;
    }

    /// Changes the terms, for instance the thresholds of C11.
    pub(crate) fn agree(&mut self, change: impl FnOnce(&mut RuleTerms)) -> anyhow::Result<()> {
        change(&mut self.rules);
        self.terms.append(&Term::Rules(self.rules.clone()))
    }

    /// Begins a new history on the same data; endpoints and terms stay. The load must be stopped.
    pub(crate) fn next_history(&mut self) -> anyhow::Result<()> {
        let before = self.dir.clone();
        let name = before.file_name().and_then(|name| name.to_str());
        let number: u32 = name
            .and_then(|name| name.strip_prefix("history-")?.parse().ok())
            .context("the directory of a history has a number")?;
        let dir = before.with_file_name(format!("history-{:04}", number + 1));
        std::fs::create_dir_all(&dir)?;
        self.receiver.record_in(&dir)?;
        self.caller = Caller::new(self.world.address, KEY, self.clock, &dir)?;
        self.faults = Journal::open(&dir, FAULTS)?;
        self.terms = Journal::open(&dir, TERMS)?;
        self.terms.append(&Term::Rules(self.rules.clone()))?;
        for endpoint in &self.endpoints {
            self.terms.append(&Term::Endpoint(endpoint.clone()))?;
        }
        if let Some(name) = before.file_name() {
            let dir = Path::new("..").join(name);
            self.terms.append(&Term::Earlier { dir })?;
        }
        self.before.extend(self.listed.drain(..));
        self.dir = dir;
        self.begun = self.clock.now();
        Ok(())
    }

    /// Starts the gateway and waits until it is ready; answers how long that took.
    pub(crate) fn start(&mut self) -> anyhow::Result<Duration> {
        self.quiet()?;
        let took = self.world.start(Duration::from_secs(60))?;
        self.fault(FaultKind::Restart, 0, "")?;
        Ok(took)
    }

    /// Notes that the gateway is about to be started, once the receiver has taken all that the last
    /// process had sent: without this nobody could tell whose requests they are.
    pub(crate) fn quiet(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + QUIET;
        let mut empty = 0;
        while empty < 2 {
            if Instant::now() > deadline {
                bail!("connections of a dead gateway are still open after {QUIET:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
            empty = if self.receiver.connections() == 0 {
                empty + 1
            } else {
                0
            };
        }
        self.fault(FaultKind::Launch, 0, "")
    }

    /// Makes an endpoint, and its application if there is none.
    pub(crate) fn endpoint(&mut self, plan: &EndpointPlan) -> anyhow::Result<()> {
        let app = json!({"name": plan.app, "uid": plan.app});
        let made = self
            .world
            .api(Method::POST, "/api/v1/app?get_if_exists=true", Some(&app))?;
        expect_success("the application", &made)?;
        let secret = format!("{SECRET}{:012}", self.endpoints.len());
        let port = self.receiver.address.port();
        let host = plan
            .host
            .clone()
            .unwrap_or_else(|| self.receiver.address.ip().to_string());
        let body = json!({
            "url": format!("http://{host}:{port}/{}", plan.name),
            "uid": plan.name,
            "secret": secret,
            "maxConcurrency": plan.limit,
            "order": if plan.ordered { "endpoint" } else { "none" },
            "disabled": plan.disabled,
        });
        let path = format!("/api/v1/app/{}/endpoint", plan.app);
        let made = self.world.api(Method::POST, &path, Some(&body))?;
        expect_success("the endpoint", &made)?;
        self.receiver
            .endpoint(&plan.name, &secret, plan.behaviour)?;
        if plan.disabled {
            self.held.insert(plan.name.clone());
        }
        let terms = EndpointTerms {
            name: plan.name.clone(),
            id: made.1["id"]
                .as_str()
                .context("an endpoint has an id")?
                .to_owned(),
            app: plan.app.clone(),
            limit: plan.limit,
            ordered: plan.ordered,
            schedule_ms: self.schedule_ms.clone(),
            drains: true,
            well: !plan.disabled && is_well(plan.behaviour),
        };
        self.terms.append(&Term::Endpoint(terms.clone()))?;
        self.endpoints.push(terms);
        Ok(())
    }

    /// Makes a source for an application that is there; answers the path of its URL.
    pub(crate) fn source(
        &self,
        app: &str,
        provider: &str,
        secrets: &Value,
    ) -> anyhow::Result<String> {
        let body = json!({
            "appId": app, "provider": provider, "name": provider, "secrets": secrets,
            "ratePerSecond": 65_535,
        });
        let made = self
            .world
            .api(Method::POST, "/api/v1/source", Some(&body))?;
        expect_success("the source", &made)?;
        let path = made.1["path"].as_str();
        Ok(path.context("a source has a path")?.to_owned())
    }

    /// Makes an endpoint behave otherwise.
    pub(crate) fn behave(&mut self, name: &str, behaviour: Behaviour) -> anyhow::Result<()> {
        self.receiver.set(name, behaviour);
        let well = is_well(behaviour);
        for endpoint in &mut self.endpoints {
            if endpoint.name == name && endpoint.well != well {
                endpoint.well = well;
                self.terms.append(&Term::Endpoint(endpoint.clone()))?;
            }
        }
        self.fault(FaultKind::Endpoint, 0, &format!("{name}: {behaviour:?}"))
    }

    /// Switches an endpoint on or off at the gateway; off, its deliveries are held.
    pub(crate) fn switch(&mut self, name: &str, on: bool) -> anyhow::Result<()> {
        let endpoint = self.endpoints.iter().find(|one| one.name == name);
        let endpoint = endpoint.with_context(|| format!("no endpoint {name}"))?;
        let path = format!("/api/v1/app/{}/endpoint/{}", endpoint.app, endpoint.id);
        self.fault(FaultKind::Endpoint, 0, &format!("{name}: on {on}"))?;
        let body = json!({"disabled": !on});
        let answer = self.world.api(Method::PATCH, &path, Some(&body))?;
        expect_success("the switch of an endpoint", &answer)?;
        if on {
            self.held.remove(name);
        } else {
            self.held.insert(name.to_owned());
        }
        Ok(())
    }

    /// Starts load. Several may run at a time.
    pub(crate) fn load(&self, streams: &[Stream]) -> anyhow::Result<Producer> {
        Producer::start(&self.caller, streams)
    }

    /// Who makes recorded calls in this history.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Notes what is about to be done, or was just seen, with what is under way at this moment.
    pub(crate) fn fault(&self, kind: FaultKind, value: i64, note: &str) -> anyhow::Result<()> {
        self.faults.append(&Fault {
            at: self.clock.now(),
            kind,
            value,
            note: note.to_owned(),
            unanswered: self.caller.unanswered(),
            open: self.receiver.open(),
        })
    }

    /// SIGKILL now.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.fault(FaultKind::Kill, 0, "SIGKILL")?;
        self.world.kill()?;
        // Attempts that were sent between the note and the signal belong to the dead process too.
        self.fault(FaultKind::Kill, 0, "gone")
    }

    /// Stops between two histories, without a note: in order, or by SIGKILL.
    pub(crate) fn stop(&mut self, in_order: bool) -> anyhow::Result<()> {
        if !in_order {
            return self.world.kill();
        }
        let status = self.world.terminate(Duration::from_secs(40))?;
        if !status.success() {
            bail!(
                "the gateway ended with {status}:\n{}",
                self.world.log_tail()
            );
        }
        Ok(())
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self, within: Duration) -> anyhow::Result<Option<i32>> {
        self.fault(FaultKind::Terminate, 0, "")?;
        self.world.terminate(within)?;
        let code = self.world.exit_code();
        self.fault(FaultKind::Ended, i64::from(code.unwrap_or(-1)), "")?;
        Ok(code)
    }

    /// The faults are over: sends a probe to each application, waits until the backlog has drained
    /// and the probes have arrived, or `within` is over, and writes the states of the API down. What
    /// is missing is for the checker to say. The load must be stopped. Answers the states.
    pub(crate) fn settle(&mut self, within: Duration) -> anyhow::Result<Vec<Listed>> {
        self.fault(FaultKind::Calm, 0, "")?;
        let apps: HashSet<String> = self.endpoints.iter().map(|one| one.app.clone()).collect();
        self.agree(|rules| rules.probes = apps.len() as u64)?;
        let deadline = Instant::now() + within;
        for app in &apps {
            self.probe(app, deadline)?;
        }
        loop {
            let states = self.states()?;
            let open = states.iter().any(|(name, _, state)| {
                !state.is_final()
                    && self
                        .endpoints
                        .iter()
                        .any(|one| one.name == *name && one.drains)
            });
            if !open || Instant::now() > deadline {
                self.write_down(&states)?;
                self.listed = states.iter().map(|(_, id, _)| id.clone()).collect();
                return Ok(states);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn probe(&self, app: &str, deadline: Instant) -> anyhow::Result<()> {
        let asked = self.caller.ask(app, 0, true);
        local_runtime()?.block_on(async {
            let mut connection = None;
            loop {
                let outcome = self.caller.call(&mut connection, &asked).await?;
                let done = matches!(
                    outcome,
                    crate::oracle::history::Outcome::Acknowledged { .. }
                );
                if done || Instant::now() > deadline {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    /// What the API says of every delivery of this history: endpoint, message, state.
    pub(crate) fn states(&self) -> anyhow::Result<Vec<Listed>> {
        let mut all = Vec::new();
        for endpoint in &self.endpoints {
            let held = self.held.contains(&endpoint.name);
            let mut iterator = String::new();
            loop {
                let path = format!(
                    "/api/v1/app/{}/endpoint/{}/msg?limit=250&with_content=false&expanded_statuses=true&after={}&before={}{iterator}",
                    endpoint.app,
                    endpoint.id,
                    // The gateway's clock may be a little behind, or moved by the scenario.
                    instant(self.begun.saturating_sub(1_000_000)),
                    "2100-01-01T00:00:00Z",
                );
                let page = self.world.api(Method::GET, &path, None)?;
                expect_success("the list of deliveries", &page)?;
                let page = page.1;
                for item in page["data"].as_array().into_iter().flatten() {
                    let id = item["id"].as_str().context("a message has an id")?;
                    let state = state(item, held)?;
                    if !self.before.contains(id) {
                        all.push((endpoint.name.clone(), id.to_owned(), state));
                    }
                }
                match page["iterator"].as_str() {
                    Some(at) if page["done"] == false => iterator = format!("&iterator={at}"),
                    _ => break,
                }
            }
        }
        Ok(all)
    }

    fn write_down(&self, states: &[Listed]) -> anyhow::Result<()> {
        let journal = Journal::open(&self.dir, STATES)?;
        let at = self.clock.now();
        journal.append(&StateEntry::Dump { at })?;
        for (endpoint, id, state) in states {
            journal.append(&StateEntry::State {
                endpoint: endpoint.clone(),
                id: id.clone(),
                state: *state,
            })?;
        }
        Ok(())
    }

    /// Reads the history back from disk and judges it.
    pub(crate) fn judge(&self) -> anyhow::Result<Verdict> {
        if let Some(why) = self.receiver.broken() {
            bail!("the receiver's record is incomplete: {why}");
        }
        judge_dir(&self.dir)
    }

    /// The verdict on the history as the result of a round.
    pub(crate) fn result(&self) -> anyhow::Result<RoundResult> {
        Ok(RoundResult::of(self.judge()?, &self.dir))
    }
}

impl RoundResult {
    /// What the checker found in the history in `dir`.
    pub(crate) fn of(verdict: Verdict, dir: &Path) -> Self {
        Self {
            acknowledged: verdict.acknowledged,
            lost: verdict.lost,
            duplicates: verdict.duplicates,
            notes: Vec::new(),
            violations: verdict.violations,
            history: Some(dir.to_owned()),
        }
    }

    /// Adds a violation that no history shows, for instance of a time limit.
    pub(crate) fn must(&mut self, holds: bool, rule: Rule, what: impl Into<String>) {
        if !holds {
            self.violations.push(Violation::new(rule, what));
        }
    }
}

/// Whether a probe gets its 2xx here.
fn is_well(behaviour: Behaviour) -> bool {
    match behaviour {
        Behaviour::Well | Behaviour::Flaky(_) => true,
        Behaviour::Slow(delay) => delay < TIMEOUT,
        Behaviour::Status(code) => (200..300).contains(&code),
        Behaviour::TooMany(_) | Behaviour::Hang | Behaviour::Reset => false,
    }
}

fn state(item: &Value, held: bool) -> anyhow::Result<State> {
    Ok(match item["statusText"].as_str() {
        Some("success") => State::Delivered,
        Some("pending") if held => State::Held,
        Some("pending") => State::Pending,
        Some("sending") => State::Sending,
        Some("fail") => State::Dead,
        Some("canceled") => State::Cancelled,
        other => bail!("the API names the state {other:?}"),
    })
}

/// RFC 3339 of unix microseconds, to the second.
fn instant(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, after Howard Hinnant.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

fn expect_success(what: &str, (status, answer): &(StatusCode, Value)) -> anyhow::Result<()> {
    if !status.is_success() {
        bail!("the gateway refused {what}: {status} {answer}");
    }
    Ok(())
}
