//! `loadtest torture`: named scenarios that hurt a real gateway and prove that nothing acknowledged
//! is lost.
//!
//! A scenario is a [`Scenario`] in [`scenarios`]: a name, how many rounds the CI and the full set
//! run, and a function that sets it up on a [`Stage`] and answers its rounds. To add one:
//!
//! 1. Write a file with a struct that implements [`Rounds`]: one call is one round with a seed, all
//!    randomness comes from that seed, and its result is the checker's verdict ([`trial::Trial::result`])
//!    plus whatever else the scenario demands ([`RoundResult::must`]). A struct that keeps its
//!    [`trial::Trial`] over the rounds lets the data directory grow older; call [`trial::Trial::next_history`]
//!    between rounds so that the checker reads each round once.
//! 2. Add a `SCENARIO` constant and name it in [`scenarios`].
//! 3. Describe it in `docs/TORTURE.md`.
//!
//! What cannot run here (no root, no strace) is an error, never skipped. Elsewhere: recording and
//! judging ([`crate::oracle`]), the table ([`report`]).

mod accept;
mod backup;
mod chaos;
mod disk;
mod idempotency;
mod kill;
mod names;
mod report;
mod source;
mod syscall;
pub(crate) mod tracer;
pub(crate) mod trial;
mod upgrade;
pub(crate) mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cli::{TortureArgs, TortureSet};
use crate::clock::Clock;
use crate::oracle::check::Violation;
use crate::oracle::doctored;
use crate::report::say;
use report::{Row, Table};

/// All scenarios, in the order they run.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        kill::SCENARIO,
        syscall::SCENARIO,
        accept::SCENARIO,
        idempotency::SCENARIO,
        source::SCENARIO,
        chaos::SCENARIO,
        backup::SCENARIO,
        upgrade::SCENARIO,
    ];
    all.extend(disk::SCENARIOS);
    all
}

/// A named way to hurt a gateway.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// One line for `--help` and the report.
    pub(crate) about: &'static str,
    /// Rounds of the CI set and of the full set.
    pub(crate) rounds: [u32; 2],
    /// Whether a round builds on the ones before it (a data directory that grows older); to repeat
    /// one then means to repeat all before it.
    pub(crate) chained: bool,
    /// Sets it up; called once, before the first round.
    pub(crate) prepare: fn(&Stage) -> anyhow::Result<Box<dyn Rounds>>,
}

/// A scenario that is set up.
pub(crate) trait Rounds {
    /// One round. Blocks. An error means that the harness could not do its work: the scenario
    /// fails and ends; a broken promise is a violation in the result instead.
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult>;

    /// After the last round: what can only be seen over all of them.
    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        Ok(RoundResult::default())
    }
}

/// Where a scenario plays.
#[derive(Clone)]
pub(crate) struct Stage {
    /// The binary.
    pub(crate) gateway: PathBuf,
    /// Of this scenario alone; kept when it fails.
    pub(crate) dir: PathBuf,
    pub(crate) set: TortureSet,
    pub(crate) clock: Clock,
}

/// What a round showed.
#[derive(Debug, Default)]
pub(crate) struct RoundResult {
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// Figures worth a line, such as the time to recover.
    pub(crate) notes: Vec<String>,
    pub(crate) violations: Vec<Violation>,
    /// Directory of the history, for `loadtest check`.
    pub(crate) history: Option<PathBuf>,
}

/// Runs what `args` ask for; success only if every scenario kept every promise.
pub(crate) fn torture(args: &TortureArgs) -> anyhow::Result<ExitCode> {
    let checker_is_sound = self_test(args.dir.as_deref())?;
    if args.self_test || !checker_is_sound {
        return Ok(crate::exit(checker_is_sound));
    }
    let chosen = choose(&args.scenario)?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => rand::rng().random_range(0..1_000_000_000),
    };
    let dir = tempfile::Builder::new()
        .prefix("posthaste-torture-")
        .tempdir_in(args.dir.clone().unwrap_or_else(std::env::temp_dir))?;
    say(&format!(
        "seed {seed}; histories in {}",
        dir.path().display()
    ));
    let mut table = Table::new(seed);
    for scenario in chosen {
        table.rows.push(play(&scenario, args, seed, dir.path()));
    }
    say(&table.to_string());
    if let Some(path) = &args.report {
        crate::report::record(path, &table)?;
    }
    if !table.is_good() || args.keep {
        say(&format!("kept {}", dir.keep().display()));
    }
    Ok(crate::exit(table.is_good()))
}

/// A checker that cannot fail proves nothing, so every run begins with this.
fn self_test(dir: Option<&Path>) -> anyhow::Result<bool> {
    let dir = tempfile::Builder::new()
        .prefix("posthaste-torture-")
        .tempdir_in(dir.map_or_else(std::env::temp_dir, Path::to_owned))?;
    let wrong = doctored::self_test(dir.path())?;
    for what in &wrong {
        say(&format!("FAULT: {what}"));
    }
    say(&format!(
        "self-test of the checker: {} doctored histories, {} faults",
        doctored::DOCTORED.len(),
        wrong.len()
    ));
    Ok(wrong.is_empty())
}

fn choose(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let all = scenarios();
    if names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let found = all.iter().find(|one| one.name == name);
        found.copied().with_context(|| {
            let known: Vec<_> = all.iter().map(|one| one.name).collect();
            format!("no scenario `{name}`; there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// One scenario from its first round to the first that fails.
fn play(scenario: &Scenario, args: &TortureArgs, seed: u64, dir: &Path) -> Row {
    let rounds = args.rounds.unwrap_or(scenario.rounds[args.set as usize]);
    say(&format!(
        "== {}: {rounds} rounds; {}",
        scenario.name, scenario.about
    ));
    let begun = Instant::now();
    let mut row = Row::new(scenario.name);
    if let Err(error) = play_rounds(scenario, args, (seed, rounds), dir, &mut row) {
        row.complain(&format!("the harness failed: {error:#}"));
    }
    row.seconds = begun.elapsed().as_secs_f64();
    say(&format!("== {}", row.line()));
    row
}

fn play_rounds(
    scenario: &Scenario,
    args: &TortureArgs,
    (seed, rounds): (u64, u32),
    dir: &Path,
    row: &mut Row,
) -> anyhow::Result<()> {
    let stage = Stage {
        gateway: args.gateway.clone(),
        dir: dir.join(scenario.name),
        set: args.set,
        clock: Clock::start(),
    };
    std::fs::create_dir_all(&stage.dir)?;
    let begun = Instant::now();
    let mut prepared = (scenario.prepare)(&stage)
        .with_context(|| format!("cannot set up in {}", stage.dir.display()))?;
    for round in 0..rounds {
        let round_seed = seed.wrapping_add(u64::from(round));
        let again = if scenario.chained {
            format!("--seed {seed} --rounds {}", round + 1)
        } else {
            format!("--seed {round_seed} --rounds 1")
        };
        let result = prepared.round(round_seed).with_context(|| {
            format!(
                "round {round}; again: loadtest torture --scenario {} {again}",
                scenario.name
            )
        })?;
        row.rounds += 1;
        row.add(&result);
        row.seconds = begun.elapsed().as_secs_f64();
        if !result.violations.is_empty() {
            row.complain(&format!(
                "round {round}, seed {round_seed}, history {}; again: loadtest torture --scenario {} {again} --gateway {}",
                result.history.as_deref().unwrap_or(dir).display(),
                scenario.name,
                args.gateway.display()
            ));
            return Ok(());
        }
        if (round + 1) % 10 == 0 {
            say(&format!("   {}", row.line()));
        }
    }
    let last = prepared.finish()?;
    row.add(&last);
    if rounds == 0 {
        bail!("no rounds");
    }
    Ok(())
}

/// The random numbers of a round.
pub(crate) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}
