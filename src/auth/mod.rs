//! Who is calling: a bearer token becomes a [`Principal`], or nothing.
//!
//! Keys are found by the id in their text and compared by SHA-256 in constant time; an unknown id, a
//! wrong key, a revoked and an expired one take the same path and get the same answer. The operator's
//! key (`POSTHASTE_ADMIN_KEY`, at least 32 characters) is kept as a hash in memory only. Revocation
//! holds from the moment the snapshot has it, so at once.
//!
//! Knows no HTTP types. Elsewhere: which route wants which scope (`api`), where keys are kept
//! (`directory`).

mod entropy;
mod key;
mod portal;
mod principal;
mod used;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::base::Timestamp;
use crate::directory::{self, Directory};
use crate::model::{ApiKey, KeyId};

pub use entropy::Entropy;
pub use key::{KEY_RANDOM, NewKey, mint};
pub use portal::{CAPABILITIES, PortalToken};
pub use principal::Principal;
use used::LastUse;

/// The token opens nothing. One variant on purpose: why is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential is not valid")]
pub struct Error;

/// The instance setting that holds the key under which portal tokens are signed.
pub const PORTAL_KEY: &str = "portal key";

/// SHA-256 of a token as it came.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Checks credentials against the current snapshot.
pub struct Auth {
    directory: Arc<Directory>,
    admin: Option<[u8; 32]>,
    used: LastUse,
}

impl Auth {
    /// `admin_key` is the [`hash`] of the operator's key, if one was set.
    pub fn new(directory: Arc<Directory>, admin_key: Option<[u8; 32]>) -> Self {
        Self {
            directory,
            admin: admin_key,
            used: LastUse::default(),
        }
    }

    /// The principal behind `bearer`, the text after `Bearer `.
    pub fn authenticate(&self, bearer: &str, now: Timestamp) -> Result<Principal, Error> {
        if PortalToken::is_one(bearer) {
            return self.portal(bearer, now).ok_or(Error);
        }
        /// No SHA-256 of a token anyone knows: what unknown ids are compared with.
        const NOBODY: [u8; 32] = [0; 32];
        let given = hash(bearer);
        let stored = key::id_of(bearer).and_then(|id| self.directory.peek().key(&id).cloned());
        let is_stored = given.ct_eq(stored.as_ref().map_or(&NOBODY, |key| &key.hash));
        let is_admin = given.ct_eq(self.admin.as_ref().unwrap_or(&NOBODY));
        if bool::from(is_admin) {
            return Ok(Principal::admin(&given));
        }
        match stored {
            Some(key) if bool::from(is_stored) && key::is_alive(&key, now) => {
                self.used.note(key.id, now);
                Ok(Principal::of(&key, &given))
            }
            Some(_) | None => Err(Error),
        }
    }

    fn portal(&self, bearer: &str, now: Timestamp) -> Option<Principal> {
        let snapshot = self.directory.peek();
        let key = snapshot.instance(PORTAL_KEY)?.as_str()?;
        let token = PortalToken::read(bearer, key.as_bytes())?;
        let entry = snapshot.app_by_no(token.app)?;
        let is_good = token.is_alive(&entry.app.portal_cuts, now);
        is_good.then(|| Principal::portal(token, &hash(bearer)))
    }

    /// When a key was last used, to the minute.
    pub fn last_use(&self, key: &ApiKey) -> Option<Timestamp> {
        self.used.of(key.id).max(key.last_used)
    }

    /// Stores when keys were last used, all in one change, if there is anything new. Cancel safe.
    ///
    /// # Errors
    /// Nothing was stored, or (the store failed) nobody knows; what is new stays new.
    pub async fn store_last_use(&self) -> Result<(), directory::Error> {
        let uses = self.used.unstored();
        if uses.is_empty() {
            return Ok(());
        }
        let wanted: Vec<(KeyId, Timestamp)> = uses.clone();
        self.directory
            .carry_out(move |draft| {
                for (id, at) in wanted {
                    let known = draft.key(&id).filter(|key| key.last_used < Some(at));
                    if let Some(mut key) = known.map(|key| ApiKey::clone(key)) {
                        key.last_used = Some(at);
                        draft.put_key(key)?;
                    }
                }
                Ok::<_, directory::Error>(())
            })
            .await?;
        self.used.stored(&uses);
        Ok(())
    }
}
