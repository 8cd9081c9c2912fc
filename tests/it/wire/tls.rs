//! TLS and HTTP/2 (T45): only the right certificate delivers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use posthaste::base::task;
use posthaste::model::FailureKind;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::kit::{Bench, request};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Server {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers 200 with the protocol's name, over TLS with this certificate.
    async fn start(chain: Vec<CertificateDer<'static>>, key: &KeyPair, protocols: &[&str]) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        task::detach(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
                task::detach(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    counter.fetch_add(1, Ordering::SeqCst);
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let service = service_fn(answer);
                    drop(
                        builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { addr, connections }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/hook", self.addr.port())
    }
}

async fn answer(request: hyper::Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request.headers().get("host").map(|v| v.as_bytes().to_vec());
    let host = host.or_else(|| request.uri().authority().map(|a| a.as_str().into()));
    let text = format!(
        "{:?} {} {}",
        request.version(),
        String::from_utf8(host.unwrap_or_default()).unwrap(),
        request.uri().path()
    );
    Ok(Response::new(Full::from(text)))
}

fn trusting(authority: &Authority) -> Bench {
    let root = authority.der().clone();
    Bench::with(&["127.0.0.0/8"], |options| options.extra_roots.push(root))
}

fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

#[tokio::test]
async fn only_the_right_certificate_delivers() {
    let (good, other) = (authority(), authority());
    let mut expired = leaf(&["localhost"]);
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2020, 2, 1);
    let mut future = leaf(&["localhost"]);
    future.not_before = date_time_ymd(2999, 1, 1);
    future.not_after = date_time_ymd(3000, 1, 1);
    let mut name_only = leaf(&[]);
    name_only
        .distinguished_name
        .push(rcgen::DnType::CommonName, "localhost");
    for (what, params, issuer, delivers) in [
        ("good", leaf(&["localhost"]), Some(&good), true),
        ("wrong host", leaf(&["other.example"]), Some(&good), false),
        (
            "wildcard too high",
            leaf(&["*.localhost"]),
            Some(&good),
            false,
        ),
        ("common name only", name_only, Some(&good), false),
        ("expired", expired, Some(&good), false),
        ("not yet valid", future, Some(&good), false),
        (
            "unknown authority",
            leaf(&["localhost"]),
            Some(&other),
            false,
        ),
        ("self-signed", leaf(&["localhost"]), None, false),
    ] {
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        let chain = vec![certificate.unwrap().der().clone()];
        let server = Server::start(chain, &key, &["http/1.1"]).await;
        let exchange = trusting(&good).client.send(request(&server.url())).await;
        if delivers {
            let host = format!("localhost:{}", server.addr.port());
            assert_eq!(exchange.outcome.failure, None, "{what}");
            assert_eq!(exchange.response, format!("HTTP/1.1 {host} /hook"));
        } else {
            assert_eq!(exchange.outcome.failure, Some(FailureKind::Tls), "{what}");
            assert_eq!(exchange.response, "");
        }
    }
}

#[tokio::test]
async fn an_extra_root_that_is_not_given_is_not_trusted() {
    let good = authority();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf(&["localhost"]).signed_by(&key, &good).unwrap();
    let server = Server::start(vec![certificate.der().clone()], &key, &["h2"]).await;
    let exchange = Bench::allowing(&["127.0.0.0/8"])
        .client
        .send(request(&server.url()))
        .await;
    assert_eq!(exchange.outcome.failure, Some(FailureKind::Tls));
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_a_tls_failure_and_a_silent_one_a_time_out() {
    use super::kit::{Receiver, Reply};
    let plain = Receiver::start(|_| Reply::ok()).await;
    let bench = Bench::with(&["127.0.0.0/8"], |options| {
        options.connect_timeout = std::time::Duration::from_millis(300);
    });
    let url = plain.url().replace("http:", "https:");
    let exchange = bench.client.send(request(&url)).await;
    let kind = exchange.outcome.failure;
    // The receiver waits for the end of a head that never comes.
    assert_eq!(kind, Some(FailureKind::TimeoutConnect));
    let talks = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", talks.local_addr().unwrap());
    task::detach(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut stream, _)) = talks.accept().await {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let exchange = bench.client.send(request(&url)).await;
    assert_eq!(exchange.outcome.failure, Some(FailureKind::Tls));
}

#[tokio::test]
async fn many_requests_share_one_http_2_connection() {
    let good = authority();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf(&["localhost"]).signed_by(&key, &good).unwrap();
    let server = Server::start(vec![certificate.der().clone()], &key, &["h2", "http/1.1"]).await;
    let bench = trusting(&good);
    let first = bench.client.send(request(&server.url())).await;
    let host = format!("localhost:{}", server.addr.port());
    assert_eq!(first.response, format!("HTTP/2.0 {host} /hook"));
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, url) = (bench.client.clone(), server.url());
        sends.spawn(async move { client.send(request(&url)).await.outcome.status });
    }
    assert_eq!(sends.join_all().await, [200; 50]);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);

    // After its life the next one is opened once, however many want it.
    bench.clock.advance(posthaste::client::POOL_LIFE);
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, url) = (bench.client.clone(), server.url());
        sends.spawn(async move { client.send(request(&url)).await.outcome.status });
    }
    assert_eq!(sends.join_all().await, [200; 50]);
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}
