//! One sample of `bit-rot`: a copy of a store, one damage, and what the gateway makes of it.
//!
//! Two verdicts are good. Refused: exit code 78, a message that names a place or a batch, and all that
//! was on disk is still there. Whole: it starts, every acknowledged message is listed with the body
//! that was sent, what was delivered is listed as delivered, and what was held back arrives when its
//! endpoint is switched on. Everything else is a violation: silence, a crash, a hang, another exit
//! code, memory without bound. `posthaste verify` is asked about a copy of its own.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::world::World;
use super::damage::{Damage, files};
use super::{REFUSED, until};
use crate::oracle::check::{Rule, Violation};
use crate::oracle::history::{Delivery, RECEIVER};
use crate::oracle::journal;
use crate::oracle::receiver::{Receiver, hash};

/// From the start to readiness or refusal, and to the end of `verify`.
const START: Duration = Duration::from_secs(20);
/// For what was held back.
const ARRIVES: Duration = Duration::from_secs(20);
/// Resident memory, in KiB: 512 MiB.
const MEMORY_KIB: u64 = 512 * 1024;

/// A store that was made to be damaged.
pub(super) struct Original {
    pub(super) name: &'static str,
    pub(super) data: PathBuf,
    /// Hash of the body by id, of each acknowledged message: delivered ones and held ones.
    pub(super) delivered: HashMap<String, String>,
    pub(super) held: HashMap<String, String>,
    /// Of an application that nobody listens to: they only fill a journal.
    pub(super) bulk: HashMap<String, String>,
    /// Files, within `data`, that are never written again: copies share them.
    pub(super) shared: HashSet<PathBuf>,
    /// Whether everything in `delivered` had been delivered when the store was closed.
    pub(super) is_settled: bool,
    pub(super) endpoints: Endpoints,
}

/// Ids of the two endpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Endpoints {
    pub(super) well: String,
    pub(super) held: String,
}

/// Applications of the two endpoints.
pub(super) const WELL: &str = "acme";
pub(super) const HELD: &str = "later";
/// The application without an endpoint.
pub(super) const BULK: &str = "bulk";

/// What a sample showed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) refused: bool,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) violations: Vec<Violation>,
}

/// Where samples are made.
pub(super) struct Bench<'a> {
    pub(super) gateway: &'a Path,
    pub(super) dir: &'a Path,
    pub(super) receiver: &'a Receiver,
}

impl Bench<'_> {
    /// Copies, damages, starts, judges.
    pub(super) fn sample(&self, original: &Original, damage: &Damage) -> anyhow::Result<Shown> {
        if self.dir.exists() {
            fs::remove_dir_all(self.dir)?;
        }
        fs::create_dir_all(self.dir)?;
        let (served, verified) = (self.dir.join("data"), self.dir.join("verified"));
        for copied in [&served, &verified] {
            copy(original, copied, damage)?;
            damage.inflict(copied)?;
        }
        let mut shown = Shown::default();
        let mut world = World::new(self.gateway, self.dir, &served)?;
        settings(&mut world);
        world.set("delivery.retry_schedule", "200ms,500ms,1s,2s");
        let before = contents(&served)?;
        world.launch()?;
        let peak = wait(&mut world)?;
        shown.must(peak < MEMORY_KIB, || format!("{peak} KiB of memory"));
        if world.is_running() {
            self.compare(original, &world, &mut shown)?;
            shown.must(world.is_running(), || {
                "it ended while it was asked".to_owned()
            });
            world.kill()?;
        } else {
            shown.refused = true;
            let code = world.exit_code();
            let said = world.log_tail();
            shown.must(code == Some(REFUSED), || {
                format!("it ended with {code:?}: {said}")
            });
            let names = said.contains(&served.display().to_string()) || said.contains("batch");
            shown.must(names, || format!("it does not say where: {said}"));
            let gone = missing(&before, &served)?;
            if !gone.is_empty() {
                self.undo(original, damage, &mut world, &mut shown)
                    .with_context(|| format!("changed although refused: {gone:?}"))?;
            }
        }
        shown.must(!world.log_tail().contains("panicked"), || world.log_tail());
        self.verify(&verified, &mut shown)?;
        Ok(shown)
    }

    /// Some damage shows only after the database has opened, which tidies up files that it needs no
    /// more. Nothing is destroyed if all is whole once the damaged file is put back.
    fn undo(
        &self,
        original: &Original,
        damage: &Damage,
        world: &mut World,
        shown: &mut Shown,
    ) -> anyhow::Result<()> {
        fs::write(
            world.data.join(&damage.path),
            content(&original.data.join(&damage.path))?,
        )?;
        world.launch()?;
        wait(world)?;
        let starts = world.is_running();
        shown.must(starts, || {
            let said = world.log_tail();
            format!("the refused start has destroyed something: {said}")
        });
        if starts {
            self.compare(original, world, shown)?;
            world.kill()?;
        }
        Ok(())
    }

    /// The offline check must agree.
    fn verify(&self, data: &Path, shown: &mut Shown) -> anyhow::Result<()> {
        let mut child = Command::new(self.gateway)
            .arg("verify")
            .env("POSTHASTE__STORAGE__DIR", data)
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.dir.join("verify.out"))?)
            .stderr(fs::File::create(self.dir.join("verify.err"))?)
            .spawn()
            .context("cannot start the gateway")?;
        let ended = until("verify ends", START, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let code = ended?.code();
        let said = ["verify.out", "verify.err"]
            .map(|name| fs::read_to_string(self.dir.join(name)).unwrap_or_default());
        let expected = if shown.refused {
            &[REFUSED][..]
        } else {
            &[0, REFUSED]
        };
        shown.must(code.is_some_and(|code| expected.contains(&code)), || {
            format!("verify ended with {code:?} instead of one of {expected:?}: {said:?}")
        });
        shown.must(!said.concat().contains("panicked"), || {
            format!("verify: {said:?}")
        });
        Ok(())
    }

    /// Whether all that was acknowledged is there and moves.
    fn compare(&self, original: &Original, world: &World, shown: &mut Shown) -> anyhow::Result<()> {
        self.receiver.record_in(self.dir)?;
        for (app, expected) in [(WELL, &original.delivered), (HELD, &original.held)] {
            let found = bodies(world, app)?;
            for (id, body) in expected {
                match found.get(id) {
                    None => shown.lose(format!("{id} of {app} is gone in silence")),
                    Some(other) if other != body => {
                        shown.lose(format!("{id} of {app} has another body"));
                    }
                    Some(_) => {}
                }
            }
        }
        if !original.bulk.is_empty() {
            let found = listed(world, BULK)?;
            for id in original.bulk.keys().filter(|id| !found.contains(*id)) {
                shown.lose(format!("{id} of {BULK} is gone in silence"));
            }
        }
        let url = |name: &str| format!("http://{}/{name}", self.receiver.address);
        for (app, endpoint, name) in [
            (WELL, &original.endpoints.well, "well"),
            (HELD, &original.endpoints.held, "held"),
        ] {
            let path = format!("/api/v1/app/{app}/endpoint/{endpoint}");
            let body = json!({"url": url(name), "disabled": false});
            let (status, answer) = world.api(Method::PATCH, &path, Some(&body))?;
            shown.must(status.is_success(), || {
                format!("PATCH {path}: {status} {answer}")
            });
        }
        self.arrives(original, world, shown)
    }

    fn arrives(&self, original: &Original, world: &World, shown: &mut Shown) -> anyhow::Result<()> {
        let waits = |app: &str, endpoint: &str, expected: &HashMap<String, String>| {
            let states = states(world, app, endpoint)?;
            let is_delivered = |id: &&String| states.get(*id).is_some_and(|one| one == "success");
            let open = expected.keys().filter(|id| !is_delivered(id)).count();
            anyhow::Ok((open == 0).then_some(()))
        };
        let ids = &original.endpoints;
        for (app, endpoint, expected) in [
            (HELD, &ids.held, &original.held),
            (WELL, &ids.well, &original.delivered),
        ] {
            let all = until("everything is delivered", ARRIVES, || {
                waits(app, endpoint, expected)
            });
            if all.is_err() {
                shown.lose(format!("not everything of {app} is delivered"));
            }
        }
        for (_, seen) in journal::read::<Delivery>(self.dir, RECEIVER)? {
            let (expected, is_new) = match seen.endpoint.as_str() {
                "held" => (original.held.get(&seen.id), true),
                _ => (original.delivered.get(&seen.id), !original.is_settled),
            };
            // Messages without an acknowledgement may be there as well.
            let differs = expected.is_some_and(|body| *body != seen.hash);
            shown.must(!differs, || {
                format!("{} was delivered with another body", seen.id)
            });
            let bad = seen.bad_signature.is_some();
            shown.must(!bad, || format!("{}: {:?}", seen.id, seen.bad_signature));
            let again = !is_new && expected.is_some();
            shown.duplicates += u64::from(again);
            shown.must(!again, || {
                format!(
                    "{} was delivered again although its outcome was stored",
                    seen.id
                )
            });
        }
        for id in original.held.keys() {
            if !self.receiver.has("held", id) {
                shown.lose(format!("{id} is listed as delivered but never arrived"));
            }
        }
        Ok(())
    }
}

impl Shown {
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Violation::new(Rule::C3, what()));
        }
    }

    fn lose(&mut self, what: String) {
        self.lost += 1;
        if self.lost <= 3 {
            self.violations.push(Violation::new(Rule::C1, what));
        }
    }
}

/// What the stores of this scenario are made and opened with.
pub(super) fn settings(world: &mut World) {
    world.set("storage.memtable", "1MiB");
    world.set("storage.high_water", "every-commit");
    world.set("delivery.disable", "never");
}

/// Waits until it is ready or has ended; answers the most memory it was seen with, in KiB.
fn wait(world: &mut World) -> anyhow::Result<u64> {
    let mut peak = 0;
    until("the gateway is ready or ends", START, || {
        if world.ended()?.is_some() {
            return Ok(Some(()));
        }
        if let Ok(pid) = world.pid() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let high = high.and_then(|high| high.split_whitespace().next()?.parse().ok());
            peak = high.unwrap_or(0).max(peak);
        }
        let ready = world.api(Method::GET, "/ready", None);
        Ok(ready
            .is_ok_and(|(status, _)| status.is_success())
            .then_some(()))
    })
    .with_context(|| world.log_tail())?;
    Ok(peak)
}

/// Copies a data directory. What is never written again is linked, unless it is to be damaged; the
/// zeros at the end of a file become a hole.
fn copy(original: &Original, to: &Path, damage: &Damage) -> anyhow::Result<()> {
    for from in files(&original.data)? {
        let path = from.strip_prefix(&original.data)?;
        let target = to.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if original.shared.contains(path) && path != damage.path {
            fs::hard_link(&from, &target)?;
        } else {
            fs::write(&target, content(&from)?)?;
            let length = fs::metadata(&from)?.len();
            fs::File::options()
                .write(true)
                .open(&target)?
                .set_len(length)?;
        }
    }
    // Directories without a file count too.
    for space in fs::read_dir(original.data.join("db/keyspaces"))? {
        let tables = Path::new("db/keyspaces")
            .join(space?.file_name())
            .join("tables");
        fs::create_dir_all(to.join(tables))?;
    }
    Ok(())
}

/// A file without the zeros at its end.
fn content(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = fs::read(path)?;
    let used = bytes.iter().rposition(|byte| *byte != 0);
    bytes.truncate(used.map_or(0, |last| last + 1));
    Ok(bytes)
}

/// What a file holds.
#[derive(PartialEq)]
enum Content {
    /// Shared with the original and so large that only its identity is looked at.
    Link(u64),
    Bytes(Vec<u8>),
}

impl Content {
    fn holds(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::Bytes(own) if own == bytes)
    }
}

/// Contents of all files, without the zeros at their ends.
fn contents(dir: &Path) -> anyhow::Result<Vec<(PathBuf, Content)>> {
    let read = |path: PathBuf| {
        let about = fs::metadata(&path)?;
        let content = if about.nlink() > 1 {
            Content::Link(about.ino())
        } else {
            Content::Bytes(content(&path)?)
        };
        anyhow::Ok((path, content))
    };
    files(dir)?.into_iter().map(read).collect()
}

/// Files that are not as they were, and of which no copy is there.
fn missing(before: &[(PathBuf, Content)], data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let now = contents(data)?;
    let is_kept = |content: &Content| {
        now.iter().any(|(_, other)| match (other, content) {
            _ if other == content => true,
            // What is cut off a journal is kept beside it.
            (Content::Bytes(other), Content::Bytes(all)) => {
                let rest = all.strip_prefix(other.as_slice());
                let aside = |rest: &[u8]| now.iter().any(|(_, one)| one.holds(rest));
                rest.is_some_and(aside)
            }
            _ => false,
        })
    };
    let empty = Content::Bytes(Vec::new());
    let gone = before
        .iter()
        .filter(|(_, content)| *content != empty && !is_kept(content));
    Ok(gone.map(|(path, _)| path.clone()).collect())
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    iterator: Option<String>,
    done: bool,
}

/// Every page of a list.
fn pages<T: for<'a> Deserialize<'a>>(world: &World, path: &str) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    let mut from = String::new();
    loop {
        let (_, bytes) = world.bytes(Method::GET, &format!("{path}{from}"), None)?;
        let page: Page<T> = serde_json::from_slice(&bytes)
            .with_context(|| format!("{path}: {}", String::from_utf8_lossy(&bytes)))?;
        all.extend(page.data);
        match page.iterator {
            Some(at) if !page.done => from = format!("&iterator={at}"),
            _ => return Ok(all),
        }
    }
}

/// Ids of an application's messages.
fn listed(world: &World, app: &str) -> anyhow::Result<HashSet<String>> {
    #[derive(Deserialize)]
    struct Item {
        id: String,
    }
    let path = format!("/api/v1/app/{app}/msg?limit=250&with_content=false&{ALWAYS}");
    let items: Vec<Item> = pages(world, &path)?;
    Ok(items.into_iter().map(|item| item.id).collect())
}

/// Hashes of the bodies of an application's messages, as the API shows them.
fn bodies(world: &World, app: &str) -> anyhow::Result<HashMap<String, String>> {
    #[derive(Deserialize)]
    struct Item {
        id: String,
        payload: Box<RawValue>,
    }
    let path = format!("/api/v1/app/{app}/msg?limit=250&with_content=true&{ALWAYS}");
    let items: Vec<Item> = pages(world, &path)?;
    let hashed = items.into_iter();
    Ok(hashed
        .map(|item| (item.id, hash(item.payload.get().as_bytes())))
        .collect())
}

/// States of an endpoint's deliveries, as the API names them.
pub(super) fn states(
    world: &World,
    app: &str,
    endpoint: &str,
) -> anyhow::Result<HashMap<String, String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        id: String,
        status_text: String,
    }
    if endpoint.is_empty() {
        bail!("an endpoint has an id");
    }
    let path = format!(
        "/api/v1/app/{app}/endpoint/{endpoint}/msg?limit=250&with_content=false&expanded_statuses=true&{ALWAYS}"
    );
    let items: Vec<Item> = pages(world, &path)?;
    Ok(items
        .into_iter()
        .map(|item| (item.id, item.status_text))
        .collect())
}

/// Lists begin 90 days ago unless told otherwise. With `after` alone they run the other way.
const ALWAYS: &str = "after=2020-01-01T00:00:00Z&before=2100-01-01T00:00:00Z";
