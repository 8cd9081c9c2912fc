//! Backups of a running gateway: under load, by whom, and never two at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use posthaste::backup::{Backups, Error, Parts};
use posthaste::base::{Clock, SystemClock};
use posthaste::config::{Retention, Storage};
use posthaste::lane::{self, Lane};
use posthaste::model::{MessageId, Position};
use posthaste::store::fjall::Store;
use posthaste::store::fjall::backup::check;
use serde_json::{Value, json};

use crate::kit::{
    Answer, Client, Gateway, Receiver, SOON, endpoint, eventually, message, now, say,
};

const MESSAGES: &str = "/api/v1/app/acme/msg";

fn place(id: &str) -> Position {
    MessageId::parse(id).unwrap().place().1
}

/// Producers that never wait; notes what was acknowledged, when, and how long the slowest took.
struct Load {
    stop: Arc<AtomicBool>,
    /// Id and payload number.
    acked: Arc<Mutex<BTreeMap<String, u64>>>,
    slowest: Arc<Mutex<Duration>>,
    producers: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(api: &Client) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            acked: Arc::default(),
            slowest: Arc::default(),
            producers: tokio::task::JoinSet::new(),
        };
        for producer in 0..4_u64 {
            let (stop, acked) = (Arc::clone(&load.stop), Arc::clone(&load.acked));
            let (api, slowest) = (api.clone(), Arc::clone(&load.slowest));
            load.producers.spawn(async move {
                let mut n = producer << 32;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let body = message(json!({"n": n, "pad": "x".repeat(300)}));
                    let began = now();
                    let made = api.post(MESSAGES, &body).await.expect(202);
                    let took = began.elapsed();
                    acked
                        .lock()
                        .insert(made["id"].as_str().unwrap().to_owned(), n);
                    let mut slowest = slowest.lock();
                    *slowest = took.max(*slowest);
                }
            });
        }
        load
    }

    async fn reaches(&self, count: usize) {
        eventually("there is load", Duration::from_secs(20), async || {
            (self.acked.lock().len() >= count).then_some(())
        })
        .await;
    }

    async fn stop(mut self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.acked.lock())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_to_everything_up_to_its_position_and_nothing_later() {
    let place_for = tempfile::tempdir().unwrap();
    let backups = place_for.path().join("backups");
    fs::create_dir(&backups).unwrap();
    let dir = backups.display().to_string();
    let gateway = Gateway::start(&[("storage.backup_dir", &dir)]).await;
    let receiver = Receiver::scripted(|_| Answer::status(503)).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let load = Load::start(gateway.api());
    let mut taken = Vec::new();
    for round in 0..3 {
        let before = load.acked.lock().len();
        load.reaches(before + 60).await;
        let sure: Vec<String> = load.acked.lock().keys().cloned().collect();
        let name = format!("hot-{round}");
        // By name and by path are the same.
        let dest = match round {
            0 => name.clone(),
            _ => backups.join(&name).display().to_string(),
        };
        let (code, said) = tokio::task::block_in_place(|| gateway.cli(&["backup", &dest]));
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("commits paused for"), "{said}");
        say(said.trim());
        taken.push((backups.join(&name), sure));
    }
    let slowest = *load.slowest.lock();
    let acked = load.stop().await;
    say(&format!(
        "{} acknowledged, slowest {slowest:?}",
        acked.len()
    ));
    let metrics = gateway.api().get("/metrics").await.expect_text(200);
    assert!(
        metrics.contains("posthaste_backups_total{result=\"finished\"} 3"),
        "{metrics}"
    );
    assert!(metrics.contains("posthaste_backup_pause_seconds_count 3"));
    gateway.stop().await;
    for (backup, sure) in taken {
        let tail = Position::from(check(&backup).unwrap().tail);
        for id in &sure {
            assert!(place(id) <= tail, "acknowledged before the backup began");
        }
        let target = place_for.path().join("restored");
        let data = target.display().to_string();
        let copy = Gateway::restored(&backup, &data).await;
        let expected: BTreeSet<&String> = acked.keys().filter(|id| place(id) <= tail).collect();
        let listed = copy.list(MESSAGES).await;
        let found: BTreeMap<String, &Value> = listed
            .iter()
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one))
            .collect();
        assert!(found.keys().all(|id| place(id) <= tail), "nothing later");
        for id in &expected {
            let one = found.get(*id).expect("acknowledged up to the position");
            assert_eq!(one["payload"]["n"], acked[*id], "with its payload");
        }
        say(&format!("{} of {} restored", expected.len(), acked.len()));
        // It goes on: a new message has a number that nobody gave out.
        let made = copy.api().post(MESSAGES, &message(json!({"n": 0}))).await;
        let made = made.expect(202);
        let new = place(made["id"].as_str().unwrap());
        assert!(acked.keys().all(|id| place(id).lane < new.lane));
        copy.stop().await;
        fs::remove_dir_all(&target).unwrap();
    }
}

#[tokio::test]
async fn the_api_refuses_what_is_not_a_new_folder_below_the_configured_one() {
    let backups = tempfile::tempdir().unwrap();
    let dir = backups.path().display().to_string();
    let gateway = Gateway::start(&[("storage.backup_dir", &dir)]).await;
    let api = gateway.api();
    let path = "/api/v1/admin/backup";
    for name in ["", "..", "a/b", "/etc/x", ".hidden", "-rf", "a\u{0}b"] {
        let refused = api.post(path, &json!({ "name": name })).await;
        assert_eq!(refused.status, 422, "{name:?}: {}", refused.text());
    }
    let refused = api.post(path, &json!({ "path": "/tmp/x" })).await;
    assert!(refused.status.is_client_error() || refused.status == 202);
    for (name, make) in [("folder", true), ("link", false)] {
        let at = backups.path().join(name);
        if make {
            fs::create_dir(&at).unwrap();
        } else {
            std::os::unix::fs::symlink("/nowhere", &at).unwrap();
        }
        let refused = api.post(path, &json!({ "name": name })).await.expect(409);
        assert_eq!(refused["code"], "conflict", "{refused}");
    }
    let anonymous = Client::new(gateway.address, None);
    anonymous.post(path, &json!({})).await.expect(401);
    let made = api
        .post(
            "/api/v1/api-keys",
            &json!({"name": "reader", "scopes": ["messages.read"]}),
        )
        .await
        .expect(201);
    let weak = Client::new(gateway.address, made["apiKey"]["key"].as_str());
    weak.post(path, &json!({})).await.expect(403);
    let (code, said) = gateway.cli(&["backup", "/elsewhere/x"]);
    assert_eq!(code, 1);
    assert!(said.contains("storage.backup_dir"), "{said}");
}

#[tokio::test]
async fn without_a_configured_folder_the_running_gateway_writes_no_backup() {
    let gateway = Gateway::start(&[]).await;
    let refused = gateway.api().post("/api/v1/admin/backup", &json!({})).await;
    let refused = refused.expect(409);
    assert_eq!(refused["code"], "backup_not_configured");
    let metrics = gateway.api().get("/metrics").await.expect_text(200);
    assert!(
        metrics.contains("posthaste_backup_age_seconds inf"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_folder_that_fills_the_disk_is_refused_with_507_and_ingest_goes_on() {
    let backups = tempfile::tempdir().unwrap();
    let dir = backups.path().display().to_string();
    let settings = [("storage.backup_dir", dir.as_str())];
    let gateway = Gateway::start(&settings).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let (_, stopped) = gateway.stop().await;
    // With the whole disk as its reserve there is no room for a copy.
    // A disk below its reserve makes the gateway not ready: it is up as soon as it answers.
    let gateway = stopped.with("storage.reserve", "1000GiB").launch.spawn();
    let refused = eventually("it answers", SOON, async || {
        let (path, none) = ("/api/v1/admin/backup", Bytes::from_static(b"{}"));
        gateway.api().send(Method::POST, path, &[], none).await.ok()
    });
    let refused = refused.await.expect(507);
    assert_eq!(refused["code"], "storage_low", "{refused}");
    assert_eq!(fs::read_dir(backups.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn only_one_backup_is_under_way_and_giving_up_makes_room_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("backups");
    fs::create_dir(&folder).unwrap();
    let options = Storage {
        dir: dir.path().join("data"),
        ..Storage::default()
    };
    let opened = Store::open(&options, &Retention::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let (committed, _unused) = tokio::sync::mpsc::channel(1);
    let limits = lane::Options {
        queue: 16,
        queue_bytes: 1 << 20,
        max_group: 16,
    };
    let lane = Lane::start(Box::new(opened.writer), clock.clone(), limits, committed).unwrap();
    let backups = Backups::new(Parts {
        source: opened.source,
        lane: lane.clone(),
        clock,
        dir: Some(folder.clone()),
        reserve: 0,
        version: "test",
    });
    let first = backups.begin("one").unwrap();
    assert!(matches!(backups.begin("two"), Err(Error::Running)));
    drop(first);
    let second = backups.begin("two").unwrap();
    let done = backups.finish(second, None).await.unwrap();
    assert_eq!(done.path, folder.canonicalize().unwrap().join("two"));
    check(&done.path).unwrap();
    let third = backups.begin("three").unwrap();
    // The place is taken between the look and the copy: the turn is given back as well.
    fs::create_dir(folder.join("three")).unwrap();
    assert!(backups.finish(third, None).await.is_err());
    assert_eq!(fs::read_dir(folder.join("three")).unwrap().count(), 0);
    backups.begin("four").map(drop).unwrap();
    lane.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_committed_while_the_lane_is_held_and_what_was_handed_in_before_is() {
    let (writer, reader) = posthaste::store::model::Model::new().open();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let (committed, _unused) = tokio::sync::mpsc::channel(64);
    let limits = lane::Options {
        queue: 16,
        queue_bytes: 1 << 20,
        max_group: 16,
    };
    let lane = Lane::start(Box::new(writer), clock, limits, committed).unwrap();
    let one = || crate::store::world::accept(1, posthaste::base::Timestamp::ZERO, 5);
    let before = lane.append(vec![one()]).unwrap();
    let view = Arc::clone(&reader);
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let held = lane.hold(move || {
        let seen = view.lanes().unwrap().last().unwrap().last;
        wait.recv().unwrap();
        (seen, view.lanes().unwrap().last().unwrap().last)
    });
    let hand_in = async {
        let later = lane.append(vec![one()]).unwrap();
        go.send(()).unwrap();
        later
    };
    let (held, later) = tokio::join!(held, hand_in);
    let held = held.unwrap();
    assert_eq!(held.value, (1, 1));
    assert_eq!(held.standing.tail.seq, 1);
    assert_eq!(before.committed().await.unwrap()[0].at.seq, 1);
    assert_eq!(later.committed().await.unwrap()[0].at.seq, 2);
}
