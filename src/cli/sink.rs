//! `posthaste sink`: a receiver for trying things out.
//!
//! Prints each request with the verdict on its signature and the reason, and fails as scripted.
//! With `--record` each request is one JSON line in a file, written before it is answered, so the
//! record holds everything that was answered even if the sink is killed.
//!
//! Elsewhere: the signature (`verdict`), sockets (`crate::server`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use super::verdict::{Delivery, Judge, Verdict};
use crate::base::task::{self, Stopper};
use crate::base::{ByteSize, Clock, SystemClock, Timestamp};
use crate::config;
use crate::metrics::ServerMetrics;
use crate::server::{Bound, RequestBody, Server, Settings, service_fn};

/// Messages whose tries are counted; beyond it counting starts anew.
const MAX_COUNTED: usize = 1_000_000;

/// Arguments of `posthaste sink`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 picks a free one. The first line of output says which.
    #[arg(long, default_value = "127.0.0.1:8072")]
    pub listen: SocketAddr,
    /// Secret that verifies (whsec_…, whpk_…); repeatable. Without one nothing is verified.
    #[arg(long = "secret", env = "POSTHASTE_SINK_SECRET", hide_env_values = true)]
    pub secrets: Vec<String>,
    /// Fail the first so many tries of each message (counted per path and webhook-id), or `all`.
    #[arg(long, default_value = "0")]
    pub fail: Tries,
    /// Fail for this percentage of messages only, chosen by their id.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub share: u8,
    /// Status of a failure.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub status: u16,
    /// Seconds for a `Retry-After` header on failures.
    #[arg(long)]
    pub retry_after: Option<u64>,
    /// Wait so long before each answer: 250ms, 2s, 1m.
    #[arg(long, default_value = "0s", value_parser = delay)]
    pub delay: Duration,
    /// Answer a bad signature like a good one (otherwise 401).
    #[arg(long)]
    pub accept_bad: bool,
    /// Print nothing but the address.
    #[arg(long)]
    pub quiet: bool,
    /// Append one JSON line per request to this file.
    #[arg(long)]
    pub record: Option<PathBuf>,
}

/// How many tries of a message fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// The first so many.
    First(u64),
    /// Every one.
    All,
}

impl FromStr for Tries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = text.parse();
        number
            .map(Self::First)
            .map_err(|_| format!("`{text}` is neither a number nor `all`"))
    }
}

fn delay(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no delay: write 250ms, 2s or 1m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err(wrong()),
    }
}

/// Serves until SIGINT or SIGTERM, then answers what is under way.
///
/// # Errors
/// The address cannot be bound, a secret is none, or the record cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let desk = Arc::new(Desk {
        delay: args.delay,
        quiet: args.quiet,
        clock: SystemClock::start(),
        sink: Mutex::new(Sink::new(args.clone())?),
    });
    let settings = Settings::from(&config::Server::default());
    let bound = Bound::to(args.listen)?;
    let server = Server::new(bound, None, settings, ServerMetrics::register());
    print(&format!("listening on http://{}", server.address()))?;
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.serve(request).await) }
    });
    let (stopper, stop) = Stopper::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    task::detach(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopper.stop();
    });
    let drain = args.delay + Duration::from_secs(1);
    server.run(service, stop, drain).await?;
    Ok(ExitCode::SUCCESS)
}

/// The sink behind its server.
struct Desk {
    delay: Duration,
    quiet: bool,
    clock: SystemClock,
    sink: Mutex<Sink>,
}

impl Desk {
    async fn serve(&self, request: http::Request<RequestBody>) -> Response<Empty<Bytes>> {
        let (head, body) = request.into_parts();
        let Some(body) = whole(body).await else {
            return reply(413, None);
        };
        let request = Request {
            method: &head.method,
            path: head.uri.path(),
            headers: &head.headers,
            body: &body,
        };
        let taken = self.sink.lock().take(request, self.clock.now());
        let answer = match taken {
            Ok(answer) => answer,
            // What cannot be recorded must not be acknowledged.
            Err(error) => {
                tracing::error!(%error, "the record cannot be written");
                return reply(507, None);
            }
        };
        if !self.quiet && print(&answer.line).is_err() {
            tracing::debug!("nobody reads the output");
        }
        tokio::time::sleep(self.delay).await;
        reply(answer.status, answer.retry_after)
    }
}

/// A body larger than this is refused with 413.
const MAX_BODY: usize = 16 << 20;

/// The body, unless it is too large or breaks off.
async fn whole(mut body: RequestBody) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            if all.len() + data.len() > MAX_BODY {
                return None;
            }
            all.extend_from_slice(&data);
        }
    }
    Some(all)
}

fn reply(status: u16, retry_after: Option<u64>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    // 200 to 599 by the arguments' own check.
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// What the sink knows. Shared by all connections; held for one request's bookkeeping at a time.
pub struct Sink {
    args: Args,
    judge: Judge,
    /// Tries per path and message.
    tries: HashMap<(String, String), u64>,
    record: Option<File>,
}

/// One request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// GET, POST …
    pub method: &'a Method,
    /// Path of the URL.
    pub path: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// What to answer, and the line to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status of the answer.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
    /// For people.
    pub line: String,
}

impl Sink {
    /// Opens the record and reads the secrets.
    ///
    /// # Errors
    /// A secret is none, or the record cannot be opened.
    pub fn new(args: Args) -> anyhow::Result<Self> {
        let record = args.record.as_ref().map(|path| {
            let file = File::options().create(true).append(true).open(path);
            file.with_context(|| format!("cannot open {}", path.display()))
        });
        Ok(Self {
            judge: Judge::new(&args.secrets)?,
            tries: HashMap::new(),
            record: record.transpose()?,
            args,
        })
    }

    /// Judges, counts, records, and decides the answer.
    ///
    /// # Errors
    /// The record cannot be written: then the request must not be answered as received.
    pub fn take(&mut self, request: Request<'_>, now: Timestamp) -> std::io::Result<Answer> {
        let text = |name| {
            let value = request.headers.get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("-")
        };
        let (id, attempt) = (text("webhook-id"), text("webhook-attempt"));
        let verdict = self.judge.judge(
            Delivery {
                path: request.path,
                headers: request.headers,
                body: request.body,
            },
            now,
        );
        let nth = self.count(request.path, id);
        let is_bad = matches!(verdict, Verdict::Bad(_)) && !self.args.accept_bad;
        let fails = self.fails(id, nth);
        let status = match (is_bad, fails) {
            (true, _) => 401,
            (false, true) => self.args.status,
            (false, false) => 204,
        };
        if let Some(record) = &mut self.record {
            let line = json!({
                "at": now.millis(),
                "method": request.method.as_str(),
                "path": request.path,
                "id": id,
                "attempt": attempt,
                "try": nth,
                "size": request.body.len(),
                "sha256": hex(&Sha256::digest(request.body)),
                "verdict": verdict.to_string(),
                "verified": verdict == Verdict::Good,
                "status": status,
            });
            record.write_all(format!("{line}\n").as_bytes())?;
        }
        let size = ByteSize::bytes(u64::try_from(request.body.len()).unwrap_or(u64::MAX));
        Ok(Answer {
            status,
            retry_after: self.args.retry_after.filter(|_| fails && !is_bad),
            line: format!(
                "{now}  {} {}  {id}  attempt {attempt}  {size}  {verdict}  -> {status}",
                request.method, request.path
            ),
        })
    }

    fn count(&mut self, path: &str, id: &str) -> u64 {
        if self.tries.len() >= MAX_COUNTED {
            self.tries.clear();
        }
        let tries = self
            .tries
            .entry((path.to_owned(), id.to_owned()))
            .or_default();
        *tries += 1;
        *tries
    }

    fn fails(&self, id: &str, nth: u64) -> bool {
        let scripted = match self.args.fail {
            Tries::First(count) => nth <= count,
            Tries::All => true,
        };
        // The first byte of a hash is as good as random, and the same at every try.
        let point = Sha256::digest(id).first().copied().unwrap_or(0);
        scripted && u16::from(point) * 100 < u16::from(self.args.share) * 256
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sink: Args,
    }

    fn sink(arguments: &str) -> Sink {
        let line = format!("sink {arguments}");
        let line = Line::try_parse_from(line.split_whitespace()).expect("good arguments");
        Sink::new(line.sink).expect("a sink")
    }

    fn take(sink: &mut Sink, path: &str, id: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().expect("value"));
        headers.insert("webhook-attempt", "1/10".parse().expect("value"));
        let request = Request {
            method: &Method::POST,
            path,
            headers: &headers,
            body: b"{}",
        };
        sink.take(request, Timestamp::from_millis(1_767_600_930_120))
            .expect("no record to fail")
    }

    #[test]
    fn the_first_tries_of_each_message_fail_per_path() {
        let mut sink = sink("--fail 2 --status 503 --retry-after 7");
        let mut statuses = |path, id| take(&mut sink, path, id).status;
        assert_eq!(
            [(); 4].map(|()| statuses("/a", "one")),
            [503, 503, 204, 204]
        );
        assert_eq!(statuses("/a", "two"), 503);
        assert_eq!(statuses("/b", "one"), 503);
    }

    #[test]
    fn retry_after_goes_out_with_failures_only() {
        let mut sink = sink("--fail 1 --retry-after 7");
        assert_eq!(take(&mut sink, "/", "one").retry_after, Some(7));
        assert_eq!(take(&mut sink, "/", "one").retry_after, None);
    }

    #[test]
    fn a_share_of_the_messages_fails_and_the_same_ones_each_time() {
        let mut sink = sink("--fail all --share 30");
        let mut failing = |n: u32| take(&mut sink, "/", &format!("msg_{n}")).status == 500;
        let first: Vec<bool> = (0..1000).map(&mut failing).collect();
        let second: Vec<bool> = (0..1000).map(&mut failing).collect();
        assert_eq!(first, second);
        let count = first.iter().filter(|failed| **failed).count();
        assert!((230..370).contains(&count), "{count}");
    }

    #[test]
    fn a_bad_signature_is_answered_with_401_and_named() {
        let secret = "--secret whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let answer = take(&mut sink(secret), "/hook", "one");
        assert_eq!(answer.status, 401);
        assert!(answer.line.contains("missing headers"), "{}", answer.line);
        let tolerant = take(&mut sink(&format!("{secret} --accept-bad")), "/hook", "one");
        assert_eq!(tolerant.status, 204);
    }

    #[test]
    fn the_line_says_what_came_and_what_was_answered() {
        let answer = take(&mut sink(""), "/hook", "msg_1");
        assert_eq!(
            answer.line,
            "2026-01-05T08:15:30.120Z  POST /hook  msg_1  attempt 1/10  2B  not checked (no --secret)  -> 204"
        );
    }

    #[test]
    fn the_record_has_a_line_per_request_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let mut sink = sink(&format!("--record {}", path.display()));
        take(&mut sink, "/hook", "one");
        take(&mut sink, "/hook", "two");
        let text = std::fs::read_to_string(&path).expect("the record, while the sink is open");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["id"], "two");
        assert_eq!(lines[1]["status"], 204);
    }

    #[test]
    fn delays_have_units() {
        assert_eq!(delay("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(delay("2s"), Ok(Duration::from_secs(2)));
        for bad in ["", "2", "s", "1h", "-1s"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }
}
