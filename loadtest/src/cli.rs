//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::adapter::Adapter;
use crate::compare::CompareArgs;
use crate::payload::Filling;
use crate::run::{Target, any_port};
use crate::scenario::{LoadPlan, PacePlan, PayloadPlan, PopulationPlan, Scenario, SizePlan};
use crate::set::SetArgs;

/// Load generator, receiver and oracle for Posthaste: sizes a machine, finds a regression, proves that
/// nothing acknowledged is lost.
#[derive(Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a gateway in a temporary directory, load it, wait for the drain, print one table.
    Run(Box<RunArgs>),
    /// Run a set of scenarios, the standard set if none is named: tables, a record, a page.
    Set(Box<SetArgs>),
    /// Ratios of two records; fails if one is worse beyond a threshold.
    Compare(CompareArgs),
    /// Make the page of a record again.
    Page(PageArgs),
    /// Drive the ingest of a gateway that runs already.
    Ingest(IngestArgs),
    /// A fast receiver: counts, measures, plays behaviours by path (`/fast/0`, `/slow-250/0`,
    /// `/500/0`, `/429-5/0`, `/flap-10/0`, `/hang/0`, `/reset/0`).
    Sink(SinkArgs),
    /// What the machine allows: bare server, bare client, plain file.
    Ceiling(CeilingArgs),
    /// Hurt a gateway in named ways and prove that nothing acknowledged is lost (docs/TORTURE.md).
    Torture(TortureArgs),
    /// Judge a recorded history again.
    Check(CheckArgs),
    /// Record load and deliveries of a gateway that runs already, for `check`.
    Record(RecordArgs),
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TortureSet {
    /// Minutes.
    Ci = 0,
    /// Hours.
    Full = 1,
}

#[derive(Args)]
pub(crate) struct TortureArgs {
    /// Run this one only; repeatable. Without it all run.
    #[arg(long)]
    pub(crate) scenario: Vec<String>,
    /// Of all random choices; round n of a scenario uses seed + n. Without it a random one, printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Rounds of each scenario, instead of the set's.
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// How many rounds each scenario has.
    #[arg(long, value_enum, default_value_t = TortureSet::Ci)]
    pub(crate) set: TortureSet,
    /// The binary to start.
    #[arg(long, default_value = "target/release/posthaste")]
    pub(crate) gateway: PathBuf,
    /// Where the directory of the run is made. A real disk proves more than a memory file system.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Keep it also when all is well.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write the report here, as JSON.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
    /// Test the checker instead: every doctored history must be rejected by its rule.
    #[arg(long)]
    pub(crate) self_test: bool,
}

#[derive(Args)]
pub(crate) struct RecordArgs {
    /// Directory of the history; made if absent, must hold none yet.
    pub(crate) dir: PathBuf,
    /// Address of the gateway.
    #[arg(long, default_value = "127.0.0.1:8071")]
    pub(crate) address: SocketAddr,
    /// A key that may write messages.
    #[arg(long, env = "POSTHASTE_ADMIN_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Id or uid of the application.
    #[arg(long)]
    pub(crate) app: String,
    /// Endpoint of it whose URL is `http://LISTEN/NAME`: `NAME=ID=SECRET`; repeatable.
    #[arg(long)]
    pub(crate) endpoint: Vec<String>,
    /// Where the receiver listens; port 0 takes a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Connections of the producer.
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Milliseconds between two requests of a connection.
    #[arg(long, default_value_t = 10)]
    pub(crate) pause_ms: u64,
    /// Bytes of filling in a payload.
    #[arg(long, default_value_t = 200)]
    pub(crate) size: usize,
    /// Seconds of load; 0 = until it is stopped.
    #[arg(long, default_value_t = 0)]
    pub(crate) duration: u64,
    /// Seconds that the receiver stays after the load.
    #[arg(long, default_value_t = 5)]
    pub(crate) linger: u64,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Directory of the history.
    pub(crate) dir: PathBuf,
}

/// How the load looks.
#[derive(Args, Clone)]
pub(crate) struct LoadArgs {
    /// Connections of the generator.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Open loop: requests a second, latency counted from the planned start. Without it the loop
    /// is closed.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20)]
    pub(crate) duration: u64,
    /// Seconds before them.
    #[arg(long, default_value_t = 3)]
    pub(crate) warm_up: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// What the payload is filled with.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) filling: Filling,
    /// NDJSON batches of so many messages instead of single ones.
    #[arg(long)]
    pub(crate) batch: Option<u64>,
    /// A new connection for each request.
    #[arg(long)]
    pub(crate) no_keep_alive: bool,
    /// Send an `Idempotency-Key` with each request, as the SDKs do.
    #[arg(long)]
    pub(crate) idempotency: bool,
    /// Send a request again that got no answer, 429 or 503, until it is accepted.
    #[arg(long)]
    pub(crate) retry: bool,
    /// Share of the messages that no endpoint wants, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) unwanted: f64,
}

impl LoadArgs {
    pub(crate) fn plan(&self) -> LoadPlan {
        LoadPlan {
            pace: self
                .rate
                .filter(|rate| *rate > 0.0)
                .map_or(PacePlan::Closed {}, |rate| PacePlan::Open { rate }),
            connections: self.connections,
            threads: self.threads,
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.duration),
            batch: self.batch.unwrap_or(0),
            keep_alive: !self.no_keep_alive,
            idempotency: self.idempotency,
            retry: self.retry,
            source: false,
            unwanted: self.unwanted,
        }
    }
}

/// What is measured, and with what.
#[derive(Args, Clone)]
pub(crate) struct TargetArgs {
    /// The binary to start.
    #[arg(long, default_value = "target/release/posthaste")]
    gateway: PathBuf,
    /// Use a gateway that runs already instead.
    #[arg(long, requires = "key")]
    address: Option<SocketAddr>,
    /// Its admin key.
    #[arg(long)]
    key: Option<String>,
    /// How to speak to it: `posthaste`, `svix`, or a file (docs/LOADTEST.md).
    #[arg(long, default_value = "posthaste")]
    adapter: String,
    /// A process of the gateway that runs, `NAME=PID`, for CPU and memory; repeatable.
    #[arg(long = "pid", value_parser = process)]
    pids: Vec<(String, u32)>,
    /// Further environment of the gateway, `KEY=VALUE`; repeatable.
    #[arg(long = "env", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Where the temporary directory is made.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep it.
    #[arg(long)]
    keep: bool,
    /// Where the receiver listens; a free port of the loopback interface without it.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Of payload sizes and fillings.
    #[arg(long, env = "POSTHASTE_SEED", default_value_t = 1)]
    seed: u64,
}

impl TargetArgs {
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let address = self.address.zip(self.key.clone());
        let adapter = Adapter::named(&self.adapter)?;
        if address.is_none() && adapter.name != "posthaste" {
            anyhow::bail!(
                "{} must run already: give --address and --key",
                adapter.name
            );
        }
        Ok(Target {
            binary: self.gateway.clone(),
            address,
            adapter,
            env: self.env.clone(),
            pids: self.pids.clone(),
            dir: self.dir.clone().unwrap_or_else(std::env::temp_dir),
            keep: self.keep,
            listen: self.listen.unwrap_or_else(any_port),
            seed: self.seed,
        })
    }
}

#[derive(Args)]
pub(crate) struct PageArgs {
    /// The record.
    pub(crate) record: PathBuf,
    /// The page to write.
    #[arg(default_value = "report.html")]
    pub(crate) page: PathBuf,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Applications.
    #[arg(long, default_value_t = 1)]
    pub(crate) apps: u64,
    /// Endpoints of each application; 0 = nobody wants the messages.
    #[arg(long, default_value_t = 1)]
    pub(crate) endpoints: u64,
    /// What the endpoints do: behaviours with weights, such as `fast=9,hang=1`.
    #[arg(long, default_value = "fast")]
    pub(crate) behaviours: String,
    /// Concurrency limit set on each endpoint; without it the gateway's default holds.
    #[arg(long)]
    pub(crate) endpoint_concurrency: Option<u16>,
    /// Endpoints are disabled: only ingest is measured.
    #[arg(long)]
    pub(crate) disabled: bool,
    /// Verify the signature of every so many-th delivery; 0 = none.
    #[arg(long, default_value_t = 100)]
    pub(crate) verify_every: u64,
    /// Seconds to wait for the drain.
    #[arg(long, default_value_t = 120)]
    pub(crate) drain: u64,
    /// Measure the ceilings first, so many seconds each; 0 = do not.
    #[arg(long, default_value_t = 5)]
    pub(crate) ceilings: u64,
    /// Write the record here.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the page here.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
}

impl RunArgs {
    /// The scenario that the flags describe.
    pub(crate) fn scenario(&self) -> anyhow::Result<Scenario> {
        let scenario = Scenario {
            name: "run".to_owned(),
            title: "One run".to_owned(),
            about: "As the command line says.".to_owned(),
            standard: false,
            load: self.load.plan(),
            payload: PayloadPlan {
                size: SizePlan::Fixed(self.load.size),
                filling: self.load.filling,
            },
            population: PopulationPlan {
                applications: self.apps,
                endpoints: self.endpoints,
                behaviours: self.behaviours.clone(),
                concurrency: self.endpoint_concurrency,
                disabled: self.disabled,
            },
            gateway: std::collections::BTreeMap::new(),
            restart: None,
            management: None,
            backlog: None,
            history: None,
            sweep: None,
            point: None,
            drain: Duration::from_secs(self.drain),
            verify_every: self.verify_every,
            expect: Vec::new(),
        };
        let mistakes = scenario.mistakes();
        if !mistakes.is_empty() {
            anyhow::bail!("{}", mistakes.join("; "));
        }
        Ok(scenario)
    }
}

#[derive(Args)]
pub(crate) struct IngestArgs {
    /// Address of the gateway.
    #[arg(long, default_value = "127.0.0.1:8071")]
    pub(crate) address: SocketAddr,
    /// A key that may write messages.
    #[arg(long, env = "POSTHASTE_ADMIN_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Id or uid of the application; repeatable, messages go round.
    #[arg(long, default_value = "load-0")]
    pub(crate) app: Vec<String>,
    /// How to speak to it: `posthaste`, `svix`, or a file.
    #[arg(long, default_value = "posthaste")]
    pub(crate) adapter: String,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args)]
pub(crate) struct SinkArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8072")]
    pub(crate) listen: SocketAddr,
    /// Endpoints of an application (the number behind the behaviour in the path is below it).
    #[arg(long, default_value_t = 1)]
    pub(crate) slots: u64,
    /// Secret that verifies; without it nothing is verified.
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// Verify every so many-th delivery.
    #[arg(long, default_value_t = 100)]
    pub(crate) verify_every: u64,
    /// Seconds until it ends; 0 = until it is stopped.
    #[arg(long, default_value_t = 0)]
    pub(crate) duration: u64,
}

#[derive(Args)]
pub(crate) struct CeilingArgs {
    /// Connections of the generator, and waiting appends of the file.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Seconds for each.
    #[arg(long, default_value_t = 10)]
    pub(crate) duration: u64,
    /// Where the file of the file ceiling is made.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Write the record here.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

fn process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = pair(text)?;
    let pid = pid.parse().map_err(|_| "want NAME=PID")?;
    Ok((name, pid))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("want KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
