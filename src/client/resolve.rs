//! Names to addresses.
//!
//! Absolute names only: no search domains, so `internal` in a URL never becomes
//! `internal.corp.example`. Answers are not judged here; whoever connects judges all of them.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{ResolverBuilder, TokioResolver};

use super::{Error, POOL_LIFE};
use crate::base::Clock;

/// Resolves names. Injectable, so that tests can rebind them.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of `name` (lower case, ASCII, without the last dot), both families, in the order
    /// of the answer. The caller sets the time limit and drops the future when it is over.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;

    /// Whether the name servers seem to be down: asked after a lookup failed or took too long.
    fn is_down(&self) -> bool {
        false
    }
}

/// A lookup under way.
pub type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'a>>;

/// Why there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist or has no addresses.
    #[error("no such name")]
    NotFound,
    /// A name server answered with an error (SERVFAIL and others).
    #[error("the name server reports an error")]
    Failed,
    /// No name server answered.
    #[error("no name server answers")]
    Unreachable,
}

/// Without an answer for this long, failed lookups are put down to the name servers.
const DOWN_AFTER: Duration = Duration::from_secs(30);

/// The name servers of this system (`/etc/resolv.conf`, `/etc/hosts`).
pub struct SystemResolver {
    resolver: TokioResolver,
    clock: Arc<dyn Clock>,
    /// Milliseconds (monotonic) of the last lookup that any name server answered, plus 1; 0 = none.
    answered: AtomicU64,
}

impl SystemResolver {
    /// Reads the system's configuration.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let builder = TokioResolver::builder_tokio().map_err(|error| wrong(&error))?;
        Self::over(builder, clock)
    }

    /// Asks this name server, over UDP and TCP, instead of those of the system.
    pub fn asking(server: SocketAddr, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let ways = ways.map(|mut way| {
            way.port = server.port();
            way
        });
        let server = NameServerConfig::new(server.ip(), true, ways.into());
        let config = ResolverConfig::from_name_servers(vec![server]);
        let provider = TokioRuntimeProvider::default();
        Self::over(TokioResolver::builder_with_config(config, provider), clock)
    }

    fn over(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let options = builder.options_mut();
        // Both families, since the guard must see every address of the name.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = Duration::from_secs(1);
        options.attempts = 2;
        options.positive_max_ttl = Some(POOL_LIFE);
        options.negative_max_ttl = Some(Duration::from_secs(5));
        Ok(Self {
            resolver: builder.build().map_err(|error| wrong(&error))?,
            clock,
            answered: AtomicU64::new(0),
        })
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let result = self.resolver.lookup_ip(format!("{name}.")).await;
            let result = match result {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) => Err(why(&error)),
            };
            if result != Err(ResolveError::Unreachable) {
                self.answered.store(self.millis() + 1, Ordering::Relaxed);
            }
            result
        })
    }

    fn is_down(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        let silent = Duration::from_millis((self.millis() + 1).saturating_sub(answered));
        answered == 0 || silent > DOWN_AFTER
    }
}

fn wrong(error: &NetError) -> Error {
    Error::Resolver(error.to_string())
}

fn why(error: &NetError) -> ResolveError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => ResolveError::NotFound,
        NetError::Dns(_) | NetError::Proto(_) => ResolveError::Failed,
        _ => ResolveError::Unreachable,
    }
}
