//! `upgrade`: data directories of every released format under the present binary, and a newer format
//! that it must refuse without touching a byte (T28).
//!
//! Fixtures are those of `tests/fixtures`; what is in them is known by number and says so in the
//! payload. Each round also kills the gateway in the midst of its first start on the old directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use rand::RngExt;

use super::world::World;
use super::{RoundResult, Rounds, Scenario, Stage, random};
use crate::oracle::check::Rule;

/// Format number, and a directory of that format in one file (`tests/it/store/upgrade.rs`).
const FIXTURES: &[(u32, &[u8])] = &[(1, include_bytes!("../../../tests/fixtures/store-format-1"))];
/// Messages in the two lanes of a fixture.
const MESSAGES: [u64; 2] = [12, 13];
const SOON: Duration = Duration::from_secs(30);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upgrade",
    about: "directories of earlier formats are opened, newer ones refused untouched",
    rounds: [3, 20],
    chained: false,
    prepare,
};

struct Upgrade {
    gateway: PathBuf,
    dir: PathBuf,
    rounds: u32,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    Ok(Box::new(Upgrade {
        gateway: stage.gateway.clone(),
        dir: stage.dir.clone(),
        rounds: 0,
    }))
}

impl Rounds for Upgrade {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut random = random(seed);
        let mut result = RoundResult::default();
        self.rounds += 1;
        for (format, packed) in FIXTURES {
            let data = self.dir.join(format!("format-{format}-{}", self.rounds));
            unpack(packed, &data)?;
            let mut world = World::new(&self.gateway, &self.dir, &data)?;
            world.set("retention.messages", "3650d");
            world.launch()?;
            std::thread::sleep(Duration::from_micros(random.random_range(0..80_000)));
            world.kill()?;
            world.start(SOON)?;
            let wrong = contents(&world)?;
            result.acknowledged += MESSAGES.iter().sum::<u64>();
            result.lost += u64::from(!wrong.is_empty());
            result.must(wrong.is_empty(), Rule::C1, wrong.join("; "));
            world.terminate(SOON)?;
            let marker = r#"{"product_format":99,"fjall_format":3,"min_reader":99}"#;
            std::fs::write(data.join("format"), marker)?;
            let before = tree(&data)?;
            world.launch()?;
            world.wait_exit(SOON)?;
            let (code, after) = (world.exit_code(), tree(&data)?);
            result.must(
                code == Some(78),
                Rule::C1,
                format!("a newer format ended the start with {code:?}"),
            );
            result.must(before == after, Rule::C1, "a refused directory was changed");
            std::fs::remove_dir_all(&data)?;
        }
        Ok(result)
    }
}

/// What differs from what the fixture holds.
fn contents(world: &World) -> anyhow::Result<Vec<String>> {
    let mut found: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for app in 1..=3 {
        let path = format!("/api/v1/app/app-{app}/msg?limit=250");
        let (status, page) = world.api(Method::GET, &path, None)?;
        if !status.is_success() {
            bail!("the messages of app-{app} are not listed: {status} {page}");
        }
        for item in page["data"].as_array().into_iter().flatten() {
            let n = item["payload"]["n"].as_u64().context("a number")?;
            let id = item["id"].as_str().context("a message has an id")?;
            let pad = item["payload"]["pad"].as_str().map(str::len);
            let size = if n.is_multiple_of(2) { 200_000 } else { 100 };
            if pad != Some(size) || item["eventType"] != format!("type.number-{}", n % 4) {
                wrong.push(format!("message {n} is not what was stored"));
            }
            found.entry(n).or_default().insert(id.to_owned());
        }
    }
    for n in 1..=MESSAGES[1] {
        let expected = MESSAGES.iter().filter(|messages| n <= **messages).count();
        let there = found.get(&n).map_or(0, BTreeSet::len);
        if there != expected {
            wrong.push(format!(
                "message {n} is there {there} times, not {expected}"
            ));
        }
    }
    Ok(wrong)
}

/// See `pack` in `tests/it/store/upgrade.rs`.
fn unpack(packed: &[u8], dir: &Path) -> anyhow::Result<()> {
    let bytes = lz4_flex::decompress_size_prepended(packed)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let name = String::from_utf8(part(&mut rest)?.to_vec())?;
        let content = part(&mut rest)?;
        let (length, tail) = rest.split_first_chunk::<8>().context("cut off")?;
        rest = tail;
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        std::fs::write(&path, content)?;
        let file = std::fs::File::options().write(true).open(path)?;
        file.set_len(u64::from_be_bytes(*length))?;
    }
    Ok(())
}

fn part<'a>(rest: &mut &'a [u8]) -> anyhow::Result<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>().context("cut off")?;
    let length = usize::try_from(u32::from_be_bytes(*length))?;
    let (part, tail) = tail.split_at_checked(length).context("cut off")?;
    *rest = tail;
    Ok(part)
}

/// Name, length and content of every file, without the zeros that journals end with.
fn tree(dir: &Path) -> anyhow::Result<Vec<(PathBuf, usize, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(tree(&entry.path())?);
        } else {
            let mut bytes = std::fs::read(entry.path())?;
            let length = bytes.len();
            let used = bytes.iter().rposition(|byte| *byte != 0);
            bytes.truncate(used.map_or(0, |last| last + 1));
            found.push((entry.path(), length, bytes));
        }
    }
    found.sort();
    Ok(found)
}
