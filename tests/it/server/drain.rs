//! Stopping: what is under way is answered, what is idle is closed, and there is an end to it.

use std::time::Duration;

use posthaste::server::Drained;

use super::stage::{PATIENT, Stage};

const WAIT: &str = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_closes_what_is_idle() {
    let stage = Stage::open(PATIENT);
    let mut idle = stage.connect().await;
    idle.say(GET).await;
    idle.answer("0 bytes").await;
    let mut busy = stage.connect().await;
    busy.say(WAIT).await;
    stage.arrival().await;
    stage.stop();
    assert_eq!(idle.rest().await, "");
    stage.let_through();
    let answer = busy.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("0 bytes"), "{answer}");
    assert_eq!(stage.end().await, Drained { late: 0 });
}

#[tokio::test]
async fn a_request_sent_just_before_the_stop_is_answered() {
    for _ in 0..20 {
        let stage = Stage::open(PATIENT);
        let mut client = stage.connect().await;
        client.say(GET).await;
        stage.stop();
        let answer = client.rest().await;
        assert!(answer.ends_with("0 bytes"), "{answer}");
        assert_eq!(stage.end().await, Drained { late: 0 });
    }
}

#[tokio::test]
async fn a_connection_that_never_speaks_does_not_hold_up_the_end() {
    let stage = Stage::with(PATIENT, None, Duration::from_secs(60));
    let mut mute = stage.connect().await;
    let mut half = stage.connect().await;
    half.say("GET /x HTTP").await;
    stage.stop();
    assert_eq!(mute.rest().await, "");
    assert_eq!(half.rest().await, "");
    assert_eq!(stage.end().await, Drained { late: 0 });
}

#[tokio::test]
async fn the_limit_ends_what_does_not_end_by_itself() {
    let stage = Stage::with(PATIENT, None, Duration::from_millis(200));
    let mut stuck = stage.connect().await;
    stuck.say(WAIT).await;
    stage.arrival().await;
    stage.stop();
    assert_eq!(stuck.rest().await, "");
    assert_eq!(stage.end().await, Drained { late: 1 });
}

#[tokio::test]
async fn nobody_is_accepted_after_the_stop() {
    let stage = Stage::open(PATIENT);
    let address = stage.address;
    stage.stop();
    assert_eq!(stage.end().await, Drained { late: 0 });
    let refused = std::net::TcpStream::connect(address);
    assert_eq!(
        refused.map(drop).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionRefused)
    );
}
