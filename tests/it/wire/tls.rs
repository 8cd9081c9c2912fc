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

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

struct Server {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers 200 with the protocol's name, over TLS with this certificate.
    async fn start(chain: Vec<CertificateDer<'static>>, key: &KeyPair, protocols: &[&str]) -> Self {
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        Self::serve(
            config.with_single_cert(chain, private(key)).unwrap(),
            protocols,
        )
        .await
    }

    /// The same over TLS as configured.
    async fn serve(mut config: rustls::ServerConfig, protocols: &[&str]) -> Self {
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
        self.url_of("localhost")
    }

    fn url_of(&self, host: &str) -> String {
        format!("https://{host}:{}/hook", self.addr.port())
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
async fn a_wildcard_stands_for_one_label_and_an_address_for_itself() {
    let good = authority();
    for (name, host, delivers) in [
        ("*.hook.example", "a.hook.example", true),
        ("*.hook.example", "hook.example", false),
        ("*.hook.example", "a.b.hook.example", false),
        ("*.*.hook.example", "a.b.hook.example", false),
        ("a*.hook.example", "ab.hook.example", false),
        ("hook.example", "HOOK.example.", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.2", "127.0.0.1", false),
        ("localhost", "127.0.0.1", false),
    ] {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(&[name]).signed_by(&key, &good).unwrap();
        let server = Server::start(vec![certificate.der().clone()], &key, &["http/1.1"]).await;
        let bench = trusting(&good);
        for asked in [
            "a.hook.example",
            "a.b.hook.example",
            "ab.hook.example",
            "hook.example",
        ] {
            bench.names.point(asked, &["127.0.0.1"]);
        }
        let exchange = bench.client.send(request(&server.url_of(host))).await;
        let want = (!delivers).then_some(FailureKind::Tls);
        assert_eq!(exchange.outcome.failure, want, "{name} for {host}");
    }
}

#[tokio::test]
async fn chains_are_followed_to_the_root_and_no_further_than_sensible() {
    let root = authority();
    let mut issuers = vec![root];
    let mut chain = Vec::new();
    for n in 0..100 {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = rcgen::DnType::CommonName;
        params
            .distinguished_name
            .push(name, format!("authority {n}"));
        let before = issuers.last().unwrap();
        let next = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), before);
        let next = next.unwrap();
        chain.insert(0, next.der().clone());
        issuers.push(next);
    }
    for (length, is_whole, delivers) in [
        (1, true, true),
        (3, true, true),
        (3, false, false), // the one that the root has signed is missing
        (100, true, false),
    ] {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(&["localhost"])
            .signed_by(&key, &issuers[length])
            .unwrap();
        let mut sent = vec![certificate.der().clone()];
        sent.extend_from_slice(&chain[chain.len() - length..]);
        if !is_whole {
            sent.pop();
        }
        let server = Server::start(sent, &key, &["http/1.1"]).await;
        let exchange = trusting(&issuers[0])
            .client
            .send(request(&server.url()))
            .await;
        let want = (!delivers).then_some(FailureKind::Tls);
        assert_eq!(exchange.outcome.failure, want, "a chain of {length}");
        assert!(exchange.duration_ms < 3000, "{exchange:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_only_asked_for_does_not_matter() {
    use rustls::server::WebPkiClientVerifier;
    let good = authority();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(good.der().clone()).unwrap();
    let roots = Arc::new(roots);
    for is_required in [false, true] {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
        let verifier = if is_required {
            verifier.build().unwrap()
        } else {
            verifier.allow_unauthenticated().build().unwrap()
        };
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(&["localhost"]).signed_by(&key, &good).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], private(&key))
            .unwrap();
        let server = Server::serve(config, &["http/1.1"]).await;
        let outcome = trusting(&good)
            .client
            .send(request(&server.url()))
            .await
            .outcome;
        let served = server.connections.load(Ordering::SeqCst);
        if is_required {
            // The handshake is over on our side before the other side says no (TLS 1.3).
            let kind = outcome.failure;
            assert!(
                matches!(kind, Some(FailureKind::Tls | FailureKind::Reset)),
                "{kind:?}"
            );
            assert_eq!((outcome.status, served), (0, 0));
        } else {
            assert_eq!((outcome.failure, served), (None, 1));
        }
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let good = authority();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(&["localhost"]).signed_by(&key, &good).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private(&key))
            .unwrap();
        let server = Server::serve(config, &["http/1.1"]).await;
        let outcome = trusting(&good)
            .client
            .send(request(&server.url()))
            .await
            .outcome;
        assert_eq!(outcome.failure, None, "{version:?}");
    }
    for (minor, what) in [(2, "TLS 1.1"), (1, "TLS 1.0"), (0, "SSL 3")] {
        // A ServerHello of that version, which is all that such a server would say.
        let mut hello = vec![0x02, 0, 0, 38, 3, minor];
        hello.extend([7; 32]);
        hello.extend([0, 0xc0, 0x13, 0]);
        let mut record = vec![0x16, 3, minor, 0, 42];
        record.extend(hello);
        let url = talker(record, Vec::new()).await;
        let outcome = trusting(&good).client.send(request(&url)).await.outcome;
        assert_eq!(outcome.failure, Some(FailureKind::Tls), "{what}");
    }
}

/// A port that says the first part at once and the second byte by byte, whatever it hears.
async fn talker(first: Vec<u8>, then: Vec<u8>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    task::detach(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut heard = [0; 4096];
            drop(stream.read(&mut heard).await);
            drop(stream.write_all(&first).await);
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
            for byte in &then {
                ticks.tick().await;
                drop(stream.write_all(&[*byte]).await);
            }
            drop(stream.read(&mut heard).await); // waits for the other side to go
        }
    });
    url
}

#[tokio::test]
async fn a_handshake_that_drips_ends_with_its_time() {
    let url = talker(vec![0x16, 3, 3, 0x30, 0], vec![2; 200]).await;
    let bench = Bench::with(&["127.0.0.0/8"], |options| {
        options.connect_timeout = std::time::Duration::from_millis(500);
    });
    let exchange = bench.client.send(request(&url)).await;
    assert_eq!(exchange.outcome.failure, Some(FailureKind::TimeoutConnect));
    assert!(exchange.duration_ms < 1500, "{exchange:?}");
}

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
    bytes
}

#[tokio::test]
async fn a_flood_of_frames_from_a_receiver_is_an_answer_too_large() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let good = authority();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf(&["localhost"]).signed_by(&key, &good).unwrap();
    // `:status: 103`, as it would be written a thousand times.
    let interim = frame(1, 4, 1, b"\x08\x03103");
    let floods = [
        ("interim answers", Vec::new(), interim),
        ("pings", Vec::new(), frame(6, 0, 0, b"12345678")),
        ("settings", Vec::new(), frame(4, 0, 0, b"")),
        (
            "endless head",
            frame(1, 0, 1, b"\x88"),
            frame(9, 0, 1, &[0; 100]),
        ),
    ];
    for (what, first, again) in floods {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private(&key))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/",
            listener.local_addr().unwrap().port()
        );
        let flood = again.repeat(100);
        task::detach(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let mut heard = Vec::new();
            // The whole request: its body is the last of it.
            while !heard.ends_with(b"{}") {
                assert!(read.read_buf(&mut heard).await.unwrap() > 0);
            }
            task::detach(async move {
                let mut rest = [0; 4096];
                while read.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            });
            drop(
                write
                    .write_all(&[frame(4, 0, 0, b""), first].concat())
                    .await,
            );
            while write.write_all(&flood).await.is_ok() && write.flush().await.is_ok() {}
        });
        let bench = trusting(&good);
        let exchange = bench.client.send(request(&url)).await;
        let kind = exchange.outcome.failure;
        let is_named = kind == Some(FailureKind::ResponseTooLarge);
        // h2 itself ends a head without end, and says no more than that the connection broke.
        let is_broken = what == "endless head" && kind == Some(FailureKind::Reset);
        assert!(is_named || is_broken, "{what}: {exchange:?}");
        assert!(exchange.duration_ms < 3000, "{what}: {exchange:?}");
    }
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
