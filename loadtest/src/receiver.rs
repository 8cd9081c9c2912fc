//! The receiver: takes deliveries, writes them into the ledger, plays a behaviour per path.
//!
//! Path: `/<behaviour>/<slot>`, where `slot` is the endpoint's number within its application.
//! One thread with a single-threaded runtime; the signature of every n-th delivery is verified.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::clock::{Clock, Window};
use crate::connection::{joined, local_runtime};
use crate::ledger::Ledger;
use crate::machine;
use crate::payload;
use crate::signature::Verifier;

/// Larger than the 256 simultaneous connects of a test; a backlog of 128 makes them wait a second.
const BACKLOG: i32 = 4096;

/// What a path does with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// 204 at once.
    Fast,
    /// 204 after a delay.
    Slow(Duration),
    /// A status.
    Status(StatusCode),
    /// 429 with `Retry-After` in seconds.
    TooMany(u64),
    /// Alternates between 204 and 500, each for this long.
    Flapping(Duration),
    /// Never answers.
    Hang,
    /// Resets the connection.
    Reset,
    /// 503 while the gate is closed, 204 while it is open: a whole receiver that comes back.
    Gate,
}

impl Behaviour {
    /// Whether every delivery gets its 2xx in the end, so that a missing one is a loss.
    pub(crate) fn is_healthy(self) -> bool {
        match self {
            Self::Fast | Self::Slow(_) | Self::Gate => true,
            Self::Status(_) | Self::TooMany(_) | Self::Flapping(_) | Self::Hang | Self::Reset => {
                false
            }
        }
    }
}

impl std::fmt::Display for Behaviour {
    /// As it is parsed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fast => f.write_str("fast"),
            Self::Slow(delay) => write!(f, "slow-{}", delay.as_millis()),
            Self::Status(code) => write!(f, "{}", code.as_u16()),
            Self::TooMany(seconds) => write!(f, "429-{seconds}"),
            Self::Flapping(phase) => write!(f, "flap-{}", phase.as_secs()),
            Self::Hang => f.write_str("hang"),
            Self::Reset => f.write_str("reset"),
            Self::Gate => f.write_str("gate"),
        }
    }
}

impl FromStr for Behaviour {
    type Err = anyhow::Error;

    /// `fast`, `slow-250` (ms), `500` (any status), `429-5` (s), `flap-10` (s), `hang`, `reset`,
    /// `gate`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, number) = match text.split_once('-') {
            Some((name, number)) => {
                let number: u64 = number
                    .parse()
                    .with_context(|| format!("number in `{text}`"))?;
                (name, Some(number))
            }
            None => (text, None),
        };
        Ok(match (name, number) {
            ("fast", None) => Self::Fast,
            ("slow", Some(ms)) => Self::Slow(Duration::from_millis(ms)),
            ("429", Some(seconds)) => Self::TooMany(seconds),
            ("flap", Some(seconds)) if seconds > 0 => Self::Flapping(Duration::from_secs(seconds)),
            ("hang", None) => Self::Hang,
            ("reset", None) => Self::Reset,
            ("gate", None) => Self::Gate,
            (status, None) => Self::Status(StatusCode::from_bytes(status.as_bytes())?),
            _ => bail!("no behaviour: `{text}`; see --help"),
        })
    }
}

/// A running receiver. Its thread ends with the process or by [`Receiver::stop`].
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    began: u64,
    ledger: Mutex<Ledger>,
    verifier: Verifier,
    /// Every so many-th delivery is verified; 0 = none.
    sample: u64,
    seen: AtomicU64,
    cpu_nanos: AtomicU64,
    gate_open: AtomicBool,
    stop: AtomicBool,
}

impl Receiver {
    /// Binds and serves on a thread of its own. `slots` is the number of endpoints of an
    /// application.
    pub(crate) fn start(
        listen: SocketAddr,
        slots: u64,
        clock: Clock,
        verifier: Verifier,
        sample: u64,
    ) -> anyhow::Result<Self> {
        let listener = bind(listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            clock,
            began: clock.now(),
            ledger: Mutex::new(Ledger::new(slots)),
            verifier,
            sample,
            seen: AtomicU64::new(0),
            cpu_nanos: AtomicU64::new(0),
            gate_open: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || serve(listener, &serving))?;
        Ok(Self { address, shared })
    }

    /// From now on deliveries are measured against this window.
    pub(crate) fn measure(&self, window: Window) {
        self.shared.ledger.lock().measure(window);
    }

    /// Notes the next delivery through the gate from this time on, unix microseconds.
    pub(crate) fn watch(&self, from: u64) {
        self.shared.ledger.lock().watch(from);
    }

    /// Opens or closes the gate of all `gate` endpoints; it is open at first.
    pub(crate) fn set_gate(&self, open: bool) {
        self.shared.gate_open.store(open, Ordering::Relaxed);
    }

    /// A look at the ledger; deliveries wait meanwhile.
    pub(crate) fn with_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.shared.ledger.lock())
    }

    /// CPU time of the receiver's thread, to 100 ms.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.shared.cpu_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// A listening socket with a backlog that takes all connects of a test at once.
pub(crate) fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn serve(listener: std::net::TcpListener, shared: &Arc<Shared>) {
    let Ok(runtime) = local_runtime() else { return };
    runtime.block_on(async {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        tokio::task::spawn_local(accept(listener, Arc::clone(shared)));
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while !shared.stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let cpu = u64::try_from(machine::own_thread_cpu().as_nanos()).unwrap_or(0);
            shared.cpu_nanos.store(cpu, Ordering::Relaxed);
        }
    });
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: connections that end make room.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let socket = Resettable {
                stream,
                reset: Arc::clone(&reset),
            };
            socket.stream.set_nodelay(true).unwrap_or_default();
            let service = service_fn(|request| answer(&shared, &reset, request));
            let served = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            // Connections end as the gateway likes; what matters is in the ledger.
            if served.is_err() {}
        });
    }
}

type Answer = Result<Response<Empty<Bytes>>, ResetNow>;

/// Tells hyper to drop the connection.
#[derive(Debug)]
pub(crate) struct ResetNow;

impl std::fmt::Display for ResetNow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset as scripted")
    }
}

impl std::error::Error for ResetNow {}

async fn answer(shared: &Shared, reset: &AtomicBool, request: Request<Incoming>) -> Answer {
    let (head, mut incoming) = request.into_parts();
    let mut body = Bytes::new();
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    body = joined(body, data);
                }
            }
            Err(_) => return Err(ResetNow),
        }
    }
    let Some((behaviour, slot)) = route(head.uri.path()) else {
        return status(StatusCode::NOT_FOUND);
    };
    let turned_away = || shared.ledger.lock().turned_away += 1;
    match behaviour {
        Behaviour::Fast => {}
        Behaviour::Slow(delay) => tokio::time::sleep(delay).await,
        Behaviour::Status(code) if code.is_success() => {}
        Behaviour::Status(code) => {
            turned_away();
            return status(code);
        }
        Behaviour::TooMany(seconds) => {
            turned_away();
            let mut response = status(StatusCode::TOO_MANY_REQUESTS)?;
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
            return Ok(response);
        }
        Behaviour::Flapping(phase) => {
            let into = shared.clock.now().saturating_sub(shared.began);
            let phase = crate::hist::micros(phase);
            if into.checked_div(phase).unwrap_or(0) % 2 == 1 {
                turned_away();
                return status(StatusCode::INTERNAL_SERVER_ERROR);
            }
        }
        Behaviour::Gate => {
            if !shared.gate_open.load(Ordering::Relaxed) {
                turned_away();
                return status(StatusCode::SERVICE_UNAVAILABLE);
            }
        }
        Behaviour::Hang => {
            turned_away();
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        Behaviour::Reset => {
            turned_away();
            reset.store(true, Ordering::Relaxed);
            return Err(ResetNow);
        }
    }
    take(shared, &head.headers, &body, (behaviour, slot));
    status(StatusCode::NO_CONTENT)
}

fn status(code: StatusCode) -> Answer {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = code;
    Ok(response)
}

fn route(path: &str) -> Option<(Behaviour, u64)> {
    let (behaviour, slot) = path.strip_prefix('/')?.split_once('/')?;
    let behaviour = match behaviour {
        "fast" => Behaviour::Fast,
        other => other.parse().ok()?,
    };
    Some((behaviour, slot.parse().ok()?))
}

fn take(shared: &Shared, headers: &HeaderMap, body: &[u8], endpoint: (Behaviour, u64)) {
    let now = shared.clock.now();
    let Some(stamp) = payload::read(body) else {
        shared.ledger.lock().foreign += 1;
        return;
    };
    let seen = shared.seen.fetch_add(1, Ordering::Relaxed);
    let verdict = (shared.sample > 0 && seen.is_multiple_of(shared.sample))
        .then(|| shared.verifier.check(headers, body));
    let mut ledger = shared.ledger.lock();
    if let Some(verdict) = verdict {
        ledger.verified += 1;
        if let Err(why) = verdict {
            ledger.bad_signatures += 1;
            if ledger.first_bad.is_none() {
                ledger.first_bad = Some(why.to_owned());
            }
        }
    }
    ledger.delivered(stamp, endpoint, now);
}

/// A socket that can be made to end with RST instead of FIN.
pub(crate) struct Resettable {
    pub(crate) stream: TcpStream,
    pub(crate) reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Closing with a zero linger time sends RST; without it the peer sees FIN: still an end.
            if self.stream.set_zero_linger().is_err() {}
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A server that reads a body and answers 202, storing nothing: the ceiling of accepting. Ends within
/// 100 ms of `stop`.
pub(crate) fn bare_accept(
    listener: std::net::TcpListener,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = tick.tick() => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    continue;
                }
            };
            let (stream, _) = accepted?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let service = service_fn(|request: Request<Incoming>| async move {
                    let mut incoming = request.into_body();
                    while let Some(frame) = incoming.frame().await {
                        if frame.is_err() {
                            break;
                        }
                    }
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = StatusCode::ACCEPTED;
                    Ok::<_, Infallible>(response)
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if served.is_err() {}
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_read_from_their_names() {
        let cases = [
            ("fast", Behaviour::Fast),
            ("slow-250", Behaviour::Slow(Duration::from_millis(250))),
            ("500", Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR)),
            ("429-5", Behaviour::TooMany(5)),
            ("flap-10", Behaviour::Flapping(Duration::from_secs(10))),
            ("hang", Behaviour::Hang),
            ("reset", Behaviour::Reset),
            ("gate", Behaviour::Gate),
        ];
        for (text, behaviour) in cases {
            assert_eq!(text.parse::<Behaviour>().unwrap(), behaviour);
            assert_eq!(behaviour.to_string(), text);
        }
        for bad in ["", "slow", "slow-x", "flap-0", "fast-1", "9", "gate-1"] {
            assert!(bad.parse::<Behaviour>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_name_behaviour_and_slot() {
        assert_eq!(route("/fast/3"), Some((Behaviour::Fast, 3)));
        assert_eq!(route("/hang/0"), Some((Behaviour::Hang, 0)));
        for bad in ["/", "/fast", "/fast/x", "/nothing/1"] {
            assert_eq!(route(bad), None, "{bad}");
        }
    }
}
