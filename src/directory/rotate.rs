//! Rotating the vault's keys: data keys are wrapped again, secrets in the clear are sealed, and if asked
//! for every application gets a new data key and all its secrets with it.
//!
//! Many small changes, each complete by itself: a rotation that is cut off is simply run again, and
//! whatever it has done opens under the keys it had.

use std::sync::Arc;

use super::{Directory, Draft, Error};
use crate::model::AppNo;
use crate::store::ConfigKind;

/// Rows of one change: a commit that holds others up for a moment only.
const CHUNK: usize = 500;

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotated {
    /// Data keys wrapped by the primary master key now, and by another one before.
    pub wrapped: usize,
    /// Data keys made.
    pub made: usize,
    /// Rows sealed: from the clear, or under a new data key.
    pub sealed: usize,
}

impl Directory {
    /// Wraps all data keys by the primary master key and seals what stands in the clear; with
    /// `data_keys` every application gets a new data key, and its rows are sealed under that.
    ///
    /// Not cancel safe as a whole: what was done stands, the rest is done by another run.
    ///
    /// # Errors
    /// A change was not stored; those before it stand.
    pub async fn rotate(self: &Arc<Self>, data_keys: bool) -> Result<Rotated, Error> {
        let mut done = Rotated {
            wrapped: self.carry_out(Draft::rewrap).await?,
            ..Rotated::default()
        };
        let rows: Vec<(ConfigKind, u32)> = if data_keys {
            done.made = self.carry_out(Draft::renew).await?;
            self.all_with_secrets()
        } else {
            let snapshot = self.snapshot();
            let clear = snapshot.clear_rows().filter_map(|(kind, key)| {
                let no = <[u8; 4]>::try_from(key.as_slice()).ok()?;
                Some((*kind, u32::from_be_bytes(no)))
            });
            clear.collect()
        };
        for chunk in rows.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            done.sealed += self.carry_out(move |draft| draft.reseal(&chunk)).await?;
        }
        Ok(done)
    }

    /// Deleted endpoints included: their rows hold secrets as well.
    fn all_with_secrets(&self) -> Vec<(ConfigKind, u32)> {
        let snapshot = self.snapshot();
        let endpoints = snapshot
            .endpoints()
            .map(|endpoint| (ConfigKind::Endpoint, endpoint.no.0));
        let sources = snapshot
            .sources()
            .map(|source| (ConfigKind::Source, source.no.0));
        endpoints.chain(sources).collect()
    }
}

impl Draft {
    fn rewrap(&mut self) -> Result<usize, Error> {
        let rows = self.vault.rewrap(&mut self.next.keyring)?;
        for row in &rows {
            self.data_key(row)?;
        }
        Ok(rows.len())
    }

    fn renew(&mut self) -> Result<usize, Error> {
        let mut apps: Vec<AppNo> = self.next.keyring.keys().map(|(app, _)| app).collect();
        apps.sort_unstable();
        apps.dedup();
        for app in &apps {
            let row = self.vault.make(&mut self.next.keyring, *app)?;
            self.data_key(&row)?;
        }
        Ok(apps.len())
    }

    /// Writes rows again as they are, which seals them. The scheduler need not hear of it.
    fn reseal(&mut self, rows: &[(ConfigKind, u32)]) -> Result<usize, Error> {
        let mut sealed = 0;
        for (kind, no) in rows {
            let key = no.to_be_bytes().to_vec();
            match kind {
                ConfigKind::Endpoint => {
                    let found = self.next.endpoint(crate::model::EndpointNo(*no)).cloned();
                    if let Some(endpoint) = found {
                        self.row(*kind, key, endpoint.as_ref())?;
                        sealed += 1;
                    }
                }
                ConfigKind::Source => {
                    let found = self.next.source_by_no(crate::model::SourceNo(*no)).cloned();
                    if let Some(source) = found {
                        self.row(*kind, key, source.as_ref())?;
                        sealed += 1;
                    }
                }
                ConfigKind::Application
                | ConfigKind::EventType
                | ConfigKind::ApiKey
                | ConfigKind::Instance
                | ConfigKind::DataKey
                | ConfigKind::Audit => {}
            }
        }
        Ok(sealed)
    }
}
