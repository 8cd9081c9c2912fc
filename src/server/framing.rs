//! Looks at the bytes of a connection before hyper does, for what hyper lets pass or hides.
//!
//! HTTP/1: the head of each request is read a second time, line by line. A head is bad
//! (`docs/adr/0050-heads-are-judged-as-bytes.md`) if it has both `Content-Length` and
//! `Transfer-Encoding` (hyper drops the length before anyone sees it), more than one
//! `Content-Length`, one that is no plain number, a line that ends with a bare LF, or a folded line.
//! Its number is remembered, and the request with that number is refused instead of served. Behind a
//! bad head, and behind one with a coding, nothing is looked at any more: the connection ends there.
//!
//! HTTP/2: frames that ask for nothing (`SETTINGS`, `PING`, `PRIORITY`, unknown ones) are counted between two `HEADERS`; too many of them end the connection (T47).
//!
//! Pure: bytes in, verdicts out; how the bytes are cut into reads makes no difference. Holds at most
//! one line in memory.
#![deny(clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::frames::Frames;
use crate::base::frames::kind::{CONTINUATION, DATA, HEADERS, RST_STREAM, WINDOW_UPDATE};

/// Frames that ask for nothing, between two requests of an HTTP/2 connection. A client sends a few
/// per request, and a `PING` now and then.
const MAX_IDLE_FRAMES: u32 = 1000;
/// Longer lines are no head that hyper reads.
const MAX_LINE: usize = super::serve::MAX_HEAD;
/// What a connection that speaks HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No head is bad.
const NONE: u32 = 0;

/// Which requests of a connection are to be refused; shared by its reads and its requests.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Number of the bad head, from 1.
    bad: AtomicU32,
    /// Requests that hyper has handed over so far.
    begun: AtomicU32,
}

impl Refusals {
    /// A request begins; true if its head is the bad one.
    pub(super) fn is_next_bad(&self) -> bool {
        let number = self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let bad = self.bad.load(Ordering::Relaxed);
        bad != NONE && number >= bad
    }

    pub(super) fn refuse(&self, head: u32) {
        self.bad.store(head, Ordering::Relaxed);
    }
}

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing to object to.
    Good,
    /// The head with this number (from 1) is to be refused.
    BadHead(u32),
    /// The connection is to be closed.
    Flood,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    seen: Seen,
    /// Complete heads.
    heads: u32,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug)]
enum State {
    /// Within a head, or before it.
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    /// Frames of HTTP/2, and how many in a row have asked for nothing.
    Frames(Frames, u32),
    /// Nothing is looked at any more.
    Off,
}

/// What is known of the head that is being read.
#[derive(Debug, Default)]
struct Head {
    lines: u32,
    lengths: u32,
    length: Option<u64>,
    has_coding: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Head,
            seen: Seen::Good,
            heads: 0,
            line: Vec::new(),
            head: Head::default(),
        }
    }
}

impl Framing {
    /// Takes the next bytes that came in; answers what all of them amount to.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Seen {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Off => break,
                State::Body(left) => {
                    let here = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left -= u64::try_from(here).unwrap_or(*left);
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    bytes = bytes.get(here..).unwrap_or_default();
                }
                State::Frames(frames, idle) => {
                    let mut most = *idle;
                    frames.feed(bytes, |kind| {
                        *idle = match kind {
                            HEADERS => 0,
                            // h2 has limits of its own for the first three; the last is what
                            // reading a long answer takes, and costs nothing to answer.
                            DATA | RST_STREAM | CONTINUATION | WINDOW_UPDATE => *idle,
                            _ => idle.saturating_add(1),
                        };
                        most = most.max(*idle);
                    });
                    if most > MAX_IDLE_FRAMES {
                        self.seen = Seen::Flood;
                        self.state = State::Off;
                    }
                    break;
                }
                State::Head => bytes = self.head(bytes),
            }
        }
        self.seen
    }

    /// Reads up to the end of a line; answers what follows it.
    fn head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            if self.line.len() + bytes.len() > MAX_LINE {
                self.state = State::Off;
            } else {
                self.line.extend_from_slice(bytes);
            }
            return &[];
        };
        let (line, rest) = bytes.split_at(end);
        if self.line.is_empty() {
            self.end_of_line(line);
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            self.end_of_line(&whole);
        }
        rest.get(1..).unwrap_or_default()
    }

    fn end_of_line(&mut self, line: &[u8]) {
        let Some(line) = line.strip_suffix(b"\r") else {
            return self.refuse(); // a bare LF
        };
        if line.is_empty() {
            // Empty lines before a request are allowed (RFC 9112 section 2.2).
            if self.head.lines > 0 {
                self.end_of_head();
            }
            return;
        }
        self.head.lines = self.head.lines.saturating_add(1);
        if self.head.lines == 1 {
            if PREFACE.starts_with(line) && line.len() == 14 && self.heads == 0 {
                self.state = State::Frames(Frames::behind(PREFACE.len() - 16), 0);
            }
            return;
        }
        if !self.head.field(line) {
            self.refuse();
        }
    }

    fn end_of_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        let many = head.lengths > 1 || head.lengths == 1 && head.length.is_none();
        if many || head.lengths > 0 && head.has_coding {
            return self.refuse();
        }
        self.heads = self.heads.saturating_add(1);
        self.state = match head.length {
            _ if head.has_coding => State::Off, // its connection is closed after it
            None | Some(0) => State::Head,
            Some(length) => State::Body(length),
        };
    }

    fn refuse(&mut self) {
        self.seen = Seen::BadHead(self.heads.saturating_add(1));
        self.state = State::Off;
        self.line = Vec::new();
    }
}

impl Head {
    /// Takes a header line in; false if it is a folded one.
    fn field(&mut self, line: &[u8]) -> bool {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        match name.first() {
            Some(b' ' | b'\t') => return false,
            // The most frequent names are told apart by one byte.
            Some(b'c' | b'C') if is(name, b"content-length") => {
                self.lengths = self.lengths.saturating_add(1);
                self.length = number(value.get(1..).unwrap_or_default());
            }
            Some(b't' | b'T') if is(name, b"transfer-encoding") => self.has_coding = true,
            _ => {}
        }
        true
    }
}

fn is(name: &[u8], wanted: &[u8]) -> bool {
    name.trim_ascii_end().eq_ignore_ascii_case(wanted)
}

/// Digits and nothing else, blanks around them aside.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes: &[u8]) -> Seen {
        let whole = Framing::default().feed(bytes);
        let mut framing = Framing::default();
        let mut one_by_one = Seen::Good;
        for byte in bytes {
            one_by_one = framing.feed(&[*byte]);
        }
        assert_eq!(whole, one_by_one, "{}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn what_hyper_hides_is_seen() {
        for (head, what) in [
            (
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                "length and coding",
            ),
            (
                "transfer-encoding:chunked\r\ncontent-length:4\r\n",
                "coding and length",
            ),
            ("Content-Length: 4\r\nContent-Length: 4\r\n", "two lengths"),
            (
                "Content-Length : 4\r\nContent-Length: 4\r\n",
                "two lengths, one with a blank",
            ),
            ("Content-Length: +4\r\n", "plus"),
            ("Content-Length: 4, 4\r\n", "a list"),
            ("Content-Length:\r\n", "nothing"),
            ("Content-Length: 18446744073709551616\r\n", "65 bits"),
            ("X-A: b\nX-B: c\r\n", "bare LF"),
            ("X-A: b\r\n c\r\n", "folded"),
        ] {
            let bytes = format!("POST /x HTTP/1.1\r\nHost: a\r\n{head}\r\n");
            assert_eq!(seen(bytes.as_bytes()), Seen::BadHead(1), "{what}");
        }
        assert_eq!(seen(b"GET / HTTP/1.1\nHost: a\n\n"), Seen::BadHead(1));
    }

    #[test]
    fn the_number_of_the_bad_head_counts_the_good_ones_before_it() {
        let good = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGET\n\nabcd";
        let bad = "POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let bytes = format!("{good}\r\n{good}GET / HTTP/1.1\r\nHost: a\r\n\r\n{bad}");
        assert_eq!(seen(bytes.as_bytes()), Seen::BadHead(4));
    }

    #[test]
    fn bodies_are_not_taken_for_heads() {
        let bytes =
            b"POST /x HTTP/1.1\r\nContent-Length: 6\r\n\r\n\n\n\n\n\n\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(seen(bytes), Seen::Good);
        let chunked = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\n\n\n\nfolded\n x";
        assert_eq!(seen(chunked), Seen::Good);
    }

    #[test]
    fn refusals_hit_the_bad_request_and_all_behind_it() {
        let refusals = Refusals::default();
        assert!(!refusals.is_next_bad());
        refusals.refuse(3);
        assert!(!refusals.is_next_bad());
        assert!(refusals.is_next_bad() && refusals.is_next_bad());
    }

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.resize(9 + usize::from(length), 0);
        bytes
    }

    #[test]
    fn frames_that_ask_for_nothing_are_counted_between_requests() {
        let limit = usize::try_from(MAX_IDLE_FRAMES).unwrap();
        let (ping, request) = (frame(6, 8), frame(HEADERS, 20));
        let mut bytes = PREFACE.to_vec();
        for _ in 0..3 {
            bytes.extend(ping.repeat(limit));
            bytes.extend(&request);
            bytes.extend(frame(DATA, 200).repeat(2 * limit));
        }
        bytes.extend(ping.repeat(limit));
        assert_eq!(seen(&bytes), Seen::Good);
        bytes.extend(frame(4, 0));
        assert_eq!(seen(&bytes), Seen::Flood);
    }
}
