//! The guarded connector: from a target to a stream to one of its judged addresses.
//!
//! Invariants: every answer of a lookup is judged and one forbidden address rejects all (S3); the
//! connection goes to an address that was judged, and the peer is compared with it (S5); the name in
//! the certificate, in SNI and in `Host` stays the one of the URL. A resolver error is a failure,
//! never a reason to go on (S11).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Error, Resolve, ResolveError};
use crate::model::FailureKind;
use crate::policy::target::{Target, TargetHost, TargetRules};

/// Time for one lookup (S2).
const LOOKUP: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried at most (S2).
const ADDRESSES: usize = 16;
/// TLS sessions remembered for resumption.
const SESSIONS: usize = 1024;

pub(super) struct Connector {
    rules: ArcSwap<TargetRules>,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
}

/// Why there is no connection, or no answer on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectError {
    pub(super) kind: FailureKind,
    pub(super) resolver_down: bool,
}

impl From<FailureKind> for ConnectError {
    fn from(kind: FailureKind) -> Self {
        Self {
            kind,
            resolver_down: false,
        }
    }
}

/// A fresh stream. `H2` was agreed on by ALPN.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    H2(Box<TlsStream<TcpStream>>),
}

impl Connector {
    pub(super) fn new(
        rules: TargetRules,
        resolver: Arc<dyn Resolve>,
        extra_roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        for root in extra_roots {
            roots.add(root)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            rules: ArcSwap::from_pointee(rules),
            resolver,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(super) fn set_rules(&self, rules: TargetRules) {
        self.rules.store(Arc::new(rules));
    }

    /// The addresses of a target, all of them judged; never empty.
    pub(super) async fn vet(&self, target: &Target) -> Result<Arc<[IpAddr]>, ConnectError> {
        let mut addresses = match target.host() {
            TargetHost::Name(name) => self.lookup(name).await?,
            TargetHost::Localhost(_) | TargetHost::Ip(_) => target.host().known().to_vec(),
        };
        let rules = self.rules.load();
        for &ip in &addresses {
            let addr = SocketAddr::new(ip, target.port());
            rules.judge(addr).map_err(|_| FailureKind::BlockedAddress)?;
        }
        if addresses.is_empty() {
            return Err(FailureKind::Dns.into());
        }
        // IPv4 first: many hosts have no way out by IPv6 and would find out slowly.
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses.truncate(ADDRESSES);
        Ok(addresses.into())
    }

    /// Connects to the first of `addresses` that answers, within `limit`.
    pub(super) async fn connect(
        &self,
        target: &Target,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<Stream, ConnectError> {
        let stream = self.dial(target, addresses, limit).await?;
        if !target.is_secure() {
            return Ok(Stream::Plain(stream));
        }
        let name = match target.host() {
            TargetHost::Name(name) | TargetHost::Localhost(name) => {
                ServerName::try_from(name.to_string()).map_err(|_| FailureKind::Tls)?
            }
            TargetHost::Ip(ip) => ServerName::from(*ip),
        };
        let stream = self.tls.connect(name, stream).await;
        let stream = Box::new(stream.map_err(|_| FailureKind::Tls)?);
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() == Some(b"h2") {
            Ok(Stream::H2(stream))
        } else {
            Ok(Stream::Tls(stream))
        }
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let silent = match tokio::time::timeout(LOOKUP, self.resolver.resolve(name)).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(ResolveError::NotFound | ResolveError::Failed)) => false,
            Ok(Err(ResolveError::Unreachable)) | Err(_) => true,
        };
        Err(ConnectError {
            kind: FailureKind::Dns,
            resolver_down: silent && self.resolver.is_down(),
        })
    }

    async fn dial(
        &self,
        target: &Target,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<TcpStream, ConnectError> {
        let tries = u32::try_from(addresses.len().clamp(1, 3)).unwrap_or(1);
        let mut kind = FailureKind::Refused;
        for &ip in addresses {
            let addr = SocketAddr::new(ip, target.port());
            // Once more, in numbers, at the last moment: rules may have changed since the lookup.
            let judged = self.rules.load().judge(addr);
            judged.map_err(|_| FailureKind::BlockedAddress)?;
            kind = match tokio::time::timeout(limit / tries, dial_one(addr)).await {
                Ok(Ok(stream)) => {
                    let local = stream.local_addr().map_err(|error| why(&error))?;
                    let judged = self.rules.load().judge_open(local, addr);
                    judged.map_err(|_| FailureKind::BlockedAddress)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => why(&error),
                Err(_) => FailureKind::TimeoutConnect,
            };
        }
        Err(kind.into())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the guarded connector: the address has been judged"
)]
async fn dial_one(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    if stream.peer_addr()? != addr {
        return Err(io::Error::other("connected to another address"));
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn why(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::TimedOut => FailureKind::TimeoutConnect,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => FailureKind::Reset,
        _ => FailureKind::Refused,
    }
}
