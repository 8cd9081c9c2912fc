//! What the machine allows, measured with the same generator and receiver: every figure of the
//! gateway is read as a share of these.
//!
//! * accept: a bare hyper server that reads the body and answers 202, storing nothing;
//! * send: the generator straight at the receiver, no gateway between;
//! * file: group commit of the same payloads into a plain file, fdatasync before each answer.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::generator::{Form, Load, drive};
use crate::hist::Summary;
use crate::payload::Payloads;
use crate::receiver::{self, Receiver};
use crate::signature::Verifier;

/// The three ceilings, per second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ceilings {
    pub(crate) connections: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) accept_per_second: f64,
    pub(crate) accept_latency: Summary,
    pub(crate) send_per_second: f64,
    pub(crate) send_latency: Summary,
    pub(crate) file_per_second: f64,
    /// Microseconds of generator CPU per bare request.
    pub(crate) generator_us: f64,
}

/// Measures all three for `duration` each, the first two after a warm-up of a third of it.
pub(crate) fn measure(
    connections: usize,
    payloads: &Arc<Payloads>,
    duration: Duration,
    dir: &Path,
) -> anyhow::Result<Ceilings> {
    let clock = Clock::start();
    let load = |address, path: &str, form| Load {
        connections,
        form,
        warm_up: (duration / 3).min(Duration::from_millis(500)),
        ..Load::new(address, vec![path.to_owned()], duration)
    };
    let listener = receiver::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("bare-server".to_owned())
        .spawn(move || receiver::bare_accept(listener, &stopped))?;
    let accept = drive(
        &load(address, "/msg", Form::Message),
        payloads,
        clock,
        |_| {},
    )?;
    stop.store(true, Ordering::Relaxed);

    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sink = Receiver::start(any, 1, clock, Verifier::new("whsec_")?, 0)?;
    let send = drive(
        &load(sink.address, "/fast/0", Form::Bare),
        payloads,
        clock,
        |_| {},
    )?;
    sink.stop();

    let requests = accept.acked.len().max(1) as f64;
    Ok(Ceilings {
        connections,
        payload_bytes: payloads.mean(),
        accept_per_second: accept.accepted as f64 / accept.window.seconds(),
        accept_latency: accept.latency.summary(),
        send_per_second: send.accepted as f64 / send.window.seconds(),
        send_latency: send.latency.summary(),
        file_per_second: file(connections, payloads.mean(), duration, dir)?,
        generator_us: accept.cpu.as_secs_f64() * 1e6 / requests,
    })
}

/// Appends waiting for the next fdatasync of the file ceiling; each waiter has one at most, so the
/// channel, as wide as there are waiters, is never full.
type Append = oneshot::Sender<()>;

fn file(waiting: usize, size: usize, duration: Duration, dir: &Path) -> anyhow::Result<f64> {
    let mut log = tempfile::tempfile_in(dir)?;
    let (sender, mut appends) = mpsc::channel::<Append>(waiting);
    let committer = std::thread::spawn(move || -> std::io::Result<u64> {
        let mut written = 0;
        let mut group = Vec::new();
        let mut bytes = Vec::new();
        while let Some(first) = appends.blocking_recv() {
            group.push(first);
            while let Ok(next) = appends.try_recv() {
                group.push(next);
            }
            bytes.resize(group.len() * size, b'x');
            log.write_all(&bytes)?;
            log.sync_data()?;
            written += u64::try_from(group.len()).unwrap_or(0);
            for waiter in group.drain(..) {
                if waiter.send(()).is_err() {}
            }
        }
        Ok(written)
    });
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut waiters = tokio::task::JoinSet::new();
        for _ in 0..waiting {
            let sender = sender.clone();
            waiters.spawn(async move {
                while begin.elapsed() < duration {
                    let (done, synced) = oneshot::channel();
                    if sender.send(done).await.is_err() || synced.await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        waiters.join_all().await;
    });
    let seconds = begin.elapsed().as_secs_f64();
    let written = committer
        .join()
        .map_err(|_| anyhow::anyhow!("the file committer panicked"))??;
    Ok(written as f64 / seconds)
}
