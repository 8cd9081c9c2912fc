//! What is sent: JSON bodies of an exact size that carry their send time and number.
//!
//! `{"t":"<16 digits of unix microseconds>","n":"<12 digits>","p":"<filling>"}`. Posthaste delivers
//! the bytes of `payload` as they were sent, so the receiver reads both numbers at fixed offsets
//! and needs no JSON parser. A real payload (from a folder) stands in the place of the filling. A
//! peer that writes its bodies anew is understood as well, by a slower way.

use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use crate::sizes::{Shapes, Sizes};

const BEFORE_TIME: &[u8] = b"{\"t\":\"";
const BEFORE_NUMBER: &[u8] = b"\",\"n\":\"";
const BEFORE_FILLING: &[u8] = b"\",\"p\":\"";
const BEFORE_FILE: &[u8] = b"\",\"p\":";
const AFTER_FILE: &[u8] = b"}";
const END: &[u8] = b"\"}";
const TIME_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 12;
const TIME_AT: usize = BEFORE_TIME.len();
const NUMBER_AT: usize = TIME_AT + TIME_DIGITS + BEFORE_NUMBER.len();
/// The smallest payload that has room for both numbers.
pub(crate) const MIN_SIZE: usize = NUMBER_AT + NUMBER_DIGITS + BEFORE_FILLING.len() + END.len();

/// How deep in a foreign body the numbers are looked for.
const DEPTH: u8 = 4;

/// What stands around a payload when it is sent to a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) before: Bytes,
    pub(crate) after: Bytes,
}

/// What the filling is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Filling {
    /// Words as they stand in JSON of business applications; compresses well.
    #[default]
    Text,
    /// Random characters; does not compress.
    Random,
}

/// Writes payloads.
pub(crate) struct Payloads {
    shapes: Shapes,
    /// Fillings are windows of this text that start at different places.
    pool: Vec<u8>,
    wanted: Envelope,
    unwanted: Envelope,
    /// So many of 1,000 messages are wanted by no endpoint.
    unwanted_per_mille: u64,
}

/// What a receiver reads back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Unix microseconds of the (intended) send.
    pub(crate) sent: u64,
    /// Number of the message in this run.
    pub(crate) number: u64,
}

impl Payloads {
    /// Payloads of at least [`MIN_SIZE`] bytes; the seed decides sizes and filling.
    pub(crate) fn new(sizes: &Sizes, filling: Filling, seed: u64) -> anyhow::Result<Self> {
        let shapes = sizes.draw(seed)?;
        let largest = match &shapes {
            Shapes::Sizes(sizes) => sizes.iter().copied().max().unwrap_or(0),
            Shapes::Files(_) => 0,
        };
        let len = (largest * 4).max(1 << 20);
        let mut pool = Vec::with_capacity(len + 64);
        match filling {
            Filling::Text => {
                let words = b"customer invoice amount currency eur status paid created 2026-01-05 note thanks ";
                while pool.len() < len {
                    pool.extend_from_slice(words);
                }
            }
            Filling::Random => {
                let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                pool.extend((0..len).map(|_| {
                    digits
                        .get(random.random_range(0..digits.len()))
                        .copied()
                        .unwrap_or(b'A')
                }));
            }
        }
        Ok(Self {
            shapes,
            pool,
            wanted: Envelope::default(),
            unwanted: Envelope::default(),
            unwanted_per_mille: 0,
        })
    }

    /// With what a gateway wants around them.
    pub(crate) fn enveloped(
        mut self,
        wanted: Envelope,
        unwanted: Envelope,
        per_mille: u64,
    ) -> Self {
        self.wanted = wanted;
        self.unwanted = unwanted;
        self.unwanted_per_mille = per_mille;
        self
    }

    /// Bytes of the payload with this number.
    pub(crate) fn size(&self, number: u64) -> usize {
        match &self.shapes {
            Shapes::Sizes(sizes) => pick(sizes, number).copied().unwrap_or(0).max(MIN_SIZE),
            Shapes::Files(files) => {
                let around = MIN_SIZE - BEFORE_FILLING.len() - END.len()
                    + BEFORE_FILE.len()
                    + AFTER_FILE.len();
                around + pick(files, number).map_or(0, Bytes::len)
            }
        }
    }

    /// Mean size.
    pub(crate) fn mean(&self) -> usize {
        let entries = match &self.shapes {
            Shapes::Sizes(sizes) => sizes.len(),
            Shapes::Files(files) => files.len(),
        };
        let all: usize = (0..entries as u64).map(|number| self.size(number)).sum();
        all / entries.max(1)
    }

    /// Whether an endpoint wants the message with this number: spread evenly, not in blocks.
    pub(crate) fn is_wanted(&self, number: u64) -> bool {
        number.wrapping_mul(617) % 1000 >= self.unwanted_per_mille
    }

    /// The payload alone.
    pub(crate) fn write(&self, out: &mut BytesMut, stamp: Stamp) {
        let size = self.size(stamp.number);
        out.reserve(size);
        out.put_slice(BEFORE_TIME);
        out.put_slice(&digits::<TIME_DIGITS>(stamp.sent));
        out.put_slice(BEFORE_NUMBER);
        out.put_slice(&digits::<NUMBER_DIGITS>(stamp.number));
        if let Shapes::Files(files) = &self.shapes {
            out.put_slice(BEFORE_FILE);
            out.put_slice(pick(files, stamp.number).map_or(b"{}", |file| file));
            out.put_slice(AFTER_FILE);
            return;
        }
        out.put_slice(BEFORE_FILLING);
        let filling = size - MIN_SIZE;
        let last = self.pool.len() - filling;
        // A large odd step, so that neighbours in the log share no text.
        let number = usize::try_from(stamp.number).unwrap_or(0);
        let start = number.wrapping_mul(7_919_011) % last.max(1);
        out.put_slice(self.pool.get(start..start + filling).unwrap_or_default());
        out.put_slice(END);
    }

    /// The payload as the gateway wants it (a request, or one line of a batch without its line feed).
    pub(crate) fn write_message(&self, out: &mut BytesMut, stamp: Stamp) {
        let envelope = if self.is_wanted(stamp.number) {
            &self.wanted
        } else {
            &self.unwanted
        };
        let around = envelope.before.len() + envelope.after.len();
        out.reserve(self.size(stamp.number) + around + 1);
        out.put_slice(&envelope.before);
        self.write(out, stamp);
        out.put_slice(&envelope.after);
    }
}

fn pick<T>(all: &[T], number: u64) -> Option<&T> {
    let len = u64::try_from(all.len()).ok()?;
    all.get(usize::try_from(number.checked_rem(len)?).ok()?)
}

/// Reads the numbers of a payload; `None` if it is none of ours.
pub(crate) fn read(body: &[u8]) -> Option<Stamp> {
    in_place(body).or_else(|| within(&serde_json::from_slice(body).ok()?, DEPTH))
}

/// As it was sent.
fn in_place(body: &[u8]) -> Option<Stamp> {
    body.strip_prefix(BEFORE_TIME)?;
    Some(Stamp {
        sent: number(body.get(TIME_AT..TIME_AT + TIME_DIGITS)?)?,
        number: number(body.get(NUMBER_AT..NUMBER_AT + NUMBER_DIGITS)?)?,
    })
}

/// As a peer may have written it anew: other order, other blanks, inside its own envelope.
fn within(value: &Value, depth: u8) -> Option<Stamp> {
    let fields = value.as_object()?;
    let field = |name: &str, digits: usize| {
        let text = fields.get(name)?.as_str()?;
        (text.len() == digits).then(|| number(text.as_bytes()))?
    };
    match (field("t", TIME_DIGITS), field("n", NUMBER_DIGITS)) {
        (Some(sent), Some(number)) => Some(Stamp { sent, number }),
        _ if depth == 0 => None,
        _ => fields.values().find_map(|inner| within(inner, depth - 1)),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |sum, digit| {
        let value = digit.checked_sub(b'0').filter(|value| *value < 10)?;
        Some(sum * 10 + u64::from(value))
    })
}

fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut out = [b'0'; N];
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp {
            sent: 1_767_600_930_120_001,
            number,
        }
    }

    fn written(payloads: &Payloads, stamp: Stamp) -> BytesMut {
        let mut out = BytesMut::new();
        payloads.write(&mut out, stamp);
        out
    }

    #[test]
    fn a_payload_has_the_wanted_size_is_json_and_reads_back() {
        for (size, filling) in [
            (MIN_SIZE, Filling::Text),
            (1024, Filling::Random),
            (300_000, Filling::Text),
        ] {
            let payloads = Payloads::new(&Sizes::Fixed(size), filling, 1).unwrap();
            for number in [0, 1, 999_999_999_999] {
                let out = written(&payloads, stamp(number));
                assert_eq!((out.len(), payloads.size(number)), (size, size));
                assert_eq!(read(&out), Some(stamp(number)));
                serde_json::from_slice::<Value>(&out).unwrap();
            }
        }
    }

    #[test]
    fn mixed_sizes_and_real_files_are_as_long_as_they_say() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("order.json"),
            "{\"id\": 17, \"lines\": [1, 2]}",
        )
        .unwrap();
        std::fs::write(dir.path().join("small.json"), "7").unwrap();
        let weighted = Sizes::Weighted(vec![(200, 1), (5000, 1), (10, 1)]);
        for sizes in [weighted, Sizes::Folder(dir.path().to_owned())] {
            let payloads = Payloads::new(&sizes, Filling::Text, 9).unwrap();
            let mut all = 0;
            for number in 0..4093 {
                let out = written(&payloads, stamp(number));
                assert_eq!(out.len(), payloads.size(number), "{number}");
                assert_eq!(read(&out), Some(stamp(number)));
                all += out.len();
            }
            assert!((all / 4093).abs_diff(payloads.mean()) <= 2);
        }
    }

    #[test]
    fn the_envelope_tells_wanted_from_unwanted() {
        let envelope = |before: &'static str| Envelope {
            before: Bytes::from_static(before.as_bytes()),
            after: Bytes::from_static(b"]"),
        };
        let payloads = Payloads::new(&Sizes::Fixed(100), Filling::Text, 1)
            .unwrap()
            .enveloped(envelope("[1,"), envelope("[0,"), 250);
        let mut unwanted = 0;
        for number in 0..1000 {
            let mut out = BytesMut::new();
            payloads.write_message(&mut out, stamp(number));
            assert_eq!(out.starts_with(b"[1,"), payloads.is_wanted(number));
            unwanted += usize::from(out.starts_with(b"[0,"));
            serde_json::from_slice::<Value>(&out).unwrap();
        }
        assert_eq!(unwanted, 250);
    }

    #[test]
    fn a_body_that_a_peer_wrote_anew_still_reads() {
        let body = br#"{ "id": "evt_1", "data": { "p": "x", "n": "000000000042", "t": "1767600930120001" } }"#;
        assert_eq!(read(body), Some(stamp(42)));
        assert_eq!(read(br#"{"n": "42", "t": "1767600930120001"}"#), None);
    }

    #[test]
    fn foreign_bodies_are_told_apart() {
        assert_eq!(read(b"{}"), None);
        assert_eq!(read(b"{\"t\":\"12"), None);
        assert_eq!(read(&[b'{'; 100]), None);
    }
}
