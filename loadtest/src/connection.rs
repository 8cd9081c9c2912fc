//! One HTTP/1.1 connection of the generator: hyper without a pool, opened again when it breaks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// An open or broken connection to one address.
pub(crate) struct Connection {
    address: SocketAddr,
    keep_alive: bool,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Connection {
    /// Connects. Needs a [`local_runtime`] around it: the driver of the connection runs beside its user.
    pub(crate) async fn open(address: SocketAddr, keep_alive: bool) -> anyhow::Result<Self> {
        let mut connection = Self {
            address,
            keep_alive,
            sender: None,
        };
        connection.connect().await?;
        Ok(connection)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            // A broken connection shows at the next use of its sender.
            if driver.await.is_err() {}
        });
        self.sender = Some(sender);
        Ok(())
    }

    /// Sends and reads the whole answer. After an error the next call connects again.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        if self.sender.is_none() {
            self.connect().await?;
        }
        if !self.keep_alive {
            request
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Taken out until the answer is complete: a half-read answer must not be followed.
        let mut sender = self.sender.take().context("not connected")?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let (head, mut incoming) = response.into_parts();
        let mut body = Bytes::new();
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame?.into_data() {
                body = joined(body, data);
            }
        }
        if self.keep_alive {
            self.sender = Some(sender);
        }
        Ok(Answer {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body,
        })
    }
}

/// A runtime for one thread, whose tasks need not be `Send`.
pub(crate) fn local_runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// `first` and `second` in one; copies only if both hold something.
pub(crate) fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    let mut both = BytesMut::from(first);
    both.extend_from_slice(&second);
    both.freeze()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The parts of a request that are the same every time.
pub(crate) struct Template {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Template {
    /// A request for `address`; `key` becomes the bearer token.
    pub(crate) fn new(
        method: Method,
        address: SocketAddr,
        path: &str,
        key: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(HOST, HeaderValue::from_str(&address.to_string())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            headers.insert(
                AUTHORIZATION,
                HeaderValue::from_str(&format!("Bearer {key}"))?,
            );
        }
        Ok(Self {
            method,
            uri: path.parse()?,
            headers,
        })
    }

    /// With these headers, which replace those of the same name.
    pub(crate) fn with_headers(mut self, headers: &HeaderMap) -> Self {
        for (name, value) in headers {
            self.headers.insert(name, value.clone());
        }
        self
    }

    pub(crate) fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
