//! The real binary among its neighbours: service manager, signals, clock, disk, descriptors, log.
//!
//! Faults come from outside of the unchanged binary (`strace`, `prlimit`, `faketime`, a pipe that
//! nobody reads), so what passes here holds for the release build as well.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

mod activation;
mod clock;
mod descriptors;
mod drain;
mod idle;
mod lock;
mod log;
mod notify;
mod reload;
mod stalls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::kit::{Client, Reply, message, pause};

/// What happened to one request of [`Load`].
#[derive(Debug, Clone)]
struct Sent {
    /// `Ok` is an answer, whatever it says; `Err` is what became of the connection.
    answer: Result<Reply, String>,
}

impl Sent {
    /// The id of an accepted message.
    fn id(&self) -> Option<String> {
        let reply = self.answer.as_ref().ok()?;
        if reply.status != 202 {
            return None;
        }
        reply.json()["id"].as_str().map(str::to_owned)
    }
}

/// Producers that send messages to one application, each on a connection of its own, until told to
/// stop.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
    producers: JoinSet<()>,
}

impl Load {
    /// `producers` at once, each with `gap` between an answer and the next message.
    fn start(api: &Client, app: &str, producers: usize, gap: Duration) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            sent: Arc::default(),
            producers: JoinSet::new(),
        };
        for producer in 0..producers {
            let (stop, sent) = (Arc::clone(&load.stop), Arc::clone(&load.sent));
            let (api, path) = (api.clone(), format!("/api/v1/app/{app}/msg"));
            load.producers.spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let body = message(json!({"producer": producer, "n": n})).to_string();
                    let answer = api.send(Method::POST, &path, &[], Bytes::from(body)).await;
                    sent.lock().push(Sent { answer });
                    pause(gap).await;
                }
            });
        }
        load
    }

    /// Requests that have ended so far.
    fn count(&self) -> usize {
        self.sent.lock().len()
    }

    /// Ends the load; answers what became of every request.
    async fn stop(mut self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.sent.lock())
    }
}

/// The ids of everything that was accepted.
fn accepted(sent: &[Sent]) -> Vec<String> {
    sent.iter().filter_map(Sent::id).collect()
}

/// The reasons that `/ready` gives; empty if it is ready.
async fn reasons(api: &Client) -> Vec<String> {
    let reply = api.get("/ready").await;
    if reply.status == 200 {
        return Vec::new();
    }
    assert_eq!(reply.status, 503, "{}", reply.text());
    let list = reply.json()["reasons"].as_array().cloned();
    list.unwrap_or_default()
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
