//! A name server for the gateway under test: answers 127.0.0.1 to every question, or nothing at all.
//!
//! The gateway reads `/etc/resolv.conf` as every program does, and knows no other setting. So it runs
//! in a mount namespace of its own (`unshare --mount`) with a file of ours in its place; the machine's
//! stays untouched. Port 53 and the namespace need root.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

/// Any name below it resolves.
pub(crate) const NAME: &str = "hook.torture.test";

pub(crate) struct NameServer {
    address: Ipv4Addr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_down: AtomicBool,
    stop: AtomicBool,
    asked: AtomicU64,
    unanswered: AtomicU64,
}

impl NameServer {
    /// Serves on a loopback address of its own, chosen by `number`.
    pub(crate) fn start(number: u16) -> anyhow::Result<Self> {
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, 53, high, low.max(1));
        let socket = UdpSocket::bind(SocketAddr::from((address, 53)))
            .with_context(|| format!("cannot serve names on {address}:53 (it needs root)"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || serve(&socket, &serving))?;
        Ok(Self { address, shared })
    }

    /// Whether questions stay without an answer from now on.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Questions, and how many of them stayed without an answer.
    pub(crate) fn asked(&self) -> (u64, u64) {
        (
            self.shared.asked.load(Ordering::Relaxed),
            self.shared.unanswered.load(Ordering::Relaxed),
        )
    }

    /// The wrapper that makes a gateway ask here; writes a file into `dir`.
    pub(crate) fn wrapper(&self, dir: &Path) -> anyhow::Result<Vec<String>> {
        let file = dir.join("resolv.conf");
        let text = format!(
            "nameserver {}\noptions timeout:1 attempts:1\n",
            self.address
        );
        std::fs::write(&file, text)?;
        let file = file.to_str().context("the directory's name is text")?;
        let tried = std::process::Command::new("unshare")
            .args(["--mount", "true"])
            .status()
            .context("cannot start unshare")?;
        if !tried.success() {
            bail!("no mount namespace can be made here (it needs root)");
        }
        let script = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;
        Ok(["unshare", "--mount", "sh", "-c", script, file]
            .map(str::to_owned)
            .to_vec())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 1500];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            continue; // the read time-out: look at `stop`
        };
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let answer = buffer.get(..len).and_then(answer);
        match answer {
            Some(answer) if !shared.is_down.load(Ordering::Relaxed) => {
                // Lost answers are what name servers do: the gateway must cope.
                if socket.send_to(&answer, from).is_err() {}
            }
            _ => {
                shared.unanswered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The answer to a question with one name: 127.0.0.1 for A, nothing for any other type. Time to live
/// 0, so that every connection asks again.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    while let Some(len) = question.get(at).filter(|len| **len != 0) {
        at += usize::from(*len) + 1;
    }
    let end = at + 5;
    let kind = question.get(at + 1..at + 3)?;
    let is_address = kind == [0, 1];
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question.get(12..end)?);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_an_address_gets_the_loopback_address() {
        let question =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04hook\x04test\x00\x00\x01\x00\x01";
        let answer = answer(question).unwrap();
        assert!(answer.starts_with(b"\x12\x34\x85\x80\x00\x01\x00\x01"));
        assert!(answer.ends_with(&[127, 0, 0, 1]));
        let mut v6 = question.to_vec();
        v6[24] = 28;
        let answer = super::answer(&v6).unwrap();
        assert_eq!(answer[6..8], [0, 0], "no answers for other types");
        assert_eq!(super::answer(b"short"), None);
    }
}
