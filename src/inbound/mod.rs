//! What providers send in: find the source, verify, make it durable, answer.
//!
//! ```text
//!  /in/{token} ─▶ source (hash of the token) ─▶ rate ─▶ address ─▶ body ─▶ handshake ─▶ verify ─▶ events
//!                                                                                          │
//!                 answer (200 …) ◀─ receipt ◀─ one commit (`ingest`), each event once  ◀───┘
//! ```
//!
//! Nothing waits for an endpoint or a provider: the one outgoing request there is, for the key set of a
//! provider that signs tokens, is made at most once a minute. What is refused stores nothing; it leaves a
//! receipt in memory, a count, and after enough of them an operational event.
//!
//! Elsewhere: what a provider's request looks like (`providers`), what makes an event durable and keeps it
//! from happening twice (`ingest::accept_events`), routes and answers (`api::inbound`). Knows no listener.

mod credentials;
mod event;
mod gate;
mod jwks;
mod meters;
mod receipt;
mod receive;
mod token;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::Clock;
use crate::config;
use crate::directory::Directory;
use crate::ingest::Ingest;
use crate::model::{Source, SourceNo};
use crate::policy::forwarded;
use crate::providers::Catalogue;
use crate::schedule::SourceNews;

pub use jwks::{FetchKeys, Fetching, KeysOverHttp};
pub use receipt::{Receipt, ReceiptId, Stats, Verdict};
pub use receive::{Admitted, Answer, Head, Refused};
pub use token::Token;

use gate::Gates;
use meters::Meters;
use receipt::Receipts;

/// What [`Inbound`] works with.
pub struct Parts {
    /// Limits.
    pub config: config::Inbound,
    /// How long the id of an event is known: as long as its message.
    pub ids_kept: Duration,
    /// Where the gateway is reached from outside, without a slash at its end.
    pub base: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted: Vec<IpNet>,
    /// The providers.
    pub catalogue: Arc<Catalogue>,
    /// The sources.
    pub directory: Arc<Directory>,
    /// Where messages go.
    pub ingest: Arc<Ingest>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Tells the operator of sources that keep failing.
    pub news: Option<SourceNews>,
    /// Fetches key sets.
    pub keys: Arc<dyn FetchKeys>,
}

/// Takes in what providers send. Shared by all connections.
pub struct Inbound {
    parts: Parts,
    gates: Gates,
    receipts: Receipts,
    keys: jwks::Cache,
    meters: Meters,
}

/// What is wrong with a source, and in which field of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it; holds no secret.
    pub what: Cow<'static, str>,
}

impl Inbound {
    /// Puts it together.
    pub fn new(parts: Parts) -> Self {
        Self {
            gates: Gates::default(),
            receipts: Receipts::new(parts.config.receipts),
            keys: jwks::Cache::default(),
            meters: Meters::default(),
            parts,
        }
    }

    /// What the URLs of sources begin with, if the gateway knows its public name.
    pub fn base(&self) -> Option<&str> {
        self.parts.base.as_deref()
    }

    /// The providers.
    pub fn catalogue(&self) -> &Catalogue {
        &self.parts.catalogue
    }

    /// Largest body of a request, bytes.
    pub fn max_body(&self) -> usize {
        self.parts.config.max_body.len()
    }

    /// Where a request comes from: the peer, or what the proxies say that are believed.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        forwarded::client(peer, forwarded, &self.parts.trusted)
    }

    /// What a source received, newest first.
    pub fn receipts(&self, source: SourceNo) -> Vec<Receipt> {
        self.receipts.of(source)
    }

    /// How much of what a source received since the start.
    pub fn stats(&self, source: SourceNo) -> Stats {
        self.receipts.stats(source)
    }

    /// The source is gone: nothing of it is kept in memory.
    pub fn forget(&self, source: SourceNo) {
        self.receipts.forget(source);
        self.gates.forget(source);
    }

    /// Whether a source can verify what its provider sends.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self, source: &Source) -> Result<(), Vec<Mistake>> {
        let mistake = |field, what: &str| Mistake {
            field,
            what: Cow::Owned(what.to_owned()),
        };
        let Some(manifest) = self.parts.catalogue.get(&source.provider) else {
            return Err(vec![mistake("provider", "no provider with this id")]);
        };
        if !manifest.is_receivable() {
            let what = manifest.why().unwrap_or("this provider sends no webhooks");
            return Err(vec![mistake("provider", what)]);
        }
        let (wanted, kept) = (manifest.replay_window(), self.parts.ids_kept);
        if wanted > kept {
            let what = format!(
                "the ids of its events must be known for {} s, and retention.messages is {} s",
                wanted.as_secs(),
                kept.as_secs()
            );
            return Err(vec![mistake("provider", &what)]);
        }
        let held = credentials::of(source, self.parts.clock.now());
        let wrong = held.check(manifest).err().unwrap_or_default();
        // What is wrong names the secret or setting; which field it stands in is plain from that.
        let mistakes = wrong.into_iter().map(|what| Mistake {
            field: if what.contains("setting") {
                "config"
            } else if what.starts_with("tolerance") {
                "toleranceSeconds"
            } else {
                "secrets"
            },
            what: Cow::Owned(what),
        });
        let mistakes: Vec<_> = mistakes.collect();
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }
}
