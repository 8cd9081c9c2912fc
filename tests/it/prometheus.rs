//! A real Prometheus scrapes the gateway; `promtool` reads its page.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{
    Answer, Client, Gateway, Receiver, SOON, dependency, endpoint, eventually, free_port,
    run_to_end, send, spawn_logged,
};

/// Series that must exist after a few deliveries, as PromQL that is not empty.
const EXPECTED: &[&str] = &[
    "posthaste_build_info == 1",
    "posthaste_ingest_messages_total >= 5",
    "posthaste_ingest_bytes_total > 0",
    "posthaste_commit_seconds_count > 0",
    "posthaste_commit_messages_count > 0",
    "posthaste_commit_queue",
    "posthaste_deliveries_pending",
    "posthaste_deliveries_in_memory",
    "posthaste_deliveries_parked",
    "posthaste_deliveries_in_flight",
    "posthaste_oldest_pending_seconds",
    "posthaste_attempts_total{class=\"2xx\"} >= 5",
    "posthaste_attempts_total{class=\"status_5xx\"} >= 1",
    "posthaste_delivery_seconds_count >= 5",
    "posthaste_attempt_seconds_count >= 6",
    "posthaste_deliveries_finished_total{state=\"delivered\"} >= 5",
    "posthaste_connections_in",
    "posthaste_connections_refused_total",
    "posthaste_connections_out",
    "posthaste_http_requests_total{class=\"2xx\"} > 0",
    "posthaste_api_requests_total{method=\"POST\",route=\"/app/{app_id}/endpoint\",status=\"201\"} == 1",
    "posthaste_api_seconds_count{method=\"POST\",route=\"/app\"} == 1",
    "posthaste_store_bytes > 0",
    "histogram_quantile(0.99, posthaste_delivery_seconds_bucket) > 0",
    "up == 1",
];

#[tokio::test]
async fn a_real_prometheus_scrapes_the_expected_series() {
    let gateway = busy_gateway().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Prometheus::start(dir.path(), &gateway);
    for query in EXPECTED {
        let what = format!("`{query}` has a value");
        eventually(&what, Duration::from_secs(20), async || {
            let result = server.query(query).await?;
            let found = result["data"]["result"].as_array()?.len();
            (found > 0).then_some(())
        })
        .await;
    }
    let targets = server.api.get("/api/v1/targets").await.expect(200);
    let target = &targets["data"]["activeTargets"][0];
    assert_eq!(
        (&target["health"], &target["lastError"]),
        (&json!("up"), &json!(""))
    );
}

#[tokio::test]
async fn promtool_finds_nothing_to_complain_about() {
    let gateway = busy_gateway().await;
    let page = gateway.api().get("/metrics").await;
    assert_eq!(page.status, 200);
    let kind = page.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let promtool = dependency("/usr/bin/promtool");
    let checked = run_to_end(
        Command::new(promtool).args(["check", "metrics"]),
        &page.body,
    );
    assert!(
        checked.success && checked.text.is_empty(),
        "{}",
        checked.text
    );
}

#[tokio::test]
async fn the_metrics_listener_of_its_own_wants_no_key() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let gateway = Gateway::start(&[("server.metrics_listen", &listen)]).await;
    let stranger = Client::new(listen.parse().unwrap(), None);
    for path in ["/metrics", "/health", "/ready"] {
        stranger.get(path).await.expect_text(200);
    }
    assert_eq!(stranger.get("/api/v1/app").await.status, 404);
    drop(gateway);
}

/// A gateway that has accepted, delivered and failed.
async fn busy_gateway() -> Gateway {
    let gateway = Gateway::start(&[("delivery.retry_schedule", "100ms,100ms")]).await;
    let receiver = Receiver::scripted(|request| match (request.field("n").as_u64(), request.nth) {
        (Some(0), 1) => Answer::status(500),
        _ => Answer::ok(),
    })
    .await;
    endpoint(&gateway, "acme", &receiver, "/hook", json!({})).await;
    for n in 0..5 {
        send(&gateway, "acme", n).await;
    }
    receiver.delivered("/hook", 5, SOON).await;
    gateway
}

struct Prometheus {
    child: Child,
    api: Client,
}

impl Prometheus {
    fn start(dir: &Path, gateway: &Gateway) -> Self {
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}\n\
             scrape_configs:\n\
             - job_name: posthaste\n  \
               authorization: {{credentials: {key}}}\n  \
               static_configs: [{{targets: ['{address}']}}]\n",
            key = gateway.key(),
            address = gateway.address,
        );
        std::fs::write(&config, text).unwrap();
        let port = free_port();
        let child = spawn_logged(
            Command::new(dependency("/usr/bin/prometheus"))
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    dir.join("tsdb").display()
                ))
                .arg(format!("--web.listen-address=127.0.0.1:{port}")),
            &dir.join("prometheus.log"),
        );
        let address = ([127, 0, 0, 1], port).into();
        Self {
            child,
            api: Client::new(address, None),
        }
    }

    async fn query(&self, query: &str) -> Option<Value> {
        let encoded =
            percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/api/v1/query?query={encoded}");
        let reply = self
            .api
            .send(http::Method::GET, &path, &[], bytes::Bytes::new())
            .await
            .ok()?; // not listening yet
        (reply.status == 200).then(|| reply.json())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_err() {}
    }
}
