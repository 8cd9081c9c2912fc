//! What is sent: JSON bodies of an exact size that carry their send time and number.
//!
//! `{"t":"<16 digits of unix microseconds>","n":"<12 digits>","p":"<filling>"}`. Posthaste delivers
//! the bytes of `payload` as they were sent, so the receiver reads both numbers at fixed offsets
//! and needs no JSON parser.

use bytes::{BufMut, BytesMut};
use clap::ValueEnum;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BEFORE_TIME: &[u8] = b"{\"t\":\"";
const BEFORE_NUMBER: &[u8] = b"\",\"n\":\"";
const BEFORE_FILLING: &[u8] = b"\",\"p\":\"";
const END: &[u8] = b"\"}";
const TIME_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 12;
const TIME_AT: usize = BEFORE_TIME.len();
const NUMBER_AT: usize = TIME_AT + TIME_DIGITS + BEFORE_NUMBER.len();
/// The smallest payload that has room for both numbers.
pub(crate) const MIN_SIZE: usize = NUMBER_AT + NUMBER_DIGITS + BEFORE_FILLING.len() + END.len();

const BEFORE_PAYLOAD: &[u8] = b"{\"eventType\":\"load.test\",\"payload\":";
const AFTER_PAYLOAD: &[u8] = b"}";

/// What the filling is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Filling {
    /// Words as they stand in JSON of business applications; compresses well.
    Text,
    /// Random characters; does not compress.
    Random,
}

/// Writes payloads of one size.
pub(crate) struct Payloads {
    size: usize,
    /// Fillings are windows of this text that start at different places.
    pool: Vec<u8>,
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
    /// Payloads of `size` bytes, at least [`MIN_SIZE`].
    pub(crate) fn new(size: usize, filling: Filling) -> Self {
        let size = size.max(MIN_SIZE);
        let len = (size * 4).max(1 << 20);
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
                let mut random = ChaCha8Rng::seed_from_u64(1);
                pool.extend((0..len).map(|_| {
                    digits
                        .get(random.random_range(0..digits.len()))
                        .copied()
                        .unwrap_or(b'A')
                }));
            }
        }
        Self { size, pool }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The payload alone.
    pub(crate) fn write(&self, out: &mut BytesMut, stamp: Stamp) {
        out.reserve(self.size);
        out.put_slice(BEFORE_TIME);
        out.put_slice(&digits::<TIME_DIGITS>(stamp.sent));
        out.put_slice(BEFORE_NUMBER);
        out.put_slice(&digits::<NUMBER_DIGITS>(stamp.number));
        out.put_slice(BEFORE_FILLING);
        let filling = self.size - MIN_SIZE;
        let last = self.pool.len() - filling;
        // A large odd step, so that neighbours in the log share no text.
        let number = usize::try_from(stamp.number).unwrap_or(0);
        let start = number.wrapping_mul(7_919_011) % last.max(1);
        out.put_slice(self.pool.get(start..start + filling).unwrap_or_default());
        out.put_slice(END);
    }

    /// The payload as a `MessageIn` (`POST …/msg`, or one line of a batch without its line feed).
    pub(crate) fn write_message(&self, out: &mut BytesMut, stamp: Stamp) {
        out.reserve(self.size + BEFORE_PAYLOAD.len() + AFTER_PAYLOAD.len() + 1);
        out.put_slice(BEFORE_PAYLOAD);
        self.write(out, stamp);
        out.put_slice(AFTER_PAYLOAD);
    }
}

/// Reads the numbers of a payload; `None` if it is none of ours.
pub(crate) fn read(body: &[u8]) -> Option<Stamp> {
    body.strip_prefix(BEFORE_TIME)?;
    Some(Stamp {
        sent: number(body.get(TIME_AT..TIME_AT + TIME_DIGITS)?)?,
        number: number(body.get(NUMBER_AT..NUMBER_AT + NUMBER_DIGITS)?)?,
    })
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

    #[test]
    fn a_payload_has_the_wanted_size_is_json_and_reads_back() {
        for (size, filling) in [
            (MIN_SIZE, Filling::Text),
            (1024, Filling::Random),
            (300_000, Filling::Text),
        ] {
            let payloads = Payloads::new(size, filling);
            for number in [0, 1, 999_999_999_999] {
                let stamp = Stamp {
                    sent: 1_767_600_930_120_001,
                    number,
                };
                let mut out = BytesMut::new();
                payloads.write(&mut out, stamp);
                assert_eq!(out.len(), size);
                assert_eq!(read(&out), Some(stamp));
                serde_json::from_slice::<serde_json::Value>(&out).unwrap();
            }
        }
    }

    #[test]
    fn foreign_bodies_are_told_apart() {
        assert_eq!(read(b"{}"), None);
        assert_eq!(read(b"{\"t\":\"12"), None);
        assert_eq!(read(&[b'{'; 100]), None);
    }
}
