//! One attempt: from a message and an endpoint to an outcome.
//!
//! [`Prepared`] holds what is the same in every request to an endpoint, made when it is first called after a change.
//! [`Deliver::attempt`] adds what belongs to this attempt (body, number, time, signature), sends it,
//! and dials once more if the connection broke at once. Whatever happens, a panic included, comes
//! back as an outcome: a slot is never lost.
//!
//! Elsewhere: when to attempt and what follows (`schedule`, `policy`), the wire (`client`).

mod compact;
mod envelope;
mod handshake;
mod prepared;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::debug;

use crate::base::Clock;
use crate::client::{Client, Exchange, Net, Request};
use crate::metrics::{ATTEMPT_SECONDS, ATTEMPTS, PANICS};
use crate::model::{AttemptNo, ContentType, Delivery, FailureKind, Message, Outcome};
use crate::policy::exclude::Exclusion;
use crate::policy::{hop, outcome};

use self::prepared::LeftOut;

pub use self::handshake::{Asking, Handshake, Refusal};
pub use self::prepared::{BadDefaults, BadEndpoint, Defaults, Prepared};

/// One attempt to be made.
#[derive(Clone)]
pub struct Job {
    /// Which message for which endpoint.
    pub delivery: Delivery,
    /// The endpoint as it is now: an edit takes effect at the next attempt.
    pub endpoint: Arc<Prepared>,
    /// The message.
    pub message: Arc<Message>,
    /// Number of this attempt; 1 is the first.
    pub no: AttemptNo,
    /// What the schema of the event type marks as personal data, if the endpoint leaves that out
    /// ([`Prepared::leaves_marked_out`]).
    pub marked: Option<Exclusion>,
    /// Attempts the schedule has in all; shown as `webhook-attempt: no/total`.
    pub total: AttemptNo,
}

/// One attempt that was made.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Which message for which endpoint.
    pub delivery: Delivery,
    /// What came of it.
    pub outcome: Outcome,
    /// The first 16 KiB of the answer's body.
    pub response: Bytes,
    /// From the start to the last byte of the answer, milliseconds, both dials together.
    pub duration_ms: u32,
    /// No name server answered: not the endpoint's fault ([`crate::policy::health`]).
    pub resolver_down: bool,
    /// The connection broke in under a second and was dialled once more.
    pub redialled: bool,
}

/// Makes attempts. Clones share everything.
pub struct Deliver<N = Client>(Arc<Inner<N>>);

struct Inner<N> {
    net: N,
    clock: Arc<dyn Clock>,
    /// Attempts by class: 2xx first, then [`FailureKind::ALL`] in its order.
    counters: Vec<::metrics::Counter>,
    seconds: ::metrics::Histogram,
}

const AGENT: &str = concat!("Posthaste/", env!("CARGO_PKG_VERSION"));
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const HOPS: HeaderName = HeaderName::from_static(hop::HEADER);
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl<N: Net> Deliver<N> {
    /// Attempts over `net`. Call it after the metrics recorder is installed.
    pub fn new(net: N, clock: Arc<dyn Clock>) -> Self {
        let classes = FailureKind::ALL.map(FailureKind::name);
        let counters = std::iter::once("2xx")
            .chain(classes)
            .map(|class| ::metrics::counter!(ATTEMPTS, "class" => class))
            .collect();
        Self(Arc::new(Inner {
            net,
            clock,
            counters,
            seconds: ::metrics::histogram!(ATTEMPT_SECONDS),
        }))
    }

    /// Makes one attempt. Ends within the endpoint's time-out; never panics. Not cancel safe: a
    /// request that was sent may have been received.
    pub async fn attempt(&self, job: &Job) -> Finished {
        let inner = &*self.0;
        let started = inner.clock.monotonic();
        let mut work = pin!(inner.run(job));
        let mut redialled = false;
        // One hostile answer may cost an attempt, not the process (T11).
        let exchange = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
            polled.map_or_else(|_| std::task::Poll::Ready(None), |poll| poll.map(Some))
        });
        let exchange = match exchange.await {
            Some((exchange, again)) => {
                redialled = again;
                exchange
            }
            None => inner.panicked(),
        };
        let took = inner.clock.monotonic().saturating_sub(started);
        let finished = Finished {
            delivery: job.delivery,
            outcome: exchange.outcome,
            response: exchange.response,
            duration_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            resolver_down: exchange.resolver_down,
            redialled,
        };
        inner.record(job, &finished, took);
        finished
    }
}

impl<N> Clone for Deliver<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N: Net> Inner<N> {
    /// The exchange that counts, and whether it was a second dial.
    async fn run(&self, job: &Job) -> (Exchange, bool) {
        let left_out = match &job.endpoint.left_out {
            LeftOut::Nothing => None,
            LeftOut::Marked => job.marked.as_ref(),
            LeftOut::Fields(named) => Some(named),
        };
        let payload = left_out.map(|exclusion| Bytes::from(exclusion.apply(&job.message.payload)));
        let body = envelope::body(
            job.endpoint.envelope,
            &job.endpoint.organization,
            (
                &job.message,
                payload.as_ref().unwrap_or(&job.message.payload),
            ),
        );
        let first = self
            .net
            .send(self.request(job, &body, Duration::ZERO))
            .await;
        let took = Duration::from_millis(first.duration_ms.into());
        if !outcome::redials(&first.outcome, took, false) {
            return (first, false);
        }
        let mut again = self.request(job, &body, took);
        again.fresh = true;
        (self.net.send(again).await, true)
    }

    fn request(&self, job: &Job, body: &Bytes, spent: Duration) -> Request {
        Request {
            method: http::Method::POST,
            tenant: job.endpoint.app,
            target: Arc::clone(&job.endpoint.target),
            headers: self.headers(job, body),
            body: body.clone(),
            timeout: job.endpoint.timeout.saturating_sub(spent),
            fresh: false,
        }
    }

    fn headers(&self, job: &Job, body: &[u8]) -> HeaderMap {
        let message = &*job.message;
        let own = &job.endpoint.headers;
        // Room for what is added here, by the signer and by the client: a map that grows hashes all
        // of its names again.
        let mut headers = HeaderMap::with_capacity(own.len() + 13);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in own {
            headers.insert(name.clone(), value.clone());
        }
        let content_type = match message.content_type {
            ContentType::Json => HeaderValue::from_static("application/json"),
        };
        headers.insert(CONTENT_TYPE, content_type);
        if let Ok(value) = HeaderValue::try_from(format!("{}/{}", job.no, job.total)) {
            headers.insert(ATTEMPT, value);
        }
        headers.insert(HOPS, u16::from(message.hops()).saturating_add(1).into());
        if let Ok(value) = HeaderValue::from_bytes(&traceparent(job)) {
            headers.insert(TRACEPARENT, value);
        }
        let mut signed = Vec::with_capacity(6);
        job.endpoint.signer.headers(
            &message.id().to_string(),
            &message.event_type,
            self.clock.wall(),
            body,
            &mut signed,
        );
        headers.extend(signed);
        headers
    }

    fn panicked(&self) -> Exchange {
        ::metrics::counter!(PANICS).increment(1);
        Exchange {
            outcome: outcome::of_failure(FailureKind::Reset),
            response: Bytes::new(),
            duration_ms: 0,
            broke_early: false,
            resolver_down: false,
        }
    }

    fn record(&self, job: &Job, finished: &Finished, took: Duration) {
        let class = finished.outcome.failure.map_or(0, |kind| {
            let place = FailureKind::ALL.iter().position(|known| *known == kind);
            place.map_or(0, |place| place + 1)
        });
        if let Some(counter) = self.counters.get(class) {
            counter.increment(1);
        }
        self.seconds.record(took.as_secs_f64());
        debug!(
            endpoint = %job.endpoint.id,
            message = %job.message.id(),
            attempt = job.no,
            status = finished.outcome.status,
            failure = finished.outcome.failure.map(FailureKind::name),
            took_ms = finished.duration_ms,
            redialled = finished.redialled,
            "attempt finished"
        );
    }
}

/// W3C trace context: the trace is the message, the span is the attempt. Not sampled, since nothing
/// is recorded on this side.
fn traceparent(job: &Job) -> [u8; 55] {
    let [.., a, b, c, d] = job.message.accepted.millis().to_be_bytes();
    let span = u64::from(job.delivery.endpoint.0) << 16 | u64::from(job.no);
    let bytes = job.delivery.at.lane.0.to_be_bytes().into_iter();
    let bytes = bytes.chain([a, b, c, d]);
    let bytes = bytes.chain(job.delivery.at.seq.to_be_bytes());
    let bytes = bytes.chain(span.to_be_bytes());
    let mut out = *b"00-tttttttttttttttttttttttttttttttt-ssssssssssssssss-00";
    let (trace, rest) = out[3..].split_at_mut(32);
    let places = trace
        .chunks_exact_mut(2)
        .chain(rest[1..17].chunks_exact_mut(2));
    for (place, byte) in places.zip(bytes) {
        place.copy_from_slice(&HEX[usize::from(byte)]);
    }
    out
}

/// Each byte as two lower-case digits.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    all
};

#[cfg(test)]
mod tests;
