//! Data keys: made here, wrapped by a master key, kept open in memory.
#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, KEY, MasterKey, NONCE, TAG, Vault};
use crate::base::Parted;
use crate::model::AppNo;

/// A key that encrypts. Prints as nothing; is wiped when it goes.
#[derive(Clone)]
pub(super) struct Cipher(Zeroizing<[u8; KEY]>);

impl Cipher {
    pub(super) fn new(key: [u8; KEY]) -> Self {
        Self(Zeroizing::new(key))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// `nonce | ciphertext | tag`; `None` only beyond what the cipher can take.
    pub(super) fn seal(&self, nonce: [u8; NONCE], text: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let cipher = XChaCha20Poly1305::new(&(*self.0).into());
        let payload = Payload { msg: text, aad };
        let sealed = cipher.encrypt(&nonce.into(), payload).ok()?;
        let mut out = Vec::with_capacity(NONCE + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Some(out)
    }

    /// What was sealed, if it was sealed by this key for this place and not changed since.
    pub(super) fn open(&self, sealed: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, msg) = sealed.split_first_chunk::<NONCE>()?;
        if msg.len() < TAG {
            return None;
        }
        let cipher = XChaCha20Poly1305::new(&(*self.0).into());
        let text = cipher.decrypt(&(*nonce).into(), Payload { msg, aad });
        text.ok().map(Zeroizing::new)
    }
}

/// A data key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKeyRow {
    /// Its number; given once, in order.
    pub no: u32,
    /// The application whose secrets it seals.
    pub app: AppNo,
    /// The id of the master key that wraps it.
    pub master: String,
    /// `nonce | key | tag`, base64 without padding.
    wrapped: String,
}

impl DataKeyRow {
    fn binding(no: u32, app: AppNo) -> Vec<u8> {
        let mut out = b"posthaste data key 1".to_vec();
        out.extend_from_slice(&no.to_be_bytes());
        out.extend_from_slice(&app.0.to_be_bytes());
        out
    }
}

/// An open data key. On the heap on its own, so that no table that grows leaves a copy behind.
struct Held {
    cipher: Cipher,
    app: AppNo,
    /// The id of the master key that wraps it.
    master: Arc<str>,
}

/// All data keys, open. Immutable but for the draft of a change; cloning copies pointers.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Parted<u32, Arc<Held>>,
    /// The newest of each application: what it seals with.
    current: Parted<AppNo, u32>,
    /// The highest number.
    last: u32,
    /// Ids of master keys that wrap any.
    masters: Vec<Arc<str>>,
}

impl Keyring {
    /// The data key that seals for `app` now, with its number.
    pub(super) fn current(&self, app: AppNo) -> Option<(u32, &Cipher)> {
        let no = *self.current.get(&app)?;
        Some((no, &self.keys.get(&no)?.cipher))
    }

    /// Whether secrets of `app` can be sealed.
    pub fn has(&self, app: AppNo) -> bool {
        self.current.get(&app).is_some()
    }

    /// A data key by its number, if it is one of `app`.
    pub(super) fn of(&self, app: AppNo, no: u32) -> Option<&Cipher> {
        let held = self.keys.get(&no)?;
        (held.app == app).then_some(&held.cipher)
    }

    /// Of each data key the application that it seals for and the id of the master key that wraps it.
    pub fn keys(&self) -> impl Iterator<Item = (AppNo, &str)> {
        self.keys.values().map(|held| (held.app, &*held.master))
    }

    /// The number of the next data key.
    const fn next(&self) -> u32 {
        self.last.saturating_add(1)
    }

    fn put(&mut self, row: &DataKeyRow, cipher: Cipher) {
        let master = self.master(&row.master);
        let (app, no) = (row.app, row.no);
        let held = Held {
            cipher,
            app,
            master,
        };
        self.keys.put(no, Arc::new(held));
        let newest = self.current.get(&app).copied().unwrap_or(no);
        self.current.put(app, newest.max(no));
        self.last = self.last.max(no);
    }

    /// One copy of each id.
    fn master(&mut self, id: &str) -> Arc<str> {
        if let Some(known) = self.masters.iter().find(|known| &***known == id) {
            return Arc::clone(known);
        }
        let new = Arc::from(id);
        self.masters.push(Arc::clone(&new));
        new
    }
}

impl Vault {
    /// Opens a stored data key and puts it on the ring.
    ///
    /// # Errors
    /// Its master key was not given, or the row was changed.
    pub fn admit(&self, ring: &mut Keyring, row: DataKeyRow) -> Result<(), Error> {
        let Some(master) = self.masters().get(&row.master) else {
            return Err(Error::NoMaster {
                wanted: row.master,
                given: self.masters().ids(),
            });
        };
        let sealed = STANDARD_NO_PAD.decode(&row.wrapped).unwrap_or_default();
        let binding = DataKeyRow::binding(row.no, row.app);
        let key = master.cipher().open(&sealed, &binding);
        let key = key.and_then(|key| <[u8; KEY]>::try_from(key.as_slice()).ok());
        match key {
            Some(key) => {
                ring.put(&row, Cipher::new(key));
                Ok(())
            }
            None => Err(Error::Wrapped {
                no: row.no,
                master: row.master,
            }),
        }
    }

    /// Makes a data key for `app`, which seals from now on; answers the row to store.
    ///
    /// # Errors
    /// Never in practice: 32 bytes can be sealed.
    pub fn make(&self, ring: &mut Keyring, app: AppNo) -> Result<DataKeyRow, Error> {
        let cipher = Cipher::new(self.bytes());
        let row = self.wrap(ring.next(), app, &cipher)?;
        ring.put(&row, cipher);
        Ok(row)
    }

    /// Wraps every data key that another master key wraps by the primary one; answers the rows to store.
    ///
    /// # Errors
    /// As [`Vault::make`].
    pub fn rewrap(&self, ring: &mut Keyring) -> Result<Vec<DataKeyRow>, Error> {
        let primary = self.masters().primary().id();
        let stale = ring
            .keys
            .iter()
            .filter(|(_, held)| &*held.master != primary);
        let mut stale: Vec<(u32, Arc<Held>)> =
            stale.map(|(no, held)| (*no, Arc::clone(held))).collect();
        stale.sort_unstable_by_key(|(no, _)| *no);
        let mut rows = Vec::with_capacity(stale.len());
        for (no, held) in stale {
            let row = self.wrap(no, held.app, &held.cipher)?;
            ring.put(&row, held.cipher.clone());
            rows.push(row);
        }
        Ok(rows)
    }

    fn wrap(&self, no: u32, app: AppNo, cipher: &Cipher) -> Result<DataKeyRow, Error> {
        let master: &MasterKey = self.masters().primary();
        let binding = DataKeyRow::binding(no, app);
        let sealed = master
            .cipher()
            .seal(self.bytes(), cipher.bytes(), &binding)
            .ok_or_else(|| Error::Unsealable {
                what: format!("data key {no}"),
            })?;
        Ok(DataKeyRow {
            no,
            app,
            master: master.id().to_owned(),
            wrapped: STANDARD_NO_PAD.encode(sealed),
        })
    }
}
