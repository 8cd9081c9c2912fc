//! Public identifiers: a prefix and 27 base62 characters, ordered by time (`api.md` 2.3).
//!
//! The 27 characters carry 160 bits: 48 bits of milliseconds first, then what makes the id unique.
//! Sorting the text sorts by time, so an id can serve as page position.

use std::fmt;

use super::Timestamp;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters behind the prefix.
const LEN: usize = 27;

/// 160 bits behind a public id. The kind (its prefix) is added where it is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id20(pub [u8; 20]);

/// The text is no id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: want the prefix and 27 characters of [0-9A-Za-z]")]
pub struct BadId;

impl Id20 {
    /// An id whose first 48 bits are `at`, the rest `unique`.
    pub fn new(at: Timestamp, unique: [u8; 14]) -> Self {
        let mut bytes = [0; 20];
        let [_, _, ms @ ..] = at.millis().to_be_bytes();
        let (head, tail) = bytes.split_at_mut(6);
        head.copy_from_slice(&ms);
        tail.copy_from_slice(&unique);
        Self(bytes)
    }

    /// The millisecond in it.
    pub fn at(self) -> Timestamp {
        let [a, b, c, d, e, f, ..] = self.0;
        Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The 112 bits behind the millisecond.
    pub fn unique(self) -> [u8; 14] {
        let [_, _, _, _, _, _, rest @ ..] = self.0;
        rest
    }

    /// `prefix` followed by the 27 characters.
    pub fn text(self, prefix: &str) -> String {
        let mut out = String::with_capacity(prefix.len() + LEN);
        out.push_str(prefix);
        // Base62 digits are ASCII: they always read.
        out.push_str(std::str::from_utf8(&self.digits()).unwrap_or_default());
        out
    }

    /// Reads `text` if it is `prefix` and 27 base62 characters below 2^160.
    pub fn parse(prefix: &str, text: &str) -> Result<Self, BadId> {
        let digits = text.strip_prefix(prefix).ok_or(BadId)?.as_bytes();
        if digits.len() != LEN {
            return Err(BadId);
        }
        let mut words = [0_u32; 5];
        for &digit in digits {
            let mut carry = u64::from(value(digit).ok_or(BadId)?);
            for word in words.iter_mut().rev() {
                let sum = u64::from(*word) * 62 + carry;
                *word = low32(sum);
                carry = sum >> 32;
            }
            if carry != 0 {
                return Err(BadId);
            }
        }
        let mut bytes = [0; 20];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        Ok(Self(bytes))
    }

    /// The 27 characters as ASCII bytes.
    pub fn digits(self) -> [u8; LEN] {
        // Two passes over 64-bit remainders would be quicker still; five 32-bit words and a
        // divisor of 62^5 keep it at 6 rounds without big integers.
        const CHUNK: u64 = 916_132_832; // 62^5
        let mut words = [0_u32; 5];
        for (word, chunk) in words.iter_mut().zip(self.0.chunks_exact(4)) {
            let mut four = [0; 4];
            four.copy_from_slice(chunk);
            *word = u32::from_be_bytes(four);
        }
        let mut out = [b'0'; LEN];
        for group in out.rchunks_mut(5) {
            let mut rest = 0_u64;
            for word in &mut words {
                let part = (rest << 32) | u64::from(*word);
                *word = low32(part / CHUNK);
                rest = part % CHUNK;
            }
            for digit in group.iter_mut().rev() {
                let at = usize::try_from(rest % 62).unwrap_or(0);
                *digit = DIGITS.get(at).copied().unwrap_or(b'0');
                rest /= 62;
            }
        }
        out
    }
}

impl fmt::Debug for Id20 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(""))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
const fn low32(n: u64) -> u32 {
    n as u32
}

const fn value(digit: u8) -> Option<u32> {
    Some(match digit {
        b'0'..=b'9' => digit - b'0',
        b'A'..=b'Z' => digit - b'A' + 10,
        b'a'..=b'z' => digit - b'a' + 36,
        _ => return None,
    } as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_reads_back_and_sorts_like_the_bytes(a: [u8; 20], b: [u8; 20]) {
            let (a, b) = (Id20(a), Id20(b));
            prop_assert_eq!(Id20::parse("msg_", &a.text("msg_")), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.text("").cmp(&b.text("")));
        }
    }

    #[test]
    fn refuses_other_prefixes_lengths_characters_and_overflow() {
        let good = Id20([0xff; 20]).text("ep_");
        assert_eq!(good.len(), 30);
        assert!(Id20::parse("ep_", &good).is_ok());
        for bad in [
            good.replace("ep_", "app_"),
            good.clone() + "0",
            good.replace('a', "-"),
            format!("ep_{}", "z".repeat(27)),
        ] {
            assert_eq!(Id20::parse("ep_", &bad), Err(BadId), "{bad}");
        }
    }

    #[test]
    fn carries_its_millisecond() {
        let at = Timestamp::from_millis(1_767_600_930_120);
        assert_eq!(Id20::new(at, [7; 14]).at(), at);
        assert_eq!(Id20::new(at, [7; 14]).unique(), [7; 14]);
    }
}
