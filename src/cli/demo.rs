//! `posthaste demo`: the whole thing on one screen in half a minute.
//!
//! Starts a gateway and three sinks (healthy, flaky, dead) as child processes of this binary, in a
//! directory of its own, with schedules short enough to watch; sends a few hundred events and shows
//! what becomes of them. What it shows is read from the sinks' records and the gateway's API, as
//! anybody could. Ends by itself; the data stays, and the last lines say where.
//!
//! Elsewhere: the events (`events`), the table (`table`), the sink (`super::sink`).

mod events;
mod process;
mod table;

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use self::process::Process;
use self::table::{Row, State};
use super::http::Api;
use crate::base::{Clock, SystemClock, Timestamp};

/// Signs all three endpoints; a secret of this demonstration only.
const SECRET: &str = "whsec_cG9zdGhhc3RlLWRlbW8tc2VjcmV0LTAxMjM0NQ==";
const KEY: &str = "sk_demo_only_0123456789abcdefghijklmnop";
const APP: &str = "/api/v1/app/demo";

/// Arguments of `posthaste demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Events to send.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub events: u32,
    /// Events a second.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Where to put the data; it must not exist yet. Default: a new temporary directory.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Print snapshots instead of a live table, also on a terminal.
    #[arg(long)]
    pub plain: bool,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 60)]
    pub limit: u64,
}

/// Runs the demonstration to its end.
///
/// # Errors
/// A child process cannot be started, or the gateway refuses what the demonstration asks.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let clock = SystemClock::start();
    let dir = directory(&args, &clock)?;
    print(&format!("posthaste demo in {}\n", dir.display()))?;
    let mut stage = Stage::build(&dir).await?;
    let done = show(&mut stage, &args, &clock).await?;
    let clean = stage.gateway.stop(&clock).await?;
    print(&closing(&dir, done, clean))?;
    Ok(if done && clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn directory(args: &Args, clock: &SystemClock) -> anyhow::Result<PathBuf> {
    let dir = args.dir.clone().unwrap_or_else(|| {
        let name = format!("posthaste-demo-{}", clock.now().millis());
        std::env::temp_dir().join(name)
    });
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn closing(dir: &Path, done: bool, clean: bool) -> String {
    let ending = match (done, clean) {
        (true, true) => "everything that could be delivered was; the gateway drained and stopped",
        (true, false) => "everything was delivered, but the gateway did not stop cleanly",
        (false, _) => "NOT everything was delivered in time; see the logs",
    };
    let dir = dir.display();
    format!(
        "\n{ending}.\n\
         data         {dir}/data\n\
         gateway log  {dir}/gateway.log\n\
         receivers    {dir}/healthy.jsonl, flaky.jsonl, dead.jsonl (a line per request)\n\
         look again   POSTHASTE__STORAGE__DIR={dir}/data POSTHASTE_ADMIN_KEY={KEY} posthaste serve\n"
    )
}

/// The gateway and its three receivers.
struct Stage {
    gateway: Process,
    api: Api,
    actors: Vec<Actor>,
}

/// One receiver and its endpoint.
struct Actor {
    row: Row,
    record: process::Record,
    /// Id of the endpoint.
    endpoint: String,
    /// Runs as long as this lives.
    _sink: Process,
}

/// Name and script of the three receivers.
const SCRIPTS: [(&str, &str, &[&str]); 3] = [
    ("healthy", "answers at once", &["--delay", "5ms"]),
    (
        "flaky",
        "fails the first try of 30 %",
        &["--delay", "20ms", "--fail", "1", "--share", "30"],
    ),
    (
        "dead",
        "fails always",
        &["--delay", "100ms", "--fail", "all"],
    ),
];

impl Stage {
    async fn build(dir: &Path) -> anyhow::Result<Self> {
        let address = process::free_port()?;
        let settings = [
            ("POSTHASTE_ADMIN_KEY", KEY.to_owned()),
            ("POSTHASTE__SERVER__LISTEN", address.to_string()),
            (
                "POSTHASTE__STORAGE__DIR",
                dir.join("data").display().to_string(),
            ),
            ("POSTHASTE__STORAGE__RESERVE", "1MiB".to_owned()),
            (
                "POSTHASTE__DELIVERY__ALLOW_NETWORKS",
                "127.0.0.0/8".to_owned(),
            ),
            (
                "POSTHASTE__DELIVERY__RETRY_SCHEDULE",
                "1s,1s,2s,2s,4s".to_owned(),
            ),
            ("POSTHASTE__DELIVERY__DISABLE", "consecutive".to_owned()),
            ("POSTHASTE__DELIVERY__DISABLE_FAILURES", "12".to_owned()),
        ];
        let gateway = Process::start("gateway", dir, &["serve"], &settings)?;
        let api = Api::new(address, KEY.to_owned());
        let mut stage = Self {
            gateway,
            api,
            actors: Vec::new(),
        };
        stage.wait_ready(dir).await?;
        let app = json!({"name": "Demo", "uid": "demo"});
        stage
            .api
            .must("POST", "/api/v1/app", Some(&app), 201)
            .await?;
        for (name, about, script) in SCRIPTS {
            stage.add(dir, name, about, script).await?;
        }
        Ok(stage)
    }

    async fn wait_ready(&mut self, dir: &Path) -> anyhow::Result<()> {
        for _ in 0..500 {
            if let Ok((200, _)) = self.api.call("GET", "/ready", None).await {
                return Ok(());
            }
            if self.gateway.has_ended()? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!(
            "the gateway did not start: see {}/gateway.log",
            dir.display()
        )
    }

    async fn add(
        &mut self,
        dir: &Path,
        name: &'static str,
        about: &'static str,
        script: &[&str],
    ) -> anyhow::Result<()> {
        let record = dir.join(format!("{name}.jsonl"));
        let record_text = record.display().to_string();
        let mut arguments = vec!["sink", "--listen", "127.0.0.1:0", "--quiet"];
        arguments.extend(["--record", &record_text]);
        arguments.extend(script);
        let secret = [("POSTHASTE_SINK_SECRET", SECRET.to_owned())];
        let mut sink = Process::start(name, dir, &arguments, &secret)?;
        let address: SocketAddr = sink.announced(dir).await?;
        let endpoint = json!({
            "url": format!("http://{address}/{name}"),
            "uid": name,
            "description": about,
            "secret": SECRET,
        });
        let path = format!("{APP}/endpoint");
        let made = self.api.must("POST", &path, Some(&endpoint), 201).await?;
        self.actors.push(Actor {
            row: Row::new(name, about),
            record: process::Record::new(record),
            endpoint: made["id"].as_str().unwrap_or(name).to_owned(),
            _sink: sink,
        });
        Ok(())
    }

    /// Reads what is new in the records, and the state of each endpoint.
    async fn refresh(&mut self, sent: &HashMap<String, Timestamp>) -> anyhow::Result<()> {
        for actor in &mut self.actors {
            for line in actor.record.news()? {
                let at = Timestamp::from_millis(line["at"].as_u64().unwrap_or(0));
                let id = line["id"].as_str().unwrap_or_default();
                let since = sent.get(id).map(|sent| at.since(*sent));
                actor.row.attempt(id, line["status"] == 204, since);
            }
            let path = format!("{APP}/endpoint/{}", actor.endpoint);
            let endpoint = self.api.must("GET", &path, None, 200).await?;
            actor.row.state = match (&endpoint["disabled"], actor.row.name) {
                (serde_json::Value::Bool(true), _) => State::Disabled,
                _ if actor.row.is_failing() => State::Slowed,
                _ => State::Sending,
            };
        }
        Ok(())
    }

    /// Whether everything has happened that the demonstration is about.
    fn is_done(&self, events: usize) -> bool {
        self.actors.iter().all(|actor| match actor.row.name {
            "dead" => actor.row.state == State::Disabled,
            _ => actor.row.delivered() >= events,
        })
    }
}

/// Sends and shows until all is done or the limit is over; answers whether it is done.
async fn show(stage: &mut Stage, args: &Args, clock: &SystemClock) -> anyhow::Result<bool> {
    let events = usize::try_from(args.events)?;
    let live = std::io::stdout().is_terminal() && !args.plain;
    let every = Duration::from_millis(if live { 250 } else { 2000 });
    let begin = clock.monotonic();
    let limit = Duration::from_secs(args.limit);
    let mut sent = HashMap::with_capacity(events);
    let mut shown: Option<Duration> = None;
    loop {
        let elapsed = clock.monotonic().saturating_sub(begin);
        let due = (elapsed.as_secs_f64() * f64::from(args.rate)).min(f64::from(args.events));
        while f64::from(u32::try_from(sent.len())?) < due {
            let event = events::event(sent.len(), clock.now());
            let path = format!("{APP}/msg");
            let at = clock.now();
            let made = stage.api.must("POST", &path, Some(&event), 202).await?;
            sent.insert(made["id"].as_str().unwrap_or_default().to_owned(), at);
        }
        let is_due = shown.is_none_or(|last| elapsed.saturating_sub(last) >= every);
        if is_due {
            stage.refresh(&sent).await?;
            let done = sent.len() == events && stage.is_done(events);
            let rows: Vec<&Row> = stage.actors.iter().map(|actor| &actor.row).collect();
            let text = table::table(&rows, sent.len(), events, elapsed);
            let up = if live && shown.is_some() {
                table::LINES
            } else {
                0
            };
            print(&table::frame(&text, up))?;
            shown = Some(elapsed);
            if done || elapsed > limit {
                return Ok(done);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
