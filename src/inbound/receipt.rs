//! What a source received, newest first, in memory.
//!
//! A stranger decides how often something is refused, so refusals are never written to the store: each
//! source has a ring of so many receipts, equal refusals in a row are one receipt with a count, and
//! counters go on when the ring turns. What was accepted is durable as messages, which carry the source's
//! id as a tag.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use crate::base::{BadId, Id20, Timestamp};
use crate::model::{MessageId, SourceNo};

/// Messages that a receipt names at most.
const NAMED: usize = 10;
/// The operator is told of a failing source at most this often.
const QUIET: Duration = Duration::from_secs(3600);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It became messages, now on stable storage.
    Accepted,
    /// All of it was accepted before.
    Duplicate,
    /// It was a handshake, and answered.
    Handshake,
    /// It was refused, for this reason.
    Refused(&'static str),
}

impl Verdict {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Handshake => "handshake",
            Self::Refused(_) => "refused",
        }
    }

    /// Why it was refused.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Accepted | Self::Duplicate | Self::Handshake => None,
        }
    }
}

/// The id of a receipt (`in_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptId(Id20);

impl ReceiptId {
    const PREFIX: &'static str = "in_";

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        Id20::parse(Self::PREFIX, text).map(Self)
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text(Self::PREFIX))
    }
}

impl Serialize for ReceiptId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One request, or several equal refusals in a row. Holds nothing that the request said but its size and
/// where it came from.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Its id.
    pub id: ReceiptId,
    /// When the last of them was answered.
    pub at: Timestamp,
    /// What became of it.
    pub verdict: Verdict,
    /// What "verified" means for it.
    pub integrity: Option<&'static str>,
    /// HTTP status of the answer.
    pub status: u16,
    /// The messages it became, the first ten.
    pub messages: Vec<MessageId>,
    /// Its events.
    pub events: usize,
    /// Bytes of its body; 0 where it was refused before that was read.
    pub bytes: usize,
    /// Where it came from.
    pub ip: IpAddr,
    /// Equal ones in a row, of which this is the last.
    pub count: u64,
}

impl Receipt {
    /// A receipt that is about to be filed.
    pub(super) fn new(at: Timestamp, verdict: Verdict, status: u16, ip: IpAddr) -> Self {
        Self {
            id: ReceiptId(Id20::new(at, [0; 14])),
            at,
            verdict,
            integrity: None,
            status,
            messages: Vec::new(),
            events: 0,
            bytes: 0,
            ip,
            count: 1,
        }
    }

    /// Names the messages it became.
    pub(super) fn name(&mut self, messages: impl Iterator<Item = MessageId>) {
        self.messages = messages.take(NAMED).collect();
    }

    fn repeats(&self, other: &Self) -> bool {
        matches!(self.verdict, Verdict::Refused(_))
            && self.verdict == other.verdict
            && self.ip == other.ip
    }
}

/// How much of what a source received since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests that became messages.
    pub accepted: u64,
    /// Requests that had been accepted before.
    pub duplicates: u64,
    /// Handshakes.
    pub handshakes: u64,
    /// Requests refused.
    pub refused: u64,
    /// Refusals since the last request that was not refused.
    pub in_a_row: u64,
}

#[derive(Default)]
struct Book {
    ring: VecDeque<Receipt>,
    stats: Stats,
    /// Makes ids of one millisecond different.
    filed: u64,
    told: Option<Timestamp>,
}

/// The receipts of all sources: `per_source` each at most.
pub(super) struct Receipts {
    per_source: usize,
    books: Mutex<HashMap<SourceNo, Book>>,
}

impl Receipts {
    pub(super) fn new(per_source: usize) -> Self {
        Self {
            per_source,
            books: Mutex::default(),
        }
    }

    /// Files a receipt. Answers how many refusals in a row there are now, if the operator is to be told:
    /// at `threshold`, and then at most once an hour.
    pub(super) fn file(
        &self,
        source: SourceNo,
        mut receipt: Receipt,
        threshold: u64,
    ) -> Option<u64> {
        let mut books = self.books.lock();
        let book = books.entry(source).or_default();
        let is_refused = matches!(receipt.verdict, Verdict::Refused(_));
        match receipt.verdict {
            Verdict::Accepted => book.stats.accepted += 1,
            Verdict::Duplicate => book.stats.duplicates += 1,
            Verdict::Handshake => book.stats.handshakes += 1,
            Verdict::Refused(_) => book.stats.refused += 1,
        }
        book.stats.in_a_row = if is_refused {
            book.stats.in_a_row + 1
        } else {
            0
        };
        book.filed += 1;
        let mut unique = [0; 14];
        unique
            .split_at_mut(8)
            .0
            .copy_from_slice(&book.filed.to_be_bytes());
        receipt.id = ReceiptId(Id20::new(receipt.at, unique));
        let at = receipt.at;
        if book.ring.front().is_some_and(|last| receipt.repeats(last)) {
            receipt.count += book.ring.pop_front().map_or(0, |last| last.count);
        }
        book.ring.push_front(receipt);
        book.ring.truncate(self.per_source);
        let is_quiet = book.told.is_some_and(|told| at.since(told) < QUIET);
        if book.stats.in_a_row < threshold || is_quiet {
            return None;
        }
        book.told = Some(at);
        Some(book.stats.in_a_row)
    }

    pub(super) fn of(&self, source: SourceNo) -> Vec<Receipt> {
        let books = self.books.lock();
        let ring = books.get(&source).map(|book| book.ring.iter());
        ring.into_iter().flatten().cloned().collect()
    }

    pub(super) fn stats(&self, source: SourceNo) -> Stats {
        let books = self.books.lock();
        books
            .get(&source)
            .map(|book| book.stats)
            .unwrap_or_default()
    }

    pub(super) fn forget(&self, source: SourceNo) {
        self.books.lock().remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(at: u64, verdict: Verdict, ip: [u8; 4]) -> Receipt {
        Receipt::new(Timestamp::from_millis(at), verdict, 200, IpAddr::from(ip))
    }

    #[test]
    fn a_flood_of_refusals_is_one_receipt_and_one_word_to_the_operator() {
        let (receipts, no) = (Receipts::new(3), SourceNo(1));
        let bad = Verdict::Refused("bad_signature");
        let told =
            (0..1000).filter(|at| receipts.file(no, receipt(*at, bad, [1; 4]), 10).is_some());
        assert_eq!(told.count(), 1);
        let kept = receipts.of(no);
        assert_eq!(
            (kept.len(), kept[0].count, kept[0].at.millis()),
            (1, 1000, 999)
        );
        assert_eq!(receipts.stats(no).in_a_row, 1000);
        receipts.file(no, receipt(1000, Verdict::Accepted, [1; 4]), 10);
        assert_eq!(receipts.stats(no).in_a_row, 0);
        // An hour later it is told again, after as many more.
        let hour = 3_600_000;
        let told = (0..20).filter(|n| {
            let at = hour + 1000 + n;
            receipts.file(no, receipt(at, bad, [2; 4]), 10) == Some(10)
        });
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn the_ring_has_an_end_and_ids_sort_by_time() {
        let (receipts, no) = (Receipts::new(3), SourceNo(1));
        for n in 0..10_u8 {
            receipts.file(no, receipt(5, Verdict::Accepted, [n; 4]), 10);
        }
        let kept = receipts.of(no);
        let ips: Vec<_> = kept.iter().map(|one| one.ip.to_string()).collect();
        assert_eq!(ips, ["9.9.9.9", "8.8.8.8", "7.7.7.7"]);
        assert!(kept.is_sorted_by(|a, b| a.id > b.id));
        let text = kept[0].id.to_string();
        assert_eq!(ReceiptId::parse(&text).ok(), Some(kept[0].id));
        receipts.forget(no);
        assert!(receipts.of(no).is_empty());
    }
}
