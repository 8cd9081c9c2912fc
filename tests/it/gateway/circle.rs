//! Nothing goes in circles: what leads back here is refused, and what gets around that ends (S14).

use std::process::Command;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, Client, Gateway, Receiver, SOON, endpoint, free_port, message, send};

const MESSAGES: &str = "/api/v1/app/acme/msg";

#[tokio::test]
async fn a_receiver_that_posts_everything_back_is_stopped_after_three_hops() {
    let gateway = Gateway::start(&[]).await;
    // More places than there can be deliveries; a full one would panic in the receiver.
    let (to_relay, mut to_post) = tokio::sync::mpsc::channel(64);
    let receiver = Receiver::scripted(move |received| {
        to_relay.try_send(received.clone()).unwrap();
        Answer::ok()
    })
    .await;
    endpoint(&gateway, "acme", &receiver, "/relay", json!({})).await;
    send(&gateway, "acme", 7).await;

    let mut answers = Vec::new();
    let mut hops = Vec::new();
    while answers.last().is_none_or(|status| *status == 202) {
        let received = tokio::time::timeout(SOON, to_post.recv()).await;
        let received = received.expect("a delivery").expect("the receiver runs");
        let payload: Value = serde_json::from_slice(&received.body).unwrap();
        let made = received.header("webhook-hops").to_owned();
        let body = Bytes::from(message(payload).to_string());
        let headers = [("webhook-hops", made.as_str())];
        let posted = gateway
            .api()
            .send(Method::POST, MESSAGES, &headers, body)
            .await
            .unwrap();
        answers.push(posted.status.as_u16());
        if posted.status != 202 {
            assert_eq!(posted.json()["code"], "too_many_hops");
        }
        hops.push(made);
    }
    assert_eq!(hops, ["1", "2", "3"]);
    assert_eq!(answers, [202, 202, 400]);
    assert_eq!(receiver.count(), 3);
    assert_eq!(gateway.list(MESSAGES).await.len(), 3);
    let metrics = gateway.api().get("/metrics").await.text();
    let counted = r#"posthaste_ingest_refused_total{reason="too_many_hops"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
}

#[tokio::test]
async fn the_hops_of_a_message_outlive_the_process() {
    let gateway = Gateway::start(&[]).await;
    let receiver = Receiver::start().await;
    let hook = endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let off = json!({"disabled": true});
    gateway.api().patch(&hook.path(), &off).await.expect(200);
    let body = Bytes::from(message(json!({"n": 1})).to_string());
    let headers = [("webhook-hops", "2")];
    let api = gateway.api();
    let posted = api.send(Method::POST, MESSAGES, &headers, body).await;
    posted.unwrap().expect(202);

    let gateway = gateway.kill().start().await;
    let on = json!({"disabled": false});
    gateway.api().patch(&hook.path(), &on).await.expect(200);
    let received = receiver.delivered("/hook", 1, SOON).await;
    assert_eq!(received[0].header("webhook-hops"), "3");
}

#[tokio::test]
async fn an_endpoint_that_leads_back_here_is_refused() {
    let port = free_port();
    let listen = format!("0.0.0.0:{port}");
    let settings = [
        ("server.metrics_listen", listen.as_str()),
        (
            "server.public_urls",
            "https://hooks.example.com, http://127.3.3.3:9000/in",
        ),
        (
            "delivery.allow_networks",
            "0.0.0.0/0, ::/0", // the guard lets everything through: what refuses is S14 alone
        ),
    ];
    let gateway = Gateway::start(&settings).await;
    let receiver = Receiver::start().await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    let machine = Command::new("hostname").arg("-I").output().unwrap();
    let machine = String::from_utf8(machine.stdout).unwrap();
    let of_machine = machine.split_whitespace().map(|ip| {
        if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        }
    });
    let mut hosts: Vec<String> = ["127.0.0.1", "127.9.9.9", "localhost"]
        .map(str::to_owned)
        .into();
    hosts.extend(of_machine);
    let mut urls: Vec<String> = hosts
        .iter()
        .map(|host| format!("http://{host}:{port}/x"))
        .collect();
    urls.push(format!("http://{}/x", gateway.address));
    urls.push("https://hooks.example.com/anything".to_owned());
    urls.push("http://127.3.3.3:9000/".to_owned());
    for url in &urls {
        let made = create(gateway.api(), url).await;
        assert_eq!(made["code"], "validation", "{url}: {made}");
        assert_eq!(
            made["detail"][0]["type"], "blocked_address",
            "{url}: {made}"
        );
    }
    let others = hosts
        .iter()
        .map(|host| format!("http://{host}:{}/x", free_port()));
    let others = others.chain(["https://hooks.example.com:8443/x".to_owned()]);
    for url in others {
        let made = create(gateway.api(), &url).await;
        assert_eq!(made["url"], json!(url), "{made}");
    }
}

async fn create(api: &Client, url: &str) -> Value {
    let body = json!({"url": url});
    api.post("/api/v1/app/acme/endpoint", &body).await.json()
}
