//! A source: an inbound receiver that turns a provider's webhook into messages of an application.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AppNo, Secret, SourceId, SourceNo};
use crate::base::Timestamp;

/// Where a provider's webhooks come in. What it verifies with is sealed in the store (`vault`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// Its number in this store.
    pub no: SourceNo,
    /// Its public id.
    pub id: SourceId,
    /// The application its messages belong to.
    pub app: AppNo,
    /// A title for people.
    pub name: String,
    /// Id of the provider's manifest.
    pub provider: String,
    /// Refuses everything.
    pub disabled: bool,
    /// What requests are verified with, by the manifest's names; several of one name during a rotation.
    pub secrets: BTreeMap<String, Vec<HeldSecret>>,
    /// Values of the manifest's settings.
    pub settings: BTreeMap<String, String>,
    /// Seconds that a signed time may be off, 30 to 900; `None` = as the manifest says.
    pub tolerance_secs: Option<u16>,
    /// Networks that requests may come from; empty = all.
    pub allowed_ips: Vec<IpNet>,
    /// Event types that get another name: the provider's name to ours.
    pub event_types: BTreeMap<String, String>,
    /// Requests per second; `None` = as the instance says.
    pub rate_per_second: Option<u16>,
    /// What an accepted request is answered; `None` = as the manifest says.
    pub response: Option<SourceResponse>,
    /// The URL registered with the provider, where it is not the gateway's own one (a proxy that
    /// rewrites paths). Signatures that cover the URL are checked against it.
    pub public_url: Option<String>,
    /// Also found at `/webhooks/{provider}/`. One source of a provider at most.
    pub is_shared: bool,
    /// The provider's account ids and the applications their events go to, for a shared source.
    pub accounts: BTreeMap<String, AppNo>,
    /// SHA-256 of the token in its URL.
    pub token: [u8; 32],
    /// Rotated tokens that still lead to it.
    pub old_tokens: Vec<OldToken>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// When it was deleted: its URL leads nowhere then.
    pub deleted: Option<Timestamp>,
}

/// A secret with the end of its life.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldSecret {
    /// The secret.
    pub secret: Secret,
    /// From here on it is not used any more; `None` = no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// A rotated token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldToken {
    /// SHA-256 of it.
    pub token: [u8; 32],
    /// From here on it leads nowhere.
    pub expires: Timestamp,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceResponse {
    /// HTTP status, 200 to 299.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

impl Source {
    /// The secrets of a name that are alive at `now`, newest first.
    pub fn secrets_of<'a>(
        &'a self,
        name: &str,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Secret> {
        let held = self.secrets.get(name).into_iter().flatten();
        held.filter(move |held| held.expires.is_none_or(|end| now < end))
            .map(|held| &held.secret)
    }

    /// Every token hash that may lead here, with the end of its life.
    pub fn tokens(&self) -> impl Iterator<Item = (&[u8; 32], Option<Timestamp>)> {
        let old = self.old_tokens.iter();
        std::iter::once((&self.token, None)).chain(old.map(|old| (&old.token, Some(old.expires))))
    }
}
