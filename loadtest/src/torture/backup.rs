//! `backup`: hot backups at random instants under load, restored elsewhere (T29).
//!
//! Each round takes a backup of a gateway under load, every third one after a backup that SIGKILL cut
//! off. It is restored by the product's own command, and a second gateway that may call nobody is
//! started on the result. Its messages must be those acknowledged up to the manifest's position, with
//! the bodies that were sent, and none beyond it. Then one file of the backup is damaged and the
//! restore must refuse without writing. The data directory grows older over the rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::{Method, StatusCode};
use rand::{Rng, RngExt};
use serde_json::{Value, json};

use super::trial::{EndpointPlan, Trial};
use super::world::{LOOK, World};
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::oracle::check::Rule;
use crate::oracle::history::{Call, Outcome, PRODUCER};
use crate::oracle::journal;
use crate::oracle::producer::Stream;
use crate::oracle::receiver::{Behaviour, hash};

/// Commits may wait so long for a backup.
const PAUSE: f64 = 100.0;
/// Acknowledged in a round, at least.
const LEAST: u64 = 30;
/// For the backlog of a round.
const DRAIN: Duration = Duration::from_secs(30);
/// For a backup, and for the start of the restored gateway.
const SOON: Duration = Duration::from_secs(60);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "backup",
    about: "hot backups under load, cut off, restored elsewhere, damaged",
    rounds: [9, 100],
    chained: true,
    prepare,
};

struct Backup {
    trial: Trial,
    gateway: PathBuf,
    dir: PathBuf,
    backups: PathBuf,
    rounds: u32,
    /// Every acknowledged message over all rounds: id and hash of its payload.
    acknowledged: BTreeMap<String, String>,
    /// Payload hashes of everything that was ever asked for.
    asked: std::collections::BTreeSet<String>,
    pauses: Vec<f64>,
    /// Worst latency of a call that was sent during a backup, in milliseconds.
    slowest_ms: u64,
    restore_ms: u128,
    cut_off: u32,
    unfinished: u32,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let backups = stage.dir.join("backups");
    std::fs::create_dir_all(&backups)?;
    let backups = std::fs::canonicalize(backups)?;
    let mut trial = Trial::new(stage, &stage.dir.join("data"))?;
    // Small tables: flushes and compactions happen beside the backups.
    trial.world.set("storage.memtable", "1MiB");
    trial
        .world
        .set("storage.backup_dir", &backups.display().to_string());
    trial.agree(|rules| rules.at_least.acknowledged = LEAST)?;
    trial.start()?;
    for (name, app, behaviour) in [
        ("well", "acme", Behaviour::Well),
        ("flaky", "acme", Behaviour::Flaky(20)),
        ("slow", "doomed", Behaviour::Slow(Duration::from_millis(20))),
    ] {
        trial.endpoint(&EndpointPlan::new(name, app, behaviour))?;
    }
    Ok(Box::new(Backup {
        trial,
        gateway: std::fs::canonicalize(&stage.gateway)?,
        dir: std::fs::canonicalize(&stage.dir)?,
        backups,
        rounds: 0,
        acknowledged: BTreeMap::new(),
        asked: std::collections::BTreeSet::new(),
        pauses: Vec::new(),
        slowest_ms: 0,
        restore_ms: 0,
        cut_off: 0,
        unfinished: 0,
    }))
}

impl Rounds for Backup {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        if self.rounds > 0 {
            self.trial.next_history()?;
        }
        self.rounds += 1;
        let size = random.random_range(200..20_000);
        let stream = |app: &str, connections, pause| Stream {
            app: app.to_owned(),
            connections,
            pause: Duration::from_millis(pause),
            size,
        };
        let load = self
            .trial
            .load(&[stream("acme", 6, 2), stream("doomed", 1, 30)])?;
        self.acknowledge(LEAST)?;
        std::thread::sleep(Duration::from_micros(random.random_range(0..200_000)));
        let mut broken = Vec::new();
        if self.rounds.is_multiple_of(3) {
            self.cut_off(&mut random, &mut broken)?;
        }
        let (sure, begun) = (self.noted()?, self.trial.clock.now());
        let name = format!("round-{}", self.rounds);
        let (status, started) = self.ask(&name)?;
        if status != StatusCode::ACCEPTED {
            bail!("the backup was refused: {status} {started}");
        }
        let done = self.wait(&started)?;
        let ended = self.trial.clock.now();
        let more = self.trial.caller().acknowledged() + LEAST;
        self.acknowledge(more)?;
        load.stop()?;
        self.trial.settle(DRAIN)?;
        self.read_history(begun, ended)?;
        let mut result = self.trial.result()?;
        broken.extend(self.compare(&name, &done, &sure)?);
        broken.extend(self.damage(&name, &mut random)?);
        let pause = done["pauseMs"].as_f64().context("a backup has a pause")?;
        self.pauses.push(pause);
        result.must(
            pause <= PAUSE,
            Rule::C10,
            format!("commits paused for {pause:.1} ms, not within {PAUSE} ms"),
        );
        let lost = broken
            .iter()
            .filter(|what| what.starts_with("lost"))
            .count();
        result.lost += lost as u64;
        for what in broken {
            result.must(false, Rule::C1, what);
        }
        if result.violations.is_empty() {
            std::fs::remove_dir_all(&self.backups)?;
            std::fs::create_dir(&self.backups)?;
        }
        Ok(result)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        let mut result = RoundResult::default();
        self.pauses.sort_by(f64::total_cmp);
        let worst = self.pauses.last().copied().unwrap_or_default();
        let median = self.pauses.get(self.pauses.len() / 2).copied();
        result.notes.push(format!(
            "pause of commits: median {:.1} ms, worst {worst:.1} ms; worst latency of a producer during a backup {} ms; {} backups cut off by SIGKILL, {} of them unfinished; slowest restore {} ms",
            median.unwrap_or_default(),
            self.slowest_ms,
            self.cut_off,
            self.unfinished,
            self.restore_ms,
        ));
        Ok(result)
    }
}

impl Backup {
    /// Waits until so many calls of this history are acknowledged.
    fn acknowledge(&self, wanted: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        while self.trial.caller().acknowledged() < wanted {
            if Instant::now() > deadline {
                bail!("not {wanted} messages acknowledged within {SOON:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn ask(&self, name: &str) -> anyhow::Result<(StatusCode, Value)> {
        let body = json!({ "name": name });
        let world = &self.trial.world;
        world.api(Method::POST, "/api/v1/admin/backup", Some(&body))
    }

    fn wait(&self, started: &Value) -> anyhow::Result<Value> {
        let id = started["id"].as_str().context("a task has an id")?;
        let path = format!("/api/v1/background-task/{id}");
        let deadline = Instant::now() + SOON;
        loop {
            let (_, task) = self.trial.world.api(Method::GET, &path, None)?;
            match task["status"].as_str() {
                Some("finished") => return Ok(task["data"].clone()),
                Some("running") if Instant::now() < deadline => std::thread::sleep(LOOK),
                _ => bail!("the backup did not finish: {task}"),
            }
        }
    }

    /// SIGKILL while a backup is taken: what is left is whole, or it has no manifest and is refused.
    fn cut_off(&mut self, random: &mut impl Rng, broken: &mut Vec<String>) -> anyhow::Result<()> {
        let name = format!("cut-{}", self.rounds);
        self.ask(&name)?;
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
        self.trial.kill()?;
        self.trial.start()?;
        self.cut_off += 1;
        let backup = self.backups.join(&name);
        let target = self.dir.join("from-cut");
        let (code, said) = self.restore(&backup, &target)?;
        let is_whole = backup.join("manifest.json").exists();
        self.unfinished += u32::from(!is_whole);
        match (is_whole, code) {
            (true, Some(0)) | (false, Some(78)) => {}
            _ => broken.push(format!(
                "a backup cut off by SIGKILL (manifest: {is_whole}) ended the restore with {code:?}: {said}"
            )),
        }
        if !is_whole && target.exists() {
            broken.push(String::from("an unfinished backup was restored in part"));
        }
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
        Ok(())
    }

    fn restore(&self, backup: &Path, to: &Path) -> anyhow::Result<(Option<i32>, String)> {
        let output = Command::new(&self.gateway)
            .args(["restore".as_ref(), backup.as_os_str()])
            .args(["--to".as_ref(), to.as_os_str()])
            .output()
            .context("cannot start the restore")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &said;
        Ok((output.status.code(), said))
    }

    /// Ids acknowledged up to now, of this history.
    fn noted(&self) -> anyhow::Result<Vec<String>> {
        let calls = journal::read::<Call>(&self.trial.dir, PRODUCER)?;
        let ids = calls.into_iter().filter_map(|(_, call)| match call {
            Call::End {
                outcome: Outcome::Acknowledged { id, .. },
                ..
            } => Some(id),
            _ => None,
        });
        Ok(ids.collect())
    }

    /// Adds what the producer recorded, and the worst call that overlapped the backup.
    fn read_history(&mut self, begun: u64, ended: u64) -> anyhow::Result<()> {
        let mut open = BTreeMap::new();
        for (_, call) in journal::read::<Call>(&self.trial.dir, PRODUCER)? {
            match call {
                Call::Begin { at, call, hash, .. } => {
                    self.asked.insert(hash.clone());
                    open.insert(call, (at, hash));
                }
                Call::End { at, call, outcome } => {
                    let Some((from, hash)) = open.remove(&call) else {
                        continue;
                    };
                    // Not those that had waited for a restart before it.
                    if (begun..ended).contains(&from) {
                        self.slowest_ms = self.slowest_ms.max((at - from) / 1000);
                    }
                    if let Outcome::Acknowledged { id, .. } = outcome {
                        self.acknowledged.insert(id, hash);
                    }
                }
            }
        }
        Ok(())
    }

    /// Restores, starts, and compares with what was acknowledged.
    fn compare(
        &mut self,
        name: &str,
        done: &Value,
        sure: &[String],
    ) -> anyhow::Result<Vec<String>> {
        let mut broken = Vec::new();
        let number = |field: &str| done[field].as_u64().context("a position is a number");
        let tail = (number("lane")?, number("seq")?);
        let target = self.dir.join("restored");
        let begun = Instant::now();
        let (code, said) = self.restore(&self.backups.join(name), &target)?;
        self.restore_ms = self.restore_ms.max(begun.elapsed().as_millis());
        if code != Some(0) {
            return Ok(vec![format!(
                "lost: the restore ended with {code:?}: {said}"
            )]);
        }
        let mut copy = World::new(&self.gateway, &self.dir.join("copy"), &target)?;
        // It must not call the endpoints of the original.
        copy.set("delivery.allow_networks", "");
        copy.start(SOON)?;
        let found = listed(&copy)?;
        copy.terminate(SOON)?;
        std::fs::remove_dir_all(&target)?;
        for id in sure {
            if place(id)? > tail {
                broken.push(format!(
                    "lost: {id} was acknowledged before the backup began"
                ));
            }
        }
        for (id, hash) in &self.acknowledged {
            if place(id)? <= tail && found.get(id) != Some(hash) {
                broken.push(format!(
                    "lost: {id} is {:?} after the restore",
                    found.get(id)
                ));
            }
        }
        for (id, hash) in &found {
            if place(id)? > tail {
                broken.push(format!("{id} was restored and lies beyond the position"));
            }
            if !self.asked.contains(hash) {
                broken.push(format!("{id} was restored with a payload nobody sent"));
            }
        }
        Ok(broken)
    }

    /// Damages one file; the restore must say which and write nothing.
    fn damage(&self, name: &str, random: &mut impl Rng) -> anyhow::Result<Vec<String>> {
        let backup = self.backups.join(name);
        let mut files = Vec::new();
        walk(&backup, &mut files)?;
        files.sort();
        let file = &files[random.random_range(0..files.len())];
        let mut bytes = std::fs::read(file)?;
        // In its place: table files are shared with the store.
        std::fs::remove_file(file)?;
        let what = match random.random_range(0..3) {
            0 => "deleted",
            1 if !bytes.is_empty() => {
                bytes.truncate(random.random_range(0..bytes.len()));
                std::fs::write(file, &bytes)?;
                "cut"
            }
            _ if !bytes.is_empty() => {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
                std::fs::write(file, &bytes)?;
                "flipped"
            }
            _ => "deleted",
        };
        let target = self.dir.join("from-damaged");
        let (code, said) = self.restore(&backup, &target)?;
        let mut broken = Vec::new();
        if code != Some(78) || target.exists() {
            broken.push(format!(
                "{} was {what} and the restore ended with {code:?}: {said}",
                file.display()
            ));
        }
        Ok(broken)
    }
}

/// Ids and payload hashes of all messages of both applications.
fn listed(world: &World) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for app in ["acme", "doomed"] {
        let mut iterator = String::new();
        loop {
            let path = format!("/api/v1/app/{app}/msg?limit=250{iterator}");
            let (status, page) = world.api(Method::GET, &path, None)?;
            if !status.is_success() {
                bail!("the restored gateway does not list its messages: {status} {page}");
            }
            for item in page["data"].as_array().into_iter().flatten() {
                let id = item["id"].as_str().context("a message has an id")?;
                // Written by the producer with sorted keys and no blanks, as here.
                let sum = hash(item["payload"].to_string().as_bytes());
                found.insert(id.to_owned(), sum);
            }
            match page["iterator"].as_str() {
                Some(at) if page["done"] == false => iterator = format!("&iterator={at}"),
                _ => break,
            }
        }
    }
    Ok(found)
}

/// Lane and sequence number in a message's id: 27 base62 digits carry 160 bits, of which 48 are
/// milliseconds, 32 the lane, 64 the number.
fn place(id: &str) -> anyhow::Result<(u64, u64)> {
    let digits = id.strip_prefix("msg_").context("a message id")?;
    let mut bytes = [0_u8; 20];
    for digit in digits.bytes() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => bail!("{id} is no message id"),
        };
        let mut carry = u32::from(value);
        for byte in bytes.iter_mut().rev() {
            let sum = u32::from(*byte) * 62 + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
    }
    let word = |range: std::ops::Range<usize>| {
        let part = bytes.get(range).unwrap_or_default();
        part.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    Ok((word(6..10), word(10..18)))
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn the_position_is_read_out_of_a_message_id() {
        // 48 bits of milliseconds, lane 7, number 9, two spare bytes: in base 62, by another way.
        let bits = [
            0_u8, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0,
        ];
        let mut rest: Vec<u32> = bits.iter().map(|byte| u32::from(*byte)).collect();
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut text = Vec::new();
        for _ in 0..27 {
            let mut carry = 0;
            for byte in &mut rest {
                let sum = carry << 8 | *byte;
                *byte = sum / 62;
                carry = sum % 62;
            }
            text.push(digits[carry as usize]);
        }
        text.reverse();
        let id = format!("msg_{}", String::from_utf8(text).unwrap());
        assert_eq!(place(&id).unwrap(), (7, 9));
        assert!(place("msg_-").is_err());
    }
}
