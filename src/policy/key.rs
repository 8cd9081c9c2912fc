//! Keys out of secrets: `whsec_` (HMAC), `whsk_` (Ed25519), and plain text for `hex` profiles.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::model::{HexKey, Profile, Secret};

/// Bytes of a symmetric key (Standard Webhooks, SW10).
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Characters of a secret that is used as text.
const TEXT_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// Why a secret makes no key. Never says the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Not base64 behind the prefix.
    #[error("the secret is not base64 behind `whsec_` or `whsk_`")]
    Encoding,
    /// A symmetric key with other than 24 to 64 bytes.
    #[error("the secret must decode to 24 to 64 bytes")]
    Length,
    /// A `whsk_` secret that is no Ed25519 seed or key pair.
    #[error("a `whsk_` secret must be the 32 bytes of an Ed25519 seed, or 64 with the public key")]
    Ed25519,
    /// A public key where a secret is wanted.
    #[error("this is a public key; the secret begins with `whsk_`")]
    Public,
    /// A text secret with other than 16 to 256 printable ASCII characters.
    #[error("the secret must have 16 to 256 printable ASCII characters")]
    Text,
    /// An Ed25519 secret where the profile wants the bytes of a symmetric one.
    #[error("this signature profile needs a symmetric secret (`whsec_`)")]
    Symmetric,
}

/// What signs the Standard Webhooks headers.
pub(super) enum Key {
    /// `v1`
    Symmetric(Mac),
    /// `v1a`
    Ed25519(Box<SigningKey>),
}

/// HMAC-SHA256 with its key already taken in.
#[derive(Clone)]
pub(super) struct Mac(Hmac<Sha256>);

impl Mac {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("any key length is valid"))
    }

    /// The code over `parts`, one after the other.
    pub(super) fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl Key {
    /// `whsec_` and base64, base64 alone, or `whsk_` (also numbered: `whsk1_`) and base64.
    pub(super) fn of(secret: &Secret) -> Result<Self, BadSecret> {
        let text = secret.reveal();
        if text.starts_with("whpk") {
            return Err(BadSecret::Public);
        }
        if let Some(seed) = seed_text(text) {
            return ed25519(seed).map(|key| Self::Ed25519(Box::new(key)));
        }
        let bytes = decode(text.strip_prefix("whsec_").unwrap_or(text))?;
        if !KEY_BYTES.contains(&bytes.len()) {
            return Err(BadSecret::Length);
        }
        Ok(Self::Symmetric(Mac::new(&bytes)))
    }
}

/// A new symmetric secret out of 32 random bytes: `whsec_` and base64.
pub fn generate(random: [u8; 32]) -> Secret {
    let random = Zeroizing::new(random);
    let mut text = String::from("whsec_");
    STANDARD.encode_string(random.as_slice(), &mut text);
    Secret::new(text)
}

/// Whether `secret` can sign under `profile`: checked when an endpoint is made, edited or rotated.
pub fn check_secret(secret: &Secret, profile: &Profile) -> Result<(), BadSecret> {
    let hex_key = match profile {
        Profile::Standard | Profile::Dual => return Key::of(secret).map(drop),
        Profile::Timestamped { .. } => HexKey::Text,
        Profile::Hex(hex) => hex.key,
    };
    match hex_key {
        HexKey::Text => {
            let text = secret.reveal();
            let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if printable && TEXT_LEN.contains(&text.len()) {
                Ok(())
            } else {
                Err(BadSecret::Text)
            }
        }
        HexKey::Decoded => match Key::of(secret)? {
            Key::Symmetric(_) => Ok(()),
            Key::Ed25519(_) => Err(BadSecret::Symmetric),
        },
    }
}

/// The public key of a `whsk_` secret as `whpk_` and base64 (SW11); `None` for every other secret.
pub fn public_key(secret: &Secret) -> Option<String> {
    let key = ed25519(seed_text(secret.reveal())?).ok()?;
    let mut text = String::from("whpk_");
    STANDARD.encode_string(key.verifying_key().as_bytes(), &mut text);
    Some(text)
}

fn seed_text(text: &str) -> Option<&str> {
    text.strip_prefix("whsk_")
        .or_else(|| text.strip_prefix("whsk1_"))
}

fn ed25519(text: &str) -> Result<SigningKey, BadSecret> {
    let bytes = decode(text)?;
    if let Ok(seed) = <&[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(SigningKey::from_bytes(seed));
    }
    let pair: &[u8; 64] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| BadSecret::Ed25519)?;
    SigningKey::from_keypair_bytes(pair).map_err(|_| BadSecret::Ed25519)
}

/// Standard alphabet; padding may be missing, as in secrets copied by hand.
fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, BadSecret> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let bytes = LENIENT.decode(text).map_err(|_| BadSecret::Encoding)?;
    Ok(Zeroizing::new(bytes))
}
