//! TLS, HTTP/2, and exchanging the certificate while running.

#![expect(clippy::expect_used, clippy::disallowed_methods, reason = "test kit")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use posthaste::config::Server as Section;
use posthaste::server::{Error, Settings, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stage::{PATIENT, Stage, within};

/// A directory with a certificate for `localhost` and its key.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> (Self, CertificateDer<'static>) {
        let files = Self {
            dir: tempfile::tempdir().expect("a directory"),
        };
        let cert = files.renew();
        (files, cert)
    }

    /// Writes a fresh pair and answers its certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([String::from("localhost")]);
        let made = made.expect("a certificate");
        std::fs::write(self.path("cert.pem"), made.cert.pem()).expect("written");
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).expect("written");
        made.cert.der().clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn section(&self) -> Section {
        Section {
            tls_cert: Some(self.path("cert.pem")),
            tls_key: Some(self.path("key.pem")),
            ..Section::default()
        }
    }
}

async fn connect(
    stage: &Stage,
    trusted: &CertificateDer<'static>,
    alpn: &str,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(stage.address)
        .await
        .expect("a connection");
    let connector = TlsConnector::from(Arc::new(config));
    within(connector.connect(name, stream))
        .await
        .expect("a handshake")
}

#[tokio::test]
async fn http_2_is_spoken_over_tls_when_both_want_it() {
    let (files, cert) = Files::new();
    let tls = Tls::open(&files.section()).expect("readable");
    let stage = Stage::with(PATIENT, tls, Duration::from_secs(1));
    let stream = connect(&stage, &cert, "h2").await;
    let io = TokioIo::new(stream);
    let (mut sender, connection) = within(hyper::client::conn::http2::handshake(
        TokioExecutor::new(),
        io,
    ))
    .await
    .expect("a handshake");
    posthaste::base::task::detach(async move { if connection.await.is_err() {} });
    let uri = format!("https://localhost:{}/x", stage.address.port());
    let request = http::Request::get(uri).body(Empty::<bytes::Bytes>::new());
    let answer = within(sender.send_request(request.expect("a request"))).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let frame = within(body.frame()).await.expect("a frame").expect("data");
    assert_eq!(frame.into_data().expect("data"), "0 bytes");
    stage.stop();
    assert_eq!(stage.end().await.late, 0);
}

#[tokio::test]
async fn a_reload_shows_new_connections_the_new_certificate() {
    let (files, first) = Files::new();
    let tls = Tls::open(&files.section()).expect("readable").expect("on");
    let stage = Stage::with(PATIENT, Some(tls.clone()), Duration::from_secs(1));
    let shown = |stream: &TlsStream<TcpStream>| {
        let (_, session) = stream.get_ref();
        session
            .peer_certificates()
            .and_then(|chain| chain.first().cloned())
    };
    let old = connect(&stage, &first, "http/1.1").await;
    assert_eq!(shown(&old), Some(first.clone()));
    let second = files.renew();
    let renewal = tls.renew(&files.section()).expect("readable").expect("on");
    let unchanged = connect(&stage, &first, "http/1.1").await;
    assert_eq!(shown(&unchanged), shown(&old), "only read, not adopted");
    renewal.adopt();
    let new = connect(&stage, &second, "http/1.1").await;
    assert_eq!(shown(&new), Some(second.clone()));
    std::fs::write(files.path("cert.pem"), "no certificate").expect("written");
    assert!(tls.renew(&files.section()).is_err());
    let still = connect(&stage, &second, "http/1.1").await;
    assert_eq!(shown(&still), Some(second));
}

#[tokio::test]
async fn a_client_without_tls_is_not_served() {
    let (files, _) = Files::new();
    let tls = Tls::open(&files.section()).expect("readable");
    let stage = Stage::with(PATIENT, tls, Duration::from_secs(1));
    let mut client = stage.connect().await;
    client.say("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!client.rest().await.contains("HTTP"));
    assert!(stage.seen().is_empty());
}

#[tokio::test]
async fn handshakes_that_do_not_end_are_closed_by_their_deadline() {
    let (files, cert) = Files::new();
    let tls = Tls::open(&files.section()).expect("readable");
    let settings = Settings {
        header_timeout: Duration::from_millis(500),
        ..PATIENT
    };
    let stage = Stage::with(settings, tls, Duration::from_secs(1));
    let mut clients = Vec::new();
    // Nothing, the head of a record, and a hello that breaks off.
    for said in [
        &b""[..],
        b"\x16\x03\x01\x02\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        for _ in 0..20 {
            let mut client = stage.connect().await;
            client.say(said).await;
            clients.push(client);
        }
    }
    // Somebody else is served meanwhile.
    let served = connect(&stage, &cert, "http/1.1").await;
    drop(served);
    for client in &mut clients {
        assert!(!client.rest().await.contains("HTTP"));
    }
    stage.shows("posthaste_connections_in 0").await;
    assert!(stage.seen().is_empty());
}

#[test]
fn bad_files_are_named() {
    let (files, _) = Files::new();
    let open = |section: &Section| match Tls::open(section) {
        Ok(_) => String::from("was accepted"),
        Err(error) => error.to_string(),
    };
    assert!(matches!(Tls::open(&Section::default()), Ok(None)));
    let mut section = files.section();
    section.tls_cert = Some(files.path("absent.pem"));
    assert!(open(&section).contains("absent.pem"), "{}", open(&section));
    section.tls_cert = Some(files.path("key.pem"));
    assert!(
        open(&section).contains("holds no certificate"),
        "{}",
        open(&section)
    );
    let (other, _) = Files::new();
    section.tls_cert = Some(other.path("cert.pem"));
    assert!(matches!(Tls::open(&section), Err(Error::Tls(_))));
}
