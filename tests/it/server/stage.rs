//! A server with a service that remembers what it was asked, and a client that speaks raw bytes.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test kit")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use parking_lot::Mutex;
use posthaste::base::task::{Stopper, detach};
use posthaste::metrics::ServerMetrics;
use posthaste::server::{Bound, Drained, Peer, Server, Settings, Tls};
use posthaste::telemetry::exposition::{self, Exposition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};

/// Nothing in these tests takes longer unless it hangs.
pub(super) const DEADLINE: Duration = Duration::from_secs(8);

pub(super) const PATIENT: Settings = Settings {
    max_connections: 100,
    header_timeout: Duration::from_secs(60),
    body_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(60),
};

pub(super) struct Stage {
    pub(super) address: SocketAddr,
    pub(super) page: Exposition,
    book: Arc<Book>,
    stopper: Stopper,
    ended: oneshot::Receiver<Drained>,
}

/// What the service has seen, and the gate at which `/wait` stands.
#[derive(Default)]
struct Book {
    paths: Mutex<Vec<String>>,
    arrived: Notify,
    gate: Notify,
}

impl Stage {
    pub(super) fn open(settings: Settings) -> Self {
        Self::with(settings, None, Duration::from_secs(5))
    }

    pub(super) fn with(settings: Settings, tls: Option<Tls>, drain: Duration) -> Self {
        let bound = Bound::to(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (page, metrics) = exposition::scoped(ServerMetrics::register).unwrap();
        let server = Server::new(bound, tls, settings, metrics);
        let address = server.address();
        let (stopper, stop) = Stopper::new();
        let (sender, ended) = oneshot::channel();
        let book = Arc::new(Book::default());
        let router = router(&book);
        detach(async move {
            let drained = server.run(router, stop, drain).await.unwrap();
            assert!(sender.send(drained).is_ok() || drained.late == 0);
        });
        Self {
            address,
            page,
            book,
            stopper,
            ended,
        }
    }

    /// Paths of the requests that reached the service.
    pub(super) fn seen(&self) -> Vec<String> {
        self.book.paths.lock().clone()
    }

    /// Returns once a request stands at the gate.
    pub(super) async fn arrival(&self) {
        within(self.book.arrived.notified()).await;
    }

    /// Lets one request through the gate.
    pub(super) fn let_through(&self) {
        self.book.gate.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopper.stop();
    }

    /// How the drain ended.
    pub(super) async fn end(self) -> Drained {
        within(self.ended).await.unwrap()
    }

    pub(super) async fn connect(&self) -> Client {
        Client(within(TcpStream::connect(self.address)).await.unwrap())
    }

    /// Returns once the metrics page holds this line.
    pub(super) async fn shows(&self, line: &str) {
        let shown = async {
            while !self.page.render().lines().any(|found| found == line) {
                tokio::task::yield_now().await;
            }
        };
        within(shown).await;
    }
}

fn router(book: &Arc<Book>) -> Router {
    let book = Arc::clone(book);
    Router::new().fallback(move |request: Request| serve(Arc::clone(&book), request))
}

async fn serve(book: Arc<Book>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let is_known = request.extensions().get::<Peer>().is_some();
    book.paths.lock().push(path.clone());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    if path == "/wait" {
        book.arrived.notify_one();
        book.gate.notified().await;
    }
    let mut response = match body {
        // More than the system takes in for somebody who does not read.
        Ok(_) if path == "/big" => Response::new(Body::from(vec![b'x'; 64 << 20])),
        Ok(body) => Response::new(Body::from(format!("{} bytes", body.len()))),
        Err(_) => Response::new(Body::from("broken body")),
    };
    if !is_known {
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}

/// A connection that says exactly what it is told to.
pub(super) struct Client(TcpStream);

impl Client {
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have closed already: what counts is what it answers.
        drop(within(self.0.write_all(bytes.as_ref())).await);
    }

    /// Everything until the server closes.
    pub(super) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset ends a connection as well.
        drop(within(self.0.read_to_end(&mut bytes)).await);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything up to this text.
    pub(super) async fn answer(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.windows(end.len()).any(|part| part == end.as_bytes()) {
            let mut buffer = [0; 1024];
            let n = within(self.0.read(&mut buffer)).await.unwrap();
            assert!(n > 0, "closed after {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(buffer.get(..n).unwrap());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else {
        unreachable!("nothing happened within {DEADLINE:?}")
    };
    value
}
