//! File descriptors run short (T46): refused at the start, and borne while running.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::kit::{
    Gateway, Launch, Receiver, SOON, dependency, eventually, message, open_files, pause, say,
};

const CLIENTS: usize = 1_000;
const ENDPOINTS: u8 = 250;

fn prlimit(limit: u64) -> Vec<String> {
    let program = dependency("/usr/bin/prlimit").display().to_string();
    vec![program, format!("--nofile={limit}:{limit}")]
}

fn limited(launch: Launch, limit: u64) -> Launch {
    let words = prlimit(limit);
    launch.behind(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn limits_that_need_more_files_than_granted_refuse_the_start() {
    let mut gateway = limited(Launch::new(&[]), 256).spawn();
    let status = gateway.wait_end(SOON).await;
    let log = gateway.log();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(
        log.contains("need 6656 open files and the system grants 256"),
        "{log}"
    );
    assert!(log.contains("LimitNOFILE="), "{log}");
    assert!(!gateway.launch().data().exists(), "nothing was touched");
}

/// Share of one core that the gateway uses while `time` passes.
async fn load_of(gateway: &Gateway, time: Duration) -> f64 {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1;
        let mut fields = fields.split(' ').skip(11); // utime, stime
        let mut next = || fields.next().unwrap().parse::<f64>().unwrap();
        next() + next()
    };
    let before = ticks();
    pause(time).await;
    (ticks() - before) / 100.0 / time.as_secs_f64() // USER_HZ is 100 on Linux
}

/// Sends a message to every endpoint and waits until all of them have it.
async fn everywhere(gateway: &Gateway, receiver: &Receiver) {
    let body = message(json!({}));
    let made = gateway
        .api()
        .post("/api/v1/app/acme/msg", &body)
        .await
        .expect(202);
    let id = made["id"].as_str().unwrap().to_owned();
    eventually(
        "every endpoint has it",
        Duration::from_secs(20),
        async || {
            let all = receiver.all();
            let done = all.iter().filter(|one| one.id == id && one.is_success());
            (done.count() == usize::from(ENDPOINTS)).then_some(())
        },
    )
    .await;
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
        .unwrap()
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_clients_and_endpoints_stays_within_the_budget_and_spins_nowhere() {
    open_files(4_096);
    let (connections, attempts) = (128, 32);
    let budget = connections + 2 * attempts + 512;
    let settings = [
        ("server.max_connections", "128"),
        ("server.header_timeout", "20s"),
        ("server.body_timeout", "30s"),
        ("delivery.max_in_flight", "32"),
        ("delivery.retry_schedule", "1,1,1,1,1,1,1,1,1,1"),
    ];
    let gateway = limited(Launch::new(&settings), budget).start().await;
    // Addresses of their own: an origin each, with connections that are kept.
    let receiver = Receiver::anywhere().await;
    let port = receiver.address.port();
    let app = json!({"name": "acme", "uid": "acme"});
    gateway.api().post("/api/v1/app", &app).await.expect(201);
    for n in 0..ENDPOINTS {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 1, n), port));
        let body = json!({"url": format!("http://{address}/hook")});
        gateway
            .api()
            .post("/api/v1/app/acme/endpoint", &body)
            .await
            .expect(201);
    }
    everywhere(&gateway, &receiver).await;
    let open = descriptors(&gateway);
    let most = usize::try_from(2 * attempts).unwrap() + 64;
    assert!(
        open <= most,
        "{open} open files after calling {ENDPOINTS} origins, at most {most}"
    );

    // A crowd at the door. 128 come in, the rest wait in the backlog.
    let address = gateway.address;
    let crowd: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    eventually("the connections are taken", SOON, async || {
        (descriptors(&gateway) > 128).then_some(())
    })
    .await;
    let full = load_of(&gateway, Duration::from_secs(2)).await;
    assert!(full < 0.5, "{full} of a core with all connections taken");

    // Now the system grants less than was promised at the start: accepting fails.
    drop(crowd);
    let status = Command::new(dependency("/usr/bin/prlimit"))
        .args(["--pid", &gateway.pid().to_string(), "--nofile=100:100"])
        .status()
        .unwrap();
    assert!(status.success());
    let crowd: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    eventually("accepting fails", SOON, async || {
        gateway.log().contains("cannot accept").then_some(())
    })
    .await;
    let short = load_of(&gateway, Duration::from_secs(2)).await;
    assert!(short < 0.5, "{short} of a core with no descriptor left");
    let warnings = gateway.log().matches("cannot accept").count();
    assert!(warnings < 100, "{warnings} warnings");

    drop(crowd);
    everywhere(&gateway, &receiver).await;
    say(&format!("{open} files, {full:.2} and {short:.2} of a core"));
    let (status, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0), "the store was not affected");
}
