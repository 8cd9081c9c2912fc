//! The token in a source's URL: 256 random bits, shown once, kept as a hash.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A token. Prints as `[redacted]`.
pub struct Token(Zeroizing<String>);

impl Token {
    /// From 32 random bytes: 51 letters and digits, 255 bits of them.
    pub fn new(random: [u8; 32]) -> Self {
        let mut text = String::with_capacity(51);
        let (mut bits, mut held) = (0_u32, 0_u32);
        for byte in random {
            bits = (bits << 8) | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                let digit = usize::try_from((bits >> held) & 31).unwrap_or(0);
                text.extend(DIGITS.get(digit).map(|digit| char::from(*digit)));
            }
        }
        Self(Zeroizing::new(text))
    }

    /// SHA-256 of a token as it came.
    pub fn hash_of(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(&self.0)
    }

    /// The path it leads by.
    pub fn path(&self) -> String {
        format!("/in/{}", self.0.as_str())
    }

    /// The token itself, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_its_bits_and_shows_none() {
        let token = Token::new([0xff; 32]);
        assert_eq!(token.reveal(), "7".repeat(51));
        assert_eq!(Token::new([0; 32]).reveal(), "a".repeat(51));
        assert_ne!(Token::new([1; 32]).hash(), token.hash());
        assert_eq!(format!("{token:?}"), "[redacted]");
        assert_eq!(token.hash(), Token::hash_of(token.reveal()));
    }
}
