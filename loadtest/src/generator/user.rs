//! One connection from begin to end: take the next number, send, count the answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use super::{Form, Ingested, Load, Plan, window};
use crate::clock::Clock;
use crate::connection::{Answer, Connection, Template};
use crate::payload::{Payloads, Stamp};

/// After an answer that was no success: long enough not to spin, short enough that shedding and
/// restarts are measured. A real client waits as told.
const PAUSE: Duration = Duration::from_millis(20);
/// How long requests are tried again after the end of the load.
const GRACE: Duration = Duration::from_secs(30);
/// Of so many answers one is looked at for its id.
const ID_SAMPLE: u64 = 128;

/// What the connections of one thread share.
pub(super) struct User {
    load: Load,
    templates: Vec<Template>,
    plan: Arc<Plan>,
    payloads: Arc<Payloads>,
    clock: Clock,
    begin: Instant,
    from: Instant,
    end: Instant,
    seen: RefCell<Ingested>,
}

impl User {
    pub(super) fn new(
        load: &Load,
        templates: Vec<Template>,
        plan: &Arc<Plan>,
        payloads: Arc<Payloads>,
        (clock, begin): (Clock, Instant),
    ) -> Self {
        let from = begin + load.warm_up;
        Self {
            load: load.clone(),
            templates,
            plan: Arc::clone(plan),
            payloads,
            clock,
            begin,
            from,
            end: from + load.duration,
            seen: RefCell::new(Ingested {
                acked: Vec::with_capacity(1 << 20),
                ..Ingested::new(window(clock, begin, load))
            }),
        }
    }

    pub(super) fn take(&self) -> Ingested {
        self.seen.take()
    }

    /// Uses this connection until the load is over.
    pub(super) async fn user(self: Rc<Self>, mut connection: Connection) {
        let mut buffer = BytesMut::new();
        while let Some((first, intended)) = self.next().await {
            let body = self.body(&mut buffer, first, intended);
            let request = (first - self.load.first) / self.load.form.messages();
            let template = usize::try_from(request)
                .ok()
                .and_then(|n| self.templates.get(n % self.templates.len()));
            let Some(template) = template else { return };
            let answer = self.send(&mut connection, template, first, body).await;
            if !self.record(first, intended, answer) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Once, or until it is accepted.
    async fn send(
        &self,
        connection: &mut Connection,
        template: &Template,
        first: u64,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        loop {
            let mut request = template.request(body.clone());
            if self.load.idempotency {
                let text = format!("auto_{:x}_{first}", self.clock.at(self.begin));
                if let Ok(value) = HeaderValue::from_str(&text) {
                    let name = HeaderName::from_static("idempotency-key");
                    request.headers_mut().insert(name, value);
                }
            }
            if let Some(signer) = &self.load.signer {
                let now = self.clock.at(Instant::now());
                let id = format!("load_{:x}_{first}", self.clock.at(self.begin));
                signer.sign(request.headers_mut(), &id, now / 1_000_000, &body);
            }
            let answer = connection.send(request).await;
            let pause = match &answer {
                Ok(answer) if matches!(answer.status.as_u16(), 429 | 503) => {
                    answer.retry_after.unwrap_or(PAUSE).min(PAUSE)
                }
                Ok(_) => return answer,
                Err(_) => PAUSE,
            };
            if !self.load.retry || Instant::now() > self.end + GRACE {
                return answer;
            }
            self.seen.borrow_mut().retried += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// Number of the first message and the (planned) start of the next request.
    async fn next(&self) -> Option<(u64, Instant)> {
        let messages = self.load.form.messages();
        if self.load.pace == crate::pace::Pace::Closed {
            let now = Instant::now();
            if now >= self.end {
                return None;
            }
            let number = self.plan.next.fetch_add(messages, Ordering::Relaxed);
            let last = self.load.limit.map(|limit| self.load.first + limit);
            return last
                .is_none_or(|last| number < last)
                .then_some((number, now));
        }
        self.plan.permits.acquire().await.ok()?.forget();
        let request = self.plan.started.fetch_add(1, Ordering::Relaxed);
        let start = self.load.pace.start(request)?;
        Some((self.load.first + request * messages, self.begin + start))
    }

    fn body(&self, buffer: &mut BytesMut, first: u64, intended: Instant) -> Bytes {
        let sent = self.clock.at(intended);
        let stamp = |number| Stamp { sent, number };
        match self.load.form {
            Form::Bare => self.payloads.write(buffer, stamp(first)),
            Form::Message => self.payloads.write_message(buffer, stamp(first)),
            Form::Batch(lines) => {
                for number in first..first + lines {
                    self.payloads.write_message(buffer, stamp(number));
                    buffer.put_u8(b'\n');
                }
            }
        }
        buffer.split().freeze()
    }

    /// Counts; answers whether it was a success.
    fn record(&self, first: u64, intended: Instant, answer: anyhow::Result<Answer>) -> bool {
        let done = Instant::now();
        let mut seen = self.seen.borrow_mut();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                seen.failed += 1;
                seen.error(|| format!("{error:#}"));
                return false;
            }
        };
        let status = answer.status;
        let good = match self.load.dialect.accepted.as_slice() {
            [] => status.is_success(),
            accepted => accepted.contains(&status.as_u16()),
        };
        if !good {
            *seen.refused.entry(status.as_u16()).or_default() += self.load.form.messages();
            seen.error(|| format!("{status}: {}", String::from_utf8_lossy(&answer.body)));
            return false;
        }
        let before = seen.acked.len();
        match self.load.form {
            Form::Bare | Form::Message => seen.acked.push(first),
            Form::Batch(lines) => {
                let accepted = &self.load.dialect.accepted_line;
                seen.batch(first, lines, &answer.body, accepted);
            }
        }
        let sizes = seen.acked.iter().skip(before);
        let bytes: usize = sizes.map(|number| self.payloads.size(*number)).sum();
        seen.payload_bytes += u64::try_from(bytes).unwrap_or(0);
        seen.without_id += u64::from(!self.has_id(first, &answer));
        let accepted = u64::try_from(seen.acked.len() - before).unwrap_or(0);
        self.load.live.fetch_add(accepted, Ordering::Relaxed);
        let at = self.clock.at(done);
        let latency = done.saturating_duration_since(intended);
        seen.accepted += if seen.window.contains(at) {
            accepted
        } else {
            0
        };
        seen.timeline.count(at, accepted);
        seen.timeline.latency(at, crate::hist::micros(latency));
        if intended >= self.from {
            seen.latency.record(latency);
        }
        true
    }

    /// Whether an answer that is looked at holds the message's id.
    fn has_id(&self, number: u64, answer: &Answer) -> bool {
        let Some(pointer) = &self.load.dialect.id else {
            return true;
        };
        if !number.is_multiple_of(ID_SAMPLE) {
            return true;
        }
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        value
            .pointer(pointer)
            .is_some_and(|id| id.is_string() || id.is_number())
    }
}
