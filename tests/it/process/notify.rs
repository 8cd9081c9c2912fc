//! What the service manager hears (T43), and that the unit fits it.

use std::time::Duration;

use serde_json::json;

use crate::kit::{
    Answer, Gateway, Launch, Manager, Receiver, SOON, dependency, endpoint, eventually, pause,
    release, repository, send,
};

const WATCHDOG: Duration = Duration::from_secs(2);

/// A data directory with `count` open messages for a receiver that does not take them, killed.
async fn left_over(receiver: &Receiver, count: usize) -> Launch {
    let gateway = Gateway::start(&[]).await;
    endpoint(&gateway, "acme", receiver, "/hook", json!({})).await;
    for n in 0..count {
        send(&gateway, "acme", n).await;
    }
    gateway.kill().launch
}

/// The same directory, opened by a gateway that needs `time` longer for it.
fn slowly(launch: Launch, time: Duration) -> Launch {
    let strace = dependency("/usr/bin/strace").display().to_string();
    let mark = launch.data().join("hwm").display().to_string();
    let slow = format!("inject=openat:delay_enter={}:when=1", time.as_micros());
    // -D: the gateway is our child and strace is not in the way of signals.
    let tracer = [
        &strace,
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        &mark,
        "-e",
        "trace=openat",
        "-e",
        &slow,
    ];
    launch.behind(&tracer)
}

#[tokio::test]
async fn ready_is_said_after_the_recovery_and_until_then_more_time_is_asked_for() {
    let manager = Manager::start();
    let receiver = Receiver::scripted(|_| Answer::status(500)).await;
    let launch = left_over(&receiver, 3).await;
    let begun = crate::kit::now();
    let time = Duration::from_secs(6);
    let mut gateway = manager.watch(slowly(launch, time), WATCHDOG).spawn();
    let first = manager.heard("EXTEND_TIMEOUT_USEC=", 1, SOON).await;
    let micros: u64 = first.value("EXTEND_TIMEOUT_USEC").unwrap().parse().unwrap();
    gateway.signal("HUP"); // kept until it can be carried out

    let ready = manager.heard("READY=1", 1, SOON).await;
    assert!(
        ready.at - begun > time,
        "ready {:?} early",
        ready.at - begun
    );
    let asked = manager.times("EXTEND_TIMEOUT_USEC=");
    assert!(asked.len() >= 2, "asked {} times", asked.len());
    let gaps = asked.windows(2).map(|two| two[1] - two[0]);
    let longest = gaps.max().unwrap();
    assert!(longest < Duration::from_micros(micros) / 2, "{longest:?}");
    assert!(asked.iter().all(|at| *at < ready.at));
    assert_eq!(
        manager
            .times("WATCHDOG=1")
            .iter()
            .find(|at| **at < ready.at),
        None
    );
    gateway.wait_ready().await;
    let log = gateway.log();
    let recovered = log.find("recovered what was open").unwrap();
    assert!(recovered < log.find("posthaste is ready").unwrap(), "{log}");

    manager.heard("RELOADING=1", 1, SOON).await;
    manager.heard("READY=1", 2, SOON).await;
    assert!(
        gateway.log().contains("read again"),
        "the early SIGHUP is carried out"
    );
}

#[tokio::test]
async fn told_to_stop_during_a_long_recovery_it_says_so_and_loses_nothing() {
    let manager = Manager::start();
    let receiver = Receiver::scripted(|_| Answer::status(500)).await;
    let launch = left_over(&receiver, 3).await;
    let slow = slowly(launch.clone(), Duration::from_secs(20));
    let mut gateway = manager.watch(slow, WATCHDOG).spawn();
    manager.heard("EXTEND_TIMEOUT_USEC=", 1, SOON).await;
    // By then the store is being opened; before, the directory lock is not even taken.
    pause(Duration::from_millis(500)).await;
    gateway.signal("TERM");
    manager.heard("STOPPING=1", 1, Duration::from_secs(5)).await;
    release(&gateway);
    let status = gateway.wait_end(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(manager.times("READY=1").is_empty());

    let gateway = launch.start().await;
    assert_eq!(gateway.list("/api/v1/app/acme/msg").await.len(), 3);
}

#[tokio::test]
async fn the_watchdog_is_fed_also_while_receivers_hang_and_reload_and_stop_are_announced() {
    let manager = Manager::start();
    let launch = Launch::new(&[
        ("delivery.max_in_flight", "2"),
        ("delivery.endpoint_concurrency", "2"),
        ("delivery.timeout", "2s"),
        ("delivery.connect_timeout", "1s"),
    ]);
    let gateway = manager.watch(launch, WATCHDOG).start().await;
    let receiver = Receiver::scripted(|_| Answer::ok().after(Duration::from_secs(30))).await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    for n in 0..6 {
        send(&gateway, "acme", n).await;
    }
    let ready = manager.heard("READY=1", 1, SOON).await;
    pause(Duration::from_secs(4)).await;
    let mut pings = manager.times("WATCHDOG=1");
    pings.insert(0, ready.at);
    let longest = pings.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(longest <= WATCHDOG / 2, "silent for {longest:?}");
    let last = pings.last().unwrap().elapsed();
    assert!(last <= WATCHDOG / 2, "silent for {last:?}");

    gateway.signal("HUP");
    let said = manager.heard("RELOADING=1", 1, SOON).await;
    let micros: u128 = said.value("MONOTONIC_USEC").unwrap().parse().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let off = uptime - Duration::from_micros(micros.try_into().unwrap()).as_secs_f64();
    assert!(off.abs() < 30.0, "MONOTONIC_USEC is {off} s off");
    let again = manager.heard("READY=1", 2, SOON).await;
    assert!(again.at >= said.at);

    gateway.signal("TERM");
    manager.heard("STOPPING=1", 1, SOON).await;
    let (status, _) = gateway.stop().await;
    assert!(status.code().is_some());
}

#[test]
fn the_unit_fits_what_the_gateway_says() {
    let unit = std::fs::read_to_string(repository("systemd/posthaste.service")).unwrap();
    let value = |key: &str| {
        let mut lines = unit.lines();
        lines
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("{key} is not set"))
    };
    assert_eq!(value("Type"), "notify");
    assert_eq!(value("NotifyAccess"), "main");
    assert_eq!(value("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(value("RestartPreventExitStatus"), "78");
    // Above the 10 s for which the disk may stall, or a stall would be a restart.
    let watchdog: u64 = value("WatchdogSec").parse().unwrap();
    assert!((20..=60).contains(&watchdog), "{watchdog}");
    let stop: u64 = value("TimeoutStopSec").parse().unwrap();
    let drain = posthaste::config::Config::default().server.drain_timeout;
    assert!(stop >= 2 * drain.as_secs(), "{stop}");
}

#[tokio::test]
async fn without_a_service_manager_nothing_is_said_and_nothing_missed() {
    let gateway = Launch::new(&[("log.level", "debug")]).start().await;
    gateway.signal("HUP");
    eventually("the reload", SOON, async || {
        gateway.log().contains("read again").then_some(())
    })
    .await;
    assert!(
        !gateway.log().contains("service manager"),
        "{}",
        gateway.log()
    );
}
