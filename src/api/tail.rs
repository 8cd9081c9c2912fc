//! A stream of an application's messages as they are accepted: server-sent events on the log.
//!
//! Owns: the form of events, heartbeats, and when a stream ends. A stream reads the store ([`feed`]) and
//! holds [`CHUNKS`] chunks at most; a reader that takes nothing for [`PATIENCE`] is cut off and told why, and
//! comes again with the `Last-Event-ID` it has. Nothing is lost in between: the id is a place in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hashbrown::HashMap;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::body::write_message;
use super::error::{Code, Problem};
use super::feed::{self, Feed};
use super::history::MessageFilter;
use super::reply::Reply;
use super::request::{Answer, Cx, authenticate};
use super::{ApiState, message};
use crate::base::task;
use crate::model::{AppNo, Message, MessageId, Scope};

/// Streams at the same time, in all and of one application.
const MAX_TAILS: usize = 100;
const MAX_TAILS_OF_APP: usize = 10;
/// Chunks that wait for a reader; each is a page of [`feed`] at most.
const CHUNKS: usize = 2;
/// A reader that takes nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// A comment is sent when there was nothing else for so long.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Messages of one chunk.
const PAGE: usize = 100;

/// The streams that are open.
pub(super) struct Tails {
    open: Mutex<HashMap<AppNo, usize>>,
    /// True = all of them end.
    ending: watch::Sender<bool>,
}

impl Default for Tails {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            ending: watch::Sender::new(false),
        }
    }
}

impl Tails {
    /// All streams end, and no new one begins.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    fn enter(&self, app: AppNo) -> Result<(), Problem> {
        let mut open = self.open.lock();
        let all: usize = open.values().sum();
        let of_app = open.get(&app).copied().unwrap_or(0);
        if all >= MAX_TAILS || of_app >= MAX_TAILS_OF_APP {
            let detail = format!(
                "At most {MAX_TAILS_OF_APP} tails of an application and {MAX_TAILS} in all."
            );
            return Err(Problem::new(Code::RateLimited, detail).after(10));
        }
        open.insert(app, of_app + 1);
        Ok(())
    }

    fn leave(&self, app: AppNo) {
        let mut open = self.open.lock();
        match open.get_mut(&app) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(open.remove(&app)),
        }
    }
}

/// A place among the open streams.
struct Place(Arc<ApiState>, AppNo);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.tails.leave(self.1);
    }
}

/// GET `/app/{app_id}/tail`
pub(super) async fn tail(cx: Cx) -> Answer {
    let app = cx.app()?.app.no;
    let query = cx.query();
    let after = match last_event_id(&cx)? {
        Some(id) => feed::place(id),
        None => feed::end(cx.state.reader.as_ref(), app)?,
    };
    cx.state.tails.enter(app)?;
    let place = Place(Arc::clone(&cx.state), app);
    let (to, chunks) = mpsc::channel(CHUNKS);
    let last = Arc::new(Mutex::new(None));
    let stream = Stream {
        chunks,
        last: Arc::clone(&last),
    };
    let tail = Tail {
        feed: Feed {
            app,
            filter: MessageFilter::of_feed(&query),
            after,
        },
        to,
        last,
        cx,
        _place: place,
    };
    task::detach(tail.run());
    Ok(Reply::events(Body::new(stream)))
}

/// Where the client wants to go on: the header that browsers send, or `?iterator=`.
fn last_event_id(cx: &Cx) -> Result<Option<MessageId>, Problem> {
    let header = cx.headers.get("last-event-id");
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let query = cx.query();
    let text = header.or_else(|| query.get("iterator").map(str::to_owned));
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let known = message::list_key(&text).map(feed::id);
    known.map(Some).ok_or_else(|| {
        let msg = "not the id of a message";
        super::query::wrong("iterator", crate::ingest::ItemKind::ValueError, msg)
    })
}

struct Tail {
    cx: Cx,
    feed: Feed,
    to: mpsc::Sender<Bytes>,
    last: Arc<Mutex<Option<Bytes>>>,
    _place: Place,
}

impl Tail {
    /// Sends until somebody ends it; the reader is told who.
    async fn run(mut self) {
        let reason = self.send_all().await;
        if let Some(reason) = reason {
            let words = format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n");
            *self.last.lock() = Some(words.into());
        }
    }

    /// Why it ended; `None` = the reader went away.
    async fn send_all(&mut self) -> Option<&'static str> {
        let state = Arc::clone(&self.cx.state);
        let mut commits = state.lane.commits();
        let mut ending = state.tails.ending.subscribe();
        let mut chunk = b"retry: 2000\n\n".to_vec();
        let mut sent_at = state.clock.monotonic();
        loop {
            commits.mark_unchanged();
            if *ending.borrow_and_update() {
                return Some("stopping");
            }
            if let Some(why) = self.is_over() {
                return Some(why);
            }
            let reader = Arc::clone(&state.reader);
            let Some(Ok(found)) = feed::read(reader, self.feed.clone(), PAGE).await else {
                return Some("unreadable");
            };
            self.feed.after = found.reached;
            for message in &found.messages {
                write_event(&mut chunk, message);
            }
            if !chunk.is_empty() {
                sent_at = state.clock.monotonic();
                let sent = self
                    .to
                    .send_timeout(std::mem::take(&mut chunk).into(), PATIENCE);
                match sent.await {
                    Ok(()) => {}
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Some("slow_reader"),
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => return None,
                }
            }
            if !found.done {
                continue;
            }
            tokio::select! {
                () = feed::news(&mut commits) => {}
                _ = ending.changed() => {}
                () = self.to.closed() => return None,
            }
            if state.clock.monotonic().saturating_sub(sent_at) >= HEARTBEAT {
                chunk.extend_from_slice(b": still here\n\n");
            }
        }
    }

    /// Whether the reader may not read any more: its key was revoked, or the application is gone.
    fn is_over(&self) -> Option<&'static str> {
        let state = &self.cx.state;
        let now = state.clock.now();
        let principal = authenticate(state, (&self.cx.headers, self.cx.ip), now).ok();
        let app = self.feed.app;
        let may = principal.is_some_and(|p| p.may(&Scope::MessageRead) && p.sees(app));
        if !may {
            return Some("revoked");
        }
        let gone = state.directory.peek().app_by_no(app).is_none();
        gone.then_some("deleted")
    }
}

/// One message as an event. A payload is kept as it came, also with its line ends: those are the reader's
/// to join again.
fn write_event(out: &mut Vec<u8>, message: &Message) {
    let mut json = Vec::with_capacity(message.payload.len() + 256);
    write_message(&mut json, message, true);
    json.push(b'}');
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(message.id().to_string().as_bytes());
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if !line.is_empty() {
            out.extend_from_slice(b"\ndata: ");
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"\n\n");
}

/// What is sent, and the last words behind it.
struct Stream {
    chunks: mpsc::Receiver<Bytes>,
    last: Arc<Mutex<Option<Bytes>>>,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = std::task::ready!(self.chunks.poll_recv(cx));
        let next = next.or_else(|| self.last.lock().take());
        Poll::Ready(next.map(|chunk| Ok(Frame::data(chunk))))
    }
}
