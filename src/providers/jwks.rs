//! A provider's set of public keys (RFC 7517), as it was fetched.
//!
//! Fetching and caching are the caller's (`inbound`): an unknown key id asks for a fresh set at most
//! once a minute, then the request is refused.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature;
use serde::Deserialize;

/// Keys of one set at most.
const MAX_KEYS: usize = 100;

/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The RSA keys of a set; keys of other kinds are left out.
#[derive(Clone)]
pub struct Jwks(Vec<Rsa>);

/// Not a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadJwks {
    /// Not JSON of the form `{"keys": […]}`.
    #[error("not a JSON Web Key Set")]
    Unreadable,
    /// No key that can be used.
    #[error("the set holds no RSA key of 2048 to 8192 bits with a key id")]
    Empty,
}

impl Jwks {
    /// Reads a set of at most 100 keys.
    ///
    /// # Errors
    /// The text is no key set, or no key of it can be used.
    pub fn parse(text: &str) -> Result<Self, BadJwks> {
        let set: Set = serde_json::from_str(text).map_err(|_| BadJwks::Unreadable)?;
        let keys: Vec<_> = set
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(Rsa::of)
            .collect();
        if keys.is_empty() {
            return Err(BadJwks::Empty);
        }
        Ok(Self(keys))
    }

    /// Whether the set holds a key with this id: if not, a fresh one may.
    pub fn holds(&self, kid: &str) -> bool {
        self.key(kid).is_some()
    }

    pub(super) fn key(&self, kid: &str) -> Option<&Rsa> {
        self.0.iter().find(|key| key.kid == kid)
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids = self.0.iter().map(|key| &key.kid);
        f.debug_list().entries(kids).finish()
    }
}

/// One RSA key.
#[derive(Clone)]
pub(super) struct Rsa {
    kid: String,
    n: Vec<u8>,
    e: Vec<u8>,
}

impl Rsa {
    fn of(key: Entry) -> Option<Self> {
        let fits = key.kty == "RSA"
            && key.alg.is_none_or(|alg| alg == "RS256")
            && key.usage.is_none_or(|usage| usage == "sig");
        if !fits {
            return None;
        }
        let n = URL_SAFE_NO_PAD.decode(key.n?).ok()?;
        let e = URL_SAFE_NO_PAD.decode(key.e?).ok()?;
        let good = MODULUS.contains(&n.len()) && (1..=8).contains(&e.len());
        good.then_some(Self {
            kid: key.kid?,
            n,
            e,
        })
    }

    /// Whether `sign` is a signature RS256 (PKCS #1 v1.5, SHA-256) over `message`.
    pub(super) fn verifies(&self, message: &[u8], sign: &[u8]) -> bool {
        let key = signature::RsaPublicKeyComponents {
            n: &self.n,
            e: &self.e,
        };
        let scheme = &signature::RSA_PKCS1_2048_8192_SHA256;
        key.verify(scheme, message, sign).is_ok()
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
}
