//! Secrets at rest (P12): envelope encryption of what configuration rows hold in confidence.
//!
//! Each application has data keys of its own (256 random bits), which encrypt its secrets field by
//! field with XChaCha20-Poly1305 under a random 192-bit nonce. Data keys are rows of the store, wrapped by
//! a master key that never enters it. Everything is bound to what it belongs to (application, kind, key and
//! field of the row, data key), so a ciphertext in another place does not open. Rotating a master key
//! wraps the data keys again and touches no secret.
//!
//! A field that is a plain string is one from before there was a vault: it is read as it is, and sealed the
//! next time its row is written or by `posthaste vault rotate`.
//!
//! Elsewhere: when rows are sealed and opened (`directory`), what a secret is for (`policy::sign`,
//! `inbound`).

mod master;
mod place;
mod ring;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde_json::Value;

use crate::model::AppNo;
use crate::store::ConfigKind;

pub use master::{Found, Given, KeyError, MasterKey, Masters};
pub use ring::{DataKeyRow, Keyring};

use place::Place;

/// Bytes of a key of either kind.
const KEY: usize = 32;
/// Bytes of a nonce.
const NONCE: usize = 24;
/// Bytes of an authentication tag.
const TAG: usize = 16;

/// Why something stays closed. Never shows a key or a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key that a data key needs is not among those given.
    #[error(
        "the store needs the master key {wanted}, and {}: give it back (POSTHASTE_VAULT_KEY, the credential \
         vault-key, or the file of vault.key_file)", known(.given)
    )]
    NoMaster {
        /// Its id.
        wanted: String,
        /// Ids of the keys that were given.
        given: Vec<String>,
    },
    /// A data key does not open: the row was changed, or belongs to another place.
    #[error("data key {no} does not open under master key {master}: the row was changed")]
    Wrapped {
        /// Its number.
        no: u32,
        /// The id of the master key.
        master: String,
    },
    /// A secret names a data key that is not there.
    #[error("{what} needs data key {no}, which is not in the store")]
    NoDataKey {
        /// What it belongs to.
        what: String,
        /// The number of the data key.
        no: u32,
    },
    /// A secret does not open: it was changed, or belongs to another place.
    #[error("{what} does not open: it was changed, or it belongs elsewhere")]
    Sealed {
        /// What it belongs to.
        what: String,
    },
    /// A sealed secret is not of the form this version writes.
    #[error("{what} is not sealed as this version does it; was it written by a newer one?")]
    Form {
        /// What it belongs to.
        what: String,
    },
    /// Encryption failed, which takes a text of more than 256 GiB.
    #[error("{what} cannot be sealed")]
    Unsealable {
        /// What it belongs to.
        what: String,
    },
}

fn known(given: &[String]) -> String {
    if given.is_empty() {
        return String::from("none was given");
    }
    format!("what was given is {}", given.join(", "))
}

/// Seals and opens. Shared; the lock of the generator is held for one draw.
pub struct Vault {
    masters: Masters,
    random: Mutex<ChaCha20Rng>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("primary", &self.masters.primary().id())
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Works with these master keys. Nonces and data keys follow from `seed`, which comes from the
    /// operating system (a test gives a constant).
    pub fn new(masters: Masters, seed: [u8; 32]) -> Self {
        Self {
            masters,
            random: Mutex::new(ChaCha20Rng::from_seed(seed)),
        }
    }

    /// The keys it works with.
    pub const fn masters(&self) -> &Masters {
        &self.masters
    }

    fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.random.lock().fill_bytes(&mut out);
        out
    }

    /// Seals all secrets of a row. `keys` must have a data key of the row's application
    /// ([`Vault::owner`], [`Keyring::current`]).
    ///
    /// # Errors
    /// There is no data key; the row is half sealed then and must not be written.
    pub fn seal(
        &self,
        keys: &Keyring,
        (kind, key): (ConfigKind, &[u8]),
        row: &mut Value,
    ) -> Result<(), Error> {
        let Some(app) = Self::owner(kind, row) else {
            return Ok(());
        };
        let place = Place { kind, key, app };
        place.each(row, |field, value| {
            let Value::String(text) = value else {
                return Ok(());
            };
            let what = place.name(field);
            let Some((no, data)) = keys.current(app) else {
                return Err(Error::NoDataKey { what, no: 0 });
            };
            let sealed = data
                .seal(self.bytes(), text.as_bytes(), &place.binding(field, no))
                .ok_or(Error::Unsealable { what })?;
            zeroize::Zeroize::zeroize(text);
            *value = place::sealed(no, &sealed);
            Ok(())
        })
    }

    /// Opens all secrets of a row in place; answers how many of them stood there in the clear.
    ///
    /// # Errors
    /// One that does not open.
    pub fn open(
        &self,
        keys: &Keyring,
        (kind, key): (ConfigKind, &[u8]),
        row: &mut Value,
    ) -> Result<usize, Error> {
        let Some(app) = Self::owner(kind, row) else {
            return Ok(0);
        };
        let place = Place { kind, key, app };
        let mut clear = 0;
        place.each(row, |field, value| {
            if value.is_string() {
                clear += 1;
                return Ok(());
            }
            let what = || place.name(field);
            let (no, sealed) = place::read(value).ok_or_else(|| Error::Form { what: what() })?;
            let data = keys.of(app, no);
            let data = data.ok_or_else(|| Error::NoDataKey { what: what(), no })?;
            let text = data.open(&sealed, &place.binding(field, no));
            let text = text.and_then(|text| String::from_utf8(text.to_vec()).ok());
            *value = Value::String(text.ok_or_else(|| Error::Sealed { what: what() })?);
            Ok(())
        })?;
        Ok(clear)
    }

    /// The application whose data key seals a row; `None` for rows without secrets.
    pub fn owner(kind: ConfigKind, row: &Value) -> Option<AppNo> {
        if !place::has_secrets(kind) {
            return None;
        }
        let no = row.get("app")?.as_u64()?;
        u32::try_from(no).ok().map(AppNo)
    }
}

#[cfg(test)]
mod tests;
