//! The address matrix (T07): listeners stand on every forbidden address there is, and nobody comes.
//!
//! The test needs a network of its own, so it runs itself again inside `unshare -n` (as root, or with
//! a user namespace). Where neither is possible it runs on plain loopback, which has fewer addresses.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use posthaste::client::Request;
use posthaste::model::{AppNo, FailureKind};
use posthaste::policy::target::Target;

use crate::wire::kit::{Bench, Receiver, Reply, request, rules};

/// Hosts whose URL is refused when it is set, and whose address is refused at the attempt.
const HOSTS: &[&str] = &[
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1",
    "127.0.0.2",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "１２７.0.0.1",
    "127。0。0。1",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "x.localhost",
    "10.0.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.192",
    "203.0.113.1",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:7f00:1]",
    "[::5efe:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
];

/// Names that resolve to forbidden addresses: fine as a URL, refused at the attempt.
const NAMES: &[(&str, &str)] = &[
    ("metadata.google.internal", "169.254.169.254"),
    ("127.0.0.1.nip.io", "127.0.0.1"),
    ("wire.azure.example", "168.63.129.16"),
    ("mapped.example", "::ffff:10.0.0.1"),
    ("unique-local.example", "fd00:ec2::254"),
];

/// URLs that do not even parse, so there is nothing to attempt.
const SYNTAX: &[&str] = &[
    "http://[example.com]:8080/",
    "http://[fe80::1%25lo]:8080/",
    "http://a@127.0.0.1:8080/",
    "http://127.0.0.1:8080\\@public.example/",
    "http://127.0.0.1\t:8080/",
    "http://127.0.0.1:8080/\r\nx",
    "http:\\\\127.0.0.1:8080/",
];

/// What `lo` gets in the network of its own. The last one is public, hence the control.
const ADDRESSES: &[&str] = &[
    "10.0.0.1/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "169.254.169.254/32",
    "169.254.170.2/32",
    "192.0.0.192/32",
    "203.0.113.1/32",
    "fd00:ec2::254/128",
    "fec0::1/128",
    "64:ff9b::7f00:1/128",
    "64:ff9b:1::1/128",
    "2002:7f00:1::/128",
    "2001:0:7f00:1::/128",
    "20.1.1.1/32",
];
const PUBLIC: &str = "20.1.1.1";

const INSIDE: &str = "POSTHASTE_TEST_NETWORK";

#[test]
fn no_forbidden_address_is_ever_called() {
    if std::env::var_os(INSIDE).is_some() {
        block_on(in_own_network());
        return;
    }
    let is_root = command("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    let own_network: &[&str] = if is_root { &["-n"] } else { &["-r", "-n"] };
    if !is_root && command("unshare", &[own_network, &["true"]].concat()).is_none() {
        block_on(on_loopback());
        return;
    }
    let again = Command::new("unshare")
        .args(own_network)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "ssrf::addresses::no_forbidden_address_is_ever_called",
        ])
        .arg("--nocapture")
        .env(INSIDE, "1")
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&again.stderr);
    assert!(
        again.status.success(),
        "inside the network: {said}\n{wrong}"
    );
    assert!(
        said.contains("1 passed"),
        "nothing was tested inside: {said}"
    );
}

fn command(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

async fn in_own_network() {
    let set = |args: &[&str]| {
        let done = command("ip", args);
        assert!(done.is_some(), "ip {} failed", args.join(" "));
    };
    set(&["link", "set", "lo", "up"]);
    for address in ADDRESSES {
        let family = if address.contains(':') { "-6" } else { "-4" };
        set(&[family, "addr", "add", address, "dev", "lo"]);
    }
    let listeners = listen(8080).await;
    let guarded = Bench::allowing(&[]);
    nobody_comes(&guarded, &listeners, 8080).await;

    // The control: the same listeners do count whoever is let through.
    let url = format!("http://{PUBLIC}:8080/");
    let outcome = guarded.client.send(request(&url)).await.outcome;
    assert_eq!(outcome.failure, None);
    assert_eq!(connections(&listeners), 1);
    let open = Bench::allowing(&["0.0.0.0/0", "::/0"]);
    let reachable = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "168.63.129.16"];
    let reachable = reachable.iter().chain(&[
        "100.100.100.200",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fd00:ec2::254]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ]);
    for (n, host) in reachable.enumerate() {
        let url = format!("http://{host}:8080/");
        let outcome = open.client.send(request(&url)).await.outcome;
        assert_eq!(outcome.failure, None, "{host}");
        assert_eq!(connections(&listeners), n + 2, "{host} counts nobody");
    }
}

async fn on_loopback() {
    let v4 = Receiver::start(|_| Reply::ok()).await;
    let port = v4.addr.port();
    let guarded = Bench::allowing(&[]);
    nobody_comes(&guarded, std::slice::from_ref(&v4), port).await;
    let open = Bench::allowing(&["127.0.0.0/8"]);
    let outcome = open.client.send(request(&v4.url())).await.outcome;
    assert_eq!((outcome.failure, v4.connections()), (None, 1));
}

async fn listen(port: u16) -> Vec<Receiver> {
    let v4 = Receiver::bind(([0, 0, 0, 0], port).into(), |_| Reply::ok()).await;
    // Its own socket for IPv6 would clash if it took IPv4 as well.
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    socket2::SockRef::from(&socket).set_only_v6(true).unwrap();
    socket
        .bind((std::net::Ipv6Addr::UNSPECIFIED, port).into())
        .unwrap();
    let v6 = Receiver::on(socket.listen(64).unwrap(), |_| Reply::ok());
    vec![v4, v6]
}

fn connections(listeners: &[Receiver]) -> usize {
    listeners.iter().map(Receiver::connections).sum()
}

async fn nobody_comes(guarded: &Bench, listeners: &[Receiver], port: u16) {
    let strict = rules(&[]);
    let url = |host: &str| format!("http://{host}:{port}/latest/meta-data/");
    for host in HOSTS {
        let set = Target::parse(&url(host), &strict);
        assert!(set.is_err(), "{host} was accepted as a URL");
        attempt(guarded, request(&url(host)), host).await;
    }
    for (name, ip) in NAMES {
        guarded.names.point(name, &[ip]);
        assert!(Target::parse(&url(name), &strict).is_ok(), "{name}");
        attempt(guarded, request(&url(name)), name).await;
    }
    for url in SYNTAX {
        let anything = rules(&["0.0.0.0/0", "::/0"]);
        assert!(Target::parse(url, &anything).is_err(), "{url:?} parses");
    }
    // A URL whose fragment looks like the host is called at its host, which is forbidden.
    let tricky = format!("http://127.0.0.1:{port}#@{PUBLIC}");
    attempt(guarded, request(&tricky), &tricky).await;
    assert_eq!(connections(listeners), 0, "somebody came");
}

async fn attempt(guarded: &Bench, request: Request, what: &str) {
    let outcome = guarded.client.send(request).await.outcome;
    assert_eq!(outcome.failure, Some(FailureKind::BlockedAddress), "{what}");
    assert_eq!(outcome.status, 0, "{what}");
}

#[tokio::test]
async fn a_blocked_target_answers_as_fast_as_it_can_and_shows_no_body() {
    let guarded = Bench::allowing(&[]);
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let target = request(&receiver.url()).target;
    let exchange = guarded
        .client
        .send(Request {
            method: http::Method::POST,
            tenant: AppNo(1),
            target: Arc::clone(&target),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
            fresh: false,
        })
        .await;
    assert_eq!(exchange.response, "");
    assert!(!exchange.broke_early && exchange.duration_ms < 1000);
    assert_eq!(receiver.connections(), 0);
}
