//! Where connections come in: sockets of the service manager, or our own.
//!
//! A socket handed over by name (`ingest`, `admin`) takes the place of the configured address. Such a
//! socket outlives this process: connections wait in it across a restart instead of being refused
//! (promise P15).

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::Error;
use crate::config::Server as Section;

/// Connections that may wait for `accept`. The usual 128 makes a burst wait for a SYN to be resent.
const BACKLOG: i32 = 4096;

/// The listening sockets of a gateway.
#[derive(Debug)]
pub struct Listeners {
    /// For the API. Socket name `ingest`, else `server.listen`.
    pub ingest: Bound,
    /// For metrics and health without a credential. Socket name `admin`, else
    /// `server.metrics_listen`, else none.
    pub admin: Option<Bound>,
}

/// A listening socket.
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
    /// Whether the service manager holds it as well, so that it stays open without us.
    pub(super) is_inherited: bool,
}

impl Bound {
    /// Listens on `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// The address is taken, foreign, or not permitted.
    pub fn to(address: SocketAddr) -> Result<Self, Error> {
        let wrong = |cause| Error::Bind { address, cause };
        let socket = open(address).map_err(wrong)?;
        Self::of(socket, false).map_err(wrong)
    }

    fn of(socket: TcpListener, is_inherited: bool) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            is_inherited,
        })
    }

    /// The address, with the port that was picked.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it came from the service manager.
    pub const fn is_inherited(&self) -> bool {
        self.is_inherited
    }
}

impl Listeners {
    /// Takes over what the service manager hands over, and binds the rest.
    ///
    /// # Errors
    /// An address cannot be bound, or what is handed over is no listening TCP socket or has an
    /// unknown name.
    pub fn open(section: &Section) -> Result<Self, Error> {
        let (ingest, admin) = inherited()?;
        let ingest = match ingest {
            Some(bound) => bound,
            None => Bound::to(section.listen)?,
        };
        let admin = match (admin, section.metrics_listen) {
            (Some(bound), _) => Some(bound),
            (None, Some(address)) => Some(Bound::to(address)?),
            (None, None) => None,
        };
        Ok(Self { ingest, admin })
    }
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Without it a restart waits for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The sockets called `ingest` and `admin`. A single unnamed one is `ingest`.
fn inherited() -> Result<(Option<Bound>, Option<Bound>), Error> {
    let wrong = |why: String| Error::Activation { why };
    // Variables that were meant for another process (LISTEN_PID) are not ours to judge.
    let count = sd_notify::listen_fds().map_err(|error| wrong(error.to_string()))?;
    if count.len() == 0 {
        return Ok((None, None));
    }
    let handed = sd_notify::listen_fds_with_names().map_err(|error| wrong(error.to_string()))?;
    let names: Vec<String> = handed.map(|(_, name)| name).collect();
    let mut sockets = listenfd::ListenFd::from_env();
    let (mut ingest, mut admin) = (None, None);
    for (at, name) in names.iter().enumerate() {
        let slot = match name.as_str() {
            "ingest" => &mut ingest,
            "admin" => &mut admin,
            _ if names.len() == 1 => &mut ingest,
            other => return Err(wrong(format!("`{other}` is neither `ingest` nor `admin`"))),
        };
        let socket = sockets.take_tcp_listener(at);
        let socket = socket.map_err(|error| wrong(format!("`{name}`: {error}")))?;
        let socket = socket.ok_or_else(|| wrong(format!("`{name}` is missing")))?;
        let bound = Bound::of(socket, true).map_err(|error| wrong(format!("`{name}`: {error}")))?;
        if slot.replace(bound).is_some() {
            return Err(wrong(format!("`{name}` is there twice")));
        }
    }
    Ok((ingest, admin))
}
