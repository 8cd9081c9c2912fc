//! `bit-rot` (T05, T64): one damage somewhere in a data directory, hundreds of times.
//!
//! Three stores are made first, with tables, messages delivered and held: one closed in order, one
//! killed, both of a few megabytes, and a killed one with a sealed journal, which takes 64 MiB and
//! so is used less often. Each sample damages a copy of one of them
//! ([`super::damage`]) and looks what the gateway makes of it ([`super::sample`]). A round is two
//! samples at a time. All stores write the high-water mark with every commit: without that the
//! acknowledgements of the last second before a crash are the documented blind spot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::Method;
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::json;

use super::super::world::{KEY, World};
use super::super::{RoundResult, Rounds, Scenario, Stage, random};
use super::damage::{Damage, Kind, files, journals};
use super::sample::{BULK, Bench, Endpoints, HELD, Original, Shown, WELL, settings, states};
use super::until;
use crate::oracle::check::Violation;
use crate::oracle::history::History;
use crate::oracle::producer::{Caller, Producer, Stream};
use crate::oracle::receiver::{Behaviour, Receiver};

/// Samples of a round, at the same time.
const LANES: u64 = 2;
/// Messages of a store that are delivered, and that are held.
const DELIVERED: u64 = 1200;
const HELD_BACK: u64 = 100;
/// A free port of it.
const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
const DRAIN: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_Yml0LXJvdC1iaXQtcm90LWJpdC1yb3QtYml0LXJvdA==";

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bit-rot",
    about: "one damage in a copy of a data directory, two samples a round",
    rounds: [120, 400],
    chained: false,
    prepare,
};

struct BitRot {
    gateway: PathBuf,
    dir: PathBuf,
    originals: [Original; 3],
    /// Of each, what its files were like: nothing may write to those that copies share.
    untouched: [String; 3],
    receivers: Vec<Receiver>,
    /// Per kind of file: samples, refused ones.
    seen: BTreeMap<Kind, (u32, u32)>,
}

fn prepare(stage: &Stage) -> anyhow::Result<Box<dyn Rounds>> {
    let receiver = || -> anyhow::Result<Receiver> {
        let receiver = Receiver::start(LOOPBACK, stage.clock)?;
        for name in ["well", "held"] {
            receiver.endpoint(name, SECRET, Behaviour::Well)?;
        }
        Ok(receiver)
    };
    let receivers = (0..LANES).map(|_| receiver());
    let originals = [
        make(stage, "closed")?,
        make(stage, "killed")?,
        make(stage, "sealed")?,
    ];
    let [a, b, c] = &originals;
    Ok(Box::new(BitRot {
        gateway: std::fs::canonicalize(&stage.gateway)?,
        dir: stage.dir.clone(),
        untouched: [state_of(a)?, state_of(b)?, state_of(c)?],
        originals,
        receivers: receivers.collect::<anyhow::Result<_>>()?,
        seen: BTreeMap::new(),
    }))
}

impl Rounds for BitRot {
    fn round(&mut self, seed: u64) -> anyhow::Result<RoundResult> {
        let mut plans = Vec::new();
        for lane in 0..LANES {
            let mut random = random(seed.wrapping_mul(LANES).wrapping_add(lane));
            let [closed, killed, sealed] = &self.originals;
            let original = match random.random_range(0..8) {
                0 => sealed,
                1..=4 => closed,
                _ => killed,
            };
            plans.push((original, Damage::choose(&original.data, &mut random)?));
        }
        let shown = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let lanes = plans.iter().zip(&self.receivers).enumerate();
            for (lane, ((original, damage), receiver)) in lanes {
                let dir = self.dir.join(format!("sample-{lane}"));
                let (gateway, shown) = (&self.gateway, &shown);
                scope.spawn(move || {
                    let bench = Bench {
                        gateway,
                        dir: &dir,
                        receiver,
                    };
                    let result = bench.sample(original, damage);
                    shown.lock().push((*original, damage, result));
                });
            }
        });
        let mut round = RoundResult {
            history: Some(self.dir.clone()),
            ..RoundResult::default()
        };
        for (original, damage, result) in shown.into_inner() {
            let name = original.name;
            let result = result.with_context(|| format!("{name} store, {damage}"))?;
            let seen = self.seen.entry(damage.kind).or_default();
            seen.0 += 1;
            seen.1 += u32::from(result.refused);
            add(&mut round, original, damage, result);
        }
        Ok(round)
    }

    fn finish(&mut self) -> anyhow::Result<RoundResult> {
        for (original, before) in self.originals.iter().zip(&self.untouched) {
            let is_same = state_of(original)? == *before;
            anyhow::ensure!(is_same, "a sample wrote to a file that copies share");
        }
        let notes = self.seen.iter().map(|(kind, (samples, refused))| {
            let whole = samples - refused;
            format!("{kind:?}: {samples} samples, {refused} refused, {whole} whole")
        });
        Ok(RoundResult {
            notes: notes.collect(),
            ..RoundResult::default()
        })
    }
}

fn add(round: &mut RoundResult, original: &Original, damage: &Damage, shown: Shown) {
    if !shown.refused {
        let acknowledged = original.delivered.len() + original.held.len() + original.bulk.len();
        round.acknowledged += acknowledged as u64;
    }
    round.lost += shown.lost;
    round.duplicates += shown.duplicates;
    let named = |violation: Violation| Violation {
        what: format!("{} store, {damage}: {}", original.name, violation.what),
        ..violation
    };
    round
        .violations
        .extend(shown.violations.into_iter().map(named));
}

/// Makes a store and knows what is in it.
fn make(stage: &Stage, name: &'static str) -> anyhow::Result<Original> {
    let dir = stage.dir.join(name);
    let data = dir.join("data");
    let mut world = World::new(&stage.gateway, &dir, &data)?;
    settings(&mut world);
    world.start(Duration::from_secs(60))?;
    let receiver = Receiver::start(LOOPBACK, stage.clock)?;
    receiver.record_in(&dir)?;
    let address = receiver.address;
    let endpoint = |app: &str, name: &str, disabled: bool| -> anyhow::Result<String> {
        receiver.endpoint(name, SECRET, Behaviour::Well)?;
        let body = json!({"name": app, "uid": app});
        world.api(Method::POST, "/api/v1/app", Some(&body))?;
        let body = json!({
            "url": format!("http://{address}/{name}"),
            "secret": SECRET,
            "disabled": disabled,
        });
        let path = format!("/api/v1/app/{app}/endpoint");
        let (status, answer) = world.api(Method::POST, &path, Some(&body))?;
        let id = answer["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| anyhow!("no endpoint: {status} {answer}"))
    };
    let endpoints = Endpoints {
        well: endpoint(WELL, "well", false)?,
        held: endpoint(HELD, "held", true)?,
    };
    let caller = Caller::new(world.address, KEY, stage.clock, &dir)?;
    send(&caller, &stream(HELD), HELD_BACK)?;
    send(&caller, &stream(WELL), DELIVERED)?;
    if name == "sealed" {
        fill_a_journal(&world, &caller, &data)?;
    }
    let is_settled = name == "closed";
    if is_settled {
        settled(&world, &endpoints)?;
        let status = world.terminate(DRAIN)?;
        anyhow::ensure!(status.success(), "the store was not closed: {status}");
    } else {
        // Under load: some requests stay without an answer, some deliveries without an outcome.
        let load = Producer::start(&caller, &[stream(WELL)])?;
        std::thread::sleep(Duration::from_millis(200));
        world.kill()?;
        load.stop()?;
    }
    let [delivered, held, bulk] = sent(&dir)?;
    Ok(Original {
        shared: shared(&data)?,
        bulk,
        name,
        data,
        delivered,
        held,
        is_settled,
        endpoints,
    })
}

fn stream(app: &str) -> Stream {
    Stream {
        app: app.to_owned(),
        connections: 8,
        pause: Duration::ZERO,
        size: 2500,
    }
}

/// Sends large messages until the store has a sealed journal.
fn fill_a_journal(world: &World, caller: &Caller, data: &Path) -> anyhow::Result<()> {
    let body = json!({"name": BULK, "uid": BULK});
    world.api(Method::POST, "/api/v1/app", Some(&body))?;
    let large = Stream {
        size: 60_000,
        ..stream(BULK)
    };
    while journals(&files(data)?).len() < 2 {
        send(caller, &large, 100)?;
    }
    Ok(())
}

/// What is never written again: tables. A sealed journal is, once: the database cuts the zeros off
/// its end when it opens.
fn shared(data: &Path) -> anyhow::Result<HashSet<PathBuf>> {
    let all = files(data)?;
    let is_table = |path: &&PathBuf| path.parent().is_some_and(|dir| dir.ends_with("tables"));
    all.iter()
        .filter(is_table)
        .map(|path| Ok(path.strip_prefix(data)?.to_owned()))
        .collect()
}

/// Lengths and times of change of all files.
fn state_of(original: &Original) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in files(&original.data)? {
        let about = std::fs::metadata(&path)?;
        let changed = about.modified()?;
        text.push_str(&format!("{} {} {changed:?}\n", path.display(), about.len()));
    }
    Ok(text)
}

/// Sends until `count` more are acknowledged.
fn send(caller: &Caller, stream: &Stream, count: u64) -> anyhow::Result<()> {
    let before = caller.acknowledged();
    let load = Producer::start(caller, std::slice::from_ref(stream))?;
    let sent = until("messages are accepted", DRAIN, || {
        Ok((caller.acknowledged() >= before + count).then_some(()))
    });
    load.stop()?;
    sent
}

fn settled(world: &World, endpoints: &Endpoints) -> anyhow::Result<()> {
    until("everything is delivered", DRAIN, || {
        let states = states(world, WELL, &endpoints.well)?;
        Ok(states
            .values()
            .all(|state| state == "success")
            .then_some(()))
    })
}

/// Hashes of the acknowledged bodies by id, of the three applications.
fn sent(dir: &Path) -> anyhow::Result<[HashMap<String, String>; 3]> {
    let history = History::read(dir)?;
    let of = |app: &str| {
        let requests = history.acknowledged();
        let of_app = requests.filter(|(request, _)| request.app == app);
        of_app
            .map(|(request, ack)| (ack.id.clone(), request.hash.clone()))
            .collect()
    };
    Ok([of(WELL), of(HELD), of(BULK)])
}
