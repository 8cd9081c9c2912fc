//! Many messages in one request: NDJSON, one result per line, few commits.
//!
//! Lines are read in chunks; each chunk is one append. While a chunk is being committed the next one
//! is read, so a batch keeps the lane busy without holding more than two chunks in it. A line that is
//! wrong costs only itself. With an `Idempotency-Key` each line has a key of its own made from it, so
//! a batch that broke off half way is simply sent again.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::limits::Reserved;
use super::{
    Accepted, Admission, Claim, Ingest, Key, Refused, Submission, keys, length, parse, refuse,
};
use crate::base::task;
use crate::directory::AppEntry;
use crate::lane;
use crate::model::Message;
use crate::store::{Accept, IdempotencyKey};

/// Payload bytes of one chunk: a commit that holds others up for a moment only.
const CHUNK_BYTES: usize = 1 << 20;

/// What became of one line.
pub type LineResult = Result<Accepted, Refused>;

impl Ingest {
    /// Accepts the lines of `submission.body`; answers one result per line, in order. Empty lines do
    /// not count. `Err` refuses the request as a whole.
    ///
    /// Not cancel safe in its answer only: lines handed in are stored, the caller must ask again.
    pub async fn accept_batch(
        &self,
        admission: Admission,
        submission: Submission<'_>,
    ) -> Result<Vec<LineResult>, Refused> {
        let mut run = self.begin(admission, &submission).await?;
        let lines = lines(&submission.body);
        if lines.len() > self.config().max_batch_lines {
            return Err(Refused::TooLarge {
                limit: self.config().max_batch_lines,
            });
        }
        let mut under_way = None;
        let mut rest = lines.as_slice();
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at(self.chunk(rest));
            rest = tail;
            let mut drafted = self.draft(&mut run, chunk, &submission).await;
            // At most two chunks in the lane: the one being committed and the one behind it.
            let before = under_way.take();
            match self.hand_in(&mut drafted) {
                Err(Refused::Overloaded { .. }) if before.is_some() => {
                    self.finish(&mut run, before).await;
                    if let Err(refused) = self.hand_in(&mut drafted) {
                        drafted.refuse(&mut run, &refused);
                    }
                }
                Err(refused) => {
                    self.finish(&mut run, before).await;
                    drafted.refuse(&mut run, &refused);
                }
                Ok(()) => self.finish(&mut run, before).await,
            }
            under_way = Some(drafted);
        }
        self.finish(&mut run, under_way).await;
        Ok(self.results(run))
    }

    async fn begin(
        &self,
        admission: Admission,
        submission: &Submission<'_>,
    ) -> Result<Run, Refused> {
        let mut run = Run {
            entry: admission.entry,
            whole: None,
            claims: Vec::new(),
            event_ids: HashMap::new(),
            results: Vec::new(),
        };
        if let Some(key) = submission.idempotency_key {
            let key = keys::request_key(submission.principal, submission.path, key)?;
            run.claims.push(self.claim(key).await?);
            run.whole = Some(key);
        }
        Ok(run)
    }

    /// How many of `lines` go into one append.
    fn chunk(&self, lines: &[Bytes]) -> usize {
        let mut bytes = 0;
        let fits = lines
            .iter()
            .take(self.config().max_group)
            .take_while(|line| {
                bytes += line.len();
                bytes <= CHUNK_BYTES
            });
        fits.count().max(1)
    }

    async fn draft(&self, run: &mut Run, lines: &[Bytes], from: &Submission<'_>) -> Drafted {
        let mut drafted = Drafted::default();
        for line in lines {
            let index = run.results.len();
            match self.draft_line(run, line, from).await {
                Ok(Line::New(message, idempotency, reserved)) => {
                    drafted.places.push(index);
                    drafted.reserved.push(reserved);
                    drafted.batch.push(Accept {
                        message,
                        idempotency,
                    });
                    run.results.push(None);
                }
                Ok(Line::Known(accepted)) => run.results.push(Some(Ok(accepted))),
                Err(refused) => run.results.push(Some(Err(refused))),
            }
        }
        drafted
    }

    async fn draft_line(
        &self,
        run: &mut Run,
        line: &Bytes,
        from: &Submission<'_>,
    ) -> Result<Line, Refused> {
        let read = parse::message(line, &self.limits)?;
        let entry = match &run.entry {
            Some(entry) => Arc::clone(entry),
            None => {
                let made = self.application(from, read.application.as_ref()).await?;
                Arc::clone(run.entry.insert(made))
            }
        };
        self.throttle(&entry)?;
        let index = run.results.len();
        let record = run.whole.map(|whole| keys::line_key(&whole, index, line));
        if let Some(key) = &record
            && let Some(found) = self.replay(&entry, key)?
        {
            return Ok(Line::Known(found));
        }
        // A copy: a message that waits for days must not hold the whole batch in memory.
        let payload = Bytes::copy_from_slice(read.payload.as_bytes());
        let (message, mistakes) = self.message(&entry, read, payload, from.hops);
        if let Some(known) = self.event(run, &entry, &message, from).await? {
            return Ok(Line::Known(known));
        }
        refuse(mistakes)?;
        let snapshot = self.parts.directory.peek();
        let reserved = self.pending.reserve(
            (&entry.load, self.parts.clock.as_ref()),
            snapshot.total(),
            length(message.targets.len()),
            length(message.payload.len()),
        )?;
        Ok(Line::New(message, record, reserved))
    }

    /// Claims the event id of a line; answers the message that had it first, if that is wanted.
    async fn event(
        &self,
        run: &mut Run,
        entry: &AppEntry,
        message: &Message,
        from: &Submission<'_>,
    ) -> Result<Option<Accepted>, Refused> {
        let Some(event_id) = message.event_id() else {
            return Ok(None);
        };
        let key = keys::event_key(entry.app.no, event_id);
        match run.event_ids.get(&key) {
            Some(EventId::New) => {
                let msg = "another line of this batch has this event id";
                let item = super::Item::body("eventId", super::ItemKind::ValueError, msg);
                return Err(Refused::Invalid(vec![item]));
            }
            Some(EventId::Known) => {} // claimed by an earlier line: do not wait for ourselves
            None => run.claims.push(self.claim(key).await?),
        }
        let Some(first) = self.first_of(entry, event_id)? else {
            run.event_ids.insert(key, EventId::New);
            return Ok(None);
        };
        run.event_ids.insert(key, EventId::Known);
        if !from.return_duplicate {
            return Err(Refused::Duplicate(first.id()));
        }
        Ok(Some(Accepted {
            message: Arc::new(first),
            duplicate: true,
        }))
    }

    fn hand_in(&self, drafted: &mut Drafted) -> Result<(), Refused> {
        if drafted.batch.is_empty() {
            return Ok(());
        }
        // The lane takes the batch or nothing; what it refused is needed for a second try.
        let ticket = self.parts.lane.append(drafted.batch.clone())?;
        drafted.batch.clear();
        let (reply, answer) = tokio::sync::oneshot::channel();
        task::detach(async move {
            drop(reply.send(ticket.committed().await)); // the caller went away
        });
        drafted.answer = Some(answer);
        Ok(())
    }

    async fn finish(&self, run: &mut Run, drafted: Option<Drafted>) {
        let Some(mut drafted) = drafted else { return };
        let Some(answer) = drafted.answer.take() else {
            return;
        };
        match answer.await.unwrap_or(Err(lane::Error::Failed)) {
            Ok(messages) => {
                for (place, message) in drafted.places.iter().zip(messages) {
                    self.meters.accepted(&message);
                    run.set(
                        *place,
                        Ok(Accepted {
                            message,
                            duplicate: false,
                        }),
                    );
                }
            }
            Err(error) => drafted.refuse(run, &error.into()),
        }
    }

    fn results(&self, run: Run) -> Vec<LineResult> {
        let results = run.results.into_iter();
        let results = results.map(|result| result.unwrap_or(Err(Refused::Failed)));
        let results: Vec<_> = results.collect();
        for refused in results.iter().filter_map(|result| result.as_ref().err()) {
            self.meters.refused(refused);
        }
        results
    }
}

/// The state of one batch.
struct Run {
    entry: Option<Arc<AppEntry>>,
    /// Hash of the request's idempotency key.
    whole: Option<Key>,
    /// Held to the end.
    claims: Vec<Claim>,
    event_ids: HashMap<Key, EventId>,
    /// One per line read so far; `None` while it is being committed.
    results: Vec<Option<LineResult>>,
}

/// An event id that an earlier line of the batch has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventId {
    /// Its message is in this batch.
    New,
    /// Its message was accepted before this batch.
    Known,
}

impl Run {
    fn set(&mut self, place: usize, result: LineResult) {
        if let Some(slot) = self.results.get_mut(place) {
            *slot = Some(result);
        }
    }
}

enum Line {
    New(Message, Option<IdempotencyKey>, Reserved),
    Known(Accepted),
}

/// Lines that go into one append.
#[derive(Default)]
struct Drafted {
    batch: Vec<Accept>,
    /// Places of their results.
    places: Vec<usize>,
    reserved: Vec<Reserved>,
    answer: Option<tokio::sync::oneshot::Receiver<Result<Vec<Arc<Message>>, lane::Error>>>,
}

impl Drafted {
    /// None of them was written.
    fn refuse(&mut self, run: &mut Run, refused: &Refused) {
        for reserved in self.reserved.drain(..) {
            reserved.take_back();
        }
        for place in self.places.drain(..) {
            run.set(place, Err(same(refused)));
        }
    }
}

/// The refusal of a chunk, once per line. Only what the lane answers comes here.
fn same(refused: &Refused) -> Refused {
    match refused {
        Refused::Overloaded {
            what,
            retry_after_secs,
        } => Refused::Overloaded {
            what,
            retry_after_secs: *retry_after_secs,
        },
        Refused::StorageLow => Refused::StorageLow,
        _ => Refused::Failed,
    }
}

/// The lines of a body, without blanks around them; empty ones left out.
pub fn lines(body: &Bytes) -> Vec<Bytes> {
    body.split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| body.slice_ref(line))
        .collect()
}
